//! The relay of several nodes: Redis, or what speaks its protocol, version 3.
//!
//! Hints go over publish/subscribe; a node listens to the channels of what its sessions read. Presence is a lease that each node holds,
//! with the set of users it serves. One task, the supervisor, owns the connection; what callers hold only enqueues.
//!
//! Names in Redis, all below `PREFIX:DEPLOYMENT:`, where the latter is the deployment's random id, so that systems that share a Redis do
//! not hear each other (channels know no database number):
//!
//! | Name | What |
//! |---|---|
//! | `g7`, `u1` | channels: of a group, of a user |
//! | `presence` | channel: changes of presence |
//! | `canary:N` | channel: a node's own, to hear itself |
//! | `nodes` | set: incarnations that have or had a lease |
//! | `lease:I` | an incarnation's lease: it expires; the number of its last change |
//! | `users:I` | set: the users that it serves; expires with it |

mod canary;
mod config;
mod inbox;
mod link;
mod news;
mod presence;
mod publisher;
mod subscriptions;
mod view;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use protocol::{ConversationId, Entropy, Net, UserId, message::PresenceState};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub use self::config::{RedisConfig, RedisUrlError, Timing};
#[cfg(any(test, fuzzing))]
pub use self::wire::fuzz as hints_fuzz;
use self::{
    canary::Canary,
    link::Supervisor,
    news::News,
    subscriptions::Subscriptions,
    view::View,
    wire::{Incarnation, NodeId, Origin},
};
use super::{EVENTS_MAX, Hint, Relay, RelayEvents, RelayState, channels::Channel};

/// Hints waiting to be published; what comes on top is dropped, and the other nodes' sweeps find it.
const QUEUE_HINTS_MAX: usize = 4096;
/// Bytes of entries waiting to be published; likewise.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// A node's end of the relay. When it is dropped, the node says that it is gone.
pub struct RedisRelay {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Hint>,
    _stop: DropGuard,
}

/// What the node's end and the supervisor share.
struct Shared {
    config: RedisConfig,
    origin: Origin,
    /// What every name in Redis begins with.
    names: String,
    entropy: Arc<dyn Entropy>,
    subscriptions: Mutex<Subscriptions>,
    /// The reconciler has something to do.
    subscriptions_changed: Notify,
    /// Something was confirmed, or the link came or went.
    progress: watch::Sender<()>,
    served: Mutex<Served>,
    served_changed: Notify,
    view: Mutex<View>,
    view_changed: Notify,
    /// The other nodes' presence should be read before its time.
    read_soon: Notify,
    news: News,
    /// Whether what is published comes back.
    canary: Canary,
    /// Bytes of entries in the queue.
    queued_bytes: AtomicUsize,
    /// The number of the incarnation that was written last; 0 before the first.
    incarnation: AtomicU64,
}

/// Whom this node serves.
#[derive(Default)]
struct Served {
    users: BTreeSet<UserId>,
    /// What Redis was not told yet; nothing while the link is away, since a new one begins with all of them.
    changes: BTreeMap<UserId, bool>,
    /// Whether changes are to be noted.
    noting: bool,
}

impl RedisRelay {
    /// Starts it: its tasks run on `tracker` until `stop`, or until it is dropped. It does not wait for Redis to be there.
    pub fn start<N: Net>(
        net: N,
        config: RedisConfig,
        deployment: [u8; 16],
        entropy: Arc<dyn Entropy>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> (Self, RelayEvents) {
        let mut node = [0; 8];
        entropy.fill(&mut node);
        let shared = Arc::new(Shared {
            names: format!("{}:{:032x}:", config.prefix, u128::from_be_bytes(deployment)),
            config,
            origin: Origin { deployment, node: NodeId(u64::from_be_bytes(node)) },
            entropy,
            subscriptions: Mutex::default(),
            subscriptions_changed: Notify::new(),
            progress: watch::Sender::new(()),
            served: Mutex::default(),
            served_changed: Notify::new(),
            view: Mutex::default(),
            view_changed: Notify::new(),
            read_soon: Notify::new(),
            news: News::default(),
            canary: Canary::default(),
            queued_bytes: AtomicUsize::new(0),
            incarnation: AtomicU64::new(0),
        });
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let (queue, queued) = mpsc::channel(QUEUE_HINTS_MAX);
        let stop = stop.child_token();
        let teller = Arc::clone(&shared);
        let (told, stop_telling) = (events.clone(), stop.clone());
        tracker.spawn(async move {
            let telling = async {
                tokio::select! {
                    () = teller.news.tell(&told) => {}
                    () = teller.expire_view() => {}
                }
            };
            stop_telling.run_until_cancelled(telling).await;
        });
        let supervisor =
            Supervisor::new(net, Arc::clone(&shared), events, queued, tracker.clone(), stop.clone());
        tracker.spawn(supervisor.run());
        (Self { shared, queue, _stop: stop.drop_guard() }, receiver)
    }
}

#[async_trait]
impl Relay for RedisRelay {
    fn publish(&self, hints: Vec<Hint>) {
        if !self.shared.subscriptions().is_up() {
            return;
        }
        for hint in hints {
            let bytes = hint_bytes(&hint);
            let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
            if queued + bytes > QUEUE_BYTES_MAX || self.queue.try_send(hint).is_err() {
                self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    async fn subscribe(&self, user: UserId, convs: &[ConversationId]) {
        let shared = &*self.shared;
        let channels: Vec<_> = convs.iter().map(|conv| Channel::of_reader(user, *conv)).collect();
        let mut progress = shared.progress.subscribe();
        {
            let mut subscriptions = shared.subscriptions();
            for channel in &channels {
                subscriptions.add(*channel);
            }
        }
        shared.subscriptions_changed.notify_one();
        let confirmed = async {
            while shared.subscriptions().pending(&channels) {
                if progress.changed().await.is_err() {
                    return;
                }
            }
        };
        // Whether it came to an end or not: what is not confirmed by now is owed a look.
        let _ = timeout(shared.config.timing.subscribe_wait, confirmed).await;
        shared.subscriptions().give_up(&channels);
    }

    fn unsubscribe(&self, user: UserId, conv: ConversationId) {
        self.shared.subscriptions().remove(Channel::of_reader(user, conv), Instant::now());
    }

    fn set_online(&self, user: UserId, online: bool) {
        let mut served = self.shared.served();
        let changed = if online { served.users.insert(user) } else { served.users.remove(&user) };
        if changed && served.noting {
            served.changes.insert(user, online);
            self.shared.served_changed.notify_one();
        }
    }

    fn state(&self) -> RelayState {
        self.shared.canary.state()
    }

    fn wedges(&self) -> u64 {
        self.shared.canary.wedges()
    }

    fn incarnation(&self) -> Option<String> {
        let (node, number) = (self.shared.origin.node, self.shared.incarnation.load(Ordering::Relaxed));
        (number > 0).then(|| Incarnation { node, number }.to_string())
    }

    fn elsewhere(&self, user: UserId) -> PresenceState {
        self.shared.view().state(user, Instant::now())
    }
}

impl Shared {
    /// A name in Redis.
    fn name(&self, rest: impl std::fmt::Display) -> String {
        format!("{}{rest}", self.names)
    }

    fn channel(&self, channel: Channel) -> String {
        match channel {
            Channel::Group(group) => self.name(format_args!("g{group}")),
            Channel::User(user) => self.name(format_args!("u{user}")),
        }
    }

    /// Where this node hears itself, and nobody else listens.
    fn canary_channel(&self) -> String {
        self.name(format_args!("canary:{:016x}", self.origin.node.0))
    }

    /// Sees to it that sessions learn when presence becomes unknown.
    async fn expire_view(&self) {
        loop {
            let remaining = self.view().remaining(Instant::now());
            match remaining {
                None => self.view_changed.notified().await,
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                Some(_) => {
                    self.view().expire();
                    self.news.presence_of_all();
                }
            }
        }
    }

    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        lock(&self.subscriptions)
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        lock(&self.served)
    }

    fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is valid at any point of a writer.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hint_bytes(hint: &Hint) -> usize {
    hint.lines.iter().map(|line| line.bytes.len()).sum()
}
