//! Whole deployments over TLS, in containers: MySQL and Redis that take nothing else, and nginx before a node.

use serde_json::json;
use tempfile::TempDir;
use testcontainers::{CopyTargetOptions, ImageExt as _, core::WaitFor, runners::AsyncRunner as _};
use tokio::time::{sleep, timeout};

use crate::{
    certificates::{Authority, Files},
    docker::{available, free_port, image},
    harness::{PATIENCE, Wire, mid},
    mysql,
    process::{Server, says},
    redis::Redis,
};

/// Where a container finds a pair and the authority's certificate.
const CERTIFICATE: &str = "/tls/cert.pem";
const KEY: &str = "/tls/key.pem";
const CA: &str = "/tls/ca.pem";

/// They, for whoever runs in the container to read.
pub(crate) fn copies(files: &Files) -> Vec<(CopyTargetOptions, Vec<u8>)> {
    let copy = |to: &str, name: &str| {
        (CopyTargetOptions::new(to).with_mode(0o644), std::fs::read(files.path(name)).unwrap())
    };
    vec![copy(CERTIFICATE, "cert.pem"), copy(KEY, "key.pem"), copy(CA, "ca.pem")]
}

/// Two nodes that reach MySQL and Redis over TLS alone, with certificates that are checked; what they do not trust, they do not use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_over_tls_to_mysql_and_redis() {
    let images = [mysql::IMAGE, ("CHAT_REDIS_IMAGE", "chat-redis:local")];
    if !available("nodes over TLS to MySQL and Redis", &images).await {
        return;
    }
    let files = Files::new();
    let mysql_options = [
        "--require-secure-transport=ON".to_owned(),
        format!("--ssl-ca={CA}"),
        format!("--ssl-cert={CERTIFICATE}"),
        format!("--ssl-key={KEY}"),
    ];
    let redis_options = [
        "--port",
        "0",
        "--tls-port",
        "6379",
        "--tls-cert-file",
        CERTIFICATE,
        "--tls-key-file",
        KEY,
        "--tls-ca-cert-file",
        CA,
        "--tls-auth-clients",
        "no",
    ];
    let (mysql, redis) = tokio::join!(
        mysql::Server::start_with(&mysql_options, copies(&files)),
        Redis::start_with(free_port(), &redis_options, copies(&files)),
    );
    let ca = files.ca().display().to_string();
    let database = format!("{}?ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}", mysql.database("encrypted").await);
    let redis = format!("rediss://127.0.0.1:{}", redis.port);
    // Hints come through Redis or not at all.
    let options = ["--database", &database, "--redis", &redis, "--redis-ca", &ca, "--sweep-interval", "3600"];
    let nodes = [Server::start_on(&options, 0).await, Server::start_on(&options, 0).await];
    for node in &nodes {
        logs(node, "redis is there").await;
    }
    let mut alice = user(&nodes[0], "alice").await;
    let mut bob = user(&nodes[1], "bob").await;
    alice.ok(json!({"op": "befriend", "mid": mid(), "user": 2})).await;
    alice.find("bob", |line| line["push"] == "presence" && line["state"] == "online").await;
    bob.find("a friend", |line| line["kind"] == "befriended").await;
    alice.say("d1-2", "hello over there").await;
    assert_eq!(bob.message("d1-2").await, "hello over there");

    // The authority is another: the relay is away, with the reason, and the database is not opened at all.
    let other = files.path("other.pem").display().to_string();
    std::fs::write(&other, Authority::new("another authority").pem()).unwrap();
    let options = ["--database", &database, "--redis", &redis, "--redis-ca", &other];
    let third = Server::start_on(&options, 0).await;
    logs(&third, "UnknownIssuer").await;
    let database = format!("{}?ssl-mode=VERIFY_CA&ssl-ca={other}", mysql.url("encrypted"));
    let (code, _, error) = says(&["127.0.0.1", "0", "--database", &database], &[]).await;
    assert!(code == 1 && error.contains("UnknownIssuer"), "{error}");
    let plain = format!("{}?ssl-mode=DISABLED", mysql.url("encrypted"));
    let (code, _, error) = says(&["127.0.0.1", "0", "--database", &plain], &[]).await;
    assert!(code == 1 && error.contains("require_secure_transport"), "{error}");
}

async fn user(node: &Server, name: &str) -> Wire {
    let mut wire = Wire::connect(&node.address).await;
    wire.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
    wire.login(name).await;
    wire
}

/// Waits until the node's log has this.
async fn logs(node: &Server, text: &str) {
    let said = async {
        while !node.log().iter().any(|line| line.contains(text)) {
            sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("no {text:?} in {:#?}", node.log()));
}

/// `nginx/production-tls.conf` as it is, but for names of hosts and files: clients speak TLS with nginx, which says to the node who they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_speaks_tls_before_a_node() {
    const IMAGE: (&str, &str) = ("CHAT_NGINX_IMAGE", "chat-nginx:local");
    if !available("nginx with TLS", &[IMAGE]).await {
        return;
    }
    let (files, data) = (Files::new(), TempDir::new().unwrap());
    let node = Server::start(data.path(), 0, &["--proxy-protocol"]).await;
    let port = free_port();
    let mut configuration = include_str!("../../../../nginx/production-tls.conf").to_owned();
    let changes = [
        ("worker_processes auto;", "worker_processes 1; error_log stderr notice;".to_owned()),
        ("worker_connections 32768;", "worker_connections 512;".to_owned()),
        ("worker_rlimit_nofile 65536;", String::new()),
        ("server node1.internal:6000", format!("server {}", node.address)),
        ("server node2.internal:6000 max_fails=1 fail_timeout=5s;", String::new()),
        ("server node3.internal:6000 max_fails=1 fail_timeout=5s;", String::new()),
        ("listen 8000 ssl", format!("listen 127.0.0.1:{port} ssl")),
        ("/etc/nginx/chat/cert.pem", CERTIFICATE.to_owned()),
        ("/etc/nginx/chat/key.pem", KEY.to_owned()),
    ];
    for (from, to) in changes {
        assert!(configuration.contains(from), "{from}");
        configuration = configuration.replace(from, &to);
    }
    let mut request = image(IMAGE.0, IMAGE.1)
        .with_wait_for(WaitFor::message_on_stderr("start worker process"))
        .with_network("host")
        .with_copy_to("/etc/nginx/nginx.conf", configuration.into_bytes());
    for (to, bytes) in copies(&files) {
        request = request.with_copy_to(to, bytes);
    }
    let _nginx = request.start().await.unwrap();
    let mut wire = Wire::connect_tls(&format!("127.0.0.1:{port}"), &files.peer()).await;
    assert_eq!(wire.line().await["push"], "hello");
    wire.ok(json!({"op": "register", "mid": mid(), "name": "kirito", "password": "kirito"})).await;
    wire.login("kirito").await;
    // Nobody comes round it.
    assert_eq!(Wire::connect(&node.address).await.rest().await, b"");
}
