//! The feeds of a node: made when a session or a write needs one, filled from the store, let go of when idle.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{ConversationId, Seq, UserId};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

use crate::{
    feed::{FeedCell, Line, Shared},
    gauges::largest,
    outbox::{Outbox, Wakes},
    relay::Relay,
    sizes::Sizes,
    store::{self, Store},
    turns::{Turn, Turns},
};

/// Pages read at the same time for sessions that are behind: they must not keep the writer waiting.
const CATCHING_UP_MAX: usize = 3;
/// Pages read beside them, to fill gaps and for those who ask for a page of history or of a list: somebody waits for each, and not behind whole logs of
/// those who come back.
const READS_MAX: usize = 4;
/// Pages read at the same time.
pub const PAGES_MAX: usize = CATCHING_UP_MAX + READS_MAX;
/// The pause after a failed read, doubled up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// All feeds of a node.
pub struct Feeds {
    store: Arc<dyn Store>,
    relay: Arc<dyn Relay>,
    tracker: TaskTracker,
    stop: CancellationToken,
    cells: Mutex<BTreeMap<ConversationId, Arc<FeedCell>>>,
    shared: Arc<Shared>,
    sizes: Sizes,
    catching_up: Turns,
    reads: Turns,
}

impl Feeds {
    /// None yet. Tasks that fill gaps run on `tracker` until `stop`.
    pub fn new(
        store: Arc<dyn Store>,
        relay: Arc<dyn Relay>,
        tracker: TaskTracker,
        stop: CancellationToken,
        sizes: Sizes,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            shared: Arc::new(Shared::new(sizes, Arc::clone(&relay))),
            relay,
            tracker,
            stop,
            cells: Mutex::default(),
            sizes,
            catching_up: Turns::new(CATCHING_UP_MAX),
            reads: Turns::new(READS_MAX),
        })
    }

    /// The feed of a conversation, made if there is none.
    pub fn cell(&self, conv: ConversationId) -> Arc<FeedCell> {
        let mut cells = self.cells();
        let made = || Arc::new(FeedCell::new(conv, Arc::clone(&self.shared)));
        Arc::clone(cells.entry(conv).or_insert_with(made))
    }

    /// The feed of a conversation, if there is one.
    pub fn existing(&self, conv: ConversationId) -> Option<Arc<FeedCell>> {
        self.cells().get(&conv).cloned()
    }

    /// Makes a session a reader of conversations: its places, in the given order.
    ///
    /// In this order: reader, subscription, and then the head, which the caller asks the store for and [states](Self::start). So
    /// no entry is missed in between.
    pub async fn attach(self: &Arc<Self>, outbox: &Arc<Outbox>, convs: &[ConversationId]) -> Vec<Attached> {
        let attach = |conv: &ConversationId| {
            let cell = self.cell(*conv);
            let place = cell.lock().attach(Arc::clone(outbox));
            Attached { cell, place }
        };
        let attached = convs.iter().map(attach).collect();
        self.relay.subscribe(outbox.user, convs).await;
        attached
    }

    /// Takes the head that the store has stated after the session was made a reader.
    pub fn start(self: &Arc<Self>, attached: &Attached, head: Seq) {
        attached.cell.lock().start(head);
        self.fill(&attached.cell);
    }

    /// Makes a session a reader of a conversation, from its head on.
    ///
    /// # Errors
    /// The store's; then the session is no reader of it.
    pub async fn open(
        self: &Arc<Self>,
        outbox: &Arc<Outbox>,
        conv: ConversationId,
    ) -> store::Result<Attached> {
        let mut attached = self.attach(outbox, &[conv]).await;
        let heads = self.store.heads(&[conv]).await?;
        let attached = attached.remove(0);
        self.start(&attached, heads.get(&conv).copied().unwrap_or_default());
        Ok(attached)
    }

    /// Takes certain entries into a feed, and sees to a gap below them.
    pub fn confirm(self: &Arc<Self>, cell: &Arc<FeedCell>, lines: Vec<Arc<Line>>, wakes: &mut Wakes) {
        cell.lock().confirm(lines, wakes);
        self.fill(cell);
    }

    /// Takes heads that the store has stated, or another node.
    pub fn observe(self: &Arc<Self>, heads: impl IntoIterator<Item = (ConversationId, Seq)>) {
        for (conv, head) in heads {
            if let Some(cell) = self.existing(conv) {
                cell.lock().rumour(head);
                self.fill(&cell);
            }
        }
    }

    /// How far these logs were shown here.
    pub fn shown(&self, convs: &[ConversationId]) -> BTreeMap<ConversationId, Seq> {
        let cells = convs.iter().filter_map(|conv| self.existing(*conv));
        cells.map(|cell| (cell.conv, cell.lock().head())).collect()
    }

    /// Compares how far logs were shown with their heads, which the store has stated since. A log never gets shorter: where one has, the readers
    /// are told that it cannot be delivered to them.
    pub fn compare(&self, shown: &BTreeMap<ConversationId, Seq>, heads: &BTreeMap<ConversationId, Seq>) {
        for (conv, shown) in shown {
            let head = heads.get(conv).copied().unwrap_or_default();
            let Some(cell) = self.existing(*conv).filter(|_| head < *shown) else { continue };
            error!(conversation = %conv, %shown, %head, "the store has lost entries that were shown");
            let mut wakes = Wakes::default();
            cell.lock().cut(head, &mut wakes);
            wakes.fire();
        }
    }

    /// What was read so far may be of other logs.
    pub fn doubt_all(&self) {
        let cells: Vec<_> = self.cells().values().cloned().collect();
        for cell in cells {
            cell.lock().doubt();
        }
    }

    /// Reads what a feed misses, in the background, if it misses anything and nobody reads it yet.
    pub fn fill(self: &Arc<Self>, cell: &Arc<FeedCell>) {
        let Some(after) = cell.lock().gap() else { return };
        let (feeds, cell) = (Arc::clone(self), Arc::clone(cell));
        self.tracker.spawn(async move {
            let stop = feeds.stop.clone();
            // Cut short, it leaves the feed as it is; nobody reads it then.
            stop.run_until_cancelled(feeds.fill_from(&cell, after)).await;
        });
    }

    async fn fill_from(self: &Arc<Self>, cell: &Arc<FeedCell>, mut after: Seq) {
        let mut pause = RETRY.0;
        loop {
            let turn = self.turn_to_read(None).await;
            let read = self.read(cell.conv, after).await;
            drop(turn);
            match read {
                Ok(lines) => {
                    pause = RETRY.0;
                    let mut wakes = Wakes::default();
                    let mut feed = cell.lock();
                    match lines.first() {
                        Some(first) if first.seq == after.next() => feed.confirm(lines, &mut wakes),
                        Some(first) => {
                            error!(conversation = %cell.conv, %after, found = %first.seq, "entries are missing in the store");
                            feed.lose(after, &mut wakes);
                        }
                        None => {
                            warn!(conversation = %cell.conv, %after, "a hint announced an entry that is not there");
                            feed.disprove(after);
                        }
                    }
                    let more = feed.filled();
                    drop(feed);
                    wakes.fire();
                    match more {
                        Some(next) => after = next,
                        None => return,
                    }
                }
                Err(error) => {
                    warn!(conversation = %cell.conv, %error, "reading a gap failed");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(RETRY.1);
                }
            }
        }
    }

    /// Waits until something may be read that somebody waits for: a user, or whoever reads a feed (`None`).
    pub async fn turn_to_read(&self, user: Option<UserId>) -> Turn<'_> {
        self.reads.turn(user).await
    }

    /// A page of a log above `after`, as lines, for a user's session that is behind: in its turn.
    ///
    /// # Errors
    /// The store's.
    pub async fn page(
        &self,
        user: UserId,
        conv: ConversationId,
        after: Seq,
    ) -> store::Result<Vec<Arc<Line>>> {
        let _turn = self.catching_up.turn(Some(user)).await;
        self.read(conv, after).await
    }

    /// The same at once: for the committer, whom everybody waits for.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(&self, conv: ConversationId, after: Seq) -> store::Result<Vec<Arc<Line>>> {
        let Sizes { page_entries_max, page_bytes_max, .. } = self.sizes;
        let entries = self.store.entries(conv, after, page_entries_max, page_bytes_max).await?;
        Ok(entries.into_iter().map(|entry| Arc::new(Line::new(entry))).collect())
    }

    /// The conversations that local sessions read.
    pub fn read_convs(&self) -> Vec<ConversationId> {
        let cells: Vec<_> = self.cells().values().cloned().collect();
        cells.iter().filter(|cell| cell.lock().has_readers()).map(|cell| cell.conv).collect()
    }

    /// Of all feeds the most recent entries, and the most entries held ahead of a gap.
    pub fn sizes(&self) -> (usize, usize) {
        let cells: Vec<_> = self.cells().values().cloned().collect();
        let sizes: Vec<_> = cells.iter().map(|cell| cell.lock().sizes()).collect();
        (largest(sizes.iter().map(|size| size.0)), largest(sizes.iter().map(|size| size.1)))
    }

    /// Bytes of recent entries.
    pub fn recent_bytes(&self) -> usize {
        self.shared.bytes()
    }

    /// Lets go of what nothing has happened to since the last call.
    pub fn rest(&self) {
        let mut cells = self.cells();
        // Whoever holds a cell beside the map may still attach to it.
        cells.retain(|_, cell| !cell.lock().rest() || Arc::strong_count(cell) > 1);
    }

    /// Lets go of entries that were in memory at the last call already.
    pub fn age(&self) {
        for cell in self.cells().values() {
            cell.lock().age();
        }
    }

    fn cells(&self) -> MutexGuard<'_, BTreeMap<ConversationId, Arc<FeedCell>>> {
        // A panic while it was held cannot leave the map half-changed.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place among the readers of a feed; dropping it gives it up.
pub struct Attached {
    /// The feed.
    pub cell: Arc<FeedCell>,
    /// The place.
    pub place: u32,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.cell.leave(self.place);
    }
}
