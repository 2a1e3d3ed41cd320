//! Total order, no gaps, real-time order.

use protocol::{ConversationId, Seq};

use super::{
    Findings, Invariant,
    facts::{Facts, Log},
};
use crate::history::Index;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    total_order(facts, findings);
    for (conv, log) in &facts.logs {
        if !log.whole {
            gaps(facts, *conv, log, findings);
        }
    }
    skipped(facts, findings);
    real_time(facts, findings);
}

/// [`Invariant::TotalOrder`]: by shown entries, and by acknowledgements of two requests at one place.
fn total_order(facts: &Facts<'_>, findings: &mut Findings) {
    for (at, entry) in &facts.deviants {
        let Some(slot) = facts.logs.get(&entry.conv).and_then(|log| log.slots.get(&entry.seq)) else {
            continue;
        };
        findings.anomaly(
            Invariant::TotalOrder,
            vec![slot.seen, *at],
            format!("two entries at {}/{}: {:?} and {:?}", entry.conv, entry.seq, slot.entry, entry),
        );
    }
}

/// [`Invariant::NoGaps`], of a log: a hole below something that was seen, which a final reader should have
/// been shown.
fn gaps(facts: &Facts<'_>, conv: ConversationId, log: &Log<'_>, findings: &mut Findings) {
    let mut expected = Seq(1);
    for (seq, slot) in &log.slots {
        if expected < *seq {
            // The first of a hole tells; a hole of any size costs the same.
            let reader = facts
                .finals
                .range((conv, protocol::UserId::new(1).expect("1 is a number"))..)
                .take_while(|((c, _), _)| *c == conv)
                .find(|((_, user), last)| {
                    log.may_read(*user, expected) && last.entries.last().is_some_and(|e| e.seq > expected)
                });
            match reader {
                Some((_, last)) => findings.anomaly(
                    Invariant::NoGaps,
                    vec![last.at, slot.seen],
                    format!("{conv} has nothing at {expected}, and goes on at {seq}"),
                ),
                None => findings.question(format!("nobody saw {conv}/{expected}, which precedes {seq}")),
            }
        }
        expected = seq.next();
    }
}

/// [`Invariant::NoGaps`], of a device.
fn skipped(facts: &Facts<'_>, findings: &mut Findings) {
    for ((device, conv), shown) in &facts.shown {
        let (Some(log), Some(user)) = (facts.logs.get(conv), facts.user_of(*device)) else { continue };
        for pair in shown.windows(2) {
            let [(from, from_at), (to, to_at)] = *pair else { continue };
            if to <= from.next() {
                continue;
            }
            let missed = log.slots.range(from.next()..to).find(|(seq, _)| log.may_read(user, **seq));
            if let Some((seq, slot)) = missed {
                findings.anomaly(
                    Invariant::NoGaps,
                    vec![from_at, to_at, slot.seen],
                    format!("device {} of user {user} skips {conv}/{seq}", device.0),
                );
            }
        }
    }
}

/// [`Invariant::RealTimeOrder`]. A request counts from its first invocation, whatever repetition was
/// answered.
fn real_time(facts: &Facts<'_>, findings: &mut Findings) {
    for ((user, mid), places) in &facts.requests {
        let Some(first) = places.first().map(|place| &facts.operations[*place]) else { continue };
        for operation in places.iter().map(|place| &facts.operations[*place]) {
            let Some((conv, seq, at)) = operation.acknowledged() else { continue };
            // The same id may have been used in another conversation first.
            let first = if first.call == operation.call { first } else { operation };
            precedes(facts, conv, seq, first.invoked, at, findings);
        }
        // An unknown outcome may have had its effect: then its place shows where.
        if places.iter().any(|place| facts.operations[*place].acknowledged().is_some()) {
            continue;
        }
        let Some(conv) = first.call.target(*user) else { continue };
        let Some(log) = facts.logs.get(&conv) else { continue };
        let Some(seq) = log.place_of(*user, *mid) else { continue };
        let seen = log.slots.get(&seq).map_or(first.invoked, |slot| slot.seen);
        precedes(facts, conv, seq, first.invoked, seen, findings);
    }
}

fn precedes(
    facts: &Facts<'_>,
    conv: ConversationId,
    seq: Seq,
    invoked: Index,
    proof: Index,
    findings: &mut Findings,
) {
    let before = facts.logs.get(&conv).and_then(|log| log.acknowledged_before(invoked));
    let Some((acknowledged, at)) = before else { return };
    // Equal ones would be two requests at one place: a loss.
    if acknowledged > seq {
        findings.anomaly(
            Invariant::RealTimeOrder,
            vec![at, invoked, proof],
            format!("{conv}/{acknowledged} was acknowledged before the request that is at {seq} was made"),
        );
    }
}
