//! An embedded database that moves to MySQL, by `chatserver migrate-data`: nobody notices but by the address. SPEC.md, guarantees 1 to 6;
//! OPERATING.md.

use std::{collections::BTreeSet, path::Path};

use protocol::{ClientMsgId, ConversationId, EntryBody, GroupId, Seq, UserId};
use serde_json::{Value, json};
use server::store::{NewEntry, NewUser, Outcome, Store, sqlite::SqliteStore};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{process::Command, time::Instant};

use crate::{
    docker::available,
    harness::{Wire, mid},
    mysql::{self, IMAGE},
    process::Server,
};

/// Text in which every way of quoting has something to get wrong.
const TEXT: &str = "it's \\ \"quoted\"; -- \u{0}\r\n\t % _ ` 👋 \u{10ffff} ";

/// Runs the binary to its end: its exit code, and what it said on both streams.
pub(crate) async fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chatserver")).args(arguments).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Changes a database's file behind everybody's back.
pub(crate) async fn change_file(path: &Path, sql: &str) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn change_server(url: &str, sql: &str) {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_database_moves_to_mysql() {
    if !available("moving a database to MySQL", &[IMAGE]).await {
        return;
    }
    let mysql = mysql::Server::start().await;
    everything_moves(&mysql).await;
    an_unfinished_copy_is_no_database(&mysql).await;
    many_messages(&mysql).await;
}

/// What users had on the first node, to be found on the second.
struct Before {
    /// Requests that were answered, with their answers.
    answered: Vec<(Value, Value)>,
    /// Of bob, who is away from the third message on.
    token: Value,
    /// What alice sees of each conversation.
    histories: Vec<(&'static str, Value)>,
}

async fn everything_moves(mysql: &mysql::Server) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let from = format!("sqlite:{}", path.display());
    let url = mysql.database("moved").await;
    let node = Server::start(folder.path(), 0, &[]).await;
    let before = live(&node.address).await;
    // Not while the file is in use, and then nothing was begun.
    let (code, _, log) = run(&["migrate-data", "--from", &from, "--to", &url]).await;
    assert!(code == 1 && log.contains("in use by another chatserver"), "{log}");
    assert!(node.signal("-TERM").await.0.success());
    let (code, _, log) = run(&["erase-user", "--database", &from, "dave"]).await;
    assert_eq!(code, 0, "{log}");
    // Numbers of rows that are no more are not given again; and retention goes on where it was.
    change_file(
        &path,
        "update sqlite_sequence set seq = 50 where name = 'user'; \
         update retention set at = 5, conversation = (select min(conversation) from entry), seq = 1",
    )
    .await;

    let command = ["migrate-data", "--from", &from, "--to", &url];
    let (code, shown, log) = run(&command).await;
    assert_eq!(code, 0, "{shown}{log}");
    println!("{shown}");
    // Whoever adds a table decides what its copy means, and adds rows of it to this test.
    let tables: Vec<&str> =
        shown.lines().filter(|line| line.contains("rows")).filter_map(|l| l.split(' ').next()).collect();
    let all =
        ["chat_group", "delivered", "deployment", "entry", "friend", "membership", "retention", "token"];
    assert_eq!(tables, [&all[..], &["user"]].concat());
    for line in shown.lines().filter(|line| line.contains("rows")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (rows, hash) = ((fields[2], fields[6]), (fields[4].trim_end_matches(','), fields[8]));
        assert!(rows.0 == rows.1 && rows.0 != "0", "there are rows of each table: {line}");
        assert_eq!(hash.0, hash.1.trim_end_matches(';'), "{line}");
    }
    let (code, shown, log) = run(&command).await;
    assert!(code == 1 && log.contains("is not empty"), "{shown}{log}");
    differences_are_found(&command, &url).await;

    let node = Server::start_on(&["--database", &url], 0).await;
    let (code, _, log) = run(&["migrate-data", "--from", &from, "--to", &url]).await;
    assert!(code == 1 && log.contains("is not empty"), "{log}");
    goes_on(&node.address, &before).await;
}

/// Whatever is changed on one side is found, and the row named.
async fn differences_are_found(command: &[&str], url: &str) {
    let compare = async || run(&[command, &["--compare"]].concat()).await;
    let (code, shown, log) = compare().await;
    assert!(code == 0 && shown.ends_with("both sides are the same\n"), "{shown}{log}");
    let changes = [
        // The first message of d1-2: a letter, and a thousandth of a second.
        (
            "entry",
            "update entry set body = concat(body, 'x') where kind = 1 limit 1",
            "update entry set body = left(body, char_length(body) - 1) where body like '%x' limit 1",
        ),
        (
            "entry",
            "update entry set committed_at = committed_at + interval 1000 microsecond where seq = 1 and sender = 1",
            "update entry set committed_at = committed_at - interval 1000 microsecond where seq = 1 and sender = 1",
        ),
        (
            "delivered",
            "insert into delivered values (77, 77, 77)",
            "delete from delivered where user_id = 77",
        ),
        ("membership", "update membership set until_seq = 9 where until_seq is null and user_id = 2", ""),
        ("membership", "", "update membership set until_seq = null where until_seq = 9 and user_id = 2"),
        ("deployment", "update deployment set id = reverse(id)", "update deployment set id = reverse(id)"),
    ];
    for (table, change, back) in changes {
        if !change.is_empty() {
            change_server(url, change).await;
            let (code, shown, log) = compare().await;
            assert_eq!(code, 1, "{change}: {shown}{log}");
            let line = shown.lines().find(|line| line.starts_with(table)).unwrap();
            assert!(line.contains("the first difference is at ") && line.contains("THEY DIFFER"), "{line}");
        }
        if !back.is_empty() {
            change_server(url, back).await;
        }
    }
    let (code, shown, log) = compare().await;
    assert_eq!(code, 0, "all is as it was: {shown}{log}");
}

async fn user(address: &str, name: &str, requests: &mut Vec<(Value, Value)>) -> Wire {
    let mut wire = Wire::connect(address).await;
    let request = json!({"op": "register", "mid": mid(), "name": name, "password": name});
    let reply = wire.ok(request.clone()).await;
    requests.push((request, reply));
    wire
}

/// Users do everything that leaves a row.
async fn live(address: &str) -> Before {
    let mut answered = Vec::new();
    let mut alice = user(address, "alice", &mut answered).await;
    alice.login("alice").await;
    let mut bob = user(address, "bob", &mut answered).await;
    let token = bob.login("bob").await["token"].clone();
    let mut carol = user(address, "carol", &mut answered).await;
    carol.login("carol").await;
    let mut dave = user(address, "dave", &mut answered).await;
    dave.login("dave").await;
    // Only alice's can be repeated by the session that does so later.
    answered.clear();
    let mut asks = |request: Value, reply: &Value| answered.push((request, reply.clone()));

    for request in [
        json!({"op": "befriend", "mid": mid(), "user": 2}),
        json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": TEXT}),
        json!({"op": "create_group", "mid": mid(), "name": "happy game", "description": "it's \\ 👋 \"quoted\""}),
        json!({"op": "create_group", "mid": mid(), "name": "short", "description": ""}),
        json!({"op": "delete_group", "mid": mid(), "group": 2}),
    ] {
        let reply = alice.ok(request.clone()).await;
        asks(request, &reply);
    }
    let mut others = [bob, carol, dave];
    for (who, request) in [
        (0, json!({"op": "join", "mid": mid(), "group": 1})),
        (1, json!({"op": "join", "mid": mid(), "group": 1})),
        (1, json!({"op": "quit", "mid": mid(), "group": 1})),
        (1, json!({"op": "join", "mid": mid(), "group": 1})),
        (1, json!({"op": "befriend", "mid": mid(), "user": 2})),
        (0, json!({"op": "block", "mid": mid(), "user": 3})),
        (1, json!({"op": "passwd", "mid": mid(), "old": "carol", "new": "changed"})),
        (2, json!({"op": "befriend", "mid": mid(), "user": 1})),
        (2, json!({"op": "send", "mid": mid(), "conv": "d1-4", "text": "to be erased"})),
    ] {
        others[who].ok(request).await;
    }
    let [mut bob, ..] = others;
    bob.so_far().await;
    bob.ok(json!({"op": "ack", "cursors": {"d1-2": 2, "g1": 2}})).await;
    drop(bob);
    for text in ["one", "two"] {
        alice.say("d1-2", text).await;
        alice.say("g1", text).await;
    }
    let mut histories = Vec::new();
    for conv in ["d1-2", "g1"] {
        histories.push((conv, alice.ok(json!({"op": "history", "conv": conv})).await));
    }
    Before { answered, token, histories }
}

/// The users go on, on another database.
async fn goes_on(address: &str, before: &Before) {
    let mut alice = Wire::connect(address).await;
    alice.login("alice").await;
    for (conv, history) in &before.histories {
        let now = alice.ok(json!({"op": "history", "conv": conv})).await;
        assert_eq!(now, *history, "{conv}");
    }
    for (request, reply) in &before.answered {
        assert_eq!(alice.ok(request.clone()).await, *reply, "{request}");
    }
    // Offline messages, once: for who resumes with cursors, and for who logs in.
    let resume = json!({"op": "resume", "token": before.token, "cursors": {"d1-2": 3, "g1": 3}});
    let mut bob = Wire::connect(address).await;
    let reply = bob.ok(resume).await;
    assert!(reply.get("refused").is_none_or(|refused| refused.as_object().unwrap().is_empty()), "{reply}");
    bob.find("caught_up", |line| line["push"] == "caught_up").await;
    assert_eq!(messages(&mut bob).await, ["d1-2 4 two", "g1 6 one", "g1 7 two"]);
    drop(bob);
    let mut bob = Wire::connect(address).await;
    bob.login("bob").await;
    assert_eq!(messages(&mut bob).await, ["d1-2 3 one", "d1-2 4 two", "g1 6 one", "g1 7 two"]);
    bob.ok(json!({"op": "ack", "cursors": {"d1-2": 4, "g1": 7}})).await;
    let mut again = Wire::connect(address).await;
    again.login("bob").await;
    assert_eq!(messages(&mut again).await, [""; 0]);

    let mut carol = Wire::connect(address).await;
    assert_eq!(
        carol.error(json!({"op": "login", "account": "carol", "password": "carol"})).await,
        "bad_credentials"
    );
    carol.ok(json!({"op": "login", "account": "carol", "password": "changed"})).await;
    let send = json!({"op": "send", "mid": mid(), "conv": "d2-3", "text": "x"});
    assert_eq!(carol.error(send).await, "blocked");
    // The name of an erased account is known by a hash that the deployment's id is part of.
    let register = |name: &str| json!({"op": "register", "mid": mid(), "name": name, "password": "x"});
    let mut anybody = Wire::connect(address).await;
    assert_eq!(anybody.error(register("Dave")).await, "name_taken");
    assert_eq!(anybody.ok(register("eve")).await["user"], 51, "no number is given twice");
    let create = json!({"op": "create_group", "mid": mid(), "name": "new", "description": ""});
    assert_eq!(alice.ok(create).await["group"], 3);
    assert_eq!(alice.say("d1-2", "goes on").await, 5);
    assert_eq!(bob.message("d1-2").await, "goes on");
}

/// The messages that were pushed so far: where, and what.
async fn messages(wire: &mut Wire) -> Vec<String> {
    let lines = wire.so_far().await;
    let messages = lines.iter().filter(|line| line["push"] == "entry" && line["kind"] == "message");
    let one = |line: &Value| {
        let [conv, text] = ["conv", "text"].map(|field| line[field].as_str().unwrap().to_owned());
        format!("{conv} {} {text}", line["seq"])
    };
    messages.map(one).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A copy that failed half-way is taken by no node for a database; repeated, it becomes one.
async fn an_unfinished_copy_is_no_database(mysql: &mysql::Server) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let (from, url) = (format!("sqlite:{}", path.display()), mysql.database("unfinished").await);
    let command = ["migrate-data", "--from", &from, "--to", &url];
    let (code, _, log) = run(&command).await;
    assert!(code == 1 && log.contains("there is no such database") && !path.exists(), "{log}");
    fill(&path, 3, 10).await;
    // What the schema of the server has no room for: the logs are copied before the users.
    change_file(&path, "update user set name = name || hex(zeroblob(200)) where id = 2").await;
    let (code, shown, log) = run(&command).await;
    assert!(code == 1 && log.contains("Data too long"), "{shown}{log}");
    let (code, _, log) = run(&["127.0.0.1", "0", "--database", &url]).await;
    assert!(code == 1 && log.contains("unfinished copy"), "{log}");
    let (code, _, log) = run(&["migrate", "--database", &url]).await;
    assert!(code == 1 && log.contains("unfinished copy"), "{log}");
    change_file(&path, "update user set name = 'u2' where id = 2").await;
    // Somebody else is there.
    let other = MySqlConnection::connect(&url).await.unwrap();
    let (code, shown, log) = run(&command).await;
    assert!(code == 1 && log.contains("other sessions are connected"), "{shown}{log}");
    other.close().await.unwrap();
    let (code, shown, log) = run(&command).await;
    assert!(code == 0, "{shown}{log}");
    Server::start_on(&["--database", &url], 0).await;
}

/// Makes a database of so many users, all in one group, and so many messages, through the store.
pub(crate) async fn fill(path: &Path, users: u64, messages: u64) {
    const BATCH: u64 = 1000;
    const CONVERSATIONS: u64 = 20;
    let store = SqliteStore::open(path).await.unwrap();
    for user in 1..=users {
        let name = format!("u{user}");
        let mid = ClientMsgId(u128::from(user).to_be_bytes());
        let new = NewUser { mid, name_key: name.clone(), name, password_hash: "x".into(), at: 1 };
        store.register(&new).await.unwrap();
    }
    let mut entries = Vec::new();
    for n in 0..messages {
        let group = GroupId::new(1 + n % CONVERSATIONS).unwrap();
        entries.push(NewEntry {
            conv: ConversationId::group(group),
            seq: Seq(1 + n / CONVERSATIONS),
            from: UserId::new(1 + n % users).unwrap(),
            mid: ClientMsgId(u128::from(n).to_be_bytes()),
            at: 1_700_000_000_000 + n as i64,
            body: EntryBody::Message { text: format!("{n} {TEXT}{}", "x".repeat((n % 150) as usize)) },
        });
        if entries.len() as u64 == BATCH || n + 1 == messages {
            assert_eq!(store.append(&entries).await.unwrap(), Outcome::Committed);
            entries.clear();
        }
    }
    store.close().await;
}

/// `CHAT_TRANSFER_MESSAGES=100000` for the run that OPERATING.md speaks of.
async fn many_messages(mysql: &mysql::Server) {
    let wanted = std::env::var("CHAT_TRANSFER_MESSAGES").unwrap_or_else(|_| "10000".into());
    let messages: u64 = wanted.parse().expect("a number of messages");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let (from, url) = (format!("sqlite:{}", path.display()), mysql.database("many").await);
    fill(&path, 50, messages).await;
    let began = Instant::now();
    let (code, shown, log) = run(&["migrate-data", "--from", &from, "--to", &url]).await;
    println!("{messages} messages copied and compared in {:.1?}:\n{shown}", began.elapsed());
    assert_eq!(code, 0, "{log}");
    let entries = shown.lines().find(|line| line.starts_with("entry")).unwrap();
    assert_eq!(entries.matches(&format!(" {messages} rows ")).count(), 2, "{entries}");
    assert!(
        log.contains("copied") && log.contains(&format!("of={messages}")),
        "it says how far it is: {log}"
    );
}
