//! A host's wall clock: simulated time, wrong in the ways that clocks are.
//!
//! turmoil's monotonic time is the same on every host; what can be wrong is what [`protocol::Clock`] says.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{Clock, UnixMillis};

use crate::trace;

/// When every simulation starts: 2023-11-14 22:13:20 UTC.
pub const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// A host's clock. Cheap to clone: all clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct HostClock(Arc<Mutex<Error>>);

/// How wrong it is.
#[derive(Debug, Default)]
struct Error {
    /// Added to what is right.
    offset_ms: i64,
    /// Parts per million that it goes too fast.
    drift_ppm: i64,
    /// Since when it does.
    since: Duration,
}

impl HostClock {
    /// It jumps, forward or back.
    pub fn jump(&self, by_ms: i64) {
        self.error().offset_ms += by_ms;
    }

    /// From now on it goes too fast by so many parts per million, or too slow.
    pub fn drift(&self, ppm: i64) {
        let now = trace::now();
        let mut error = self.error();
        error.offset_ms += error.drifted(now);
        error.since = now;
        error.drift_ppm = ppm;
    }

    /// It is set right.
    pub fn set_right(&self) {
        *self.error() = Error::default();
    }

    fn error(&self) -> MutexGuard<'_, Error> {
        // Valid at any point of a writer.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Error {
    fn drifted(&self, now: Duration) -> i64 {
        let since = now.saturating_sub(self.since).as_millis() as i64;
        since * self.drift_ppm / 1_000_000
    }
}

impl Clock for HostClock {
    fn now(&self) -> UnixMillis {
        let now = trace::now();
        let error = self.error();
        (EPOCH + now).as_millis() as i64 + error.offset_ms + error.drifted(now)
    }
}
