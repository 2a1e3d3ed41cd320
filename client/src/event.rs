//! What happens unasked.

use std::time::Duration;

use protocol::{ConversationId, Entry, Seq, UserId, message::PresenceState};

use crate::error::{DisconnectReason, EndReason};

/// What a client tells its application unasked, in the order in which it happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A server has greeted.
    Connected,
    /// The connection ended, or an attempt to connect failed.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
    },
    /// The client will try to connect again by itself.
    Reconnecting {
        /// After this pause.
        after: Duration,
    },
    /// The session goes on, on this connection.
    Resumed,
    /// An entry of a conversation: each one once, in order per conversation.
    Entry(Entry),
    /// Every conversation has reached the head it had at the login or resumption.
    CaughtUp,
    /// A friend's state changed.
    Presence {
        /// The friend.
        user: UserId,
        /// The new state.
        state: PresenceState,
    },
    /// The store misses entries: the conversation is not delivered further on this connection.
    Lost {
        /// The conversation.
        conv: ConversationId,
        /// The last entry there was.
        after: Seq,
    },
    /// The session has ended for good.
    SessionEnded {
        /// Why.
        reason: EndReason,
    },
}
