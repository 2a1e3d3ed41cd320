//! A small Redis: what the nodes' relay asks of the real one, in versions 2 and 3 of its protocol.
//!
//! A [`Redis`] is the process and its memory; [`serve`] is the process running on a host. Each call of it starts with nothing stored, as a
//! Redis without persistence does. What a world does to it (losing publishes, wedging subscriptions, emptying it) stays as it was set.
//!
//! Where it differs from the real one: sets and "everything" are listed in the order of their bytes; the options of SET and EXPIRE that
//! nobody here uses are syntax errors; a subscriber that reads too slowly is thrown out by the hard limit only.

mod commands;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod keys;
mod outbox;
mod reply;
mod request;
mod server;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use loadgen::rng::Rng;
use protocol::Net;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    request::Parser,
    server::{ClientId, Next, Server},
};

/// Connections at a time, as in Redis; one more is told so and closed.
const CLIENTS_MAX: usize = 10_000;
/// Bytes that a client may leave unread before it is not read from any more. Only a subscriber gets more than that.
const UNREAD_BYTES_MAX: usize = 1 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// A Redis: its memory, and what is done to it. Cheap to clone; all clones are the same one.
#[derive(Debug, Clone)]
pub struct Redis(Arc<Mutex<Server>>);

/// What becomes of messages on their way from a publisher to each subscriber: times out of a thousand, drawn for each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Publishes {
    /// It is lost.
    pub drop: u16,
    /// It comes twice.
    pub duplicate: u16,
    /// It is held back, and what comes later overtakes it.
    pub reorder: u16,
    /// It is held back, and what comes later with it.
    pub delay: u16,
    /// For how long something is held back, at most.
    pub delay_max: Duration,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Messages for a subscriber: one that was published to two counts twice.
    pub messages: u64,
    /// Those that were lost, wedged ones included.
    pub dropped: u64,
    /// Those that came twice.
    pub duplicated: u64,
    /// Copies that could be overtaken.
    pub reordered: u64,
    /// Copies that came late, and others with them.
    pub delayed: u64,
    /// Clients thrown out because they read too slowly or asked for too much.
    pub thrown_out: u64,
}

impl Default for Redis {
    fn default() -> Self {
        Self::new(Rng::new(0))
    }
}

impl Redis {
    /// An empty one that draws from `rng` what becomes of publishes.
    pub fn new(rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(Server::new(rng))))
    }

    /// Asks connections to come for a password, for the user `default`.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        self.server().password = Some(Bytes::copy_from_slice(password.as_bytes()));
        self
    }

    /// Sets what becomes of publishes from now on.
    pub fn set_publishes(&self, publishes: Publishes) {
        self.server().publishes = publishes;
    }

    /// Sets whether publishes are taken and counted, but reach nobody.
    pub fn set_wedged(&self, wedged: bool) {
        self.server().wedged = wedged;
    }

    /// Empties all databases. Connections and subscriptions stay.
    pub fn flush_all(&self) {
        self.server().empty();
    }

    /// What happened so far.
    pub fn tally(&self) -> Tally {
        self.server().tally
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        // A panic ends a simulation, whatever this holds then.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a Redis on `address`, empty at first, until the network fails. When this is dropped, its connections end.
pub async fn serve<N: Net>(net: N, address: &str, redis: Redis, tracker: TaskTracker) -> io::Result<()> {
    let listener = net.bind(address).await?;
    serve_on(net, listener, redis, tracker).await
}

/// As [`serve`], on what is bound already.
pub async fn serve_on<N: Net>(
    net: N,
    listener: N::Listener,
    redis: Redis,
    tracker: TaskTracker,
) -> io::Result<()> {
    redis.server().restart();
    let stop = CancellationToken::new();
    let _ends_connections = stop.clone().drop_guard();
    loop {
        let (mut stream, _) = net.accept(&listener).await?;
        let wake = Arc::new(Notify::new());
        let id = {
            let mut server = redis.server();
            (server.clients() < CLIENTS_MAX).then(|| server.join(Arc::clone(&wake)))
        };
        let Some(id) = id else {
            // As much as the socket takes at once.
            let told = async { stream.write_all(b"-ERR max number of clients reached\r\n").await };
            tokio::select! {
                biased;
                _ = told => {}
                () = std::future::ready(()) => {}
            }
            continue;
        };
        let connection = Connection { redis: redis.clone(), id, wake };
        let stop = stop.clone();
        tracker.spawn(async move { stop.run_until_cancelled(connection.run(stream)).await });
    }
}

/// A client's socket.
struct Connection {
    redis: Redis,
    id: ClientId,
    wake: Arc<Notify>,
}

impl Connection {
    /// Until either side has had enough.
    async fn run<S: AsyncRead + AsyncWrite>(self, stream: S) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut parser = Parser::default();
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        loop {
            let Some(next) = self.step(&mut parser, &mut input, &mut output) else { return };
            if next.leaving && output.is_empty() {
                // What it still says is of no interest; it is told that this is the end.
                let _ = writer.shutdown().await;
                return;
            }
            let due = next.due.filter(|_| output.is_empty());
            let reads = !next.leaving && next.pending <= UNREAD_BYTES_MAX;
            // What was asked is answered before more is read, and none of these waits for another.
            tokio::select! {
                biased;
                // More to send, or thrown out.
                () = self.wake.notified() => {}
                written = writer.write_buf(&mut output), if !output.is_empty() => match written {
                    Ok(written) if written > 0 => self.redis.server().written(self.id, written),
                    _ => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                read = read(&mut reader, &mut input), if reads => match read {
                    Ok(read) if read > 0 => {}
                    _ => return,
                },
            }
        }
    }

    /// Executes what was asked for, as far as its replies can be held, and takes what can be sent; nothing if it was thrown out.
    fn step(&self, parser: &mut Parser, input: &mut BytesMut, output: &mut BytesMut) -> Option<Next> {
        let mut server = self.redis.server();
        let now = Instant::now();
        loop {
            let mut next = server.next(self.id, now)?;
            output.unsplit(std::mem::take(&mut next.output));
            if next.leaving || next.pending > UNREAD_BYTES_MAX {
                return Some(next);
            }
            match parser.next(input, server.is_stranger(self.id)?) {
                Ok(Some(request)) => server.request(self.id, request, now),
                Ok(None) => return Some(next),
                Err(error) => server.protocol_error(self.id, error),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.redis.server().leave(self.id);
    }
}

/// Reads some more. Cancel-safe.
async fn read(reader: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> io::Result<usize> {
    input.reserve(READ_BYTES);
    reader.read_buf(input).await
}
