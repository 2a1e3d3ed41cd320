//! What the server says, and what it means to the machine.

use std::{mem, time::Duration};

use protocol::{
    ErrorBody, ErrorCode, Push, Request, RequestId,
    message::{ClosingCode, CursorsSet, LoggedIn, PROTOCOL_VERSION, Refused, SetCursors},
};
use serde_json::value::RawValue;
use tracing::{debug, warn};

use super::{
    ACK, Elapsed, Identity, Link, PING, RESUME, Session,
    logs::Received,
    requests::{Pending, State},
};
use crate::{
    error::{DisconnectReason, EndReason, RequestError},
    event::Event,
    reply::Reply,
};

impl<K> Session<K> {
    pub(super) fn push(&mut self, now: Elapsed, push: Push) {
        match push {
            Push::Hello { protocol, limits, .. } if matches!(self.link, Link::Greeting) => {
                if protocol != PROTOCOL_VERSION {
                    return self.end(EndReason::ProtocolVersion(protocol));
                }
                self.limits = limits;
                self.written_at = now;
                self.events.push_back(Event::Connected);
                self.link = Link::Anonymous;
                self.start_resume(now);
            }
            Push::Open { conv, after } => self.logs.open(conv, after),
            Push::Entry(entry) => match self.logs.receive(entry.conv, entry.seq) {
                Received::New => {
                    let (conv, seq) = (entry.conv, entry.seq);
                    self.events.push_back(Event::Entry(entry));
                    if self.config.confirm_automatically {
                        self.shown(now, conv, seq);
                    }
                }
                Received::Duplicate => {
                    self.duplicates += 1;
                    debug!(conv = %entry.conv, seq = %entry.seq, "duplicate dropped");
                }
                Received::Gap => self.fail("an entry is not the next one of its conversation"),
            },
            Push::CaughtUp => self.events.push_back(Event::CaughtUp),
            Push::Presence { user, state } => self.events.push_back(Event::Presence { user, state }),
            Push::Lost { conv, after } => self.events.push_back(Event::Lost { conv, after }),
            Push::Closing { code: ClosingCode::LoggedOut, .. } => self.end(EndReason::LoggedOut),
            Push::Closing { code, reconnect_after_ms } => {
                self.reconnect_after = reconnect_after_ms.map(Duration::from_millis);
                self.hang_up = Some(DisconnectReason::Closing(code));
            }
            Push::Hello { .. } | Push::Unknown => {}
        }
    }

    pub(super) fn reply(&mut self, now: Elapsed, id: RequestId, result: Result<Box<RawValue>, ErrorBody>) {
        match id {
            PING => self.ping_sent = false,
            ACK => {}
            RESUME => self.resume_reply(now, result),
            _ if self.requests.get(id).is_none_or(|pending| pending.state != State::Sent) => {
                debug!(id, "reply to no request");
            }
            _ => self.request_reply(now, id, result),
        }
    }

    fn request_reply(&mut self, now: Elapsed, id: RequestId, result: Result<Box<RawValue>, ErrorBody>) {
        let Some(pending) = self.requests.get(id) else { return };
        let is_login = matches!(pending.request, Request::Login(_));
        let attempts = pending.attempts;
        match result {
            Ok(ok) => match Reply::parse(&pending.request, &ok) {
                Ok(reply) => self.carried_out(now, id, reply),
                Err(error) => {
                    warn!(%error, id, "reply of an unknown form");
                    self.fail("a reply has not the form of its request's");
                }
            },
            Err(error) => {
                if is_login && matches!(self.link, Link::LoggingIn) {
                    self.link = Link::Anonymous;
                }
                if is_of_this_attempt(&error) && attempts < self.config.attempts_max {
                    let pause = self.jitter.pause(
                        attempts.saturating_sub(1),
                        self.config.backoff_min,
                        self.config.backoff_max,
                    );
                    debug!(code = %error.code, id, attempts, "request will be repeated");
                    if let Some(pending) = self.requests.set(id, State::Retry(now.saturating_add(pause))) {
                        pending.perhaps |= !error.definite;
                    }
                } else if let Some(pending) = self.requests.remove(id) {
                    let of_this_one = is_of_this_attempt(&error)
                        || pending.request.mid().is_some() && is_of_this_moment(error.code);
                    let speaks_of_all = error.definite && !(pending.perhaps && of_this_one);
                    let error =
                        if speaks_of_all { RequestError::Refused(error) } else { RequestError::Unknown };
                    self.done.push_back((pending.key, Err(error)));
                }
            }
        }
    }

    fn carried_out(&mut self, now: Elapsed, id: RequestId, reply: Reply) {
        let Some(Pending { request, key, .. }) = self.requests.remove(id) else { return };
        match (&request, &reply) {
            (Request::Login(_), Reply::LoggedIn(LoggedIn { user, token: Some(token), .. })) => {
                let same_user = self.identity.as_ref().is_some_and(|identity| identity.user == Some(*user));
                if same_user {
                    self.logs.forget_cursors();
                } else {
                    self.logs.clear();
                }
                self.identity = Some(Identity { user: Some(*user), token: *token });
                self.link = Link::Active;
            }
            (Request::Logout, _) => {
                self.identity = None;
                self.link = Link::LoggedOut;
                // The time for lingering counts from here.
                self.up_since = now;
            }
            _ => {}
        }
        self.done.push_back((key, Ok(reply)));
    }

    fn resume_reply(&mut self, now: Elapsed, result: Result<Box<RawValue>, ErrorBody>) {
        let Link::Resuming { pages, reply } = &mut self.link else { return };
        let ok = match result {
            Ok(ok) => ok,
            Err(error) if error.code == ErrorCode::BadToken => return self.token_refused(&error),
            Err(error) => {
                warn!(code = %error.code, "resume failed");
                // Another attempt on another connection, after a pause.
                return self.fail("the session could not be resumed now");
            }
        };
        let read = match reply {
            None => serde_json::from_str(ok.get()).map(|first| *reply = Some(first)),
            Some(first) => {
                serde_json::from_str::<CursorsSet>(ok.get()).map(|more| first.refused.extend(more.refused))
            }
        };
        if let Err(error) = read {
            warn!(%error, "reply to resume of an unknown form");
            return self.fail("a reply has not the form of its request's");
        }
        if let Some(cursors) = pages.pop() {
            let cursors = SetCursors { cursors, more: !pages.is_empty() };
            return self.write(now, Some(RESUME), &Request::Cursors(cursors));
        }
        let Link::Resuming { reply: Some(reply), .. } = mem::replace(&mut self.link, Link::Active) else {
            return;
        };
        self.resumed(reply);
    }

    fn resumed(&mut self, reply: LoggedIn) {
        self.refused(&reply.refused);
        if let Some(identity) = &mut self.identity {
            identity.user = Some(reply.user);
        }
        self.events.push_back(Event::Resumed);
        let asked = self.resume_asked.take().and_then(|id| self.requests.remove(id));
        if let Some(pending) = asked {
            self.done.push_back((pending.key, Ok(Reply::LoggedIn(reply))));
        }
    }

    fn refused(&mut self, refused: &Refused) {
        if !refused.is_empty() {
            warn!(?refused, "cursors refused");
            self.logs.refuse(refused);
        }
    }

    /// The server has no such session: what was asked within it gets no answer any more.
    fn token_refused(&mut self, error: &ErrorBody) {
        self.identity = None;
        self.link = Link::Anonymous;
        self.ack_at = None;
        if let Some(pending) = self.resume_asked.take().and_then(|id| self.requests.remove(id)) {
            // The application's own token: it learns from the reply.
            self.done.push_back((pending.key, Err(RequestError::Refused(error.clone()))));
            return;
        }
        let within = |pending: &Pending<K>| {
            !matches!(pending.request, Request::Register(_) | Request::Login(_) | Request::Resume(_))
        };
        for id in self.requests.ids(within) {
            let Some(pending) = self.requests.remove(id) else { continue };
            let outcome = match (&pending.request, pending.perhaps) {
                (Request::Logout, _) => Ok(Reply::Done),
                (_, true) => Err(RequestError::Unknown),
                (_, false) => Err(RequestError::Refused(error.clone())),
            };
            let logged_out = outcome.is_ok();
            self.done.push_back((pending.key, outcome));
            if logged_out {
                return self.end(EndReason::LoggedOut);
            }
        }
        self.events.push_back(Event::SessionEnded { reason: EndReason::BadToken });
    }
}

/// Whether an error says nothing of other attempts, so that a repetition makes sense.
fn is_of_this_attempt(error: &ErrorBody) -> bool {
    !error.definite || matches!(error.code, ErrorCode::Overloaded | ErrorCode::GoingAway)
}

/// Whether a refusal depends on what can change: an earlier attempt that is still on its way can then succeed later.
fn is_of_this_moment(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotLoggedIn
            | ErrorCode::BadCredentials
            | ErrorCode::Banned
            | ErrorCode::BadToken
            | ErrorCode::NoSuchUser
            | ErrorCode::NotMember
            | ErrorCode::AlreadyMember
            | ErrorCode::NotCreator
            | ErrorCode::NotFriends
            | ErrorCode::AlreadyFriends
            | ErrorCode::Blocked
            | ErrorCode::AlreadyBlocked
            | ErrorCode::NotBlocked
            | ErrorCode::LimitReached
    )
}
