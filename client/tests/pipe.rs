//! The real `chatclient`, fed from a pipe, with a server that plays a script.

#![expect(clippy::unwrap_used, reason = "the lint's exception for tests does not reach their helpers")]

mod fake;

use std::{
    io::Write,
    process::{Child, ChildStdin, Command, Output, Stdio},
    time::Duration,
};

use fake::Peer;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// The screens between the login and the first message.
const SCREENS: &str = "\
--------------------------------login user-------------------------------
current user => account:1 username:kirito
--------------------------------friend list------------------------------
        ID                NAME                                   STATE
         2                 kir                                 offline
--------------------------------group list--------------------------------
        ID                NAME                                    DESC
         7          happy game                              happy play
--------------------------------------------------------------------------
Type `help` to see other commands.
";
const MENU: &str = "========================\n1. login  2. register  3. quit\n========================\n";
const LOGIN: &str = "1\nkirito\nasuna\n";
/// When every message of the fake server was said.
const AT: &str = "2023-11-14 22:13:20";

struct World {
    listener: TcpListener,
    program: Child,
    input: Option<ChildStdin>,
}

/// Starts the program on a script. Its input stays open.
async fn start(arguments: &[&str], script: &str) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut program = Command::new(env!("CARGO_BIN_EXE_chatclient"))
        .args(["127.0.0.1", &port])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = program.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    World { listener, program, input: Some(input) }
}

impl World {
    async fn greet(&self) -> Peer<TcpStream> {
        let accepted = timeout(Duration::from_secs(20), self.listener.accept()).await.expect("a connection");
        Peer::greet(accepted.unwrap().0).await
    }

    fn type_in(&mut self, script: &str) {
        self.input.as_mut().unwrap().write_all(script.as_bytes()).unwrap();
    }

    /// Ends the input.
    fn close(&mut self) {
        drop(self.input.take());
    }

    /// Ends the input and waits for the program: its exit code, and its output without the help.
    fn end(mut self) -> (i32, String) {
        self.close();
        let Output { status, stdout, stderr } = self.program.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(stderr).unwrap(), "");
        let stdout = String::from_utf8(stdout).unwrap();
        assert!(!stdout.contains('\u{1b}'), "{stdout}");
        let without_help = match stdout.split_once("-------------------------------command list") {
            Some((before, after)) => {
                let foot = "\n--------------------------------------------------------------------------\n";
                before.to_owned() + after.split_once(foot).unwrap().1
            }
            None => stdout,
        };
        (status.code().unwrap(), without_help)
    }
}

/// Lets the program end: it confirms these cursors, if any, and logs out.
async fn expect_leaving(server: &mut Peer<TcpStream>, cursors: Value) {
    let mut request = server.next().await.expect("a request");
    if cursors != json!({}) {
        let mut confirmed = json!({});
        while request["op"] == "ack" {
            for (conv, seq) in request["cursors"].as_object().unwrap() {
                confirmed[conv] = seq.clone();
            }
            if request["id"].is_u64() {
                server.ok(&request, json!({})).await;
            }
            request = server.next().await.expect("a request");
        }
        assert_eq!(confirmed, cursors);
    }
    assert_eq!(request["op"], "logout");
    server.ok(&request, json!({})).await;
    server.say(json!({"push": "closing", "code": "logged_out"})).await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_said_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_chatclient"))
        .args(["127.0.0.1", "1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("chatclient: cannot reach 127.0.0.1:1: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

#[tokio::test]
async fn registering_and_quitting_at_the_menu() {
    let world = start(&[], "2\nkirito\nasuna\n2\nkir\nx\n3\n").await;
    let mut server = world.greet().await;
    let register = server.answer("register", json!({"user": 2019})).await;
    assert_eq!((&register["name"], &register["password"]), (&json!("kirito"), &json!("asuna")));
    server.refuse("register", "name_taken").await;
    let expected = format!("{MENU}registered, account:2019\n{MENU}that name is taken\n{MENU}");
    assert_eq!(world.end(), (1, expected));
}

/// What was missed comes after the screens, grouped by conversation; then the program confirms it and logs out.
#[tokio::test]
async fn missed_messages_are_shown_by_conversation_and_confirmed() {
    let world = start(&[], &format!("{LOGIN}quit\n")).await;
    let mut server = world.greet().await;
    server.log_in().await;
    server.open("g7", 0).await;
    server.open("d1-2", 4).await;
    server.message("g7", 1, "in the group").await;
    server.message("d1-2", 5, "one").await;
    server.message("g7", 2, "again").await;
    server.lists().await;
    server.message("d1-2", 6, "two\u{1b}[2J\u{202e}\nthree").await;
    server.say(json!({"push": "caught_up"})).await;
    expect_leaving(&mut server, json!({"g7": 2, "d1-2": 6})).await;
    let expected = format!(
        "{MENU}{SCREENS}while you were away:\n{AT} kir(2): one\n{AT} kir(2): two\\u{{1b}}[2J\\u{{202e}}\\nthree\n\
         {AT} [happy game(7)] kir(2): in the group\n{AT} [happy game(7)] kir(2): again\nlogged out\n"
    );
    assert_eq!(world.end(), (0, expected));
}

/// Each command's outcome is waited for, also when its entry comes before its reply; a failed one does not stop the
/// rest; the end of the input is a `quit`.
#[tokio::test]
async fn commands_are_carried_out_one_after_the_other() {
    let script = format!("{LOGIN}chat:2:a: b\n\nchat:3:x\ndance\ngroupchat:7:hi\ncreategroup:new:\n");
    let mut world = start(&[], &script).await;
    let mut server = world.greet().await;
    server.log_in_with_lists().await;
    let send = server.expect("send").await;
    assert_eq!((&send["conv"], &send["text"]), (&json!("d1-2"), &json!("a: b")));
    server.ok(&send, json!({"seq": 1})).await;
    let early = timeout(Duration::from_millis(200), server.next()).await;
    assert!(early.is_err(), "the next command waits for the entry: {early:?}");
    server.open("d1-2", 0).await;
    server.entry("d1-2", 1, 1, send["mid"].as_str().unwrap(), "a: b").await;
    server.refuse("send", "not_friends").await;
    let send = server.expect("send").await;
    server.open("g7", 0).await;
    server.entry("g7", 1, 1, send["mid"].as_str().unwrap(), "hi").await;
    server.ok(&send, json!({"seq": 1})).await;
    let create = server.expect("create_group").await;
    server.ok(&create, json!({"group": 8, "seq": 1})).await;
    server.open("g8", 0).await;
    server
        .say(json!({
            "push": "entry", "conv": "g8", "seq": 1, "at": 0, "from": 1, "name": "kirito", "mid": create["mid"],
            "kind": "created", "title": "new",
        }))
        .await;
    world.close();
    expect_leaving(&mut server, json!({"d1-2": 1, "g7": 1, "g8": 1})).await;
    let expected = format!(
        "{MENU}{SCREENS}{AT} kirito(1) to kir(2): a: b\nyou and user 3 are not friends\n\
         there is no command `dance`; type `help` to see them all\n{AT} [happy game(7)] kirito(1): hi\n\
         group created, groupid:8\nlogged out\n"
    );
    assert_eq!(world.end(), (1, expected));
}

/// While the program waits for input it prints what arrives, and a lost connection is no failure.
#[tokio::test]
async fn pushes_arrive_while_the_input_is_open_and_the_connection_may_be_lost() {
    let mut world = start(&[], LOGIN).await;
    let mut server = world.greet().await;
    server.log_in_with_lists().await;
    server.open("d1-2", 0).await;
    server.message("d1-2", 1, "one").await;
    server.say(json!({"push": "presence", "user": 2, "state": "online"})).await;
    // Nothing was typed, and yet it is there: confirmed, so shown.
    assert_eq!(server.expect("ack").await["cursors"], json!({"d1-2": 1}));
    drop(server);
    let mut server = world.greet().await;
    assert_eq!(server.resume().await, json!({"d1-2": 1}));
    server.message("d1-2", 1, "one").await;
    server.message("d1-2", 2, "two").await;
    world.type_in("showme\n");
    let kir = json!({"user": 2, "name": "kir", "state": "offline", "friend": true, "blocked": false});
    server.answer("friends", json!({"friends": [kir]})).await;
    server.answer("groups", json!({"groups": []})).await;
    world.type_in("quit\n");
    expect_leaving(&mut server, json!({"d1-2": 2})).await;
    let screens =
        SCREENS.replace("         7          happy game                              happy play\n", "");
    let expected = format!(
        "{MENU}{SCREENS}{AT} kir(2): one\nkir(2) is online\nconnection lost; reconnecting\n\
         reconnected\n{AT} kir(2): two\n{screens}logged out\n"
    );
    assert_eq!(world.end(), (0, expected));
}

/// A failed login leads back to the menu, and counts.
#[tokio::test]
async fn a_failed_login_leads_back_to_the_menu() {
    let mut world = start(&[], &format!("1\nkirito\nwrong\n{LOGIN}")).await;
    let mut server = world.greet().await;
    server.refuse("login", "bad_credentials").await;
    server.log_in_with_lists().await;
    world.close();
    expect_leaving(&mut server, json!({})).await;
    assert_eq!(world.end(), (1, format!("{MENU}wrong account or password\n{MENU}{SCREENS}logged out\n")));
}

/// With `--json` every line is an object, safe on a terminal and lossless.
#[tokio::test]
async fn events_as_json() {
    let world = start(&["--json"], &format!("{LOGIN}chat:3:x\nlist:7\nquit\n")).await;
    let mut server = world.greet().await;
    server.log_in().await;
    server.open("d1-2", 0).await;
    server.message("d1-2", 1, "\u{9b}31m\u{202e}").await;
    server.lists().await;
    server.say(json!({"push": "caught_up"})).await;
    server.refuse("send", "not_friends").await;
    let member = json!({"user": 1, "name": "kirito", "role": "creator", "state": "online"});
    server.answer("members", json!({"members": [member]})).await;
    expect_leaving(&mut server, json!({"d1-2": 1})).await;
    let (code, output) = world.end();
    assert_eq!(code, 1);
    assert!(output.contains(r"\u009b31m\u202e"), "{output}");
    let lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(
        events,
        ["menu", "logged_in", "friends", "groups", "entry", "caught_up", "outcome", "members", "outcome"]
    );
    assert_eq!(lines[4]["text"], "\u{9b}31m\u{202e}");
    assert_eq!(
        lines[6],
        json!({
            "event": "outcome", "command": "chat", "ok": false, "code": "not_friends", "definite": true,
            "message": "you and user 3 are not friends",
        })
    );
    assert_eq!(lines[8]["ok"], true);
}

/// A session that the server has ended is said so, and what was typed for it is not done.
#[tokio::test]
async fn a_session_that_has_ended_leads_back_to_the_menu() {
    let mut world = start(&[], LOGIN).await;
    let mut server = world.greet().await;
    server.log_in_with_lists().await;
    drop(server);
    let mut server = world.greet().await;
    server.refuse("resume", "bad_token").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.type_in("chat:2:hello\n3\n");
    let expected = format!(
        "{MENU}{SCREENS}connection lost; reconnecting\nthe session has ended; log in again\n\
         the session has ended; log in again\n{MENU}"
    );
    assert_eq!(world.end(), (1, expected));
}

/// Standard output that nobody reads any more ends the program without a panic, and nothing unseen is confirmed.
#[tokio::test]
async fn a_closed_output_ends_the_program() {
    let mut world = start(&[], LOGIN).await;
    let mut server = world.greet().await;
    server.log_in().await;
    drop(world.program.stdout.take());
    server.open("d1-2", 0).await;
    server.message("d1-2", 1, "one").await;
    let mut request = server.next().await.unwrap();
    while request["op"] != "logout" {
        assert_ne!(request["op"], "ack");
        let answer = if request["op"] == "friends" { json!({"friends": []}) } else { json!({"groups": []}) };
        server.ok(&request, answer).await;
        request = server.next().await.unwrap();
    }
    server.ok(&request, json!({})).await;
    let Output { status, stderr, .. } = world.program.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(String::from_utf8(stderr).unwrap(), "");
}
