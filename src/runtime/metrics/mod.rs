//! Figures for operators: what is counted in this process, asked of its nodes and told as text.
//!
//! Nothing here runs unless somebody asks, but for counting. The loop is asked for what only it knows; when it does
//! not answer, what is counted outside of it is told all the same.

pub mod checksum;
pub mod http;
pub mod server;
pub mod table;
pub mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;

use super::clock;
use super::mailbox::Mailbox;
use super::shell::Message;
use crate::base::latency::Latency;
use crate::base::meter::{DiskMeter, Sizes};
use crate::base::{NodeId, Role};
use crate::node::figures::{Figures, Snapshots, Traffic};
use text::Exposition;

/// How long the loop may take to tell how it stands.
const PATIENCE: Duration = Duration::from_secs(1);

/// What threads of one node count beside the loop.
#[derive(Debug)]
pub struct Meters {
    /// How long turns of the loop took.
    pub turns: Arc<Latency>,
    /// Writes and syncs of the log.
    pub log: Arc<DiskMeter>,
    /// Of segments that are prepared.
    pub ahead: Arc<DiskMeter>,
    /// Of snapshots.
    pub snapshots: Arc<DiskMeter>,
    /// Entries per write of the log.
    pub batches: Arc<Sizes>,
    /// How long snapshots took that were taken of the own databases.
    pub snapshot_latency: Latency,
    /// Bytes of the newest one.
    pub snapshot_bytes: AtomicU64,
}

impl Default for Meters {
    fn default() -> Self {
        let disk = || Arc::new(DiskMeter::new(clock::boot_ns));
        Self {
            turns: Arc::default(),
            log: disk(),
            ahead: disk(),
            snapshots: disk(),
            batches: Arc::default(),
            snapshot_latency: Latency::default(),
            snapshot_bytes: AtomicU64::new(0),
        }
    }
}

/// How a node stands, as its loop tells it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the core knows.
    pub figures: Figures,
    /// Open connections of SQLite.
    pub sql_connections: u64,
    /// Snapshots that are being taken or received.
    pub snapshots_running: u64,
    /// What was sent to other servers.
    pub sent: BTreeMap<NodeId, Traffic>,
}

/// A node that can be asked.
#[derive(Clone)]
pub struct Probe {
    /// Its id.
    pub id: NodeId,
    /// Its loop.
    pub mailbox: Mailbox<Message>,
    /// What is counted beside the loop.
    pub meters: Arc<Meters>,
}

impl Probe {
    /// Asks the loop. `None`: it does not answer, or the node is stopped.
    #[must_use]
    pub fn ask(&self) -> Option<Report> {
        let (tell, told) = bounded(1);
        self.mailbox.post(Message::Measure(tell));
        told.recv_timeout(PATIENCE).ok()
    }

    /// Adds all figures of the node to the page.
    pub fn collect(&self, page: &mut Exposition) {
        let report = self.ask();
        let (id, meters) = (self.id.to_string(), &self.meters);
        let node: &[(&str, &str)] = &[("node", &id)];
        page.add("dqlite_up", node, u64::from(report.is_some()));
        if let Some(report) = &report {
            add_state(page, &id, &report.figures);
            add_work(page, &id, report);
            add_peers(page, &id, report);
        }
        page.add_latencies("dqlite_loop_turn_seconds", node, &meters.turns.read());
        for (what, disk) in [("log", &meters.log), ("ahead", &meters.ahead), ("snapshot", &meters.snapshots)]
        {
            let labels: &[(&str, &str)] = &[("node", &id), ("use", what)];
            page.add_latencies("dqlite_sync_seconds", labels, &disk.syncs.read());
            page.add("dqlite_written_bytes_total", labels, disk.bytes.get());
        }
        page.add_sizes("dqlite_append_entries", node, &meters.batches);
        page.add_latencies("dqlite_snapshot_seconds", node, &meters.snapshot_latency.read());
        page.add("dqlite_snapshot_bytes", node, meters.snapshot_bytes.load(Ordering::Relaxed));
    }
}

fn add_state(page: &mut Exposition, id: &str, figures: &Figures) {
    let node: &[(&str, &str)] = &[("node", id)];
    let role = match figures.role {
        Some(Role::Voter) => "voter",
        Some(Role::StandBy) => "stand-by",
        Some(Role::Spare) => "spare",
        None => "none",
    };
    page.add("dqlite_role", &[("node", id), ("role", role)], 1);
    for (name, value) in [
        ("dqlite_available", u64::from(figures.available)),
        ("dqlite_leader", u64::from(figures.leads)),
        ("dqlite_leader_id", figures.leader.map_or(0, |id| id.0)),
        ("dqlite_term", figures.term.0),
        ("dqlite_commit_index", figures.commit.0),
        ("dqlite_applied_index", figures.applied.0),
        ("dqlite_first_index", figures.first.0),
        ("dqlite_last_index", figures.last.0),
        ("dqlite_snapshot_index", figures.snapshot.0),
        ("dqlite_log_bytes", figures.log_bytes),
        ("dqlite_log_cached_bytes", figures.log_cached_bytes),
        ("dqlite_elections_won_total", figures.elections_won),
        ("dqlite_leaders_total", figures.leaders),
        ("dqlite_applied_entries_total", figures.entries),
        ("dqlite_applied_bytes_total", figures.entry_bytes),
    ] {
        page.add(name, node, value);
    }
    for (name, version) in &figures.databases {
        let (name, bytes) = (String::from_utf8_lossy(name), u64::from(version.n_pages()));
        let labels: &[(&str, &str)] = &[("node", id), ("database", &name)];
        page.add("dqlite_database_bytes", labels, bytes * u64::from(version.page_size()));
    }
}

fn add_work(page: &mut Exposition, id: &str, report: &Report) {
    let (node, figures): (&[(&str, &str)], _) = (&[("node", id)], &report.figures);
    for (name, value) in [
        ("dqlite_clients", figures.clients),
        ("dqlite_sql_connections", report.sql_connections),
        ("dqlite_prepared_statements", figures.prepared),
        ("dqlite_statements_total", figures.statements),
        ("dqlite_writers_waiting", figures.writers_waiting),
        ("dqlite_uncommitted_transactions", figures.uncommitted),
        ("dqlite_commits_total", figures.commits),
        ("dqlite_rolled_back_total", figures.rolled_back),
        ("dqlite_readers_interrupted_total", figures.readers_stopped),
        ("dqlite_snapshots_running", report.snapshots_running),
    ] {
        page.add(name, node, value);
    }
    page.add_latencies("dqlite_writer_wait_seconds", node, &figures.writers_waited);
    page.add_latencies("dqlite_commit_seconds", node, &figures.commit_latency);
    for (code, count) in &figures.failures {
        page.add("dqlite_failures_total", &[("node", id), ("code", &code.to_string())], *count);
    }
    let Snapshots { taken, failed, received, sent } = figures.snapshots;
    for (what, count) in [("taken", taken), ("failed", failed), ("received", received), ("sent", sent)] {
        page.add("dqlite_snapshots_total", &[("node", id), ("outcome", what)], count);
    }
}

fn add_peers(page: &mut Exposition, id: &str, report: &Report) {
    page.add("dqlite_peer_connections", &[("node", id)], report.figures.inbound);
    for peer in report.figures.servers.iter().filter(|peer| **peer != report.figures.id) {
        let name = peer.to_string();
        for (direction, all) in [("in", &report.figures.heard), ("out", &report.sent)] {
            let Traffic { messages, bytes } = all.get(peer).copied().unwrap_or_default();
            let labels: &[(&str, &str)] = &[("node", id), ("peer", &name), ("direction", direction)];
            page.add("dqlite_peer_messages_total", labels, messages);
            page.add("dqlite_peer_bytes_total", labels, bytes);
        }
    }
}

/// The main figures on one line, for the log.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        write!(
            f,
            "term {}, {}, commit index {}, {} entries and {} bytes of log, {} clients, {} writers waiting (99% waited \
             {:?}), {} commits (99% within {:?}), {} refusals, {} snapshots",
            figures.term,
            if figures.leads { "leader" } else { "follower" },
            figures.commit,
            (figures.last.0 + 1).saturating_sub(figures.first.0),
            figures.log_bytes,
            figures.clients,
            figures.writers_waiting,
            figures.writers_waited.per_mille(990),
            figures.commits,
            figures.commit_latency.per_mille(990),
            figures.failures.values().sum::<u64>(),
            figures.snapshots.taken,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mio::{Poll, Token, Waker};

    use super::text::Exposition;
    use super::{Meters, Probe, table};
    use crate::base::NodeId;
    use crate::runtime::mailbox::mailbox;

    #[test]
    fn a_node_whose_loop_does_not_answer_tells_what_is_counted_beside_it() {
        let poll = Poll::new().unwrap();
        let (mailbox, inbox) = mailbox(Waker::new(poll.registry(), Token(0)).unwrap());
        drop(inbox);
        let meters = Arc::<Meters>::default();
        meters.log.bytes.add(4096);
        let mut page = Exposition::default();
        Probe { id: NodeId(7), mailbox, meters }.collect(&mut page);
        let text = page.render(table::METRICS);
        assert!(text.contains("dqlite_up{node=\"7\"} 0\n"), "{text}");
        assert!(text.contains("dqlite_written_bytes_total{node=\"7\",use=\"log\"} 4096\n"), "{text}");
        assert!(!text.contains("dqlite_term"), "{text}");
    }
}
