//! The network seam over turmoil's: every byte leaves its mark in the trace, and reads, writes and wake-ups come in seeded pieces and orders.
//!
//! turmoil runs tasks in one fixed order; a task that gives way before it reads lets others go first. So the orders
//! that a real scheduler may choose are explored, seed by seed.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use loadgen::rng::Rng;
use protocol::Net;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use turmoil::net::{TcpListener, TcpStream};

use crate::trace::{Direction, Trace, What};

/// How restless the network is, in parts of a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restless {
    /// A read or write lets other tasks go first.
    pub yields: u16,
    /// A read is delayed, by up to [`delay_ms_max`](Self::delay_ms_max).
    pub delays: u16,
    /// The longest delay.
    pub delay_ms_max: u16,
    /// A read or write is for a part of the bytes only.
    pub splits: u16,
}

/// The connections of a host that is being stopped.
///
/// tokio drops the tasks of a runtime in an order that depends on how many tasks the whole process has had before (their numbers choose among
/// a few lists). Dropping a connection sends its end to the peer, so that order would show. While a host is being stopped, its connections are kept instead, and
/// dropped in the order of their names when its software is gone.
#[derive(Debug, Clone, Default)]
pub struct Estate(Arc<Mutex<Left>>);

#[derive(Debug, Default)]
struct Left {
    stopping: bool,
    streams: BTreeMap<Direction, TcpStream>,
}

impl Estate {
    /// Says whether the host is being stopped.
    pub fn stopping(&self, stopping: bool) {
        self.left().stopping = stopping;
    }

    /// Drops what was kept. To be called where the host is the current one.
    pub fn settle(&self, host: &Arc<str>, trace: &Trace) {
        let streams = std::mem::take(&mut self.left().streams);
        for (direction, stream) in streams {
            trace.note(host, What::Dropped(direction));
            drop(stream);
        }
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        // Valid at any point of a writer.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One host's network.
#[derive(Clone)]
pub struct SimNet {
    estate: Estate,
    host: Arc<str>,
    trace: Trace,
    restless: Restless,
    rng: Arc<Mutex<Rng>>,
}

/// A connection's end on a host.
pub struct SimStream {
    /// Absent only while it is dropped.
    inner: Option<TcpStream>,
    estate: Estate,
    host: Arc<str>,
    trace: Trace,
    restless: Restless,
    rng: Rng,
    out: Direction,
    back: Direction,
    sent: u64,
    received: u64,
    ended: bool,
    delay: Option<Pin<Box<Sleep>>>,
    /// The last poll gave way: the next one goes on.
    gave_way: bool,
}

impl SimNet {
    /// The network of a host.
    pub fn new(host: &Arc<str>, seed: u64, restless: Restless, trace: &Trace, estate: &Estate) -> Self {
        Self {
            estate: estate.clone(),
            host: Arc::clone(host),
            trace: trace.clone(),
            restless,
            rng: Arc::new(Mutex::new(Rng::new(seed))),
        }
    }

    fn stream(&self, inner: TcpStream, local: Arc<str>, peer: Arc<str>) -> SimStream {
        let rng = Rng::new(self.rng().number());
        SimStream {
            inner: Some(inner),
            estate: self.estate.clone(),
            host: Arc::clone(&self.host),
            trace: self.trace.clone(),
            restless: self.restless,
            rng,
            out: (Arc::clone(&local), Arc::clone(&peer)),
            back: (peer, local),
            sent: 0,
            received: 0,
            ended: false,
            delay: None,
            gave_way: false,
        }
    }

    fn rng(&self) -> MutexGuard<'_, Rng> {
        // A number is valid at any point of a writer.
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address by the name of its host.
fn named(addr: SocketAddr) -> Arc<str> {
    match turmoil::reverse_lookup(addr.ip()) {
        Some(host) => format!("{host}:{}", addr.port()).into(),
        None => addr.to_string().into(),
    }
}

impl Net for SimNet {
    type Listener = TcpListener;
    type Stream = SimStream;

    async fn bind(&self, addr: &str) -> io::Result<TcpListener> {
        TcpListener::bind(addr).await
    }

    fn local_addr(&self, on: &TcpListener) -> io::Result<SocketAddr> {
        on.local_addr()
    }

    async fn accept(&self, on: &TcpListener) -> io::Result<(SimStream, SocketAddr)> {
        let (stream, peer) = on.accept().await?;
        let stream = self.stream(stream, named_local(&self.host, on), named(peer));
        self.trace.note(&self.host, What::Accepted(stream.out.clone()));
        Ok((stream, peer))
    }

    async fn connect(&self, addr: &str) -> io::Result<SimStream> {
        let connected = TcpStream::connect(addr).await;
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) => {
                self.trace.note(&self.host, What::Refused(addr.to_owned()));
                return Err(error);
            }
        };
        let (local, peer) = (named(stream.local_addr()?), named(stream.peer_addr()?));
        let stream = self.stream(stream, local, peer);
        self.trace.note(&self.host, What::Connected(stream.out.clone()));
        Ok(stream)
    }
}

fn named_local(host: &str, on: &TcpListener) -> Arc<str> {
    let port = on.local_addr().map_or(0, |addr| addr.port());
    format!("{host}:{port}").into()
}

impl SimStream {
    fn happens(&mut self, permille: u16) -> bool {
        permille > 0 && self.rng.chance(u64::from(permille), 1000)
    }

    /// Whether this poll is to give way to other tasks.
    fn gives_way(&mut self, cx: &mut Context<'_>) -> bool {
        if std::mem::take(&mut self.gave_way) || !self.happens(self.restless.yields) {
            return false;
        }
        self.gave_way = true;
        cx.waker().wake_by_ref();
        true
    }

    /// How many of so many bytes are read or written at once.
    fn piece(&mut self, of: usize) -> usize {
        if of > 1 && self.happens(self.restless.splits) {
            1 + self.rng.below(of as u64 - 1) as usize
        } else {
            of
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(delay) = &mut this.delay {
            ready!(delay.as_mut().poll(cx));
            this.delay = None;
        } else if this.happens(this.restless.delays) {
            let ms = 1 + this.rng.below(u64::from(this.restless.delay_ms_max.max(1)));
            let mut delay = Box::pin(tokio::time::sleep(Duration::from_millis(ms)));
            if delay.as_mut().poll(cx).is_pending() {
                this.delay = Some(delay);
                return Poll::Pending;
            }
        }
        if this.gives_way(cx) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let (all, most) = (buf.remaining(), this.piece(buf.remaining()));
        let result = if most < all {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
            let result = ready!(Pin::new(inner(&mut this.inner)?).poll_read(cx, &mut part));
            let read = part.filled().len();
            buf.advance(read);
            result
        } else {
            ready!(Pin::new(inner(&mut this.inner)?).poll_read(cx, buf))
        };
        let bytes = &buf.filled()[before..];
        match &result {
            Ok(()) if !bytes.is_empty() => {
                this.trace.note(&this.host, What::Received(this.back.clone(), this.received, bytes.to_vec()));
                this.received += bytes.len() as u64;
            }
            ended if !this.ended => {
                this.ended = true;
                let why = ended.as_ref().map_or_else(|error| error.kind().to_string(), |()| "closed".into());
                this.trace.note(&this.host, What::Ended(this.back.clone(), why));
            }
            _ => {}
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.gives_way(cx) {
            return Poll::Pending;
        }
        let most = this.piece(buf.len());
        let result = ready!(Pin::new(inner(&mut this.inner)?).poll_write(cx, &buf[..most]));
        if let Ok(written) = result {
            this.trace.note(&this.host, What::Sent(this.out.clone(), this.sent, buf[..written].to_vec()));
            this.sent += written as u64;
        }
        Poll::Ready(result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(inner(&mut self.get_mut().inner)?).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(inner(&mut self.get_mut().inner)?).poll_shutdown(cx)
    }
}

/// The connection under a stream.
fn inner(stream: &mut Option<TcpStream>) -> io::Result<&mut TcpStream> {
    stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut left = self.estate.left();
        if left.stopping {
            left.streams.extend(self.inner.take().map(|stream| (self.out.clone(), stream)));
            return;
        }
        drop(left);
        self.trace.note(&self.host, What::Dropped(self.out.clone()));
    }
}
