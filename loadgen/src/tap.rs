//! A tap on a device's network: every byte that it receives is searched for canaries. The client library
//! drops what it should not have been sent, so a leak would not show in what a device surfaces.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use protocol::{ConversationId, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    canary,
    history::{DeviceId, Recorder, What},
};

/// A network whose incoming bytes are searched. Each token is recorded once for each device.
#[derive(Debug, Clone)]
pub struct Tap<N> {
    net: N,
    ear: Arc<Ear>,
    valve: Valve,
}

/// Shut, nothing is taken from the connection: a client that is slow to read. Cheap to clone: all clones are
/// one valve.
#[derive(Debug, Clone, Default)]
pub struct Valve(Arc<Mutex<Flow>>);

/// Whether something flows through a valve.
#[derive(Debug, Default)]
struct Flow {
    shut: bool,
    /// Of whoever wants to read meanwhile: a device has one connection at a time.
    waiting: Option<Waker>,
}

impl Valve {
    /// Nothing flows from now on.
    pub fn shut(&self) {
        self.flow().shut = true;
    }

    /// All flows.
    pub fn open(&self) {
        let mut flow = self.flow();
        flow.shut = false;
        let waiting = flow.waiting.take();
        drop(flow);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut flow = self.flow();
        if !flow.shut {
            return Poll::Ready(());
        }
        flow.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        // Its fields are valid at any point of a writer.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open connection of a [`Tap`].
#[derive(Debug)]
pub struct TappedStream<S> {
    stream: S,
    ear: Arc<Ear>,
    scanner: canary::Scanner,
    valve: Valve,
}

#[derive(Debug)]
struct Ear {
    device: DeviceId,
    recorder: Recorder,
    heard: Mutex<BTreeSet<ConversationId>>,
}

impl<N> Tap<N> {
    /// Taps the network of a device.
    pub fn new(net: N, device: DeviceId, recorder: Recorder) -> Self {
        let ear = Arc::new(Ear { device, recorder, heard: Mutex::default() });
        Self { net, ear, valve: Valve::default() }
    }

    /// With a valve that somebody else holds.
    #[must_use]
    pub fn with_valve(self, valve: Valve) -> Self {
        Self { valve, ..self }
    }

    fn tapped<S>(&self, stream: S) -> TappedStream<S> {
        TappedStream {
            stream,
            ear: Arc::clone(&self.ear),
            scanner: canary::Scanner::default(),
            valve: self.valve.clone(),
        }
    }
}

impl Ear {
    fn hear(&self, conv: ConversationId) {
        // A token is in it or not, at any point of a writer.
        let new = self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(conv);
        if new {
            self.recorder.record(What::Canary { device: self.device, conv });
        }
    }
}

impl<N: Net> Net for Tap<N> {
    type Listener = N::Listener;
    type Stream = TappedStream<N::Stream>;

    async fn bind(&self, addr: &str) -> io::Result<Self::Listener> {
        self.net.bind(addr).await
    }

    fn local_addr(&self, on: &Self::Listener) -> io::Result<SocketAddr> {
        self.net.local_addr(on)
    }

    async fn accept(&self, on: &Self::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        let (stream, peer) = self.net.accept(on).await?;
        Ok((self.tapped(stream), peer))
    }

    async fn connect(&self, addr: &str) -> io::Result<Self::Stream> {
        Ok(self.tapped(self.net.connect(addr).await?))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TappedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.valve.poll(cx));
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.scanner.scan(&buf.filled()[before..], |conv| this.ear.hear(conv));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TappedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::history::Bounds;

    #[tokio::test]
    async fn a_valve_stops_what_comes_in_only() {
        let (near, mut far) = duplex(64);
        let recorder = Recorder::new(Bounds::default());
        let valve = Valve::default();
        let device = recorder.fresh_device();
        let tap = Tap::new(protocol::Tcp, device, recorder).with_valve(valve.clone());
        let mut stream = tap.tapped(near);
        valve.shut();
        far.write_all(b"later").await.unwrap();
        stream.write_all(b"now").await.unwrap();
        let mut out = [0; 3];
        far.read_exact(&mut out).await.unwrap();
        assert_eq!(&out, b"now");
        let tracker = TaskTracker::new();
        let mut reading = tracker.spawn(async move {
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.map(|_| bytes)
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!reading.is_finished());
        valve.open();
        assert_eq!(&(&mut reading).await.unwrap().unwrap(), b"later");
    }
}
