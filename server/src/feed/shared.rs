//! What feeds have in common.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    relay::{Relay, none::NoRelay},
    sizes::Sizes,
};

/// What the feeds of a node share: their bounds, the bytes that their rings hold together, and who is told that a reader has left.
pub struct Shared {
    pub(super) sizes: Sizes,
    pub(super) bytes: AtomicUsize,
    pub(super) relay: Arc<dyn Relay>,
}

impl Shared {
    /// Of no feeds yet, with these bounds.
    pub fn new(sizes: Sizes, relay: Arc<dyn Relay>) -> Self {
        Self { sizes, bytes: AtomicUsize::default(), relay }
    }

    /// How many bytes of recent entries there are.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Default for Shared {
    /// Of a node that is alone.
    fn default() -> Self {
        Self::new(Sizes::default(), Arc::new(NoRelay))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
