//! Retention: messages that are older than so long are erased, a little at a time (SPEC.md, section 5.1).
//!
//! How far that was done is in the store, and what is done twice has no further effect. So nodes need not agree on who does it: they begin at
//! random moments, and each goes on from where the furthest is.

use std::{sync::Arc, time::Duration};

use protocol::{Entropy, UnixMillis};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    metrics::Metrics,
    store::{self, Store},
};

/// The shortest that messages can be kept, so that it is certain what is old: whatever was committed so long ago is visible by now, and in no
/// node's memory.
pub const SHORTEST: Duration = Duration::from_secs(24 * 3600);

/// Entries looked at in one statement: few enough that it takes some milliseconds.
const STEP: usize = 500;
/// The pause between two statements, whatever the last one took.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));

/// How long a node keeps messages, and how it goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Messages whose commit is longer ago are erased.
    pub keep: Duration,
    /// The time between two passes, on average.
    pub every: Duration,
}

impl Retention {
    /// Messages are kept for so many days, and passes are made every hour.
    pub fn days(days: u16) -> Self {
        Self { keep: SHORTEST * u32::from(days.max(1)), every: Duration::from_secs(3600) }
    }

    /// Erases what is too old, again and again until `stop`.
    pub async fn run(
        self,
        store: Arc<dyn Store>,
        entropy: Arc<dyn Entropy>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        loop {
            // Nodes that were started together do not begin together.
            let pause = self.every / 2 + entropy.jitter(self.every);
            let pass = async {
                sleep(pause).await;
                let keep = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
                let before = store.now().await?.saturating_sub(keep);
                let count = |erased| {
                    metrics.expired.inc_by(erased);
                };
                expire(&*store, before, Pace::Tenth, count).await
            };
            match stop.run_until_cancelled(pass).await {
                None => return,
                Some(Ok(0)) => {}
                Some(Ok(erased)) => info!(erased, "erased messages that were too old"),
                Some(Err(error)) => warn!(%error, "erasing old messages waits for the store"),
            }
        }
    }
}

/// How much of the time is spent on it; the rest is others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A tenth: beside a node's work.
    Tenth,
    /// Half.
    Half,
}

/// Erases every message that was committed before a time in the store's own, from where it was done last; `count` is told the numbers as it goes on.
/// Returns how many there were. It can be cut short anywhere.
///
/// # Errors
/// The store's; what was done stays done.
pub async fn expire(
    store: &dyn Store,
    before: UnixMillis,
    pace: Pace,
    mut count: impl FnMut(u64),
) -> store::Result<u64> {
    let (mut after, mut erased) = (store.expired().await?, 0);
    loop {
        let begun = Instant::now();
        let step = store.expire(after, before, STEP).await?;
        erased += step.erased;
        count(step.erased);
        if step.reached.is_none() {
            return Ok(erased);
        }
        let others = match pace {
            Pace::Tenth => 9,
            Pace::Half => 1,
        };
        sleep((begun.elapsed() * others).clamp(PAUSES.0, PAUSES.1)).await;
        // Another node may be ahead.
        after = step.reached.max(store.expired().await?);
    }
}
