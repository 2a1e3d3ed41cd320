//! Clients that mean no good, against the real binary, while two users chat: each is answered as SPEC.md says or shut out, and the two notice
//! nothing.

mod fields;
mod holding;
mod limits;
mod lines;
mod phases;
mod session;
mod tls;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{PATIENCE, Wire, mid},
    process::Server,
};

/// A node in a process of its own, and two users who chat on it all the time.
struct Siege {
    server: Server,
    /// What every connection begins with.
    header: &'static str,
    data: TempDir,
    over: CancellationToken,
    chat: JoinHandle<u64>,
}

impl Siege {
    async fn new(options: &[&str]) -> Self {
        Self::with_header(options, "").await
    }

    async fn with_header(options: &[&str], header: &'static str) -> Self {
        let data = TempDir::new().unwrap();
        let server = Server::start(data.path(), 0, options).await;
        let mut alice = Wire::connect(&server.address).await;
        let mut bob = Wire::connect(&server.address).await;
        alice.send(header).await;
        bob.send(header).await;
        sign_in(&mut alice, "alice").await;
        let bob_number = sign_in(&mut bob, "bob").await;
        Self::of(server, header, data, alice, bob_number, bob).await
    }

    /// Of a node on which the first two users have logged in.
    async fn of(
        server: Server,
        header: &'static str,
        data: TempDir,
        mut alice: Wire,
        bob_number: u64,
        mut bob: Wire,
    ) -> Self {
        alice.ok(json!({"op": "befriend", "mid": mid(), "user": bob_number})).await;
        let over = CancellationToken::new();
        let until = over.clone();
        let talk = async move {
            let mut said = 0;
            while !until.is_cancelled() {
                alice.say("d1-2", &said.to_string()).await;
                assert_eq!(bob.message("d1-2").await, said.to_string());
                bob.ok(json!({"op": "ping"})).await;
                said += 1;
                sleep(Duration::from_millis(5)).await;
            }
            said
        };
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        let chat = tokio::spawn(talk);
        Self { server, header, data, over, chat }
    }

    async fn connect(&self) -> Wire {
        let mut wire = Wire::connect(&self.server.address).await;
        wire.send(self.header).await;
        assert_eq!(wire.line().await["push"], "hello");
        wire
    }

    /// A connection from an address of this machine, whatever is said to it.
    async fn connect_from(&self, address: &str) -> Wire {
        let address: IpAddr = address.parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        Wire::over(socket.connect(self.server.address.parse().unwrap()).await.unwrap())
    }

    async fn stream(&self) -> TcpStream {
        TcpStream::connect(&self.server.address).await.unwrap()
    }

    /// A new user, with the name as password.
    async fn user(&self, name: &str) -> (u64, Wire) {
        let mut wire = self.connect().await;
        let number = register_and_log_in(&mut wire, name).await;
        (number, wire)
    }

    /// The two have chatted to the end, and the node has found no fault in itself.
    async fn lifts_with_nobody_disturbed(self) {
        let (server, _data) = self.lifts().await;
        drop(server);
    }

    /// Likewise; the node goes on.
    async fn lifts(self) -> (Server, TempDir) {
        self.over.cancel();
        let said = timeout(PATIENCE, self.chat).await.expect("the chat goes on").unwrap();
        assert!(said > 0);
        no_fault(&self.server.log());
        (self.server, self.data)
    }
}

#[track_caller]
fn no_fault(log: &[String]) {
    for line in log {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["level"] != "ERROR", "{line}");
        assert!(!line.to_string().contains("panicked"), "{line}");
    }
}

/// On a connection that has said nothing yet.
async fn sign_in(wire: &mut Wire, name: &str) -> u64 {
    assert_eq!(wire.line().await["push"], "hello");
    register_and_log_in(wire, name).await
}

async fn register_and_log_in(wire: &mut Wire, name: &str) -> u64 {
    let reply = wire.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
    wire.login(name).await;
    reply["user"].as_u64().unwrap()
}

/// The line's answer: `code` or `code field`; `ok`; or the push that ends the connection.
async fn answer(wire: &mut Wire) -> String {
    try_answer(wire).await.expect("the connection is open")
}

/// Likewise, or `end`, without a word.
async fn try_answer(wire: &mut Wire) -> Option<String> {
    loop {
        let line = wire.try_line().await?;
        if let Some(error) = line.get("error") {
            let (code, field) = (error["code"].as_str().unwrap(), error["field"].as_str());
            assert_eq!(error["definite"], true, "{line}");
            return Some(field.map_or_else(|| code.to_owned(), |field| format!("{code} {field}")));
        }
        if line.get("ok").is_some() {
            return Some("ok".into());
        }
        if line["push"] == "closing" {
            return Some(line["code"].as_str().unwrap().into());
        }
    }
}

/// The named cases of a test: each is to be met, once, and to have its answer.
struct Cases {
    left: BTreeSet<&'static str>,
    wrong: Vec<String>,
}

impl Cases {
    fn of(names: &[&'static str]) -> Self {
        let left: BTreeSet<_> = names.iter().copied().collect();
        assert_eq!(left.len(), names.len(), "each name once");
        Self { left, wrong: Vec::new() }
    }

    fn check(&mut self, name: &str, found: impl Into<String>, expected: &str) {
        assert!(self.left.remove(name), "{name} is no case of this test, or was met before");
        let found = found.into();
        if found != expected {
            self.wrong.push(format!("{name}: {found}, not {expected}"));
        }
    }

    /// Sends a line, and checks its answer.
    async fn ask(&mut self, wire: &mut Wire, name: &str, line: impl AsRef<[u8]>, expected: &str) {
        wire.send([line.as_ref(), b"\n"].concat()).await;
        let found = try_answer(wire).await.unwrap_or_else(|| "end".into());
        self.check(name, found, expected);
    }

    fn end(self) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        assert!(self.left.is_empty(), "not met: {:?}", self.left);
    }
}

/// What is wrong with a line, the line, and the answer. The connection goes on afterwards.
type BadLine = (String, Vec<u8>, String);

fn bad(name: &str, line: impl AsRef<[u8]>, answer: &str) -> BadLine {
    (name.into(), line.as_ref().to_vec(), answer.into())
}

fn in_a_session() -> Vec<BadLine> {
    [lines::bad_anywhere(), session::bad_in_a_session(), fields::bad_fields(true)].concat()
}

fn before_a_login() -> Vec<BadLine> {
    [lines::bad_anywhere(), lines::bad_before_login(), fields::bad_fields(false)].concat()
}

/// How many cases there are, and that each has a name of its own.
#[test]
fn every_case_has_a_name() {
    let tables = [
        ("on any connection", lines::bad_anywhere()),
        ("before a login", lines::bad_before_login()),
        ("in a session", session::bad_in_a_session()),
        ("of fields", fields::bad_fields(true)),
    ];
    let behaviours = [
        ("PROXY headers", phases::PROXY),
        ("while logging in", phases::LOGGING_IN),
        ("while resuming", phases::RESUMING),
        ("while draining", phases::DRAINING),
        ("limits", limits::LIMITS),
        ("holding on", holding::HOLDING),
    ];
    let lines = tables.iter().map(|(of, lines)| (*of, lines.iter().map(|(name, ..)| name.clone()).collect()));
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let behaviours = behaviours.into_iter().map(|(of, names)| (of, named(names)));
    let mut all = 0;
    for (of, names) in lines.chain(behaviours) {
        let names: Vec<String> = names;
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{of}: {names:?}");
        println!("{of}: {} cases", names.len());
        all += names.len();
    }
    println!("the hostile suite has {all} named cases");
    assert!(all >= 60);
}

#[tokio::test]
async fn bad_lines_have_their_answers() {
    let siege = Siege::new(&["--account-failures", "100"]).await;
    let (_, mut mallory) = siege.user("mallory").await;
    let mut wrong = Vec::new();
    for (name, line, expected) in in_a_session() {
        mallory.send([&line[..], b"\n"].concat()).await;
        let found = timeout(PATIENCE / 2, answer(&mut mallory)).await;
        if found.as_ref() != Ok(&expected) {
            wrong.push(format!("in a session, {name}: {found:?}, not {expected}"));
        }
    }
    mallory.ok(json!({"op": "ping"})).await;
    for (name, line, expected) in before_a_login() {
        // Ten bad lines end an anonymous connection.
        let mut wire = siege.connect().await;
        wire.send([&line[..], b"\n"].concat()).await;
        let found = timeout(PATIENCE / 2, answer(&mut wire)).await;
        if found.as_ref() != Ok(&expected) {
            wrong.push(format!("before a login, {name}: {found:?}, not {expected}"));
        }
        wire.ok(json!({"op": "ping"})).await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    siege.lifts_with_nobody_disturbed().await;
}
