//! chatctl against real nodes, and the API that it asks. OPERATING.md, "chatctl"; SPEC.md, section 4.1.

mod orders;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use crate::{
    docker,
    harness::{PATIENCE, Wire, mid},
    mysql,
    process::Server,
};

const TOKEN: &str = "a token of some length";

/// A node in a process of its own, whose admin listener takes a token.
struct Node {
    server: Server,
    admin: String,
}

impl Node {
    /// On embedded SQLite, in this folder.
    async fn alone(folder: &TempDir) -> Self {
        let admin = format!("127.0.0.1:{}", docker::free_port());
        let token = token_file(folder);
        let options = ["--admin", &admin, "--admin-token-file", token.to_str().unwrap()];
        Self { server: Server::start(folder.path(), 0, &options).await, admin }
    }

    /// On a database that others share.
    async fn on(url: &str, token: &Path) -> Self {
        let admin = format!("127.0.0.1:{}", docker::free_port());
        let token = token.to_str().unwrap();
        let options = ["--database", url, "--admin", &admin, "--admin-token-file", token];
        Self { server: Server::start_on(&options, 0).await, admin }
    }

    async fn connect(&self) -> Wire {
        let mut wire = Wire::connect(&self.server.address).await;
        assert_eq!(wire.line().await["push"], "hello");
        wire
    }

    /// A new user, whose password is the name, logged in: the connection, and the token.
    async fn user(&self, name: &str) -> (Wire, Value) {
        let mut wire = self.connect().await;
        wire.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
        let token = wire.login(name).await["token"].clone();
        (wire, token)
    }

    /// The code with which a login is refused, or "ok".
    async fn login(&self, name: &str, password: &str) -> String {
        let mut wire = self.connect().await;
        let id = wire.ask(json!({"op": "login", "account": name, "password": password})).await;
        let reply = wire.reply(id).await;
        reply["error"]["code"].as_str().unwrap_or("ok").to_owned()
    }

    /// The code with which a token is refused, or "ok".
    async fn resume(&self, token: &Value) -> String {
        let mut wire = self.connect().await;
        let id = wire.ask(json!({"op": "resume", "token": token, "cursors": {}})).await;
        let reply = wire.reply(id).await;
        reply["error"]["code"].as_str().unwrap_or("ok").to_owned()
    }
}

fn token_file(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    path
}

/// What chatctl prints on both streams, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs chatctl with a token's file, and something on its standard input.
async fn run(nodes: &str, token: &Path, arguments: &[&str], input: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatctl"));
    command.args(["--nodes", nodes, "--token-file"]).arg(token).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Where a request goes is not the environment's business.
    command.env("HTTP_PROXY", "http://127.0.0.1:1").env("ALL_PROXY", "http://127.0.0.1:1");
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that takes no input may have ended.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = timeout(2 * PATIENCE, child.wait_with_output()).await.expect("an end in time").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Operators at some nodes.
struct Ctl {
    nodes: String,
    token: PathBuf,
}

impl Ctl {
    fn of(nodes: &[&Node], token: &Path) -> Self {
        let nodes: Vec<_> = nodes.iter().map(|node| node.admin.as_str()).collect();
        Self { nodes: nodes.join(","), token: token.to_owned() }
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        run(&self.nodes, &self.token, arguments, "").await
    }

    /// What a command prints that succeeds.
    async fn says(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments).await;
        assert!(said.code == 0 && said.err.is_empty(), "{arguments:?}: {said:?}");
        said.out
    }

    /// Likewise, as JSON.
    async fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        serde_json::from_str(&self.says(&all).await).unwrap()
    }
}

async fn ends_as(mut wire: Wire, code: &str) {
    let closing = wire.find("the end", |line| line["push"] == "closing").await;
    assert_eq!(closing["code"], code);
    assert!(wire.try_line().await.is_none());
}

/// What an admin listener answers to bytes: status and body.
async fn http(admin: &str, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request =
        format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("an answer in time").unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn nodes_sessions_and_users_are_shown() {
    let folder = TempDir::new().unwrap();
    let node = Node::alone(&folder).await;
    let ctl = Ctl::of(&[&node], &token_file(&folder));
    let (mut alice, _) = node.user("Alice").await;
    let (_bob, _) = node.user("bob").await;
    node.connect().await.ok(json!({"op": "register", "mid": mid(), "name": "alan", "password": "x"})).await;
    alice.ok(json!({"op": "befriend", "mid": mid(), "user": 2})).await;

    let shown = ctl.json(&["nodes"]).await;
    let view = &shown["nodes"][0];
    assert_eq!(view["node"], node.admin.as_str());
    assert_eq!(view["address"], node.server.address.as_str());
    let state = ["ready", "draining", "sessions", "version"].map(|field| view[field].clone());
    assert_eq!(state, [json!(true), json!(false), json!(2), json!(env!("CARGO_PKG_VERSION"))]);
    let table = ctl.says(&["nodes"]).await;
    assert!(table.lines().nth(1).unwrap().contains("ready"), "{table}");

    let shown = ctl.json(&["sessions"]).await;
    let names: Vec<_> = shown["sessions"].as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["Alice", "bob"]);
    let own = ctl.json(&["sessions", "--user", "ALICE"]).await;
    assert_eq!(own["sessions"].as_array().unwrap().len(), 1);
    let session = &own["sessions"][0];
    assert_eq!((&session["user"], &session["address"]), (&json!(1), &json!("127.0.0.1")));
    assert_eq!(
        (&session["conversations"], &session["behind"]),
        (&json!(2), &json!(0)),
        "d1-2, and the notices"
    );
    assert!(ctl.says(&["sessions", "--user", "2"]).await.contains("bob (2)"));
    let some = ctl.run(&["sessions", "--limit", "1"]).await;
    assert!(
        some.code == 0 && some.err.contains("there are more") && some.out.lines().count() == 2,
        "{some:?}"
    );

    let users = async |arguments: &[&str]| {
        let mut all = vec!["users"];
        all.extend(arguments);
        let shown = ctl.json(&all).await;
        let names =
            shown["users"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>().join(" "), shown["next"].as_str().map(str::to_owned))
    };
    assert_eq!(users(&[]).await, ("Alice bob alan".into(), None));
    assert_eq!(users(&["--limit", "2"]).await, ("Alice bob".into(), Some("2".into())));
    assert_eq!(users(&["--after", "2"]).await, ("alan".into(), None));
    assert_eq!(users(&["--after", "alice"]).await, ("bob alan".into(), None));
    assert_eq!(users(&["--prefix", "AL"]).await, ("alan Alice".into(), None), "by name, in whatever case");
    assert_eq!(users(&["--prefix", "al", "--limit", "1"]).await, ("alan".into(), Some("alan".into())));
    assert_eq!(users(&["--prefix", "al", "--after", "alan"]).await, ("Alice".into(), None));
    assert_eq!(users(&["--prefix", "al", "--after", "3"]).await, ("Alice".into(), None), "by number as well");
    assert_eq!(users(&["--prefix", "x"]).await, (String::new(), None));
    let shown = ctl.json(&["users"]).await;
    let states: Vec<_> = shown["users"].as_array().unwrap().iter().map(|row| row["state"].clone()).collect();
    assert_eq!(states, ["online", "online", "offline"]);
}

#[tokio::test]
async fn a_kick_ends_sessions_and_tokens() {
    let folder = TempDir::new().unwrap();
    let node = Node::alone(&folder).await;
    let ctl = Ctl::of(&[&node], &token_file(&folder));
    let (alice, token) = node.user("alice").await;
    let (bob, bobs) = node.user("bob").await;
    assert_eq!(ctl.says(&["kick", "alice"]).await, "alice (1): sessions ended (u1, entry 1)\n");
    ends_as(alice, "revoked").await;
    assert_eq!(node.resume(&token).await, "bad_token");
    drop(bob);
    assert_eq!(node.resume(&bobs).await, "ok", "nobody else's");
    // She can log in again, and is told.
    let mut again = node.connect().await;
    again.ok(json!({"op": "login", "account": "alice", "password": "alice"})).await;
    let told = again.find("the notice", |line| line["push"] == "entry").await;
    assert_eq!((&told["conv"], &told["kind"]), (&json!("u1"), &json!("sessions_ended")));
    // By number; again; and whoever is not there.
    assert!(ctl.says(&["kick", "1"]).await.contains("entry 2"));
    ends_as(again, "revoked").await;
    for nobody in ["carol", "99", "0", "", "a\u{1b}b"] {
        let said = ctl.run(&["kick", nobody]).await;
        assert!(said.code == 1 && said.out.is_empty() && said.err.contains("no such user"), "{said:?}");
    }
    // Each act is on record, with who asked; and counted.
    let log = node.server.log().join("\n");
    let audit: Vec<&str> = log.lines().filter(|line| line.contains("server::audit")).collect();
    assert!(audit.iter().any(|line| line.contains("\"done\"") && line.contains("\"kick\"")), "{audit:?}");
    assert!(audit.iter().all(|line| line.contains("127.0.0.1:")), "{audit:?}");
    let (_, metrics) = http(&node.admin, "GET /metrics HTTP/1.1", "").await;
    assert!(metrics.contains("chat_operator_requests_total{act=\"kick\"} 7\n"), "{metrics}");
}

#[tokio::test]
async fn a_banned_account_can_not_log_in() {
    let folder = TempDir::new().unwrap();
    let node = Node::alone(&folder).await;
    let ctl = Ctl::of(&[&node], &token_file(&folder));
    let (alice, token) = node.user("alice").await;
    assert_eq!(ctl.says(&["ban", "alice"]).await, "alice (1): banned, and sessions ended (u1, entry 1)\n");
    ends_as(alice, "revoked").await;
    assert_eq!(node.login("alice", "alice").await, "banned");
    assert_eq!(node.login("alice", "wrong").await, "bad_credentials");
    assert_eq!(node.login("nobody", "alice").await, "bad_credentials");
    assert_eq!(node.resume(&token).await, "bad_token");
    assert_eq!(ctl.json(&["users"]).await["users"][0]["banned"], true);
    // Another password changes nothing of that; nor does a kick.
    let said = run(&node.admin, &ctl.token, &["passwd", "alice"], "another\n").await;
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "alice (1): password set, and sessions ended (u1, entry 2)\n")
    );
    ctl.says(&["kick", "alice"]).await;
    assert_eq!(node.login("alice", "another").await, "banned");
    assert_eq!(node.login("alice", "alice").await, "bad_credentials");
    assert_eq!(ctl.says(&["ban", "alice"]).await, "alice (1): nothing to do, it is banned\n");
    assert_eq!(ctl.says(&["unban", "alice"]).await, "alice (1): may log in again (u1, entry 4)\n");
    assert_eq!(ctl.says(&["unban", "alice"]).await, "alice (1): nothing to do, it is not banned\n");
    assert_eq!(node.login("alice", "another").await, "ok");
    assert_eq!(node.resume(&token).await, "bad_token", "what was void stays void");
}

#[tokio::test]
async fn a_password_is_set_from_the_standard_input_or_made_up() {
    let folder = TempDir::new().unwrap();
    let node = Node::alone(&folder).await;
    let ctl = Ctl::of(&[&node], &token_file(&folder));
    let (alice, token) = node.user("alice").await;
    let passwd = async |input: &str| run(&node.admin, &ctl.token, &["passwd", "alice"], input).await;
    for bad in ["", "\n", &"x".repeat(1025), &"x".repeat(100_000)] {
        let said = passwd(bad).await;
        assert!(said.code == 1 && said.err.contains("1 to 1024 bytes"), "{said:?}");
    }
    let longest = "\"\\\u{1}".repeat(341) + "x";
    assert_eq!(passwd(&format!("{longest}\r\nmore\n")).await.code, 0);
    ends_as(alice, "revoked").await;
    assert_eq!(node.resume(&token).await, "bad_token");
    assert_eq!(node.login("alice", "alice").await, "bad_credentials");
    assert_eq!(node.login("alice", &longest).await, "ok");
    let said = ctl.run(&["passwd", "alice", "--generate"]).await;
    assert!(said.code == 0 && said.err.starts_with("alice (1): password set"), "{said:?}");
    let made = said.out.trim_end();
    assert_eq!(made.len(), 26);
    assert_eq!(node.login("alice", made).await, "ok");
    let said = ctl.run(&["passwd", "nobody", "--generate"]).await;
    assert!(said.code == 1 && said.out.is_empty(), "no password is shown that was not set: {said:?}");
    // The password is nowhere in the log.
    assert!(!node.server.log().join("\n").contains(made));
}

#[tokio::test]
async fn why_tells_what_became_of_an_entry() {
    let folder = TempDir::new().unwrap();
    let node = Node::alone(&folder).await;
    let ctl = Ctl::of(&[&node], &token_file(&folder));
    let (mut alice, _) = node.user("alice").await;
    let (mut bob, _) = node.user("bob").await;
    alice.ok(json!({"op": "befriend", "mid": mid(), "user": 2})).await;
    let id = "0123456789abcdef0123456789abcdef";
    alice.ok(json!({"op": "send", "mid": id, "conv": "d1-2", "text": "a secret"})).await;
    bob.message("d1-2").await;
    bob.ok(json!({"op": "ack", "cursors": {"d1-2": 2}})).await;
    let shown = ctl.json(&["why", "d1-2", "2"]).await;
    assert_eq!((&shown["mid"], &shown["kind"], &shown["from"]), (&json!(id), &json!("message"), &json!(1)));
    assert_eq!(shown["name"], "alice");
    assert_eq!(shown["committed_by"], node.admin.as_str());
    assert!(shown["committed_at"].as_i64().unwrap() > 1_700_000_000_000);
    let readers = shown["readers"].as_array().unwrap().iter();
    let readers: Vec<_> = readers.map(|row| (row["user"].clone(), row["has_it"].clone())).collect();
    assert_eq!(readers, [(json!(1), json!(false)), (json!(2), json!(true))], "alice did not confirm it");
    let sessions = shown["sessions"].as_array().unwrap();
    let bobs = sessions.iter().find(|row| row["user"] == 2).unwrap();
    assert_eq!((&bobs["pushed"], &bobs["confirmed"]), (&json!(2), &json!(2)));
    let text = ctl.says(&["why", "d1-2", "2"]).await;
    assert!(text.contains("bob (2)") && text.contains(&node.admin) && text.contains(id), "{text}");
    assert!(!text.contains("a secret") && !shown.to_string().contains("a secret"), "not what it says");
    for (conv, seq) in [("d1-2", "3"), ("d1-2", "0"), ("g9", "1"), ("d1-2", "18446744073709551615")] {
        let said = ctl.run(&["why", conv, seq]).await;
        assert!(said.code == 1 && said.err.contains("there is no entry"), "{said:?}");
    }
    assert_eq!(ctl.run(&["why", "x", "1"]).await.code, 2);
    // Started anew, the node does not remember what it committed, and does not say that it does.
    node.server.kill().await;
    let node = Node::alone(&folder).await;
    let ctl = Ctl::of(&[&node], &ctl.token);
    let shown = ctl.json(&["why", "d1-2", "2"]).await;
    assert_eq!((&shown["committed_by"], &shown["sessions"]), (&Value::Null, &json!([])));
    assert!(ctl.says(&["why", "d1-2", "2"]).await.contains("unknown"));
}

#[tokio::test]
async fn a_node_drains_under_a_live_client() {
    let folder = TempDir::new().unwrap();
    let node = Node::alone(&folder).await;
    let ctl = Ctl::of(&[&node], &token_file(&folder));
    let (alice, token) = node.user("alice").await;
    let Node { mut server, admin } = node;
    assert_eq!(ctl.says(&["drain", &admin]).await, format!("{admin}: drains\n"));
    ends_as(alice, "going_away").await;
    let status = timeout(PATIENCE, server.child.wait()).await.expect("it ends in time").unwrap();
    assert_eq!(status.code(), Some(0));
    // Nobody is there any more: it is named, and that is no success.
    let said = ctl.run(&["nodes"]).await;
    assert!(said.code == 1 && said.err.contains(&admin) && said.out.contains("no answer"), "{said:?}");
    let node = Node::alone(&folder).await;
    assert_eq!(node.resume(&token).await, "ok", "a drain revokes nothing");
    // What can be asked of any node is asked of the one that answers; the other is named.
    let both = Ctl { nodes: format!("{admin},{}", node.admin), token: ctl.token.clone() };
    let said = both.run(&["users"]).await;
    assert!(said.code == 0 && said.out.contains("alice") && said.err.contains(&admin), "{said:?}");
    let said = both.run(&["--json", "sessions"]).await;
    let shown: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &shown["failed"][0]["node"]), (1, &json!(admin)));
}

#[tokio::test]
async fn without_the_token_nothing_is_told_or_done() {
    let folder = TempDir::new().unwrap();
    let node = Node::alone(&folder).await;
    let (mut alice, _) = node.user("alice").await;
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "another token, as long").unwrap();
    let commands: [&[&str]; 8] = [
        &["nodes"],
        &["sessions"],
        &["users"],
        &["kick", "alice"],
        &["ban", "alice"],
        &["passwd", "alice", "--generate"],
        &["why", "u1", "1"],
        &["drain", &node.admin],
    ];
    for command in commands {
        let said = run(&node.admin, &wrong, command, "").await;
        assert!(said.code == 1 && said.err.contains("not the token of this node"), "{command:?}: {said:?}");
        assert!(!said.out.contains("alice"), "{said:?}");
    }
    for authorization in ["", "Authorization: Bearer\r\n", "Authorization: Basic YTpi\r\n"] {
        let head = format!("GET /admin/v1/users HTTP/1.1\r\n{authorization}X-Y: z");
        let (status, body) = http(&node.admin, &head, "").await;
        assert!(status == 401 && body.contains("unauthorized") && !body.contains("alice"), "{status} {body}");
        let (status, _) = http(&node.admin, &head.replace("users", "nowhere"), "").await;
        assert_eq!(status, 401, "nor what there is");
    }
    alice.ok(json!({"op": "ping"})).await;
    assert_eq!(node.login("alice", "alice").await, "ok");
    let (_, metrics) = http(&node.admin, "GET /metrics HTTP/1.1", "").await;
    assert!(metrics.contains("chat_operator_requests_total{act=\"refused\"} 14\n"), "{metrics}");
    assert!(metrics.contains("chat_operator_requests_total{act=\"ban\"} 0\n"));
    assert!(!node.server.log().join("\n").contains("another token"), "what was tried is not logged");
    // It has to be named, and to be there.
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatctl"));
    let output = command.arg("nodes").env_remove("CHAT_ADMIN_TOKEN_FILE").output().await.unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("--token-file"));
    let said = run(&node.admin, &folder.path().join("nowhere"), &["nodes"], "").await;
    assert!(said.code == 1 && said.err.contains("nowhere"), "{said:?}");
}

#[tokio::test]
async fn a_node_without_a_token_file_says_how_to_have_one() {
    let folder = TempDir::new().unwrap();
    let admin = format!("127.0.0.1:{}", docker::free_port());
    let _server = Server::start(folder.path(), 0, &["--admin", &admin]).await;
    let token = token_file(&folder);
    let said = run(&admin, &token, &["nodes"], "").await;
    assert!(said.code == 1 && said.err.contains("--admin-token-file"), "{said:?}");
    for path in ["/admin/v1/node", "/admin/v1/nowhere"] {
        let (status, body) = http(&admin, &format!("GET {path} HTTP/1.1"), "").await;
        assert!(status == 404 && body.contains("--admin-token-file"), "{status} {body}");
    }
    assert_eq!(http(&admin, "GET /healthz HTTP/1.1", "").await.0, 200);
    // A token that is none is found out before a node starts.
    let short = folder.path().join("short");
    std::fs::write(&short, "fifteen bytes..\n").unwrap();
    for (options, why) in [
        (vec!["--admin", &admin, "--admin-token-file", short.to_str().unwrap()], "16 bytes"),
        (vec!["--admin-token-file", token.to_str().unwrap()], "--admin"),
        (vec!["--admin", &admin, "--admin-token-file", "/does/not/exist"], "/does/not/exist"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chatserver"));
        command.args(["check-config", "127.0.0.1", "0", "--database", ":memory:"]).args(options);
        let output = timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && error.contains(why), "{error}");
        assert!(!error.contains("fifteen"), "{error}");
    }
}

/// What nobody but a defect or an enemy sends: it is refused in a sentence, and the node goes on.
#[tokio::test]
async fn nonsense_from_operators_is_refused() {
    let folder = TempDir::new().unwrap();
    let node = Node::alone(&folder).await;
    let (mut alice, _) = node.user("alice").await;
    let ask = async |method: &str, path: &str, body: &str| {
        let head = format!("{method} /admin/v1/{path} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}");
        http(&node.admin, &head, body).await
    };
    let long = format!("{{\"user\":\"{}\"}}", "x".repeat(20_000));
    for (method, path, body, status) in [
        ("POST", "kick", "", 400),
        ("POST", "kick", "[]", 400),
        ("POST", "kick", r#"{"user":7}"#, 400),
        ("POST", "kick", r#"{"user":"nobody"}"#, 404),
        ("POST", "kick", &long, 413),
        ("POST", "passwd", r#"{"user":"alice"}"#, 400),
        ("POST", "passwd", r#"{"user":"alice","password":""}"#, 400),
        ("GET", "kick", "", 405),
        ("DELETE", "users", "", 405),
        ("GET", "users?limit=-1", "", 400),
        ("GET", "users?after=nobody", "", 404),
        ("GET", "users?limit=99999999", "", 200),
        ("GET", "sessions?after=18446744073709551615", "", 200),
        ("GET", "sessions?user=nobody", "", 404),
        ("GET", "entry?conv=d1-1&seq=1", "", 400),
        ("GET", "entry?conv=d1-2&seq=18446744073709551615", "", 404),
        ("GET", "cursors?conv=g9&seq=18446744073709551615", "", 200),
        ("GET", "nowhere", "", 404),
        ("GET", "users?prefix=%ff%00", "", 200),
    ] {
        let (found, body) = ask(method, path, body).await;
        assert_eq!(found, status, "{method} {path}: {body}");
    }
    alice.ok(json!({"op": "ping"})).await;
}

/// Two nodes that have nothing but a database in common: what is done at one reaches the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_on_mysql() {
    if !docker::available("chatctl and two nodes", &[("CHAT_MYSQL_IMAGE", "chat-mysql:local")]).await {
        return;
    }
    let database = mysql::Server::start().await;
    let url = database.database("operators").await;
    let folder = TempDir::new().unwrap();
    let token = token_file(&folder);
    let nodes = [Node::on(&url, &token).await, Node::on(&url, &token).await];
    let ctl = Ctl::of(&[&nodes[0], &nodes[1]], &token);
    let (mut alice, _) = nodes[0].user("alice").await;
    let (bob, bobs) = nodes[1].user("bob").await;
    alice.ok(json!({"op": "befriend", "mid": mid(), "user": 2})).await;
    let seq = alice.say("d1-2", "hello").await.to_string();
    let mut bob = bob;
    bob.message("d1-2").await;
    let shown = ctl.json(&["sessions"]).await;
    let places = shown["sessions"].as_array().unwrap().iter();
    let places: Vec<_> = places.map(|row| (row["node"].clone(), row["name"].clone())).collect();
    assert_eq!(places, [(json!(nodes[0].admin), json!("alice")), (json!(nodes[1].admin), json!("bob"))]);
    let shown = ctl.json(&["why", "d1-2", &seq]).await;
    assert_eq!(shown["committed_by"], nodes[0].admin.as_str());
    let sessions = shown["sessions"].as_array().unwrap().iter();
    let sessions: Vec<_> = sessions.map(|row| (row["node"].clone(), row["user"].clone())).collect();
    assert_eq!(sessions, [(json!(nodes[0].admin), json!(1)), (json!(nodes[1].admin), json!(2))]);
    // The first node carries it out, the second serves the user.
    let at_first = Ctl::of(&[&nodes[0]], &token);
    at_first.says(&["ban", "bob"]).await;
    ends_as(bob, "revoked").await;
    for node in &nodes {
        assert_eq!(node.resume(&bobs).await, "bad_token");
        assert_eq!(node.login("bob", "bob").await, "banned");
    }
    Ctl::of(&[&nodes[1]], &token).says(&["unban", "bob"]).await;
    assert_eq!(nodes[0].login("bob", "bob").await, "ok");
    alice.ok(json!({"op": "ping"})).await;
}
