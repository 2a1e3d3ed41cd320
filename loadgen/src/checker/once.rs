//! Exactly once, and idempotent retries.

use std::collections::BTreeMap;

use protocol::{ConversationId, ErrorCode, Seq};

use super::{Findings, Invariant, facts::Facts};
use crate::history::{Index, Outcome};

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    shown_once(facts, findings);
    one_entry(facts, findings);
    one_answer(facts, findings);
    no_late_refusal(facts, findings);
}

/// [`Invariant::ExactlyOnce`], of a device.
fn shown_once(facts: &Facts<'_>, findings: &mut Findings) {
    for ((device, conv), shown) in &facts.shown {
        for pair in shown.windows(2) {
            let [(before, before_at), (seq, at)] = *pair else { continue };
            if seq <= before {
                let how = if seq == before { "again" } else { "too late" };
                findings.anomaly(
                    Invariant::ExactlyOnce,
                    vec![before_at, at],
                    format!("device {} shows {conv}/{seq} {how}: it had shown {before}", device.0),
                );
            }
        }
    }
}

/// [`Invariant::ExactlyOnce`], of a log.
fn one_entry(facts: &Facts<'_>, findings: &mut Findings) {
    for (conv, log) in &facts.logs {
        for pair in log.ids.windows(2) {
            let [(id, seq), (next_id, next_seq)] = pair else { continue };
            if id == next_id {
                let seen = |seq| log.slots.get(seq).map(|slot| slot.seen);
                findings.anomaly(
                    Invariant::ExactlyOnce,
                    [seen(seq), seen(next_seq)].into_iter().flatten().collect(),
                    format!("one request of user {} is at {conv}/{seq} and at {next_seq}", id.0),
                );
            }
        }
    }
}

/// [`Invariant::IdempotentRetry`].
fn one_answer(facts: &Facts<'_>, findings: &mut Findings) {
    for ((user, _), places) in &facts.requests {
        if places.len() < 2 {
            continue;
        }
        // The same id in two conversations names two requests; a new group's is in the answer only.
        let mut answers: BTreeMap<Option<ConversationId>, ((ConversationId, Seq), Index)> = BTreeMap::new();
        for operation in places.iter().map(|place| &facts.operations[*place]) {
            let Some((conv, seq, at)) = operation.acknowledged() else { continue };
            let ((first_conv, first_seq), first_at) =
                *answers.entry(operation.call.target(*user)).or_insert(((conv, seq), at));
            if (first_conv, first_seq) != (conv, seq) {
                findings.anomaly(
                    Invariant::IdempotentRetry,
                    vec![first_at, at],
                    format!(
                        "user {user} was answered {first_conv}/{first_seq}, and {conv}/{seq} when repeating"
                    ),
                );
            }
        }
    }
}

/// [`Invariant::IdempotentRetry`]: what was acknowledged is not refused when it is asked for again.
fn no_late_refusal(facts: &Facts<'_>, findings: &mut Findings) {
    for ((user, _), places) in facts.requests.iter().filter(|(_, places)| places.len() > 1) {
        let asked = || places.iter().map(|place| &facts.operations[*place]);
        for refused in asked() {
            let Some((at, Outcome::Failed { code: Some(code) })) = refused.returned else { continue };
            if !speaks_of_the_request(*code) {
                continue;
            }
            let acknowledged = asked().find_map(|operation| {
                let (conv, seq, at) = operation.acknowledged()?;
                (operation.call == refused.call && at < refused.invoked).then_some((conv, seq, at))
            });
            if let Some((conv, seq, acknowledged)) = acknowledged {
                findings.anomaly(
                    Invariant::IdempotentRetry,
                    vec![acknowledged, refused.invoked, at],
                    format!("user {user} was answered {conv}/{seq}, and refused ({code}) when repeating"),
                );
            }
        }
    }
}

/// Whether a refusal is one for what was asked, and not for the moment, the connection or the form.
fn speaks_of_the_request(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NoSuchUser
            | ErrorCode::NoSuchGroup
            | ErrorCode::NoSuchConversation
            | ErrorCode::NotMember
            | ErrorCode::AlreadyMember
            | ErrorCode::NotCreator
            | ErrorCode::NotFriends
            | ErrorCode::AlreadyFriends
            | ErrorCode::Blocked
            | ErrorCode::AlreadyBlocked
            | ErrorCode::NotBlocked
            | ErrorCode::IdReused
    )
}
