//! Embedded SQLite: the default store, of one node that runs alone.
//!
//! One connection writes, some read (write-ahead log). `synchronous=FULL`: what was acknowledged survives a loss of power on a disk that
//! honours flushes. A lock file beside the database keeps a second node out.

mod backup;
mod connections;
mod erase;
mod open;
mod pages;
mod rows;
mod sessions;
mod sql;

use std::{collections::BTreeMap, fs::File, sync::Arc};

use async_trait::async_trait;
use protocol::{
    ClientMsgId, ConversationId, Entry, EntryBody, GroupId, Seq, UnixMillis, UserId,
    message::{Account, GroupInfo, Role},
};
use sqlx::{AssertSqlSafe, SqliteConnection};

use self::connections::Connections;
pub use self::{
    backup::{BackupError, backup, restore},
    open::OpenError,
};
use super::{
    AccountRecord, Advanced, Change, Counts, Effect, Erased, Expired, FriendRow, GroupOutcome, KnownGroup,
    Mark, MemberRow, MidKey, NewEntry, NewGroup, NewUser, Opening, Outcome, Period, RegisterOutcome,
    Resolved, Result, Snapshot, Store, StoreError, TokenHash, TokenRecord, Trace, UserRow, UsersFrom, record,
    renumber,
    row::{self, entry, id, json_keys, role},
    within_bytes,
};
use crate::rights::{DirectRights, GroupRights, Rights};

/// A store in an SQLite file, or in memory.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Arc<Connections>,
    readers: Arc<Connections>,
    pages: Arc<Connections>,
    /// Held locked as long as the store lives.
    _lock: Option<File>,
}

impl SqliteStore {
    async fn insert_entries(to: &mut SqliteConnection, entries: &[NewEntry]) -> sqlx::Result<Outcome> {
        const HEAD: &str = "insert into entry (conversation, seq, sender, mid, kind, at, body) values ";
        const ROW: &str = "(?,?,?,?,?,?,?)";
        if entries.is_empty() {
            return Ok(Outcome::Committed);
        }
        let mut sql = String::with_capacity(HEAD.len() + (ROW.len() + 1) * entries.len());
        sql.push_str(HEAD);
        for at in 0..entries.len() {
            sql.push_str(if at == 0 { "" } else { "," });
            sql.push_str(ROW);
        }
        // Nothing but the number of rows varies.
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for entry in entries {
            let (kind, text) = record::encode(&entry.body);
            query = query
                .bind(entry.conv.key())
                .bind(id(entry.seq.0))
                .bind(id(entry.from.number()))
                .bind(entry.mid.0.to_vec())
                .bind(i64::from(kind))
                .bind(entry.at)
                .bind(text.into_owned());
        }
        match query.execute(to).await {
            Ok(_) => Ok(Outcome::Committed),
            Err(error) if is_conflict(&error) => Ok(Outcome::Conflict),
            Err(error) => Err(error),
        }
    }
}

fn is_conflict(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

#[async_trait]
impl Store for SqliteStore {
    async fn deployment(&self) -> Result<[u8; 16]> {
        let (id,): (Vec<u8>,) = self.readers.one(sqlx::query_as("select id from deployment")).await?;
        id.try_into().map_err(|_| StoreError::Corrupt("the deployment's id has not 16 bytes".into()))
    }

    async fn register(&self, user: &NewUser) -> Result<RegisterOutcome> {
        let query = sqlx::query(
            "insert into user (name, name_key, password_hash, register_mid, created_at) values (?, ?, ?, ?, ?)",
        )
        .bind(&user.name)
        .bind(&user.name_key)
        .bind(&user.password_hash)
        .bind(user.mid.0.to_vec())
        .bind(user.at);
        let done = self.writer.execute(query).await;
        match done {
            Ok(done) => Ok(RegisterOutcome::Created(row::user(done.last_insert_rowid())?)),
            Err(error) if is_conflict(&error) => Ok(RegisterOutcome::Conflict),
            Err(error) => Err(error.into()),
        }
    }

    async fn registered_with(&self, mid: ClientMsgId) -> Result<Option<AccountRecord>> {
        let query = sqlx::query_as("select id, name, password_hash from user where register_mid = ?")
            .bind(mid.0.to_vec());
        let row = self.readers.optional(query).await?;
        row.map(row::account).transpose()
    }

    async fn account(&self, account: &Account) -> Result<Option<AccountRecord>> {
        let query = match account {
            Account::Number(user) => sqlx::query_as("select id, name, password_hash from user where id = ?")
                .bind(id(user.number())),
            Account::Name(key) => {
                sqlx::query_as("select id, name, password_hash from user where name_key = ?").bind(key)
            }
        };
        self.readers.optional(query).await?.map(row::account).transpose()
    }

    async fn user_name(&self, user: UserId) -> Result<Option<String>> {
        let query = sqlx::query_as("select name from user where id = ?").bind(id(user.number()));
        let row: Option<(String,)> = self.readers.optional(query).await?;
        Ok(row.map(|(name,)| name))
    }

    async fn rehash(&self, user: UserId, from: &str, to: &str) -> Result<bool> {
        let query = sqlx::query("update user set password_hash = ?3 where id = ?1 and password_hash = ?2")
            .bind(id(user.number()))
            .bind(from)
            .bind(to);
        let done = self.writer.execute(query).await?;
        Ok(done.rows_affected() > 0)
    }

    async fn add_token(
        &self,
        hash: &TokenHash,
        user: UserId,
        verified: &str,
        expires_at: UnixMillis,
        keep: usize,
    ) -> Result<Option<Opening>> {
        sessions::add_token(&self.writer, (hash, user, expires_at), verified, keep).await?;
        sessions::opening(&self.readers, hash, &[]).await
    }

    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>> {
        let query = sqlx::query_as(
            "select u.id, u.name, t.expires_at from token t join user u on u.id = t.user_id where t.hash = ?",
        )
        .bind(hash.to_vec());
        self.readers.optional(query).await?.map(row::token).transpose()
    }

    async fn remove_token(&self, hash: &TokenHash) -> Result<()> {
        let query = sqlx::query("delete from token where hash = ?").bind(hash.to_vec());
        self.writer.execute(query).await?;
        Ok(())
    }

    async fn append(&self, entries: &[NewEntry]) -> Result<Outcome> {
        let mut writer = self.writer.lease().await?;
        let done = Self::insert_entries(&mut writer, entries).await;
        Ok(writer.end(done)?)
    }

    async fn append_after(&self, known: Seq, entries: &[NewEntry]) -> Result<Option<Seq>> {
        let Some(first) = entries.first() else { return Ok(Some(known.next())) };
        let mut writer = self.writer.lease().await?;
        let mut tx = writer.begin_immediate().await?;
        let (head, allowed): (i64, bool) = sqlx::query_as(
            "select coalesce((select max(seq) from entry where conversation = ?1), 0), \
             not exists (select 1 from entry where conversation = ?1 and seq > ?2 and kind >= ?3)",
        )
        .bind(first.conv.key())
        .bind(id(known.0))
        .bind(i64::from(record::FIRST_RIGHTS_KIND))
        .fetch_one(&mut *tx)
        .await?;
        let entries = renumber(entries, row::seq(head)?);
        if !allowed || Self::insert_entries(&mut tx, &entries).await? == Outcome::Conflict {
            tx.rollback().await?;
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(entries[0].seq))
    }

    async fn apply(&self, change: &Change) -> Result<Outcome> {
        let mut writer = self.writer.lease().await?;
        let mut tx = writer.begin_immediate().await?;
        if Self::insert_entries(&mut tx, &change.entries).await? == Outcome::Conflict {
            tx.rollback().await?;
            return Ok(Outcome::Conflict);
        }
        for effect in &change.effects {
            sql::effect(&mut tx, effect).await?;
        }
        tx.commit().await?;
        Ok(Outcome::Committed)
    }

    async fn created_with(&self, creator: UserId, mid: ClientMsgId) -> Result<Option<KnownGroup>> {
        let row = self.readers.optional(sql::created_with(creator, mid)).await?;
        row.map(sql::known_group).transpose()
    }

    async fn create_group(&self, new: &NewGroup) -> Result<GroupOutcome> {
        let mut writer = self.writer.lease().await?;
        let mut tx = writer.begin_immediate().await?;
        if let Some(row) = sql::created_with(new.creator, new.mid).fetch_optional(&mut *tx).await? {
            return Ok(GroupOutcome::Known(sql::known_group(row)?));
        }
        let done = sqlx::query(
            "insert into chat_group (name, description, creator_id, mid, created_at) values (?, ?, ?, ?, ?)",
        )
        .bind(&new.name)
        .bind(&new.description)
        .bind(id(new.creator.number()))
        .bind(new.mid.0.to_vec())
        .bind(new.at)
        .execute(&mut *tx)
        .await?;
        let group = row::group(done.last_insert_rowid())?;
        if Self::insert_entries(&mut tx, &new.entries(group)).await? == Outcome::Conflict {
            tx.rollback().await?;
            return Ok(GroupOutcome::Conflict);
        }
        let effect = Effect::BeginMembership { group, user: new.creator, role: Role::Creator, from: Seq(1) };
        sql::effect(&mut tx, &effect).await?;
        tx.commit().await?;
        Ok(GroupOutcome::Created(group))
    }

    async fn resolve(&self, keys: &[MidKey], convs: &[ConversationId]) -> Result<Resolved> {
        let query = sqlx::query_as(
            "select e.conversation, e.seq, e.at, e.sender, u.name, e.mid, e.kind, e.body from json_each(?) k \
             cross join entry e on e.conversation = k.value ->> 0 and e.sender = k.value ->> 1 \
             and e.mid = unhex(k.value ->> 2) join user u on u.id = e.sender",
        )
        .bind(json_keys(keys));
        let rows: Vec<row::EntryRow> = self.readers.all(query).await?;
        let known = rows.into_iter().map(entry).collect::<Result<_>>()?;
        Ok(Resolved { known, heads: self.heads(convs).await? })
    }

    async fn heads(&self, convs: &[ConversationId]) -> Result<BTreeMap<ConversationId, Seq>> {
        sessions::heads(&self.readers, convs).await
    }

    async fn heads_if_known(
        &self,
        token: &TokenHash,
        convs: &[ConversationId],
    ) -> Result<Option<BTreeMap<ConversationId, Seq>>> {
        sessions::heads_if_known(&self.readers, token, convs).await
    }

    async fn snapshots(&self, convs: &[ConversationId]) -> Result<Vec<Snapshot>> {
        // One transaction: heads and side rows are of one moment.
        let mut reader = self.readers.lease().await?;
        let mut tx = reader.begin().await?;
        let mut snapshots = Vec::with_capacity(convs.len());
        for conv in convs {
            snapshots.push(sql::snapshot(&mut tx, *conv).await?);
        }
        tx.commit().await?;
        Ok(snapshots)
    }

    async fn entries(
        &self,
        conv: ConversationId,
        after: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>> {
        pages::after(&self.pages, conv, after, limit, bytes_max).await
    }

    async fn entries_before(
        &self,
        conv: ConversationId,
        from: Seq,
        before: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>> {
        pages::before(&self.pages, conv, from, before, limit, bytes_max).await
    }

    async fn now(&self) -> Result<UnixMillis> {
        let query = sqlx::query_as("select cast(unixepoch('subsec') * 1000 as integer)");
        let (now,): (i64,) = self.readers.one(query).await?;
        Ok(now)
    }

    async fn advanced(&self, since: UnixMillis, limit: usize) -> Result<Advanced> {
        let query = sqlx::query_as(
            "select conversation, max(seq), max(committed_at) from entry indexed by entry_committed \
             where committed_at >= ? group by conversation limit +?",
        )
        .bind(since)
        .bind(id(limit as u64 + 1));
        let rows: Vec<(i64, i64, i64)> = self.readers.all(query).await?;
        let truncated = rows.len() > limit;
        let until = rows.iter().map(|(_, _, at)| *at).max().unwrap_or(since).max(since);
        let heads = rows.into_iter().take(limit);
        let heads =
            heads.map(|(conv, seq, _)| Ok((row::conv(conv)?, row::seq(seq)?))).collect::<Result<_>>()?;
        Ok(Advanced { until, heads, truncated })
    }

    async fn opening(&self, token: &TokenHash, named: &[ConversationId]) -> Result<Option<Opening>> {
        sessions::opening(&self.readers, token, named).await
    }

    async fn periods_in(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Period>> {
        let (mut peers, mut groups) = (Vec::new(), Vec::new());
        for conv in convs {
            match conv.parse() {
                protocol::Conversation::Direct(..) => peers.extend(conv.peer_of(user).map(UserId::number)),
                protocol::Conversation::Group(group) => groups.push(group.number()),
                protocol::Conversation::Notices(_) => {}
            }
        }
        let query = sqlx::query_as(sql::PERIODS_IN)
            .bind(id(user.number()))
            .bind(row::numbers(&peers))
            .bind(row::numbers(&groups));
        let rows = self.readers.all(query).await?;
        row::periods(user, rows)
    }

    async fn set_delivered(&self, cursors: &[(UserId, ConversationId, Seq)]) -> Result<()> {
        let rows: Vec<_> =
            cursors.iter().map(|(user, conv, seq)| (user.number(), conv.key(), seq.0)).collect();
        let query = sqlx::query(
            "insert into delivered (user_id, conversation, seq) \
             select c.value ->> 0, c.value ->> 1, c.value ->> 2 from json_each(?) c where true \
             on conflict do update set seq = max(seq, excluded.seq)",
        )
        .bind(row::json(&rows));
        self.writer.execute(query).await?;
        Ok(())
    }

    async fn friends(&self, user: UserId, after: u64, limit: usize) -> Result<Vec<FriendRow>> {
        let query = sqlx::query_as(
            "select f.peer_id, u.name, f.friend, f.blocked from friend f join user u on u.id = f.peer_id \
             where f.user_id = ? and f.peer_id > ? and (f.friend or f.blocked) order by f.peer_id limit +?",
        )
        .bind(id(user.number()))
        .bind(id(after))
        .bind(id(limit as u64));
        let rows: Vec<(i64, String, bool, bool)> = self.pages.all(query).await?;
        let rows = rows.into_iter();
        rows.map(|(peer, name, friend, blocked)| {
            Ok(FriendRow { peer: row::user(peer)?, name, friend, blocked })
        })
        .collect()
    }

    async fn groups(&self, user: UserId, after: u64, limit: usize) -> Result<Vec<GroupInfo>> {
        let query = sqlx::query_as(
            "select g.id, g.name, g.description, m.role, \
             (select count(*) from membership o where o.group_id = g.id and o.until_seq is null) \
             from membership m join chat_group g on g.id = m.group_id \
             where m.user_id = ? and m.group_id > ? and m.until_seq is null order by m.group_id limit +?",
        )
        .bind(id(user.number()))
        .bind(id(after))
        .bind(id(limit as u64));
        let rows: Vec<(i64, String, String, i64, i64)> = self.pages.all(query).await?;
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
        let mut lease = self.pages.lease().await?;
        let mut tx = lease.begin().await?;
        let Rights::Group(rights) = sql::snapshot(&mut tx, ConversationId::group(group)).await?.rights else {
            return Ok(None);
        };
        if !rights.members.contains_key(&reader) {
            return Ok(None);
        }
        let rows: Vec<(i64, String, i64)> = sqlx::query_as(
            "select m.user_id, u.name, m.role from membership m join user u on u.id = m.user_id \
             where m.group_id = ? and m.user_id > ? and m.until_seq is null order by m.user_id limit +?",
        )
        .bind(id(group.number()))
        .bind(id(after))
        .bind(id(limit as u64))
        .fetch_all(&mut *tx)
        .await?;
        let rows = rows.into_iter();
        let rows = rows
            .map(|(user, name, number)| Ok(MemberRow { user: row::user(user)?, name, role: role(number) }));
        rows.collect::<Result<_>>().map(Some)
    }

    async fn counts(&self, user: UserId) -> Result<Counts> {
        let query = sqlx::query_as(
            "select (select count(*) from friend where user_id = ?1 and (friend or blocked)), \
             (select count(*) from membership where user_id = ?1 and until_seq is null)",
        )
        .bind(id(user.number()));
        let (friends, groups): (i64, i64) = self.readers.one(query).await?;
        Ok(Counts {
            friends: u64::try_from(friends).unwrap_or_default(),
            groups: u64::try_from(groups).unwrap_or_default(),
        })
    }

    async fn expired(&self) -> Result<Option<Mark>> {
        let row: Option<(i64, i64, i64)> = self.readers.optional(sqlx::query_as(erase::EXPIRED)).await?;
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
            UsersFrom::Number(from) => sqlx::query_as(sql::USERS_BY_NUMBER).bind(id(*from)),
            UsersFrom::Name(from) => sqlx::query_as(sql::USERS_BY_NAME).bind(from),
        };
        let rows: Vec<_> = self.readers.all(query.bind(id(limit as u64))).await?;
        rows.into_iter().map(row::user_row).collect()
    }

    async fn trace(&self, conv: ConversationId, seq: Seq) -> Result<Option<Trace>> {
        let mut reader = self.readers.lease().await?;
        let mut tx = reader.begin().await?;
        sql::trace(&mut tx, conv, seq).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.pages.close().await;
        self.writer.close().await;
    }
}
