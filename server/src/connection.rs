//! A connection: one task that reads, writes, and drives a session.
//!
//! It selects over a closed set of events (`Event`). Requests are taken one line after the other: a `send` is handed to the committer
//! and not waited for; any other command runs to its end before the next line is looked at. Replies and pushes are gathered
//! into one buffer, which is refilled when the socket has taken it: so what a slow reader does not take is never made.

mod ending;
mod io;
mod proxy;
mod requests;
mod transport;
mod work;

use std::{collections::VecDeque, future::poll_fn, net::IpAddr, sync::Arc, task::Poll, time::Duration};

use protocol::{
    ErrorBody, ErrorCode, LineDecoder, Push, Request, RequestId, Token,
    message::{ClosingCode, Cursors, PROTOCOL_VERSION, ParseRequestError, write_error, write_push},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use tracing::{Instrument as _, Span, debug, debug_span, warn};

#[cfg(any(test, fuzzing))]
pub use self::proxy::fuzz as proxy_fuzz;
use self::{
    ending::{Closing, Stuck},
    io::{Socket, exchange},
    transport::Transport,
    work::Work,
};
use crate::{
    backlog::Share,
    commands::{self, Effect, Opened, Reply},
    listener::refuse,
    metrics::Metrics,
    node::{Node, NodeConfig},
    outbox::Peer,
    session::Need,
    sizes::Sizes,
    store,
    throttle::{Pace, Visitor},
};

/// Within which a balancer sends its PROXY header: at once, but for the network.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bad lines before a login after which the connection ends.
const BAD_LINES_MAX: u32 = 10;
/// How long a client of a draining node should wait before it connects again, at least and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(400));

/// The most bytes that wait for a socket (SPEC.md, section 8): pushes and the line that passes their bound, a page that was read
/// meanwhile, whose every byte may be escaped to six, a reply, and what is told of every friend.
pub fn outbox_bytes_max(config: &NodeConfig) -> usize {
    let line = config.limits.server_frame_bytes_max;
    let Sizes { page_entries_max, page_bytes_max, outbox_bytes, .. } = config.sizes;
    let page = 6 * (page_bytes_max + config.limits.text_bytes_max) + page_entries_max * FRAMING_BYTES;
    let friends = usize::try_from(config.bounds.friends_per_user_max).unwrap_or(usize::MAX);
    (outbox_bytes + 2 * line + page).saturating_add(friends.saturating_mul(FRAMING_BYTES))
}

/// What is around a text in its line, and any line without one, at most: numbers, a message id, and a name of 32 characters.
const FRAMING_BYTES: usize = 512;

type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + std::marker::Send>>;

/// What a connection waits for.
enum Event {
    Draining,
    Command(Effect),
    Work(Work),
    Checked(store::Result<bool>),
    Socket(Socket),
    Letters,
    Crowded,
    Timer,
}

/// Who is at the other end.
enum State {
    Anonymous,
    /// A resume whose cursors are still coming.
    Resuming(Box<(Token, Cursors)>),
    Session(Box<Opened>),
}

/// There are as many as there are clients, and most are idle: what few of them need at a time is apart, in boxes.
struct Connection<S> {
    node: Arc<Node>,
    stream: Transport<S>,
    /// Which connection of the node it is.
    number: u64,
    /// The client's.
    address: IpAddr,
    decoder: LineDecoder,
    /// What waits for the socket.
    out: Vec<u8>,
    /// How much of it was taken.
    out_taken: usize,
    /// Whether the socket has all that was taken.
    flushed: bool,
    state: State,
    /// Requests without a reply.
    in_flight: usize,
    command: Option<BoxFuture<Effect>>,
    work: Option<BoxFuture<Work>>,
    /// Whether the session's token is still valid.
    check: Option<BoxFuture<store::Result<bool>>>,
    needs: VecDeque<Need>,
    visitor: Arc<Visitor>,
    _counted: Counted,
    /// What is held for the client, among all that the node holds.
    share: Share,
    /// Of the session's requests.
    pace: Pace,
    /// Until when no request is taken, since they came too fast; and the one whose time comes then.
    paused: Option<Instant>,
    parked: Option<Box<Parsed>>,
    bad_lines: u32,
    /// Whether the client will send no more.
    eof: bool,
    /// No more requests are taken; the connection ends when all is answered and written.
    closing: Option<Box<Closing>>,
    started: Instant,
    heard: Instant,
    /// Since when it is to be seen whether the client is there: until it is heard.
    probed: Option<Instant>,
    /// Of the session, once there is one, if anybody wants to know.
    span: Option<Box<Span>>,
    /// Since when the socket has not taken enough.
    stuck: Option<Box<Stuck>>,
}

/// A request with its id, or what is wrong with the line.
type Parsed = Result<(Option<RequestId>, Request), ParseRequestError>;

/// Serves a connection to its end.
///
/// It comes from `peer`, which is the client or a balancer that says who that is; it is the node's connection of this `number`.
pub fn serve<S>(
    node: Arc<Node>,
    stream: S,
    peer: IpAddr,
    number: u64,
) -> impl Future<Output = ()> + std::marker::Send
where
    S: AsyncRead + AsyncWrite + Unpin + std::marker::Send + 'static,
{
    // Apart, so that a connection does not keep room for how it began.
    let opening = Box::pin(open(node, stream, peer, number));
    async move {
        let Some(mut connection) = opening.await else { return };
        connection.greet();
        let reason = connection.run().await;
        debug!(%reason, "disconnected");
        connection.stream.end().await;
    }
}

/// A connection that is admitted, and has begun as it has to.
async fn open<S>(node: Arc<Node>, mut stream: S, peer: IpAddr, number: u64) -> Option<Connection<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (address, rest) = client_address(&node, &mut stream, peer).await?;
    let Some(visitor) = node.throttle.admit(address) else {
        node.metrics.connection_refused("address_full");
        debug!("too many connections from this address");
        refuse(&node, &mut stream).await;
        return None;
    };
    let counted = Counted::new(&node.metrics);
    let started = Instant::now();
    let mut decoder = LineDecoder::new(node.config.limits.anonymous_frame_bytes_max);
    let stream = match &node.config.tls {
        None => {
            decoder.push(&rest);
            Transport::Plain(stream)
        }
        Some(tls) => {
            let deadline = started + node.config.login_timeout;
            Transport::begin(&node, tls.acceptor(), stream, rest, deadline).await?
        }
    };
    let now = Instant::now();
    Some(Connection {
        number,
        address,
        visitor: Arc::new(visitor),
        _counted: counted,
        share: node.backlog.share(),
        pace: Pace::new(now),
        paused: None,
        parked: None,
        decoder,
        node,
        stream,
        out: Vec::new(),
        out_taken: 0,
        flushed: true,
        state: State::Anonymous,
        in_flight: 0,
        command: None,
        work: None,
        check: None,
        needs: VecDeque::new(),
        bad_lines: 0,
        eof: false,
        closing: None,
        started,
        heard: now,
        probed: None,
        span: None,
        stuck: None,
    })
}

/// Who is at the other end: `peer`, or whom the balancer there names in its PROXY header; and what comes after the header.
/// `None`: it does not begin as it has to.
async fn client_address<S: AsyncRead + Unpin>(
    node: &Node,
    stream: &mut S,
    peer: IpAddr,
) -> Option<(IpAddr, Vec<u8>)> {
    if !node.config.proxy_protocol {
        debug!("connected");
        return Some((peer, Vec::new()));
    }
    let balancer = peer.to_canonical();
    if !node.config.proxies.iter().any(|net| net.contains(&balancer)) {
        node.metrics.connection_refused("not_a_balancer");
        warn!("not one of the balancers: refused");
        return None;
    }
    let why = match timeout(PROXY_TIMEOUT, proxy::read_header(stream)).await {
        Ok(Ok((client, rest))) => {
            debug!(client = client.map(tracing::field::display), "connected through a proxy");
            return Some((client.map_or(peer, |client| client.ip()), rest));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no PROXY header in time".into(),
    };
    node.metrics.connection_refused("no_proxy_header");
    debug!(why, "refused");
    None
}

/// Counts a connection, and its end, however it comes.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// What is done beside the connection's other events; its log lines are of what it was begun for.
fn in_background<T>(work: impl Future<Output = T> + std::marker::Send + 'static) -> BoxFuture<T> {
    Box::pin(work.in_current_span())
}

/// The future's value, or nothing for ever.
fn unless_none<T>(future: &mut Option<BoxFuture<T>>) -> impl Future<Output = T> {
    poll_fn(|cx| future.as_mut().map_or(Poll::Pending, |future| future.as_mut().poll(cx)))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn greet(&mut self) {
        let push = Push::Hello {
            protocol: PROTOCOL_VERSION,
            server: concat!("chatserver ", env!("CARGO_PKG_VERSION")).into(),
            limits: self.node.config.limits.clone(),
        };
        write_push(&mut self.out, &push);
    }

    async fn run(&mut self) -> String {
        let node = Arc::clone(&self.node);
        let (drained, timer) = (node.draining.cancelled(), sleep_until(self.deadline()));
        tokio::pin!(drained, timer);
        loop {
            let reading = self.wants_requests();
            let told_to_drain = self.closing.is_some();
            let outbox = match &self.state {
                State::Session(opened) => Some(&opened.outbox),
                _ => None,
            };
            let mut crowded = self.share.ended();
            // Biased: what makes room comes before what takes it.
            let event = tokio::select! {
                biased;
                () = &mut drained, if !told_to_drain => Event::Draining,
                effect = unless_none(&mut self.command) => Event::Command(effect),
                valid = unless_none(&mut self.check) => Event::Checked(valid),
                work = unless_none(&mut self.work) => Event::Work(work),
                () = poll_fn(|cx| outbox.map_or(Poll::Pending, |outbox| outbox.poll_filled(cx))) => Event::Letters,
                done = exchange(
                    &mut self.stream,
                    &self.out,
                    &mut self.out_taken,
                    &mut self.flushed,
                    reading.then_some(&mut self.decoder),
                ) => Event::Socket(done),
                () = unless_none(&mut crowded) => Event::Crowded,
                () = &mut timer => Event::Timer,
            };
            let (timed, sooner) = (matches!(event, Event::Timer), (self.probed, self.paused));
            let reason = match self.span.clone() {
                None => self.turn(event),
                Some(span) => span.in_scope(|| self.turn(event)),
            };
            if let Some(reason) = reason {
                return reason;
            }
            if timed || (self.probed, self.paused) != sooner {
                timer.as_mut().reset(self.deadline());
            }
        }
    }

    /// Does all that follows from an event; returns why the connection ends, if it does.
    fn turn(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Draining => {
                let pause = RECONNECT.0 + self.node.entropy.jitter(RECONNECT.1 - RECONNECT.0);
                self.close(ClosingCode::GoingAway, Some(pause));
            }
            Event::Command(effect) => {
                self.command = None;
                self.finish_command(effect);
            }
            Event::Work(work) => {
                self.work = None;
                self.finish_work(work);
            }
            Event::Checked(valid) => {
                self.check = None;
                self.finish_check(valid);
            }
            Event::Letters => {}
            Event::Crowded => {
                return Some(self.cut_off("the node holds too much, and has held this for longest"));
            }
            Event::Socket(Socket::Wrote) => self.wrote(),
            Event::Socket(Socket::Read) => (self.heard, self.probed) = (Instant::now(), None),
            Event::Socket(Socket::Eof) => self.eof = true,
            Event::Socket(Socket::Failed(error)) => return Some(error.to_string()),
            Event::Timer => {
                if let Some(reason) = self.tick() {
                    return Some(reason);
                }
            }
        }
        self.take_letters();
        self.take_requests();
        self.refill();
        self.start_work();
        self.weigh();
        let reason = |closing: &Closing| format!("{:?}", closing.code);
        self.is_over().then(|| self.closing.as_deref().map_or("the client hung up".into(), reason))
    }

    // --- Reading ---

    /// Whether the next line would be looked at.
    fn takes_requests(&self) -> bool {
        self.closing.is_none()
            && self.command.is_none()
            && self.paused.is_none()
            && self.in_flight < self.node.config.limits.requests_in_flight_max
            // Replies that the client does not read count as outstanding.
            && self.out.len() - self.out_taken <= self.node.config.sizes.outbox_bytes
    }

    fn wants_requests(&self) -> bool {
        self.takes_requests() && !self.eof
    }

    fn take_requests(&mut self) {
        while self.takes_requests() {
            let Some(parsed) = self.next_request() else { return };
            match parsed {
                Ok((id, request)) => self.take_request(id, request),
                Err(ParseRequestError { id, error }) => {
                    self.node.metrics.refusal(error.code);
                    write_error(&mut self.out, id, &error);
                    self.bad_lines += 1;
                    if matches!(self.state, State::Anonymous) && self.bad_lines >= BAD_LINES_MAX {
                        self.close(ClosingCode::TooManyErrors, None);
                    }
                }
            }
        }
    }

    /// The next request whose time has come.
    fn next_request(&mut self) -> Option<Parsed> {
        if let Some(parked) = self.parked.take() {
            return Some(*parked);
        }
        let parsed = match self.decoder.next_line()? {
            Ok(line) => Request::parse(line),
            Err(_) => Err(ParseRequestError { id: None, error: Box::new(ErrorCode::FrameTooLong.into()) }),
        };
        let wait = match &self.state {
            State::Session(_) => Ok(self.pace.take(self.node.throttle.session_requests(), Instant::now())),
            _ => self.visitor.request(),
        };
        let wait = match wait {
            Ok(wait) => wait,
            Err(wait) => {
                let id = parsed.map_or_else(|error| error.id, |(id, _)| id);
                return Some(Err(ParseRequestError { id, error: Box::new(ErrorBody::rate_limited(wait)) }));
            }
        };
        if wait.is_zero() {
            return Some(parsed);
        }
        let whose = if matches!(self.state, State::Session(_)) { "session" } else { "address" };
        self.node.metrics.pause(whose);
        (self.paused, self.parked) = (Some(Instant::now() + wait), Some(Box::new(parsed)));
        None
    }

    // --- Outcomes ---

    fn finish_command(&mut self, effect: Effect) {
        match effect {
            Effect::Reply(reply) => self.answer(&reply),
            Effect::Resuming(reply, token, cursors) => {
                self.answer(&reply);
                self.decoder.set_limit(self.node.config.limits.frame_bytes_max);
                self.state = State::Resuming(Box::new((token, cursors)));
            }
            Effect::Opened(reply, opened) => {
                self.answer(&reply);
                self.decoder.set_limit(self.node.config.limits.frame_bytes_max);
                let span = debug_span!("session", user = %opened.who.user);
                span.in_scope(|| debug!("opened"));
                self.span = (!span.is_disabled()).then(|| Box::new(span));
                let (name, since) = (Arc::clone(&opened.who.name), Instant::now());
                let peer = Peer { connection: self.number, name, address: self.address, since };
                // Nobody has said so before: a session is opened once.
                let _ = opened.outbox.peer.set(peer);
                self.state = State::Session(opened);
            }
            Effect::LoggedOut(reply) => {
                self.answer(&reply);
                self.close(ClosingCode::LoggedOut, None);
            }
        }
    }

    fn answer(&mut self, reply: &Reply) {
        self.out.extend_from_slice(&reply.line);
        if let Some(code) = reply.refused {
            self.node.metrics.refusal(code);
        }
    }

    fn take_letters(&mut self) {
        let State::Session(opened) = &mut self.state else { return };
        let letters = opened.outbox.take();
        self.in_flight -= letters.replied;
        self.out.extend_from_slice(&letters.replies);
        opened.session.signal(letters.signals);
        if letters.revoked {
            // A look that is under way may have come before the revocation.
            let (node, token) = (Arc::clone(&self.node), opened.token);
            self.check = Some(in_background(async move { commands::is_valid(&node, &token).await }));
        }
        if letters.probe {
            self.probed.get_or_insert_with(Instant::now);
        }
        for inquiry in letters.inquiries {
            // Who asked may have gone.
            let _ = inquiry.answer.send(opened.session.standing(inquiry.conv));
        }
        // Nothing follows the word that closes.
        for user in letters.presence.into_iter().filter(|_| self.closing.is_none()) {
            let state = self.node.registry.presence(user);
            write_push(&mut self.out, &Push::Presence { user, state });
        }
    }

    /// Adds pushes while there is room.
    fn refill(&mut self) {
        let State::Session(opened) = &mut self.state else { return };
        if self.closing.is_some() {
            return;
        }
        if self.out_taken == 0 {
            opened.session.fill(&mut self.out, self.node.config.sizes.outbox_bytes);
        }
        while let Some(need) = opened.session.need() {
            match need {
                Need::Watch(friend) => {
                    opened.watch(friend);
                    let state = self.node.registry.presence(friend);
                    write_push(&mut self.out, &Push::Presence { user: friend, state });
                }
                Need::Unwatch(friend) => opened.unwatch(friend),
                need => self.needs.push_back(need),
            }
        }
    }

    /// Says what waits for the socket, or for the client to go on.
    fn weigh(&mut self) {
        self.share.set(self.out.capacity() + self.decoder.held_bytes());
        if let State::Session(opened) = &self.state {
            opened.outbox.set_unwritten(self.out.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn size_of_future<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle connection is little else than its task.
    #[test]
    fn a_connection_s_task_is_small() {
        let bytes = size_of_future(serve::<TcpStream>);
        assert!(bytes <= 840, "{bytes}");
    }
}
