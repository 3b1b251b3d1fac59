//! Leaders that die while clients write: what was acknowledged is there, on every node.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use dqlite::codec::client::{OwnedParams, Request, Schema};

use crate::NAME;
use crate::support::client::{Answer, Client};
use crate::support::cluster::{Cluster, integers, wait_for};

#[test]
fn another_node_leads_when_the_leader_dies_and_the_dead_one_comes_back_as_a_follower() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    for round in 0..3 {
        let (leader, mut client) = cluster.leader_client(NAME);
        let before: Vec<i64> = (0..round * 10).collect();
        assert_eq!(integers(&mut client, "SELECT n FROM t ORDER BY n"), before);
        for n in round * 10..round * 10 + 10 {
            client.exec(&format!("INSERT INTO t VALUES({n})"), &[]).ok();
        }
        cluster.node(leader).stop();
        let (next, mut client) = cluster.leader_client(NAME);
        assert_ne!(next, leader);
        let after: Vec<i64> = (0..round * 10 + 10).collect();
        assert_eq!(integers(&mut client, "SELECT n FROM t ORDER BY n"), after);
        cluster.node(leader).start_again();
    }
    cluster.equal_dumps(NAME);
}

/// Inserts numbers of this client until told to stop; returns how many were acknowledged.
fn write_until(addresses: &[String], client: u64, stop: &AtomicBool, total: &AtomicU64) -> u64 {
    let (mut connection, mut acknowledged) = (None::<Client>, 0);
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &mut connection else {
            connection = addresses.iter().find_map(|address| {
                let mut found = Client::connect(address).ok()?;
                let open = Request::Open { filename: NAME.as_bytes(), flags: 0, vfs: b"" };
                matches!(found.call(&open), Ok(Answer::Db { .. })).then_some(found)
            });
            continue;
        };
        // What failed may be there all the same.
        let sql = format!("INSERT OR IGNORE INTO t VALUES({client}, {acknowledged})");
        let params = OwnedParams::new(&[]);
        let request =
            Request::ExecSql { schema: Schema::V0, db: 0, sql: sql.as_bytes(), params: params.view() };
        if let Ok(Answer::Result { .. }) = open.call(&request) {
            acknowledged += 1;
            total.fetch_add(1, Ordering::Relaxed);
        } else {
            connection = None;
        }
    }
    acknowledged
}

#[test]
fn no_acknowledged_row_is_lost_however_often_leaders_die() {
    const CLIENTS: u64 = 4;
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(client, n, PRIMARY KEY(client, n))", &[]).ok();
    let addresses: Vec<String> = (1..=3).map(|number| cluster.node(number).address().to_owned()).collect();
    let (stop, total) = (AtomicBool::new(false), AtomicU64::new(0));
    let acknowledged: Vec<u64> = thread::scope(|scope| {
        let writer = |client| {
            let (addresses, stop, total) = (&addresses, &stop, &total);
            scope.spawn(move || write_until(addresses, client, stop, total))
        };
        let writers: Vec<_> = (0..CLIENTS).map(writer).collect();
        for _ in 0..4 {
            let goal = total.load(Ordering::Relaxed) + 100;
            wait_for("more rows", || (total.load(Ordering::Relaxed) >= goal).then_some(()));
            let leader = cluster.leader();
            cluster.node(leader).stop();
            let goal = total.load(Ordering::Relaxed) + CLIENTS + 1;
            wait_for("rows without it", || (total.load(Ordering::Relaxed) >= goal).then_some(()));
            cluster.node(leader).start_again();
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let (_, mut client) = cluster.leader_client(NAME);
    for (number, count) in acknowledged.iter().enumerate() {
        let sql = format!("SELECT count(*) FROM t WHERE client = {number} AND n < {count}");
        assert_eq!(integers(&mut client, &sql), [i64::try_from(*count).unwrap()], "rows of client {number}");
    }
    cluster.equal_dumps(NAME);
}

#[test]
fn a_node_that_was_away_for_long_catches_up() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n, data)", &[]).ok();
    cluster.node(3).stop();
    for n in 0..300 {
        client.exec(&format!("INSERT INTO t VALUES({n}, randomblob(5000))"), &[]).ok();
    }
    cluster.node(3).start_again();
    cluster.equal_dumps(NAME);
    // It counts from then on.
    cluster.node(2).stop();
    client.exec("INSERT INTO t VALUES(300, NULL)", &[]).ok();
    cluster.equal_dumps(NAME);
}

#[test]
fn a_restarted_follower_does_not_disturb_the_leader() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    for n in 0..6 {
        let follower = if n % 2 == 0 { 2 } else { 3 };
        cluster.node(follower).restart();
        // The connection lives on only while the node leads.
        client.exec(&format!("INSERT INTO t VALUES({n})"), &[]).ok();
        cluster.equal_dumps(NAME);
    }
    assert_eq!(cluster.leader(), 1);
}
