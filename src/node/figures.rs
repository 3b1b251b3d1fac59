//! What an operator may want to know of the core: figures, taken in one moment between two steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::core::Core;
use crate::base::latency::{Latencies, Latency};
use crate::base::{Index, Journal, NodeId, Role, Term, Time};
use crate::codec::client::Failure;
use crate::pages::{Version, View};

/// Different failures that are counted apart; further ones count as code 0. There are not so many.
const CODES_MAX: usize = 128;

/// Peers whose messages are counted; ids come from whoever connects.
const PEERS_MAX: usize = 1024;

/// Databases that are told of; clients choose the names, and thousands would bury the rest.
pub const DATABASES_MAX: usize = 256;

/// What the core counts as it goes.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) statements: u64,
    pub(super) elections_won: u64,
    leader: Option<(Term, NodeId)>,
    leaders: u64,
    entries: u64,
    entry_bytes: u64,
    failures: BTreeMap<u64, u64>,
    pub(super) rolled_back: u64,
    pub(super) snapshots: Snapshots,
    pub(super) writers_waited: Latency,
    heard: BTreeMap<NodeId, Traffic>,
}

/// How many snapshots there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshots {
    /// Taken of the own databases.
    pub taken: u64,
    /// Not taken, for some reason.
    pub failed: u64,
    /// Received from a leader and put in place.
    pub received: u64,
    /// Attempts to send one to another server, whatever came of them.
    pub sent: u64,
}

/// What went one way between this server and another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Whole messages.
    pub messages: u64,
    /// Bytes, whatever they were.
    pub bytes: u64,
}

impl Tally {
    pub(super) fn handle_applied(&mut self, bytes: usize) {
        self.entries += 1;
        self.entry_bytes = self.entry_bytes.saturating_add(bytes as u64);
    }

    pub(super) fn handle_failure(&mut self, failure: &Failure) {
        let room = self.failures.len() < CODES_MAX || self.failures.contains_key(&failure.code);
        *self.failures.entry(if room { failure.code } else { 0 }).or_default() += 1;
    }

    pub(super) fn handle_leader(&mut self, term: Term, leader: Option<NodeId>) {
        if let Some(leader) = leader
            && self.leader.replace((term, leader)) != Some((term, leader))
        {
            self.leaders += 1;
        }
    }

    pub(super) fn handle_heard(&mut self, from: NodeId, messages: u64, bytes: usize) {
        if self.heard.len() < PEERS_MAX || self.heard.contains_key(&from) {
            let heard = self.heard.entry(from).or_default();
            heard.messages += messages;
            heard.bytes = heard.bytes.saturating_add(bytes as u64);
        }
    }
}

/// How the node stands.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Its id.
    pub id: NodeId,
    /// What it may do, by the configuration in force; `None` when it is no member.
    pub role: Option<Role>,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it takes part: false once something happened that must not.
    pub available: bool,
    /// The term.
    pub term: Term,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// The last entry known to be committed.
    pub commit: Index,
    /// The last entry that was applied.
    pub applied: Index,
    /// The first entry that the log has.
    pub first: Index,
    /// The last one.
    pub last: Index,
    /// What the newest snapshot covers.
    pub snapshot: Index,
    /// Bytes of the entries that the log has.
    pub log_bytes: u64,
    /// Of those, bytes in memory.
    pub log_cached_bytes: u64,
    /// The servers of the configuration in force.
    pub servers: Vec<NodeId>,
    /// Clients that are connected.
    pub clients: u64,
    /// Servers' connections to this one.
    pub inbound: u64,
    /// Statements that clients have prepared.
    pub prepared: u64,
    /// Clients that wait for the right to write, and for how long others had to.
    pub writers_waiting: u64,
    /// See above.
    pub writers_waited: Latencies,
    /// Transactions that are finished and not committed yet.
    pub uncommitted: u64,
    /// Transactions committed while this node led.
    pub commits: u64,
    /// How long the entries with them took from the proposal to the commit.
    pub commit_latency: Latencies,
    /// Statements that clients asked for.
    pub statements: u64,
    /// Refusals by code.
    pub failures: BTreeMap<u64, u64>,
    /// Transactions rolled back since they idled while others waited.
    pub rolled_back: u64,
    /// Readers that were stopped since they kept too much in memory.
    pub readers_stopped: u64,
    /// Elections that this node won.
    pub elections_won: u64,
    /// How many leaders it has seen, itself included.
    pub leaders: u64,
    /// Entries that were applied.
    pub entries: u64,
    /// Their bytes.
    pub entry_bytes: u64,
    /// Snapshots.
    pub snapshots: Snapshots,
    /// What came from other servers.
    pub heard: BTreeMap<NodeId, Traffic>,
    /// The databases, each as it is after the entry [`Self::applied`].
    pub databases: Vec<(Vec<u8>, Arc<Version>)>,
}

impl Core {
    /// How things stand.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (consensus, tally) = (&self.consensus, &self.tally);
        let configuration = consensus.configuration();
        let (commits, commit_latency) = self.proposer.committed();
        let databases = self.databases.iter().take(DATABASES_MAX);
        let pinned = databases.map(|(_, it)| (it.database.name().to_vec(), it.database.pin(View::Committed)));
        Figures {
            id: self.config.id,
            role: configuration.get(self.config.id).map(|own| own.role),
            leads: self.is_leading(),
            available: self.unavailable().is_none(),
            term: consensus.term(),
            leader: consensus.leader(),
            commit: consensus.commit_index(),
            applied: self.applied_index(),
            first: consensus.first_index(),
            last: consensus.last_index(),
            snapshot: consensus.snapshot().map_or(Index(0), |meta| meta.index),
            log_bytes: consensus.log_bytes(),
            log_cached_bytes: consensus.cached_bytes() as u64,
            servers: configuration.servers.iter().map(|server| server.id).collect(),
            clients: self.clients.len() as u64,
            inbound: self.inbound.len() as u64,
            prepared: self.clients.values().map(|client| client.kept.len() as u64).sum(),
            writers_waiting: self.databases.iter().map(|(_, it)| it.queue.waiting() as u64).sum(),
            writers_waited: tally.writers_waited.read(),
            uncommitted: self.databases.iter().map(|(_, it)| it.database.speculative_count() as u64).sum(),
            commits,
            commit_latency,
            statements: tally.statements,
            failures: tally.failures.clone(),
            rolled_back: tally.rolled_back,
            readers_stopped: self.readers_stopped(),
            elections_won: tally.elections_won,
            leaders: tally.leaders,
            entries: tally.entries,
            entry_bytes: tally.entry_bytes,
            snapshots: tally.snapshots,
            heard: tally.heard.clone(),
            databases: pinned.collect(),
        }
    }

    /// The last events, for whoever wonders.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// A client that waited to write may do so now.
    pub(super) fn note_granted(&mut self, since: Option<Time>, now: Time) {
        if let Some(since) = since {
            self.tally.writers_waited.record(now.since(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CODES_MAX, PEERS_MAX, Tally, Traffic};
    use crate::base::{NodeId, Term};
    use crate::codec::client::Failure;

    #[test]
    fn what_others_can_make_up_does_not_fill_the_memory() {
        let mut tally = Tally::default();
        for number in 1..=5000 {
            tally.handle_failure(&Failure::new(number, "x"));
            tally.handle_heard(NodeId(number), 1, 10);
        }
        assert_eq!((tally.failures.len(), tally.heard.len()), (CODES_MAX + 1, PEERS_MAX));
        assert_eq!(tally.failures.values().sum::<u64>(), 5000);
        tally.handle_heard(NodeId(1), 0, 5);
        assert_eq!(tally.heard[&NodeId(1)], Traffic { messages: 1, bytes: 15 });
    }

    #[test]
    fn a_leader_counts_once_per_term() {
        let mut tally = Tally::default();
        for (term, leader) in [(1, None), (1, Some(2)), (1, None), (1, Some(2)), (2, Some(2)), (3, Some(1))] {
            tally.handle_leader(Term(term), leader.map(NodeId));
        }
        assert_eq!(tally.leaders, 3);
    }
}
