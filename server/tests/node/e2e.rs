//! The whole system: three nodes as processes, behind nginx, on MySQL and Redis in containers, with a workload running while things fail.
//!
//! What the users saw is checked at the end: SPEC.md, section 2. The nodes are processes so that they can be killed, frozen and drained.

use std::{fmt::Write as _, fs::File, path::PathBuf, sync::Arc, time::Duration};

use loadgen::{Plan, Recorder, Verdict, check, history::Bounds, run};
use protocol::{Tcp, clock::SystemEntropy};
use testcontainers::{ImageExt as _, core::WaitFor, runners::AsyncRunner as _};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    docker::{Container, available, free_port, image, kill},
    mysql,
    process::Server,
    redis::Redis,
};

/// How long a run may take at most; it decides no test that passes.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long the workload runs before something fails, and after it was mended.
const AROUND: Duration = Duration::from_secs(2);
/// How long something is broken: longer than the sweep interval.
const BROKEN: Duration = Duration::from_secs(3);

/// Three nodes and what they stand on.
struct Cluster {
    mysql: mysql::Server,
    redis: Redis,
    nginx: Container,
    port: u16,
    database: String,
    nodes: Vec<Server>,
}

impl Cluster {
    async fn start() -> Self {
        let (mysql, redis) = tokio::join!(mysql::Server::start(), Redis::start());
        let database = mysql.database("e2e").await;
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(node(&database, &redis, free_port()).await);
        }
        let port = free_port();
        let nginx = nginx(port, &nodes).await;
        Self { mysql, redis, nginx, port, database, nodes }
    }

    async fn restart(&mut self, at: usize) {
        let port = self.nodes[at].port();
        self.nodes[at] = node(&self.database, &self.redis, port).await;
    }

    /// Sends a signal to a node's process.
    async fn signal(&self, at: usize, name: &str) {
        let pid = self.nodes[at].child.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
    }
}

async fn node(database: &str, redis: &Redis, port: u16) -> Server {
    let redis = format!("redis://127.0.0.1:{}", redis.port);
    Server::start_on(&["--database", database, "--redis", &redis, "--sweep-interval", "1"], port).await
}

/// nginx before the nodes, as in nginx/nginx.conf but for the ports and for how soon a node is tried again.
async fn nginx(port: u16, nodes: &[Server]) -> Container {
    let mut servers = String::new();
    for node in nodes {
        writeln!(servers, "server {} weight=1 max_fails=3 fail_timeout=1s;", node.address).unwrap();
    }
    let configuration = format!(
        "error_log stderr notice;\nevents {{ worker_connections 4096; }}\nstream {{\n upstream MyServer {{\n{servers} }}\n \
         server {{ listen 127.0.0.1:{port}; proxy_connect_timeout 1s; proxy_pass MyServer; tcp_nodelay on; }}\n}}\n"
    );
    image("CHAT_NGINX_IMAGE", "chat-nginx:local")
        .with_wait_for(WaitFor::message_on_stderr("start worker process"))
        .with_network("host")
        .with_copy_to("/etc/nginx/nginx.conf", configuration.into_bytes())
        .start()
        .await
        .unwrap()
}

/// Runs a workload, has something fail in the middle of it, and checks what the users saw.
async fn with_fault(cluster: &mut Cluster, name: &str, fault: impl AsyncFnOnce(&mut Cluster)) {
    let recorder = Recorder::new(Bounds::default());
    let plan = Plan {
        seed: 1,
        prefix: format!("{}-", name.replace(' ', "-")),
        users: 6,
        sessions: 2,
        operations: u64::MAX,
        pause: Duration::from_millis(20),
        backoff_max: Duration::from_secs(1),
        settle: PATIENCE / 2,
        ..Plan::default()
    };
    let enough = CancellationToken::new();
    let address = format!("127.0.0.1:{}", cluster.port);
    let tracker = TaskTracker::new();
    let running = tracker.spawn({
        let (recorder, enough, tracker) = (recorder.clone(), enough.clone(), tracker.clone());
        async move { run(Tcp, &[address], plan, recorder, Arc::new(SystemEntropy), tracker, enough).await }
    });
    sleep(AROUND).await;
    recorder.fault_began(name);
    fault(cluster).await;
    recorder.fault_ended(name);
    recorder.healed();
    sleep(AROUND).await;
    enough.cancel();
    let history = timeout(PATIENCE, running).await.expect("the run ends in time").unwrap();
    let verdict = check(&history);
    println!("{name}: {} events, {verdict}", history.events.len());
    if verdict != Verdict::Valid {
        let path: PathBuf = std::env::temp_dir().join(format!("chat-e2e-{}.jsonl", name.replace(' ', "-")));
        history.write(File::create(&path).unwrap()).unwrap();
        panic!("{name}: {verdict}; the history is in {}", path.display());
    }
    assert!(history.events.len() > 500, "{name}: the workload ran");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_are_kept_while_things_fail() {
    let images = [
        ("CHAT_MYSQL_IMAGE", "chat-mysql:local"),
        ("CHAT_REDIS_IMAGE", "chat-redis:local"),
        ("CHAT_NGINX_IMAGE", "chat-nginx:local"),
    ];
    if !available("end-to-end tests behind nginx", &images).await {
        return;
    }
    let mut cluster = Cluster::start().await;
    let cluster = &mut cluster;
    with_fault(cluster, "nothing fails", async |_| {}).await;
    with_fault(cluster, "node killed", async |cluster| {
        cluster.nodes[0].child.kill().await.unwrap();
        sleep(BROKEN).await;
        cluster.restart(0).await;
    })
    .await;
    with_fault(cluster, "node frozen", async |cluster| {
        cluster.signal(1, "-STOP").await;
        sleep(BROKEN).await;
        cluster.signal(1, "-CONT").await;
    })
    .await;
    with_fault(cluster, "rolling restart", async |cluster| {
        for at in 0..cluster.nodes.len() {
            cluster.signal(at, "-TERM").await;
            let ended = timeout(PATIENCE, cluster.nodes[at].child.wait()).await.expect("an end in time");
            assert!(ended.unwrap().success(), "a drain ends in order");
            cluster.restart(at).await;
        }
    })
    .await;
    with_fault(cluster, "redis killed", async |cluster| {
        kill(&cluster.redis.container).await;
        sleep(BROKEN).await;
        cluster.redis.container.start().await.unwrap();
    })
    .await;
    with_fault(cluster, "redis emptied", async |cluster| {
        assert_eq!(cluster.redis.command(b"FLUSHALL").await, "+OK");
    })
    .await;
    with_fault(cluster, "mysql killed", async |cluster| {
        kill(&cluster.mysql.container).await;
        sleep(Duration::from_secs(1)).await;
        cluster.mysql.container.start().await.unwrap();
    })
    .await;
    with_fault(cluster, "nginx reloaded", async |cluster| {
        let status = Command::new("docker").args(["kill", "--signal=HUP", cluster.nginx.id()]).output().await;
        assert!(status.unwrap().status.success());
    })
    .await;
}
