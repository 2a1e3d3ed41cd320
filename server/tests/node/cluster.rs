//! Several nodes on one store: SPEC.md, guarantees 2, 3, 7 and 8, without real Redis or MySQL.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use protocol::{ConversationId, UserId, message::PresenceState};
use serde_json::json;
use server::{
    node::NodeConfig,
    relay::{Hint, Relay, RelayState, local::Hub},
    store::{Store, memory::MemoryStore},
};

use crate::harness::{TestNode, mid};

/// A relay that drops every hint.
struct Deaf(Arc<dyn Relay>);

#[async_trait]
impl Relay for Deaf {
    fn publish(&self, _: Vec<Hint>) {}
    async fn subscribe(&self, user: UserId, convs: &[ConversationId]) {
        self.0.subscribe(user, convs).await;
    }
    fn unsubscribe(&self, user: UserId, conv: ConversationId) {
        self.0.unsubscribe(user, conv);
    }
    fn set_online(&self, user: UserId, online: bool) {
        self.0.set_online(user, online);
    }
    fn state(&self) -> RelayState {
        RelayState::Up
    }
    fn elsewhere(&self, user: UserId) -> PresenceState {
        self.0.elsewhere(user)
    }
}

/// A relay that sends hints one by one, the last first, and each twice.
struct Shuffled(Arc<dyn Relay>);

#[async_trait]
impl Relay for Shuffled {
    fn publish(&self, hints: Vec<Hint>) {
        for hint in hints {
            for line in hint.lines.iter().rev().chain(&hint.lines) {
                self.0.publish(vec![Hint { conv: hint.conv, lines: vec![line.clone()] }]);
            }
        }
    }
    async fn subscribe(&self, user: UserId, convs: &[ConversationId]) {
        self.0.subscribe(user, convs).await;
    }
    fn unsubscribe(&self, user: UserId, conv: ConversationId) {
        self.0.unsubscribe(user, conv);
    }
    fn set_online(&self, user: UserId, online: bool) {
        self.0.set_online(user, online);
    }
    fn state(&self) -> RelayState {
        RelayState::Up
    }
    fn elsewhere(&self, user: UserId) -> PresenceState {
        self.0.elsewhere(user)
    }
}

/// So many nodes on one store in memory, their relays wrapped.
async fn nodes(
    count: usize,
    wrap: impl Fn(Arc<dyn Relay>) -> Arc<dyn Relay>,
    sweep: Duration,
) -> Vec<TestNode> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
    let hub = Arc::new(Hub::default());
    let mut nodes = Vec::new();
    for _ in 0..count {
        let (relay, events) = hub.join();
        let config = NodeConfig { sweep_interval: sweep, ..NodeConfig::default() };
        nodes.push(TestNode::start(Arc::clone(&store), wrap(Arc::new(relay)), events, config).await);
    }
    nodes
}

#[tokio::test]
async fn users_of_different_nodes_chat() {
    // No sweep to help: it is the hints that deliver.
    let nodes = nodes(2, |relay| relay, Duration::from_secs(3600)).await;
    let (_, mut alice) = nodes[0].user("alice").await;
    let (bob_id, mut bob) = nodes[1].user("bob").await;
    alice.ok(json!({"op": "befriend", "mid": mid(), "user": bob_id})).await;
    alice.find("bob online", |l| l["push"] == "presence" && l["state"] == "online").await;
    for n in 0..20 {
        alice.say("d1-2", &format!("a{n}")).await;
        assert_eq!(bob.message("d1-2").await, format!("a{n}"));
        bob.say("d1-2", &format!("b{n}")).await;
        assert_eq!(bob.message("d1-2").await, format!("b{n}"));
        assert_eq!(alice.message("d1-2").await, format!("a{n}"));
        assert_eq!(alice.message("d1-2").await, format!("b{n}"));
    }
    // Rights travel too: what one node allows or forbids, the other knows.
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    bob.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    bob.say("g1", "in").await;
    assert_eq!(alice.message("g1").await, "in");
    alice.ok(json!({"op": "remove_member", "mid": mid(), "group": 1, "user": bob_id})).await;
    assert_eq!(
        bob.error(json!({"op": "send", "mid": mid(), "conv": "g1", "text": "out"})).await,
        "not_member"
    );
    bob.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    // The reply to the join precedes the send: whatever the other node knew, it must not refuse.
    let mut elsewhere = nodes[0].connect().await;
    elsewhere.login("bob").await;
    elsewhere.say("g1", "in again").await;
    drop(elsewhere);
    drop(bob);
    alice.find("bob offline", |l| l["push"] == "presence" && l["state"] == "offline").await;
}

#[tokio::test]
async fn without_hints_the_sweep_delivers() {
    let nodes = nodes(2, |relay| Arc::new(Deaf(relay)), Duration::from_millis(100)).await;
    let (_, mut alice) = nodes[0].user("alice").await;
    let (bob_id, mut bob) = nodes[1].user("bob").await;
    alice.ok(json!({"op": "befriend", "mid": mid(), "user": bob_id})).await;
    for n in 0..3 {
        alice.say("d1-2", &format!("{n}")).await;
        assert_eq!(bob.message("d1-2").await, format!("{n}"));
    }
}

#[tokio::test]
async fn hints_in_any_order_deliver_in_order() {
    let nodes = nodes(2, |relay| Arc::new(Shuffled(relay)), Duration::from_secs(3600)).await;
    let (_, mut alice) = nodes[0].user("alice").await;
    let (bob_id, mut bob) = nodes[1].user("bob").await;
    alice.ok(json!({"op": "befriend", "mid": mid(), "user": bob_id})).await;
    for round in 0..10 {
        for n in 0..30 {
            alice
                .ask(json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": format!("{round}.{n}")}))
                .await;
        }
        for n in 0..30 {
            assert_eq!(bob.message("d1-2").await, format!("{round}.{n}"));
        }
    }
}

/// Three nodes write to one conversation as fast as they can: one order, nothing twice, nothing lost.
#[tokio::test]
async fn writers_on_all_nodes_agree_on_one_order() {
    let nodes = nodes(3, |relay| relay, Duration::from_millis(500)).await;
    let mut wires = Vec::new();
    for (node, name) in nodes.iter().zip(["alice", "bob", "carol"]) {
        wires.push(node.user(name).await.1);
    }
    wires[0].ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    for wire in &mut wires[1..] {
        wire.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    }
    let writers = wires.into_iter().enumerate().map(async |(who, mut wire)| {
        let mut seqs = Vec::new();
        for round in 0..10 {
            let mut asked = Vec::new();
            for n in 0..20 {
                let text = format!("{who}.{round}.{n}");
                asked.push(wire.ask(json!({"op": "send", "mid": mid(), "conv": "g1", "text": text})).await);
            }
            for id in asked {
                let reply = wire.reply(id).await;
                seqs.push(reply["ok"]["seq"].as_u64().unwrap_or_else(|| panic!("{reply}")));
            }
        }
        assert!(seqs.is_sorted(), "a session's messages keep their order");
        (wire, seqs)
    });
    let done = futures_util::future::join_all(writers).await;
    let mut all: Vec<_> = done.iter().flat_map(|(_, seqs)| seqs.clone()).collect();
    all.sort();
    assert_eq!(all, (4..=603).collect::<Vec<_>>(), "every seq once");
    let mut logs = Vec::new();
    for (mut wire, _) in done {
        let mut log = Vec::new();
        while log.len() < 600 {
            let line = wire.find("an entry", |l| l["conv"] == "g1" && l["kind"] == "message").await;
            log.push((line["seq"].as_u64().unwrap(), line["text"].as_str().unwrap().to_owned()));
        }
        assert!(log.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order");
        logs.push(log);
    }
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "one order everywhere");
}
