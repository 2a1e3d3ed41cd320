//! Leads the users through a run: set-up, load, settling, end; and measures the window.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use client::{Config, RequestError, TlsPeer};
use protocol::{ConversationId, Entropy, UserId};
use tokio::{
    net::lookup_host,
    select,
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    arrivals::Anomalies,
    connection::Route,
    layout::{Layout, LinePlan, UserIndex},
    options::{Options, Scenario, SpacingOption},
    outages::Recorder,
    reconcile::reconcile,
    report::{Failures, ProcessReport, Report, Trial},
    schedule::Spacing,
    stamp::LineId,
    stats::{Counts as Measured, Stats},
    system::{self, Machine, Ticks, Usage},
    user::{Outcome, User},
};

/// The password of every user of every run.
pub const PASSWORD: &str = "chatload";

/// The accounts of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accounts {
    /// Are made through the protocol.
    Register,
    /// Exist, are named by this prefix and the numbers from 0, and have [`PASSWORD`].
    Existing(String),
}

impl Accounts {
    /// The name of an existing account.
    pub fn name(prefix: &str, number: u32) -> String {
        format!("{prefix}.{number}")
    }
}

/// What the users do now. All of them do the same.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// A step of the set-up: everybody takes it and arrives before the next one begins.
    SetUp(u8),
    /// Send.
    Load(Arc<Pace>),
    /// Do not send, and take what comes.
    Hold,
    /// Tell what you know.
    End,
}

/// How the load is made.
#[derive(Debug)]
pub(super) struct Pace {
    /// Which load of the run it is.
    pub(super) number: u64,
    /// When it begins, since the run did.
    pub(super) start: Duration,
    /// Of all users together.
    pub(super) rate: f64,
    /// In a closed loop: on their way for each sender.
    pub(super) window: Option<u32>,
}

/// What all users of a run share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) layout: Layout,
    /// Tells this run's messages from all others.
    pub(super) run: u64,
    pub(super) began: Instant,
    pub(super) config: Config,
    pub(super) stats: Stats,
    pub(super) counts: Counts,
    pub(super) outages: Recorder,
    pub(super) stages: watch::Sender<Stage>,
    pub(super) set_up_permits: Semaphore,
    pub(super) storm_permits: Semaphore,
    /// By user: the account's number.
    pub(super) users: Vec<OnceLock<UserId>>,
    /// By user: woken when a message has arrived everywhere, or failed.
    pub(super) wakes: Vec<Notify>,
    pub(super) convs: Vec<ConvState>,
    pub(super) lines: Vec<LineState>,
    /// How many users share the load.
    pub(super) senders: u32,
    pub(super) accounts_exist: bool,
    prefix: String,
    targets: Vec<(SocketAddr, Option<Arc<TlsPeer>>)>,
    sources: Vec<IpAddr>,
    arrived: AtomicUsize,
    all_arrived: Notify,
}

/// What all users know of a conversation.
#[derive(Debug, Default)]
pub(super) struct ConvState {
    pub(super) id: OnceLock<ConversationId>,
    /// The highest seq acknowledged to anybody.
    pub(super) acknowledged: AtomicU64,
}

/// What all users know of a line.
#[derive(Debug, Default)]
pub(super) struct LineState {
    /// At all devices together, the sender's included.
    pub(super) arrivals: AtomicU64,
}

/// What has happened since the run began.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Requests of the load handed over.
    pub(super) sent: AtomicU64,
    /// Of them carried out.
    pub(super) answered: AtomicU64,
    /// Of them refused for certain, or of unknown outcome.
    refused: AtomicU64,
    unknown: AtomicU64,
    /// Arrivals that acknowledged messages lead to, all devices together.
    pub(super) acknowledged: AtomicU64,
    /// Arrivals.
    arrivals: AtomicU64,
    /// Connections that ended without being asked to.
    pub(super) disconnects: AtomicU64,
}

impl Counts {
    fn open(&self) -> u64 {
        let ended = self.answered.load(Relaxed) + self.refused.load(Relaxed) + self.unknown.load(Relaxed);
        self.sent.load(Relaxed).saturating_sub(ended)
    }

    fn settled(&self) -> bool {
        self.open() == 0 && self.arrivals.load(Relaxed) >= self.acknowledged.load(Relaxed)
    }
}

impl Shared {
    /// The time since the run began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A user has taken a step of the set-up.
    pub(super) fn arrive(&self) {
        if self.arrived.fetch_add(1, Relaxed) + 1 == self.layout.users as usize {
            self.all_arrived.notify_one();
        }
    }

    /// Name and password of a user.
    pub(super) fn account(&self, user: UserIndex) -> (String, String) {
        (Accounts::name(&self.prefix, user), PASSWORD.to_owned())
    }

    pub(super) fn route(&self, user: UserIndex) -> Route {
        let user = user as usize;
        // The targets are taken in turn, so the sources are taken in turn by those who share a target.
        let source = self.sources.get((user / self.targets.len()) % self.sources.len().max(1)).copied();
        let (target, tls) = self.targets[user % self.targets.len()].clone();
        Route { target, source, tls }
    }

    /// A request of the load has failed.
    pub(super) fn failed(&self, error: &RequestError) {
        let count = if error.is_definite() { &self.counts.refused } else { &self.counts.unknown };
        count.fetch_add(1, Relaxed);
        tracing::debug!(%error, "request failed");
    }

    /// A message of a line has arrived at a device.
    pub(super) fn arrived(&self, line: LineId, plan: &LinePlan) {
        self.counts.arrivals.fetch_add(1, Relaxed);
        let before = self.lines[line as usize].arrivals.fetch_add(1, Relaxed);
        let members = self.layout.convs[plan.conv as usize].members.len() as u64;
        if (before + 1).is_multiple_of(members) {
            self.wakes[plan.user as usize].notify_one();
        }
    }
}

impl From<SpacingOption> for Spacing {
    fn from(option: SpacingOption) -> Self {
        match option {
            SpacingOption::Even => Self::Even,
            SpacingOption::Poisson => Self::Poisson,
        }
    }
}

/// How many users, and accounts, the options ask for.
pub fn users(options: &Options) -> u32 {
    Layout::new(options).users
}

/// Makes the load that the options ask for. `progress` writes a line to standard error every second.
///
/// # Errors
/// The set-up failed: a target cannot be reached, an account not be made.
pub async fn run(
    options: &Options,
    accounts: &Accounts,
    entropy: &dyn Entropy,
    progress: bool,
) -> anyhow::Result<Report> {
    let layout = Layout::new(options);
    if options.find_max
        && matches!(options.scenario, Scenario::Idle | Scenario::LoginStorm | Scenario::ReconnectStorm)
    {
        bail!("--find-max is for scenarios that send messages or read pages");
    }
    let before: BTreeMap<u32, Usage> =
        options.processes.iter().filter_map(|pid| Some((*pid, system::usage(*pid)?))).collect();
    if let Some(pid) = options.processes.iter().find(|pid| !before.contains_key(pid)) {
        bail!("there is no process {pid} (--processes)");
    }
    let shared = Arc::new(shared(options, layout, accounts, entropy).await?);
    let users = shared.layout.users;
    let mut lead = Lead { shared: Arc::clone(&shared), tasks: JoinSet::new(), progress, before, loads: 0 };
    for index in 0..users {
        lead.tasks.spawn(User::new(Arc::clone(&shared), index).run());
    }
    lead.set_up().await?;
    let (measured, trials) =
        if options.find_max { lead.find_max().await? } else { lead.load(options.pace().0).await? };
    let outcomes = lead.end().await?;
    let mut anomalies = reconcile(&shared.layout, &outcomes, options.verify);
    if !options.verify {
        let counts = &shared.counts;
        anomalies.lost += counts.acknowledged.load(Relaxed).saturating_sub(counts.arrivals.load(Relaxed));
    }
    Ok(report(&shared, &measured, trials, anomalies))
}

async fn shared(
    options: &Options,
    layout: Layout,
    accounts: &Accounts,
    entropy: &dyn Entropy,
) -> anyhow::Result<Shared> {
    let mut targets = Vec::new();
    for target in &options.target {
        let mut found = lookup_host(target).await.with_context(|| format!("--target {target}"))?;
        let address = found.next().with_context(|| format!("--target {target}: no address"))?;
        let host = target.rsplit_once(':').map_or(target.as_str(), |(host, _)| host);
        let tls = options.tls.then(|| TlsPeer::new(host, options.tls_ca.as_deref())).transpose();
        targets.push((address, tls.with_context(|| format!("--tls, {target}"))?.map(Arc::new)));
    }
    let mut run = [0; 8];
    entropy.fill(&mut run);
    let run = u64::from_le_bytes(run);
    let prefix = match accounts {
        Accounts::Register => format!("{run:x}"),
        Accounts::Existing(prefix) => prefix.clone(),
    };
    let at_once = |wanted: u32| wanted.min(layout.users.max(1)) as usize;
    let storm = at_once(options.pace().1.unwrap_or(1));
    // Whoever has lines or reads; of a storm, everybody.
    let mut senders: Vec<UserIndex> =
        layout.lines.iter().chain(&layout.readers).map(|line| line.user).collect();
    senders.sort_unstable();
    senders.dedup();
    let senders = if options.scenario.is_storm() { layout.users } else { senders.len() as u32 };
    Ok(Shared {
        config: config(options),
        run,
        began: Instant::now(),
        stats: Stats::new(),
        counts: Counts::default(),
        outages: Recorder::new(),
        stages: watch::Sender::new(Stage::Hold),
        set_up_permits: Semaphore::new(at_once(options.set_up_at_once)),
        storm_permits: Semaphore::new(storm),
        users: (0..layout.users).map(|_| OnceLock::new()).collect(),
        wakes: (0..layout.users).map(|_| Notify::new()).collect(),
        convs: layout.convs.iter().map(|_| ConvState::default()).collect(),
        lines: layout.lines.iter().map(|_| LineState::default()).collect(),
        senders: senders.max(1),
        accounts_exist: matches!(accounts, Accounts::Existing(_)),
        prefix,
        targets,
        sources: options.sources(),
        arrived: AtomicUsize::new(0),
        all_arrived: Notify::new(),
        options: options.clone(),
        layout,
    })
}

fn config(options: &Options) -> Config {
    let storm = options.scenario == Scenario::ReconnectStorm;
    Config {
        connect_timeout: Duration::from_secs(30),
        // A storm measures the server, not the pauses that a polite client makes.
        backoff_min: Duration::from_millis(if storm { 1 } else { 100 }),
        backoff_max: Duration::from_secs(match options.scenario {
            Scenario::ReconnectStorm => 1,
            // What people's clients do is what it measures.
            Scenario::Trickle => 10,
            _ => 5,
        }),
        // A message that is repeated after a refusal would stand after those sent since.
        attempts_max: 1,
        // An open loop does not wait for answers; what exceeds this is refused, and counted.
        requests_max: 1 << 20,
        request_bytes_max: 256 * 1024 * 1024,
        confirm_automatically: options.confirm,
        ..Config::default()
    }
}

/// What came of a load.
struct Load {
    measured: Measured,
    seconds: f64,
    rate: f64,
    /// By process: at the window's beginning and end.
    usage: BTreeMap<u32, (Usage, Usage)>,
    /// Before anybody connected.
    before: BTreeMap<u32, Usage>,
    steal_percent: f64,
    others_percent: f64,
    settled: bool,
}

struct Lead {
    shared: Arc<Shared>,
    tasks: JoinSet<anyhow::Result<Outcome>>,
    progress: bool,
    before: BTreeMap<u32, Usage>,
    loads: u64,
}

/// Steps of the set-up: logins; conversations; members; logs.
const STEPS: u8 = 4;
/// Between the word to begin and the first message.
const LEAD_IN: Duration = Duration::from_millis(20);
/// An attempt of the search has failed when so much of the rate waits.
const BACKLOG_MAX: Duration = Duration::from_secs(2);
/// Attempts of the search: enough to go from 1,000 to 400,000 and come within 5 %.
const TRIALS_MAX: usize = 24;

impl Lead {
    async fn set_up(&mut self) -> anyhow::Result<()> {
        for step in 0..STEPS {
            self.shared.arrived.store(0, Relaxed);
            self.shared.stages.send_replace(Stage::SetUp(step));
            loop {
                select! {
                    () = self.shared.all_arrived.notified() => break,
                    failed = failure(&mut self.tasks) => return Err(failed),
                    () = sleep(Duration::from_secs(1)) => {
                        let (done, all) = (self.shared.arrived.load(Relaxed), self.shared.layout.users);
                        self.say(&format!("setting up, step {} of {STEPS}: {done} of {all} users", step + 1));
                    }
                }
            }
        }
        self.shared.stages.send_replace(Stage::Hold);
        // What the set-up has led to must not arrive in the window.
        sleep(Duration::from_millis(100)).await;
        Ok(())
    }

    /// One load at a rate, with its window.
    async fn load(&mut self, rate: f64) -> anyhow::Result<(Load, Vec<Trial>)> {
        let shared = Arc::clone(&self.shared);
        let options = &shared.options;
        let start = shared.elapsed() + LEAD_IN;
        let from = start + options.ramp + options.warm_up;
        let until = from + options.duration;
        shared.stats.start(from, until);
        let pace = Pace { number: self.loads, start, rate, window: options.pace().1 };
        self.loads += 1;
        if options.scenario != Scenario::Idle {
            shared.stages.send_replace(Stage::Load(Arc::new(pace)));
        }
        self.wait_until(from, rate).await?;
        let (ticks, at_start) = (Ticks::now(), self.usage());
        let overrun = self.wait_until(until, rate).await?;
        let (ticks_after, at_end) = (Ticks::now(), self.usage());
        let seconds = (shared.elapsed().saturating_sub(from)).as_secs_f64();
        shared.stages.send_replace(Stage::Hold);
        let settled = self.settle().await?;
        if self.progress {
            eprint!("\r\x1b[K");
        }
        let usage: BTreeMap<u32, (Usage, Usage)> = at_start
            .into_iter()
            .filter_map(|(pid, start)| Some((pid, (start, *at_end.get(&pid)?))))
            .collect();
        let cpu = usage.values().map(|(start, end)| end.cpu.saturating_sub(start.cpu)).sum();
        let load = Load {
            measured: shared.stats.take(),
            seconds: if overrun { seconds } else { options.duration.as_secs_f64() },
            rate,
            usage,
            before: self.before.clone(),
            steal_percent: ticks_after.steal_percent_since(ticks),
            others_percent: ticks_after.others_percent_since(ticks, cpu),
            settled,
        };
        Ok((load, Vec::new()))
    }

    /// Looks for the highest rate that is kept: upwards by halves, then between the last two.
    async fn find_max(&mut self) -> anyhow::Result<(Load, Vec<Trial>)> {
        let options = self.shared.options.clone();
        let (mut kept, mut last): (Option<Load>, Option<Load>) = (None, None);
        let mut trials: Vec<Trial> = Vec::new();
        let (mut rate, mut too_high) = (options.pace().0, f64::INFINITY);
        while trials.len() < TRIALS_MAX && rate >= 1.0 {
            let (load, _) = self.load(rate).await?;
            let achieved = load.measured.messages as f64 / load.seconds;
            let p99 = load.measured.p99();
            // All that was due was sent and answered in time.
            let keeps = p99 <= options.p99 && load.settled && achieved >= 0.95 * rate;
            let p99_us = u64::try_from(p99.as_micros()).unwrap_or(u64::MAX);
            trials.push(Trial { rate, achieved, p99_us, kept: keeps, steal_percent: load.steal_percent });
            self.say(&format!("{rate:.0}/s: p99 {p99:?}, {}", if keeps { "kept" } else { "not kept" }));
            if self.progress {
                eprintln!();
            }
            let settled = load.settled;
            if keeps {
                kept = Some(load);
            } else {
                (too_high, last) = (rate, Some(load));
            }
            if !settled {
                // What is still on its way would spoil the next attempt.
                break;
            }
            let base = kept.as_ref().filter(|load| load.rate < too_high).map(|load| load.rate);
            rate = match base {
                Some(base) if too_high.is_infinite() => base * 1.5,
                Some(base) if too_high / base <= 1.05 => break,
                Some(base) => (base + too_high) / 2.0,
                None => rate / 2.0,
            };
        }
        // The trials say whether any rate was kept.
        Ok((kept.or(last).context("no attempt was made")?, trials))
    }

    /// Waits and tells of the progress; whether it ended early, because a search has found its rate too high.
    async fn wait_until(&mut self, end: Duration, rate: f64) -> anyhow::Result<bool> {
        let shared = Arc::clone(&self.shared);
        let backlog_max = rate * BACKLOG_MAX.as_secs_f64();
        loop {
            let now = shared.elapsed();
            if now >= end {
                return Ok(false);
            }
            if shared.options.find_max && shared.counts.open() as f64 > backlog_max {
                return Ok(true);
            }
            let (messages, deliveries, latency) = shared.stats.glance();
            let left = end.saturating_sub(now);
            self.say(&format!(
                "{left:.0?} left: {messages} messages, {deliveries} deliveries, p50 {:.1} ms, p99 {:.1} ms, {} open",
                latency.p50 as f64 / 1000.0,
                latency.p99 as f64 / 1000.0,
                shared.counts.open(),
            ));
            let next = (now + Duration::from_secs(1)).min(end);
            select! {
                () = sleep_until(shared.began + next) => {}
                failed = failure(&mut self.tasks) => return Err(failed),
            }
        }
    }

    /// Waits until nothing is on its way any more; whether that came in time.
    async fn settle(&mut self) -> anyhow::Result<bool> {
        let until = Instant::now() + self.shared.options.settle;
        while !self.shared.counts.settled() {
            if Instant::now() >= until {
                return Ok(false);
            }
            select! {
                () = sleep(Duration::from_millis(5)) => {}
                failed = failure(&mut self.tasks) => return Err(failed),
            }
        }
        // What comes twice may come late.
        sleep(Duration::from_millis(100)).await;
        Ok(true)
    }

    async fn end(&mut self) -> anyhow::Result<Vec<Outcome>> {
        self.shared.stages.send_replace(Stage::End);
        let mut outcomes = Vec::new();
        while let Some(outcome) = self.tasks.join_next().await {
            outcomes.push(outcome.context("a user's task ended badly")??);
        }
        outcomes.sort_by_key(|outcome| outcome.user);
        Ok(outcomes)
    }

    fn usage(&self) -> BTreeMap<u32, Usage> {
        let pids = self.shared.options.processes.iter().copied().chain([system::own_pid()]);
        pids.filter_map(|pid| Some((pid, system::usage(pid)?))).collect()
    }

    fn say(&self, what: &str) {
        if self.progress {
            eprint!("\r\x1b[K{what}");
            // Nobody is to be told if it fails.
            let _ = std::io::stderr().flush();
        }
    }
}

/// A user who ended before the end.
async fn failure(tasks: &mut JoinSet<anyhow::Result<Outcome>>) -> anyhow::Error {
    match tasks.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => anyhow::Error::new(error).context("a user's task ended badly"),
        Some(Ok(Ok(_))) | None => anyhow::anyhow!("a user ended too early"),
    }
}

fn report(shared: &Shared, load: &Load, trials: Vec<Trial>, anomalies: Anomalies) -> Report {
    let (measured, counts) = (&load.measured, &shared.counts);
    let process = |pid: u32, (start, end): &(Usage, Usage)| {
        let cpu_us = end.cpu.saturating_sub(start.cpu).as_micros() as f64;
        ProcessReport {
            pid,
            name: system::name(pid).unwrap_or_default(),
            cpu_us: cpu_us.round() as u64,
            cpu_us_per_message: per(cpu_us, measured.messages),
            cpu_us_per_delivery: per(cpu_us, measured.deliveries),
            rss_before_bytes: load.before.get(&pid).map_or(0, |usage| usage.rss),
            rss_start_bytes: start.rss,
            rss_end_bytes: end.rss,
            rss_max_bytes: end.rss_max,
        }
    };
    let measure = |pid: u32| load.usage.get(&pid).map(|usage| process(pid, usage));
    let processes = shared.options.processes.iter().filter_map(|pid| measure(*pid)).collect();
    let failed = Failures {
        refused: counts.refused.load(Relaxed),
        unknown: counts.unknown.load(Relaxed),
        disconnects: counts.disconnects.load(Relaxed),
    };
    let mut report = Report::new(
        &shared.options,
        measured,
        load.seconds,
        (shared.options.pace().1.is_none() && shared.options.scenario != Scenario::Idle).then_some(load.rate),
        (anomalies, failed, load.settled),
        (processes, measure(system::own_pid()), shared.layout.users),
        (load.steal_percent, load.others_percent, Machine::this()),
        trials,
    );
    report.outages = shared.outages.outages();
    report
}

fn per(total: f64, count: u64) -> Option<f64> {
    // To a hundredth of a microsecond: the kernel's clock tells no more.
    (count > 0).then(|| (100.0 * total / count as f64).round() / 100.0)
}
