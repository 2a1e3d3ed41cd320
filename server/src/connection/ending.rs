//! What waits for the socket, what time is up, and how a connection ends.

use std::time::Duration;

use protocol::{
    Push,
    message::{ClosingCode, write_push},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Connection, State};

/// Something waits for a socket.
pub(super) struct Stuck {
    since: Instant,
    /// How much had been taken then.
    taken: usize,
}

/// How a connection ends.
pub(super) struct Closing {
    pub(super) code: ClosingCode,
    reconnect_after: Option<Duration>,
    /// Whether the `closing` push was written.
    said: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Whether the socket has all that there is to say.
    pub(super) fn all_written(&self) -> bool {
        self.flushed && self.out_taken == self.out.len()
    }

    pub(super) fn wrote(&mut self) {
        self.stuck = None;
        if self.all_written() {
            // An idle connection holds no buffer.
            self.out = Vec::new();
            self.out_taken = 0;
        } else {
            // Bytes that come one by one are no better than none.
            let config = &self.node.config;
            let enough = config.reading_rate_min as f64 * config.write_timeout.as_secs_f64();
            if self.stuck.as_ref().is_some_and(|stuck| (self.out_taken - stuck.taken) as f64 >= enough) {
                self.stuck = None;
            }
            let taken = self.out_taken;
            self.stuck.get_or_insert_with(|| Box::new(Stuck { since: Instant::now(), taken }));
        }
    }

    pub(super) fn close(&mut self, code: ClosingCode, reconnect_after: Option<Duration>) {
        if self.closing.is_none() {
            self.node.metrics.closing(code);
            self.closing = Some(Box::new(Closing { code, reconnect_after, said: false }));
        }
    }

    /// Whether everything was said. Says the last word when all else is.
    pub(super) fn is_over(&mut self) -> bool {
        let answered = self.in_flight == 0 && self.command.is_none();
        let (parked, written) = (self.parked.is_some(), self.all_written());
        let Some(closing) = &mut self.closing else {
            // A client that only stopped sending gets what it asked for.
            let idle = answered && !parked && written;
            let quiet = match &mut self.state {
                State::Session(opened) => {
                    opened.session.is_idle() && self.work.is_none() && self.needs.is_empty()
                }
                _ => true,
            };
            return self.eof && idle && quiet;
        };
        if answered && !closing.said {
            closing.said = true;
            let pause = closing.reconnect_after.map(|pause| pause.as_millis() as u64);
            write_push(&mut self.out, &Push::Closing { code: closing.code, reconnect_after_ms: pause });
        }
        let said = closing.said;
        said && self.all_written()
    }

    /// When the client counts as gone. If that is in doubt, it has until its next line is due, and for a while more.
    pub(super) fn gone_at(&self) -> Instant {
        let idle = self.node.config.limits.idle_timeout();
        let silent = self.heard + idle;
        let due = |probed: Instant| probed.max(self.heard + idle / 3) + idle / 6;
        self.probed.map_or(silent, |probed| silent.min(due(probed)))
    }

    /// When to look at the clock next.
    pub(super) fn deadline(&self) -> Instant {
        let config = &self.node.config;
        let idle = self.gone_at();
        let login = match self.state {
            State::Session(_) => idle,
            // What a client has asked for in time is carried out.
            _ if self.command.is_some() => idle,
            _ => self.started + config.login_timeout,
        };
        let half = Instant::now() + config.write_timeout / 2;
        // A deadline that has passed and had its effect must not be met again at once.
        let next = if self.closing.is_some() { half } else { idle.min(login).min(half) };
        self.paused.map_or(next, |until| until.min(next))
    }

    /// Who does not read is told nothing, but counted.
    pub(super) fn cut_off(&self, why: &str) -> String {
        self.node.metrics.closing(ClosingCode::SlowReader);
        why.into()
    }

    /// Looks at the clock; returns why the connection ends, if it does at once.
    pub(super) fn tick(&mut self) -> Option<String> {
        let (config, now) = (&self.node.config, Instant::now());
        let write_timeout = config.write_timeout;
        self.paused = self.paused.filter(|until| now < *until);
        if !self.all_written() {
            let taken = self.out_taken;
            let stuck = self.stuck.get_or_insert_with(|| Box::new(Stuck { since: now, taken }));
            if now.duration_since(stuck.since) >= write_timeout {
                return Some(self.cut_off("the client does not read"));
            }
        }
        if now >= self.gone_at() {
            self.close(ClosingCode::Idle, None);
        } else if now.duration_since(self.started) >= config.login_timeout
            && !matches!(self.state, State::Session(_))
            && self.command.is_none()
        {
            self.close(ClosingCode::LoginTimeout, None);
        }
        None
    }
}
