//! Scripts against real nodes in this process: what they say is done, and nothing else.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use loadgen::{
    History, Plan, Recorder, Signals, Verdict, Workload, check, compare,
    history::{Bounds, Call, Outcome, What},
    rng::SeededEntropy,
    workload::script::{Action, Operation, Place, Shape, generate},
};
use protocol::{
    Net as _, Tcp,
    clock::{SystemClock, SystemEntropy},
};
use server::{
    node::{NodeConfig, RunningNode, World},
    password::Argon2id,
    relay::{Relay, RelayEvents, local::Hub, none::NoRelay},
    store::{Store, memory::MemoryStore},
};
use tokio::{runtime::Builder, time::timeout};
use tokio_util::task::TaskTracker;

/// How long anything may take that should happen. It decides no test that passes.
const PATIENCE: Duration = Duration::from_secs(100);

async fn node(store: &Arc<dyn Store>, relay: (Arc<dyn Relay>, RelayEvents)) -> (RunningNode, String) {
    let listener = Tcp.bind("127.0.0.1:0").await.unwrap();
    let address = Tcp.local_addr(&listener).unwrap().to_string();
    let entropy = Arc::new(SystemEntropy);
    let world = World {
        store: Arc::clone(store),
        relay: relay.0,
        relay_events: relay.1,
        passwords: Arc::new(Argon2id::new(8, 1, 2, entropy.clone()).unwrap()),
        clock: Arc::new(SystemClock),
        entropy,
    };
    let config = NodeConfig { sweep_interval: Duration::from_millis(100), ..NodeConfig::default() };
    (RunningNode::start(Tcp, listener, world, config), address)
}

/// Runs a plan in parts against two nodes, and reads their gauges at the end.
async fn run(plan: Plan, parts: usize, hints: bool) -> History {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
    let hub = Arc::new(Hub::default());
    let relay = || -> (Arc<dyn Relay>, RelayEvents) {
        if hints {
            let (relay, events) = hub.join();
            return (Arc::new(relay), events);
        }
        let (relay, events) = NoRelay::new();
        (Arc::new(relay), events)
    };
    let (one, first) = node(&store, relay()).await;
    let (two, second) = node(&store, relay()).await;
    let recorder = Recorder::new(Bounds { presence_is_shared: hints, ..Bounds::default() });
    let signals = Signals::default();
    let entropy = Arc::new(SeededEntropy::new(plan.seed));
    let addresses = [first, second];
    let workload = Workload::new(&addresses, plan, recorder.clone(), entropy, signals.clone(), parts);
    let tracker = TaskTracker::new();
    for number in 1..parts {
        let (workload, inner) = (workload.clone(), tracker.clone());
        // A runtime of its own, as a host of a simulation has.
        std::thread::Builder::new()
            .spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(workload.part(Tcp, number, inner));
            })
            .unwrap();
    }
    let watch = async {
        signals.done.cancelled().await;
        for (name, node) in [("node 1", &one), ("node 2", &two)] {
            for gauge in node.node().gauges() {
                recorder.record(What::Memory {
                    node: name.into(),
                    gauge: gauge.name.into(),
                    amount: gauge.amount as u64,
                    bound: gauge.bound as u64,
                });
            }
        }
        signals.healed.cancel();
    };
    let both = async { tokio::join!(workload.part(Tcp, 0, tracker), watch) };
    timeout(PATIENCE, both).await.expect("the run ends in time");
    workload.take_history().expect("the first part has taken it")
}

fn plan(users: usize, sessions: usize, script: Vec<Operation>) -> Plan {
    Plan { users, sessions, script: Some(script), quiet: Duration::from_millis(300), ..Plan::compressed() }
}

fn at(at: u64, user: usize, what: Action) -> Operation {
    Operation { at: Duration::from_millis(at), user, session: 0, what }
}

fn send(at_ms: u64, user: usize, to: Place) -> Operation {
    at(at_ms, user, Action::Send { to, text_bytes: 0 })
}

#[track_caller]
fn assert_valid(history: &History) {
    let verdict = check(history);
    assert!(verdict == Verdict::Valid, "{verdict}");
}

/// Every mutating request with its outcome, in the order in which they were asked; groups by their names.
fn asked(history: &History) -> Vec<String> {
    let mut all = Vec::new();
    for event in &history.events {
        let What::Invoked { operation, device, call } = &event.what else { continue };
        let text = match call {
            Call::Send { text, .. } => format!("send {}", text.split_once("> ").unwrap().1),
            Call::CreateGroup { name, .. } => format!("create {name}"),
            Call::Befriend { .. } => "befriend".into(),
            Call::Join { .. } => "join".into(),
            Call::RemoveMember { .. } => "remove".into(),
            Call::Quit { .. } => "quit".into(),
            _ => continue,
        };
        let outcome = history.events.iter().find_map(|event| match &event.what {
            What::Returned { operation: of, outcome } if of == operation => Some(outcome),
            _ => None,
        });
        let outcome = match outcome.unwrap() {
            Outcome::Ok { .. } => "ok".into(),
            Outcome::Failed { code } => format!("{:?}", code.unwrap()),
            Outcome::Unknown => "unknown".into(),
        };
        let user = history.events.iter().find_map(|event| match &event.what {
            What::Started { device: of, user } if of == device => *user,
            _ => None,
        });
        all.push(format!("{} {text}: {outcome}", user.unwrap()));
    }
    all
}

#[tokio::test]
async fn what_a_script_says_is_done_and_nothing_else() {
    let script = vec![
        at(0, 0, Action::CreateGroup { group: 7 }),
        at(0, 2, Action::Befriend { user: 0 }),
        at(200, 1, Action::Join { group: 7 }),
        at(200, 1, Action::Send { to: Place::Group(7), text_bytes: 3000 }),
        at(200, 1, Action::Repeat { back: 0 }),
        // Nobody is user 9, has session 5, or has made group 8; nobody talks to themselves.
        send(200, 9, Place::Group(7)),
        Operation { session: 5, ..send(200, 0, Place::Group(7)) },
        send(200, 0, Place::Group(8)),
        send(200, 0, Place::Direct(0)),
        at(500, 0, Action::RemoveMember { group: 7, user: 1 }),
        send(900, 1, Place::Hot),
        send(900, 0, Place::Direct(2)),
        send(900, 2, Place::Direct(1)),
    ];
    let history = run(plan(3, 1, script), 1, true).await;
    assert_valid(&history);
    let mut all = asked(&history);
    // What begins at one time may come in any order.
    all.sort();
    let long = all.iter().filter(|line| line.contains("send 1.0.1 ...")).count();
    assert_eq!(long, 2, "{all:?}");
    all.retain(|line| !line.contains("send 1.0.1"));
    assert_eq!(
        all,
        [
            "1 create club 7: ok",
            "1 remove: ok",
            "1 send 0.0.4: ok",
            "2 join: ok",
            "2 send 1.0.3: NotMember",
            "3 befriend: ok",
            "3 send 2.0.1: NotFriends",
        ]
    );
}

#[tokio::test]
async fn what_is_left_of_a_script_means_the_same() {
    let whole = vec![
        at(0, 0, Action::CreateGroup { group: 1 }),
        at(0, 1, Action::CreateGroup { group: 2 }),
        at(200, 2, Action::Join { group: 1 }),
        at(400, 2, Action::Join { group: 2 }),
        send(600, 2, Place::Group(2)),
        send(800, 2, Place::Group(1)),
    ];
    let history = run(plan(3, 1, whole.clone()), 1, true).await;
    assert_valid(&history);
    assert_eq!(asked(&history).iter().filter(|line| line.ends_with(": ok")).count(), 6);

    let less: Vec<Operation> = whole.into_iter().skip(1).collect();
    let history = run(plan(3, 1, less), 1, true).await;
    assert_valid(&history);
    // Group 1 was never made; group 2 is still that of the other user.
    assert_eq!(asked(&history).iter().filter(|line| line.starts_with("2 create club 2")).count(), 1);
    let by_third: Vec<String> = asked(&history).into_iter().filter(|line| line.starts_with('3')).collect();
    assert_eq!(by_third, ["3 join: ok", "3 send 2.0.2: ok"]);
}

/// `CHAT_WORKLOAD_RUNS=100` makes more of it, with other seeds.
#[tokio::test]
async fn generated_scripts_are_carried_out_in_parts() {
    let runs = std::env::var("CHAT_WORKLOAD_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1);
    for seed in 0..runs {
        let shape = Shape {
            users: 6,
            duration: Duration::from_secs(1),
            away_max: Duration::from_millis(300),
            ..Shape::default()
        };
        let script = generate(seed, &shape);
        let history = run(plan(6, 2, script), 3, true).await;
        assert_valid(&history);
        let count =
            |which: fn(&What) -> bool| history.events.iter().filter(|event| which(&event.what)).count();
        assert!(count(|what| matches!(what, What::Invoked { call: Call::Send { .. }, .. })) > 20);
        assert_eq!(count(|what| matches!(what, What::FinalLists { .. })), 6);
        // Both nodes have said of everything that they hold how much it is.
        let mut held: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for event in &history.events {
            if let What::Memory { node, gauge, .. } = &event.what {
                held.entry(node).or_default().push(gauge);
            }
        }
        let held: Vec<_> = held.into_values().collect();
        assert!(held.len() == 2 && held[0] == held[1] && !held[0].is_empty(), "{held:?}");
    }
}

/// Goal: SPEC.md, section 2, guarantee 7: with no hint at all the end is the same.
#[tokio::test]
async fn without_hints_the_end_is_the_same() {
    let mut script = vec![
        at(0, 0, Action::CreateGroup { group: 1 }),
        at(200, 1, Action::Join { group: 1 }),
        at(400, 2, Action::Join { group: 1 }),
        at(600, 2, Action::Befriend { user: 1 }),
        at(800, 0, Action::Burst { to: Place::Group(1), count: 5 }),
        at(800, 1, Action::Burst { to: Place::Group(1), count: 5 }),
        at(1000, 0, Action::RemoveMember { group: 1, user: 1 }),
        send(1300, 1, Place::Group(1)),
        send(1500, 2, Place::Group(1)),
        send(1500, 2, Place::Direct(1)),
    ];
    let with = run(plan(3, 1, script.clone()), 1, true).await;
    let without = run(plan(3, 1, script.clone()), 1, false).await;
    assert_valid(&with);
    assert_valid(&without);
    let verdict = compare(&with, &without).verdict;
    assert!(verdict == Verdict::Valid, "{verdict}");

    // Another script is no such pair.
    script.pop();
    let other = run(plan(3, 1, script), 1, false).await;
    assert!(matches!(compare(&with, &other).verdict, Verdict::Unknown(_)));
}

/// A crash does not wait for what was asked, a storm takes all devices, and a stalled one is shown later what
/// it did not read.
#[tokio::test]
async fn devices_crash_storm_and_stall() {
    let away = Duration::from_millis(50);
    let script = vec![
        at(0, 0, Action::Befriend { user: 1 }),
        at(300, 1, Action::Stall { lasting: Duration::from_millis(600) }),
        at(400, 0, Action::Burst { to: Place::Direct(1), count: 9 }),
        at(400, 0, Action::Crash { away }),
        Operation { session: 1, ..at(1000, 1, Action::Storm) },
        send(1300, 1, Place::Direct(0)),
        at(1500, 0, Action::Reconnect { logout: true, away }),
        send(1600, 0, Place::Direct(1)),
    ];
    let history = run(plan(2, 2, script), 2, true).await;
    assert_valid(&history);
    let count = |which: fn(&What) -> bool| history.events.iter().filter(|event| which(&event.what)).count();
    assert_eq!(count(|what| matches!(what, What::Crashed { .. })), 3);
    assert_eq!(count(|what| matches!(what, What::FaultBegan { .. })), 1);
    assert_eq!(count(|what| matches!(what, What::FaultEnded { .. })), 1);
    assert_eq!(count(|what| matches!(what, What::Invoked { call: Call::Logout, .. })), 1);
    // Four to begin with, and one for each that was gone.
    let started = count(|what| matches!(what, What::Started { user: Some(_), .. }));
    assert_eq!(started, 4 + 4);
    // The crash may have come before the whole burst had left.
    let sends = count(|what| matches!(what, What::Invoked { call: Call::Send { .. }, .. }));
    assert!((2..=9 + 2).contains(&sends), "{sends}");
}

/// The simulator writes accounts into the store itself.
#[tokio::test]
async fn users_can_have_been_registered_before() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
    let (_node, address) = node(&store, {
        let (relay, events) = NoRelay::new();
        (Arc::new(relay), events)
    })
    .await;
    let script = vec![at(0, 0, Action::Befriend { user: 1 }), send(200, 1, Place::Direct(0))];
    let mut first = plan(2, 1, Vec::new());
    for registered in [false, true] {
        first.registered = registered;
        let history = loadgen::run(
            Tcp,
            std::slice::from_ref(&address),
            first.clone(),
            Recorder::new(Bounds { presence_is_shared: false, ..Bounds::default() }),
            Arc::new(SystemEntropy),
            TaskTracker::new(),
            tokio_util::sync::CancellationToken::new(),
        );
        let history = timeout(PATIENCE, history).await.expect("the run ends in time");
        let registrations = |what: &What| matches!(what, What::Invoked { call: Call::Register { .. }, .. });
        let count = history.events.iter().filter(|event| registrations(&event.what)).count();
        assert_eq!(count, if registered { 0 } else { 2 });
        assert_valid(&history);
        first.script = Some(script.clone());
        if registered {
            assert_eq!(asked(&history), ["1 befriend: ok", "2 send 1.0.0: ok"]);
        }
    }
}
