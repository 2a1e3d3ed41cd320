//! The admin listener: what it shows, and when a node says that it is well. OPERATING.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use protocol::{Limits, Tcp, clock::SystemEntropy};
use serde_json::{Value, json};
use server::{
    admin::{AdminConfig, Readiness, serve},
    node::NodeConfig,
    relay::{
        Relay,
        local::Hub,
        none::NoRelay,
        redis::{RedisConfig, RedisRelay},
    },
    store::memory::MemoryStore,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    docker,
    faults::Faulty,
    harness::{PATIENCE, TestNode, Wire, mid},
    mysql,
    process::Server,
    redis::{Redis, Wedge},
};

/// What a path answers: status and body.
async fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A node in this process, with its admin listener's address.
async fn node_with_admin() -> (TestNode, String) {
    node_with(NodeConfig::default()).await
}

async fn node_with(config: NodeConfig) -> (TestNode, String) {
    let node = TestNode::with_config(config).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (relay, _) = Arc::new(Hub::default()).join();
    let inner = Arc::clone(node.running.node());
    TaskTracker::new().spawn(serve(
        listener,
        inner,
        Arc::new(relay),
        AdminConfig::default(),
        CancellationToken::new(),
    ));
    (node, address)
}

/// A metric's value, by its name with labels.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn what_happens_is_counted() {
    let (node, admin) = node_with_admin().await;
    let ((_, mut alice), _bob) = node.friends().await;
    alice.say("d1-2", "hello").await;
    assert_eq!(alice.error(json!({"op": "join", "mid": mid(), "group": 9})).await, "no_such_group");
    let mut stranger = node.connect().await;
    stranger.send("nonsense\n").await;
    stranger.line().await;
    let (status, text) = get(&admin, "/metrics").await;
    assert_eq!(status, 200);
    let expected = [
        ("chat_connections", 3.0),
        ("chat_requests_total{op=\"register\"}", 2.0),
        ("chat_requests_total{op=\"send\"}", 1.0),
        ("chat_logins_total{by=\"password\"}", 2.0),
        ("chat_refusals_total{code=\"no_such_group\"}", 1.0),
        ("chat_refusals_total{code=\"malformed\"}", 1.0),
        // The friendship, with a notice to each of the two, and the message.
        ("chat_entries_committed_total", 4.0),
        ("chat_batches_total", 1.0),
        ("chat_commit_seconds_count", 1.0),
        ("chat_relay_up", 1.0),
        ("chat_relay_wedged_total", 0.0),
        ("chat_pauses_total{whose=\"replies\"}", 0.0),
        ("chat_held{what=\"sessions\"}", 2.0),
        ("chat_held_max{what=\"sessions\"}", 16_000.0),
    ];
    for (name, amount) in expected {
        assert_eq!(value(&text, name), Some(amount), "{name}\n{text}");
    }
    drop(alice);
    let begun = Instant::now();
    while value(&get(&admin, "/metrics").await.1, "chat_connections") != Some(2.0) {
        assert!(begun.elapsed() < PATIENCE);
    }
}

/// Each limit of SPEC.md, section 8 that is reached shows in a metric of its own or by its code.
#[tokio::test]
async fn limits_that_are_reached_are_counted() {
    let (node, admin) = node_with(NodeConfig {
        limits: Limits { requests_in_flight_max: 2, text_bytes_max: 10, ..Limits::default() },
        ..NodeConfig::default()
    })
    .await;
    let ((_, mut alice), _bob) = node.friends().await;
    let sends: String = (1..=20)
        .map(|n| format!("{}\n", json!({"id": n, "op": "send", "mid": mid(), "conv": "d1-2", "text": "x"})))
        .collect();
    alice.send(sends).await;
    alice.reply(20).await;
    let send = json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": "x".repeat(11)});
    assert_eq!(alice.error(send).await, "bad_text");
    alice.send("x".repeat(131_073) + "\n").await;
    alice.find("the refusal", |line| line["error"]["code"] == "frame_too_long").await;
    let cursors: BTreeMap<String, u64> = (1..=1001).map(|n| (format!("g{n}"), 1)).collect();
    assert_eq!(alice.error(json!({"op": "ack", "cursors": cursors})).await, "bad_request");
    let create = |name: String, description: String| json!({"op": "create_group", "mid": mid(), "name": name, "description": description});
    assert_eq!(alice.error(create("x".repeat(65), String::new())).await, "bad_name");
    assert_eq!(alice.error(create("x".into(), "x".repeat(257))).await, "bad_text");
    let mut stranger = node.connect().await;
    stranger.send("nonsense\n".repeat(10)).await;
    stranger.rest().await;
    let (_, text) = get(&admin, "/metrics").await;
    let counted = |name: &str| value(&text, name).unwrap_or_default();
    assert!(counted("chat_pauses_total{whose=\"replies\"}") >= 1.0);
    for (code, times) in [
        ("bad_text", 2.0),
        ("frame_too_long", 1.0),
        ("bad_request", 1.0),
        ("bad_name", 1.0),
        ("malformed", 10.0),
    ] {
        assert_eq!(counted(&format!("chat_refusals_total{{code=\"{code}\"}}")), times, "{code}");
    }
    assert_eq!(counted("chat_closings_total{code=\"too_many_errors\"}"), 1.0);
}

/// Every metric is in the operators' table, and nothing else is.
#[tokio::test]
async fn every_metric_is_documented() {
    let (node, admin) = node_with_admin().await;
    let (_, mut alice) = node.user("alice").await;
    alice.ok(json!({"op": "logout"})).await;
    let (_, text) = get(&admin, "/metrics").await;
    let metrics: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    let document = include_str!("../../../OPERATING.md");
    let documented: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `chat_"))
        .map(|line| line.split(['`', '{']).next().unwrap())
        .collect();
    let metrics: BTreeSet<&str> = metrics.iter().map(|name| name.strip_prefix("chat_").unwrap()).collect();
    let documented: BTreeSet<&str> =
        documented.iter().map(|name| name.strip_suffix("_total").unwrap_or(name)).collect();
    assert_eq!(metrics, documented);
}

/// The alerts and the dashboard ask for metrics that there are.
#[test]
fn alerts_and_dashboard_know_the_metrics() {
    let document = include_str!("../../../OPERATING.md");
    let documented: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter(|line| line.starts_with("chat_"))
        .map(|line| line.split(['`', '{']).next().unwrap())
        .collect();
    let files = [include_str!("../../../ops/alerts.yml"), include_str!("../../../ops/grafana.json")];
    for text in files {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: BTreeSet<&str> = words.filter(|word| word.starts_with("chat_")).collect();
        assert!(metrics.len() > 8);
        for metric in metrics {
            let name = metric.strip_suffix("_bucket").unwrap_or(metric);
            assert!(documented.contains(name), "{metric}");
        }
    }
    let dashboard: Value = serde_json::from_str(files[1]).unwrap();
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 8));
}

#[tokio::test]
async fn only_what_is_known_is_answered() {
    let (_node, admin) = node_with_admin().await;
    assert_eq!(get(&admin, "/healthz").await, (200, "ok\n".into()));
    let (status, body) = get(&admin, "/readyz").await;
    assert_eq!((status, body.as_str()), (200, r#"{"ready":true,"reasons":[],"degraded":[]}"#));
    assert_eq!(get(&admin, "/").await.0, 404);
    assert_eq!(get(&admin, "/metrics/../../etc/passwd").await.0, 404);
    // Garbage ends its connection and nothing else.
    let mut stream = TcpStream::connect(&admin).await.unwrap();
    stream.write_all(b"\x16\x03\x01\0\0\r\n\r\n").await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(get(&admin, "/healthz").await.0, 200);
}

#[tokio::test]
async fn a_node_says_why_it_is_not_ready() {
    let ready = |reasons: &[&'static str], degraded: &[&'static str], ready| {
        (ready, reasons.to_vec(), degraded.to_vec())
    };
    let of = async |node: &TestNode, relay: &dyn Relay, strict| {
        let Readiness { ready, reasons, degraded } = Readiness::of(node.running.node(), relay, strict).await;
        (ready, reasons, degraded)
    };
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    // Nobody listens there.
    let config = RedisConfig::parse("redis://127.0.0.1:1", "chat").unwrap();
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let (away, _events) = RedisRelay::start(Tcp, config, [1; 16], Arc::new(SystemEntropy), &tracker, &stop);
    let (none, _) = NoRelay::new();
    assert_eq!(of(&node, &none, true).await, ready(&[], &[], true));
    assert_eq!(of(&node, &away, false).await, ready(&[], &["relay"], true));
    assert_eq!(of(&node, &away, true).await, ready(&[], &["relay"], false));
    store.away.store(true, Ordering::Relaxed);
    assert_eq!(of(&node, &none, false).await, ready(&["store"], &[], false));
    store.away.store(false, Ordering::Relaxed);
    assert_eq!(of(&node, &none, false).await, ready(&[], &[], true));
    let draining = TestNode::alone(Arc::new(MemoryStore::new([1; 16]))).await;
    draining.running.node().draining.cancel();
    assert_eq!(of(&draining, &none, false).await, ready(&["draining"], &[], false));
}

/// The real binary on real services, with the default timing: it turns red when they go, and green again by itself. How long that takes is
/// printed; that it is less than 5 s is the simulator's test (`sim/tests/canary.rs`), where time is virtual.
#[tokio::test]
async fn readiness_follows_mysql_and_redis() {
    let images = [("CHAT_REDIS_IMAGE", "chat-redis:local"), ("CHAT_MYSQL_IMAGE", "chat-mysql:local")];
    if !docker::available("readiness on MySQL and Redis", &images).await {
        return;
    }
    let (redis, database) = (Redis::start().await, mysql::Server::start().await);
    let wedge = Wedge::before(redis.port).await;
    let url = database.database("readiness").await;
    let port = docker::free_port();
    let (admin, redis_url) = (format!("127.0.0.1:{port}"), format!("redis://127.0.0.1:{}", wedge.port));
    let options = ["--database", &url, "--redis", &redis_url, "--admin", &admin];
    let _server = Server::start_on(&options, 0).await;
    let until = async |what: &str, path: &str, status: u16, why: Value| {
        let begun = Instant::now();
        loop {
            let (found, body) = get(&admin, path).await;
            let body: Value = serde_json::from_str(&body).unwrap();
            if found == status && body == why {
                println!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
                return;
            }
            assert!(begun.elapsed() < 2 * PATIENCE, "{what}: {found} {body}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let well = json!({"ready": true, "reasons": [], "degraded": []});
    until("ready", "/readyz?strict", 200, well.clone()).await;
    let degraded = async |what: &str, why: &str| {
        let body = |ready| json!({"ready": ready, "reasons": [], "degraded": [why]});
        until(what, "/readyz?strict", 503, body(false)).await;
        until("which is no reason to send clients elsewhere", "/readyz", 200, body(true)).await;
    };
    redis.container.pause().await.unwrap();
    degraded("Redis frozen", "relay").await;
    redis.container.unpause().await.unwrap();
    until("Redis thawed", "/readyz?strict", 200, well.clone()).await;
    wedge.set(true);
    degraded("Redis delivers nothing", "relay_wedged").await;
    let (_, metrics) = get(&admin, "/metrics").await;
    assert_eq!(value(&metrics, "chat_relay_up"), Some(0.0));
    assert!(value(&metrics, "chat_relay_wedged_total").is_some_and(|links| links > 0.0));
    wedge.set(false);
    until("Redis delivers", "/readyz?strict", 200, well.clone()).await;
    docker::kill(&redis.container).await;
    degraded("Redis ended", "relay").await;
    redis.container.start().await.unwrap();
    until("Redis is back", "/readyz?strict", 200, well.clone()).await;
    let no_store = json!({"ready": false, "reasons": ["store"], "degraded": []});
    database.container.pause().await.unwrap();
    until("MySQL frozen", "/readyz", 503, no_store.clone()).await;
    database.container.unpause().await.unwrap();
    until("MySQL thawed", "/readyz?strict", 200, well.clone()).await;
    docker::kill(&database.container).await;
    until("MySQL ended", "/readyz?strict", 503, no_store).await;
    database.container.start().await.unwrap();
    until("MySQL is back", "/readyz?strict", 200, well).await;
}

/// The binary's option; and a node without it listens nowhere else.
#[tokio::test]
async fn the_listener_is_off_unless_asked_for() {
    let data = TempDir::new().unwrap();
    let port = docker::free_port();
    let address = format!("127.0.0.1:{port}");
    let server = Server::start(data.path(), 0, &[]).await;
    assert!(TcpStream::connect(&address).await.is_err());
    // The next one needs the same file: this one has to have ended.
    server.kill().await;
    let server = Server::start(data.path(), 0, &["--admin", &address]).await;
    assert_eq!(get(&address, "/healthz").await.0, 200);
    assert_eq!(Wire::connect(&server.address).await.line().await["push"], "hello");
    // Nor does it hold up the end, or who watches.
    let mut watcher = TcpStream::connect(&address).await.unwrap();
    watcher.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    watcher.read_u8().await.unwrap();
    let begun = Instant::now();
    let (status, log) = server.signal("-TERM").await;
    assert!(status.success(), "{log:#?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "less than a drain's grace");
}
