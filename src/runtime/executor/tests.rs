//! Requests on real connections over the page store, without a node.

use std::sync::Arc;

use super::{Progress, SqlConn};
use crate::base::limits;
use crate::codec::client::{
    Cell, Context, Failure, FrameReader, OwnedParams, Param, Response, RowsEnd, Schema, failure,
};
use crate::engine::jobs::{Outcome, SqlRequest};
use crate::pages::{Database, Veto, View};
use crate::session::{Reply, Sql};
use crate::sqlite::Value;

mod queries;
mod transactions;

fn database() -> Arc<Database> {
    Database::new(b"test", 4096, 3_040_001)
}

fn open(database: &Arc<Database>, who: u64) -> SqlConn {
    SqlConn::open(database, who).expect("a connection")
}

/// A connection to a database with the table `t(a INTEGER PRIMARY KEY, b)`, which is committed.
fn with_table() -> (Arc<Database>, SqlConn) {
    let database = database();
    let mut conn = open(&database, 1);
    exec(&mut conn, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    database.commit_to(database.head_seq());
    (database, conn)
}

fn start(conn: &mut SqlConn, sql: Sql) -> Progress {
    conn.start(SqlRequest::Client(sql))
}

fn done(progress: Progress) -> Outcome {
    match progress {
        Progress::Done(outcome) => outcome,
        other => panic!("not done: {other:?}"),
    }
}

fn exec_sql(sql: &str, params: &[Param<'_>]) -> Sql {
    Sql::ExecSql { sql: sql.into(), params: OwnedParams::new(params) }
}

fn query_sql(sql: &str, params: &[Param<'_>]) -> Sql {
    Sql::QuerySql { sql: sql.into(), params: OwnedParams::new(params) }
}

/// Runs a text to its end.
fn run(conn: &mut SqlConn, sql: &str) -> Outcome {
    done(start(conn, exec_sql(sql, &[])))
}

/// Runs a text that must succeed: (last insert id, rows affected).
fn exec(conn: &mut SqlConn, sql: &str) -> (u64, u64) {
    match run(conn, sql).reply {
        Some(Reply::Result { last_insert_id, rows_affected }) => (last_insert_id, rows_affected),
        other => panic!("{sql}: {other:?}"),
    }
}

fn failure_of(outcome: Outcome) -> Failure {
    match outcome.reply {
        Some(Reply::Failure(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

/// The failure of a text: code and text.
fn refused(conn: &mut SqlConn, sql: &str) -> (u64, String) {
    told(failure_of(run(conn, sql)))
}

fn told(failure: Failure) -> (u64, String) {
    (failure.code, String::from_utf8(failure.text.to_vec()).expect("text"))
}

/// One decoded cell, with its own bytes: the type code and the value.
type Decoded = (u8, Value);

/// What one rows message holds: column names, rows, what follows.
type Message = (Vec<String>, Vec<Vec<Decoded>>, RowsEnd);

fn decode(bytes: &[u8]) -> Vec<Message> {
    let mut reader = FrameReader::new(u64::MAX);
    reader.feed(bytes);
    let mut messages = Vec::new();
    while let Some(frame) = reader.next_frame().expect("a frame") {
        let Response::Rows(rows) = Response::decode(frame, Context::default()).expect("a response") else {
            panic!("no rows")
        };
        let names = rows.columns.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let decoded = rows.rows.iter().map(|row| row.iter().map(own).collect()).collect();
        messages.push((names, decoded, rows.end));
    }
    messages
}

fn own(cell: &Cell<'_>) -> Decoded {
    let value = match *cell {
        Cell::Integer(value) | Cell::Unixtime(value) | Cell::Boolean(value) => Value::Integer(value),
        Cell::Float(value) => Value::Float(value),
        Cell::Text(text) | Cell::Iso8601(text) => Value::Text(text.to_vec()),
        Cell::Blob(blob) => Value::Blob(blob.to_vec()),
        Cell::Null => Value::Null,
    };
    (cell.code(), value)
}

/// The messages of an outcome that gave rows.
fn messages(outcome: &Outcome) -> Vec<Message> {
    match &outcome.reply {
        Some(Reply::Message(bytes)) => decode(bytes),
        other => panic!("no rows: {other:?}"),
    }
}

/// The rows of a query that fits into one answer.
fn query(conn: &mut SqlConn, sql: &str) -> Vec<Vec<Decoded>> {
    let outcome = done(start(conn, query_sql(sql, &[])));
    messages(&outcome).into_iter().flat_map(|(_, rows, _)| rows).collect()
}

fn integer(value: i64) -> Vec<Decoded> {
    vec![(1, Value::Integer(value))]
}

fn count(conn: &mut SqlConn) -> i64 {
    match query(conn, "SELECT count(*) FROM t")[0][0].1 {
        Value::Integer(count) => count,
        ref other => panic!("{other:?}"),
    }
}

fn prepare(conn: &mut SqlConn, stmt: u32, sql: &str) -> Outcome {
    done(start(conn, Sql::Prepare { schema: Schema::V0, stmt, sql: sql.into() }))
}

#[test]
fn results_are_the_connections_and_stale_values_are_kept() {
    let (_database, mut conn) = with_table();
    assert_eq!(exec(&mut conn, "INSERT INTO t(b) VALUES(1), (2), (3)"), (3, 3));
    assert_eq!(exec(&mut conn, "INSERT OR IGNORE INTO t(a) VALUES(1)"), (3, 0));
    assert_eq!(exec(&mut conn, "UPDATE t SET b = 0 WHERE a < 3"), (3, 2));
    for stale in
        ["BEGIN", "COMMIT", "CREATE TABLE u(a)", "DROP TABLE u", "", "-- comment", ";;", "SELECT 1 WHERE 0"]
    {
        assert_eq!(exec(&mut conn, stale), (3, 2), "{stale}");
    }
    assert_eq!(exec(&mut conn, "REPLACE INTO t(a) VALUES(1)"), (1, 1));
    assert_eq!(exec(&mut conn, "DELETE FROM t"), (1, 3));
}

#[test]
fn a_write_tells_the_version_it_made_and_a_read_the_one_it_saw() {
    let (database, mut conn) = with_table();
    let outcome = run(&mut conn, "INSERT INTO t(b) VALUES(1)");
    assert_eq!(outcome.published, Some(database.head_seq()));
    assert!(!outcome.holds_slot);
    assert_eq!(count(&mut conn), 0, "a reader sees what is committed");
    database.commit_to(database.head_seq());
    let outcome = done(start(&mut conn, query_sql("SELECT count(*) FROM t", &[])));
    assert_eq!((outcome.published, outcome.read_seq), (None, Some(database.committed_seq())));
    assert_eq!(messages(&outcome)[0].1, [integer(1)]);
    let nothing = run(&mut conn, "UPDATE t SET b = 0 WHERE a = 99");
    assert_eq!(nothing.published, None, "nothing was written");
}

#[test]
fn a_script_runs_all_statements_and_spreads_its_parameters_over_them() {
    let (_database, mut conn) = with_table();
    let script = "INSERT INTO t VALUES(?, ?); -- one\n INSERT INTO t VALUES(?, ?);; CREATE TABLE u(c); INSERT INTO u VALUES(?)";
    let params: Vec<_> = (1..=7).map(Param::Integer).collect();
    let outcome = done(start(&mut conn, exec_sql(script, &params)));
    assert_eq!(outcome.reply, Some(Reply::Result { last_insert_id: 1, rows_affected: 1 }));
    let database = Arc::clone(conn.control.database());
    database.commit_to(outcome.published.expect("a version"));
    assert_eq!(query(&mut conn, "SELECT a * 10 + b FROM t"), [integer(12), integer(34)]);
    assert_eq!(query(&mut conn, "SELECT c FROM u"), [integer(5)]);
}

#[test]
fn the_first_error_of_a_script_ends_it_and_earlier_statements_stay() {
    let (database, mut conn) = with_table();
    let outcome =
        run(&mut conn, "INSERT INTO t VALUES(1, 1); INSERT INTO t VALUES(1, 2); INSERT INTO t VALUES(2, 2)");
    assert_eq!(outcome.published, Some(database.head_seq()), "the failure waits for what was done before it");
    assert_eq!(told(failure_of(outcome)), (1555, "UNIQUE constraint failed: t.a".to_owned()));
    database.commit_to(database.head_seq());
    assert_eq!(count(&mut conn), 1);
    assert_eq!(refused(&mut conn, "INSERT INTO t VALUES(3, 3); nonsense").0, 1);
}

#[test]
fn too_few_values_are_null_too_many_are_ignored_by_exec_and_refused_by_query() {
    let (database, mut conn) = with_table();
    let three = [Param::Integer(1), Param::Text(b"x\0y"), Param::Null];
    done(start(&mut conn, exec_sql("INSERT INTO t VALUES(?, ?)", &three)));
    done(start(&mut conn, exec_sql("INSERT INTO t VALUES(?, ?)", &three[..0])));
    database.commit_to(database.head_seq());
    let text = (3, Value::Text(b"x".to_vec()));
    assert_eq!(query(&mut conn, "SELECT b FROM t ORDER BY a"), [vec![text], vec![(5, Value::Null)]]);
    let outcome = done(start(&mut conn, query_sql("SELECT ?", &three)));
    assert_eq!(failure_of(outcome), failure::EXEC_FAILED);
    let outcome = done(start(&mut conn, query_sql("SELECT ?, ?", &three[..1])));
    assert_eq!(messages(&outcome)[0].1, [vec![(1, Value::Integer(1)), (5, Value::Null)]]);
}

#[test]
fn a_bad_value_has_two_different_answers() {
    let (_database, mut conn) = with_table();
    // One parameter of the type 9, which is for rows only.
    let bytes = [&[1u8, 9, 0, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
    let mut reader = crate::base::Reader::new(&bytes);
    let params = crate::codec::client::Params::decode(&mut reader, Schema::V0).expect("a header").to_owned();
    let outcome = done(start(&mut conn, Sql::ExecSql { sql: b"SELECT ?".to_vec(), params: params.clone() }));
    assert_eq!(failure_of(outcome), failure::BIND_PARAMETERS);
    let outcome = done(start(&mut conn, Sql::QuerySql { sql: b"SELECT ?".to_vec(), params: params.clone() }));
    assert_eq!(failure_of(outcome), failure::EXEC_FAILED);
    prepare(&mut conn, 0, "INSERT INTO t VALUES(?, 1)");
    let outcome = done(start(&mut conn, Sql::Exec { stmt: 0, params: params.clone() }));
    assert_eq!(failure_of(outcome), failure::BIND_PARAMETERS);
    let outcome = done(start(&mut conn, Sql::Query { stmt: 0, params }));
    assert_eq!(failure_of(outcome), failure::EXEC_FAILED);
    assert_eq!(count(&mut conn), 0);
}

#[test]
fn preparing_tells_parameters_and_tail_and_refuses_what_is_no_single_statement() {
    let (_database, mut conn) = with_table();
    let outcome = prepare(&mut conn, 0, "SELECT ?, ?3, :a; -- nothing more");
    assert_eq!(outcome.reply, Some(Reply::Prepared { params: 4, tail: 17 }));
    assert_eq!(outcome.prepared_writes, Some(false));
    assert_eq!(prepare(&mut conn, 1, "INSERT INTO t DEFAULT VALUES").prepared_writes, Some(true));
    assert_eq!(prepare(&mut conn, 2, "EXPLAIN DELETE FROM t").prepared_writes, Some(false));
    for empty in ["", " ", ";", "/* x */ ; -- y"] {
        assert_eq!(failure_of(prepare(&mut conn, 3, empty)), failure::EMPTY_STATEMENT, "{empty}");
    }
    for tail in ["SELECT 1; SELECT 2", "SELECT 1; nonsense", "SELECT 1 ;; x"] {
        assert_eq!(failure_of(prepare(&mut conn, 3, tail)), failure::NONEMPTY_TAIL, "{tail}");
    }
    let many = Sql::Prepare { schema: Schema::V1, stmt: 3, sql: b"SELECT 1; nonsense".to_vec() };
    assert_eq!(done(start(&mut conn, many)).reply, Some(Reply::Prepared { params: 0, tail: 9 }));
    let bad = told(failure_of(prepare(&mut conn, 4, "SELECT * FROM nope")));
    assert_eq!(bad, (1, "no such table: nope".to_owned()));
    let unknown = Sql::Exec { stmt: 4, params: OwnedParams::default() };
    assert_eq!(failure_of(done(start(&mut conn, unknown))), failure::NO_STATEMENT);
}

#[test]
fn a_prepared_statement_runs_again_and_again_until_it_is_finalized() {
    let (database, mut conn) = with_table();
    prepare(&mut conn, 0, "INSERT INTO t(b) VALUES(?)");
    for value in 1..=3 {
        let params = OwnedParams::new(&[Param::Integer(value)]);
        let outcome = done(start(&mut conn, Sql::Exec { stmt: 0, params }));
        let last_insert_id = value.cast_unsigned();
        assert_eq!(outcome.reply, Some(Reply::Result { last_insert_id, rows_affected: 1 }));
    }
    done(start(&mut conn, Sql::Exec { stmt: 0, params: OwnedParams::default() }));
    database.commit_to(database.head_seq());
    let values: Vec<_> =
        query(&mut conn, "SELECT b FROM t").into_iter().map(|row| row[0].1.clone()).collect();
    let expected = [Value::Integer(1), Value::Integer(2), Value::Integer(3), Value::Null];
    assert_eq!(values, expected, "bindings are cleared after each run");
    assert_eq!(done(start(&mut conn, Sql::Finalize { stmt: 0 })).reply, Some(Reply::Empty));
    assert_eq!(failure_of(done(start(&mut conn, Sql::Finalize { stmt: 0 }))), failure::NO_STATEMENT);
}

#[test]
fn an_exec_that_gives_rows_fails_and_writes_nothing() {
    let (database, mut conn) = with_table();
    let rows = "rows yielded when none expected for EXEC request";
    let before = database.head_seq();
    for sql in ["SELECT 1", "INSERT INTO t VALUES(1, 1) RETURNING a", "PRAGMA foreign_keys"] {
        let outcome = run(&mut conn, sql);
        assert_eq!((outcome.published, outcome.holds_slot), (None, false), "{sql}");
        assert_eq!(told(failure_of(outcome)), (1, rows.to_owned()), "{sql}");
    }
    assert_eq!(database.head_seq(), before);
    assert_eq!(exec(&mut conn, "UPDATE t SET b = 1 WHERE a = 5 RETURNING a").1, 0, "no row comes back");
    // Inside a transaction only the statement is undone.
    exec(&mut conn, "BEGIN; INSERT INTO t VALUES(1, 1)");
    assert_eq!(refused(&mut conn, "INSERT INTO t VALUES(2, 2) RETURNING a").1, rows);
    assert_eq!(refused(&mut conn, "INSERT INTO t VALUES(1, 1) RETURNING a").0, 1555);
    exec(&mut conn, "INSERT INTO t VALUES(3, 3); COMMIT");
    database.commit_to(database.head_seq());
    assert_eq!(query(&mut conn, "SELECT a FROM t"), [integer(1), integer(3)]);
}

#[test]
fn an_exec_with_returning_that_gives_no_row_writes_as_any_other() {
    let (database, mut conn) = with_table();
    exec(
        &mut conn,
        "CREATE TRIGGER skip BEFORE INSERT ON t BEGIN INSERT INTO log VALUES(new.a); SELECT raise(IGNORE); END; CREATE TABLE log(a)",
    );
    let outcome = run(&mut conn, "INSERT INTO t VALUES(1, 1) RETURNING a");
    assert!(matches!(outcome.reply, Some(Reply::Result { .. })), "{outcome:?}");
    assert_eq!(outcome.published, Some(database.head_seq()));
    database.commit_to(database.head_seq());
    assert_eq!(query(&mut conn, "SELECT a FROM log"), [integer(1)]);
}

#[test]
fn an_interrupt_ends_a_long_statement_with_code_9() {
    let (_database, mut conn) = with_table();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let interrupter = conn.interrupter();
    interrupter.interrupt();
    let outcome = done(start(&mut conn, query_sql(endless, &[])));
    assert_eq!(failure_of(outcome), failure::INTERRUPTED);
    let _next = conn.interrupter();
    assert_eq!(count(&mut conn), 0);
}

#[test]
fn an_interrupt_before_the_first_step_ends_a_statement_that_would_not_notice() {
    let (_database, mut conn) = with_table();
    conn.interrupter().interrupt();
    let outcome = done(start(&mut conn, query_sql("SELECT length(hex(zeroblob(10)))", &[])));
    assert_eq!(failure_of(outcome), failure::INTERRUPTED);
    let _next = conn.interrupter();
    assert_eq!(count(&mut conn), 0);
}

#[test]
fn every_error_leaves_the_slot_free() {
    let (database, mut conn) = with_table();
    exec(&mut conn, "INSERT INTO t VALUES(1, 1)");
    for sql in [
        "INSERT INTO t VALUES(1, 1)",
        "INSERT INTO t VALUES('x', 1)",
        "INSERT INTO t VALUES(1, 1) RETURNING a",
        "BEGIN IMMEDIATE; INSERT INTO t VALUES(1, 1); COMMIT",
        "VACUUM INTO 'x'",
    ] {
        let outcome = run(&mut conn, sql);
        let in_transaction = sql.starts_with("BEGIN");
        assert_eq!(outcome.holds_slot, in_transaction, "{sql}");
        failure_of(outcome);
        let rolled_back = done(conn.start(SqlRequest::Rollback));
        assert!(rolled_back.reply.is_none() && !rolled_back.holds_slot, "{sql}");
        assert_eq!(database.slot_holder(), None, "{sql}");
    }
}
