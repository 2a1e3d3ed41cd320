//! Why a request failed, a connection ended, or a session did.

use protocol::{ErrorBody, message::ClosingCode};
use thiserror::Error;

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The server refused it: it did not happen.
    #[error("{0}")]
    Refused(ErrorBody),
    /// It may have happened: no answer came in time, or none that says.
    #[error("the outcome is not known")]
    Unknown,
    /// It did not happen: too many requests wait for their answers.
    #[error("too many requests are waiting for their answers")]
    TooManyRequests,
    /// It did not happen: it was never sent, because the client has ended or could not connect in time.
    #[error("not connected")]
    Closed,
}

impl RequestError {
    /// Whether the operation certainly did not happen.
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

/// Why a connection ended, or did not come about.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DisconnectReason {
    /// It did not come about.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// It broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The server did not say anything for too long.
    #[error("the server does not answer")]
    Silent,
    /// The server said that it ends the connection.
    #[error("closed by the server: {}", closing(*.0))]
    Closing(ClosingCode),
    /// The server broke the protocol; resuming heals what can be healed.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
}

fn closing(code: ClosingCode) -> &'static str {
    match code {
        ClosingCode::LoggedOut => "logged out",
        ClosingCode::GoingAway => "it is shutting down",
        ClosingCode::LoginTimeout => "no login in time",
        ClosingCode::Idle => "the client was silent for too long",
        ClosingCode::SlowReader => "the client did not read for too long",
        ClosingCode::TooManyConnections => "it has too many connections",
        ClosingCode::TooManyErrors => "too many bad lines",
        ClosingCode::Revoked => "the password was changed, or an operator ended the session",
        ClosingCode::TlsRequired => "it speaks TLS only (--tls)",
        ClosingCode::Unknown => "for a reason this version does not know",
    }
}

/// Why a session ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EndReason {
    /// It was logged out. The client ends.
    #[error("logged out")]
    LoggedOut,
    /// The server does not take the session's token any more. The client stays and can log in anew.
    #[error("the session has ended; log in again")]
    BadToken,
    /// The server speaks a protocol that this version does not know. The client ends.
    #[error("the server speaks version {0} of the protocol, which this program does not know")]
    ProtocolVersion(u32),
}
