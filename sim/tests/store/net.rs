//! A host on a network in memory, for paused time, and what is used by all.

use std::{
    io,
    sync::{Arc, Mutex},
};

use loadgen::rng::Rng;
use protocol::{ClientMsgId, Clock, ConversationId, EntryBody, Seq, UnixMillis, UserId};
use server::store::{NewEntry, NewUser, Store};
use sim::store::{Database, Faults, Limits, RemoteStore, serve};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::task::TaskTracker;

use crate::memory::{ADDRESS, Memory};

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
