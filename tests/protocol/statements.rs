//! Statements that are empty, give rows where none are expected, or change under the client.

use dqlite::codec::client::{OwnedParams, Param, Request, Schema};
use rusqlite::Connection;

use crate::support::client::{Answer, Client, Value};
use crate::{connect, open_dump, serve};

/// Texts without any statement.
const EMPTY: [&str; 10] =
    ["", " ", "\t\r\n", ";", ";;; ;", "-- a comment", "/* a */", "/* not ended", " ;-- a\n; /* b */", "--"];

fn prepare(client: &mut Client, schema: Schema, sql: &str) -> Answer {
    client.call(&Request::Prepare { schema, db: 0, sql: sql.as_bytes() }).unwrap()
}

#[test]
fn a_text_without_statement_has_an_answer_to_each_request() {
    let (_node, mut client) = serve();
    client.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1), (2)", &[]).ok();
    for sql in EMPTY {
        let before = Answer::Result { last_insert_id: 2, rows_affected: 2 };
        assert_eq!(client.exec(sql, &[]), before, "{sql:?}");
        assert_eq!(client.exec(sql, &[Param::Integer(1)]), before, "{sql:?}");
        for answer in [
            client.query(sql, &[]),
            client.query(sql, &[Param::Null]),
            prepare(&mut client, Schema::V0, sql),
            prepare(&mut client, Schema::V1, sql),
        ] {
            assert_eq!(answer.failure(), (0, "empty statement".to_owned()), "{sql:?}");
        }
        // Blanks and comments may stand behind a statement, and before it.
        let behind = format!("SELECT 1;{sql}");
        assert_eq!(client.query(&behind, &[]).integer(), 1, "{sql:?}");
        let stmt = client.prepare(&behind);
        assert_eq!(client.query_prepared(stmt, &[]).integer(), 1, "{sql:?}");
        assert_eq!(client.finalize(stmt), Answer::Empty);
    }
    assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), 2);
}

/// The rows of plain SQLite as integers.
fn plain_rows(plain: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = plain.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows =
        statement.query_map([], |row| (0..columns).map(|at| row.get(at).map(Value::Integer)).collect());
    rows.unwrap().map(Result::unwrap).collect()
}

const RETURNING: [&str; 6] = [
    "INSERT INTO t(a, b) VALUES(1, 10), (2, 20), (3, 30) RETURNING a, b",
    "INSERT INTO t(a, b) WITH RECURSIVE n(i) AS (SELECT 4 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
     SELECT i, i * 2 FROM n RETURNING a, b, a + b",
    "UPDATE t SET b = b + 1 WHERE a % 2 = 0 RETURNING a, b",
    "DELETE FROM t WHERE a > 2990 RETURNING a",
    "DELETE FROM t WHERE a < 0 RETURNING a",
    "INSERT INTO t(a, b) VALUES(1, 1) ON CONFLICT(a) DO UPDATE SET b = 99 RETURNING b",
];

#[test]
fn a_query_with_returning_gives_all_its_rows_and_is_committed_before_the_last() {
    for prepared in [false, true] {
        let (node, mut client) = serve();
        let mut other = connect(&node);
        let plain = Connection::open_in_memory().unwrap();
        let create = "CREATE TABLE t(a INTEGER PRIMARY KEY, b)";
        plain.execute_batch(create).unwrap();
        client.exec(create, &[]).ok();
        for sql in RETURNING {
            let rows = if prepared {
                let stmt = client.prepare(sql);
                let answer = client.query_prepared(stmt, &[]);
                client.finalize(stmt).ok();
                answer.rows()
            } else {
                client.query(sql, &[]).rows()
            };
            assert_eq!(rows, plain_rows(&plain, sql), "{sql}");
            let all = "SELECT a, b FROM t ORDER BY a";
            assert_eq!(other.query(all, &[]).rows(), plain_rows(&plain, all), "{sql}");
        }
        let all = "SELECT a, b FROM t ORDER BY a";
        assert_eq!(client.query(all, &[]).rows(), plain_rows(&plain, all));
    }
}

#[test]
fn an_exec_with_returning_fails_writes_nothing_and_locks_nothing() {
    for prepared in [false, true] {
        let (node, mut client) = serve();
        let mut other = connect(&node);
        client.exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 1)", &[]).ok();
        let sql = "INSERT INTO t(b) VALUES(2), (3) RETURNING a";
        let rows = (1, "rows yielded when none expected for EXEC request".to_owned());
        for _ in 0..3 {
            if prepared {
                let stmt = client.prepare(sql);
                assert_eq!(client.exec_prepared(stmt, &[]).failure(), rows);
                client.finalize(stmt).ok();
            } else {
                assert_eq!(client.exec(sql, &[]).failure(), rows);
            }
            assert_eq!(other.query("SELECT count(*) FROM t", &[]).integer(), 1);
            other.exec("UPDATE t SET b = b + 1", &[]).ok();
        }
        // One that gives no row is as good as any other.
        other.exec("DELETE FROM t WHERE a > 100 RETURNING a", &[]).ok();
        client.exec("INSERT INTO t(b) VALUES(5)", &[]).ok();
        assert_eq!(other.query("SELECT sum(b) FROM t", &[]).integer(), 9);
    }
}

#[test]
fn statements_take_the_lowest_free_id_and_outlive_errors() {
    let (_node, mut client) = serve();
    client.exec("CREATE TABLE t(a UNIQUE)", &[]).ok();
    let ids: Vec<_> = (0..3).map(|_| client.prepare("INSERT INTO t VALUES(?)")).collect();
    assert_eq!(ids, [0, 1, 2]);
    assert_eq!(client.finalize(1), Answer::Empty);
    assert_eq!(client.finalize(1).failure(), (12, "no statement with the given id".to_owned()));
    assert_eq!(client.exec_prepared(1, &[]).code(), 12);
    assert_eq!(client.query_prepared(1, &[]).code(), 12);
    assert_eq!(client.prepare("SELECT a FROM t ORDER BY a"), 1);
    assert_eq!(client.prepare("SELECT 3"), 3);

    let one = Answer::Result { last_insert_id: 1, rows_affected: 1 };
    assert_eq!(client.exec_prepared(0, &[Param::Integer(5)]), one);
    assert_eq!(client.exec_prepared(0, &[Param::Integer(5)]).code(), 2067);
    let two = Answer::Result { last_insert_id: 2, rows_affected: 1 };
    assert_eq!(client.exec_prepared(0, &[Param::Integer(6)]), two);
    assert_eq!(client.query_prepared(1, &[]).rows(), [[Value::Integer(5)], [Value::Integer(6)]]);
    // No values: the bindings of the run before are gone.
    client.exec_prepared(2, &[]).ok();
    assert_eq!(client.query("SELECT count(*) FROM t WHERE a IS NULL", &[]).integer(), 1);
}

#[test]
fn a_prepared_statement_follows_the_schema() {
    let (node, mut client) = serve();
    client.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)", &[]).ok();
    let all = client.prepare("SELECT * FROM t");
    let insert = client.prepare("INSERT INTO t(a) VALUES(?)");
    connect(&node).exec("ALTER TABLE t ADD COLUMN b DEFAULT 7", &[]).ok();
    client.exec_prepared(insert, &[Param::Integer(2)]).ok();
    // As C does: the header of the first answer is made before SQLite notices.
    let header_was_old = client.query_prepared(all, &[]).rows();
    assert_eq!(header_was_old, [[Value::Integer(1)], [Value::Integer(2)]]);
    let rows = client.query_prepared(all, &[]).rows();
    assert_eq!(rows, [[Value::Integer(1), Value::Integer(7)], [Value::Integer(2), Value::Integer(7)]]);
    connect(&node).exec("DROP TABLE t", &[]).ok();
    assert_eq!(client.query_prepared(all, &[]).failure(), (1, "no such table: t".to_owned()));
    assert_eq!(client.exec_prepared(insert, &[]).code(), 1);
    connect(&node).exec("CREATE TABLE t(a)", &[]).ok();
    client.exec_prepared(insert, &[Param::Integer(9)]).ok();
    client.query_prepared(all, &[]).ok();
    assert_eq!(client.query_prepared(all, &[]).integer(), 9);
}

#[test]
fn a_text_of_several_statements_stops_at_the_first_error_and_keeps_what_was_done() {
    let (_node, mut client) = serve();
    let params = [Param::Integer(1), Param::Integer(2), Param::Integer(3)];
    client.exec("CREATE TABLE t(a, b); INSERT INTO t VALUES(?, ?); INSERT INTO t VALUES(?, 4)", &params).ok();
    let rows = client.query("SELECT a, b FROM t", &[]).rows();
    assert_eq!(rows, [[1, 2], [3, 4]].map(|row| row.map(Value::Integer)));
    let failed = client.exec("DELETE FROM t; INSERT INTO nope VALUES(1); CREATE TABLE never(a)", &[]);
    assert_eq!(failed.failure(), (1, "no such table: nope".to_owned()));
    assert_eq!(client.query("SELECT count(*) FROM sqlite_master", &[]).integer(), 1);
    assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), 0);
}

#[test]
fn vacuum_shrinks_the_database_and_what_reaches_outside_of_it_is_refused() {
    let (node, mut client) = serve();
    client.exec("CREATE TABLE t(a, b)", &[]).ok();
    let fill = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
                SELECT i, randomblob(500) FROM n";
    client.exec(fill, &[]).ok();
    let pages = |client: &mut Client| client.query("PRAGMA page_count", &[]).integer();
    let full = pages(&mut client);
    client.exec("DELETE FROM t WHERE a > 10", &[]).ok();
    assert_eq!(pages(&mut client), full);
    client.exec("VACUUM", &[]).ok();
    let small = pages(&mut client);
    assert!(small < full / 20, "{small} of {full} pages");
    let (_directory, plain) = open_dump(&mut connect(&node), crate::NAME);
    let count: i64 = plain.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 10);
    assert_eq!(i64::try_from(plain_pages(&plain)).unwrap(), small);

    client.exec("BEGIN", &[]).ok();
    let inside = client.exec("VACUUM", &[]).failure();
    assert_eq!(inside, (1, "cannot VACUUM from within a transaction".to_owned()));
    client.exec("ROLLBACK", &[]).ok();
    for refused in ["ATTACH 'other' AS x", "ATTACH ':memory:' AS x", "VACUUM INTO 'copy'"] {
        assert_eq!(client.exec(refused, &[]).code(), 23, "{refused}");
    }
    client.exec("ATTACH '' AS x", &[]).ok();
    client.exec("CREATE TABLE x.private(a); INSERT INTO x.private VALUES(1)", &[]).ok();
    assert_eq!(client.query("SELECT count(*) FROM x.private", &[]).integer(), 1);
    assert_eq!(connect(&node).query("SELECT * FROM x.private", &[]).code(), 1);
}

fn plain_pages(plain: &Connection) -> u64 {
    let count: i64 = plain.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    count.cast_unsigned()
}

#[test]
fn incremental_vacuum_shrinks_the_database() {
    let (_node, mut client) = serve();
    client.exec("PRAGMA auto_vacuum = 2; CREATE TABLE t(b)", &[]).ok();
    client.exec("VACUUM", &[]).ok();
    for _ in 0..50 {
        client.exec("INSERT INTO t VALUES(zeroblob(20000))", &[]).ok();
    }
    let full = client.query("PRAGMA page_count", &[]).integer();
    client.exec("DELETE FROM t", &[]).ok();
    client.query("PRAGMA incremental_vacuum", &[]).rows();
    let small = client.query("PRAGMA page_count", &[]).integer();
    assert!(small < full / 10, "{small} of {full} pages");
    open_dump(&mut client, crate::NAME);
}

#[test]
fn queries_refuse_a_second_statement() {
    let (_node, mut client) = serve();
    let tail = (1, "nonempty statement tail".to_owned());
    for sql in ["SELECT 1; SELECT 2", "SELECT 1; nonsense", "SELECT 1; ;; x"] {
        assert_eq!(client.query(sql, &[]).failure(), tail, "{sql}");
        assert_eq!(prepare(&mut client, Schema::V0, sql).failure(), tail, "{sql}");
        let stmt = Answer::Stmt { id: 0, params: 0, tail: Some(9) };
        assert_eq!(prepare(&mut client, Schema::V1, sql), stmt);
        client.finalize(0).ok();
    }
    let params = OwnedParams::default();
    let wrong = Request::QuerySql { schema: Schema::V0, db: 1, sql: b"SELECT 1", params: params.view() };
    assert_eq!(client.call(&wrong).unwrap().failure(), (12, "no database opened".to_owned()));
}
