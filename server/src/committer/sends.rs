//! Messages: many conversations in one statement.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{ConversationId, Entry, EntryBody, ErrorCode, RequestId, Seq};
use tokio::time::Instant;

use super::{CONFLICTS_MAX, OVERTAKEN_MAX, Send, Worker, code, reply};
use crate::{
    feed::{FeedCell, Line},
    outbox::{Outbox, Wakes},
    relay::Hint,
    store::{MidKey, NewEntry, Outcome, StoreError},
};

/// Messages for one statement, by conversation, each conversation's in the order they came.
pub(super) struct Batch {
    sends: Vec<Send>,
    cells: BTreeMap<ConversationId, Arc<FeedCell>>,
}

/// What is needed of a message after its entry went into the statement.
struct Rest {
    name: Arc<str>,
    outbox: Arc<Outbox>,
    id: RequestId,
}

impl Batch {
    pub(super) fn new(mut sends: Vec<Send>) -> Self {
        sends.sort_by_key(|send| send.cell.conv);
        let cells = sends.iter().map(|send| (send.cell.conv, Arc::clone(&send.cell))).collect();
        Self { sends, cells }
    }

    fn keys(&self) -> Vec<MidKey> {
        self.sends.iter().map(|send| (send.cell.conv, send.from, send.mid)).collect()
    }

    /// Takes out those whose key another one before them has.
    fn extract_repeated(&mut self) -> Vec<Send> {
        let twice = |run: &[Send]| {
            let mut keys: Vec<_> = run.iter().map(|send| (send.from, send.mid)).collect();
            keys.sort_unstable();
            keys.windows(2).any(|pair| pair[0] == pair[1])
        };
        let mut runs = self.sends.chunk_by(|a, b| a.cell.conv == b.cell.conv);
        if !runs.any(|run| run.len() > 1 && twice(run)) {
            return Vec::new();
        }
        let mut seen = BTreeSet::new();
        self.extract(|send| !seen.insert((send.cell.conv, send.from, send.mid)))
    }

    /// Takes out those of which `f` says so, and drops the feeds that are then no longer needed.
    fn extract(&mut self, mut f: impl FnMut(&Send) -> bool) -> Vec<Send> {
        let (out, stay) = std::mem::take(&mut self.sends).into_iter().partition(|send| f(send));
        *self = Self::new(stay);
        out
    }
}

/// What the attempts at a batch have come to.
#[derive(Default)]
struct Progress {
    /// Conversations whose rights were read in this attempt: their refusals are final.
    fresh: BTreeSet<ConversationId>,
    /// How often others wrote to a conversation in between.
    overtaken: BTreeMap<ConversationId, u32>,
    /// Whether this is one conversation's part, which goes after its head wherever that is.
    after_head: bool,
}

impl Worker {
    /// Commits messages and answers them. Every one is answered.
    pub(super) async fn commit_sends(&self, mut batch: Batch) {
        // The same message twice in one statement: the second is answered like the retry that it is.
        let repeated = batch.extract_repeated();
        self.commit_distinct(batch, Progress::default()).await;
        if !repeated.is_empty() {
            Box::pin(self.commit_sends(Batch::new(repeated))).await;
        }
    }

    async fn commit_distinct(&self, mut batch: Batch, mut progress: Progress) {
        let deadline = Instant::now() + self.sizes.commit_patience;
        let (mut conflicts, mut failures) = (0, 0);
        while !batch.sends.is_empty() {
            let attempt = self.attempt(&mut batch, &mut progress).await;
            match attempt {
                Ok(Outcome::Committed) => {}
                Ok(Outcome::Conflict) => {
                    conflicts += 1;
                    progress.fresh.clear();
                    if conflicts > CONFLICTS_MAX {
                        // Nothing was written, neither now nor before.
                        self.fail(batch, ErrorCode::Overloaded);
                        return;
                    }
                    self.commit_contended(&mut batch, &progress).await;
                }
                Err(error) => {
                    failures += 1;
                    progress.fresh.clear();
                    Self::forget(&batch.cells);
                    if !self.pause(&error, failures, deadline).await {
                        self.fail(batch, code(&error));
                        return;
                    }
                }
            }
        }
    }

    /// Conversations that others keep writing to leave the batch, each to be committed by itself: they hold up no other, and a
    /// node that is far from the database is not overtaken for ever.
    async fn commit_contended(&self, batch: &mut Batch, progress: &Progress) {
        if progress.after_head {
            return;
        }
        for (conv, _) in progress.overtaken.iter().filter(|(_, times)| **times >= OVERTAKEN_MAX) {
            let own = batch.extract(|send| send.cell.conv == *conv);
            let progress = Progress { after_head: true, ..Progress::default() };
            Box::pin(self.commit_distinct(Batch::new(own), progress)).await;
        }
    }

    /// One attempt: authorise, number, write, and look again if it conflicts. What is answered leaves the batch.
    async fn attempt(&self, batch: &mut Batch, progress: &mut Progress) -> Result<Outcome, StoreError> {
        progress.fresh.extend(self.load_rights(&batch.cells).await?);
        let Some((confirmed, refused)) = authorise(batch, &progress.fresh) else {
            return Ok(Outcome::Committed);
        };
        if !refused.is_empty() {
            // The look-up of the message id comes before a refusal: what happened gets its first answer.
            let keys: Vec<_> = refused.keys().copied().collect();
            let known = self.store.resolve(&keys, &[]).await?.known;
            self.answer_known(batch, &known);
            let refuse = batch.extract(|send| refused.contains_key(&(send.cell.conv, send.from, send.mid)));
            let mut wakes = Wakes::default();
            for send in refuse {
                let code = refused[&(send.cell.conv, send.from, send.mid)];
                self.metrics.refusal(code);
                reply(&send.outbox, send.id, Err(code), &mut wakes);
            }
            wakes.fire();
        }
        let entries = self.number(batch, &confirmed);
        if entries.is_empty() {
            return Ok(Outcome::Committed);
        }
        match self.write(entries, progress.after_head).await? {
            Some(entries) => {
                self.finish(batch, entries);
                Ok(Outcome::Committed)
            }
            None => {
                let resolved = self.settle(&batch.keys(), &batch.cells).await?;
                self.answer_known(batch, &resolved.known);
                for (conv, head) in resolved.heads {
                    if confirmed.get(&conv).is_some_and(|confirmed| head > *confirmed) {
                        *progress.overtaken.entry(conv).or_default() += 1;
                    }
                }
                Ok(Outcome::Conflict)
            }
        }
    }

    /// Writes entries, and counts; the entries as written, or `None` for a conflict.
    async fn write(
        &self,
        entries: Vec<NewEntry>,
        after_head: bool,
    ) -> Result<Option<Vec<NewEntry>>, StoreError> {
        let begun = Instant::now();
        let written = self.write_in_place(entries, after_head).await?;
        let metrics = &self.metrics;
        metrics.batches.inc();
        metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        match &written {
            Some(entries) => metrics.committed.inc_by(entries.len() as u64),
            None => metrics.conflicts.inc(),
        };
        Ok(written)
    }

    async fn write_in_place(
        &self,
        mut entries: Vec<NewEntry>,
        after_head: bool,
    ) -> Result<Option<Vec<NewEntry>>, StoreError> {
        let Some(first) = entries.first().map(|entry| entry.seq) else { return Ok(Some(entries)) };
        if !after_head {
            let outcome = self.store.append(&entries).await?;
            return Ok((outcome == Outcome::Committed).then_some(entries));
        }
        let Some(placed) = self.store.append_after(first.previous(), &entries).await? else {
            return Ok(None);
        };
        for (entry, seq) in entries.iter_mut().zip(placed.0..) {
            entry.seq = Seq(seq);
        }
        Ok(Some(entries))
    }

    /// The batch's entries, numbered from what is confirmed.
    fn number(&self, batch: &Batch, confirmed: &BTreeMap<ConversationId, Seq>) -> Vec<NewEntry> {
        let mut entries: Vec<NewEntry> = Vec::with_capacity(batch.sends.len());
        for send in &batch.sends {
            let conv = send.cell.conv;
            let seq = match entries.last() {
                Some(last) if last.conv == conv => last.seq.next(),
                _ => confirmed[&conv].next(),
            };
            let body = EntryBody::Message { text: send.text.clone() };
            entries.push(NewEntry { seq, ..self.new_entry(conv, send.from, send.mid, body) });
        }
        entries
    }

    /// After a commit: to the local sessions, to the other nodes, and to the senders.
    fn finish(&self, batch: &mut Batch, entries: Vec<NewEntry>) {
        let cells = std::mem::take(&mut batch.cells);
        let rests = std::mem::take(&mut batch.sends).into_iter();
        let rests = rests.map(|send| Rest { name: send.name, outbox: send.outbox, id: send.id });
        let mut wakes = Wakes::default();
        let mut runs: BTreeMap<ConversationId, Vec<Arc<Line>>> = BTreeMap::new();
        for (new, rest) in entries.into_iter().zip(rests) {
            reply(&rest.outbox, rest.id, Ok(new.seq), &mut wakes);
            runs.entry(new.conv).or_default().push(line(new, &rest.name));
        }
        self.recent.add(
            runs.iter().filter_map(|(conv, lines)| Some((*conv, lines.first()?.seq, lines.last()?.seq))),
        );
        let mut hints = Vec::with_capacity(runs.len());
        for (conv, lines) in runs {
            hints.push(Hint { conv, lines: lines.clone() });
            self.feeds.confirm(&cells[&conv], lines, &mut wakes);
        }
        wakes.fire();
        self.relay.publish(hints);
    }

    /// Answers those messages of the batch that were sent before.
    fn answer_known(&self, batch: &mut Batch, known: &[Entry]) {
        if known.is_empty() {
            return;
        }
        let known: BTreeMap<_, _> =
            known.iter().map(|entry| ((entry.conv, entry.from, entry.mid), entry)).collect();
        let mut wakes = Wakes::default();
        let answered = batch.extract(|send| known.contains_key(&(send.cell.conv, send.from, send.mid)));
        for send in answered {
            let entry = known[&(send.cell.conv, send.from, send.mid)];
            let same = match &entry.body {
                EntryBody::Message { text } => *text == send.text,
                // What it said is not known any more; that it was sent is.
                EntryBody::Erased => true,
                _ => false,
            };
            let result = if same { Ok(entry.seq) } else { Err(ErrorCode::IdReused) };
            reply(&send.outbox, send.id, result, &mut wakes);
        }
        wakes.fire();
    }

    fn fail(&self, batch: Batch, code: ErrorCode) {
        let mut wakes = Wakes::default();
        for send in batch.sends {
            self.metrics.refusal(code);
            reply(&send.outbox, send.id, Err(code), &mut wakes);
        }
        wakes.fire();
    }
}

/// The confirmed heads that the batch's rights are as of, and which of its messages those rights refuse.
///
/// Both are taken under one lock per conversation: a message is numbered from the very state that allowed it. `None` if
/// rights have to be read first: unknown ones, or old ones that would refuse, since another node may have let the sender in.
fn authorise(
    batch: &Batch,
    fresh: &BTreeSet<ConversationId>,
) -> Option<(BTreeMap<ConversationId, Seq>, BTreeMap<MidKey, ErrorCode>)> {
    let (mut confirmed, mut refused) = (BTreeMap::new(), BTreeMap::new());
    let mut known = true;
    for run in batch.sends.chunk_by(|a, b| a.cell.conv == b.cell.conv) {
        let cell = &run[0].cell;
        let mut feed = cell.lock();
        let Some((rights, head)) = feed.rights() else {
            known = false;
            continue;
        };
        confirmed.insert(cell.conv, head);
        let denial = |send: &Send| rights.may_send(cell.conv, send.from).err();
        let denied: Vec<_> = run.iter().filter_map(|send| denial(send).map(|code| (send, code))).collect();
        if denied.is_empty() {
            continue;
        }
        if fresh.contains(&cell.conv) {
            refused.extend(denied.into_iter().map(|(send, code)| ((cell.conv, send.from, send.mid), code)));
        } else {
            feed.forget_rights();
            known = false;
        }
    }
    known.then_some((confirmed, refused))
}

/// An entry that was committed, as it goes to clients.
pub(super) fn line(new: NewEntry, name: &str) -> Arc<Line> {
    let NewEntry { conv, seq, from, mid, at, body } = new;
    Arc::new(Line::new(Entry { conv, seq, at, from, name: name.into(), mid, body }))
}
