//! The memory of what was deleted goes back to the system.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "waits for a condition, up to a bound")]
#![allow(dead_code, reason = "shared helpers")]

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::client::Client;
use support::node::TestNode;

/// Of this process, now.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// One test, so that the process is its own: the memory of another one would count too.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn a_database_that_was_emptied_leaves_little_memory_behind() {
    const MIB: u64 = 128;
    let node = TestNode::start();
    let mut client = Client::with_database(node.address(), "test");
    client.exec("CREATE TABLE small(a)", &[]).ok();
    client.exec("CREATE TABLE large(a)", &[]).ok();
    for _ in 0..MIB / 8 {
        for (table, rows) in [("small", 512), ("large", 1536)] {
            let rows =
                format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})");
            client.exec(&format!("{rows} INSERT INTO {table} SELECT randomblob(3600) FROM n"), &[]).ok();
        }
    }
    let full = resident_mib();
    assert!(full >= MIB, "{full} MiB for a database of {MIB}");
    for statement in
        ["UPDATE small SET a = randomblob(3600)", "DROP TABLE large", "VACUUM", "DELETE FROM small", "VACUUM"]
    {
        client.exec(statement, &[]).ok();
    }
    // The database has two pages now. What the log keeps in memory, and the pages it would be read into, stay.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left = resident_mib();
        if left < 64 {
            break;
        }
        assert!(Instant::now() < deadline, "{left} MiB stay of {full}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
