//! Rights: what the log before an entry allows, and what it refuses. Written anew from SPEC.md, so that it does not share the
//! server's mistakes.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Conversation, ConversationId, Entry, EntryBody, ErrorCode, Seq, UserId};

use super::{
    Findings, Invariant,
    facts::{Facts, Log, Operation},
};
use crate::history::{Call, Outcome};

/// [`Invariant::Rights`], for every entry of a log without holes, and every `send` that was refused there.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    refusals(facts, findings);
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

/// From an entry on, up to another or still.
type Span = (Seq, Option<Seq>);

/// Whether there was a moment at which a refused `send` was not allowed: as of an entry that precedes nothing
/// that was acknowledged before it was asked for, and was itself asked for before the refusal came.
fn refusals(facts: &Facts<'_>, findings: &mut Findings) {
    let mut spans: BTreeMap<ConversationId, BTreeMap<UserId, Vec<Span>>> = BTreeMap::new();
    for operation in &facts.operations {
        let (Some(user), Call::Send { conv, .. }) = (operation.user, operation.call) else { continue };
        let Some((at, Outcome::Failed { code: Some(code) })) = operation.returned else { continue };
        let of_rights = matches!(
            code,
            ErrorCode::NotMember | ErrorCode::NoSuchGroup | ErrorCode::NotFriends | ErrorCode::Blocked
        );
        let Some(log) = facts.logs.get(conv).filter(|log| of_rights && log.whole) else { continue };
        let spans = spans.entry(*conv).or_insert_with(|| allowed(*conv, log));
        let first = log.acknowledged_before(operation.invoked).map(|(seq, _)| seq).unwrap_or_default();
        let asked_before = |entry: &Entry| {
            let places = facts.requests.get(&(entry.from, entry.mid)).map_or(&[][..], Vec::as_slice);
            let operation: Option<&Operation<'_>> = places.first().map(|place| &facts.operations[*place]);
            operation.is_none_or(|operation| operation.invoked < at)
        };
        let later = log.slots.range(first.next()..).take_while(|(_, slot)| asked_before(slot.entry));
        let last = later.last().map_or(first, |(seq, _)| *seq);
        let covers = |(from, until): &&Span| *from <= first && until.is_none_or(|until| last < until);
        if let Some((from, _)) = spans.get(&user).and_then(|spans| spans.iter().find(covers)) {
            let slot = log.slots.get(from);
            findings.anomaly(
                Invariant::Rights,
                slot.map(|slot| slot.seen).into_iter().chain([operation.invoked, at]).collect(),
                format!("user {user} was refused ({code}) in {conv}, and was allowed to send since {from}"),
            );
        }
    }
}

/// From which entry on each user was allowed to send, and until which.
fn allowed(conv: ConversationId, log: &Log<'_>) -> BTreeMap<UserId, Vec<Span>> {
    let mut state = State::default();
    let mut spans: BTreeMap<UserId, Vec<Span>> = BTreeMap::new();
    for (seq, slot) in &log.slots {
        // An entry that should not be there is reported elsewhere.
        let _ = state.apply(conv, slot.entry);
        let mut touched = vec![slot.entry.from];
        touched.extend(conv.peer_of(slot.entry.from));
        match &slot.entry.body {
            EntryBody::Message { .. } => continue,
            EntryBody::Removed { user, .. } => touched.push(*user),
            EntryBody::Deleted => touched.extend(spans.keys()),
            _ => {}
        }
        for user in touched {
            let spans = spans.entry(user).or_default();
            let open = spans.last_mut().filter(|(_, until)| until.is_none());
            match (open, state.may_send(conv, user)) {
                (None, true) => spans.push((*seq, None)),
                (Some((_, until)), false) => *until = Some(*seq),
                _ => {}
            }
        }
    }
    spans
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

    fn may_send(&self, conv: ConversationId, user: UserId) -> bool {
        match conv.peer_of(user) {
            Some(peer) => self.friends && !self.blockers.contains(&peer),
            None => self.members.contains(&user),
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
