//! Backups of a database file, and their way back.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use thiserror::Error;

use super::open::{OpenError, lock};

/// How long a backup waits where SQLite has one wait at all: a node never makes a reader wait for long.
const BUSY: Duration = Duration::from_secs(30);

/// Why there is no backup, or why it was not put back.
#[derive(Debug, Error)]
pub enum BackupError {
    /// There is nothing to copy.
    #[error("{0}: there is no such file")]
    NoSource(PathBuf),
    /// Nothing is overwritten.
    #[error("{0} is there already")]
    Exists(PathBuf),
    /// A node has it open.
    #[error(transparent)]
    Locked(#[from] OpenError),
    /// The system refused.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// SQLite refused.
    #[error("{0}: {1}")]
    Database(PathBuf, #[source] sqlx::Error),
    /// The copy, or what was to be copied, is damaged.
    #[error("{0} is damaged: {1}")]
    Damaged(PathBuf, String),
}

/// Writes a copy of a database to a new file, whether a node uses the database or not: all that was committed before this began, and nothing by
/// halves. The node goes on meanwhile; its write-ahead log grows until the copy is done.
///
/// The file has its name only when it is whole, checked and on the disk.
///
/// # Errors
/// See [`BackupError`].
pub async fn backup(path: &Path, to: &Path) -> Result<(), BackupError> {
    let part = begin(path, to)?;
    let mut connection = open(path, true).await?;
    let text =
        part.to_str().ok_or_else(|| BackupError::Io(part.clone(), io::ErrorKind::InvalidInput.into()))?;
    let copied = sqlx::query("vacuum into ?").bind(text).execute(&mut connection).await;
    copied.map_err(|error| BackupError::Database(path.into(), error))?;
    // Only a courtesy to the file.
    let _ = connection.close().await;
    check(&part).await?;
    complete(&part, to)
}

/// Puts a backup where a node looks for its database. Unless `tokens` are kept, sessions are forgotten: their clients log in again, and so none of
/// them goes on with a cursor of a log that has grown otherwise since (SPEC.md, section 5).
///
/// # Errors
/// See [`BackupError`]. Nothing is overwritten: what was there has to be moved away.
pub async fn restore(from: &Path, path: &Path, tokens: bool) -> Result<(), BackupError> {
    let _lock = lock(path)?;
    let part = begin(from, path)?;
    // A log that was left behind would be taken for this database's.
    for suffix in ["-wal", "-shm", "-journal"] {
        let beside = with_suffix(path, suffix);
        if beside.exists() {
            return Err(BackupError::Exists(beside));
        }
    }
    fs::copy(from, &part).map_err(|error| BackupError::Io(part.clone(), error))?;
    check(&part).await?;
    if !tokens {
        let mut connection = open(&part, false).await?;
        let database = |error| BackupError::Database(part.clone(), error);
        sqlx::query("delete from token").execute(&mut connection).await.map_err(database)?;
        connection.close().await.map_err(database)?;
    }
    complete(&part, path)
}

/// The file that is to become `to`, empty, and nobody else's to read: it holds what people said.
fn begin(from: &Path, to: &Path) -> Result<PathBuf, BackupError> {
    if !from.is_file() {
        return Err(BackupError::NoSource(from.into()));
    }
    if to.exists() {
        return Err(BackupError::Exists(to.into()));
    }
    let part = with_suffix(to, ".part");
    let io = |error| BackupError::Io(part.clone(), error);
    // One that was cut short left it.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(io)?;
    Ok(part)
}

async fn open(path: &Path, read_only: bool) -> Result<SqliteConnection, BackupError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(read_only)
        .busy_timeout(BUSY)
        .pragma("secure_delete", "on")
        .disable_statement_logging();
    options.connect().await.map_err(|error| BackupError::Database(path.into(), error))
}

/// Whether SQLite finds everything in its place, and it is a chat server's.
async fn check(path: &Path) -> Result<(), BackupError> {
    let database = |error| BackupError::Database(path.into(), error);
    let mut connection = open(path, true).await?;
    let (found,): (String,) =
        sqlx::query_as("pragma integrity_check(1)").fetch_one(&mut connection).await.map_err(database)?;
    if found != "ok" {
        return Err(BackupError::Damaged(path.into(), found));
    }
    sqlx::query("select id from deployment").fetch_one(&mut connection).await.map_err(database)?;
    connection.close().await.map_err(database)
}

fn complete(part: &Path, to: &Path) -> Result<(), BackupError> {
    let io = |error| BackupError::Io(to.into(), error);
    File::open(part).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(part, to).map_err(io)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
