//! Many connections, and connections that say nothing.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::time::Duration;

use dqlite::codec::client::Request;

use crate::support::client::{Answer, Client};
use crate::support::node::TestNode;
use crate::{Alone, await_that, descriptors, set_descriptors, while_others_are_served};

/// All descriptors that the process may still have.
fn take_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn connections_that_say_nothing_are_in_nobodys_way() {
    let alone = Alone::new();
    let node = TestNode::start();
    while_others_are_served(&node, || {
        let silent: Vec<_> = (0..1000).map(|_| Client::connect_silently(node.address()).unwrap()).collect();
        let halves = (0..200).map(|at| {
            let mut client = Client::connect_silently(node.address()).unwrap();
            client.send(&[1, 0, 0, 0, 0, 0, 0][..at % 8]).unwrap();
            client
        });
        let _halves: Vec<_> = halves.collect();
        let mut last = Client::with_database(node.address(), "last");
        last.exec("CREATE TABLE t(a)", &[]).ok();
        drop(silent);
    });
    alone.assert_no_panic();
}

#[test]
fn thousands_of_short_connections_leave_nothing_behind() {
    let alone = Alone::new();
    let node = TestNode::start();
    while_others_are_served(&node, || {
        for number in 0..3000 {
            let mut client = Client::connect(node.address()).unwrap();
            match number % 4 {
                0 => drop(client),
                1 => client.abort(),
                2 => {
                    client.leader().ok();
                }
                _ => {
                    client.open("short");
                    client.begin_exec("CREATE TABLE IF NOT EXISTS t(a); INSERT INTO t VALUES(1)");
                }
            }
        }
    });
    alone.assert_no_panic();
}

#[test]
fn a_client_is_accepted_once_there_are_descriptors_again() {
    let alone = Alone::new();
    let node = TestNode::start();
    let mut first = Client::connect(node.address()).unwrap();
    first.leader().ok();
    // More than are closed in the meantime by threads of the node: some must be left to give back.
    set_descriptors(descriptors() as u64 + 16);
    let mut taken = take_descriptors();
    // One for the client, and none for the node.
    let mut late = loop {
        drop(taken.pop().unwrap());
        if let Ok(client) = Client::connect(node.address()) {
            break client;
        }
    };
    late.request(&Request::Leader).unwrap();
    late.set_patience(Duration::from_millis(100)).unwrap();
    assert_eq!(late.answer().unwrap_err().kind(), ErrorKind::WouldBlock, "accepted without a descriptor");
    first.leader().ok();
    // Nobody new comes, which the node would be told.
    assert!(!taken.is_empty(), "nothing to give back");
    drop(taken);
    late.set_patience(crate::support::client::PATIENCE).unwrap();
    late.answer().unwrap().ok();
    set_descriptors(u64::MAX);
    first.leader().ok();
    alone.assert_no_panic();
}

#[test]
fn a_node_without_descriptors_refuses_writes_at_worst_and_takes_them_again() {
    let alone = Alone::new();
    let mut node = TestNode::start();
    let mut client = Client::with_database(node.address(), "test");
    client.exec("CREATE TABLE t(b)", &[]).ok();
    // Not even what the node closes is to be had again.
    set_descriptors(0);
    // More than what it has prepared takes.
    let mut stored = 0;
    for _ in 0..32 {
        match client.exec("INSERT INTO t VALUES(zeroblob(2000000))", &[]) {
            Answer::Failure { code, text } => {
                assert_eq!((code, text.as_str()), (13, "database or disk is full"))
            }
            _ => stored += 1,
        }
    }
    assert!(stored < 32, "there were descriptors for all");
    assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), stored);
    set_descriptors(u64::MAX);
    await_that("writes are taken again", || {
        !matches!(client.exec("INSERT INTO t VALUES(1)", &[]), Answer::Failure { .. })
    });
    node.restart();
    let mut client = Client::with_database(node.address(), "test");
    assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), stored + 1);
    alone.assert_no_panic();
}

#[test]
fn a_client_that_sends_and_does_not_read_is_read_no_further_and_gets_all_its_answers_later() {
    let alone = Alone::new();
    let node = TestNode::start();
    let message = Request::Leader.encode().unwrap();
    let mut client = Client::connect(node.address()).unwrap();
    let mut writer = client.second_handle();
    writer.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    // Whole messages only: what is not taken is kept for later.
    let chunk = message.repeat(4096);
    let (mut sent, mut rest) = (0, Vec::new());
    while rest.is_empty() {
        match writer.write(&chunk) {
            Ok(taken) => {
                sent += chunk.len();
                rest = chunk[taken..].to_vec();
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                break;
            }
        }
        assert!(sent < 256 << 20, "the node reads for ever");
    }
    // Others are served meanwhile.
    Client::connect(node.address()).unwrap().leader().ok();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.set_write_timeout(None).unwrap();
            writer.write_all(&rest).unwrap();
        });
        for _ in 0..sent / message.len() {
            client.answer().unwrap().ok();
        }
    });
    alone.assert_no_panic();
}

#[test]
fn requests_that_lay_in_the_socket_while_another_ran_are_all_answered() {
    let alone = Alone::new();
    let node = TestNode::start();
    let mut holder = Client::with_database(node.address(), "test");
    holder.exec("BEGIN IMMEDIATE", &[]).ok();
    let mut client = Client::with_database(node.address(), "test");
    client.begin_exec("BEGIN IMMEDIATE");
    // More than the node takes ahead, less than what sockets hold: all of it has come before the node goes on,
    // so that nothing comes later that would wake it.
    let count = 100_000;
    client.send(&Request::Leader.encode().unwrap().repeat(count)).unwrap();
    holder.leader().ok();
    holder.exec("COMMIT", &[]).ok();
    for _ in 0..=count {
        client.answer().unwrap().ok();
    }
    alone.assert_no_panic();
}
