//! The error codes of the wire (SPEC.md, section 7).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// A stable, named reason why a request failed.
///
/// *Definite*: it did not happen. *Indefinite*: it may have; repeat it with the same message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a JSON object with a readable `id` and `op`.
    Malformed,
    /// The line exceeds the frame limit.
    FrameTooLong,
    /// No such operation.
    UnknownOp,
    /// A field is missing or of the wrong form, or the operation does not fit the connection's state.
    BadRequest,
    /// The operation needs a session.
    NotLoggedIn,
    /// The connection has a session.
    AlreadyLoggedIn,
    /// No such account, or not its password.
    BadCredentials,
    /// The operators have banned the account.
    Banned,
    /// The token is unknown, expired or revoked.
    BadToken,
    /// The name breaks the rules for names.
    BadName,
    /// Empty or too long.
    BadPassword,
    /// Empty or longer than its limit.
    BadText,
    /// Another account has the name.
    NameTaken,
    /// No such account.
    NoSuchUser,
    /// Never was, or was deleted.
    NoSuchGroup,
    /// Never was, or the caller may not read it.
    NoSuchConversation,
    /// The caller, or the user named, is not a member.
    NotMember,
    /// The caller is a member.
    AlreadyMember,
    /// Only the group's creator may.
    NotCreator,
    /// The two are not friends.
    NotFriends,
    /// The two are friends.
    AlreadyFriends,
    /// The operation needs another user.
    SelfTarget,
    /// The other user has blocked the caller.
    Blocked,
    /// The caller has blocked the user.
    AlreadyBlocked,
    /// The caller has not blocked the user.
    NotBlocked,
    /// A limit on groups, members, friends or sessions.
    LimitReached,
    /// The message id was used for something else.
    IdReused,
    /// This attempt was not carried out.
    Overloaded,
    /// Too many attempts: this one was not carried out.
    RateLimited,
    /// The node is draining.
    GoingAway,
    /// The store did not answer, or not in time.
    Unavailable,
    /// A defect of the server.
    Internal,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// Every code this version knows.
    pub const ALL: &'static [ErrorCode] = &[
        Self::Malformed,
        Self::FrameTooLong,
        Self::UnknownOp,
        Self::BadRequest,
        Self::NotLoggedIn,
        Self::AlreadyLoggedIn,
        Self::BadCredentials,
        Self::Banned,
        Self::BadToken,
        Self::BadName,
        Self::BadPassword,
        Self::BadText,
        Self::NameTaken,
        Self::NoSuchUser,
        Self::NoSuchGroup,
        Self::NoSuchConversation,
        Self::NotMember,
        Self::AlreadyMember,
        Self::NotCreator,
        Self::NotFriends,
        Self::AlreadyFriends,
        Self::SelfTarget,
        Self::Blocked,
        Self::AlreadyBlocked,
        Self::NotBlocked,
        Self::LimitReached,
        Self::IdReused,
        Self::Overloaded,
        Self::RateLimited,
        Self::GoingAway,
        Self::Unavailable,
        Self::Internal,
    ];

    /// Whether the operation certainly did not happen.
    pub const fn is_definite(self) -> bool {
        !matches!(self, Self::Unavailable | Self::Internal | Self::Unknown)
    }

    /// Its name on the wire, and a sentence for people.
    const fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Malformed => ("malformed", "not a JSON object with an id and an op"),
            Self::FrameTooLong => ("frame_too_long", "the line is longer than the limit"),
            Self::UnknownOp => ("unknown_op", "there is no such operation"),
            Self::BadRequest => ("bad_request", "a field is missing or of the wrong form"),
            Self::NotLoggedIn => ("not_logged_in", "you are not logged in"),
            Self::AlreadyLoggedIn => ("already_logged_in", "this connection is logged in already"),
            Self::BadCredentials => ("bad_credentials", "wrong account or password"),
            Self::Banned => ("banned", "this account is banned by the operators"),
            Self::BadToken => ("bad_token", "the session has ended; log in again"),
            Self::BadName => ("bad_name", "that name is not allowed"),
            Self::BadPassword => ("bad_password", "a password has 1 to 1024 bytes"),
            Self::BadText => ("bad_text", "the text is empty or too long"),
            Self::NameTaken => ("name_taken", "that name is taken"),
            Self::NoSuchUser => ("no_such_user", "there is no such user"),
            Self::NoSuchGroup => ("no_such_group", "there is no such group"),
            Self::NoSuchConversation => ("no_such_conversation", "there is no such conversation"),
            Self::NotMember => ("not_member", "not a member of that group"),
            Self::AlreadyMember => ("already_member", "you are a member of that group already"),
            Self::NotCreator => ("not_creator", "only the group's creator can do that"),
            Self::NotFriends => ("not_friends", "you are not friends"),
            Self::AlreadyFriends => ("already_friends", "you are friends already"),
            Self::SelfTarget => ("self_target", "you cannot do that to yourself"),
            Self::Blocked => ("blocked", "that user has blocked you"),
            Self::AlreadyBlocked => ("already_blocked", "you have blocked that user already"),
            Self::NotBlocked => ("not_blocked", "you have not blocked that user"),
            Self::LimitReached => ("limit_reached", "a limit is reached"),
            Self::IdReused => ("id_reused", "that message id was used for something else"),
            Self::Overloaded => ("overloaded", "the server is overloaded; try again later"),
            Self::RateLimited => ("rate_limited", "too many attempts; try again later"),
            Self::GoingAway => ("going_away", "the server is shutting down; connect again"),
            Self::Unavailable => {
                ("unavailable", "the outcome is not known; repeat the request with the same mid")
            }
            Self::Internal => ("internal", "the server failed; repeat the request with the same mid"),
            Self::Unknown => ("unknown", "the request failed"),
        }
    }

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        self.describe().0
    }

    /// A sentence for people.
    pub const fn message(self) -> &'static str {
        self.describe().1
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an error reply carries under `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub code: ErrorCode,
    /// Whether the operation certainly did not happen.
    pub definite: bool,
    /// The offending field, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Before so many milliseconds another attempt will be refused likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// For people; may change.
    pub message: String,
}

impl ErrorBody {
    /// The body for a code, with its usual sentence.
    pub fn new(code: ErrorCode) -> Self {
        Self {
            code,
            definite: code.is_definite(),
            field: None,
            retry_after_ms: None,
            message: code.message().into(),
        }
    }

    /// The body for a bad field.
    pub fn field(code: ErrorCode, field: &str, message: impl fmt::Display) -> Self {
        Self {
            code,
            definite: code.is_definite(),
            field: Some(field.into()),
            retry_after_ms: None,
            message: format!("{field}: {message}"),
        }
    }

    /// The body for too many attempts, of which the next may be made after a wait.
    pub fn rate_limited(wait: Duration) -> Self {
        let code = ErrorCode::RateLimited;
        let wait_ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let message = format!("too many attempts; try again in {} s", wait_ms.div_ceil(1000));
        Self { retry_after_ms: Some(wait_ms), message, ..Self::new(code) }
    }
}

impl From<ErrorCode> for ErrorBody {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_on_the_wire() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
        }
        assert_eq!(serde_json::from_str::<ErrorCode>("\"from_the_future\"").unwrap(), ErrorCode::Unknown);
    }
}
