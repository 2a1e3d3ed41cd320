//! What a set of runs has put to the test: which fault met which phase of a connection, and how often each invariant had something to judge.

use std::{collections::BTreeMap, fmt::Write as _};

use loadgen::{
    History, Invariant,
    history::{Call, DeviceId, OperationId, Outcome, What},
};
use protocol::EntryBody;

use crate::{run::Run, scenario::Scenario};

/// What a connection is busy with when a fault is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// A new device has no connection yet.
    Connecting,
    /// A login is under way.
    LoggingIn,
    /// A message is under way.
    Sending,
    /// A device has lost its connection and its session does not go on yet.
    Resuming,
    /// A node ends in order.
    Draining,
}

/// All phases, in the order of a table's columns.
pub const PHASES: [Phase; 5] =
    [Phase::Connecting, Phase::LoggingIn, Phase::Sending, Phase::Resuming, Phase::Draining];

/// The workload's own faults: what clients do to themselves.
pub const CLIENT_FAULTS: [&str; 2] = ["client_crash", "client_stall"];

/// What some runs have put to the test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Runs.
    pub runs: u64,
    /// In how many runs a kind of fault met a phase.
    pub met: BTreeMap<(String, Phase), u64>,
    /// In how many runs a kind of fault was at work.
    pub faults: BTreeMap<String, u64>,
    /// How many events each invariant judged.
    pub evidence: BTreeMap<Invariant, u64>,
}

impl Coverage {
    /// What one run has put to the test.
    pub fn of(scenario: &Scenario, run: &Run) -> Self {
        let mut coverage = Self { runs: 1, ..Self::default() };
        let kinds: BTreeMap<String, &str> =
            scenario.faults.iter().map(|fault| (fault.to_string(), fault.what.name())).collect();
        let mut watch = Watch::default();
        for event in &run.history.events {
            watch.see(&event.what, &kinds);
            if let What::Crashed { .. } = event.what {
                watch.meet("client_crash", &mut coverage);
            }
            for kind in watch.at_work.values() {
                watch.meet(kind, &mut coverage);
            }
            coverage.judge(&event.what);
        }
        for fault in &scenario.faults {
            coverage.faults.insert(fault.what.name().into(), 1);
        }
        coverage
    }

    /// Adds other runs.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        sum(&mut self.met, &other.met);
        sum(&mut self.faults, &other.faults);
        sum(&mut self.evidence, &other.evidence);
    }

    /// Kinds of faults among these that never met some phase.
    pub fn empty_cells<'a>(&self, kinds: impl Iterator<Item = &'a str>) -> Vec<(String, Phase)> {
        let cells = kinds.flat_map(|kind| PHASES.map(|phase| (kind.to_owned(), phase)));
        cells.filter(|cell| !self.met.contains_key(cell)).collect()
    }

    /// As two tables.
    pub fn table(&self) -> String {
        let mut text = format!("{:<22}{:>8}", "fault", "runs");
        for phase in PHASES {
            let _ = write!(text, "{:>12}", format!("{phase:?}"));
        }
        text.push('\n');
        let mut kinds: Vec<&str> = self.faults.keys().map(String::as_str).collect();
        kinds.extend(CLIENT_FAULTS);
        for kind in kinds {
            let _ = write!(text, "{kind:<22}{:>8}", self.faults.get(kind).copied().unwrap_or_default());
            for phase in PHASES {
                let times = self.met.get(&(kind.to_owned(), phase)).copied().unwrap_or_default();
                let _ = write!(text, "{times:>12}");
            }
            text.push('\n');
        }
        let _ = writeln!(text, "\n{:<22}{:>14}", "invariant", "events judged");
        for (invariant, events) in &self.evidence {
            let _ = writeln!(text, "{:<22}{events:>14}", format!("{invariant:?}"));
        }
        text
    }

    fn judge(&mut self, what: &What) {
        let mut count = |invariants: &[Invariant]| {
            for invariant in invariants {
                *self.evidence.entry(*invariant).or_default() += 1;
            }
        };
        match what {
            What::Entry { entry, .. } => {
                count(&[Invariant::TotalOrder, Invariant::NoGaps, Invariant::Phantom, Invariant::Membership]);
                if !matches!(entry.body, EntryBody::Message { .. } | EntryBody::Opened { .. }) {
                    count(&[Invariant::Rights]);
                }
            }
            What::Resumed { .. } => count(&[Invariant::ExactlyOnce]),
            What::Returned {
                outcome: Outcome::Ok { reply: loadgen::history::Reply::Appended { .. } },
                ..
            } => {
                count(&[Invariant::AcknowledgedLoss, Invariant::RealTimeOrder, Invariant::IdempotentRetry]);
            }
            What::Canary { .. } => count(&[Invariant::Leak]),
            What::Presence { .. } => count(&[Invariant::Presence]),
            What::Final { .. } => count(&[Invariant::Completeness]),
            What::FinalLists { .. } => count(&[Invariant::Lists]),
            What::Memory { .. } => count(&[Invariant::BoundedMemory]),
            What::Returned { .. } => count(&[Invariant::Liveness]),
            _ => {}
        }
    }
}

fn sum<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, times) in from {
        *to.entry(key.clone()).or_default() += times;
    }
}

/// What is under way at a place in a history.
#[derive(Default)]
struct Watch {
    /// Kinds of faults, by what they were recorded as.
    at_work: BTreeMap<String, String>,
    connecting: BTreeMap<DeviceId, ()>,
    resuming: BTreeMap<DeviceId, ()>,
    logged_in: BTreeMap<DeviceId, ()>,
    logins: BTreeMap<OperationId, DeviceId>,
    sends: BTreeMap<OperationId, ()>,
    draining: u64,
}

impl Watch {
    fn see(&mut self, what: &What, kinds: &BTreeMap<String, &str>) {
        match what {
            What::Started { device, .. } => drop(self.connecting.insert(*device, ())),
            What::Connected { device } => drop(self.connecting.remove(device)),
            What::Disconnected { device } if self.logged_in.contains_key(device) => {
                self.resuming.insert(*device, ());
            }
            What::Resumed { device } => drop(self.resuming.remove(device)),
            What::Ended { device } | What::Crashed { device } => {
                self.connecting.remove(device);
                self.resuming.remove(device);
                self.logged_in.remove(device);
            }
            What::Invoked { operation, device, call: Call::Login } => {
                self.logins.insert(*operation, *device);
            }
            What::Invoked { operation, call: Call::Send { .. }, .. } => {
                self.sends.insert(*operation, ());
            }
            What::Returned { operation, .. } => {
                self.sends.remove(operation);
                if let Some(device) = self.logins.remove(operation) {
                    self.logged_in.insert(device, ());
                }
            }
            What::FaultBegan { name } => {
                let kind = kinds.get(name).copied().unwrap_or("client_stall");
                self.draining += u64::from(kind == "drain");
                self.at_work.insert(name.clone(), kind.to_owned());
            }
            What::FaultEnded { name } => {
                let drained = self.at_work.remove(name).is_some_and(|kind| kind == "drain");
                self.draining = self.draining.saturating_sub(u64::from(drained));
            }
            _ => {}
        }
    }

    fn meet(&self, kind: &str, coverage: &mut Coverage) {
        let phases = [
            (Phase::Connecting, !self.connecting.is_empty()),
            (Phase::LoggingIn, !self.logins.is_empty()),
            (Phase::Sending, !self.sends.is_empty()),
            (Phase::Resuming, !self.resuming.is_empty()),
            (Phase::Draining, self.draining > 0),
        ];
        for (phase, _) in phases.iter().filter(|(_, under_way)| *under_way) {
            // Once a run.
            coverage.met.insert((kind.to_owned(), *phase), 1);
        }
    }
}

/// How many operations had which outcome.
pub fn outcomes(history: &History) -> (u64, u64, u64) {
    let (mut ok, mut failed, mut unknown) = (0, 0, 0);
    for event in &history.events {
        if let What::Returned { outcome, .. } = &event.what {
            match outcome {
                Outcome::Ok { .. } => ok += 1,
                Outcome::Failed { .. } => failed += 1,
                Outcome::Unknown => unknown += 1,
            }
        }
    }
    (ok, failed, unknown)
}
