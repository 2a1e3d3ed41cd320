//! The trace and the history in one order.
//!
//! Events of the history have a time and no place in the trace. Each is put where its host was at that time: what a user begins stands
//! before what the host does then, and what a user sees after it.

use std::{collections::BTreeMap, iter, sync::Arc, time::Duration};

use loadgen::history::{self, Index};

use crate::{
    explain::names::Names,
    report::messages,
    run::Run,
    scenario::{Host, Scenario},
    trace::{self, What},
};

/// A row of the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// When.
    pub(super) at: Duration,
    /// Of [`Rows::hosts`].
    pub(super) host: usize,
    /// What.
    pub(super) of: Of,
}

/// Which event a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// One of the trace.
    Trace(messages::Index),
    /// One of the history.
    History(Index),
}

/// All rows.
pub(super) struct Rows {
    /// In the order of the diagram.
    pub(super) hosts: Vec<Arc<str>>,
    /// In the order of what happened. Times may go back by less than a tick: in each step the hosts run one after the other.
    pub(super) rows: Vec<Row>,
    /// For each event of the trace. One that repeats the history has the history's row.
    pub(super) of_trace: Vec<usize>,
    /// For each event of the history.
    pub(super) of_history: Vec<usize>,
}

/// Where faults and whatever else concerns all hosts are shown.
const WORLD: &str = "world";

impl Rows {
    /// The rows of a run.
    pub(super) fn of(scenario: &Scenario, run: &Run, names: &Names<'_>) -> Self {
        let trace = &run.trace.events;
        let hosts = hosts(scenario, trace);
        let number: BTreeMap<Arc<str>, usize> =
            hosts.iter().enumerate().map(|(at, host)| (Arc::clone(host), at)).collect();
        let echoes = echoes(trace, &run.history.events);
        // Of each host, where in the trace its events are.
        let mut own: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, event) in trace.iter().enumerate().filter(|(at, _)| !echoes.contains_key(at)) {
            own.entry(&event.host).or_default().push(at);
        }

        let steps = Steps::of(scenario, trace);

        // Before which event of the trace each of the history stands.
        let mut inserts: BTreeMap<usize, Vec<(usize, Index)>> = BTreeMap::new();
        let mut least: BTreeMap<usize, usize> = BTreeMap::new();
        for (index, event) in run.history.events.iter().enumerate() {
            let host = history_host(scenario, names, index);
            let mine = own.get(&*host).map_or(&[][..], Vec::as_slice);
            let begins = matches!(
                event.what,
                history::What::Invoked { .. }
                    | history::What::Started { .. }
                    | history::What::FaultBegan { .. }
            );
            let past = |at: &usize| trace[*at].at < event.at || (!begins && trace[*at].at == event.at);
            let after = mine.partition_point(past);
            let place = if begins {
                mine.get(after).copied().unwrap_or(trace.len())
            } else {
                after.checked_sub(1).and_then(|before| mine.get(before)).map_or(0, |before| before + 1)
            };
            let (first, end) = steps.around(event.at);
            let place = place.clamp(first, end);
            let host = number.get(&*host).copied().unwrap_or_default();
            let least = least.entry(host).or_default();
            *least = place.max(*least);
            inserts.entry(*least).or_default().push((host, index));
        }

        let (mut rows, mut of_trace) = (Vec::new(), vec![0; trace.len()]);
        let mut of_history = vec![0; run.history.events.len()];
        for (at, event) in trace.iter().map(Some).chain(iter::once(None)).enumerate() {
            for (host, index) in inserts.remove(&at).into_iter().flatten() {
                of_history[index] = rows.len();
                rows.push(Row { at: run.history.events[index].at, host, of: Of::History(index) });
            }
            let Some(event) = event.filter(|_| !echoes.contains_key(&at)) else { continue };
            of_trace[at] = rows.len();
            let host = number.get(&event.host).copied().unwrap_or_default();
            rows.push(Row { at: event.at, host, of: Of::Trace(at) });
        }
        for (at, index) in echoes {
            of_trace[at] = of_history[index];
        }
        Self { hosts, rows, of_trace, of_history }
    }
}

/// In which step of the simulation the events of a trace are. In a step, each host's events stand together.
struct Steps {
    tick: u128,
    /// Ascending.
    steps: Vec<u128>,
}

impl Steps {
    fn of(scenario: &Scenario, trace: &[trace::Event]) -> Self {
        let tick = Duration::from_millis(scenario.knobs.tick_ms.max(1)).as_nanos();
        let mut latest = 0;
        let steps = trace.iter().map(|event| {
            latest = latest.max(event.at.as_nanos() / tick);
            latest
        });
        Self { tick, steps: steps.collect() }
    }

    /// Where the events of the step at this time begin and end.
    fn around(&self, at: Duration) -> (usize, usize) {
        let step = at.as_nanos() / self.tick;
        (self.steps.partition_point(|it| *it < step), self.steps.partition_point(|it| *it <= step))
    }
}

/// The scenario's hosts, and whoever else has a part in the trace.
fn hosts(scenario: &Scenario, trace: &[trace::Event]) -> Vec<Arc<str>> {
    let mut hosts: Vec<Arc<str>> = vec![WORLD.into()];
    let topology = scenario.topology.hosts();
    let servers = topology.iter().filter(|host| !matches!(host, Host::Clients(_)));
    let clients = topology.iter().filter(|host| matches!(host, Host::Clients(_)));
    hosts.extend(servers.chain(clients).map(|host| host.to_string().into()));
    for event in trace {
        if !hosts.contains(&event.host) {
            hosts.push(Arc::clone(&event.host));
        }
    }
    hosts
}

/// At its end a trace repeats the history, so that it is a part of its hash: which event of the trace is which of the history.
fn echoes(trace: &[trace::Event], history: &[history::Event]) -> BTreeMap<usize, Index> {
    let (mut echoes, mut left) = (BTreeMap::new(), history.iter().enumerate().peekable());
    for (at, event) in trace.iter().enumerate() {
        let Some((index, next)) = left.peek() else { break };
        if let What::Said(text) = &event.what
            && &*event.host == WORLD
            && text.starts_with('{')
            && serde_json::to_string(next).is_ok_and(|next| next == *text)
        {
            echoes.insert(at, *index);
            left.next();
        }
    }
    echoes
}

/// The host on which an event of the history was seen: users are spread over the client hosts in turns.
fn history_host(scenario: &Scenario, names: &Names<'_>, index: Index) -> Arc<str> {
    match names.user_of(index) {
        Some(user) => {
            let at = (user.number() as usize - 1) % scenario.topology.client_hosts.max(1);
            Host::Clients(at).to_string().into()
        }
        None if names.device_of(index).is_some() => Host::Clients(0).to_string().into(),
        None => WORLD.into(),
    }
}
