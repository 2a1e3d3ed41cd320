//! Backups that are made while users write, and what clients find after one was put back. OPERATING.md; SPEC.md, guarantees 1 and 2, section 5.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
};

use client::{Client, Config, Event, Events};
use protocol::{ConversationId, EntryBody, Tcp, clock::SystemEntropy};
use serde_json::{Value, json};
use sqlx::{Connection as _, MySqlConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use testcontainers::core::ExecCommand;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    docker::available,
    harness::{PATIENCE, Wire, mid},
    mysql::{self, IMAGE},
    process::Server,
    transfer::run,
};

/// Logs whose entries are not numbered 1, 2, 3 … without gaps.
const GAPS: &str = "select count(*) from \
    (select conversation from entry group by conversation having count(*) <> max(seq) or min(seq) <> 1) x";
/// Messages acknowledged before a backup begins, and again after it was made.
const SOME: usize = 60;

/// Messages that were acknowledged, by seq.
type Acknowledged = BTreeMap<u64, String>;

/// Users who write to one group as fast as they are answered, and one who listens.
struct Load {
    acknowledged: Arc<Mutex<Acknowledged>>,
    enough: CancellationToken,
    writers: Vec<JoinHandle<()>>,
    listener: (Client, Events),
    token: Value,
}

impl Load {
    async fn start(address: &str, tracker: &TaskTracker) -> Self {
        let (acknowledged, enough) = (Arc::<Mutex<Acknowledged>>::default(), CancellationToken::new());
        let mut writers = Vec::new();
        for writer in 0..3 {
            let mut wire = Wire::connect(address).await;
            let name = format!("writer{writer}");
            wire.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
            wire.login(&name).await;
            let request = match writer {
                0 => json!({"op": "create_group", "mid": mid(), "name": "all", "description": ""}),
                _ => json!({"op": "join", "mid": mid(), "group": 1}),
            };
            wire.ok(request).await;
            writers.push(wire);
        }
        // The listener has seen everything: its cursor is above whatever a backup holds.
        let config = Config { confirm_automatically: true, ..Config::default() };
        let listener = Client::start(Tcp, address, config, Arc::new(SystemEntropy), tracker);
        listener.0.register("listener", "listener").await.unwrap();
        listener.0.login("listener", "listener").await.unwrap();
        listener.0.join("1".parse().unwrap()).await.unwrap();
        // A session of the same user that somebody resumes line by line.
        let mut wire = Wire::connect(address).await;
        let token = wire.login("listener").await["token"].clone();

        let writers = writers.into_iter().map(|mut wire| {
            let (acknowledged, enough) = (Arc::clone(&acknowledged), enough.clone());
            tracker.spawn(async move {
                for n in 0.. {
                    if enough.is_cancelled() {
                        return;
                    }
                    let text = format!("{n} of {}", mid());
                    let seq = wire.say("g1", &text).await;
                    acknowledged.lock().unwrap().insert(seq, text);
                    // What it was shown is of no interest.
                    wire.aside.clear();
                }
            })
        });
        let writers = writers.collect();
        Self { acknowledged, enough, writers, listener, token }
    }

    /// What was acknowledged by now.
    fn so_far(&self) -> Acknowledged {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Waits for some more messages to be acknowledged.
    async fn some_more(&self) {
        let wanted = self.so_far().len() + SOME;
        let more = async {
            while self.so_far().len() < wanted {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        timeout(3 * PATIENCE, more).await.expect("messages are acknowledged");
    }

    /// Ends the writers, and waits until the listener has been shown everything. Returns all that was acknowledged.
    async fn end(&mut self) -> Acknowledged {
        self.enough.cancel();
        for writer in self.writers.drain(..) {
            timeout(PATIENCE, writer).await.expect("an answer in time").unwrap();
        }
        let all = self.so_far();
        let last = *all.keys().next_back().unwrap();
        until_shown(&mut self.listener.1, |seq, _| seq == last).await;
        all
    }
}

/// Waits until a message of the group is shown by the client library.
async fn until_shown(events: &mut Events, wanted: impl Fn(u64, &str) -> bool) {
    let group: ConversationId = "g1".parse().unwrap();
    let shown = async {
        while let Some(event) = events.next().await {
            if let Event::Entry(entry) = event
                && entry.conv == group
                && let EntryBody::Message { text } = &entry.body
                && wanted(entry.seq.0, text)
            {
                return;
            }
        }
        panic!("the client has ended");
    };
    timeout(3 * PATIENCE, shown).await.expect("it is shown in time");
}

/// The whole log of the group, by seq, as a member reads it.
async fn history(wire: &mut Wire) -> BTreeMap<u64, Value> {
    let mut all = BTreeMap::new();
    let mut request = json!({"op": "history", "conv": "g1", "limit": 100});
    loop {
        let page = wire.ok(request.clone()).await;
        let entries = page["entries"].as_array().unwrap();
        all.extend(entries.iter().map(|entry| (entry["seq"].as_u64().unwrap(), entry.clone())));
        if page["more"] != true {
            return all;
        }
        request["before"] = json!(all.keys().next().unwrap());
    }
}

/// A node on what was put back, at the address of the one before: what was acknowledged before the backup began is there, and the clients go on.
async fn is_whole_and_goes_on(address: &str, before: &Acknowledged, all: &Acknowledged, load: &mut Load) {
    let mut writer = Wire::connect(address).await;
    writer.login("writer0").await;
    let log = history(&mut writer).await;
    let head = log.len() as u64;
    assert!(log.keys().copied().eq(1..=head), "no gaps: {:?}", log.keys());
    for (seq, text) in before {
        assert_eq!(log[seq]["text"], text.as_str(), "{seq} was acknowledged before the backup began");
    }
    for (seq, entry) in log.iter().filter(|(_, entry)| entry["kind"] == "message") {
        // The last ones may have been committed and not yet answered.
        if let Some(text) = all.get(seq) {
            assert_eq!(entry["text"], text.as_str(), "{seq}");
        }
    }
    let newest = *all.keys().next_back().unwrap();
    assert!(head < newest, "more was written after the backup: {head} of {newest}");

    // Who has seen more than there is is told so, and starts as after a login.
    let mut ahead = Wire::connect(address).await;
    let resume = json!({"op": "resume", "token": load.token, "cursors": {"g1": newest}});
    assert_eq!(ahead.ok(resume).await["refused"], json!({"g1": "cursor_ahead"}));
    ahead.find("caught_up", |line| line["push"] == "caught_up").await;
    let pushed = ahead.so_far().await;
    let pushed = pushed.iter().filter(|line| line["push"] == "entry" && line["conv"] == "g1");
    let seqs: Vec<u64> = pushed.map(|line| line["seq"].as_u64().unwrap()).collect();
    let first = seqs.first().copied().unwrap_or(head + 1);
    assert!(seqs.iter().copied().eq(first..=head), "{seqs:?}, head {head}");
    // So does the client library, by itself; and it shows what comes now under numbers that it knows.
    assert_eq!(writer.say("g1", "after the restore").await, head + 1);
    until_shown(&mut load.listener.1, |seq, text| seq == head + 1 && text == "after the restore").await;
    assert_eq!(ahead.message("g1").await, "after the restore");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_backed_up_while_users_write() {
    let folder = tempfile::tempdir().unwrap();
    let tracker = TaskTracker::new();
    let node = Server::start(folder.path(), 0, &[]).await;
    let (port, address) = (node.port(), node.address.clone());
    let database = format!("sqlite:{}", folder.path().join("chat.db").display());
    let copy = folder.path().join("copy.db");
    let to = copy.to_str().unwrap();
    let mut load = Load::start(&address, &tracker).await;
    load.some_more().await;
    let before = load.so_far();
    let backup = ["backup", "--database", &database, "--to", to];
    let (code, _, log) = run(&backup).await;
    assert_eq!(code, 0, "{log}");
    load.some_more().await;
    let all = load.end().await;
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, _, log) = run(&backup).await;
    assert!(code == 1 && log.contains("is there already"), "{log}");
    let restore = ["restore", "--from", to, "--database", &database, "--keep-sessions"];
    let (code, _, log) = run(&restore).await;
    assert!(code == 1 && log.contains("in use by another chatserver"), "{log}");

    node.kill().await;
    let (code, _, log) = run(&restore).await;
    assert!(code == 1 && log.contains("is there already"), "{log}");
    fs::rename(folder.path().join("chat.db"), folder.path().join("lost.db")).unwrap();
    // What a killed node leaves beside its file belongs to that file alone.
    if folder.path().join("chat.db-wal").exists() {
        let (code, _, log) = run(&restore).await;
        assert!(code == 1 && log.contains("chat.db-wal is there already"), "{log}");
    }
    for beside in ["chat.db-wal", "chat.db-shm"] {
        let _ = fs::remove_file(folder.path().join(beside));
    }
    let (code, _, log) = run(&restore).await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(gaps_in_file(&folder.path().join("chat.db")).await, 0);
    let node = Server::start(folder.path(), port, &[]).await;
    is_whole_and_goes_on(&address, &before, &all, &mut load).await;
    node.kill().await;
    load.listener.0.close();
    sessions_are_forgotten(to, &load.token).await;
}

/// Unless it is told otherwise, a restore leaves no session: nobody goes on with a cursor of what was lost.
async fn sessions_are_forgotten(copy: &str, token: &Value) {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("chat.db").display());
    let (code, _, log) = run(&["restore", "--from", copy, "--database", &database]).await;
    assert_eq!(code, 0, "{log}");
    let node = Server::start(folder.path(), 0, &[]).await;
    let mut wire = Wire::connect(&node.address).await;
    assert_eq!(wire.error(json!({"op": "resume", "token": token, "cursors": {}})).await, "bad_token");
    wire.login("listener").await;
    node.kill().await;
}

#[tokio::test]
async fn what_is_no_backup_is_not_put_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let node = Server::start(folder.path(), 0, &[]).await;
    let whole = path("whole.db");
    let database = format!("sqlite:{}", path("chat.db"));
    assert_eq!(run(&["backup", "--database", &database, "--to", &whole]).await.0, 0);
    node.kill().await;
    let bytes = fs::read(&whole).unwrap();
    fs::write(path("short.db"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(path("other.db"), "no database at all, but a text").unwrap();
    fs::write(path("empty.db"), "").unwrap();
    for bad in ["short.db", "other.db", "empty.db", "absent.db"] {
        let to = format!("sqlite:{}", path("new.db"));
        let (code, _, log) = run(&["restore", "--from", &path(bad), "--database", &to]).await;
        assert_eq!(code, 1, "{bad}: {log}");
        assert!(!Path::new(&path("new.db")).exists(), "{bad}");
    }
    let (code, _, log) = run(&["backup", "--database", "mysql://h/chat", "--to", &path("x")]).await;
    assert!(code == 1 && log.contains("expected sqlite:PATH"), "{log}");
    let absent = format!("sqlite:{}", path("absent.db"));
    let (code, _, log) = run(&["backup", "--database", &absent, "--to", &path("x")]).await;
    assert!(code == 1 && log.contains("no such file"), "{log}");
}

async fn gaps_in_file(path: &Path) -> i64 {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let (gaps,): (i64,) = sqlx::query_as(GAPS).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    gaps
}

/// As OPERATING.md says: a dump of one moment by the server's own tool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_dumped_while_users_write() {
    const DUMP: &str = "MYSQL_PWD=\"$MYSQL_ROOT_PASSWORD\" mysqldump -u root --single-transaction --hex-blob \
        --set-gtid-purged=OFF --no-tablespaces dumped > /tmp/dump.sql";
    const READ: &str = "MYSQL_PWD=\"$MYSQL_ROOT_PASSWORD\" mysql -u root restored < /tmp/dump.sql";
    if !available("a dump of MySQL", &[IMAGE]).await {
        return;
    }
    let mysql = mysql::Server::start().await;
    let (url, restored) = (mysql.database("dumped").await, mysql.database("restored").await);
    let tracker = TaskTracker::new();
    let node = Server::start_on(&["--database", &url], 0).await;
    let (port, address) = (node.port(), node.address.clone());
    let mut load = Load::start(&address, &tracker).await;
    load.some_more().await;
    let before = load.so_far();
    in_container(&mysql, DUMP).await;
    load.some_more().await;
    let all = load.end().await;
    node.kill().await;
    in_container(&mysql, READ).await;
    let mut connection = MySqlConnection::connect(&restored).await.unwrap();
    let (gaps,): (i64,) = sqlx::query_as(GAPS).fetch_one(&mut connection).await.unwrap();
    assert_eq!(gaps, 0);
    let node = Server::start_on(&["--database", &restored], port).await;
    is_whole_and_goes_on(&address, &before, &all, &mut load).await;
    load.listener.0.close();
    node.kill().await;
}

async fn in_container(mysql: &mysql::Server, command: &str) {
    let command = ExecCommand::new(["sh", "-c", command]);
    let mut done = mysql.container.exec(command).await.unwrap();
    let said = String::from_utf8(done.stderr_to_vec().await.unwrap()).unwrap();
    let code = done.exit_code().await.unwrap();
    assert_eq!(code, Some(0), "the image has to have mysql and mysqldump, as ci/images makes it: {said}");
}
