//! Figures of real nodes, asked for over HTTP as a collector would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "reads the documentation, waits with a bound")]
#![allow(dead_code, reason = "shared helpers")]

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::sync::atomic::{AtomicU8, Ordering};

use dqlite::base::NodeId;
use dqlite::runtime::metrics::server::GUESTS_MAX;
use dqlite::runtime::metrics::table::{CHECKSUMS, METRICS};
use dqlite::runtime::metrics::text::{Kind, Metric};
use support::client::Client;
use support::cluster::{Cluster, wait_for};
use support::node::TestNode;

fn node(metrics: &str) -> TestNode {
    TestNode::start_with(|options| options.settings.metrics = Some(metrics.to_owned()))
}

/// An address of this test alone: nodes that name the same one would share it.
fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    format!("127.0.1.{}:0", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn address(node: &TestNode) -> SocketAddr {
    node.metrics_address().unwrap()
}

/// Asks, and gives the body of the answer.
fn ask(mut stream: impl Read + Write, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    body.to_owned()
}

/// The samples of a page by name and labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let split = lines.map(|line| line.rsplit_once(' ').unwrap());
    split.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

fn scrape(node: &TestNode) -> BTreeMap<String, f64> {
    samples(&ask(TcpStream::connect(address(node)).unwrap(), "/metrics"))
}

#[test]
fn figures_move_with_what_a_node_does_as_they_must() {
    const WRITES: u32 = 20;
    let node = node(&own_address());
    let mut client = Client::with_database(node.address(), "test");
    client.exec("CREATE TABLE t(a)", &[]).ok();
    let before = scrape(&node);
    for _ in 0..WRITES {
        client.exec("INSERT INTO t VALUES(randomblob(5000))", &[]).ok();
    }
    assert_eq!(client.exec("INSERT INTO nothing VALUES(1)", &[]).code(), 1);
    let after = scrape(&node);
    let moved = |name: &str| after[name] - before.get(name).copied().unwrap_or(0.0);
    let writes = f64::from(WRITES);
    // One client writes one row after the other: an entry, and a write of the log with its sync, for each.
    for name in [
        "dqlite_commits_total{node=\"1\"}",
        "dqlite_applied_entries_total{node=\"1\"}",
        "dqlite_commit_index{node=\"1\"}",
        "dqlite_applied_index{node=\"1\"}",
        "dqlite_last_index{node=\"1\"}",
        "dqlite_commit_seconds_count{node=\"1\"}",
        "dqlite_append_entries_count{node=\"1\"}",
        "dqlite_append_entries_bucket{node=\"1\",le=\"1\"}",
        "dqlite_append_entries_sum{node=\"1\"}",
    ] {
        assert_eq!(moved(name), writes, "{name}");
    }
    assert_eq!(moved("dqlite_statements_total{node=\"1\"}"), writes + 1.0);
    assert_eq!(moved("dqlite_failures_total{node=\"1\",code=\"1\"}"), 1.0);
    assert_eq!(moved("dqlite_sync_seconds_count{node=\"1\",use=\"snapshot\"}"), 0.0);
    for (name, least) in [
        ("dqlite_sync_seconds_count{node=\"1\",use=\"log\"}", writes),
        ("dqlite_sync_seconds_sum{node=\"1\",use=\"log\"}", 0.0),
        ("dqlite_commit_seconds_sum{node=\"1\"}", 0.0),
        ("dqlite_written_bytes_total{node=\"1\",use=\"log\"}", 5000.0 * writes),
        ("dqlite_applied_bytes_total{node=\"1\"}", 5000.0 * writes),
        ("dqlite_log_bytes{node=\"1\"}", 5000.0 * writes),
        ("dqlite_database_bytes{node=\"1\",database=\"test\"}", 5000.0 * writes),
        ("dqlite_loop_turn_seconds_count{node=\"1\"}", 1.0),
    ] {
        assert!(moved(name) >= least && moved(name) > 0.0, "{name}: {}", moved(name));
    }
    for (name, value) in [
        ("dqlite_up{node=\"1\"}", 1.0),
        ("dqlite_available{node=\"1\"}", 1.0),
        ("dqlite_leader{node=\"1\"}", 1.0),
        ("dqlite_leader_id{node=\"1\"}", 1.0),
        ("dqlite_role{node=\"1\",role=\"voter\"}", 1.0),
        ("dqlite_elections_won_total{node=\"1\"}", 1.0),
        ("dqlite_leaders_total{node=\"1\"}", 1.0),
        ("dqlite_clients{node=\"1\"}", 1.0),
        ("dqlite_sql_connections{node=\"1\"}", 1.0),
        ("dqlite_writers_waiting{node=\"1\"}", 0.0),
        ("dqlite_uncommitted_transactions{node=\"1\"}", 0.0),
    ] {
        assert_eq!(after[name], value, "{name}");
    }
    // Every figure is told, but for those that a node alone has not.
    for Metric { name, .. } in METRICS.iter().filter(|metric| !metric.name.starts_with("dqlite_peer_")) {
        assert!(after.keys().any(|key| key.starts_with(name)), "{name} is not told");
    }
}

#[test]
fn who_waits_to_write_and_who_is_turned_away_is_counted() {
    let node = TestNode::start_with(|options| {
        options.settings.metrics = Some(own_address());
        options.busy_timeout = Some(std::time::Duration::from_millis(20));
    });
    let mut clients = [(); 2].map(|()| Client::with_database(node.address(), "test"));
    clients[0].exec("CREATE TABLE t(a)", &[]).ok();
    clients[0].exec("BEGIN IMMEDIATE", &[]).ok();
    assert_eq!(clients[1].exec("INSERT INTO t VALUES(1)", &[]).code(), 5);
    clients[0].exec("COMMIT", &[]).ok();
    clients[1].prepare("INSERT INTO t VALUES(1)");
    let found = scrape(&node);
    assert_eq!(found["dqlite_failures_total{node=\"1\",code=\"5\"}"], 1.0);
    assert_eq!(found["dqlite_prepared_statements{node=\"1\"}"], 1.0);
    assert!(found["dqlite_writer_wait_seconds_count{node=\"1\"}"] >= 2.0);
}

#[test]
fn a_snapshot_shows_in_the_figures() {
    let node = TestNode::start_with(|options| {
        options.settings.metrics = Some(own_address());
        options.snapshots =
            dqlite::node::snapshots::SnapshotPolicy::Given { threshold: 10, trailing: 2, dynamic: false };
    });
    let mut client = Client::with_database(node.address(), "test");
    client.exec("CREATE TABLE t(a)", &[]).ok();
    for _ in 0..15 {
        client.exec("INSERT INTO t VALUES(randomblob(1000))", &[]).ok();
    }
    let found = wait_for("a snapshot", || {
        let found = scrape(&node);
        (found["dqlite_snapshots_total{node=\"1\",outcome=\"taken\"}"] >= 1.0).then_some(found)
    });
    for name in [
        "dqlite_snapshot_index{node=\"1\"}",
        "dqlite_snapshot_bytes{node=\"1\"}",
        "dqlite_snapshot_seconds_count{node=\"1\"}",
        "dqlite_sync_seconds_count{node=\"1\",use=\"snapshot\"}",
        "dqlite_written_bytes_total{node=\"1\",use=\"snapshot\"}",
    ] {
        assert!(found[name] > 0.0, "{name}");
    }
    assert_eq!(found["dqlite_snapshots_total{node=\"1\",outcome=\"failed\"}"], 0.0);
}

#[test]
fn the_checksum_of_a_database_changes_with_it_and_only_then() {
    let node = node(&own_address());
    let mut client = Client::with_database(node.address(), "test");
    client.exec("CREATE TABLE t(a)", &[]).ok();
    let sums = || {
        let found = samples(&ask(TcpStream::connect(address(&node)).unwrap(), "/checksums"));
        let sum = found["dqlite_database_checksum{node=\"1\",database=\"test\"}"];
        (sum, found["dqlite_database_checksum_index{node=\"1\"}"])
    };
    let first = sums();
    assert_eq!(sums(), first);
    client.exec("INSERT INTO t VALUES(1)", &[]).ok();
    let second = sums();
    assert!(second.0 != first.0 && second.1 > first.1, "{first:?}, {second:?}");
    client.exec("DELETE FROM t", &[]).ok();
    assert_ne!(sums().0, second.0);
}

#[test]
fn nodes_of_one_process_share_an_address_and_the_last_one_frees_it() {
    let name = format!("dqlite-metrics-{}", std::process::id());
    let connect = || UnixStream::connect_addr(&UnixAddr::from_abstract_name(&name).unwrap());
    let mut first = node(&format!("@{name}"));
    let mut second = TestNode::start_with(|options| {
        options.id = NodeId(2);
        options.settings.metrics = Some(format!("@{name}"));
    });
    let told = |node: &str| {
        let page = ask(connect().unwrap(), "/metrics");
        assert_eq!(page.matches("# TYPE dqlite_term gauge").count(), 1);
        samples(&page).contains_key(&format!("dqlite_term{{node=\"{node}\"}}"))
    };
    assert!(told("1") && told("2"));
    first.stop();
    assert!(!told("1") && told("2"));
    second.stop();
    connect().unwrap_err();
    // An address that is free again can be used again.
    first.start_again();
    assert!(told("1"));
}

#[test]
fn a_node_serves_also_when_its_figures_have_no_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let node = node(&taken.local_addr().unwrap().to_string());
    assert_eq!(node.metrics_address(), None);
    Client::with_database(node.address(), "test").exec("CREATE TABLE t(a)", &[]).ok();
}

#[test]
fn whatever_comes_to_the_address_does_no_harm() {
    let node = node(&own_address());
    let mut client = Client::with_database(node.address(), "test");
    // More than are served at a time, and none of them ever asks.
    let idle: Vec<_> = (0..2 * GUESTS_MAX).map(|_| TcpStream::connect(address(&node)).unwrap()).collect();
    for garbage in [&[0xff; 100_000][..], b"\r\n\r\n", b"GET / HTTP/1.1", b"POST / HTTP/1.1\r\n\r\n", b""] {
        let mut stream = TcpStream::connect(address(&node)).unwrap();
        // It may be refused before it has sent everything.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.0 4"), "{garbage:?}");
    }
    client.exec("CREATE TABLE t(a)", &[]).ok();
    assert_eq!(scrape(&node)["dqlite_up{node=\"1\"}"], 1.0);
    drop(idle);
}

#[test]
fn replicas_have_equal_checksums_at_equal_entries_and_count_what_they_say_to_each_other() {
    let place = own_address();
    let mut cluster = Cluster::with(3, |options| options.settings.metrics = Some(place.clone()));
    let (_, mut client) = cluster.leader_client("test");
    client.exec("CREATE TABLE t(a)", &[]).ok();
    for _ in 0..10 {
        client.exec("INSERT INTO t VALUES(randomblob(2000))", &[]).ok();
    }
    let place = address(cluster.node(1));
    let page = |path: &str| samples(&ask(TcpStream::connect(place).unwrap(), path));
    let told = wait_for("equal entries", || {
        let told = page("/checksums");
        let index = |node| told.get(&format!("dqlite_database_checksum_index{{node=\"{node}\"}}"));
        let equal = index(1).is_some() && index(1) == index(2) && index(2) == index(3);
        equal.then(|| told.clone())
    });
    let sums =
        [1, 2, 3].map(|node| told[&format!("dqlite_database_checksum{{node=\"{node}\",database=\"test\"}}")]);
    assert!(sums[0] == sums[1] && sums[1] == sums[2], "{told:?}");

    let told = page("/metrics");
    let mut traffic: Vec<_> =
        told.iter().filter(|(name, _)| name.starts_with("dqlite_peer_bytes_total")).collect();
    assert_eq!(traffic.len(), 3 * 2 * 2);
    // Followers say nothing to each other but before an election; to and from the leader everybody does.
    traffic.retain(|(_, bytes)| **bytes > 0.0);
    assert!(traffic.len() >= 8, "{traffic:?}");
    assert_eq!(
        told.iter().filter(|(name, lead)| name.starts_with("dqlite_leader{") && **lead == 1.0).count(),
        1
    );
}

/// The table of the documentation is the list of what operators may rely on.
#[test]
fn every_figure_is_documented_with_its_kind_and_nothing_else_is() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `dqlite_"));
    let documented: Vec<(String, String)> = rows
        .map(|row| {
            let mut cells = row.split('|');
            let name = cells.next().unwrap().split(['`', '{']).next().unwrap();
            (format!("dqlite_{name}"), cells.next().unwrap().trim().to_owned())
        })
        .collect();
    let kind = |kind| match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
    };
    let told = METRICS.iter().chain(CHECKSUMS).map(|it| (it.name.to_owned(), kind(it.kind).to_owned()));
    assert_eq!(documented, told.collect::<Vec<_>>());
}
