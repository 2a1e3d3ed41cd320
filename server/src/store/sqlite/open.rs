//! Opening the database: keeping other nodes out, bringing its schema up to date.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use thiserror::Error;

use super::{SqliteStore, connections::Connections};
use crate::{feeds, niceness, store::schema::contraction};

/// Connections that read, but for pages. Reads are short and come from the page cache; many more would wait for the processor.
const READERS: u32 = 4;
/// Connections that read pages of logs and lists: as many as are read at once, and one for the committer. Their threads give way to all others,
/// the node's own included: whoever asks for pages without end takes no processor from those who send.
const PAGES: u32 = feeds::PAGES_MAX as u32 + 1;
/// Pages that a reading connection keeps, as SQLite wants it said: 512 KiB. What is read often is in memory already, as feeds; and the operating system
/// has the file.
const READER_CACHE: &str = "-512";

/// Prepared statements kept per connection: one for each length of a batch, and the rest.
const STATEMENTS: usize = 600;

/// Why the database could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{0} is in use by another chatserver")]
    InUse(PathBuf),
    /// The files could not be made or read.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// The database refused.
    #[error("{path}: {error}")]
    Database {
        /// Which file.
        path: PathBuf,
        /// What the database said.
        #[source]
        error: sqlx::Error,
    },
    /// The schema could not be brought up to date.
    #[error("{path}: {error}")]
    Migrate {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: sqlx::migrate::MigrateError,
    },
    /// A later version has removed something.
    #[error("{path}: a later version has removed from the schema what this one needs: migration {name}")]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// Its version and description.
        name: String,
    },
}

impl SqliteStore {
    /// Opens the file, which is made if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// See [`OpenError`]; at once, if another node has it open.
    pub async fn open(path: &Path) -> std::result::Result<Self, OpenError> {
        let io = |error| OpenError::Io { path: path.into(), error };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let lock = lock(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What was erased is overwritten in the file as well.
            .pragma("secure_delete", "on")
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(STATEMENTS);
        let database = |error| OpenError::Database { path: path.into(), error };
        let named = |options: &SqliteConnectOptions, name: &'static str| {
            options.clone().thread_name(move |number| format!("{name}-{number}"))
        };
        let writer = Connections::open(named(&options, "sqlite-write"), 1, 0).await.map_err(database)?;
        migrate(&writer, path).await?;
        let reading = options.read_only(true).pragma("cache_size", READER_CACHE);
        let readers =
            Connections::open(named(&reading, "sqlite-read"), READERS, 0).await.map_err(database)?;
        let pages = Connections::open(named(&reading, "sqlite-page"), PAGES, niceness::PAGES);
        let pages = pages.await.map_err(database)?;
        let (writer, readers, pages) = (Arc::new(writer), Arc::new(readers), Arc::new(pages));
        Ok(Self { writer, readers, pages, _lock: Some(lock) })
    }

    /// A database in memory: gone with the process.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn in_memory() -> std::result::Result<Self, OpenError> {
        let path = Path::new(":memory:");
        let options = SqliteConnectOptions::new().in_memory(true).statement_cache_capacity(STATEMENTS);
        // A database in memory belongs to its one connection.
        let database = |error| OpenError::Database { path: path.into(), error };
        let writer = Arc::new(Connections::open(options, 1, 0).await.map_err(database)?);
        migrate(&writer, path).await?;
        Ok(Self { readers: writer.clone(), pages: writer.clone(), writer, _lock: None })
    }
}

/// Keeps every other node out of a database, as long as the file is held.
pub(super) fn lock(path: &Path) -> std::result::Result<File, OpenError> {
    let io = |error| OpenError::Io { path: path.into(), error };
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = File::create(lock_path).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse(path.into())),
        Err(std::fs::TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Carries out the migrations that are missing. A later version's that only add are let be.
async fn migrate(writer: &Connections, path: &Path) -> std::result::Result<(), OpenError> {
    let failed = |error| OpenError::Migrate { path: path.into(), error };
    let mut writer = writer.lease().await.map_err(|error| failed(error.into()))?;
    let mut migrator = sqlx::migrate!("../migrations/sqlite");
    migrator.set_ignore_missing(true);
    let applied = "select version, description from _sqlx_migrations order by version";
    let applied = match sqlx::query_as(applied).fetch_all(&mut *writer).await {
        Ok(applied) => applied,
        // The table is not there yet.
        Err(sqlx::Error::Database(_)) => Vec::new(),
        Err(error) => return Err(failed(error.into())),
    };
    if let Some(name) = contraction(&migrator, &applied) {
        return Err(OpenError::TooNew { path: path.into(), name });
    }
    migrator.run(&mut *writer).await.map_err(failed)
}
