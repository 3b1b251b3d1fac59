//! SQLite's threading mode, which is decided once per process: each case runs in a process of its own, which is
//! this program again.

#![expect(unsafe_code, reason = "configures SQLite as host programs do")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::process::{Command, ExitCode};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use dqlite::pages::{Database, View, WriterId};
use dqlite::sqlite::threads::{self, Mode, Setting};
use dqlite::sqlite::{Conn, ConnOptions, SqlError, Step, Value};
use dqlite::vfs::Control;
use libsqlite3_sys as ffi;

/// Tells this program which case to run.
const CASE: &str = "SQLITE_THREADS_CASE";

const CASES: &[(&str, fn())] = &[
    ("a host that does nothing", || decides(Setting::Auto, false, false)),
    ("a host that asks for multi-thread mode", || {
        assert_eq!(configure(ffi::SQLITE_CONFIG_MULTITHREAD), 0);
        decides(Setting::Auto, false, false);
    }),
    ("a host that asks for serialized mode", || {
        assert_eq!(configure(ffi::SQLITE_CONFIG_SERIALIZED), 0);
        decides(Setting::Keep, false, false);
    }),
    ("single-thread mode is undone before the first use", || {
        single_thread();
        decides(Setting::Auto, false, false);
    }),
    ("single-thread mode is kept when told so", || {
        single_thread();
        decides(Setting::Keep, true, true);
    }),
    ("single-thread mode cannot be undone after the first use", || {
        single_thread();
        use_sqlite();
        decides(Setting::Auto, true, true);
        // The first decision holds.
        decides(Setting::Free, true, true);
    }),
    ("a static mutex made before does not hide single-thread mode", || {
        // SAFETY: a static mutex of SQLite's own.
        let mutex = unsafe { ffi::sqlite3_mutex_alloc(ffi::SQLITE_MUTEX_STATIC_PRNG) };
        assert!(!mutex.is_null());
        single_thread();
        decides(Setting::Keep, true, true);
    }),
    ("the lock can be asked for", || decides(Setting::Lock, false, true)),
    ("the lock can be refused", || {
        single_thread();
        decides(Setting::Free, true, false);
    }),
    ("the library uses nothing of SQLite before it is asked to", || {
        assert_eq!(threads::mode(), None);
        drop(threads::enter());
        threads::yield_now();
        single_thread();
    }),
    ("writers get in while an endless statement runs", || {
        single_thread();
        decides(Setting::Keep, true, true);
        writers_get_in_while_an_endless_statement_runs();
    }),
    ("others get in while one instruction reads a whole table", || {
        single_thread();
        decides(Setting::Keep, true, true);
        others_get_in_while_one_instruction_reads_a_whole_table();
    }),
    ("random functions are ours in single-thread mode", || {
        single_thread();
        decides(Setting::Keep, true, true);
        random_functions_work();
    }),
    ("random functions are SQLite's own else", || {
        decides(Setting::Auto, false, false);
        random_functions_work();
    }),
    ("many connections on many threads keep their databases whole", || {
        single_thread();
        decides(Setting::Keep, true, true);
        many_connections();
    }),
    ("many connections with SQLite's own mutexes", || {
        decides(Setting::Auto, false, false);
        many_connections();
    }),
];

fn main() -> ExitCode {
    if let Ok(wanted) = std::env::var(CASE) {
        let (_, case) = CASES.iter().find(|(name, _)| *name == wanted).expect("a case of this name");
        case();
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().expect("this program's path");
    let mut failed = 0;
    for (name, _) in CASES {
        let output = Command::new(&program).env(CASE, name).output().expect("this program again");
        let verdict = if output.status.success() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict}");
        if !output.status.success() {
            failed += 1;
            println!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
    }
    println!("{} cases, {failed} failed", CASES.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn configure(option: i32) -> i32 {
    // SAFETY: these options take no argument, and no other thread is there yet.
    unsafe { ffi::sqlite3_config(option) }
}

/// What go-dqlite does at the start of a program; it dies when the answer is not 0.
fn single_thread() {
    assert_eq!(configure(ffi::SQLITE_CONFIG_SINGLETHREAD), 0);
}

/// What a program does that has a database of its own.
fn use_sqlite() {
    let mut db = ptr::null_mut();
    // SAFETY: a NUL-terminated name and a place for the handle, which is closed once.
    unsafe {
        assert_eq!(ffi::sqlite3_open(c":memory:".as_ptr(), &raw mut db), 0);
        assert_eq!(ffi::sqlite3_close(db), 0);
    }
}

fn decides(setting: Setting, single: bool, locked: bool) {
    assert_eq!(threads::initialise(setting), Ok(Mode { single, locked }));
    assert_eq!(threads::mode(), Some(Mode { single, locked }));
}

fn database() -> Arc<Database> {
    Database::new(b"test", 4096, 3_040_001)
}

fn open(database: &Arc<Database>, who: u64) -> Conn {
    let control = Control::new(Arc::clone(database), WriterId(who));
    control.set_view(View::Head);
    Conn::open(&control, &ConnOptions::default()).expect("a connection")
}

/// The first value of each row of one statement.
fn rows(conn: &mut Conn, sql: &str) -> Result<Vec<Value>, SqlError> {
    let id = conn.prepare(sql.as_bytes(), true)?.id.expect("a statement");
    let mut rows = Vec::new();
    let outcome = loop {
        match conn.step(id) {
            Ok(Step::Row) => rows.push(conn.column(id, 0).to_value()),
            Ok(Step::Done) => break Ok(rows),
            Err(error) => break Err(error),
        }
    };
    conn.finalize(id);
    outcome
}

fn run(conn: &mut Conn, sql: &str) -> Vec<Value> {
    rows(conn, sql).expect(sql)
}

fn one(conn: &mut Conn, sql: &str) -> Value {
    run(conn, sql).remove(0)
}

const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n, t AS a";

/// Without hand-over the writer would wait for ever.
fn writers_get_in_while_an_endless_statement_runs() {
    let database = database();
    let (mut reader, mut writer) = (open(&database, 1), open(&database, 2));
    run(&mut writer, "CREATE TABLE t(a)");
    run(&mut writer, "INSERT INTO t VALUES(0)");
    let interrupter = reader.interrupter();
    let error = thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..200 {
                run(&mut writer, &format!("INSERT INTO t VALUES({number})"));
            }
            interrupter.interrupt();
        });
        rows(&mut reader, ENDLESS).expect_err("it is interrupted")
    });
    assert_eq!(error.code, 9);
    reader.clear_interrupt();
    assert_eq!(one(&mut reader, "SELECT count(*) FROM t"), Value::Integer(201));
}

/// `count(*)` is one instruction, which never reaches the progress handler.
fn others_get_in_while_one_instruction_reads_a_whole_table() {
    let database = database();
    let mut conn = open(&database, 1);
    run(&mut conn, "CREATE TABLE t(a)");
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000)";
    run(&mut conn, &format!("INSERT INTO t {numbers} SELECT hex(i) FROM n"));
    let (running, over, inside) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    let asking = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                if running.load(Ordering::SeqCst) {
                    asking.store(true, Ordering::SeqCst);
                    let _held = threads::enter();
                    // The lock is ours, and the statement is not done yet.
                    inside.fetch_or(running.load(Ordering::SeqCst), Ordering::SeqCst);
                    asking.store(false, Ordering::SeqCst);
                }
                thread::yield_now();
            }
        });
        let id = conn.prepare(b"SELECT count(*) FROM t", false).expect("prepare").id.expect("a statement");
        // Not so often that the progress handler's turn comes.
        for _ in 0..40 {
            let held = threads::enter();
            running.store(true, Ordering::SeqCst);
            // On a busy machine the other thread may not run for longer than all these statements take.
            while !asking.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            conn.step(id).expect("step");
            running.store(false, Ordering::SeqCst);
            conn.reset(id).expect("reset");
            drop(held);
            if inside.load(Ordering::SeqCst) {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(inside.load(Ordering::SeqCst), "nobody got in between");
}

fn random_functions_work() {
    let database = database();
    let mut conn = open(&database, 1);
    assert_eq!(one(&mut conn, "SELECT random() = random()"), Value::Integer(0));
    assert_eq!(one(&mut conn, "SELECT typeof(random())"), Value::Text(b"integer".to_vec()));
    for (asked, length) in [(-1, 1), (0, 1), (1, 1), (10, 10), (100_000, 100_000)] {
        let sql = format!("SELECT length(randomblob({asked}))");
        assert_eq!(one(&mut conn, &sql), Value::Integer(length), "{sql}");
    }
    assert_eq!(one(&mut conn, "SELECT randomblob(16) = randomblob(16)"), Value::Integer(0));
    assert_eq!(rows(&mut conn, "SELECT randomblob(1 << 40)").expect_err("too long").code, 18);
    run(&mut conn, "PRAGMA trusted_schema=0");
    run(&mut conn, "CREATE TABLE t(a DEFAULT (random()), b DEFAULT (hex(randomblob(4))))");
    run(&mut conn, "INSERT INTO t DEFAULT VALUES");
    run(&mut conn, "INSERT INTO t DEFAULT VALUES");
    assert_eq!(one(&mut conn, "SELECT count(DISTINCT a) + count(DISTINCT b) FROM t"), Value::Integer(4));
    assert_eq!(run(&mut conn, "SELECT a FROM t ORDER BY random()").len(), 2);
    let index = rows(&mut conn, "CREATE INDEX i ON t(random())").expect_err("not deterministic");
    assert_eq!(
        String::from_utf8_lossy(&index.message),
        "non-deterministic functions prohibited in index expressions"
    );
    run(&mut conn, "VACUUM");
}

/// Two nodes' worth of connections that write, read, sort, vacuum, open and close at the same time.
fn many_connections() {
    thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                let database = database();
                let mut conn = open(&database, 1);
                run(&mut conn, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
                for round in 0..40 {
                    run(
                        &mut conn,
                        &format!("INSERT INTO t(b) VALUES(hex({round})), (random()), (randomblob(99))"),
                    );
                    let mut other = open(&database, 2);
                    assert_eq!(run(&mut other, "SELECT b FROM t ORDER BY b").len(), 3 * (round + 1));
                    if round % 10 == number {
                        run(&mut conn, "VACUUM");
                    }
                }
                assert_eq!(one(&mut conn, "PRAGMA integrity_check"), Value::Text(b"ok".to_vec()));
            });
        }
    });
}
