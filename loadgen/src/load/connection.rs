//! A lean shell around the client library's session machine: the machine of every client, without the queues that
//! an application's handles need.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use client::{Config, DisconnectReason, Event, Reply, RequestError, TlsPeer, TlsStream, session::Session};
use protocol::{LineDecoder, Request};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    time::{Instant, Sleep, sleep_until, timeout},
};

/// Bytes read at once; on the stack, so that an idle connection holds none.
const READ_BYTES: usize = 16 * 1024;
/// A timer that is not needed is set so far ahead.
const FAR: Duration = Duration::from_secs(3600);

/// Where a connection goes to, and from where.
#[derive(Clone)]
pub(super) struct Route {
    /// The node or the balancer.
    pub(super) target: SocketAddr,
    /// The source address, if it matters: each has about 28,000 ports for one target.
    pub(super) source: Option<IpAddr>,
    /// Who has to be there, if TLS is to be spoken.
    pub(super) tls: Option<Arc<TlsPeer>>,
}

/// One client. `K` is what its owner knows a request by.
///
/// The owner calls [`Self::turn`] again and again, and takes all outcomes and events after each.
pub(super) struct Connection<K> {
    session: Session<K>,
    route: Route,
    connect_timeout: Duration,
    link: Link,
    began: Instant,
    timer: Pin<Box<Sleep>>,
}

enum Link {
    Down,
    Dialing(Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>),
    Up {
        stream: Stream,
        decoder: LineDecoder,
        /// Whether the network has all that the stream took.
        flushed: bool,
    },
}

/// Plain, or over TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl<K> Connection<K> {
    /// A client that connects at its first turn.
    pub(super) fn new(route: Route, config: Config, seed: u64) -> Self {
        let connect_timeout = config.connect_timeout;
        let began = Instant::now();
        Self {
            session: Session::new(config, seed),
            route,
            connect_timeout,
            link: Link::Down,
            began,
            timer: Box::pin(sleep_until(began + FAR)),
        }
    }

    /// Asks; the outcome comes out under `key`.
    pub(super) fn ask(&mut self, request: Request, key: K) {
        let now = self.began.elapsed();
        self.session.ask(now, request, key);
    }

    /// Takes an outcome.
    pub(super) fn next_done(&mut self) -> Option<(K, Result<Reply, RequestError>)> {
        self.session.next_done()
    }

    /// Takes an event.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.session.next_event()
    }

    /// Entries that the machine dropped because they had come before.
    pub(super) fn duplicates(&self) -> u64 {
        self.session.duplicates()
    }

    /// Breaks the connection off as a network does; the machine makes another one.
    pub(super) fn cut(&mut self) {
        self.link = Link::Down;
        self.session.disconnected(self.began.elapsed(), DisconnectReason::Lost("cut on purpose".into()));
    }

    /// Returns when something has happened, or the time has come. Cancel-safe.
    pub(super) async fn turn(&mut self, until: Option<Instant>) {
        poll_fn(|cx| self.poll(cx, until)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>, until: Option<Instant>) -> Poll<()> {
        if self.poll_link(cx).is_ready() {
            self.obey();
            return Poll::Ready(());
        }
        loop {
            let dial_at = if matches!(self.link, Link::Down) { self.session.dial_at() } else { None };
            let own = [dial_at, self.session.deadline()].into_iter().flatten().min();
            let own = own.and_then(|at| self.began.checked_add(at));
            let Some(wanted) = [own, until].into_iter().flatten().min() else { return Poll::Pending };
            let now = Instant::now();
            if wanted <= now {
                if own.is_some_and(|at| at <= now) {
                    self.tick(now);
                    self.obey();
                }
                return Poll::Ready(());
            }
            // A timer that goes off too early costs less than one that is set anew for every message.
            if self.timer.deadline() > wanted || self.timer.is_elapsed() {
                self.timer.as_mut().reset(wanted);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// The machine may want to be rid of the connection.
    fn obey(&mut self) {
        if let Some(reason) = self.session.hang_up() {
            self.link = Link::Down;
            self.session.disconnected(self.began.elapsed(), reason);
        }
    }

    fn tick(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began);
        if matches!(self.link, Link::Down) && self.session.dial_at().is_some_and(|at| at <= elapsed) {
            let (route, limit) = (self.route.clone(), self.connect_timeout);
            self.link = Link::Dialing(Box::pin(async move {
                timeout(limit, dial(route)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }));
        }
        self.session.tick(elapsed);
    }

    /// Ready when something has come of it.
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let outcome = match &mut self.link {
            Link::Down => return Poll::Pending,
            Link::Dialing(attempt) => match attempt.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(stream)) => {
                    self.session.connected(self.began.elapsed());
                    let decoder = LineDecoder::new(self.session.line_bytes_max());
                    self.link = Link::Up { stream, decoder, flushed: true };
                    return Poll::Ready(());
                }
                Poll::Ready(Err(error)) => Err(DisconnectReason::Connect(error.to_string())),
            },
            Link::Up { stream, decoder, flushed } => {
                let moved = match stream {
                    Stream::Plain(stream) => {
                        move_bytes(&mut self.session, stream, decoder, flushed, self.began, cx)
                    }
                    Stream::Tls(stream) => {
                        move_bytes(&mut self.session, stream, decoder, flushed, self.began, cx)
                    }
                };
                match moved {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(moved) => moved.map_err(|error| DisconnectReason::Lost(error.to_string())),
                }
            }
        };
        if let Err(reason) = outcome {
            self.link = Link::Down;
            self.session.disconnected(self.began.elapsed(), reason);
        }
        Poll::Ready(())
    }
}

/// Reads once, hands the lines over, and writes once.
fn move_bytes<K, S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session<K>,
    stream: &mut S,
    decoder: &mut LineDecoder,
    flushed: &mut bool,
    began: Instant,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut moved = false;
    let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
    let mut bytes = ReadBuf::uninit(&mut bytes);
    match Pin::new(&mut *stream).poll_read(cx, &mut bytes) {
        Poll::Ready(Ok(())) if bytes.filled().is_empty() => {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(Ok(())) => {
            decoder.push(bytes.filled());
            let now = began.elapsed();
            while let Some(line) = decoder.next_line() {
                match line {
                    Ok(line) => session.line(now, line),
                    Err(_) => session.line_too_long(),
                }
                // The greeting may have changed it.
                decoder.set_limit(session.line_bytes_max());
            }
            moved = true;
        }
        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
        Poll::Pending => {}
    }
    if !session.outgoing().is_empty() {
        match Pin::new(&mut *stream).poll_write(cx, session.outgoing()) {
            Poll::Ready(Ok(count)) if count > 0 => {
                session.written(began.elapsed(), count);
                *flushed = false;
                moved = true;
            }
            // Shown again by the next attempt, when there is nothing left to read.
            Poll::Ready(_) if moved => {}
            Poll::Ready(Ok(_)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {}
        }
    }
    if !*flushed && session.outgoing().is_empty() {
        match Pin::new(stream).poll_flush(cx) {
            Poll::Ready(Ok(())) => *flushed = true,
            // As for writing.
            Poll::Ready(Err(error)) if !moved => return Poll::Ready(Err(error)),
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
    }
    if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
}

async fn dial(route: Route) -> io::Result<Stream> {
    let socket = if route.target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = route.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(route.target).await?;
    stream.set_nodelay(true)?;
    match route.tls {
        None => Ok(Stream::Plain(stream)),
        Some(peer) => Ok(Stream::Tls(peer.shake_hands(stream).await?)),
    }
}
