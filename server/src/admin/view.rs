//! What the operators' API says and is told, as JSON: one set of types for the node that answers and for `chatctl`, which asks.

use std::net::IpAddr;

use protocol::{
    ClientMsgId, ConversationId, Seq, UnixMillis, UserId,
    message::{Password, PresenceState},
};
use serde::{Deserialize, Serialize};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Where clients reach it.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Whether it should be sent clients.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// What is amiss and stops nobody.
    pub degraded: Vec<String>,
    /// What the other nodes know it by in Redis.
    pub incarnation: Option<String>,
    /// Sessions.
    pub sessions: u64,
    /// Connections, sessions or not.
    pub connections: u64,
    /// How many there may be.
    pub connections_max: u64,
    /// Whether it is about to end.
    pub draining: bool,
    /// Since it started.
    pub uptime_seconds: u64,
}

/// Which sessions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SessionsWanted {
    /// Of this user, by number or name; of all without.
    pub user: Option<String>,
    /// Of users above this number.
    #[serde(default)]
    pub after: u64,
    /// How many, about.
    pub limit: Option<usize>,
}

/// Sessions of a node, by user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsView {
    /// The sessions.
    pub sessions: Vec<SessionView>,
    /// After which user more follow.
    pub next: Option<u64>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its connection's number on its node, as in the log.
    pub id: u64,
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub name: String,
    /// The client's address.
    pub address: IpAddr,
    /// When it was opened, by the node's clock.
    pub since: UnixMillis,
    /// Bytes that wait for its socket.
    pub unwritten: u64,
    /// Conversations that it reads; nothing if it did not answer.
    pub conversations: Option<u64>,
    /// Entries that are still to be pushed in the conversation that is farthest behind; likewise.
    pub behind: Option<u64>,
}

/// Which accounts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UsersWanted {
    /// Those whose names begin so, by name; all by number without.
    pub prefix: Option<String>,
    /// After this account, by number or name.
    pub after: Option<String>,
    /// How many.
    pub limit: Option<usize>,
}

/// Accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsersView {
    /// The accounts.
    pub users: Vec<UserView>,
    /// After which account more follow.
    pub next: Option<String>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    /// Its number.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// When it was made, by a node's clock.
    pub created_at: UnixMillis,
    /// Whether it is banned.
    pub banned: bool,
    /// Whether its user has a session anywhere, as far as the node that answers knows.
    pub state: PresenceState,
}

/// What is to be done, and to whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderWanted {
    /// An account, by number or name.
    pub user: String,
    /// The new password, where one is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
}

/// What was done to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Its number.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// Whether it is banned now.
    pub banned: bool,
    /// The entry in its notices; nothing if nothing had to be done.
    pub seq: Option<Seq>,
}

/// Which entry.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct EntryWanted {
    /// The log.
    pub conv: ConversationId,
    /// The position.
    pub seq: Seq,
}

/// An entry, but not what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// The log.
    pub conv: ConversationId,
    /// The position.
    pub seq: Seq,
    /// What kind of entry it is.
    pub kind: String,
    /// Who made it.
    pub from: UserId,
    /// That user's name.
    pub name: String,
    /// With which message id.
    pub mid: ClientMsgId,
    /// When a node numbered it, by its clock.
    pub at: UnixMillis,
    /// When it was committed, by the store's clock.
    pub committed_at: UnixMillis,
    /// Who may read it, by number.
    pub readers: Vec<ReaderView>,
}

/// A user who may read an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderView {
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub name: String,
    /// The user's delivered cursor, as stored.
    pub delivered: Seq,
}

/// Where a node stands with an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorsView {
    /// Whether the node remembers that it committed the entry; it forgets before long.
    pub committed_here: bool,
    /// Sessions on the node that read the conversation.
    pub sessions: Vec<CursorView>,
    /// Whether there are more of them.
    pub more: bool,
}

/// Where a session stands in a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorView {
    /// Its connection's number on its node.
    pub id: u64,
    /// The user.
    pub user: UserId,
    /// The last entry pushed; nothing if the session did not answer.
    pub pushed: Option<Seq>,
    /// The last entry confirmed; likewise.
    pub confirmed: Option<Seq>,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedView {
    /// Why.
    pub error: Refusal,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In a word: one of SPEC.md, section 7, or `disabled`, `unauthorized`, `not_found`.
    pub code: String,
    /// In a sentence.
    pub message: String,
}
