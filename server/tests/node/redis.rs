//! The relay on a real Redis, in a container: SPEC.md, guarantees 7 and 8 and section 10, with Redis failing in every way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use protocol::{Tcp, UserId, clock::SystemEntropy, message::PresenceState};
use serde_json::json;
use server::{
    node::NodeConfig,
    relay::{
        Relay as _, RelayEvent, RelayState,
        conformance::{Peer, apart, suite},
        redis::{RedisConfig, RedisRelay, Timing},
    },
    store::{Store, memory::MemoryStore},
};
use testcontainers::{
    CopyTargetOptions, ImageExt as _,
    core::{IntoContainerPort as _, WaitFor},
    runners::AsyncRunner as _,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    docker::{Container, available, free_port, image},
    harness::{PATIENCE, TestNode, Wire, mid},
};

const DEPLOYMENT: [u8; 16] = [1; 16];
/// No sweep to help.
const NEVER: Duration = Duration::from_secs(3600);

/// A Redis in a container, always at the same port.
pub(crate) struct Redis {
    pub(crate) container: Container,
    pub(crate) port: u16,
}

/// Whether no container can be run here. Then the test ends, having said it; in CI it fails.
async fn not_run() -> bool {
    !available("tests on Redis", &[("CHAT_REDIS_IMAGE", "chat-redis:local")]).await
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::start_with(free_port(), &[], Vec::new()).await
    }

    /// With more arguments and files.
    pub(crate) async fn start_with(
        port: u16,
        arguments: &[&str],
        files: Vec<(CopyTargetOptions, Vec<u8>)>,
    ) -> Self {
        let mut request = image("CHAT_REDIS_IMAGE", "chat-redis:local")
            .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
            .with_mapped_port(port, 6379.tcp())
            // Emptied when it ends, as a cache is.
            .with_cmd(["--save", "", "--appendonly", "no"].iter().chain(arguments).copied());
        for (to, bytes) in files {
            request = request.with_copy_to(to, bytes);
        }
        Self { container: request.start().await.unwrap(), port }
    }

    fn config(&self) -> RedisConfig {
        config(self.port)
    }

    /// One command, as words; the first line of the answer.
    pub(crate) async fn command(&self, command: &[u8]) -> String {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await.unwrap());
        stream.write_all(command).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
        let mut line = String::new();
        timeout(PATIENCE, stream.read_line(&mut line)).await.unwrap().unwrap();
        line.trim_end().into()
    }
}

/// What stands before a Redis and can make a wedged one of it: everything is answered, and what is published reaches nobody.
pub(crate) struct Wedge {
    pub(crate) port: u16,
    wedged: Arc<AtomicBool>,
    _accepting: AbortOnDropHandle<()>,
}

impl Wedge {
    pub(crate) async fn before(redis: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (wedged, tracker) = (Arc::<AtomicBool>::default(), TaskTracker::new());
        let accepting = tracker.spawn({
            let (wedged, tracker) = (Arc::clone(&wedged), tracker.clone());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tracker.spawn(forward(client, redis, Arc::clone(&wedged)));
                }
            }
        });
        Self { port, wedged, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub(crate) fn set(&self, wedged: bool) {
        self.wedged.store(wedged, Ordering::Relaxed);
    }
}

async fn forward(client: TcpStream, redis: u16, wedged: Arc<AtomicBool>) {
    // A command with as many arguments and the same kind of reply.
    const PUBLISH: &[u8] = b"$7\r\nPUBLISH\r\n";
    const HARMLESS: &[u8] = b"$5\r\nSETNX\r\n";
    let Ok(server) = TcpStream::connect(("127.0.0.1", redis)).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let mut rest = &buffer[..read];
            while wedged.load(Ordering::Relaxed)
                && let Some(at) = rest.windows(PUBLISH.len()).position(|bytes| bytes == PUBLISH)
            {
                to_server.write_all(&rest[..at]).await.ok();
                to_server.write_all(HARMLESS).await.ok();
                rest = &rest[at + PUBLISH.len()..];
            }
            if to_server.write_all(rest).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

/// Short intervals, and a lease that outlasts what a busy machine does.
fn config(port: u16) -> RedisConfig {
    let mut config = RedisConfig::parse(&format!("redis://127.0.0.1:{port}"), "test").unwrap();
    config.timing = Timing {
        canary_interval: Duration::from_millis(100),
        canary_patience: Duration::from_secs(1),
        response_timeout: Duration::from_secs(1),
        heartbeat: Duration::from_millis(200),
        lease: Duration::from_secs(10),
        backoff: (Duration::from_millis(20), Duration::from_millis(200)),
        linger: Duration::from_millis(200),
        spread: Duration::from_millis(20),
        ..Timing::default()
    };
    config
}

fn start(config: RedisConfig, deployment: [u8; 16]) -> (RedisRelay, server::relay::RelayEvents) {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    RedisRelay::start(Tcp, config, deployment, Arc::new(SystemEntropy), &tracker, &stop)
}

fn join(config: RedisConfig, deployment: [u8; 16]) -> Peer {
    let (relay, events) = start(config, deployment);
    Peer { relay: Arc::new(relay), events }
}

fn user(number: u64) -> UserId {
    UserId::new(number).unwrap()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

/// Two nodes on one store, and a user on each: alice and bob, friends.
struct Pair {
    _nodes: Vec<TestNode>,
    alice: Wire,
    bob: Wire,
}

impl Pair {
    async fn start(config: &RedisConfig, sweep_interval: Duration) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(DEPLOYMENT));
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let (relay, events) = start(config.clone(), DEPLOYMENT);
            let node = NodeConfig { sweep_interval, ..NodeConfig::default() };
            nodes.push(TestNode::start(Arc::clone(&store), Arc::new(relay), events, node).await);
        }
        let (_, mut alice) = nodes[0].user("alice").await;
        let (bob_id, bob) = nodes[1].user("bob").await;
        alice.ok(json!({"op": "befriend", "mid": mid(), "user": bob_id})).await;
        Self { _nodes: nodes, alice, bob }
    }

    /// Waits until each sees the other's state.
    async fn see(&mut self, state: &str) {
        for wire in [&mut self.alice, &mut self.bob] {
            until(&format!("the friend {state}"), async || {
                wire.ok(json!({"op": "friends"})).await["friends"][0]["state"] == state
            })
            .await;
        }
    }

    async fn chat(&mut self, what: &str) {
        for n in 0..5 {
            self.alice.say("d1-2", &format!("{what} a{n}")).await;
            assert_eq!(self.bob.message("d1-2").await, format!("{what} a{n}"));
            assert_eq!(self.alice.message("d1-2").await, format!("{what} a{n}"));
            self.bob.say("d1-2", &format!("{what} b{n}")).await;
            assert_eq!(self.bob.message("d1-2").await, format!("{what} b{n}"));
            assert_eq!(self.alice.message("d1-2").await, format!("{what} b{n}"));
        }
    }
}

/// With a password and a database number, too.
#[tokio::test]
async fn the_relay_on_redis_conforms() {
    if not_run().await {
        return;
    }
    let redis = Redis::start_with(free_port(), &["--requirepass", "s@crat"], Vec::new()).await;
    let mut config =
        RedisConfig::parse(&format!("redis://:s%40crat@127.0.0.1:{}/3", redis.port), "test").unwrap();
    config.timing = redis.config().timing;
    suite(|| async { join(config.clone(), DEPLOYMENT) }).await;
}

#[tokio::test]
async fn systems_that_share_a_redis_are_apart() {
    if not_run().await {
        return;
    }
    let redis = Redis::start().await;
    let peer = |deployment| join(redis.config(), deployment);
    apart(peer(DEPLOYMENT), peer(DEPLOYMENT), peer([2; 16])).await;
    let mut other = RedisConfig::parse(&format!("redis://127.0.0.1:{}", redis.port), "other").unwrap();
    other.timing = redis.config().timing;
    apart(peer(DEPLOYMENT), peer(DEPLOYMENT), join(other, DEPLOYMENT)).await;
}

#[tokio::test]
async fn nonsense_on_the_channels_is_ignored() {
    if not_run().await {
        return;
    }
    let redis = Redis::start().await;
    let (mut a, mut b) = (join(redis.config(), DEPLOYMENT), join(redis.config(), DEPLOYMENT));
    a.settle().await;
    b.settle().await;
    b.subscribe(2, &["g7"]).await;
    for channel in ["g7", "presence"] {
        let name = format!("test:{}:{channel}", "01".repeat(16));
        for payload in ["\"\"", "nonsense", "\"\\x01\\x00\"", &"x".repeat(100)] {
            let heard = redis.command(format!("PUBLISH {name} {payload}").as_bytes()).await;
            assert_ne!(heard, ":0", "someone listens to {name}");
        }
        let forged = format!("PUBLISH {name} \"\\x01{}{}\"", "\\x01".repeat(16), "\\xff".repeat(40));
        redis.command(forged.as_bytes()).await;
    }
    a.publish("g7", &[1]);
    a.relay.set_online(user(1), true);
    assert_eq!(b.hint().await, ("g7".into(), vec![1]));
    b.until(1, PresenceState::Online).await;
}

#[tokio::test]
async fn users_of_different_nodes_chat_over_redis() {
    if not_run().await {
        return;
    }
    let redis = Redis::start().await;
    let mut pair = Pair::start(&redis.config(), NEVER).await;
    pair.see("online").await;
    pair.chat("hints").await;
    // A second session of alice, on bob's node: what her first says reaches it over her own channel.
    let mut second = Wire::connect(&pair._nodes[1].address).await;
    second.login("alice").await;
    pair.alice.say("d1-2", "to my other device").await;
    second.find("the message", |line| line["text"] == "to my other device").await;
    drop(pair.bob);
    let offline = |line: &serde_json::Value| line["push"] == "presence" && line["state"] == "offline";
    pair.alice.find("bob offline", offline).await;
}

#[tokio::test]
async fn with_redis_down_the_sweep_delivers() {
    if not_run().await {
        return;
    }
    let redis = Redis::start().await;
    let mut pair = Pair::start(&redis.config(), Duration::from_millis(100)).await;
    pair.see("online").await;
    redis.container.stop_with_timeout(Some(0)).await.unwrap();
    pair.chat("while it is down").await;
    redis.container.start().await.unwrap();
    pair.chat("while it comes back").await;
}

/// What was committed while Redis was down arrives when it is back, with no sweep to find it; and hints flow again.
#[tokio::test]
async fn when_redis_is_back_heads_are_compared() {
    if not_run().await {
        return;
    }
    let redis = Redis::start().await;
    let mut pair = Pair::start(&redis.config(), NEVER).await;
    pair.see("online").await;
    pair.chat("before").await;
    redis.container.stop_with_timeout(Some(0)).await.unwrap();
    pair.alice.say("d1-2", "missed").await;
    pair.bob.say("d1-2", "missed too").await;
    redis.container.start().await.unwrap();
    let missed_too = |line: &serde_json::Value| line["text"] == "missed too";
    pair.alice.find("the message", missed_too).await;
    pair.bob.find("the message", missed_too).await;
    pair.see("online").await;
    pair.alice.aside.clear();
    pair.bob.aside.clear();
    pair.chat("after").await;
}

#[tokio::test]
async fn redis_may_be_absent_at_the_start() {
    if not_run().await {
        return;
    }
    let port = free_port();
    let mut pair = Pair::start(&config(port), Duration::from_millis(100)).await;
    pair.see("unknown").await;
    pair.chat("without").await;
    let _redis = Redis::start_with(port, &[], Vec::new()).await;
    pair.see("online").await;
    let told = |line: &serde_json::Value| line["push"] == "presence" && line["state"] == "online";
    pair.alice.find("bob online", told).await;
    pair.chat("with").await;
}

#[tokio::test]
async fn presence_survives_that_redis_is_emptied() {
    if not_run().await {
        return;
    }
    let redis = Redis::start().await;
    let (mut a, mut b) = (join(redis.config(), DEPLOYMENT), join(redis.config(), DEPLOYMENT));
    a.relay.set_online(user(1), true);
    b.relay.set_online(user(2), true);
    a.until(2, PresenceState::Online).await;
    b.until(1, PresenceState::Online).await;
    // Neither had a lease before its first.
    for peer in [&mut a, &mut b] {
        while let Ok(event) = peer.events.try_recv() {
            assert!(!matches!(event, RelayEvent::LeaseLost));
        }
    }
    assert_eq!(redis.command(b"FLUSHALL").await, "+OK");
    // Their sessions' clients are probed.
    for peer in [&mut a, &mut b] {
        let lost = async { while !matches!(peer.events.recv().await, Some(RelayEvent::LeaseLost)) {} };
        timeout(PATIENCE, lost).await.expect("it notices");
    }
    // Who joins now knows only what was written since.
    let mut late = join(redis.config(), DEPLOYMENT);
    late.until(1, PresenceState::Online).await;
    late.until(2, PresenceState::Online).await;
    a.until(2, PresenceState::Online).await;
    b.until(1, PresenceState::Online).await;
    b.relay.set_online(user(2), false);
    a.until(2, PresenceState::Offline).await;
}

/// A peer that has gone silently is noticed by the ping; presence is then said to be unknown, and comes back.
#[tokio::test]
async fn a_frozen_redis_is_noticed() {
    if not_run().await {
        return;
    }
    let redis = Redis::start().await;
    let mut config = redis.config();
    config.timing.lease = Duration::from_secs(2);
    let (relay, events) = start(config.clone(), DEPLOYMENT);
    let relay = Arc::new(relay);
    let mut a = Peer { relay: relay.clone(), events };
    let b = join(config, DEPLOYMENT);
    b.relay.set_online(user(2), true);
    a.until(2, PresenceState::Online).await;
    redis.container.pause().await.unwrap();
    until("the ping to fail", async || relay.state() == RelayState::Away).await;
    // Nobody waits for a relay that is known to be away.
    a.subscribe(1, &["g7"]).await;
    a.until(2, PresenceState::Unknown).await;
    redis.container.unpause().await.unwrap();
    until("the link", async || relay.state() == RelayState::Up).await;
    a.until(2, PresenceState::Online).await;
    b.publish("g7", &[1]);
    until("hints", async || {
        b.publish("g7", &[1]);
        timeout(Duration::from_millis(200), a.hint()).await.is_ok()
    })
    .await;
}

/// A Redis that answers and delivers nothing is found out and said to be wedged; what is missed is found by the looks after each new link, and
/// hints flow again by themselves. SPEC.md, guarantee 7 and section 10.
#[tokio::test]
async fn a_redis_that_delivers_nothing_is_noticed() {
    if not_run().await {
        return;
    }
    let redis = Redis::start().await;
    let wedge = Wedge::before(redis.port).await;
    let mut pair = Pair::start(&config(wedge.port), NEVER).await;
    pair.see("online").await;
    pair.chat("before").await;
    let (relay, events) = start(config(wedge.port), DEPLOYMENT);
    let mut witness = Peer { relay: Arc::new(relay), events };
    witness.settle().await;
    wedge.set(true);
    witness.until_state(RelayState::Wedged).await;
    assert!(witness.relay.wedges() > 0);
    pair.chat("by the looks after new links").await;
    pair.see("online").await;
    wedge.set(false);
    witness.until_state(RelayState::Up).await;
    witness.subscribe(3, &["g7"]).await;
    let other = join(config(wedge.port), DEPLOYMENT);
    other.until_state(RelayState::Up).await;
    other.publish("g7", &[1]);
    assert_eq!(witness.hint().await, ("g7".into(), vec![1]));
    pair.alice.aside.clear();
    pair.bob.aside.clear();
    pair.chat("after").await;
}

/// A node that ends without a word takes its users with it when its lease ends.
#[test]
fn users_of_a_crashed_node_go_offline() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (here, there) = (runtime().unwrap(), runtime().unwrap());
    here.block_on(async {
        if not_run().await {
            there.shutdown_background();
            return;
        }
        let redis = Redis::start().await;
        let mut config = redis.config();
        config.timing.lease = Duration::from_secs(2);
        let crashing = there.spawn({
            let config = config.clone();
            async move { join(config, DEPLOYMENT) }
        });
        let crashing = crashing.await.unwrap();
        crashing.relay.set_online(user(1), true);
        let mut witness = join(config.clone(), DEPLOYMENT);
        witness.until(1, PresenceState::Online).await;
        let began = Instant::now();
        // All its tasks end where they are, and its sockets are closed.
        there.shutdown_background();
        witness.until(1, PresenceState::Offline).await;
        println!("offline {:?} after the crash; lease {:?}", began.elapsed(), config.timing.lease);
        // Its successor is another incarnation.
        let successor = join(config, DEPLOYMENT);
        successor.relay.set_online(user(1), true);
        witness.until(1, PresenceState::Online).await;
        drop(crashing);
        assert_eq!(witness.relay.elsewhere(user(1)), PresenceState::Online);
    });
}
