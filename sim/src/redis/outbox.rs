//! What is on its way to one client.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

/// How one copy of a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copy {
    /// For how long it is held back.
    pub(super) hold: Duration,
    /// Whether what comes later may overtake it.
    pub(super) overtaken: bool,
}

/// Bytes for a socket, and messages that are held back.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    ready: BytesMut,
    /// By when they are due, then by when they came.
    held: BTreeMap<(Instant, u64), Held>,
    next_held: u64,
    /// When the last message is due that must not be overtaken.
    due_last: Option<Instant>,
    /// Bytes in all of this, and of what the connection is writing.
    pending: usize,
}

#[derive(Debug)]
struct Held {
    channel: Bytes,
    push: Bytes,
}

impl Outbox {
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// A reply. It waits for nothing.
    pub(super) fn reply(&mut self, bytes: &[u8]) {
        self.pending += bytes.len();
        self.ready.extend_from_slice(bytes);
    }

    /// A message on a channel.
    pub(super) fn message(&mut self, channel: &Bytes, push: &Bytes, copy: Copy, now: Instant) {
        self.pending += push.len();
        self.release(now);
        let mut due = now + copy.hold;
        if !copy.overtaken {
            due = due.max(self.due_last.unwrap_or(due));
            self.due_last = Some(due);
        }
        if due <= now {
            self.ready.extend_from_slice(push);
            return;
        }
        let held = Held { channel: channel.clone(), push: push.clone() };
        self.held.insert((due, self.next_held), held);
        self.next_held += 1;
    }

    /// The client no longer listens to a channel: it is sent nothing of it after it was told so.
    pub(super) fn forget(&mut self, channel: &[u8]) {
        let mut forgotten = 0;
        self.held.retain(|_, held| {
            let keep = held.channel != channel;
            forgotten += if keep { 0 } else { held.push.len() };
            keep
        });
        self.pending -= forgotten;
    }

    /// What can be written now.
    pub(super) fn take(&mut self, now: Instant) -> BytesMut {
        self.release(now);
        std::mem::take(&mut self.ready)
    }

    /// When more will be there, if nothing else happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.first_key_value().map(|((due, _), _)| *due)
    }

    /// So many bytes were written.
    pub(super) fn written(&mut self, bytes: usize) {
        self.pending -= bytes;
    }

    fn release(&mut self, now: Instant) {
        while let Some(first) = self.held.first_entry() {
            if first.key().0 > now {
                return;
            }
            self.ready.extend_from_slice(&first.remove().push);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Copy = Copy { hold: Duration::ZERO, overtaken: false };

    fn held(millis: u64, overtaken: bool) -> Copy {
        Copy { hold: Duration::from_millis(millis), overtaken }
    }

    /// Sends each at its number of milliseconds, and says what could be written after each, and at the end.
    fn check(messages: &[(u64, &'static str, Copy)], expected: &str) {
        let began = Instant::now();
        let mut outbox = Outbox::default();
        let mut found = Vec::new();
        for (at, text, copy) in messages {
            let now = began + Duration::from_millis(*at);
            outbox.message(&Bytes::from_static(b"c"), &Bytes::from_static(text.as_bytes()), *copy, now);
            found.push(outbox.take(now));
        }
        found.push(outbox.take(began + Duration::from_secs(9)));
        let total: usize = found.iter().map(|bytes| bytes.len()).sum();
        assert_eq!((outbox.pending(), outbox.due()), (total, None));
        let found: Vec<_> = found.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect();
        assert_eq!(found.join("|"), expected);
    }

    #[test]
    fn what_is_delayed_delays_what_follows() {
        check(&[(0, "a", AT_ONCE), (0, "b", held(5, false)), (1, "c", AT_ONCE)], "a|||bc");
        check(&[(0, "a", held(5, false)), (2, "b", held(1, false)), (5, "c", AT_ONCE)], "||abc|");
    }

    #[test]
    fn what_is_overtaken_is_not_waited_for() {
        check(&[(0, "a", held(5, true)), (1, "b", AT_ONCE), (6, "c", AT_ONCE)], "|b|ac|");
        check(&[(0, "a", held(5, true)), (1, "b", held(3, true))], "||ba");
    }

    #[test]
    fn what_nobody_listens_to_any_more_is_not_sent() {
        let now = Instant::now();
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let mut outbox = Outbox::default();
        outbox.message(&a, &a, held(5, false), now);
        outbox.message(&b, &b, held(5, false), now);
        outbox.forget(b"a");
        outbox.reply(b"x");
        assert_eq!(outbox.take(now + Duration::from_millis(5)), "xb");
        outbox.written(2);
        assert_eq!(outbox.pending(), 0);
    }
}
