//! The task that drives the machine: one connection at a time, over any network.

use std::{
    future::{Future, pending, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use protocol::{LineDecoder, Net};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    select,
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use crate::{
    client::{Command, Shared},
    config::Config,
    error::{DisconnectReason, RequestError},
    event::Event,
    reply::Reply,
    session::{Elapsed, Session},
};

/// Bytes read at once. They live on the stack only while they are taken, so that an idle client holds none.
const READ_BYTES: usize = 16 * 1024;

/// Where a request's outcome goes.
type Outcome = oneshot::Sender<Result<Reply, RequestError>>;

/// The task of one client.
pub(crate) struct Driver<N: Net> {
    net: N,
    addr: Arc<str>,
    connect_timeout: Duration,
    started: Instant,
    session: Session<Outcome>,
    link: Link<N::Stream>,
    commands: mpsc::Receiver<Box<Command>>,
    events: mpsc::Sender<Box<Event>>,
    shared: Arc<Shared>,
}

/// The connection.
enum Link<S> {
    Down,
    Dialing(Pin<Box<dyn Future<Output = Result<S, DisconnectReason>> + Send>>),
    Up {
        stream: S,
        decoder: LineDecoder,
        /// Whether the network has all that the stream took: one that encrypts may hold some.
        flushed: bool,
    },
}

/// Everything that can happen to the task.
enum Step<S> {
    /// Nobody needs the client any more.
    Stop,
    /// The application asks.
    Ask(Box<Command>),
    /// The application has shown something.
    Shown,
    /// There is room for an event.
    Room,
    /// An attempt to connect has ended.
    Dialed(Result<S, DisconnectReason>),
    /// Bytes were read or written.
    Moved,
    /// The connection broke.
    Broken(io::Error),
    /// The machine wants to know the time.
    Tick,
}

impl<N: Net> Driver<N> {
    pub(crate) fn new(
        net: N,
        addr: &str,
        config: Config,
        seed: u64,
        commands: mpsc::Receiver<Box<Command>>,
        events: mpsc::Sender<Box<Event>>,
        shared: Arc<Shared>,
    ) -> Self {
        let connect_timeout = config.connect_timeout;
        Self {
            net,
            addr: addr.into(),
            connect_timeout,
            started: Instant::now(),
            session: Session::new(config, seed),
            link: Link::Down,
            commands,
            events,
            shared,
        }
    }

    /// Runs until the client has ended.
    pub(crate) async fn run(mut self) {
        self.started = Instant::now();
        loop {
            self.pump();
            if self.session.is_over() {
                break;
            }
            match self.next().await {
                Step::Stop => break,
                Step::Ask(command) => {
                    // What was shown before this was asked counts.
                    self.take_shown();
                    let Command { request, outcome } = *command;
                    self.session.ask(self.now(), request, outcome);
                }
                Step::Shown => self.take_shown(),
                // Pumping does the rest.
                Step::Room | Step::Moved => {}
                Step::Dialed(Ok(stream)) => {
                    self.session.connected(self.now());
                    let decoder = LineDecoder::new(self.session.line_bytes_max());
                    self.link = Link::Up { stream, decoder, flushed: true };
                }
                Step::Dialed(Err(reason)) => self.disconnected(reason),
                Step::Broken(error) => self.disconnected(DisconnectReason::Lost(plain(&error))),
                Step::Tick => self.tick(),
            }
        }
        self.link = Link::Down;
        self.finish().await;
    }

    fn now(&self) -> Elapsed {
        self.started.elapsed()
    }

    /// Takes complete lines and hands out what the machine has, for as long as somebody takes the events.
    fn pump(&mut self) {
        let now = self.now();
        loop {
            self.hand_out();
            if let Some(reason) = self.session.hang_up() {
                self.disconnected(reason);
                continue;
            }
            let blocked = self.session.has_events();
            self.session.reading(now, !blocked);
            let Link::Up { decoder, .. } = &mut self.link else { return };
            if blocked || self.session.is_over() {
                return;
            }
            match decoder.next_line() {
                Some(Ok(line)) => self.session.line(now, line),
                Some(Err(_)) => self.session.line_too_long(),
                None => return,
            }
            // The greeting may have changed it.
            decoder.set_limit(self.session.line_bytes_max());
        }
    }

    fn hand_out(&mut self) {
        while let Some((outcome, result)) = self.session.next_done() {
            // Whoever asked may have gone.
            let _ = outcome.send(result);
        }
        while let Some(event) = self.session.next_event() {
            // A closed channel means that nobody wants them.
            if let Err(TrySendError::Full(event)) = self.events.try_send(Box::new(event)) {
                self.session.untake(*event);
                return;
            }
        }
    }

    fn take_shown(&mut self) {
        let now = self.now();
        for (conv, seq) in self.shared.take_shown() {
            self.session.shown(now, conv, seq);
        }
    }

    fn disconnected(&mut self, reason: DisconnectReason) {
        debug!(%reason, "disconnected");
        self.link = Link::Down;
        self.session.disconnected(self.now(), reason);
    }

    fn tick(&mut self) {
        let now = self.now();
        if self.session.dial_at().is_some_and(|at| at <= now) && matches!(self.link, Link::Down) {
            let (net, addr, limit) = (self.net.clone(), Arc::clone(&self.addr), self.connect_timeout);
            self.link = Link::Dialing(Box::pin(async move {
                match timeout(limit, net.connect(&addr)).await {
                    Ok(Ok(stream)) => Ok(stream),
                    Ok(Err(error)) => Err(DisconnectReason::Connect(plain(&error))),
                    Err(_) => Err(DisconnectReason::Connect("no answer in time".into())),
                }
            }));
        }
        self.session.tick(now);
    }

    /// Waits for the next thing that happens. Cancel-safe, and so is every branch: what a branch holds stands in the
    /// driver.
    async fn next(&mut self) -> Step<N::Stream> {
        let dial_at = if matches!(self.link, Link::Down) { self.session.dial_at() } else { None };
        let deadline = [dial_at, self.session.deadline()].into_iter().flatten().min();
        let tick = async {
            match deadline.and_then(|at| self.started.checked_add(at)) {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let blocked = self.session.has_events();
        select! {
            () = self.shared.stop.cancelled() => Step::Stop,
            command = self.commands.recv() => command.map_or(Step::Stop, Step::Ask),
            () = self.shared.said.notified() => Step::Shown,
            _ = self.events.reserve(), if blocked => Step::Room,
            step = turn(&mut self.link, &mut self.session, self.started, !blocked) => step,
            () = tick => Step::Tick,
        }
    }

    /// Gives every request its outcome and the application the last events.
    async fn finish(mut self) {
        self.session.finish();
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            let _ = command.outcome.send(Err(RequestError::Closed));
        }
        self.hand_out();
        while let Some(event) = self.session.next_event() {
            select! {
                // Nobody is promised events after closing the client.
                () = self.shared.stop.cancelled() => return,
                sent = self.events.send(Box::new(event)) => if sent.is_err() { return },
            }
        }
    }
}

/// Waits until the attempt to connect has ended, or bytes have moved in one direction.
async fn turn<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    session: &mut Session<Outcome>,
    started: Instant,
    read: bool,
) -> Step<S> {
    match link {
        Link::Down => pending().await,
        Link::Dialing(attempt) => Step::Dialed(attempt.as_mut().await),
        Link::Up { stream, decoder, flushed } => {
            let moved = poll_fn(|cx| {
                let mut stream = Pin::new(&mut *stream);
                let mut moved = false;
                // Reading comes first: a server that has closed may have said why.
                if read {
                    let mut bytes = [0; READ_BYTES];
                    let mut bytes = ReadBuf::new(&mut bytes);
                    match stream.as_mut().poll_read(cx, &mut bytes) {
                        Poll::Ready(Ok(())) if bytes.filled().is_empty() => {
                            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                        }
                        Poll::Ready(Ok(())) => {
                            decoder.push(bytes.filled());
                            moved = true;
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {}
                    }
                }
                if !session.outgoing().is_empty() {
                    match stream.as_mut().poll_write(cx, session.outgoing()) {
                        Poll::Ready(Ok(bytes)) if bytes > 0 => {
                            session.written(started.elapsed(), bytes);
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
                    match stream.poll_flush(cx) {
                        Poll::Ready(Ok(())) => *flushed = true,
                        // As for writing.
                        Poll::Ready(Err(error)) if !moved => return Poll::Ready(Err(error)),
                        Poll::Ready(Err(_)) | Poll::Pending => {}
                    }
                }
                if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
            });
            match moved.await {
                Ok(()) => Step::Moved,
                Err(error) => Step::Broken(error),
            }
        }
    }
}

/// An error of the network in words, where the kind has some, without the system's number.
fn plain(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    match error.kind() {
        kind @ (Kind::ConnectionRefused
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::TimedOut
        | Kind::BrokenPipe
        | Kind::UnexpectedEof) => kind.to_string(),
        _ => error.to_string(),
    }
}
