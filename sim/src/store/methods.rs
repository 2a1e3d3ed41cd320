//! The one table of the store's methods. From it follow the messages between client and host, the client's [`Store`] and the
//! host's answers: a method that is missing here does not compile.

use std::{borrow::Cow, collections::BTreeMap};

use async_trait::async_trait;
use protocol::{
    ClientMsgId, ConversationId, Entry, EntryBody, GroupId, Net, Seq, UnixMillis, UserId,
    message::{Account, GroupInfo},
};
use serde::{Deserialize, Serialize};
use server::store::{
    AccountRecord, Advanced, Change, Counts, Erased, Expired, FriendRow, GroupOutcome, KnownGroup, Mark,
    MemberRow, MidKey, NewEntry, NewGroup, NewUser, Opening, Outcome, Period, RegisterOutcome, Resolved,
    Result, Snapshot, Store, StoreError, TokenHash, TokenRecord, Trace, UserRow, UsersFrom,
};

use super::client::RemoteStore;

/// How the MySQL store goes about a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing.
    Read,
    /// It writes, on any connection.
    Write,
    /// It writes, and is tried again while it is the victim of deadlocks: its order among others does not matter.
    Insist,
    /// It writes to logs, on the connection that nothing else holds up.
    Log,
}

/// What a method makes of a deadlock that it does not get over.
fn in_the_way<T>() -> Result<T> {
    Err(StoreError::Unavailable("other writers are in the way".into()))
}

/// A line is a method's kind, name, arguments (by reference: `[&]`) and result; of a write, also what it answers as the victim of a
/// deadlock.
macro_rules! methods {
    ($($kind:ident $method:ident($($arg:ident: [$($by:tt)?] $type:ty),*) -> $result:ty $(, or $victim:expr)?;)*) => {
        /// What the client asks.
        #[expect(non_camel_case_types, reason = "they are named as the methods are")]
        #[derive(Debug, Serialize, Deserialize)]
        pub(super) enum Request<'a> {
            $($method { $($arg: Cow<'a, $type>),* },)*
        }

        /// What the host answers: a method's result, or one of the two that stand for any.
        #[expect(non_camel_case_types, reason = "they are named as the methods are")]
        #[derive(Debug, Serialize, Deserialize)]
        pub(super) enum Reply {
            $($method($result),)*
            /// Nothing was written: other writers were given way.
            Deadlock,
            /// Nothing came of it.
            Failed(String),
        }

        impl Request<'_> {
            pub(super) fn name(&self) -> &'static str {
                match self {
                    $(Self::$method { .. } => stringify!($method),)*
                }
            }

            pub(super) fn kind(&self) -> Kind {
                match self {
                    $(Self::$method { .. } => Kind::$kind,)*
                }
            }

            /// Does what is asked.
            pub(super) async fn carry_out(&self, store: &dyn Store) -> Result<Reply> {
                match self {
                    $(Self::$method { $($arg),* } => store.$method($($($by)? **$arg),*).await.map(Reply::$method),)*
                }
            }
        }

        #[async_trait]
        impl<N: Net> Store for RemoteStore<N> {
            $(async fn $method(&self, $($arg: $($by)? $type),*) -> Result<$result> {
                match self.call(&Request::$method { $($arg: Cow::Borrowed(&$arg)),* }).await? {
                    Reply::$method(result) => Ok(result),
                    $(Reply::Deadlock => $victim,)?
                    _ => Err(StoreError::Corrupt("this answers another question".into())),
                }
            })*

            async fn close(&self) {
                self.end();
            }
        }
    };
}

methods! {
    Read deployment() -> [u8; 16];
    Write register(user: [&] NewUser) -> RegisterOutcome, or Ok(RegisterOutcome::Conflict);
    Read registered_with(mid: [] ClientMsgId) -> Option<AccountRecord>;
    Read account(account: [&] Account) -> Option<AccountRecord>;
    Read user_name(user: [] UserId) -> Option<String>;
    Write rehash(user: [] UserId, from: [&] str, to: [&] str) -> bool, or in_the_way();
    Insist add_token(hash: [&] TokenHash, user: [] UserId, verified: [&] str, expires_at: [] UnixMillis, keep: [] usize) -> Option<Opening>, or in_the_way();
    Read token(hash: [&] TokenHash) -> Option<TokenRecord>;
    Write remove_token(hash: [&] TokenHash) -> (), or in_the_way();
    Log append(entries: [&] [NewEntry]) -> Outcome, or Ok(Outcome::Conflict);
    Log append_after(known: [] Seq, entries: [&] [NewEntry]) -> Option<Seq>, or Ok(None);
    Log apply(change: [&] Change) -> Outcome, or Ok(Outcome::Conflict);
    Read created_with(creator: [] UserId, mid: [] ClientMsgId) -> Option<KnownGroup>;
    Log create_group(group: [&] NewGroup) -> GroupOutcome, or Ok(GroupOutcome::Conflict);
    Read resolve(keys: [&] [MidKey], convs: [&] [ConversationId]) -> Resolved;
    Read heads(convs: [&] [ConversationId]) -> BTreeMap<ConversationId, Seq>;
    Read heads_if_known(token: [&] TokenHash, convs: [&] [ConversationId]) -> Option<BTreeMap<ConversationId, Seq>>;
    Read snapshots(convs: [&] [ConversationId]) -> Vec<Snapshot>;
    Read entries(conv: [] ConversationId, after: [] Seq, limit: [] usize, bytes_max: [] usize) -> Vec<Entry>;
    Read entries_before(conv: [] ConversationId, from: [] Seq, before: [] Seq, limit: [] usize, bytes_max: [] usize) -> Vec<Entry>;
    Read now() -> UnixMillis;
    Read advanced(since: [] UnixMillis, limit: [] usize) -> Advanced;
    Read opening(token: [&] TokenHash, named: [&] [ConversationId]) -> Option<Opening>;
    Read periods_in(user: [] UserId, convs: [&] [ConversationId]) -> Vec<Period>;
    Insist set_delivered(cursors: [&] [(UserId, ConversationId, Seq)]) -> (), or in_the_way();
    Read friends(user: [] UserId, after: [] u64, limit: [] usize) -> Vec<FriendRow>;
    Read groups(user: [] UserId, after: [] u64, limit: [] usize) -> Vec<GroupInfo>;
    Read members(group: [] GroupId, reader: [] UserId, after: [] u64, limit: [] usize) -> Option<Vec<MemberRow>>;
    Read counts(user: [] UserId) -> Counts;
    Read expired() -> Option<Mark>;
    Insist expire(after: [] Option<Mark>, before: [] UnixMillis, limit: [] usize) -> Expired, or in_the_way();
    Insist erase(conv: [] ConversationId, user: [] UserId, from: [] ClientMsgId, limit: [] usize) -> Erased, or in_the_way();
    Insist rename_in(conv: [] ConversationId, seq: [] Seq, body: [&] EntryBody) -> (), or in_the_way();
    Read conversations(user: [] UserId, after: [] Option<ConversationId>, limit: [] usize) -> Vec<ConversationId>;
    Read users(from: [&] UsersFrom, limit: [] usize) -> Vec<UserRow>;
    Read trace(conv: [] ConversationId, seq: [] Seq) -> Option<Trace>;
}
