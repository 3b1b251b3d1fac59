//! Connections on a private database in memory: what needs no replication.

use libsqlite3_sys as ffi;

use super::{Conn, ConnOptions, SqlError, Step, StmtId, Value, ValueRef};
use crate::base::limits;
use crate::pages::{View, WriterId};
use crate::vfs::Control;

fn open() -> Conn {
    Conn::open_memory(&ConnOptions::default()).expect("a connection")
}

fn prepare(conn: &mut Conn, sql: &str) -> StmtId {
    conn.prepare(sql.as_bytes(), false).expect(sql).id.expect(sql)
}

/// All rows of one statement.
fn rows(conn: &mut Conn, sql: &str) -> Result<Vec<Vec<Value>>, SqlError> {
    let Some(id) = conn.prepare(sql.as_bytes(), true)?.id else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    loop {
        match conn.step(id) {
            Ok(Step::Row) => {
                let columns = 0..conn.column_count(id);
                rows.push(columns.map(|column| conn.column(id, column).to_value()).collect());
            }
            Ok(Step::Done) => break,
            Err(error) => {
                conn.discard(id);
                return Err(error);
            }
        }
    }
    conn.finalize(id);
    Ok(rows)
}

fn one(conn: &mut Conn, sql: &str) -> Value {
    rows(conn, sql).expect(sql)[0][0].clone()
}

fn refusal(conn: &mut Conn, sql: &str) -> (i32, String) {
    let error = rows(conn, sql).expect_err(sql);
    (error.code, String::from_utf8(error.message).expect("text"))
}

#[test]
fn every_kind_of_value_comes_back_as_it_was_bound() {
    let mut conn = open();
    let id = prepare(&mut conn, "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7");
    let values = [
        Value::Integer(i64::MIN),
        Value::Float(f64::INFINITY),
        Value::Text(b"a\0b\xff".to_vec()),
        Value::Text(Vec::new()),
        Value::Blob(vec![0, 1, 0xff]),
        Value::Blob(Vec::new()),
        Value::Null,
    ];
    assert_eq!(conn.stmt_param_count(id), values.len());
    for (index, value) in values.iter().enumerate() {
        conn.bind(id, index + 1, value.view()).expect("bind");
    }
    assert_eq!(conn.step(id), Ok(Step::Row));
    let found: Vec<_> = (0..values.len()).map(|column| conn.column(id, column).to_value()).collect();
    assert_eq!(found, values);
    assert_eq!(conn.column(id, 7), ValueRef::Null, "a column that does not exist");
    assert_eq!(conn.step(id), Ok(Step::Done));
    conn.reset(id).expect("reset");
    conn.clear_bindings(id);
    assert_eq!(conn.step(id), Ok(Step::Row));
    assert_eq!(conn.column(id, 0), ValueRef::Null, "bindings are cleared");
}

#[test]
fn a_parameter_that_does_not_exist_is_refused() {
    let mut conn = open();
    let id = prepare(&mut conn, "SELECT ?1");
    assert_eq!(conn.bind(id, 2, ValueRef::Null).expect_err("no second parameter").code, 25);
}

#[test]
fn the_tail_begins_after_the_semicolon_and_an_empty_text_has_no_statement() {
    let mut conn = open();
    let prepared = conn.prepare(b"SELECT 1; SELECT 2", false).expect("prepare");
    assert_eq!(prepared.tail, 9);
    for empty in ["", " ", ";", " ;; -- comment", "/* comment */"] {
        assert_eq!(conn.prepare(empty.as_bytes(), true).expect(empty).id, None, "{empty}");
        assert!(conn.is_blank(empty.as_bytes()), "{empty}");
    }
    for full in ["SELECT 1", "; SELECT 1", "-- comment\nSELECT 1", "nonsense"] {
        assert!(!conn.is_blank(full.as_bytes()), "{full}");
    }
}

#[test]
fn errors_carry_the_extended_code_and_sqlites_text() {
    let mut conn = open();
    rows(&mut conn, "CREATE TABLE t(a PRIMARY KEY, b NOT NULL) WITHOUT ROWID").expect("create");
    rows(&mut conn, "INSERT INTO t VALUES(1, 1)").expect("insert");
    let again = (1555, "UNIQUE constraint failed: t.a".to_owned());
    assert_eq!(refusal(&mut conn, "INSERT INTO t VALUES(1, 1)"), again);
    assert_eq!(refusal(&mut conn, "INSERT INTO t VALUES(2, NULL)").0, 1299);
    assert_eq!(refusal(&mut conn, "SELECT nope"), (1, "no such column: nope".to_owned()));
}

#[test]
fn pragmas_that_decide_on_storage_and_locks_are_refused_as_in_c() {
    let mut conn = open();
    for name in ["journal_mode", "page_size", "wal_autocheckpoint", "synchronous"] {
        assert!(rows(&mut conn, &format!("PRAGMA {name}")).is_ok(), "{name} can be read");
        for set in [format!("PRAGMA {name}=1"), format!("pragma main.{}(1)", name.to_uppercase())] {
            assert_eq!(refusal(&mut conn, &set), (23, "not authorized".to_owned()), "{set}");
        }
    }
    for name in ["wal_checkpoint", "busy_timeout", "read_uncommitted", "locking_mode"] {
        for text in [format!("PRAGMA {name}"), format!("PRAGMA main.{name}=1"), format!("PRAGMA {name}(1)")] {
            assert_eq!(refusal(&mut conn, &text), (23, "not authorized".to_owned()), "{text}");
        }
    }
    for allowed in ["user_version=7", "foreign_keys=0", "cache_size=10", "query_only=0", "no_such_pragma=1"] {
        assert!(rows(&mut conn, &format!("PRAGMA {allowed}")).is_ok(), "{allowed}");
    }
}

#[test]
fn only_the_nameless_database_can_be_attached() {
    let mut conn = open();
    for name in ["'x'", "':memory:'", "'' || ''", "?", "NULL"] {
        let text = format!("ATTACH {name} AS other");
        assert_eq!(refusal(&mut conn, &text), (23, "not authorized".to_owned()), "{text}");
    }
    rows(&mut conn, "ATTACH '' AS other").expect("a temporary database");
    rows(&mut conn, "CREATE TABLE other.t(a)").expect("a table in it");
    rows(&mut conn, "DETACH other").expect("detach");
    rows(&mut conn, "VACUUM").expect("attaches the empty name itself");
    assert_eq!(refusal(&mut conn, "VACUUM INTO 'file'"), (23, "authorization denied".to_owned()));
}

#[test]
fn extensions_are_not_loaded() {
    let mut conn = open();
    assert_eq!(refusal(&mut conn, "SELECT load_extension('x')"), (1, "not authorized".to_owned()));
}

#[test]
fn a_new_connection_is_set_up_for_the_engine() {
    let mut conn = open();
    assert_eq!(one(&mut conn, "PRAGMA foreign_keys"), Value::Integer(1));
    assert_eq!(one(&mut conn, "PRAGMA synchronous"), Value::Integer(0));
    assert_eq!(one(&mut conn, "PRAGMA cache_size"), Value::Integer(8));
    assert_eq!(one(&mut conn, "PRAGMA journal_mode"), Value::Text(b"memory".to_vec()));
}

#[test]
fn an_interrupt_stops_an_endless_statement_and_the_connection_goes_on() {
    let mut conn = open();
    let interrupter = conn.interrupter();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let error = std::thread::scope(|scope| {
        scope.spawn(move || interrupter.interrupt());
        rows(&mut conn, endless).expect_err("it never ends by itself")
    });
    assert_eq!((error.code, error.message.as_slice()), (9, b"interrupted".as_slice()));
    assert!(conn.is_interrupted());
    conn.clear_interrupt();
    assert_eq!(one(&mut conn, "SELECT 1"), Value::Integer(1));
}

#[test]
fn an_interrupter_may_outlive_its_connection() {
    let interrupter = open().interrupter();
    interrupter.interrupt();
}

#[test]
fn a_text_prepared_again_uses_the_cached_statement_while_it_is_free() {
    let mut conn = open();
    let text = b"SELECT ?1; SELECT 2";
    let first = conn.prepare(text, true).expect("prepare");
    conn.bind(first.id.unwrap(), 1, ValueRef::Integer(7)).expect("bind");
    assert_eq!(conn.cached_statements(), (0, 0));
    let second = conn.prepare(text, true).expect("prepare");
    assert_ne!(first.id, second.id, "one that is in use is not shared");
    conn.finalize(first.id.unwrap());
    conn.finalize(second.id.unwrap());
    assert_eq!(conn.cached_statements(), (2, 2 * text.len()));
    let third = conn.prepare(text, true).expect("prepare");
    assert_eq!((third.tail, conn.cached_statements()), (10, (1, text.len())));
    assert_eq!(conn.step(third.id.unwrap()), Ok(Step::Row));
    assert_eq!(conn.column(third.id.unwrap(), 0), ValueRef::Null, "bindings do not survive");
    conn.discard(third.id.unwrap());
    assert_eq!(conn.cached_statements(), (1, text.len()), "a statement that is discarded is not kept");
}

#[test]
fn the_statement_cache_is_bounded_in_number_and_in_bytes() {
    let mut conn = open();
    for number in 0..limits::STATEMENT_CACHE_COUNT_MAX + 10 {
        one(&mut conn, &format!("SELECT {number}"));
    }
    assert_eq!(conn.cached_statements().0, limits::STATEMENT_CACHE_COUNT_MAX);
    let padding = " ".repeat(limits::STATEMENT_CACHE_BYTES_MAX / 4);
    for number in 0..10 {
        one(&mut conn, &format!("SELECT {number}{padding}"));
        assert!(conn.cached_statements().1 <= limits::STATEMENT_CACHE_BYTES_MAX);
    }
    let huge = format!("SELECT 1{}", " ".repeat(limits::STATEMENT_CACHE_BYTES_MAX));
    let before = conn.cached_statements();
    one(&mut conn, &huge);
    assert_eq!(conn.cached_statements(), before, "a huge text does not push the others out");
}

#[test]
fn state_after_statements_is_the_connections() {
    let mut conn = open();
    rows(&mut conn, "CREATE TABLE t(a)").expect("create");
    rows(&mut conn, "INSERT INTO t VALUES(1), (2), (3)").expect("insert");
    assert_eq!((conn.last_insert_rowid(), conn.changes(), conn.total_changes()), (3, 3, 3));
    assert!(!conn.in_transaction());
    rows(&mut conn, "BEGIN").expect("begin");
    assert!(conn.in_transaction());
    assert_eq!((conn.last_insert_rowid(), conn.changes()), (3, 3), "stale values are kept");
    rows(&mut conn, "ROLLBACK").expect("rollback");
    assert!(!conn.in_transaction());
}

#[test]
fn statements_tell_what_they_are() {
    let mut conn = open();
    rows(&mut conn, "CREATE TABLE t(a DATETIME, b)").expect("create");
    let select = prepare(&mut conn, "SELECT a, b AS name, a + 1 FROM t");
    assert!(conn.readonly(select) && !conn.is_explain(select) && !conn.is_running(select));
    assert_eq!(conn.column_count(select), 3);
    assert_eq!(conn.column_name(select, 1), b"name");
    assert_eq!(conn.column_decltype(select, 0), Some(b"DATETIME".to_vec()));
    assert_eq!(conn.column_decltype(select, 1), None);
    assert_eq!(conn.column_decltype(select, 2), None);
    let insert = prepare(&mut conn, "INSERT INTO t VALUES(1, 2)");
    assert!(!conn.readonly(insert));
    assert_eq!(conn.column_count(insert), 0);
    let explain = prepare(&mut conn, "EXPLAIN INSERT INTO t VALUES(1, 2)");
    assert!(conn.is_explain(explain));
    conn.finalize(select);
    assert_eq!(conn.column_count(select), 0, "a finalized statement is nothing");
    assert_eq!(conn.step(select).expect_err("no statement").code, 21);
}

/// Bytes that SQLite's cache of the connection has.
#[expect(unsafe_code, reason = "asks SQLite")]
fn cached_bytes(conn: &Conn) -> i32 {
    let (mut now, mut highest) = (0, 0);
    // SAFETY: the connection is open, and both places are there.
    let code = unsafe {
        ffi::sqlite3_db_status(conn.db.as_ptr(), ffi::SQLITE_DBSTATUS_CACHE_USED, &mut now, &mut highest, 0)
    };
    assert_eq!(code, ffi::SQLITE_OK);
    now
}

#[test]
fn a_large_transaction_hands_its_pages_over_before_it_ends() {
    let database = crate::pages::Database::new(b"test", 4096, 3_040_000);
    let control = Control::new(database, WriterId(1));
    control.set_view(View::Head);
    let mut conn = Conn::open(&control, &ConnOptions::default()).expect("a connection");
    rows(&mut conn, "CREATE TABLE t(a, b)").expect("create");
    rows(&mut conn, "BEGIN").expect("begin");
    let fill = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
                INSERT INTO t SELECT i, zeroblob(4000) FROM n";
    rows(&mut conn, fill).expect("a thousand pages");
    let cached = cached_bytes(&conn);
    assert!(cached < 1 << 20, "{cached} bytes of 4 MB are still in SQLite's cache");
    rows(&mut conn, "COMMIT").expect("commit");
    assert_eq!(one(&mut conn, "SELECT count(*) FROM t WHERE length(b) = 4000"), Value::Integer(1000));
}
