//! chatserver: configuration, node, signal, drain.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use protocol::{
    Entropy, Net as _, Tcp,
    clock::{SystemClock, SystemEntropy},
};
use server::{
    config::{Args, Database, LogFormat},
    node::{RunningNode, World},
    password::Argon2id,
    relay::{Relay, local::Hub, redis::RedisRelay},
    store::{Store, sqlite::SqliteStore},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

/// File descriptors kept for what is not a connection.
const FILES_RESERVED: u64 = 64;
/// How long the end may take after the drain.
const RELAY_GRACE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = log_to_stderr(&args) {
        eprintln!("chatserver: {error:#}");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("starting the runtime").and_then(|runtime| runtime.block_on(run(&args)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a node until it is told to end; whether it ended in order.
async fn run(args: &Args) -> anyhow::Result<bool> {
    let config = args.node();
    allow_files(config.connections_max as u64 + FILES_RESERVED);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let passwords = Argon2id::new(args.argon2_memory, args.argon2_passes, processors, Arc::clone(&entropy))
        .context("the argon2 parameters")?;
    let store: Arc<dyn Store> = match args.database()? {
        Database::Sqlite(path) => {
            info!(path = %path.display(), "opening the database");
            Arc::new(SqliteStore::open(&path).await.context("opening the database")?)
        }
        Database::Memory => {
            warn!("the database is in memory: everything is lost when this process ends");
            Arc::new(SqliteStore::in_memory().await.context("opening the database")?)
        }
    };
    let mut terminate = signal(SignalKind::terminate()).context("listening to signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to signals")?;

    let address = SocketAddr::new(args.ip, args.port);
    let listener = Tcp.bind(&address.to_string()).await.with_context(|| format!("listening on {address}"))?;
    let address = Tcp.local_addr(&listener).context("the address bound")?;
    let (relays, stop_relay) = (TaskTracker::new(), CancellationToken::new());
    let (relay, relay_events): (Arc<dyn Relay>, _) = match args.redis()? {
        Some(redis) => {
            let deployment = store.deployment().await.context("reading the database")?;
            let (relay, events) =
                RedisRelay::start(Tcp, redis, deployment, Arc::clone(&entropy), &relays, &stop_relay);
            (Arc::new(relay), events)
        }
        // This node has its database to itself, so there is no other.
        None => {
            let (relay, events) = Arc::new(Hub::default()).join();
            (Arc::new(relay), events)
        }
    };
    let world = World {
        store,
        relay,
        relay_events,
        passwords: Arc::new(passwords),
        clock: Arc::new(SystemClock),
        entropy,
    };
    let mut node = RunningNode::start(Tcp, listener, world, config);
    info!(version = env!("CARGO_PKG_VERSION"), %address, "listening");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = node.failed() => anyhow::bail!("the node cannot go on"),
    }
    let drained = tokio::select! {
        drained = node.drain() => drained,
        // Whoever asks twice means it.
        _ = interrupt.recv() => anyhow::bail!("ended before the drain was done"),
    };
    stop_relay.cancel();
    relays.close();
    // It says that this node is gone. If it cannot, the others notice when the lease ends.
    let _ = tokio::time::timeout(RELAY_GRACE, relays.wait()).await;
    Ok(drained)
}

fn log_to_stderr(args: &Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {}", args.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Raises the limit on open files towards what the connections need.
fn allow_files(wanted: u64) {
    match rlimit::increase_nofile_limit(wanted) {
        Ok(allowed) if allowed >= wanted => {}
        Ok(allowed) => {
            warn!(allowed, wanted, "the system allows fewer open files than connections are allowed");
        }
        Err(error) => warn!(%error, "the limit on open files is unknown"),
    }
}
