//! The same statements through the wire and to plain SQLite of the same machine: same rows, same types, same error
//! codes, same counts, and the same database in the end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]
#![allow(clippy::disallowed_methods, reason = "starts a node of its own")]

#[path = "sql/generator.rs"]
mod generator;
mod support;

use generator::{Generator, Statement, schema};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use support::client::{Answer, Client, Value};
use support::node::TestNode;

/// What a database did with a statement, in terms that both can be held to.
#[derive(Clone, Debug, PartialEq)]
enum Did {
    Failed(u64),
    Rows(Vec<String>, Vec<Vec<Value>>),
    Changed(u64, u64),
}

fn plain_value(value: ValueRef<'_>) -> Value {
    // Text that is not UTF-8, or holds a NUL, would be cut or replaced on the way: made comparable here.
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Float(value),
        ValueRef::Text(bytes) => Value::Text(text(bytes)),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

fn code(error: &rusqlite::Error) -> u64 {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => failure.extended_code as u64,
        rusqlite::Error::SqlInputError { error, .. } => error.extended_code as u64,
        other => panic!("plain SQLite: {other}"),
    }
}

fn plain_query(plain: &Connection, sql: &str) -> Result<Did, rusqlite::Error> {
    let mut statement = plain.prepare(sql)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut found = Vec::new();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        found.push((0..columns.len()).map(|at| plain_value(row.get_ref_unwrap(at))).collect());
    }
    Ok(Did::Rows(columns, found))
}

fn plain_exec(plain: &Connection, sql: &str) -> Result<Did, rusqlite::Error> {
    let mut statement = plain.prepare(sql)?;
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    drop(rows);
    drop(statement);
    Ok(Did::Changed(plain.last_insert_rowid() as u64, plain.changes()))
}

fn plain(plain: &Connection, statement: &Statement) -> Did {
    let result = match statement {
        Statement::Exec(sql) => plain_exec(plain, sql),
        Statement::Query(sql) => plain_query(plain, sql),
    };
    result.unwrap_or_else(|error| Did::Failed(code(&error)))
}

fn ours(client: &mut Client, statement: &Statement) -> Did {
    let answer = match statement {
        Statement::Exec(sql) => client.exec(sql, &[]),
        Statement::Query(sql) => client.query(sql, &[]),
    };
    match answer {
        Answer::Failure { code, .. } => Did::Failed(code),
        Answer::Rows { columns, rows, .. } => Did::Rows(columns, rows),
        Answer::Result { last_insert_id, rows_affected } => {
            // The wire carries 32 bits of the count.
            Did::Changed(last_insert_id, rows_affected)
        }
        other => panic!("no answer to SQL: {other:?}"),
    }
}

fn open_plain() -> Connection {
    let plain = Connection::open_in_memory().unwrap();
    // As the protocol promises.
    plain.execute_batch("PRAGMA foreign_keys = 1").unwrap();
    plain
}

/// Whether VACUUM's last row id, an internal value, may differ.
fn is_vacuum(statement: &Statement) -> bool {
    matches!(statement, Statement::Exec(sql) if sql == "VACUUM")
}

fn run(seed: u64, count: usize) {
    let node = TestNode::start();
    let mut client = Client::with_database(node.address(), "test");
    let plain_db = open_plain();
    let mut generator = Generator::new(seed);
    let start = schema().into_iter().map(Statement::Exec);
    let rest = std::iter::from_fn(|| Some(generator.next())).take(count);
    let mut after_vacuum = false;
    for (at, statement) in start.chain(rest).enumerate() {
        let (expected, found) = (plain(&plain_db, &statement), ours(&mut client, &statement));
        match (&expected, &found) {
            (Did::Changed(_, expected), Did::Changed(_, found)) if after_vacuum || is_vacuum(&statement) => {
                assert_eq!(expected, found, "seed {seed}, statement {at}: {statement:?}");
            }
            _ if after_vacuum && format!("{statement:?}").contains("last_insert_rowid") => {}
            _ => assert_eq!(expected, found, "seed {seed}, statement {at}: {statement:?}"),
        }
        after_vacuum |= is_vacuum(&statement);
        if matches!(&statement, Statement::Exec(sql) if sql.starts_with("INSERT") || sql.starts_with("REPLACE"))
            && matches!(expected, Did::Changed(_, changed) if changed > 0)
        {
            after_vacuum = false;
        }
    }
    for sql in ["PRAGMA integrity_check", "SELECT * FROM a", "SELECT * FROM b", "SELECT * FROM log"] {
        let statement = Statement::Query(sql.to_owned());
        assert_eq!(plain(&plain_db, &statement), ours(&mut client, &statement), "seed {seed}: {sql}");
    }
}

#[test]
fn generated_statements_do_what_they_do_in_plain_sqlite() {
    for seed in 1..=10 {
        run(seed, 1000);
    }
}
