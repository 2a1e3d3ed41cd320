//! The checker of a load run: judges every message when it arrives, in memory that does not grow with their number.
//!
//! [`crate::checker`] judges a whole history, of which a load run of millions of messages keeps none. The
//! definitions are the same, reduced to what such a run can break, since its members and rights do not change:
//!
//! | Count | [`crate::checker::Invariant`] |
//! |---|---|
//! | `lost` | `AcknowledgedLoss`, `Completeness`, `NoGaps`: acknowledged, and not shown to a device of a member by the end |
//! | `duplicated` | `ExactlyOnce`: an entry shown again, or one message at two places |
//! | `reordered` | `ExactlyOnce` (too late), `RealTimeOrder`: an entry after its successor, a sender's messages in another order than sent, or below what was acknowledged before |
//! | `altered` | `Phantom`: not the text, sender or message id that was sent |
//! | `phantom` | `Phantom`: refused for certain, or never sent, and yet shown |
//! | `misdelivered` | `Leak`, `Membership`: shown to a device whose user is not of the conversation |
//! | `diverged` | `TotalOrder`, `IdempotentRetry`: devices of one conversation were shown different logs, or a reply named another place |
//! | `gaps` | none; SPEC.md, section 5: on one connection, an entry came before its predecessor, which was dropped or overtaken on the way, or a line was none of the protocol's. The client heals it by resuming |

use std::collections::{BTreeMap, BTreeSet};

use protocol::Seq;
use serde::{Deserialize, Serialize};

use super::stamp::{LineId, mix};

/// Broken promises, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the module's table says what each one is")]
pub struct Anomalies {
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub altered: u64,
    pub phantom: u64,
    pub misdelivered: u64,
    pub diverged: u64,
    pub gaps: u64,
}

impl Anomalies {
    /// Each count with its name.
    pub fn counts(&self) -> [(&'static str, u64); 8] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("altered", self.altered),
            ("phantom", self.phantom),
            ("misdelivered", self.misdelivered),
            ("diverged", self.diverged),
            ("gaps", self.gaps),
        ]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.counts().iter().map(|(_, count)| count).sum()
    }

    /// Adds another device's.
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.altered += other.altered;
        self.phantom += other.phantom;
        self.misdelivered += other.misdelivered;
        self.diverged += other.diverged;
        self.gaps += other.gaps;
    }
}

/// What one device was shown of one conversation.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// The highest seq shown.
    last: Option<Seq>,
    /// Below it, and not shown.
    missing: BTreeSet<Seq>,
    /// How many more were missing than [`MISSING_MAX`].
    given_up: u64,
    /// By line, ascending.
    lines: Vec<(LineId, Counters)>,
    /// A digest of the messages of the run in the order in which they were shown.
    digest: u64,
}

/// Which messages of one line were shown.
#[derive(Debug, Default)]
struct Counters {
    /// One above the highest shown.
    next: u32,
    /// Below it, and not shown.
    missing: BTreeSet<u32>,
}

/// What became of the messages of a line, as their sender knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    /// How many were sent.
    pub(super) count: u32,
    /// Refused for certain.
    pub(super) refused: &'a BTreeSet<u32>,
    /// May be there or not.
    pub(super) unknown: &'a BTreeSet<u32>,
}

/// Missing entries or messages that an inbox remembers one by one. Those beyond count as lost at once.
const MISSING_MAX: usize = 10_000;

impl Inbox {
    /// An entry of any kind was shown.
    pub(super) fn entry(&mut self, seq: Seq, anomalies: &mut Anomalies) {
        let Some(last) = self.last else {
            self.last = Some(seq);
            return;
        };
        if seq > last {
            let between = seq.0 - last.0 - 1;
            let room = (MISSING_MAX - self.missing.len()) as u64;
            self.missing.extend((last.0 + 1..).take(between.min(room) as usize).map(Seq));
            self.given_up += between.saturating_sub(room);
            self.last = Some(seq);
        } else if self.missing.remove(&seq) {
            anomalies.reordered += 1;
        } else {
            anomalies.duplicated += 1;
        }
    }

    /// The entry is a message of the run; whether it is the first time that this device is shown it.
    pub(super) fn message(
        &mut self,
        seq: Seq,
        line: LineId,
        counter: u32,
        anomalies: &mut Anomalies,
    ) -> bool {
        self.digest = mix(self.digest ^ mix(seq.0 ^ mix(u64::from(line) << 32 | u64::from(counter))));
        let at = self.lines.binary_search_by_key(&line, |(line, _)| *line).unwrap_or_else(|at| {
            self.lines.insert(at, (line, Counters::default()));
            at
        });
        let counters = &mut self.lines[at].1;
        if counter >= counters.next {
            let room = MISSING_MAX - counters.missing.len();
            counters.missing.extend((counters.next..counter).take(room));
            counters.next = counter.saturating_add(1);
            return true;
        }
        // A message at two places, or shown again, was seen before; a missing one comes out of order.
        if counters.missing.remove(&counter) {
            anomalies.reordered += 1;
            return true;
        }
        anomalies.duplicated += 1;
        false
    }

    /// Entries that never came though later ones did.
    pub(super) fn skipped(&self) -> u64 {
        self.missing.len() as u64 + self.given_up
    }

    /// Equal for two devices that were shown the same messages of the run in the same order.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Compares what was shown with what a line's sender knows.
    pub(super) fn reconcile(&self, line: LineId, sent: Sent<'_>, anomalies: &mut Anomalies) {
        let none = Counters::default();
        let found = self.lines.binary_search_by_key(&line, |(line, _)| *line);
        let counters = found.map_or(&none, |at| &self.lines[at].1);
        let absent = counters.missing.iter().copied().chain(counters.next..sent.count);
        let acknowledged = |counter: &u32| !sent.refused.contains(counter) && !sent.unknown.contains(counter);
        anomalies.lost += absent.filter(acknowledged).count() as u64;
        let shown = |counter: &&u32| **counter < counters.next && !counters.missing.contains(counter);
        anomalies.phantom += sent.refused.iter().filter(shown).count() as u64;
        anomalies.phantom += u64::from(counters.next.saturating_sub(sent.count));
    }
}

/// Whether acknowledgements and a sender's own pushes name the same places.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By counter: what was heard first, and by which way.
    heard: BTreeMap<(LineId, u32), (Seq, Heard)>,
}

/// How a sender hears of a message's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// By the reply.
    Reply,
    /// By the push.
    Push,
}

impl Places {
    /// The sender hears of a place.
    pub(super) fn hear(
        &mut self,
        line: LineId,
        counter: u32,
        seq: Seq,
        how: Heard,
        anomalies: &mut Anomalies,
    ) {
        match self.heard.remove(&(line, counter)) {
            Some((other, heard)) if heard != how => anomalies.diverged += u64::from(other != seq),
            // Twice by the same way is a duplicate, which others count.
            _ => drop(self.heard.insert((line, counter), (seq, how))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an inbox finds in arrivals of (seq, counter) on one line of which `sent` messages were acknowledged.
    #[track_caller]
    fn check(sent: u32, arrivals: &[(u64, u32)], expected: Anomalies) {
        check_all(sent, &[], &[], arrivals, expected);
    }

    #[track_caller]
    fn check_all(sent: u32, refused: &[u32], unknown: &[u32], arrivals: &[(u64, u32)], expected: Anomalies) {
        let (mut inbox, mut anomalies) = (Inbox::default(), Anomalies::default());
        for (seq, counter) in arrivals {
            inbox.entry(Seq(*seq), &mut anomalies);
            inbox.message(Seq(*seq), 5, *counter, &mut anomalies);
        }
        let (refused, unknown) = (refused.iter().copied().collect(), unknown.iter().copied().collect());
        inbox.reconcile(5, Sent { count: sent, refused: &refused, unknown: &unknown }, &mut anomalies);
        assert_eq!(anomalies, expected);
    }

    const NONE: Anomalies = Anomalies {
        lost: 0,
        duplicated: 0,
        reordered: 0,
        altered: 0,
        phantom: 0,
        misdelivered: 0,
        diverged: 0,
        gaps: 0,
    };

    #[test]
    fn what_arrives_in_order_is_right() {
        check(0, &[], NONE);
        check(3, &[(4, 0), (5, 1), (6, 2)], NONE);
    }

    #[test]
    fn losses_are_found() {
        check(3, &[(4, 0), (6, 2)], Anomalies { lost: 1, ..NONE });
        check(3, &[(4, 0), (5, 1)], Anomalies { lost: 1, ..NONE });
        check(3, &[(5, 1), (6, 2)], Anomalies { lost: 1, ..NONE });
        check(3, &[], Anomalies { lost: 3, ..NONE });
    }

    #[test]
    fn duplicates_are_found() {
        // Shown again: the entry and its message.
        check(2, &[(4, 0), (5, 1), (5, 1)], Anomalies { duplicated: 2, ..NONE });
        // One message at two places.
        check(2, &[(4, 0), (5, 1), (6, 1)], Anomalies { duplicated: 1, ..NONE });
    }

    #[test]
    fn disorder_is_found() {
        // An entry after its successor: the entry and its message.
        check(3, &[(4, 0), (6, 2), (5, 1)], Anomalies { reordered: 2, ..NONE });
        // The log itself has a sender's messages in another order.
        check(3, &[(4, 0), (5, 2), (6, 1)], Anomalies { reordered: 1, ..NONE });
    }

    #[test]
    fn what_was_not_acknowledged_may_be_there_or_not() {
        check_all(3, &[1], &[], &[(4, 0), (5, 2)], NONE);
        check_all(3, &[1], &[], &[(4, 0), (5, 1), (6, 2)], Anomalies { phantom: 1, ..NONE });
        check_all(3, &[], &[1], &[(4, 0), (5, 2)], NONE);
        check_all(3, &[], &[1], &[(4, 0), (5, 1), (6, 2)], NONE);
        check_all(1, &[], &[], &[(4, 0), (5, 1)], Anomalies { phantom: 1, ..NONE });
    }

    #[test]
    fn devices_that_were_shown_the_same_have_one_digest() {
        let digest = |arrivals: &[(u64, u32)]| {
            let (mut inbox, mut anomalies) = (Inbox::default(), Anomalies::default());
            for (seq, counter) in arrivals {
                inbox.message(Seq(*seq), 1, *counter, &mut anomalies);
            }
            inbox.digest()
        };
        assert_eq!(digest(&[(1, 0), (2, 1)]), digest(&[(1, 0), (2, 1)]));
        assert_ne!(digest(&[(1, 0), (2, 1)]), digest(&[(1, 1), (2, 0)]));
        assert_ne!(digest(&[(1, 0), (2, 1)]), digest(&[(1, 0), (3, 1)]));
    }

    #[test]
    fn a_reply_names_the_place_that_is_pushed() {
        let (mut places, mut anomalies) = (Places::default(), Anomalies::default());
        for (first, second) in [(Heard::Reply, Heard::Push), (Heard::Push, Heard::Reply)] {
            places.hear(1, 0, Seq(4), first, &mut anomalies);
            places.hear(1, 0, Seq(4), second, &mut anomalies);
        }
        assert_eq!(anomalies, NONE);
        assert!(places.heard.is_empty());
        places.hear(1, 1, Seq(5), Heard::Reply, &mut anomalies);
        places.hear(1, 1, Seq(6), Heard::Push, &mut anomalies);
        assert_eq!(anomalies, Anomalies { diverged: 1, ..NONE });
    }

    #[test]
    fn memory_is_bounded() {
        let (mut inbox, mut anomalies) = (Inbox::default(), Anomalies::default());
        inbox.entry(Seq(1), &mut anomalies);
        inbox.entry(Seq(1_000_000_000), &mut anomalies);
        inbox.message(Seq(1_000_000_000), 1, u32::MAX - 1, &mut anomalies);
        assert_eq!(inbox.skipped(), 999_999_998);
        assert!(inbox.missing.len() <= MISSING_MAX && inbox.lines[0].1.missing.len() <= MISSING_MAX);
    }
}
