//! Clients that mean no good, against the real binary, while two users chat: each is answered as SPEC.md says or shut out, and the two notice
//! nothing.

mod tls;

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
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
    _data: TempDir,
    over: CancellationToken,
    chat: JoinHandle<u64>,
}

impl Siege {
    async fn new(options: &[&str]) -> Self {
        let data = TempDir::new().unwrap();
        let server = Server::start(data.path(), 0, options).await;
        let ((_, alice), (bob_number, bob)) = (user(&server, "alice").await, user(&server, "bob").await);
        Self::of(server, data, alice, bob_number, bob).await
    }

    /// Of a node on which the first two users have logged in.
    async fn of(server: Server, data: TempDir, mut alice: Wire, bob_number: u64, mut bob: Wire) -> Self {
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
        Self { server, _data: data, over, chat }
    }

    async fn connect(&self) -> Wire {
        let mut wire = Wire::connect(&self.server.address).await;
        assert_eq!(wire.line().await["push"], "hello");
        wire
    }

    async fn stream(&self) -> TcpStream {
        TcpStream::connect(&self.server.address).await.unwrap()
    }

    /// The two have chatted to the end, and the node has found no fault in itself.
    async fn lifts_with_nobody_disturbed(self) {
        self.over.cancel();
        let said = timeout(PATIENCE, self.chat).await.expect("the chat goes on").unwrap();
        assert!(said > 0);
        for line in self.server.log() {
            let line: Value = serde_json::from_str(&line).unwrap();
            assert!(line["level"] != "ERROR", "{line}");
            assert!(!line.to_string().contains("panicked"), "{line}");
        }
    }
}

async fn user(server: &Server, name: &str) -> (u64, Wire) {
    register(Wire::connect(&server.address).await, name).await
}

/// Registers and logs in on a connection.
async fn register(mut wire: Wire, name: &str) -> (u64, Wire) {
    assert_eq!(wire.line().await["push"], "hello");
    let reply = wire.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
    wire.login(name).await;
    (reply["user"].as_u64().unwrap(), wire)
}

/// The line's answer: `code` or `code field`; `ok`; or the push that ends the connection.
async fn answer(wire: &mut Wire) -> String {
    loop {
        let line = wire.line().await;
        if let Some(error) = line.get("error") {
            let (code, field) = (error["code"].as_str().unwrap(), error["field"].as_str());
            assert_eq!(error["definite"], true, "{line}");
            return field.map_or_else(|| code.to_owned(), |field| format!("{code} {field}"));
        }
        if line.get("ok").is_some() {
            return "ok".into();
        }
        if line["push"] == "closing" {
            return line["code"].as_str().unwrap().into();
        }
    }
}

/// What is wrong with a line, the line, and the answer. The connection goes on afterwards.
type BadLine = (&'static str, Vec<u8>, &'static str);

fn bad(name: &'static str, line: impl AsRef<[u8]>, answer: &'static str) -> BadLine {
    (name, line.as_ref().to_vec(), answer)
}

/// Lines that are bad on any connection.
fn bad_anywhere() -> Vec<BadLine> {
    let nested =
        |depth| format!("{{\"id\":1,\"op\":\"ping\",\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    vec![
        bad("white space", "   \t ", "malformed"),
        bad("no JSON", "hello", "malformed"),
        bad("half an object", "{\"id\":1,\"op\":\"ping\"", "malformed"),
        bad("two objects", "{\"id\":1,\"op\":\"ping\"}{\"id\":2,\"op\":\"ping\"}", "malformed"),
        bad("an array", "[1,2]", "malformed"),
        bad("a number", "1", "malformed"),
        bad("null", "null", "malformed"),
        bad("a byte order mark", "\u{feff}{\"id\":1,\"op\":\"ping\"}", "malformed"),
        bad("NUL bytes", "\0\0\0\0", "malformed"),
        bad("bytes that are no text", b"\xff\xfe\xfd", "malformed"),
        bad("UTF-16", b"{\0\"\0i\0d\0\"\0:\x001\0}\0", "malformed"),
        bad("text cut within a character", b"{\"id\":1,\"op\":\"\xe4\xbd\"}", "malformed"),
        bad("half a surrogate pair", r#"{"id":1,"op":"\ud800"}"#, "malformed"),
        bad("single quotes", "{'id':1,'op':'ping'}", "malformed"),
        bad("a trailing comma", r#"{"id":1,"op":"ping",}"#, "malformed"),
        bad("HTTP", "GET / HTTP/1.1\r", "malformed"),
        bad("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "malformed"),
        bad("an SSH banner", "SSH-2.0-OpenSSH_9.6\r", "malformed"),
        bad("a PROXY header that nobody expects", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r", "malformed"),
        bad("a terminal's escape sequence", "\x1b[2J\x1b]0;x\x07", "malformed"),
        bad("no op", r#"{"id":1}"#, "malformed"),
        bad("an op that is a number", r#"{"id":1,"op":7}"#, "malformed"),
        bad("two ops", r#"{"id":1,"op":"ping","op":"logout"}"#, "malformed"),
        bad("no id", r#"{"op":"ping"}"#, "bad_request id"),
        bad("an id that is null", r#"{"id":null,"op":"ping"}"#, "bad_request id"),
        bad("an id that is text", r#"{"id":"1","op":"ping"}"#, "malformed"),
        bad("a negative id", r#"{"id":-1,"op":"ping"}"#, "malformed"),
        bad("a fractional id", r#"{"id":1.5,"op":"ping"}"#, "malformed"),
        bad("an id beyond 64 bits", r#"{"id":18446744073709551616,"op":"ping"}"#, "malformed"),
        bad("the largest id", r#"{"id":18446744073709551615,"op":"ping"}"#, "ok"),
        bad("an unknown op", r#"{"id":1,"op":"sudo"}"#, "unknown_op"),
        bad("an op in capitals", r#"{"id":1,"op":"PING"}"#, "unknown_op"),
        bad("an op spelt with escapes", r#"{"id":1,"op":"\u0070ing"}"#, "ok"),
        bad("nesting where nobody looks", nested(1900), "ok"),
        bad("nesting in place of an op", format!("{{\"id\":1,\"op\":{}", "[".repeat(1900)), "malformed"),
        bad("fields of the future", r#"{"id":1,"op":"ping","from":"tomorrow","x":{"y":[null]}}"#, "ok"),
    ]
}

/// Lines that are bad before a login.
fn bad_before_login() -> Vec<BadLine> {
    let m = "000000000000000000000000000000aa";
    let register = |name: &str, password: &str| {
        json!({"id": 1, "op": "register", "mid": m, "name": name, "password": password}).to_string()
    };
    let login = |account: Value, password: Value| {
        json!({"id": 1, "op": "login", "account": account, "password": password}).to_string()
    };
    let resume = |token: Value, cursors: Value| {
        json!({"id": 1, "op": "resume", "token": token, "cursors": cursors}).to_string()
    };
    let token = "00".repeat(32);
    vec![
        bad(
            "a register without a mid",
            r#"{"id":1,"op":"register","name":"x","password":"x"}"#,
            "bad_request mid",
        ),
        bad(
            "a register without a name",
            format!(r#"{{"id":1,"op":"register","mid":"{m}","password":"x"}}"#),
            "bad_request name",
        ),
        bad(
            "a register without a password",
            format!(r#"{{"id":1,"op":"register","mid":"{m}","name":"x"}}"#),
            "bad_request password",
        ),
        bad(
            "a mid that is short",
            r#"{"id":1,"op":"register","mid":"aa","name":"x","password":"x"}"#,
            "bad_request mid",
        ),
        bad(
            "a mid that is long",
            format!(r#"{{"id":1,"op":"register","mid":"{m}00","name":"x","password":"x"}}"#),
            "bad_request mid",
        ),
        bad(
            "a mid with a letter too many",
            r#"{"id":1,"op":"register","mid":"g0000000000000000000000000000000","name":"x","password":"x"}"#,
            "bad_request mid",
        ),
        bad(
            "a mid that is a number",
            r#"{"id":1,"op":"register","mid":7,"name":"x","password":"x"}"#,
            "bad_request mid",
        ),
        bad("a name that is empty", register("", "x"), "bad_name name"),
        bad("a name of 33 characters", register(&"x".repeat(33), "x"), "bad_name name"),
        bad("a name that is all digits", register("42", "x"), "bad_name name"),
        bad("a name with a line break", register("a\nb", "x"), "bad_name name"),
        bad("a name with an escape sequence", register("a\u{1b}[31mb", "x"), "bad_name name"),
        bad("a name with a NUL", register("a\0b", "x"), "bad_name name"),
        bad("a name that turns the line round", register("a\u{202e}b", "x"), "bad_name name"),
        bad("a name with a space of no width", register("ali\u{200b}ce", "x"), "bad_name name"),
        bad("a name with an unusual space", register("a\u{2003}b", "x"), "bad_name name"),
        bad("a name with a space at its end", register("alice ", "x"), "bad_name name"),
        bad("another's name, in full width", register("\u{ff41}lice", "x"), "name_taken"),
        bad("another's name, in capitals", register("ALICE", "x"), "name_taken"),
        bad("a password that is empty", register("x", ""), "bad_password password"),
        bad("a password of 1,025 bytes", register("x", &"x".repeat(1025)), "bad_password password"),
        bad(
            "a password that is a list",
            format!(r#"{{"id":1,"op":"register","mid":"{m}","name":"x","password":["x"]}}"#),
            "bad_request password",
        ),
        bad("a login without an account", r#"{"id":1,"op":"login","password":"x"}"#, "bad_request account"),
        bad("an account that is a number", login(1.into(), "x".into()), "bad_request account"),
        bad(
            "an account beyond 64 bits",
            login("99999999999999999999999".into(), "x".into()),
            "bad_credentials",
        ),
        bad("account 0", login("0".into(), "x".into()), "bad_credentials"),
        bad("an account that is empty", login("".into(), "x".into()), "bad_credentials"),
        bad("an account of 3,000 characters", login("a".repeat(3000).into(), "x".into()), "bad_credentials"),
        bad("SQL for an account", login("alice' or 1=1 -- ".into(), "x".into()), "bad_credentials"),
        bad("a wrong password", login("alice".into(), "x".into()), "bad_credentials"),
        bad("no password", login("alice".into(), Value::Null), "bad_request password"),
        bad("a password of 3,000 bytes", login("alice".into(), "x".repeat(3000).into()), "bad_credentials"),
        bad("a token that was never given", resume(token.clone().into(), json!({})), "bad_token"),
        bad("a token that is short", resume("00".into(), json!({})), "bad_request token"),
        bad("a token that is no hexadecimal", resume("zz".repeat(32).into(), json!({})), "bad_request token"),
        bad("cursors that are a list", resume(token.clone().into(), json!([])), "bad_request cursors"),
        bad(
            "a cursor of a place that cannot be",
            resume(token.clone().into(), json!({"x1": 1})),
            "bad_request cursors",
        ),
        bad("a cursor below zero", resume(token.clone().into(), json!({"g1": -1})), "bad_request cursors"),
        bad(
            "more cursors than there was a resume for",
            r#"{"id":1,"op":"cursors","cursors":{}}"#,
            "bad_request op",
        ),
        bad(
            "a send before the login",
            format!(r#"{{"id":1,"op":"send","mid":"{m}","conv":"d1-2","text":"x"}}"#),
            "not_logged_in",
        ),
        bad("an ack before the login", r#"{"id":1,"op":"ack","cursors":{}}"#, "not_logged_in"),
        bad("a line of 4,097 bytes", vec![b'x'; 4097], "frame_too_long"),
        bad("a line of 100,000 bytes", vec![b'x'; 100_000], "frame_too_long"),
    ]
}

/// Lines that are bad in a session.
fn bad_in_a_session() -> Vec<BadLine> {
    let m = "000000000000000000000000000000bb";
    let send = |conv: Value, text: Value| {
        json!({"id": 1, "op": "send", "mid": m, "conv": conv, "text": text}).to_string()
    };
    let to = |op: &str, user: Value| json!({"id": 1, "op": op, "mid": m, "user": user}).to_string();
    let group = |op: &str, group: Value| json!({"id": 1, "op": op, "mid": m, "group": group}).to_string();
    let create = |name: Value, description: Value| {
        json!({"id": 1, "op": "create_group", "mid": m, "name": name, "description": description}).to_string()
    };
    let history = |fields: Value| {
        let mut request = json!({"id": 1, "op": "history", "conv": "d1-2"});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        request.to_string()
    };
    let many: Value =
        (1..=1001).map(|n| (format!("g{n}"), json!(1))).collect::<serde_json::Map<_, _>>().into();
    let passwd =
        |old: &str, new: &str| json!({"id": 1, "op": "passwd", "mid": m, "old": old, "new": new}).to_string();
    vec![
        bad("a send without a mid", r#"{"id":1,"op":"send","conv":"d1-2","text":"x"}"#, "bad_request mid"),
        bad("a send to nowhere", send(Value::Null, "x".into()), "bad_request conv"),
        bad("a send to a number", send(1.into(), "x".into()), "bad_request conv"),
        bad("a send to what is no conversation", send("e1".into(), "x".into()), "bad_request conv"),
        bad("a send to oneself", send("d3-3".into(), "x".into()), "bad_request conv"),
        bad("a send to a pair in the wrong order", send("d3-1".into(), "x".into()), "bad_request conv"),
        bad("a send to a number with a zero before it", send("g01".into(), "x".into()), "bad_request conv"),
        bad("a send to group 0", send("g0".into(), "x".into()), "bad_request conv"),
        bad(
            "a send to a group beyond 64 bits",
            send("g99999999999999999999".into(), "x".into()),
            "bad_request conv",
        ),
        bad("a send to a group that never was", send("g77".into(), "x".into()), "no_such_group"),
        bad("a send to others", send("d1-2".into(), "x".into()), "no_such_conversation"),
        bad("a send to a stranger", send("d1-3".into(), "x".into()), "not_friends"),
        bad("a send to another's notices", send("u1".into(), "x".into()), "no_such_conversation"),
        bad("a send to one's own notices", send("u3".into(), "x".into()), "no_such_conversation"),
        bad("a send without a text", send("d1-3".into(), Value::Null), "bad_request text"),
        bad("a send of nothing", send("d1-3".into(), "".into()), "bad_text text"),
        bad("a send of 65,537 bytes", send("d1-3".into(), "x".repeat(65_537).into()), "bad_text text"),
        bad("a text that is an object", send("d1-3".into(), json!({"a": 1})), "bad_request text"),
        bad("befriending nobody", to("befriend", Value::Null), "bad_request user"),
        bad("befriending number 0", to("befriend", 0.into()), "bad_request user"),
        bad("befriending a number below zero", to("befriend", (-1).into()), "bad_request user"),
        bad("befriending a fraction", to("befriend", 1.5.into()), "bad_request user"),
        bad("befriending a number beyond all", to("befriend", u64::MAX.into()), "bad_request user"),
        bad("befriending a name", to("befriend", "alice".into()), "bad_request user"),
        bad("befriending who never was", to("befriend", 4_000_000.into()), "no_such_user"),
        bad("befriending oneself", to("befriend", 3.into()), "self_target"),
        bad("unfriending a stranger", to("unfriend", 1.into()), "not_friends"),
        bad("blocking oneself", to("block", 3.into()), "self_target"),
        bad("blocking who never was", to("block", 4_000_000.into()), "no_such_user"),
        bad("unblocking a stranger", to("unblock", 1.into()), "not_blocked"),
        bad("a group without a name", create(Value::Null, "".into()), "bad_request name"),
        bad("a group with an empty name", create("".into(), "".into()), "bad_name name"),
        bad(
            "a group with a name of 65 characters",
            create("x".repeat(65).into(), "".into()),
            "bad_name name",
        ),
        bad("a group whose name turns round", create("a\u{202e}b".into(), "".into()), "bad_name name"),
        bad("a group without a description", create("x".into(), Value::Null), "bad_request description"),
        bad(
            "a group described in 257 characters",
            create("x".into(), "x".repeat(257).into()),
            "bad_text description",
        ),
        bad("joining no group", group("join", Value::Null), "bad_request group"),
        bad("joining group 0", group("join", 0.into()), "bad_request group"),
        bad("joining a group that never was", group("join", 77.into()), "no_such_group"),
        bad("quitting a group that never was", group("quit", 77.into()), "no_such_group"),
        bad("deleting a group that never was", group("delete_group", 77.into()), "no_such_group"),
        bad("members of a group that never was", r#"{"id":1,"op":"members","group":77}"#, "no_such_group"),
        bad("members after a word", r#"{"id":1,"op":"members","group":77,"after":"x"}"#, "bad_request after"),
        bad(
            "removing nobody",
            format!(r#"{{"id":1,"op":"remove_member","mid":"{m}","group":77}}"#),
            "bad_request user",
        ),
        bad(
            "friends after a number below zero",
            r#"{"id":1,"op":"friends","after":-1}"#,
            "bad_request after",
        ),
        bad("friends after the last number", r#"{"id":1,"op":"friends","after":18446744073709551615}"#, "ok"),
        bad("groups after the last number", r#"{"id":1,"op":"groups","after":18446744073709551615}"#, "ok"),
        bad("a history of others", history(json!({})), "no_such_conversation"),
        bad("a history of nothing", history(json!({"conv": "u3", "limit": 0})), "bad_request limit"),
        bad("a history of 101 entries", history(json!({"conv": "u3", "limit": 101})), "bad_request limit"),
        bad(
            "a history with a limit beyond 32 bits",
            history(json!({"conv": "u3", "limit": 1_u64 << 40})),
            "bad_request limit",
        ),
        bad("a history before a word", history(json!({"conv": "u3", "before": "x"})), "bad_request before"),
        bad("a history before the first entry", history(json!({"conv": "u3", "before": 0})), "ok"),
        bad(
            "an ack of too many",
            json!({"id": 1, "op": "ack", "cursors": many}).to_string(),
            "bad_request cursors",
        ),
        bad("an ack far ahead", r#"{"id":1,"op":"ack","cursors":{"u3":9007199254740991}}"#, "ok"),
        bad(
            "an ack beyond 64 bits",
            r#"{"id":1,"op":"ack","cursors":{"u3":18446744073709551616}}"#,
            "bad_request cursors",
        ),
        bad("an ack of others' logs", r#"{"id":1,"op":"ack","cursors":{"d1-2":1,"u1":1,"g77":1}}"#, "ok"),
        bad(
            "another login",
            r#"{"id":1,"op":"login","account":"alice","password":"alice"}"#,
            "already_logged_in",
        ),
        bad(
            "a resume",
            format!(r#"{{"id":1,"op":"resume","token":"{}"}}"#, "00".repeat(32)),
            "already_logged_in",
        ),
        bad("another password, with the old one wrong", passwd("wrong", "x"), "bad_credentials old"),
        bad("another password that is empty", passwd("mallory", ""), "bad_password new"),
        bad("a line of 131,073 bytes", vec![b'x'; 131_073], "frame_too_long"),
        bad("a line of 10 MB", vec![b'x'; 10_000_000], "frame_too_long"),
    ]
}

#[tokio::test]
async fn bad_lines_have_their_answers() {
    let siege = Siege::new(&["--account-failures", "100"]).await;
    let (_, mut mallory) = user(&siege.server, "mallory").await;
    let mut wrong = Vec::new();
    for (name, line, expected) in bad_anywhere().into_iter().chain(bad_in_a_session()) {
        mallory.send([&line[..], b"\n"].concat()).await;
        let found = timeout(PATIENCE / 2, answer(&mut mallory)).await;
        if found.as_deref() != Ok(expected) {
            wrong.push(format!("in a session, {name}: {found:?}, not {expected}"));
        }
    }
    mallory.ok(json!({"op": "ping"})).await;
    for (name, line, expected) in bad_anywhere().into_iter().chain(bad_before_login()) {
        // Ten bad lines end an anonymous connection.
        let mut wire = siege.connect().await;
        wire.send([&line[..], b"\n"].concat()).await;
        let found = timeout(PATIENCE / 2, answer(&mut wire)).await;
        if found.as_deref() != Ok(expected) {
            wrong.push(format!("before a login, {name}: {found:?}, not {expected}"));
        }
        wire.ok(json!({"op": "ping"})).await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    siege.lifts_with_nobody_disturbed().await;
}

/// The first bytes of a connection from a balancer: whatever is wrong with them ends it, without a word.
#[tokio::test]
async fn bad_proxy_headers_end_the_connection() {
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path(), 0, &["--proxy-protocol"]).await;
    let v2 = b"\r\n\r\n\0\r\nQUIT\n";
    let headers: [(&str, Vec<u8>); 11] = [
        ("none, but a request", b"{\"id\":1,\"op\":\"ping\"}\n".to_vec()),
        ("an unknown version", b"PROXY2 TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec()),
        ("an unknown family", b"PROXY TCP9 192.0.2.1 192.0.2.2 1 2\r\n".to_vec()),
        ("an address that is none", b"PROXY TCP4 192.0.2.999 192.0.2.2 1 2\r\n".to_vec()),
        ("a port that is none", b"PROXY TCP4 192.0.2.1 192.0.2.2 99999 2\r\n".to_vec()),
        ("too few words", b"PROXY TCP4 192.0.2.1\r\n".to_vec()),
        ("a line that does not end", [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat()),
        ("version 2, another version", [&v2[..], &[0x31, 0x11, 0, 12], &[0; 12]].concat()),
        ("version 2, too short for its addresses", [&v2[..], &[0x21, 0x11, 0, 1], &[0; 1]].concat()),
        ("version 2, 65,535 bytes", [&v2[..], &[0x21, 0x11, 0xff, 0xff], &[0; 2000]].concat()),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
    ];
    for (name, header) in headers {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(&header).await.unwrap();
        let mut said = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        // The end may be a reset, since not all was read.
        let _ = read.unwrap_or_else(|_| panic!("{name}: it does not end"));
        assert_eq!(String::from_utf8_lossy(&said), "", "{name}");
    }
    let mut wire = Wire::connect(&server.address).await;
    wire.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").await;
    assert_eq!(wire.line().await["push"], "hello");
}

/// Ways to hold on to a connection, and what ends each.
#[tokio::test]
async fn who_only_holds_on_is_shut_out() {
    let siege = Siege::new(&["--login-timeout", "1", "--idle-timeout", "3"]).await;
    let mut connected = siege.connect().await;
    let mut half_a_line = siege.connect().await;
    half_a_line.send("{\"id\":1,\"op\":").await;
    let (mut only_pings, mut byte_by_byte) = (siege.connect().await, siege.connect().await);
    let (_, mut silent) = user(&siege.server, "silent").await;
    for byte in b"{\"id\":1," {
        byte_by_byte.send([*byte]).await;
        only_pings.ok(json!({"op": "ping"})).await;
        sleep(Duration::from_millis(50)).await;
    }
    let anonymous = [
        ("connected", &mut connected),
        ("half a line", &mut half_a_line),
        ("only pings", &mut only_pings),
        ("byte by byte", &mut byte_by_byte),
    ];
    for (name, wire) in anonymous {
        assert_eq!(answer(wire).await, "login_timeout", "{name}");
        assert!(wire.try_line().await.is_none(), "{name}");
    }
    assert_eq!(answer(&mut silent).await, "idle");
    siege.lifts_with_nobody_disturbed().await;
}

/// A client that asks for much and reads nothing costs its outbox, and ends when it has taken nothing for too long.
#[tokio::test]
async fn who_asks_and_does_not_read_holds_up_nobody() {
    let siege = Siege::new(&[]).await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = siege.stream().await;
        let flood = "{\"id\":1,\"op\":\"ping\"}\n".repeat(20_000);
        let written = timeout(Duration::from_millis(200), stream.write_all(flood.as_bytes())).await;
        deaf.push((stream, written.is_ok()));
    }
    let _ = user(&siege.server, "newcomer").await;
    siege.lifts_with_nobody_disturbed().await;
}

/// Connections that come and go: at once, with a reset, after half a request, in the middle of a login.
#[tokio::test]
async fn who_comes_and_goes_leaves_nothing_behind() {
    let siege = Siege::new(&[]).await;
    let login = "{\"id\":1,\"op\":\"login\",\"account\":\"alice\",\"password\":\"alice\"}\n";
    for round in 0..200 {
        let mut stream = siege.stream().await;
        match round % 4 {
            0 => {}
            1 => stream.set_zero_linger().unwrap(),
            2 => stream.write_all(&login.as_bytes()[..20]).await.unwrap(),
            _ => stream.write_all(login.as_bytes()).await.unwrap(),
        }
    }
    let (_, mut newcomer) = user(&siege.server, "newcomer").await;
    newcomer.ok(json!({"op": "friends"})).await;
    siege.lifts_with_nobody_disturbed().await;
}

/// Everything at once on one line that never ends: it is skipped, not kept.
#[tokio::test]
async fn a_line_that_never_ends_is_not_kept() {
    let siege = Siege::new(&[]).await;
    let before = resident_kib(&siege.server);
    let (_, mut mallory) = user(&siege.server, "mallory").await;
    for _ in 0..64 {
        mallory.send(vec![b'x'; 1 << 20]).await;
    }
    mallory.send("\n").await;
    assert_eq!(answer(&mut mallory).await, "frame_too_long");
    mallory.ok(json!({"op": "ping"})).await;
    let grown = resident_kib(&siege.server).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for a line of 64 MiB");
    siege.lifts_with_nobody_disturbed().await;
}

fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
