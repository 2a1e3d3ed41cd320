//! The relay: how nodes tell each other what they committed, and who is online.
//!
//! It is a hint, never the truth: with every hint dropped all guarantees hold, and only latency changes (SPEC.md, guarantee 7).

pub mod local;

use std::sync::Arc;

use async_trait::async_trait;
use protocol::{ConversationId, UserId, message::PresenceState};
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
    /// Hints may have been lost: compare the heads now.
    Gap,
    /// A user's state changed, as far as other nodes are concerned.
    Presence(UserId),
}

/// The receiving end of a node's relay.
pub type RelayEvents = mpsc::Receiver<RelayEvent>;

/// The seam to the other nodes.
#[async_trait]
pub trait Relay: Send + Sync + 'static {
    /// Announces commits. Never waits; drops what cannot be sent.
    fn publish(&self, hints: Vec<Hint>);

    /// Asks for the hints of these conversations, and returns when what is committed from now on will be hinted, or when the
    /// relay is known to be away (then [`RelayEvent::Gap`] follows when it is back).
    async fn subscribe(&self, convs: &[ConversationId]);

    /// No longer asks for them.
    fn unsubscribe(&self, conv: ConversationId);

    /// Says whether this node serves a user.
    fn set_online(&self, user: UserId, online: bool);

    /// Whether another node serves a user.
    fn elsewhere(&self, user: UserId) -> PresenceState;
}
