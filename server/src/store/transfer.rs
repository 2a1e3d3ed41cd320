//! Copying a whole database: from the embedded one, which no node uses meanwhile, to an empty one of a server.
//!
//! Tables are copied as they are, row by row in the order of their keys, whatever they mean: what a later migration adds is copied as well. The
//! target is marked from before the first row until both sides were read again and agree; no node starts on what is marked. So a copy that was
//! cut short is never taken for a whole one, and another call begins it anew.

use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::time::Instant;
use tracing::info;

use super::{
    StoreError,
    mysql::{self, Target},
    sqlite::{self, SqliteStore},
};

/// Rows held at a time, of each side: 16 MiB if all are the longest messages.
const PAGE: usize = 256;
/// The time between two lines that say how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Text,
    Bytes,
    /// A time, read and written as milliseconds since 1970.
    Moment,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// A table, as both databases know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    /// By name.
    pub(super) columns: Vec<Column>,
    /// Which of them are the primary key, in its order.
    pub(super) key: Vec<usize>,
}

/// What a column of a row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// In the order of the table's columns.
pub(super) type Row = Vec<Value>;

/// Why a database was not copied, or not compared.
#[derive(Debug, Error)]
pub enum TransferError {
    /// There is nothing to copy.
    #[error("{0}: there is no such database")]
    NoSource(PathBuf),
    /// The SQLite database could not be opened.
    #[error("opening the SQLite database")]
    Source(#[from] sqlite::OpenError),
    /// The MySQL database could not be opened.
    #[error("opening the MySQL database")]
    Target(#[from] mysql::OpenError),
    /// Somebody uses it.
    #[error("{0} other sessions are connected to the MySQL database: end its nodes first")]
    InUse(i64),
    /// It is somebody's.
    #[error("the MySQL database is not empty: there are rows in table {0}")]
    NotEmpty(String),
    /// Tables or columns are known to one database only.
    #[error("the two schemas differ in table {0}")]
    SchemasDiffer(String),
    /// The SQLite database could not be read.
    #[error("reading the SQLite database")]
    Read(#[source] StoreError),
    /// The MySQL database could not be read or written.
    #[error("working on the MySQL database; the same command begins the copy anew")]
    Work(#[source] StoreError),
}

/// What was found in a table, here of SQLite and there of MySQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its name.
    pub table: String,
    /// Rows.
    pub rows: [u64; 2],
    /// A hash of all values of all rows that were read, in the order of the key.
    pub hashes: [[u8; 32]; 2],
    /// The key of the first row that differs, or is on one side only; reading ends there.
    pub difference: Option<String>,
    /// The highest number that was ever given to a row, and the one that the next will be given; of tables that give numbers.
    pub numbers: Option<[i64; 2]>,
}

impl Checked {
    /// Whether both sides hold the same, and no number is given twice.
    pub fn agrees(&self) -> bool {
        self.difference.is_none()
            && self.rows[0] == self.rows[1]
            && self.hashes[0] == self.hashes[1]
            && self.numbers.is_none_or(|[highest, next]| next > highest)
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, rows, hashes, difference, numbers } = self;
        let [here, there] = hashes.map(|hash| hex(&hash[..8]));
        write!(f, "{table:<12} sqlite {:>9} rows {here}, mysql {:>9} rows {there}", rows[0], rows[1])?;
        if let Some([highest, next]) = numbers {
            write!(f, "; numbers up to {highest}, next {next}")?;
        }
        if let Some(key) = difference {
            write!(f, "; the first difference is at {key}")?;
        }
        f.write_str(if self.agrees() { "" } else { "; THEY DIFFER" })
    }
}

/// Copies everything, and compares both sides. They agree if all tables do; then, and only then, nodes can use the copy.
///
/// # Errors
/// See [`TransferError`].
pub async fn copy(from: &Path, to: &str, patience: Duration) -> Result<Vec<Checked>, TransferError> {
    let source = open(from).await?;
    let mut target = Target::to_copy_into(to, patience).await?;
    let tables = common(&source, &target).await?;
    for (table, own) in &tables {
        copy_table(&source, &mut target, table, own).await?;
    }
    for (table, highest) in source.highest_numbers().await.map_err(TransferError::Read)? {
        target.number_from(&table, highest.saturating_add(1)).await.map_err(TransferError::Work)?;
    }
    let checked = check_tables(&source, &mut target, &tables).await?;
    if checked.iter().all(Checked::agrees) {
        target.finish().await.map_err(TransferError::Work)?;
    }
    Ok(checked)
}

/// Compares both sides, and writes nothing.
///
/// # Errors
/// See [`TransferError`].
pub async fn compare(from: &Path, to: &str, patience: Duration) -> Result<Vec<Checked>, TransferError> {
    let source = open(from).await?;
    let mut target = Target::to_look_at(to, patience).await?;
    let tables = common(&source, &target).await?;
    check_tables(&source, &mut target, &tables).await
}

async fn open(path: &Path) -> Result<SqliteStore, TransferError> {
    // Opening would make it.
    if !path.is_file() {
        return Err(TransferError::NoSource(path.into()));
    }
    Ok(SqliteStore::open(path).await?)
}

/// The tables, each as the source knows it and as the target does.
async fn common(source: &SqliteStore, target: &Target) -> Result<Vec<(Table, Table)>, TransferError> {
    let tables = source.tables().await.map_err(TransferError::Read)?;
    pairs(tables, target.tables().to_vec()).map_err(TransferError::SchemasDiffer)
}

fn pairs(mut here: Vec<Table>, mut there: Vec<Table>) -> Result<Vec<(Table, Table)>, String> {
    here.sort_by(|a, b| a.name.cmp(&b.name));
    there.sort_by(|a, b| a.name.cmp(&b.name));
    let names = |tables: &[Table]| tables.iter().map(|table| table.name.clone()).collect::<Vec<_>>();
    let (ours, theirs) = (names(&here), names(&there));
    if let Some(name) = ours.iter().find(|name| !theirs.contains(name)) {
        return Err(name.clone());
    }
    if let Some(name) = theirs.iter().find(|name| !ours.contains(name)) {
        return Err(name.clone());
    }
    let pairs: Vec<_> = here.into_iter().zip(there).collect();
    match pairs.iter().find(|(here, there)| !are_alike(here, there)) {
        Some((table, _)) => Err(table.name.clone()),
        None => Ok(pairs),
    }
}

fn are_alike(here: &Table, there: &Table) -> bool {
    let same = |(here, there): (&Column, &Column)| {
        let kinds = (here.kind, there.kind);
        here.name == there.name && (kinds.0 == kinds.1 || kinds == (Kind::Number, Kind::Moment))
    };
    here.columns.len() == there.columns.len()
        && here.columns.iter().zip(&there.columns).all(same)
        && here.key == there.key
        && !here.key.is_empty()
}

async fn copy_table(
    source: &SqliteStore,
    target: &mut Target,
    table: &Table,
    own: &Table,
) -> Result<(), TransferError> {
    let of = source.count(table).await.map_err(TransferError::Read)?;
    let (mut rows, mut last, mut said) = (0, None, Instant::now());
    loop {
        let page = source.page(table, last.as_ref(), PAGE).await.map_err(TransferError::Read)?;
        target.insert(own, &page).await.map_err(TransferError::Work)?;
        rows += page.len() as u64;
        let whole = page.len() < PAGE;
        if whole || said.elapsed() >= PROGRESS {
            said = Instant::now();
            info!(table = table.name, rows, of, "copied");
        }
        if whole {
            return Ok(());
        }
        last = page.into_iter().next_back();
    }
}

async fn check_tables(
    source: &SqliteStore,
    target: &mut Target,
    tables: &[(Table, Table)],
) -> Result<Vec<Checked>, TransferError> {
    let highest = source.highest_numbers().await.map_err(TransferError::Read)?;
    let mut all = Vec::new();
    for (table, own) in tables {
        let mut checked = check_table(source, target, table, own).await?;
        if let Some((_, highest)) = highest.iter().find(|(name, _)| *name == table.name) {
            let next = target.next_number(&table.name).await.map_err(TransferError::Work)?;
            checked.numbers = Some([*highest, next]);
        }
        info!(table = table.name, rows = checked.rows[1], "compared");
        all.push(checked);
    }
    Ok(all)
}

async fn check_table(
    source: &SqliteStore,
    target: &mut Target,
    table: &Table,
    own: &Table,
) -> Result<Checked, TransferError> {
    let mut hashes = [Sha256::new(), Sha256::new()];
    let (mut last, mut difference) = (None, None);
    loop {
        let here = source.page(table, last.as_ref(), PAGE).await.map_err(TransferError::Read)?;
        let there = target.page(own, last.as_ref(), PAGE).await.map_err(TransferError::Work)?;
        for (hash, page) in hashes.iter_mut().zip([&here, &there]) {
            page.iter().for_each(|row| absorb(hash, row));
        }
        if let Some(row) = first_difference(&here, &there) {
            difference = Some(describe(table, row));
            break;
        }
        if here.len() < PAGE {
            break;
        }
        last = here.into_iter().next_back();
    }
    let rows = [
        source.count(table).await.map_err(TransferError::Read)?,
        target.count(own).await.map_err(TransferError::Work)?,
    ];
    let hashes = hashes.map(|hash| hash.finalize().into());
    Ok(Checked { table: table.name.clone(), rows, hashes, difference, numbers: None })
}

/// The row that one side has and the other has not, or has otherwise.
fn first_difference<'a>(here: &'a [Row], there: &'a [Row]) -> Option<&'a Row> {
    let at = here.iter().zip(there).position(|(here, there)| here != there);
    let at = at.unwrap_or_else(|| here.len().min(there.len()));
    here.get(at).or_else(|| there.get(at))
}

/// Values are told apart by their kind and length, so that no two rows look the same.
fn absorb(hash: &mut Sha256, row: &Row) {
    let mut bytes = |kind: u8, bytes: &[u8]| {
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    for value in row {
        match value {
            Value::Null => bytes(0, &[]),
            Value::Number(number) => bytes(1, &number.to_be_bytes()),
            Value::Text(text) => bytes(2, text.as_bytes()),
            Value::Bytes(value) => bytes(3, value),
        }
    }
}

/// A row's key, which holds no text of a message.
fn describe(table: &Table, row: &Row) -> String {
    let mut text = String::new();
    for at in &table.key {
        let value = match &row[*at] {
            Value::Null => "null".into(),
            Value::Number(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::Bytes(bytes) => hex(bytes),
        };
        let comma = if text.is_empty() { "" } else { ", " };
        write!(text, "{comma}{} {value}", table.columns[*at].name).expect("a string takes what is written");
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, columns: &[(&str, Kind)], key: &[usize]) -> Table {
        let columns = columns.iter().map(|(name, kind)| Column { name: (*name).into(), kind: *kind });
        Table { name: name.into(), columns: columns.collect(), key: key.into() }
    }

    /// Nothing is left out: what only one of the databases knows is named.
    #[test]
    fn schemas_have_to_agree() {
        use Kind::{Moment, Number, Text};
        let one = || table("one", &[("a", Number), ("b", Text)], &[0]);
        let two = |kind| table("two", &[("a", kind)], &[0]);
        let names = |here: Vec<Table>, there: Vec<Table>| {
            pairs(here, there).map(|pairs| pairs.into_iter().map(|(table, _)| table.name).collect::<Vec<_>>())
        };
        assert_eq!(names(vec![two(Number), one()], vec![one(), two(Moment)]).unwrap(), ["one", "two"]);
        assert_eq!(names(vec![one(), two(Number)], vec![one()]).unwrap_err(), "two");
        assert_eq!(names(vec![one()], vec![one(), two(Number)]).unwrap_err(), "two");
        assert_eq!(names(vec![one(), two(Number)], vec![one(), two(Text)]).unwrap_err(), "two");
        let fewer = table("one", &[("a", Number)], &[0]);
        assert_eq!(names(vec![one()], vec![fewer]).unwrap_err(), "one");
        let other_key = table("one", &[("a", Number), ("b", Text)], &[1]);
        assert_eq!(names(vec![one()], vec![other_key]).unwrap_err(), "one");
        let no_key = || table("one", &[("a", Number)], &[]);
        assert_eq!(names(vec![no_key()], vec![no_key()]).unwrap_err(), "one");
    }

    #[test]
    fn every_difference_is_seen() {
        let row = |number: i64, text: &str| vec![Value::Number(number), Value::Text(text.into())];
        let hash = |rows: &[Row]| {
            let mut hash = Sha256::new();
            rows.iter().for_each(|row| absorb(&mut hash, row));
            <[u8; 32]>::from(hash.finalize())
        };
        let rows = [row(1, "a"), row(2, "b")];
        assert_eq!(first_difference(&rows, &rows), None);
        for other in [
            vec![row(1, "a")],
            vec![row(1, "a"), row(2, "c")],
            vec![row(1, "a"), row(3, "b")],
            vec![row(2, "b"), row(1, "a")],
            vec![row(1, "a"), row(2, "b"), row(3, "")],
            vec![row(1, "a"), vec![Value::Number(2), Value::Bytes(b"b".into())]],
            vec![row(1, "a"), vec![Value::Number(2), Value::Null]],
            vec![],
        ] {
            assert!(first_difference(&rows, &other).is_some(), "{other:?}");
            assert_ne!(hash(&rows), hash(&other), "{other:?}");
        }
        // What lies beside is no part of its neighbour.
        let texts = |a: &str, b: &str| vec![vec![Value::Text(a.into()), Value::Text(b.into())]];
        assert_ne!(hash(&texts("ab", "")), hash(&texts("a", "b")));
    }
}
