//! Views, the writer slot, discards, vetoes: what the engine relies on.

use std::sync::Arc;

use super::harness::{Sql, both, commit, count, image, replay, table};
use crate::pages::{Refusal, Veto, View};

#[test]
fn a_speculative_commit_is_seen_in_the_head_view_and_after_the_watermark_in_the_committed_one() {
    both(|fetch| {
        let (db, follower, writer) = table(fetch);
        let [reader, head] = [(); 2].map(|()| Sql::open(&db, fetch));
        reader.control.set_view(View::Committed);
        assert_eq!((count(&reader), count(&head)), ("2".into(), "2".into()));
        writer.run("INSERT INTO t VALUES (3, 'three')");
        let published = writer.control.last_published().unwrap();
        assert_eq!((published, writer.control.last_published()), (db.head_seq(), None));
        assert_eq!((count(&reader), count(&head)), ("2".into(), "3".into()));
        assert_eq!(reader.control.read_seq(), Some(db.committed_seq()));
        assert_eq!((head.control.read_seq(), head.control.read_seq()), (Some(published), None));
        commit(&db, &follower).unwrap();
        assert_eq!((count(&reader), reader.control.read_seq()), ("3".into(), Some(published)));
        assert_eq!(reader.control.pinned_seq(), None);
    });
}

#[test]
fn one_connection_may_change_its_view_between_statements() {
    both(|fetch| {
        let (db, follower, sql) = table(fetch);
        for round in 3..30 {
            sql.control.set_view(View::Head);
            sql.run(&format!("INSERT INTO t VALUES ({round}, 'x')"));
            assert_eq!(count(&sql), round.to_string());
            sql.control.set_view(View::Committed);
            assert_eq!(count(&sql), (round - 1).to_string());
            commit(&db, &follower).unwrap();
            assert_eq!(count(&sql), round.to_string());
        }
    });
}

#[test]
fn a_reader_keeps_its_version_while_others_commit() {
    both(|fetch| {
        let (db, follower, writer) = table(fetch);
        writer.run(
            "WITH n(i) AS (SELECT 3 UNION ALL SELECT i+1 FROM n WHERE i<500) \
                    INSERT INTO t SELECT i, printf('%.200c', 'x') FROM n",
        );
        commit(&db, &follower).unwrap();
        let reader = Sql::open(&db, fetch);
        let mut statement = reader.prepare("SELECT length(b) FROM t");
        statement.step().unwrap();
        assert_eq!(reader.control.pinned_seq(), Some(db.committed_seq()));
        writer.run("DELETE FROM t; VACUUM");
        commit(&db, &follower).unwrap();
        let mut left = 0;
        while statement.step().unwrap().is_some() {
            left += 1;
        }
        assert_eq!(left, 499);
        drop(statement);
        assert_eq!(count(&reader), "0");
    });
}

#[test]
fn discarded_statements_leave_nothing_in_any_cache() {
    both(|fetch| {
        let (db, follower, a) = table(fetch);
        let b = Sql::open(&db, fetch);
        let before = (a.dump(), b.dump());
        for round in 0..10 {
            a.run("CREATE TABLE u(x); INSERT INTO u VALUES (1); UPDATE t SET b='lost'");
            assert_eq!(b.run("SELECT count(*) FROM u"), "1");
            let lost = a.control.last_published().unwrap();
            db.discard_speculative();
            assert!(db.was_discarded(lost));
            assert_eq!((a.dump(), b.dump()), before, "round {round}");
            // The same number of commits with other content: a change counter used twice would show.
            b.run("CREATE TABLE v(x); INSERT INTO v VALUES (2); UPDATE t SET b='kept'");
            assert_eq!(a.run("SELECT count(*), (SELECT b FROM t LIMIT 1) FROM v"), "1|kept");
            assert_eq!(a.rows("SELECT * FROM u"), Err(1));
            b.run("DROP TABLE v; UPDATE t SET b = CASE a WHEN 1 THEN 'one' ELSE 'two' END");
            db.discard_speculative();
            assert_eq!(commit(&db, &follower), None);
        }
        assert_eq!((a.dump(), b.dump()), before);
    });
}

#[test]
fn savepoints_and_failing_statements_undo_their_part_only() {
    both(|fetch| {
        let (db, follower, sql) = table(fetch);
        assert_eq!(sql.rows("INSERT INTO t VALUES (3,'x'), (4,'y'), (1,'twice')"), Err(1555));
        assert_eq!(count(&sql), "2");
        sql.run("BEGIN; INSERT INTO t VALUES (3,'x')");
        assert_eq!(sql.rows("INSERT INTO t VALUES (4,'x'), (5,'y'), (1,'twice')"), Err(1555));
        assert!(sql.in_transaction());
        sql.run("SAVEPOINT s; DELETE FROM t; SAVEPOINT r; CREATE TABLE u(x); ROLLBACK TO s; RELEASE s");
        sql.run("INSERT INTO t VALUES (9,'z'); COMMIT");
        assert_eq!(sql.run("SELECT group_concat(a) FROM t"), "1,2,3,9");
        commit(&db, &follower).unwrap();
        assert_eq!(Sql::open(&follower, fetch).dump(), sql.dump());
    });
}

#[test]
fn a_second_writer_is_busy_and_a_stale_one_is_told_and_may_go_on_reading() {
    both(|fetch| {
        let (db, _, a) = table(fetch);
        let b = Sql::open(&db, fetch);
        a.run("BEGIN IMMEDIATE; INSERT INTO t VALUES (3,'x')");
        assert!(a.control.holds_slot());
        assert_eq!(b.rows("INSERT INTO t VALUES (4,'y')"), Err(5));
        assert_eq!((b.control.refusal(), b.control.refusal()), (Some(Refusal::Busy), None));
        assert_eq!(count(&b), "2");
        b.run("BEGIN; SELECT * FROM t");
        a.run("COMMIT");
        assert!(!a.control.holds_slot());
        assert_eq!(b.rows("INSERT INTO t VALUES (4,'y')"), Err(517));
        assert_eq!(b.control.refusal(), Some(Refusal::Stale));
        assert!(b.in_transaction());
        assert_eq!(count(&b), "2");
        b.run("COMMIT; INSERT INTO t VALUES (4,'y')");
        assert_eq!(count(&a), "4");
    });
}

#[test]
fn a_large_transaction_spills_and_can_be_rolled_back_or_committed() {
    const FILL: &str = "WITH n(i) AS (SELECT 3 UNION ALL SELECT i+1 FROM n WHERE i<20000) \
                        INSERT INTO t SELECT i, 'row ' || i FROM n";
    both(|fetch| {
        let (db, follower, sql) = table(fetch);
        let before = image(&db, View::Head);
        sql.run("PRAGMA cache_size=10");
        sql.run(&format!("BEGIN; {FILL}; UPDATE t SET b = b || '!'"));
        assert_eq!(count(&sql), "20000");
        sql.run("ROLLBACK");
        assert_eq!((sql.control.last_published(), db.slot_holder()), (Some(db.head_seq()), None));
        assert_eq!(image(&db, View::Head), before);
        assert_eq!(sql.run("SELECT count(*) FROM t; PRAGMA integrity_check"), "2;ok");
        sql.run(&format!("BEGIN; {FILL}; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT"));
        commit(&db, &follower).unwrap();
        let other = Sql::open(&follower, fetch);
        assert_eq!(other.run("SELECT count(*), sum(a) FROM t; PRAGMA integrity_check"), "20000|200010000;ok");
        assert_eq!(image(&db, View::Committed), image(&follower, View::Committed));
    });
}

#[test]
fn a_vacuum_shrinks_the_committed_view_only_after_the_watermark() {
    both(|fetch| {
        let (db, follower, sql) = table(fetch);
        sql.run("UPDATE t SET b = printf('%.90000c', 'x')");
        commit(&db, &follower).unwrap();
        sql.run("UPDATE t SET b = ''; VACUUM");
        let reader = Sql::open(&db, fetch);
        reader.control.set_view(View::Committed);
        let large = reader.run("PRAGMA page_count; SELECT sum(length(b)) FROM t");
        assert!(large.ends_with(";180000"), "{large}");
        assert_eq!(sql.run("PRAGMA page_count"), "2");
        let group = commit(&db, &follower).unwrap();
        assert_eq!(
            (group.n_pages, reader.run("PRAGMA page_count; PRAGMA integrity_check")),
            (2, "2;ok".into())
        );
        assert_eq!(image(&db, View::Committed), image(&follower, View::Committed));
    });
}

#[test]
fn a_veto_at_the_commit_fails_the_statement_and_leaves_nothing_behind() {
    both(|fetch| {
        for veto in [Veto::Full, Veto::LeadershipLost, Veto::NotLeader] {
            let (db, follower, sql) = table(fetch);
            let _ = sql.control.last_published();
            let before = sql.dump();
            let target = Arc::clone(&db);
            sql.hook(move || target.set_writable(Err(veto)));
            let check = |outcome: Result<String, i32>| {
                assert_eq!(outcome, Err(veto.code()));
                assert!(!sql.in_transaction());
                assert_eq!((sql.control.last_published(), db.slot_holder()), (None, None));
                assert_eq!(sql.control.refusal(), Some(Refusal::Veto(veto)));
                assert_eq!(sql.dump(), before);
            };
            check(sql.rows("INSERT INTO t VALUES (3, hook())"));
            check(sql.rows("INSERT INTO t VALUES (3, 1)"));
            db.set_writable(Ok(()));
            sql.run("BEGIN; UPDATE t SET b = printf('%.9000c', 'x')");
            db.set_writable(Err(veto));
            check(sql.rows("COMMIT"));
            db.set_writable(Ok(()));
            sql.run("INSERT INTO t VALUES (4, 'kept')");
            commit(&db, &follower).unwrap();
            assert_eq!(image(&db, View::Head), image(&follower, View::Head));
            assert_eq!(Sql::open(&db, fetch).dump(), sql.dump());
        }
    });
}

#[test]
fn a_discard_in_the_middle_of_a_write_fails_its_commit_with_leadership_lost() {
    both(|fetch| {
        let (db, _, sql) = table(fetch);
        let before = sql.dump();
        let target = Arc::clone(&db);
        sql.hook(move || drop(target.discard_speculative()));
        assert_eq!(sql.rows("INSERT INTO t VALUES (3, hook())"), Err(10506));
        assert_eq!(sql.dump(), before);
        sql.run("BEGIN IMMEDIATE; INSERT INTO t VALUES (3, 'x')");
        db.discard_speculative();
        assert_eq!(sql.rows("COMMIT"), Err(10506));
        assert_eq!((sql.dump(), db.slot_holder()), (before, None));
    });
}

#[test]
fn a_writer_that_has_read_nothing_moves_on_to_the_newest_version() {
    both(|fetch| {
        let (db, follower, a) = table(fetch);
        let fresh = || Sql::open(&db, fetch);
        let moved = |sql: &Sql| {
            // A write that leaves page 1 alone falls between the pin and the reservation.
            sql.control.set_view(View::Committed);
            let outcome = sql.rows("INSERT INTO t VALUES (NULL, 'moved')");
            (outcome.map(drop), sql.control.refusal())
        };
        a.run("UPDATE t SET b='speculative' WHERE a=1");
        let b = fresh();
        b.control.set_silent_repin(false);
        assert_eq!(
            moved(&b),
            (Err(5), Some(Refusal::Stale)),
            "SQLite turns 517 into 5 before anything was read"
        );
        // A connection whose cache is empty moves on.
        let group = db.take_group(256, 1 << 20).unwrap();
        let c = fresh();
        assert_eq!(moved(&c), (Ok(()), None));
        // Its cache bears the change counter of the version that it moved away to, and is not believed.
        assert_eq!(moved(&fresh()), (Ok(()), None));
        replay(&group, &follower);
        db.commit_to(group.last_seq);
        assert_eq!(c.run("SELECT b FROM t"), "speculative;two");
        c.control.set_view(View::Head);
        assert_eq!(c.run("SELECT b FROM t"), "speculative;two;moved;moved");
        assert_eq!(a.run("SELECT b FROM t"), "speculative;two;moved;moved");
        // What is left in the cache would be mixed with the newer version.
        c.run("UPDATE t SET b='own' WHERE a=2");
        a.run("UPDATE t SET b='again' WHERE a=1");
        assert_eq!(moved(&c), (Err(5), Some(Refusal::Stale)));
        // So would an old page 1.
        let d = fresh();
        a.run("CREATE TABLE larger(x)");
        assert_eq!(moved(&d), (Err(5), Some(Refusal::Stale)));
        commit(&db, &follower).unwrap();
        assert_eq!(image(&db, View::Head), image(&follower, View::Head));
        assert_eq!(a.run("PRAGMA integrity_check; SELECT b FROM t"), "ok;again;own;moved;moved");
    });
}

#[test]
fn readers_on_other_threads_always_see_whole_transactions() {
    both(|fetch| {
        let (db, follower, writer) = table(fetch);
        writer
            .run("UPDATE t SET b=0; INSERT INTO t SELECT a+2, 0 FROM t; INSERT INTO t SELECT a+4, 0 FROM t");
        writer.run("CREATE INDEX i ON t(b)");
        commit(&db, &follower).unwrap();
        let readers = [View::Committed, View::Head].map(|view| {
            let reader = Sql::open(&db, fetch);
            reader.control.set_view(view);
            reader
        });
        std::thread::scope(|scope| {
            for reader in readers {
                scope.spawn(move || {
                    for _ in 0..300 {
                        let rows = reader.run("SELECT count(DISTINCT b), count(*) FROM t");
                        assert_eq!(rows, "1|8");
                    }
                });
            }
            for round in 0..300 {
                writer.run(&format!("UPDATE t SET b={round}"));
                match round % 7 {
                    0 => drop(commit(&db, &follower)),
                    3 => drop(db.discard_speculative()),
                    _ => {}
                }
            }
        });
        while commit(&db, &follower).is_some() {}
        assert_eq!(image(&db, View::Head), image(&follower, View::Head));
    });
}

#[test]
fn entries_that_commit_after_a_discard_come_back_from_the_log() {
    both(|fetch| {
        let (db, follower, sql) = table(fetch);
        sql.run("INSERT INTO t VALUES (3, 'survives')");
        let survivor = db.take_group(256, 1 << 20).unwrap();
        sql.run("INSERT INTO t VALUES (4, 'lost'); CREATE TABLE lost(x)");
        db.discard_speculative();
        assert_eq!(count(&sql), "2");
        [&db, &follower].into_iter().for_each(|node| replay(&survivor, node));
        assert_eq!(sql.run("SELECT b FROM t"), "one;two;survives");
        sql.run("INSERT INTO t VALUES (4, 'next')");
        commit(&db, &follower).unwrap();
        assert_eq!(Sql::open(&follower, fetch).dump(), sql.dump());
        assert_eq!(image(&db, View::Head), image(&follower, View::Head));
    });
}
