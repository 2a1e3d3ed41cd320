use std::time::Duration;

use loadgen::{
    Anomaly, History, Invariant,
    history::{Call, DeviceId, Event, OperationId, Outcome, Reply, What},
};
use protocol::{ClientMsgId, ConversationId, GroupId, Seq, UserId};
use serde_json::Value;

use super::write;
use crate::{
    run::{Run, Verdict},
    scenario::{Fault, Host, Knobs, Scenario, Topology, What as Broken},
    trace::{Event as Traced, Finished, What as Happened},
};

const HOSTILE: &str = "</script><img src=x onerror=alert(1)><!--<script> & \u{2028}\0\"\\";

fn scenario() -> Scenario {
    Scenario {
        seed: 3,
        topology: Topology::default(),
        knobs: Knobs::default(),
        operations: Vec::new(),
        faults: vec![
            Fault { at_ms: 1, for_ms: 5, what: Broken::Cut { a: Host::Node(0), b: Host::Store } },
            Fault { at_ms: 1_000_000, for_ms: 5, what: Broken::RedisEmptied },
        ],
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A user asks for something, and it goes from the client to the balancer, whose answer is lost.
fn run() -> Run {
    let user = UserId::new(2).unwrap();
    let (device, operation) = (DeviceId(0), OperationId(0));
    let call = Call::Send {
        mid: ClientMsgId([9; 16]),
        conv: ConversationId::group(GroupId::new(1).unwrap()),
        text: HOSTILE.into(),
    };
    let history = History {
        events: vec![
            Event { at: ms(0), what: What::Started { device, user: Some(user) } },
            Event { at: ms(5), what: What::Invoked { operation, device, call } },
            Event { at: ms(11), what: What::Returned { operation, outcome: Outcome::Unknown } },
        ],
        ..History::default()
    };
    let there = || ("clients2:1".into(), "balancer:8000".into());
    let back = || ("balancer:8000".into(), "clients2:1".into());
    let event = |at, host: &str, what| Traced { at, host: host.into(), what };
    let mut events = vec![
        event(ms(0), "balancer", Happened::Accepted(back())),
        event(ms(0), "clients2", Happened::Connected(there())),
        event(ms(5), "clients2", Happened::Sent(there(), 0, [HOSTILE.as_bytes(), &[0xff, 9]].concat())),
        event(ms(5), "workload", Happened::Drew(vec![1, 2])),
        event(ms(9), "balancer", Happened::Received(there(), 0, HOSTILE.as_bytes()[..4].to_vec())),
        event(ms(10), "balancer", Happened::Sent(back(), 0, vec![b'x'; 5])),
        event(ms(10), "balancer", Happened::Said(HOSTILE.into())),
        event(ms(11), "clients2", Happened::Ended(back(), "reset".into())),
        event(ms(12), "balancer", Happened::Dropped(back())),
        event(ms(12), "node1", Happened::Refused("store:3306".into())),
    ];
    // As a run ends its trace.
    let said = |what| event(ms(15), "world", Happened::Said(serde_json::to_string(what).unwrap()));
    events.extend(history.events.iter().map(said));
    let anomaly = Anomaly { invariant: Invariant::Liveness, events: vec![1, 2], detail: HOSTILE.into() };
    Run {
        verdict: Verdict::Invalid(vec![anomaly]),
        history,
        trace: Finished { hash: [1; 32], count: events.len() as u64, events },
        simulated: ms(15),
    }
}

fn page(scenario: &Scenario, run: &Run) -> String {
    let mut page = Vec::new();
    write(scenario, run, &mut page).unwrap();
    String::from_utf8(page).unwrap()
}

fn data(page: &str) -> Value {
    let (_, rest) = page.split_once(r#"<script id="data" type="application/json">"#).unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// Cells of a row from the kind on.
fn cells(data: &Value, row: usize) -> Vec<i64> {
    data["rows"][row].as_array().unwrap()[2..].iter().map(|cell| cell.as_i64().unwrap()).collect()
}

#[test]
fn the_same_run_makes_the_same_bytes() {
    assert_eq!(page(&scenario(), &run()), page(&scenario(), &run()));
}

#[test]
fn hostile_text_stays_text() {
    let usual = page(&Scenario { seed: 3, ..scenario() }, &Run { history: History::default(), ..run() });
    let page = page(&scenario(), &run());
    for opening in ["<script", "</script", "<img", "<!--"] {
        let own = super::PAGE.matches(opening).count();
        assert_eq!(page.matches(opening).count(), own, "{opening} comes from the template only");
        assert_eq!(usual.matches(opening).count(), own);
    }
    let data = data(&page);
    assert_eq!(data["anomalies"][0]["detail"], HOSTILE);
    // Bytes are a character each.
    let bytes: Vec<u8> =
        data["strings"][cells(&data, 4)[4] as usize].as_str().unwrap().chars().map(|c| c as u8).collect();
    assert_eq!(bytes, [HOSTILE.as_bytes(), &[0xff, 9]].concat());
}

#[test]
fn no_script_makes_markup_of_text() {
    for script in super::SCRIPTS {
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"]
        {
            assert!(!script.contains(forbidden), "{forbidden}");
        }
    }
}

#[test]
fn every_event_is_a_row_and_the_history_stands_where_it_happened() {
    let data = data(&page(&scenario(), &run()));
    let host = |row: usize| {
        data["hosts"][data["rows"][row][0].as_u64().unwrap() as usize].as_str().unwrap().to_owned()
    };
    let kinds: Vec<i64> =
        (0..data["rows"].as_array().unwrap().len()).map(|row| cells(&data, row)[0]).collect();
    // Started, then what the network did; the request before what it sends; the outcome after the end of the connection.
    assert_eq!(kinds, [2, 9, 0, 9, 3, 7, 4, 3, 8, 5, 9, 6, 1]);
    assert_eq!((host(1), host(3), host(10)), ("clients2".into(), "clients2".into(), "clients2".into()));
    assert_eq!(data["anomalies"][0]["rows"], serde_json::json!([3, 10]));
    assert_eq!(data["trace_events"], 13);
}

#[test]
fn arrows_and_losses_are_between_rows() {
    let data = data(&page(&scenario(), &run()));
    assert_eq!(data["arrows"], serde_json::json!([[4, 6, 4]]));
    let rest = HOSTILE.len() + 2 - 4;
    assert_eq!(data["lost"], serde_json::json!([[4, rest, 11], [7, 5, -1]]));
    assert_eq!(data["connections"], serde_json::json!([["clients2:1", "balancer:8000"]]));
    // What was received is not there a second time.
    assert_eq!(cells(&data, 6), [4, 0, 0, 0, 4, -1]);
    let bands = data["faults"].as_array().unwrap();
    assert_eq!(bands.len(), 1, "the other would have begun after the end");
    assert_eq!(bands[0]["hosts"], serde_json::json!(["node1", "store"]));
}

#[test]
fn nothing_of_a_hundred_thousand_events_is_left_out() {
    let direction = |at: u64| (format!("node1:{}", at % 50).into(), "store:3306".into());
    let mut events = Vec::new();
    for at in 0..50_000_u64 {
        let (bytes, offset) = (format!("{{\"append\":{at:>8}}}").into_bytes(), at / 50 * 19);
        events.push(Traced {
            at: ms(at),
            host: "node1".into(),
            what: Happened::Sent(direction(at), offset, bytes.clone()),
        });
        events.push(Traced {
            at: ms(at + 3),
            host: "store".into(),
            what: Happened::Received(direction(at), offset, bytes),
        });
    }
    let run = Run {
        verdict: Verdict::Valid,
        history: History::default(),
        trace: Finished { hash: [0; 32], count: 100_000, events },
        simulated: ms(50_003),
    };
    let page = page(&scenario(), &run);
    let data = data(&page);
    assert_eq!(data["rows"].as_array().unwrap().len(), 100_000);
    assert_eq!(data["arrows"].as_array().unwrap().len(), 50_000);
    assert_eq!(data["strings"].as_array().unwrap().len(), 50_000);
    assert_eq!(data["lost"].as_array().unwrap().len(), 0);
    assert!(page.len() < 12_000_000, "{}", page.len());
}

#[test]
fn a_request_and_its_outcome_name_each_other() {
    let mut run = run();
    let outcome = Outcome::Ok { reply: Reply::Appended { seq: Seq(1) } };
    run.history.events[2].what = What::Returned { operation: OperationId(0), outcome };
    run.trace.events.clear();
    let data = data(&page(&scenario(), &run));
    assert_eq!([cells(&data, 1)[8], cells(&data, 2)[8]], [2, 1]);
}
