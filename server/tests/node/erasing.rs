//! What a message's end means: retention, and erased accounts. SPEC.md, section 5.1.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use protocol::{Clock, UnixMillis};
use serde_json::{Value, json};
use server::{
    erasure::{self, Erasure, ErasureError, erase},
    node::NodeConfig,
    relay::{Relay, local::Hub, none::NoRelay},
    retention::Retention,
    store::{Store, memory::MemoryStore},
};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{process::Command, sync::mpsc, time::timeout};

use crate::{
    harness::{PATIENCE, TestNode, Wire, mid},
    process::Server,
};

const DAY: i64 = 24 * 3600 * 1000;

/// The store's own time, as a test has it.
#[derive(Default)]
struct StoreTime(AtomicI64);

impl Clock for StoreTime {
    fn now(&self) -> UnixMillis {
        self.0.load(Ordering::Relaxed)
    }
}

/// Waits for what happens by itself.
async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}, in time"));
}

fn login(account: &str, password: &str) -> Value {
    json!({"op": "login", "account": account, "password": password})
}

async fn entry(wire: &mut Wire, conv: &str, seq: u64) -> Value {
    let wanted = |line: &Value| line["push"] == "entry" && line["conv"] == conv && line["seq"] == seq;
    wire.find(&format!("{conv}, {seq}"), wanted).await
}

/// Messages that are too old are erased while a node works: who was away, who resumes and who looks back finds them erased at their places; who is
/// there is not disturbed; and what was sent stays sent.
#[tokio::test]
async fn old_messages_are_erased() {
    let time = Arc::new(StoreTime::default());
    time.0.store(100 * DAY, Ordering::Relaxed);
    let store: Arc<dyn Store> =
        Arc::new(MemoryStore::with_clock([1; 16], Arc::clone(&time) as Arc<dyn Clock>));
    let retention = Retention { every: Duration::from_millis(20), ..Retention::days(30) };
    let config = NodeConfig {
        retention: Some(retention),
        sweep_interval: Duration::from_millis(20),
        ..NodeConfig::default()
    };
    let (relay, events) = Arc::new(Hub::default()).join();
    let node = TestNode::start(store, Arc::new(relay), events, config).await;
    let shared = Arc::clone(node.running.node());

    let ((_, mut alice), (_, bob)) = node.friends().await;
    drop(bob);
    let old = json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": "an old secret"});
    assert_eq!(alice.ok(old.clone()).await["seq"], 2);
    let sent = entry(&mut alice, "d1-2", 2).await;
    time.0.fetch_add(20 * DAY, Ordering::Relaxed);
    alice.say("d1-2", "younger").await;
    time.0.fetch_add(11 * DAY, Ordering::Relaxed);
    until("one message is erased", || shared.metrics.expired.get() == 1).await;
    // What happened more than a few looks of the sweep ago is not in memory.
    until("the recent entries are let go of", || shared.feeds.recent_bytes() == 0).await;

    let mut erased = sent.clone();
    erased.as_object_mut().unwrap().remove("text");
    erased["kind"] = json!("erased");
    let (mut bob, token) = {
        let mut bob = node.connect().await;
        let token = bob.ok(login("bob", "bob")).await["token"].clone();
        (bob, token)
    };
    assert_eq!(entry(&mut bob, "d1-2", 1).await["kind"], "befriended");
    assert_eq!(entry(&mut bob, "d1-2", 2).await, erased);
    assert_eq!(entry(&mut bob, "d1-2", 3).await["text"], "younger");
    let mut resumed = node.connect().await;
    resumed.ok(json!({"op": "resume", "token": token, "cursors": {"d1-2": 1}})).await;
    assert_eq!(entry(&mut resumed, "d1-2", 2).await, erased);

    let history = alice.ok(json!({"op": "history", "conv": "d1-2"})).await;
    let kinds: Vec<_> = history["entries"].as_array().unwrap().iter().map(|entry| &entry["kind"]).collect();
    assert_eq!(kinds, ["befriended", "erased", "message"]);
    assert!(!history.to_string().contains("secret"), "{history}");
    // A repetition is answered as ever, and what it says can no longer be compared.
    assert_eq!(alice.ok(old.clone()).await["seq"], 2);
    let other = json!({"op": "send", "mid": old["mid"], "conv": "d1-2", "text": "something else"});
    assert_eq!(alice.ok(other).await["seq"], 2);
    assert_eq!(alice.say("d1-2", "goes on").await, 4);
    let so_far = alice.so_far().await;
    let own = so_far.iter().filter(|line| line["push"] == "entry" && line["conv"] == "d1-2");
    let seqs: Vec<_> = own.map(|line| &line["seq"]).collect();
    assert_eq!(seqs, [1, 3, 4], "the second was seen above, and nothing came twice");
    // The younger one has its turn, too.
    time.0.fetch_add(20 * DAY, Ordering::Relaxed);
    until("another is erased", || shared.metrics.expired.get() == 2).await;
}

/// Two nodes of one system, which share a relay or have none.
async fn two_nodes(related: bool) -> [TestNode; 2] {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
    let hub = Arc::new(Hub::default());
    let node = async || {
        let (local, events) = hub.join();
        let relay: Arc<dyn Relay> = if related { Arc::new(local) } else { Arc::new(NoRelay) };
        let events = if related { events } else { mpsc::channel(1).1 };
        let config = NodeConfig { sweep_interval: Duration::from_millis(50), ..NodeConfig::default() };
        TestNode::start(Arc::clone(&store), relay, events, config).await
    };
    [node().await, node().await]
}

async fn erase_on(node: &TestNode, account: &str) -> Result<Erasure, ErasureError> {
    erase(node.running.node(), &erasure::account(account).unwrap()).await
}

async fn history(wire: &mut Wire, conv: &str) -> Vec<Value> {
    let page = wire.ok(json!({"op": "history", "conv": conv, "limit": 100})).await;
    page["entries"].as_array().unwrap().clone()
}

fn kinds(entries: &[Value]) -> Vec<String> {
    entries.iter().map(|entry| format!("{} {}", entry["from"], entry["kind"].as_str().unwrap())).collect()
}

async fn revoked(wire: &mut Wire) {
    let closing = wire.find("the end", |line| line["push"] == "closing").await;
    assert_eq!(closing["code"], "revoked");
}

/// An account is erased on one node: its sessions end on all of them, it leaves friends and groups, and nobody finds its texts or its name any more,
/// while every log keeps its numbers.
async fn an_account_is_erased_everywhere(related: bool) {
    let [here, there] = two_nodes(related).await;
    let (_, mut alice) = here.user("alice").await;
    let (_, mut bob) = there.user("bob").await;
    let (_, mut carol) = here.user("carol").await;
    let (_, mut dave) = there.user("dave").await;
    let mut elsewhere = there.connect().await;
    let token = elsewhere.ok(login("alice", "alice")).await["token"].clone();

    alice.ok(json!({"op": "befriend", "mid": mid(), "user": 2})).await;
    let first = json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": "mine"});
    alice.ok(first.clone()).await;
    bob.message("d1-2").await;
    bob.say("d1-2", "theirs").await;
    alice.ok(json!({"op": "block", "mid": mid(), "user": 4})).await;
    carol.ok(json!({"op": "create_group", "mid": mid(), "name": "carols", "description": ""})).await;
    alice.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    alice.say("g1", "mine, too").await;
    carol.ok(json!({"op": "remove_member", "mid": mid(), "group": 1, "user": 1})).await;
    alice.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    carol.say("g1", "theirs as well").await;
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "own", "description": ""})).await;
    dave.ok(json!({"op": "join", "mid": mid(), "group": 2})).await;

    let done = erase_on(&here, "Alice").await.unwrap();
    let Erasure { user, messages, friendships, blocks, groups, names } = done;
    assert_eq!((user.number(), messages, friendships, blocks, groups, names), (1, 2, 1, 1, 2, 2));
    revoked(&mut alice).await;
    revoked(&mut elsewhere).await;
    for (account, password) in [("alice", "alice"), ("1", "alice"), ("erased-1", "alice"), ("1", "")] {
        let mut wire = there.connect().await;
        assert_eq!(wire.error(login(account, password)).await, "bad_credentials", "{account}");
    }
    let resume = json!({"op": "resume", "token": token, "cursors": {}});
    assert_eq!(there.connect().await.error(resume).await, "bad_token");

    // Those who are there learn it from the logs.
    let end = bob.find("the end of the friendship", |line| line["kind"] == "unfriended").await;
    assert_eq!((&end["from"], &end["name"]), (&json!(1), &json!("erased-1")));
    let end = carol.find("the end of the membership", |line| line["kind"] == "left").await;
    assert_eq!((&end["conv"], &end["name"]), (&json!("g1"), &json!("erased-1")));
    let end = dave.find("the end of the group", |line| line["kind"] == "deleted").await;
    assert_eq!((&end["conv"], &end["name"]), (&json!("g2"), &json!("erased-1")));

    // Every log has its numbers, and nothing of the account but that.
    let direct = history(&mut bob, "d1-2").await;
    assert_eq!(kinds(&direct), ["1 befriended", "1 erased", "2 message", "1 unfriended"]);
    assert_eq!(direct[1]["mid"], first["mid"]);
    let group = history(&mut carol, "g1").await;
    let expected = ["3 created", "1 joined", "1 erased", "3 removed", "1 joined", "3 message", "1 left"];
    assert_eq!(kinds(&group), expected);
    assert_eq!(group[3]["user_name"], "erased-1");
    let notices = history(&mut bob, "u2").await;
    assert_eq!((&notices[0]["opened"], &notices[0]["title"]), (&json!("d1-2"), &json!("erased-1")));
    for entries in [direct, group, notices, history(&mut dave, "g2").await] {
        let text = Value::from(entries).to_string();
        assert!(!text.contains("alice") && !text.contains("mine"), "{text}");
    }

    // Nobody comes back to life by the name, the number, or a friend.
    let register = |name: &str| json!({"op": "register", "mid": mid(), "name": name, "password": "x"});
    for name in ["alice", "ALICE", "ａlice"] {
        assert_eq!(there.connect().await.error(register(name)).await, "name_taken", "{name}");
    }
    assert_eq!(there.connect().await.error(register("erased-77")).await, "bad_name");
    assert_eq!(bob.error(json!({"op": "befriend", "mid": mid(), "user": 1})).await, "no_such_user");
    bob.ok(json!({"op": "befriend", "mid": mid(), "user": 3})).await;

    // To do it again does nothing more.
    let again = erase_on(&there, "1").await.unwrap();
    let nothing = Erasure { messages: 0, friendships: 0, blocks: 0, groups: 0, names: 0, ..done };
    assert_eq!(again, nothing);
    assert_eq!(history(&mut bob, "d1-2").await.len(), 4);
    assert!(matches!(erase_on(&there, "alice").await, Err(ErasureError::NoSuchAccount)));
}

#[tokio::test]
async fn an_account_is_erased_on_all_nodes() {
    an_account_is_erased_everywhere(true).await;
}

/// The relay is a hint: without it the sweep tells.
#[tokio::test]
async fn an_account_is_erased_on_all_nodes_without_a_relay() {
    an_account_is_erased_everywhere(false).await;
}

/// Runs the binary to its end: exit code, standard output and error.
async fn chatserver(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chatserver")).args(arguments).output();
    let output = timeout(PATIENCE, output).await.expect("an end in time").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Whether a database's files hold a text anywhere, be it in what was deleted.
fn holds(folder: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

/// The commands, on the real binary and a database that its node has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_erase() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("chat.db").display());
    let server = Server::start(folder.path(), 0, &["--retention", "3650"]).await;
    let user = async |name: &str| {
        let mut wire = Wire::connect(&server.address).await;
        wire.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
        wire.login(name).await;
        wire
    };
    let (mut alice, mut bob) = (user("alice-in-chains").await, user("bob").await);
    alice.ok(json!({"op": "befriend", "mid": mid(), "user": 2})).await;
    for text in ["rooster-and-down", "them bones"] {
        alice.say("d1-2", text).await;
    }
    bob.say("d1-2", "old man").await;
    let (code, _, error) = chatserver(&["erase-user", "--database", &database, "alice-in-chains"]).await;
    assert!(code == 1 && error.contains("in use by another chatserver"), "{error}");
    let (status, _) = server.signal("-TERM").await;
    assert!(status.success() && holds(folder.path(), "rooster-and-down"));

    // As if the first message had been sent 40 days ago.
    let path = SqliteConnectOptions::new().filename(folder.path().join("chat.db"));
    let mut direct = SqliteConnection::connect_with(&path).await.unwrap();
    let sql = "update entry set committed_at = committed_at - 40 * 86400000 where body = 'rooster-and-down'";
    assert_eq!(sqlx::query(sql).execute(&mut direct).await.unwrap().rows_affected(), 1);
    direct.close().await.unwrap();
    let expire = async |age: &[&str]| {
        let mut words = vec!["expire", "--database", &database];
        words.extend(age);
        chatserver(&words).await
    };
    assert_eq!(expire(&["--days", "41"]).await.1, "messages erased: 0\n");
    assert_eq!(expire(&["--days", "30"]).await.1, "messages erased: 1\n");
    assert_eq!(expire(&["--days", "30"]).await.1, "messages erased: 0\n", "it goes on from there");
    assert!(!holds(folder.path(), "rooster-and-down") && holds(folder.path(), "them bones"));
    let (code, _, error) = expire(&["--before", "2999-01-01"]).await;
    assert!(code == 1 && error.contains("last 24 hours"), "{error}");
    for wrong in [&[][..], &["--days", "0"], &["--before", "2026-02-30"]] {
        assert_eq!(expire(wrong).await.0, 2, "{wrong:?}");
    }

    let erase = async |account: &str| chatserver(&["erase-user", "--database", &database, account]).await;
    let (code, _, error) = erase("nobody").await;
    assert!(code == 1 && error.contains("there is no such account"), "{error}");
    let (code, said, error) = erase("alice-in-chains").await;
    let expected = "account 1 is erased; messages: 1, friendships ended: 1, blocks lifted: 0, \
                    groups left or deleted: 0, names taken out of others' entries: 1\n";
    assert_eq!((code, said.as_str()), (0, expected), "{error}");
    assert!(!holds(folder.path(), "them bones") && !holds(folder.path(), "alice-in-chains"));

    let server = Server::start(folder.path(), 0, &[]).await;
    let mut bob = Wire::connect(&server.address).await;
    bob.login("bob").await;
    let entries = history(&mut bob, "d1-2").await;
    assert_eq!(kinds(&entries), ["1 befriended", "1 erased", "1 erased", "2 message", "1 unfriended"]);
    assert!(entries.iter().all(|entry| entry["name"] == if entry["from"] == 1 { "erased-1" } else { "bob" }));
}
