//! The committer: everything that a node writes to logs goes through it, to each conversation one thing at a time.
//!
//! - `dispatch`: what is next. Messages to all conversations are one statement after the other; changes of rights are a few at once beside
//!   them, since each takes several looks at the store.
//! - `sends`: messages; `acts`: changes of rights; `recent`: what was committed lately
//!
//! Group commit without added delay: what arrives while a statement is under way is the next batch. A conversation has one write in flight, so
//! a session's messages to it keep their order, and no number is given out twice.
//! What makes it safe between nodes is the store's key (DESIGN, numbering and conflicts).

mod acts;
mod dispatch;
mod recent;
mod sends;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use protocol::{
    ClientMsgId, Clock, ConversationId, Entropy, ErrorBody, ErrorCode, GroupId, RequestId, Seq, UserId,
    message::{Appended, write_error, write_reply},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{debug, warn};

pub use self::dispatch::Dispatcher;
use self::recent::Recent;
use crate::{
    feed::FeedCell,
    feeds::Feeds,
    metrics::Metrics,
    outbox::{Outbox, Wakes},
    relay::Relay,
    rights::Act,
    sizes::Sizes,
    store::{MidKey, NewEntry, Resolved, Store, StoreError},
};

/// Requests that are not committed yet. When there are as many, a request is refused as `overloaded`.
pub const QUEUE_MAX: usize = 16_384;
/// Bytes of their texts; likewise.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Conflicts of one batch or act after which it is refused as `overloaded`.
const CONFLICTS_MAX: u32 = 16;
/// How often others may write to a conversation in between before it leaves the batch: once is a lost hint, twice is a contest.
const OVERTAKEN_MAX: u32 = 2;
/// The pause after a failed attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// A message to be sent.
#[derive(Debug)]
pub struct Send {
    /// Where to.
    pub cell: Arc<FeedCell>,
    /// The sender.
    pub from: UserId,
    /// The sender's name.
    pub name: Arc<str>,
    /// The idempotency key.
    pub mid: ClientMsgId,
    /// The message.
    pub text: String,
    /// Who gets the reply.
    pub outbox: Arc<Outbox>,
    /// The request's id.
    pub id: RequestId,
}

/// A change of rights.
#[derive(Debug)]
pub struct ActJob {
    /// Of which conversation.
    pub cell: Arc<FeedCell>,
    /// Who does it.
    pub from: UserId,
    /// Their name.
    pub name: Arc<str>,
    /// The idempotency key.
    pub mid: ClientMsgId,
    /// What.
    pub act: Act,
    /// The other user's name, in a direct conversation.
    pub peer_name: String,
    /// Who gets the outcome.
    pub done: oneshot::Sender<Result<Seq, ErrorBody>>,
}

/// A group to be made.
#[derive(Debug)]
pub struct GroupJob {
    /// Who makes it.
    pub from: UserId,
    /// Their name.
    pub name: Arc<str>,
    /// The idempotency key.
    pub mid: ClientMsgId,
    /// The group's name.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// Who gets the outcome.
    pub done: oneshot::Sender<Result<GroupId, ErrorBody>>,
}

/// What the committer does.
#[derive(Debug)]
pub enum Job {
    /// A message.
    Send(Send),
    /// What changes rights.
    Change(ChangeJob),
}

/// What changes rights.
#[derive(Debug)]
pub enum ChangeJob {
    /// In a conversation.
    Act(Box<ActJob>),
    /// By a new group.
    Group(Box<GroupJob>),
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Send(send) => send.text.len(),
            Self::Change(_) => 0,
        }
    }

    /// Where to, if it is there already.
    fn conv(&self) -> Option<ConversationId> {
        match self {
            Self::Send(send) => Some(send.cell.conv),
            Self::Change(change) => change.conv(),
        }
    }
}

impl ChangeJob {
    /// In which conversation, if it is there already.
    fn conv(&self) -> Option<ConversationId> {
        match self {
            Self::Act(job) => Some(job.cell.conv),
            Self::Group(_) => None,
        }
    }

    fn refuse(self, code: ErrorCode) {
        // Who asked may be gone.
        match self {
            Self::Act(job) => drop(job.done.send(Err(code.into()))),
            Self::Group(job) => drop(job.done.send(Err(code.into()))),
        }
    }
}

/// Bounds that the committer checks.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Members of a group.
    pub members_per_group_max: usize,
    /// Groups of a user.
    pub groups_per_user_max: u64,
    /// Friends and blocked users of a user.
    pub friends_per_user_max: u64,
}

/// What is to be committed, in numbers.
#[derive(Debug, Default)]
struct Pending {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Pending {
    /// Counts a job.
    ///
    /// # Errors
    /// `overloaded`, and it is not counted, if there is too much.
    fn add(&self, job: &Job) -> Result<(), ErrorCode> {
        let bytes = job.bytes();
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if requests > QUEUE_MAX || all > QUEUE_BYTES_MAX {
            self.remove(1, bytes);
            return Err(ErrorCode::Overloaded);
        }
        Ok(())
    }

    fn remove(&self, requests: usize, bytes: usize) {
        self.requests.fetch_sub(requests, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The way to the committer.
#[derive(Debug, Clone)]
pub struct Committer {
    queue: mpsc::Sender<Job>,
    pending: Arc<Pending>,
    recent: Arc<Recent>,
}

impl Committer {
    /// Requests that are not committed yet, and bytes of their texts.
    pub fn waiting(&self) -> (usize, usize) {
        (self.pending.requests.load(Ordering::Relaxed), self.pending.bytes.load(Ordering::Relaxed))
    }

    /// Whether this node is known to have committed an entry: it remembers the latest.
    pub fn has_committed(&self, conv: ConversationId, seq: Seq) -> bool {
        self.recent.contains(conv, seq)
    }

    /// Queues a job. Jobs are carried out in the order queued, as far as one conversation is concerned.
    ///
    /// # Errors
    /// `overloaded` if too much is queued; `going_away` if the committer has ended.
    pub fn submit(&self, job: Job) -> Result<(), ErrorCode> {
        self.pending.add(&job)?;
        self.queue.try_send(job).map_err(|error| {
            let (code, job) = match error {
                mpsc::error::TrySendError::Full(job) => (ErrorCode::Overloaded, job),
                mpsc::error::TrySendError::Closed(job) => (ErrorCode::GoingAway, job),
            };
            self.pending.remove(1, job.bytes());
            code
        })
    }
}

/// What writes to the store, and says what was written.
struct Worker {
    store: Arc<dyn Store>,
    feeds: Arc<Feeds>,
    relay: Arc<dyn Relay>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
    bounds: Bounds,
    sizes: Sizes,
    recent: Arc<Recent>,
}

impl Worker {
    /// Loads the rights of feeds that have none; returns which.
    async fn load_rights(
        &self,
        cells: &BTreeMap<ConversationId, Arc<FeedCell>>,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let missing: Vec<_> =
            cells.iter().filter(|(_, cell)| cell.lock().rights().is_none()).map(|(conv, _)| *conv).collect();
        if missing.is_empty() {
            return Ok(missing);
        }
        for snapshot in self.store.snapshots(&missing).await? {
            let cell = &cells[&snapshot.conv];
            cell.lock().load(snapshot);
            self.feeds.fill(cell);
        }
        Ok(missing)
    }

    /// After a conflict: what is known of these keys, while the feeds catch up with what others wrote.
    async fn settle(
        &self,
        keys: &[MidKey],
        cells: &BTreeMap<ConversationId, Arc<FeedCell>>,
    ) -> Result<Resolved, StoreError> {
        let convs: Vec<_> = cells.keys().copied().collect();
        let resolved = self.store.resolve(keys, &convs).await?;
        for (conv, head) in &resolved.heads {
            let cell = &cells[conv];
            let Some(confirmed) = cell.lock().rights().map(|(_, confirmed)| confirmed) else { continue };
            if *head == confirmed {
                continue;
            }
            let lines = self.feeds.read(*conv, confirmed).await?;
            let contiguous = lines.first().is_some_and(|line| line.seq == confirmed.next());
            if contiguous && lines.last().is_some_and(|line| line.seq >= *head) {
                let mut wakes = Wakes::default();
                self.feeds.confirm(cell, lines, &mut wakes);
                wakes.fire();
            } else {
                // Too far behind for one page: start from the present state.
                cell.lock().forget_rights();
            }
        }
        Ok(resolved)
    }

    /// After a failed attempt, whose outcome is unknown: waits, or says that patience has ended.
    async fn pause(&self, error: &StoreError, attempts: u32, deadline: Instant) -> bool {
        self.metrics.store_failures.inc();
        if attempts == 1 {
            warn!(%error, "the store failed; trying again");
        } else {
            debug!(%error, attempts, "the store failed again");
        }
        if Instant::now() >= deadline || matches!(error, StoreError::Corrupt(_)) {
            return false;
        }
        tokio::time::sleep(PAUSE + self.entropy.jitter(PAUSE)).await;
        true
    }

    /// Nothing these feeds hold is certain any more.
    fn forget(cells: &BTreeMap<ConversationId, Arc<FeedCell>>) {
        for cell in cells.values() {
            cell.lock().forget_rights();
        }
    }

    fn new_entry(
        &self,
        conv: ConversationId,
        from: UserId,
        mid: ClientMsgId,
        body: protocol::EntryBody,
    ) -> NewEntry {
        NewEntry { conv, seq: Seq::ZERO, from, mid, at: self.clock.now(), body }
    }
}

/// The error for what the store could not do.
fn code(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Unavailable(_) => ErrorCode::Unavailable,
        StoreError::Corrupt(_) => ErrorCode::Internal,
    }
}

/// Puts a send's reply into its session's outbox.
fn reply(outbox: &Arc<Outbox>, id: RequestId, result: Result<Seq, ErrorCode>, wakes: &mut Wakes) {
    outbox.put(wakes, |letters| {
        match result {
            Ok(seq) => write_reply(&mut letters.replies, id, &Appended { seq }),
            Err(code) => write_error(&mut letters.replies, Some(id), &code.into()),
        }
        letters.replied += 1;
    });
}

#[cfg(test)]
mod tests {
    use protocol::clock::{SystemClock, SystemEntropy};
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::{feed::Shared, node::NodeConfig, relay::none::NoRelay, store::memory::MemoryStore};

    /// What waits is counted, and never more than may wait.
    #[test]
    fn the_queue_is_bounded_in_bytes() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
        let relay: Arc<dyn Relay> = Arc::new(NoRelay);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let config = NodeConfig::default();
        let feeds = Feeds::new(Arc::clone(&store), Arc::clone(&relay), tracker, stop, config.sizes);
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let (committer, _dispatcher) =
            Dispatcher::new(store, feeds, relay, clock, entropy, Arc::default(), &config);
        let user = UserId::new(1).unwrap();
        let (cell, outbox) =
            (Arc::new(FeedCell::new("g1".parse().unwrap(), Arc::<Shared>::default())), Outbox::new(user));
        let send = |bytes: usize| {
            committer.submit(Job::Send(Send {
                cell: Arc::clone(&cell),
                from: user,
                name: "kirito".into(),
                mid: ClientMsgId([1; 16]),
                text: "x".repeat(bytes),
                outbox: Arc::clone(&outbox),
                id: 1,
            }))
        };
        assert_eq!(committer.waiting(), (0, 0));
        let half = QUEUE_BYTES_MAX / 2;
        assert_eq!(send(half), Ok(()));
        assert_eq!(send(half + 1), Err(ErrorCode::Overloaded));
        assert_eq!(send(half - 1), Ok(()));
        assert_eq!(committer.waiting(), (2, QUEUE_BYTES_MAX - 1));
        assert_eq!(send(2), Err(ErrorCode::Overloaded));
        assert_eq!(send(1), Ok(()));
        assert_eq!(committer.waiting(), (3, QUEUE_BYTES_MAX));
    }
}
