//! Membership: who was shown what.

use super::{Findings, Invariant, facts::Facts};

/// [`Invariant::Membership`]. Of a log with holes the periods are not known; the holes are reported
/// elsewhere.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for seen in facts.sightings() {
        let (conv, seq) = (seen.entry.conv, seen.entry.seq);
        let Some(log) = facts.logs.get(&conv).filter(|log| log.whole) else { continue };
        if log.may_read(seen.user, seq) {
            continue;
        }
        let first = log.slots.get(&seq).map(|slot| slot.seen);
        findings.anomaly(
            Invariant::Membership,
            [Some(seen.at), first].into_iter().flatten().collect(),
            format!(
                "user {} is shown {conv}/{seq}, and may read {:?}",
                seen.user,
                log.periods(seen.user).iter().map(|p| (p.from.0, p.until.map(|u| u.0))).collect::<Vec<_>>()
            ),
        );
    }
}
