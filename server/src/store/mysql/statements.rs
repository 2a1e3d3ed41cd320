//! The statements whose text never varies, and the pieces of those whose number of rows does.
//!
//! Lists come as JSON in one bound value, so that a statement is prepared once for any length; `straight_join` keeps the
//! order of the tables as written: first the list, then what it looks up by key. A head is the first row of its log read
//! backwards; without `force index` MySQL takes the smaller key and sorts the whole log.

use protocol::{ClientMsgId, ConversationId, EntryBody, Seq, UnixMillis, UserId};

use super::text::Text;
use crate::store::{
    Effect, Mark, NewEntry, TokenHash, record,
    row::{id, role_number},
};

pub(super) const DEPLOYMENT: &str = "select id from deployment";

pub(super) const REGISTERED_WITH: &str = "select id, name, password_hash from user where register_mid = ?";

pub(super) const ACCOUNT_BY_NUMBER: &str = "select id, name, password_hash from user where id = ?";

pub(super) const ACCOUNT_BY_NAME: &str = "select id, name, password_hash from user where name_key = ?";

pub(super) const USER_NAME: &str = "select name from user where id = ?";

pub(super) const TOKEN: &str =
    "select u.id, u.name, t.expires_at from token t join user u on u.id = t.user_id where t.hash = ?";

pub(super) const CREATED_WITH: &str =
    "select id, name, description from chat_group where creator_id = ? and mid = ?";

/// Known entries, and heads as entries of kind 0: of one moment.
pub(super) const RESOLVE: &str = "\
    select e.conversation, e.seq, e.at, e.sender, u.name, e.mid, e.kind, e.body \
    from json_table(?, '$[*]' columns (conversation bigint path '$[0]', sender bigint path '$[1]', \
        mid char(32) path '$[2]')) k \
    straight_join entry e on e.conversation = k.conversation and e.sender = k.sender and e.mid = unhex(k.mid) \
    straight_join user u on u.id = e.sender \
    union all \
    select k.conversation, coalesce((select h.seq from entry h force index (primary) where h.conversation = k.conversation \
        order by h.conversation desc, h.seq desc limit 1), 0), 0, 1, '', x'00000000000000000000000000000000', 0, '' \
    from json_table(?, '$[*]' columns (conversation bigint path '$')) k";

pub(super) const HEADS: &str = "\
    select k.conversation, coalesce((select h.seq from entry h force index (primary) where h.conversation = k.conversation \
        order by h.conversation desc, h.seq desc limit 1), 0) \
    from json_table(?, '$[*]' columns (conversation bigint path '$')) k";

/// Of one moment: heads (0), what two users have to do with each other (1), members (2), titles (3).
pub(super) const SNAPSHOTS: &str = "\
    select 0, k.conversation, coalesce((select h.seq from entry h force index (primary) where h.conversation = k.conversation \
        order by h.conversation desc, h.seq desc limit 1), 0), 0, 0, '' \
    from json_table(?, '$[*]' columns (conversation bigint path '$')) k \
    union all \
    select 1, k.conversation, f.user_id, f.friend, f.blocked, '' \
    from json_table(?, '$[*]' columns (conversation bigint path '$[0]', owner bigint path '$[1]', \
        peer bigint path '$[2]')) k \
    straight_join friend f on f.user_id = k.owner and f.peer_id = k.peer \
    union all \
    select 2, k.conversation, m.user_id, m.role, 0, '' \
    from json_table(?, '$[*]' columns (conversation bigint path '$[0]', number bigint path '$[1]')) k \
    straight_join membership m on m.group_id = k.number and m.until_seq is null \
    union all \
    select 3, k.conversation, 0, 0, 0, g.name \
    from json_table(?, '$[*]' columns (conversation bigint path '$[0]', number bigint path '$[1]')) k \
    straight_join chat_group g on g.id = k.number";

pub(super) const ENTRIES: &str = "\
    select e.conversation, e.seq, e.at, e.sender, u.name, e.mid, e.kind, e.body from entry e \
    straight_join user u on u.id = e.sender where e.conversation = ? and e.seq > ? order by e.seq limit ?";

pub(super) const ENTRIES_BEFORE: &str = "\
    select e.conversation, e.seq, e.at, e.sender, u.name, e.mid, e.kind, e.body from entry e \
    straight_join user u on u.id = e.sender where e.conversation = ? and e.seq >= ? and e.seq < ? \
    order by e.seq desc limit ?";

pub(super) const NOW: &str = "select cast(unix_timestamp(now(3)) * 1000 as signed)";

/// The database's time; then, of so many index entries at most, the heads. Conversation, head, time of its commit, entries read.
pub(super) const ADVANCED: &str = "\
    select 0, 0, cast(unix_timestamp(now(3)) * 1000 as signed), 0 \
    union all \
    (select r.conversation, max(r.seq), cast(unix_timestamp(max(r.committed_at)) * 1000 as signed), count(*) \
    from (select conversation, seq, committed_at from entry force index (entry_committed) \
        where committed_at >= from_unixtime(? / 1000) order by committed_at limit ?) r \
    group by r.conversation limit ?)";

/// All periods of a user with these peers and in these groups.
pub(super) const PERIODS_IN: &str = "\
    select f.peer_id, null, f.after_seq + 1, null, coalesce(d.seq, 0), f.friend \
    from json_table(?, '$[*]' columns (owner bigint path '$[0]', peer bigint path '$[1]')) k \
    straight_join friend f on f.user_id = k.owner and f.peer_id = k.peer \
    left join delivered d on d.user_id = f.user_id and d.conversation = cast( \
        (1 << 62) | (least(f.user_id, f.peer_id) << 31) | greatest(f.user_id, f.peer_id) as signed) \
    union all \
    select null, m.group_id, m.from_seq, m.until_seq, coalesce(d.seq, 0), 0 \
    from json_table(?, '$[*]' columns (owner bigint path '$[0]', number bigint path '$[1]')) k \
    straight_join membership m on m.user_id = k.owner and m.group_id = k.number \
    left join delivered d on d.user_id = m.user_id and d.conversation = cast((1 << 61) | m.group_id as signed)";

pub(super) const FRIENDS: &str = "\
    select f.peer_id, u.name, f.friend, f.blocked from friend f straight_join user u on u.id = f.peer_id \
    where f.user_id = ? and f.peer_id > ? and (f.friend or f.blocked) order by f.peer_id limit ?";

pub(super) const GROUPS: &str = "\
    select g.id, g.name, g.description, m.role, \
    (select count(*) from membership o where o.group_id = g.id and o.until_seq is null) \
    from membership m straight_join chat_group g on g.id = m.group_id \
    where m.user_id = ? and m.group_id > ? and m.until_seq is null order by m.group_id limit ?";

/// First the reader, as user 0, if they are a member; then a page of members: of one moment.
pub(super) const MEMBERS: &str = "\
    (select 0, '', m.role from membership m where m.group_id = ? and m.until_seq is null and m.user_id = ?) \
    union all \
    (select m.user_id, u.name, m.role from membership m straight_join user u on u.id = m.user_id \
    where m.group_id = ? and m.until_seq is null and m.user_id > ? order by m.user_id limit ?)";

pub(super) const COUNTS: &str = "\
    select (select count(*) from friend where user_id = ? and (friend or blocked)), \
    (select count(*) from membership where user_id = ? and until_seq is null)";

pub(super) const EXPIRED: &str = "select at, conversation, seq from retention where conversation > 0";

/// Entries in the order of their commits: those after a place that were committed before a time.
pub(super) const COMMITTED: &str = "\
    select cast(unix_timestamp(e.committed_at) * 1000 as signed), e.conversation, e.seq, e.kind \
    from entry e force index (entry_committed) \
    where e.committed_at >= from_unixtime(? / 1000) and e.committed_at < from_unixtime(? / 1000) \
    and (e.committed_at > from_unixtime(? / 1000) or e.conversation > ? or (e.conversation = ? and e.seq > ?)) \
    order by e.committed_at, e.conversation, e.seq limit ?";

/// A user's entries in one log, by message id.
pub(super) const OF_USER: &str = "\
    select mid, seq, kind from entry force index (entry_mid) \
    where conversation = ? and sender = ? and mid >= ? order by mid limit ?";

/// The groups and then the other users with whom a user has or had a conversation.
pub(super) const CONVERSATIONS: &str = "\
    (select distinct group_id, 0 from membership where user_id = ? and group_id > ? order by group_id limit ?) \
    union all \
    (select 0, peer_id from friend where user_id = ? and peer_id > ? order by peer_id limit ?)";

/// An entry's conversation and seq.
pub(super) type Place = (i64, i64);

/// Erases the messages among these entries, and says how far that was, if nobody was further; then how many there were, and a number
/// without meaning.
pub(super) fn erase(places: &[Place], reached: Option<Mark>) -> Text {
    let mut text = Text::new("start transaction; set @erased = 0; ", 512 + places.len() * 48);
    if !places.is_empty() {
        text.append(&erase_texts(places)).sql("; set @erased = row_count(); ");
    }
    if let Some(mark) = reached {
        text.append(&reach(mark)).sql("; ");
    }
    text.sql("commit; select cast(@erased as signed), 0");
    text
}

/// Erases the messages among these entries.
pub(super) fn erase_texts(places: &[Place]) -> Text {
    let mut text = Text::new("update entry set body = '', kind = ", 128 + places.len() * 48);
    text.number(record::ERASED.into()).sql(" where kind = ").number(record::MESSAGE.into());
    text.sql(" and (conversation, seq) in (");
    for (at, (conv, seq)) in places.iter().enumerate() {
        text.sql(if at == 0 { "(" } else { ",(" }).number(*conv).sql(",").number(*seq).sql(")");
    }
    text.sql(")");
    text
}

/// Messages were expired up to here, if not further.
pub(super) fn reach(mark: Mark) -> Text {
    let (at, conv, seq) = (mark.at, mark.conv.key(), id(mark.seq.0));
    let mut text = Text::new("update retention set at = ", 400);
    text.number(at).sql(", conversation = ").number(conv).sql(", seq = ").number(seq);
    text.sql(" where only_row = 1 and (at < ").number(at);
    text.sql(" or (at = ").number(at).sql(" and (conversation < ").number(conv);
    text.sql(" or (conversation = ").number(conv).sql(" and seq < ").number(seq).sql("))))");
    text
}

/// Writes other text into an entry of the same kind.
pub(super) fn rename_in(conv: ConversationId, seq: Seq, body: &EntryBody) -> Text {
    let (kind, body) = record::encode(body);
    let mut text = Text::new("update entry set body = ", 128 + body.len());
    text.quoted(&body).sql(" where conversation = ").number(conv.key());
    text.sql(" and seq = ").number(id(seq.0)).sql(" and kind = ").number(kind.into());
    text
}

pub(super) const USERS_BY_NUMBER: &str = "\
    select id, name, password_hash, created_at from user where id >= ? order by id limit ?";

pub(super) const USERS_BY_NAME: &str = "\
    select id, name, password_hash, created_at from user force index (user_name) where name_key >= ? \
    order by name_key limit ?";

pub(super) const COMMITTED_AT: &str = "\
    select cast(unix_timestamp(committed_at) * 1000 as signed) from entry where conversation = ? and seq = ?";

pub(super) const READERS_OF_DIRECT: &str = "\
    select f.user_id, u.name, coalesce(d.seq, 0) \
    from json_table(?, '$[*]' columns (owner bigint path '$[0]', peer bigint path '$[1]')) k \
    straight_join friend f on f.user_id = k.owner and f.peer_id = k.peer \
    straight_join user u on u.id = f.user_id \
    left join delivered d on d.user_id = f.user_id and d.conversation = ? where f.after_seq < ?";

pub(super) const READERS_OF_GROUP: &str = "\
    select m.user_id, u.name, coalesce(d.seq, 0) from membership m force index (membership_open) \
    straight_join user u on u.id = m.user_id \
    left join delivered d on d.user_id = m.user_id and d.conversation = ? \
    where m.group_id = ? and m.from_seq <= ? and (m.until_seq is null or m.until_seq >= ?)";

pub(super) const READER_OF_NOTICES: &str = "\
    select u.id, u.name, coalesce(d.seq, 0) from user u \
    left join delivered d on d.user_id = u.id and d.conversation = ? where u.id = ?";

/// The insert of these entries: one statement, whose keys say whether their places and message ids are free.
pub(super) fn insert_entries(entries: &[NewEntry]) -> Text {
    let room = entries.len() * 96;
    let mut text =
        Text::new("insert into entry (conversation, seq, sender, mid, kind, at, body) values ", room);
    for (at, entry) in entries.iter().enumerate() {
        let (kind, body) = record::encode(&entry.body);
        text.sql(if at == 0 { "(" } else { ",(" }).number(entry.conv.key()).sql(",").number(id(entry.seq.0));
        text.sql(",").number(id(entry.from.number())).sql(",").bytes(&entry.mid.0);
        text.sql(",").number(i64::from(kind)).sql(",").number(entry.at).sql(",").quoted(&body).sql(")");
    }
    text
}

/// Reads the last row of a log, and locks it.
pub(super) fn lock_head(conv: ConversationId, into: &'static str) -> Text {
    let mut text = Text::new("select seq", 200);
    text.sql(into).sql(" from entry force index (primary) where conversation = ").number(conv.key());
    text.sql(" order by conversation desc, seq desc limit 1 for update");
    text
}

/// Inserts messages into one log after its head, if none above `known` affects rights; then says where, and how many.
///
/// The lock on the last row waits for whoever writes just now. From then on nothing is between the head and the insert but the server's
/// own time, so even the node farthest away is not overtaken for long.
pub(super) fn append_after(conv: ConversationId, known: Seq, entries: &[NewEntry]) -> Text {
    let mut text = Text::new("start transaction; set @head = 0; ", 512 + entries.len() * 96);
    text.sql("select seq into @head from entry force index (primary) where conversation = ")
        .number(conv.key());
    text.sql(" order by conversation desc, seq desc limit 1 for update; ");
    text.sql("insert into entry (conversation, seq, sender, mid, kind, at, body) select ").number(conv.key());
    text.sql(", @head + v.n, v.sender, v.mid, v.kind, v.at, v.body from (values ");
    for (at, entry) in entries.iter().enumerate() {
        let (kind, body) = record::encode(&entry.body);
        text.sql(if at == 0 { "row(" } else { ",row(" }).number(id(at as u64 + 1));
        text.sql(",").number(id(entry.from.number())).sql(",").bytes(&entry.mid.0);
        text.sql(",").number(i64::from(kind)).sql(",").number(entry.at).sql(",").quoted(&body).sql(")");
    }
    text.sql(") v (n, sender, mid, kind, at, body) where not exists (select 1 from entry e where e.conversation = ");
    text.number(conv.key()).sql(" and e.seq > ").number(id(known.0));
    text.sql(" and e.kind >= ").number(i64::from(record::FIRST_RIGHTS_KIND)).sql("); ");
    text.sql("set @written = row_count(); commit; select cast(@head as signed), cast(@written as signed)");
    text
}

/// The statement that writes a side row.
pub(super) fn effect(to: &mut Text, effect: &Effect) {
    match effect {
        Effect::OpenDirect { user, peer, after } => {
            to.sql("insert into friend (user_id, peer_id, after_seq) values (").number(id(user.number()));
            to.sql(",").number(id(peer.number())).sql(",").number(id(after.0));
            to.sql(") on duplicate key update after_seq = after_seq");
        }
        Effect::SetFriends { a, b, friends } => {
            to.sql("update friend set friend = ")
                .number((*friends).into())
                .sql(" where (user_id, peer_id) in ((");
            to.number(id(a.number())).sql(",").number(id(b.number())).sql("),(");
            to.number(id(b.number())).sql(",").number(id(a.number())).sql("))");
        }
        Effect::SetBlocked { user, peer, blocked } => {
            to.sql("update friend set blocked = ").number((*blocked).into());
            to.sql(" where user_id = ").number(id(user.number()));
            to.sql(" and peer_id = ").number(id(peer.number()));
        }
        Effect::BeginMembership { group, user, role, from } => {
            to.sql("insert into membership (user_id, group_id, from_seq, role) values (");
            to.number(id(user.number())).sql(",").number(id(group.number()));
            to.sql(",").number(id(from.0)).sql(",").number(role_number(*role)).sql(")");
        }
        Effect::EndMembership { group, user, until } => {
            to.sql("update membership set until_seq = ").number(id(until.0));
            to.sql(" where group_id = ").number(id(group.number()));
            to.sql(" and user_id = ").number(id(user.number())).sql(" and until_seq is null");
        }
        Effect::DeleteGroup { group, until } => {
            to.sql("update membership set until_seq = ").number(id(until.0));
            to.sql(" where group_id = ").number(id(group.number())).sql(" and until_seq is null");
        }
        Effect::EraseAccount { user, name, name_key, hash } => {
            to.sql("update user set name = ").quoted(name).sql(", name_key = ").quoted(name_key);
            to.sql(", password_hash = ").quoted(hash).sql(" where id = ").number(id(user.number()));
            to.sql(";delete from token where user_id = ").number(id(user.number()));
        }
        Effect::SetPassword { user, hash, keep } => {
            to.sql("update user set password_hash = ").quoted(hash);
            to.sql(" where id = ").number(id(user.number())).sql(";");
            to.append(&revoke_tokens(*user, keep.as_ref()));
        }
    }
}

/// Makes an account. Nothing is written, and no number used up, if the name or the message id is taken.
pub(super) fn register(name: &str, key: &str, password_hash: &str, mid: ClientMsgId, at: UnixMillis) -> Text {
    let mut text =
        Text::new("insert into user (name, name_key, password_hash, register_mid, created_at) select ", 512);
    text.quoted(name).sql(",").quoted(key).sql(",").quoted(password_hash).sql(",").bytes(&mid.0);
    text.sql(",").number(at);
    text.sql(" where not exists (select 1 from user where name_key = ").quoted(key);
    text.sql(") and not exists (select 1 from user where register_mid = ").bytes(&mid.0).sql(")");
    text
}

/// Another form of the same password's hash.
pub(super) fn rehash(user: UserId, from: &str, to: &str) -> Text {
    let mut text = Text::new("update user set password_hash = ", 512);
    text.quoted(to).sql(" where id = ").number(id(user.number())).sql(" and password_hash = ").quoted(from);
    text
}

/// Forgets all of a user's tokens, or all but one.
pub(super) fn revoke_tokens(user: UserId, but: Option<&TokenHash>) -> Text {
    let mut text = Text::new("delete from token where user_id = ", 128);
    text.number(id(user.number()));
    if let Some(but) = but {
        text.sql(" and hash <> ").bytes(but);
    }
    text
}

/// Makes a group. Nothing is written, and no number used up, if the message id is known or the creator's notices have an entry at
/// `notice_seq`.
pub(super) fn make_group(
    creator: UserId,
    mid: ClientMsgId,
    name: &str,
    description: &str,
    notice_seq: i64,
    at: UnixMillis,
) -> Text {
    let mut text =
        Text::new("insert into chat_group (name, description, creator_id, mid, created_at) select ", 512);
    text.quoted(name).sql(",").quoted(description).sql(",").number(id(creator.number()));
    text.sql(",").bytes(&mid.0).sql(",").number(at);
    text.sql(" where not exists (select 1 from chat_group where creator_id = ").number(id(creator.number()));
    text.sql(" and mid = ").bytes(&mid.0);
    text.sql(") and not exists (select 1 from entry where conversation = ");
    text.number(ConversationId::notices(creator).key()).sql(" and seq = ").number(notice_seq).sql(")");
    text
}

/// Raises delivered cursors: in key order, as every node does it, so that they wait for each other in turn.
pub(super) fn set_delivered(cursors: &[(UserId, ConversationId, Seq)]) -> Text {
    let mut cursors = cursors.to_vec();
    cursors.sort_unstable();
    let mut text =
        Text::new("insert into delivered (user_id, conversation, seq) values ", cursors.len() * 48);
    for (at, (user, conv, seq)) in cursors.iter().enumerate() {
        text.sql(if at == 0 { "(" } else { ",(" }).number(id(user.number()));
        text.sql(",").number(conv.key()).sql(",").number(id(seq.0)).sql(")");
    }
    text.sql(" as new on duplicate key update seq = greatest(delivered.seq, new.seq)");
    text
}
