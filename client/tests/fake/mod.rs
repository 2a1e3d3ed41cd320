//! A server that does what a test tells it, line by line, and a network without sockets.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use protocol::{Entropy, Net};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, duplex},
    sync::{Mutex, mpsc},
};

/// A resume token.
pub(crate) const TOKEN: &str = "0101010101010101010101010101010101010101010101010101010101010101";

/// One connection, seen from the server.
pub(crate) struct Peer<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Greets.
    pub(crate) async fn greet(stream: S) -> Self {
        let mut peer = Self(BufReader::new(stream));
        peer.say(
            json!({"push": "hello", "protocol": 1, "server": "fake", "limits": protocol::Limits::default()}),
        )
        .await;
        peer
    }

    /// Writes a line. The client may be gone.
    pub(crate) async fn say(&mut self, line: Value) {
        let _ = self.0.get_mut().write_all(format!("{line}\n").as_bytes()).await;
    }

    /// The next line, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).expect("clients write JSON")),
        }
    }

    /// The next request, which asks for `op`. Confirmations that want no answer may come before it.
    pub(crate) async fn expect(&mut self, op: &str) -> Value {
        loop {
            let request = self.next().await.unwrap_or_else(|| panic!("{op} expected, not the end"));
            if request["op"] == op {
                return request;
            }
            assert!(request["op"] == "ack" && request["id"].is_null(), "{op} expected, not {request}");
        }
    }

    /// Answers a request.
    pub(crate) async fn ok(&mut self, request: &Value, ok: Value) {
        self.say(json!({"id": request["id"], "ok": ok})).await;
    }

    /// Answers the next request, which asks for `op`.
    pub(crate) async fn answer(&mut self, op: &str, ok: Value) -> Value {
        let request = self.expect(op).await;
        self.ok(&request, ok).await;
        request
    }

    /// Refuses the next request, which asks for `op`.
    pub(crate) async fn refuse(&mut self, op: &str, code: &str) -> Value {
        let request = self.expect(op).await;
        let error = json!({"code": code, "definite": true, "message": "the server's words"});
        self.say(json!({"id": request["id"], "error": error})).await;
        request
    }

    /// Lets user 1, kirito, log in.
    pub(crate) async fn log_in(&mut self) {
        let user = json!({"user": 1, "name": "kirito", "token": TOKEN, "token_expires_at": 9});
        self.answer("login", user).await;
    }

    /// Lets a terminal program log in and read its lists: a friend, kir(2), and a group, happy game(7).
    pub(crate) async fn log_in_with_lists(&mut self) {
        self.log_in().await;
        self.lists().await;
        self.say(json!({"push": "caught_up"})).await;
    }

    /// Answers with those lists.
    pub(crate) async fn lists(&mut self) {
        let kir = json!({"user": 2, "name": "kir", "state": "offline", "friend": true, "blocked": false});
        self.answer("friends", json!({"friends": [kir]})).await;
        let group = json!({"group": 7, "name": "happy game", "description": "happy play", "role": "member", "members": 2});
        self.answer("groups", json!({"groups": [group]})).await;
    }

    /// Goes on with a session; the cursors that the client named.
    pub(crate) async fn resume(&mut self) -> Value {
        let resume = self.answer("resume", json!({"user": 1, "name": "kirito"})).await;
        assert_eq!(resume["token"], TOKEN);
        resume["cursors"].clone()
    }

    /// Lets the client log out.
    pub(crate) async fn log_out(&mut self) {
        self.answer("logout", json!({})).await;
        self.say(json!({"push": "closing", "code": "logged_out"})).await;
    }

    /// Starts a conversation's pushes.
    pub(crate) async fn open(&mut self, conv: &str, after: u64) {
        self.say(json!({"push": "open", "conv": conv, "after": after})).await;
    }

    /// Pushes a message of kir(2).
    pub(crate) async fn message(&mut self, conv: &str, seq: u64, text: &str) {
        let mid = format!("{seq:032x}");
        self.entry(conv, seq, 2, &mid, text).await;
    }

    /// Pushes a message.
    pub(crate) async fn entry(&mut self, conv: &str, seq: u64, from: u64, mid: &str, text: &str) {
        let name = if from == 1 { "kirito" } else { "kir" };
        self.say(json!({
            "push": "entry", "conv": conv, "seq": seq, "at": 1_700_000_000_000_i64, "from": from, "name": name,
            "mid": mid, "kind": "message", "text": text,
        }))
        .await;
    }
}

/// Connections without sockets, so that time can be paused: one listener, dialled by any address.
#[derive(Clone)]
pub(crate) struct Pipes {
    dialled: mpsc::Sender<DuplexStream>,
    accepted: Arc<Mutex<mpsc::Receiver<DuplexStream>>>,
    /// Whether connections are refused.
    pub(crate) refusing: Arc<AtomicBool>,
    /// How many were asked for.
    pub(crate) attempts: Arc<AtomicU32>,
}

impl Pipes {
    pub(crate) fn new() -> Self {
        let (dialled, accepted) = mpsc::channel(8);
        Self {
            dialled,
            accepted: Arc::new(Mutex::new(accepted)),
            refusing: Arc::default(),
            attempts: Arc::default(),
        }
    }

    /// The next connection, greeted.
    pub(crate) async fn greet(&self) -> Peer<DuplexStream> {
        let stream = self.accepted.lock().await.recv().await.expect("somebody dials");
        Peer::greet(stream).await
    }
}

impl Net for Pipes {
    type Listener = ();
    type Stream = DuplexStream;

    async fn bind(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn local_addr(&self, (): &()) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }

    async fn accept(&self, (): &()) -> io::Result<(DuplexStream, SocketAddr)> {
        let stream = self.accepted.lock().await.recv().await;
        Ok((stream.ok_or(io::ErrorKind::NotConnected)?, (Ipv4Addr::LOCALHOST, 1).into()))
    }

    async fn connect(&self, _: &str) -> io::Result<DuplexStream> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if self.refusing.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = duplex(16 * 1024);
        self.dialled.send(theirs).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(ours)
    }
}

/// Numbers that are different, and the same in every run.
#[derive(Default)]
pub(crate) struct Counting(AtomicU32);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = (self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(2_654_435_761) >> 24) as u8;
        }
    }
}
