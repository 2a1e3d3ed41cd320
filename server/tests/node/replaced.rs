//! The database turns out to be another one than before: a replica that took over, a backup that was restored. SPEC.md, guarantees 1, 2 and 6.

use std::{sync::Arc, time::Duration};

use protocol::{ConversationId, Seq};
use serde_json::{Value, json};
use server::{
    node::NodeConfig,
    relay::local::Hub,
    store::{Store, memory::MemoryStore, mysql::MySqlStore},
};
use sqlx::{Connection as _, MySqlConnection};
use testcontainers::core::{CmdWaitFor, ExecCommand};

use crate::{
    docker::{available, kill},
    faults::Faulty,
    harness::{PATIENCE, TestNode, Wire, mid},
    mysql::Server,
};

/// No sweep to help.
const NEVER: Duration = Duration::from_secs(3600);

/// A node that looks for nothing unless it is told to.
async fn node_on(store: Arc<dyn Store>) -> TestNode {
    let config = NodeConfig { sweep_interval: NEVER, sweep_round: NEVER, ..NodeConfig::default() };
    let (relay, events) = Arc::new(Hub::default()).join();
    TestNode::start(store, Arc::new(relay), events, config).await
}

fn lost(after: u64) -> Value {
    json!({"push": "lost", "conv": "d1-2", "after": after})
}

/// What the users find after the log of d1-2 went back from 5 entries to 3.
async fn goes_on_from_what_there_is(node: &TestNode, alice: &mut Wire, bob: &mut Wire) {
    for wire in [&mut *alice, &mut *bob] {
        assert_eq!(wire.find("lost", |line| line["push"] == "lost").await, lost(5));
    }
    // What was shown and is gone is neither continued nor confirmed.
    bob.ok(json!({"op": "ack", "cursors": {"d1-2": 5}})).await;
    assert_eq!(alice.say("d1-2", "anew").await, 4);
    let mut late = node.connect().await;
    late.ok(json!({"op": "login", "account": "bob", "password": "bob"})).await;
    for (seq, text) in [(2, "kept 2"), (3, "kept 3"), (4, "anew")] {
        let entry =
            late.find("an entry", |l| l["push"] == "entry" && l["conv"] == "d1-2" && l["seq"] == seq).await;
        assert_eq!(entry["text"], text);
    }
    alice.say("d1-2", "and on").await;
    assert_eq!(late.find("an entry", |l| l["text"] == "and on").await["seq"], 5);
    // Whom it was shown is shown no other under the same number.
    assert!(bob.so_far().await.iter().all(|line| line["text"] != "and on" && line["text"] != "anew"));
}

#[tokio::test]
async fn what_was_read_from_another_store_is_read_anew() {
    let (before, after) = (Arc::new(MemoryStore::new([1; 16])), Arc::new(MemoryStore::new([1; 16])));
    // What both have.
    for store in [&before, &after] {
        let node = TestNode::alone(Arc::clone(store) as Arc<dyn Store>).await;
        let ((_, mut alice), _bob) = node.friends().await;
        alice.say("d1-2", "kept 2").await;
        alice.say("d1-2", "kept 3").await;
    }
    let store = Arc::new(Faulty::default());
    let quiet = Arc::clone(&store);
    let node = node_on(store.clone()).await;
    quiet.replace(before);
    let (mut alice, mut bob) = (node.connect().await, node.connect().await);
    alice.login("alice").await;
    bob.login("bob").await;
    alice.say("d1-2", "gone 4").await;
    alice.say("d1-2", "gone 5").await;
    bob.find("the last", |line| line["text"] == "gone 5").await;
    store.replace(after);
    goes_on_from_what_there_is(&node, &mut alice, &mut bob).await;
}

/// On MySQL, whose server comes back with another identity and without its log's end.
#[tokio::test]
async fn another_mysql_server_is_recognised() {
    if !available("another MySQL server", &[("CHAT_MYSQL_IMAGE", "chat-mysql:local")]).await {
        return;
    }
    let server = Server::start().await;
    let url = server.database("replaced").await;
    let store = Arc::new(MySqlStore::open(&url, PATIENCE).await.unwrap());
    let node = node_on(store.clone()).await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    for text in ["kept 2", "kept 3", "gone 4", "gone 5"] {
        alice.say("d1-2", text).await;
    }
    bob.find("the last", |line| line["text"] == "gone 5").await;
    // The same server again is no reason for anything, although all connections are gone.
    restart(&server).await;
    assert_eq!(say(&mut alice, "gone 6").await, 6);
    let conv: ConversationId = "d1-2".parse().unwrap();
    let mut admin = MySqlConnection::connect(&url).await.unwrap();
    let cut = "delete from entry where conversation = ? and seq > ?";
    sqlx::query(cut).bind(conv.key()).bind(5).execute(&mut admin).await.unwrap();
    bob.find("the last", |line| line["text"] == "gone 6").await;
    assert!(bob.so_far().await.iter().chain(&alice.so_far().await).all(|line| line["push"] != "lost"));
    // Its identity is a file, and made anew if there is none.
    sqlx::query(cut).bind(conv.key()).bind(3).execute(&mut admin).await.unwrap();
    let gone = CmdWaitFor::exit_code(0);
    let remove = ExecCommand::new(["rm", "/var/lib/mysql/auto.cnf"]).with_cmd_ready_condition(gone);
    server.container.exec(remove).await.unwrap();
    restart(&server).await;
    // Whoever finds it out, the writer's connection does so too before it writes.
    assert_eq!(say(&mut alice, "anew").await, 4);
    for wire in [&mut alice, &mut bob] {
        assert_eq!(wire.find("lost", |line| line["push"] == "lost").await, lost(6));
    }
    let entries = store.entries(conv, Seq::ZERO, 100, 1 << 20).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let mut late = node.connect().await;
    late.ok(json!({"op": "login", "account": "bob", "password": "bob"})).await;
    late.find("the new entry", |line| line["text"] == "anew" && line["seq"] == 4).await;
}

async fn restart(server: &Server) {
    kill(&server.container).await;
    server.container.start().await.unwrap();
}

/// Sends a message until the database is there.
async fn say(wire: &mut Wire, text: &str) -> u64 {
    let send = json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": text});
    for _ in 0..10 {
        let id = wire.ask(send.clone()).await;
        let reply = wire.reply(id).await;
        if let Some(seq) = reply["ok"]["seq"].as_u64() {
            return seq;
        }
        assert_eq!(reply["error"]["code"], "unavailable", "{reply}");
    }
    panic!("the database does not come back");
}
