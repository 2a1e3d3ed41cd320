//! A tap on a device's network: every byte that it receives is searched for canaries. The client library
//! drops what it should not have been sent, so a leak would not show in what a device surfaces.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
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
}

/// An open connection of a [`Tap`].
#[derive(Debug)]
pub struct TappedStream<S> {
    stream: S,
    ear: Arc<Ear>,
    scanner: canary::Scanner,
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
        Self { net, ear: Arc::new(Ear { device, recorder, heard: Mutex::default() }) }
    }

    fn tapped<S>(&self, stream: S) -> TappedStream<S> {
        TappedStream { stream, ear: Arc::clone(&self.ear), scanner: canary::Scanner::default() }
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
