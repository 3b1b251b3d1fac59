//! Transactions of several clients: who waits, for how long, and who is refused.

use std::time::{Duration, Instant};

use crate::support::client::{Answer, Client, Value};
use crate::support::node::TestNode;
use crate::{NAME, connect, serve};

const LOCKED: &str = "database is locked";

fn count(client: &mut Client) -> i64 {
    client.query("SELECT count(*) FROM t", &[]).integer()
}

/// A node, a client with a table, and another client.
fn serve_two(change: impl FnOnce(&mut dqlite::runtime::NodeOptions)) -> (TestNode, Client, Client) {
    let node = TestNode::start_with(change);
    let (mut first, second) = (connect(&node), connect(&node));
    first.exec("CREATE TABLE t(a)", &[]).ok();
    (node, first, second)
}

#[test]
fn a_transaction_is_refused_where_sqlite_refuses_it() {
    let (_node, mut client) = serve();
    let fails = |client: &mut Client, sql: &str, text: &str| {
        assert_eq!(client.exec(sql, &[]).failure(), (1, text.to_owned()), "{sql}");
    };
    fails(&mut client, "COMMIT", "cannot commit - no transaction is active");
    fails(&mut client, "ROLLBACK", "cannot rollback - no transaction is active");
    client.exec("BEGIN", &[]).ok();
    for begin in ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
        fails(&mut client, begin, "cannot start a transaction within a transaction");
    }
    client.exec("CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES(1)", &[]).ok();
    // Errors leave it open.
    assert_eq!(client.exec("INSERT INTO t VALUES(1)", &[]).code(), 2067);
    fails(&mut client, "INSERT INTO nope VALUES(1)", "no such table: nope");
    fails(&mut client, "SELECT 1", "rows yielded when none expected for EXEC request");
    client.exec("INSERT INTO t VALUES(2)", &[]).ok();
    client.exec("COMMIT", &[]).ok();
    assert_eq!(count(&mut client), 2);
}

#[test]
fn nobody_sees_a_transaction_before_its_commit() {
    let (_node, mut writer, mut reader) = serve_two(|_| {});
    writer.exec("BEGIN; INSERT INTO t VALUES(1)", &[]).ok();
    assert_eq!((count(&mut writer), count(&mut reader)), (1, 0));
    reader.exec("BEGIN", &[]).ok();
    assert_eq!(count(&mut reader), 0);
    writer.exec("COMMIT", &[]).ok();
    assert_eq!(count(&mut reader), 0, "its snapshot is from before");
    reader.exec("COMMIT", &[]).ok();
    assert_eq!(count(&mut reader), 1);
    writer.exec("BEGIN; DELETE FROM t; SAVEPOINT s; INSERT INTO t VALUES(5); ROLLBACK TO s", &[]).ok();
    writer.exec("ROLLBACK", &[]).ok();
    assert_eq!(count(&mut reader), 1);
}

#[test]
fn a_write_on_an_old_snapshot_gets_517_and_the_transaction_goes_on() {
    let (_node, mut old, mut new) = serve_two(|_| {});
    old.exec("BEGIN", &[]).ok();
    assert_eq!(count(&mut old), 0);
    new.exec("INSERT INTO t VALUES(1)", &[]).ok();
    for _ in 0..2 {
        let refused = old.exec("INSERT INTO t VALUES(2)", &[]);
        assert_eq!(refused.failure(), (517, LOCKED.to_owned()));
    }
    assert_eq!(count(&mut old), 0);
    new.exec("INSERT INTO t VALUES(3)", &[]).ok();
    old.exec("ROLLBACK", &[]).ok();
    old.exec("INSERT INTO t VALUES(4)", &[]).ok();
    assert_eq!(count(&mut new), 3);
}

#[test]
fn a_transaction_that_has_read_nothing_is_never_stale() {
    let (_node, mut first, mut second) = serve_two(|_| {});
    for _ in 0..10 {
        first.exec("BEGIN", &[]).ok();
        second.exec("INSERT INTO t VALUES(1)", &[]).ok();
        first.exec("INSERT INTO t VALUES(2)", &[]).ok();
        first.exec("COMMIT", &[]).ok();
    }
    assert_eq!(count(&mut first), 20);
}

#[test]
fn a_client_that_goes_away_frees_the_lock_at_once() {
    // A waiter would be turned away only after ten seconds.
    let (node, mut other, _) = serve_two(|_| {});
    let begins =
        ["BEGIN IMMEDIATE", "BEGIN; INSERT INTO t VALUES(1)", "SAVEPOINT s; INSERT INTO t VALUES(1)"];
    for (begin, abort) in begins.into_iter().flat_map(|begin| [(begin, false), (begin, true)]) {
        let mut holder = connect(&node);
        holder.exec(begin, &[]).ok();
        let begun = Instant::now();
        if abort {
            holder.abort();
        } else {
            drop(holder);
        }
        other.exec("INSERT INTO t VALUES(2)", &[]).ok();
        assert!(begun.elapsed() < Duration::from_secs(2), "{begin}: {:?}", begun.elapsed());
    }
    assert_eq!(count(&mut other), 6);
}

#[test]
fn a_waiter_behind_a_transaction_gets_5_after_the_busy_timeout() {
    let timeout = Duration::from_millis(300);
    let (_node, mut holder, mut waiter) = serve_two(|options| options.busy_timeout = Some(timeout));
    holder.exec("BEGIN IMMEDIATE", &[]).ok();
    for sql in ["INSERT INTO t VALUES(1)", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
        let begun = Instant::now();
        assert_eq!(waiter.exec(sql, &[]).failure(), (5, LOCKED.to_owned()), "{sql}");
        let waited = begun.elapsed();
        assert!(waited >= timeout && waited < Duration::from_secs(5), "{sql}: {waited:?}");
    }
    // Readers wait for nobody.
    assert_eq!(count(&mut waiter), 0);
    waiter.exec("BEGIN; SELECT 1 WHERE 0; COMMIT", &[]).ok();
    holder.exec("COMMIT", &[]).ok();
    waiter.exec("INSERT INTO t VALUES(1)", &[]).ok();
}

#[test]
fn waiters_are_served_in_order_when_the_transaction_ends() {
    let (node, mut holder, _) = serve_two(|_| {});
    holder.exec("BEGIN IMMEDIATE", &[]).ok();
    let mut waiters: Vec<_> = (0..8).map(|_| connect(&node)).collect();
    for (number, waiter) in waiters.iter_mut().enumerate() {
        waiter.begin_exec(&format!("INSERT INTO t VALUES({number})"));
        // The node has seen it once it answers a later request of somebody else.
        holder.leader().ok();
    }
    holder.exec("COMMIT", &[]).ok();
    for waiter in &mut waiters {
        waiter.answer().unwrap().ok();
    }
    let order = holder.query("SELECT a FROM t ORDER BY rowid", &[]).rows();
    assert_eq!(order, (0..8).map(|number| vec![Value::Integer(number)]).collect::<Vec<_>>());
}

#[test]
fn a_transaction_that_idles_on_the_lock_is_rolled_back_for_those_who_wait() {
    let (_node, mut holder, mut waiter) =
        serve_two(|options| options.settings.slot_idle = Some(Duration::from_millis(200)));
    holder.exec("BEGIN IMMEDIATE; INSERT INTO t VALUES(1)", &[]).ok();
    let begun = Instant::now();
    waiter.exec("INSERT INTO t VALUES(2)", &[]).ok();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let (code, text) = holder.exec("INSERT INTO t VALUES(3)", &[]).failure();
    assert_eq!(code, 5);
    assert!(text.starts_with("database is locked: this connection's transaction idled"), "{text}");
    let (_, text) = holder.exec("COMMIT", &[]).failure();
    assert_eq!(text, "cannot commit - no transaction is active");
    holder.exec("INSERT INTO t VALUES(4)", &[]).ok();
    let rows = waiter.query("SELECT a FROM t", &[]).rows();
    assert_eq!(rows, [[Value::Integer(2)], [Value::Integer(4)]]);
}

#[test]
fn databases_have_locks_of_their_own() {
    let node = TestNode::start_with(|options| options.busy_timeout = Some(Duration::ZERO));
    let names = ["one", "two", "a/b?c=d", "One"];
    let mut clients = names.map(|name| Client::with_database(node.address(), name));
    for (number, client) in clients.iter_mut().enumerate() {
        client.exec("BEGIN IMMEDIATE; CREATE TABLE t(a)", &[]).ok();
        client.exec(&format!("INSERT INTO t VALUES({number})"), &[]).ok();
    }
    for client in &mut clients {
        client.exec("COMMIT", &[]).ok();
    }
    for (number, name) in names.into_iter().enumerate() {
        let mut other = Client::with_database(node.address(), name);
        assert_eq!(other.query("SELECT a FROM t", &[]).integer(), i64::try_from(number).unwrap(), "{name}");
        let list = other.query("PRAGMA database_list", &[]).rows();
        assert_eq!(list[0][1..], ["main", name].map(|text| Value::Text(text.to_owned())));
    }
}

#[test]
fn a_database_is_deleted_by_the_pragma_and_its_transaction_may_be_rolled_back() {
    let (node, mut client, mut other) = serve_two(|_| {});
    client.exec("INSERT INTO t VALUES(1)", &[]).ok();
    let outside = client.exec("PRAGMA delete_database", &[]).failure();
    assert_eq!(outside.0, 1);
    assert!(
        outside.1.starts_with("PRAGMA delete_database must be run in a write transaction"),
        "{outside:?}"
    );

    client.exec("BEGIN IMMEDIATE", &[]).ok();
    client.exec("PRAGMA delete_database", &[]).ok();
    client.exec("ROLLBACK", &[]).ok();
    assert_eq!(count(&mut other), 1);

    other.exec("BEGIN", &[]).ok();
    assert_eq!(count(&mut other), 1);
    for sql in ["BEGIN IMMEDIATE", "PRAGMA delete_database", "COMMIT"] {
        client.exec(sql, &[]).ok();
    }
    assert_eq!(count(&mut other), 1, "its snapshot is from before");
    other.exec("COMMIT", &[]).ok();
    assert_eq!(other.query("SELECT * FROM t", &[]).failure(), (1, "no such table: t".to_owned()));
    match client.dump(NAME).ok() {
        Answer::Files(files) => assert_eq!(files[0].1.len(), 4096),
        other => panic!("{other:?}"),
    }
    other.exec("CREATE TABLE t(b, c); INSERT INTO t VALUES(1, 2), (3, 4)", &[]).ok();
    assert_eq!(count(&mut client), 2);
    assert_eq!(count(&mut connect(&node)), 2);
}
