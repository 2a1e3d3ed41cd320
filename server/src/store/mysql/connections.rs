//! Connections to the server: so many at most, each call in bounded time.
//!
//! A connection is used again only after a call on it that is known to have ended: whatever fails, takes too long or is
//! dropped half-way takes its connection with it, so that nothing can commit on it later and unnoticed. (A pool of sqlx gives a connection
//! back that a dropped call has left in the middle of a statement.)
//!
//! It is also closed if another one has turned out to lead to another server since (see [`Identity`]).

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, FromRow, MySql, MySqlConnection,
    Row as _,
    mysql::{MySqlArguments, MySqlConnectOptions, MySqlDatabaseError, MySqlQueryResult, MySqlRow},
    query::QueryAs,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::{Outcome, Result, StoreError, identity::Identity};

/// How long a call may wait for its turn, and how long it may take. Below the committer's patience, above the server's own
/// limits for a statement and for a lock.
const CALL_MAX: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long a connection may have been idle to be used unasked: well below the session's `wait_timeout`.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// What every session starts with, in one round trip; last it says which server this is.
///
/// - Strict, whatever the server's default: text that does not fit is an error and is never cut.
/// - Time is UTC.
/// - Read committed: a statement sees one moment, and no more is asked of any; an insert locks what it writes and no gaps beside, so
///   nodes that write to the same logs wait for each other without a deadlock.
/// - Locks are waited for, statements run, and a silent session lives for seconds, so that a dead node's do not last.
const SESSION: &str = "set names utf8mb4 collate utf8mb4_0900_bin, \
    session sql_mode = 'STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
    session time_zone = '+00:00', session transaction_isolation = 'READ-COMMITTED', session autocommit = 1, \
    session innodb_lock_wait_timeout = 3, session max_execution_time = 4000, session wait_timeout = 30; \
    select @@server_uuid";

/// A unique key's value is taken.
const DUPLICATE: u16 = 1062;
/// The server ended the transaction to end a deadlock.
const DEADLOCK: u16 = 1213;

/// Connections with the same purpose.
pub(super) struct Connections {
    options: MySqlConnectOptions,
    identity: Arc<Identity>,
    /// How many changes of the server these connections have noticed.
    changes: AtomicU64,
    /// Most recently used last; at most as many as permits.
    idle: Mutex<Vec<Idle>>,
    permits: Semaphore,
}

/// A connection at rest.
struct Idle {
    connection: MySqlConnection,
    since: Instant,
    /// See [`Connections::changes`]; as of its making.
    changes: u64,
}

/// A connection in use. Dropping it closes it.
pub(super) struct Lease<'a> {
    from: &'a Connections,
    connection: MySqlConnection,
    changes: u64,
    _permit: SemaphorePermit<'a>,
}

/// Why a statement was not carried out.
pub(super) enum Failure {
    /// Certainly: a key is taken, or this was the victim of a deadlock.
    Conflict,
    /// Perhaps it was.
    Error(StoreError),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Conflict => Self::Unavailable("other writers are in the way".into()),
            Failure::Error(error) => error,
        }
    }
}

impl Connections {
    /// None yet, of so many at most.
    pub(super) fn new(options: MySqlConnectOptions, max: usize, identity: Arc<Identity>) -> Self {
        let changes = AtomicU64::new(identity.changes());
        Self { options, identity, changes, idle: Mutex::default(), permits: Semaphore::new(max) }
    }

    /// Which server they lead to.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A connection of one's own.
    pub(super) async fn lease(&self) -> Result<Lease<'_>> {
        let permit = timeout(CALL_MAX, self.permits.acquire()).await;
        let permit = permit.map_err(|_| StoreError::Unavailable("no connection is free".into()))?;
        let permit = permit.map_err(|_| StoreError::Unavailable("the store is closed".into()))?;
        while let Some(Idle { mut connection, since, changes }) = self.last_idle() {
            let fresh = since.elapsed() < IDLE_MAX || within(CONNECT_MAX, connection.ping()).await.is_ok();
            if fresh && changes == self.identity.changes() {
                return Ok(Lease { from: self, connection, changes, _permit: permit });
            }
        }
        let (connection, server) = connect(&self.options).await?;
        self.identity.meet(&server);
        let changes = self.identity.changes();
        if self.changes.load(Ordering::Acquire) != changes {
            // Before any other call succeeds. Whoever asks may be about to write what follows from the other server's logs.
            self.identity.tell();
            self.changes.store(changes, Ordering::Release);
            return Err(another_server().into());
        }
        Ok(Lease { from: self, connection, changes, _permit: permit })
    }

    /// The rows of a prepared query.
    pub(super) async fn all<O>(&self, query: QueryAs<'_, MySql, O, MySqlArguments>) -> Result<Vec<O>>
    where
        O: Send + Unpin + for<'r> FromRow<'r, MySqlRow>,
    {
        let mut lease = self.lease().await?;
        let rows = within(CALL_MAX, query.fetch_all(&mut lease.connection)).await;
        Ok(lease.end(rows)?)
    }

    /// The row of a prepared query, if it has one.
    pub(super) async fn optional<O>(&self, query: QueryAs<'_, MySql, O, MySqlArguments>) -> Result<Option<O>>
    where
        O: Send + Unpin + for<'r> FromRow<'r, MySqlRow>,
    {
        Ok(self.all(query).await?.pop())
    }

    /// Carries out a statement that is a transaction of its own.
    pub(super) async fn write(&self, sql: String) -> std::result::Result<MySqlQueryResult, Failure> {
        let mut lease = self.lease().await.map_err(Failure::Error)?;
        let done = lease.execute(sql).await;
        match lease.end(done) {
            Ok(done) => Ok(done),
            Err(error) if is_conflict(&error) => Err(Failure::Conflict),
            Err(error) => Err(Failure::Error(error.into())),
        }
    }

    /// Carries out statements as one transaction, sent as one: the server stops at the first that fails.
    pub(super) async fn transaction(&self, statements: &str) -> Result<Outcome> {
        let lease = self.lease().await?;
        lease.finish(format!("start transaction;{statements};commit")).await
    }

    /// Carries out a transaction, sent as one, that ends with a row of two numbers; `None` is a conflict.
    pub(super) async fn transaction_of_two_numbers(&self, sql: String) -> Result<Option<(i64, i64)>> {
        match self.transaction_with_rows(sql).await? {
            Some(mut rows) => Ok(Some(rows.pop().ok_or(sqlx::Error::RowNotFound)?)),
            None => Ok(None),
        }
    }

    /// Carries out a transaction, sent as one with a query after it; `None` is a conflict.
    pub(super) async fn transaction_with_rows<O>(&self, sql: String) -> Result<Option<Vec<O>>>
    where
        O: for<'r> FromRow<'r, MySqlRow>,
    {
        let mut lease = self.lease().await?;
        let rows = within(CALL_MAX, lease.connection.fetch_all(AssertSqlSafe(sql))).await;
        match rows.and_then(|rows| rows.iter().map(O::from_row).collect()) {
            Ok(rows) => {
                lease.end(Ok(()))?;
                Ok(Some(rows))
            }
            Err(error) if is_conflict(&error) => {
                lease.roll_back().await?;
                Ok(None)
            }
            Err(error) => {
                self.doubt(&error);
                Err(error.into())
            }
        }
    }

    /// Closes what is idle, and lets nobody in any more.
    pub(super) async fn close(&self) {
        self.permits.close();
        while let Some(Idle { connection, .. }) = self.last_idle() {
            // Only a courtesy to the server.
            let _ = within(CONNECT_MAX, connection.close()).await;
        }
    }

    /// After an error: what broke one connection has most likely broken all, so those that are idle are not used again.
    fn doubt(&self, error: &sqlx::Error) {
        if error.as_database_error().is_none() {
            self.idle().clear();
        }
    }

    fn last_idle(&self) -> Option<Idle> {
        self.idle().pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // A list is a list at any point of a writer.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease<'_> {
    /// Carries out statements that are sent as one.
    pub(super) async fn execute(&mut self, sql: String) -> sqlx::Result<MySqlQueryResult> {
        within(CALL_MAX, self.connection.execute(AssertSqlSafe(sql))).await
    }

    /// Carries out the last statements of a transaction, commit included.
    pub(super) async fn finish(mut self, sql: String) -> Result<Outcome> {
        let done = self.execute(sql).await;
        match done {
            Ok(_) => {
                self.end(Ok(()))?;
                Ok(Outcome::Committed)
            }
            Err(error) if is_conflict(&error) => {
                self.roll_back().await?;
                Ok(Outcome::Conflict)
            }
            Err(error) => {
                self.from.doubt(&error);
                Err(error.into())
            }
        }
    }

    /// Takes back what the transaction did so far.
    pub(super) async fn roll_back(mut self) -> Result<()> {
        let done = self.execute("rollback".into()).await;
        self.end(done)?;
        Ok(())
    }

    /// The end of a call: the connection is given back if it is known to be idle, and closed if not. What another server than the present one
    /// has said is worth nothing.
    pub(super) fn end<T>(self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        if self.changes != self.from.identity.changes() {
            return Err(another_server());
        }
        match &outcome {
            Err(error) if !is_conflict(error) => self.from.doubt(error),
            _ => self.give_back(),
        }
        outcome
    }

    fn give_back(self) {
        let Self { from, connection, changes, _permit } = self;
        from.idle().push(Idle { connection, since: Instant::now(), changes });
    }
}

/// A connection whose session is set up, and the server's `server_uuid`.
pub(super) async fn connect(options: &MySqlConnectOptions) -> sqlx::Result<(MySqlConnection, String)> {
    within(CONNECT_MAX, async {
        let mut connection = options.connect().await?;
        let server = connection.fetch_one(SESSION).await?.try_get(0)?;
        Ok((connection, server))
    })
    .await
}

fn another_server() -> sqlx::Error {
    io::Error::other("the database is another server than before").into()
}

async fn within<T>(limit: Duration, call: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    match timeout(limit, call).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into()),
    }
}

/// Whether nothing was written since others wrote: a key is taken, or a deadlock was ended at this transaction's cost.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(DUPLICATE | DEADLOCK))
}

/// The server's number for an error.
pub(super) fn number(error: &sqlx::Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}
