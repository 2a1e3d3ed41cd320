//! A network in memory, for paused time, and what is used by all.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use loadgen::rng::Rng;
use protocol::{ClientMsgId, Clock, ConversationId, EntryBody, Net, Seq, UnixMillis, UserId};
use server::store::{NewEntry, NewUser, Store};
use sim::store::{Database, Faults, Limits, RemoteStore, serve};
use tokio::{
    io::DuplexStream,
    sync::{Mutex as Turn, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::task::TaskTracker;

pub(crate) const ADDRESS: &str = "127.0.0.1:3306";

/// Hosts by address. A host that is gone refuses.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<String, mpsc::Sender<DuplexStream>>>>);

impl Net for Memory {
    type Listener = Turn<mpsc::Receiver<DuplexStream>>;
    type Stream = DuplexStream;

    async fn bind(&self, addr: &str) -> io::Result<Self::Listener> {
        let (sender, receiver) = mpsc::channel(64);
        self.0.lock().unwrap().insert(addr.into(), sender);
        Ok(Turn::new(receiver))
    }

    fn local_addr(&self, _: &Self::Listener) -> io::Result<SocketAddr> {
        Ok(ADDRESS.parse().unwrap())
    }

    async fn accept(&self, on: &Self::Listener) -> io::Result<(DuplexStream, SocketAddr)> {
        let stream = on.lock().await.recv().await.ok_or(io::ErrorKind::NotConnected)?;
        Ok((stream, ADDRESS.parse().unwrap()))
    }

    async fn connect(&self, addr: &str) -> io::Result<DuplexStream> {
        let host = self.0.lock().unwrap().get(addr).cloned();
        let (here, there) = tokio::io::duplex(64 << 10);
        let host = host.ok_or(io::ErrorKind::ConnectionRefused)?;
        host.send(there).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(here)
    }
}

/// A clock that follows tokio's, and can be wrong.
pub(crate) struct TestClock {
    start: Instant,
    pub(crate) base: Mutex<UnixMillis>,
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        *self.base.lock().unwrap() + i64::try_from(self.start.elapsed().as_millis()).unwrap()
    }
}

pub(crate) const START: UnixMillis = 1_700_000_000_000;

/// A host and its disk, on a network in memory.
pub(crate) struct World {
    pub(crate) net: Memory,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) database: Database,
    tracker: TaskTracker,
    host: Option<JoinHandle<io::Result<()>>>,
}

impl World {
    /// With two users.
    pub(crate) async fn new(seed: u64) -> Self {
        let clock = Arc::new(TestClock { start: Instant::now(), base: Mutex::new(START) });
        let database = Database::new([1; 16], Arc::clone(&clock) as Arc<dyn Clock>, Rng::of_part(seed, 1));
        let mut world =
            Self { net: Memory::default(), clock, database, tracker: TaskTracker::new(), host: None };
        world.start().await;
        let store = world.store(Limits::default());
        for (id, name) in [(1, "Kirito"), (2, "kir")] {
            let (name, name_key) = (name.to_owned(), name.to_lowercase());
            let user = NewUser { mid: mid(id), name, name_key, password_hash: "x".into(), at: 1 };
            store.register(&user).await.unwrap();
        }
        world
    }

    pub(crate) async fn start(&mut self) {
        let (net, database, tracker) = (self.net.clone(), self.database.clone(), self.tracker.clone());
        let host = async move { serve(net, ADDRESS, database, tracker).await };
        self.host = Some(self.tracker.spawn(host));
        // Until it is bound.
        tokio::task::yield_now().await;
    }

    pub(crate) async fn crash(&mut self) {
        let host = self.host.take().unwrap();
        host.abort();
        assert!(host.await.unwrap_err().is_cancelled());
    }

    pub(crate) fn store(&self, limits: Limits) -> RemoteStore<Memory> {
        RemoteStore::new(&self.net, ADDRESS, limits)
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.database.set(faults);
    }
}

pub(crate) fn user(number: u64) -> UserId {
    UserId::new(number).unwrap()
}

pub(crate) fn mid(number: u8) -> ClientMsgId {
    ClientMsgId([number; 16])
}

pub(crate) fn conv() -> ConversationId {
    ConversationId::direct(user(1), user(2)).unwrap()
}

pub(crate) fn message(seq: u64, id: u8) -> NewEntry {
    let body = EntryBody::Message { text: "hello".into() };
    NewEntry { conv: conv(), seq: Seq(seq), from: user(1), mid: mid(id), at: START, body }
}
