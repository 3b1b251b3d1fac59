//! Many clients at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Client, Value};
use crate::support::node::TestNode;
use crate::{connect, open_dump, serve};

/// Lets `writers` clients add to a counter until it is `total`: how often each did.
fn count_up(node: &TestNode, writers: usize, total: u64) -> Vec<u64> {
    let mut client = connect(node);
    client.exec("CREATE TABLE counter(n); INSERT INTO counter VALUES(0)", &[]).ok();
    client.exec("CREATE TABLE log(who, at)", &[]).ok();
    let (begun, all_there) = (AtomicU64::new(0), Barrier::new(writers));
    let done = Mutex::new(vec![0; writers]);
    thread::scope(|scope| {
        for who in 0..writers {
            let (begun, all_there, done) = (&begun, &all_there, &done);
            scope.spawn(move || {
                let mut client = connect(node);
                let insert = client.prepare("INSERT INTO log SELECT ?, n FROM counter");
                all_there.wait();
                let mut mine = 0;
                while begun.fetch_add(1, Ordering::Relaxed) < total {
                    // No failure is accepted: not even a busy database.
                    client.exec("UPDATE counter SET n = n + 1", &[]).ok();
                    let who = dqlite::codec::client::Param::Integer(i64::try_from(who).unwrap());
                    client.exec_prepared(insert, &[who]).ok();
                    mine += 1;
                }
                done.lock().unwrap()[who] = mine;
            });
        }
    });
    let total = i64::try_from(total).unwrap();
    assert_eq!(client.query("SELECT n FROM counter", &[]).integer(), total);
    assert_eq!(client.query("SELECT count(*) FROM log", &[]).integer(), total);
    let done = done.into_inner().unwrap();
    for (who, mine) in done.iter().enumerate() {
        let logged = client.query(&format!("SELECT count(*) FROM log WHERE who = {who}"), &[]).integer();
        assert_eq!(logged.cast_unsigned(), *mine, "{who}");
    }
    done
}

#[test]
fn autocommit_writers_are_never_refused_and_share_fairly() {
    for (writers, total) in [(16, 1600_u64), (64, 2560)] {
        let node = TestNode::start();
        let done = count_up(&node, writers, total);
        let mean = total / u64::try_from(writers).unwrap();
        let least = *done.iter().min().unwrap();
        assert!(least >= mean / 2, "{writers} writers, {mean} writes on average, one did {least}: {done:?}");
    }
}

#[test]
fn transactions_of_many_clients_lose_nothing() {
    let (node, mut client) = serve();
    client.exec("CREATE TABLE account(id INTEGER PRIMARY KEY, amount)", &[]).ok();
    client.exec("INSERT INTO account VALUES(1, 1000), (2, 1000), (3, 1000)", &[]).ok();
    let over = AtomicBool::new(false);
    let read = AtomicU64::new(0);
    thread::scope(|scope| {
        let movers: Vec<_> = (0..4)
            .map(|who| {
                let node = &node;
                scope.spawn(move || {
                    let mut client = connect(node);
                    for round in 0..25 {
                        let (from, to) = (1 + (who + round) % 3, 1 + (who + round + 1) % 3);
                        client.exec("BEGIN IMMEDIATE", &[]).ok();
                        client
                            .exec(&format!("UPDATE account SET amount = amount - 7 WHERE id = {from}"), &[])
                            .ok();
                        client
                            .exec(&format!("UPDATE account SET amount = amount + 7 WHERE id = {to}"), &[])
                            .ok();
                        client.exec(if round % 5 == 4 { "ROLLBACK" } else { "COMMIT" }, &[]).ok();
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = connect(&node);
                let sum = client.prepare("SELECT sum(amount) FROM account");
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(client.query_prepared(sum, &[]).integer(), 3000);
                    read.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let outcomes: Vec<_> = movers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    assert!(read.load(Ordering::Relaxed) > 0);
    assert_eq!(client.query("SELECT sum(amount) FROM account", &[]).integer(), 3000);
}

/// Gives rows for ever, or counts for ever.
pub const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT";

#[test]
fn endless_selects_do_not_delay_others() {
    let (node, mut client) = serve();
    client.exec("CREATE TABLE t(a)", &[]).ok();
    let mut endless: Vec<_> = (0..6).map(|_| connect(&node)).collect();
    for other in &mut endless {
        other.begin_query(&format!("{ENDLESS} count(*) FROM n"));
    }
    let mut worst = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        client.exec("INSERT INTO t VALUES(1)", &[]).ok();
        client.query("SELECT count(*) FROM t", &[]).rows();
        connect(&node).leader().ok();
        worst = worst.max(begun.elapsed());
    }
    // Far above what it takes, far below how long those run.
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    // They were running all the time: only the interrupt ends them.
    for other in &mut endless {
        other.request(&dqlite::codec::client::Request::Interrupt { db: 0 }).unwrap();
        assert_eq!(other.answer().unwrap().failure(), (9, "interrupted".to_owned()));
        assert_eq!(other.answer().unwrap(), crate::support::client::Answer::Empty);
    }
}

#[test]
fn dumps_taken_during_writes_are_whole() {
    let (node, mut client) = serve();
    client.exec("CREATE TABLE t(a, b); CREATE INDEX i ON t(b)", &[]).ok();
    let (over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = connect(&node);
                while !over.load(Ordering::Relaxed) {
                    // Both rows or none are in a dump.
                    client.exec("INSERT INTO t VALUES(1, randomblob(900)), (-1, randomblob(900))", &[]).ok();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // This connection has no database open.
        let mut dumper = Client::connect(node.address()).unwrap();
        let mut last = 0;
        while written.load(Ordering::Relaxed) < 300 {
            let (_directory, plain) = open_dump(&mut dumper, crate::NAME);
            let (count, sum): (i64, i64) = plain
                .query_row("SELECT count(*), coalesce(sum(a), 0) FROM t", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            assert_eq!((count % 2, sum), (0, 0));
            assert!(count >= last, "{count} rows after {last}");
            last = count;
        }
        over.store(true, Ordering::Relaxed);
    });
    let missing = client.dump("nope").failure();
    assert_eq!(missing, (1002, "database does not exists".to_owned()));
}

#[test]
fn a_reader_keeps_its_rows_while_others_write() {
    let (node, mut client) = serve();
    client.exec("CREATE TABLE t(a, b)", &[]).ok();
    let fill = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
                SELECT i, hex(zeroblob(200)) FROM n";
    client.exec(fill, &[]).ok();
    let mut reader = connect(&node);
    reader.begin_query("SELECT a FROM t ORDER BY rowid");
    client.exec("UPDATE t SET a = -a", &[]).ok();
    client.exec("DELETE FROM t WHERE a % 2 = 0", &[]).ok();
    client.exec("VACUUM", &[]).ok();
    let mut values = Vec::new();
    loop {
        match reader.answer().unwrap().ok() {
            crate::support::client::Answer::Rows { rows, more, .. } => {
                values.extend(rows.into_iter().map(|row| row[0].clone()));
                if !more {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    // It began before the UPDATE or after it, and saw nothing of what came later.
    let expected = |sign: i64| (1..=5000).map(|value| Value::Integer(sign * value)).collect::<Vec<_>>();
    assert!(values == expected(1) || values == expected(-1) || values.len() == 2500);
}
