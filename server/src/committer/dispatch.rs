//! What the committer does next.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use protocol::{Clock, ConversationId, Entropy, ErrorCode};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use super::{ChangeJob, Committer, Job, Pending, QUEUE_MAX, Send, Worker, sends::Batch};
use crate::{feeds::Feeds, metrics::Metrics, node::NodeConfig, relay::Relay, sizes::Sizes, store::Store};

/// Bytes of a message in its statement, at most, beside its text.
const ROW_BYTES: usize = 128;
/// Changes of rights carried out at once. They leave connections to the store for everybody else.
const ACTS_MAX: usize = 4;
/// Changes of rights that wait for others; when as many do, one more is refused as `overloaded`.
const ACTS_WAITING_MAX: usize = 1024;

/// The committer's task. What follows a change of rights on the same conversation waits for it, and nothing else does: a change takes
/// several looks at the store, of which messages need none.
pub struct Dispatcher {
    queue: mpsc::Receiver<Job>,
    pending: Arc<Pending>,
    worker: Arc<Worker>,
    /// What was taken from the queue, or waited for an act that has ended.
    backlog: VecDeque<Job>,
    /// Those that are carried out, each on which conversation, if it is there already.
    acts: JoinSet<Option<ConversationId>>,
    /// Those that are next.
    waiting: VecDeque<ChangeJob>,
    /// Of each conversation that has one in `acts` or `waiting`: what came after it.
    behind: BTreeMap<ConversationId, VecDeque<Job>>,
}

impl Dispatcher {
    /// A committer, and the way to it.
    pub fn new(
        store: Arc<dyn Store>,
        feeds: Arc<Feeds>,
        relay: Arc<dyn Relay>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        metrics: Arc<Metrics>,
        config: &NodeConfig,
    ) -> (Committer, Self) {
        let NodeConfig { bounds, sizes, .. } = *config;
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let (pending, recent) = (Arc::<Pending>::default(), Arc::default());
        let committer =
            Committer { queue: sender, pending: Arc::clone(&pending), recent: Arc::clone(&recent) };
        let worker = Worker { store, feeds, relay, clock, entropy, metrics, bounds, sizes, recent };
        let dispatcher = Self {
            queue,
            pending,
            worker: Arc::new(worker),
            backlog: VecDeque::new(),
            acts: JoinSet::new(),
            waiting: VecDeque::new(),
            behind: BTreeMap::new(),
        };
        (committer, dispatcher)
    }

    /// Works until every [`Committer`] is gone and what they queued is done.
    pub async fn run(mut self) {
        let batch_max = self.worker.sizes.batch_max;
        let mut arrived = Vec::with_capacity(batch_max);
        let mut open = true;
        while open || !self.backlog.is_empty() || !self.acts.is_empty() {
            if self.backlog.is_empty() {
                tokio::select! {
                    biased;
                    Some(ended) = self.acts.join_next() => self.act_ended(ended),
                    taken = self.queue.recv_many(&mut arrived, batch_max), if open => open = taken > 0,
                }
                self.backlog.extend(arrived.drain(..));
            }
            while let Some(ended) = self.acts.try_join_next() {
                self.act_ended(ended);
            }
            self.round().await;
        }
    }

    /// Carries out the front of the backlog: messages to different conversations go together. Afterwards acts are under way, if any wait.
    async fn round(&mut self) {
        let Sizes { batch_max, batch_bytes_max, .. } = self.worker.sizes;
        let mut sends: Vec<Send> = Vec::with_capacity(self.backlog.len().min(batch_max));
        let mut bytes = 0;
        // There are more than a statement takes where many have waited for an act.
        while sends.len() < batch_max
            && let Some(job) = self.backlog.pop_front()
        {
            if let Some(behind) = job.conv().and_then(|conv| self.behind.get_mut(&conv)) {
                behind.push_back(job);
                continue;
            }
            let send = match job {
                Job::Send(send) => send,
                Job::Change(change) => {
                    self.take_change(change);
                    continue;
                }
            };
            let more = send.text.len();
            let statement = bytes + more + ROW_BYTES * (sends.len() + 1);
            if !sends.is_empty() && statement > batch_bytes_max {
                self.backlog.push_front(Job::Send(send));
                break;
            }
            bytes += more;
            sends.push(send);
        }
        if !sends.is_empty() {
            let requests = sends.len();
            self.worker.commit_sends(Batch::new(sends)).await;
            self.pending.remove(requests, bytes);
        }
        // What was sent before them is committed.
        self.begin_acts();
    }

    /// Has a change of rights wait for its turn.
    fn take_change(&mut self, change: ChangeJob) {
        if self.waiting.len() >= ACTS_WAITING_MAX {
            self.pending.remove(1, 0);
            change.refuse(ErrorCode::Overloaded);
            return;
        }
        if let Some(conv) = change.conv() {
            self.behind.insert(conv, VecDeque::new());
        }
        self.waiting.push_back(change);
    }

    fn begin_acts(&mut self) {
        while self.acts.len() < ACTS_MAX {
            let Some(change) = self.waiting.pop_front() else { return };
            let worker = Arc::clone(&self.worker);
            self.acts.spawn(async move {
                let conv = change.conv();
                match change {
                    ChangeJob::Act(job) => worker.commit_act(*job).await,
                    ChangeJob::Group(job) => worker.commit_group(*job).await,
                }
                conv
            });
        }
    }

    /// What came after an act is next.
    fn act_ended(&mut self, ended: Result<Option<ConversationId>, JoinError>) {
        let conv = match ended {
            Ok(conv) => conv,
            // Nobody cancels one: it was a panic, which is the committer's.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.pending.remove(1, 0);
        for job in conv.and_then(|conv| self.behind.remove(&conv)).into_iter().flatten().rev() {
            self.backlog.push_front(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        ClientMsgId, UserId,
        clock::{SystemClock, SystemEntropy},
    };
    use tokio::sync::oneshot;
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::{
        committer::GroupJob,
        feed::{FeedCell, Shared},
        outbox::Outbox,
        relay::none::NoRelay,
        store::memory::MemoryStore,
    };

    /// On an empty database.
    fn dispatcher() -> (Committer, Dispatcher) {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
        let relay: Arc<dyn Relay> = Arc::new(NoRelay);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let config = NodeConfig::default();
        let feeds = Feeds::new(Arc::clone(&store), Arc::clone(&relay), tracker, stop, config.sizes);
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        Dispatcher::new(store, feeds, relay, clock, entropy, Arc::default(), &config)
    }

    /// However many messages have waited for an act, a statement takes so many and no more.
    #[tokio::test]
    async fn a_statement_is_bounded() {
        let (_committer, mut dispatcher) = dispatcher();
        let user = UserId::new(1).unwrap();
        let cell = Arc::new(FeedCell::new("g1".parse().unwrap(), Arc::<Shared>::default()));
        let outbox = Outbox::new(user);
        for number in 0..dispatcher.worker.sizes.batch_max + 5 {
            let (cell, outbox) = (Arc::clone(&cell), Arc::clone(&outbox));
            let (mid, text) = (ClientMsgId((number as u128).to_be_bytes()), "x".to_owned());
            let send = Send { cell, from: user, name: "kirito".into(), mid, text, outbox, id: number as u64 };
            let job = Job::Send(send);
            dispatcher.pending.add(&job).unwrap();
            dispatcher.backlog.push_back(job);
        }
        dispatcher.round().await;
        assert_eq!(dispatcher.backlog.len(), 5);
        dispatcher.round().await;
        assert_eq!(dispatcher.backlog.len(), 0);
    }

    /// Those that have no place are refused, the others are carried out, and nothing is left.
    #[tokio::test]
    async fn changes_of_rights_that_wait_are_bounded() {
        let (committer, mut dispatcher) = dispatcher();
        let outcomes: Vec<_> = (0..ACTS_WAITING_MAX + 10)
            .map(|number| {
                let (done, outcome) = oneshot::channel();
                let mid = ClientMsgId((number as u128).to_be_bytes());
                let (title, description) = ("x".to_owned(), String::new());
                let from = UserId::new(1).unwrap();
                let job = GroupJob { from, name: "kirito".into(), mid, title, description, done };
                committer.submit(Job::Change(ChangeJob::Group(Box::new(job)))).unwrap();
                outcome
            })
            .collect();
        while let Ok(job) = dispatcher.queue.try_recv() {
            dispatcher.backlog.push_back(job);
        }
        dispatcher.round().await;
        assert_eq!(committer.waiting().0, ACTS_WAITING_MAX);
        let pending = Arc::clone(&dispatcher.pending);
        drop(committer);
        dispatcher.run().await;
        assert_eq!(pending.requests.load(std::sync::atomic::Ordering::Relaxed), 0);
        let mut overloaded = 0;
        for outcome in outcomes {
            let result = outcome.await.unwrap();
            overloaded += usize::from(result.is_err_and(|error| error.code == ErrorCode::Overloaded));
        }
        assert_eq!(overloaded, 10);
    }
}
