//! What sessions are opened with: tokens, what a session starts from, and heads.
//!
//! Each answer is one row, with lists as JSON: a row is a change of threads.

use std::collections::BTreeMap;

use protocol::{ConversationId, Seq, UnixMillis, UserId};

use super::{
    Connections, Opening, Result, TokenHash,
    row::{self, conv_keys, group_numbers, id, json},
};

/// Adds a token (?1) of a user (?2), if the password's hash is ?4; then, of the user's other ones, forgets all but the newest (?5).
const ADD_TOKEN: &str = "\
    begin immediate; \
    insert into token (hash, user_id, expires_at) select ?1, id, ?3 from user where id = ?2 and password_hash = ?4; \
    delete from token where exists (select 1 from token where hash = ?1) and hash in \
        (select hash from token where user_id = ?2 and hash <> ?1 order by expires_at desc limit -1 offset ?5); \
    commit";

/// What a session starts from, by its token (?1): whose it is, the user's notices, friends, groups, and groups that the client named (?2).
const OPENING: &str = "\
    select u.id, u.name, t.expires_at, coalesce((select max(seq) from entry where conversation = u.id), 0), \
        coalesce((select seq from delivered where user_id = u.id and conversation = u.id), 0), \
        (select json_group_array(json_array(f.peer_id, f.after_seq + 1, coalesce(d.seq, 0), f.friend)) from friend f \
            left join delivered d on d.user_id = f.user_id and d.conversation = \
                (1 << 62) | (min(f.user_id, f.peer_id) << 31) | max(f.user_id, f.peer_id) \
            where f.user_id = u.id), \
        (select json_group_array(json_array(m.group_id, m.from_seq, m.until_seq, coalesce(d.seq, 0))) from membership m \
            left join delivered d on d.user_id = m.user_id and d.conversation = (1 << 61) | m.group_id \
            where m.user_id = u.id and (m.until_seq is null or m.until_seq > coalesce(d.seq, 0))), \
        (select json_group_array(json_array(m.group_id, m.from_seq, m.until_seq, coalesce(d.seq, 0))) from membership m \
            left join delivered d on d.user_id = m.user_id and d.conversation = (1 << 61) | m.group_id \
            where m.user_id = u.id and m.group_id in (select value from json_each(?2))) \
    from token t join user u on u.id = t.user_id where t.hash = ?1";

/// The heads of conversations (?1).
const HEADS: &str = "\
    select json_group_array(json_array(k.value, coalesce((select max(seq) from entry where conversation = k.value), 0))) \
    from json_each(?1) k";

/// The same, if a token (?2) is known; else of none.
const HEADS_IF_KNOWN: &str = "\
    select json_group_array(json_array(k.value, coalesce((select max(seq) from entry where conversation = k.value), 0))) \
    from json_each(?1) k where exists (select 1 from token where hash = ?2)";

/// See `Store::add_token`; without what the session starts from.
pub(super) async fn add_token(
    writer: &Connections,
    (hash, user, expires_at): (&TokenHash, UserId, UnixMillis),
    verified: &str,
    keep: usize,
) -> Result<()> {
    let query = sqlx::query(ADD_TOKEN)
        .bind(hash.to_vec())
        .bind(id(user.number()))
        .bind(expires_at)
        .bind(verified)
        .bind(id(keep.saturating_sub(1) as u64));
    Ok(writer.transaction(query).await?)
}

/// See `Store::opening`.
pub(super) async fn opening(
    readers: &Connections,
    token: &TokenHash,
    named: &[ConversationId],
) -> Result<Option<Opening>> {
    let query = sqlx::query_as(OPENING).bind(token.to_vec()).bind(json(&group_numbers(named)));
    readers.optional(query).await?.map(row::opening).transpose()
}

/// See `Store::heads`.
pub(super) async fn heads(
    readers: &Connections,
    convs: &[ConversationId],
) -> Result<BTreeMap<ConversationId, Seq>> {
    let (heads,): (Option<String>,) = readers.one(sqlx::query_as(HEADS).bind(conv_keys(convs))).await?;
    row::heads(row::list(heads)?)
}

/// See `Store::heads_if_known`.
pub(super) async fn heads_if_known(
    readers: &Connections,
    token: &TokenHash,
    convs: &[ConversationId],
) -> Result<Option<BTreeMap<ConversationId, Seq>>> {
    let query = sqlx::query_as(HEADS_IF_KNOWN).bind(conv_keys(convs)).bind(token.to_vec());
    let (heads,): (Option<String>,) = readers.one(query).await?;
    let heads = row::heads(row::list(heads)?)?;
    Ok((!heads.is_empty()).then_some(heads))
}
