//! Nodes to test, and a client that knows nothing but lines.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use client::TlsPeer;
use protocol::{
    Net as _, Tcp,
    clock::{SystemClock, SystemEntropy},
};
use serde_json::{Value, json};
use server::{
    node::{NodeConfig, RunningNode, World},
    password::{Argon2id, HashError, Passwords},
    relay::{Relay, RelayEvents, local::Hub, none::NoRelay},
    store::{Store, memory::MemoryStore},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

/// How long anything may take that should happen. It decides no test that passes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node in this process.
pub(crate) struct TestNode {
    pub(crate) running: RunningNode,
    pub(crate) address: String,
}

impl TestNode {
    /// A node that is alone with its store.
    pub(crate) async fn alone(store: Arc<dyn Store>) -> Self {
        let (relay, events) = Arc::new(Hub::default()).join();
        Self::start(store, Arc::new(relay), events, NodeConfig::default()).await
    }

    /// A node on a store in memory.
    pub(crate) async fn in_memory() -> Self {
        Self::alone(Arc::new(MemoryStore::new([1; 16]))).await
    }

    /// A node on a store in memory, with other settings.
    pub(crate) async fn with_config(config: NodeConfig) -> Self {
        let (relay, events) = Arc::new(Hub::default()).join();
        Self::start(Arc::new(MemoryStore::new([1; 16])), Arc::new(relay), events, config).await
    }

    pub(crate) async fn start(
        store: Arc<dyn Store>,
        relay: Arc<dyn Relay>,
        relay_events: RelayEvents,
        config: NodeConfig,
    ) -> Self {
        let passwords = Arc::new(Argon2id::new(8, 1, 2, Arc::new(SystemEntropy)).unwrap());
        Self::start_with(store, relay, relay_events, config, passwords).await
    }

    /// For tests in virtual time, which goes on while a thread hashes a password: here that takes none.
    pub(crate) async fn in_virtual_time(relay_events: RelayEvents, config: NodeConfig) -> Self {
        let store = Arc::new(MemoryStore::new([1; 16]));
        Self::start_with(store, Arc::new(NoRelay), relay_events, config, Arc::new(Plain)).await
    }

    pub(crate) async fn start_with(
        store: Arc<dyn Store>,
        relay: Arc<dyn Relay>,
        relay_events: RelayEvents,
        config: NodeConfig,
        passwords: Arc<dyn Passwords>,
    ) -> Self {
        let listener = Tcp.bind("127.0.0.1:0").await.unwrap();
        let address = Tcp.local_addr(&listener).unwrap().to_string();
        let entropy = Arc::new(SystemEntropy);
        let world = World { store, relay, relay_events, passwords, clock: Arc::new(SystemClock), entropy };
        Self { running: RunningNode::start(Tcp, listener, world, config), address }
    }

    /// A connection, after the greeting.
    pub(crate) async fn connect(&self) -> Wire {
        let mut wire = Wire::connect(&self.address).await;
        assert_eq!(wire.line().await["push"], "hello");
        wire
    }

    /// A new user who is logged in: the number, and the connection.
    pub(crate) async fn user(&self, name: &str) -> (u64, Wire) {
        let mut wire = self.connect().await;
        let reply = wire.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
        wire.login(name).await;
        (reply["user"].as_u64().unwrap(), wire)
    }

    /// Two users who are friends.
    pub(crate) async fn friends(&self) -> ((u64, Wire), (u64, Wire)) {
        let (mut a, b) = (self.user("alice").await, self.user("bob").await);
        a.1.ok(json!({"op": "befriend", "mid": mid(), "user": b.0})).await;
        (a, b)
    }
}

/// A fresh message id.
pub(crate) fn mid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{:032x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A connection, line by line.
pub(crate) struct Wire {
    reader: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    next_id: u64,
    /// Lines that were read while something else was waited for.
    pub(crate) aside: VecDeque<Value>,
}

impl Wire {
    pub(crate) async fn connect(address: &str) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// Over TLS.
    pub(crate) async fn connect_tls(address: &str, peer: &TlsPeer) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(peer.shake_hands(stream).await.unwrap())
    }

    /// Over a connection of whatever kind.
    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let reader: Box<dyn AsyncRead + Send + Unpin> = Box::new(reader);
        let reader = BufReader::new(reader);
        Self { reader, writer: Box::new(writer), next_id: 1000, aside: VecDeque::new() }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.writer.write_all(bytes.as_ref()).await.unwrap();
        self.writer.flush().await.unwrap();
    }

    /// The next line from the socket.
    pub(crate) async fn line(&mut self) -> Value {
        self.try_line().await.expect("the connection is open")
    }

    /// The next line from the socket, or `None` at its end.
    pub(crate) async fn try_line(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.reader.read_line(&mut line)).await.expect("a line in time");
        match read {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))),
        }
    }

    /// The first line, from now or aside, that `wanted` says yes to.
    pub(crate) async fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.aside.iter().position(&wanted) {
            return self.aside.remove(at).unwrap();
        }
        loop {
            let Some(line) = self.try_line().await else {
                panic!("the end, before {what}; aside: {:?}", self.aside)
            };
            if wanted(&line) {
                return line;
            }
            self.aside.push_back(line);
        }
    }

    /// Sends a request and returns its id.
    pub(crate) async fn ask(&mut self, mut request: Value) -> u64 {
        self.next_id += 1;
        request["id"] = self.next_id.into();
        self.send(format!("{request}\n")).await;
        self.next_id
    }

    /// The reply to a request that was asked.
    pub(crate) async fn reply(&mut self, id: u64) -> Value {
        self.find(&format!("the reply to {id}"), |line| line["id"] == id).await
    }

    /// Sends a request and returns its `ok`.
    pub(crate) async fn ok(&mut self, request: Value) -> Value {
        let what = request.to_string();
        let id = self.ask(request).await;
        let reply = self.reply(id).await;
        assert!(reply.get("ok").is_some(), "{what}: {reply}");
        reply["ok"].clone()
    }

    /// Sends a request and returns its error.
    pub(crate) async fn refusal(&mut self, request: Value) -> Value {
        let what = request.to_string();
        let id = self.ask(request).await;
        let reply = self.reply(id).await;
        assert!(reply.get("error").is_some(), "{what}: {reply}");
        reply["error"].clone()
    }

    /// Sends a request and returns its error's code.
    pub(crate) async fn error(&mut self, request: Value) -> String {
        self.refusal(request).await["code"].as_str().unwrap().into()
    }

    /// Logs in with the name as password, and waits until all is caught up.
    pub(crate) async fn login(&mut self, name: &str) -> Value {
        let reply = self.ok(json!({"op": "login", "account": name, "password": name})).await;
        self.find("caught_up", |line| line["push"] == "caught_up").await;
        reply
    }

    /// The next message pushed in a conversation: its text.
    pub(crate) async fn message(&mut self, conv: &str) -> String {
        let line = self
            .find(&format!("a message in {conv}"), |l| {
                l["push"] == "entry" && l["conv"] == conv && l["kind"] == "message"
            })
            .await;
        line["text"].as_str().unwrap().into()
    }

    /// Sends a message and returns its seq.
    pub(crate) async fn say(&mut self, conv: &str, text: &str) -> u64 {
        self.ok(json!({"op": "send", "mid": mid(), "conv": conv, "text": text})).await["seq"]
            .as_u64()
            .unwrap()
    }

    /// What was pushed so far, up to now: all that precedes the answer to a ping.
    pub(crate) async fn so_far(&mut self) -> Vec<Value> {
        let id = self.ask(json!({"op": "ping"})).await;
        let reply = self.reply(id).await;
        assert!(reply["ok"].is_object());
        self.aside.drain(..).collect()
    }

    /// Whether the connection ends in order: no more lines, and no word missing that TLS says at its end.
    pub(crate) async fn ends_in_order(mut self) -> bool {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.reader.read_to_end(&mut rest)).await.expect("an end in time");
        read.is_ok() && rest.is_empty()
    }

    /// Reads what is left until the server ends the connection.
    pub(crate) async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.reader.read_to_end(&mut rest)).await.expect("an end in time").ok();
        rest
    }
}

/// Passwords as they are.
struct Plain;

#[async_trait]
impl Passwords for Plain {
    async fn hash(&self, password: &str) -> Result<String, HashError> {
        Ok(password.into())
    }

    async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, HashError> {
        Ok(hash == Some(password))
    }

    fn is_outdated(&self, _: &str) -> bool {
        false
    }
}
