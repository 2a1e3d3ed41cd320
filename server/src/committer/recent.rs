//! What this node committed lately: for an operator who asks where a message came from. Nothing else depends on it.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use protocol::{ConversationId, Seq};

/// Runs that are remembered, of 24 bytes each; beyond, the oldest is forgotten.
const RUNS_MAX: usize = 1 << 15;

/// Entries of one conversation that one statement wrote: from the first to the last.
type Run = (ConversationId, Seq, Seq);

/// The latest runs.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<Run>>);

impl Recent {
    /// Takes what was committed.
    pub(super) fn add(&self, runs: impl IntoIterator<Item = Run>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for run in runs {
            if known.len() >= RUNS_MAX {
                known.pop_front();
            }
            known.push_back(run);
        }
    }

    /// Whether an entry is among it.
    pub(super) fn contains(&self, conv: ConversationId, seq: Seq) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().any(|(of, first, last)| *of == conv && *first <= seq && seq <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_known() {
        let conv = |number: u64| -> ConversationId { format!("g{number}").parse().unwrap() };
        let recent = Recent::default();
        recent.add([(conv(1), Seq(3), Seq(5)), (conv(2), Seq(9), Seq(9))]);
        let known = |number, seq| recent.contains(conv(number), Seq(seq));
        assert_eq!([2, 3, 5, 6].map(|seq| known(1, seq)), [false, true, true, false]);
        assert!(known(2, 9) && !known(2, 3));
        recent.add((0..RUNS_MAX as u64).map(|seq| (conv(3), Seq(seq), Seq(seq))));
        assert!(!known(1, 3) && known(3, 0), "bounded: the oldest are forgotten");
        assert_eq!(recent.0.lock().unwrap().len(), RUNS_MAX);
    }
}
