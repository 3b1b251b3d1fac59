//! The node's state machine: what happened comes in through `handle_*`, what to do goes out through
//! [`Core::poll_effect`], time is an argument.
//!
//! Invariants: a reply that depends on a version leaves only when that version is committed; a client's request
//! has exactly one answer or a closed connection; everything that iterates into an effect does so in a fixed
//! order. Clients' requests are in `clients`, requests about the node in `requests`, other servers in `peers`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::clients::{Client, Gone};
use super::effect::{Effect, Waste};
use super::figures::Tally;
use super::identity;
use super::install::Intake;
use super::peers::Inbound;
use super::readers::Readers;
use super::requests::{Asker, Pending};
use super::roles::Roles;
use super::situation::{self, Situation};
use super::snapshots::{SnapshotPolicy, SnapshotSchedule};
use crate::base::{Entry, EntryKind, Event, Index, Journal, NodeId, Term, Time};
use crate::consensus::{self, Consensus, SnapshotMeta};
use crate::engine::apply::Applier;
use crate::engine::proposer::Proposer;
use crate::engine::{ConnId, Databases, Patience};
use crate::pages::{Database, Veto};
use crate::roles::{Manager, Targets};

/// The settings of a node.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Its id.
    pub id: NodeId,
    /// The address that clients and other nodes know it by.
    pub address: String,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Election timeout.
    pub election_timeout: Duration,
    /// Reported by describe.
    pub failure_domain: u64,
    /// When snapshots are taken.
    pub snapshots: SnapshotPolicy,
    /// How long writers wait.
    pub patience: Patience,
    /// Bytes of a page of every database.
    pub page_size: u32,
    /// SQLite's version number, for the first page of new databases.
    pub sqlite_version: u32,
    /// For everything random.
    pub seed: u64,
}

/// What a start found in the directory.
#[derive(Debug)]
pub struct Restored {
    /// For consensus.
    pub consensus: consensus::Restored,
    /// The index and term of the snapshot, 0 without one.
    pub snapshot: (Index, Term),
    /// The databases of the snapshot.
    pub databases: Vec<std::sync::Arc<Database>>,
}

/// The node.
pub struct Core {
    pub(super) config: CoreConfig,
    pub(super) consensus: Consensus,
    pub(super) databases: Databases,
    pub(super) clients: BTreeMap<ConnId, Client>,
    /// Connections of other servers, which began as clients.
    pub(super) inbound: BTreeMap<ConnId, Inbound>,
    /// A leader's snapshot on its way in.
    pub(super) intake: Option<Intake>,
    pub(super) effects: VecDeque<Effect>,
    pub(super) weight: u64,
    /// Who waits for a change of the cluster, in the order in which they asked.
    pub(super) changes: VecDeque<(Asker, Pending)>,
    pub(super) roles: Roles,
    /// Statements whose interrupt came along with them: when it is heard, and which they are.
    pub(super) early_interrupts: VecDeque<(Time, ConnId, u64)>,
    pub(super) readers: Readers,
    pub(super) situation: Situation,
    /// What was told last of a server that may not connect, and when.
    pub(super) turned_away: Option<(String, Time)>,
    /// Ids that were claimed beside the member that has them, and from where.
    pub(super) impostors: BTreeSet<(NodeId, String)>,
    pub(super) tally: Tally,
    pub(super) journal: Journal,
    pub(super) proposer: Proposer,
    applier: Applier,
    pub(super) schedule: SnapshotSchedule,
    pub(super) snapshot_in_flight: Option<(SnapshotMeta, u64)>,
    pub(super) applied: (Index, Term),
    leading: bool,
    ready: bool,
    /// There is no room on the disk: reads only.
    full: bool,
    failed: Option<String>,
}

impl Core {
    /// A node on what its directory held.
    ///
    /// # Errors
    /// Consensus refuses the log; the text says why.
    pub fn new(config: CoreConfig, restored: Restored, now: Time) -> Result<Self, String> {
        let consensus_config = consensus::Config {
            id: config.id,
            address: config.address.clone(),
            heartbeat: config.heartbeat,
            election_timeout: config.election_timeout,
            seed: config.seed,
        };
        let mut databases = Databases::new(config.patience, config.page_size, config.sqlite_version);
        restored.databases.into_iter().for_each(|database| {
            databases.insert(database);
        });
        let (index, term) = restored.snapshot;
        let no_roles = Manager::new(false, config.id, Targets { voters: 0, standbys: 0 });
        let mut core = Self {
            roles: Roles::new(no_roles),
            schedule: SnapshotSchedule::new(config.snapshots, index, term),
            consensus: Consensus::new(consensus_config, restored.consensus, now)?,
            config,
            databases,
            clients: BTreeMap::new(),
            inbound: BTreeMap::new(),
            intake: None,
            effects: VecDeque::new(),
            weight: 0,
            changes: VecDeque::new(),
            early_interrupts: VecDeque::new(),
            readers: Readers::default(),
            situation: Situation::default(),
            turned_away: None,
            impostors: BTreeSet::new(),
            tally: Tally::default(),
            journal: Journal::default(),
            proposer: Proposer::default(),
            applier: Applier::default(),
            snapshot_in_flight: None,
            applied: restored.snapshot,
            leading: false,
            ready: false,
            full: false,
            failed: None,
        };
        let (id, address) = (core.config.id, &core.config.address);
        if let Some(text) = identity::tell_own(id, address, core.consensus.configuration()) {
            log::warn!("{text}");
        }
        core.settle(now);
        Ok(core)
    }

    /// Sets what describe tells from now on.
    pub fn set_failure_domain(&mut self, code: u64) {
        self.config.failure_domain = code;
    }

    /// What to do now, if anything.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Self::handle_time`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let interrupt = self.early_interrupts.front().map(|&(at, ..)| at);
        let (readers, roles) = (self.readers.poll_timeout(), self.roles.manager.poll_timeout());
        let own =
            [self.consensus.poll_timeout(), self.databases.poll_timeout(), self.situation.poll_timeout()];
        own.into_iter().chain([interrupt, readers, roles]).flatten().min()
    }

    /// Time went on.
    pub fn handle_time(&mut self, now: Time) {
        self.consensus.handle_time(now);
        self.databases.handle_timeout(now);
        self.hear_early_interrupts(now);
        self.check_readers(now);
        self.roles.manager.handle_timeout(now);
        self.settle(now);
    }

    /// Short statements follow one another until [`Self::end_burst`]: while a writer is about to run, what others
    /// have finished waits for it, and shares its entry and its sync.
    pub fn begin_burst(&mut self) {
        self.proposer.begin_burst();
    }

    /// No statement follows at once. Whether something had waited for one, and is proposed now.
    pub fn end_burst(&mut self, now: Time) -> bool {
        let waited = self.proposer.end_burst(&mut self.databases);
        if waited {
            self.settle(now);
        }
        waited
    }

    /// What this ticket stood for is durable.
    pub fn handle_persisted(&mut self, ticket: u64, now: Time) {
        self.journal.note(now, Event::Persisted, [ticket, 0]);
        self.consensus.handle_persisted(ticket);
        self.settle(now);
    }

    /// What this ticket stood for is not durable.
    pub fn handle_persist_failed(&mut self, ticket: u64, no_space: bool, text: &str, now: Time) {
        log::error!("the log could not be written: {text}");
        self.journal.note(now, Event::NotPersisted, [ticket, u64::from(no_space)]);
        self.consensus.handle_persist_failed(ticket, no_space);
        self.settle(now);
    }

    /// Entries or a heartbeat for this peer did not leave.
    pub fn handle_send_failed(&mut self, to: NodeId, now: Time) {
        self.consensus.handle_send_failed(to);
        self.settle(now);
    }

    /// The databases are those of a snapshot at this entry; what was applied before does not count any more.
    pub(super) fn restart_from(&mut self, index: Index, term: Term) {
        self.applier = Applier::default();
        self.applied = (index, term);
        self.schedule.handle_restored(index, term);
    }

    /// Whether this node leads and may serve: an entry of its own term is applied.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether this node will lead in a moment, since nobody else has a vote, and does not serve yet.
    #[must_use]
    pub fn is_about_to_lead(&self) -> bool {
        !self.ready && self.failed.is_none() && self.consensus.is_only_voter()
    }

    /// Why this node takes no part any more, if so.
    #[must_use]
    pub fn unavailable(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// The last entry that was applied.
    pub(super) fn applied_index(&self) -> Index {
        self.applied.0
    }

    /// Whether this node leads.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// Works off everything that follows from what was handled.
    pub(super) fn settle(&mut self, now: Time) {
        loop {
            let queued = self.run_queues(now);
            self.propose(now);
            let followed = self.follow_consensus(now);
            let released = self.release(now);
            let managed = self.manage_roles(now);
            if !queued && !followed && !released && !managed && !self.databases.has_touched() {
                break;
            }
        }
        self.tell_situation(now);
        let waste = Waste { garbage: self.databases.take_garbage(), payloads: self.consensus.take_shed() };
        if !waste.garbage.is_empty() || !waste.payloads.is_empty() {
            self.effects.push_back(Effect::Drop(waste));
        }
    }

    /// Tells the operator who leads, or why nobody does.
    fn tell_situation(&mut self, now: Time) {
        if self.failed.is_some() {
            return;
        }
        let (term, leader) = (self.consensus.term(), self.consensus.leader());
        self.tally.handle_leader(term, leader);
        let view = situation::View {
            id: self.config.id,
            term,
            leader,
            configuration: self.consensus.configuration(),
        };
        // As long as elections take when all is well.
        match self.situation.look(view, 2 * self.config.election_timeout, now) {
            Some(Ok(line)) => log::info!("{line}"),
            Some(Err(line)) => log::warn!("{line}"),
            None => {}
        }
    }

    fn propose(&mut self, now: Time) {
        // While leadership is being handed over transactions wait: if nothing comes of it they go on.
        if !self.leading || self.consensus.holds_proposals() {
            return;
        }
        while let Some(proposal) = self.proposer.next(&mut self.databases) {
            match self.consensus.propose(EntryKind::Command, proposal.payload.clone()) {
                Ok((index, term)) => {
                    self.journal.note(now, Event::Proposed, [index.0, term.0]);
                    self.proposer.handle_proposed(&proposal, index, term, now);
                }
                Err(refused) => {
                    // What was taken can never be committed now: the leadership is over, and its end drops it.
                    log::warn!("a transaction was not accepted by the log: {refused:?}");
                    self.lose_leadership(now);
                    return;
                }
            }
        }
    }

    fn follow_consensus(&mut self, now: Time) -> bool {
        let mut progressed = false;
        while let Some(effect) = self.consensus.poll_effect() {
            progressed = true;
            match effect {
                consensus::Effect::Persist { ticket, truncate_from, entries, metadata } => {
                    self.journal.note(now, Event::Persist, [ticket, entries.len() as u64]);
                    self.effects.push_back(Effect::Persist { ticket, truncate_from, entries, metadata });
                }
                consensus::Effect::Apply { entries } => self.apply(&entries, now),
                consensus::Effect::BecameLeader { term } => {
                    log::info!("this node leads term {term}");
                    self.journal.note(now, Event::Leads, [term.0, 0]);
                    self.leading = true;
                    self.tally.elections_won += 1;
                    if std::mem::take(&mut self.full) && self.ready {
                        log::info!("there is room on the disk again: writes are accepted");
                        self.databases.set_writable(Ok(()));
                    }
                }
                consensus::Effect::BecameFollower { term, leader } => {
                    log::info!("this node follows {leader:?} in term {term}");
                    self.journal.note(now, Event::Follows, [term.0, leader.map_or(0, |id| id.0)]);
                    self.lose_leadership(now);
                }
                consensus::Effect::Unavailable { text } => {
                    log::error!("this node stops taking part: {text}");
                    self.journal.note(now, Event::Unavailable, [self.consensus.term().0, 0]);
                    self.journal.tell();
                    self.failed = Some(text);
                    self.lose_leadership(now);
                }
                consensus::Effect::Send { to, address, message } => {
                    self.effects.push_back(Effect::SendPeer { to, address, message });
                }
                consensus::Effect::SendSnapshot { to, address, term, meta } => {
                    let wanted = (meta.term, meta.index);
                    self.tally.snapshots.sent += 1;
                    self.effects.push_back(Effect::SendSnapshot { to, address, term, wanted });
                }
                consensus::Effect::SnapshotWanted { covering } => self.make_snapshot_covering(covering, now),
                consensus::Effect::ReadEntries { first, last } => {
                    self.effects.push_back(Effect::ReadEntries { first, last });
                }
                consensus::Effect::OutOfSpace { lost_from } => self.run_out_of_space(lost_from, now),
                consensus::Effect::ReadsReady { up_to, .. } => self.release_proved(up_to, now),
                other => self.follow_membership(other, now),
            }
        }
        self.check_ready(now);
        progressed
    }

    fn check_ready(&mut self, now: Time) {
        let ready = self.leading && self.consensus.has_applied_own_term() && self.failed.is_none();
        if ready && !self.ready {
            self.ready = true;
            self.databases.set_writable(if self.full { Err(Veto::Full) } else { Ok(()) });
            self.wake_clients_waiting_for_leadership(now);
            self.roles.manager.handle_leading(true, now);
        }
    }

    /// Applies committed entries, as many as consensus hands out at once.
    pub(super) fn apply(&mut self, entries: &[Entry], now: Time) {
        let last = entries.last().map_or(0, |entry| entry.index.0);
        self.journal.note(now, Event::Apply, [last, entries.len() as u64]);
        for entry in entries {
            self.apply_one(entry, now);
            if self.failed.is_some() {
                // It does not count as applied: no snapshot may cover it.
                return;
            }
            self.applied = (entry.index, entry.term);
            self.tally.handle_applied(entry.payload.len());
            self.schedule.handle_applied(entry.index, entry.payload.len());
        }
        if let Some(last) = entries.last() {
            self.consensus.handle_applied(last.index);
        }
        self.start_snapshot_if_due();
    }

    fn apply_one(&mut self, entry: &Entry, now: Time) {
        match entry.kind {
            EntryKind::Barrier => {}
            EntryKind::Change => self.finish_changes(entry.index, entry.term, now),
            EntryKind::Command => {
                if self.proposer.handle_committed(&mut self.databases, entry.index, entry.term, now) {
                    return;
                }
                if let Err(failure) = self.applier.apply(&mut self.databases, entry.index, &entry.payload) {
                    log::error!("{failure}");
                    self.failed = Some(failure.to_string());
                    self.consensus.fail(&failure.to_string());
                    self.lose_leadership(now);
                }
            }
        }
    }

    /// Sends the replies whose versions are committed now.
    fn release(&mut self, now: Time) -> bool {
        let mut released = false;
        while let Some(conns) = self.databases.poll_released() {
            released = true;
            for conn in conns {
                self.send_held(conn, now);
            }
        }
        released
    }

    /// The disk is full: what was proposed and not made durable is lost and its writers are told so; reads go on,
    /// writes are refused until there is room again.
    fn run_out_of_space(&mut self, lost_from: Index, now: Time) {
        log::error!("the disk is full: log entries from {lost_from} on are lost, writes are refused");
        self.journal.note(now, Event::Full, [lost_from.0, 0]);
        self.full = true;
        self.proposer.clear();
        let failed = self.databases.discard_speculative();
        self.databases.set_writable(Err(Veto::Full));
        for conn in failed {
            self.fail_held(conn);
        }
        self.fail_lost_changes(lost_from, now);
        if !self.ready {
            self.fail_whoever_waits_for_leadership(now);
        }
    }

    /// Whether this node leads and cannot serve before there is room on the disk again.
    pub(super) fn waits_for_room(&self) -> bool {
        self.full && !self.ready
    }

    fn lose_leadership(&mut self, now: Time) {
        let led = self.leading || self.ready;
        (self.leading, self.ready, self.full) = (false, false, false);
        self.proposer.clear();
        self.databases.set_writable(Err(if led { Veto::LeadershipLost } else { Veto::NotLeader }));
        let failed = self.databases.discard_speculative();
        self.databases.set_writable(Err(Veto::NotLeader));
        self.fail_changes(now);
        let gone = match (led, &self.failed) {
            (true, _) => Gone::Leadership,
            (false, Some(_)) => Gone::Databases,
            (false, None) => Gone::OtherLeader,
        };
        self.fail_clients(&failed, gone, now);
        self.roles.manager.handle_leading(false, now);
    }
}
