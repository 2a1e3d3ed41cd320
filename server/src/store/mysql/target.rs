//! A database that a whole other one is copied into: tables as rows of plain values.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{
    AssertSqlSafe, Executor as _, MySqlConnection, Row as _, mysql::MySqlConnectOptions, mysql::MySqlRow,
};

use super::{
    OpenError,
    connections::connect,
    open::{self, lock, migrate_locked, unlock},
    text::Text,
};
use crate::store::{
    Result, StoreError,
    transfer::{Column, Kind, Row, Table, TransferError, Value},
};

/// A table that is there while a copy is not whole. No node starts beside it.
pub(super) const UNFINISHED: &str = "unfinished_copy";
/// The one column whose name SQLite's schema has otherwise.
const ONLY_ROW: (&str, &str) = ("only", "only_row");
/// Bytes of values in one statement, roughly; a server takes 64 MiB by default.
const STATEMENT_BYTES: usize = 1 << 20;
/// This session waits, for as long as it takes; and it is told the numbers that are next, not those of yesterday.
const PATIENT: &str = "set session max_execution_time = 0, session wait_timeout = 3600, session information_schema_stats_expiry = 0";

/// Every column of every table but those that are not copied, and its place in the primary key.
const COLUMNS: &str = "\
    select cast(c.table_name as char), cast(c.column_name as char), cast(c.data_type as char), \
    cast(coalesce(k.ordinal_position, 0) as signed) from information_schema.columns c \
    left join information_schema.key_column_usage k on k.table_schema = c.table_schema and k.table_name = c.table_name \
    and k.column_name = c.column_name and k.constraint_name = 'PRIMARY' \
    where c.table_schema = database() and c.table_name not in ('_sqlx_migrations', 'unfinished_copy')";

/// Other sessions on this database, as far as this one's user may see them.
const OTHERS: &str = "\
    select count(*) from information_schema.processlist where db = database() and id <> connection_id()";

/// The database, with a session of its own.
pub(in crate::store) struct Target {
    connection: MySqlConnection,
    tables: Vec<Table>,
}

impl Target {
    /// A database to be filled: its schema is brought up to date; it is empty, or holds an unfinished copy, which is taken out of it; and marked.
    pub(in crate::store) async fn to_copy_into(
        url: &str,
        patience: Duration,
    ) -> std::result::Result<Self, TransferError> {
        let options = open::prepare(url, patience, true).await?;
        let mut own = Self::connect(&options).await?;
        lock(&mut own.connection).await?;
        migrate_locked(&mut own.connection).await?;
        own.read_schema().await.map_err(TransferError::Work)?;
        let again = open::is_unfinished(&mut own.connection).await?;
        if !again {
            own.must_be_empty().await?;
            let mark = format!("create table {UNFINISHED} (only_row tinyint not null primary key)");
            own.run(mark).await.map_err(TransferError::Work)?;
        }
        unlock(&mut own.connection).await?;
        // A node that was there before the mark has its sessions open.
        let (others,): (i64,) =
            sqlx::query_as(OTHERS).fetch_one(&mut own.connection).await.map_err(OpenError::from)?;
        if others > 0 {
            if !again {
                own.finish().await.map_err(TransferError::Work)?;
            }
            return Err(TransferError::InUse(others));
        }
        for at in 0..own.tables.len() {
            let sql = of_table("truncate table ", &own.tables[at]);
            own.run(sql.into_sql()).await.map_err(TransferError::Work)?;
        }
        Ok(own)
    }

    /// A database to be compared with.
    pub(in crate::store) async fn to_look_at(
        url: &str,
        patience: Duration,
    ) -> std::result::Result<Self, TransferError> {
        let options = open::prepare(url, patience, true).await?;
        let mut own = Self::connect(&options).await?;
        own.read_schema().await.map_err(TransferError::Work)?;
        Ok(own)
    }

    async fn connect(options: &MySqlConnectOptions) -> std::result::Result<Self, OpenError> {
        let (mut connection, _) = connect(options).await?;
        connection.execute(PATIENT).await?;
        Ok(Self { connection, tables: Vec::new() })
    }

    /// All tables, with their columns in the order of their names in SQLite.
    pub(in crate::store) fn tables(&self) -> &[Table] {
        &self.tables
    }

    async fn read_schema(&mut self) -> Result<()> {
        let rows: Vec<(String, String, String, i64)> =
            sqlx::query_as(COLUMNS).fetch_all(&mut self.connection).await?;
        let mut tables: BTreeMap<String, Vec<(Column, i64)>> = BTreeMap::new();
        for (table, name, data_type, place) in rows {
            let kind = match data_type.to_ascii_lowercase().as_str() {
                "tinyint" | "smallint" | "int" | "bigint" => Kind::Number,
                "varchar" | "text" | "mediumtext" => Kind::Text,
                "binary" | "varbinary" => Kind::Bytes,
                "datetime" => Kind::Moment,
                other => return Err(StoreError::Corrupt(format!("{table}.{name} is of type {other}"))),
            };
            let name = if name == ONLY_ROW.1 { ONLY_ROW.0.into() } else { name };
            tables.entry(table).or_default().push((Column { name, kind }, place));
        }
        self.tables = tables
            .into_iter()
            .map(|(name, mut columns)| {
                columns.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
                let mut key: Vec<_> = (0..columns.len()).filter(|at| columns[*at].1 > 0).collect();
                key.sort_by_key(|at| columns[*at].1);
                Table { name, columns: columns.into_iter().map(|(column, _)| column).collect(), key }
            })
            .collect();
        Ok(())
    }

    /// Tables of one row have it from the migrations; all others are empty in a database that no node has used.
    async fn must_be_empty(&mut self) -> std::result::Result<(), TransferError> {
        for table in self.tables.clone() {
            let single = table.columns.iter().any(|column| column.name == ONLY_ROW.0);
            if !single && self.count(&table).await.map_err(TransferError::Work)? > 0 {
                return Err(TransferError::NotEmpty(table.name));
            }
        }
        Ok(())
    }

    /// Writes rows, a statement for each mebibyte.
    pub(in crate::store) async fn insert(&mut self, table: &Table, rows: &[Row]) -> Result<()> {
        let mut rest = rows;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|row| {
                bytes += row.iter().map(size).sum::<usize>();
                bytes <= STATEMENT_BYTES
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            self.run(insertion(table, now)).await?;
            rest = later;
        }
        Ok(())
    }

    /// So many rows at most after a row, in the order of the key.
    pub(in crate::store) async fn page(
        &mut self,
        table: &Table,
        after: Option<&Row>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let sql = selection(table, after, limit);
        let rows = self.connection.fetch_all(AssertSqlSafe(sql)).await?;
        rows.iter().map(|row| values(table, row)).collect()
    }

    /// How many rows a table has.
    pub(in crate::store) async fn count(&mut self, table: &Table) -> Result<u64> {
        let sql = of_table("select count(*) from ", table).into_sql();
        let (count,): (i64,) = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut self.connection).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Has a table give numbers from this one on.
    pub(in crate::store) async fn number_from(&mut self, table: &str, next: i64) -> Result<()> {
        let mut text = Text::new("alter table ", 100);
        text.name(table).sql(" auto_increment = ").number(next);
        self.run(text.into_sql()).await
    }

    /// The number that a table gives next.
    pub(in crate::store) async fn next_number(&mut self, table: &str) -> Result<i64> {
        let query = sqlx::query_as(
            "select cast(coalesce(auto_increment, 0) as signed) from information_schema.tables \
             where table_schema = database() and table_name = ?",
        );
        let (next,): (i64,) = query.bind(table).fetch_one(&mut self.connection).await?;
        Ok(next)
    }

    /// The copy is whole: nodes may use it.
    pub(in crate::store) async fn finish(&mut self) -> Result<()> {
        self.run(format!("drop table {UNFINISHED}")).await
    }

    async fn run(&mut self, sql: String) -> Result<()> {
        self.connection.execute(AssertSqlSafe(sql)).await?;
        Ok(())
    }
}

/// Roughly what a value takes in a statement.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Number(_) => 20,
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => 2 * bytes.len(),
    }
}

fn of_table(head: &'static str, table: &Table) -> Text {
    let mut text = Text::new(head, 80);
    text.name(&table.name);
    text
}

fn column_name(text: &mut Text, column: &Column) {
    text.name(if column.name == ONLY_ROW.0 { ONLY_ROW.1 } else { &column.name });
}

fn value(text: &mut Text, kind: Kind, value: &Value) {
    match (value, kind) {
        (Value::Null, _) => text.sql("null"),
        (Value::Number(at), Kind::Moment) => {
            text.sql("timestampadd(microsecond, 1000 * ").number(*at).sql(", timestamp'1970-01-01 00:00:00')")
        }
        (Value::Number(number), _) => text.number(*number),
        (Value::Text(string), _) => text.quoted(string),
        (Value::Bytes(bytes), _) => text.bytes(bytes),
    };
}

fn insertion(table: &Table, rows: &[Row]) -> String {
    let mut text = of_table("insert into ", table);
    for (at, column) in table.columns.iter().enumerate() {
        text.sql(if at == 0 { " (" } else { ", " });
        column_name(&mut text, column);
    }
    text.sql(") values ");
    for (at, row) in rows.iter().enumerate() {
        text.sql(if at == 0 { "" } else { ", " });
        for (at, (column, of_row)) in table.columns.iter().zip(row).enumerate() {
            text.sql(if at == 0 { "(" } else { ", " });
            value(&mut text, column.kind, of_row);
        }
        text.sql(")");
    }
    text.into_sql()
}

fn selection(table: &Table, after: Option<&Row>, limit: usize) -> String {
    let mut text = Text::new("select ", 500);
    for (at, column) in table.columns.iter().enumerate() {
        text.sql(if at == 0 { "" } else { ", " });
        if column.kind == Kind::Moment {
            text.sql("timestampdiff(microsecond, timestamp'1970-01-01 00:00:00', ");
            column_name(&mut text, column);
            text.sql(") div 1000");
        } else {
            column_name(&mut text, column);
        }
    }
    text.sql(" from ").name(&table.name);
    if let Some(row) = after {
        above(&mut text, table, row);
    }
    for (at, column) in table.key.iter().enumerate() {
        text.sql(if at == 0 { " order by " } else { ", " });
        column_name(&mut text, &table.columns[*column]);
    }
    text.sql(" limit ").number(i64::try_from(limit).unwrap_or(i64::MAX));
    text.into_sql()
}

/// Rows above one, column by column of the key: the server reads no range by a comparison of whole rows.
fn above(text: &mut Text, table: &Table, row: &Row) {
    for last in 0..table.key.len() {
        text.sql(if last == 0 { " where (" } else { ") or (" });
        for (at, column) in table.key[..=last].iter().enumerate() {
            text.sql(if at == 0 { "" } else { " and " });
            column_name(text, &table.columns[*column]);
            text.sql(if at == last { " > " } else { " = " });
            value(text, table.columns[*column].kind, &row[*column]);
        }
    }
    text.sql(")");
}

fn values(table: &Table, row: &MySqlRow) -> Result<Row> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns =
            [("at", Kind::Moment), ("hash", Kind::Bytes), ("only", Kind::Number), ("t", Kind::Text)];
        let columns = columns.map(|(name, kind)| Column { name: name.into(), kind });
        Table { name: "a`b".into(), columns: columns.into(), key: vec![2, 1] }
    }

    fn row() -> Row {
        vec![Value::Number(5), Value::Bytes(vec![0, 255]), Value::Number(-1), Value::Text("it's".into())]
    }

    #[test]
    fn statements() {
        assert_eq!(
            insertion(&table(), &[row(), vec![Value::Null; 4]]),
            "insert into `a``b` (`at`, `hash`, `only_row`, `t`) values \
             (timestampadd(microsecond, 1000 * 5, timestamp'1970-01-01 00:00:00'), x'00ff', -1, 'it\\'s'), \
             (null, null, null, null)"
        );
        let columns = "timestampdiff(microsecond, timestamp'1970-01-01 00:00:00', `at`) div 1000, `hash`, `only_row`, `t`";
        assert_eq!(
            selection(&table(), None, 9),
            format!("select {columns} from `a``b` order by `only_row`, `hash` limit 9")
        );
        assert_eq!(
            selection(&table(), Some(&row()), 9),
            format!(
                "select {columns} from `a``b` where (`only_row` > -1) or (`only_row` = -1 and `hash` > x'00ff') \
                 order by `only_row`, `hash` limit 9"
            )
        );
    }
}
