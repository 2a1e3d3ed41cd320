//! The store: the truth that all nodes of a deployment share.
//!
//! [`Store`] is the seam. Its implementations hold all SQL there is; they pass one suite ([`conformance`]), which is
//! what entitles the simulator to [`memory`].

pub mod conformance;
pub mod memory;
pub mod mysql;
pub mod record;
mod row;
mod schema;
pub mod sqlite;
pub mod transfer;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use protocol::{
    ClientMsgId, Conversation, ConversationId, Entry, EntryBody, GroupId, Seq, UnixMillis, UserId,
    message::{Account, GroupInfo, Role},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::rights::Rights;

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// It did not answer, or not in time: what was written may be there or not.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// It answered with something that should not be there.
    #[error("the store holds what this version cannot read: {0}")]
    Corrupt(String),
}

/// What the store answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// An entry to be appended at a position that is free as far as the node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEntry {
    /// The log.
    pub conv: ConversationId,
    /// The position wanted: the confirmed head's, plus one, plus what precedes it in the batch.
    pub seq: Seq,
    /// Who did it.
    pub from: UserId,
    /// With which idempotency key: unique for this sender in this log.
    pub mid: ClientMsgId,
    /// The node's time.
    pub at: UnixMillis,
    /// What it says.
    pub body: EntryBody,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All of it is durable.
    Committed,
    /// None of it was written: a position is taken, or a message id is known. [`Store::resolve`] tells which.
    Conflict,
}

/// Entries and the rows that follow from them: written together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// By conversation and seq.
    pub entries: Vec<NewEntry>,
    /// In this order.
    pub effects: Vec<Effect>,
}

/// A row that follows from an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// `user` may read the direct conversation with `peer` above `after`; without effect if they may already.
    OpenDirect {
        /// Whose row.
        user: UserId,
        /// The other user.
        peer: UserId,
        /// What they may not read.
        after: Seq,
    },
    /// The two are friends, or are not.
    SetFriends {
        /// One.
        a: UserId,
        /// The other.
        b: UserId,
        /// Whether.
        friends: bool,
    },
    /// `user` has blocked `peer`, or has not.
    SetBlocked {
        /// Who.
        user: UserId,
        /// Whom.
        peer: UserId,
        /// Whether.
        blocked: bool,
    },
    /// A period begins.
    BeginMembership {
        /// In which group.
        group: GroupId,
        /// Whose.
        user: UserId,
        /// With which role.
        role: Role,
        /// Its first entry.
        from: Seq,
    },
    /// A period ends.
    EndMembership {
        /// In which group.
        group: GroupId,
        /// Whose.
        user: UserId,
        /// Its last entry.
        until: Seq,
    },
    /// The group is deleted, and with it every period ends.
    DeleteGroup {
        /// Which.
        group: GroupId,
        /// The log's last entry.
        until: Seq,
    },
    /// The account has another name and a password that nobody knows, and none of its tokens.
    EraseAccount {
        /// Which.
        user: UserId,
        /// Its name from now on.
        name: String,
        /// What names are compared by.
        name_key: String,
        /// The password's hash, in the PHC string format.
        hash: String,
    },
    /// The user's password has another hash, and of the user's tokens at most one stays.
    SetPassword {
        /// Whose.
        user: UserId,
        /// As it is stored ([`AccountRecord::password_hash`]).
        hash: String,
        /// The token that stays, if one does.
        keep: Option<TokenHash>,
    },
}

/// A group to be made: its row, its `created` entry, its first member and the member's notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewGroup {
    /// The first member.
    pub creator: UserId,
    /// The idempotency key: unique for this creator.
    pub mid: ClientMsgId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The node's time.
    pub at: UnixMillis,
    /// Where the notice goes in the creator's notices.
    pub notice_seq: Seq,
}

impl NewGroup {
    /// The entries that come with the group: `created`, and the creator's notice, in key order.
    pub fn entries(&self, group: GroupId) -> Vec<NewEntry> {
        let conv = ConversationId::group(group);
        let entry =
            |conv, seq, body| NewEntry { conv, seq, from: self.creator, mid: self.mid, at: self.at, body };
        vec![
            entry(
                ConversationId::notices(self.creator),
                self.notice_seq,
                EntryBody::Opened { opened: conv, after: Seq::ZERO, title: self.name.clone() },
            ),
            entry(conv, Seq(1), EntryBody::Created { title: self.name.clone() }),
        ]
    }
}

/// What became of a new group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupOutcome {
    /// It is durable.
    Created(GroupId),
    /// Nothing was written: this creator used the message id for this group.
    Known(KnownGroup),
    /// Nothing was written: the notice's position is taken.
    Conflict,
}

/// A group as first made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownGroup {
    /// Its number.
    pub group: GroupId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
}

/// An idempotency key with its scope.
pub type MidKey = (ConversationId, UserId, ClientMsgId);

/// What [`Store::resolve`] found, in one look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The entries whose keys were asked for.
    pub known: Vec<Entry>,
    /// The heads asked for; 0 of a log without entries.
    pub heads: BTreeMap<ConversationId, Seq>,
}

/// A conversation's state as of its head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The conversation.
    pub conv: ConversationId,
    /// The last entry that `rights` takes into account.
    pub head: Seq,
    /// Who may do what.
    pub rights: Rights,
}

/// A run of entries that a user may read, and how far they were delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Period {
    /// The log.
    pub conv: ConversationId,
    /// The first entry.
    pub from: Seq,
    /// The last entry; `None` while the user is a member.
    pub until: Option<Seq>,
    /// The user's delivered cursor in the log.
    pub delivered: Seq,
    /// Whether the log is that of two users who are friends.
    pub friend: bool,
}

impl Period {
    /// That of a user's own notices.
    fn of_notices(user: UserId, delivered: Seq) -> Self {
        Self { conv: ConversationId::notices(user), from: Seq(1), until: None, delivered, friend: false }
    }
}

/// What [`Store::opening`] found, in one look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Whose token it is, and until when it is valid.
    pub token: TokenRecord,
    /// The head of the user's notices: what opened for the user up to there is among the periods.
    pub settled: Seq,
    /// The user's periods, ordered: the one in their notices, those not ended, ended ones not yet delivered, and all of the groups named.
    pub periods: Vec<Period>,
}

/// An account to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewUser {
    /// The idempotency key: unique among all accounts.
    pub mid: ClientMsgId,
    /// The name, normalised.
    pub name: String,
    /// What names are compared by; unique.
    pub name_key: String,
    /// The password's hash, in the PHC string format.
    pub password_hash: String,
    /// The node's time.
    pub at: UnixMillis,
}

/// What became of a new account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterOutcome {
    /// It is durable.
    Created(UserId),
    /// Nothing was written: the name is taken, or the message id was used (ask for it).
    Conflict,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// Its number.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// Its password's hash, in the PHC string format; behind a [lock](locked) while the account is banned.
    pub password_hash: String,
}

impl AccountRecord {
    /// What a password is compared with, banned or not.
    pub fn hash(&self) -> &str {
        self.password_hash.strip_prefix(LOCK).unwrap_or(&self.password_hash)
    }

    /// Whether the operators have banned the account.
    pub fn is_banned(&self) -> bool {
        is_locked(&self.password_hash)
    }
}

/// What stands before the hash of an account that is banned, as Unix locks accounts: no hash begins so. The hash stays, for the day when
/// the ban is lifted.
const LOCK: char = '!';

/// A hash as it is stored while its account is banned.
pub fn locked(hash: &str) -> String {
    format!("{LOCK}{hash}")
}

/// Whether a stored hash is that of a banned account.
pub fn is_locked(stored: &str) -> bool {
    stored.starts_with(LOCK)
}

/// The SHA-256 hash of a session's token: the token itself is not stored.
pub type TokenHash = [u8; 32];

/// Whom a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The account.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// When it ends.
    pub expires_at: UnixMillis,
}

/// A line of a user's friend list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FriendRow {
    /// The other user.
    pub peer: UserId,
    /// Their name.
    pub name: String,
    /// Whether they are friends.
    pub friend: bool,
    /// Whether the list's owner has blocked them.
    pub blocked: bool,
}

/// A line of a group's member list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// The member.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// Their role.
    pub role: Role,
}

/// How many conversations of each kind a user has; for the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Friends and blocked users.
    pub friends: u64,
    /// Groups the user is a member of.
    pub groups: u64,
}

/// What [`Store::advanced`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advanced {
    /// Where the next look starts: the store's own time of the latest commit seen.
    pub until: UnixMillis,
    /// Heads of conversations that advanced.
    pub heads: Vec<(ConversationId, Seq)>,
    /// Whether there were more than asked for.
    pub truncated: bool,
}

/// A place among all entries in the order of their commits: the store's own time, then conversation and seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// The time of its commit.
    pub at: UnixMillis,
    /// Its log.
    pub conv: ConversationId,
    /// Its position there.
    pub seq: Seq,
}

/// What [`Store::expire`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// Messages that were erased.
    pub erased: u64,
    /// The last entry looked at, if there may be more to look at.
    pub reached: Option<Mark>,
}

/// What [`Store::erase`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Messages that were erased.
    pub erased: u64,
    /// The message id to go on from, if there may be more.
    pub next: Option<ClientMsgId>,
}

/// Where a list of accounts begins, and its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UsersFrom {
    /// By number, from this one on.
    Number(u64),
    /// By what names are compared by, from this one on.
    Name(String),
}

/// A line of the list of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    /// Its number.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// When it was made: the time of a node.
    pub created_at: UnixMillis,
    /// Whether it is banned.
    pub banned: bool,
}

/// What there is to know of an entry beside what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The store's own time of its commit.
    pub committed_at: UnixMillis,
    /// Who may read it, by number.
    pub readers: Vec<Reader>,
}

/// A user who may read an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub name: String,
    /// The user's delivered cursor in the log.
    pub delivered: Seq,
}

/// What is called when the store is another one than before.
pub type Listener = Arc<dyn Fn() + Send + Sync>;

/// The seam to the database. Calls may run at the same time; each is atomic.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The deployment's random id: tells hints of one system from another's.
    async fn deployment(&self) -> Result<[u8; 16]>;

    // --- Accounts ---

    /// Makes an account.
    async fn register(&self, user: &NewUser) -> Result<RegisterOutcome>;
    /// The account that was made with a message id.
    async fn registered_with(&self, mid: ClientMsgId) -> Result<Option<AccountRecord>>;
    /// An account by number, or by the key of its name.
    async fn account(&self, account: &Account) -> Result<Option<AccountRecord>>;
    /// The name of a user.
    async fn user_name(&self, user: UserId) -> Result<Option<String>>;
    /// Another form of the same password's hash, if it is still `from`. Returns whether it was.
    async fn rehash(&self, user: UserId, from: &str, to: &str) -> Result<bool>;
    /// Keeps a token's hash, if the hash of the user's password is still `verified`; of the user's earlier ones the newest
    /// `keep - 1` stay.
    ///
    /// So a login with a password that is changed at the same time either comes first, and its token goes with the change
    /// ([`Effect::SetPassword`]), or fails.
    ///
    /// Returns what the session starts from, as [`opening`](Self::opening) does; `None` if the hash is another one, or the token was
    /// forgotten again at once.
    async fn add_token(
        &self,
        hash: &TokenHash,
        user: UserId,
        verified: &str,
        expires_at: UnixMillis,
        keep: usize,
    ) -> Result<Option<Opening>>;
    /// Whom a token belongs to, expired or not.
    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>>;
    /// Forgets a token.
    async fn remove_token(&self, hash: &TokenHash) -> Result<()>;

    // --- Logs ---

    /// Appends entries, sorted by (conversation, seq): all or none.
    ///
    /// The position is a compare-and-set on the log's head: a conflict says that what the node knew was out of date.
    async fn append(&self, entries: &[NewEntry]) -> Result<Outcome>;
    /// Appends messages to one log after its head, wherever that is by now, if no entry above `known` affects rights: all or
    /// none. Returns the seq of the first; `None` is a conflict.
    ///
    /// For a log that others write to as well: with [`append`](Self::append), who is nearer to the database always comes first. What was
    /// allowed as of `known` still is, since the entries between are mere messages.
    async fn append_after(&self, known: Seq, entries: &[NewEntry]) -> Result<Option<Seq>>;
    /// Appends entries with their side rows: all or none.
    async fn apply(&self, change: &Change) -> Result<Outcome>;
    /// The group that a user made with a message id.
    async fn created_with(&self, creator: UserId, mid: ClientMsgId) -> Result<Option<KnownGroup>>;
    /// Makes a group.
    async fn create_group(&self, group: &NewGroup) -> Result<GroupOutcome>;
    /// The entries with these keys and the heads of these logs, in one look.
    async fn resolve(&self, keys: &[MidKey], convs: &[ConversationId]) -> Result<Resolved>;
    /// The heads of these logs; 0 of those without entries.
    async fn heads(&self, convs: &[ConversationId]) -> Result<BTreeMap<ConversationId, Seq>>;
    /// The same of one conversation or more, if a token is known at that moment, expired or not.
    async fn heads_if_known(
        &self,
        token: &TokenHash,
        convs: &[ConversationId],
    ) -> Result<Option<BTreeMap<ConversationId, Seq>>>;
    /// States of these conversations, each of one moment. A group that never was has no members and is deleted.
    async fn snapshots(&self, convs: &[ConversationId]) -> Result<Vec<Snapshot>>;
    /// Entries above `after`, ascending: at most `limit`, and after the first only while their texts stay within
    /// `bytes_max`.
    async fn entries(
        &self,
        conv: ConversationId,
        after: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>>;
    /// Entries from `from` to below `before`, ascending: the newest `limit`, of them the newest whose texts stay
    /// within `bytes_max`, but at least one.
    async fn entries_before(
        &self,
        conv: ConversationId,
        from: Seq,
        before: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>>;
    /// The store's own time, now: no later commit carries an earlier one by more than it takes to become visible.
    async fn now(&self) -> Result<UnixMillis>;
    /// Conversations with a commit at or after `since` in the store's own time; at most `limit` of them.
    async fn advanced(&self, since: UnixMillis, limit: usize) -> Result<Advanced>;

    // --- Users in conversations ---

    /// What a session with a token starts from, all of one moment; with every period in those of the groups that are `named`. `None` if the
    /// token is unknown.
    async fn opening(&self, token: &TokenHash, named: &[ConversationId]) -> Result<Option<Opening>>;
    /// All of the user's periods in these conversations, ordered.
    async fn periods_in(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Period>>;
    /// Raises delivered cursors; a lower value is without effect.
    async fn set_delivered(&self, cursors: &[(UserId, ConversationId, Seq)]) -> Result<()>;
    /// The user's friend list above a number.
    async fn friends(&self, user: UserId, after: u64, limit: usize) -> Result<Vec<FriendRow>>;
    /// The user's groups above a number.
    async fn groups(&self, user: UserId, after: u64, limit: usize) -> Result<Vec<GroupInfo>>;
    /// A group's members above a number; `None` if `reader` is not one.
    async fn members(
        &self,
        group: GroupId,
        reader: UserId,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<MemberRow>>>;
    /// How many conversations a user has.
    async fn counts(&self, user: UserId) -> Result<Counts>;

    // --- Erasing: an entry keeps its place, its author, its message id and its times ---

    /// The last entry that any [`expire`](Self::expire) looked at; `None` before the first.
    async fn expired(&self) -> Result<Option<Mark>>;
    /// Erases the messages among entries that were committed before a time, in the store's own: looks at `limit` of them at most, in the
    /// order of their commits from the first one after `after`. Rights entries and notices stay as they are.
    ///
    /// Such a time has to be so long ago that nothing can become visible any more that was committed before it.
    async fn expire(&self, after: Option<Mark>, before: UnixMillis, limit: usize) -> Result<Expired>;
    /// Erases a user's messages in one log: of the user's entries there, looks at `limit` at most, by message id from `from` on.
    async fn erase(
        &self,
        conv: ConversationId,
        user: UserId,
        from: ClientMsgId,
        limit: usize,
    ) -> Result<Erased>;
    /// Writes another name into what an entry says, whose kind stays: the title of `opened`, the name of who was `removed`. Without effect on an
    /// entry of another kind.
    async fn rename_in(&self, conv: ConversationId, seq: Seq, body: &EntryBody) -> Result<()>;
    /// The direct conversations and groups that the user is or ever was a member of: at most `limit` above `after`, which is one of them, ordered.
    async fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>>;

    // --- For operators: rare, and not on any user's way ---

    /// Accounts, in order; at most `limit`.
    async fn users(&self, from: &UsersFrom, limit: usize) -> Result<Vec<UserRow>>;
    /// When an entry was committed, and who may read it; `None` if there is no such entry.
    async fn trace(&self, conv: ConversationId, seq: Seq) -> Result<Option<Trace>>;

    /// Has `listener` called whenever it turns out that this is another store than before (a database server that took the place of another):
    /// its logs may differ from what was read so far. That is before anything that it says is returned; the call that found it out fails, and so
    /// does the next one that writes to logs: what it was to write was numbered before.
    fn on_change(&self, listener: Listener) {
        drop(listener);
    }

    /// Ends what the store has open. Nothing may be called after.
    async fn close(&self);
}

/// These entries of one log, in order, after its head.
fn renumber(entries: &[NewEntry], head: Seq) -> Vec<NewEntry> {
    let numbered = entries.iter().zip(head.0 + 1..);
    numbered.map(|(entry, seq)| NewEntry { seq: Seq(seq), ..entry.clone() }).collect()
}

/// Where to go on after a message id.
fn following(mid: ClientMsgId) -> Option<ClientMsgId> {
    u128::from_be_bytes(mid.0).checked_add(1).map(|next| ClientMsgId(next.to_be_bytes()))
}

/// Of a user's conversations above `after`, in their order: above which group, and above which other user.
fn after_parts(user: UserId, after: Option<ConversationId>) -> (u64, u64) {
    match after.map(|after| (after, after.parse())) {
        None | Some((_, Conversation::Notices(_))) => (0, 0),
        Some((_, Conversation::Group(group))) => (group.number(), 0),
        Some((direct, _)) => (GroupId::MAX, direct.peer_of(user).map_or(0, UserId::number)),
    }
}

/// The longest prefix of `entries` whose texts stay within `bytes_max`, but at least one entry.
fn within_bytes<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: usize) -> usize {
    let mut bytes = 0;
    entries
        .enumerate()
        .take_while(|(at, entry)| {
            bytes += match &entry.body {
                EntryBody::Message { text } => text.len(),
                _ => 0,
            };
            *at == 0 || bytes <= bytes_max
        })
        .count()
}
