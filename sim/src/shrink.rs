//! From a scenario that fails to one that fails likewise and from which nothing can be removed.
//!
//! Large parts are removed first (delta debugging: Zeller and Hildebrandt, 2002), then single operations and faults, then the topology and the
//! knobs are brought down, then what is left is made plainer; and all over again until nothing changes. What is drawn depends on all that
//! happened before, so a smaller scenario may need another seed to fail: a few are tried.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use loadgen::workload::script::{Action, Operation, Place};
use tokio::time::Instant;

use crate::{
    net::Restless,
    run::abandoned,
    scenario::{Fault, Knobs, Scenario, What},
};

/// How hard to try.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// For so long.
    pub time: Duration,
    /// Seeds tried for a scenario that does not fail with its own.
    pub seeds: u64,
    /// Threads.
    pub jobs: usize,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The smallest scenario found.
    pub scenario: Scenario,
    /// Runs that it took.
    pub runs: usize,
    /// Whether nothing more can be removed, or the time was over first.
    pub minimal: bool,
}

/// Runs whose threads may be left as they were before shrinking ends: each holds one to two megabytes for as long as the process lives.
const ABANDONED_MAX: usize = 2000;

struct Search<F> {
    /// Whether a scenario fails likewise.
    fails: F,
    effort: Effort,
    started: Instant,
    runs: AtomicUsize,
    best: Scenario,
}

/// Shrinks a scenario that `fails` says yes to. `watch` is told of each smaller one.
pub fn shrink(
    scenario: &Scenario,
    fails: impl Fn(&Scenario) -> bool + Sync,
    effort: Effort,
    watch: impl Fn(&Scenario),
) -> Shrunk {
    let mut search =
        Search { fails, effort, started: Instant::now(), runs: AtomicUsize::new(0), best: scenario.clone() };
    let mut minimal = false;
    while !minimal && !search.out_of_time() {
        let before = search.best.clone();
        search.remove(&watch);
        search.reduce(&watch);
        search.simplify(&watch);
        minimal = search.best == before && !search.out_of_time();
    }
    Shrunk { scenario: search.best, runs: search.runs.into_inner(), minimal }
}

impl<F: Fn(&Scenario) -> bool + Sync> Search<F> {
    fn out_of_time(&self) -> bool {
        self.started.elapsed() >= self.effort.time || abandoned() >= ABANDONED_MAX
    }

    /// Whether a scenario fails likewise.
    fn fails(&self, scenario: &Scenario) -> bool {
        self.runs.fetch_add(1, Ordering::Relaxed);
        (self.fails)(scenario)
    }

    /// Takes the first of some candidates that fails likewise, with its own seed or a neighbour's. Returns its place.
    fn take_first(&mut self, candidates: &[Scenario], watch: &impl Fn(&Scenario)) -> Option<usize> {
        let found = Mutex::new(None::<(usize, Scenario)>);
        let next = AtomicUsize::new(0);
        let tries = self.effort.seeds.max(1) as usize;
        let work = || loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let settled = found.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            // First all candidates as they are, then with other seeds.
            let Some(candidate) = candidates.get(at % candidates.len().max(1)) else { return };
            let round = at / candidates.len();
            if settled || round >= tries || self.out_of_time() {
                return;
            }
            let mut candidate = candidate.clone();
            candidate.seed = candidate.seed.wrapping_add(round as u64);
            if candidate.check().is_ok() && self.fails(&candidate) {
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if found.as_ref().is_none_or(|(earlier, _)| at < *earlier) {
                    *found = Some((at, candidate));
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.effort.jobs.max(1) {
                scope.spawn(work);
            }
        });
        let (at, scenario) = found.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        self.best = scenario;
        watch(&self.best);
        Some(at % candidates.len())
    }

    fn remove(&mut self, watch: &impl Fn(&Scenario)) {
        self.remove_from(
            |scenario| scenario.faults.len(),
            |scenario, from, to| drop(scenario.faults.drain(from..to)),
            watch,
        );
        self.remove_from(
            |scenario| scenario.operations.len(),
            |scenario, from, to| drop(scenario.operations.drain(from..to)),
            watch,
        );
    }

    /// Removes parts of a list, large ones first.
    fn remove_from(
        &mut self,
        length: fn(&Scenario) -> usize,
        drain: fn(&mut Scenario, usize, usize),
        watch: &impl Fn(&Scenario),
    ) {
        let mut part = length(&self.best);
        while part > 0 && !self.out_of_time() {
            let count = length(&self.best);
            // From the end: what comes later depends on what comes before, not the other way round.
            let candidates: Vec<Scenario> = (0..count)
                .step_by(part)
                .map(|from| {
                    let mut scenario = self.best.clone();
                    let to = count - from;
                    drain(&mut scenario, to.saturating_sub(part), to);
                    scenario
                })
                .collect();
            if candidates.is_empty() {
                break;
            }
            if self.take_first(&candidates, watch).is_none() {
                part = if part == 1 { 0 } else { part.div_ceil(2) };
            }
            part = part.min(length(&self.best));
        }
    }

    /// Fewer hosts and users, usual knobs.
    fn reduce(&mut self, watch: &impl Fn(&Scenario)) {
        let steps: [fn(&mut Scenario); 13] = [
            |scenario| scenario.topology.balancer = false,
            |scenario| scenario.topology.redis = false,
            |scenario| scenario.topology.registered = true,
            |scenario| scenario.topology.client_hosts = 1,
            |scenario| scenario.topology.nodes = 1,
            |scenario| scenario.topology.nodes = scenario.topology.nodes.saturating_sub(1),
            |scenario| scenario.topology.sessions = 1,
            |scenario| scenario.knobs = Knobs::default(),
            |scenario| scenario.knobs.restless = Restless::default(),
            |scenario| scenario.knobs.latency_ms_max = Knobs::default().latency_ms_max,
            only_users_that_act,
            |scenario| scenario.topology.users = scenario.topology.users.saturating_sub(1),
            |scenario| scenario.topology.client_hosts = scenario.topology.client_hosts.saturating_sub(1),
        ];
        for step in steps {
            let mut candidate = self.best.clone();
            step(&mut candidate);
            let mut again = candidate != self.best;
            while again && !self.out_of_time() && self.take_first(&[candidate.clone()], watch).is_some() {
                step(&mut candidate);
                again = candidate != self.best;
            }
        }
    }

    /// Shorter faults, rounder times, plainer operations.
    fn simplify(&mut self, watch: &impl Fn(&Scenario)) {
        for at in 0..self.best.faults.len() {
            self.plainer(watch, |scenario| scenario.faults.get_mut(at).map(|fault| fault.for_ms /= 2));
            self.plainer(watch, |scenario| {
                scenario.faults.get_mut(at).map(|fault| fault.at_ms = rounded(fault.at_ms))
            });
            self.plainer(watch, |scenario| scenario.faults.get_mut(at).map(certain));
        }
        for at in 0..self.best.operations.len() {
            self.plainer(watch, |scenario| scenario.operations.get_mut(at).map(plain));
            self.plainer(watch, |scenario| {
                scenario.operations.get_mut(at).map(|operation| {
                    operation.at = Duration::from_millis(rounded(operation.at.as_millis() as u64));
                })
            });
        }
    }

    /// Makes one change for as long as it changes something and the failure stays.
    fn plainer(&mut self, watch: &impl Fn(&Scenario), change: impl Fn(&mut Scenario) -> Option<()>) {
        while !self.out_of_time() {
            let mut candidate = self.best.clone();
            if change(&mut candidate).is_none() || candidate == self.best {
                return;
            }
            if self.take_first(&[candidate], watch).is_none() {
                return;
            }
        }
    }
}

/// Less precise, but not the same.
fn rounded(ms: u64) -> u64 {
    let unit = [1000, 100, 10].into_iter().find(|unit| !ms.is_multiple_of(*unit) && ms > *unit);
    unit.map_or(ms, |unit| ms - ms % unit)
}

/// What happens sometimes happens always.
fn certain(fault: &mut Fault) {
    match &mut fault.what {
        What::PublishesLost { permille }
        | What::PublishesDoubled { permille }
        | What::PublishesReordered { permille, .. }
        | What::PublishesDelayed { permille, .. }
        | What::CommitUnknown { permille }
        | What::CommitLate { permille, .. }
        | What::StoreReadErrors { permille }
        | What::StoreBusy { permille } => *permille = 1000,
        _ => {}
    }
}

fn plain(operation: &mut Operation) {
    match &mut operation.what {
        Action::Send { text_bytes, .. } => *text_bytes = 0,
        Action::Burst { to, count } if *count > 2 => {
            operation.what = Action::Burst { to: *to, count: *count / 2 };
        }
        Action::Burst { to, .. } => operation.what = Action::Send { to: *to, text_bytes: 0 },
        Action::Reconnect { logout, .. } => *logout = false,
        _ => {}
    }
}

/// Users that nothing is said of are left out, and the others numbered anew.
fn only_users_that_act(scenario: &mut Scenario) {
    let mut named = BTreeSet::new();
    for operation in &mut scenario.operations {
        named.insert(operation.user);
        if let Some(user) = other_user(&mut operation.what) {
            named.insert(*user);
        }
    }
    let number = |user: usize| named.iter().position(|other| *other == user).unwrap_or(user);
    for operation in &mut scenario.operations {
        operation.user = number(operation.user);
        if let Some(user) = other_user(&mut operation.what) {
            *user = number(*user);
        }
    }
    scenario.topology.users = named.len().max(1);
}

fn other_user(action: &mut Action) -> Option<&mut usize> {
    match action {
        Action::Send { to: Place::Direct(user), .. }
        | Action::Burst { to: Place::Direct(user), .. }
        | Action::History { of: Place::Direct(user), .. }
        | Action::Befriend { user }
        | Action::Unfriend { user }
        | Action::Block { user }
        | Action::Unblock { user }
        | Action::RemoveMember { user, .. } => Some(user),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Size, generate};

    #[test]
    fn what_does_not_matter_is_removed() {
        let sends = |scenario: &Scenario| {
            scenario
                .operations
                .iter()
                .filter(|operation| matches!(operation.what, Action::Send { .. }))
                .count()
        };
        let fails = |scenario: &Scenario| {
            sends(scenario) >= 2 && scenario.faults.iter().any(|fault| fault.for_ms > 100)
        };
        let scenario = generate(7, &Size::default());
        assert!(fails(&scenario), "{scenario}");
        let effort = Effort { time: Duration::from_secs(60), seeds: 2, jobs: 2 };
        let shrunk = shrink(&scenario, fails, effort, |smaller| assert!(fails(smaller)));
        assert!(shrunk.minimal, "{}", shrunk.scenario);
        assert_eq!((shrunk.scenario.operations.len(), shrunk.scenario.faults.len()), (2, 1));
        assert_eq!(shrunk.scenario.topology.nodes, 1);
        shrunk.scenario.check().unwrap();
    }
}
