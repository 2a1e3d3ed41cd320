//! Opening the database: waiting until it is there, checking what it promises, bringing its schema up to date.

use std::{io, str::FromStr as _, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Executor as _, MySqlConnection,
    migrate::{Migrate as _, MigrateError},
    mysql::{MySqlConnectOptions, MySqlSslMode},
};
use thiserror::Error;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    MySqlStore, SHARED_MAX,
    connections::{Connections, connect, number},
    identity::Identity,
    sessions::Sessions,
    target::UNFINISHED,
};
use crate::store::schema::contraction;

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// How long, in seconds, another node's migration is waited for.
const MIGRATION_MAX: i64 = 60;
/// Prepared statements kept per connection: all there are.
const STATEMENTS: usize = 64;
/// What to call the table of migrations: sqlx's own name.
const MIGRATIONS: &str = "_sqlx_migrations";
/// The name of the lock: a server's locks are not a database's.
const LOCK: &str = "concat('chatserver.', left(sha2(database(), 256), 40))";

/// The server's numbers for what may pass: too many connections (in all, of a user), starting or ending, read-only (a replica
/// that may be promoted), a lock that was not had, a statement that was ended.
const PASSING: [u16; 11] = [1040, 1203, 1053, 1079, 3168, 1290, 1836, 1205, 1213, 1317, 3024];

/// Why the database could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The URL cannot be understood. It holds a password, so it is not repeated.
    #[error("the URL of the database: {0}")]
    Url(#[source] sqlx::Error),
    /// The URL names no database.
    #[error("the URL names no database on the server: mysql://USER:PASSWORD@HOST:PORT/DATABASE")]
    NoDatabase,
    /// The server refused, or did not answer.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("bringing the schema up to date: {0}")]
    Migrate(#[from] MigrateError),
    /// Another node has been migrating for too long.
    #[error("another node has been bringing the schema up to date for more than {MIGRATION_MAX} s")]
    Locked,
    /// A copy of another database is not whole.
    #[error("the database holds an unfinished copy of another one: repeat chatserver migrate-data")]
    Unfinished,
    /// A later version has removed something.
    #[error("a later version has removed from the schema what this one needs: migration {0}")]
    TooNew(String),
}

impl OpenError {
    /// Whether it may go away by itself: the server is not up, or starts, or is being replaced.
    fn may_pass(&self) -> bool {
        match self {
            Self::Database(error) | Self::Migrate(MigrateError::Execute(error)) => match number(error) {
                Some(number) => PASSING.contains(&number),
                None => match error {
                    // A certificate that is refused comes as invalid data.
                    sqlx::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
                    sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => false,
                    _ => true,
                },
            },
            _ => false,
        }
    }
}

impl MySqlStore {
    /// Opens the database that the URL names and brings its schema up to date, trying for as long as `patience`.
    ///
    /// # Errors
    /// See [`OpenError`]; at once, if trying again is of no use.
    pub async fn open(url: &str, patience: Duration) -> Result<Self, OpenError> {
        let options = prepare(url, patience, false).await?;
        let identity = Arc::<Identity>::default();
        let shared = Arc::new(Connections::new(options.clone(), SHARED_MAX, Arc::clone(&identity)));
        Ok(Self { logs: Connections::new(options, 1, identity), sessions: Sessions::new(&shared), shared })
    }
}

/// Brings the schema up to date, and does nothing else.
///
/// # Errors
/// See [`OpenError`].
pub async fn migrate(url: &str, patience: Duration) -> Result<(), OpenError> {
    prepare(url, patience, false).await.map(|_| ())
}

/// Waits until the server answers, and brings the schema up to date, unless that is to be `left` to the caller.
pub(super) async fn prepare(
    url: &str,
    patience: Duration,
    left: bool,
) -> Result<MySqlConnectOptions, OpenError> {
    let options = options(url)?;
    let deadline = Instant::now() + patience;
    let mut told = false;
    loop {
        match attempt(&options, left).await {
            Ok(()) => return Ok(options),
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                if !told {
                    told = true;
                    warn!(%error, ?patience, "the database does not answer; trying again");
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether connections by this URL are encrypted.
pub fn is_encrypted(url: &str) -> bool {
    options(url).is_ok_and(|options| !matches!(options.get_ssl_mode(), MySqlSslMode::Disabled))
}

fn options(url: &str) -> Result<MySqlConnectOptions, OpenError> {
    let options = MySqlConnectOptions::from_str(url).map_err(OpenError::Url)?;
    if options.get_database().is_none() {
        return Err(OpenError::NoDatabase);
    }
    // sqlx lets small packets wait for acknowledgements (it sets no TCP_NODELAY): a statement of more than one TLS record takes 40 ms longer. So
    // encryption, which proves nothing without a certificate that is checked, is for who asks for it.
    let asks = url
        .split_once('?')
        .is_some_and(|(_, query)| query.contains("ssl-mode=") || query.contains("sslmode="));
    let options = if asks { options } else { options.ssl_mode(MySqlSslMode::Disabled) };
    // What a session starts with is set in one statement of ours; messages' texts are no matter for the log.
    Ok(options
        .set_names(false)
        .timezone(None)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging())
}

async fn attempt(options: &MySqlConnectOptions, left: bool) -> Result<(), OpenError> {
    let (mut connection, _) = connect(options).await?;
    let (version, flush, log_bin, sync_binlog): (String, i64, i64, i64) = sqlx::query_as(
        "select version(), cast(@@innodb_flush_log_at_trx_commit as signed), cast(@@log_bin as signed), \
         cast(@@sync_binlog as signed)",
    )
    .fetch_one(&mut connection)
    .await?;
    info!(%version, "the database is MySQL");
    if flush != 1 || log_bin == 1 && sync_binlog != 1 {
        warn!(
            innodb_flush_log_at_trx_commit = flush,
            sync_binlog,
            "the database may lose what it committed when its machine fails; SPEC.md, guarantee 1"
        );
    }
    if log_bin != 1 {
        warn!(
            "the database has no binary log: what it shows to others it may still lose when it fails; SPEC.md, guarantee 1"
        );
    }
    if left { Ok(()) } else { update_schema(&mut connection).await }
}

/// Carries out the migrations that are missing. Nodes that start together do it one after the other, under a lock of the server.
///
/// The statements of ours can be repeated, so one that was cut short is repeated. A later version's that only add are let be.
async fn update_schema(connection: &mut MySqlConnection) -> Result<(), OpenError> {
    // This session waits, for as long as it takes.
    connection.execute("set session max_execution_time = 0, session wait_timeout = 3600").await?;
    lock(connection).await?;
    if is_unfinished(connection).await? {
        return Err(OpenError::Unfinished);
    }
    migrate_locked(connection).await?;
    unlock(connection).await
}

/// Waits for the lock under which schemas are changed. It ends with the session.
pub(super) async fn lock(connection: &mut MySqlConnection) -> Result<(), OpenError> {
    let lock = sqlx::AssertSqlSafe(format!("select coalesce(get_lock({LOCK}, ?), 0)"));
    let (locked,): (i64,) = sqlx::query_as(lock).bind(MIGRATION_MAX).fetch_one(&mut *connection).await?;
    if locked == 1 { Ok(()) } else { Err(OpenError::Locked) }
}

pub(super) async fn unlock(connection: &mut MySqlConnection) -> Result<(), OpenError> {
    connection.execute(sqlx::AssertSqlSafe(format!("do release_lock({LOCK})"))).await?;
    Ok(())
}

/// Whether what is in the database is a part of another one.
pub(super) async fn is_unfinished(connection: &mut MySqlConnection) -> Result<bool, OpenError> {
    let marked: Option<(i64,)> = sqlx::query_as(
        "select 1 from information_schema.tables where table_schema = database() and table_name = ?",
    )
    .bind(UNFINISHED)
    .fetch_optional(connection)
    .await?;
    Ok(marked.is_some())
}

/// Under the lock.
pub(super) async fn migrate_locked(connection: &mut MySqlConnection) -> Result<(), OpenError> {
    connection.ensure_migrations_table(MIGRATIONS).await?;
    let cut_short = sqlx::AssertSqlSafe(format!("delete from {MIGRATIONS} where not success"));
    connection.execute(cut_short).await?;
    let mut migrator = sqlx::migrate!("../migrations/mysql");
    // The lock is ours; sqlx would wait for its own without end.
    migrator.set_locking(false).set_ignore_missing(true);
    let applied: Vec<(i64, String)> =
        sqlx::query_as("select version, description from _sqlx_migrations order by version")
            .fetch_all(&mut *connection)
            .await?;
    if let Some(name) = contraction(&migrator, &applied) {
        return Err(OpenError::TooNew(name));
    }
    migrator.run(&mut *connection).await?;
    Ok(())
}
