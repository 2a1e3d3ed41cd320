//! What is logged while a request is carried out says for whom: the spans of connection, session and command, in the JSON lines of the real
//! binary. (Subscribers of several tests in one process disturb each other.)

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::{Wire, mid},
    process::Server,
};

/// The lines of a node on which alice registers, logs in, and asks for her friends.
async fn lines(filter: &str) -> Vec<Value> {
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path(), 0, &["--log", filter]).await;
    let mut wire = Wire::connect(&server.address).await;
    wire.ok(json!({"op": "register", "mid": mid(), "name": "alice", "password": "a secret"})).await;
    wire.ok(json!({"op": "login", "account": "alice", "password": "a secret"})).await;
    wire.ok(json!({"op": "friends"})).await;
    let (_, log) = server.signal("-TERM").await;
    assert!(log.iter().all(|line| !line.contains("a secret")));
    log.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn what_is_logged_says_for_whom() {
    let lines = lines("debug,server::connection=trace").await;
    let taken = |op: &str| {
        let of_op = |line: &&Value| line["fields"]["message"] == "taken" && line["span"]["op"] == op;
        lines.iter().find(of_op).unwrap_or_else(|| panic!("{op}"))["spans"].clone()
    };
    let names = |spans: &Value| -> Vec<String> {
        spans.as_array().unwrap().iter().map(|span| span["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&taken("login")), ["connection", "command"]);
    let spans = taken("friends");
    assert_eq!(names(&spans), ["connection", "session", "command"]);
    assert!(spans[0]["id"].is_u64() && spans[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(spans[1]["user"], "1");
}

/// By default there are no spans: they cost nothing where most is sent.
#[tokio::test]
async fn by_default_spans_are_not_made() {
    let lines = lines("info").await;
    let bare = |line: &Value| line["spans"].as_array().is_none_or(Vec::is_empty);
    assert!(!lines.is_empty() && lines.iter().all(bare));
}
