//! What the scenarios run on: three nodes as processes, one in a container, MySQL, Redis, and nginx before them.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};
use testcontainers::{
    ImageExt as _,
    bollard::models::{NetworkConnectRequest, NetworkDisconnectRequest},
    core::{AccessMode, Host, Mount, WaitFor, client::docker_client_instance},
    runners::AsyncRunner as _,
};
use tokio::process::Command;

use crate::{
    docker::{Container, free_port, image, kill},
    mysql,
    process::Server,
    redis::Redis,
};

/// The sweep interval of every node, in seconds: short, so that a run is.
pub(super) const SWEEP_INTERVAL: &str = "1";
/// Options of every node: what is silent is noticed in seconds, and all users share the addresses of a machine and its bridge.
const OPTIONS: [&str; 6] =
    ["--sweep-interval", SWEEP_INTERVAL, "--idle-timeout", "6", "--exempt", "0.0.0.0/0"];
/// Where the node in a container finds the others.
const HOST: &str = "host.docker.internal";

/// Three nodes as processes, one in a container that can be cut off, and what they stand on.
pub(super) struct Cluster {
    pub(super) mysql: mysql::Server,
    pub(super) redis: Redis,
    pub(super) nginx: Container,
    /// Of nginx.
    pub(super) address: String,
    pub(super) nodes: Vec<Server>,
    /// Of the node in the container.
    pub(super) remote_address: String,
    remote: Container,
    pub(super) database: String,
    network: String,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let (mysql, redis) = tokio::join!(mysql::Server::start(), Redis::start());
        let database = mysql.database("e2e").await;
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(node(&database, &redis, free_port()).await);
        }
        let port = free_port();
        let network = format!("chat-e2e-{port}");
        let remote = remote_node(&network, &database, &redis).await;
        let remote_address = format!("{}:6000", remote.get_bridge_ip_address().await.unwrap());
        let addresses = nodes.iter().map(|node| node.address.clone());
        let nginx = nginx(port, addresses.chain([remote_address.clone()])).await;
        let address = format!("127.0.0.1:{port}");
        Self { mysql, redis, nginx, address, nodes, remote_address, remote, database, network }
    }

    /// Takes the node in the container off its network: what is sent to it vanishes.
    pub(super) async fn cut_off(&self) {
        let request = NetworkDisconnectRequest { container: self.remote.id().into(), force: Some(true) };
        docker_client_instance().await.unwrap().disconnect_network(&self.network, request).await.unwrap();
    }

    pub(super) async fn mend(&self) {
        let request = NetworkConnectRequest { container: self.remote.id().into(), endpoint_config: None };
        docker_client_instance().await.unwrap().connect_network(&self.network, request).await.unwrap();
    }

    /// Kills a node's process.
    pub(super) async fn kill(&mut self, at: usize) {
        self.nodes[at].child.kill().await.unwrap();
    }

    /// Starts a node again, which has ended, at the same address.
    pub(super) async fn restart(&mut self, at: usize) {
        let port = self.nodes[at].port();
        self.nodes[at] = node(&self.database, &self.redis, port).await;
    }

    /// Ends a node in order, and starts another in its place. Returns what the first one logged.
    pub(super) async fn replace(&mut self, at: usize) -> Vec<String> {
        let ended = self.nodes.remove(at);
        let port = ended.port();
        let (status, log) = ended.signal("-TERM").await;
        assert!(status.success(), "a drain ends in order: {log:?}");
        self.nodes.insert(at, node(&self.database, &self.redis, port).await);
        log
    }

    /// Does to the schema what a later version's migration may do: it adds, under the eyes of nodes that do not know of it.
    pub(super) async fn expand_schema(&self) {
        let mut connection = MySqlConnection::connect(&self.database).await.unwrap();
        let (earlier,): (i64,) = sqlx::query_as("select count(*) from _sqlx_migrations where version > 9000")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let mut sql = String::new();
        for table in ["entry", "user", "membership", "friend", "token", "delivered", "chat_group"] {
            write!(sql, "alter table {table} add column later{earlier} varchar(20);").unwrap();
        }
        // No column is at its old place in what is read by place.
        write!(sql, "alter table user add column first{earlier} int not null default 7 first;").unwrap();
        write!(sql, "create index later{earlier} on entry (sender, at);").unwrap();
        write!(sql, "create table later{earlier} (id int primary key);").unwrap();
        write!(sql, "insert into _sqlx_migrations select {}, 'later', now(), true, x'00', 1", 9001 + earlier)
            .unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }

    /// Sends a signal to a node's process.
    pub(super) async fn signal(&self, at: usize, name: &str) {
        let pid = self.nodes[at].child.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
    }

    /// Puts nodes that were started without a Redis in the place of those that are processes. That in the container loses it.
    pub(super) async fn start_without_redis(&mut self) {
        kill(&self.redis.container).await;
        for at in 0..self.nodes.len() {
            self.replace(at).await;
        }
    }
}

async fn node(database: &str, redis: &Redis, port: u16) -> Server {
    let redis = format!("redis://127.0.0.1:{}", redis.port);
    Server::start_on(&[&["--database", database, "--redis", &redis][..], &OPTIONS].concat(), port).await
}

async fn remote_node(network: &str, database: &str, redis: &Redis) -> Container {
    let database = database.replace("127.0.0.1", HOST);
    let redis = format!("redis://{HOST}:{}", redis.port);
    let binary = Mount::bind_mount(env!("CARGO_BIN_EXE_chatserver"), "/chatserver");
    let command = ["/chatserver", "0.0.0.0", "6000", "--argon2-memory", "8", "--argon2-passes", "1"];
    let services = ["--database", &database, "--redis", &redis];
    image("CHAT_BASE_IMAGE", "chat-base:local")
        .with_wait_for(WaitFor::message_on_stderr("listening"))
        .with_network(network)
        .with_host(HOST, Host::HostGateway)
        .with_mount(binary.with_access_mode(AccessMode::ReadOnly))
        .with_cmd([&command[..], &services, &OPTIONS].concat())
        .start()
        .await
        .unwrap()
}

/// nginx before the nodes, as in nginx/nginx.conf but for the ports and for how soon a node is tried again.
async fn nginx(port: u16, nodes: impl Iterator<Item = String>) -> Container {
    let mut servers = String::new();
    for node in nodes {
        writeln!(servers, "server {node} weight=1 max_fails=3 fail_timeout=1s;").unwrap();
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
