//! What became of the attackers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::options::{Kind, Options};

/// An attack's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Length of the attack.
    pub seconds: f64,
    /// How many took part.
    pub attackers: u32,
    /// Of them, the node has ended the connection of so many at least once.
    pub shut_out: u32,
    /// By kind.
    pub kinds: BTreeMap<String, KindReport>,
}

/// What became of the attackers of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// How many there were.
    pub attackers: u32,
    /// Of them, the node has ended the connection of so many at least once.
    pub shut_out: u32,
    /// Connections made.
    pub connections: u64,
    /// Connections that could not be made.
    pub not_connected: u64,
    /// Connections that the node has ended.
    pub ended: u64,
    /// Connections at the end.
    pub open: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Replies that said yes.
    pub ok: u64,
    /// Replies that said no, by code.
    pub refusals: BTreeMap<String, u64>,
    /// What the node said at the end of a connection, by code.
    pub closings: BTreeMap<String, u64>,
}

/// Counts during the attack.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<Kind, (KindReport, BTreeSet<u32>)>>);

impl Tally {
    /// Something that an attacker of a kind has met.
    pub(super) fn count(&self, kind: Kind, note: impl FnOnce(&mut KindReport)) {
        note(&mut self.lock().entry(kind).or_default().0);
    }

    /// The node has ended an attacker's connection.
    pub(super) fn shut_out(&self, kind: Kind, number: u32) {
        self.lock().entry(kind).or_default().1.insert(number);
    }

    pub(super) fn report(&self, options: &Options, time: Duration) -> Report {
        let mut tally = self.lock().clone();
        for number in 0..options.connections {
            tally.entry(options.kind(number)).or_default().0.attackers += 1;
        }
        let of = |(kind, (mut report, out)): (Kind, (KindReport, BTreeSet<u32>))| {
            report.shut_out = out.len() as u32;
            (kind.name(), report)
        };
        let kinds: BTreeMap<String, KindReport> = tally.into_iter().map(of).collect();
        Report {
            seconds: time.as_secs_f64(),
            attackers: options.connections,
            shut_out: kinds.values().map(|kind| kind.shut_out).sum(),
            kinds,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, (KindReport, BTreeSet<u32>)>> {
        // What is counted stays what it was.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["attackers", "number", "shut out", "connections", "ended", "open", "sessions", "kB sent"];
        write!(f, "{:<18}", head[0])?;
        head[1..].iter().try_for_each(|head| write!(f, "{head:>12}"))?;
        writeln!(f, "  answers")?;
        for (name, kind) in &self.kinds {
            write!(f, "{name:<18}{:>12}{:>12}", kind.attackers, kind.shut_out)?;
            write!(f, "{:>12}{:>12}{:>12}", kind.connections, kind.ended, kind.open)?;
            write!(f, "{:>12}{:>12}  ", kind.sessions, kind.bytes_sent / 1000)?;
            let said = kind.refusals.iter().chain(&kind.closings);
            let mut said: Vec<String> = said.map(|(code, count)| format!("{count} {code}")).collect();
            if kind.ok > 0 {
                said.insert(0, format!("{} ok", kind.ok));
            }
            writeln!(f, "{}", said.join(", "))?;
        }
        write!(f, "{} of {} were shut out, in {:.0} s", self.shut_out, self.attackers, self.seconds)
    }
}
