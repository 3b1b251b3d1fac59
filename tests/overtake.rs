//! Long statements on a node whose loop runs short ones itself: other clients are served meanwhile, the
//! statement's own answer comes, and a stop is not held up.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dqlite::codec::client::{Params, Request, Schema};
use support::client::{Answer, Client};
use support::node::TestNode;

/// Runs until it is interrupted; SQLite's progress handler is called all the time.
const ENDLESS: &str =
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

/// Runs for a minute, almost all of it inside single function calls: the progress handler is never called.
const DEAF: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 60) \
     SELECT sum(length(hex(zeroblob(100000000 + x)))) FROM c";

/// One test at a time: where one lock stands around all of SQLite, a deaf statement would hold up the others' tests.
static ALONE: Mutex<()> = Mutex::new(());

fn send(client: &mut Client, sql: &str) {
    let (sql, params) = (sql.as_bytes(), Params::default());
    client.request(&Request::QuerySql { schema: Schema::V0, db: 0, sql, params }).unwrap();
}

/// The statement's own answer comes, then the interrupt's.
#[track_caller]
fn interrupt(client: &mut Client) {
    client.request(&Request::Interrupt { db: 0 }).unwrap();
    assert_eq!(client.answer().unwrap().code(), 9);
    assert_eq!(client.answer().unwrap(), Answer::Empty);
}

/// Panics if an answer has come.
#[track_caller]
fn is_not_answered(client: &mut Client) {
    client.set_patience(Duration::from_millis(1)).unwrap();
    assert!(client.answer().is_err(), "it should still run");
    client.set_patience(Duration::from_secs(30)).unwrap();
}

/// The other client is served; with SQL too, unless one lock for all of SQLite is in the deaf statement's hands.
fn is_served(client: &mut Client) {
    for _ in 0..10 {
        client.leader().ok();
    }
    if std::env::var_os("LIBDQLITE_SQLITE_THREADS").is_none_or(|mode| mode != "lock") {
        write_and_read(client);
    }
}

/// The client's writes and reads are answered.
fn write_and_read(client: &mut Client) {
    client.exec("CREATE TABLE IF NOT EXISTS t(a)", &[]).ok();
    let before = client.query("SELECT count(*) FROM t", &[]).integer();
    for _ in 0..10 {
        client.exec("INSERT INTO t VALUES(1)", &[]).ok();
    }
    assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), before + 10);
}

#[test]
fn other_clients_are_served_while_statements_run_that_do_not_end() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let node = TestNode::start();
    let mut other = Client::with_database(node.address(), "test");
    let mut busy: Vec<Client> = (0..4).map(|_| Client::with_database(node.address(), "test")).collect();
    for client in &mut busy {
        send(client, ENDLESS);
        write_and_read(&mut other);
    }
    for client in &mut busy {
        is_not_answered(client);
        interrupt(client);
    }
    for client in &mut busy {
        write_and_read(client);
    }
}

#[test]
fn other_clients_are_served_while_a_statement_never_calls_back() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let node = TestNode::start();
    let mut other = Client::with_database(node.address(), "test");
    let mut busy = Client::with_database(node.address(), "test");
    send(&mut busy, DEAF);
    is_served(&mut other);
    is_not_answered(&mut busy);
    interrupt(&mut busy);
    write_and_read(&mut busy);
}

#[test]
fn a_long_write_is_answered_and_whoever_waits_for_it_goes_on() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let node = TestNode::start();
    let mut reader = Client::with_database(node.address(), "test");
    let mut writer = Client::with_database(node.address(), "test");
    let mut waiting = Client::with_database(node.address(), "test");
    writer.exec("CREATE TABLE t(a)", &[]).ok();
    // More than one statement: the text is a new one each time, so nothing is known of it.
    for round in 1..=3 {
        let sql = format!(
            "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT {round} UNION ALL SELECT x + 1 FROM c LIMIT 200000) \
             SELECT x FROM c"
        );
        let (sql, params) = (sql.as_bytes(), Params::default());
        writer.request(&Request::ExecSql { schema: Schema::V0, db: 0, sql, params }).unwrap();
        let sql = b"INSERT INTO t VALUES(0)";
        waiting.request(&Request::ExecSql { schema: Schema::V0, db: 0, sql, params }).unwrap();
        reader.query("SELECT count(*) FROM t", &[]).ok();
        writer.answer().unwrap().ok();
        waiting.answer().unwrap().ok();
        assert_eq!(reader.query("SELECT count(*) FROM t", &[]).integer(), round * 200_001);
    }
}

#[test]
fn a_stop_ends_statements_wherever_they_run() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut node = TestNode::start();
    let mut other = Client::with_database(node.address(), "test");
    let mut busy: Vec<Client> = (0..3).map(|_| Client::with_database(node.address(), "test")).collect();
    for (client, sql) in busy.iter_mut().zip([ENDLESS, DEAF, ENDLESS]) {
        send(client, sql);
    }
    is_served(&mut other);
    node.restart();
    let mut other = Client::with_database(node.address(), "test");
    write_and_read(&mut other);
    // And with one that was sent right before, so that it runs or waits at the loop itself.
    send(&mut other, ENDLESS);
    node.restart();
    write_and_read(&mut Client::with_database(node.address(), "test"));
}
