//! chatload against a node in this process: every scenario runs clean, and whatever a bad network or a bad server does
//! to the pushes is found.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::Parser as _;
use loadgen::load::{self, Accounts, Options, Report};
use protocol::{
    Net as _, Tcp,
    clock::{SystemClock, SystemEntropy},
};
use server::{
    node::{NodeConfig, RunningNode, World},
    password::Argon2id,
    relay::local::Hub,
    store::{Store, memory::MemoryStore},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::task::TaskTracker;

/// How long a run may take. It decides no test that passes.
const PATIENCE: Duration = Duration::from_secs(100);

/// Nodes of one deployment.
struct Cluster {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
}

impl Cluster {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::new([1; 16])), hub: Arc::new(Hub::default()) }
    }

    async fn node(&self) -> (RunningNode, String) {
        self.node_with(NodeConfig::default()).await
    }

    async fn node_with(&self, config: NodeConfig) -> (RunningNode, String) {
        let listener = Tcp.bind("127.0.0.1:0").await.unwrap();
        let address = Tcp.local_addr(&listener).unwrap().to_string();
        let (relay, relay_events) = self.hub.join();
        let entropy = Arc::new(SystemEntropy);
        let world = World {
            store: Arc::clone(&self.store),
            relay: Arc::new(relay),
            relay_events,
            passwords: Arc::new(Argon2id::new(8, 1, 2, entropy.clone()).unwrap()),
            clock: Arc::new(SystemClock),
            entropy,
        };
        (RunningNode::start(Tcp, listener, world, config), address)
    }
}

/// A run of one second.
async fn run(line: &str, targets: &[&str]) -> Report {
    let mut words = vec!["chatload"];
    words.extend(line.split_ascii_whitespace());
    words.extend(["--duration", "1s", "--warm-up", "100ms"]);
    targets.iter().for_each(|target| words.extend(["--target", target]));
    let options = Options::parse_from(words);
    let running = load::run(&options, &Accounts::Register, &SystemEntropy, false);
    timeout(PATIENCE, running).await.expect("the run ends in time").unwrap()
}

async fn run_on_a_node(line: &str) -> Report {
    let (_node, address) = Cluster::new().node().await;
    run(line, &[&address]).await
}

#[track_caller]
fn assert_good(report: &Report) {
    assert!(report.is_good(), "{report}");
    assert_eq!((report.failed.refused, report.failed.unknown), (0, 0), "{report}");
}

#[tokio::test]
async fn direct_in_an_open_loop() {
    let report = run_on_a_node("direct --pairs 5 --rate 200 --ramp 300ms").await;
    assert_good(&report);
    assert!(report.messages > 0 && report.deliveries > 0, "{report}");
    let ack = report.latency_us.ack;
    assert!(0 < ack.p50 && ack.p50 <= ack.p90 && ack.p90 <= ack.p99 && ack.p99 <= ack.max, "{report}");
    assert_eq!(report.intended_rate, Some(200.0));
    assert_eq!(report.users, 10);
}

#[tokio::test]
async fn direct_in_a_closed_loop_across_nodes() {
    let cluster = Cluster::new();
    let ((_one, first), (_two, second)) = (cluster.node().await, cluster.node().await);
    for until in ["delivered", "acknowledged"] {
        let line = format!("direct --pairs 5 --window 4 --until {until} --body 100");
        let report = run(&line, &[&first, &second]).await;
        assert_good(&report);
        assert!(report.messages > 20 && report.deliveries > 20, "{report}");
        assert_eq!(report.intended_rate, None);
    }
}

#[tokio::test]
async fn groups() {
    let report = run_on_a_node("group --members 6 --senders 3 --groups 2 --window 2").await;
    assert_good(&report);
    // Everybody but the sender; what the window's ends cut off is little.
    assert!(report.deliveries > 3 * report.messages, "{report}");
}

#[tokio::test]
async fn a_mixture() {
    assert_good(&run_on_a_node("mixed --pairs 5 --members 5 --senders 2 --rate 300").await);
}

#[tokio::test]
async fn history_pages() {
    let report = run_on_a_node("history --pairs 3 --entries 120 --page 30 --window 1").await;
    assert_good(&report);
    assert!(report.messages > 0);
}

#[tokio::test]
async fn storms() {
    for scenario in
        ["login-storm --window 3", "login-storm --rate 50", "reconnect-storm", "reconnect-storm --rate 50"]
    {
        let report = run_on_a_node(&format!("{scenario} --connections 12 --conversations 4")).await;
        assert_good(&report);
        assert!(report.messages > 5 && report.deliveries > 5, "{report}");
        assert_eq!(report.failed.disconnects, 0, "{report}");
    }
}

#[tokio::test]
async fn idle_users_and_a_process() {
    let pid = std::process::id();
    let report = run_on_a_node(&format!("idle --connections 30 --conversations 6 --processes {pid}")).await;
    assert_good(&report);
    assert_eq!((report.users, report.messages), (30, 0));
    assert_eq!(report.processes.len(), 1);
    assert!(report.processes[0].rss_end_bytes > 0);
}

#[tokio::test]
async fn the_highest_rate_is_searched_for() {
    let report = run_on_a_node("direct --pairs 3 --rate 20 --find-max --p99 1ms").await;
    assert!(!report.trials.is_empty());
    assert_eq!(report.anomalies_total, 0, "{report}");
}

/// What scripts read.
#[tokio::test]
async fn the_result_as_json_and_as_a_page() {
    let pid = std::process::id();
    let report = run_on_a_node(&format!("direct --pairs 2 --window 1 --processes {pid}")).await;
    let json = serde_json::to_value(&report).unwrap();
    for (path, right) in [
        ("/scenario", json["scenario"] == "direct"),
        ("/messages", json["messages"].as_u64().unwrap() > 0),
        ("/deliveries", json["deliveries"].is_u64()),
        ("/rate", json["rate"].is_f64()),
        ("/latency_us/ack/p999", json["latency_us"]["ack"]["p999"].is_u64()),
        ("/latency_us/delivery/max", json["latency_us"]["delivery"]["max"].is_u64()),
        ("/anomalies/lost", json["anomalies"]["lost"] == 0),
        ("/anomalies_total", json["anomalies_total"] == 0),
        ("/cpu_us_per_message", json["cpu_us_per_message"][pid.to_string()].is_f64()),
        ("/processes/0/name", json["processes"][0]["name"].is_string()),
        ("/processes/0/rss_end_bytes", json["processes"][0]["rss_end_bytes"].is_u64()),
        ("/steal_percent", json["steal_percent"].is_f64()),
        ("/settings/pairs", json["settings"]["pairs"] == 2),
        ("/version", json["version"] == env!("CARGO_PKG_VERSION")),
    ] {
        assert!(right, "{path}: {json:#}");
    }
    assert!(json["settings"].get("database").is_none(), "it may hold a password");
    let read: Report = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(read.messages, report.messages);
    assert!(load::compare(&json, &json).unwrap().contains("1.00"));
    let page = load::html::page(&report);
    for outside in ["<script", "http", "src=", "href="] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("<svg"));
}

/// What the proxy does to one pushed message, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sabotage {
    Nothing,
    Drop,
    DropForGood,
    Duplicate,
    Swap,
    Alter,
    Misdeliver,
}

/// Stands before a node, and passes lines on.
async fn proxy(node: String, sabotage: Sabotage, tracker: &TaskTracker) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let done = Arc::new(AtomicBool::new(sabotage == Sabotage::Nothing));
    let inner = tracker.clone();
    tracker.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (node, done) = (node.clone(), Arc::clone(&done));
            inner.spawn(async move {
                let server = TcpStream::connect(&node).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let mut lines = BufReader::new(from_server).lines();
                let down = async {
                    // Not the first ones: what precedes is counted from there.
                    let (mut messages, mut held) = (0, None::<String>);
                    while let Ok(Some(line)) = lines.next_line().await {
                        let is_message = line.contains(r#""kind":"message""#);
                        messages += usize::from(is_message);
                        let mut out = vec![line.clone()];
                        if let Some(earlier) = held.take() {
                            out.push(earlier);
                        } else if sabotage == Sabotage::DropForGood && is_message && messages > 3 {
                            done.store(true, Relaxed);
                            out.clear();
                        } else if is_message && messages > 3 && !done.swap(true, Relaxed) {
                            match sabotage {
                                Sabotage::Nothing | Sabotage::DropForGood => {}
                                Sabotage::Drop => out.clear(),
                                Sabotage::Duplicate => out.push(line),
                                Sabotage::Swap => held = out.pop(),
                                Sabotage::Alter => out = vec![line.replace(" abc", " abd")],
                                Sabotage::Misdeliver => {
                                    let (conv, rest) = ("g77", line.split_once(r#"","seq":"#).unwrap().1);
                                    let moved = format!(r#"{{"push":"entry","conv":"{conv}","seq":{rest}"#);
                                    let seq = moved.split(r#""seq":"#).nth(1).unwrap();
                                    let seq: u64 = seq.split(',').next().unwrap().parse().unwrap();
                                    let open =
                                        format!(r#"{{"push":"open","conv":"{conv}","after":{}}}"#, seq - 1);
                                    out.extend([open, moved]);
                                }
                            }
                        }
                        for line in out {
                            if to_client.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                                return;
                            }
                        }
                    }
                };
                tokio::select! {
                    () = down => {}
                    _ = copy(&mut from_client, &mut to_server) => {}
                }
            });
        }
    });
    address
}

async fn sabotaged(sabotage: Sabotage) -> Report {
    let (_node, address) = Cluster::new().node().await;
    let tracker = TaskTracker::new();
    let proxied = proxy(address.clone(), sabotage, &tracker).await;
    // The senders are at the node itself, the receivers behind the proxy.
    run("direct --pairs 2 --rate 100 --settle 2s --body 60", &[&address, &proxied]).await
}

#[tokio::test]
async fn a_proxy_that_does_nothing_is_not_noticed() {
    assert_good(&sabotaged(Sabotage::Nothing).await);
}

#[tokio::test]
async fn a_dropped_push_is_noticed() {
    let report = sabotaged(Sabotage::Drop).await;
    assert!(!report.is_good() && report.anomalies.gaps > 0, "{report}");
    // The client has resumed, and got it then.
    assert_eq!(report.anomalies.lost, 0, "{report}");
}

#[tokio::test]
async fn what_never_comes_is_lost() {
    let report = sabotaged(Sabotage::DropForGood).await;
    assert!(!report.is_good() && report.anomalies.lost > 0, "{report}");
    assert!(!report.settled, "{report}");
}

#[tokio::test]
async fn a_duplicated_push_is_noticed() {
    let report = sabotaged(Sabotage::Duplicate).await;
    assert!(!report.is_good() && report.anomalies.duplicated > 0, "{report}");
}

#[tokio::test]
async fn an_overtaken_push_is_noticed() {
    let report = sabotaged(Sabotage::Swap).await;
    assert!(!report.is_good() && report.anomalies.gaps > 0, "{report}");
}

#[tokio::test]
async fn an_altered_push_is_noticed() {
    let report = sabotaged(Sabotage::Alter).await;
    assert!(!report.is_good() && report.anomalies.altered > 0, "{report}");
}

#[tokio::test]
async fn a_message_for_others_is_noticed() {
    let report = sabotaged(Sabotage::Misdeliver).await;
    assert!(!report.is_good() && report.anomalies.misdelivered > 0, "{report}");
}

/// The same load over TLS, from whom the node's certificate is trusted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let tls = Some(Arc::new(server::tls::Tls::load(&certificate, &key).unwrap()));
    let (_node, address) = Cluster::new().node_with(NodeConfig { tls, ..NodeConfig::default() }).await;
    let line = format!("direct --pairs 4 --rate 200 --tls --tls-ca {}", certificate.display());
    let report = run(&line, &[&address]).await;
    assert!(report.is_good(), "{report}");
}
