//! Between the rows of a database and our types; the same for all of them.

use std::collections::BTreeMap;

use protocol::{ClientMsgId, Conversation, ConversationId, Entry, GroupId, Seq, UserId, message::Role};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    AccountRecord, Mark, MidKey, Opening, Period, Reader, Result, StoreError, TokenRecord, UserRow,
    is_locked, record,
};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// A period's row: the peer or else the group, first and last entry, delivered cursor, whether friends.
pub(super) type PeriodRow = (Option<i64>, Option<i64>, i64, Option<i64>, i64, bool);

/// What a session starts from, a row each: a list is one value, since a row costs more than what it holds. The token's user, their name, and its
/// end; the head of their notices and their delivered cursor there; then lists. Friends: user, first entry, delivered cursor, whether they are still.
/// Groups: group, first entry, last entry, delivered cursor. Groups that the client named: the same.
pub(super) type OpeningRow = (i64, String, i64, i64, i64, Option<String>, Option<String>, Option<String>);

/// An entry's row.
pub(super) type EntryRow = (i64, i64, i64, i64, String, Vec<u8>, i64, String);

/// An unsigned number as databases have it. Ours end far below; a client's may not, and then name nothing.
pub(super) fn id(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn corrupt(what: &str, number: i64) -> StoreError {
    StoreError::Corrupt(format!("{number} is not {what}"))
}

pub(super) fn user(number: i64) -> Result<UserId> {
    u64::try_from(number).ok().and_then(UserId::new).ok_or_else(|| corrupt("a user", number))
}

pub(super) fn group(number: i64) -> Result<GroupId> {
    u64::try_from(number).ok().and_then(GroupId::new).ok_or_else(|| corrupt("a group", number))
}

pub(super) fn conv(key: i64) -> Result<ConversationId> {
    ConversationId::from_key(key).ok_or_else(|| corrupt("a conversation", key))
}

pub(super) fn seq(number: i64) -> Result<Seq> {
    u64::try_from(number).map(Seq).map_err(|_| corrupt("a seq", number))
}

pub(super) fn role_number(role: Role) -> i64 {
    match role {
        Role::Creator => 1,
        Role::Member => 2,
    }
}

pub(super) fn role(number: i64) -> Role {
    if number == 1 { Role::Creator } else { Role::Member }
}

pub(super) fn account((id, name, password_hash): (i64, String, String)) -> Result<AccountRecord> {
    Ok(AccountRecord { user: user(id)?, name, password_hash })
}

pub(super) fn mid(bytes: Vec<u8>) -> Result<ClientMsgId> {
    let mid = bytes.try_into().map_err(|_| StoreError::Corrupt("a message id has not 16 bytes".into()))?;
    Ok(ClientMsgId(mid))
}

/// The time of a commit, a conversation and a seq.
pub(super) fn mark((at, key, at_seq): (i64, i64, i64)) -> Result<Mark> {
    Ok(Mark { at, conv: conv(key)?, seq: seq(at_seq)? })
}

/// A user's conversations from rows of groups or else other users, in any order: the first `limit`.
pub(super) fn conversations(
    owner: UserId,
    rows: Vec<(i64, i64)>,
    limit: usize,
) -> Result<Vec<ConversationId>> {
    let conv = |(in_group, peer)| match in_group {
        0 => ConversationId::direct(owner, user(peer)?).ok_or_else(|| corrupt("another user", peer)),
        in_group => Ok(ConversationId::group(group(in_group)?)),
    };
    let mut convs = rows.into_iter().map(conv).collect::<Result<Vec<_>>>()?;
    convs.sort();
    convs.truncate(limit);
    Ok(convs)
}

/// A line of the list of accounts: number, name, hash, time.
pub(super) fn user_row((number, name, hash, created_at): (i64, String, String, i64)) -> Result<UserRow> {
    Ok(UserRow { user: user(number)?, name, created_at, banned: is_locked(&hash) })
}

/// The readers of an entry, by number: number, name, delivered cursor.
pub(super) fn readers(rows: Vec<(i64, String, i64)>) -> Result<Vec<Reader>> {
    let rows = rows.into_iter();
    let readers = rows.map(|(number, name, delivered)| {
        Ok(Reader { user: user(number)?, name, delivered: seq(delivered)? })
    });
    let mut readers = readers.collect::<Result<Vec<_>>>()?;
    readers.sort_by_key(|reader| reader.user);
    Ok(readers)
}

pub(super) fn entry((key, at_seq, at, from, name, mid, kind, body): EntryRow) -> Result<Entry> {
    let kind = u8::try_from(kind).map_err(|_| corrupt("a kind", kind))?;
    Ok(Entry {
        conv: conv(key)?,
        seq: seq(at_seq)?,
        at,
        from: user(from)?,
        name,
        mid: self::mid(mid)?,
        body: record::decode(kind, body)?,
    })
}

fn period(owner: UserId, (peer, in_group, from, until, delivered, friend): PeriodRow) -> Result<Period> {
    let conv = match (peer, in_group) {
        (Some(peer), _) => {
            ConversationId::direct(owner, user(peer)?).ok_or_else(|| corrupt("another user", peer))?
        }
        (None, Some(in_group)) => ConversationId::group(group(in_group)?),
        (None, None) => return Err(StoreError::Corrupt("a period of nothing".into())),
    };
    Ok(Period {
        conv,
        from: seq(from)?,
        until: until.map(seq).transpose()?,
        delivered: seq(delivered)?,
        friend,
    })
}

/// Periods in the order in which they are asked for.
pub(super) fn periods(owner: UserId, rows: Vec<PeriodRow>) -> Result<Vec<Period>> {
    let mut periods = rows.into_iter().map(|row| period(owner, row)).collect::<Result<Vec<_>>>()?;
    periods.sort();
    Ok(periods)
}

/// A token: its user's number and name, and when it expires.
pub(super) fn token((number, name, expires_at): (i64, String, i64)) -> Result<TokenRecord> {
    Ok(TokenRecord { user: user(number)?, name, expires_at })
}

/// What a session starts from: its token, the head of the user's notices and their delivered cursor there, and the other periods. One of those
/// may come twice, as one that is not delivered and as one that was asked for.
pub(super) fn opening(
    (number, name, expires_at, head, delivered, friends, groups, named): OpeningRow,
) -> Result<Opening> {
    let token = token((number, name, expires_at))?;
    let friends: Vec<(i64, i64, i64, i64)> = list(friends)?;
    let mut rows: Vec<PeriodRow> = friends
        .into_iter()
        .map(|(peer, from, delivered, friend)| (Some(peer), None, from, None, delivered, friend != 0))
        .collect();
    for groups in [list(groups)?, list(named)?] {
        let groups: Vec<(i64, i64, Option<i64>, i64)> = groups;
        rows.extend(
            groups
                .into_iter()
                .map(|(group, from, until, delivered)| (None, Some(group), from, until, delivered, false)),
        );
    }
    let mut periods = periods(token.user, rows)?;
    periods.push(Period::of_notices(token.user, seq(delivered)?));
    periods.sort();
    periods.dedup();
    Ok(Opening { token, settled: seq(head)?, periods })
}

/// A list that the database has made of rows, as JSON; none of no rows, as some databases have it.
pub(super) fn list<T: DeserializeOwned>(json: Option<String>) -> Result<Vec<T>> {
    let Some(json) = json else { return Ok(Vec::new()) };
    serde_json::from_str(&json).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Heads out of conversations and seqs.
pub(super) fn heads(rows: Vec<(i64, i64)>) -> Result<BTreeMap<ConversationId, Seq>> {
    rows.into_iter().map(|(key, head)| Ok((conv(key)?, seq(head)?))).collect()
}

/// JSON for a table function: one bound value for a list of any length.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and strings have a JSON form")
}

pub(super) fn numbers(numbers: &[u64]) -> String {
    json(&numbers)
}

/// Of the groups among these conversations.
pub(super) fn group_numbers(convs: &[ConversationId]) -> Vec<u64> {
    let group = |conv: &ConversationId| match conv.parse() {
        Conversation::Group(group) => Some(group.number()),
        _ => None,
    };
    convs.iter().filter_map(group).collect()
}

pub(super) fn conv_keys(convs: &[ConversationId]) -> String {
    json(&convs.iter().map(|conv| conv.key()).collect::<Vec<_>>())
}

pub(super) fn json_keys(keys: &[MidKey]) -> String {
    json(&keys.iter().map(|(conv, user, mid)| (conv.key(), user.number(), mid)).collect::<Vec<_>>())
}
