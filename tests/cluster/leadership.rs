//! What clients of a node see when it loses leadership, and of one that gains it.

use std::time::Duration;

use dqlite::base::NodeId;
use dqlite::codec::client::Request;

use crate::support::client::Answer;
use crate::support::cluster::{Cluster, declared, integers, wait_for};
use crate::writers::Writers;
use crate::{LEADERSHIP_LOST, NAME, NOT_LEADER, refused};

#[test]
fn a_transfer_ends_open_transactions_and_the_other_node_serves_without_them() {
    let cluster = Cluster::of(3);
    let (mut writer, mut reader, mut other) = (cluster.connect(1), cluster.connect(1), cluster.connect(1));
    for client in [&mut writer, &mut reader, &mut other] {
        client.open(NAME).ok();
    }
    writer.exec("CREATE TABLE t(n)", &[]).ok();
    writer.exec("INSERT INTO t VALUES(1)", &[]).ok();
    writer.exec("BEGIN; INSERT INTO t VALUES(2)", &[]).ok();
    reader.exec("BEGIN", &[]).ok();
    assert_eq!(integers(&mut reader, "SELECT n FROM t"), [1]);
    assert_eq!(other.transfer(3), Answer::Empty);
    for answer in [writer.exec("COMMIT", &[]), reader.query("SELECT n FROM t", &[])] {
        refused(answer, NOT_LEADER);
    }
    // The connection stays, and knows who leads.
    assert_eq!(writer.leader(), Answer::Server { id: 3, address: declared(3) });
    refused(writer.open(NAME), NOT_LEADER);

    let mut client = cluster.connect(3);
    client.open(NAME).ok();
    assert_eq!(integers(&mut client, "SELECT n FROM t"), [1]);
    client.exec("INSERT INTO t VALUES(3)", &[]).ok();
    cluster.equal_dumps(NAME);

    // And back: the same connections serve again once they have opened the database.
    assert_eq!(client.transfer(1), Answer::Empty);
    wait_for("leadership", || (!matches!(writer.open(NAME), Answer::Failure { .. })).then_some(()));
    assert_eq!(integers(&mut writer, "SELECT n FROM t"), [1, 3]);
    cluster.equal_dumps(NAME);
}

#[test]
fn a_leader_whose_transfer_fails_serves_on_and_writers_wait_for_its_end() {
    let mut cluster = Cluster::of(3);
    let (mut writer, mut other) = (cluster.connect(1), cluster.connect(1));
    writer.open(NAME).ok();
    writer.exec("CREATE TABLE t(n)", &[]).ok();
    cluster.node(3).stop();
    other.request(&Request::Transfer { id: NodeId(3) }).unwrap();
    // Some of these come while the transfer is under way, some after its end.
    for number in 0..50 {
        writer.exec(&format!("INSERT INTO t VALUES({number})"), &[]).ok();
    }
    assert!(matches!(other.answer().unwrap(), Answer::Failure { code: 1, .. }));
    writer.exec("INSERT INTO t VALUES(50)", &[]).ok();
    assert_eq!(integers(&mut writer, "SELECT count(*) FROM t"), [51]);
    assert_eq!(other.leader(), Answer::Server { id: 1, address: declared(1) });
    cluster.node(3).start_again();
    cluster.equal_dumps(NAME);
}

#[test]
fn a_statement_that_runs_while_leadership_goes_is_void() {
    let cluster = Cluster::of(3);
    let (mut busy, mut other) = (cluster.connect(1), cluster.connect(1));
    for client in [&mut busy, &mut other] {
        client.open(NAME).ok();
    }
    busy.exec("CREATE TABLE t(n)", &[]).ok();
    busy.begin_query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n");
    assert_eq!(other.transfer(2), Answer::Empty);
    refused(busy.answer().unwrap(), LEADERSHIP_LOST);
    let mut client = cluster.connect(2);
    client.open(NAME).ok();
    client.exec("INSERT INTO t VALUES(1)", &[]).ok();
    cluster.equal_dumps(NAME);
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_with_one_all_goes_on() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    cluster.node(2).stop();
    cluster.node(3).stop();
    refused(client.exec("INSERT INTO t VALUES(1)", &[]), LEADERSHIP_LOST);
    refused(client.exec("INSERT INTO t VALUES(2)", &[]), NOT_LEADER);
    assert_eq!(client.leader(), Answer::Server { id: 0, address: String::new() });
    cluster.node(2).start_again();
    let (_, mut client) = cluster.leader_client(NAME);
    // The first is there or not, the second never.
    assert_eq!(integers(&mut client, "SELECT n FROM t WHERE n = 2"), [0; 0]);
    client.exec("INSERT INTO t VALUES(3)", &[]).ok();
    cluster.node(3).start_again();
    cluster.equal_dumps(NAME);
}

#[test]
fn writers_that_wait_for_the_slot_are_told_when_leadership_goes() {
    let cluster = Cluster::with(3, |options| options.busy_timeout = Some(Duration::from_secs(60)));
    let (mut holder, mut waiting, mut other) = (cluster.connect(1), cluster.connect(1), cluster.connect(1));
    for client in [&mut holder, &mut waiting, &mut other] {
        client.open(NAME).ok();
    }
    holder.exec("CREATE TABLE t(n)", &[]).ok();
    holder.exec("BEGIN IMMEDIATE", &[]).ok();
    waiting.begin_exec("INSERT INTO t VALUES(1)");
    assert_eq!(other.transfer(2), Answer::Empty);
    refused(waiting.answer().unwrap(), NOT_LEADER);
    refused(holder.exec("COMMIT", &[]), NOT_LEADER);
}

#[test]
fn rows_that_are_on_their_way_end_with_a_failure() {
    let cluster = Cluster::of(3);
    let (mut reader, mut other) = (cluster.connect(1), cluster.connect(1));
    for client in [&mut reader, &mut other] {
        client.open(NAME).ok();
    }
    other.exec("CREATE TABLE t(n)", &[]).ok();
    // More than all buffers hold.
    reader.begin_query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
         SELECT i, zeroblob(1000) FROM n",
    );
    assert!(matches!(reader.answer().unwrap(), Answer::Rows { more: true, .. }));
    assert_eq!(other.transfer(2), Answer::Empty);
    let end = loop {
        match reader.answer().unwrap() {
            Answer::Rows { more: true, .. } => {}
            end => break end,
        }
    };
    refused(end, LEADERSHIP_LOST);
    refused(reader.exec("INSERT INTO t VALUES(1)", &[]), NOT_LEADER);
    assert_eq!(reader.leader(), Answer::Server { id: 2, address: declared(2) });
}

#[test]
fn a_large_transaction_that_was_not_confirmed_is_there_whole_or_not_at_all() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n, data)", &[]).ok();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) \
                INSERT INTO t SELECT 0, zeroblob(4000) FROM n";
    client.exec(fill, &[]).ok();
    cluster.equal_dumps(NAME);
    cluster.node(2).stop();
    cluster.node(3).stop();
    refused(client.exec("UPDATE t SET n = 1", &[]), LEADERSHIP_LOST);
    cluster.node(2).start_again();
    cluster.node(3).start_again();
    let (_, mut client) = cluster.leader_client(NAME);
    let changed = integers(&mut client, "SELECT sum(n) FROM t");
    assert!(matches!(changed[..], [0 | 1500]), "{changed:?}");
    client.exec("INSERT INTO t VALUES(0, NULL)", &[]).ok();
    cluster.equal_dumps(NAME);
}

#[test]
fn clients_that_write_while_leadership_is_handed_round_lose_nothing() {
    let cluster = Cluster::of(3);
    let (_, mut client) = cluster.leader_client(NAME);
    client.exec("CREATE TABLE t(client, n, PRIMARY KEY(client, n))", &[]).ok();
    let writers = Writers::new(&cluster, 4);
    let acknowledged = writers.run(|progress| {
        for round in 0..6 {
            progress(50);
            let (leader, to) = (cluster.leader(), 1 + round % 3);
            if leader != to {
                // Refused while the node is behind.
                cluster.connect(leader).transfer(to as u64);
            }
        }
        progress(50);
    });
    writers.check(&cluster, &acknowledged);
}
