//! Limits and the ends of connections: SPEC.md, sections 3, 6 and 8.

use std::{sync::Arc, time::Duration};

use protocol::Limits;
use serde_json::json;
use server::{
    metrics,
    node::NodeConfig,
    relay::none::NoRelay,
    throttle::{Penalty, Rate, Rates},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep},
};

use crate::{
    harness::{TestNode, Wire, mid},
    probing::{Client, ROOM},
};

#[tokio::test]
async fn lines_before_login_are_short_and_few() {
    let node = TestNode::in_memory().await;
    let mut wire = node.connect().await;
    wire.send(format!("{{\"id\":1,\"op\":\"ping\",\"x\":\"{}\"}}\n", "x".repeat(4100))).await;
    assert_eq!(wire.line().await["error"]["code"], "frame_too_long");
    wire.ok(json!({"op": "ping"})).await;
    for _ in 0..9 {
        wire.send("nonsense\n").await;
    }
    for _ in 0..9 {
        assert_eq!(wire.line().await["error"]["code"], "malformed");
    }
    assert_eq!(wire.line().await, json!({"push": "closing", "code": "too_many_errors"}));
    assert!(wire.try_line().await.is_none());
    // After a login they end nothing.
    let (_, mut alice) = node.user("alice").await;
    for _ in 0..50 {
        alice.send("nonsense\n").await;
    }
    alice.ok(json!({"op": "ping"})).await;
}

#[tokio::test]
async fn a_burst_is_answered_in_full() {
    // 200 commands in one write, with more in flight than the limit: reading stops, nothing is refused.
    let node = TestNode::in_memory().await;
    let ((_, mut alice), _bob) = node.friends().await;
    let burst: String = (1..=200)
        .map(|n| {
            let request = match n % 4 {
                0 => json!({"id": n, "op": "friends"}),
                1 => json!({"id": n, "op": "ping"}),
                _ => json!({"id": n, "op": "send", "mid": mid(), "conv": "d1-2", "text": "x"}),
            };
            request.to_string() + "\n"
        })
        .collect();
    alice.send(burst).await;
    for n in 1..=200 {
        assert!(alice.reply(n).await["ok"].is_object());
    }
}

#[tokio::test]
async fn who_says_nothing_is_shown_out() {
    let config = NodeConfig {
        login_timeout: Duration::from_millis(300),
        limits: Limits { idle_timeout_ms: 600, ..Limits::default() },
        ..NodeConfig::default()
    };
    let node = TestNode::with_config(config).await;
    let mut half_open = node.connect().await;
    half_open.send("{\"id\":1,").await;
    assert_eq!(half_open.line().await, json!({"push": "closing", "code": "login_timeout"}));
    let (_, mut alice) = node.user("alice").await;
    let (_, mut bob) = node.user("bob").await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bob.ok(json!({"op": "ping"})).await;
    }
    let end = alice.find("the end", |line| line["push"] == "closing").await;
    assert_eq!(end["code"], "idle");
    bob.ok(json!({"op": "ping"})).await;
}

/// A client that never reads is cut off; meanwhile it costs no more than its outbox.
#[tokio::test]
async fn who_never_reads_is_cut_off() {
    let config = NodeConfig { write_timeout: Duration::from_millis(500), ..NodeConfig::default() };
    let node = TestNode::with_config(config).await;
    let ((_, mut alice), (_, deaf)) = node.friends().await;
    let text = "x".repeat(60_000);
    for _ in 0..200 {
        alice.say("d1-2", &text).await;
        // It may be told before all is said.
        alice.aside.retain(|line| line["push"] == "presence");
    }
    alice.find("bob is gone", |l| l["push"] == "presence" && l["state"] == "offline").await;
    // What was in the sockets is still read; then the end.
    assert!(deaf.rest().await.len() < 200 * 60_000, "the rest was never sent");
}

/// Some bytes now and then are no better than none; a reader that is slow and not too slow gets all of it. In virtual time, without sockets.
#[tokio::test(start_paused = true)]
async fn who_reads_too_little_is_cut_off() {
    for (bytes_each_ten_seconds, enough) in [(64, false), (4096, true)] {
        let node = TestNode::in_virtual_time(NoRelay::new().1, NodeConfig::default()).await;
        let mut alice = Client::new(&node, 1, "alice", ROOM).await;
        let mut slow = Client::new(&node, 2, "slow", 256).await;
        alice.ok(json!({"op": "befriend", "mid": mid(), "user": 2})).await;
        alice.ok(json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": "x".repeat(60_000)})).await;
        let registry = Arc::clone(&node.running.node().registry);
        let (begun, mut read) = (Instant::now(), 0);
        while read < 50_000 && registry.session_count() == 2 {
            let mut some = vec![0; bytes_each_ten_seconds];
            read += slow.0.read_exact(&mut some).await.unwrap_or(0);
            for client in [&mut alice, &mut slow] {
                client.0.write_all(b"{\"id\":1,\"op\":\"ping\"}\n").await.ok();
            }
            sleep(Duration::from_secs(10)).await;
        }
        assert_eq!(registry.session_count(), if enough { 2 } else { 1 }, "{bytes_each_ten_seconds}");
        assert_eq!(read >= 50_000, enough);
        let (relay, _) = NoRelay::new();
        let inner = node.running.node();
        let metrics = metrics::text(&inner.metrics.registry(inner, Arc::new(relay)));
        assert_eq!(metrics.contains("chat_closings_total{code=\"slow_reader\"} 1\n"), !enough, "{metrics}");
        if !enough {
            let after = begun.elapsed().as_secs();
            assert!((30..=60).contains(&after), "{after} s");
        }
    }
}

#[tokio::test]
async fn connections_and_sessions_are_bounded() {
    let config = NodeConfig { connections_max: 3, sessions_per_user_max: 2, ..NodeConfig::default() };
    let node = TestNode::with_config(config).await;
    let (_, _first) = node.user("alice").await;
    let mut second = node.connect().await;
    second.login("alice").await;
    let mut third = node.connect().await;
    let login = json!({"op": "login", "account": "alice", "password": "alice"});
    assert_eq!(third.error(login).await, "limit_reached");
    let mut fourth = Wire::connect(&node.address).await;
    assert_eq!(fourth.line().await["code"], "too_many_connections");
    drop(second);
    drop(fourth);
    // A place that was given up is free again.
    loop {
        let mut wire = Wire::connect(&node.address).await;
        if wire.line().await["push"] == "hello" {
            break;
        }
    }
}

#[tokio::test]
async fn groups_and_members_are_bounded() {
    let mut config = NodeConfig::default();
    config.bounds.groups_per_user_max = 2;
    config.bounds.members_per_group_max = 2;
    config.bounds.friends_per_user_max = 1;
    let node = TestNode::with_config(config).await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    let (_, mut carol) = node.user("carol").await;
    let create = json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""});
    alice.ok(create.clone()).await;
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    let third = json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""});
    assert_eq!(alice.error(third).await, "limit_reached");
    assert_eq!(alice.ok(create).await["group"], 1, "a retry of what happened is no further group");
    bob.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    assert_eq!(carol.error(json!({"op": "join", "mid": mid(), "group": 1})).await, "limit_reached");
    assert_eq!(carol.error(json!({"op": "befriend", "mid": mid(), "user": 1})).await, "limit_reached");
}

#[tokio::test]
async fn a_drain_answers_and_says_goodbye() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    let mut idle = node.connect().await;
    let asked: Vec<_> = {
        let mut asked = Vec::new();
        for n in 0..20 {
            asked.push(
                alice.ask(json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": format!("{n}")})).await,
            );
        }
        alice.reply(asked[0]).await;
        asked
    };
    bob.find("befriended", |line| line["kind"] == "befriended").await;
    bob.send(json!({"op": "ack", "cursors": {"d1-2": 1}}).to_string() + "\n").await;
    assert_eq!(bob.ok(json!({"op": "ping"})).await, json!({}));
    let address = node.address.clone();
    let store = node.running.node().store.clone();
    assert!(node.running.drain().await, "within the grace period");
    let closing = idle.line().await;
    assert_eq!((&closing["push"], &closing["code"]), (&json!("closing"), &json!("going_away")));
    assert!((100..=400).contains(&closing["reconnect_after_ms"].as_u64().unwrap()));
    // What was taken was answered before the goodbye.
    let lines = String::from_utf8(alice.rest().await).unwrap();
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["code"], "going_away");
    let answered = lines.lines().filter(|line| line.contains("\"ok\"")).count();
    let conv = "d1-2".parse().unwrap();
    let head = store.heads(&[conv]).await.unwrap()[&conv].0 as usize;
    assert!(answered + 2 >= head, "{answered} of {} answered, head {head}", asked.len());
    let periods = store.periods_in(protocol::UserId::new(2).unwrap(), &[conv]).await.unwrap();
    assert_eq!(periods[0].delivered.0, 1, "cursors were written");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

/// Behind a balancer that says who the client is, a connection begins with its header and then goes on as ever.
#[tokio::test]
async fn a_proxy_header_comes_first() {
    let config = NodeConfig { proxy_protocol: true, ..NodeConfig::default() };
    let node = TestNode::with_config(config).await;
    let mut wire = Wire::connect(&node.address).await;
    wire.send("PROXY TCP4 192.0.2.1 192.0.2.2 5000 8000\r\n{\"id\":1,\"op\":\"ping\"}\n").await;
    assert_eq!(wire.line().await["push"], "hello");
    assert_eq!(wire.line().await, json!({"id": 1, "ok": {}}));
    let mut without = Wire::connect(&node.address).await;
    without.send("{\"id\":1,\"op\":\"ping\"}\n").await;
    assert!(without.try_line().await.is_none());
}

/// A node behind a balancer, to which tests say from where they come.
async fn behind_a_balancer(rates: Rates) -> TestNode {
    TestNode::with_config(NodeConfig { proxy_protocol: true, rates, ..NodeConfig::default() }).await
}

async fn from(node: &TestNode, address: &str) -> Wire {
    let mut wire = Wire::connect(&node.address).await;
    wire.send(format!("PROXY TCP4 {address} 192.0.2.200 5000 8000\r\n")).await;
    wire
}

async fn greeted(node: &TestNode, address: &str) -> Wire {
    let mut wire = from(node, address).await;
    assert_eq!(wire.line().await["push"], "hello");
    wire
}

#[tokio::test]
async fn nobody_but_balancers_may_say_who_is_served() {
    let config = NodeConfig {
        proxy_protocol: true,
        proxies: vec!["192.0.2.0/24".parse().unwrap()],
        ..NodeConfig::default()
    };
    let node = TestNode::with_config(config).await;
    let mut wire = Wire::connect(&node.address).await;
    assert!(wire.try_line().await.is_none());
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let node = behind_a_balancer(Rates { connections_per_address_max: 2, ..Rates::default() }).await;
    let first = greeted(&node, "192.0.2.1").await;
    let mut second = greeted(&node, "192.0.2.1").await;
    let mut third = from(&node, "192.0.2.1").await;
    assert_eq!(third.line().await["code"], "too_many_connections");
    assert!(third.try_line().await.is_none());
    let _other = greeted(&node, "192.0.2.2").await;
    second.ok(json!({"op": "ping"})).await;
    drop(first);
    // The place is free again once the node has seen the end.
    while from(&node, "192.0.2.1").await.line().await["push"] != "hello" {}
}

/// A balancer that speaks for itself, as in a health check, is nobody's address.
#[tokio::test]
async fn a_balancer_itself_is_exempt() {
    let node = behind_a_balancer(Rates { connections_per_address_max: 0, ..Rates::default() }).await;
    let mut wire = Wire::connect(&node.address).await;
    wire.send("PROXY UNKNOWN\r\n").await;
    assert_eq!(wire.line().await["push"], "hello");
}

#[tokio::test]
async fn an_address_registers_so_many_accounts() {
    let rates = Rates { address_registrations: Rate::per_hour(1, 2), ..Rates::default() };
    let node = behind_a_balancer(rates).await;
    let register = |name: &str| json!({"op": "register", "mid": mid(), "name": name, "password": "x"});
    let mut wire = greeted(&node, "192.0.2.1").await;
    let first = register("first");
    wire.ok(first.clone()).await;
    wire.ok(register("second")).await;
    let refused = wire.refusal(register("third")).await;
    assert_eq!(refused["code"], "rate_limited");
    assert_eq!(refused["definite"], true);
    let wait = refused["retry_after_ms"].as_u64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&wait), "{wait}");
    // Nor is it told which names are taken.
    assert_eq!(wire.error(register("second")).await, "rate_limited");
    // What has happened is said again, as often as it is asked.
    wire.ok(first).await;
    greeted(&node, "192.0.2.2").await.ok(register("third")).await;
}

#[tokio::test]
async fn failed_logins_make_the_next_wait() {
    let penalty = Penalty {
        free: 3,
        first: Duration::from_secs(600),
        longest: Duration::from_secs(600),
        ..Penalty::default()
    };
    let node = behind_a_balancer(Rates { account_failures: penalty, ..Rates::default() }).await;
    let mut owner = greeted(&node, "192.0.2.9").await;
    owner.ok(json!({"op": "register", "mid": mid(), "name": "alice", "password": "alice"})).await;
    let token = owner.login("alice").await["token"].clone();
    let try_it =
        |account: &str, password: &str| json!({"op": "login", "account": account, "password": password});
    // From anywhere, by name in any spelling and by number: it is one account.
    for (n, account) in ["alice", "ALICE", "1", "alice"].iter().enumerate() {
        let mut wire = greeted(&node, &format!("192.0.2.{n}")).await;
        assert_eq!(wire.error(try_it(account, "guess")).await, "bad_credentials");
    }
    let mut wire = greeted(&node, "192.0.2.5").await;
    let refused = wire.refusal(try_it("alice", "alice")).await;
    assert_eq!(refused["code"], "rate_limited");
    assert_eq!(refused["message"], "too many attempts; try again in 600 s");
    // Who is logged in does not notice, and who has a token needs no password.
    owner.ok(json!({"op": "passwd", "mid": mid(), "old": "alice", "new": "alice"})).await;
    wire.ok(json!({"op": "resume", "token": token, "cursors": {}})).await;
    // A session that guesses its own user's password waits as well.
    let passwd = || json!({"op": "passwd", "mid": mid(), "old": "guess", "new": "x"});
    for _ in 0..4 {
        assert_eq!(owner.error(passwd()).await, "bad_credentials");
    }
    assert_eq!(owner.error(passwd()).await, "rate_limited");
    // A name that nobody has is treated alike.
    let mut wire = greeted(&node, "192.0.2.6").await;
    for _ in 0..4 {
        assert_eq!(wire.error(try_it("nobody", "guess")).await, "bad_credentials");
    }
    assert_eq!(wire.error(try_it("nobody", "guess")).await, "rate_limited");
}

#[tokio::test]
async fn an_address_that_guesses_has_to_wait() {
    let penalty = Penalty {
        free: 2,
        first: Duration::from_secs(600),
        longest: Duration::from_secs(600),
        ..Penalty::default()
    };
    let node = behind_a_balancer(Rates { address_failures: penalty, ..Rates::default() }).await;
    let (_, mut neighbour) = {
        let mut wire = greeted(&node, "192.0.2.1").await;
        wire.ok(json!({"op": "register", "mid": mid(), "name": "carol", "password": "carol"})).await;
        (wire.login("carol").await, wire)
    };
    let mut wire = greeted(&node, "192.0.2.1").await;
    let guess = |n: u32| json!({"op": "login", "account": format!("user {n}"), "password": "guess"});
    for n in 0..3 {
        assert_eq!(wire.error(guess(n)).await, "bad_credentials");
    }
    assert_eq!(wire.error(guess(3)).await, "rate_limited");
    neighbour.ok(json!({"op": "friends"})).await;
    assert_eq!(greeted(&node, "192.0.2.2").await.error(guess(3)).await, "bad_credentials");
}

/// What comes too fast is carried out later. It delays nobody else, not even who is logged in at the same address.
#[tokio::test]
async fn requests_before_a_login_are_paced_per_address() {
    let node =
        behind_a_balancer(Rates { address_requests: Rate::per_second(4, 4), ..Rates::default() }).await;
    let mut neighbour = greeted(&node, "192.0.2.1").await;
    neighbour.ok(json!({"op": "register", "mid": mid(), "name": "carol", "password": "carol"})).await;
    neighbour.login("carol").await;
    let mut wire = greeted(&node, "192.0.2.1").await;
    let flood: String = (1..=8).map(|n| format!("{{\"id\":{n},\"op\":\"ping\"}}\n")).collect();
    let begun = tokio::time::Instant::now();
    wire.send(flood).await;
    for _ in 0..100 {
        neighbour.ok(json!({"op": "ping"})).await;
    }
    for n in 1..=8 {
        assert!(wire.reply(n).await["ok"].is_object());
    }
    // Eight and the neighbour's two, of which four come at once: the last is due after 1.5 s.
    assert!(begun.elapsed() >= Duration::from_millis(1000), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn requests_of_a_session_are_paced() {
    let rates = Rates { session_requests: Rate::per_second(20, 10), ..Rates::default() };
    let node = TestNode::with_config(NodeConfig { rates, ..NodeConfig::default() }).await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    let flood: String = (1..=40).map(|n| format!("{{\"id\":{n},\"op\":\"ping\"}}\n")).collect();
    let begun = tokio::time::Instant::now();
    alice.send(flood).await;
    bob.ok(json!({"op": "ping"})).await;
    for n in 1..=40 {
        assert!(alice.reply(n).await["ok"].is_object());
    }
    assert!(begun.elapsed() >= Duration::from_millis(1400), "{:?}", begun.elapsed());
}
