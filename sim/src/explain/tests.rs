use std::time::Duration;

use loadgen::{
    Anomaly, History, Invariant,
    history::{Call, DeviceId, Event, OperationId, Outcome, Reply, What},
};
use protocol::{ClientMsgId, ConversationId, Entry, EntryBody, Seq, UserId};

use super::explain;
use crate::{
    run::{Run, Verdict},
    scenario::{Knobs, Scenario, Topology},
    trace::{self, Finished},
};

/// Alice's message is acknowledged at the position of bob's, and what carried it to the store was lost.
fn invalid() -> (Scenario, Run) {
    let (alice, bob) = (UserId::new(1).unwrap(), UserId::new(2).unwrap());
    let conv = ConversationId::direct(alice, bob).unwrap();
    let (first, second) = (ClientMsgId([1; 16]), ClientMsgId([2; 16]));
    let entry = |from: UserId, name: &str, mid, text: &str| {
        let body = EntryBody::Message { text: text.into() };
        Entry { conv, seq: Seq(1), at: 0, from, name: name.into(), mid, body }
    };
    let (operation, device) = (OperationId(7), DeviceId(0));
    let call = Call::Send { mid: first, conv, text: "hello\u{1b}[31m\u{202e} and more".repeat(9) };
    let whats = [
        What::Started { device, user: Some(alice) },
        What::FaultBegan { name: "cut node1 - store".into() },
        What::Invoked { operation, device, call },
        What::Returned { operation, outcome: Outcome::Ok { reply: Reply::Appended { seq: Seq(1) } } },
        What::FaultEnded { name: "cut node1 - store".into() },
        What::Started { device: DeviceId(1), user: Some(bob) },
        What::Entry { device: DeviceId(1), entry: Box::new(entry(bob, "bob", second, "no, me")) },
        What::Final { user: alice, conv, entries: vec![entry(bob, "bob", second, "no, me")] },
    ];
    let event = |(at, what): (u64, _)| Event { at: Duration::from_millis(100 * at), what };
    let history = History { events: (1..).zip(whats).map(event).collect(), ..History::default() };
    let lost = format!("append {first}");
    let trace =
        |ms, host: &str, what| trace::Event { at: Duration::from_millis(ms), host: host.into(), what };
    let events = vec![
        trace(310, "node1", trace::What::Sent(("node1:1".into(), "store:3306".into()), 0, lost.into_bytes())),
        trace(320, "node1", trace::What::Said("drains".into())),
        trace(9000, "node2", trace::What::Said("is far away".into())),
    ];
    let anomaly = Anomaly {
        invariant: Invariant::AcknowledgedLoss,
        events: vec![2, 3, 7],
        detail: "d1-2/1 was acknowledged, and another entry stands there".into(),
    };
    let run = Run {
        verdict: Verdict::Invalid(vec![anomaly]),
        history,
        trace: Finished { hash: [0xab; 32], count: events.len() as u64, events },
        simulated: Duration::from_secs(1),
    };
    let topology = Topology { users: 1, ..Topology::default() };
    let scenario =
        Scenario { seed: 5, topology, knobs: Knobs::default(), operations: Vec::new(), faults: Vec::new() };
    (scenario, run)
}

#[test]
fn the_story_of_an_invalid_run_names_the_events_that_prove_it() {
    let (scenario, run) = invalid();
    let story = explain(&scenario, &run);
    for expected in [
        "Invalid: AcknowledgedLoss.",
        "Found:    d1-2/1 was acknowledged, and another entry stands there",
        "    0.300000  [2] user-0 (1) on device 0: asks #7, send to d1-2 \"hello",
        "    0.400000  [3] user-0 (1) on device 0: #7, send to d1-2",
        "ok, at seq 1",
        "    0.800000  [7] user-0 (1) reads d1-2 at the end: 1",
        "    0.200000  begins   cut node1 - store",
        "    0.500000  is over  cut node1 - store",
        "What happened in d1-2, between user-0 (1) and bob (2)",
        ">   0.300000  [2]",
        "    0.700000  [6] bob (2) on device 1: shown d1-2/1, bob (2) says \"no, me\"",
        "    0.320000  node1     drains",
        "0.310000  node1:1 -> store:3306 @0: all 39 bytes",
        "shown in all to bob (2) on device 1: 1",
    ] {
        assert!(story.contains(expected), "{expected:?} is not in\n{story}");
    }
    assert!(story.starts_with("Invalid"), "the verdict comes first");
    assert!(!story.contains("far away"), "what happened long afterwards is left out");
    assert!(!story.contains('\u{1b}') && !story.contains('\u{202e}'), "a terminal obeys nothing of it");
    assert!(story.lines().all(|line| line.chars().count() < 400), "long texts are cut short");
    assert_eq!(story, explain(&scenario, &run));
}

#[test]
fn a_run_without_a_trace_or_a_history_is_explained_as_far_as_it_can_be() {
    let (scenario, mut run) = invalid();
    run.trace.events.clear();
    assert!(explain(&scenario, &run).contains("[7] user-0 (1) reads d1-2 at the end: 1"));
    run.history = History::default();
    assert!(explain(&scenario, &run).contains("[7] which the history does not have"));
    run.verdict = Verdict::Crashed("panicked at src/x.rs\nwith a reason".into());
    assert!(explain(&scenario, &run).starts_with("Crashed: panicked at src/x.rs\n  with a reason\n"));
}

#[test]
fn a_valid_run_is_told_in_numbers() {
    let (scenario, mut run) = invalid();
    run.verdict = Verdict::Valid;
    let story = explain(&scenario, &run);
    assert!(story.starts_with("Valid: every promise was kept.\nSeed 5: 3 nodes"), "{story}");
    assert!(story.contains("  send                   1         0         0           0\n"), "{story}");
    assert!(story.contains("entries shown 1"), "{story}");
    assert!(!story.contains("What happened in"), "{story}");
}
