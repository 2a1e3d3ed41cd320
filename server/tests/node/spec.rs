//! SPEC.md is the law: its transcripts are played against a node, and its tables are compared with the code.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use protocol::ErrorCode;
use serde_json::Value;
use server::store::{Store, sqlite::SqliteStore};

use crate::harness::{TestNode, Wire};

const SPEC: &str = include_str!("../../../SPEC.md");

/// The fenced blocks with this language, and the line in which each begins.
fn blocks(language: &str) -> Vec<(usize, Vec<&'static str>)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, Vec<&str>)> = None;
    for (number, line) in SPEC.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(name), None) => {
                open = Some((if name == language { number + 2 } else { 0 }, Vec::new()));
            }
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    blocks.retain(|(number, _)| *number > 0);
    blocks
}

/// Whether a line is what was written: `"*"` stands for anything, `"$name"` for what it was first found to be.
fn matches(expected: &Value, found: &Value, names: &mut BTreeMap<String, Value>) -> bool {
    match (expected, found) {
        (Value::String(text), _) if text == "*" => true,
        (Value::String(text), _) if text.starts_with('$') => {
            names.entry(text.clone()).or_insert_with(|| found.clone()) == found
        }
        (Value::Object(expected), Value::Object(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .all(|(key, value)| found.get(key).is_some_and(|found| matches(value, found, names)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| matches(e, f, names))
        }
        _ => expected == found,
    }
}

/// Plays every transcript, in order, on the store given. Every line that the text shows has to come, and no reply that it does not show.
async fn play(store: Arc<dyn Store>) {
    let node = TestNode::alone(store).await;
    let mut connections: BTreeMap<char, Wire> = BTreeMap::new();
    let mut names = BTreeMap::new();
    let mut played = 0;
    for (start, lines) in blocks("chat") {
        for (offset, line) in lines.iter().enumerate() {
            let place = format!("SPEC.md:{}: {line}", start + offset);
            let (who, direction) = (line.chars().next().expect(&place), &line[1..2]);
            let text = &line[3..];
            let wire = match connections.entry(who) {
                Entry::Occupied(wire) => wire.into_mut(),
                Entry::Vacant(place) => place.insert(Wire::connect(&node.address).await),
            };
            if direction == ">" {
                let text = names.iter().fold(text.to_owned(), |text, (name, value): (&String, &Value)| {
                    text.replace(&format!("\"{name}\""), &value.to_string())
                });
                wire.send(text + "\n").await;
            } else {
                assert_eq!(direction, "<", "{place}");
                let expected: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{place}: {e}"));
                let found = wire.find(&place, |found| matches(&expected, found, &mut names.clone())).await;
                assert!(matches(&expected, &found, &mut names), "{place}");
                played += 1;
            }
        }
    }
    for (who, wire) in connections {
        for line in wire.aside {
            assert!(line.get("push").is_some(), "a reply to {who} that the text does not show: {line}");
        }
    }
    assert!(played > 80, "the transcripts were found: {played} lines");
}

#[tokio::test]
async fn transcripts_on_memory() {
    play(Arc::new(server::store::memory::MemoryStore::new([1; 16]))).await;
}

#[tokio::test]
async fn transcripts_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    play(Arc::new(SqliteStore::open(&folder.path().join("chat.db")).await.unwrap())).await;
}

/// Section 7 lists every code, with the class it has.
#[test]
fn every_error_code_is_in_the_table() {
    let rows: BTreeMap<&str, bool> = SPEC
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let code = cells.next()?.strip_suffix('`')?;
            match cells.next()? {
                "yes" => Some((code, true)),
                "no" => Some((code, false)),
                _ => None,
            }
        })
        .collect();
    let codes: BTreeMap<&str, bool> =
        ErrorCode::ALL.iter().map(|code| (code.name(), code.is_definite())).collect();
    assert_eq!(rows, codes);
}

/// Every code that a client can provoke has a transcript, and so has every operation.
#[test]
fn every_code_and_operation_has_an_example() {
    let examples: String =
        blocks("chat").into_iter().flat_map(|(_, lines)| lines).collect::<Vec<_>>().join("\n");
    // What takes a fault, a flood or an operator is shown elsewhere.
    let elsewhere = [
        "banned",
        "frame_too_long",
        "limit_reached",
        "overloaded",
        "rate_limited",
        "going_away",
        "unavailable",
        "internal",
    ];
    for code in ErrorCode::ALL {
        let shown = examples.contains(&format!("\"code\":\"{code}\""));
        assert!(shown || elsewhere.contains(&code.name()), "{code} has no example");
    }
    let operations = [
        "ping",
        "register",
        "login",
        "resume",
        "cursors",
        "logout",
        "passwd",
        "ack",
        "befriend",
        "unfriend",
        "block",
        "unblock",
        "friends",
        "create_group",
        "join",
        "quit",
        "delete_group",
        "remove_member",
        "groups",
        "members",
        "send",
        "history",
    ];
    for operation in operations {
        assert!(examples.contains(&format!("\"op\":\"{operation}\"")), "{operation} has no example");
        assert!(SPEC.contains(&format!("`{operation}`")), "{operation} is not described");
    }
}

/// The error examples of section 7 are what the code would say.
#[test]
fn error_examples_are_well_formed() {
    let (_, lines) = blocks("json").pop().expect("section 7 has examples");
    for line in lines {
        let parsed = protocol::ServerLine::parse(line.as_bytes());
        let Ok(protocol::ServerLine::Reply { result: Err(error), .. }) = parsed else {
            panic!("{line}: {parsed:?}")
        };
        assert_eq!(error.definite, error.code.is_definite(), "{line}");
    }
}
