//! What operators do to a database, without serving clients.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use protocol::{
    Entropy,
    clock::{SystemClock, SystemEntropy},
};
use server::{
    config::{
        BackupArgs, Database, EraseUserArgs, ExpireArgs, MigrateArgs, MigrateDataArgs, RestoreArgs, secret,
    },
    erasure,
    node::{NodeConfig, RunningNode, World},
    password::Argon2id,
    relay::none::NoRelay,
    retention::{self, Pace},
    store::{
        sqlite,
        transfer::{self, Checked},
    },
};
use tracing::{error, info};

use super::{DATABASE_PATIENCE, open};

/// What a password hash costs by default: it is of one that nobody knows.
const ARGON2: (u32, u32) = (19_456, 2);
/// Messages between two lines that say how far it is.
const PROGRESS: u64 = 100_000;

/// Brings a schema up to date.
pub(super) async fn migrate(args: &MigrateArgs) -> anyhow::Result<bool> {
    open(args.database.parse()?).await?.close().await;
    info!("the schema is up to date");
    Ok(true)
}

/// Erases messages that are too old.
pub(super) async fn expire(args: &ExpireArgs) -> anyhow::Result<bool> {
    let store = open(args.database.parse()?).await?;
    let now = store.now().await.context("reading the database")?;
    let day = i64::try_from(retention::SHORTEST.as_millis()).context("a day in milliseconds")?;
    let before = match (args.before, args.days) {
        (Some(before), _) => before,
        (None, days) => now - day * i64::from(days.unwrap_or(u16::MAX)),
    };
    ensure!(before <= now - day, "messages of the last 24 hours are kept");
    let (mut sum, mut said) = (0, 0);
    let count = |erased| {
        sum += erased;
        if sum >= said + PROGRESS {
            said = sum;
            info!(erased = sum, "erasing messages");
        }
    };
    let erased = retention::expire(&*store, before, Pace::Half, count).await;
    let erased = erased.context("what is not done is done by the next call")?;
    store.close().await;
    println!("messages erased: {erased}");
    Ok(true)
}

/// Erases an account, by way of a node that has no clients.
pub(super) async fn erase_user(args: &EraseUserArgs) -> anyhow::Result<bool> {
    let account = erasure::account(&args.account).context("this can be no account's name")?;
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let passwords = Argon2id::new(ARGON2.0, ARGON2.1, 1, Arc::clone(&entropy)).context("argon2")?;
    let (relay, relay_events) = NoRelay::new();
    let world = World {
        store: open(args.database.parse()?).await?,
        relay: Arc::new(relay),
        relay_events,
        passwords: Arc::new(passwords),
        clock: Arc::new(SystemClock),
        entropy,
    };
    let node = RunningNode::start_unheard(world, NodeConfig::default());
    let erased = erasure::erase(node.node(), &account).await;
    let ended = node.drain().await;
    let erasure::Erasure { user, messages, friendships, blocks, groups, names } = erased?;
    println!(
        "account {user} is erased; messages: {messages}, friendships ended: {friendships}, blocks lifted: {blocks}, \
         groups left or deleted: {groups}, names taken out of others' entries: {names}"
    );
    Ok(ended)
}

/// Copies an embedded database to a server's, or compares the two.
pub(super) async fn migrate_data(args: &MigrateDataArgs) -> anyhow::Result<bool> {
    let from = file(&args.from).context("--from")?;
    let to = match (&args.to, &args.to_file) {
        (_, Some(path)) => secret(path)?,
        (to, None) => to.clone().unwrap_or_default(),
    };
    // What is said of an URL does not repeat it.
    let Database::MySql(to) = to.parse().context("--to")? else { bail!("--to: expected mysql://…") };
    let checked = match args.compare {
        true => transfer::compare(&from, &to, DATABASE_PATIENCE).await?,
        false => transfer::copy(&from, &to, DATABASE_PATIENCE).await?,
    };
    for table in &checked {
        println!("{table}");
    }
    let same = checked.iter().all(Checked::agrees);
    match (same, args.compare) {
        (true, _) => println!("both sides are the same"),
        (false, true) => error!("the two databases are not the same"),
        (false, false) => error!("the copy is not the same as its source: no node starts on it"),
    }
    Ok(same)
}

/// Writes a copy of an embedded database.
pub(super) async fn backup(args: &BackupArgs) -> anyhow::Result<bool> {
    sqlite::backup(&file(&args.database).context("--database")?, &args.to).await?;
    println!("the backup is in {}", args.to.display());
    Ok(true)
}

/// Puts a backup in its place.
pub(super) async fn restore(args: &RestoreArgs) -> anyhow::Result<bool> {
    let path = file(&args.database).context("--database")?;
    sqlite::restore(&args.from, &path, args.keep_sessions).await?;
    println!("the backup is in its place: {}", path.display());
    Ok(true)
}

/// The file of an embedded database.
fn file(url: &str) -> anyhow::Result<PathBuf> {
    match url.parse()? {
        Database::Sqlite(path) => Ok(path),
        _ => bail!("expected sqlite:PATH"),
    }
}
