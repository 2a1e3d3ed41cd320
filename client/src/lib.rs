//! The chat system's client library. `SPEC.md` is the contract it keeps.
//!
//! A [`Client`] asks, and its [`Events`] tell what happens unasked. In between stands one task that owns one
//! connection at a time: it reconnects with jittered pauses, resumes the session with its own cursors, and repeats what
//! was not answered with the same message ids. So a request has one effect, and a running client
//! surfaces a (conversation, seq) at most once.
//!
//! - `client`: the handles that an application holds
//! - `config`: limits and timeouts
//! - `connection`: the task that drives the machine over a [`protocol::Net`]
//! - [`session`]: the machine, without I/O, clock or randomness, for shells of one's own; below it the requests in flight, the logs' cursors
//!   and the pauses between attempts
//! - `tls`: a [`protocol::Net`] over another one
//! - `event`, `reply`, `error`: what comes out
//!
//! The application must go on taking events while it awaits replies: when [`Config::events_max`] of them wait, the
//! client stops reading its socket, and replies come through the same socket.

mod client;
mod config;
mod connection;
mod error;
mod event;
mod reply;
pub mod session;
mod tls;

pub use client::{Client, Events};
pub use config::Config;
pub use error::{DisconnectReason, EndReason, RequestError};
pub use event::Event;
pub use reply::Reply;
pub use tls::{Tls, TlsPeer, TlsPeerError};
/// What [`TlsPeer::shake_hands`] makes of a stream.
pub use tokio_rustls::client::TlsStream;
