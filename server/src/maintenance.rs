//! What operators do to a database, without serving clients.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use protocol::{
    Entropy,
    clock::{SystemClock, SystemEntropy},
};
use server::{
    config::{EraseUserArgs, ExpireArgs, MigrateArgs},
    erasure,
    node::{NodeConfig, RunningNode, World},
    password::Argon2id,
    relay::none::NoRelay,
    retention::{self, Pace},
};
use tracing::info;

use super::open;

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
