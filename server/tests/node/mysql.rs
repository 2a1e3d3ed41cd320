//! The MySQL store, on a real server in a container. SPEC.md, guarantees 1, 2, 3 and 10.

use std::{cell::Cell, collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use proptest::{
    collection::vec,
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use protocol::{ClientMsgId, ConversationId, EntryBody, GroupId, Seq, UserId};
use serde_json::json;
use server::{
    node::NodeConfig,
    relay::local::Hub,
    store::{
        NewEntry, NewUser, Outcome, Store, StoreError,
        conformance::{Operation, compare, suite},
        memory::MemoryStore,
        mysql::{MySqlStore, OpenError, migrate},
    },
};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};
use testcontainers::{
    CopyTargetOptions, ImageExt as _,
    core::{IntoContainerPort as _, WaitFor},
    runners::AsyncRunner as _,
};

use crate::{
    docker::{Container, available, free_port, image, kill},
    harness::{PATIENCE, TestNode, mid as wire_mid},
    stores::operation,
};

pub(crate) const IMAGE: (&str, &str) = ("CHAT_MYSQL_IMAGE", "chat-mysql:local");
const PASSWORD: &str = "it's a 'secret'\\";
/// As it goes into an URL.
const PASSWORD_ENCODED: &str = "it%27s%20a%20%27secret%27%5C";

/// A server, at a port that stays the same when it is started again.
pub(crate) struct Server {
    pub(crate) container: Container,
    port: u16,
}

impl Server {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], Vec::new()).await
    }

    /// Starts one with more options and files.
    pub(crate) async fn start_with(options: &[String], files: Vec<(CopyTargetOptions, Vec<u8>)>) -> Self {
        let port = free_port();
        let mut request = image(IMAGE.0, IMAGE.1)
            // Two spaces: the public image's first, closed start says "port: 0", the X plugin "port: 33060".
            .with_wait_for(WaitFor::message_on_stderr("port: 3306  "))
            .with_mapped_port(port, 3306.tcp())
            .with_env_var("MYSQL_ROOT_PASSWORD", PASSWORD)
            .with_startup_timeout(3 * PATIENCE)
            .with_cmd(options);
        for (to, bytes) in files {
            request = request.with_copy_to(to, bytes);
        }
        Self { container: request.start().await.unwrap(), port }
    }

    /// The URL of a database on it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("mysql://root:{PASSWORD_ENCODED}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database; its URL.
    pub(crate) async fn database(&self, database: &str) -> String {
        let mut admin = MySqlConnection::connect(&self.url("mysql")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("create database {database}")))
            .execute(&mut admin)
            .await
            .unwrap();
        self.url(database)
    }

    /// An opened store on a new database.
    async fn store(&self, database: &str) -> Arc<MySqlStore> {
        open(&self.database(database).await).await
    }
}

async fn open(url: &str) -> Arc<MySqlStore> {
    Arc::new(MySqlStore::open(url, PATIENCE).await.unwrap())
}

/// The whole contract, on one server: each part on a database of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql() {
    if !available("the MySQL store", &[IMAGE]).await {
        return;
    }
    let server = Server::start().await;
    suite(server.store("conforms").await).await.unwrap();
    nodes_start_together(&server).await;
    what_cannot_work_is_said_at_once(&server).await;
    like_memory(&server).await;
    any_text_is_kept(&server).await;
    one_hot_conversation(&server).await;
    nodes_that_write_to_one_group(&server).await;
    every_statement_has_its_key(&server).await;
    a_server_that_dies(&server).await;
    what_was_read_is_kept(&server).await;
}

async fn nodes_start_together(server: &Server) {
    let url = server.database("together").await;
    let opened = join_all((0..5).map(|_| MySqlStore::open(&url, PATIENCE))).await;
    let mut ids = BTreeSet::new();
    for store in opened {
        ids.insert(store.unwrap().deployment().await.unwrap());
    }
    assert_eq!(ids.len(), 1, "it is one deployment");
    // A node that was killed in the middle of a migration leaves it marked.
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("update _sqlx_migrations set success = false; drop table delivered")
        .execute(&mut connection)
        .await
        .unwrap();
    migrate(&url, PATIENCE).await.unwrap();
    let store = open(&url).await;
    assert_eq!(BTreeSet::from([store.deployment().await.unwrap()]), ids, "still the same");
    store.set_delivered(&[(user(1), hot(), Seq(1))]).await.unwrap();
    open(&format!("{url}?ssl-mode=REQUIRED")).await.deployment().await.unwrap();
    // A later version's migration that adds is none of ours; one that removes might have removed what we need.
    let applied = async |connection: &mut MySqlConnection, version: u32, name: &str| {
        let sql = format!("insert into _sqlx_migrations select {version}, '{name}', now(), true, x'00', 1");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
    };
    applied(&mut connection, 9998, "later").await;
    open(&url).await;
    applied(&mut connection, 9999, "contract later").await;
    let error = MySqlStore::open(&url, PATIENCE).await.err().expect("it is too old");
    assert!(error.to_string().contains("9999 (contract later)"), "{error}");
}

async fn what_cannot_work_is_said_at_once(server: &Server) {
    // With patience without end, only an error that is made at once comes back.
    let patience = Duration::from_secs(3600);
    let open = async |url: &str| {
        let opened = tokio::time::timeout(PATIENCE, MySqlStore::open(url, patience)).await;
        opened.unwrap_or_else(|_| panic!("{url} was tried again")).err().expect("it cannot be opened")
    };
    let error = open(&server.url("")).await;
    assert!(matches!(error, OpenError::NoDatabase), "{error}");
    let error = open(&server.url("nowhere")).await;
    assert!(error.to_string().contains("nowhere"), "{error}");
    let error = open(&format!("mysql://root:wrong@127.0.0.1:{}/chat", server.port)).await;
    assert!(error.to_string().contains("Access denied") && !error.to_string().contains("wrong"), "{error}");
    let error = open("mysql://root:hunter2@127.0.0.1:notaport/chat").await;
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    let error = open(&format!("{}?ssl-mode=VERIFY_IDENTITY", server.url("mysql"))).await;
    assert!(error.to_string().contains("certificate"), "nobody has signed it: {error}");
    // Where nothing listens, patience decides.
    let url = format!("mysql://root:x@127.0.0.1:{}/chat", free_port());
    assert!(matches!(MySqlStore::open(&url, Duration::ZERO).await, Err(OpenError::Database(_))));
}

/// Whatever is done to both, MySQL and memory answer alike.
async fn like_memory(server: &Server) {
    for case in 0..12u8 {
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            TestRng::from_seed(RngAlgorithm::ChaCha, &[case; 32]),
        );
        let operations = vec(operation(), 1..40).new_tree(&mut runner).unwrap().current();
        let mysql: Arc<dyn Store> = server.store(&format!("like_memory_{case}")).await;
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
        let accounts = (0..5).map(|id| Operation::Register { id: 100 + id });
        let operations: Vec<_> = accounts.chain(operations).collect();
        compare(mysql, memory, &operations).await.unwrap();
    }
}

/// Text is data, whatever it looks like; and it is kept byte by byte.
async fn any_text_is_kept(server: &Server) {
    let store = server.store("texts").await;
    register(&*store, 1).await;
    let all: String = (1..=0x2ff).filter_map(char::from_u32).collect();
    let texts = [
        "'",
        "\\",
        "\\'",
        "'; drop table entry; --",
        "\0",
        "a\0\\0",
        "% _ ` \" \u{1a}\r\n\t\u{8}",
        " trailing  ",
        "👋 \u{10ffff} \u{fffd}",
        "",
        &all,
    ];
    let entries: Vec<_> =
        texts.iter().zip(1..).map(|(text, seq)| message(hot(), seq, 1, seq, text)).collect();
    assert_eq!(store.append(&entries).await.unwrap(), Outcome::Committed);
    let kept = store.entries(hot(), Seq(0), 100, 1 << 20).await.unwrap();
    assert_eq!(kept.len(), texts.len());
    for (entry, text) in kept.into_iter().zip(texts) {
        assert_eq!(entry.body, EntryBody::Message { text: text.to_owned() });
    }
    let named = |key: &str, id| NewUser { name_key: key.into(), password_hash: "'\\".into(), ..new_user(id) };
    for (number, key) in ["a", "A", "a ", "ä", "'a", &"x".repeat(32 * 18)].iter().zip(2..) {
        let made = store.register(&named(number, key)).await.unwrap();
        assert!(
            format!("{made:?}").starts_with("Created"),
            "{number:?}: names are compared by their key alone"
        );
    }
}

/// Two nodes that write to the same conversation as fast as they can: every seq is given once, without an error.
async fn one_hot_conversation(server: &Server) {
    const BATCHES: u64 = 40;
    let url = server.database("hot").await;
    let nodes = [open(&url).await, open(&url).await, open(&url).await];
    register(&*nodes[0], 3).await;
    let writer = async |node: usize| {
        let (store, from) = (&nodes[node], node as u64 + 1);
        let (mut conflicts, mut head, mut given) = (0, Seq(0), Vec::new());
        for batch in 0..BATCHES {
            let size = batch % 5 + 1;
            loop {
                let ids = (0..size).map(|n| (head.0 + 1 + n, batch * 10 + n));
                // A conversation of this node's own goes with it, as in a batch of a real node.
                let own = message(ConversationId::notices(user(from)), batch + 1, from, batch, "own");
                let mut entries: Vec<_> = ids.map(|(seq, id)| message(hot(), seq, from, id, "hot")).collect();
                entries.push(own);
                entries.sort_by_key(|entry| (entry.conv, entry.seq));
                match store.append(&entries).await.unwrap() {
                    Outcome::Committed => {
                        given.extend((1..=size).map(|n| head.0 + n));
                        head = Seq(head.0 + size);
                        break;
                    }
                    Outcome::Conflict => {
                        conflicts += 1;
                        head = store.heads(&[hot()]).await.unwrap()[&hot()];
                    }
                }
            }
        }
        (given, conflicts)
    };
    let (a, b, c) = tokio::join!(writer(0), writer(1), writer(2));
    let mut all: Vec<_> = [a.0, b.0, c.0].concat();
    all.sort_unstable();
    let total = nodes[0].heads(&[hot()]).await.unwrap()[&hot()].0;
    assert_eq!(all, (1..=total).collect::<Vec<_>>(), "each seq once, and no gaps");
    assert_eq!(total, 3 * (1..=5).sum::<u64>() * BATCHES / 5);
}

/// Whole nodes, without a relay: all of them write to one group as fast as they can, nobody is refused, and everybody sees
/// the same order. It is the sweep that delivers. SPEC.md, guarantees 2, 6 and 7.
async fn nodes_that_write_to_one_group(server: &Server) {
    const MESSAGES: usize = 200;
    let url = server.database("one_group").await;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let (relay, events) = Arc::new(Hub::default()).join();
        let config = NodeConfig { sweep_interval: Duration::from_millis(200), ..NodeConfig::default() };
        nodes.push(TestNode::start(open(&url).await, Arc::new(relay), events, config).await);
    }
    let mut users = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let (_, mut wire) = node.user(&format!("user{at}")).await;
        match at {
            0 => {
                wire.ok(json!({"op": "create_group", "mid": wire_mid(), "name": "x", "description": ""}))
                    .await
            }
            _ => wire.ok(json!({"op": "join", "mid": wire_mid(), "group": 1})).await,
        };
        users.push(wire);
    }
    let writing = users.iter_mut().enumerate().map(async |(at, wire)| {
        let mut seqs = Vec::new();
        for burst in 0..MESSAGES / 8 {
            let mut asked = Vec::new();
            for n in 0..8 {
                let text = format!("{at} {}", burst * 8 + n);
                asked.push(
                    wire.ask(json!({"op": "send", "mid": wire_mid(), "conv": "g1", "text": text})).await,
                );
            }
            for id in asked {
                let reply = wire.reply(id).await;
                seqs.push(reply["ok"]["seq"].as_u64().unwrap_or_else(|| panic!("{reply}")));
            }
        }
        seqs
    });
    let seqs: Vec<u64> = join_all(writing).await.concat();
    assert_eq!(BTreeSet::from_iter(&seqs).len(), 3 * MESSAGES, "each its own");
    let mut shown = Vec::new();
    for wire in &mut users {
        let mut texts = Vec::new();
        while texts.len() < 3 * MESSAGES {
            texts.push(wire.message("g1").await);
        }
        shown.push(texts);
    }
    assert!(shown.windows(2).all(|pair| pair[0] == pair[1]), "one order");
    for at in 0..3 {
        let own = shown[0].iter().filter_map(|text| text.strip_prefix(&format!("{at} ")));
        assert!(
            own.eq(&(0..MESSAGES).map(|n| n.to_string()).collect::<Vec<_>>()),
            "each sender's in the order sent"
        );
    }
}

/// No statement reads a whole table.
async fn every_statement_has_its_key(server: &Server) {
    let store = server.store("plans").await;
    fill(server, "plans").await;
    let plans = store.plans().await.unwrap();
    for plan in plans {
        println!("{plan:?}");
        // The list that came with the statement, an intermediate result, or the row that is inserted.
        let no_table =
            plan.extra.contains("Table function") || plan.table.starts_with('<') || plan.table.is_empty();
        let inserted = plan.access == "ALL" && plan.extra.is_empty() && plan.key.is_empty();
        assert!(!plan.extra.contains("filesort"), "the whole of a log is read: {plan:?}");
        assert!(no_table || inserted || !["ALL", "index"].contains(&plan.access.as_str()), "{plan:?}");
    }
}

/// Enough rows that a key is worth its while: of 500 users, 100 groups, and 200 conversations with 100 entries each.
async fn fill(server: &Server, database: &str) {
    const FILL: &str = "
        set session cte_max_recursion_depth = 100000;
        create table n (n int primary key);
        insert into n with recursive r (n) as (select 1 union all select n + 1 from r where n < 500) select n from r;
        insert into user (name, name_key, password_hash, register_mid, created_at)
            select concat('name', n), concat('name', n), 'x', unhex(lpad(hex(n), 32, '0')), 1 from n;
        insert into token select unhex(sha2(n, 256)), n, n from n;
        insert into token select unhex(sha2(n + 1000, 256)), 1, n from n where n < 64;
        insert into token values (unhex(repeat('01', 32)), 1, 1);
        insert into chat_group (name, description, creator_id, mid, created_at)
            select 'g', 'd', n, unhex(lpad(hex(n), 32, '0')), 1 from n where n <= 100;
        create table c (c bigint primary key);
        insert into c select (1 << 62) | (n << 31) | (n + 1) from n where n <= 100;
        insert into c select (1 << 61) | n from n where n <= 99;
        insert into c values (1);
        insert into entry (conversation, seq, sender, mid, kind, at, body, committed_at)
            select c, n, 1, unhex(lpad(hex(n), 32, '0')), 1, 1, 'text', from_unixtime(1700000000 + n * 10) from c, n where n <= 100;
        insert into friend select a.n, (a.n + b.n) % 500 + 1, 0, 1, 0 from n a, (select n from n limit 40) b;
        insert into membership select u.n, g.g, 1, if(u.n % 3 = 0, 5, null), 2
            from n u, (select n as g from n where n <= 100) g where (u.n + g.g) % 10 = 0;
        insert into delivered select u.n, c.c, 3 from n u, c where (u.n + c.c) % 10 = 0;
        analyze table user, token, chat_group, entry, friend, membership, delivered;
    ";
    let mut connection = MySqlConnection::connect(&server.url(database)).await.unwrap();
    sqlx::raw_sql(FILL).execute(&mut connection).await.unwrap();
}

/// SIGKILL, and a start: calls fail as unavailable, nothing that was acknowledged is lost, and the store works again by itself.
async fn a_server_that_dies(server: &Server) {
    let store = server.store("dies").await;
    register(&*store, 1).await;
    // Connections of both kinds are open, some of them idle.
    join_all((0..8).map(|_| store.heads(&[]))).await;
    assert_eq!(store.append(&[message(hot(), 1, 1, 1, "before")]).await.unwrap(), Outcome::Committed);
    kill(&server.container).await;
    let away = |error: StoreError| assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    away(store.append(&[message(hot(), 2, 1, 2, "during")]).await.unwrap_err());
    away(store.heads(&[hot()]).await.unwrap_err());
    away(store.register(&new_user(2)).await.unwrap_err());
    // A node that starts before its database does waits for it.
    let url = server.url("dies");
    let (started, late) = tokio::join!(server.container.start(), MySqlStore::open(&url, 3 * PATIENCE));
    started.unwrap();
    late.unwrap().close().await;
    // Nothing was acknowledged in between, so the same attempt is made until it is; then it conflicts if it had succeeded.
    let outcome = until_there(async || store.append(&[message(hot(), 2, 1, 2, "during")]).await).await;
    assert_eq!(outcome, Outcome::Committed);
    let heads = until_there(async || store.heads(&[hot()]).await).await;
    assert_eq!(heads[&hot()], Seq(2));
    let kept = store.entries(hot(), Seq(0), 10, 100).await.unwrap();
    assert_eq!(kept.iter().map(|entry| entry.mid).collect::<Vec<_>>(), [mid(1), mid(2)]);
    store.close().await;
    away(store.heads(&[hot()]).await.unwrap_err());
}

/// SIGKILL while nodes write to the same log: nothing that one of them has read of another's is lost. It may have been shown by then, or a
/// repetition acknowledged. It takes the server's binary log: without it, InnoDB shows a commit to others before it is written. SPEC.md,
/// guarantees 1 and 2.
async fn what_was_read_is_kept(server: &Server) {
    const KILLS: u64 = 3;
    let url = server.database("kept").await;
    let nodes = join_all((0..4).map(|_| open(&url))).await;
    register(&*nodes[0], 4).await;
    for kill_number in 0..KILLS {
        let killed = Cell::new(false);
        let writing = nodes.iter().zip(1..).map(async |(store, from)| {
            let mut seen = Seq(0);
            for id in 1.. {
                let entry = message(hot(), seen.0 + 1, from, kill_number * 1_000_000 + id, "x");
                match store.append(&[entry]).await {
                    Ok(Outcome::Committed) => seen = seen.next(),
                    Ok(Outcome::Conflict) => {
                        if let Ok(heads) = store.heads(&[hot()]).await {
                            seen = heads[&hot()];
                        }
                    }
                    Err(_) if killed.get() => break,
                    // Its connection is from before the last kill.
                    Err(_) => {}
                }
            }
            seen
        });
        let killing = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            killed.set(true);
            kill(&server.container).await;
        };
        let (seen, ()) = tokio::join!(join_all(writing), killing);
        server.container.start().await.unwrap();
        let head = until_there(async || nodes[0].heads(&[hot()]).await).await[&hot()];
        assert!(seen.iter().all(|seen| *seen <= head), "read up to {seen:?}, and left is {head}");
        assert!(seen.iter().all(|seen| *seen > Seq(0)), "all have written: {seen:?}");
    }
}

/// What a call comes to in the end.
async fn until_there<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let tried = async {
        loop {
            match call().await {
                Ok(value) => return value,
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(3 * PATIENCE, tried).await.expect("it is there again in time")
}

fn user(number: u64) -> UserId {
    UserId::new(number).unwrap()
}

fn hot() -> ConversationId {
    ConversationId::group(GroupId::new(1).unwrap())
}

fn mid(number: u64) -> ClientMsgId {
    ClientMsgId(u128::from(number).to_be_bytes())
}

fn message(conv: ConversationId, seq: u64, from: u64, id: u64, text: &str) -> NewEntry {
    NewEntry {
        conv,
        seq: Seq(seq),
        from: user(from),
        mid: mid(id),
        at: 1,
        body: EntryBody::Message { text: text.into() },
    }
}

fn new_user(number: u64) -> NewUser {
    let name = format!("user{number}");
    NewUser { mid: mid(1000 + number), name_key: name.clone(), name, password_hash: "x".into(), at: 1 }
}

async fn register(store: &dyn Store, up_to: u64) {
    for number in 1..=up_to {
        store.register(&new_user(number)).await.unwrap();
    }
}
