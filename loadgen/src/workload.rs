//! A workload by many users, over the client library and any network. Every request, outcome and delivery is
//! recorded.
//!
//! Each user has several sessions; each session is a task that does one thing after the other, as a
//! [`script`] says or as its part of the seed draws. When a node is lost the client library reconnects by
//! itself, and what it cannot tell the outcome of is recorded as unknown.
//!
//! A workload can run in several parts, each with its own network and on its own runtime: client hosts of a
//! simulation.

mod actor;
mod device;
mod draw;
mod people;
mod plan;
pub mod script;
mod settle;

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use protocol::{
    ClientMsgId, Entropy, ErrorCode, Net, Request, UserId,
    message::{Password, Register},
};
use tokio::{
    sync::Barrier,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::plan::{Mix, Plan};
use self::{
    actor::Actor,
    device::{Device, Surroundings},
    people::{People, Person},
};
use crate::{
    history::{History, Outcome, Recorder, Reply},
    rng::Rng,
};

/// What a workload and whoever runs it tell each other.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// To the workload: no more operations.
    pub stop: CancellationToken,
    /// To the workload: all faults are over, so that it may wait for the end of everything. It waits for
    /// this.
    pub healed: CancellationToken,
    /// From the workload: all operations are done.
    pub done: CancellationToken,
}

/// A workload that runs in parts. Cheap to clone: all clones are one workload.
///
/// Every part has to be run, each once; they wait for each other. Waiting is for wakers and timers of the
/// part's own runtime, so parts may live on several runtimes, of one thread or of many.
#[derive(Clone)]
pub struct Workload(Arc<Shared>);

/// What the tasks of a workload share.
struct Shared {
    /// Of nodes, or of what stands before them.
    addresses: Vec<String>,
    plan: Plan,
    recorder: Recorder,
    entropy: Arc<dyn Entropy>,
    signals: Signals,
    parts: usize,
    /// Where they meet.
    barrier: Barrier,
    /// Known when they were registered.
    people: OnceLock<Arc<People>>,
    operations_left: AtomicU64,
    /// What the first part has found at the latest look.
    settled: AtomicBool,
    /// Taken by the first part at the end.
    history: Mutex<Option<History>>,
}

/// One part, as its tasks see it.
struct Part<N> {
    shared: Arc<Shared>,
    net: N,
    tracker: TaskTracker,
}

/// Carries out a plan against the server at `addresses` (`HOST:PORT` each; a device keeps to one of them),
/// and returns the history with all that the recorder was told by others meanwhile, such as faults.
///
/// After the plan's operations, or when `cancel` says that it is enough, it waits until all is quiet, reads
/// what the store shows every user, and waits until nothing is on its way any more, at most for
/// [`Plan::settle`]. Faults should be over by then. Its tasks run on the tracker, and end with it. To abandon
/// a run, drop the runtime.
pub async fn run<N: Net>(
    net: N,
    addresses: &[String],
    plan: Plan,
    recorder: Recorder,
    entropy: Arc<dyn Entropy>,
    tracker: TaskTracker,
    cancel: CancellationToken,
) -> History {
    let signals = Signals { stop: cancel, ..Signals::default() };
    signals.healed.cancel();
    let workload = Workload::new(addresses, plan, recorder.clone(), entropy, signals, 1);
    workload.part(net, 0, tracker).await;
    workload.take_history().unwrap_or_else(|| recorder.take())
}

impl Workload {
    /// A workload in so many parts, not yet begun; see [`run`] for the other arguments.
    pub fn new(
        addresses: &[String],
        plan: Plan,
        recorder: Recorder,
        entropy: Arc<dyn Entropy>,
        signals: Signals,
        parts: usize,
    ) -> Self {
        Self(Arc::new(Shared {
            addresses: addresses.to_vec(),
            operations_left: AtomicU64::new(plan.operations),
            plan,
            recorder,
            entropy,
            signals,
            parts: parts.max(1),
            barrier: Barrier::new(parts.max(1)),
            people: OnceLock::new(),
            settled: AtomicBool::new(false),
            history: Mutex::new(None),
        }))
    }

    /// Runs the part with this number, from 0: every so-manieth user, with all their sessions. The first part
    /// registers the users. It ends with the workload; its tasks run on the tracker.
    pub async fn part<N: Net>(&self, net: N, number: usize, tracker: TaskTracker) {
        let shared = Arc::clone(&self.0);
        let part = Arc::new(Part { shared: Arc::clone(&shared), net, tracker });
        if number == 0 {
            let people = part.register().await;
            // Nobody else sets them.
            let _ = shared.people.set(Arc::new(people));
        }
        shared.meet().await;
        let Some(people) = shared.people.get() else { return };

        let (began, mut running) = (Instant::now(), Vec::new());
        let mine = people.users.iter().zip(&people.persons).enumerate().skip(number).step_by(shared.parts);
        for (at, (user, person)) in mine {
            for session in 0..shared.plan.sessions {
                let own = (at * shared.plan.sessions + session) as u64;
                let actor = Actor {
                    part: Arc::clone(&part),
                    people: Arc::clone(people),
                    person: Arc::clone(person),
                    user: *user,
                    session,
                    rng: Rng::of_part(shared.plan.seed, own + 1),
                    device: None,
                };
                running.push(part.tracker.spawn(actor.run(began)));
            }
        }
        let mut actors = Vec::new();
        for actor in running {
            // One that panicked has said so; its devices are not waited for.
            actors.extend(actor.await);
        }
        shared.meet().await;
        shared.signals.done.cancel();
        shared.signals.healed.cancelled().await;
        shared.meet().await;

        Box::pin(settle::settle(&part, &mut actors, number == 0)).await;
        if number == 0 {
            // Taken before the devices end: it is of them that it says what they were shown.
            *shared.history.lock().unwrap_or_else(PoisonError::into_inner) = Some(shared.recorder.take());
        }
        shared.meet().await;
        for device in actors.into_iter().filter_map(|actor| actor.device) {
            device.close().await;
        }
    }

    /// The history, once, when the parts have ended.
    pub fn take_history(&self) -> Option<History> {
        // It is there or not, at any point of a writer.
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Shared {
    /// Waits until all parts have come so far.
    async fn meet(&self) {
        self.barrier.wait().await;
    }

    /// Whether there is another operation to be done.
    fn next_operation(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        !self.signals.stop.is_cancelled()
            && self.operations_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

impl<N: Net> Part<N> {
    fn around(&self) -> Surroundings<'_, N> {
        let plan = &self.shared.plan;
        let config = client::Config {
            request_timeout: plan.request_timeout,
            connect_timeout: plan.connect_timeout,
            backoff_max: plan.backoff_max,
            ..client::Config::default()
        };
        Surroundings {
            net: &self.net,
            config,
            entropy: &self.shared.entropy,
            tracker: &self.tracker,
            recorder: &self.shared.recorder,
        }
    }

    /// Makes the users, one after the other, so that their numbers follow their names. Fewer, if it is
    /// stopped before. Panics if one is refused, such as for a name that is too long or taken.
    async fn register(&self) -> People {
        let Shared { plan, signals, entropy, addresses, .. } = &*self.shared;
        let mut rng = Rng::of_part(plan.seed, 0);
        let (mut persons, mut users) = (Vec::new(), Vec::new());
        let mut add = |name: String, user: UserId| {
            persons.push(Arc::new(Person::new(users.len(), name)));
            users.push(user);
        };
        for at in 0..plan.users {
            let name = plan.name(at);
            if plan.registered {
                if let Some(user) = UserId::new(at as u64 + 1) {
                    add(name, user);
                }
                continue;
            }
            // One id for all attempts: an unknown outcome makes no second account.
            let mid = ClientMsgId::random(&**entropy);
            while !signals.stop.is_cancelled() {
                let Some(address) = rng.pick(addresses) else { break };
                let device = Device::start(None, address, false, &self.around());
                let register = Register { mid, name: name.clone(), password: Password(name.clone()) };
                let outcome = device.asker.ask(Request::Register(register)).await;
                device.close().await;
                match outcome {
                    Outcome::Ok { reply: Reply::Registered { user } } => {
                        add(name, user);
                        break;
                    }
                    // A plan that cannot be carried out proves nothing.
                    Outcome::Failed { code: Some(code) } if !passes(code) => {
                        panic!("{name} cannot register: {code}")
                    }
                    _ => sleep(plan.retry_pause).await,
                }
            }
        }
        People::new(persons, users)
    }
}

/// Whether another attempt may succeed: the refusal speaks of the node, and not of what was asked for.
fn passes(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Overloaded | ErrorCode::GoingAway | ErrorCode::RateLimited)
}
