//! How the database carries out the statements: for tests, and for who wonders.

use protocol::{ClientMsgId, EntryBody, Seq};
use sqlx::{AssertSqlSafe, FromRow, query_as};

use super::{
    MySqlStore, Result,
    sessions::{self, NewToken},
    statements,
};
use crate::store::{Effect, Mark, NewEntry, row, row::id};

/// One table's part in a statement, as EXPLAIN has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which statement.
    pub statement: &'static str,
    /// Which table, by its name in the statement.
    pub table: String,
    /// How it is read; `ALL` is all of it, `index` is all of a key.
    pub access: String,
    /// By which key.
    pub key: String,
    /// What else there is to say.
    pub extra: String,
}

#[derive(FromRow)]
struct Row {
    table: Option<String>,
    #[sqlx(rename = "type")]
    access: Option<String>,
    key: Option<String>,
    #[sqlx(rename = "Extra")]
    extra: Option<String>,
}

/// A value for a place of a statement.
enum Value {
    Number(i64),
    Text(&'static str),
    Bytes(usize),
}

use Value::{Bytes, Number, Text};

/// What nodes do again and again, with values that name something.
const STATEMENTS: &[(&str, &str, &[Value])] = &[
    ("registered_with", statements::REGISTERED_WITH, &[Bytes(16)]),
    ("account by number", statements::ACCOUNT_BY_NUMBER, &[Number(1)]),
    ("account by name", statements::ACCOUNT_BY_NAME, &[Text("kirito")]),
    ("user_name", statements::USER_NAME, &[Number(1)]),
    ("token", statements::TOKEN, &[Bytes(32)]),
    ("created_with", statements::CREATED_WITH, &[Number(1), Bytes(16)]),
    ("resolve", statements::RESOLVE, &[Text("[[1,1,\"00000000000000000000000000000000\"]]"), Text("[1]")]),
    ("heads", statements::HEADS, &[Text("[1,2,3]")]),
    (
        "snapshots",
        statements::SNAPSHOTS,
        &[Text("[1,2]"), Text("[[1,1,2],[1,2,1]]"), Text("[[1,1]]"), Text("[[1,1]]")],
    ),
    ("entries", statements::ENTRIES, &[Number(1), Number(2), Number(100)]),
    ("entries_before", statements::ENTRIES_BEFORE, &[Number(1), Number(2), Number(9), Number(100)]),
    ("advanced", statements::ADVANCED, &[Number(TIME), Number(50_000), Number(10_001)]),
    ("openings", sessions::OPENINGS, &[Text(TOKENS)]),
    ("known and heads", sessions::KNOWN_AND_HEADS, &[Text(TOKENS), Text("[1,2,3]")]),
    ("periods_in", statements::PERIODS_IN, &[Text("[[1,2],[1,3]]"), Text("[[1,1]]")]),
    ("friends", statements::FRIENDS, &[Number(1), Number(0), Number(200)]),
    ("groups", statements::GROUPS, &[Number(1), Number(0), Number(200)]),
    ("members", statements::MEMBERS, &[Number(1), Number(1), Number(1), Number(0), Number(200)]),
    (
        "committed",
        statements::COMMITTED,
        &[Number(TIME), Number(TIME + 1), Number(TIME), Number(1), Number(1), Number(1), Number(500)],
    ),
    ("of a user", statements::OF_USER, &[Number(1), Number(1), Bytes(16), Number(500)]),
    (
        "conversations",
        statements::CONVERSATIONS,
        &[Number(1), Number(1), Number(200), Number(1), Number(1), Number(200)],
    ),
    ("counts", statements::COUNTS, &[Number(1), Number(1)]),
    ("users by number", statements::USERS_BY_NUMBER, &[Number(1), Number(100)]),
    ("users by name", statements::USERS_BY_NAME, &[Text("name4"), Number(100)]),
    ("committed at", statements::COMMITTED_AT, &[Number(1), Number(1)]),
    ("readers of direct", statements::READERS_OF_DIRECT, &[Text("[[1,2],[2,1]]"), Number(1), Number(1)]),
    ("readers of a group", statements::READERS_OF_GROUP, &[Number(1), Number(1), Number(1), Number(1)]),
    ("reader of notices", statements::READER_OF_NOTICES, &[Number(1), Number(1)]),
];

/// Two numbered tokens, each with groups.
const TOKENS: &str = "[[0,\"01\",[1,2]],[1,\"02\",[]]]";

/// A time that has passed in any test, but not long ago: 2026.
const TIME: i64 = 1_767_225_600_000;

impl MySqlStore {
    /// How the database would carry out each statement now.
    ///
    /// # Errors
    /// The store's.
    pub async fn plans(&self) -> Result<Vec<Plan>> {
        let mut plans = Vec::new();
        for (name, sql, values) in STATEMENTS {
            self.explain(&mut plans, name, sql, values).await?;
        }
        for (name, sql) in texts()? {
            self.explain(&mut plans, name, &sql, &[]).await?;
        }
        Ok(plans)
    }

    async fn explain(
        &self,
        plans: &mut Vec<Plan>,
        statement: &'static str,
        sql: &str,
        values: &[Value],
    ) -> Result<()> {
        let mut query = query_as(AssertSqlSafe(format!("explain format = traditional {sql}")));
        for value in values {
            query = match value {
                Number(number) => query.bind(*number),
                Text(text) => query.bind(*text),
                Bytes(length) => query.bind(vec![1u8; *length]),
            };
        }
        let rows: Vec<Row> = self.shared.all(query).await?;
        let some = Option::unwrap_or_default;
        plans.extend(rows.into_iter().map(|row| Plan {
            statement,
            table: some(row.table),
            access: some(row.access),
            key: some(row.key),
            extra: some(row.extra),
        }));
        Ok(())
    }
}

/// The statements that are made as text.
fn texts() -> Result<Vec<(&'static str, String)>> {
    let (user, peer, group) = (row::user(1)?, row::user(2)?, row::group(1)?);
    let body = EntryBody::Message { text: String::new() };
    let entry =
        NewEntry { conv: row::conv(1)?, seq: Seq(1), from: user, mid: ClientMsgId([1; 16]), at: 0, body };
    let token = NewToken { hash: [1; 32], user, verified: "a".into(), expires_at: 1, keep: 3 };
    let effect = |effect| {
        let mut text = super::Text::default();
        statements::effect(&mut text, &effect);
        text.into_sql()
    };
    Ok(vec![
        ("append", statements::insert_entries(&[entry]).into_sql()),
        ("lock the head", statements::lock_head(row::conv(1)?, "").into_sql()),
        ("set friends", effect(Effect::SetFriends { a: user, b: peer, friends: true })),
        ("set blocked", effect(Effect::SetBlocked { user, peer, blocked: true })),
        ("end membership", effect(Effect::EndMembership { group, user, until: Seq(1) })),
        ("delete group", effect(Effect::DeleteGroup { group, until: Seq(1) })),
        ("register", statements::register("a", "a", "a", ClientMsgId([1; 16]), 0).into_sql()),
        ("rehash", statements::rehash(user, "a", "b").into_sql()),
        ("add tokens", sessions::insert_tokens(&[&token]).into_sql()),
        ("old tokens", sessions::old_tokens(&[&token], "").into_sql()),
        ("forget tokens", sessions::FORGET.replace("@old", "'[\"01\"]'")),
        ("revoke tokens", statements::revoke_tokens(user, Some(&[1; 32])).into_sql()),
        ("revoke all tokens", statements::revoke_tokens(user, None).into_sql()),
        ("make a group", statements::make_group(user, ClientMsgId([1; 16]), "a", "a", id(1), 0).into_sql()),
        ("erase texts", statements::erase_texts(&[(1, 1), (1, 2), (2, 1)]).into_sql()),
        ("say how far", statements::reach(Mark { at: 1, conv: row::conv(1)?, seq: Seq(1) }).into_sql()),
        ("rename in an entry", statements::rename_in(row::conv(1)?, Seq(1), &EntryBody::Joined).into_sql()),
        ("set delivered", statements::set_delivered(&[(user, row::conv(1)?, Seq(1))]).into_sql()),
    ])
}
