//! A workload by many users, over the client library and any network. Every request, outcome and delivery is
//! recorded.
//!
//! Each user has several sessions; each session is a task that asks for one thing after the other, as its
//! part of the seed says. When a node is lost the client library reconnects by itself, and what it cannot
//! tell the outcome of is recorded as unknown.

mod actor;
mod device;
mod people;
mod plan;
mod settle;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protocol::{
    ClientMsgId, Entropy, Net, Request, UserId,
    message::{Password, Register},
};
use tokio::time::sleep;
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

/// Between two attempts to register.
const REGISTER_PAUSE: Duration = Duration::from_millis(200);

/// What the tasks of a workload share.
struct Shared<N> {
    net: N,
    /// Of nodes, or of what stands before them.
    addresses: Vec<String>,
    plan: Plan,
    recorder: Recorder,
    entropy: Arc<dyn Entropy>,
    tracker: TaskTracker,
    /// No more operations.
    cancel: CancellationToken,
    people: People,
    operations_left: AtomicU64,
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
    let mut shared = Shared {
        net,
        addresses: addresses.to_vec(),
        operations_left: AtomicU64::new(plan.operations),
        plan,
        recorder,
        entropy,
        tracker,
        cancel,
        people: People::default(),
    };
    let (people, users) = shared.register().await;
    shared.people = People::new(users.clone());
    let shared = Arc::new(shared);

    let mut running = Vec::new();
    for (at, (person, user)) in people.iter().zip(users).enumerate() {
        for session in 0..shared.plan.sessions {
            let part = (at * shared.plan.sessions + session) as u64;
            let actor = Actor {
                shared: Arc::clone(&shared),
                person: Arc::clone(person),
                user,
                place: (at, session),
                rng: Rng::of_part(shared.plan.seed, part + 1),
                device: None,
                said: 0,
            };
            running.push(shared.tracker.spawn(actor.run()));
        }
    }
    let mut actors = Vec::new();
    for actor in running {
        // One that panicked has said so; its devices are not waited for.
        actors.extend(actor.await);
    }
    Box::pin(settle::settle(&mut actors, &shared.recorder)).await;

    // Taken before the devices end: it is of them that it says what they were shown.
    let history = shared.recorder.take();
    for device in actors.into_iter().filter_map(|actor| actor.device) {
        device.close().await;
    }
    history
}

impl<N: Net> Shared<N> {
    fn around(&self) -> Surroundings<'_, N> {
        let config = client::Config {
            request_timeout: self.plan.request_timeout,
            backoff_max: self.plan.backoff_max,
            ..client::Config::default()
        };
        Surroundings {
            net: &self.net,
            config,
            entropy: &self.entropy,
            tracker: &self.tracker,
            recorder: &self.recorder,
        }
    }

    /// Whether there is another operation to be done.
    fn next_operation(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        !self.cancel.is_cancelled()
            && self.operations_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Makes the users, one after the other, so that their numbers follow their names. Fewer, if it is
    /// stopped before.
    async fn register(&self) -> (Vec<Arc<Person>>, Vec<UserId>) {
        let mut rng = Rng::of_part(self.plan.seed, 0);
        let (mut people, mut users) = (Vec::new(), Vec::new());
        for at in 0..self.plan.users {
            let name = format!("{}-{at}", self.plan.prefix);
            // One id for all attempts: an unknown outcome makes no second account.
            let mid = ClientMsgId::random(&*self.entropy);
            while !self.cancel.is_cancelled() {
                let Some(address) = rng.pick(&self.addresses) else { break };
                let device = Device::start(None, address, false, &self.around());
                let register = Register { mid, name: name.clone(), password: Password(name.clone()) };
                let outcome = device.asker.ask(Request::Register(register)).await;
                device.close().await;
                match outcome {
                    Outcome::Ok { reply: Reply::Registered { user } } => {
                        people.push(Arc::new(Person::new(name)));
                        users.push(user);
                        break;
                    }
                    Outcome::Failed { code: Some(code) } => {
                        tracing::warn!(%code, name, "cannot register");
                        break;
                    }
                    _ => sleep(REGISTER_PAUSE).await,
                }
            }
        }
        (people, users)
    }
}
