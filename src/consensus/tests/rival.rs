//! A server as the C library makes them, written from what such servers are seen to do: what they answer, what
//! they wait for, what survives a crash. It shares no code with the consensus under test.
//!
//! Simplified in its favour, since the library's own holes are not ours to find: each kind begins a leadership
//! with an entry of its term, and changes members only after that entry is committed.

mod lead;
mod votes;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::harness::{ELECTION, HEARTBEAT, Stored, Work};
use super::world::disk::{Completion, Disk, Job, Machine, Packet};
use crate::base::{Entry, EntryKind, Index, NodeId, Payload, Prng, Term, Time};
use crate::codec::membership::Configuration;
use crate::codec::peer::{AppendEntries, AppendResult, InstallSnapshot, Message};
use crate::consensus::SnapshotMeta;
use crate::consensus::membership::{Placed, is_voter};
pub(super) use lead::Lead;

#[derive(Debug)]
pub(super) enum Role {
    Follower,
    Candidate { pre_vote: bool, disrupt: bool, votes: Vec<u64> },
    Leader(Lead),
}

pub(super) struct Rival {
    pub(super) id: u64,
    /// Answers in the short form, and for the writes of earlier leaders.
    pub(super) old: bool,
    pub(super) disk: Disk,
    pub(super) role: Role,
    pub(super) leader: u64,
    /// Index before the first entry in memory.
    base: u64,
    log: VecDeque<Entry>,
    persisted: u64,
    pub(super) commit: u64,
    pub(super) machine: Machine,
    pub(super) in_force: Placed,
    pub(super) committed: Placed,
    timer: Time,
    timeout: Duration,
    pub(super) now: Time,
    prng: Prng,
    installing: bool,
    /// After a failed write the disk may hold more than the memory.
    cut_due: Option<Index>,
    pub(super) sent: Vec<(u64, Packet)>,
    pub(super) applied: Vec<Entry>,
    /// Snapshots of which the data have not come, by server and connection.
    pub(super) heads: BTreeMap<(u64, u64), (InstallSnapshot, u64)>,
}

fn placed(entry: &Entry) -> Option<Placed> {
    let change = entry.kind == EntryKind::Change;
    change.then(|| Placed {
        configuration: Configuration::decode(&entry.payload.contiguous()).unwrap(),
        index: entry.index,
    })
}

impl Rival {
    pub(super) fn start(id: u64, old: bool, disk: Disk, seed: u64, now: Time) -> Self {
        let stored: &Stored = &disk.stored;
        let covered = stored.snapshot.clone().unwrap_or_default();
        let log: VecDeque<Entry> = stored.entries.iter().cloned().collect();
        let base = log.front().map_or(covered.index.0, |entry| entry.index.0 - 1);
        let commit = covered.index.0.max(u64::from(!log.is_empty()));
        let first =
            Placed { configuration: covered.configuration.clone(), index: covered.configuration_index };
        let changes: Vec<Placed> = std::iter::once(first).chain(log.iter().filter_map(placed)).collect();
        let known = |placed: &&Placed| placed.index.0 <= commit;
        let in_force = changes.last().cloned().unwrap_or_default();
        let committed = changes.iter().rev().find(known).cloned().unwrap_or_default();
        let machine = Machine { index: Index(commit), sum: disk.image };
        let persisted = base + log.len() as u64;
        let mut rival = Self {
            id,
            old,
            disk,
            role: Role::Follower,
            leader: 0,
            base,
            log,
            persisted,
            commit,
            machine,
            in_force,
            committed,
            timer: now,
            timeout: ELECTION,
            now,
            prng: Prng::new(seed),
            installing: false,
            cut_due: None,
            sent: Vec::new(),
            applied: Vec::new(),
            heads: BTreeMap::new(),
        };
        rival.draw();
        rival
    }

    fn draw(&mut self) {
        self.timer = self.now;
        self.timeout = ELECTION + Duration::from_millis(self.prng.below(3000));
    }

    pub(super) fn term(&self) -> u64 {
        self.disk.stored.term.0
    }

    pub(super) fn last(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        let covered = self.disk.stored.snapshot.as_ref().filter(|it| it.index.0 == index);
        match index.checked_sub(self.base + 1).and_then(|place| self.log.get(usize::try_from(place).unwrap()))
        {
            Some(entry) => Some(entry.term.0),
            None if index == 0 => Some(0),
            None => covered.filter(|_| !self.installing).map(|it| it.term.0),
        }
    }

    pub(super) fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    fn send(&mut self, to: u64, message: Message) {
        self.sent.push((to, Packet::Message(message)));
    }

    /// Durable before anything is said.
    fn adopt(&mut self, term: u64) {
        if term > self.term() {
            (self.disk.stored.term, self.disk.stored.vote) = (Term(term), NodeId(0));
            self.follow(0);
        }
    }

    fn follow(&mut self, leader: u64) {
        if !matches!(self.role, Role::Follower) {
            self.role = Role::Follower;
            self.draw();
        }
        self.leader = leader;
    }

    pub(super) fn receive(&mut self, from: u64, message: Message) {
        match message {
            Message::AppendEntries(it) => self.handle_append(from, it),
            Message::AppendResult(it) => self.handle_result(from, it),
            Message::RequestVote(it) => self.handle_request(from, it),
            Message::VoteResult(it) => self.handle_vote(from, it),
            Message::TimeoutNow(it) => self.handle_timeout_now(from, it),
            Message::InstallSnapshot(_) => unreachable!("comes with its data"),
        }
    }

    fn answer(&mut self, to: u64, rejected: u64, last: u64) {
        let features = (!self.old).then_some(0);
        let term = Term(self.term());
        self.send(
            to,
            Message::AppendResult(AppendResult { term, rejected, last_index: Index(last), features }),
        );
    }

    /// Takes `from` for the leader of `term`. Returns whether it may be.
    fn accept(&mut self, from: u64, term: u64, refused: u64) -> bool {
        if term < self.term() {
            self.answer(from, refused, self.last());
            return false;
        }
        self.adopt(term);
        assert!(!self.leads(), "C server {}: two leaders of term {term}, it would abort", self.id);
        self.follow(from);
        self.timer = self.now;
        true
    }

    fn handle_append(&mut self, from: u64, append: AppendEntries) {
        let prev = append.prev_index.0;
        if !self.accept(from, append.term.0, prev) {
            return;
        }
        if self.installing {
            if append.entries.is_empty() {
                self.answer(from, prev, 0);
            }
            return;
        }
        if prev > 0 && self.term_at(prev) != Some(append.prev_term.0) {
            let shuts_down = prev <= self.commit && prev > self.base;
            assert!(!shuts_down, "C server {}: conflict at committed {prev}, it would shut down", self.id);
            self.answer(from, prev, self.last());
            return;
        }
        let covered = self.disk.stored.snapshot.as_ref().map_or(0, |it| it.index.0).max(self.base);
        let fresh =
            |entry: &Entry| entry.index.0 > covered && self.term_at(entry.index.0) != Some(entry.term.0);
        let Some(place) = append.entries.iter().position(fresh) else {
            self.commit_to(append.commit.0.min(self.persisted));
            self.answer(from, 0, self.persisted);
            return;
        };
        let entries = append.entries[place..].to_vec();
        let first = entries[0].index;
        let cut = (first.0 <= self.last()).then_some(first);
        if cut.is_some() {
            assert!(first.0 > self.commit, "C server {}: {first} is committed, it would shut down", self.id);
            self.truncate(first.0);
        }
        let completion = Completion::Stored { leader: from, term: append.term.0, commit: append.commit.0 };
        self.write(cut, entries, completion);
    }

    fn truncate(&mut self, from: u64) {
        self.log.truncate(usize::try_from(from - 1 - self.base).unwrap());
        self.persisted = self.persisted.min(from - 1);
        if self.in_force.index.0 >= from {
            self.in_force = self.committed.clone();
        }
    }

    fn write(&mut self, cut: Option<Index>, entries: Vec<Entry>, completion: Completion) {
        self.log.extend(entries.iter().cloned());
        let truncate_from = cut.into_iter().chain(self.cut_due.take()).min();
        let work = Work { ticket: 0, truncate_from, entries, metadata: None };
        self.disk.jobs.push_back(Job::Write(work, completion));
    }

    /// The disk has done its oldest work.
    pub(super) fn disk_done(&mut self) {
        match self.disk.work() {
            None | Some(Job::Store) => {}
            Some(Job::Write(work, completion)) => self.written(&work, completion),
            Some(Job::Snapshot { keep_from, .. }) => {
                let gone = keep_from.0.saturating_sub(self.base + 1).min(self.log.len() as u64);
                if !self.installing {
                    self.log.drain(..usize::try_from(gone).unwrap());
                    self.base += gone;
                }
            }
            Some(Job::Install { meta, image, from, term }) => {
                self.installing = false;
                (self.persisted, self.commit) = (meta.index.0, meta.index.0);
                self.machine = Machine { index: meta.index, sum: image };
                let configuration = meta.configuration;
                self.in_force = Placed { configuration, index: meta.configuration_index };
                self.committed = self.in_force.clone();
                if self.term() == term {
                    self.answer(from, 0, meta.index.0);
                }
            }
        }
    }

    fn written(&mut self, work: &Work, completion: Completion) {
        if self.installing {
            return;
        }
        let held = |entry: &&Entry| self.term_at(entry.index.0) == Some(entry.term.0);
        let kept: Vec<Entry> = work.entries.iter().filter(held).cloned().collect();
        let Some(last) = kept.last().map(|entry| entry.index.0) else { return };
        self.persisted = self.persisted.max(last);
        match completion {
            Completion::Led => self.count(last),
            Completion::Stored { leader, term, commit } => {
                for change in kept.iter().filter_map(placed) {
                    if change.index > self.in_force.index {
                        self.in_force = change;
                    }
                }
                // Before raft 0.17.1 the leader of the day was told of the writes of others.
                let to = if term == self.term() { leader } else { self.leader };
                if term == self.term() || self.old {
                    self.commit_to(commit.min(self.persisted));
                    if to != 0 && to != self.id && !self.leads() {
                        self.answer(to, 0, self.persisted);
                    }
                }
            }
        }
    }

    /// The disk fails all that it was asked.
    pub(super) fn disk_failed(&mut self) {
        let jobs = std::mem::take(&mut self.disk.jobs);
        for job in jobs {
            match job {
                Job::Write(work, _) => {
                    let first = work.truncate_from.into_iter().chain(work.entries.first().map(|it| it.index));
                    let Some(first) = first.min() else { continue };
                    self.cut_due = self.cut_due.into_iter().chain([first]).min();
                    if !self.installing && first.0 > self.commit && first.0 <= self.last() {
                        self.truncate(first.0);
                    }
                }
                other => self.disk.jobs.push_back(other),
            }
        }
        if self.leads() {
            self.follow(0);
        }
    }

    pub(super) fn commit_to(&mut self, commit: u64) {
        self.commit = self.commit.max(commit);
        while self.machine.index.0 < self.commit && !self.installing {
            let place = usize::try_from(self.machine.index.0 - self.base).unwrap();
            let entry = self.log[place].clone();
            self.machine.apply(&entry);
            if let Some(placed) = placed(&entry) {
                self.committed = placed;
                if self.leads() && !is_voter(&self.committed.configuration, NodeId(self.id)) {
                    self.follow(0);
                }
            }
            self.applied.push(entry);
        }
    }

    pub(super) fn receive_snapshot(&mut self, from: u64, head: &InstallSnapshot, image: u64) {
        let index = head.last_index.0;
        if !self.accept(from, head.term.0, index) {
            return;
        }
        let busy = self.disk.jobs.iter().any(|job| matches!(job, Job::Snapshot { .. }));
        if busy || self.installing {
            return;
        }
        let covered = self.disk.stored.snapshot.as_ref().is_some_and(|it| it.index.0 >= index);
        if covered || self.term_at(index).is_some_and(|term| term >= head.last_term.0) {
            self.answer(from, 0, index);
            return;
        }
        self.installing = true;
        self.log.clear();
        self.base = index;
        self.cut_due = None;
        let meta = SnapshotMeta {
            index: head.last_index,
            term: head.last_term,
            configuration: head.configuration.clone(),
            configuration_index: head.configuration_index,
        };
        self.disk.jobs.push_back(Job::Install { meta, image, from, term: head.term.0 });
    }

    /// Begins a snapshot when there is enough for one.
    pub(super) fn consider_snapshot(&mut self, threshold: u64, trailing: u64) {
        let index = self.machine.index;
        let (Some(term), false) = (self.term_at(index.0), self.installing) else { return };
        let Placed { configuration, index: configuration_index } = self.committed.clone();
        let meta = SnapshotMeta { index, term: Term(term), configuration, configuration_index };
        self.disk.consider_snapshot(meta, self.machine.sum, threshold, trailing);
    }

    pub(super) fn tick(&mut self) {
        if self.leads() {
            self.lead_tick();
        } else if self.now.since(self.timer) >= self.timeout {
            self.expire();
        }
    }

    pub(super) fn barrier() -> Payload {
        Payload::from_bytes(&[0; 8])
    }

    pub(super) fn next_tick(&self) -> Time {
        self.now.after(HEARTBEAT)
    }
}
