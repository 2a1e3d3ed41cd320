//! Limits and the ends of connections: SPEC.md, sections 3, 6 and 8.

use std::time::Duration;

use protocol::Limits;
use serde_json::json;
use server::node::NodeConfig;

use crate::harness::{TestNode, Wire, mid};

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
        alice.aside.clear();
    }
    alice.find("bob is gone", |l| l["push"] == "presence" && l["state"] == "offline").await;
    // What was in the sockets is still read; then the end.
    assert!(deaf.rest().await.len() < 200 * 60_000, "the rest was never sent");
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
    let delivered = store.delivered(protocol::UserId::new(2).unwrap(), conv).await.unwrap();
    assert_eq!(delivered.0, 1, "cursors were written");
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
