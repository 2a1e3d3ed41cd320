//! What the host answers from: what was committed, and what is to go wrong.

use std::{
    future::Future as _,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use loadgen::rng::Rng;
use protocol::{Clock, UnixMillis};
use serde::{Deserialize, Serialize};
use server::store::{StoreError, memory::MemoryStore};

use super::methods::{Kind, Reply, Request};

/// What goes wrong, and how often: chances are in a thousand, and drawn for each request. By default nothing does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults {
    /// Of a write: the connection ends without a reply, either before or after the write is carried out.
    pub commit_unknown: u16,
    /// Of a write: there is no reply (the connection ends, or stays silent), and it is carried out up to `late_max_ms` later, but
    /// with the time at which it was asked for. So it becomes visible behind the back of whoever looked in between.
    ///
    /// Until then it holds no lock: others may write at its place, and then it is never carried out.
    pub late_commit: u16,
    /// See `late_commit`.
    pub late_max_ms: u32,
    /// Every request takes up to so long, a part of it before it is carried out and a part of it after. Those on one connection keep
    /// their order; others may overtake.
    pub slow_max_ms: u32,
    /// Of a read: it fails.
    pub read_error: u16,
    /// Of a write: it is the victim of a deadlock, so it is certainly not carried out.
    pub deadlock: u16,
}

/// How many requests met what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    /// All.
    pub requests: u64,
    /// Connections ended before a write was carried out.
    pub lost_requests: u64,
    /// Connections ended after a write was carried out.
    pub lost_replies: u64,
    /// Writes carried out late, or lost in a restart before that.
    pub late_commits: u64,
    /// Requests that took their time.
    pub slow: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Victims of deadlocks.
    pub deadlocks: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    RequestLost,
    ReplyLost,
    Late { by: Duration, silent: bool },
    Failed,
    Deadlock,
}

/// The host's disk and its faults: a handle, which outlives the host's restarts.
#[derive(Clone)]
pub struct Database(Arc<Shared>);

struct Shared {
    store: MemoryStore,
    clock: Arc<dyn Clock>,
    /// The time of the statement that is being carried out; locked while it is.
    statement: Mutex<Arc<StatementTime>>,
    chance: Mutex<Chance>,
}

struct Chance {
    faults: Faults,
    rng: Rng,
    met: Met,
}

/// When the statement in hand was asked for: that is its time, as it is with a database.
#[derive(Default)]
struct StatementTime(AtomicI64);

impl Clock for StatementTime {
    fn now(&self) -> UnixMillis {
        self.0.load(Ordering::Relaxed)
    }
}

impl Database {
    /// An empty one. `clock` is the host's own.
    pub fn new(deployment: [u8; 16], clock: Arc<dyn Clock>, rng: Rng) -> Self {
        let time = Arc::<StatementTime>::default();
        let store = MemoryStore::with_clock(deployment, Arc::clone(&time) as Arc<dyn Clock>);
        let chance = Mutex::new(Chance { faults: Faults::default(), rng, met: Met::default() });
        Self(Arc::new(Shared { store, clock, statement: Mutex::new(time), chance }))
    }

    /// From now on, this goes wrong and nothing else. What is under way keeps its fate.
    pub fn set(&self, faults: Faults) {
        self.chance().faults = faults;
    }

    /// What goes wrong now.
    pub fn faults(&self) -> Faults {
        self.chance().faults
    }

    /// What went wrong so far.
    pub fn met(&self) -> Met {
        self.chance().met
    }

    /// What is committed, for a look from outside.
    pub fn store(&self) -> &MemoryStore {
        &self.0.store
    }

    /// The host's time.
    pub(super) fn now(&self) -> UnixMillis {
        self.0.clock.now()
    }

    /// Carries out a request that was asked for at a time.
    pub(super) fn carry_out(&self, request: &Request<'_>, asked_at: UnixMillis) -> Reply {
        let time = self.0.statement.lock().unwrap_or_else(PoisonError::into_inner);
        time.0.store(asked_at, Ordering::Relaxed);
        let done = pin!(request.carry_out(&self.0.store)).poll(&mut Context::from_waker(Waker::noop()));
        match done {
            Poll::Ready(Ok(reply)) => reply,
            Poll::Ready(Err(StoreError::Unavailable(why) | StoreError::Corrupt(why))) => Reply::Failed(why),
            Poll::Pending => unreachable!("memory is not waited for"),
        }
    }

    /// Draws what becomes of a request, and how long it takes before and after it is carried out.
    pub(super) fn draw(&self, kind: Kind) -> (Duration, Fate, Duration) {
        let chance = &mut *self.chance();
        chance.met.requests += 1;
        let fate = chance.fate(kind);
        let (before, after) = chance.delays();
        (before, fate, after)
    }

    fn chance(&self) -> MutexGuard<'_, Chance> {
        // Knobs and counts are valid at any point of a writer.
        self.0.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chance {
    fn fate(&mut self, kind: Kind) -> Fate {
        let Faults { commit_unknown, late_commit, late_max_ms, read_error, deadlock, .. } = self.faults;
        if kind == Kind::Read {
            if self.happens(read_error) {
                self.met.read_errors += 1;
                return Fate::Failed;
            }
        } else if self.happens(deadlock) {
            self.met.deadlocks += 1;
            return Fate::Deadlock;
        } else if self.happens(commit_unknown) {
            if self.happens(500) {
                self.met.lost_requests += 1;
                return Fate::RequestLost;
            }
            self.met.lost_replies += 1;
            return Fate::ReplyLost;
        } else if self.happens(late_commit) {
            self.met.late_commits += 1;
            return Fate::Late { by: self.up_to(late_max_ms), silent: self.happens(500) };
        }
        Fate::Answered
    }

    fn delays(&mut self) -> (Duration, Duration) {
        if self.faults.slow_max_ms == 0 {
            return (Duration::ZERO, Duration::ZERO);
        }
        self.met.slow += 1;
        let all = self.up_to(self.faults.slow_max_ms);
        let before = self.up_to(u32::try_from(all.as_millis()).unwrap_or(u32::MAX));
        (before, all - before)
    }

    fn happens(&mut self, of_a_thousand: u16) -> bool {
        of_a_thousand > 0 && self.rng.chance(of_a_thousand.into(), 1000)
    }

    fn up_to(&mut self, most_ms: u32) -> Duration {
        Duration::from_millis(self.rng.below(u64::from(most_ms) + 1))
    }
}
