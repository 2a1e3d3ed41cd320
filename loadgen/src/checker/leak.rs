//! No leak: canaries.

use protocol::{ConversationId, EntryBody, UserId};

use super::{Findings, Invariant, facts::Facts};
use crate::{
    canary,
    history::{Index, Outcome, Reply, What},
};

/// [`Invariant::Leak`]: a token in a text of another conversation, or before somebody who never was a reader
/// of its own.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for seen in facts.sightings() {
        if let EntryBody::Message { text } = &seen.entry.body {
            found(facts, text, Some(seen.entry.conv), seen.user, seen.at, findings);
        }
    }
    for operation in &facts.operations {
        let (Some(user), Some((at, Outcome::Ok { reply }))) = (operation.user, operation.returned) else {
            continue;
        };
        let mut look = |text: &str| found(facts, text, None, user, at, findings);
        match reply {
            Reply::Friends { friends } => friends.iter().for_each(|friend| look(&friend.name)),
            Reply::Members { members } => members.iter().for_each(|member| look(&member.name)),
            Reply::Groups { groups } => groups.iter().for_each(|group| {
                look(&group.name);
                look(&group.description);
            }),
            _ => {}
        }
    }
    for (at, event) in facts.events.iter().enumerate() {
        let What::Canary { device, conv } = event.what else { continue };
        match facts.user_of(device) {
            Some(user) => token(facts, conv, user, at, findings),
            None => findings.anomaly(
                Invariant::Leak,
                vec![at],
                format!("words of {conv} reached device {}, which is nobody's", device.0),
            ),
        }
    }
}

fn found(
    facts: &Facts<'_>,
    text: &str,
    within: Option<ConversationId>,
    user: UserId,
    at: Index,
    findings: &mut Findings,
) {
    for conv in canary::scan(text) {
        match within {
            Some(within) if within != conv => findings.anomaly(
                Invariant::Leak,
                vec![at],
                format!("user {user} is shown words of {conv} in {within}: {text:?}"),
            ),
            _ => token(facts, conv, user, at, findings),
        }
    }
}

fn token(facts: &Facts<'_>, conv: ConversationId, user: UserId, at: Index, findings: &mut Findings) {
    // A log with holes may hide when the user became a reader.
    let known = facts.logs.get(&conv).filter(|log| log.whole);
    if known.is_some_and(|log| log.periods(user).is_empty()) {
        findings.anomaly(
            Invariant::Leak,
            vec![at],
            format!("words of {conv} reached user {user}, who never was in it"),
        );
    }
}
