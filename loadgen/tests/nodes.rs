//! The workload against real nodes in this process, and the checker on what comes of it: SPEC.md, section 2.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use loadgen::{
    History, Invariant, Plan, Recorder, Verdict, check,
    history::{Bounds, Call, Outcome, Reply, What},
    run,
    workload::Mix,
};
use protocol::{
    Net as _, Seq, Tcp,
    clock::{SystemClock, SystemEntropy},
};
use server::{
    node::{NodeConfig, RunningNode, World},
    password::Argon2id,
    relay::local::Hub,
    store::{Store, memory::MemoryStore},
};
use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long anything may take that should happen. It decides no test that passes.
const PATIENCE: Duration = Duration::from_secs(100);

/// Nodes of one deployment in one process.
struct Cluster {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
}

impl Cluster {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::new([1; 16])), hub: Arc::new(Hub::default()) }
    }

    /// Starts a node; returns its address, too.
    async fn node(&self, address: &str) -> (RunningNode, String) {
        let listener = loop {
            match Tcp.bind(address).await {
                Ok(listener) => break listener,
                // A node that was here before is on its way out.
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let address = Tcp.local_addr(&listener).unwrap().to_string();
        let (relay, relay_events) = self.hub.join();
        let entropy = Arc::new(SystemEntropy);
        let world = World {
            store: Arc::clone(&self.store),
            relay: Arc::new(relay),
            relay_events,
            passwords: Arc::new(Argon2id::new(8, 1, 2, entropy.clone()).unwrap()),
            clock: Arc::new(SystemClock),
            entropy,
        };
        (RunningNode::start(Tcp, listener, world, NodeConfig::default()), address)
    }
}

fn plan(seed: u64, operations: u64) -> Plan {
    Plan {
        seed,
        users: 6,
        operations,
        quiet: Duration::from_millis(300),
        backoff_max: Duration::from_millis(500),
        settle: PATIENCE / 2,
        ..Plan::default()
    }
}

/// A run of two nodes that nothing is done to.
async fn two_nodes(seed: u64) -> History {
    let cluster = Cluster::new();
    let (_one, first) = cluster.node("127.0.0.1:0").await;
    let (_two, second) = cluster.node("127.0.0.1:0").await;
    let recorder = Recorder::new(Bounds::default());
    let addresses = [first, second];
    let running = run(
        Tcp,
        &addresses,
        plan(seed, 800),
        recorder,
        Arc::new(SystemEntropy),
        TaskTracker::new(),
        CancellationToken::new(),
    );
    timeout(PATIENCE, running).await.expect("the run ends in time")
}

fn invariants(history: &History) -> Vec<Invariant> {
    match check(history) {
        Verdict::Invalid(anomalies) => {
            let mut all: Vec<_> = anomalies.iter().map(|anomaly| anomaly.invariant).collect();
            all.dedup();
            all
        }
        verdict => panic!("{verdict}"),
    }
}

#[track_caller]
fn assert_valid(history: &History) {
    let verdict = check(history);
    if verdict != Verdict::Valid {
        let path = std::env::temp_dir().join("loadgen-history.jsonl");
        history.write(std::fs::File::create(&path).unwrap()).unwrap();
        panic!("{}: {verdict}", path.display());
    }
}

/// `CHAT_WORKLOAD_RUNS=100` makes more of it, with other seeds.
#[tokio::test]
async fn two_nodes_keep_their_promises() {
    let runs = std::env::var("CHAT_WORKLOAD_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1);
    for seed in 1_000..999 + runs {
        assert_valid(&two_nodes(seed).await);
    }
    let history = two_nodes(1).await;
    assert_valid(&history);
    let count = |which: fn(&What) -> bool| history.events.iter().filter(|event| which(&event.what)).count();
    let acknowledged = count(|what| {
        matches!(what, What::Returned { outcome: Outcome::Ok { reply: Reply::Appended { .. } }, .. })
    });
    assert!(acknowledged > 200, "{acknowledged}");
    assert!(count(|what| matches!(what, What::Entry { .. })) > acknowledged);
    assert!(count(|what| matches!(what, What::Returned { outcome: Outcome::Failed { .. }, .. })) > 0);
    assert!(count(|what| matches!(what, What::Final { .. })) > 6);
    assert_eq!(count(|what| matches!(what, What::FinalLists { .. })), 6);
    assert!(count(|what| matches!(what, What::Canary { .. })) > 6, "the tap hears");
    assert!(count(|what| matches!(what, What::Ended { .. })) > 6, "devices come and go");
}

/// All in one group, each session at its node.
#[tokio::test]
async fn a_crowd_talks_in_one_group() {
    let cluster = Cluster::new();
    let (one, first) = cluster.node("127.0.0.1:0").await;
    let (two, second) = cluster.node("127.0.0.1:0").await;
    let (recorder, enough) = (Recorder::new(Bounds::default()), CancellationToken::new());
    let mix = Mix { send: 1, burst: 1, ..Mix::NONE };
    let plan = Plan { crowd: true, in_turn: true, users: 5, sessions: 2, mix, ..plan(4, u64::MAX) };
    let tracker = TaskTracker::new();
    let running = tracker.spawn({
        let (recorder, enough, tracker) = (recorder.clone(), enough.clone(), tracker.clone());
        let addresses = [first, second];
        async move { run(Tcp, &addresses, plan, recorder, Arc::new(SystemEntropy), tracker, enough).await }
    });
    let all = async {
        while recorder.len() < 3000 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all).await.expect("the workload is under way");
    for node in [one, two] {
        assert_eq!(node.node().registry.session_count(), 5, "one session of each user");
    }
    enough.cancel();
    let history = timeout(PATIENCE, running).await.expect("the run ends in time").unwrap();
    assert_valid(&history);
    let convs: BTreeSet<_> = history
        .events
        .iter()
        .filter_map(|event| match &event.what {
            What::Invoked { call: Call::Send { conv, .. }, .. } => Some(*conv),
            _ => None,
        })
        .collect();
    assert_eq!(convs.len(), 1, "{convs:?}");
    assert!(
        history
            .events
            .iter()
            .all(|event| { !matches!(event.what, What::Returned { outcome: Outcome::Failed { .. }, .. }) })
    );
}

/// What the checker says when the record of a run is tampered with.
#[tokio::test]
async fn tampering_shows() {
    let history = two_nodes(2).await;
    assert_valid(&history);

    // One delivery in the middle of a device's is dropped.
    let middle = history.events.iter().enumerate().position(|(at, event)| {
        let What::Entry { device, entry } = &event.what else { return false };
        let near = |seq: Seq, what: &What| match what {
            What::Entry { device: d, entry: e } => d == device && e.conv == entry.conv && e.seq == seq,
            _ => false,
        };
        let (before, after) = (&history.events[..at], &history.events[at + 1..]);
        before.iter().any(|event| near(entry.seq.previous(), &event.what))
            && after.iter().any(|event| near(entry.seq.next(), &event.what))
    });
    let mut tampered = history.clone();
    tampered.events.remove(middle.expect("somebody was shown three entries in a row"));
    assert_eq!(invariants(&tampered), [Invariant::NoGaps]);

    // The last message of a log that was acknowledged is gone from the store, and nobody was shown it.
    let last = history
        .events
        .iter()
        .filter_map(|event| match &event.what {
            What::Final { entries, .. } => entries.last(),
            _ => None,
        })
        .find(|entry| entry.body.kind() == "message")
        .expect("a log ends with a message")
        .clone();
    let mut tampered = history.clone();
    tampered.events.retain_mut(|event| match &mut event.what {
        What::Entry { entry, .. } => **entry != last,
        What::Returned { outcome: Outcome::Ok { reply: Reply::History { entries, .. } }, .. }
        | What::Final { entries, .. } => {
            entries.retain(|entry| *entry != last);
            true
        }
        _ => true,
    });
    assert_eq!(invariants(&tampered), [Invariant::AcknowledgedLoss]);

    // The store shows one reader another text than all others were shown.
    let mut tampered = history;
    let entries = tampered.events.iter_mut().find_map(|event| match &mut event.what {
        What::Final { entries, .. } if entries.contains(&last) => Some(entries),
        _ => None,
    });
    let changed = entries.unwrap().last_mut().unwrap();
    changed.body = protocol::EntryBody::Message { text: "never said".into() };
    assert_eq!(invariants(&tampered), [Invariant::TotalOrder, Invariant::Phantom]);
}

/// A node that is gone at once, with all its connections, and comes back: the workload goes on, and nothing
/// is lost.
#[test]
fn a_node_crashes_under_load() {
    let runtime = || Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (clients, lasting, doomed): (Runtime, Runtime, Runtime) = (runtime(), runtime(), runtime());
    let cluster = Cluster::new();
    let (one, first) = lasting.block_on(cluster.node("127.0.0.1:0"));
    let (two, second) = doomed.block_on(cluster.node("127.0.0.1:0"));
    let addresses = [first, second.clone()];
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let recorder = clients.block_on(async { Recorder::new(Bounds::default()) });
    let running = {
        let (recorder, tracker, cancel) = (recorder.clone(), tracker.clone(), cancel.clone());
        let plan = Plan { pause: Duration::from_millis(2), ..plan(3, u64::MAX) };
        let task = async move {
            run(Tcp, &addresses, plan, recorder, Arc::new(SystemEntropy), tracker, cancel).await
        };
        TaskTracker::new().spawn_on(task, clients.handle())
    };
    let more_events = async |count: usize| {
        let target = recorder.len() + count;
        while recorder.len() < target {
            sleep(Duration::from_millis(10)).await;
        }
    };
    clients
        .block_on(async { timeout(PATIENCE, more_events(1000)).await.expect("the workload is under way") });
    let served = clients.block_on(async {
        let enough = async {
            loop {
                let served = two.node().registry.session_count();
                if served >= 3 {
                    return served;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, enough).await.expect("node 2 has sessions")
    });
    recorder.fault_began("node 2 crashed");
    drop(two);
    doomed.shutdown_background();
    clients.block_on(async { timeout(PATIENCE, more_events(300)).await.expect("it goes on with one node") });
    let revived = runtime();
    let (three, _) = revived.block_on(cluster.node(&second));
    recorder.fault_ended("node 2 crashed");
    recorder.healed();
    let history = clients.block_on(async {
        timeout(PATIENCE, more_events(1000)).await.expect("it goes on with both");
        // Not before a session has come back: who is told to stop does not wait for its device.
        let resumed =
            |history: &History| history.events.iter().any(|event| matches!(event.what, What::Resumed { .. }));
        let back = async {
            while !recorder.look(resumed) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(PATIENCE, back).await.is_err() {
            let counts = [&one, &three].map(|node| node.node().registry.session_count());
            let last = recorder.look(|history| {
                let last = history.events.iter().rev().take(50);
                last.map(|event| format!("{event:?}\n")).collect::<String>()
            });
            panic!("none of {served} sessions of the crashed node goes on; now there are {counts:?}; the last events:\n{last}");
        }
        cancel.cancel();
        timeout(PATIENCE, running).await.expect("the run ends in time").unwrap()
    });
    assert_valid(&history);
    for runtime in [clients, lasting, revived] {
        runtime.shutdown_background();
    }
}
