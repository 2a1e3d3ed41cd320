//! A run as one page of HTML that needs nothing else: who sent what to whom and when, and where it went wrong.
//!
//! The page is a template with the run as JSON in it. What the page shows is put into it as text by its script and never parsed as
//! markup; in the JSON no `<` is left, so that no message ends the element that holds it. Bytes of the network are strings of one
//! character for each byte, each different string once; what was received is named by what was sent.

pub(crate) mod messages;
mod rows;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use loadgen::{
    Anomaly,
    history::{self, Outcome},
};
use serde::Serialize;

use self::{
    messages::{Messages, Place},
    rows::{Of, Row, Rows},
};
use crate::{
    explain::{names::Names, promise},
    run::{Run, Verdict},
    scenario::{Fault, Scenario},
    trace::What,
};

/// The page, with places for its parts.
const PAGE: &str = include_str!("report/page.html");
/// How it looks.
const STYLE: &str = include_str!("report/style.css");
/// What it does, in the order in which it is read.
const SCRIPTS: [&str; 5] = [
    include_str!("report/model.js"),
    include_str!("report/filter.js"),
    include_str!("report/diagram.js"),
    include_str!("report/moves.js"),
    include_str!("report/panel.js"),
];
/// Messages whose way through the cluster is highlighted: more make nothing clearer.
const MIDS_MAX: usize = 64;

/// Writes the page of a run whose trace was kept. Always the same bytes for the same run.
///
/// # Errors
/// Those of the writer.
pub fn write(scenario: &Scenario, run: &Run, mut to: impl io::Write) -> io::Result<()> {
    let data = serde_json::to_string(&data(scenario, run))?.replace('<', "\\u003c");
    let mut rest = PAGE;
    let script = SCRIPTS.concat();
    for (mark, part) in [
        ("{{title}}", format!("chatsim: seed {}", scenario.seed).as_str()),
        ("{{style}}", STYLE),
        ("{{data}}", &data),
        ("{{script}}", &script),
    ] {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        to.write_all(before.as_bytes())?;
        to.write_all(part.as_bytes())?;
        rest = after;
    }
    to.write_all(rest.as_bytes())?;
    to.flush()
}

/// What the page's script is given. Times are whole microseconds, and what is named by a number is an index.
#[derive(Debug, Serialize)]
struct Data {
    seed: u64,
    verdict: String,
    /// A word for it: `valid`, `invalid`, `crashed`, `stuck` or `unknown`.
    outcome: &'static str,
    hash: String,
    simulated: u64,
    /// The longest time in which hosts of one step may stand in another order than their clocks say.
    tick: u64,
    trace_events: u64,
    history_events: usize,
    /// As its file has it.
    scenario: String,
    topology: serde_json::Value,
    knobs: serde_json::Value,
    hosts: Vec<String>,
    /// Users' numbers and names.
    users: Vec<(u64, String)>,
    conversations: Vec<String>,
    faults: Vec<Band>,
    anomalies: Vec<Proof>,
    /// Rows that have to do with the anomalies.
    related: Vec<usize>,
    /// Addresses of those who connected and accepted.
    connections: Vec<[String; 2]>,
    /// A row is `[host, time, kind, …]`; see [`Table::row`] for the rest.
    rows: Vec<Vec<i64>>,
    /// Sent row, received row, bytes.
    arrows: Vec<[u64; 3]>,
    /// Sent row, bytes, and the row in which the reader gave up, or -1.
    lost: Vec<[i64; 3]>,
    /// One character for each byte of UTF-8, or of what was on the network.
    strings: Vec<String>,
}

/// A fault's time and place.
#[derive(Debug, Serialize)]
struct Band {
    name: String,
    kind: &'static str,
    from: u64,
    to: u64,
    hosts: Vec<String>,
}

/// An anomaly.
#[derive(Debug, Serialize)]
struct Proof {
    invariant: String,
    promise: &'static str,
    detail: String,
    rows: Vec<usize>,
}

fn micros(of: Duration) -> u64 {
    u64::try_from(of.as_micros()).unwrap_or(u64::MAX)
}

fn data(scenario: &Scenario, run: &Run) -> Data {
    let names = Names::new(scenario, &run.history);
    let messages = Messages::of(&run.trace.events);
    let all = Rows::of(scenario, run, &names);
    let mut table = Table { run, names: &names, messages: &messages, all: &all, strings: Strings::default() };
    let rows = all.rows.iter().map(|row| table.row(row)).collect();
    let strings = table.strings.list;
    let end = all.rows.iter().map(|row| row.at).max().unwrap_or_default().max(run.simulated);
    let (outcome, anomalies): (_, &[Anomaly]) = match &run.verdict {
        Verdict::Valid => ("valid", &[]),
        Verdict::Invalid(anomalies) => ("invalid", anomalies),
        Verdict::Crashed(_) => ("crashed", &[]),
        Verdict::Stuck(_) => ("stuck", &[]),
        Verdict::Unknown(_) => ("unknown", &[]),
    };
    let (users, conversations) = filters(run, &names);
    Data {
        seed: scenario.seed,
        verdict: run.verdict.to_string(),
        outcome,
        hash: run.trace.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        simulated: micros(end),
        tick: scenario.knobs.tick_ms * 1000,
        trace_events: run.trace.count,
        history_events: run.history.events.len(),
        scenario: scenario.to_string(),
        topology: serde_json::to_value(scenario.topology).unwrap_or_default(),
        knobs: serde_json::to_value(scenario.knobs).unwrap_or_default(),
        hosts: all.hosts.iter().map(ToString::to_string).collect(),
        users,
        conversations,
        faults: scenario.faults.iter().filter_map(|fault| band(fault, end)).collect(),
        anomalies: anomalies.iter().map(|anomaly| proof(anomaly, &all)).collect(),
        related: related(run, &names, &all, anomalies),
        connections: messages
            .connections
            .iter()
            .map(|connection| connection.ends.each_ref().map(ToString::to_string))
            .collect(),
        rows,
        arrows: messages
            .arrows
            .iter()
            .map(|arrow| [all.of_trace[arrow.sent] as u64, all.of_trace[arrow.received] as u64, arrow.bytes])
            .collect(),
        lost: messages
            .lost
            .iter()
            .map(|lost| {
                let given_up = lost.given_up.map_or(-1, |at| all.of_trace[at] as i64);
                [all.of_trace[lost.sent] as i64, lost.bytes as i64, given_up]
            })
            .collect(),
        strings,
    }
}

fn proof(anomaly: &Anomaly, all: &Rows) -> Proof {
    Proof {
        invariant: format!("{:?}", anomaly.invariant),
        promise: promise(anomaly.invariant),
        detail: anomaly.detail.clone(),
        rows: anomaly.events.iter().filter_map(|at| all.of_history.get(*at).copied()).collect(),
    }
}

/// A fault, unless the run ended before.
fn band(fault: &Fault, end: Duration) -> Option<Band> {
    let from = Duration::from_millis(fault.at_ms);
    let to = (from + Duration::from_millis(fault.for_ms)).min(end);
    (from <= end).then(|| Band {
        name: fault.to_string(),
        kind: fault.what.name(),
        from: micros(from),
        to: micros(to),
        hosts: fault.what.hosts().iter().map(ToString::to_string).collect(),
    })
}

/// Users and conversations that something happened to.
fn filters(run: &Run, names: &Names<'_>) -> (Vec<(u64, String)>, Vec<String>) {
    let (mut users, mut conversations) = (BTreeSet::new(), BTreeSet::new());
    for at in 0..run.history.events.len() {
        users.extend(names.user_of(at));
        conversations.extend(names.conversations_of(at));
    }
    let users = users.into_iter().map(|user| (user.number(), names.user(user))).collect();
    (users, conversations.iter().map(ToString::to_string).collect())
}

/// The rows that led to the anomalies, as far as one can tell: what happened in their conversations, and the ways of their messages
/// through the cluster.
fn related(run: &Run, names: &Names<'_>, all: &Rows, anomalies: &[Anomaly]) -> Vec<usize> {
    let proofs: BTreeSet<history::Index> =
        anomalies.iter().flat_map(|anomaly| anomaly.events.clone()).collect();
    let conversations: BTreeSet<_> = proofs.iter().flat_map(|at| names.conversations_of(*at)).collect();
    let mids: BTreeSet<_> = proofs.iter().filter_map(|at| names.mid_of(*at)).take(MIDS_MAX).collect();
    let mids: Vec<String> = mids.iter().map(ToString::to_string).collect();
    let of_history = (0..run.history.events.len())
        .filter(|at| proofs.contains(at) || !names.conversations_of(*at).is_disjoint(&conversations))
        .map(|at| all.of_history[at]);
    let of_trace = run.trace.events.iter().enumerate().filter(|(_, event)| match &event.what {
        What::Sent(_, _, bytes) | What::Received(_, _, bytes) => {
            mids.iter().any(|mid| bytes.windows(mid.len()).any(|part| part == mid.as_bytes()))
        }
        _ => false,
    });
    let rows: BTreeSet<usize> = of_history.chain(of_trace.map(|(at, _)| all.of_trace[at])).collect();
    rows.into_iter().collect()
}

/// Each string once.
#[derive(Default)]
struct Strings {
    list: Vec<String>,
    places: BTreeMap<Vec<u8>, usize>,
}

impl Strings {
    fn place(&mut self, bytes: &[u8]) -> i64 {
        if let Some(place) = self.places.get(bytes) {
            return *place as i64;
        }
        self.places.insert(bytes.to_vec(), self.list.len());
        self.list.push(bytes.iter().map(|byte| char::from(*byte)).collect());
        (self.list.len() - 1) as i64
    }
}

/// What rows are made from.
struct Table<'a> {
    run: &'a Run,
    names: &'a Names<'a>,
    messages: &'a Messages,
    all: &'a Rows,
    strings: Strings,
}

impl Table<'_> {
    /// `[host, time, kind, …]`. What follows depends on the kind:
    ///
    /// | kind | | rest |
    /// |---|---|---|
    /// | 0, 2, 6 | connected, accepted, dropped | connection, end |
    /// | 1 | refused | string |
    /// | 3 | sent | connection, end, offset, string |
    /// | 4 | received | connection, sending end, offset, bytes, string or -1 if it is in what was sent |
    /// | 5 | ended | connection, sending end, string |
    /// | 7, 8 | drew, said | string |
    /// | 9 | of the history | index, class, user or 0, device or -1, words, JSON, conversations, its other row or -1 |
    fn row(&mut self, row: &Row) -> Vec<i64> {
        let mut cells = vec![row.host as i64, micros(row.at) as i64];
        match row.of {
            Of::Trace(at) => self.of_trace(at, &mut cells),
            Of::History(at) => self.of_history(at, &mut cells),
        }
        cells
    }

    fn of_trace(&mut self, at: messages::Index, cells: &mut Vec<i64>) {
        let Some(event) = self.run.trace.events.get(at) else { return };
        let place =
            self.messages.places.get(&at).map(|Place { connection, end }| [*connection as i64, *end as i64]);
        let place = place.unwrap_or([-1, 0]);
        let text = |strings: &mut Strings, text: &str| strings.place(text.as_bytes());
        match &event.what {
            What::Connected(_) => cells.extend([0, place[0], place[1]]),
            What::Refused(to) => cells.extend([1, text(&mut self.strings, to)]),
            What::Accepted(_) => cells.extend([2, place[0], place[1]]),
            What::Sent(_, offset, bytes) => {
                cells.extend([3, place[0], place[1], *offset as i64, self.strings.place(bytes)]);
            }
            What::Received(_, offset, bytes) => {
                let named = self.messages.arrows.partition_point(|arrow| arrow.received < at);
                let arrows = self.messages.arrows.iter().skip(named).take_while(|arrow| arrow.received == at);
                let all = arrows.map(|arrow| arrow.bytes).sum::<u64>() == bytes.len() as u64;
                let own = if all { -1 } else { self.strings.place(bytes) };
                cells.extend([4, place[0], place[1], *offset as i64, bytes.len() as i64, own]);
            }
            What::Ended(_, why) => cells.extend([5, place[0], place[1], text(&mut self.strings, why)]),
            What::Dropped(_) => cells.extend([6, place[0], place[1]]),
            What::Drew(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                cells.extend([7, text(&mut self.strings, &hex)]);
            }
            What::Said(said) => cells.extend([8, text(&mut self.strings, said)]),
        }
    }

    fn of_history(&mut self, at: history::Index, cells: &mut Vec<i64>) {
        let Some(event) = self.names.event(at) else { return };
        let user = self.names.user_of(at).map_or(0, |user| user.number() as i64);
        let device = self.names.device_of(at).map_or(-1, |device| i64::from(device.0));
        let conversations: Vec<String> =
            self.names.conversations_of(at).iter().map(ToString::to_string).collect();
        let other = match &event.what {
            history::What::Invoked { operation, .. } => self.names.operation(*operation).returned,
            history::What::Returned { operation, .. } => self.names.operation(*operation).invoked,
            _ => None,
        };
        let other = other.map_or(-1, |other| self.all.of_history[other] as i64);
        let words = self.strings.place(self.names.words(at).as_bytes());
        let json = self.strings.place(&serde_json::to_vec(event).unwrap_or_default());
        let conversations = self.strings.place(conversations.join(" ").as_bytes());
        cells.extend([9, at as i64, class(&event.what), user, device, words, json, conversations, other]);
    }
}

/// What kind of event of the history it is, to people.
fn class(what: &history::What) -> i64 {
    match what {
        history::What::Invoked { .. } => 0,
        history::What::Returned { outcome: Outcome::Ok { .. }, .. } => 1,
        history::What::Returned { outcome: Outcome::Failed { .. }, .. } => 2,
        history::What::Returned { outcome: Outcome::Unknown, .. } => 3,
        history::What::Entry { .. } => 4,
        history::What::Presence { .. } => 5,
        history::What::Started { .. }
        | history::What::Ended { .. }
        | history::What::Crashed { .. }
        | history::What::Connected { .. }
        | history::What::Disconnected { .. }
        | history::What::Resumed { .. }
        | history::What::CaughtUp { .. } => 6,
        history::What::Final { .. } | history::What::FinalLists { .. } | history::What::Memory { .. } => 7,
        history::What::FaultBegan { .. } | history::What::FaultEnded { .. } | history::What::Healed => 8,
        history::What::Lost { .. } | history::What::Canary { .. } => 9,
    }
}
