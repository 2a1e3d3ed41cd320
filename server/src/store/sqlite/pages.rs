//! Pages of logs.

use protocol::{ClientMsgId, ConversationId, Entry, Seq};

use super::{
    Connections, Result, StoreError,
    row::{entry, id},
    within_bytes,
};

/// The entries of a conversation (?1) with seqs above ?2, at most ?3 of them, and after the first only while their messages' texts stay within ?4 bytes:
/// as one JSON array of arrays, in any order. One row crosses to the thread that asks, not hundreds, each of which would wake it; and texts
/// that the page has no room for are not read. Kind 1 is `record::MESSAGE`.
const AFTER: &str = "\
    select json_group_array(json_array(e.seq, e.at, e.sender, u.name, lower(hex(e.mid)), e.kind, e.body)) from \
        (select seq, size, sum(size) over (order by seq rows unbounded preceding) as bytes from \
            (select seq, iif(kind = 1, octet_length(body), 0) as size from entry \
            where conversation = ?1 and seq > ?2 order by seq limit +?3)) p \
    cross join entry e on e.conversation = ?1 and e.seq = p.seq join user u on u.id = e.sender \
    where p.bytes <= ?4 or p.bytes = p.size";

/// Likewise those from ?2 to below ?3, the newest ?4 within ?5 bytes.
const BEFORE: &str = "\
    select json_group_array(json_array(e.seq, e.at, e.sender, u.name, lower(hex(e.mid)), e.kind, e.body)) from \
        (select seq, size, sum(size) over (order by seq desc rows unbounded preceding) as bytes from \
            (select seq, iif(kind = 1, octet_length(body), 0) as size from entry \
            where conversation = ?1 and seq >= ?2 and seq < ?3 order by seq desc limit +?4)) p \
    cross join entry e on e.conversation = ?1 and e.seq = p.seq join user u on u.id = e.sender \
    where p.bytes <= ?5 or p.bytes = p.size";

/// See `Store::entries`.
pub(super) async fn after(
    readers: &Connections,
    conv: ConversationId,
    after: Seq,
    limit: usize,
    bytes_max: usize,
) -> Result<Vec<Entry>> {
    let query = sqlx::query_as(AFTER)
        .bind(conv.key())
        .bind(id(after.0))
        .bind(id(limit as u64))
        .bind(id(bytes_max as u64));
    let page = readers.one(query).await?;
    let mut entries = entries(conv, page)?;
    entries.sort_unstable_by_key(|entry| entry.seq);
    entries.truncate(within_bytes(entries.iter(), bytes_max));
    Ok(entries)
}

/// See `Store::entries_before`.
pub(super) async fn before(
    readers: &Connections,
    conv: ConversationId,
    from: Seq,
    before: Seq,
    limit: usize,
    bytes_max: usize,
) -> Result<Vec<Entry>> {
    let query = sqlx::query_as(BEFORE)
        .bind(conv.key())
        .bind(id(from.0))
        .bind(id(before.0))
        .bind(id(limit as u64))
        .bind(id(bytes_max as u64));
    let page = readers.one(query).await?;
    let mut entries = entries(conv, page)?;
    entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.seq));
    entries.truncate(within_bytes(entries.iter(), bytes_max));
    entries.reverse();
    Ok(entries)
}

/// The entries of a page, in any order.
fn entries(conv: ConversationId, (page,): (String,)) -> Result<Vec<Entry>> {
    type Row = (i64, i64, i64, String, ClientMsgId, i64, String);
    let rows: Vec<Row> = serde_json::from_str(&page)
        .map_err(|error| StoreError::Corrupt(format!("entries of {conv}: {error}")))?;
    rows.into_iter()
        .map(|(seq, at, from, name, mid, kind, body)| {
            entry((conv.key(), seq, at, from, name, mid.0.to_vec(), kind, body))
        })
        .collect()
}
