//! Tables as rows of plain values, for who copies a whole database.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Row as _, sqlite::SqliteRow};

use super::{
    super::{
        Result, StoreError,
        transfer::{Column, Kind, Row, Table, Value},
    },
    SqliteStore,
};

/// Every column of every table but SQLite's and sqlx's own.
const COLUMNS: &str = "\
    select t.name, c.name, lower(c.type), c.pk from sqlite_schema t join pragma_table_info(t.name) c \
    where t.type = 'table' and t.name not like 'sqlite\\_%' escape '\\' and t.name not like '\\_sqlx\\_%' escape '\\' \
    order by t.name, c.name";

/// The highest number that each table ever gave to a row.
const HIGHEST: &str = "select name, seq from sqlite_sequence order by name";

impl SqliteStore {
    /// All tables.
    pub(in crate::store) async fn tables(&self) -> Result<Vec<Table>> {
        let rows: Vec<(String, String, String, i64)> = self.readers.all(sqlx::query_as(COLUMNS)).await?;
        let mut tables: BTreeMap<String, Vec<(Column, i64)>> = BTreeMap::new();
        for (table, name, kind, place) in rows {
            let kind = match kind.as_str() {
                "integer" => Kind::Number,
                "text" => Kind::Text,
                "blob" => Kind::Bytes,
                _ => return Err(StoreError::Corrupt(format!("{table}.{name} is of type {kind}"))),
            };
            tables.entry(table).or_default().push((Column { name, kind }, place));
        }
        Ok(tables.into_iter().map(|(name, columns)| table(name, columns)).collect())
    }

    /// So many rows at most after a row, in the order of the key.
    pub(in crate::store) async fn page(
        &self,
        table: &Table,
        after: Option<&Row>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let columns: Vec<_> = table.columns.iter().map(|column| quoted(&column.name)).collect();
        let key: Vec<_> = table.key.iter().map(|at| columns[*at].clone()).collect();
        let (columns, key, name) = (columns.join(", "), key.join(", "), quoted(&table.name));
        let above = match after {
            Some(_) => format!("where ({key}) > ({})", vec!["?"; table.key.len()].join(", ")),
            None => String::new(),
        };
        // Names are of the schema; values are bound.
        let sql = format!("select {columns} from {name} {above} order by {key} limit {limit}");
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for at in after.iter().flat_map(|row| table.key.iter().map(|at| &row[*at])) {
            query = match at {
                Value::Null => query.bind(None::<i64>),
                Value::Number(number) => query.bind(*number),
                Value::Text(text) => query.bind(text.clone()),
                Value::Bytes(bytes) => query.bind(bytes.clone()),
            };
        }
        let rows = self.readers.rows(query).await?;
        rows.iter().map(|row| values(table, row)).collect()
    }

    /// How many rows a table has.
    pub(in crate::store) async fn count(&self, table: &Table) -> Result<u64> {
        let sql = AssertSqlSafe(format!("select count(*) from {}", quoted(&table.name)));
        let (count,): (i64,) = self.readers.one(sqlx::query_as(sql)).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// The highest number that a row was ever given, of each table that gives numbers.
    pub(in crate::store) async fn highest_numbers(&self) -> Result<Vec<(String, i64)>> {
        Ok(self.readers.all(sqlx::query_as(HIGHEST)).await?)
    }
}

/// A table out of its columns and their places in the primary key, from 1.
fn table(name: String, columns: Vec<(Column, i64)>) -> Table {
    let mut key: Vec<_> = (0..columns.len()).filter(|at| columns[*at].1 > 0).collect();
    key.sort_by_key(|at| columns[*at].1);
    Table { name, columns: columns.into_iter().map(|(column, _)| column).collect(), key }
}

fn values(table: &Table, row: &SqliteRow) -> Result<Row> {
    let value = |(at, column): (usize, &Column)| -> sqlx::Result<Value> {
        Ok(match column.kind {
            Kind::Number | Kind::Moment => {
                row.try_get::<Option<_>, _>(at)?.map_or(Value::Null, Value::Number)
            }
            Kind::Text => row.try_get::<Option<_>, _>(at)?.map_or(Value::Null, Value::Text),
            Kind::Bytes => row.try_get::<Option<_>, _>(at)?.map_or(Value::Null, Value::Bytes),
        })
    };
    Ok(table.columns.iter().enumerate().map(value).collect::<sqlx::Result<_>>()?)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
