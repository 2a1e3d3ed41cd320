//! A run: a pure function from a scenario to what happened and whether it was right.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt,
    mem::ManuallyDrop,
    panic,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use loadgen::{Anomaly, History, check, workload::Signals};
use turmoil::{Builder, Sim};

use crate::{
    clock::EPOCH,
    entropy::spawn_seeded,
    faults::{Condition, change_links},
    scenario::{Fault, Host, Scenario, What},
    trace::{self, Finished, Trace, What as Traced},
    world::World,
};

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every promise was kept.
    Valid,
    /// These were broken.
    Invalid(Vec<Anomaly>),
    /// A task panicked or a host ended with an error.
    Crashed(String),
    /// It did not come to its end in the time there is.
    Stuck(String),
    /// It ended, and these questions are open.
    Unknown(Vec<String>),
}

/// A run that is over.
#[derive(Debug, Clone)]
pub struct Run {
    /// What it came to.
    pub verdict: Verdict,
    /// What the users saw.
    pub history: History,
    /// What happened, and its hash.
    pub trace: Finished,
    /// How long it took, in simulated time.
    pub simulated: Duration,
}

/// Whether a run keeps its trace, or only its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Only the hash.
    Hash,
    /// All of it.
    Events,
}

/// From the last fault's end until the run must have ended, on top of what its bounds allow.
const END_MAX: Duration = Duration::from_secs(120);

impl Verdict {
    /// Whether it is what a run should come to.
    pub fn is_valid(&self) -> bool {
        *self == Self::Valid
    }

    /// What was broken, in a word each: invariants, or how it ended.
    pub fn kinds(&self) -> BTreeSet<String> {
        match self {
            Self::Valid => BTreeSet::new(),
            Self::Invalid(anomalies) => {
                anomalies.iter().map(|anomaly| format!("{:?}", anomaly.invariant)).collect()
            }
            Self::Crashed(_) => BTreeSet::from(["crashed".into()]),
            Self::Stuck(_) => BTreeSet::from(["stuck".into()]),
            Self::Unknown(_) => BTreeSet::from(["unknown".into()]),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("valid"),
            Self::Invalid(anomalies) => {
                let kinds: Vec<String> = self.kinds().into_iter().collect();
                write!(f, "invalid: {}", kinds.join(", "))?;
                anomalies.iter().try_for_each(|anomaly| write!(f, "\n  {anomaly}"))
            }
            Self::Crashed(why) => write!(f, "crashed: {why}"),
            Self::Stuck(where_) => write!(f, "stuck: {where_}"),
            Self::Unknown(questions) => {
                f.write_str("unknown")?;
                questions.iter().try_for_each(|question| write!(f, "\n  {question}"))
            }
        }
    }
}

/// Runs a scenario that was [checked](Scenario::check), on a thread of its own.
///
/// After a panic that thread is left as it is, with what it holds: to drop hosts out of their world can panic again, which would end the
/// process. So is one that does not get on any more. [`abandoned`] counts them.
pub fn run(scenario: &Scenario, keep: Keep) -> Run {
    let trace = Trace::new(keep == Keep::Events);
    let (own, its_trace) = (scenario.clone(), trace.clone());
    let (done, outcome) = mpsc::sync_channel(1);
    let steps = Arc::new(AtomicU64::new(0));
    let its_steps = Arc::clone(&steps);
    let thread = spawn_seeded(scenario.seed, move || {
        end_with_first_panic(done.clone());
        let (verdict, history, simulated) = simulate(&own, &its_trace, &its_steps);
        let _ = done.send(Outcome::Ended(Box::new((verdict, history, simulated))));
    });
    let outcome = await_outcome(&outcome, &steps, STEP_MAX);
    let (verdict, history, simulated) = match outcome {
        Outcome::Ended(ended) => {
            let _ = thread.join();
            *ended
        }
        Outcome::Failed(verdict) => {
            ABANDONED.fetch_add(1, Ordering::Relaxed);
            (verdict, History::default(), Duration::ZERO)
        }
    };
    Run { verdict, history, trace: trace.finish(), simulated }
}

/// How a run's thread ended, or did not.
enum Outcome {
    Ended(Box<(Verdict, History, Duration)>),
    Failed(Verdict),
}

/// Threads of runs that were left as they were.
static ABANDONED: AtomicUsize = AtomicUsize::new(0);

/// How many runs' threads were left as they were, with the memory that they hold: those that panicked, and those that did not get on.
pub fn abandoned() -> usize {
    ABANDONED.load(Ordering::Relaxed)
}

/// Real time in which a run must get on by one step, which is some milliseconds of simulated time and takes less of real time. Only
/// what never gives way takes so long.
const STEP_MAX: Duration = Duration::from_secs(60);
/// What a run counts as steps when it takes no more of them.
const NO_MORE_STEPS: u64 = u64::MAX;

/// Waits until a run is over or does not get on.
fn await_outcome(outcome: &mpsc::Receiver<Outcome>, steps: &AtomicU64, step_max: Duration) -> Outcome {
    let mut before = None;
    loop {
        match outcome.recv_timeout(step_max) {
            Ok(outcome) => return outcome,
            Err(RecvTimeoutError::Disconnected) => {
                return Outcome::Failed(Verdict::Crashed("its thread ended".into()));
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = steps.load(Ordering::Relaxed);
                if before.replace(now) == Some(now) && now != NO_MORE_STEPS {
                    let why = "something works for ever without waiting, so that time stands still";
                    return Outcome::Failed(Verdict::Stuck(why.into()));
                }
            }
        }
    }
}

thread_local! {
    /// Whom to tell of this thread's first panic.
    static WATCHED: RefCell<Option<SyncSender<Outcome>>> = const { RefCell::new(None) };
}

/// Makes the first panic on this thread a run's outcome. Built for simulation, it does not unwind: tokio would shut the runtime down
/// on the way, and what is dropped then can panic in turn.
fn end_with_first_panic(done: SyncSender<Outcome>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let watched = WATCHED.try_with(|watched| watched.take()).ok().flatten();
            let Some(done) = watched else { return default(info) };
            let _ = done.send(Outcome::Failed(Verdict::Crashed(info.to_string())));
            // Only so far as turmoil makes tokio end a runtime over it. A thread that stays in here keeps the hook from being changed,
            // which test harnesses do.
            while cfg!(tokio_unstable) {
                thread::park();
            }
        }));
    });
    WATCHED.set(Some(done));
}

fn simulate(scenario: &Scenario, trace: &Trace, steps: &AtomicU64) -> (Verdict, History, Duration) {
    let knobs = &scenario.knobs;
    let ms = Duration::from_millis;
    let mut builder = Builder::new();
    builder
        .rng_seed(scenario.seed)
        .epoch(std::time::UNIX_EPOCH + EPOCH)
        .simulation_duration(Duration::MAX)
        .tick_duration(ms(knobs.tick_ms))
        .min_message_latency(ms(knobs.latency_ms_min))
        .max_message_latency(ms(knobs.latency_ms_max))
        // Beyond so many connections that nobody has accepted yet, it panics.
        .tcp_capacity(64.max(4 * scenario.topology.users * scenario.topology.sessions))
        .enable_random_order();
    // Left as it is by a panic: to drop hosts out of their world can panic again.
    let mut sim = ManuallyDrop::new(builder.build());
    let signals = Signals::default();
    let world = World::new(scenario, trace, signals.clone());
    world.populate(&mut sim);
    let mut stage = Stage::new(scenario, &world, trace);
    let outcome = stage.play(&mut sim, &signals, steps);
    steps.store(NO_MORE_STEPS, Ordering::Relaxed);
    let simulated = sim.elapsed();
    let recorder = world.recorder();
    let history = world.workload().take_history().unwrap_or_else(|| recorder.take());
    for event in &history.events {
        let text = serde_json::to_string(event).unwrap_or_default();
        trace.note(&stage.name, Traced::Said(text));
    }
    // What is dropped from here on comes in an order that is not under control.
    trace.close();
    let verdict = match outcome {
        Err(verdict) => verdict,
        Ok(()) => match check(&history) {
            loadgen::Verdict::Valid => Verdict::Valid,
            loadgen::Verdict::Invalid(anomalies) => Verdict::Invalid(anomalies),
            loadgen::Verdict::Unknown(questions) => Verdict::Unknown(questions),
        },
    };
    drop(ManuallyDrop::into_inner(sim));
    (verdict, history, simulated)
}

/// The run's course: which faults are at work.
struct Stage<'a> {
    scenario: &'a Scenario,
    world: &'a World,
    trace: &'a Trace,
    name: Arc<str>,
    hosts: Vec<Host>,
    /// By their places.
    active: BTreeSet<usize>,
    over: BTreeSet<usize>,
    condition: Condition,
    /// Nodes that end in order and have to be started again.
    draining: BTreeSet<Host>,
    healed: bool,
}

impl<'a> Stage<'a> {
    fn new(scenario: &'a Scenario, world: &'a World, trace: &'a Trace) -> Self {
        Self {
            scenario,
            world,
            trace,
            name: "world".into(),
            hosts: scenario.topology.hosts(),
            active: BTreeSet::new(),
            over: BTreeSet::new(),
            condition: Condition::default(),
            draining: BTreeSet::new(),
            healed: false,
        }
    }

    /// Steps until all clients have ended.
    fn play(&mut self, sim: &mut Sim<'_>, signals: &Signals, steps: &AtomicU64) -> Result<(), Verdict> {
        let ends = |fault: &Fault| fault.at_ms + fault.for_ms;
        let last_fault = self.scenario.faults.iter().map(ends).max().unwrap_or(0);
        let last_operation = self.scenario.operations.iter().map(|operation| operation.at).max();
        let knobs = &self.scenario.knobs;
        let longest = Duration::from_millis(last_fault + 4 * knobs.request_timeout_ms)
            + last_operation.unwrap_or_default()
            + END_MAX;
        loop {
            trace::between(sim.elapsed());
            steps.fetch_add(1, Ordering::Relaxed);
            self.change(sim);
            let all_over = self.over.len() == self.scenario.faults.len() && self.draining.is_empty();
            if !self.healed && all_over && signals.done.is_cancelled() {
                self.healed = true;
                self.world.recorder().healed();
                signals.healed.cancel();
            }
            match sim.step() {
                Ok(true) => return Ok(()),
                Ok(false) if sim.elapsed() > longest => return Err(Verdict::Stuck(self.situation(signals))),
                Ok(false) => {}
                Err(error) => return Err(Verdict::Crashed(error.to_string())),
            }
        }
    }

    fn situation(&self, signals: &Signals) -> String {
        match (self.healed, signals.done.is_cancelled()) {
            (true, _) => "after all was healed".into(),
            (false, true) => "before all faults were over".into(),
            (false, false) => "in the middle of the operations".into(),
        }
    }

    /// Lets faults begin and end whose time has come.
    fn change(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed().as_millis() as u64;
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        for (at, fault) in self.scenario.faults.iter().enumerate() {
            if self.over.contains(&at) || now < fault.at_ms {
                continue;
            }
            if !self.active.contains(&at) {
                begun.push((at, fault));
            } else if now >= fault.at_ms + fault.for_ms {
                ended.push((at, fault));
            }
        }
        let draining: Vec<Host> = self.draining.iter().copied().collect();
        let restarted: Vec<Host> = draining.into_iter().filter(|host| self.may_restart(sim, *host)).collect();
        if begun.is_empty() && ended.is_empty() && restarted.is_empty() {
            return;
        }
        for (at, fault) in &ended {
            self.active.remove(at);
            self.over.insert(*at);
            self.at_end(fault);
        }
        for (at, fault) in &begun {
            self.active.insert(*at);
            self.say(format!("begins: {fault}"));
            self.world.recorder().fault_began(&fault.to_string());
        }
        let faults = self.active.iter().filter_map(|at| self.scenario.faults.get(*at));
        let condition = Condition::of(faults, &self.hosts);
        self.apply(sim, condition);
        for (_, fault) in &begun {
            self.at_begin(fault);
        }
        for host in restarted {
            self.draining.remove(&host);
            if !self.condition.down.contains(&host) {
                self.start(sim, host);
            }
        }
        for (_, fault) in &ended {
            self.say(format!("is over: {fault}"));
            self.world.recorder().fault_ended(&fault.to_string());
        }
    }

    /// Whether a node that was told to end has done so and its fault is over.
    fn may_restart(&self, sim: &mut Sim<'_>, host: Host) -> bool {
        let wanted_down = |at: &usize| matches!(self.scenario.faults.get(*at), Some(Fault { what: What::Drain { host: it }, .. }) if *it == host);
        !self.active.iter().any(wanted_down) && !sim.is_host_running(host.to_string())
    }

    /// What a fault does at one moment, when it begins.
    fn at_begin(&mut self, fault: &Fault) {
        match fault.what {
            What::Drain { host } if !self.condition.down.contains(&host) => {
                self.draining.insert(host);
                self.world.drain(host);
            }
            What::RedisEmptied => self.world.redis().flush_all(),
            What::ClockJump { host, by_ms } => self.world.clock(host).jump(by_ms),
            _ => {}
        }
    }

    /// What its end does.
    fn at_end(&self, fault: &Fault) {
        if let What::ClockJump { host, by_ms } = fault.what {
            self.world.clock(host).jump(-by_ms);
        }
    }

    /// Brings everything into another condition.
    fn apply(&mut self, sim: &mut Sim<'_>, condition: Condition) {
        let before = std::mem::replace(&mut self.condition, condition);
        let now = &self.condition;
        let (stopped, started): (Vec<Host>, Vec<Host>) = (
            now.down.difference(&before.down).copied().collect(),
            before.down.difference(&now.down).copied().collect(),
        );
        // A host without power sends nothing when it goes; when it comes back, it is there before the network is.
        for host in started {
            if !self.draining.contains(&host) {
                self.start(sim, host);
            }
        }
        change_links(sim, &self.scenario.knobs, &before, now);
        for host in stopped {
            self.world.stopping(host, true);
            sim.crash(host.to_string());
            self.world.stopping(host, false);
        }
        if before.wedged != now.wedged {
            self.world.redis().set_wedged(now.wedged || !self.scenario.knobs.hints);
        }
        if before.publishes != now.publishes {
            self.world.redis().set_publishes(now.publishes);
        }
        if before.store != now.store {
            self.world.database().set(now.store);
        }
        let drifting: BTreeSet<Host> = before.drifts.keys().chain(now.drifts.keys()).copied().collect();
        for host in drifting {
            let ppm = |condition: &Condition| condition.drifts.get(&host).copied().unwrap_or_default();
            if ppm(&before) != ppm(now) {
                self.world.clock(host).drift(ppm(now));
            }
        }
    }

    /// Starts a host that was stopped or has ended: what its last life has left running is stopped first.
    fn start(&self, sim: &mut Sim<'_>, host: Host) {
        self.world.stopping(host, true);
        sim.bounce(host.to_string());
        self.world.stopping(host, false);
    }

    fn say(&self, text: String) {
        self.trace.note(&self.name, Traced::Said(text));
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    fn outcome_of(step_max: Duration, work: impl Future<Output = ()> + Send + 'static) -> Verdict {
        let (done, outcome) = mpsc::sync_channel(1);
        spawn_seeded(1, move || {
            end_with_first_panic(done.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime").block_on(work);
            let _ = done.send(Outcome::Failed(Verdict::Valid));
        });
        match await_outcome(&outcome, &AtomicU64::new(0), step_max) {
            Outcome::Failed(verdict) => verdict,
            Outcome::Ended(_) => unreachable!("nothing here says so"),
        }
    }

    /// Also one in a task that nobody waits for.
    #[test]
    fn a_panic_is_a_verdict() {
        let verdict = outcome_of(Duration::from_secs(60), async {
            let task = TaskTracker::new().spawn(async { panic!("planted") });
            let _: Result<(), _> = task.await;
        });
        assert!(matches!(&verdict, Verdict::Crashed(why) if why.contains("planted")), "{verdict}");
    }

    #[test]
    fn what_never_gives_way_is_a_verdict() {
        let verdict = outcome_of(Duration::from_millis(10), async {
            // Longer than any patience here, and not for ever: the test's process has to end.
            tokio::time::sleep(Duration::from_secs(1)).await;
        });
        assert!(matches!(verdict, Verdict::Stuck(_)), "{verdict}");
    }
}
