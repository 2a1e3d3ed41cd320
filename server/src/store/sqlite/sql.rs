//! The statements that more than one call makes.
//!
//! Bounds are written `limit +?`, here and in the other statements: planning looks at the value that is bound to `limit ?` (SQLite 3.51), and so a statement
//! with it is planned anew each time that it is carried out.

use protocol::{ClientMsgId, Conversation, ConversationId, Seq, UserId};
use sqlx::{Sqlite, SqliteConnection, query::QueryAs, sqlite::SqliteArguments};

use super::{
    DirectRights, Effect, GroupRights, KnownGroup, Result, Rights, Snapshot, Trace,
    row::{group, id, readers, role, role_number, seq, user},
};

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

pub(super) const USERS_BY_NUMBER: &str =
    "select id, name, password_hash, created_at from user where id >= ? order by id limit +?";

pub(super) const USERS_BY_NAME: &str =
    "select id, name, password_hash, created_at from user where name_key >= ? order by name_key limit +?";

const READERS_OF_DIRECT: &str = "\
    select f.user_id, u.name, coalesce(d.seq, 0) from friend f join user u on u.id = f.user_id \
    left join delivered d on d.user_id = f.user_id and d.conversation = ?1 \
    where f.after_seq < ?2 and (f.user_id = ?3 and f.peer_id = ?4 or f.user_id = ?4 and f.peer_id = ?3)";

/// Of periods that have ended there is no index by group: this reads them all, for an operator who asks now and then.
const READERS_OF_GROUP: &str = "\
    select m.user_id, u.name, coalesce(d.seq, 0) from membership m join user u on u.id = m.user_id \
    left join delivered d on d.user_id = m.user_id and d.conversation = ?1 \
    where m.group_id = ?3 and m.from_seq <= ?2 and (m.until_seq is null or m.until_seq >= ?2)";

const READER_OF_NOTICES: &str = "\
    select u.id, u.name, coalesce(d.seq, 0) from user u \
    left join delivered d on d.user_id = u.id and d.conversation = ? where u.id = ?";

/// When an entry was committed, and who may read it; read within the caller's transaction.
pub(super) async fn trace(
    from: &mut SqliteConnection,
    conv: ConversationId,
    at: Seq,
) -> Result<Option<Trace>> {
    let row: Option<(i64,)> =
        sqlx::query_as("select committed_at from entry where conversation = ? and seq = ?")
            .bind(conv.key())
            .bind(id(at.0))
            .fetch_optional(&mut *from)
            .await?;
    let Some((committed_at,)) = row else { return Ok(None) };
    let query = match conv.parse() {
        Conversation::Direct(low, high) => sqlx::query_as(READERS_OF_DIRECT)
            .bind(conv.key())
            .bind(id(at.0))
            .bind(id(low.number()))
            .bind(id(high.number())),
        Conversation::Group(group) => {
            sqlx::query_as(READERS_OF_GROUP).bind(conv.key()).bind(id(at.0)).bind(id(group.number()))
        }
        Conversation::Notices(owner) => {
            sqlx::query_as(READER_OF_NOTICES).bind(conv.key()).bind(id(owner.number()))
        }
    };
    let rows = query.fetch_all(&mut *from).await?;
    Ok(Some(Trace { committed_at, readers: readers(rows)? }))
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

/// Asks for the group that a user made with a message id.
pub(super) fn created_with<'q>(
    creator: UserId,
    mid: ClientMsgId,
) -> QueryAs<'q, Sqlite, (i64, String, String), SqliteArguments> {
    sqlx::query_as("select id, name, description from chat_group where creator_id = ? and mid = ?")
        .bind(id(creator.number()))
        .bind(mid.0.to_vec())
}

/// The answer.
pub(super) fn known_group((number, name, description): (i64, String, String)) -> Result<KnownGroup> {
    Ok(KnownGroup { group: group(number)?, name, description })
}

/// Writes a side row within the caller's transaction.
pub(super) async fn effect(to: &mut SqliteConnection, effect: &Effect) -> Result<()> {
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
                .bind(role_number(*role))
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
        Effect::EraseAccount { user, name, name_key, hash } => {
            sqlx::query("update user set name = ?, name_key = ?, password_hash = ? where id = ?")
                .bind(name)
                .bind(name_key)
                .bind(hash)
                .bind(id(user.number()))
                .execute(&mut *to)
                .await?;
            sqlx::query("delete from token where user_id = ?").bind(id(user.number()))
        }
        Effect::SetPassword { user, hash, keep } => {
            sqlx::query("update user set password_hash = ? where id = ?")
                .bind(hash)
                .bind(id(user.number()))
                .execute(&mut *to)
                .await?;
            let all = sqlx::query("delete from token where user_id = ?1 and (?2 is null or hash <> ?2)");
            all.bind(id(user.number())).bind(keep.map(|keep| keep.to_vec()))
        }
    };
    query.execute(to).await?;
    Ok(())
}
