//! Connections to the file: a fixed number, each with a thread of its own, which carries out what it is given in that order.
//!
//! A connection is given back as soon as a call has ended, also if the call was dropped half-way: what the thread is still at comes before
//! whatever it is given next, and a transaction that was left open is rolled back first. (A pool of sqlx asks the thread first whether it is
//! there, in a task of its own: one more change of threads each way for every call.)

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, FromRow, Sqlite, SqliteConnection, Transaction,
    query::{Query, QueryAs},
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteQueryResult, SqliteRow},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit, oneshot},
    time::timeout,
};

use crate::niceness::give_way;

/// How long a call may wait for its turn.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Connections with the same purpose.
#[derive(Debug)]
pub(super) struct Connections {
    options: SqliteConnectOptions,
    count: u32,
    /// By how much their threads give way to others.
    nice: i32,
    /// Each with whether a transaction may have been left open on it.
    idle: Mutex<Vec<(SqliteConnection, bool)>>,
    permits: Semaphore,
}

/// A connection in use.
pub(super) struct Lease<'a> {
    from: &'a Connections,
    /// Taken when the lease is dropped.
    connection: Option<SqliteConnection>,
    /// Whether a transaction may be open that nobody sees to.
    left_open: bool,
    /// Whether every further call would fail.
    useless: bool,
    /// Free for others when the connection is there again: fields are dropped last.
    _permit: SemaphorePermit<'a>,
}

impl Connections {
    /// So many, all open, whose threads give way to others by `nice`.
    pub(super) async fn open(options: SqliteConnectOptions, count: u32, nice: i32) -> sqlx::Result<Self> {
        let mut idle = Vec::new();
        for _ in 0..count {
            idle.push((connect(&options, nice).await?, false));
        }
        Ok(Self { options, count, nice, idle: Mutex::new(idle), permits: Semaphore::new(count as usize) })
    }

    /// A connection of one's own.
    pub(super) async fn lease(&self) -> sqlx::Result<Lease<'_>> {
        let permit = timeout(WAIT_MAX, self.permits.acquire()).await;
        let permit = permit.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let (connection, left_open) = match idle {
            Some(idle) => idle,
            // One has become useless.
            None => (connect(&self.options, self.nice).await?, false),
        };
        let mut lease =
            Lease { from: self, connection: Some(connection), left_open, useless: false, _permit: permit };
        if left_open {
            // It fails if there is none.
            let rolled_back = sqlx::query("rollback").execute(&mut *lease).await;
            lease.left_open = false;
            lease.useless = rolled_back.is_err_and(|error| is_end(&error));
        }
        Ok(lease)
    }

    /// The rows of a query.
    pub(super) async fn all<O>(&self, query: QueryAs<'_, Sqlite, O, SqliteArguments>) -> sqlx::Result<Vec<O>>
    where
        O: Send + Unpin + for<'r> FromRow<'r, SqliteRow>,
    {
        let mut lease = self.lease().await?;
        let rows = query.fetch_all(&mut *lease).await;
        lease.end(rows)
    }

    /// The row of a query that has one.
    pub(super) async fn one<O>(&self, query: QueryAs<'_, Sqlite, O, SqliteArguments>) -> sqlx::Result<O>
    where
        O: Send + Unpin + for<'r> FromRow<'r, SqliteRow>,
    {
        self.optional(query).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The first row of a query, if it has any. Not for one that writes: what its end says is not heard.
    pub(super) async fn optional<O>(
        &self,
        query: QueryAs<'_, Sqlite, O, SqliteArguments>,
    ) -> sqlx::Result<Option<O>>
    where
        O: Send + Unpin + for<'r> FromRow<'r, SqliteRow>,
    {
        let mut lease = self.lease().await?;
        let row = query.fetch_optional(&mut *lease).await;
        lease.end(row)
    }

    /// The rows of a query, as they come.
    pub(super) async fn rows(
        &self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> sqlx::Result<Vec<SqliteRow>> {
        let mut lease = self.lease().await?;
        let rows = query.fetch_all(&mut *lease).await;
        lease.end(rows)
    }

    /// Carries out a statement that is a transaction of its own.
    pub(super) async fn execute(
        &self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> sqlx::Result<SqliteQueryResult> {
        let mut lease = self.lease().await?;
        let done = query.execute(&mut *lease).await;
        lease.end(done)
    }

    /// Carries out a transaction that is sent as one, from `begin` to `commit`. If it fails or is dropped half-way, it is rolled back before
    /// anything else is done on its connection.
    pub(super) async fn transaction(&self, query: Query<'_, Sqlite, SqliteArguments>) -> sqlx::Result<()> {
        let mut lease = self.lease().await?;
        lease.left_open = true;
        let done = query.execute(&mut *lease).await;
        lease.left_open = done.is_err();
        lease.end(done).map(drop)
    }

    /// Waits for those in use, closes all, and lets nobody in any more.
    pub(super) async fn close(&self) {
        let all = self.permits.acquire_many(self.count).await;
        self.permits.close();
        drop(all);
        loop {
            let Some((connection, _)) = self.idle().pop() else { return };
            // Only a courtesy to the file.
            let _ = connection.close().await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(SqliteConnection, bool)>> {
        // A list is a list at any point of a writer.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection, whose thread gives way as much as the one that starts it.
async fn connect(options: &SqliteConnectOptions, nice: i32) -> sqlx::Result<SqliteConnection> {
    if nice == 0 {
        return options.connect().await;
    }
    let (options, runtime) = (options.clone(), Handle::current());
    let (done, connected) = oneshot::channel();
    std::thread::Builder::new().name("sqlite-open".into()).spawn(move || {
        give_way(nice);
        // Nobody may wait for it any more.
        let _ = done.send(runtime.block_on(options.connect()));
    })?;
    connected.await.map_err(|_| sqlx::Error::WorkerCrashed)?
}

impl Lease<'_> {
    /// Begins a transaction that reads one moment.
    pub(super) async fn begin(&mut self) -> sqlx::Result<Transaction<'_, Sqlite>> {
        self.begin_with("begin").await
    }

    /// Begins a transaction that writes: others that do wait for it.
    pub(super) async fn begin_immediate(&mut self) -> sqlx::Result<Transaction<'_, Sqlite>> {
        self.begin_with("begin immediate").await
    }

    async fn begin_with(&mut self, statement: &'static str) -> sqlx::Result<Transaction<'_, Sqlite>> {
        let begun = self.connection.as_mut().expect(LEASED).begin_with(statement).await;
        self.useless = begun.as_ref().is_err_and(is_end);
        begun
    }

    /// The end of a call: afterwards the connection is given back, unless it has become useless.
    pub(super) fn end<T>(mut self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        self.useless = outcome.as_ref().is_err_and(is_end);
        outcome
    }
}

const LEASED: &str = "a lease has its connection";

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // A useless one is closed: the next call makes another.
        let connection = self.connection.take().filter(|_| !self.useless);
        self.from.idle().extend(connection.map(|connection| (connection, self.left_open)));
    }
}

impl Deref for Lease<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.connection.as_ref().expect(LEASED)
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect(LEASED)
    }
}

/// Whether every further call on the connection would fail: its thread has ended, or has lost count of its transactions.
fn is_end(error: &sqlx::Error) -> bool {
    use sqlx::Error::{BeginFailed, InvalidSavePointStatement, WorkerCrashed};
    matches!(error, WorkerCrashed | InvalidSavePointStatement | BeginFailed)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn a_table(folder: &tempfile::TempDir) -> Connections {
        let options = SqliteConnectOptions::new().filename(folder.path().join("db")).create_if_missing(true);
        let connections = Connections::open(options, 1, 0).await.unwrap();
        connections.execute(sqlx::query("create table t (n integer primary key)")).await.unwrap();
        connections
    }

    async fn numbers(connections: &Connections) -> Vec<(i64,)> {
        connections.all(sqlx::query_as("select n from t order by n")).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_dropped_half_way_is_over_before_the_next_call() {
        let folder = tempfile::tempdir().unwrap();
        let connections = a_table(&folder).await;
        {
            let mut lease = connections.lease().await.unwrap();
            let mut tx = lease.begin_immediate().await.unwrap();
            sqlx::query("insert into t values (1)").execute(&mut *tx).await.unwrap();
        }
        // Given to the thread, and not waited for: it is carried out, or it never was given.
        let insert = connections.execute(sqlx::query("insert into t values (2)"));
        assert!(futures_util::poll!(std::pin::pin!(insert)).is_pending());
        let mut lease = connections.lease().await.unwrap();
        let mut tx = lease.begin_immediate().await.unwrap();
        sqlx::query("insert into t values (3)").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        drop(lease);
        assert_eq!(numbers(&connections).await, [(2,), (3,)]);
    }

    /// How nice a thread of this process is.
    #[cfg(target_os = "linux")]
    fn niceness(name: &str) -> Option<i32> {
        let named =
            |task: &std::path::PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        tasks.find(|task| named(task).trim_end() == name).map(|task| crate::niceness::tests::of(&task))
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connections_thread_gives_way_as_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("db")).create_if_missing(true);
        let named = |name: &'static str| options.clone().thread_name(move |_| name.into());
        let prompt = Connections::open(named("test-prompt"), 1, 0).await.unwrap();
        let patient = Connections::open(named("test-patient"), 1, 5).await.unwrap();
        let own = niceness("test-prompt").unwrap();
        assert_eq!(niceness("test-patient"), Some((own + 5).min(19)));
        // Also one that was opened later, since another has become useless.
        let mut lease = patient.lease().await.unwrap();
        lease.useless = true;
        drop(lease);
        patient.execute(sqlx::query("select 1")).await.unwrap();
        assert_eq!(niceness("test-patient"), Some((own + 5).min(19)));
        prompt.close().await;
    }

    #[tokio::test]
    async fn a_connection_that_has_lost_count_of_its_transactions_is_not_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let connections = a_table(&folder).await;
        let mut lease = connections.lease().await.unwrap();
        std::mem::forget(lease.begin_immediate().await.unwrap());
        drop(lease);
        let mut lease = connections.lease().await.unwrap();
        assert!(lease.begin_immediate().await.is_err());
        drop(lease);
        let mut lease = connections.lease().await.unwrap();
        let mut tx = lease.begin_immediate().await.unwrap();
        sqlx::query("insert into t values (1)").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        drop(lease);
        assert_eq!(numbers(&connections).await, [(1,)]);
    }

    #[tokio::test]
    async fn a_transaction_sent_as_one_is_carried_out_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let connections = a_table(&folder).await;
        let both = || {
            sqlx::query("begin immediate; insert into t values (?1); insert into t values (?2); commit")
                .bind(1)
        };
        assert!(connections.transaction(both().bind(1)).await.is_err());
        assert_eq!(numbers(&connections).await, []);
        // Dropped half-way: all of it or nothing, and others go on.
        {
            let mut dropped = std::pin::pin!(connections.transaction(both().bind(2)));
            assert!(futures_util::poll!(&mut dropped).is_pending());
        }
        connections.execute(sqlx::query("insert into t values (3)")).await.unwrap();
        let found = numbers(&connections).await;
        assert!(found == [(3,)] || found == [(1,), (2,), (3,)], "{found:?}");
        connections.execute(sqlx::query("delete from t")).await.unwrap();
        connections.transaction(both().bind(2)).await.unwrap();
        assert_eq!(numbers(&connections).await, [(1,), (2,)]);
    }

    #[tokio::test]
    async fn nobody_is_let_in_after_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let connections = a_table(&folder).await;
        let lease = connections.lease().await.unwrap();
        let mut closing = std::pin::pin!(connections.close());
        assert!(futures_util::poll!(&mut closing).is_pending(), "one is in use");
        drop(lease);
        closing.await;
        assert!(matches!(connections.lease().await, Err(sqlx::Error::PoolClosed)));
        connections.close().await;
    }
}
