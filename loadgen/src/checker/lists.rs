//! Lists agree with logs.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Conversation, GroupId, UserId};

use super::{Findings, Invariant, facts::Facts, rights::State};
use crate::history::{Index, What};

/// What the logs say of a user.
#[derive(Debug, Default)]
struct Expected {
    groups: BTreeSet<GroupId>,
    friends: BTreeSet<UserId>,
    blocked: BTreeSet<UserId>,
}

/// [`Invariant::Lists`], for the last lists that each user read.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let mut lists = BTreeMap::new();
    for (at, event) in facts.events.iter().enumerate() {
        if let What::FinalLists { user, groups, friends, blocked } = &event.what {
            lists.insert(*user, (at, groups, friends, blocked));
        }
    }
    let Some(earliest) = lists.values().map(|(at, ..)| *at).min() else { return };
    let (expected, unsure) = expected(facts, earliest);
    for (user, (at, groups, friends, blocked)) in lists {
        let empty = Expected::default();
        let expected = expected.get(&user).unwrap_or(&empty);
        let sure = |conv: Option<_>| conv.is_some_and(|conv| !unsure.contains(&conv));
        let mut differ = |what: &str, number: u64, listed: bool| {
            let detail = match listed {
                true => format!("user {user}'s list has {what} {number}, and the log says otherwise"),
                false => format!("user {user}'s list lacks {what} {number}, which the log says it has"),
            };
            findings.anomaly(Invariant::Lists, vec![at], detail);
        };
        let listed: BTreeSet<GroupId> = groups.iter().copied().collect();
        for group in listed.symmetric_difference(&expected.groups) {
            if sure(Some(protocol::ConversationId::group(*group))) {
                differ("group", group.number(), listed.contains(group));
            }
        }
        for (what, found, expected) in
            [("friend", friends, &expected.friends), ("blocked user", blocked, &expected.blocked)]
        {
            let listed: BTreeSet<UserId> = found.iter().copied().collect();
            for peer in listed.symmetric_difference(expected) {
                if sure(protocol::ConversationId::direct(user, *peer)) {
                    differ(what, peer.number(), listed.contains(peer));
                }
            }
        }
    }
}

/// What the logs say of every user, and the logs that say nothing certain: they have holes, or went on when
/// lists were read already.
fn expected(
    facts: &Facts<'_>,
    until: Index,
) -> (BTreeMap<UserId, Expected>, BTreeSet<protocol::ConversationId>) {
    let (mut all, mut unsure) = (BTreeMap::<UserId, Expected>::new(), BTreeSet::new());
    for (conv, log) in &facts.logs {
        if !log.whole || log.slots.values().any(|slot| slot.first >= until) {
            unsure.insert(*conv);
            continue;
        }
        let mut state = State::default();
        for slot in log.slots.values() {
            // What should not be there is another invariant's.
            let _ = state.apply(*conv, slot.entry);
        }
        match conv.parse() {
            Conversation::Direct(a, b) => {
                for (user, peer) in [(a, b), (b, a)] {
                    let expected = all.entry(user).or_default();
                    if state.friends {
                        expected.friends.insert(peer);
                    }
                    if state.blockers.contains(&user) {
                        expected.blocked.insert(peer);
                    }
                }
            }
            Conversation::Group(group) => {
                for user in state.members {
                    all.entry(user).or_default().groups.insert(group);
                }
            }
            Conversation::Notices(_) => {}
        }
    }
    (all, unsure)
}
