//! How long clients wait for another leader, and that nodes that come back raise no election.
//!
//! `LIVENESS_TRIES` makes these tests long; `make failover` runs them so and prints what it measures.

use std::time::{Duration, Instant};

use dqlite::codec::client::{OwnedParams, Request, Schema};
use dqlite::disk::Disk;
use dqlite::disk::real::RealDisk;
use dqlite::format::metadata;

use crate::NAME;
use crate::support::client::{Answer, Client};
use crate::support::cluster::{Cluster, wait_for};

/// The election timeout of the clusters here.
pub const ELECTION: Duration = Duration::from_millis(600);

/// How often something is done: so often in the tests.
pub fn tries(short: usize) -> usize {
    std::env::var("LIVENESS_TRIES").map_or(short, |tries| tries.parse().unwrap())
}

/// Writes to whoever accepts it; a failure may have written all the same.
fn write_anywhere(cluster: &Cluster, n: usize) -> Option<usize> {
    write_to(cluster, &cluster.running(), n)
}

/// Writes to whoever of these accepts it.
pub fn write_to(cluster: &Cluster, numbers: &[usize], n: usize) -> Option<usize> {
    let open = Request::Open { filename: NAME.as_bytes(), flags: 0, vfs: b"" };
    let (sql, params) = (format!("INSERT OR IGNORE INTO t VALUES({n})"), OwnedParams::new(&[]));
    let insert = Request::ExecSql { schema: Schema::V0, db: 0, sql: sql.as_bytes(), params: params.view() };
    numbers.iter().copied().find(|number| {
        let served = |mut client: Client| -> std::io::Result<bool> {
            Ok(matches!(client.call(&open)?, Answer::Db { .. })
                && matches!(client.call(&insert)?, Answer::Result { .. }))
        };
        cluster.try_connect(*number).and_then(served).unwrap_or(false)
    })
}

fn prepared() -> Cluster {
    let cluster = Cluster::with(3, |options| options.election_timeout = ELECTION);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n INTEGER PRIMARY KEY)", &[]).ok();
    cluster
}

#[test]
fn a_write_is_served_again_soon_after_the_leader_has_died() {
    let mut cluster = prepared();
    let mut waited = Vec::new();
    for n in 0..tries(3) {
        cluster.equal_dumps(NAME);
        let leader = cluster.leader();
        let died = Instant::now();
        cluster.node(leader).stop();
        let next = wait_for("a write", || write_anywhere(&cluster, n));
        waited.push(died.elapsed());
        assert_ne!(next, leader);
        cluster.node(leader).start_again();
    }
    waited.sort_unstable();
    let part =
        |share: usize| waited[(waited.len() - 1) * share / 1000].as_secs_f64() / ELECTION.as_secs_f64();
    let late = waited.iter().filter(|time| **time > 2 * ELECTION).count();
    println!(
        "from the death of a leader to the next write, in election timeouts of {ELECTION:?}, {} tries: \
         half {:.2}, 90 % {:.2}, 99 % {:.2}, longest {:.2}; more than two: {late}",
        waited.len(),
        part(500),
        part(900),
        part(990),
        part(1000),
    );
}

/// The term in the node's metadata.
pub fn stored_term(cluster: &mut Cluster, number: usize) -> u64 {
    let mut disk = RealDisk::open(cluster.node(number).directory()).unwrap();
    let newest = ["metadata1", "metadata2"].into_iter().filter_map(|name| {
        let bytes = disk.read_all(name).ok()?;
        metadata::decode(name, &bytes).unwrap()
    });
    newest.max_by_key(|found| found.version).unwrap().term.0
}

#[test]
fn nodes_that_restart_raise_no_term() {
    let mut cluster = prepared();
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    let before = stored_term(&mut cluster, 1);
    for n in 0..tries(4) {
        let follower = 2 + n % 2;
        cluster.node(follower).restart();
        // The connection serves only as long as the node leads.
        client.exec(&format!("INSERT INTO t VALUES({n})"), &[]).ok();
        // Both are needed for the next.
        cluster.equal_dumps(NAME);
    }
    for number in 1..=3 {
        assert_eq!(stored_term(&mut cluster, number), before, "node {number}");
    }
}
