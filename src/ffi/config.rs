//! Settings of a node.
#![expect(unsafe_code, reason = "exported symbols, and handles that C hands in")]

use std::ffi::{c_int, c_uint, c_ulonglong};
use std::time::Duration;

use super::handle::{dqlite_node, with_node};
use crate::admin::{Code, Failure, NodeConfig};

/// Runs `change` on the settings that are fixed once the node runs.
///
/// # Safety
/// As [`with_node`].
unsafe fn configure(
    n: *mut dqlite_node,
    change: impl FnOnce(&mut NodeConfig) -> Result<(), Failure>,
) -> c_int {
    // SAFETY: the caller's contract is the same.
    unsafe { with_node(n, |node, _| node.configure(change)) }
}

/// Runs `change` on the settings that may change at any time.
///
/// # Safety
/// As [`with_node`].
unsafe fn adjust(n: *mut dqlite_node, change: impl FnOnce(&mut NodeConfig)) -> c_int {
    let body = |node: &mut crate::admin::Node, _: &dqlite_node| {
        node.adjust(change);
        Ok(())
    };
    // SAFETY: the caller's contract is the same.
    unsafe { with_node(n, body) }
}

/// Tell the node how long a message to another node takes, in nanoseconds. See dqlite_node_set_network_latency_ms().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_network_latency(
    n: *mut dqlite_node,
    nanoseconds: c_ulonglong,
) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { configure(n, |config| config.set_network_latency_ns(nanoseconds)) }
}

/// Tell the node how long a message to another node takes, in milliseconds, from 1 to 3600000.
///
/// A leader then sends heartbeats every one and a half times that, and fifteen times that without one makes a
/// node call an election. By default these are 500 and 3000 milliseconds. Not while the node runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_network_latency_ms(
    t: *mut dqlite_node,
    milliseconds: c_uint,
) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { configure(t, |config| config.set_network_latency_ms(milliseconds)) }
}

/// Set the failure domain: a number that nodes share which are likely to fail together. The default is 0.
///
/// Clients can ask for it, and roles are spread over failure domains. It may change while the node runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_failure_domain(n: *mut dqlite_node, code: c_ulonglong) -> c_int {
    let body = |node: &mut crate::admin::Node, _: &dqlite_node| {
        node.set_failure_domain(code);
        Ok(())
    };
    // SAFETY: the caller passes null or a live handle.
    unsafe { with_node(n, body) }
}

/// Set when snapshots are taken: after snapshot_threshold log entries, of which snapshot_trailing stay.
///
/// snapshot_trailing must be at least 4 and at least snapshot_threshold. Not while the node runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_snapshot_params(
    n: *mut dqlite_node,
    snapshot_threshold: c_uint,
    snapshot_trailing: c_uint,
) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { configure(n, |config| config.set_snapshot_params(snapshot_threshold, snapshot_trailing, 0)) }
}

/// As dqlite_node_set_snapshot_params(), with a choice of what stays in the log behind a snapshot.
///
/// With DQLITE_SNAPSHOT_TRAILING_STATIC that is always snapshot_trailing entries. With
/// DQLITE_SNAPSHOT_TRAILING_DYNAMIC it is as many as are together not larger than the snapshot, but at least
/// snapshot_threshold and at most snapshot_trailing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_snapshot_params_v2(
    n: *mut dqlite_node,
    snapshot_threshold: c_uint,
    snapshot_trailing: c_uint,
    trailing_strategy: c_int,
) -> c_int {
    let set = |config: &mut NodeConfig| {
        config.set_snapshot_params(snapshot_threshold, snapshot_trailing, trailing_strategy)
    };
    // SAFETY: the caller passes null or a live handle.
    unsafe { configure(n, set) }
}

/// Set the size of the blocks in which the log is written: a power of two from 512 to 262144.
///
/// Returns DQLITE_ERROR for any other size. Not while the node runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_block_size(n: *mut dqlite_node, size: usize) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { configure(n, |config| config.set_block_size(size)) }
}

/// Let the node, whenever it leads, choose the roles of all nodes, so that dqlite_node_set_target_voters() and
/// dqlite_node_set_target_standbys() are met. Before dqlite_node_start(); off by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_enable_role_management(n: *mut dqlite_node) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { adjust(n, |config| config.role_management = true) }
}

/// Set how many voters role management aims at. The default is 3. All nodes should agree.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_target_voters(n: *mut dqlite_node, voters: c_int) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { adjust(n, |config| config.target_voters = voters) }
}

/// Set how many stand-bys role management aims at. The default is 0. All nodes should agree.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_target_standbys(n: *mut dqlite_node, standbys: c_int) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { adjust(n, |config| config.target_standbys = standbys) }
}

/// Set the number of threads for blocking work. The default is 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_pool_thread_count(
    n: *mut dqlite_node,
    thread_count: c_uint,
) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { adjust(n, |config| config.pool_threads = thread_count) }
}

/// Set whether a damaged end of the log is put aside when it is loaded, instead of failing. On by default.
///
/// What is put aside stays in the data directory under a name that begins with "corrupt-". The node gets it anew
/// from the others where there are others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_auto_recovery(n: *mut dqlite_node, enabled: bool) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { adjust(n, |config| config.auto_recovery = enabled) }
}

/// Set whether snapshots are compressed. On by default. Either kind can always be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_snapshot_compression(n: *mut dqlite_node, enabled: bool) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { adjust(n, |config| config.compression = enabled) }
}

/// Set how long a write waits for others on the same database, in milliseconds, before it fails with SQLITE_BUSY.
///
/// 0 means not at all. Without this call it waits for a few seconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_busy_timeout(n: *mut dqlite_node, msecs: c_uint) -> c_int {
    let timeout = Duration::from_millis(u64::from(msecs));
    // SAFETY: the caller passes null or a live handle.
    unsafe { adjust(n, |config| config.busy_timeout = Some(timeout)) }
}

/// Not supported any more: always fails. It is here for programs that were made for releases which had it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_enable_disk_mode(n: *mut dqlite_node) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { configure(n, |_| Err(Failure::logged(Code::Error, "disk mode: not supported any more"))) }
}
