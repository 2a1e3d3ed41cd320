//! Liveness.

use std::time::Duration;

use super::{Findings, Invariant, facts::Facts};
use crate::history::Outcome;

/// [`Invariant::Liveness`]: what is asked once the faults have been over for long enough has a final answer
/// in time.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let Some(healed) = facts.healed else { return };
    // A system that nothing was done to has nothing to recover from.
    let recovered = healed + if facts.faults { facts.bounds.delivery } else { Duration::ZERO };
    for operation in &facts.operations {
        let asked = facts.time(operation.invoked);
        let device = facts.devices.get(&operation.device);
        let unseen = operation.returned.is_none_or(|(_, outcome)| *outcome == Outcome::Unknown);
        // Nobody is left to answer to.
        if asked < recovered || (unseen && device.is_some_and(|device| device.crashed)) {
            continue;
        }
        let late = |at: Duration| at > asked + facts.bounds.operation;
        let problem = match operation.returned {
            Some((_, Outcome::Unknown)) => Some("its outcome is unknown"),
            Some((_, Outcome::Failed { code: None })) => Some("it could not be asked"),
            Some((at, _)) => late(facts.time(at)).then_some("its answer is late"),
            None if late(facts.end()) => Some("it was never answered"),
            None => {
                findings.pending(format!("no answer to {:?}", operation.call));
                None
            }
        };
        if let Some(problem) = problem {
            let returned = operation.returned.map(|(at, _)| at);
            let events = [Some(operation.invoked), returned].into_iter().flatten().collect();
            findings.anomaly(Invariant::Liveness, events, format!("{problem}: {:?}", operation.call));
        }
    }
}
