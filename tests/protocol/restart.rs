//! What a node knows after it was stopped and started again.

use std::time::Duration;

use dqlite::codec::client::Param;
use dqlite::node::snapshots::SnapshotPolicy;

use crate::support::client::{Answer, Client, Value};
use crate::support::node::TestNode;
use crate::{connect, open_dump};

/// The bytes of a database.
fn image(client: &mut Client, name: &str) -> Vec<u8> {
    match client.dump(name).ok() {
        Answer::Files(files) => files[0].1.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_answered_is_there_after_a_restart() {
    let mut node = TestNode::start();
    let blob: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    for name in ["one", "two"] {
        let mut client = Client::with_database(node.address(), name);
        client.exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b)", &[]).ok();
        client.exec("PRAGMA user_version = 5", &[]).ok();
        for number in 0..50 {
            client.exec("INSERT INTO t(b) VALUES(?)", &[Param::Integer(number)]).ok();
        }
        client.exec("INSERT INTO t(b) VALUES(?)", &[Param::Blob(&blob)]).ok();
        client.exec("BEGIN; DELETE FROM t", &[]).ok();
    }
    let mut client = Client::connect(node.address()).unwrap();
    let before = ["one", "two"].map(|name| image(&mut client, name));
    for _ in 0..2 {
        node.restart();
        let mut client = Client::connect(node.address()).unwrap();
        assert!(before == ["one", "two"].map(|name| image(&mut client, name)));
        let mut client = Client::with_database(node.address(), "two");
        assert_eq!(client.query("PRAGMA user_version", &[]).integer(), 5);
        assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), 51);
        let rows = client.query("SELECT b FROM t WHERE a = 51", &[]).rows();
        assert!(rows == [[Value::Blob(blob.clone())]]);
        assert_eq!(client.query("PRAGMA integrity_check", &[]).rows(), [[Value::Text("ok".to_owned())]]);
    }
}

#[test]
fn a_deleted_database_stays_deleted() {
    let mut node = TestNode::start();
    let mut client = connect(&node);
    client.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)", &[]).ok();
    client.exec("BEGIN IMMEDIATE; PRAGMA delete_database; COMMIT", &[]).ok();
    node.restart();
    let mut client = connect(&node);
    assert_eq!(client.query("SELECT * FROM t", &[]).failure(), (1, "no such table: t".to_owned()));
    client.exec("CREATE TABLE t(a)", &[]).ok();
    node.restart();
    assert_eq!(connect(&node).query("SELECT count(*) FROM t", &[]).integer(), 0);
}

#[test]
fn many_writes_with_snapshots_in_between_survive_restarts() {
    let given = SnapshotPolicy::Given { threshold: 64, trailing: 16, dynamic: false };
    let mut node = TestNode::start_with(|options| {
        options.snapshots = given;
        options.busy_timeout = Some(Duration::ZERO);
    });
    for round in 0..3 {
        let mut client = connect(&node);
        client.exec("CREATE TABLE IF NOT EXISTS t(a, b)", &[]).ok();
        for number in 0..200 {
            client.exec("INSERT INTO t VALUES(?, randomblob(300))", &[Param::Integer(number)]).ok();
        }
        client.exec("DELETE FROM t WHERE rowid % 3 = 0 AND a < 100", &[]).ok();
        let count = client.query("SELECT count(*) FROM t", &[]).integer();
        let before = image(&mut client, crate::NAME);
        node.restart();
        let mut client = connect(&node);
        assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), count, "round {round}");
        assert!(before == image(&mut client, crate::NAME), "round {round}");
        open_dump(&mut client, crate::NAME);
    }
    let names: Vec<_> =
        std::fs::read_dir(node.directory()).unwrap().map(|it| it.unwrap().file_name()).collect();
    let snapshots = names.iter().filter(|name| name.to_string_lossy().starts_with("snapshot-")).count();
    assert!(snapshots >= 2, "{names:?}");
}
