//! From a history to a verdict: a pure function, one documented invariant each.
//!
//! Every check compares the history with *the log* of each conversation: what the members read at the end,
//! and what anybody was shown besides. A history that is cut short, or in which nobody read a log at its end,
//! leaves some questions open; they are named as reasons of [`Verdict::Unknown`] instead of being guessed.

mod complete;
mod facts;
mod hint;
mod leak;
mod lists;
mod liveness;
mod loss;
mod membership;
mod memory;
mod once;
mod order;
mod phantom;
mod presence;
mod rights;
#[cfg(test)]
mod story;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use self::facts::Facts;
pub use self::hint::{Comparison, compare};
use crate::history::{History, Index};

/// What a history says of the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It kept its promises, as far as they were put to the test.
    Valid,
    /// It did not.
    Invalid(Vec<Anomaly>),
    /// Nothing is wrong, but these questions are open.
    Unknown(Vec<String>),
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Which.
    pub invariant: Invariant,
    /// The events that prove it, in the order of the argument.
    pub events: Vec<Index>,
    /// What is wrong, in words.
    pub detail: String,
}

/// What a history must keep. Numbers are those of SPEC.md, section 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// Whoever is shown an entry at a (conversation, seq) is shown the same entry (2).
    ///
    /// Broken: alice's device shows "x" at g1/4, bob's shows "y" there.
    TotalOrder,
    /// A log has an entry at every seq up to its head, and a device skips none that its user may read (2, 6).
    ///
    /// Broken: a device shows g1/4 and then g1/6, and its user was a member at 5.
    NoGaps,
    /// What was acknowledged before another request of the same conversation was made stands before it (2).
    ///
    /// Broken: "x" was acknowledged at g1/5; then "y" was sent, and stands at g1/4.
    RealTimeOrder,
    /// What was acknowledged stands in the log at the seq that the reply said, from then on (1).
    ///
    /// Broken: "x" was acknowledged at g1/5; bob's history page, asked for afterwards, has nothing there.
    AcknowledgedLoss,
    /// Every entry was asked for by the user it names, with its message id and content, and not refused (4,
    /// 10).
    ///
    /// Broken: a `send` was answered `not_member`, and yet its message is shown.
    Phantom,
    /// A device shows a (conversation, seq) once, in increasing order; a log has one entry for each sender
    /// and message id (3).
    ///
    /// Broken: a device shows g1/4 again after its reconnect.
    ExactlyOnce,
    /// All replies that acknowledge one request of one user carry one seq (3).
    ///
    /// Broken: a repeated `send` is answered with seq 7; the first answer was 5.
    IdempotentRetry,
    /// A user is shown only what lies in one of their periods (5).
    ///
    /// Broken: bob was removed at g1/5 and is shown g1/6.
    Membership,
    /// Every entry was allowed by the log before it (SPEC.md, section 4).
    ///
    /// Broken: bob was removed at g1/5, and his message stands at g1/6.
    Rights,
    /// The words of a conversation reach nobody but those who may read it (5).
    ///
    /// Broken: the canary of g1 is in a text of d1-2, or among the bytes sent to somebody who never was in
    /// g1.
    Leak,
    /// When faults have stopped, every device is shown all that its user may read, from its start on, in time
    /// (6).
    ///
    /// Broken: g1/9 was acknowledged two minutes before the end, and bob's connected device ends at g1/8.
    Completeness,
    /// When faults have stopped, whoever asks is told in time who is online (8).
    ///
    /// Broken: bob's last device ended two minutes ago, and alice is told that he is online.
    Presence,
    /// When faults have stopped, requests get final answers in time (6, 10).
    ///
    /// Broken: a `send` two minutes after the healing was never answered.
    Liveness,
    /// At the end, the lists of groups and friends agree with the logs (SPEC.md, section 4).
    ///
    /// Broken: g1 was deleted, and alice's list has it.
    Lists,
    /// No node ever holds more than its limits say (9).
    ///
    /// Broken: node 2 holds 65 entries ahead of a gap, and 64 is the bound.
    BoundedMemory,
    /// A run with every hint dropped ends in the same state as one with all of them (7). Two histories are
    /// needed to tell: [`compare`].
    ///
    /// Broken: g1 ends with "x" at 5; without hints it ends at 4, and the `send` of "x" was refused.
    RelayIsAHint,
}

/// Judges a history.
pub fn check(history: &History) -> Verdict {
    let facts = Facts::new(history);
    let mut findings = Findings::default();
    for question in &facts.questions {
        findings.question(question.clone());
    }
    order::check(&facts, &mut findings);
    loss::check(&facts, &mut findings);
    phantom::check(&facts, &mut findings);
    once::check(&facts, &mut findings);
    membership::check(&facts, &mut findings);
    rights::check(&facts, &mut findings);
    leak::check(&facts, &mut findings);
    complete::check(&facts, &mut findings);
    presence::check(&facts, &mut findings);
    liveness::check(&facts, &mut findings);
    lists::check(&facts, &mut findings);
    memory::check(&facts, &mut findings);
    findings.verdict()
}

/// What is still on its way: entries not yet shown, states not yet told. Empty means that waiting longer
/// changes nothing. A workload asks it instead of sleeping for as long as the bounds allow.
pub fn unsettled(history: &History) -> Vec<String> {
    let facts = Facts::new(history);
    let mut findings = Findings::default();
    complete::check(&facts, &mut findings);
    presence::check(&facts, &mut findings);
    let mut all: Vec<String> = findings.pending.into_iter().collect();
    all.extend(findings.anomalies.into_iter().map(|anomaly| anomaly.detail));
    all
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} (events {:?})", self.invariant, self.detail, self.events)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("valid"),
            Self::Invalid(anomalies) => {
                write!(f, "invalid")?;
                anomalies.iter().try_for_each(|anomaly| write!(f, "\n  {anomaly}"))
            }
            Self::Unknown(reasons) => {
                write!(f, "unknown")?;
                reasons.iter().try_for_each(|reason| write!(f, "\n  {reason}"))
            }
        }
    }
}

/// Anomalies of one kind that are kept: enough to see a pattern, and a broken run of a million events stays
/// small.
const ANOMALIES_MAX: usize = 100;
/// Open questions that are kept.
const QUESTIONS_MAX: usize = 100;

/// What the checks have found.
#[derive(Debug, Default)]
struct Findings {
    anomalies: Vec<Anomaly>,
    counts: BTreeMap<Invariant, usize>,
    questions: BTreeSet<String>,
    /// What would be an anomaly if the history went on for longer without it.
    pending: BTreeSet<String>,
}

impl Findings {
    fn anomaly(&mut self, invariant: Invariant, events: Vec<Index>, detail: String) {
        let count = self.counts.entry(invariant).or_default();
        *count += 1;
        if *count <= ANOMALIES_MAX {
            self.anomalies.push(Anomaly { invariant, events, detail });
        }
    }

    fn question(&mut self, question: String) {
        if self.questions.len() < QUESTIONS_MAX {
            self.questions.insert(question);
        }
    }

    fn pending(&mut self, what: String) {
        if self.pending.len() < QUESTIONS_MAX {
            self.pending.insert(what);
        }
    }

    fn verdict(mut self) -> Verdict {
        self.questions.extend(self.pending.iter().map(|what| format!("the history ends too early: {what}")));
        if !self.anomalies.is_empty() {
            Verdict::Invalid(self.anomalies)
        } else if !self.questions.is_empty() {
            Verdict::Unknown(self.questions.into_iter().collect())
        } else {
            Verdict::Valid
        }
    }
}
