//! Scenarios out of a seed.
//!
//! Each seed uses a random part of the operations, faults and knobs, and leaves out the rest: what happens often in one run hides what
//! would happen in another. The idea is swarm testing (Groce et al., 2012).

use std::time::Duration;

use loadgen::{
    rng::Rng,
    workload::{
        Mix,
        script::{Shape, generate as script},
    },
};
use serde::{Deserialize, Serialize};
use strum::VariantArray as _;

use crate::{
    net::Restless,
    scenario::{Fault, Host, Kind, Kind::*, Knobs, Millis, Scenario, Topology, What},
};

/// How large scenarios are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Users.
    pub users: usize,
    /// Operations.
    pub operations: usize,
    /// Faults: at least.
    pub faults_min: usize,
    /// Faults: at most.
    pub faults_max: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { nodes: 3, users: 12, operations: 100, faults_min: 3, faults_max: 8 }
    }
}

/// In which operations begin.
const OPERATIONS_MS: Millis = 10_000;
/// In a calm scenario, the mean time between two operations.
const CALM_MS_EACH: Millis = 1000;
/// The first fault comes after this: the first logins are without one in most runs.
const FAULTS_FROM_MS: Millis = 200;
/// The longest fault.
const FAULT_MS_MAX: Millis = 4000;

/// The scenario of a seed.
pub fn generate(seed: u64, size: &Size) -> Scenario {
    let mut rng = Rng::of_part(seed, 1);
    let sessions = 1 + usize::from(rng.chance(1, 2));
    let topology = Topology {
        nodes: size.nodes,
        client_hosts: 2 + rng.below(3) as usize,
        users: size.users,
        sessions,
        balancer: rng.chance(3, 4),
        redis: rng.chance(9, 10),
        // Of a sequence of its own, so that what else a seed leads to stays as it is.
        registered: !Rng::of_part(seed, 2).chance(1, 8),
    };
    let knobs = knobs(&mut rng);
    let shape = Shape {
        users: size.users,
        sessions,
        operations: size.operations,
        duration: Duration::from_millis(OPERATIONS_MS),
        mix: mix(&mut rng),
        hot: 30 + rng.below(70),
        careless: rng.below(20),
        conflicts: rng.below(40),
        text_bytes_max: if rng.chance(1, 4) { 60_000 } else { 200 },
        away_max: Duration::from_millis(200 + rng.below(4000)),
    };
    let operations = script(rng.number(), &shape);
    let span = (size.faults_max.saturating_sub(size.faults_min) + 1) as u64;
    let count = size.faults_min + rng.below(span) as usize;
    let kinds = kinds(&mut rng, &topology);
    let mut faults: Vec<Fault> = (0..count).filter_map(|_| fault(&mut rng, &kinds, &topology)).collect();
    faults.sort_by_key(|fault| fault.at_ms);
    Scenario { seed, topology, knobs, operations, faults }
}

/// A scenario without faults in which little happens at the same time: what it ends with does not depend on who came first.
pub fn generate_calm(seed: u64, size: &Size) -> Scenario {
    let mut scenario = generate(seed, size);
    let mix = Mix { burst: 0, crash: 0, storm: 0, stall: 0, ..Shape::default().mix };
    let shape = Shape {
        users: size.users,
        sessions: scenario.topology.sessions,
        operations: size.operations,
        duration: Duration::from_millis(CALM_MS_EACH * size.operations as u64),
        mix,
        conflicts: 0,
        text_bytes_max: 200,
        ..Shape::default()
    };
    scenario.operations = script(seed, &shape);
    scenario.faults.clear();
    scenario.topology.redis = true;
    scenario.topology.registered = true;
    scenario
}

fn knobs(rng: &mut Rng) -> Knobs {
    let usual = Knobs::default();
    let restless = match rng.below(3) {
        0 => Restless::default(),
        1 => Restless { yields: 300, ..Restless::default() },
        _ => Restless {
            yields: rng.below(500) as u16,
            delays: rng.below(100) as u16,
            delay_ms_max: 1 + rng.below(100) as u16,
            splits: rng.below(500) as u16,
        },
    };
    let mut knobs = Knobs {
        latency_ms_max: [1, 5, 20, 60].get(rng.below(4) as usize).copied().unwrap_or(usual.latency_ms_max),
        restless,
        sweep_interval_ms: 200 + rng.below(1000),
        sweep_round_ms: 2000 + rng.below(4000),
        lease_ms: 2000 + rng.below(2000),
        heartbeat_ms: 500 + rng.below(500),
        linger_ms: rng.below(8000),
        store_connections: 1 + rng.below(5) as usize,
        sweep_look_back_ms: rng.below(1000),
        commit_patience_ms: 200 + rng.below(3000),
        request_timeout_ms: if rng.chance(1, 3) { 2000 + rng.below(4000) } else { usual.request_timeout_ms },
        ..sizes(rng, usual)
    };
    if knobs.page_entries < usual.page_entries || knobs.sweep_heads < usual.sweep_heads {
        // A node that asks the store this often over one slow connection is never done with its logins.
        knobs.store_connections = knobs.store_connections.max(3);
    }
    knobs
}

/// Half of the time small, so that a hundred operations reach the edges; each by itself, since one edge can hide another.
fn sizes(rng: &mut Rng, usual: Knobs) -> Knobs {
    let mut some = |small: [usize; 3], usual: usize| {
        if rng.chance(1, 2) { rng.pick(&small).copied().unwrap_or(usual) } else { usual }
    };
    Knobs {
        ring_entries: some([1, 2, 8], usual.ring_entries),
        held_entries: some([1, 2, 4], usual.held_entries),
        page_entries: some([1, 2, 6], usual.page_entries),
        batch: some([1, 2, 6], usual.batch),
        outbox_bytes: some([1, 300, 3000], usual.outbox_bytes),
        sweep_heads: some([1, 2, 4], usual.sweep_heads),
        ..usual
    }
}

/// A random part of the operations; sends are always among them.
fn mix(rng: &mut Rng) -> Mix {
    let usual = Shape::default().mix;
    let mut some = |weight: u32| if rng.chance(2, 3) { weight * (1 + rng.below(3) as u32) } else { 0 };
    Mix {
        send: usual.send,
        burst: some(usual.burst),
        repeat: some(usual.repeat),
        history: some(usual.history),
        lists: some(usual.lists),
        befriend: some(usual.befriend),
        unfriend: some(usual.unfriend),
        block: some(usual.block),
        unblock: some(usual.unblock),
        create_group: some(usual.create_group),
        join: some(usual.join),
        quit: some(usual.quit),
        delete_group: some(usual.delete_group),
        remove_member: some(usual.remove_member),
        reconnect: some(usual.reconnect),
        crash: some(usual.crash),
        storm: some(usual.storm),
        stall: some(usual.stall),
    }
}

/// The kinds that a scenario draws from: some of those that make sense in it.
fn kinds(rng: &mut Rng, topology: &Topology) -> Vec<Kind> {
    let redis = |kind: &Kind| {
        matches!(
            kind,
            RedisEmptied
                | RedisWedged
                | PublishesLost
                | PublishesDoubled
                | PublishesReordered
                | PublishesDelayed
        )
    };
    let possible: Vec<Kind> =
        Kind::VARIANTS.iter().copied().filter(|kind| topology.redis || !redis(kind)).collect();
    let some: Vec<Kind> = possible.iter().copied().filter(|_| rng.chance(1, 3)).collect();
    if some.is_empty() { possible } else { some }
}

fn fault(rng: &mut Rng, kinds: &[Kind], topology: &Topology) -> Option<Fault> {
    let hosts = topology.hosts();
    let servers: Vec<Host> = hosts.iter().copied().filter(|host| !matches!(host, Host::Clients(_))).collect();
    let node = Host::Node(rng.below(topology.nodes as u64) as usize);
    // Mostly it is nodes that things happen to; that is where the most code is.
    let server = if rng.chance(1, 2) { node } else { *rng.pick(&servers)? };
    let host = if rng.chance(3, 4) { server } else { *rng.pick(&hosts)? };
    // Nodes do not talk to each other.
    let others: Vec<Host> = hosts.iter().copied().filter(|other| !matches!(other, Host::Node(_))).collect();
    let (a, b) = (node, *rng.pick(&others)?);
    let permille = [20, 100, 300, 1000].get(rng.below(4) as usize).copied()?;
    let ms_max = [20, 200, 2000].get(rng.below(3) as usize).copied()?;
    let what = match *rng.pick(kinds)? {
        Stall => What::Stall { a, b },
        Cut => What::Cut { a, b },
        CutOneWay if rng.chance(1, 2) => What::CutOneWay { from: a, to: b },
        CutOneWay => What::CutOneWay { from: b, to: a },
        CutOff => What::CutOff { host },
        Freeze => What::Freeze { host },
        Slow => What::Slow { a, b, latency_ms: 20 + rng.below(600) },
        Exit => What::Exit { host: server },
        PowerLoss => What::PowerLoss { host: server },
        Drain => What::Drain { host: node },
        RedisEmptied => What::RedisEmptied,
        RedisWedged => What::RedisWedged,
        PublishesLost => What::PublishesLost { permille },
        PublishesDoubled => What::PublishesDoubled { permille },
        PublishesReordered => What::PublishesReordered { permille, ms_max },
        PublishesDelayed => What::PublishesDelayed { permille, ms_max },
        StoreSlow => What::StoreSlow { ms_max },
        CommitUnknown => What::CommitUnknown { permille },
        CommitLate => What::CommitLate { permille, ms_max: ms_max * 2 },
        StoreReadErrors => What::StoreReadErrors { permille },
        StoreBusy => What::StoreBusy { permille },
        ClockJump => What::ClockJump { host, by_ms: rng.below(1_200_000) as i64 - 600_000 },
        ClockDrift => What::ClockDrift { host, ppm: rng.below(200_000) as i64 - 100_000 },
    };
    let at_ms = FAULTS_FROM_MS + rng.below(OPERATIONS_MS);
    let for_ms = if rng.chance(1, 3) { 50 + rng.below(500) } else { 200 + rng.below(FAULT_MS_MAX) };
    Some(Fault { at_ms, for_ms, what })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_seed_is_a_scenario_of_its_own() {
        let mut names = BTreeSet::new();
        for seed in 0..300 {
            let scenario = generate(seed, &Size::default());
            scenario.check().unwrap();
            assert!(scenario.operations.len() >= 100 && scenario.faults.len() >= 3, "{scenario}");
            assert_eq!(scenario, generate(seed, &Size::default()));
            assert_eq!(scenario, Scenario::parse(&scenario.to_string()).unwrap());
            names.extend(scenario.faults.iter().map(|fault| fault.what.name()));
        }
        assert_eq!(names.len(), Kind::VARIANTS.len(), "every kind of fault is drawn: {names:?}");
    }
}
