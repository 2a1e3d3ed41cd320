//! Sessions and passwords: SPEC.md, section 4.1.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use protocol::{clock::SystemEntropy, message::Account};
use serde_json::{Value, json};
use server::{
    node::NodeConfig,
    password::{Argon2id, HashError, Passwords},
    relay::{Relay, local::Hub, none::NoRelay},
    store::{NewUser, Store, memory::MemoryStore},
};
use tokio::sync::mpsc;

use crate::harness::{TestNode, Wire, mid};

/// Two nodes of one system, which share a relay or have none.
async fn two_nodes(related: bool) -> [TestNode; 2] {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
    let hub = Arc::new(Hub::default());
    let node = async || {
        let (local, events) = hub.join();
        let relay: Arc<dyn Relay> = if related { Arc::new(local) } else { Arc::new(NoRelay) };
        let events = if related { events } else { mpsc::channel(1).1 };
        let config = NodeConfig { sweep_interval: Duration::from_millis(100), ..NodeConfig::default() };
        TestNode::start(Arc::clone(&store), relay, events, config).await
    };
    [node().await, node().await]
}

fn passwd(old: &str, new: &str) -> Value {
    json!({"op": "passwd", "mid": mid(), "old": old, "new": new})
}

fn login(password: &str) -> Value {
    json!({"op": "login", "account": "alice", "password": password})
}

/// The token of a session.
async fn open(node: &TestNode, password: &str) -> (Wire, Value) {
    let mut wire = node.connect().await;
    let token = wire.ok(login(password)).await["token"].clone();
    wire.find("caught_up", |line| line["push"] == "caught_up").await;
    (wire, token)
}

async fn ends_as_revoked(mut wire: Wire) {
    let closing = wire.find("the end", |line| line["push"] == "closing").await;
    assert_eq!(closing["code"], "revoked");
    assert!(wire.try_line().await.is_none());
}

async fn resume(node: &TestNode, token: &Value) -> Result<Wire, String> {
    let mut wire = node.connect().await;
    let id = wire.ask(json!({"op": "resume", "token": token, "cursors": {}})).await;
    let reply = wire.reply(id).await;
    if reply["ok"].is_object() { Ok(wire) } else { Err(reply["error"]["code"].as_str().unwrap().into()) }
}

async fn a_password_change_ends_the_others(related: bool) {
    let [here, there] = two_nodes(related).await;
    let (_, mut alice) = here.user("alice").await;
    let (_, mut bob) = there.user("bob").await;
    let (beside, beside_token) = open(&here, "alice").await;
    let (elsewhere, elsewhere_token) = open(&there, "alice").await;
    let (left, left_token) = open(&there, "alice").await;
    drop(left);
    let (mut own, own_token) = open(&here, "alice").await;

    let seq = own.ok(passwd("alice", "new")).await["seq"].clone();
    let entry = own.find("the notice", |line| line["kind"] == "password_changed").await;
    assert_eq!((&entry["conv"], &entry["seq"]), (&json!("u1"), &seq));
    ends_as_revoked(beside).await;
    ends_as_revoked(elsewhere).await;
    let closing = alice.find("the end", |line| line["push"] == "closing").await;
    assert_eq!(closing["code"], "revoked");
    for token in [&beside_token, &elsewhere_token, &left_token] {
        for node in [&here, &there] {
            assert_eq!(resume(node, token).await.err().as_deref(), Some("bad_token"));
        }
    }
    // The session that changed it goes on, here and anywhere, and others do not notice.
    own.ok(json!({"op": "ping"})).await;
    let mut resumed = resume(&there, &own_token).await.unwrap();
    resumed.find("caught_up", |line| line["push"] == "caught_up").await;
    resumed.ok(json!({"op": "friends"})).await;
    bob.ok(json!({"op": "ping"})).await;
    assert_eq!(there.connect().await.error(login("alice")).await, "bad_credentials");
    open(&there, "new").await;
}

#[tokio::test]
async fn a_password_change_ends_the_other_sessions() {
    a_password_change_ends_the_others(true).await;
}

/// The relay is a hint: without it the sweep tells.
#[tokio::test]
async fn a_password_change_ends_the_other_sessions_without_a_relay() {
    a_password_change_ends_the_others(false).await;
}

#[tokio::test]
async fn a_change_has_definite_errors_and_one_effect() {
    let [here, there] = two_nodes(true).await;
    let (_, mut alice) = here.user("alice").await;
    assert_eq!(alice.error(passwd("wrong", "new")).await, "bad_credentials");
    assert_eq!(alice.error(passwd("alice", "")).await, "bad_password");
    assert_eq!(alice.error(passwd("alice", &"x".repeat(1025))).await, "bad_password");
    assert_eq!(here.connect().await.error(passwd("alice", "new")).await, "not_logged_in");
    let (mut own, token) = open(&there, "alice").await;
    let change = passwd("alice", "new");
    let first = own.ok(change.clone()).await;
    assert_eq!(own.ok(change.clone()).await, first, "on the same connection");
    drop(own);
    let mut again = resume(&here, &token).await.unwrap();
    assert_eq!(again.ok(change.clone()).await, first, "on another node");
    // The message id is used in the user's notices.
    let mut group = json!({"op": "create_group", "name": "x", "description": ""});
    group["mid"] = mid().into();
    again.ok(group.clone()).await;
    let mut reused = passwd("new", "newer");
    reused["mid"] = group["mid"].clone();
    assert_eq!(again.error(reused).await, "id_reused");
    assert_eq!(again.ok(passwd("new", "newer")).await["seq"], first["seq"].as_u64().unwrap() + 2);
    open(&here, "newer").await;
}

/// Of two changes at once one comes first; the other one's session has then ended.
#[tokio::test]
async fn of_two_changes_at_once_one_wins() {
    let [here, there] = two_nodes(true).await;
    drop(here.user("alice").await);
    let ((mut a, _), (mut b, _)) = (open(&here, "alice").await, open(&there, "alice").await);
    let (one, two) = tokio::join!(a.ask(passwd("alice", "one")), b.ask(passwd("alice", "two")));
    let mut won = Vec::new();
    for (wire, id, password) in [(&mut a, one, "one"), (&mut b, two, "two")] {
        match wire.find("an answer or the end", |line| line["id"] == id || line["push"] == "closing").await {
            line if line["ok"].is_object() => won.push(password),
            line if line["push"] == "closing" => assert_eq!(line["code"], "revoked"),
            line => {
                assert!(["bad_token", "bad_credentials"].contains(&line["error"]["code"].as_str().unwrap()));
            }
        }
    }
    assert_eq!(won.len(), 1, "{won:?}");
    open(&here, won[0]).await;
}

#[tokio::test]
async fn logout_revokes_the_token_on_every_node() {
    let [here, there] = two_nodes(true).await;
    drop(here.user("alice").await);
    let (mut first, first_token) = open(&here, "alice").await;
    let (_second, second_token) = open(&here, "alice").await;
    first.ok(json!({"op": "logout"})).await;
    for node in [&here, &there] {
        assert_eq!(resume(node, &first_token).await.err().as_deref(), Some("bad_token"));
        resume(node, &second_token).await.expect("another session's token stays");
    }
}

/// Counts what is computed.
struct Counted {
    inner: Argon2id,
    verified: AtomicUsize,
    hashed: AtomicUsize,
}

#[async_trait]
impl Passwords for Counted {
    async fn hash(&self, password: &str) -> Result<String, HashError> {
        self.hashed.fetch_add(1, Ordering::Relaxed);
        self.inner.hash(password).await
    }

    async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, HashError> {
        self.verified.fetch_add(1, Ordering::Relaxed);
        self.inner.verify(password, hash).await
    }

    fn is_outdated(&self, hash: &str) -> bool {
        self.inner.is_outdated(hash)
    }
}

async fn counting(store: Arc<dyn Store>) -> (TestNode, Arc<Counted>) {
    let inner = Argon2id::new(16, 2, 2, Arc::new(SystemEntropy)).unwrap();
    let passwords = Arc::new(Counted { inner, verified: AtomicUsize::new(0), hashed: AtomicUsize::new(0) });
    let (relay, events) = Arc::new(Hub::default()).join();
    let config = NodeConfig::default();
    let node = TestNode::start_with(store, Arc::new(relay), events, config, passwords.clone()).await;
    (node, passwords)
}

/// A login that fails computes one hash, whether the account exists or could exist; a resume computes none.
#[tokio::test]
async fn time_does_not_tell_whether_a_user_exists() {
    let (node, passwords) = counting(Arc::new(MemoryStore::new([1; 16]))).await;
    let (_, _alice) = node.user("alice").await;
    let (_wire, token) = open(&node, "alice").await;
    for account in ["alice", "1", "nobody", "99", "not\u{7} a name", ""] {
        let before = passwords.verified.load(Ordering::Relaxed);
        let request = json!({"op": "login", "account": account, "password": "wrong"});
        assert_eq!(node.connect().await.error(request).await, "bad_credentials");
        assert_eq!(passwords.verified.load(Ordering::Relaxed), before + 1, "{account:?}");
    }
    let before = (passwords.verified.load(Ordering::Relaxed), passwords.hashed.load(Ordering::Relaxed));
    resume(&node, &token).await.unwrap();
    assert_eq!(
        (passwords.verified.load(Ordering::Relaxed), passwords.hashed.load(Ordering::Relaxed)),
        before,
        "no hashing storm when sessions move"
    );
}

/// A hash that was made at other costs is replaced when the password is known, once.
#[tokio::test]
async fn hashes_are_brought_up_to_date_at_login() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
    let old = Argon2id::new(8, 1, 1, Arc::new(SystemEntropy)).unwrap().hash("alice").await.unwrap();
    let new = NewUser {
        mid: protocol::ClientMsgId([9; 16]),
        name: "alice".into(),
        name_key: "alice".into(),
        password_hash: old.clone(),
        at: 1,
    };
    store.register(&new).await.unwrap();
    let (node, passwords) = counting(Arc::clone(&store)).await;
    let hash = async || {
        let account = Account::Number(protocol::UserId::new(1).unwrap());
        store.account(&account).await.unwrap().unwrap().password_hash
    };
    assert_eq!(node.connect().await.error(login("wrong")).await, "bad_credentials");
    assert_eq!(hash().await, old, "only who knows the password can bring it up to date");
    let (mut wire, token) = open(&node, "alice").await;
    let better = hash().await;
    assert!(better.starts_with("$argon2id$v=19$m=16,t=2,p=1$"), "{better}");
    open(&node, "alice").await;
    assert_eq!((hash().await, passwords.hashed.load(Ordering::Relaxed)), (better, 1));
    wire.ok(json!({"op": "ping"})).await;
    resume(&node, &token).await.expect("it is the same password: no session ended");
}
