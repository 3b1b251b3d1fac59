//! All figures that are told, in the order in which they are. `docs/operations.md` has the same table.

use super::text::Kind::{Counter, Gauge, Histogram};
use super::text::{Kind, Metric};

const fn metric(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric { name, kind, help }
}

/// What `/metrics` tells.
pub const METRICS: &[Metric] = &[
    metric("dqlite_up", Gauge, "1 if the node's loop answered within a second."),
    metric("dqlite_available", Gauge, "1 as long as nothing happened that must not: see the log else."),
    metric("dqlite_role", Gauge, "1 for the role that the configuration gives the node."),
    metric("dqlite_leader", Gauge, "1 if the node leads."),
    metric("dqlite_leader_id", Gauge, "The id of the leader, 0 while none is known."),
    metric("dqlite_term", Gauge, "The term."),
    metric("dqlite_commit_index", Gauge, "The last entry known to be committed."),
    metric("dqlite_applied_index", Gauge, "The last entry that was applied to the databases."),
    metric("dqlite_first_index", Gauge, "The first entry that the log has."),
    metric("dqlite_last_index", Gauge, "The last entry that the log has."),
    metric("dqlite_snapshot_index", Gauge, "The last entry that the newest snapshot covers."),
    metric("dqlite_log_bytes", Gauge, "Bytes of the entries that the log has."),
    metric("dqlite_log_cached_bytes", Gauge, "Those of them that are in memory."),
    metric("dqlite_elections_won_total", Counter, "Elections that the node won."),
    metric("dqlite_leaders_total", Counter, "Leaders seen, the node itself included."),
    metric("dqlite_applied_entries_total", Counter, "Entries applied."),
    metric("dqlite_applied_bytes_total", Counter, "Bytes of them."),
    metric("dqlite_database_bytes", Gauge, "Bytes of the database."),
    metric("dqlite_clients", Gauge, "Clients that are connected."),
    metric("dqlite_sql_connections", Gauge, "Open connections of SQLite."),
    metric("dqlite_prepared_statements", Gauge, "Statements that clients keep."),
    metric("dqlite_statements_total", Counter, "Statements that clients asked for."),
    metric("dqlite_writers_waiting", Gauge, "Clients that wait for their turn to write."),
    metric("dqlite_writer_wait_seconds", Histogram, "How long those waited that had their turn."),
    metric("dqlite_uncommitted_transactions", Gauge, "Transactions that are finished and not committed."),
    metric("dqlite_commits_total", Counter, "Transactions committed while the node led."),
    metric(
        "dqlite_commit_seconds",
        Histogram,
        "From the proposal of an entry to its commit, while the node led.",
    ),
    metric("dqlite_failures_total", Counter, "Refused requests, by code."),
    metric(
        "dqlite_rolled_back_total",
        Counter,
        "Transactions rolled back since they idled while others waited.",
    ),
    metric(
        "dqlite_readers_interrupted_total",
        Counter,
        "Readers stopped since they kept too much in memory.",
    ),
    metric("dqlite_loop_turn_seconds", Histogram, "Turns of the loop."),
    metric("dqlite_sync_seconds", Histogram, "Syncs of files and of the directory."),
    metric("dqlite_written_bytes_total", Counter, "Bytes written to the data directory."),
    metric("dqlite_append_entries", Histogram, "Entries that share one write of the log and its sync."),
    metric(
        "dqlite_snapshots_total",
        Counter,
        "Snapshots taken, failed, received from a leader, and sent to peers.",
    ),
    metric("dqlite_snapshots_running", Gauge, "Snapshots that are being taken or received."),
    metric("dqlite_snapshot_seconds", Histogram, "How long the snapshots took that were taken."),
    metric("dqlite_snapshot_bytes", Gauge, "Bytes of the newest one that was taken."),
    metric("dqlite_peer_connections", Gauge, "Connections that other servers opened."),
    metric("dqlite_peer_messages_total", Counter, "Messages from and to each other server."),
    metric(
        "dqlite_peer_bytes_total",
        Counter,
        "Bytes from and to each other server, without snapshots sent.",
    ),
];

/// What `/checksums` tells.
pub const CHECKSUMS: &[Metric] = &[
    metric("dqlite_database_checksum", Gauge, "CRC-32 of the database after the entry below."),
    metric("dqlite_database_checksum_index", Gauge, "The applied entry at which the checksum was taken."),
];
