//! What sessions are opened with: tokens, what a session starts from, and heads.
//!
//! When a node dies its sessions come to another one all at once, so this is asked for many of them [together](super::together).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{ConversationId, Seq, UnixMillis, UserId};
use sqlx::query_as;

use super::{
    Connections, Failure, Opening, Result, TRIES, TokenHash,
    row::{self, conv_keys, id, json},
    text::{Text, push_hex},
    together::{Tasks, Together},
};

/// What sessions start from, by their tokens, each with a number and the groups that its client named: see [`row::OpeningRow`].
pub(super) const OPENINGS: &str = "\
    select k.n, u.id, u.name, t.expires_at, \
        coalesce((select h.seq from entry h force index (primary) where h.conversation = u.id \
            order by h.conversation desc, h.seq desc limit 1), 0), \
        coalesce((select seq from delivered where user_id = u.id and conversation = u.id), 0), \
        cast((select json_arrayagg(json_array(f.peer_id, f.after_seq + 1, coalesce(d.seq, 0), f.friend)) from friend f \
            left join delivered d on d.user_id = f.user_id and d.conversation = cast( \
                (1 << 62) | (least(f.user_id, f.peer_id) << 31) | greatest(f.user_id, f.peer_id) as signed) \
            where f.user_id = u.id) as char), \
        cast((select json_arrayagg(json_array(m.group_id, m.from_seq, m.until_seq, coalesce(d.seq, 0))) from membership m \
            left join delivered d on d.user_id = m.user_id and d.conversation = cast((1 << 61) | m.group_id as signed) \
            where m.user_id = u.id and (m.until_seq is null or m.until_seq > coalesce(d.seq, 0))) as char), \
        cast((select json_arrayagg(json_array(m.group_id, m.from_seq, m.until_seq, coalesce(d.seq, 0))) \
            from json_table(k.named, '$[*]' columns (number bigint path '$')) g \
            straight_join membership m on m.user_id = u.id and m.group_id = g.number \
            left join delivered d on d.user_id = m.user_id and d.conversation = cast((1 << 61) | m.group_id as signed)) as char) \
    from json_table(?, '$[*]' columns (n bigint path '$[0]', token char(64) path '$[1]', named json path '$[2]')) k \
    straight_join token t on t.hash = unhex(k.token) straight_join user u on u.id = t.user_id";

/// Of one moment: which of numbered tokens are known, and heads; a list each.
pub(super) const KNOWN_AND_HEADS: &str = "\
    select \
        cast((select json_arrayagg(k.n) from json_table(?, '$[*]' columns (n bigint path '$[0]', token char(64) path '$[1]')) k \
            straight_join token t on t.hash = unhex(k.token)) as char), \
        cast((select json_arrayagg(json_array(k.conversation, coalesce((select h.seq from entry h force index (primary) \
                where h.conversation = k.conversation order by h.conversation desc, h.seq desc limit 1), 0))) \
            from json_table(?, '$[*]' columns (conversation bigint path '$')) k) as char)";

/// A row of [`OPENINGS`]: of which token, and what its session starts from.
type NumberedRow = (i64, i64, String, i64, i64, i64, Option<String>, Option<String>, Option<String>);

/// A token that a login has made.
pub(super) struct NewToken {
    pub(super) hash: TokenHash,
    pub(super) user: UserId,
    /// What the hash of the user's password was.
    pub(super) verified: String,
    pub(super) expires_at: UnixMillis,
    /// How many of the user's tokens may stay; the same of all, or the most counts.
    pub(super) keep: usize,
}

type Named = (TokenHash, Vec<ConversationId>);
type Heads = BTreeMap<ConversationId, Seq>;

/// What is asked together. A token's own answer is an error if what is stored of it cannot be read.
pub(super) struct Sessions {
    pub(super) openings: Together<Named, Result<Option<Opening>>>,
    pub(super) heads: Together<Named, Option<Heads>>,
    pub(super) new_tokens: Together<NewToken, Result<Option<Opening>>>,
    pub(super) tasks: Tasks,
}

impl Sessions {
    /// By these connections.
    pub(super) fn new(connections: &Arc<Connections>) -> Self {
        let by = || Arc::clone(connections);
        let (one, two, three) = (by(), by(), by());
        let tasks = Tasks::default();
        Self {
            openings: Together::new(&tasks, move |tokens| openings(Arc::clone(&one), tokens)),
            heads: Together::new(&tasks, move |tokens| heads(Arc::clone(&two), tokens)),
            new_tokens: Together::new(&tasks, move |tokens| add(Arc::clone(&three), tokens)),
            tasks,
        }
    }
}

async fn openings(by: Arc<Connections>, tokens: Vec<Named>) -> Result<Vec<Result<Option<Opening>>>> {
    let numbered = numbered(tokens.iter().map(|(token, named)| (token, named.as_slice())));
    Ok(of_each(tokens.len(), by.all(query_as(OPENINGS).bind(numbered)).await?))
}

async fn heads(by: Arc<Connections>, tokens: Vec<Named>) -> Result<Vec<Option<Heads>>> {
    let convs: BTreeSet<_> = tokens.iter().flat_map(|(_, convs)| convs.iter().copied()).collect();
    let convs: Vec<_> = convs.into_iter().collect();
    let numbered = numbered(tokens.iter().map(|(token, _)| (token, [].as_slice())));
    let query = query_as(KNOWN_AND_HEADS).bind(numbered).bind(conv_keys(&convs));
    let (known, heads) = by.optional(query).await?.unwrap_or_default();
    let (known, heads): (Vec<usize>, Heads) = (row::list(known)?, row::heads(row::list(heads)?)?);
    let mut answers = vec![None; tokens.len()];
    for n in known {
        let (Some(answer), Some((_, convs))) = (answers.get_mut(n), tokens.get(n)) else { continue };
        *answer =
            Some(convs.iter().map(|conv| (*conv, heads.get(conv).copied().unwrap_or_default())).collect());
    }
    Ok(answers)
}

async fn add(by: Arc<Connections>, tokens: Vec<NewToken>) -> Result<Vec<Result<Option<Opening>>>> {
    let text = add_tokens(&tokens).into_sql();
    for _ in 0..TRIES {
        if let Some(rows) = by.transaction_with_rows(text.clone()).await? {
            return Ok(of_each(tokens.len(), rows));
        }
    }
    Err(Failure::Conflict.into())
}

/// What each of so many tokens' sessions start from, if it is known.
fn of_each(tokens: usize, rows: Vec<NumberedRow>) -> Vec<Result<Option<Opening>>> {
    let mut openings: Vec<_> = (0..tokens).map(|_| Ok(None)).collect();
    for (n, user, name, expires_at, head, delivered, friends, groups, named) in rows {
        if let Some(opening) = usize::try_from(n).ok().and_then(|n| openings.get_mut(n)) {
            let row = (user, name, expires_at, head, delivered, friends, groups, named);
            *opening = row::opening(row).map(Some);
        }
    }
    openings
}

/// Numbered tokens with the groups among conversations, for a table function.
fn numbered<'a>(tokens: impl Iterator<Item = (&'a TokenHash, &'a [ConversationId])>) -> String {
    let tokens = tokens.map(|(token, convs)| (hex(token), row::group_numbers(convs)));
    json(&tokens.enumerate().map(|(n, (token, groups))| (n, token, groups)).collect::<Vec<_>>())
}

fn hex(token: &TokenHash) -> String {
    let mut hex = String::with_capacity(2 * token.len());
    push_hex(&mut hex, token);
    hex
}

/// Keeps new tokens and forgets old ones of their users, then says what sessions start from: the rows of [`OPENINGS`].
fn add_tokens(tokens: &[NewToken]) -> Text {
    // In the order of users, so that nodes wait for each other in turn.
    let mut sorted: Vec<_> = tokens.iter().collect();
    sorted.sort_unstable_by_key(|token| (token.user, token.hash));
    let mut text = Text::new("start transaction; ", 1024 + tokens.len() * 512);
    text.append(&insert_tokens(&sorted)).sql("; ").append(&old_tokens(&sorted, " into @old"));
    text.sql("; ").sql(FORGET).sql("; commit; ");
    let numbered = numbered(tokens.iter().map(|token| (&token.hash, [].as_slice())));
    let (before, after) = OPENINGS.split_once('?').unwrap_or_default();
    text.sql(before).quoted(&numbered).sql(after);
    text
}

/// Inserts tokens, each if the password's hash is still the one verified. The lock makes a change of the password wait, or waits for it.
pub(super) fn insert_tokens(tokens: &[&NewToken]) -> Text {
    const HEAD: &str =
        "insert into token (hash, user_id, expires_at) select k.hash, u.id, k.expires_at from (values ";
    let mut text = Text::new(HEAD, 256 + tokens.len() * 256);
    for (at, token) in tokens.iter().enumerate() {
        text.sql(if at == 0 { "row(" } else { ",row(" }).bytes(&token.hash);
        text.sql(",").number(id(token.user.number())).sql(",").quoted(&token.verified);
        text.sql(",").number(token.expires_at).sql(")");
    }
    text.sql(") k (hash, user_id, verified, expires_at) straight_join user u on u.id = k.user_id");
    text.sql(" where u.password_hash = k.verified for share of u");
    text
}

/// Which other tokens the users of those that were kept have but the newest, as a list for [`FORGET`].
///
/// By a select of its own: whatever else a delete reads, it locks, and that includes what is beside it in a key.
pub(super) fn old_tokens(tokens: &[&NewToken], into: &'static str) -> Text {
    let keep = tokens.iter().map(|token| token.keep).max().unwrap_or_default();
    let mut text = Text::new("select json_arrayagg(hex(old.hash))", 512 + tokens.len() * 96);
    text.sql(into).sql(" from (values ");
    for (at, token) in tokens.iter().enumerate() {
        text.sql(if at == 0 { "row(" } else { ",row(" }).number(id(token.user.number()));
        text.sql(",").bytes(&token.hash).sql(")");
    }
    text.sql(") k (user_id, hash) straight_join token n on n.hash = k.hash");
    text.sql(" straight_join lateral (select o.hash from token o force index (token_user)");
    text.sql(" where o.user_id = k.user_id and o.hash <> k.hash");
    // In the order of the key, so that nothing is sorted.
    text.sql(" order by o.user_id desc, o.expires_at desc, o.hash desc limit 1000000 offset ");
    text.number(id(keep.saturating_sub(1) as u64)).sql(") old");
    text
}

/// Forgets tokens; of no list, none.
pub(super) const FORGET: &str = "\
    delete t from json_table(@old, '$[*]' columns (token char(64) path '$')) k \
    straight_join token t on t.hash = unhex(k.token)";
