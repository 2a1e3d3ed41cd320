//! Acknowledged loss.

use protocol::{ConversationId, Entry, Seq, UserId};

use super::{
    Findings, Invariant,
    facts::{Facts, Log, Operation},
};
use crate::history::{Call, Index, Outcome, Reply};

/// [`Invariant::AcknowledgedLoss`]: in the log at the end, and in every page read since.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for operation in &facts.operations {
        if let (Some(user), Some((conv, seq, at))) = (operation.user, operation.acknowledged()) {
            at_the_end(facts, operation, user, (conv, seq, at), findings);
        }
        if let (
            Some(user),
            Call::History { conv, before, .. },
            Some((at, Outcome::Ok { reply: Reply::History { entries, more } })),
        ) = (operation.user, operation.call, operation.returned)
        {
            let page = Page { at, asked: operation.invoked, before: *before, entries, more: *more };
            if let Some(log) = facts.logs.get(conv) {
                in_page(log, *conv, user, &page, findings);
            }
        }
    }
}

/// What an acknowledgement says must be what the log has there.
fn at_the_end(
    facts: &Facts<'_>,
    operation: &Operation<'_>,
    user: UserId,
    (conv, seq, at): (ConversationId, Seq, Index),
    findings: &mut Findings,
) {
    let log = facts.logs.get(&conv);
    let slot = log.and_then(|log| log.slots.get(&seq));
    match slot {
        Some(slot) if slot.entry.from == user && Some(slot.entry.mid) == operation.call.mid() => {
            // Whoever sent it reads it at the end, unless it should not be there: that is another
            // invariant's.
            let readable = log.is_some_and(|log| log.may_read(user, seq));
            let last = facts.finals.get(&(conv, user)).filter(|last| readable && last.at > at);
            if let Some(last) = last.filter(|last| find(last.entries, seq).is_none()) {
                findings.anomaly(
                    Invariant::AcknowledgedLoss,
                    vec![operation.invoked, at, last.at],
                    format!("{conv}/{seq} was acknowledged and is not in the log at the end"),
                );
            }
        }
        Some(slot) => findings.anomaly(
            Invariant::AcknowledgedLoss,
            vec![operation.invoked, at, slot.seen],
            format!("{conv}/{seq} was acknowledged, and another entry stands there: {:?}", slot.entry),
        ),
        None => match facts.finals.get(&(conv, user)).filter(|last| last.at > at) {
            Some(last) => findings.anomaly(
                Invariant::AcknowledgedLoss,
                vec![operation.invoked, at, last.at],
                format!("{conv}/{seq} was acknowledged and is nowhere"),
            ),
            None => {
                findings.question(format!("{conv} was not read at the end by user {user}, who wrote to it"));
            }
        },
    }
}

/// A part of a log that somebody read.
struct Page<'a> {
    at: Index,
    asked: Index,
    before: Option<Seq>,
    entries: &'a [Entry],
    more: bool,
}

/// What was acknowledged before the page was asked for, and lies within it, is on it.
fn in_page(log: &Log<'_>, conv: ConversationId, user: UserId, page: &Page<'_>, findings: &mut Findings) {
    let Some((highest, acknowledged_at)) = log.acknowledged_before(page.asked) else { return };
    let first = match page.entries.first() {
        Some(entry) if page.more => entry.seq,
        // Says that there is more, and shows nothing.
        None if page.more => return,
        _ => Seq(1),
    };
    let last = page.before.map_or(highest, |before| highest.min(before.previous()));
    for period in log.periods(user) {
        let (from, to) = (period.from.max(first), period.until.map_or(last, |until| until.min(last)));
        let mut expected = from;
        // Both ascend; what the page lacks below `to` was acknowledged, or precedes what was.
        for entry in &page.entries[page.entries.partition_point(|entry| entry.seq < from)..] {
            if expected > to || entry.seq > to {
                break;
            }
            if entry.seq != expected {
                break;
            }
            expected = expected.next();
        }
        if expected <= to {
            findings.anomaly(
                Invariant::AcknowledgedLoss,
                vec![acknowledged_at, page.asked, page.at],
                format!("user {user} read {conv} without {expected}, though {highest} had been acknowledged"),
            );
        }
    }
}

/// Among entries in ascending order.
fn find(entries: &[Entry], seq: Seq) -> Option<&Entry> {
    entries.binary_search_by_key(&seq, |entry| entry.seq).ok().map(|at| &entries[at])
}
