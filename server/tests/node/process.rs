//! The real binary: crashes, signals, a second node on the same file, and what one machine's clients may do.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use client::{Client, Config, Event, Events};
use protocol::{ConversationId, EntryBody, Seq, Tcp, UserId, clock::SystemEntropy};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    harness::{PATIENCE, Wire, mid},
    transfer::change_file,
};

/// A chatserver in a process of its own.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
    log: Arc<Mutex<Vec<String>>>,
    logging: JoinHandle<()>,
}

impl Server {
    /// Starts one on embedded SQLite, with cheap password hashes, and waits until it listens.
    pub(crate) async fn start(data: &Path, port: u16, options: &[&str]) -> Self {
        Self::wait_for(command(data, port).args(options)).await
    }

    /// Likewise, with options that say where its data is.
    pub(crate) async fn start_on(options: &[&str], port: u16) -> Self {
        Self::wait_for(bare_command(port).args(options)).await
    }

    async fn wait_for(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let listening = timeout(3 * PATIENCE, async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let fields: Value = serde_json::from_str(&line).unwrap();
                log.lock().unwrap().push(line);
                if fields["fields"]["message"] == "listening" {
                    return fields["fields"]["address"].as_str().unwrap().to_owned();
                }
            }
            panic!("it ended before it listened");
        });
        let address = listening.await.expect("it listens in time");
        // Read to its end, or the node would wait for room in the pipe.
        let rest = Arc::clone(&log);
        #[expect(clippy::disallowed_methods, reason = "it ends with the process whose log it reads")]
        let logging = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                rest.lock().unwrap().push(line);
            }
        });
        Self { child, address, log, logging }
    }

    /// What it logged until now.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal by name, and waits for the end. Returns what it logged.
    pub(crate) async fn signal(mut self, name: &str) -> (ExitStatus, Vec<String>) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
        let status = timeout(PATIENCE, self.child.wait()).await.expect("an end in time").unwrap();
        (&mut self.logging).await.unwrap();
        (status, self.log())
    }
}

fn command(data: &Path, port: u16) -> Command {
    let mut command = bare_command(port);
    command.arg("--data-dir").arg(data);
    command
}

fn bare_command(port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatserver"));
    command
        .args(["127.0.0.1", &port.to_string(), "--argon2-memory", "8", "--argon2-passes", "1"])
        .args(["--log-format", "json"])
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A user with the client library.
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) client: Client,
    pub(crate) events: Events,
}

impl User {
    /// Registers and logs in.
    pub(crate) async fn new(address: &str, tracker: &TaskTracker, name: &str) -> Self {
        let config = Config { confirm_automatically: true, ..Config::default() };
        let (client, events) = Client::start(Tcp, address, config, Arc::new(SystemEntropy), tracker);
        let id = client.register(name, "secret").await.unwrap().user;
        client.login(name, "secret").await.unwrap();
        Self { id, client, events }
    }
}

/// `kill -9` in the middle of sends, again and again: everything acknowledged is there, once, in order, and the clients come back by
/// themselves and show each message once. SPEC.md, guarantees 1, 2, 3 and 6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_loses_nothing() {
    const MESSAGES: usize = 400;
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), 0, &[]).await;
    let port = server.port();
    let tracker = TaskTracker::new();
    let alice = User::new(&server.address, &tracker, "alice").await;
    let mut bob = User::new(&server.address, &tracker, "bob").await;
    alice.client.befriend("2".parse().unwrap()).await.unwrap();
    let conv: ConversationId = "d1-2".parse().unwrap();

    let sender = alice.client.clone();
    let mut alice_events = alice.events;
    tracker.spawn(async move { while alice_events.next().await.is_some() {} });
    let sending = tracker.spawn(async move {
        let mut acknowledged = BTreeMap::new();
        for burst in 0..MESSAGES / 8 {
            let burst = (0..8).map(|n| {
                let (sender, text) = (sender.clone(), format!("message {}", burst * 8 + n));
                async move { (sender.send(conv, &text).await, text) }
            });
            for (reply, text) in futures_util::future::join_all(burst).await {
                acknowledged.insert(reply.expect("it is repeated until it is known").seq, text);
            }
        }
        acknowledged
    });
    let mut shown: Vec<(Seq, String)> = Vec::new();
    let mut kills = 0;
    while shown.len() < MESSAGES {
        let event = timeout(3 * PATIENCE, bob.events.next()).await.expect("an event in time");
        if let Event::Entry(entry) = event.expect("the client goes on")
            && let EntryBody::Message { text } = entry.body
        {
            shown.push((entry.seq, text));
        }
        if shown.len() > (kills + 1) * MESSAGES / 5 && kills < 3 {
            kills += 1;
            server.kill().await;
            server = Server::start(folder.path(), port, &[]).await;
        }
    }
    assert_eq!(kills, 3);
    let acknowledged = sending.await.unwrap();
    assert_eq!(
        shown,
        acknowledged.into_iter().collect::<Vec<_>>(),
        "each acknowledged message, once, in order"
    );
    assert!(shown.windows(2).all(|pair| pair[0].0.next() == pair[1].0), "nothing else in between");
    let last = bob.client.history(conv, None, Some(1)).await.unwrap().entries;
    assert_eq!(last[0].seq, shown.last().unwrap().0, "and nothing after");
    alice.client.close();
    bob.client.close();
}

#[tokio::test]
async fn a_signal_ends_the_node_in_order() {
    for name in ["-TERM", "-INT"] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path(), 0, &[]).await;
        let mut wire = Wire::connect(&server.address).await;
        wire.ok(json!({"op": "register", "mid": mid(), "name": "alice", "password": "alice"})).await;
        wire.login("alice").await;
        let (status, log) = server.signal(name).await;
        assert_eq!(status.code(), Some(0), "{name}: {log:?}");
        let rest = String::from_utf8(wire.rest().await).unwrap();
        assert!(rest.lines().last().unwrap().contains("going_away"), "{rest}");
    }
}

#[tokio::test]
async fn a_second_node_on_the_same_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), 0, &[]).await;
    let output = command(folder.path(), 0).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("in use by another chatserver"), "{log}");
    // The first is not disturbed; and when it is gone, however it went, its place is free.
    Wire::connect(&server.address).await.ok(json!({"op": "ping"})).await;
    server.kill().await;
    Server::start(folder.path(), 0, &[]).await;
}

/// SPEC.md, section 11: what a later version has added is let be; and where it has removed something, an earlier one does not start.
#[tokio::test]
async fn a_schema_of_a_later_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    Server::start(folder.path(), 0, &[]).await.kill().await;
    change_file(
        &path,
        "alter table entry add column later text; create table later (id integer primary key); \
         insert into _sqlx_migrations select 9998, 'later', current_timestamp, true, x'00', 1",
    )
    .await;
    let server = Server::start(folder.path(), 0, &[]).await;
    let mut wire = Wire::connect(&server.address).await;
    wire.ok(json!({"op": "register", "mid": mid(), "name": "alice", "password": "alice"})).await;
    wire.login("alice").await;
    wire.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    assert_eq!(wire.say("g1", "hello").await, 2);
    server.kill().await;
    let later =
        "insert into _sqlx_migrations select 9999, 'contract later', current_timestamp, true, x'00', 1";
    change_file(&path, later).await;
    let output = command(folder.path(), 0).output().await.unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && log.contains("9999 (contract later)"), "{log}");
}

#[tokio::test]
async fn what_cannot_work_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let run = async |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_chatserver")).args(args).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let path = folder.path().to_str().unwrap();
    let (code, log) = run(&["127.0.0.1", "0", "--database", "oracle:x"]).await;
    assert!(code == Some(1) && log.contains("expected sqlite:PATH"), "{log}");
    let (code, log) = run(&["203.0.113.1", "6000", "--data-dir", path]).await;
    assert!(code == Some(1) && log.contains("listening on 203.0.113.1:6000"), "{log}");
    let (code, log) = run(&["127.0.0.1", "0", "--data-dir", path, "--log", "no=such=filter"]).await;
    assert!(code == Some(2) && log.contains("--log"), "{log}");
    let (code, log) = run(&["127.0.0.1", "0", "--data-dir", path, "--argon2-memory", "1"]).await;
    assert!(code == Some(1) && log.contains("argon2"), "{log}");
}

/// With the default limits, one machine can register and log in 500 users, and one client can ask 200 things in a burst.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_registrations_and_logins() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), 0, &[]).await;
    let users = (0..500).map(async |n| {
        let name = format!("user{n}");
        let mut wire = Wire::connect(&server.address).await;
        wire.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
        wire.login(&name).await;
        wire
    });
    let mut users = futures_util::future::join_all(users).await;
    let burst: String = (0..200).map(|n| json!({"id": n, "op": "groups"}).to_string() + "\n").collect();
    users[0].send(burst).await;
    for n in 0..200 {
        assert!(users[0].reply(n).await["ok"].is_object());
    }
}

/// Runs the binary to its end with these variables: exit code, and what it said on both streams.
pub(crate) async fn says(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatserver"));
    let output = command.args(arguments).envs(variables.iter().copied()).output();
    let output = timeout(PATIENCE, output).await.expect("an end in time").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn settings_come_from_flags_environment_file_and_defaults() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chat.toml");
    let secret = folder.path().join("database");
    std::fs::write(&secret, "mysql://kirito:asuna@db/chat\n").unwrap();
    let file = format!("idle-timeout = 50\nlogin-timeout = 20\ntoken-days = 3\ndatabase-file = {secret:?}\n");
    std::fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap();
    let arguments = ["config", "127.0.0.1", "6000", "--config", path, "--idle-timeout", "70"];
    let variables = [("CHAT_LOGIN_TIMEOUT", "10"), ("CHAT_IDLE_TIMEOUT", "60")];
    let (code, shown, _) = says(&arguments, &variables).await;
    assert_eq!(code, 0);
    let line = |name: &str| {
        let line = shown.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ").replace(path, "FILE")
    };
    assert_eq!(line("idle-timeout"), "idle-timeout = \"70\" # command line");
    assert_eq!(line("login-timeout"), "login-timeout = \"10\" # environment, CHAT_LOGIN_TIMEOUT");
    assert_eq!(line("token-days"), "token-days = \"3\" # FILE");
    assert_eq!(line("drain-grace"), "drain-grace = \"10\" # default");
    let check = ["check-config", "127.0.0.1", "6000", "--config", path];
    assert_eq!(says(&check, &[]).await, (0, "the configuration can be used\n".into(), String::new()));
    std::fs::write(&secret, "postgres://kirito:asuna@db/chat\n").unwrap();
    let (code, _, error) = says(&check, &[]).await;
    assert_eq!(code, 2);
    assert!(error.contains("--database postgres:") && !error.contains("asuna"), "{error}");
    let (code, _, error) = says(&check, &[("CHAT_ADDRESS_REQUESTS", "many")]).await;
    assert_eq!(code, 2);
    assert!(error.contains("such as 100/s:1000"), "{error}");
}
