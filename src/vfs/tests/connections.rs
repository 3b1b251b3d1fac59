//! Names, pragmas, temporary data, deletion and export: what a connection shows around its transactions.

use super::harness::{Sql, TABLE, both, commit, count, database, image, named, open_unbound, table};
use crate::pages::View;

#[test]
fn a_database_that_is_deleted_is_empty_for_every_connection_and_node() {
    both(|fetch| {
        let (db, follower, sql) = table(fetch);
        let other = Sql::open(&db, fetch);
        assert_eq!(count(&other), "2");
        assert_eq!(sql.rows("PRAGMA delete_database"), Err(1));
        let text =
            "PRAGMA delete_database must be run in a write transaction. Use BEGIN IMMEDIATE to start one.";
        assert_eq!(sql.message(), text);
        sql.run("BEGIN IMMEDIATE; PRAGMA delete_database; ROLLBACK");
        assert_eq!(count(&sql), "2");
        sql.run("BEGIN IMMEDIATE; INSERT INTO t VALUES (9, 'kept'); PRAGMA delete_database; COMMIT");
        commit(&db, &follower).unwrap();
        assert_eq!(count(&sql), "3", "other changes win");
        sql.run("BEGIN IMMEDIATE; PRAGMA delete_database; COMMIT");
        let group = commit(&db, &follower).unwrap();
        assert_eq!(group.pages.len(), 1);
        for one in [&sql, &other, &Sql::open(&follower, fetch)] {
            assert_eq!(one.run("SELECT count(*) FROM sqlite_schema; PRAGMA page_count"), "0;1");
            assert_eq!(one.run("PRAGMA integrity_check"), "ok");
        }
        other.run("CREATE TABLE t(x); INSERT INTO t VALUES (5)");
        commit(&db, &follower).unwrap();
        assert_eq!(sql.run("SELECT * FROM t"), "5");
        assert_eq!(Sql::open(&follower, fetch).dump(), sql.dump());
        assert_eq!(image(&db, View::Head), image(&follower, View::Head));
    });
}

#[test]
fn pragmas_answer_as_in_the_c_library() {
    let sql = Sql::open(&database(), true);
    let pragmas =
        ["journal_mode", "wal_autocheckpoint", "synchronous", "page_size", "auto_vacuum", "encoding"];
    let answers = pragmas.map(|name| sql.run(&format!("PRAGMA {name}")));
    assert_eq!(answers, ["wal", "1000", "0", "4096", "0", "UTF-8"]);
    assert_eq!(sql.run("PRAGMA page_count; PRAGMA main.journal_mode"), "1;wal");
    assert_eq!(sql.run("PRAGMA journal_mode=WAL"), "memory", "there is no shared memory to do that with");
}

#[test]
fn the_clients_name_is_shown_unless_it_means_something_to_sqlite() {
    let cases: [(&[u8], &str); 8] = [
        (b"test.db", "test.db"),
        (b"../a b/c", "../a b/c"),
        (b"x-wal", "x-wal"),
        (b"", "database"),
        (b":memory:", "database"),
        (b"file:q?mode=memory", "database"),
        (b"FILE:q", "database"),
        (&[b'n'; 504], &"n".repeat(504)),
    ];
    for (name, shown) in cases {
        let sql = Sql::open(&named(name), false);
        assert_eq!(sql.run("PRAGMA database_list"), format!("0|main|{shown}"));
        sql.run(TABLE);
    }
}

#[test]
fn no_other_database_and_no_extension_gets_in() {
    let sql = Sql::open(&database(), false);
    assert_eq!(open_unbound(), 14);
    assert_eq!(sql.rows("ATTACH 'other' AS o"), Err(14));
    assert_eq!(
        sql.run("ATTACH '' AS o; CREATE TABLE o.x(y); INSERT INTO o.x VALUES (1); SELECT * FROM x"),
        "1"
    );
    assert_eq!(sql.rows("SELECT load_extension('x')"), Err(1));
}

#[test]
fn a_connection_that_was_not_told_to_keep_its_journal_in_memory_works_too() {
    let (db, follower) = (database(), database());
    let sql = Sql::bare(&db, View::Head);
    sql.run("PRAGMA cache_size=5");
    sql.run(&format!("{TABLE}; BEGIN; INSERT INTO t VALUES (1, zeroblob(100000)); ROLLBACK; BEGIN"));
    sql.run("INSERT INTO t VALUES (1, zeroblob(100000)); SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT");
    commit(&db, &follower).unwrap();
    let other = Sql::bare(&follower, View::Committed);
    assert_eq!(other.run("SELECT length(b) FROM t; PRAGMA integrity_check"), "100000;ok");
}

#[test]
fn a_snapshot_of_the_pages_is_an_ordinary_database_file() {
    let (db, _, sql) = table(true);
    sql.run(
        "CREATE INDEX i ON t(b); INSERT INTO t VALUES (3, printf('%.20000c', 'x')); DELETE FROM t WHERE a=1",
    );
    db.commit_to(db.head_seq());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("exported");
    std::fs::write(&path, image(&db, View::Committed)).unwrap();
    let file = Sql::plain(&path);
    assert_eq!(file.run("PRAGMA journal_mode; PRAGMA integrity_check"), "wal;ok");
    assert_eq!(file.dump(), sql.dump());
}

#[test]
fn temporary_tables_and_empty_transactions_publish_nothing() {
    both(|fetch| {
        let (db, _, sql) = table(fetch);
        let _ = sql.control.last_published();
        let head = db.head_seq();
        sql.run(
            "CREATE TEMP TABLE x(y); INSERT INTO x VALUES (printf('%.300000c','z')), (2); UPDATE x SET y=3",
        );
        sql.run("BEGIN IMMEDIATE; COMMIT; BEGIN; COMMIT; UPDATE t SET b='' WHERE a=77");
        sql.run("BEGIN EXCLUSIVE; SELECT * FROM t; COMMIT; SELECT * FROM t ORDER BY b");
        assert_eq!((sql.control.last_published(), db.head_seq(), db.slot_holder()), (None, head, None));
        assert_eq!(sql.run("SELECT count(*) FROM x"), "2");
    });
}
