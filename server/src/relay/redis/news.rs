//! What the relay has to tell its node that must not be lost: gaps, presence, a lost lease. Kept until the node takes it.
//!
//! Hints go to the node directly, and are dropped when it is behind; that in turn is a gap.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::UserId;
use tokio::sync::{Notify, mpsc};

use crate::relay::RelayEvent;

/// Users whose change is told one by one; of more than these, it is told of all at once.
const USERS_MAX: usize = 10_000;

/// The news, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct News {
    untold: Mutex<Untold>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Untold {
    gap: bool,
    lease_lost: bool,
    all: bool,
    users: BTreeSet<UserId>,
}

impl News {
    /// Hints may have been lost.
    pub(super) fn gap(&self) {
        self.untold().gap = true;
        self.some.notify_one();
    }

    /// The lease was lost.
    pub(super) fn lease_lost(&self) {
        self.untold().lease_lost = true;
        self.some.notify_one();
    }

    /// These users' state changed.
    pub(super) fn presence(&self, users: impl IntoIterator<Item = UserId>) {
        let mut untold = self.untold();
        untold.users.extend(users);
        if untold.users.len() > USERS_MAX {
            untold.users.clear();
            untold.all = true;
        }
        if untold.all || !untold.users.is_empty() {
            self.some.notify_one();
        }
    }

    /// Anyone's state may have changed.
    pub(super) fn presence_of_all(&self) {
        let mut untold = self.untold();
        untold.all = true;
        untold.users.clear();
        self.some.notify_one();
    }

    /// Tells the node, as fast as it takes it, until it is gone.
    pub(super) async fn tell(&self, events: &mpsc::Sender<RelayEvent>) {
        loop {
            self.some.notified().await;
            while let Some(event) = self.next() {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    fn next(&self) -> Option<RelayEvent> {
        let mut untold = self.untold();
        if std::mem::take(&mut untold.gap) {
            Some(RelayEvent::Gap)
        } else if std::mem::take(&mut untold.lease_lost) {
            Some(RelayEvent::LeaseLost)
        } else if std::mem::take(&mut untold.all) {
            Some(RelayEvent::PresenceOfAll)
        } else {
            untold.users.pop_first().map(RelayEvent::Presence)
        }
    }

    fn untold(&self) -> MutexGuard<'_, Untold> {
        // Its fields are valid at any point of a writer.
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
