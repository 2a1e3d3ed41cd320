//! No relay: nodes that share one database and nothing else.
//!
//! They find each other's commits by the sweep, and of users that other nodes serve they know nothing.

use async_trait::async_trait;
use protocol::{ConversationId, UserId, message::PresenceState};
use tokio::sync::mpsc;

use super::{Hint, Relay, RelayEvents, RelayState};

/// Tells nobody anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRelay;

impl NoRelay {
    /// It, and the events that never come.
    pub fn new() -> (Self, RelayEvents) {
        (Self, mpsc::channel(1).1)
    }
}

#[async_trait]
impl Relay for NoRelay {
    fn publish(&self, _: Vec<Hint>) {}

    async fn subscribe(&self, _: UserId, _: &[ConversationId]) {}

    fn unsubscribe(&self, _: UserId, _: ConversationId) {}

    fn set_online(&self, _: UserId, _: bool) {}

    fn state(&self) -> RelayState {
        RelayState::Absent
    }

    fn elsewhere(&self, _: UserId) -> PresenceState {
        PresenceState::Unknown
    }
}
