//! Between rows and types, and the statements that more than one call makes.

use protocol::{ClientMsgId, Conversation, ConversationId, Entry, GroupId, Seq, UserId, message::Role};
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{
    AccountRecord, DirectRights, Effect, GroupRights, KnownGroup, MidKey, Period, Result, Rights, Snapshot,
    StoreError, record,
};

/// A period's row: the peer or else the group, first and last entry, delivered cursor, whether friends.
pub(super) type PeriodRow = (Option<i64>, Option<i64>, i64, Option<i64>, i64, bool);

/// An entry's row.
pub(super) type EntryRow = (i64, i64, i64, i64, String, Vec<u8>, i64, String);

/// All periods of a user but ended ones that were delivered (of these some, for the caller to leave out).
pub(super) const PERIODS: &str = "\
    select f.peer_id, null, f.after_seq + 1, null, coalesce(d.seq, 0), f.friend from friend f \
    left join delivered d on d.user_id = f.user_id and d.conversation = \
        (1 << 62) | (min(f.user_id, f.peer_id) << 31) | max(f.user_id, f.peer_id) \
    where f.user_id = ?1 \
    union all \
    select null, m.group_id, m.from_seq, m.until_seq, coalesce(d.seq, 0), false from membership m \
    left join delivered d on d.user_id = m.user_id and d.conversation = (1 << 61) | m.group_id \
    where m.user_id = ?1 and (m.until_seq is null or m.until_seq > coalesce(d.seq, 0))";

/// All periods of a user in the conversations with these peers and of these groups.
pub(super) const PERIODS_IN: &str = "\
    select f.peer_id, null, f.after_seq + 1, null, coalesce(d.seq, 0), f.friend from friend f \
    left join delivered d on d.user_id = f.user_id and d.conversation = \
        (1 << 62) | (min(f.user_id, f.peer_id) << 31) | max(f.user_id, f.peer_id) \
    where f.user_id = ?1 and f.peer_id in (select value from json_each(?2)) \
    union all \
    select null, m.group_id, m.from_seq, m.until_seq, coalesce(d.seq, 0), false from membership m \
    left join delivered d on d.user_id = m.user_id and d.conversation = (1 << 61) | m.group_id \
    where m.user_id = ?1 and m.group_id in (select value from json_each(?3))";

/// An unsigned number as SQLite has it. Ours end far below; a client's may not, and then name nothing.
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

pub(super) fn entry((key, at_seq, at, from, name, mid, kind, body): EntryRow) -> Result<Entry> {
    let kind = u8::try_from(kind).map_err(|_| corrupt("a kind", kind))?;
    let mid = mid.try_into().map_err(|_| StoreError::Corrupt("a message id has not 16 bytes".into()))?;
    Ok(Entry {
        conv: conv(key)?,
        seq: seq(at_seq)?,
        at,
        from: user(from)?,
        name,
        mid: ClientMsgId(mid),
        body: record::decode(kind, body)?,
    })
}

pub(super) fn period(
    owner: UserId,
    (peer, in_group, from, until, delivered, friend): PeriodRow,
) -> Result<Period> {
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

/// JSON for `json_each`: one bound value for a list of any length.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and strings have a JSON form")
}

pub(super) fn numbers(numbers: &[u64]) -> String {
    json(&numbers)
}

pub(super) fn conv_keys(convs: &[ConversationId]) -> String {
    json(&convs.iter().map(|conv| conv.key()).collect::<Vec<_>>())
}

pub(super) fn json_keys(keys: &[MidKey]) -> String {
    json(&keys.iter().map(|(conv, user, mid)| (conv.key(), user.number(), mid)).collect::<Vec<_>>())
}

/// A conversation's head and rights, read within the caller's transaction.
pub(super) async fn snapshot(from: &mut SqliteConnection, conv: ConversationId) -> Result<Snapshot> {
    let (head,): (i64,) = sqlx::query_as("select coalesce(max(seq), 0) from entry where conversation = ?")
        .bind(conv.key())
        .fetch_one(&mut *from)
        .await?;
    let rights = match conv.parse() {
        Conversation::Direct(low, high) => {
            let rows: Vec<(i64, bool, bool)> = sqlx::query_as(
                "select user_id, friend, blocked from friend \
                 where (user_id = ?1 and peer_id = ?2) or (user_id = ?2 and peer_id = ?1)",
            )
            .bind(id(low.number()))
            .bind(id(high.number()))
            .fetch_all(&mut *from)
            .await?;
            let mut rights = DirectRights::default();
            for (owner, friend, blocked) in rows {
                let low_owns = user(owner)? == low;
                rights.friends |= friend;
                *(if low_owns { &mut rights.low_blocks } else { &mut rights.high_blocks }) = blocked;
            }
            Rights::Direct(rights)
        }
        Conversation::Group(group) => {
            let rows: Vec<(i64, i64)> = sqlx::query_as(
                "select user_id, role from membership where group_id = ? and until_seq is null",
            )
            .bind(id(group.number()))
            .fetch_all(&mut *from)
            .await?;
            let members = rows.into_iter().map(|(member, number)| Ok((user(member)?, role(number))));
            let members = members.collect::<Result<_>>()?;
            let title: Option<(String,)> = sqlx::query_as("select name from chat_group where id = ?")
                .bind(id(group.number()))
                .fetch_optional(&mut *from)
                .await?;
            Rights::Group(GroupRights { title: title.map(|(name,)| name).unwrap_or_default(), members })
        }
        Conversation::Notices(_) => Rights::Notices,
    };
    Ok(Snapshot { conv, head: seq(head)?, rights })
}

/// The group that a user made with a message id.
pub(super) async fn created_with(
    from: &mut SqliteConnection,
    creator: UserId,
    mid: ClientMsgId,
) -> Result<Option<KnownGroup>> {
    let row: Option<(i64, String, String)> =
        sqlx::query_as("select id, name, description from chat_group where creator_id = ? and mid = ?")
            .bind(id(creator.number()))
            .bind(mid.0.to_vec())
            .fetch_optional(from)
            .await?;
    row.map(|(number, name, description)| Ok(KnownGroup { group: group(number)?, name, description }))
        .transpose()
}

/// Writes a side row within the caller's transaction.
pub(super) async fn effect(to: &mut SqliteConnection, effect: Effect) -> Result<()> {
    let query = match effect {
        Effect::OpenDirect { user, peer, after } => sqlx::query(
            "insert into friend (user_id, peer_id, after_seq) values (?, ?, ?) on conflict do nothing",
        )
        .bind(id(user.number()))
        .bind(id(peer.number()))
        .bind(id(after.0)),
        Effect::SetFriends { a, b, friends } => sqlx::query(
            "update friend set friend = ?3 where (user_id = ?1 and peer_id = ?2) or (user_id = ?2 and peer_id = ?1)",
        )
        .bind(id(a.number()))
        .bind(id(b.number()))
        .bind(friends),
        Effect::SetBlocked { user, peer, blocked } => {
            sqlx::query("update friend set blocked = ? where user_id = ? and peer_id = ?")
                .bind(blocked)
                .bind(id(user.number()))
                .bind(id(peer.number()))
        }
        Effect::BeginMembership { group, user, role, from } => {
            sqlx::query("insert into membership (user_id, group_id, from_seq, role) values (?, ?, ?, ?)")
                .bind(id(user.number()))
                .bind(id(group.number()))
                .bind(id(from.0))
                .bind(role_number(role))
        }
        Effect::EndMembership { group, user, until } => {
            sqlx::query("update membership set until_seq = ? where group_id = ? and user_id = ? and until_seq is null")
                .bind(id(until.0))
                .bind(id(group.number()))
                .bind(id(user.number()))
        }
        Effect::DeleteGroup { group, until } => {
            sqlx::query("update membership set until_seq = ? where group_id = ? and until_seq is null")
                .bind(id(until.0))
                .bind(id(group.number()))
        }
    };
    query.execute(to).await?;
    Ok(())
}
