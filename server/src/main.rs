//! chatserver: configuration, node, signal, drain.

mod maintenance;

use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser as _;
use mimalloc::MiMalloc;
use protocol::{
    Clock as _, Entropy, Net as _, Tcp,
    clock::{SystemClock, SystemEntropy},
};
use server::{
    admin::{self, AdminConfig},
    config::{
        Args, BackupArgs, Database, EraseUserArgs, ExpireArgs, LoadError, Loaded, LogFormat, MigrateArgs,
        MigrateDataArgs, RestoreArgs,
    },
    node::{NodeConfig, RunningNode, World},
    password::Argon2id,
    relay::{Relay, local::Hub, none::NoRelay, redis::RedisRelay},
    sizes::ENCRYPTED_BATCH_BYTES,
    store::{
        Store,
        mysql::{MySqlStore, is_encrypted},
        sqlite::SqliteStore,
    },
    tls::Tls,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// File descriptors kept for what is not a connection.
const FILES_RESERVED: u64 = 64;
/// How long the end may take after the drain.
const RELAY_GRACE: Duration = Duration::from_secs(1);

/// How long a node waits at its start for a database that does not answer.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

/// What operators do to a database, each with a command line of its own.
const CHORES: [&str; 6] = ["migrate", "expire", "erase-user", "migrate-data", "backup", "restore"];

fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    // A word that stands where a node has its address.
    let word = words.get(1).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    let chore = CHORES.contains(&word.as_str());
    if chore || ["config", "check-config"].contains(&word.as_str()) {
        words.remove(1);
    }
    if chore {
        // What clap calls the program when it has to complain.
        words[0] = format!("chatserver {word}").into();
        return match word.as_str() {
            "migrate" => do_chore(maintenance::migrate(&MigrateArgs::parse_from(words))),
            "expire" => do_chore(maintenance::expire(&ExpireArgs::parse_from(words))),
            "erase-user" => do_chore(maintenance::erase_user(&EraseUserArgs::parse_from(words))),
            "migrate-data" => do_chore(maintenance::migrate_data(&MigrateDataArgs::parse_from(words))),
            "backup" => do_chore(maintenance::backup(&BackupArgs::parse_from(words))),
            _ => do_chore(maintenance::restore(&RestoreArgs::parse_from(words))),
        };
    }
    let loaded = match Loaded::from_words(words) {
        Ok(loaded) => loaded,
        Err(LoadError::Arguments(error)) => error.exit(),
        Err(error) => {
            eprintln!("chatserver: {error}");
            return ExitCode::from(2);
        }
    };
    match word.as_str() {
        "config" => print(&loaded),
        "check-config" => check(&loaded.args),
        _ => start(&loaded.args.log, loaded.args.log_format, run(&loaded.args)),
    }
}

/// Shows the settings in effect.
fn print(loaded: &Loaded) -> ExitCode {
    // Whoever reads may have heard enough.
    let _ = write!(std::io::stdout(), "{loaded}");
    ExitCode::SUCCESS
}

/// Whether a node could be started so, as far as that can be told without starting it.
fn check(args: &Args) -> ExitCode {
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {}", args.log));
    let argon2 = Argon2id::new(args.argon2_memory, args.argon2_passes, 1, Arc::new(SystemEntropy));
    let checked = filter.and_then(|_| argon2.context("the argon2 parameters")).and_then(|_| {
        args.check_limits()?;
        Ok((args.database()?, args.redis()?, args.admin_token()?, args.tls()?))
    });
    match checked {
        Ok((.., tls)) => {
            if tls.is_some_and(|tls| tls.ends() < SystemClock.now()) {
                eprintln!(
                    "chatserver: --tls-cert: the certificate is no longer valid, and clients will refuse it"
                );
            }
            println!("the configuration can be used");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("chatserver: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Does what operators do to a database.
fn do_chore(chore: impl Future<Output = anyhow::Result<bool>>) -> ExitCode {
    start("info", LogFormat::Text, chore)
}

/// Sets up the log and the runtime, and says how it ended.
fn start(log: &str, format: LogFormat, work: impl Future<Output = anyhow::Result<bool>>) -> ExitCode {
    if let Err(error) = log_to_stderr(log, format) {
        eprintln!("chatserver: {error:#}");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("starting the runtime").and_then(|runtime| runtime.block_on(work));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Opens the database, and brings its schema up to date.
async fn open(database: Database) -> anyhow::Result<Arc<dyn Store>> {
    let store: Arc<dyn Store> = match database {
        Database::Sqlite(path) => {
            info!(path = %path.display(), "opening the database");
            Arc::new(SqliteStore::open(&path).await.context("opening the database")?)
        }
        Database::Memory => {
            warn!("the database is in memory: everything is lost when this process ends");
            Arc::new(SqliteStore::in_memory().await.context("opening the database")?)
        }
        Database::MySql(url) => {
            Arc::new(MySqlStore::open(&url, DATABASE_PATIENCE).await.context("opening the database")?)
        }
    };
    Ok(store)
}

/// Runs a node until it is told to end; whether it ended in order.
async fn run(args: &Args) -> anyhow::Result<bool> {
    args.check_limits()?;
    let tls = args.tls()?;
    let mut config = NodeConfig { tls: tls.clone(), ..args.node() };
    if matches!(args.database()?, Database::MySql(url) if is_encrypted(&url)) {
        config.sizes.batch_bytes_max = ENCRYPTED_BATCH_BYTES;
    }
    allow_files(config.connections_max as u64 + FILES_RESERVED);
    let token = args.admin_token()?;
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    // A hash has the processor that it is given for milliseconds, however much it gives way: others are left to those who chat.
    let hashes_at_once = std::thread::available_parallelism().map_or(1, |all| (all.get() / 2).max(1));
    let passwords =
        Argon2id::new(args.argon2_memory, args.argon2_passes, hashes_at_once, Arc::clone(&entropy))
            .context("the argon2 parameters")?;
    let store = open(args.database()?).await?;
    let mut terminate = signal(SignalKind::terminate()).context("listening to signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("listening to signals")?;
    // A terminal that is closed takes its programs with it.
    let terminal = std::io::stderr().is_terminal();

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
        // Other nodes may share the database: the sweep finds what they commit.
        None if matches!(args.database()?, Database::MySql(_)) => {
            let (relay, events) = NoRelay::new();
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
    let admin_relay = Arc::clone(&world.relay);
    let mut node = RunningNode::start(Tcp, listener, world, config);
    let (admins, stop_admin) = (TaskTracker::new(), CancellationToken::new());
    let drain = CancellationToken::new();
    if let Some(admin) = args.admin {
        let config = AdminConfig { token, address: address.to_string(), drain: drain.clone() };
        let listener = bind_admin(admin, &config).await?;
        let inner = Arc::clone(node.node());
        admins.spawn(admin::serve(listener, inner, admin_relay, config, stop_admin.clone()));
    }
    info!(version = env!("CARGO_PKG_VERSION"), %address, tls = tls.is_some(), "listening");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                if terminal {
                    break;
                }
                read_again(tls.as_deref());
            }
            () = drain.cancelled() => {
                info!("an operator wants this node to end");
                break;
            }
            () = node.failed() => anyhow::bail!("the node cannot go on"),
        }
    }
    let drained = tokio::select! {
        drained = node.drain() => drained,
        // Whoever asks twice means it.
        _ = interrupt.recv() => anyhow::bail!("ended before the drain was done"),
    };
    stop_admin.cancel();
    stop_relay.cancel();
    relays.close();
    // It says that this node is gone. If it cannot, the others notice when the lease ends.
    let _ = tokio::time::timeout(RELAY_GRACE, relays.wait()).await;
    Ok(drained)
}

/// Opens the admin listener.
async fn bind_admin(address: SocketAddr, config: &AdminConfig) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("--admin {address}"))?;
    let address = listener.local_addr().context("the address bound")?;
    if !address.ip().is_loopback() {
        warn!(%address, "whoever reaches the admin listener may read what it says");
    }
    info!(%address, operators = config.token.is_some(), "admin");
    Ok(listener)
}

/// Reads again what may change while the node runs.
fn read_again(tls: Option<&Tls>) {
    match tls.map(Tls::reload) {
        None => info!("SIGHUP: there is nothing to read again"),
        Some(Ok(())) => info!("the certificates were read again: new connections are served with them"),
        Some(Err(error)) => {
            error!(%error, "the new certificates cannot be used: the old ones stay in use");
        }
    }
}

fn log_to_stderr(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
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
