//! Each phase of a connection: before the PROXY header, while logging in, while resuming, while the node drains.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use super::{Cases, Siege, answer, no_fault, try_answer};
use crate::harness::{PATIENCE, Wire, mid};

/// What a balancer might send.
pub(super) const PROXY: &[&str] = &[
    "none, but a request",
    "an unknown version",
    "an unknown family",
    "an address that is none",
    "a port that is none",
    "too few words",
    "no end of the line",
    "a line feed alone",
    "version 2, another version",
    "version 2, too short for its addresses",
    "version 2, 65,535 bytes",
    "version 2, cut off",
    "a TLS greeting",
    "nothing",
    "half a header",
    "byte by byte",
    "a second header",
    "a client that is not told",
    "version 2, of the balancer itself",
];

/// The first bytes of a connection from a balancer: whatever is wrong with them ends it, without a word.
#[tokio::test]
async fn bad_proxy_headers_end_the_connection() {
    let header = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    let siege = Siege::with_header(&["--proxy-protocol"], header).await;
    let mut cases = Cases::of(PROXY);
    let v2 = b"\r\n\r\n\0\r\nQUIT\n";
    let ended: [(&str, Vec<u8>); 13] = [
        ("none, but a request", b"{\"id\":1,\"op\":\"ping\"}\n".to_vec()),
        ("an unknown version", b"PROXY2 TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec()),
        ("an unknown family", b"PROXY TCP9 192.0.2.1 192.0.2.2 1 2\r\n".to_vec()),
        ("an address that is none", b"PROXY TCP4 192.0.2.999 192.0.2.2 1 2\r\n".to_vec()),
        ("a port that is none", b"PROXY TCP4 192.0.2.1 192.0.2.2 99999 2\r\n".to_vec()),
        ("too few words", b"PROXY TCP4 192.0.2.1\r\n".to_vec()),
        ("no end of the line", [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat()),
        ("a line feed alone", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n".to_vec()),
        ("version 2, another version", [&v2[..], &[0x31, 0x11, 0, 12], &[0; 12]].concat()),
        ("version 2, too short for its addresses", [&v2[..], &[0x21, 0x11, 0, 1], &[0; 1]].concat()),
        ("version 2, 65,535 bytes", [&v2[..], &[0x21, 0x11, 0xff, 0xff], &[0; 2000]].concat()),
        ("version 2, cut off", [&v2[..], &[0x21, 0x11, 0, 12], &[0; 3]].concat()),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
    ];
    let held: [(&str, &[u8]); 3] =
        [("nothing", b""), ("half a header", b"PROXY TCP4 192."), ("byte by byte", b"PROXY TCP4 192.0.2.1")];
    let ended = ended.iter().map(|(name, header)| (*name, &header[..], false));
    let all = ended.chain(held.into_iter().map(|(name, header)| (name, header, name == "byte by byte")));
    // Side by side, since some are waited for.
    let outcomes = futures_util::future::join_all(all.map(async |(name, header, slowly)| {
        let mut stream = siege.stream().await;
        if slowly {
            for byte in header {
                // It may have ended.
                let _ = stream.write_all(&[*byte]).await;
                sleep(Duration::from_millis(400)).await;
            }
        } else {
            stream.write_all(header).await.unwrap();
        }
        let mut said = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        // The end may be a reset, since not all was read.
        let _ = read.unwrap_or_else(|_| panic!("{name}: it does not end"));
        (name, String::from_utf8_lossy(&said).into_owned())
    }));
    for (name, said) in outcomes.await {
        cases.check(name, said, "");
    }
    let mut twice = siege.connect().await;
    cases.ask(&mut twice, "a second header", header.trim_end_matches('\n'), "malformed").await;
    for (name, header) in [
        ("a client that is not told", b"PROXY UNKNOWN\r\n".to_vec()),
        ("version 2, of the balancer itself", [&v2[..], &[0x20, 0, 0, 0]].concat()),
    ] {
        let mut wire = Wire::connect(&siege.server.address).await;
        wire.send(header).await;
        cases.check(name, wire.line().await["push"].as_str().unwrap(), "hello");
    }
    cases.end();
    siege.lifts_with_nobody_disturbed().await;
}

/// What may go wrong while a session is opened and ended.
pub(super) const LOGGING_IN: &[&str] = &[
    "a login behind a login",
    "a request behind a login that fails",
    "a registration behind a registration of the same name",
    "a session too many",
    "a request behind a logout",
    "a token after its logout",
    "a token cut short",
    "the tenth bad line",
];

#[tokio::test]
async fn logging_in_has_its_order() {
    let siege = Siege::new(&[]).await;
    let mut cases = Cases::of(LOGGING_IN);
    let login = |id: u64, password: &str| {
        json!({"id": id, "op": "login", "account": "mallory", "password": password}).to_string() + "\n"
    };
    let (_, mallory) = siege.user("mallory").await;

    let mut wire = siege.connect().await;
    wire.send(login(1, "mallory") + &login(2, "mallory")).await;
    assert!(wire.reply(1).await["ok"].is_object());
    let second = wire.reply(2).await["error"]["code"].clone();
    cases.check("a login behind a login", second.as_str().unwrap(), "already_logged_in");

    let mut wire = siege.connect().await;
    wire.send(login(1, "wrong") + "{\"id\":2,\"op\":\"friends\"}\n").await;
    assert_eq!(answer(&mut wire).await, "bad_credentials");
    cases.check("a request behind a login that fails", answer(&mut wire).await, "not_logged_in");

    let mut wire = siege.connect().await;
    let register = |mid: String| {
        json!({"id": 1, "op": "register", "mid": mid, "name": "twice", "password": "x"}).to_string() + "\n"
    };
    wire.send(register(mid()) + &register(mid())).await;
    assert_eq!(answer(&mut wire).await, "ok");
    let second = answer(&mut wire).await;
    cases.check("a registration behind a registration of the same name", second, "name_taken");

    let mut sessions = vec![mallory];
    let refused = loop {
        let mut wire = siege.connect().await;
        wire.send(login(1, "mallory")).await;
        match answer(&mut wire).await.as_str() {
            "ok" => sessions.push(wire),
            code => break code.to_owned(),
        }
        assert!(sessions.len() <= 64, "more sessions than a user may have");
    };
    cases.check("a session too many", refused, "limit_reached");
    drop(sessions);

    let (_, mut eve) = siege.user("eve").await;
    let token = siege.connect().await.login("eve").await["token"].clone();
    eve.send("{\"id\":1,\"op\":\"logout\"}\n{\"id\":2,\"op\":\"ping\"}\n").await;
    assert_eq!(answer(&mut eve).await, "ok");
    assert_eq!(answer(&mut eve).await, "logged_out");
    let after = try_answer(&mut eve).await.unwrap_or_else(|| "end".into());
    cases.check("a request behind a logout", after, "end");

    let mut other = siege.connect().await;
    other.ok(json!({"op": "resume", "token": token, "cursors": {}})).await;
    other.ok(json!({"op": "logout"})).await;
    let mut wire = siege.connect().await;
    let resume = |token: &str| json!({"id": 1, "op": "resume", "token": token, "cursors": {}}).to_string();
    let token = token.as_str().unwrap();
    cases.ask(&mut wire, "a token after its logout", resume(token), "bad_token").await;
    cases.ask(&mut wire, "a token cut short", resume(&token[..62]), "bad_request token").await;

    let mut wire = siege.connect().await;
    wire.send("x\n".repeat(10)).await;
    for _ in 0..10 {
        assert_eq!(answer(&mut wire).await, "malformed");
    }
    cases.check("the tenth bad line", answer(&mut wire).await, "too_many_errors");
    cases.end();
    siege.lifts_with_nobody_disturbed().await;
}

/// What may be said while cursors are still coming.
pub(super) const RESUMING: &[&str] = &[
    "rubbish",
    "a line of 131,073 bytes",
    "a ping",
    "a login",
    "a resume",
    "a send",
    "an ack",
    "a list",
    "a logout",
    "1,001 cursors",
    "cursors of others and ahead",
    "cursors without end",
    "cursors once more",
];

#[tokio::test]
async fn resuming_takes_cursors_and_nothing_else() {
    let siege = Siege::new(&[]).await;
    let mut cases = Cases::of(RESUMING);
    let (_, mut mallory) = siege.user("mallory").await;
    mallory.ok(json!({"op": "create_group", "mid": mid(), "name": "g", "description": ""})).await;
    let token = siege.connect().await.login("mallory").await["token"].clone();
    let resume = json!({"op": "resume", "token": token, "cursors": {}, "more": true});
    let cursors = |from: u64, count: u64, more: bool| {
        let all: serde_json::Map<String, Value> =
            (from..from + count).map(|n| (format!("g{n}"), json!(1))).collect();
        json!({"id": 1, "op": "cursors", "cursors": all, "more": more}).to_string()
    };
    let mut wire = siege.connect().await;
    wire.ok(resume.clone()).await;
    let m = mid();
    for (name, line, expected) in [
        ("rubbish", "x".to_owned(), "malformed"),
        ("a line of 131,073 bytes", "x".repeat(131_073), "frame_too_long"),
        ("a ping", r#"{"id":1,"op":"ping"}"#.into(), "ok"),
        ("a login", r#"{"id":1,"op":"login","account":"x","password":"x"}"#.into(), "already_logged_in"),
        ("a resume", resume.to_string().replace("\"op\"", "\"id\":1,\"op\""), "already_logged_in"),
        ("a send", format!(r#"{{"id":1,"op":"send","mid":"{m}","conv":"g1","text":"x"}}"#), "not_logged_in"),
        ("an ack", r#"{"id":1,"op":"ack","cursors":{}}"#.into(), "not_logged_in"),
        ("a list", r#"{"id":1,"op":"friends"}"#.into(), "not_logged_in"),
        ("a logout", r#"{"id":1,"op":"logout"}"#.into(), "not_logged_in"),
        ("1,001 cursors", cursors(1, 1001, true), "bad_request cursors"),
    ] {
        cases.ask(&mut wire, name, line, expected).await;
    }
    wire.send(
        json!({"id": 7, "op": "cursors", "cursors": {"d1-2": 1, "u1": 1, "g1": 99, "g9": 1}}).to_string()
            + "\n",
    )
    .await;
    let refused = wire.reply(7).await["ok"]["refused"].to_string();
    let expected = json!({"d1-2": "no_such_conversation", "u1": "no_such_conversation", "g1": "cursor_ahead", "g9": "no_such_conversation"});
    cases.check("cursors of others and ahead", refused, &expected.to_string());
    cases.ask(&mut wire, "cursors once more", cursors(1, 1, false), "bad_request op").await;

    let mut wire = siege.connect().await;
    wire.ok(resume).await;
    let mut found = String::new();
    for page in 0..20 {
        wire.send(cursors(1 + page * 1000, 1000, true) + "\n").await;
        found = answer(&mut wire).await;
        if found != "ok" {
            break;
        }
    }
    cases.check("cursors without end", found, "bad_request cursors");
    cases.end();
    siege.lifts_with_nobody_disturbed().await;
}

/// Who is connected when the node drains.
pub(super) const DRAINING: &[&str] = &[
    "silent",
    "half a line",
    "a session",
    "sends on their way",
    "half a resume",
    "a login on its way",
    "a new connection",
    "reading nothing",
];

/// Whoever reads is told, and what was asked before is answered; the others hold the node up no longer than its grace.
#[tokio::test]
async fn a_draining_node_ends_whatever_its_clients_do() {
    let siege = Siege::new(&["--drain-grace", "2"]).await;
    let mut cases = Cases::of(DRAINING);
    let (_, mut sender) = siege.user("sender").await;
    let group = sender.ok(json!({"op": "create_group", "mid": mid(), "name": "g", "description": ""})).await;
    let group = group["group"].as_u64().unwrap();
    let mut session = siege.connect().await;
    let token = session.login("sender").await["token"].clone();
    let mut silent = siege.connect().await;
    let mut half_a_line = siege.connect().await;
    half_a_line.send("{\"id\":1,\"op\":").await;
    let mut half_a_resume = siege.connect().await;
    half_a_resume.ok(json!({"op": "resume", "token": token, "cursors": {}, "more": true})).await;
    let mut deaf = siege.connect().await;
    deaf.login("sender").await;
    // More than sockets hold: so its replies are still there when the node drains.
    let flood =
        json!({"id": 1, "op": "history", "conv": format!("g{group}"), "limit": 100}).to_string() + "\n";
    for _ in 0..40 {
        sender.say(&format!("g{group}"), &"x".repeat(60_000)).await;
        session.message(&format!("g{group}")).await;
    }
    deaf.send(flood.repeat(400)).await;
    let mut logging_in = siege.connect().await;
    let (server, _data) = siege.lifts().await;

    let sends: String = (0..50)
        .map(|id| {
            json!({"id": id, "op": "send", "mid": mid(), "conv": format!("g{group}"), "text": "x"})
                .to_string()
                + "\n"
        })
        .collect();
    sender.send(sends).await;
    sender.reply(0).await;
    logging_in.send("{\"id\":1,\"op\":\"login\",\"account\":\"sender\",\"password\":\"sender\"}\n").await;
    let address = server.address.clone();
    let (_, log) = server.signal("-TERM").await;
    no_fault(&log);

    for (name, wire) in [
        ("silent", &mut silent),
        ("half a line", &mut half_a_line),
        ("half a resume", &mut half_a_resume),
        ("a session", &mut session),
    ] {
        cases.check(name, try_answer(wire).await.unwrap_or_else(|| "end".into()), "going_away");
    }
    // Those that were taken are answered; then comes the word.
    let mut last = String::new();
    while let Some(line) = sender.try_line().await {
        assert!(line.get("error").is_none(), "{line}");
        if line["push"] == "closing" {
            last = line["code"].as_str().unwrap().into();
        }
    }
    cases.check("sends on their way", last, "going_away");
    let mut answers = Vec::new();
    while let Some(answer) = try_answer(&mut logging_in).await {
        answers.push(answer);
    }
    // It came too late, was refused, or was carried out: the last word is the same.
    cases.check("a login on its way", answers.last().map_or("end", String::as_str), "going_away");
    let refused = tokio::net::TcpStream::connect(&address).await.map_or("refused", |_| "accepted");
    cases.check("a new connection", refused, "refused");
    // The node has ended although this one has read nothing.
    cases.check("reading nothing", if deaf.rest().await.is_empty() { "told" } else { "cut off" }, "cut off");
    cases.end();
}
