//! The client's side of the protocol as a machine: inputs and a time in, lines and events out.
//!
//! It owns the requests without a final answer, the session's token and the cursors, over any number of connections one
//! after the other. A shell tells it what happens and does what it says: the one in `connection` for applications, and the
//! load generator's, which holds thousands of them.

mod backoff;
mod incoming;
mod logs;
mod requests;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, mem, time::Duration};

use protocol::{
    ConversationId, ErrorCode, Limits, Request, RequestId, Seq, ServerLine, Token, UserId,
    message::{ClosingCode, Cursors, LoggedIn, Resume, SetCursors},
};
use tracing::warn;

use self::{
    backoff::Jitter,
    logs::Logs,
    requests::{Requests, State},
};
use crate::{
    config::Config,
    error::{DisconnectReason, EndReason, RequestError},
    event::Event,
    reply::Reply,
};

/// The time since the client started.
pub type Elapsed = Duration;

/// The id of every `ping`.
const PING: RequestId = 0;
/// The id of the `ack` before a `logout`.
const ACK: RequestId = 1;
/// The id of the `resume` and the `cursors` after a reconnect; one is on its way at a time.
const RESUME: RequestId = 2;
/// The first id of the application's requests.
const FIRST_REQUEST: RequestId = 16;
/// Above so many bytes to be written, further requests wait in their parsed form.
const OUTGOING_BYTES_MAX: usize = 64 * 1024;
/// The longest line taken from a server, whatever its greeting says.
const SERVER_FRAME_BYTES_CAP: usize = 4 * 1024 * 1024;
/// The shortest idle timeout believed, or a client would do nothing but ping.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_millis(300);
/// How long a server may take to end the connection after it has answered a `logout`.
const LINGER: Duration = Duration::from_secs(2);

/// The machine. `K` is what a caller knows a request by.
///
/// After every input the shell takes all outputs: outcomes, events, [`Self::hang_up`], the bytes of [`Self::outgoing`], and
/// the time of [`Self::deadline`].
#[derive(Debug)]
pub struct Session<K> {
    config: Config,
    jitter: Jitter,
    limits: Limits,
    link: Link,
    identity: Option<Identity>,
    logs: Logs,
    requests: Requests<K>,
    /// The `resume` that the application asked for, while it is going on.
    resume_asked: Option<RequestId>,
    outgoing: Vec<u8>,
    events: VecDeque<Event>,
    done: VecDeque<(K, Result<Reply, RequestError>)>,
    hang_up: Option<DisconnectReason>,
    over: bool,
    /// Connections that failed in a row.
    failures: u32,
    dial_at: Elapsed,
    up_since: Elapsed,
    /// The server's wish, from its `closing`.
    reconnect_after: Option<Duration>,
    /// When the last line was written.
    written_at: Elapsed,
    /// Since when the server owes us a sign of life.
    waiting_since: Option<Elapsed>,
    ping_sent: bool,
    /// When the collected confirmations are sent.
    ack_at: Option<Elapsed>,
    /// Whether the shell takes what the server sends.
    reading: bool,
    /// Entries dropped because they were received or surfaced before.
    duplicates: u64,
}

/// Where the connection stands.
#[derive(Debug)]
enum Link {
    /// There is none.
    Down,
    /// Before the greeting.
    Greeting,
    /// Greeted, without a session.
    Anonymous,
    /// A `login` is on its way.
    LoggingIn,
    /// A `resume` or `cursors` is on its way.
    Resuming {
        /// The pages still to be sent, the next one last.
        pages: Vec<Cursors>,
        /// The `resume`'s own reply, once it is there.
        reply: Option<LoggedIn>,
    },
    /// With a session.
    Active,
    /// The `logout` was answered.
    LoggedOut,
}

/// Whose session it is.
#[derive(Debug)]
struct Identity {
    /// `None` until the first reply, when the application brought the token.
    user: Option<UserId>,
    token: Token,
}

impl<K> Session<K> {
    /// A machine without a connection, which wants one at once.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            jitter: Jitter::new(seed),
            limits: Limits::default(),
            link: Link::Down,
            identity: None,
            logs: Logs::default(),
            requests: Requests::new(FIRST_REQUEST),
            resume_asked: None,
            outgoing: Vec::new(),
            events: VecDeque::new(),
            done: VecDeque::new(),
            hang_up: None,
            over: false,
            failures: 0,
            dial_at: Duration::ZERO,
            up_since: Duration::ZERO,
            reconnect_after: None,
            written_at: Duration::ZERO,
            waiting_since: None,
            ping_sent: false,
            ack_at: None,
            reading: true,
            duplicates: 0,
        }
    }

    // Inputs.

    /// A connection is there.
    pub fn connected(&mut self, now: Elapsed) {
        self.link = Link::Greeting;
        self.limits = Limits::default();
        self.hang_up = None;
        self.reconnect_after = None;
        self.up_since = now;
        self.written_at = now;
        self.waiting_since = None;
        self.ping_sent = false;
    }

    /// The connection is gone, or did not come about.
    pub fn disconnected(&mut self, now: Elapsed, reason: DisconnectReason) {
        let was = mem::replace(&mut self.link, Link::Down);
        self.hang_up = None;
        self.outgoing = Vec::new();
        self.requests.connection_lost();
        if self.logs.forget_confirmed() {
            self.ack_at = Some(now);
        }
        if self.over {
            return;
        }
        if matches!(was, Link::LoggedOut) {
            return self.end(EndReason::LoggedOut);
        }
        // Whom a node sends away in order has met no failure: nodes that are replaced one after the other make no pause grow.
        let sent_away = matches!(reason, DisconnectReason::Closing(ClosingCode::GoingAway));
        let lived =
            !matches!(was, Link::Down) && now.saturating_sub(self.up_since) >= self.config.backoff_max;
        if sent_away || lived {
            self.failures = 0;
        }
        let pause = self.jitter.pause(self.failures, self.config.backoff_min, self.config.backoff_max);
        let pause = self.reconnect_after.take().map_or(pause, |wish| wish.saturating_add(pause));
        self.failures = self.failures.saturating_add(1);
        self.dial_at = now.saturating_add(pause);
        self.events.push_back(Event::Disconnected { reason });
        if self.wants_connection() {
            self.events.push_back(Event::Reconnecting { after: pause });
        }
    }

    /// A line has arrived.
    pub fn line(&mut self, now: Elapsed, line: &[u8]) {
        if self.hang_up.is_some() || matches!(self.link, Link::Down) {
            return;
        }
        self.waiting_since = None;
        match ServerLine::parse(line) {
            Ok(ServerLine::Push(push)) => self.push(now, push),
            Ok(ServerLine::Reply { id: Some(id), result }) => self.reply(now, id, result),
            // We write no line whose id cannot be read.
            Ok(ServerLine::Reply { id: None, result }) => warn!(?result, "reply without an id"),
            Err(error) => {
                warn!(%error, "line that is neither a push nor a reply");
                self.fail("a line is neither a push nor a reply");
            }
        }
        self.fill(now);
        if self.outstanding() {
            self.waiting_since = Some(now);
        }
    }

    /// A line longer than agreed has arrived.
    pub fn line_too_long(&mut self) {
        self.fail("a line is too long");
    }

    /// The application asks for something; the outcome comes out under `key`.
    pub fn ask(&mut self, now: Elapsed, request: Request, key: K) {
        if self.over {
            self.done.push_back((key, Err(RequestError::Closed)));
        } else if let Err(key) = self.requests.add(now, &self.config, request, key) {
            self.done.push_back((key, Err(RequestError::TooManyRequests)));
        } else {
            self.fill(now);
        }
    }

    /// The application has shown a conversation up to `seq`.
    pub fn shown(&mut self, now: Elapsed, conv: ConversationId, seq: Seq) {
        if self.logs.show(conv, seq) {
            self.ack_at.get_or_insert(now.saturating_add(self.config.confirm_after));
        }
    }

    /// The shell takes what the server sends, or has stopped doing so because nobody takes the events.
    pub fn reading(&mut self, now: Elapsed, reading: bool) {
        if reading && !self.reading && self.waiting_since.is_some() {
            // The silence was ours.
            self.waiting_since = Some(now);
        }
        self.reading = reading;
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Elapsed) {
        while let Some(id) = self.requests.expired(now) {
            self.give_up(id);
        }
        self.requests.wake(now);
        if matches!(self.link, Link::Active) && self.ack_at.is_some_and(|at| at <= now) {
            self.write_acks(now, None);
        }
        if self.link_deadline().is_some_and(|at| at <= now) {
            self.hang_up = Some(DisconnectReason::Silent);
        }
        if self.ping_at().is_some_and(|at| at <= now) {
            self.ping_sent = true;
            self.write(now, Some(PING), &Request::Ping);
        }
        self.fill(now);
    }

    /// The client ends: every request gets its outcome.
    pub fn finish(&mut self) {
        self.over = true;
        for id in self.requests.ids(|_| true) {
            self.give_up(id);
        }
    }

    // Outputs.

    /// Bytes to be written.
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// So many of them were.
    pub fn written(&mut self, now: Elapsed, bytes: usize) {
        self.outgoing.drain(..bytes);
        if self.outgoing.is_empty() {
            // An idle client holds no memory for them.
            self.outgoing = Vec::new();
        }
        self.fill(now);
    }

    /// Takes an event.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Puts back an event that nobody could take.
    pub fn untake(&mut self, event: Event) {
        self.events.push_front(event);
    }

    /// Whether there are events.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Takes a request's outcome.
    pub fn next_done(&mut self) -> Option<(K, Result<Reply, RequestError>)> {
        self.done.pop_front()
    }

    /// Whether the shell is to drop the connection, and the reason to give to [`Self::disconnected`].
    pub fn hang_up(&mut self) -> Option<DisconnectReason> {
        self.hang_up.take()
    }

    /// When to dial, if there is no connection and one is wanted.
    pub fn dial_at(&self) -> Option<Elapsed> {
        (matches!(self.link, Link::Down) && self.wants_connection()).then_some(self.dial_at)
    }

    /// When to call [`Self::tick`] at the latest.
    pub fn deadline(&self) -> Option<Elapsed> {
        let ack = if matches!(self.link, Link::Active) { self.ack_at } else { None };
        [ack, self.requests.deadline(), self.link_deadline(), self.ping_at()].into_iter().flatten().min()
    }

    /// Whether the client has ended.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether there is a session on the present connection.
    pub fn is_active(&self) -> bool {
        matches!(self.link, Link::Active)
    }

    /// How many entries were dropped because they had been received or surfaced before. On one connection the server sends none.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The longest line to take from the server.
    pub fn line_bytes_max(&self) -> usize {
        self.limits.server_frame_bytes_max.clamp(1024, SERVER_FRAME_BYTES_CAP)
    }

    // Time.

    /// A connection that nobody needs is not made anew: the server would end it for want of a login.
    fn wants_connection(&self) -> bool {
        !self.over && (self.failures == 0 || self.identity.is_some() || !self.requests.is_empty())
    }

    fn idle_timeout(&self) -> Duration {
        self.limits.idle_timeout().max(IDLE_TIMEOUT_MIN)
    }

    fn outstanding(&self) -> bool {
        self.ping_sent || self.requests.any_sent() || matches!(self.link, Link::Resuming { .. })
    }

    /// When the connection is to be taken for dead.
    fn link_deadline(&self) -> Option<Elapsed> {
        if self.hang_up.is_some() {
            return None;
        }
        match self.link {
            Link::Down => None,
            Link::Greeting => Some(self.up_since.saturating_add(self.config.connect_timeout)),
            Link::LoggedOut => Some(self.up_since.saturating_add(LINGER)),
            _ if !self.reading => None,
            _ => {
                let silence = self.config.silence_timeout.unwrap_or(self.idle_timeout() / 3);
                self.waiting_since.map(|since| since.saturating_add(silence))
            }
        }
    }

    fn ping_at(&self) -> Option<Elapsed> {
        let greeted = !matches!(self.link, Link::Down | Link::Greeting | Link::LoggedOut);
        (greeted && self.hang_up.is_none()).then(|| self.written_at.saturating_add(self.idle_timeout() / 3))
    }

    // Writing.

    fn write(&mut self, now: Elapsed, id: Option<RequestId>, request: &Request) {
        request.write(&mut self.outgoing, id);
        self.written_at = now;
        if id.is_some() {
            self.waiting_since.get_or_insert(now);
        }
    }

    /// Writes queued requests for as long as the connection's state and the outgoing bytes allow.
    fn fill(&mut self, now: Elapsed) {
        while self.outgoing.len() < OUTGOING_BYTES_MAX && self.hang_up.is_none() {
            let logged_in = matches!(self.link, Link::Active);
            if !logged_in && !matches!(self.link, Link::Anonymous) {
                return;
            }
            let Some(id) = self.requests.next_queued(logged_in) else { return };
            self.write_request(now, id, logged_in);
        }
    }

    fn write_request(&mut self, now: Elapsed, id: RequestId, logged_in: bool) {
        let Some(pending) = self.requests.set(id, State::Sent) else { return };
        pending.attempts += 1;
        match &pending.request {
            Request::Resume(_) if logged_in => return self.refuse(id, ErrorCode::AlreadyLoggedIn),
            Request::Resume(resume) => {
                let Resume { token, cursors, .. } = resume.clone();
                self.identity = Some(Identity { user: None, token });
                self.logs.restore(cursors);
                self.resume_asked = Some(id);
                return self.start_resume(now);
            }
            _ => {}
        }
        let start = self.outgoing.len();
        let limits = &self.limits;
        let bytes_max = if logged_in { limits.frame_bytes_max } else { limits.anonymous_frame_bytes_max };
        pending.request.write(&mut self.outgoing, Some(id));
        // The line end does not count.
        if self.outgoing.len() - start > bytes_max.saturating_add(1) {
            self.outgoing.truncate(start);
            return self.refuse(id, ErrorCode::FrameTooLong);
        }
        let (is_login, is_logout) =
            (matches!(pending.request, Request::Login(_)), matches!(pending.request, Request::Logout));
        self.written_at = now;
        self.waiting_since.get_or_insert(now);
        if is_login && !logged_in {
            self.link = Link::LoggingIn;
        }
        if is_logout && logged_in {
            // What was shown is confirmed first, on the same connection.
            let logout = self.outgoing.split_off(start);
            self.write_acks(now, Some(ACK));
            self.outgoing.extend_from_slice(&logout);
        }
    }

    fn write_acks(&mut self, now: Elapsed, id: Option<RequestId>) {
        self.ack_at = None;
        for cursors in self.logs.take_unconfirmed(self.limits.cursors_per_request_max.max(1)) {
            self.write(now, id, &Request::Ack(SetCursors { cursors, more: false }));
        }
    }

    fn start_resume(&mut self, now: Elapsed) {
        let Some(identity) = &self.identity else { return };
        // The rest of the line: the token and the names of the fields.
        let first_bytes = self.limits.anonymous_frame_bytes_max.saturating_sub(160);
        let mut pages = self.logs.resume_pages(self.limits.cursors_per_request_max.max(1), first_bytes);
        pages.reverse();
        let cursors = pages.pop().unwrap_or_default();
        let resume = Resume { token: identity.token, cursors, more: !pages.is_empty() };
        self.write(now, Some(RESUME), &Request::Resume(resume));
        self.link = Link::Resuming { pages, reply: None };
    }

    // Ends.

    fn refuse(&mut self, id: RequestId, code: ErrorCode) {
        if let Some(pending) = self.requests.remove(id) {
            self.done.push_back((pending.key, Err(RequestError::Refused(code.into()))));
        }
    }

    fn give_up(&mut self, id: RequestId) {
        let Some(pending) = self.requests.remove(id) else { return };
        if matches!(pending.request, Request::Login(_)) && matches!(self.link, Link::LoggingIn) {
            // Its answer could still come, and would open a session that nobody knows of.
            self.hang_up = Some(DisconnectReason::Silent);
        }
        if self.resume_asked == Some(id) {
            self.resume_asked = None;
            self.identity = None;
            self.hang_up = Some(DisconnectReason::Silent);
        }
        let error = pending.given_up();
        self.done.push_back((pending.key, Err(error)));
    }

    fn fail(&mut self, what: &'static str) {
        self.hang_up = Some(DisconnectReason::Protocol(what));
    }

    fn end(&mut self, reason: EndReason) {
        self.over = true;
        self.identity = None;
        self.events.push_back(Event::SessionEnded { reason });
    }
}
