//! chatload hostile: attackers of many kinds on one node of this machine, bounded in number, time and processor time.
//!
//! - `options`: the command line, and the kinds; `attacker`: what each kind does; `wire`: a connection that may be misused
//! - `report`: what became of them

mod attacker;
mod options;
mod report;
mod wire;

use std::{
    fs,
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    sync::{OnceCell, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::{attacker::Attacker, report::Tally};
pub use self::{
    options::{Kind, Options},
    report::{KindReport, Report},
};
use crate::load::addresses;

/// Logins of attackers at once, while they take up their positions.
const LOGINS_AT_ONCE: usize = 8;
/// How long taking up positions may take: each login costs the node a hash.
const ARMING: Duration = Duration::from_secs(180);
/// How long to wait for the word to begin.
const GO_PATIENCE: Duration = Duration::from_secs(600);

/// What all attackers of a run share.
struct Shared {
    options: Options,
    sources: Vec<IpAddr>,
    tally: Tally,
    logins: Semaphore,
    /// Attackers that have their session, or do without.
    armed: AtomicU32,
    begun: watch::Sender<bool>,
    /// The group whose log is long to read and longer to write.
    group: OnceCell<u64>,
}

/// Attacks, and tells what became of it. `say` is told when the attackers have their sessions.
///
/// # Errors
/// The addresses cannot be used, or the word to begin does not come.
pub async fn run(options: &Options, say: impl Fn(&str)) -> anyhow::Result<Report> {
    let sources = addresses(&options.from).map_err(anyhow::Error::msg).context("--from")?;
    let shared = Arc::new(Shared {
        options: options.clone(),
        sources,
        tally: Tally::default(),
        logins: Semaphore::new(LOGINS_AT_ONCE),
        armed: AtomicU32::new(0),
        begun: watch::Sender::new(false),
        group: OnceCell::new(),
    });
    let mut attackers = JoinSet::new();
    let begun = Instant::now();
    if let Some(percent) = options.cpu_percent {
        attackers.spawn(stand_still(f64::from(percent) / 100.0));
    }
    for number in 0..options.connections {
        attackers.spawn(Attacker::new(Arc::clone(&shared), number).run());
    }
    while shared.armed.load(Relaxed) < options.connections && begun.elapsed() < ARMING {
        sleep(Duration::from_millis(50)).await;
    }
    say(&format!("{} attackers have their positions", shared.armed.load(Relaxed)));
    if let Some(path) = &options.go {
        timeout(GO_PATIENCE, until(path, true)).await.context("--go: the file does not come")?;
    }
    shared.begun.send_replace(true);
    let began = Instant::now();
    let called_off = async {
        match &options.go {
            Some(path) => until(path, false).await,
            None => std::future::pending().await,
        }
    };
    // Called off or not: the attack has been as long as it was to be.
    let _ = timeout(options.duration, called_off).await;
    let report = shared.tally.report(options, began.elapsed());
    attackers.shutdown().await;
    Ok(report)
}

/// Waits until the file is there, or is not.
async fn until(path: &Path, there: bool) {
    while path.exists() != there {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Keeps this process's share of a processor: all attackers share its one thread, which sleeps here.
async fn stand_still(share: f64) {
    let (began, used_before) = (Instant::now(), processor_time());
    loop {
        sleep(Duration::from_millis(10)).await;
        let used = processor_time().saturating_sub(used_before);
        let pause = used.div_f64(share).saturating_sub(began.elapsed());
        #[expect(
            clippy::disallowed_methods,
            reason = "that the runtime's thread stands still is what it is for"
        )]
        std::thread::sleep(pause.min(Duration::from_secs(1)));
    }
}

/// Of this thread. Nothing where the system does not tell: then nothing is held back.
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}
