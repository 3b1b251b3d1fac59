//! One of our servers as the simulation drives it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::disk::{Completion, Disk, Job, Machine, Packet};
use crate::base::{Entry, EntryKind, Index, NodeId, Payload, Term, Time};
use crate::codec::peer::{InstallSnapshot, Message};
use crate::consensus::planted::Planted;
use crate::consensus::tests::harness::{Work, config};
use crate::consensus::{Change, Consensus, Effect, Offer, ReadTicket, SnapshotMeta, Started};

/// A snapshot on its way in.
struct Intake {
    from: u64,
    conn: u64,
    head: InstallSnapshot,
    image: u64,
    complete: bool,
}

pub(in crate::consensus::tests) struct Ours {
    pub(in crate::consensus::tests) consensus: Consensus,
    pub(in crate::consensus::tests) disk: Disk,
    pub(in crate::consensus::tests) machine: Machine,
    intake: Option<Intake>,
    /// After a failure the disk takes nothing until work with a truncation comes.
    full: bool,
    /// Writes that are done and not reported, and what the later ones of them have cut off.
    unreported: VecDeque<u64>,
    pub(in crate::consensus::tests) cut: BTreeSet<(Index, Term)>,
    pub(in crate::consensus::tests) now: Time,
    pub(in crate::consensus::tests) sent: Vec<(u64, Packet)>,
    pub(in crate::consensus::tests) applied: Vec<Entry>,
    pub(in crate::consensus::tests) installed: bool,
    /// A peer needs this entry, and can get it by a snapshot only.
    covering: Index,
    /// Entries to be read for peers that lag.
    pub(in crate::consensus::tests) wanted: Vec<(Index, Index)>,
    /// Reads that may be answered.
    pub(in crate::consensus::tests) ready: Vec<ReadTicket>,
    pub(in crate::consensus::tests) lost_leadership: bool,
    /// What clients wait for.
    pub(in crate::consensus::tests) writes: BTreeMap<Index, Term>,
    pub(in crate::consensus::tests) promotions: BTreeSet<NodeId>,
    pub(in crate::consensus::tests) transfers: usize,
}

impl Ours {
    pub(in crate::consensus::tests) fn start(
        id: u64,
        seed: u64,
        disk: Disk,
        planted: Option<Planted>,
        now: Time,
    ) -> Self {
        let mut config = config(id);
        config.seed = seed;
        let mut consensus = Consensus::new(config, disk.stored.restored(), now).unwrap();
        consensus.planted = planted;
        if let Some(raw) = consensus.raw.as_mut() {
            raw.mut_store().bound(64, 32);
        }
        let machine = Machine { index: consensus.applied_index(), sum: disk.image };
        let mut ours = Self {
            consensus,
            disk,
            machine,
            intake: None,
            full: false,
            unreported: VecDeque::new(),
            cut: BTreeSet::new(),
            now,
            sent: Vec::new(),
            applied: Vec::new(),
            installed: false,
            covering: Index(0),
            wanted: Vec::new(),
            ready: Vec::new(),
            lost_leadership: false,
            writes: BTreeMap::new(),
            promotions: BTreeSet::new(),
            transfers: 0,
        };
        ours.poll();
        ours
    }

    pub(in crate::consensus::tests) fn poll(&mut self) {
        while let Some(effect) = self.consensus.poll_effect() {
            match effect {
                Effect::Persist { ticket, truncate_from, entries, metadata } => {
                    let installs = self.disk.jobs.iter().any(|job| matches!(job, Job::Install { .. }));
                    assert!(!installs || entries.is_empty(), "entries behind a snapshot that is installed");
                    let work = Work { ticket, truncate_from, entries, metadata };
                    self.disk.jobs.push_back(Job::Write(work, Completion::Led));
                }
                Effect::Apply { entries } => self.apply(entries),
                Effect::Send { to, message, .. } => self.sent.push((to.0, Packet::Message(message))),
                Effect::SendSnapshot { to, term, meta, .. } => self.send_snapshot(to.0, term, meta),
                Effect::SnapshotWanted { covering } => self.covering = covering,
                Effect::ReadEntries { first, last } => self.wanted.push((first, last)),
                Effect::ReadsReady { up_to, .. } => self.ready.push(up_to),
                Effect::BecameLeader { .. } => {}
                Effect::BecameFollower { .. } | Effect::Unavailable { .. } => {
                    self.lost_leadership = true;
                    self.writes.clear();
                }
                Effect::OutOfSpace { lost_from } => self.writes.retain(|index, _| *index < lost_from),
                Effect::PromotionEnded { id, outcome } => {
                    assert!(self.promotions.remove(&id), "a promotion that nobody asked for has ended");
                    if let Ok((index, term)) = outcome {
                        self.writes.insert(index, term);
                    }
                }
                Effect::TransferEnded { .. } => self.transfers -= 1,
            }
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let last = entries.last().unwrap().index;
        for entry in entries {
            self.machine.apply(&entry);
            self.writes.remove(&entry.index);
            self.applied.push(entry);
        }
        self.consensus.handle_applied(last);
    }

    fn send_snapshot(&mut self, to: u64, term: Term, meta: SnapshotMeta) {
        assert_eq!(self.disk.stored.snapshot.as_ref(), Some(&meta), "the newest snapshot");
        let head = InstallSnapshot {
            term,
            last_index: meta.index,
            last_term: meta.term,
            configuration_index: meta.configuration_index,
            configuration: meta.configuration,
            configuration_bytes: Vec::new(),
            data_bytes: 8,
        };
        self.sent.push((to, Packet::Snapshot(head, self.disk.image)));
    }

    pub(in crate::consensus::tests) fn receive(&mut self, from: u64, message: Message) {
        self.consensus.handle_peer(NodeId(from), &format!("node-{from}"), message, self.now);
    }

    /// The head of a snapshot on this connection.
    pub(in crate::consensus::tests) fn receive_head(
        &mut self,
        from: u64,
        conn: u64,
        head: InstallSnapshot,
        image: u64,
    ) {
        if let Some(intake) = &self.intake {
            if intake.complete || head.term < intake.head.term {
                return;
            }
            self.break_off(intake.from, intake.conn);
        }
        let offered = head.clone();
        let offer =
            self.consensus.handle_snapshot_offer(NodeId(from), &format!("node-{from}"), offered, self.now);
        if offer == Offer::Take {
            self.intake = Some(Intake { from, conn, head, image, complete: false });
        }
    }

    pub(in crate::consensus::tests) fn receive_data(&mut self, from: u64, conn: u64) {
        let here = |it: &&mut Intake| (it.from, it.conn) == (from, conn) && !it.complete;
        if let Some(intake) = self.intake.as_mut().filter(here) {
            intake.complete = true;
            self.disk.jobs.push_back(Job::Store);
        }
    }

    pub(in crate::consensus::tests) fn break_off(&mut self, from: u64, conn: u64) {
        let here = |it: &mut Intake| (it.from, it.conn) == (from, conn) && !it.complete;
        if self.intake.take_if(here).is_some() {
            self.consensus.handle_snapshot_broken_off();
        }
    }

    /// The disk has done its oldest work, a write, and reports it with the next one.
    pub(in crate::consensus::tests) fn disk_done_silently(&mut self) -> Work {
        let Some(Job::Write(work, _)) = self.disk.work() else { unreachable!("a write") };
        assert!(!self.full || work.truncate_from.is_some(), "the disk would have refused this");
        self.full = false;
        work
    }

    /// The disk has done its oldest work, a write, and goes on before anybody looks at its report.
    pub(in crate::consensus::tests) fn disk_done_unheard(&mut self) {
        let before = self.disk.stored.entries.clone();
        let work = self.disk_done_silently();
        let cut = before.iter().filter(|entry| work.truncate_from.is_some_and(|from| entry.index >= from));
        self.cut.extend(cut.map(|entry| (entry.index, entry.term)));
        self.unreported.push_back(work.ticket);
    }

    /// The oldest report of the disk is looked at. Returns whether there was one.
    pub(in crate::consensus::tests) fn hear_disk(&mut self) -> bool {
        let Some(ticket) = self.unreported.pop_front() else { return false };
        if self.unreported.is_empty() {
            self.cut.clear();
        }
        self.consensus.handle_persisted(ticket);
        true
    }

    /// The disk has done its oldest work.
    pub(in crate::consensus::tests) fn disk_done(&mut self) {
        let awaited = self.consensus.first_awaited();
        if let (Some(Job::Snapshot { keep_from, .. }), Some(awaited)) = (self.disk.jobs.front_mut(), awaited)
        {
            *keep_from = awaited.min(*keep_from);
        }
        match self.disk.work() {
            None => {}
            Some(Job::Write(work, _)) => {
                assert!(!self.full || work.truncate_from.is_some(), "the disk would have refused this");
                self.full = false;
                self.consensus.handle_persisted(work.ticket);
            }
            Some(Job::Snapshot { meta, keep_from, .. }) => self.consensus.compact(meta, keep_from),
            Some(Job::Store) => self.place(),
            Some(Job::Install { meta, image, .. }) => {
                self.machine = Machine { index: meta.index, sum: image };
                self.intake = None;
                // Whatever was lost before it is covered.
                self.full = false;
                self.installed = true;
                self.consensus.handle_snapshot_installed(Ok(()));
            }
        }
    }

    /// The snapshot could not take the place of the log, which now ends before `next`.
    pub(in crate::consensus::tests) fn fail_install(&mut self, next: Index) {
        self.intake = None;
        self.full = false;
        self.consensus.handle_tail_lost(next);
        self.consensus.handle_snapshot_installed(Err("no room".to_owned()));
    }

    fn place(&mut self) {
        if !self.consensus.handle_snapshot_received() {
            self.intake = None;
            return;
        }
        let intake = self.intake.as_ref().unwrap();
        let meta = SnapshotMeta {
            index: intake.head.last_index,
            term: intake.head.last_term,
            configuration: intake.head.configuration.clone(),
            configuration_index: intake.head.configuration_index,
        };
        self.disk.jobs.push_back(Job::Install { meta, image: intake.image, from: intake.from, term: 0 });
    }

    /// There is no room for what is queued. Not during an installation, which is told apart elsewhere.
    pub(in crate::consensus::tests) fn run_full(&mut self, no_space: bool) {
        if self.disk.jobs.iter().any(|job| !matches!(job, Job::Write(..))) {
            return;
        }
        let failed = std::mem::take(&mut self.disk.jobs);
        self.full |= !failed.is_empty();
        for job in failed {
            if let Job::Write(work, _) = job {
                self.consensus.handle_persist_failed(work.ticket, no_space);
            }
        }
    }

    /// Begins a snapshot when there is enough for one. Segments are deleted as the node does it.
    pub(in crate::consensus::tests) fn consider_snapshot(&mut self, threshold: u64, trailing: u64) {
        let index = self.machine.index;
        let Some(term) = self.consensus.term_at(index).filter(|_| self.intake.is_none()) else { return };
        let configuration = self.consensus.committed_configuration().clone();
        let meta = SnapshotMeta {
            index,
            term,
            configuration: configuration.configuration,
            configuration_index: configuration.index,
        };
        let wanted = self.covering > Index(0) && index >= self.covering;
        let threshold = if wanted { 1 } else { threshold };
        if wanted {
            self.covering = Index(0);
        }
        self.disk.consider_snapshot(meta, self.machine.sum, threshold, trailing);
    }

    pub(in crate::consensus::tests) fn propose(&mut self, payload: Payload) {
        if let Ok((index, term)) = self.consensus.propose(EntryKind::Command, payload) {
            self.writes.insert(index, term);
        }
    }

    pub(in crate::consensus::tests) fn change(&mut self, change: &Change) {
        match self.consensus.request_change(change) {
            Ok(Started::Entry(index, term)) => drop(self.writes.insert(index, term)),
            Ok(Started::Promotion) => {
                let Change::Assign { id, .. } = change else { unreachable!("a promotion") };
                assert!(self.promotions.insert(*id), "two promotions at once");
            }
            Err(_) => {}
        }
    }

    pub(in crate::consensus::tests) fn transfer(&mut self, to: u64) {
        self.transfers += usize::from(self.consensus.transfer(NodeId(to)).is_ok());
    }

    pub(in crate::consensus::tests) fn entries(
        &self,
        first: Index,
        last: Index,
    ) -> Result<Vec<Entry>, String> {
        let within = |it: &&Entry| it.index >= first && it.index <= last;
        let found: Vec<Entry> = self.disk.stored.entries.iter().filter(within).cloned().collect();
        match found.len() as u64 == last.0 + 1 - first.0 {
            true => Ok(found),
            false => Err("those segments are gone".to_owned()),
        }
    }
}
