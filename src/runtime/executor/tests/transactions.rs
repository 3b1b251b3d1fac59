//! The writer slot, versions, commits that are refused.

use super::*;

#[test]
fn a_writer_waits_for_the_slot_and_runs_when_it_is_free() {
    let (database, mut holder) = with_table();
    let mut waiter = open(&database, 2);
    assert!(run(&mut holder, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1, 1)").holds_slot);
    for sql in
        ["INSERT INTO t VALUES(2, 2)", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "VACUUM", "CREATE TABLE u(a)"]
    {
        let progress = start(&mut waiter, exec_sql(sql, &[]));
        assert!(matches!(progress, Progress::NeedsSlot), "{sql}: {progress:?}");
        assert!(!waiter.conn.in_transaction() && !waiter.control.holds_slot(), "{sql}");
        assert!(matches!(waiter.resume(), Progress::NeedsSlot), "{sql}");
    }
    let insert = || exec_sql("INSERT INTO t VALUES(?, 2)", &[Param::Integer(2)]);
    assert!(matches!(start(&mut waiter, insert()), Progress::NeedsSlot));
    exec(&mut holder, "COMMIT");
    let outcome = done(waiter.resume());
    assert_eq!(outcome.reply, Some(Reply::Result { last_insert_id: 2, rows_affected: 1 }));
    database.commit_to(outcome.published.expect("a version"));
    assert_eq!(count(&mut holder), 2);
}

#[test]
fn every_kind_of_request_goes_on_where_it_stopped_for_the_slot() {
    let (database, mut holder) = with_table();
    let mut waiter = open(&database, 2);
    exec(&mut waiter, "INSERT INTO t VALUES(100, 0)");
    prepare(&mut waiter, 0, "INSERT INTO t VALUES(?, ?)");
    let params =
        || OwnedParams::new(&[Param::Integer(1), Param::Integer(2), Param::Integer(3), Param::Integer(4)]);
    let two = || OwnedParams::new(&[Param::Integer(5), Param::Integer(6)]);
    let returning = "INSERT INTO t VALUES(7, 8) RETURNING b";
    let requests = [
        Sql::Exec { stmt: 0, params: params() },
        Sql::ExecSql { sql: b"SELECT ? WHERE 0; INSERT INTO t VALUES(3, ?)".to_vec(), params: params() },
        Sql::Query { stmt: 0, params: two() },
        query_sql(returning, &[]),
        exec_sql("INSERT INTO t VALUES(9, 10) RETURNING b", &[]),
    ];
    for request in requests {
        exec(&mut holder, "BEGIN IMMEDIATE");
        assert!(matches!(start(&mut waiter, request.clone()), Progress::NeedsSlot), "{request:?}");
        exec(&mut holder, "ROLLBACK");
        done(waiter.resume());
        assert_eq!(database.slot_holder(), None, "{request:?}");
    }
    database.commit_to(database.head_seq());
    let found = query(&mut holder, "SELECT a * 1000 + b FROM t ORDER BY a");
    assert_eq!(found, [1002, 3002, 5006, 7008, 100_000].map(integer));
}

#[test]
fn a_script_waits_in_its_middle_and_what_it_did_before_stays() {
    let (database, mut holder) = with_table();
    let mut waiter = open(&database, 2);
    exec(&mut holder, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1, 1)");
    let script = "CREATE TEMP TABLE x(a); INSERT INTO x VALUES(1); INSERT INTO t VALUES(2, 2); INSERT INTO x VALUES(2)";
    assert!(matches!(start(&mut waiter, exec_sql(script, &[])), Progress::NeedsSlot));
    exec(&mut holder, "COMMIT");
    done(waiter.resume());
    assert_eq!(query(&mut waiter, "SELECT count(*) FROM x"), [integer(2)]);
}

#[test]
fn a_request_that_waits_for_the_slot_can_be_dropped() {
    let (database, mut holder) = with_table();
    let mut waiter = open(&database, 2);
    exec(&mut holder, "BEGIN IMMEDIATE");
    assert!(matches!(start(&mut waiter, exec_sql("INSERT INTO t VALUES(2, 2)", &[])), Progress::NeedsSlot));
    done(waiter.start(SqlRequest::Abandon));
    exec(&mut holder, "COMMIT");
    assert_eq!(database.speculative_count(), 0, "nothing was written");
    assert_eq!(exec(&mut waiter, "INSERT INTO t VALUES(2, 2)").0, 2);
}

#[test]
fn a_transaction_that_read_and_then_writes_on_old_data_is_stale_and_stays_open() {
    let (database, mut conn) = with_table();
    let mut other = open(&database, 2);
    exec(&mut conn, "BEGIN");
    assert_eq!(count(&mut conn), 0);
    exec(&mut other, "INSERT INTO t VALUES(1, 1)");
    let locked = (517, "database is locked".to_owned());
    assert_eq!(refused(&mut conn, "INSERT INTO t VALUES(2, 2)"), locked);
    assert_eq!(count(&mut conn), 0, "the transaction still reads what it read");
    assert_eq!(refused(&mut conn, "INSERT INTO t VALUES(2, 2)"), locked);
    exec(&mut conn, "COMMIT");
    exec(&mut conn, "INSERT INTO t VALUES(2, 2)");
}

#[test]
fn a_transaction_that_read_nothing_yet_is_never_stale() {
    let (database, mut conn) = with_table();
    let mut other = open(&database, 2);
    exec(&mut conn, "BEGIN");
    exec(&mut other, "INSERT INTO t VALUES(1, 1)");
    exec(&mut conn, "INSERT INTO t VALUES(2, 2); COMMIT");
    database.commit_to(database.head_seq());
    assert_eq!(count(&mut conn), 2);
}

#[test]
fn the_first_read_of_a_transaction_sees_the_newest_version_and_says_so() {
    let (database, mut conn) = with_table();
    let mut other = open(&database, 2);
    exec(&mut other, "INSERT INTO t VALUES(1, 1)");
    exec(&mut conn, "BEGIN");
    let outcome = done(start(&mut conn, query_sql("SELECT count(*) FROM t", &[])));
    assert_eq!(outcome.read_seq, Some(database.head_seq()));
    assert_ne!(outcome.read_seq, Some(database.committed_seq()));
    assert_eq!(messages(&outcome)[0].1, [integer(1)]);
    assert_eq!(exec(&mut conn, "INSERT INTO t VALUES(2, 2)").0, 2);
}

#[test]
fn writers_in_turn_never_find_their_data_stale() {
    let (database, mut first) = with_table();
    let mut second = open(&database, 2);
    for number in 0..50 {
        let insert = format!("INSERT INTO t(b) VALUES({number})");
        exec(&mut first, &insert);
        exec(&mut second, &insert);
        // Readers of the committed version in between change what the caches hold.
        count(&mut first);
        count(&mut second);
    }
    database.commit_to(database.head_seq());
    assert_eq!(count(&mut first), 100);
    assert_eq!(query(&mut second, "PRAGMA integrity_check")[0][0].1, Value::Text(b"ok".to_vec()));
}

#[test]
fn a_refused_commit_fails_with_its_own_text_and_leaves_nothing() {
    let (database, mut conn) = with_table();
    let before = database.head_seq();
    for (veto, code, text) in [
        (Veto::NotLeader, 10250, "not leader"),
        (Veto::LeadershipLost, 10506, "leadership lost"),
        (Veto::Full, 13, "database or disk is full"),
    ] {
        let told = (code, text.to_owned());
        exec(&mut conn, "BEGIN; INSERT INTO t VALUES(1, 1)");
        database.set_writable(Err(veto));
        assert_eq!(refused(&mut conn, "COMMIT"), told);
        assert!(!conn.conn.in_transaction(), "{text}");
        assert_eq!(refused(&mut conn, "INSERT INTO t VALUES(1, 1)"), told);
        assert_eq!(refused(&mut conn, "INSERT INTO t VALUES(1, 1) RETURNING a"), told);
        assert_eq!(told_by_query(&mut conn, "INSERT INTO t VALUES(1, 1) RETURNING a"), told);
        assert_eq!(refused(&mut conn, "BEGIN IMMEDIATE"), told);
        assert_eq!((database.head_seq(), database.slot_holder()), (before, None), "{text}");
        assert!(!conn.conn.in_transaction(), "{text}");
        database.set_writable(Ok(()));
    }
    exec(&mut conn, "INSERT INTO t VALUES(1, 1)");
}

fn told_by_query(conn: &mut SqlConn, sql: &str) -> (u64, String) {
    told(failure_of(done(start(conn, query_sql(sql, &[])))))
}

#[test]
fn a_transaction_whose_base_was_discarded_cannot_commit() {
    let (database, mut conn) = with_table();
    exec(&mut conn, "BEGIN; INSERT INTO t VALUES(1, 1)");
    database.discard_speculative();
    let (code, _) = refused(&mut conn, "COMMIT");
    assert_eq!(code, 10506);
    assert_eq!(database.speculative_count(), 0);
    assert_eq!(count(&mut conn), 0);
}

#[test]
fn errors_inside_a_transaction_leave_it_open_unless_sqlite_rolled_it_back() {
    let (database, mut conn) = with_table();
    exec(&mut conn, "BEGIN; INSERT INTO t VALUES(1, 1)");
    assert_eq!(refused(&mut conn, "INSERT INTO t VALUES(1, 1)").0, 1555);
    assert_eq!(refused(&mut conn, "SELECT nope").0, 1);
    assert!(run(&mut conn, "INSERT INTO t VALUES(2, 2)").holds_slot);
    exec(&mut conn, "COMMIT");
    database.commit_to(database.head_seq());
    assert_eq!(count(&mut conn), 2);
    exec(&mut conn, "BEGIN; INSERT INTO t VALUES(3, 3)");
    let outcome = run(&mut conn, "INSERT OR ROLLBACK INTO t VALUES(1, 1)");
    assert!(!outcome.holds_slot);
    assert_eq!(failure_of(outcome).code, 1555);
    assert_eq!(refused(&mut conn, "COMMIT"), (1, "cannot commit - no transaction is active".to_owned()));
    assert_eq!(refused(&mut conn, "ROLLBACK"), (1, "cannot rollback - no transaction is active".to_owned()));
    exec(&mut conn, "BEGIN");
    let nested = (1, "cannot start a transaction within a transaction".to_owned());
    assert_eq!(refused(&mut conn, "BEGIN"), nested);
    assert_eq!(refused(&mut conn, "VACUUM"), (1, "cannot VACUUM from within a transaction".to_owned()));
}

#[test]
fn a_transaction_publishes_once_at_its_end() {
    let (database, mut conn) = with_table();
    let before = database.head_seq();
    let outcome = run(
        &mut conn,
        "BEGIN; INSERT INTO t VALUES(1, 1); SAVEPOINT s; INSERT INTO t VALUES(2, 2); ROLLBACK TO s",
    );
    assert_eq!((outcome.published, outcome.holds_slot), (None, true));
    let outcome = run(&mut conn, "COMMIT");
    assert_eq!((outcome.published, outcome.holds_slot), (Some(before + 1), false));
    assert_eq!(database.head_seq(), before + 1);
    let outcome = run(&mut conn, "BEGIN IMMEDIATE; COMMIT");
    assert_eq!(outcome.published, None, "an empty transaction makes no version");
    exec(&mut conn, "SAVEPOINT outer; INSERT INTO t VALUES(3, 3)");
    assert!(conn.control.holds_slot());
    exec(&mut conn, "RELEASE outer");
    assert_eq!(database.head_seq(), before + 2);
}

#[test]
fn temporary_tables_need_no_slot_and_make_no_version() {
    let (database, mut holder) = with_table();
    let mut conn = open(&database, 2);
    exec(&mut holder, "BEGIN IMMEDIATE");
    let outcome = run(
        &mut conn,
        "CREATE TEMP TABLE x(a); INSERT INTO x VALUES(1); ATTACH '' AS y; CREATE TABLE y.z(a)",
    );
    assert_eq!(outcome.published, None);
    assert!(matches!(outcome.reply, Some(Reply::Result { .. })), "{outcome:?}");
    assert_eq!(query(&mut conn, "SELECT a FROM x"), [integer(1)]);
}

#[test]
fn deleting_the_database_takes_a_write_transaction_and_its_commit() {
    let (database, mut conn) = with_table();
    let wanted =
        "PRAGMA delete_database must be run in a write transaction. Use BEGIN IMMEDIATE to start one.";
    let refusal = (1, wanted.to_owned());
    assert_eq!(refused(&mut conn, "PRAGMA delete_database"), refusal);
    exec(&mut conn, "BEGIN");
    assert_eq!(refused(&mut conn, "PRAGMA delete_database"), refusal);
    exec(&mut conn, "ROLLBACK; PRAGMA delete_database=1");
    exec(&mut conn, "INSERT INTO t VALUES(1, 1)");
    // A rollback keeps the database.
    exec(&mut conn, "BEGIN IMMEDIATE; PRAGMA delete_database; ROLLBACK");
    database.commit_to(database.head_seq());
    assert_eq!(count(&mut conn), 1);
    let outcome = run(&mut conn, "BEGIN IMMEDIATE; PRAGMA delete_database; COMMIT");
    assert_eq!(outcome.published, Some(database.head_seq()));
    database.commit_to(database.head_seq());
    assert_eq!(database.pin(View::Committed).n_pages(), 1);
    assert_eq!(refused(&mut conn, "SELECT * FROM t"), (1, "no such table: t".to_owned()));
    exec(&mut conn, "CREATE TABLE t(a)");
}

#[test]
fn other_changes_win_over_a_deletion_before_or_after_it() {
    for script in [
        "BEGIN IMMEDIATE; INSERT INTO t VALUES(1, 1); PRAGMA delete_database; COMMIT",
        "BEGIN IMMEDIATE; PRAGMA delete_database; INSERT INTO t VALUES(1, 1); COMMIT",
    ] {
        let (database, mut conn) = with_table();
        exec(&mut conn, script);
        database.commit_to(database.head_seq());
        assert_eq!(count(&mut conn), 1, "{script}");
    }
}

#[test]
fn pragmas_answer_as_if_there_were_a_write_ahead_log() {
    let (_database, mut conn) = with_table();
    let mut value = |sql: &str| query(&mut conn, sql)[0][0].1.clone();
    assert_eq!(value("PRAGMA journal_mode"), Value::Text(b"wal".to_vec()));
    assert_eq!(value("PRAGMA wal_autocheckpoint"), Value::Integer(1000));
    assert_eq!(value("PRAGMA page_size"), Value::Integer(4096));
    assert_eq!(value("PRAGMA synchronous"), Value::Integer(0));
    assert_eq!(value("PRAGMA foreign_keys"), Value::Integer(1));
    for sql in
        ["PRAGMA journal_mode", " /* x */ pragma main.journal_mode", "SELECT * FROM pragma_journal_mode"]
    {
        let outcome = done(start(&mut conn, query_sql(sql, &[])));
        let (names, rows, _) = messages(&outcome).remove(0);
        assert_eq!(
            (names, rows),
            (vec!["journal_mode".to_owned()], vec![vec![(3, Value::Text(b"wal".to_vec()))]])
        );
    }
    let outcome = done(start(&mut conn, query_sql("SELECT 1 AS wal", &[])));
    assert_eq!(messages(&outcome)[0].0, ["wal"]);
    let list = query(&mut conn, "PRAGMA database_list");
    assert_eq!(list[0][2].1, Value::Text(b"test".to_vec()));
    assert_eq!(refused(&mut conn, "PRAGMA journal_mode=WAL"), (23, "not authorized".to_owned()));
    assert_eq!(refused(&mut conn, "VACUUM INTO 'x'"), (23, "authorization denied".to_owned()));
}

#[test]
fn vacuum_shrinks_the_database() {
    let (database, mut conn) = with_table();
    exec(
        &mut conn,
        "INSERT INTO t WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT 5000) SELECT n, hex(n) FROM s",
    );
    exec(&mut conn, "DELETE FROM t WHERE a > 10");
    let before = database.pin(View::Head).n_pages();
    let outcome = run(&mut conn, "VACUUM");
    assert!(outcome.published.is_some() && !outcome.holds_slot, "{outcome:?}");
    assert!(database.pin(View::Head).n_pages() < before);
    database.commit_to(database.head_seq());
    assert_eq!(count(&mut conn), 10);
}

#[test]
fn a_long_text_stops_when_too_much_is_not_committed_and_tells_what_was_lost_meanwhile() {
    let (database, mut conn) = with_table();
    let statements = limits::SPECULATIVE_TRANSACTIONS_MAX + 10;
    let text = "INSERT INTO t(b) VALUES(1);".repeat(statements);
    let progress = start(&mut conn, exec_sql(&text, &[]));
    assert!(matches!(progress, Progress::NeedsSlot), "{progress:?}");
    assert!(database.is_overloaded() && database.speculative_count() < statements);
    assert_eq!(database.slot_holder(), None);
    // Nothing was committed, and the rest of the text must not hide that.
    database.discard_speculative();
    let outcome = done(conn.resume());
    assert!(outcome.published.is_some_and(|seq| database.was_discarded(seq)), "{outcome:?}");
    database.commit_to(database.head_seq());
    assert_eq!(count(&mut conn), 9);
}

#[test]
fn a_node_that_does_not_lead_refuses_whatever_writes_before_it_begins_and_runs_the_rest() {
    let (database, mut conn) = with_table();
    prepare(&mut conn, 0, "INSERT INTO t VALUES(1, 1)");
    database.set_writable(Err(Veto::NotLeader));
    let not_leader = (10250, "not leader".to_owned());
    let writes = [
        "WITH x(a) AS (VALUES(1)) INSERT INTO t SELECT a, a FROM x",
        "/* a word */ INSERT INTO t VALUES(1, 1)",
        "INSERT INTO t VALUES(1, 1) RETURNING a",
        "PRAGMA user_version = 7",
        "BEGIN IMMEDIATE",
        "CREATE TEMP TABLE x(a)",
        "SELECT 1 WHERE 0; DELETE FROM t",
        "VACUUM",
    ];
    for sql in writes {
        assert_eq!(refused(&mut conn, sql), not_leader, "{sql}");
        if !sql.contains(';') {
            assert_eq!(told(failure_of(prepare(&mut conn, 1, sql))), not_leader, "{sql}");
            assert_eq!(told(failure_of(done(start(&mut conn, query_sql(sql, &[]))))), not_leader, "{sql}");
        }
    }
    let kept = Sql::Exec { stmt: 0, params: OwnedParams::default() };
    assert_eq!(told(failure_of(done(start(&mut conn, kept)))), not_leader);
    for sql in
        ["BEGIN", "SELECT a FROM t", "SAVEPOINT x", "COMMIT", "PRAGMA cache_size = 10", "SELECT 1 WHERE 0"]
    {
        exec(&mut conn, sql);
    }
    for sql in ["SELECT 1", "EXPLAIN INSERT INTO t VALUES(1, 1)", "PRAGMA user_version"] {
        assert!(!query(&mut conn, sql).is_empty(), "{sql}");
    }
    // In a transaction too, which goes on and may be ended.
    exec(&mut conn, "BEGIN");
    assert_eq!(count(&mut conn), 0);
    assert_eq!(refused(&mut conn, "INSERT INTO t VALUES(1, 1)"), not_leader);
    exec(&mut conn, "COMMIT");
    assert_eq!(database.head_seq(), database.committed_seq());
}
