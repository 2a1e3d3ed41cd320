//! The sweep: finds what no hint told of.
//!
//! A hint can be lost with nobody noticing (a node dies between commit and publish). So each node asks the store every few seconds which
//! conversations advanced: one query, however many sessions. Since a commit can become visible later than any look-back, as a
//! backstop every local feed's head is compared with the store in turn.
//!
//! Cost per look: reading (write rate x (interval + look-back)) index entries, and at most `sweep_heads_max` rows out.

use std::{sync::Arc, time::Duration};

use protocol::{ConversationId, UnixMillis};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    feeds::Feeds,
    node::NodeConfig,
    sizes::Sizes,
    store::{self, Store},
};

/// How long an entry stays in memory at most, since it may be erased in the store (SPEC.md, section 10).
const MEMORY_MAX: Duration = Duration::from_secs(120);
/// The pause before heads are compared again, if the store did not answer.
const RETRY: Duration = Duration::from_millis(500);
/// Heads in one query.
const BATCH_MAX: usize = 1000;

/// The sweep's task.
pub struct Sweep {
    store: Arc<dyn Store>,
    feeds: Arc<Feeds>,
    interval: Duration,
    /// In which every local head is compared once (SPEC.md, section 10).
    round: Duration,
    sizes: Sizes,
    since: Option<UnixMillis>,
    /// Local conversations still to be compared in this round.
    left: Vec<ConversationId>,
    /// When entries in memory were aged last.
    aged: Instant,
    /// Whether all local heads are to be compared, and that has not succeeded yet.
    owed: bool,
}

/// What makes the sweep look before its time.
#[derive(Debug, Default)]
pub struct Prompts {
    /// Hints may have been lost.
    pub gap: Notify,
    /// The store is another one than before, with another time.
    pub changed: Notify,
}

impl Sweep {
    /// A sweep that has not looked yet.
    pub fn new(store: Arc<dyn Store>, feeds: Arc<Feeds>, config: &NodeConfig) -> Self {
        let NodeConfig { sweep_interval: interval, sweep_round: round, sizes, .. } = *config;
        let (left, aged) = (Vec::new(), Instant::now());
        Self { store, feeds, interval, round, sizes, since: None, left, aged, owed: false }
    }

    /// Looks at every interval, and at once at all heads when it is prompted; until `stop`.
    pub async fn run(mut self, prompts: Arc<Prompts>, stop: CancellationToken) {
        let mut failed = false;
        loop {
            let look = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = prompts.changed.notified() => {
                    self.since = None;
                    self.compare_all().await
                }
                () = prompts.gap.notified() => self.compare_all().await,
                () = tokio::time::sleep(self.pause()) => self.look().await,
            };
            match look {
                Ok(()) => failed = false,
                Err(error) if !failed => {
                    failed = true;
                    warn!(%error, "the sweep waits for the store");
                }
                Err(_) => {}
            }
            self.feeds.rest();
            if self.aged.elapsed() >= MEMORY_MAX / 2 {
                self.aged = Instant::now();
                self.feeds.age();
            }
        }
    }

    /// Until the next look. What is owed is tried again soon.
    fn pause(&self) -> Duration {
        if self.owed { self.interval.min(RETRY) } else { self.interval }
    }

    async fn look(&mut self) -> store::Result<()> {
        if self.owed {
            self.compare_all().await?;
        }
        let look_back = i64::try_from(self.sizes.sweep_look_back.as_millis()).unwrap_or(i64::MAX);
        match self.since {
            // The first look finds out what time it is in the store. No feed is older than an interval.
            None => {
                let interval = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX);
                self.since = Some(self.store.now().await?.saturating_sub(interval));
            }
            Some(since) => {
                let (since, most) = (since.saturating_sub(look_back), self.sizes.sweep_heads_max);
                let advanced = self.store.advanced(since, most).await?;
                self.since = self.since.max(Some(advanced.until));
                if advanced.truncated {
                    self.compare_all().await?;
                }
                self.feeds.observe(advanced.heads);
            }
        }
        self.compare_some().await
    }

    /// The backstop: so many that all are compared within a round.
    async fn compare_some(&mut self) -> store::Result<()> {
        if self.left.is_empty() {
            self.left = self.feeds.read_convs();
        }
        let looks = (self.round.as_secs_f64() / self.interval.as_secs_f64() / 2.0).floor().max(1.0);
        let all = self.feeds.read_convs().len();
        let some = (all as f64 / looks).ceil() as usize;
        let some = self.left.split_off(self.left.len().saturating_sub(some.max(1)));
        self.compare(&some).await
    }

    async fn compare_all(&mut self) -> store::Result<()> {
        self.owed = true;
        self.compare(&self.feeds.read_convs()).await?;
        self.owed = false;
        Ok(())
    }

    async fn compare(&self, convs: &[ConversationId]) -> store::Result<()> {
        for batch in convs.chunks(BATCH_MAX) {
            // Before the store is asked: by then it has all of it.
            let shown = self.feeds.shown(batch);
            let heads = self.store.heads(batch).await?;
            self.feeds.compare(&shown, &heads);
            self.feeds.observe(heads);
        }
        Ok(())
    }
}
