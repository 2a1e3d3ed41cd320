//! The relay: how nodes tell each other what they committed, and who is online.
//!
//! It is a hint, never the truth: with every hint dropped all guarantees hold, and only latency changes (SPEC.md, guarantee 7).

pub mod channels;
pub mod conformance;
pub mod local;
pub mod none;
pub mod redis;

use std::sync::Arc;

use async_trait::async_trait;
use protocol::{ConversationId, Seq, UserId, message::PresenceState};
use tokio::sync::mpsc;

use crate::feed::Line;

/// Events that a node has not handled yet. When it is full, hints are dropped: the sweep finds what they announced.
pub const EVENTS_MAX: usize = 4096;

/// Entries of one conversation that one batch committed, ascending without gaps.
#[derive(Debug, Clone)]
pub struct Hint {
    /// Which log.
    pub conv: ConversationId,
    /// The entries.
    pub lines: Vec<Arc<Line>>,
}

/// What the relay tells a node.
#[derive(Debug)]
pub enum RelayEvent {
    /// Another node committed.
    Hint(Hint),
    /// Another node says how far a log reaches, and nothing more.
    Head(ConversationId, Seq),
    /// Hints may have been lost: compare the heads now.
    Gap,
    /// A user's state changed, as far as other nodes are concerned.
    Presence(UserId),
    /// Any user's state may have changed: other nodes' presence became known, or unknown.
    PresenceOfAll,
    /// This node stood still, or the relay was emptied: it was taken for gone, and has to see which of its sessions' clients are there.
    LeaseLost,
}

/// Whether hints flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayState {
    /// They do.
    Up,
    /// They should and do not: entries of other nodes are found by the sweep.
    Away,
    /// What should carry them answers, and delivers nothing. As bad as away, and harder to see.
    Wedged,
    /// There is none, and none is wanted.
    Absent,
}

/// The receiving end of a node's relay.
pub type RelayEvents = mpsc::Receiver<RelayEvent>;

/// The seam to the other nodes.
#[async_trait]
pub trait Relay: Send + Sync + 'static {
    /// Announces commits. Never waits; drops what cannot be sent.
    fn publish(&self, hints: Vec<Hint>);

    /// Asks for the hints of these conversations on behalf of one reader, a session of `user`, and returns when what is committed
    /// from now on will be hinted, or when that is known to be delayed (then [`RelayEvent::Gap`] follows).
    ///
    /// Each conversation counts from the first poll on, until it is given back once by [`unsubscribe`](Self::unsubscribe).
    async fn subscribe(&self, user: UserId, convs: &[ConversationId]);

    /// That reader no longer asks for them.
    fn unsubscribe(&self, user: UserId, conv: ConversationId);

    /// Says whether this node serves a user.
    fn set_online(&self, user: UserId, online: bool);

    /// Whether it works, as far as is known.
    fn state(&self) -> RelayState;

    /// What the other nodes know this one by, if there is such a name now.
    fn incarnation(&self) -> Option<String> {
        None
    }

    /// How often it was found to deliver nothing.
    fn wedges(&self) -> u64 {
        0
    }

    /// Whether another node serves a user.
    fn elsewhere(&self, user: UserId) -> PresenceState;
}
