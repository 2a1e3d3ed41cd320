//! The limits that a client has to know, as the greeting states them (SPEC.md, section 8).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the greeting says under `limits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest line before login, in bytes without the line end.
    pub anonymous_frame_bytes_max: usize,
    /// Longest line after login, in bytes without the line end.
    pub frame_bytes_max: usize,
    /// Longest line that the server sends, in bytes without the line end.
    pub server_frame_bytes_max: usize,
    /// Longest message text, in bytes of UTF-8.
    pub text_bytes_max: usize,
    /// Requests without a reply after which the server stops reading.
    pub requests_in_flight_max: usize,
    /// Cursors in one `ack`, `resume` or `cursors`.
    pub cursors_per_request_max: usize,
    /// Silence after which the server ends a connection, in milliseconds.
    pub idle_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            anonymous_frame_bytes_max: 4096,
            frame_bytes_max: 128 * 1024,
            // A text of the longest kind, every byte of it escaped to six, and the fields around it.
            server_frame_bytes_max: 512 * 1024,
            text_bytes_max: 64 * 1024,
            requests_in_flight_max: 64,
            cursors_per_request_max: 1000,
            idle_timeout_ms: 90_000,
        }
    }
}

impl Limits {
    /// [`Limits::idle_timeout_ms`] as a duration.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }
}
