//! Which channel carries which hints, and for whom a node listens.

use std::collections::BTreeMap;

use protocol::{Conversation, ConversationId, GroupId, UserId};

/// Where hints are published.
///
/// A hint goes to a group's channel, or to the channel of each user of a direct conversation, or of the user whose notices
/// they are. So a node listens to as many channels as its users have groups, and one more for each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Of a group.
    Group(GroupId),
    /// Of a user: direct conversations and notices.
    User(UserId),
}

impl Channel {
    /// Where the hints of a conversation are published.
    pub fn all_of(conv: ConversationId) -> impl Iterator<Item = Self> {
        let (first, second) = match conv.parse() {
            Conversation::Group(group) => (Self::Group(group), None),
            Conversation::Notices(user) => (Self::User(user), None),
            Conversation::Direct(a, b) => (Self::User(a), Some(Self::User(b))),
        };
        std::iter::once(first).chain(second)
    }

    /// Where a user's node listens for the hints of a conversation that the user reads.
    pub fn of_reader(user: UserId, conv: ConversationId) -> Self {
        match conv.parse() {
            Conversation::Group(group) => Self::Group(group),
            Conversation::Direct(..) | Conversation::Notices(_) => Self::User(user),
        }
    }
}

/// How often each channel is wanted.
#[derive(Debug, Default)]
pub struct Wanted(BTreeMap<Channel, usize>);

impl Wanted {
    /// One more reader.
    pub fn add(&mut self, channel: Channel) {
        *self.0.entry(channel).or_default() += 1;
    }

    /// One reader less.
    pub fn remove(&mut self, channel: Channel) {
        if let Some(readers) = self.0.get_mut(&channel) {
            *readers -= 1;
            if *readers == 0 {
                self.0.remove(&channel);
            }
        }
    }

    /// Whether anyone reads it.
    pub fn contains(&self, channel: Channel) -> bool {
        self.0.contains_key(&channel)
    }
}
