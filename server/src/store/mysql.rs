//! MySQL: the store that nodes share.
//!
//! What is acknowledged survives as far as the server keeps what it committed: one fenced primary, with
//! `innodb_flush_log_at_trx_commit = 1`. Every call goes to that primary, in a bounded number of round trips and in bounded time.

mod connections;
mod erase;
mod identity;
mod open;
mod plans;
mod sessions;
mod statements;
mod target;
mod text;
mod together;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use protocol::{
    ClientMsgId, Conversation, ConversationId, Entry, EntryBody, GroupId, Seq, UnixMillis, UserId,
    message::{Account, GroupInfo, Role},
};
use sqlx::query_as;

pub(super) use self::target::Target;
use self::{
    connections::{Connections, Failure},
    sessions::{NewToken, Sessions},
    text::Text,
};
pub use self::{
    open::{OpenError, is_encrypted, migrate},
    plans::Plan,
};
use super::{
    AccountRecord, Advanced, Change, Counts, Effect, Erased, Expired, FriendRow, GroupOutcome, KnownGroup,
    Listener, Mark, MemberRow, MidKey, NewEntry, NewGroup, NewUser, Opening, Outcome, Period,
    RegisterOutcome, Resolved, Result, Snapshot, Store, StoreError, TokenHash, TokenRecord, Trace, UserRow,
    UsersFrom,
    row::{self, EntryRow, PeriodRow, conv_keys, entry, id, json, json_keys, role},
    within_bytes,
};
use crate::rights::Rights;

/// Connections for everything but logs. Five nodes stay below a server's usual limit of 151.
const SHARED_MAX: usize = 20;
/// Index entries that one look of the sweep reads: what 5,000 messages a second make in 10 seconds.
const RECENT_MAX: usize = 50_000;
/// The store's time is kept within what the server's functions take: up to the year 3000.
const TIME_MAX: UnixMillis = 32_503_679_999_999;
/// How often such a transaction is tried when other writers are in the way.
const TRIES: usize = 3;

/// A store in a MySQL database.
pub struct MySqlStore {
    /// One connection for what the committer writes, so that nothing else ever holds it up.
    logs: Connections,
    shared: Arc<Connections>,
    sessions: Sessions,
}

impl MySqlStore {
    /// Carries out a transaction whose order among others does not matter, again while other writers are in the way.
    async fn insist(&self, statements: &str) -> Result<()> {
        for _ in 0..TRIES {
            if self.shared.transaction(statements).await? == Outcome::Committed {
                return Ok(());
            }
        }
        Err(Failure::Conflict.into())
    }
}

#[async_trait]
impl Store for MySqlStore {
    async fn deployment(&self) -> Result<[u8; 16]> {
        let row: Option<(Vec<u8>,)> = self.shared.optional(query_as(statements::DEPLOYMENT)).await?;
        let id = row.and_then(|(id,)| id.try_into().ok());
        id.ok_or_else(|| StoreError::Corrupt("the deployment's id has not 16 bytes".into()))
    }

    async fn register(&self, user: &NewUser) -> Result<RegisterOutcome> {
        let text = statements::register(&user.name, &user.name_key, &user.password_hash, user.mid, user.at);
        match self.shared.write(text.into_sql()).await {
            Ok(done) if done.rows_affected() == 0 => Ok(RegisterOutcome::Conflict),
            Ok(done) => Ok(RegisterOutcome::Created(row::user(signed(done.last_insert_id()))?)),
            Err(Failure::Conflict) => Ok(RegisterOutcome::Conflict),
            Err(Failure::Error(error)) => Err(error),
        }
    }

    async fn registered_with(&self, mid: ClientMsgId) -> Result<Option<AccountRecord>> {
        let query = query_as(statements::REGISTERED_WITH).bind(mid.0.to_vec());
        self.shared.optional(query).await?.map(row::account).transpose()
    }

    async fn account(&self, account: &Account) -> Result<Option<AccountRecord>> {
        let query = match account {
            Account::Number(user) => query_as(statements::ACCOUNT_BY_NUMBER).bind(id(user.number())),
            Account::Name(key) => query_as(statements::ACCOUNT_BY_NAME).bind(key),
        };
        self.shared.optional(query).await?.map(row::account).transpose()
    }

    async fn user_name(&self, user: UserId) -> Result<Option<String>> {
        let query = query_as(statements::USER_NAME).bind(id(user.number()));
        Ok(self.shared.optional(query).await?.map(|(name,)| name))
    }

    async fn rehash(&self, user: UserId, from: &str, to: &str) -> Result<bool> {
        let text = statements::rehash(user, from, to);
        Ok(self.shared.write(text.into_sql()).await?.rows_affected() > 0)
    }

    async fn add_token(
        &self,
        hash: &TokenHash,
        user: UserId,
        verified: &str,
        expires_at: UnixMillis,
        keep: usize,
    ) -> Result<Option<Opening>> {
        let token = NewToken { hash: *hash, user, verified: verified.to_owned(), expires_at, keep };
        self.sessions.new_tokens.ask(token).await?
    }

    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>> {
        let query = query_as(statements::TOKEN).bind(hash.to_vec());
        self.shared.optional(query).await?.map(row::token).transpose()
    }

    async fn remove_token(&self, hash: &TokenHash) -> Result<()> {
        let mut text = Text::new("delete from token where hash = ", 70);
        text.bytes(hash);
        self.shared.write(text.into_sql()).await?;
        Ok(())
    }

    async fn append(&self, entries: &[NewEntry]) -> Result<Outcome> {
        if entries.is_empty() {
            return Ok(Outcome::Committed);
        }
        match self.logs.write(statements::insert_entries(entries).into_sql()).await {
            Ok(_) => Ok(Outcome::Committed),
            Err(Failure::Conflict) => Ok(Outcome::Conflict),
            Err(Failure::Error(error)) => Err(error),
        }
    }

    async fn append_after(&self, known: Seq, entries: &[NewEntry]) -> Result<Option<Seq>> {
        let Some(first) = entries.first() else { return Ok(Some(known.next())) };
        let text = statements::append_after(first.conv, known, entries).into_sql();
        let Some((head, written)) = self.logs.transaction_of_two_numbers(text).await? else {
            return Ok(None);
        };
        match written {
            0 => Ok(None),
            _ => Ok(Some(row::seq(head)?.next())),
        }
    }

    async fn apply(&self, change: &Change) -> Result<Outcome> {
        let mut text = statements::insert_entries(&change.entries);
        for effect in &change.effects {
            statements::effect(text.sql(";"), effect);
        }
        self.logs.transaction(&text.into_sql()).await
    }

    async fn created_with(&self, creator: UserId, mid: ClientMsgId) -> Result<Option<KnownGroup>> {
        let query = query_as(statements::CREATED_WITH).bind(id(creator.number())).bind(mid.0.to_vec());
        let row: Option<(i64, String, String)> = self.shared.optional(query).await?;
        row.map(|(group, name, description)| Ok(KnownGroup { group: row::group(group)?, name, description }))
            .transpose()
    }

    async fn create_group(&self, new: &NewGroup) -> Result<GroupOutcome> {
        // In two round trips, since the entries speak of the group's number. No number is used up by an attempt that is bound to fail.
        let mut text = Text::new("start transaction;", 512);
        text.append(&statements::make_group(
            new.creator,
            new.mid,
            &new.name,
            &new.description,
            id(new.notice_seq.0),
            new.at,
        ));
        let mut lease = self.logs.lease().await?;
        let made = lease.execute(text.into_sql()).await;
        let made = match made {
            Err(error) if !connections::is_conflict(&error) => {
                return Err(lease.end::<()>(Err(error)).expect_err("it is one").into());
            }
            made => made.ok().filter(|done| done.rows_affected() == 1),
        };
        let Some(made) = made else {
            lease.roll_back().await?;
            let known = self.created_with(new.creator, new.mid).await?;
            return Ok(known.map_or(GroupOutcome::Conflict, GroupOutcome::Known));
        };
        let group = row::group(signed(made.last_insert_id()))?;
        let mut text = statements::insert_entries(&new.entries(group));
        let begin = Effect::BeginMembership { group, user: new.creator, role: Role::Creator, from: Seq(1) };
        statements::effect(text.sql(";"), &begin);
        text.sql(";commit");
        Ok(match lease.finish(text.into_sql()).await? {
            Outcome::Committed => GroupOutcome::Created(group),
            Outcome::Conflict => GroupOutcome::Conflict,
        })
    }

    async fn resolve(&self, keys: &[MidKey], convs: &[ConversationId]) -> Result<Resolved> {
        let query = query_as(statements::RESOLVE).bind(json_keys(keys)).bind(conv_keys(convs));
        let rows: Vec<EntryRow> = self.shared.all(query).await?;
        let mut resolved = Resolved::default();
        for row in rows {
            if row.6 == 0 {
                resolved.heads.insert(row::conv(row.0)?, row::seq(row.1)?);
            } else {
                resolved.known.push(entry(row)?);
            }
        }
        Ok(resolved)
    }

    async fn heads(&self, convs: &[ConversationId]) -> Result<BTreeMap<ConversationId, Seq>> {
        row::heads(self.shared.all(query_as(statements::HEADS).bind(conv_keys(convs))).await?)
    }

    async fn heads_if_known(
        &self,
        token: &TokenHash,
        convs: &[ConversationId],
    ) -> Result<Option<BTreeMap<ConversationId, Seq>>> {
        self.sessions.heads.ask((*token, convs.to_vec())).await
    }

    async fn snapshots(&self, convs: &[ConversationId]) -> Result<Vec<Snapshot>> {
        let (mut pairs, mut groups) = (Vec::new(), Vec::new());
        for conv in convs {
            match conv.parse() {
                Conversation::Direct(low, high) => {
                    pairs.push((conv.key(), low.number(), high.number()));
                    pairs.push((conv.key(), high.number(), low.number()));
                }
                Conversation::Group(group) => groups.push((conv.key(), group.number())),
                Conversation::Notices(_) => {}
            }
        }
        let groups = json(&groups);
        let query = query_as(statements::SNAPSHOTS)
            .bind(conv_keys(convs))
            .bind(json(&pairs))
            .bind(groups.clone())
            .bind(groups);
        let mut found: BTreeMap<_, _> =
            convs.iter().map(|conv| (*conv, (Seq::ZERO, Rights::empty(*conv)))).collect();
        let rows: Vec<(i64, i64, i64, i64, i64, String)> = self.shared.all(query).await?;
        for (what, key, number, second, third, title) in rows {
            let conv = row::conv(key)?;
            let Some((head, rights)) = found.get_mut(&conv) else { continue };
            match (what, rights) {
                (0, _) => *head = row::seq(number)?,
                (1, Rights::Direct(rights)) => {
                    rights.friends |= second != 0;
                    let low =
                        matches!(conv.parse(), Conversation::Direct(low, _) if low == row::user(number)?);
                    *(if low { &mut rights.low_blocks } else { &mut rights.high_blocks }) = third != 0;
                }
                (2, Rights::Group(rights)) => {
                    rights.members.insert(row::user(number)?, role(second));
                }
                (3, Rights::Group(rights)) => rights.title = title,
                _ => {}
            }
        }
        Ok(convs
            .iter()
            .map(|conv| {
                let (head, rights) = found[conv].clone();
                Snapshot { conv: *conv, head, rights }
            })
            .collect())
    }

    async fn entries(
        &self,
        conv: ConversationId,
        after: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>> {
        let query = query_as(statements::ENTRIES).bind(conv.key()).bind(id(after.0)).bind(id(limit as u64));
        let rows: Vec<EntryRow> = self.shared.all(query).await?;
        let mut page = rows.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
        page.truncate(within_bytes(page.iter(), bytes_max));
        Ok(page)
    }

    async fn entries_before(
        &self,
        conv: ConversationId,
        from: Seq,
        before: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>> {
        let query = query_as(statements::ENTRIES_BEFORE)
            .bind(conv.key())
            .bind(id(from.0))
            .bind(id(before.0))
            .bind(id(limit as u64));
        let rows: Vec<EntryRow> = self.shared.all(query).await?;
        let mut page = rows.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
        page.truncate(within_bytes(page.iter(), bytes_max));
        page.reverse();
        Ok(page)
    }

    async fn now(&self) -> Result<UnixMillis> {
        let row: Option<(UnixMillis,)> = self.shared.optional(query_as(statements::NOW)).await?;
        row.map(|(now,)| now).ok_or_else(|| StoreError::Corrupt("the database does not tell the time".into()))
    }

    async fn advanced(&self, since: UnixMillis, limit: usize) -> Result<Advanced> {
        let query = query_as(statements::ADVANCED)
            .bind(since.clamp(0, TIME_MAX))
            .bind(id(RECENT_MAX as u64))
            .bind(id(limit as u64 + 1));
        let mut rows: Vec<(i64, i64, i64, i64)> = self.shared.all(query).await?;
        let Some(at) = rows.iter().position(|(conv, ..)| *conv == 0) else {
            return Err(StoreError::Corrupt("the database does not tell the time".into()));
        };
        let (_, _, now, _) = rows.swap_remove(at);
        let read: i64 = rows.iter().map(|(_, _, _, read)| read).sum();
        let truncated = rows.len() > limit || read >= signed(RECENT_MAX as u64);
        let latest = rows.iter().map(|(_, _, at, _)| *at).max();
        // All heads are compared after a look that found too much: the next one need not find the rest of it.
        let until = if truncated { now } else { latest.unwrap_or(since).max(since) };
        let heads = rows.into_iter().take(limit);
        let heads =
            heads.map(|(conv, seq, ..)| Ok((row::conv(conv)?, row::seq(seq)?))).collect::<Result<_>>()?;
        Ok(Advanced { until, heads, truncated })
    }

    async fn opening(&self, token: &TokenHash, named: &[ConversationId]) -> Result<Option<Opening>> {
        self.sessions.openings.ask((*token, named.to_vec())).await?
    }

    async fn periods_in(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Period>> {
        let (mut peers, mut groups) = (BTreeSet::new(), BTreeSet::new());
        for conv in convs {
            match conv.parse() {
                Conversation::Direct(..) => {
                    peers.extend(conv.peer_of(user).map(|peer| (user.number(), peer.number())));
                }
                Conversation::Group(group) => {
                    groups.insert((user.number(), group.number()));
                }
                Conversation::Notices(_) => {}
            }
        }
        let query = query_as(statements::PERIODS_IN).bind(json(&peers)).bind(json(&groups));
        let rows: Vec<PeriodRow> = self.shared.all(query).await?;
        row::periods(user, rows)
    }

    async fn set_delivered(&self, cursors: &[(UserId, ConversationId, Seq)]) -> Result<()> {
        if cursors.is_empty() {
            return Ok(());
        }
        let text = statements::set_delivered(cursors);
        self.insist(&text.into_sql()).await
    }

    async fn friends(&self, user: UserId, after: u64, limit: usize) -> Result<Vec<FriendRow>> {
        let query =
            query_as(statements::FRIENDS).bind(id(user.number())).bind(id(after)).bind(id(limit as u64));
        let rows: Vec<(i64, String, bool, bool)> = self.shared.all(query).await?;
        let rows = rows.into_iter();
        rows.map(|(peer, name, friend, blocked)| {
            Ok(FriendRow { peer: row::user(peer)?, name, friend, blocked })
        })
        .collect()
    }

    async fn groups(&self, user: UserId, after: u64, limit: usize) -> Result<Vec<GroupInfo>> {
        let query =
            query_as(statements::GROUPS).bind(id(user.number())).bind(id(after)).bind(id(limit as u64));
        let rows: Vec<(i64, String, String, i64, i64)> = self.shared.all(query).await?;
        let rows = rows.into_iter();
        rows.map(|(group, name, description, number, members)| {
            let members = u64::try_from(members).unwrap_or_default();
            Ok(GroupInfo { group: row::group(group)?, name, description, role: role(number), members })
        })
        .collect()
    }

    async fn members(
        &self,
        group: GroupId,
        reader: UserId,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<MemberRow>>> {
        let query = query_as(statements::MEMBERS)
            .bind(id(group.number()))
            .bind(id(reader.number()))
            .bind(id(group.number()))
            .bind(id(after))
            .bind(id(limit as u64));
        let rows: Vec<(i64, String, i64)> = self.shared.all(query).await?;
        if !rows.iter().any(|(user, ..)| *user == 0) {
            return Ok(None);
        }
        let rows = rows.into_iter().filter(|(user, ..)| *user != 0);
        let rows = rows
            .map(|(user, name, number)| Ok(MemberRow { user: row::user(user)?, name, role: role(number) }));
        rows.collect::<Result<_>>().map(Some)
    }

    async fn counts(&self, user: UserId) -> Result<Counts> {
        let query = query_as(statements::COUNTS).bind(id(user.number())).bind(id(user.number()));
        let (friends, groups): (i64, i64) = self.shared.optional(query).await?.unwrap_or_default();
        Ok(Counts {
            friends: u64::try_from(friends).unwrap_or_default(),
            groups: u64::try_from(groups).unwrap_or_default(),
        })
    }

    async fn expired(&self) -> Result<Option<Mark>> {
        let row: Option<(i64, i64, i64)> = self.shared.optional(query_as(statements::EXPIRED)).await?;
        row.map(row::mark).transpose()
    }

    async fn expire(&self, after: Option<Mark>, before: UnixMillis, limit: usize) -> Result<Expired> {
        self.expire_some(after, before, limit).await
    }

    async fn erase(
        &self,
        conv: ConversationId,
        user: UserId,
        from: ClientMsgId,
        limit: usize,
    ) -> Result<Erased> {
        self.erase_some(conv, user, from, limit).await
    }

    async fn rename_in(&self, conv: ConversationId, seq: Seq, body: &EntryBody) -> Result<()> {
        self.write_name_in(conv, seq, body).await
    }

    async fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>> {
        self.conversations_above(user, after, limit).await
    }

    async fn users(&self, from: &UsersFrom, limit: usize) -> Result<Vec<UserRow>> {
        let query = match from {
            UsersFrom::Number(from) => query_as(statements::USERS_BY_NUMBER).bind(id(*from)),
            UsersFrom::Name(from) => query_as(statements::USERS_BY_NAME).bind(from),
        };
        let rows: Vec<_> = self.shared.all(query.bind(id(limit as u64))).await?;
        rows.into_iter().map(row::user_row).collect()
    }

    async fn trace(&self, conv: ConversationId, seq: Seq) -> Result<Option<Trace>> {
        let at = id(seq.0);
        let query = query_as(statements::COMMITTED_AT).bind(conv.key()).bind(at);
        let Some((committed_at,)): Option<(i64,)> = self.shared.optional(query).await? else {
            return Ok(None);
        };
        let query = match conv.parse() {
            Conversation::Direct(low, high) => {
                let pairs = [(low.number(), high.number()), (high.number(), low.number())];
                query_as(statements::READERS_OF_DIRECT).bind(json(&pairs)).bind(conv.key()).bind(at)
            }
            Conversation::Group(group) => query_as(statements::READERS_OF_GROUP)
                .bind(conv.key())
                .bind(id(group.number()))
                .bind(at)
                .bind(at),
            Conversation::Notices(owner) => {
                query_as(statements::READER_OF_NOTICES).bind(conv.key()).bind(id(owner.number()))
            }
        };
        let rows: Vec<(i64, String, i64)> = self.shared.all(query).await?;
        Ok(Some(Trace { committed_at, readers: row::readers(rows)? }))
    }

    fn on_change(&self, listener: Listener) {
        self.logs.identity().listen(listener);
    }

    async fn close(&self) {
        self.sessions.tasks.close().await;
        self.logs.close().await;
        self.shared.close().await;
    }
}

/// What the server gives as unsigned.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
