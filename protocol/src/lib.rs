//! The wire protocol of the chat system, and the seams between it and the world.
//!
//! `SPEC.md` is the normative text. Nothing here does I/O but the tokio implementation of [`Net`], and [`tls`], which reads
//! certificates.
//!
//! - [`ids`]: newtyped numbers and keys, parsed at the edge
//! - [`message`]: requests, replies, pushes, entries, and their JSON
//! - [`error`]: the error codes, each definite or indefinite
//! - [`codec`]: bytes to lines, in bounded memory
//! - [`limits`]: what the greeting states
//! - [`text`]: the rules for names
//! - [`net`], [`clock`]: the traits that the simulator implements, and their real implementations
//! - [`tls`]: whom who dials trusts

pub mod clock;
pub mod codec;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod ids;
pub mod limits;
pub mod message;
pub mod net;
pub mod text;
pub mod tls;

pub use clock::{Clock, Entropy, UnixMillis};
pub use codec::{FrameTooLong, LineDecoder};
pub use error::{ErrorBody, ErrorCode};
pub use ids::{
    ClientMsgId, Conversation, ConversationId, GroupId, ParseIdError, RequestId, Seq, Token, UserId,
};
pub use limits::Limits;
pub use message::{Entry, EntryBody, Push, Request, ServerLine};
pub use net::{Net, Tcp};
