//! Where the observers of a run write down what they see.

use std::{
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Bounds, Call, DeviceId, Event, History, OperationId, Outcome, What};

/// A history in the making. Cheap to clone: all clones write to the same one. It grows with the run and is
/// not bounded otherwise; a run is.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    /// The time since the beginning.
    time: Box<dyn Fn() -> Duration + Send + Sync>,
    history: Mutex<History>,
    devices: AtomicU32,
    operations: AtomicU64,
}

impl Recorder {
    /// An empty history that starts now, by the clock of this runtime: for observers in one runtime, or in
    /// several whose time is the real one.
    pub fn new(bounds: Bounds) -> Self {
        let started = Instant::now();
        Self::with_time(bounds, move || started.elapsed())
    }

    /// An empty history by a clock that counts from its start, the same for all observers, and never goes
    /// back. In a simulation every host has instants of its own, which cannot be compared.
    pub fn with_time(bounds: Bounds, time: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            time: Box::new(time),
            history: Mutex::new(History { bounds, events: Vec::new() }),
            devices: AtomicU32::new(0),
            operations: AtomicU64::new(0),
        }))
    }

    /// Writes down what happened just now.
    pub fn record(&self, what: What) {
        let mut history = self.history();
        // Under the lock, so that times grow with indexes.
        let at = (self.0.time)();
        history.events.push(Event { at, what });
    }

    /// A number for a device that is about to start.
    pub fn fresh_device(&self) -> DeviceId {
        DeviceId(self.0.devices.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes down that a request is about to leave.
    pub fn invoked(&self, device: DeviceId, call: Call) -> OperationId {
        let operation = OperationId(self.0.operations.fetch_add(1, Ordering::Relaxed));
        self.record(What::Invoked { operation, device, call });
        operation
    }

    /// Writes down what became of it.
    pub fn returned(&self, operation: OperationId, outcome: Outcome) {
        self.record(What::Returned { operation, outcome });
    }

    /// Writes down that a fault is at work.
    pub fn fault_began(&self, name: &str) {
        self.record(What::FaultBegan { name: name.into() });
    }

    /// Writes down that it is over.
    pub fn fault_ended(&self, name: &str) {
        self.record(What::FaultEnded { name: name.into() });
    }

    /// Writes down that no fault is at work any more: the bounds count from here.
    pub fn healed(&self) {
        self.record(What::Healed);
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.history().events.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks at what was recorded so far; nothing is recorded meanwhile.
    pub fn look<T>(&self, with: impl FnOnce(&History) -> T) -> T {
        with(&self.history())
    }

    /// A copy of what was recorded so far.
    pub fn history_so_far(&self) -> History {
        self.history().clone()
    }

    /// Takes what was recorded. What is recorded afterwards starts another history.
    pub fn take(&self) -> History {
        let mut history = self.history();
        let bounds = history.bounds;
        mem::replace(&mut *history, History { bounds, events: Vec::new() })
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // An event is there or not, at any point of a writer.
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("history", &self.history).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{ClientMsgId, Entry, EntryBody, ErrorCode, Seq, UserId};

    use super::*;
    use crate::history::Reply;

    #[tokio::test]
    async fn a_history_survives_its_file() {
        let recorder = Recorder::new(Bounds::default());
        let device = recorder.fresh_device();
        let user = UserId::new(1).unwrap();
        let conv = "g7".parse().unwrap();
        let mid = ClientMsgId([7; 16]);
        let entry = Entry {
            conv,
            seq: Seq(3),
            at: 5,
            from: user,
            name: "kirito".into(),
            mid,
            body: EntryBody::Message { text: "line\nbreak \u{1f980}".into() },
        };
        recorder.record(What::Started { device, user: Some(user) });
        let sent = recorder.invoked(device, Call::Send { mid, conv, text: "x".into() });
        recorder.returned(sent, Outcome::Ok { reply: Reply::Appended { seq: Seq(3) } });
        let join = recorder.invoked(device, Call::Join { mid, group: 7.try_into().unwrap() });
        recorder.returned(join, Outcome::Failed { code: Some(ErrorCode::AlreadyMember) });
        let read = recorder.invoked(device, Call::History { conv, before: None, limit: Some(2) });
        let reply = Reply::History { entries: vec![entry.clone()], more: true };
        recorder.returned(read, Outcome::Ok { reply });
        recorder.returned(recorder.invoked(device, Call::Friends), Outcome::Unknown);
        recorder.record(What::Entry { device, entry: Box::new(entry.clone()) });
        recorder.fault_began("node stalled");
        recorder.fault_ended("node stalled");
        recorder.healed();
        recorder.record(What::Final { user, conv, entries: vec![entry] });
        let history = recorder.take();
        assert!(recorder.is_empty());
        assert_eq!(history.events.len(), 14);
        let mut file = Vec::new();
        history.write(&mut file).unwrap();
        let read = History::read(&file[..]).unwrap();
        for (read, written) in read.events.iter().zip(&history.events) {
            assert_eq!(read.what, written.what);
            assert_eq!(read.at.as_micros(), written.at.as_micros());
        }
        assert_eq!(read.events.len(), history.events.len());
        assert!(History::read(&b"{}\n{\"at\":1}\n"[..]).unwrap_err().to_string().starts_with("line 2"));
    }
}
