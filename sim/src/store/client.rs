//! A node's way to the database's host. It fails as the MySQL store does.
//!
//! As there (`server/src/store/mysql/connections.rs`): one connection for what the committer writes and some for everything else; each
//! call waits for a free connection, connects and is answered in bounded time; nothing is tried again whose outcome is
//! unknown; whatever fails, takes too long or is dropped half-way takes its connection with it. What was asked on such a connection may
//! still be carried out.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::Net;
use server::store::{Result, StoreError};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::{
    frames::Frames,
    methods::{Kind, Reply, Request},
};

/// How often the victim of a deadlock is tried, where order does not matter.
const TRIES: usize = 3;

/// What a [`RemoteStore`] takes, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections for everything but logs.
    pub shared: usize,
    /// How long a call may wait for its turn, and how long it may take.
    pub call: Duration,
    /// How long connecting may take.
    pub connect: Duration,
    /// How long a connection may have been idle to be used unasked.
    pub idle: Duration,
}

impl Default for Limits {
    /// The MySQL store's times.
    fn default() -> Self {
        let [call, connect, idle] = [5, 3, 5].map(Duration::from_secs);
        Self { shared: 6, call, connect, idle }
    }
}

/// The store of a node, on another host.
pub struct RemoteStore<N: Net> {
    /// One connection for what the committer writes, so that nothing else ever holds it up.
    logs: Connections<N>,
    shared: Connections<N>,
}

impl<N: Net> RemoteStore<N> {
    /// A store at `HOST:PORT`. Connections are made when they are needed.
    pub fn new(net: &N, address: &str, limits: Limits) -> Self {
        let connections = |max| Connections {
            net: net.clone(),
            address: address.into(),
            limits,
            idle: Mutex::default(),
            permits: Semaphore::new(max),
        };
        Self { logs: connections(1), shared: connections(limits.shared) }
    }

    pub(super) async fn call(&self, request: &Request<'_>) -> Result<Reply> {
        let (connections, tries) = match request.kind() {
            Kind::Log => (&self.logs, 1),
            Kind::Insist => (&self.shared, TRIES),
            Kind::Read | Kind::Write => (&self.shared, 1),
        };
        let mut reply = connections.ask(request).await?;
        for _ in 1..tries {
            if !matches!(reply, Reply::Deadlock) {
                break;
            }
            reply = connections.ask(request).await?;
        }
        Ok(reply)
    }

    /// Closes what is idle, and lets nobody in any more.
    pub(super) fn end(&self) {
        for connections in [&self.logs, &self.shared] {
            connections.permits.close();
            connections.idle().clear();
        }
    }
}

type Idle<N> = Vec<(Frames<<N as Net>::Stream>, Instant)>;

/// Connections with the same purpose.
struct Connections<N: Net> {
    net: N,
    address: String,
    limits: Limits,
    /// Most recently used last; at most as many as permits.
    idle: Mutex<Idle<N>>,
    permits: Semaphore,
}

impl<N: Net> Connections<N> {
    /// One question and its answer, on a connection of their own. Dropping it closes the connection.
    async fn ask(&self, request: &Request<'_>) -> Result<Reply> {
        let _permit = self.turn().await?;
        let mut connection = self.connection().await?;
        let answer = within(self.limits.call, async {
            connection.send(request).await?;
            let answer = connection.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(serde_json::from_slice(answer)?)
        });
        match answer.await {
            Ok(Reply::Failed(why)) => Err(StoreError::Unavailable(why)),
            Ok(reply) => {
                // Before the permit is: there are never more than permits.
                self.idle().push((connection, Instant::now()));
                Ok(reply)
            }
            Err(error) => {
                // What broke one connection has most likely broken all.
                self.idle().clear();
                Err(StoreError::Unavailable(error.to_string()))
            }
        }
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        let permit = timeout(self.limits.call, self.permits.acquire()).await;
        let permit = permit.map_err(|_| StoreError::Unavailable("no connection is free".into()))?;
        permit.map_err(|_| StoreError::Unavailable("the store is closed".into()))
    }

    async fn connection(&self) -> Result<Frames<N::Stream>> {
        while let Some((mut connection, since)) = self.last_idle() {
            let fresh = since.elapsed() < self.limits.idle;
            if fresh || within(self.limits.connect, answers(&mut connection)).await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = within(self.limits.connect, self.net.connect(&self.address)).await;
        Ok(Frames::new(stream.map_err(|error| StoreError::Unavailable(error.to_string()))?))
    }

    fn last_idle(&self) -> Option<(Frames<N::Stream>, Instant)> {
        self.idle().pop()
    }

    fn idle(&self) -> MutexGuard<'_, Idle<N>> {
        // A list is a list at any point of a writer.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pings.
async fn answers<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    connection: &mut Frames<S>,
) -> io::Result<()> {
    connection.ping().await?;
    match connection.receive().await? {
        Some([]) => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(limit, call).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    }
}
