//! Limits and timeouts of a client.

use std::time::Duration;

/// How a client behaves. [`Config::default`] suits a person's client.
#[derive(Debug, Clone)]
pub struct Config {
    /// Longest wait for a connection, and then for the greeting.
    pub connect_timeout: Duration,
    /// The pause before the first new attempt to connect; each further pause is twice as long.
    pub backoff_min: Duration,
    /// The longest such pause. A connection that lived as long starts the count anew.
    pub backoff_max: Duration,
    /// How long a request may stay without a final answer, all repetitions included.
    pub request_timeout: Duration,
    /// How often a request is sent when the server answers that it could not carry it out this time.
    pub attempts_max: u32,
    /// Requests without a final answer. One more is refused with `TooManyRequests`.
    pub requests_max: usize,
    /// Bytes of text held by those requests. What exceeds them is refused likewise.
    pub request_bytes_max: usize,
    /// Events the application has not taken. When so many wait, the client stops reading its socket.
    pub events_max: usize,
    /// Silence on an outstanding request after which the server is taken for dead; if absent, a third of the
    /// server's idle timeout.
    pub silence_timeout: Option<Duration>,
    /// How long confirmations are collected before they are sent together.
    pub confirm_after: Duration,
    /// Confirms every entry as soon as it is surfaced as an event; otherwise the application says
    /// what it has shown.
    pub confirm_automatically: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            attempts_max: 10,
            requests_max: 256,
            request_bytes_max: 8 * 1024 * 1024,
            events_max: 256,
            silence_timeout: None,
            confirm_after: Duration::from_millis(500),
            confirm_automatically: false,
        }
    }
}
