//! Carrying out a scenario: a workload, what is done meanwhile, and the verdict on what the users saw.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use loadgen::{History, Plan, Recorder, Verdict, check, history::Bounds, run};
use protocol::{Net, Tcp, clock::SystemEntropy};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::cluster::Cluster;

/// How long a run may take at most; it decides no test that passes.
pub(super) const PATIENCE: Duration = Duration::from_secs(150);
/// How long the workload runs before something is done, and after it was mended.
const AROUND: Duration = Duration::from_secs(2);

/// How often a scenario is to be carried out, and what distinguishes the runs.
///
/// `CHAT_E2E=NAME:TIMES,NAME:TIMES` runs those so many times, and no others; the name `*` stands for all that are not named.
pub(super) fn runs(name: &str) -> Range<u64> {
    let chosen = std::env::var("CHAT_E2E").unwrap_or_else(|_| "*:1".into());
    let chosen = chosen.split(',').map(|one| one.split_once(':').expect("CHAT_E2E=NAME:TIMES,NAME:TIMES"));
    let times = |wanted: &str| chosen.clone().find(|(name, _)| *name == wanted).map(|(_, times)| times);
    0..times(name).or(times("*")).map_or(0, |times| times.parse().expect("a number of runs"))
}

/// A workload on a cluster, to be varied.
pub(super) struct Scenario {
    name: &'static str,
    pub(super) plan: Plan,
    pub(super) bounds: Bounds,
    /// nginx's, if it is not changed.
    pub(super) addresses: Vec<String>,
    pub(super) net: Detour,
}

impl Scenario {
    pub(super) fn new(cluster: &Cluster, name: &'static str, time: u64) -> Self {
        // A user's name is short.
        let prefix: String = name.replace(' ', "-").chars().take(20).collect();
        let plan = Plan {
            seed: time,
            prefix: format!("{prefix}-{time}-"),
            users: 6,
            sessions: 2,
            operations: u64::MAX,
            pause: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            settle: PATIENCE / 2,
            ..Plan::default()
        };
        let addresses = vec![cluster.address.clone()];
        Self { name, plan, bounds: Bounds::default(), addresses, net: Detour::default() }
    }

    /// Runs the workload, has something done in the middle of it, and checks what the users saw.
    pub(super) async fn run(
        self,
        cluster: &mut Cluster,
        fault: impl AsyncFnOnce(&mut Cluster, &Recorder),
    ) -> History {
        let Self { name, plan, bounds, addresses, net } = self;
        let recorder = Recorder::new(bounds);
        let enough = CancellationToken::new();
        let tracker = TaskTracker::new();
        let running = tracker.spawn({
            let (recorder, enough, tracker) = (recorder.clone(), enough.clone(), tracker.clone());
            async move {
                run(net, &addresses, plan, recorder, Arc::new(SystemEntropy), tracker, enough).await
            }
        });
        sleep(AROUND).await;
        recorder.fault_began(name);
        fault(cluster, &recorder).await;
        recorder.fault_ended(name);
        recorder.healed();
        sleep(AROUND).await;
        enough.cancel();
        let (history, problem) = match timeout(PATIENCE, running).await {
            Ok(history) => {
                let history = history.unwrap();
                let verdict = check(&history);
                println!("{name}: {} events, {verdict}", history.events.len());
                (history, (verdict != Verdict::Valid).then(|| verdict.to_string()))
            }
            Err(_) => (recorder.history_so_far(), Some("the run does not end".into())),
        };
        if let Some(problem) = problem {
            let folder = keep(cluster, name, &history);
            panic!("{name}: {problem}; the history and the nodes' logs are in {folder}");
        }
        assert!(history.events.len() > 500, "{name}: the workload ran");
        history
    }
}

/// Keeps what tells why a scenario failed; returns where.
fn keep(cluster: &Cluster, name: &str, history: &History) -> String {
    let prefix = format!("chat-e2e-{}-", name.replace(' ', "-"));
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap().keep();
    history.write(File::create(folder.join("history.jsonl")).unwrap()).unwrap();
    for (at, node) in cluster.nodes.iter().enumerate() {
        fs::write(folder.join(format!("node-{at}.log")), node.log().join("\n")).unwrap();
    }
    folder.display().to_string()
}

/// A network on which all ways lead to one address, while there is one.
#[derive(Debug, Clone, Default)]
pub(super) struct Detour(Arc<Mutex<Option<String>>>);

impl Detour {
    pub(super) fn lead_to(&self, address: Option<String>) {
        *self.0.lock().unwrap() = address;
    }
}

impl Net for Detour {
    type Listener = <Tcp as Net>::Listener;
    type Stream = <Tcp as Net>::Stream;

    async fn bind(&self, addr: &str) -> io::Result<Self::Listener> {
        Tcp.bind(addr).await
    }

    fn local_addr(&self, on: &Self::Listener) -> io::Result<SocketAddr> {
        Tcp.local_addr(on)
    }

    async fn accept(&self, on: &Self::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        Tcp.accept(on).await
    }

    async fn connect(&self, addr: &str) -> io::Result<Self::Stream> {
        let detour = self.0.lock().unwrap().clone();
        Tcp.connect(detour.as_deref().unwrap_or(addr)).await
    }
}
