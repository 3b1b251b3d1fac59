//! How nodes find each other: the program's connect function, and addresses that change.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dqlite::base::Role;
use dqlite::runtime::connect::Connector;

use crate::NAME;
use crate::support::client::Answer;
use crate::support::cluster::{Cluster, declared, wait_for};

#[test]
fn a_member_that_moved_is_found_where_it_was_added_again() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    cluster.move_node(3, "127.0.0.1:29782");
    client.exec("INSERT INTO t VALUES(1)", &[]).ok();
    assert_eq!(client.remove(3), Answer::Empty);
    assert_eq!(client.add(3, "127.0.0.1:29782"), Answer::Empty);
    assert_eq!(client.assign(3, Role::Voter), Answer::Empty);
    cluster.equal_dumps(NAME);
    // It is needed for a majority now.
    cluster.node(2).stop();
    client.exec("INSERT INTO t VALUES(2)", &[]).ok();
    cluster.equal_dumps(NAME);
    let found = wait_for("the servers", || match cluster.connect(3).cluster() {
        Answer::Servers(servers) => Some(servers),
        _ => None,
    });
    assert_eq!(found[0], (1, declared(1), Role::Voter));
    assert_eq!(found[2], (3, "127.0.0.1:29782".to_owned(), Role::Voter));
}

#[test]
fn a_connect_function_that_hangs_holds_up_neither_the_node_nor_its_stop() {
    let (called, free) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (calls, ends) = (Arc::clone(&called), Arc::clone(&free));
    let mut cluster = Cluster::apart(1, |options| {
        let (calls, ends) = (Arc::clone(&calls), Arc::clone(&ends));
        options.connector = Connector::new(move |_| -> Result<OwnedFd, i32> {
            calls.store(true, Ordering::Release);
            while !ends.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            Err(16)
        });
    });
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    assert_eq!(client.add(2, "nowhere"), Answer::Empty);
    assert_eq!(client.assign(2, Role::StandBy), Answer::Empty);
    wait_for("the connect function", || called.load(Ordering::Acquire).then_some(()));
    client.exec("CREATE TABLE t(n)", &[]).ok();
    cluster.node(1).stop();
    free.store(true, Ordering::Release);
}
