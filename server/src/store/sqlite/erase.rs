//! Erasing.

use protocol::{ClientMsgId, ConversationId, EntryBody, Seq, UnixMillis, UserId};
use sqlx::SqliteConnection;

use super::{
    super::{Erased, Expired, Mark, Result, after_parts, following, record},
    SqliteStore,
    row::{self, id, json},
};

/// The furthest that messages were expired to.
pub(super) const EXPIRED: &str = "select at, conversation, seq from retention where conversation > 0";

/// Entries in the order of their commits: those after a place that were committed before a time.
pub(super) const COMMITTED: &str = "\
    select committed_at, conversation, seq, kind from entry indexed by entry_committed \
    where (committed_at, conversation, seq) > (?, ?, ?) and committed_at < ? \
    order by committed_at, conversation, seq limit +?";

/// A user's entries in one log, by message id.
pub(super) const OF_USER: &str = "\
    select mid, seq, kind from entry where conversation = ? and sender = ? and mid >= ? order by mid limit +?";

/// Erases the messages among these entries.
pub(super) const ERASE: &str = "\
    update entry set kind = ?1, body = '' where kind = ?2 \
    and (conversation, seq) in (select value ->> 0, value ->> 1 from json_each(?3))";

/// The groups and then the other users with whom a user has or had a conversation.
pub(super) const CONVERSATIONS: &str = "\
    select * from (select group_id, 0 from membership where user_id = ?1 and group_id > ?2 group by group_id \
        order by group_id limit +?4) \
    union all \
    select * from (select 0, peer_id from friend where user_id = ?1 and peer_id > ?3 order by peer_id limit +?4)";

impl SqliteStore {
    pub(super) async fn expire_some(
        &self,
        after: Option<Mark>,
        before: UnixMillis,
        limit: usize,
    ) -> Result<Expired> {
        let after = after.map_or((i64::MIN, 0, 0), |mark| (mark.at, mark.conv.key(), id(mark.seq.0)));
        let mut writer = self.writer.lease().await?;
        let mut tx = writer.begin_immediate().await?;
        let looked: Vec<(i64, i64, i64, i64)> = sqlx::query_as(COMMITTED)
            .bind(after.0)
            .bind(after.1)
            .bind(after.2)
            .bind(before)
            .bind(id(limit as u64))
            .fetch_all(&mut *tx)
            .await?;
        let places = looked.iter().map(|(_, conv, seq, kind)| (*conv, *seq, *kind));
        let erased = erase_texts(&mut tx, places).await?;
        let Some((at, conv, seq, _)) = looked.last().copied() else { return Ok(Expired::default()) };
        sqlx::query(
            "update retention set at = ?1, conversation = ?2, seq = ?3 \
             where conversation = 0 or (at, conversation, seq) < (?1, ?2, ?3)",
        )
        .bind(at)
        .bind(conv)
        .bind(seq)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        let mark = row::mark((at, conv, seq))?;
        Ok(Expired { erased, reached: (looked.len() == limit).then_some(mark) })
    }

    pub(super) async fn erase_some(
        &self,
        conv: ConversationId,
        user: UserId,
        from: ClientMsgId,
        limit: usize,
    ) -> Result<Erased> {
        let mut writer = self.writer.lease().await?;
        let mut tx = writer.begin_immediate().await?;
        let looked: Vec<(Vec<u8>, i64, i64)> = sqlx::query_as(OF_USER)
            .bind(conv.key())
            .bind(id(user.number()))
            .bind(from.0.to_vec())
            .bind(id(limit as u64))
            .fetch_all(&mut *tx)
            .await?;
        let places = looked.iter().map(|(_, seq, kind)| (conv.key(), *seq, *kind));
        let erased = erase_texts(&mut tx, places).await?;
        tx.commit().await?;
        let last = looked.last().filter(|_| looked.len() == limit);
        let last = last.map(|(mid, ..)| row::mid(mid.clone())).transpose()?;
        Ok(Erased { erased, next: last.and_then(following) })
    }

    pub(super) async fn write_name_in(&self, conv: ConversationId, seq: Seq, body: &EntryBody) -> Result<()> {
        let (kind, text) = record::encode(body);
        let query = sqlx::query("update entry set body = ? where conversation = ? and seq = ? and kind = ?")
            .bind(text.into_owned())
            .bind(conv.key())
            .bind(id(seq.0))
            .bind(i64::from(kind));
        self.writer.execute(query).await?;
        Ok(())
    }

    pub(super) async fn conversations_above(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>> {
        let (group, peer) = after_parts(user, after);
        let query = sqlx::query_as(CONVERSATIONS)
            .bind(id(user.number()))
            .bind(id(group))
            .bind(id(peer))
            .bind(id(limit as u64));
        let rows: Vec<(i64, i64)> = self.readers.all(query).await?;
        row::conversations(user, rows, limit)
    }
}

/// Of these entries, each with its kind, erases the messages; how many.
async fn erase_texts(
    to: &mut SqliteConnection,
    places: impl Iterator<Item = (i64, i64, i64)>,
) -> Result<u64> {
    let messages = places.filter(|(.., kind)| *kind == i64::from(record::MESSAGE));
    let messages: Vec<_> = messages.map(|(conv, seq, _)| (conv, seq)).collect();
    if messages.is_empty() {
        return Ok(0);
    }
    let done = sqlx::query(ERASE)
        .bind(i64::from(record::ERASED))
        .bind(i64::from(record::MESSAGE))
        .bind(json(&messages))
        .execute(to)
        .await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::*;

    /// What is looked for among all entries is found by a key, in its order.
    #[tokio::test]
    async fn no_table_is_read_to_find_what_to_erase() {
        let store = SqliteStore::in_memory().await.unwrap();
        let statements = [
            (COMMITTED, "SEARCH entry USING INDEX entry_committed ("),
            (OF_USER, "SEARCH entry USING INDEX sqlite_autoindex_entry_"),
            (ERASE, "SEARCH entry USING PRIMARY KEY (conversation=? AND seq=?)"),
            (CONVERSATIONS, "SEARCH membership USING PRIMARY KEY (user_id=? AND group_id>?)"),
            (CONVERSATIONS, "SEARCH friend USING PRIMARY KEY (user_id=? AND peer_id>?)"),
        ];
        for (sql, expected) in statements {
            let query = sqlx::query_as(AssertSqlSafe(format!("explain query plan {sql}")));
            let rows: Vec<(i64, i64, i64, String)> = store.writer.all(query).await.unwrap();
            let plan: Vec<_> = rows.into_iter().map(|(.., detail)| detail).collect();
            assert!(plan.iter().any(|step| step.starts_with(expected)), "{sql}: {plan:#?}");
            let bad = |step: &String| {
                step.contains("TEMP B-TREE")
                    || ["entry", "membership", "friend"]
                        .iter()
                        .any(|table| step.starts_with(&format!("SCAN {table}")))
            };
            assert!(!plan.iter().any(bad), "{sql}: {plan:#?}");
        }
    }
}
