//! Which server the connections lead to.
//!
//! An address can come to mean another server: a replica that was promoted, a backup that was restored. What was read from the one says nothing of
//! the other. So each connection states its server when it is set up, and those that lead to any but the one seen last are not used any more.

use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tracing::error;

use crate::store::Listener;

/// The server, and whoever wants to know when it is another one.
#[derive(Default)]
pub(super) struct Identity {
    /// Its `server_uuid`; `None` before the first connection.
    server: Mutex<Option<String>>,
    /// How often it changed.
    changes: AtomicU64,
    listener: OnceLock<Listener>,
}

impl Identity {
    /// Sets who is told of changes; only the first counts.
    pub(super) fn listen(&self, listener: Listener) {
        drop(self.listener.set(listener));
    }

    /// A connection leads to this server.
    pub(super) fn meet(&self, server: &str) {
        let mut known = self.server();
        if known.as_deref() == Some(server) {
            return;
        }
        if let Some(before) = known.replace(server.to_owned()) {
            error!(%before, now = server, "the database is another server than before: everything is read anew");
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// How often the server changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Tells whoever listens.
    pub(super) fn tell(&self) {
        if let Some(listener) = self.listener.get() {
            listener();
        }
    }

    fn server(&self) -> MutexGuard<'_, Option<String>> {
        // A name is a name at any point of a writer.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_another_server_is_a_change() {
        let (identity, told) = (Identity::default(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&told);
        identity.listen(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        for (server, changes) in [("a", 0), ("a", 0), ("b", 1), ("b", 1), ("a", 2)] {
            identity.meet(server);
            assert_eq!(identity.changes(), changes, "{server}");
        }
        identity.tell();
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }
}
