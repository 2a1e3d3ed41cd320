//! Rights: what the log before an entry allows. Written anew from SPEC.md, so that it does not share the
//! server's mistakes.

use std::collections::BTreeSet;

use protocol::{Conversation, ConversationId, Entry, EntryBody, UserId};

use super::{Findings, Invariant, facts::Facts};

/// [`Invariant::Rights`], for every entry of a log without holes.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for (conv, log) in facts.logs.iter().filter(|(_, log)| log.whole) {
        let mut state = State::default();
        let mut before = None;
        for slot in log.slots.values() {
            if let Err(why) = state.apply(*conv, slot.entry) {
                let events = [before, Some(slot.seen)].into_iter().flatten().collect();
                findings.anomaly(Invariant::Rights, events, format!("{why}: {:?}", slot.entry));
            }
            if !matches!(slot.entry.body, EntryBody::Message { .. }) {
                before = Some(slot.seen);
            }
        }
    }
}

/// Who may do what in a conversation.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Direct.
    pub(super) friends: bool,
    /// Direct: who has blocked the other.
    pub(super) blockers: BTreeSet<UserId>,
    /// Group.
    pub(super) creator: Option<UserId>,
    /// Group: creator included.
    pub(super) members: BTreeSet<UserId>,
}

impl State {
    /// Takes an entry into account, and says why it should not be there.
    pub(super) fn apply(&mut self, conv: ConversationId, entry: &Entry) -> Result<(), &'static str> {
        match conv.parse() {
            Conversation::Direct(a, b) => self.direct(if entry.from == a { b } else { a }, entry),
            Conversation::Group(_) => self.group(entry),
            Conversation::Notices(_) => match entry.body {
                EntryBody::Opened { .. } => Ok(()),
                _ => Err("it is no notice"),
            },
        }
    }

    fn direct(&mut self, peer: UserId, entry: &Entry) -> Result<(), &'static str> {
        let from = entry.from;
        if entry.conv.peer_of(from).is_none() {
            return Err("a third user wrote it");
        }
        let allowed = |yes: bool, why| if yes { Ok(()) } else { Err(why) };
        match entry.body {
            EntryBody::Message { .. } => {
                allowed(self.friends, "they are not friends")?;
                allowed(!self.blockers.contains(&peer), "the author is blocked")
            }
            EntryBody::Befriended => {
                let (were, blocked) = (self.friends, self.blockers.contains(&peer));
                self.friends = true;
                allowed(!were, "they are friends already")?;
                allowed(!blocked, "the author is blocked")
            }
            EntryBody::Unfriended => {
                let were = std::mem::take(&mut self.friends);
                allowed(were, "they are not friends")
            }
            EntryBody::Blocked => allowed(self.blockers.insert(from), "blocked already"),
            EntryBody::Unblocked => allowed(self.blockers.remove(&from), "not blocked"),
            _ => Err("it has no place in a direct conversation"),
        }
    }

    fn group(&mut self, entry: &Entry) -> Result<(), &'static str> {
        let from = entry.from;
        let Some(creator) = self.creator else {
            self.creator = Some(from);
            self.members.insert(from);
            return match entry.body {
                EntryBody::Created { .. } => Ok(()),
                _ => Err("the group was not created before"),
            };
        };
        if self.members.is_empty() {
            return Err("the group was deleted before");
        }
        let member = self.members.contains(&from);
        let allowed = |yes: bool, why| if yes { Ok(()) } else { Err(why) };
        match entry.body {
            EntryBody::Message { .. } => allowed(member, "the author is not a member"),
            EntryBody::Joined => allowed(self.members.insert(from), "they are a member already"),
            EntryBody::Left => {
                self.members.remove(&from);
                allowed(member, "they are not a member")?;
                allowed(from != creator, "the creator does not leave")
            }
            EntryBody::Removed { user, .. } => {
                let was = self.members.remove(&user);
                allowed(from == creator, "the author is not the creator")?;
                allowed(was, "who was removed is not a member")?;
                allowed(user != creator, "the creator is not removed")
            }
            EntryBody::Deleted => {
                self.members.clear();
                allowed(from == creator, "the author is not the creator")
            }
            _ => Err("it has no place in a group"),
        }
    }
}
