//! Servers that lag behind the log of the leader, or never had any of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dqlite::base::Role;
use dqlite::base::limits::PEER_DIAL_RETRY_MAX;
use dqlite::node::snapshots::SnapshotPolicy;
use dqlite::runtime::NodeOptions;

use crate::NAME;
use crate::support::client::{Answer, Client};
use crate::support::cluster::{Cluster, declared, integers, wait_for};

/// A snapshot every 8 entries, and 8 entries before it.
fn often(options: &mut NodeOptions) {
    options.snapshots = SnapshotPolicy::Given { threshold: 8, trailing: 8, dynamic: false };
}

fn insert(client: &mut Client, numbers: std::ops::Range<i64>) {
    for n in numbers {
        client.exec(&format!("INSERT INTO t VALUES({n}, randomblob(3000))"), &[]).ok();
    }
}

/// Stops the node and writes until the leader has found out that nobody is there: what it wanted to send before
/// would else wait for the node.
fn write_while_away(cluster: &mut Cluster, number: usize, client: &mut Client, mut next: i64) -> i64 {
    cluster.node(number).stop();
    let (begin, first) = (Instant::now(), next);
    while begin.elapsed() < 2 * PEER_DIAL_RETRY_MAX + PEER_DIAL_RETRY_MAX / 2 || next < first + 200 {
        insert(client, next..next + 1);
        next += 1;
    }
    next
}

/// Three nodes that take snapshots often and hold the same ten rows, and a client of the first.
fn with_ten_rows() -> (Cluster, Client) {
    let cluster = Cluster::with(3, often);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n, b)", &[]).ok();
    insert(&mut client, 0..10);
    cluster.equal_dumps(NAME);
    (cluster, client)
}

/// The first entry of the log that the node has on disk, by the names of its closed segments and its newest snapshot:
/// far above 1 if the log did not come entry by entry.
fn begins_at(cluster: &mut Cluster, number: usize) -> Option<u64> {
    let names = std::fs::read_dir(cluster.node(number).directory()).unwrap();
    let names: Vec<String> = names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let closed = names.iter().filter_map(|name| name.split_once('-')?.0.parse().ok()).min();
    let covered = names.iter().filter_map(|name| {
        let index = name.strip_prefix("snapshot-")?.split('-').nth(1)?;
        index.parse::<u64>().ok().map(|index| index + 1)
    });
    closed.or(covered.max())
}

#[test]
fn a_node_that_was_away_for_longer_than_the_log_reaches_back_gets_a_snapshot_compressed_or_not() {
    for (sends, takes) in [(true, false), (false, true)] {
        let mut cluster = Cluster::apart(3, |options| {
            often(options);
            // Node 1 leads, node 3 is away.
            options.compression = if options.id.0 == 3 { takes } else { sends };
        });
        let mut client = cluster.connect(1);
        for number in 2..=3 {
            assert_eq!(client.add(number as u64, &declared(number)), Answer::Empty);
            assert_eq!(client.assign(number as u64, Role::Voter), Answer::Empty);
        }
        client.open(NAME).ok();
        client.exec("CREATE TABLE t(n, b)", &[]).ok();
        insert(&mut client, 0..10);
        cluster.equal_dumps(NAME);
        let next = write_while_away(&mut cluster, 3, &mut client, 10);
        cluster.node(3).start_again();
        cluster.equal_dumps(NAME);
        assert!(begins_at(&mut cluster, 3) > Some(100), "the log came entry by entry");

        // And it is a full member: one that can lead, and start again.
        cluster.node(3).restart();
        wait_for("node 3 to lead", || (client.transfer(3) == Answer::Empty).then_some(()));
        let (_, mut client) = cluster.leader_client(NAME);
        assert_eq!(integers(&mut client, "SELECT count(*) FROM t"), [next]);
        insert(&mut client, next..next + 3);
        cluster.equal_dumps(NAME);
    }
}

#[test]
fn a_fresh_node_is_promoted_by_way_of_a_snapshot_while_writes_go_on() {
    let mut cluster = Cluster::apart(2, often);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n, b)", &[]).ok();
    insert(&mut client, 0..300);
    let (stop, address) = (AtomicBool::new(false), cluster.node(1).address().to_owned());
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = Client::with_database(&address, NAME);
            let mut n = 300;
            while !stop.load(Ordering::Relaxed) {
                insert(&mut client, n..n + 1);
                n += 1;
            }
            n
        });
        assert_eq!(client.add(2, &declared(2)), Answer::Empty);
        assert_eq!(client.assign(2, Role::Voter), Answer::Empty);
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    cluster.equal_dumps(NAME);
    assert!(begins_at(&mut cluster, 2) > Some(100), "the log came entry by entry");
    assert_eq!(integers(&mut client, "SELECT count(*) FROM t"), [written]);
}

#[test]
fn a_database_of_many_megabytes_arrives_in_a_directory_with_an_older_one() {
    let (mut cluster, mut client) = with_ten_rows();
    let away = 2;
    let next = write_while_away(&mut cluster, away, &mut client, 10);
    for n in 0..6 {
        client.exec(&format!("INSERT INTO t VALUES({n}, randomblob(4000000))"), &[]).ok();
    }
    cluster.node(away).start_again();
    cluster.equal_dumps(NAME);
    assert!(begins_at(&mut cluster, away) > Some(100));
    wait_for("it to lead", || (client.transfer(away as u64) == Answer::Empty).then_some(()));
    let (_, mut after) = cluster.leader_client(NAME);
    assert_eq!(integers(&mut after, "SELECT count(*) FROM t"), [next + 6]);
    assert_eq!(integers(&mut after, "SELECT sum(length(b)) FROM t"), [6 * 4_000_000 + next * 3000]);
}

#[test]
fn a_receiver_that_is_stopped_in_the_middle_starts_again_and_is_brought_up_to_date() {
    let (mut cluster, mut client) = with_ten_rows();
    write_while_away(&mut cluster, 3, &mut client, 10);
    for n in 0..8 {
        client.exec(&format!("INSERT INTO t VALUES({n}, randomblob(4000000))"), &[]).ok();
    }
    // Wherever it is by then: connecting, receiving, checking, or done.
    for pause in [1, 10, 30, 60, 100, 150, 250] {
        cluster.node(3).start_again();
        thread::sleep(Duration::from_millis(pause));
        cluster.node(3).stop();
    }
    cluster.node(3).start_again();
    insert(&mut client, 100..110);
    cluster.equal_dumps(NAME);
    cluster.node(3).stop();
    let left = std::fs::read_dir(cluster.node(3).directory()).unwrap();
    let names = left.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("tmp-")).collect::<Vec<_>>(), [] as [String; 0]);
}
