//! Bounded memory.

use super::{Findings, Invariant, facts::Facts};
use crate::history::What;

/// [`Invariant::BoundedMemory`], for every gauge that was read.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for (at, event) in facts.events.iter().enumerate() {
        if let What::Memory { node, gauge, amount, bound } = &event.what
            && amount > bound
        {
            let detail = format!("{node} has {amount} {gauge}, and {bound} is the bound");
            findings.anomaly(Invariant::BoundedMemory, vec![at], detail);
        }
    }
}
