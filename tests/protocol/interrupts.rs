//! Interrupts at every point of a request, and clients that go away in the middle.

use std::time::{Duration, Instant};

use dqlite::codec::client::Request;

use crate::support::client::{Answer, Client};
use crate::support::node::TestNode;
use crate::writers::ENDLESS;
use crate::{connect, serve};

fn interrupt(client: &mut Client) {
    client.request(&Request::Interrupt { db: 0 }).unwrap();
}

/// Reads as Go does: everything up to the first empty answer. What came before it.
fn drain(client: &mut Client) -> Vec<Answer> {
    let mut before = Vec::new();
    loop {
        match client.answer().unwrap() {
            Answer::Empty => return before,
            other => before.push(other),
        }
    }
}

/// The connection is in step: each request gets its own answer.
#[track_caller]
fn assert_in_step(client: &mut Client) {
    for value in [17, 18, 19] {
        assert_eq!(client.query(&format!("SELECT {value}"), &[]).integer(), value);
    }
}

#[test]
fn an_interrupt_with_nothing_running_is_answered_once() {
    let (node, mut client) = serve();
    for _ in 0..3 {
        assert_eq!(client.interrupt(), Answer::Empty);
        assert_in_step(&mut client);
    }
    // Also before a database is open.
    assert_eq!(Client::connect(node.address()).unwrap().interrupt(), Answer::Empty);
}

#[test]
fn an_interrupt_after_any_part_of_a_result_is_answered_once_and_ends_it() {
    let (_node, mut client) = serve();
    // About 9 MB: more than sockets hold.
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) \
                SELECT i, hex(zeroblob(500)) FROM n";
    for parts in [0, 1, 2, 17, 200, 900] {
        client.begin_query(rows);
        for part in 0..parts {
            match client.answer().unwrap() {
                Answer::Rows { more: true, .. } => {}
                other => panic!("part {part}: {other:?}"),
            }
        }
        interrupt(&mut client);
        drain(&mut client);
        assert_in_step(&mut client);
    }
    let whole = client.query(rows, &[]).rows();
    assert_eq!(whole.len(), 9000);
}

#[test]
fn an_interrupt_sent_with_a_query_is_answered_after_it() {
    let (_node, mut client) = serve();
    for _ in 0..20 {
        client.begin_query("SELECT 5");
        interrupt(&mut client);
        drain(&mut client);
        assert_in_step(&mut client);
    }
}

#[test]
fn an_interrupt_stops_a_statement_that_computes_even_if_both_arrived_together() {
    let (_node, mut client) = serve();
    client.exec("CREATE TABLE t(a)", &[]).ok();
    let interrupted = Answer::Failure { code: 9, text: "interrupted".to_owned() };
    for _ in 0..2 {
        client.begin_query(&format!("{ENDLESS} count(*) FROM n"));
        interrupt(&mut client);
        assert_eq!(drain(&mut client), std::slice::from_ref(&interrupted));
        client.begin_exec(&format!("INSERT INTO t {ENDLESS} i FROM n"));
        interrupt(&mut client);
        assert_eq!(drain(&mut client), std::slice::from_ref(&interrupted));
        assert_in_step(&mut client);
    }
    assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), 0);
}

#[test]
fn an_interrupt_ends_the_wait_for_the_lock() {
    let (node, mut holder) = serve();
    holder.exec("CREATE TABLE t(a)", &[]).ok();
    holder.exec("BEGIN IMMEDIATE", &[]).ok();
    let mut waiter = connect(&node);
    waiter.begin_exec("INSERT INTO t VALUES(1)");
    interrupt(&mut waiter);
    let begun = Instant::now();
    let before = drain(&mut waiter);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(before.into_iter().map(|answer| answer.code()).collect::<Vec<_>>(), [9]);
    assert_in_step(&mut waiter);
    holder.exec("COMMIT", &[]).ok();
    waiter.exec("INSERT INTO t VALUES(2)", &[]).ok();
    assert_eq!(holder.query("SELECT a FROM t", &[]).integer(), 2);
}

#[test]
fn a_client_that_goes_away_stops_what_it_runs() {
    let (node, mut client) = serve();
    client.exec("CREATE TABLE t(a)", &[]).ok();
    for abort in [false, true] {
        let mut writer = connect(&node);
        writer.begin_exec(&format!("INSERT INTO t {ENDLESS} i FROM n"));
        let mut reader = connect(&node);
        reader.begin_query(&format!("{ENDLESS} i FROM n"));
        reader.answer().unwrap().ok();
        let begun = Instant::now();
        if abort {
            writer.abort();
            reader.abort();
        } else {
            drop((writer, reader));
        }
        // It waits for the writer, whose statement would never end.
        client.exec("INSERT INTO t VALUES(1)", &[]).ok();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), 2);
}

#[test]
fn a_node_stops_while_statements_run() {
    let node = TestNode::start();
    let mut clients: Vec<_> = (0..3).map(|_| connect(&node)).collect();
    clients[0].exec("CREATE TABLE t(a)", &[]).ok();
    clients[0].begin_query(&format!("{ENDLESS} count(*) FROM n"));
    clients[1].begin_exec(&format!("INSERT INTO t {ENDLESS} i FROM n"));
    clients[2].begin_query(&format!("{ENDLESS} i FROM n"));
    clients[2].answer().unwrap().ok();
    let begun = Instant::now();
    drop(node);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
