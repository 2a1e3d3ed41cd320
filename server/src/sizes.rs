//! Sizes that only make a node fast or slow: whatever they are, the guarantees hold. Small ones bring a node to its edges with
//! little traffic, for tests.

use std::time::Duration;

/// How much a node keeps at hand, and does at once; the defaults are those of SPEC.md, section 8, where it states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Recent entries kept per conversation.
    pub ring_entries_max: usize,
    /// Entries ahead of a gap held per conversation.
    pub held_entries_max: usize,
    /// Entries in one page read from the store.
    pub page_entries_max: usize,
    /// Bytes of text in one page read from the store, beyond its first entry.
    pub page_bytes_max: usize,
    /// Messages in one statement.
    pub batch_max: usize,
    /// Bytes of such a statement, beyond its first message.
    pub batch_bytes_max: usize,
    /// Pushes are added to what waits for a socket up to so many bytes, and the line that passes it.
    pub outbox_bytes: usize,
    /// Conversations in one look of the sweep; if more advanced, all local heads are compared instead.
    pub sweep_heads_max: usize,
    /// How far a look of the sweep goes back beyond the last one: commits become visible after the time they carry.
    pub sweep_look_back: Duration,
    /// Logins carried out at once, and as many resumes; the others wait.
    pub openings_max: usize,
    /// How long a batch or act is tried while the store is not available.
    pub commit_patience: Duration,
}

/// What to set [`Sizes::batch_bytes_max`] to when the store is reached over TLS by sqlx: with its head, one record of TLS (16 KiB). sqlx sets no
/// TCP_NODELAY, so what does not fit into the first record waits for the server to acknowledge that, which it may put off for 40 ms.
pub const ENCRYPTED_BATCH_BYTES: usize = 15 << 10;

impl Default for Sizes {
    fn default() -> Self {
        Self {
            ring_entries_max: 256,
            held_entries_max: 64,
            page_entries_max: 256,
            page_bytes_max: 256 << 10,
            // Enough that a statement's fixed cost no longer shows.
            batch_max: 512,
            batch_bytes_max: 4 << 20,
            outbox_bytes: 64 << 10,
            sweep_heads_max: 10_000,
            sweep_look_back: Duration::from_secs(2),
            // Enough for a store with some connections, few enough that each is done soon.
            openings_max: 32,
            // The client's own patience is longer, so that most requests outlive a database's failover.
            commit_patience: Duration::from_secs(5),
        }
    }
}
