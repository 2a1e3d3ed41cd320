//! Wall-clock time and randomness, injected.
//!
//! Monotonic time, sleeps and timeouts go through `tokio::time`, which is virtual in simulation.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 00:00 UTC.
pub type UnixMillis = i64;

/// A host's wall clock: may jump, may be wrong; for people and for expiry, never for ordering.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> UnixMillis;

    /// The time `later` from now.
    fn after(&self, later: Duration) -> UnixMillis {
        self.now().saturating_add(i64::try_from(later.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the real clock")]
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Random bytes for ids, tokens, salts and jitter.
pub trait Entropy: Send + Sync + 'static {
    /// Overwrites `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);

    /// A duration from `0` up to `most`, in whole microseconds.
    fn jitter(&self, most: Duration) -> Duration {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(u64::from_le_bytes(bytes) % most.saturating_add(1).max(1))
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    fn fill(&self, bytes: &mut [u8]) {
        // It fails only where the system has no source of randomness, and nothing secure can go on there.
        getrandom::fill(bytes).expect("the operating system provides random bytes");
    }
}
