//! `history`: a log read backwards, as far as its reader was a member.

use std::sync::Arc;

use protocol::{
    Conversation, Entry, EntryBody, ErrorBody, ErrorCode, Seq, UserId,
    message::{History, HistoryPage},
};

use super::store_error;
use crate::{
    node::Node,
    store::{self, Period},
};

/// Entries in a page, unless the request says.
const LIMIT_DEFAULT: usize = 20;
/// Entries in a page at most.
const LIMIT_MAX: u32 = 100;
/// Bytes of text in a page, beyond its newest entry: a page stays below the longest line even if every byte is escaped to six.
const BYTES_MAX: usize = 64 << 10;

pub(super) async fn read(node: &Arc<Node>, user: UserId, request: History) -> Result<HistoryPage, ErrorBody> {
    let limit = match request.limit {
        None => LIMIT_DEFAULT,
        Some(limit @ 1..=LIMIT_MAX) => limit as usize,
        Some(_) => return Err(ErrorBody::field(ErrorCode::BadRequest, "limit", "1 to 100")),
    };
    page(node, user, request, limit)
        .await
        .map_err(|e| store_error(&e))?
        .ok_or(ErrorCode::NoSuchConversation.into())
}

async fn page(
    node: &Arc<Node>,
    user: UserId,
    request: History,
    limit: usize,
) -> store::Result<Option<HistoryPage>> {
    let conv = request.conv;
    // The head before the periods: up to it, the periods are certain. What is above may already be beyond their end.
    let head = node.store.heads(&[conv]).await?.get(&conv).copied().unwrap_or_default();
    let mut periods = match conv.parse() {
        Conversation::Notices(owner) if owner == user => {
            vec![Period { conv, from: Seq(1), until: None, delivered: Seq::ZERO, friend: false }]
        }
        _ => node.store.periods_in(user, &[conv]).await?,
    };
    if periods.is_empty() {
        return Ok(None);
    }
    let mut before = request.before.unwrap_or(Seq(u64::MAX)).min(head.next());
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = BYTES_MAX;
    periods.retain(|period| period.from < before);
    while let Some(period) = periods.last() {
        let end = period.until.map_or(before, |until| before.min(until.next()));
        let room = limit - entries.len();
        let mut run = node.store.entries_before(conv, period.from, end, room, bytes).await?;
        let Some(first) = run.first() else {
            periods.pop();
            continue;
        };
        let size = run.iter().map(text_bytes).sum();
        if !entries.is_empty() && size > bytes {
            break;
        }
        let whole = first.seq == period.from;
        before = first.seq;
        bytes = bytes.saturating_sub(size);
        run.append(&mut entries);
        entries = run;
        if whole {
            periods.pop();
        }
        if entries.len() >= limit || bytes == 0 || !whole {
            break;
        }
    }
    Ok(Some(HistoryPage { entries, more: !periods.is_empty() }))
}

fn text_bytes(entry: &Entry) -> usize {
    match &entry.body {
        EntryBody::Message { text } => text.len(),
        _ => 0,
    }
}
