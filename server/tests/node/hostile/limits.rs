//! The limits of SPEC.md, section 8, met from addresses of this machine that are not exempt. Those that no client can reach in a test's time are
//! lowered by the node's own options, or by its configuration in `limits.rs`, beside this suite.

use serde_json::json;

use super::{Cases, Siege, answer, register_and_log_in, try_answer};
use crate::harness::{Wire, mid};

/// What is limited.
pub(super) const LIMITS: &[&str] = &[
    "a connection too many from an address",
    "a connection from another address meanwhile",
    "a registration too many from an address",
    "a registration from another address meanwhile",
    "a guess too many of a password",
    "the right password meanwhile",
    "a guess too many of what is no account",
    "a guess too many from an address",
    "a wrong old password too many",
    "a flood before a login",
    "a flood before a login, asked once more",
    "a flood in a session",
    "more sends than may be in flight",
    "a member too many of a group",
    "a connection too many of the node",
    "a text as long as allowed",
    "a name as long as allowed",
];

fn login(account: &str, password: &str) -> String {
    json!({"id": 1, "op": "login", "account": account, "password": password}).to_string()
}

fn register(name: &str) -> String {
    json!({"id": 1, "op": "register", "mid": mid(), "name": name, "password": name}).to_string()
}

/// Greeted, at an address of its own.
async fn at(siege: &Siege, address: &str) -> Wire {
    let mut wire = siege.connect_from(address).await;
    assert_eq!(wire.line().await["push"], "hello");
    wire
}

#[tokio::test]
async fn who_exceeds_a_limit_is_held_and_nobody_else() {
    let options = ["--exempt", "127.0.0.1", "--address-connections-max", "20"];
    let rates = ["--address-registrations", "1/h:3", "--address-failures", "20", "--group-members-max", "3"];
    let paces = ["--address-requests", "100/s:200", "--session-requests", "500/s:500"];
    let siege = Siege::new(&[&options[..], &rates[..], &paces[..]].concat()).await;
    let mut cases = Cases::of(&LIMITS[..14]);
    connections_and_registrations(&siege, &mut cases).await;
    guesses(&siege, &mut cases).await;
    floods(&siege, &mut cases).await;

    let (_, mut mallory) = siege.user("group's creator").await;
    let create = json!({"op": "create_group", "mid": mid(), "name": "g", "description": ""});
    let group = mallory.ok(create).await["group"].clone();
    let join = || json!({"op": "join", "mid": mid(), "group": group});
    for name in ["first", "second"] {
        siege.user(name).await.1.ok(join()).await;
    }
    let (_, mut third) = siege.user("third").await;
    cases.check("a member too many of a group", third.error(join()).await, "limit_reached");
    cases.end();
    siege.lifts_with_nobody_disturbed().await;
}

async fn connections_and_registrations(siege: &Siege, cases: &mut Cases) {
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(at(siege, "127.0.1.1").await);
    }
    let mut refused = siege.connect_from("127.0.1.1").await;
    cases.check("a connection too many from an address", answer(&mut refused).await, "too_many_connections");
    let mut other = siege.connect_from("127.0.1.2").await;
    let greeting = other.line().await["push"].as_str().unwrap().to_owned();
    cases.check("a connection from another address meanwhile", greeting, "hello");

    let wire = &mut held[0];
    for name in ["m1", "m2", "m3"] {
        wire.send(register(name) + "\n").await;
        assert_eq!(answer(wire).await, "ok");
    }
    cases.ask(wire, "a registration too many from an address", register("m4"), "rate_limited").await;
    cases.ask(&mut other, "a registration from another address meanwhile", register("m4"), "ok").await;
}

/// Tries until it is told to wait: after some failures, for a second at first, and longer each time if the machine has slept through that.
async fn until_told_to_wait(wire: &mut Wire, mut line: impl FnMut(usize) -> String) -> String {
    let mut found = String::new();
    for attempt in 0..40 {
        wire.send(line(attempt) + "\n").await;
        found = answer(wire).await;
        if !found.starts_with("bad_credentials") {
            break;
        }
    }
    found
}

async fn guesses(siege: &Siege, cases: &mut Cases) {
    let (_, mut owner) = siege.user("victim").await;
    // Half of the free attempts at one address, the rest at another, under another spelling.
    let mut wire = at(siege, "127.0.1.3").await;
    for _ in 0..5 {
        wire.send(login("victim", "guess") + "\n").await;
        assert_eq!(answer(&mut wire).await, "bad_credentials");
    }
    let mut wire = at(siege, "127.0.1.4").await;
    let found = until_told_to_wait(&mut wire, |_| login("VICTIM", "guess")).await;
    cases.check("a guess too many of a password", found, "rate_limited");
    let mut found = String::new();
    for round in 0..5 {
        let mut wire = at(siege, &format!("127.0.2.{round}")).await;
        found = until_told_to_wait(&mut wire, |_| login("victim", "guess")).await;
        assert_eq!(found, "rate_limited");
        wire.send(login("victim", "victim") + "\n").await;
        found = answer(&mut wire).await;
        if found != "ok" {
            break;
        }
    }
    cases.check("the right password meanwhile", found, "rate_limited");
    owner.ok(json!({"op": "ping"})).await;

    let mut wire = at(siege, "127.0.1.5").await;
    let found = until_told_to_wait(&mut wire, |_| login("nobody at all", "guess")).await;
    cases.check("a guess too many of what is no account", found, "rate_limited");
    let mut wire = at(siege, "127.0.1.9").await;
    let found = until_told_to_wait(&mut wire, |attempt| login(&format!("nobody {attempt}"), "guess")).await;
    cases.check("a guess too many from an address", found, "rate_limited");

    let passwd = |_| json!({"id": 1, "op": "passwd", "mid": mid(), "old": "guess", "new": "x"}).to_string();
    let found = until_told_to_wait(&mut owner, passwd).await;
    cases.check("a wrong old password too many", found, "rate_limited");
}

async fn floods(siege: &Siege, cases: &mut Cases) {
    let pings = |count: usize| "{\"id\":1,\"op\":\"ping\"}\n".repeat(count);
    let all = async |wire: &mut Wire, count: usize| {
        for _ in 0..count {
            let found = answer(wire).await;
            if found != "ok" {
                return found;
            }
        }
        "ok".into()
    };
    // Beyond the burst they wait, and are answered in the end; at another address nobody waits.
    let mut flood = at(siege, "127.0.1.6").await;
    flood.send(pings(300)).await;
    let mut other = at(siege, "127.0.1.7").await;
    other.ok(json!({"op": "ping"})).await;
    cases.check("a flood before a login", all(&mut flood, 300).await, "ok");
    cases.ask(&mut flood, "a flood before a login, asked once more", pings(1).trim_end(), "ok").await;

    let mut flood = at(siege, "127.0.1.8").await;
    register_and_log_in(&mut flood, "flooder").await;
    flood.send(pings(900)).await;
    cases.check("a flood in a session", all(&mut flood, 900).await, "ok");

    let group = flood.ok(json!({"op": "create_group", "mid": mid(), "name": "g", "description": ""})).await;
    let conv = format!("g{}", group["group"]);
    let sends: String = (0..200)
        .map(|_| json!({"id": 1, "op": "send", "mid": mid(), "conv": conv, "text": "x"}).to_string() + "\n")
        .collect();
    flood.send(sends).await;
    cases.check("more sends than may be in flight", all(&mut flood, 200).await, "ok");
}

#[tokio::test]
async fn at_the_limit_all_is_well() {
    let siege = Siege::new(&["--connections-max", "6"]).await;
    let mut cases = Cases::of(&LIMITS[14..]);
    let (_, mut mallory) = siege.user("mallory").await;
    let create =
        json!({"op": "create_group", "mid": mid(), "name": "x".repeat(64), "description": "x".repeat(256)});
    let conv = format!("g{}", mallory.ok(create).await["group"]);
    let text = "\u{1}".repeat(10_000) + &"x".repeat(55_536);
    let send = json!({"id": 1, "op": "send", "mid": mid(), "conv": conv, "text": text}).to_string();
    cases.ask(&mut mallory, "a text as long as allowed", send, "ok").await;
    let mut wire = siege.connect().await;
    cases.ask(&mut wire, "a name as long as allowed", register(&"\u{4f60}".repeat(32)), "ok").await;
    // The two who chat, mallory, and this one: two are left.
    let _held = [siege.connect().await, siege.connect().await];
    let mut refused = siege.connect_from("127.0.1.1").await;
    let found = try_answer(&mut refused).await.unwrap_or_else(|| "end".into());
    cases.check("a connection too many of the node", found, "too_many_connections");
    cases.end();
    siege.lifts_with_nobody_disturbed().await;
}
