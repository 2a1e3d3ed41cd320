//! What happened in a run, in order: every byte on the network, every random draw, every application event, each with its simulated
//! time. Two runs of the same scenario have the same trace, or something is not under control.

use std::{
    cell::Cell,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

/// A trace in the making. Cheap to clone: all clones write to the same one.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hash: Sha256,
    events: u64,
    kept: Option<Vec<Event>>,
    closed: bool,
    /// Reused for what is hashed.
    line: Vec<u8>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// In simulated time, since the start.
    pub at: Duration,
    /// Where.
    pub host: Arc<str>,
    /// What it was.
    pub what: What,
}

/// One direction of a connection: who writes, and who reads, each as `HOST:PORT`.
pub type Direction = (Arc<str>, Arc<str>);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A connection was made by the direction's writer.
    Connected(Direction),
    /// It could not be made; to where.
    Refused(String),
    /// A connection was accepted by the direction's writer.
    Accepted(Direction),
    /// Bytes went onto the network, after so many before.
    Sent(Direction, u64, Vec<u8>),
    /// Bytes were taken from it, after so many before.
    Received(Direction, u64, Vec<u8>),
    /// A direction ended: the reader saw its end, or an error.
    Ended(Direction, String),
    /// The host's end of a connection was dropped.
    Dropped(Direction),
    /// Random bytes.
    Drew(Vec<u8>),
    /// Said by a host or by the world.
    Said(String),
}

/// A finished trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// SHA-256 over all events.
    pub hash: [u8; 32],
    /// How many there were.
    pub count: u64,
    /// Themselves, if they were to be kept.
    pub events: Vec<Event>,
}

impl Trace {
    /// An empty trace; `keep`: whether the events themselves are wanted, and not only their hash.
    pub fn new(keep: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            hash: Sha256::new(),
            events: 0,
            kept: keep.then(Vec::new),
            closed: false,
            line: Vec::new(),
        })))
    }

    /// Notes what just happened on a host.
    pub fn note(&self, host: &Arc<str>, what: What) {
        let at = now();
        let mut inner = self.inner();
        if inner.closed {
            return;
        }
        let mut line = std::mem::take(&mut inner.line);
        line.clear();
        line.extend_from_slice(&at.as_nanos().to_le_bytes());
        put(&mut line, host.as_bytes());
        what.put(&mut line);
        inner.hash.update(&line);
        inner.line = line;
        inner.events += 1;
        if let Some(kept) = &mut inner.kept {
            kept.push(Event { at, host: Arc::clone(host), what });
        }
    }

    /// Whether events are kept, so that it is worth describing them well.
    pub fn keeps(&self) -> bool {
        self.inner().kept.is_some()
    }

    /// From now on, nothing is noted.
    pub fn close(&self) {
        self.inner().closed = true;
    }

    /// What was noted so far. What is noted afterwards starts another trace.
    pub fn finish(&self) -> Finished {
        let mut inner = self.inner();
        let hash = inner.hash.finalize_reset().into();
        let events = inner.kept.as_mut().map(std::mem::take).unwrap_or_default();
        Finished { hash, count: std::mem::take(&mut inner.events), events }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // An event is in it or not, at any point of a writer.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// The time between two steps, when no host runs.
    static BETWEEN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Simulated time since the start; 0 outside of a simulation.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| BETWEEN.get())
}

/// Says what time it is, for what happens on this thread between two steps.
pub fn between(now: Duration) {
    BETWEEN.set(now);
}

impl What {
    /// Appends a form from which no two different events are alike.
    fn put(&self, line: &mut Vec<u8>) {
        let (kind, direction, offset, bytes): (u8, Option<&Direction>, u64, &[u8]) = match self {
            Self::Connected(direction) => (0, Some(direction), 0, &[]),
            Self::Refused(to) => (1, None, 0, to.as_bytes()),
            Self::Accepted(direction) => (2, Some(direction), 0, &[]),
            Self::Sent(direction, offset, bytes) => (3, Some(direction), *offset, bytes),
            Self::Received(direction, offset, bytes) => (4, Some(direction), *offset, bytes),
            Self::Ended(direction, why) => (5, Some(direction), 0, why.as_bytes()),
            Self::Dropped(direction) => (6, Some(direction), 0, &[]),
            Self::Drew(bytes) => (7, None, 0, bytes),
            Self::Said(text) => (8, None, 0, text.as_bytes()),
        };
        line.push(kind);
        if let Some((from, to)) = direction {
            put(line, from.as_bytes());
            put(line, to.as_bytes());
            line.extend_from_slice(&offset.to_le_bytes());
        }
        put(line, bytes);
    }
}

fn put(line: &mut Vec<u8>, bytes: &[u8]) {
    line.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    line.extend_from_slice(bytes);
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6} {:<9} {}", self.at.as_secs_f64(), self.host, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
        match self {
            Self::Connected((from, to)) => write!(f, "connected {from} -> {to}"),
            Self::Refused(to) => write!(f, "could not connect to {to}"),
            Self::Accepted((from, to)) => write!(f, "accepted {from} <- {to}"),
            Self::Sent((from, to), offset, bytes) => {
                write!(f, "sent {from} -> {to} @{offset} {}", text(bytes))
            }
            Self::Received((from, to), offset, bytes) => {
                write!(f, "received {from} -> {to} @{offset} {}", text(bytes))
            }
            Self::Ended((from, to), why) => write!(f, "end of {from} -> {to}: {why}"),
            Self::Dropped((from, to)) => write!(f, "dropped {from} -> {to}"),
            Self::Drew(bytes) => write!(f, "drew {bytes:02x?}"),
            Self::Said(text) => f.write_str(text),
        }
    }
}

/// The first event in which two traces differ, as text: what each of them has there.
pub fn first_difference(a: &[Event], b: &[Event]) -> Option<(usize, String, String)> {
    let at = (0..a.len().max(b.len())).find(|at| a.get(*at) != b.get(*at))?;
    let show = |events: &[Event]| events.get(at).map_or_else(|| "the end".to_owned(), Event::to_string);
    Some((at, show(a), show(b)))
}
