//! What operators do to accounts, on nodes in this process: how it reaches other nodes, and what it meets on its way.

use std::{sync::Arc, time::Duration};

use protocol::{
    clock::SystemEntropy,
    message::{Account, Password},
};
use serde_json::{Value, json};
use server::{
    commands::{Obeyed, Order, obey},
    node::NodeConfig,
    password::{Argon2id, Passwords as _},
    relay::{Relay, local::Hub, none::NoRelay},
    store::{NewUser, Store, memory::MemoryStore},
};
use tokio::sync::mpsc;

use super::ends_as;
use crate::harness::{TestNode, Wire, mid};

/// Two nodes of one store. They have a relay and as good as no sweep, or a sweep and no relay.
async fn two_nodes(related: bool) -> [TestNode; 2] {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
    let hub = Arc::new(Hub::default());
    let node = async || {
        let (local, events) = hub.join();
        let relay: Arc<dyn Relay> = if related { Arc::new(local) } else { Arc::new(NoRelay) };
        let events = if related { events } else { mpsc::channel(1).1 };
        let sweep_interval = if related { Duration::from_secs(3600) } else { Duration::from_millis(100) };
        let config = NodeConfig { sweep_interval, ..NodeConfig::default() };
        TestNode::start(Arc::clone(&store), relay, events, config).await
    };
    [node().await, node().await]
}

async fn order(node: &TestNode, account: &str, order: Order<'_>) -> Obeyed {
    obey(node.running.node(), account, order).await.unwrap()
}

async fn hash(node: &TestNode, account: &str) -> String {
    let account = node.running.node().store.account(&Account::Name(account.into())).await.unwrap();
    account.unwrap().password_hash
}

/// The code with which a login is refused, or "ok".
async fn login(node: &TestNode, password: &str) -> String {
    let mut wire = node.connect().await;
    let id = wire.ask(json!({"op": "login", "account": "alice", "password": password})).await;
    wire.reply(id).await["error"]["code"].as_str().unwrap_or("ok").to_owned()
}

async fn open(node: &TestNode) -> (Wire, Value) {
    let mut wire = node.connect().await;
    let token = wire.login("alice").await["token"].clone();
    (wire, token)
}

/// SPEC.md, sections 4.1 and 10: on every node, by a hint or by the sweep.
#[tokio::test]
async fn every_order_reaches_every_node() {
    for related in [true, false] {
        let nodes = two_nodes(related).await;
        let (_, first) = nodes[0].user("alice").await;
        drop(first);
        let password = Password("alice".into());
        for (at, wanted) in [Order::Kick, Order::SetPassword(&password), Order::Ban].into_iter().enumerate() {
            let (here, here_token) = open(&nodes[0]).await;
            let (there, there_token) = open(&nodes[1]).await;
            let done = order(&nodes[0], "alice", wanted).await;
            assert_eq!(done.seq.map(|seq| seq.0), Some(at as u64 + 1));
            ends_as(here, "revoked").await;
            ends_as(there, "revoked").await;
            for node in &nodes {
                for token in [&here_token, &there_token] {
                    let mut wire = node.connect().await;
                    let resume = json!({"op": "resume", "token": token, "cursors": {}});
                    assert_eq!(wire.error(resume).await, "bad_token");
                }
            }
        }
        assert_eq!(login(&nodes[1], "alice").await, "banned");
        order(&nodes[1], "alice", Order::Unban).await;
        assert_eq!(login(&nodes[0], "alice").await, "ok");
    }
}

/// A login brings a hash's costs up to date: not of one that is banned, since that would lift the ban.
#[tokio::test]
async fn costs_of_a_banned_account_stay() {
    let node = TestNode::in_memory().await;
    let passwords = Argon2id::new(16, 2, 1, Arc::new(SystemEntropy)).unwrap();
    let password_hash = passwords.hash("alice").await.unwrap();
    let new = NewUser {
        mid: protocol::ClientMsgId([7; 16]),
        name: "alice".into(),
        name_key: "alice".into(),
        password_hash: password_hash.clone(),
        at: 1,
    };
    node.running.node().store.register(&new).await.unwrap();
    assert!(order(&node, "alice", Order::Ban).await.banned);
    for password in ["alice", "wrong", "alice"] {
        let expected = if password == "alice" { "banned" } else { "bad_credentials" };
        assert_eq!(login(&node, password).await, expected);
    }
    assert_eq!(hash(&node, "alice").await, format!("!{password_hash}"));
    // Nor can the account be had by registering it once more; a repetition is answered as ever.
    let register = json!({"op": "register", "mid": "07".repeat(16), "name": "alice", "password": "alice"});
    assert_eq!(node.connect().await.ok(register).await["user"], 1);
    assert_eq!(hash(&node, "alice").await, format!("!{password_hash}"));
    order(&node, "1", Order::Unban).await;
    assert_eq!(hash(&node, "alice").await, password_hash);
    assert_eq!(login(&node, "alice").await, "ok");
    assert_ne!(hash(&node, "alice").await, password_hash, "brought up to date now");
}

/// Orders of operators and changes by the user, at once: each has one place among the others, and what they come to is one of those.
#[tokio::test]
async fn orders_and_changes_at_once() {
    for round in 0..20 {
        let nodes = two_nodes(true).await;
        let (_, mut alice) = nodes[0].user("alice").await;
        let new = Password("operators'".into());
        let own = json!({"op": "passwd", "mid": mid(), "old": "alice", "new": "own"});
        let (first, second) = (nodes[0].running.node(), nodes[1].running.node());
        let id = alice.ask(own).await;
        let (set, banned) = match round % 2 {
            0 => tokio::join!(
                obey(first, "alice", Order::SetPassword(&new)),
                obey(second, "alice", Order::Ban)
            ),
            _ => tokio::join!(
                obey(second, "alice", Order::SetPassword(&new)),
                obey(first, "alice", Order::Ban)
            ),
        };
        assert!(set.is_ok() && banned.is_ok(), "{set:?} {banned:?}");
        // Whether the user came first or was too late; the session ends either way.
        let reply =
            alice.find("the answer or the end", |line| line["id"] == id || line["push"] == "closing").await;
        let code = reply["error"]["code"].as_str().unwrap_or("ok").to_owned();
        assert!(["ok", "bad_token", "bad_credentials", "overloaded"].contains(&code.as_str()), "{reply}");
        assert_eq!(login(&nodes[1], "operators'").await, "banned", "whichever came first, the ban stays");
        for password in ["alice", "own"] {
            assert_eq!(login(&nodes[0], password).await, "bad_credentials");
        }
        order(&nodes[0], "alice", Order::Unban).await;
        assert_eq!(login(&nodes[1], "operators'").await, "ok");
    }
}

/// A session that waits for a slow reader, and one that is being resumed, are asked as well, and hold nobody up.
#[tokio::test]
async fn sessions_say_where_they_stand() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    alice.say("d1-2", "hello").await;
    bob.message("d1-2").await;
    bob.ok(json!({"op": "ack", "cursors": {"d1-2": 1}})).await;
    let inner = node.running.node();
    let conv = "d1-2".parse().unwrap();
    let bobs = &inner.registry.of_user(protocol::UserId::new(2).unwrap())[0];
    let standing = bobs.inquire(Some(conv)).await.unwrap();
    assert_eq!(standing.at.map(|at| (at.0.0, at.1.0)), Some((2, 1)), "pushed, and confirmed");
    assert_eq!((standing.conversations, standing.behind), (2, 0));
    assert_eq!(bobs.inquire(Some("g9".parse().unwrap())).await.unwrap().at, None);
    // What nobody takes is bounded.
    let lonely = server::outbox::Outbox::new(protocol::UserId::new(9).unwrap());
    let asked: Vec<_> = (0..100).map(|_| lonely.inquire(None)).collect();
    let taken = lonely.take().inquiries;
    assert!(taken.len() < 20, "{}", taken.len());
    drop((asked, taken));
}
