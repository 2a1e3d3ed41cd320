//! What a node holds at this moment, beside what SPEC.md, section 8 lets it hold.

use crate::{
    committer::{QUEUE_BYTES_MAX, QUEUE_MAX},
    connection,
    feed::RING_BYTES_MAX,
    node::Node,
};

/// An amount and its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    /// The same, in one word of `[a-z_]`.
    pub label: &'static str,
    /// What it measures. Of something that every conversation, session or user has: the largest.
    pub name: &'static str,
    /// How much there is.
    pub amount: usize,
    /// How much there may be.
    pub bound: usize,
}

impl Node {
    /// Everything that grows with what others do, and is bounded by section 8. It looks at every feed and session: for
    /// people and tests, not for every request.
    pub fn gauges(&self) -> Vec<Gauge> {
        let (requests, bytes) = self.committer.waiting();
        let (entries, held) = self.feeds.sizes();
        let (sessions, of_one_user, unwritten) = self.registry.sizes();
        let (backlog, backlog_max) = self.backlog.sizes();
        let sizes = &self.config.sizes;
        let gauge = |label, name, amount, bound| Gauge { label, name, amount, bound };
        vec![
            gauge("queue_requests", "requests not committed yet", requests, QUEUE_MAX),
            gauge("queue_bytes", "bytes not committed yet", bytes, QUEUE_BYTES_MAX),
            gauge("recent_entries", "recent entries of a conversation", entries, sizes.ring_entries_max),
            gauge("recent_bytes", "bytes of recent entries", self.feeds.recent_bytes(), RING_BYTES_MAX),
            gauge("held_entries", "entries held ahead of a gap", held, sizes.held_entries_max),
            gauge("sessions", "sessions", sessions, self.config.connections_max),
            gauge("sessions_of_a_user", "sessions of a user", of_one_user, self.config.sessions_per_user_max),
            gauge(
                "connections_of_an_address",
                "connections of an address",
                self.throttle.connections_of_an_address(),
                self.config.rates.connections_per_address_max,
            ),
            gauge(
                "backlog_bytes",
                "bytes held for clients that do not take their part",
                backlog,
                backlog_max,
            ),
            gauge(
                "outbox_bytes",
                "bytes in an outbox",
                unwritten,
                connection::outbox_bytes_max(&self.config),
            ),
        ]
    }
}

/// The largest of some, 0 of none.
pub(crate) fn largest(amounts: impl Iterator<Item = usize>) -> usize {
    amounts.max().unwrap_or(0)
}
