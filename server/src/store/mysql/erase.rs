//! Erasing.

use protocol::{ClientMsgId, ConversationId, EntryBody, Seq, UnixMillis, UserId};
use sqlx::query_as;

use super::{
    Failure, MySqlStore, TIME_MAX, TRIES,
    statements::{self, Place},
};
use crate::store::{
    Erased, Expired, Mark, Result, after_parts, following, record,
    row::{self, id},
};

impl MySqlStore {
    pub(super) async fn expire_some(
        &self,
        after: Option<Mark>,
        before: UnixMillis,
        limit: usize,
    ) -> Result<Expired> {
        let after = after.map_or((0, 0, 0), |mark| (mark.at, mark.conv.key(), id(mark.seq.0)));
        let query = query_as(statements::COMMITTED)
            .bind(after.0)
            .bind(before.clamp(0, TIME_MAX))
            .bind(after.0)
            .bind(after.1)
            .bind(after.1)
            .bind(after.2)
            .bind(id(limit as u64));
        let looked: Vec<(i64, i64, i64, i64)> = self.shared.all(query).await?;
        let Some((at, conv, seq, _)) = looked.last().copied() else { return Ok(Expired::default()) };
        let last = row::mark((at, conv, seq))?;
        let messages = messages(looked.iter().map(|(_, conv, seq, kind)| (*conv, *seq, *kind)));
        let erased = self.rewrite(&messages, Some(last)).await?;
        Ok(Expired { erased, reached: (looked.len() == limit).then_some(last) })
    }

    pub(super) async fn erase_some(
        &self,
        conv: ConversationId,
        user: UserId,
        from: ClientMsgId,
        limit: usize,
    ) -> Result<Erased> {
        let query = query_as(statements::OF_USER)
            .bind(conv.key())
            .bind(id(user.number()))
            .bind(from.0.to_vec())
            .bind(id(limit as u64));
        let looked: Vec<(Vec<u8>, i64, i64)> = self.shared.all(query).await?;
        let messages = messages(looked.iter().map(|(_, seq, kind)| (conv.key(), *seq, *kind)));
        let erased = if messages.is_empty() { 0 } else { self.rewrite(&messages, None).await? };
        let last = looked.last().filter(|_| looked.len() == limit);
        let last = last.map(|(mid, ..)| row::mid(mid.clone())).transpose()?;
        Ok(Erased { erased, next: last.and_then(following) })
    }

    pub(super) async fn write_name_in(&self, conv: ConversationId, seq: Seq, body: &EntryBody) -> Result<()> {
        self.insist(&statements::rename_in(conv, seq, body).into_sql()).await
    }

    pub(super) async fn conversations_above(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>> {
        let (group, peer) = after_parts(user, after);
        let query = query_as(statements::CONVERSATIONS)
            .bind(id(user.number()))
            .bind(id(group))
            .bind(id(limit as u64))
            .bind(id(user.number()))
            .bind(id(peer))
            .bind(id(limit as u64));
        row::conversations(user, self.shared.all(query).await?, limit)
    }

    /// Erases messages, and says how far that was. In one transaction, so that nobody goes on from where nothing was done.
    async fn rewrite(&self, messages: &[Place], reached: Option<Mark>) -> Result<u64> {
        let text = statements::erase(messages, reached).into_sql();
        for _ in 0..TRIES {
            if let Some((erased, _)) = self.shared.transaction_of_two_numbers(text.clone()).await? {
                return Ok(u64::try_from(erased).unwrap_or_default());
            }
        }
        Err(Failure::Conflict.into())
    }
}

/// Of entries with their kinds, the messages: in key order, as every node does it, so that they wait for each other in turn.
fn messages(places: impl Iterator<Item = (i64, i64, i64)>) -> Vec<Place> {
    let messages = places.filter(|(.., kind)| *kind == i64::from(record::MESSAGE));
    let mut messages: Vec<_> = messages.map(|(conv, seq, _)| (conv, seq)).collect();
    messages.sort_unstable();
    messages
}
