//! Clients that hold on to a connection, do not read, vanish, or never end a line.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    time::{sleep, timeout},
};

use super::{Cases, Siege, answer, register_and_log_in};
use crate::process::Server;

/// Ways to hold on.
pub(super) const HOLDING: &[&str] = &[
    "connected",
    "half a line",
    "only pings",
    "byte by byte",
    "half a resume",
    "a session that says nothing",
    "a session with half a line",
    "asking much and reading nothing",
    "gone at once",
    "gone with a reset",
    "gone after half a request",
    "gone in the middle of a login",
    "a line that never ends",
];

/// Ways to hold on to a connection, and what ends each.
#[tokio::test]
async fn who_only_holds_on_is_shut_out() {
    let siege = Siege::new(&["--login-timeout", "1", "--idle-timeout", "3"]).await;
    let mut cases = Cases::of(&HOLDING[..7]);
    let mut connected = siege.connect().await;
    let mut half_a_line = siege.connect().await;
    half_a_line.send("{\"id\":1,\"op\":").await;
    let (mut only_pings, mut byte_by_byte) = (siege.connect().await, siege.connect().await);
    let mut silent = siege.connect().await;
    let number = register_and_log_in(&mut silent, "silent").await;
    assert_eq!(number, 3);
    let mut half_session = siege.connect().await;
    let token = half_session.login("silent").await["token"].clone();
    half_session.send("{\"id\":1,\"op\":\"ping\"").await;
    let mut half_a_resume = siege.connect().await;
    half_a_resume.ok(json!({"op": "resume", "token": token, "cursors": {}, "more": true})).await;
    for byte in b"{\"id\":1," {
        byte_by_byte.send([*byte]).await;
        only_pings.ok(json!({"op": "ping"})).await;
        sleep(Duration::from_millis(50)).await;
    }
    let shut_out = [
        ("connected", &mut connected, "login_timeout"),
        ("half a line", &mut half_a_line, "login_timeout"),
        ("only pings", &mut only_pings, "login_timeout"),
        ("byte by byte", &mut byte_by_byte, "login_timeout"),
        ("half a resume", &mut half_a_resume, "login_timeout"),
        ("a session that says nothing", &mut silent, "idle"),
        ("a session with half a line", &mut half_session, "idle"),
    ];
    for (name, wire, code) in shut_out {
        cases.check(name, answer(wire).await, code);
        assert!(wire.try_line().await.is_none(), "{name}");
    }
    cases.end();
    siege.lifts_with_nobody_disturbed().await;
}

/// A client that asks for much and reads nothing costs its outbox, and ends when it has taken nothing for too long.
#[tokio::test]
async fn who_asks_and_does_not_read_holds_up_nobody() {
    let siege = Siege::new(&[]).await;
    let mut cases = Cases::of(&HOLDING[7..8]);
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = siege.stream().await;
        let flood = "{\"id\":1,\"op\":\"ping\"}\n".repeat(20_000);
        let written = timeout(Duration::from_millis(200), stream.write_all(flood.as_bytes())).await;
        deaf.push((stream, written.is_ok()));
    }
    let (_, mut newcomer) = siege.user("newcomer").await;
    newcomer.send("{\"id\":1,\"op\":\"ping\"}\n").await;
    cases.check("asking much and reading nothing", answer(&mut newcomer).await, "ok");
    cases.end();
    siege.lifts_with_nobody_disturbed().await;
}

/// Connections that come and go: at once, with a reset, after half a request, in the middle of a login.
#[tokio::test]
async fn who_comes_and_goes_leaves_nothing_behind() {
    let siege = Siege::new(&[]).await;
    let mut cases = Cases::of(&HOLDING[8..12]);
    let login = "{\"id\":1,\"op\":\"login\",\"account\":\"alice\",\"password\":\"alice\"}\n";
    for way in &HOLDING[8..12] {
        for _ in 0..50 {
            let mut stream = siege.stream().await;
            match *way {
                "gone with a reset" => stream.set_zero_linger().unwrap(),
                "gone after half a request" => stream.write_all(&login.as_bytes()[..20]).await.unwrap(),
                "gone in the middle of a login" => stream.write_all(login.as_bytes()).await.unwrap(),
                _ => {}
            }
        }
        let (_, mut newcomer) = siege.user(&way.replace(' ', "_")).await;
        newcomer.send("{\"id\":1,\"op\":\"friends\"}\n").await;
        cases.check(way, answer(&mut newcomer).await, "ok");
    }
    cases.end();
    siege.lifts_with_nobody_disturbed().await;
}

/// Everything at once on one line that never ends: it is skipped, not kept.
#[tokio::test]
async fn a_line_that_never_ends_is_not_kept() {
    let siege = Siege::new(&[]).await;
    let mut cases = Cases::of(&HOLDING[12..]);
    let before = resident_kib(&siege.server);
    let (_, mut mallory) = siege.user("mallory").await;
    for _ in 0..64 {
        mallory.send(vec![b'x'; 1 << 20]).await;
    }
    cases.ask(&mut mallory, "a line that never ends", "", "frame_too_long").await;
    mallory.ok(json!({"op": "ping"})).await;
    let grown = resident_kib(&siege.server).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for a line of 64 MiB");
    cases.end();
    siege.lifts_with_nobody_disturbed().await;
}

fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
