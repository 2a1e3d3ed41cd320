//! Accounts written through the store: hashing a password for each would take a quarter of an hour for ten thousand.
//! All share one password and one hash, whose cost decides what their logins cost.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use loadgen::load::{Accounts, PASSWORD, PrepareOptions};
use protocol::{
    ClientMsgId, Clock as _,
    clock::{SystemClock, SystemEntropy},
    text::name_key,
};
use server::{
    config::Database,
    password::{Argon2id, Passwords as _},
    store::{NewUser, RegisterOutcome, Store, mysql::MySqlStore, sqlite::SqliteStore},
};
use tokio::task::JoinSet;

/// How long a database may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// Accounts written at once: enough for a group commit, fewer than a pool's connections.
const AT_ONCE: usize = 8;

/// Makes accounts, at least `needed`. Those that an earlier call has made stay as they are.
pub(crate) async fn accounts(options: &PrepareOptions, needed: u32) -> anyhow::Result<()> {
    if options.accounts < needed {
        bail!("the scenario has {needed} users, and {} accounts are prepared", options.accounts);
    }
    let (memory, passes) = options.password_cost;
    let passwords = Argon2id::new(memory, passes, 1, Arc::new(SystemEntropy)).context("--password-cost")?;
    let password_hash = passwords.hash(PASSWORD).await.context("hashing the password")?;
    let store: Arc<dyn Store> = match options.database.parse().context("--database")? {
        Database::Sqlite(path) => Arc::new(SqliteStore::open(&path).await.context("opening the database")?),
        Database::MySql(url) => {
            Arc::new(MySqlStore::open(&url, PATIENCE).await.context("opening the database")?)
        }
        Database::Memory => bail!("--database: accounts in memory are gone when this program ends"),
    };
    let written = write(&store, options, &password_hash).await;
    store.close().await;
    written
}

async fn write(store: &Arc<dyn Store>, options: &PrepareOptions, password_hash: &str) -> anyhow::Result<()> {
    let mut writes = JoinSet::new();
    for number in 0..options.accounts {
        if writes.len() >= AT_ONCE {
            one(&mut writes).await?;
        }
        let name = Accounts::name(&options.prefix, number);
        let user = NewUser {
            mid: ClientMsgId::random(&SystemEntropy),
            name_key: name_key(&name),
            name,
            password_hash: password_hash.to_owned(),
            at: SystemClock.now(),
        };
        let store = Arc::clone(store);
        writes.spawn(async move { store.register(&user).await });
    }
    while !writes.is_empty() {
        one(&mut writes).await?;
    }
    Ok(())
}

async fn one(writes: &mut JoinSet<server::store::Result<RegisterOutcome>>) -> anyhow::Result<()> {
    let Some(outcome) = writes.join_next().await else { return Ok(()) };
    match outcome.context("writing an account")?.context("writing an account")? {
        // A name that is taken is an account of an earlier call, and a message id is never met twice.
        RegisterOutcome::Created(_) | RegisterOutcome::Conflict => Ok(()),
    }
}
