//! Delivered cursors on their way to the store: written in batches, since a row each would cost as much as a message.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{ConversationId, Seq, UserId};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::store::{self, Store};

/// How often they are written (SPEC.md, section 10).
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Cursors in one statement.
const BATCH_MAX: usize = 500;

/// Cursors that are not written yet: at most one per session and conversation, so bounded by those.
pub struct Delivered {
    store: Arc<dyn Store>,
    waiting: Mutex<BTreeMap<(UserId, ConversationId), Seq>>,
}

impl Delivered {
    /// None waiting.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, waiting: Mutex::default() }
    }

    /// Queues cursors of a user.
    pub fn raise(&self, user: UserId, cursors: impl IntoIterator<Item = (ConversationId, Seq)>) {
        let mut waiting = self.waiting();
        for (conv, seq) in cursors {
            let cursor = waiting.entry((user, conv)).or_default();
            *cursor = (*cursor).max(seq);
        }
    }

    /// Forgets what waits: it is of logs that may be gone. Its entries are pushed again to the next login.
    pub fn forget(&self) {
        self.waiting().clear();
    }

    /// Writes what waits for one user.
    ///
    /// # Errors
    /// The store's; what was not written waits on.
    pub async fn write_user(&self, user: UserId) -> store::Result<()> {
        let own = {
            let mut waiting = self.waiting();
            let from = (user, ConversationId::notices(UserId::new(1).expect("1 is in range")));
            let keys = waiting.range(from..).map(|(key, _)| *key).take_while(|key| key.0 == user);
            let keys: Vec<_> = keys.collect();
            keys.into_iter().filter_map(|key| waiting.remove_entry(&key)).collect()
        };
        self.write(own).await
    }

    /// Writes what waits for anyone.
    ///
    /// # Errors
    /// The store's; what was not written waits on.
    pub async fn write_all(&self) -> store::Result<()> {
        let all = std::mem::take(&mut *self.waiting());
        self.write(all.into_iter().collect()).await
    }

    /// Writes at every interval until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut failed = false;
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            match self.write_all().await {
                Ok(()) => failed = false,
                Err(error) if !failed => {
                    failed = true;
                    warn!(%error, "delivered cursors wait for the store");
                }
                Err(_) => {}
            }
        }
    }

    async fn write(&self, mut cursors: Vec<((UserId, ConversationId), Seq)>) -> store::Result<()> {
        while !cursors.is_empty() {
            let rest = cursors.split_off(cursors.len().min(BATCH_MAX));
            let batch: Vec<_> = cursors.iter().map(|((user, conv), seq)| (*user, *conv, *seq)).collect();
            if let Err(error) = self.store.set_delivered(&batch).await {
                for ((user, conv), seq) in cursors.into_iter().chain(rest) {
                    self.raise(user, [(conv, seq)]);
                }
                return Err(error);
            }
            cursors = rest;
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(UserId, ConversationId), Seq>> {
        // A map of numbers is valid at any point of a writer.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
