//! A conversation's live state on this node: its head, its recent entries, its local readers, its rights.
//!
//! Two positions grow independently. `head` is as far as entries can be delivered: from commits, store reads and hints. `confirmed` is as
//! far as `rights` were folded, from commits and store reads alone: only from there are
//! new entries numbered, since a hint proves nothing (DESIGN: numbering).
//!
//! Sans-IO: the caller reads the store when [`Feed::gap`] says so, and fires the wakes.

mod line;
mod readers;
mod shared;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use protocol::{ConversationId, EntryBody, Seq, UserId};

use self::readers::{Reader, Readers};
pub use self::{line::Line, shared::Shared};
use crate::{
    outbox::{Outbox, Wakes},
    rights::Rights,
    store::Snapshot,
};

/// Bytes of recent entries kept per node.
pub const RING_BYTES_MAX: usize = 64 << 20;

/// A feed and its lock.
#[derive(Debug)]
pub struct FeedCell {
    /// Which conversation it is.
    pub conv: ConversationId,
    feed: Mutex<Feed>,
}

impl FeedCell {
    /// A feed that knows nothing yet.
    pub fn new(conv: ConversationId, shared: Arc<Shared>) -> Self {
        Self { conv, feed: Mutex::new(Feed::new(conv, shared)) }
    }

    /// The feed. For short sections, never across an `await`.
    pub fn lock(&self) -> MutexGuard<'_, Feed> {
        // A panic inside is a bug; it ends one session. The feed's positions are only ever behind.
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a local session, and tells the relay that the node need not listen on its account.
    pub fn leave(&self, place: u32) {
        let mut feed = self.lock();
        let Some(user) = feed.detach(place) else { return };
        let shared = Arc::clone(&feed.shared);
        drop(feed);
        shared.relay.unsubscribe(user, self.conv);
    }
}

/// There is one for every two conversations of a session.
const _: () = assert!(size_of::<FeedCell>() <= 104);

/// Where a conversation stands on this node.
#[derive(Debug)]
pub struct Feed {
    conv: ConversationId,
    /// The last entry that can be delivered: nothing until the first head is known.
    head: Seq,
    /// Whether it is known.
    started: bool,
    /// The highest entry that is said to exist.
    rumoured: Seq,
    /// Entries in memory; nothing of a conversation in which nothing happens.
    recent: Option<Box<Recent>>,
    /// Rights as of `confirmed`.
    rights: Option<Box<(Rights, Seq)>>,
    readers: Readers,
    /// Whether a reading of the gap is under way.
    filling: bool,
    /// The store misses the entries after `head`.
    lost: bool,
    /// Whether readers have to be told that sessions were revoked.
    revoked: bool,
    /// Whether anything happened since the last look of the sweep.
    stirred: bool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Recent {
    /// Entries up to the head, without gaps.
    ring: VecDeque<Arc<Line>>,
    /// Entries above the one after the head.
    held: BTreeMap<Seq, Arc<Line>>,
    /// Where the head and what is rumoured were when the entries were aged last.
    aged: (Seq, Seq),
}

impl Recent {
    fn pop(&mut self, shared: &Shared) {
        if let Some(line) = self.ring.pop_front() {
            shared.bytes.fetch_sub(line.bytes.len(), Ordering::Relaxed);
        }
    }
}

/// What a session finds in a feed.
#[derive(Debug)]
pub enum Found<'a> {
    /// Entries above the cursor, ascending; none if it is at the head.
    Lines(std::iter::Skip<std::collections::vec_deque::Iter<'a, Arc<Line>>>),
    /// The entries next to the cursor are no longer in memory.
    InStore,
    /// The store does not have them.
    Lost,
}

impl Feed {
    fn new(conv: ConversationId, shared: Arc<Shared>) -> Self {
        Self {
            conv,
            head: Seq::ZERO,
            started: false,
            rumoured: Seq::ZERO,
            recent: None,
            rights: None,
            readers: Readers::NONE,
            filling: false,
            lost: false,
            revoked: false,
            stirred: true,
            shared,
        }
    }

    /// The last entry that can be delivered.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Recent entries, and entries held ahead of a gap.
    pub fn sizes(&self) -> (usize, usize) {
        self.recent.as_ref().map_or((0, 0), |recent| (recent.ring.len(), recent.held.len()))
    }

    // --- Readers ---

    /// Adds a local session; returns its place.
    pub fn attach(&mut self, outbox: Arc<Outbox>) -> u32 {
        if self.readers.is_empty() {
            // Without readers the relay's hints were not for us: what is known may be old.
            self.forget();
        }
        self.readers.insert(Reader { outbox, signalled: false, cut: false })
    }

    /// Removes a local session; returns whose it was.
    fn detach(&mut self, place: u32) -> Option<UserId> {
        self.readers.remove(place).map(|reader| reader.outbox.user)
    }

    /// Whether any local session reads it.
    pub fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }

    /// Its local sessions.
    pub fn readers(&self) -> Vec<Arc<Outbox>> {
        self.readers.iter().map(|reader| Arc::clone(&reader.outbox)).collect()
    }

    /// What a reader finds above its cursor. From now on it is signalled anew.
    pub fn look(&mut self, place: u32, cursor: Seq) -> Found<'_> {
        if let Some(reader) = self.readers.get_mut(place) {
            reader.signalled = false;
            if reader.cut {
                return Found::Lost;
            }
        }
        let head = self.head;
        let lines = self.recent.as_ref().map(|recent| recent.ring.iter()).unwrap_or_default();
        let first = head.0 + 1 - lines.len() as u64;
        if cursor >= head {
            let none = lines.len();
            if self.lost { Found::Lost } else { Found::Lines(lines.skip(none)) }
        } else if cursor.0 + 1 >= first {
            Found::Lines(lines.skip((cursor.0 + 1 - first) as usize))
        } else {
            Found::InStore
        }
    }

    fn signal(&mut self, wakes: &mut Wakes) {
        let conv = self.conv;
        // Whether a session may go on does not wait until it has read so far.
        let revoked = std::mem::take(&mut self.revoked);
        for reader in self.readers.iter_mut() {
            if revoked {
                reader.outbox.put(wakes, |letters| letters.revoked = true);
            }
            if !std::mem::replace(&mut reader.signalled, true) {
                reader.outbox.put(wakes, |letters| letters.signals.push(conv));
            }
        }
    }

    // --- Entries ---

    /// Takes entries that are certain, ascending without gaps: own commits, or what was read from the store.
    pub fn confirm(&mut self, lines: impl IntoIterator<Item = Arc<Line>>, wakes: &mut Wakes) {
        let before = self.head;
        for line in lines {
            if let Some((rights, confirmed)) = self.rights.as_deref_mut()
                && line.seq == confirmed.next()
            {
                if let Some(event) = &line.event {
                    rights.apply(self.conv, event.0, &event.1);
                }
                *confirmed = line.seq;
            }
            self.begin(line.seq.previous());
            self.offer(line);
        }
        if self.head != before {
            self.signal(wakes);
        }
    }

    /// Takes what the relay says: to be delivered, but no proof of anything, least of all of rights.
    pub fn hint(&mut self, lines: impl IntoIterator<Item = Arc<Line>>, wakes: &mut Wakes) {
        let before = self.head;
        for line in lines {
            self.rumoured = self.rumoured.max(line.seq);
            if self.started && !line.affects_rights() {
                self.offer(line);
            }
        }
        if self.head != before {
            self.signal(wakes);
        }
    }

    /// Takes a head that the store has stated, or someone who may be wrong: see [`gap`](Self::gap).
    pub fn rumour(&mut self, head: Seq) {
        self.rumoured = self.rumoured.max(head);
    }

    /// Takes a head that the store has stated after [`attach`](Self::attach): the first one is where the feed starts.
    pub fn start(&mut self, head: Seq) {
        self.begin(head);
        self.rumour(head);
    }

    fn begin(&mut self, head: Seq) {
        if !std::mem::replace(&mut self.started, true) {
            self.head = head;
        }
    }

    /// Adds one entry: to the ring if it is next, else aside if it is ahead.
    fn offer(&mut self, line: Arc<Line>) {
        self.stirred = true;
        self.rumoured = self.rumoured.max(line.seq);
        let next = self.head.next();
        if line.seq > next {
            let held = &mut self.recent.get_or_insert_default().held;
            if held.len() < self.shared.sizes.held_entries_max {
                held.insert(line.seq, line);
            }
            return;
        }
        if line.seq == next {
            self.push(line);
            while let Some(line) = self.take_held(self.head.next()) {
                self.push(line);
            }
        }
        let head = self.head;
        if let Some(recent) = &mut self.recent {
            recent.held.retain(|seq, _| *seq > head);
        }
    }

    fn take_held(&mut self, seq: Seq) -> Option<Arc<Line>> {
        self.recent.as_mut()?.held.remove(&seq)
    }

    fn push(&mut self, line: Arc<Line>) {
        self.head = line.seq;
        self.lost = false;
        self.revoked |= line.event.as_ref().is_some_and(|event| revokes(&event.1));
        self.shared.bytes.fetch_add(line.bytes.len(), Ordering::Relaxed);
        let recent = self.recent.get_or_insert_default();
        recent.ring.push_back(line);
        while recent.ring.len() > self.shared.sizes.ring_entries_max
            || self.shared.bytes() > RING_BYTES_MAX && !recent.ring.is_empty()
        {
            recent.pop(&self.shared);
        }
    }

    // --- Gaps ---

    /// After which entry the store has to be read, if entries are known to be missing and nobody reads them yet. The caller then
    /// owes [`filled`](Self::filled).
    pub fn gap(&mut self) -> Option<Seq> {
        let missing = self.started && self.head < self.rumoured;
        (missing && !self.filling && !self.readers.is_empty()).then(|| {
            self.filling = true;
            self.head
        })
    }

    /// A reading of the gap is over. `Some` if there is more to read.
    pub fn filled(&mut self) -> Option<Seq> {
        self.filling = false;
        self.gap()
    }

    /// The store was read above `after` and does not have the next entry, although it must be there.
    pub fn lose(&mut self, after: Seq, wakes: &mut Wakes) {
        if self.started && self.head == after {
            self.rumoured = after;
            self.drop_held();
            self.lost = true;
            self.signal(wakes);
        }
    }

    /// The store was read above `after` and has nothing there: what was said to exist does not.
    pub fn disprove(&mut self, after: Seq) {
        if self.started && self.head == after {
            self.rumoured = after;
            self.drop_held();
        }
    }

    /// The store's log ends at `head`, before entries that were shown: it is not the log that the present readers have read. Others start on it
    /// as it is.
    pub fn cut(&mut self, head: Seq, wakes: &mut Wakes) {
        self.forget();
        self.start(head);
        for reader in self.readers.iter_mut() {
            reader.cut = true;
        }
        self.signal(wakes);
    }

    /// What was read may be of another log: nothing of it is kept but how far it was shown.
    pub fn doubt(&mut self) {
        self.drop_recent();
        self.rights = None;
    }

    // --- Rights ---

    /// The rights and the position they are as of, if they are known and nothing later is certain to exist.
    pub fn rights(&self) -> Option<(&Rights, Seq)> {
        self.rights.as_deref().map(|(rights, confirmed)| (rights, *confirmed))
    }

    /// Takes the state of one moment from the store.
    pub fn load(&mut self, snapshot: Snapshot) {
        if self.rights().is_none_or(|(_, confirmed)| confirmed < snapshot.head) {
            self.rights = Some(Box::new((snapshot.rights, snapshot.head)));
        }
        self.rumour(snapshot.head);
        self.stirred = true;
    }

    /// Nothing is certain any more: a write's outcome is unknown, or another node has written.
    pub fn forget_rights(&mut self) {
        self.rights = None;
    }

    // --- Memory ---

    /// Lets go of the recent entries if nothing happened since the last call. Returns whether the feed is idle and unread.
    pub fn rest(&mut self) -> bool {
        if std::mem::replace(&mut self.stirred, false) {
            return false;
        }
        self.drop_recent();
        self.readers.is_empty()
    }

    /// Lets go of the entries that were there at the last call: they may have been erased in the store.
    pub fn age(&mut self) {
        let now = (self.head, self.rumoured);
        let Some(recent) = &mut self.recent else { return };
        let (head, rumoured) = std::mem::replace(&mut recent.aged, now);
        while recent.ring.front().is_some_and(|line| line.seq <= head) {
            recent.pop(&self.shared);
        }
        recent.held.retain(|seq, _| *seq > rumoured);
    }

    fn drop_recent(&mut self) {
        let Some(mut recent) = self.recent.take() else { return };
        while !recent.ring.is_empty() {
            recent.pop(&self.shared);
        }
    }

    fn drop_held(&mut self) {
        if let Some(recent) = &mut self.recent {
            recent.held = BTreeMap::new();
        }
    }

    fn forget(&mut self) {
        self.drop_recent();
        (self.head, self.started) = (Seq::ZERO, false);
        self.rumoured = Seq::ZERO;
        self.rights = None;
        self.lost = false;
    }
}

/// Whether an entry of a user's notices says that sessions of the user have to end.
fn revokes(body: &EntryBody) -> bool {
    matches!(body, EntryBody::PasswordChanged | EntryBody::SessionsEnded)
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.drop_recent();
    }
}

#[cfg(test)]
mod tests;
