//! A node with nothing to do does nothing: how often its threads wake up, and what they use of a processor.
//!
//! `IDLE_SECONDS` sets how long is measured (2); the figures are printed (`--nocapture`). A slow or busy machine makes
//! fewer wake-ups per second, never more, so a limit for them can be a test. The processor's time is only printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "times measured, threads looked at in /proc")]
#![allow(dead_code, reason = "shared helpers")]

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::client::Client;
use support::cluster::Cluster;
use support::node::TestNode;

/// Wake-ups and nanoseconds of a processor of all threads that belong to nodes.
fn used() -> (u64, u64) {
    let mut sum = (0, 0);
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if !read("comm").starts_with("dqlite-") {
            continue;
        }
        let status = read("status");
        let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum.0 += waits.map_or(0, |count| count.trim().parse().unwrap());
        sum.1 += read("schedstat").split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    sum
}

/// What `nodes` nodes do in a while: wake-ups per second and node, and the share of a processor, in per cent.
fn measure(name: &str, nodes: u32) -> f64 {
    let seconds = std::env::var("IDLE_SECONDS").ok().map_or(2.0, |text| text.parse().unwrap());
    let (before, begun) = (used(), Instant::now());
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let (after, took) = (used(), begun.elapsed().as_secs_f64());
    let wakes = (after.0.saturating_sub(before.0)) as f64 / took / f64::from(nodes);
    let busy = (after.1.saturating_sub(before.1)) as f64 / took / 1e7 / f64::from(nodes);
    println!("{name}: {wakes:.1} wake-ups/s and {busy:.3} % of a core per node");
    wakes
}

/// Waits until the nodes wake up less often than this: segments may still be prepared for a while, and a machine that
/// is busy does so slowly.
fn settles_below(limit: f64, name: &str, nodes: u32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let wakes = measure(name, nodes);
        if wakes < limit {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{name}: {wakes} wake-ups/s where less than {limit} were expected"
        );
    }
}

/// One test: the threads of another one would be counted too.
#[test]
fn idle_nodes_sleep() {
    let node = TestNode::start();
    let mut client = Client::with_database(node.address(), "test");
    client.exec("CREATE TABLE t(a)", &[]).ok();
    for _ in 0..50 {
        client.exec("INSERT INTO t VALUES(1)", &[]).ok();
    }
    settles_below(2.0, "one node", 1);
    drop((client, node));

    let cluster = Cluster::with(3, |options| {
        options.heartbeat = Duration::from_millis(500);
        options.election_timeout = Duration::from_millis(3000);
    });
    let (_, mut client) = cluster.leader_client("test");
    client.exec("CREATE TABLE t(a)", &[]).ok();
    settles_below(20.0, "each of three nodes", 3);
}
