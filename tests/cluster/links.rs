//! Networks that swallow what is said, or take their time over it.
//!
//! `LIVENESS_TRIES` makes the first of these tests long, `SLOW_LINK_MB` the last one: megabytes of database, over a
//! link of 10 MB/s.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dqlite::base::Role;
use dqlite::node::snapshots::SnapshotPolicy;
use dqlite::runtime::NodeOptions;

use crate::NAME;
use crate::liveness::{ELECTION, tries, write_to};
use crate::support::client::{Answer, Client};
use crate::support::cluster::{Cluster, declared, integers, wait_for};
use crate::support::links::Links;

fn linked(links: &Links, options: &mut NodeOptions) {
    options.connector = links.around(&options.address, options.connector.clone());
    options.election_timeout = ELECTION;
}

#[test]
fn a_leader_that_nothing_reaches_any_more_is_replaced_and_answers_nothing_that_is_out_of_date() {
    let links = Links::default();
    let cluster = Cluster::with(3, |options| linked(&links, options));
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n INTEGER PRIMARY KEY)", &[]).ok();
    let mut waited = Vec::new();
    for n in 0..tries(2) {
        cluster.equal_dumps(NAME);
        let (leader, mut reader) = cluster.leader_client(NAME);
        links.cut(&declared(leader));
        let begun = Instant::now();
        let others: Vec<usize> = (1..=3).filter(|number| *number != leader).collect();
        wait_for("a write", || write_to(&cluster, &others, n));
        waited.push(begun.elapsed().as_secs_f64() / ELECTION.as_secs_f64());
        // Whatever it still believes, it does not answer without the others.
        let answer = reader.query("SELECT max(n) FROM t", &[]);
        assert!(matches!(answer, Answer::Failure { .. }), "node {leader} answered {answer:?}");
        let refused = cluster.connect(leader).open(NAME);
        assert!(matches!(refused, Answer::Failure { .. }), "node {leader} answered {refused:?}");
        links.heal();
    }
    cluster.equal_dumps(NAME);
    waited.sort_by(f64::total_cmp);
    println!(
        "from the cut to the next write, in election timeouts of {ELECTION:?}, {} tries: half {:.2}, longest {:.2}",
        waited.len(),
        waited[waited.len() / 2],
        waited[waited.len() - 1],
    );
}

#[test]
fn a_follower_that_nothing_reaches_comes_back_without_an_election() {
    let links = Links::default();
    let cluster = Cluster::with(3, |options| linked(&links, options));
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    links.cut(&declared(3));
    let begun = Instant::now();
    let mut n = 0;
    // Long enough for it to want to lead.
    while begun.elapsed() < 3 * ELECTION {
        client.exec(&format!("INSERT INTO t VALUES({n})"), &[]).ok();
        n += 1;
    }
    links.heal();
    cluster.equal_dumps(NAME);
    // The connection serves only as long as the node leads.
    assert_eq!(integers(&mut client, "SELECT count(*) FROM t"), [n]);
}

/// Inserts a row now and then until it is told to stop; how many.
fn write_on(address: &str, stop: &AtomicBool, written: &AtomicU64) {
    let mut client = Client::with_database(address, NAME);
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let n = written.fetch_add(1, Ordering::Relaxed);
        client.exec(&format!("INSERT INTO t VALUES({n}, randomblob(500))"), &[]).ok();
        let due = Duration::from_millis(2 * n);
        thread::sleep(due.saturating_sub(begun.elapsed()));
    }
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn a_node_behind_a_slow_link_joins_by_one_snapshot_while_writes_go_on() {
    let long: Option<u64> = std::env::var("SLOW_LINK_MB").ok().map(|mb| mb.parse().unwrap());
    let (megabytes, speed) = (long.unwrap_or(8), if long.is_some() { 10 << 20 } else { 6 << 20 });
    let links = Links::default();
    let mut cluster = Cluster::apart(2, |options| {
        linked(&links, options);
        // Far more is written while one snapshot is under way than is kept behind one by itself.
        options.snapshots = SnapshotPolicy::Given { threshold: 64, trailing: 16, dynamic: false };
    });
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n, b)", &[]).ok();
    for n in 0..megabytes {
        client.exec(&format!("INSERT INTO t VALUES(-{n}, randomblob(1000000))"), &[]).ok();
    }
    // So that the log does not reach back to its beginning.
    (0..200).for_each(|_| {
        client.exec("INSERT INTO t VALUES(-1, NULL)", &[]).ok();
    });
    let address = cluster.addresses()[0].clone();
    let (stop, written, begun) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    links.slow_down(speed);
    thread::scope(|scope| {
        scope.spawn(|| write_on(&address, &stop, &written));
        client.set_patience(Duration::from_secs(600)).unwrap();
        assert_eq!(client.add(2, &declared(2)), Answer::Empty);
        assert_eq!(client.assign(2, Role::Voter), Answer::Empty);
        stop.store(true, Ordering::Relaxed);
    });
    let (rows, took) = (written.load(Ordering::Relaxed), begun.elapsed());
    // The dumps are in memory as a whole.
    let peak = peak_mib();
    cluster.equal_dumps(NAME);
    assert!(rows > 64, "{rows} rows were written meanwhile");
    assert_eq!(links.snapshots_to(&declared(2)), 1, "{rows} rows were written meanwhile");
    let counted = [1, 2].map(|number| cluster.node(number).snapshots_sent_and_received());
    assert_eq!(counted, [(1, 0), (0, 1)]);
    println!(
        "{megabytes} MB over {speed} bytes/s: joined after {took:?} with {rows} rows written meanwhile, by one \
         snapshot; at most {peak} MiB in this process with both nodes"
    );
}
