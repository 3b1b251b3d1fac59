//! One server with a disk of its own: what is durable, what is on its way, what was applied.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::{Entry, EntryKind, Index, NodeId, Payload, Role, Term, Time};
use crate::codec::membership::{Configuration, Server};
use crate::codec::peer::{AppendEntries, AppendResult, Message, RequestVote, VoteResult};
use crate::consensus::{Config, Consensus, Effect, Restored, SnapshotMeta};

pub(super) const HEARTBEAT: Duration = Duration::from_millis(500);
pub(super) const ELECTION: Duration = Duration::from_millis(3000);

pub(super) fn config(id: u64) -> Config {
    Config {
        id: NodeId(id),
        address: format!("node-{id}"),
        heartbeat: HEARTBEAT,
        election_timeout: ELECTION,
        seed: 7 * id,
    }
}

pub(super) fn servers(list: &[(u64, Role)]) -> Configuration {
    let server = |&(id, role)| Server { id: NodeId(id), address: format!("node-{id}"), role };
    Configuration { servers: list.iter().map(server).collect() }
}

pub(super) fn voters(ids: &[u64]) -> Configuration {
    servers(&ids.iter().map(|&id| (id, Role::Voter)).collect::<Vec<_>>())
}

pub(super) fn bytes(number: u64) -> Payload {
    Payload::from_bytes(&number.to_le_bytes())
}

pub(super) fn entry(index: u64, term: u64, kind: EntryKind, payload: Payload) -> Entry {
    Entry { index: Index(index), term: Term(term), kind, payload }
}

pub(super) fn change(index: u64, term: u64, configuration: &Configuration) -> Entry {
    entry(index, term, EntryKind::Change, Payload::from_bytes(&configuration.encode()))
}

/// An append of a leader of `term` after the entry at `prev`.
pub(super) fn append(term: u64, prev: (u64, u64), commit: u64, entries: &[Entry]) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        prev_index: Index(prev.0),
        prev_term: Term(prev.1),
        commit: Index(commit),
        entries: entries.to_vec(),
    })
}

/// What a data directory would hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stored {
    pub(super) term: Term,
    pub(super) vote: NodeId,
    pub(super) entries: Vec<Entry>,
    pub(super) snapshot: Option<SnapshotMeta>,
}

impl Stored {
    /// Entry 1 with this configuration, at term 1.
    pub(super) fn fresh(configuration: &Configuration) -> Self {
        Self { term: Term(1), entries: vec![change(1, 1, configuration)], ..Self::default() }
    }

    pub(super) fn restored(&self) -> Restored {
        let changes = self.entries.iter().rev().filter(|entry| entry.kind == EntryKind::Change);
        let newest =
            changes.map(|e| (e.index, Configuration::decode(&e.payload.contiguous()).unwrap())).next();
        let covered = self.snapshot.clone();
        let covered_to = covered.as_ref().map_or(Index(0), |snapshot| snapshot.index);
        let (configuration_index, configuration) = newest
            .or(covered.map(|snapshot| (snapshot.configuration_index, snapshot.configuration)))
            .unwrap_or_default();
        Restored {
            term: self.term,
            voted_for: self.vote,
            snapshot: self.snapshot.clone(),
            first_index: self.entries.first().map_or(covered_to.next(), |entry| entry.index),
            entries: self.entries.clone(),
            configuration,
            configuration_index,
            configuration_committed: configuration_index <= covered_to.max(Index(1)),
            bootstrapped_now: false,
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.index.0)
    }

    pub(super) fn terms(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.term.0).collect()
    }

    fn write(&mut self, work: &Work) {
        if let Some(from) = work.truncate_from {
            self.entries.retain(|entry| entry.index < from);
        }
        if let Some((term, vote)) = work.metadata {
            (self.term, self.vote) = (term, vote);
        }
        for entry in &work.entries {
            if !self.entries.is_empty() || self.snapshot.is_none() {
                assert_eq!(entry.index.0, self.last() + 1, "the log on disk would have a gap");
            }
            self.entries.push(entry.clone());
        }
    }
}

/// One Persist effect.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Work {
    pub(super) ticket: u64,
    pub(super) truncate_from: Option<Index>,
    pub(super) entries: Vec<Entry>,
    pub(super) metadata: Option<(Term, NodeId)>,
}

pub(super) struct Node {
    pub(super) consensus: Consensus,
    pub(super) stored: Stored,
    pub(super) queue: VecDeque<Work>,
    pub(super) applied: Vec<Entry>,
    pub(super) sent: Vec<(NodeId, Message)>,
    /// Role changes, ends of promotions and transfers, shortages.
    pub(super) news: Vec<Effect>,
    pub(super) now: Time,
    /// After a failure the disk takes nothing until work with a truncation comes.
    full: bool,
}

impl Node {
    pub(super) fn start(config: Config, stored: Stored) -> Self {
        let restored = stored.restored();
        Self::start_with(config, stored, restored)
    }

    pub(super) fn start_with(config: Config, stored: Stored, restored: Restored) -> Self {
        let now = Time(1_000_000_000);
        let consensus = Consensus::new(config, restored, now).unwrap();
        let mut node = Self {
            consensus,
            stored,
            queue: VecDeque::new(),
            applied: Vec::new(),
            sent: Vec::new(),
            news: Vec::new(),
            now,
            full: false,
        };
        node.poll();
        node
    }

    /// A fresh server 1 on the start that writes entry 1.
    pub(super) fn bootstrap() -> Self {
        let stored = Stored::fresh(&voters(&[1]));
        let restored = Restored { bootstrapped_now: true, ..stored.restored() };
        Self::start_with(config(1), stored, restored)
    }

    /// What is left after the process died: only what is durable.
    pub(super) fn crash(self, config: Config) -> Self {
        Self::start(config, self.stored)
    }

    /// Takes all effects; work for the disk waits in the queue, committed entries are applied.
    pub(super) fn poll(&mut self) {
        while let Some(effect) = self.consensus.poll_effect() {
            match effect {
                Effect::Persist { ticket, truncate_from, entries, metadata } => {
                    self.queue.push_back(Work { ticket, truncate_from, entries, metadata });
                }
                Effect::Apply { entries } => {
                    let last = entries.last().unwrap().index;
                    for entry in entries {
                        if let Some(before) = self.applied.last() {
                            assert_eq!(entry.index, before.index.next(), "application skips or repeats");
                        }
                        self.applied.push(entry);
                    }
                    self.consensus.handle_applied(last);
                }
                Effect::Send { to, message, .. } => self.sent.push((to, message)),
                other => self.news.push(other),
            }
        }
    }

    /// A message of server `from`.
    pub(super) fn receive(&mut self, from: u64, message: Message) {
        self.consensus.handle_peer(NodeId(from), &format!("node-{from}"), message, self.now);
        self.poll();
    }

    pub(super) fn take_sent(&mut self) -> Vec<(NodeId, Message)> {
        std::mem::take(&mut self.sent)
    }

    /// The disk does the oldest work.
    pub(super) fn persist_one(&mut self) -> bool {
        let Some(work) = self.queue.pop_front() else { return false };
        assert!(!self.full || work.truncate_from.is_some(), "the disk thread would have refused this");
        self.full = false;
        self.stored.write(&work);
        self.consensus.handle_persisted(work.ticket);
        self.poll();
        true
    }

    pub(super) fn persist_all(&mut self) {
        while self.persist_one() {}
    }

    /// The disk fails the oldest work for want of room, and all that was queued behind it.
    pub(super) fn run_full(&mut self) {
        let failed: Vec<Work> = self.queue.drain(..).collect();
        self.full = true;
        for work in failed {
            self.consensus.handle_persist_failed(work.ticket, true);
        }
        self.poll();
    }

    pub(super) fn propose(&mut self, number: u64) -> (Index, Term) {
        let proposed = self.consensus.propose(EntryKind::Command, bytes(number)).unwrap();
        self.poll();
        proposed
    }

    /// Lets time pass, tick by tick, with an idle disk.
    pub(super) fn wait(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while let Some(next) = self.consensus.poll_timeout().filter(|&next| next <= end) {
            self.now = next;
            self.consensus.handle_time(next);
            self.poll();
        }
        self.now = end;
    }

    pub(super) fn applied_numbers(&self) -> Vec<u64> {
        let commands = self.applied.iter().filter(|entry| entry.kind == EntryKind::Command);
        commands.map(|e| u64::from_le_bytes(e.payload.contiguous()[..8].try_into().unwrap())).collect()
    }

    pub(super) fn take_news(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.news)
    }
}

pub(super) fn result(term: u64, rejected: u64, last_index: u64) -> Message {
    let last_index = Index(last_index);
    Message::AppendResult(AppendResult { term: Term(term), rejected, last_index, features: Some(0) })
}

pub(super) fn vote(term: u64, granted: bool, pre_vote: Option<bool>) -> Message {
    Message::VoteResult(VoteResult { term: Term(term), granted, pre_vote })
}

pub(super) fn asks(candidate: u64, term: u64, last: (u64, u64), pre_vote: bool) -> RequestVote {
    RequestVote {
        term: Term(term),
        candidate: NodeId(candidate),
        last_index: Index(last.0),
        last_term: Term(last.1),
        disrupt_leader: false,
        pre_vote,
    }
}

/// Server 1 asks for pre-votes in term `term`.
pub(super) fn pre_candidate(term: u64) -> Node {
    let mut stored = Stored::fresh(&voters(&[1, 2, 3]));
    stored.term = Term(term);
    let mut node = Node::start(config(1), stored);
    node.wait(2 * ELECTION);
    node.sent.clear();
    node
}

/// Server 1 of three leads term 2 from entry 2 on; nothing was answered yet.
pub(super) fn leader() -> Node {
    let mut node = pre_candidate(1);
    node.receive(2, vote(2, true, Some(true)));
    node.persist_all();
    node.sent.clear();
    node.receive(2, vote(2, true, Some(false)));
    node.persist_all();
    assert!(node.consensus.is_leader());
    node.take_news();
    node
}

/// A server with this log that server 2 has just elected.
pub(super) fn elected(stored: Stored) -> Node {
    let mut node = Node::start(config(1), stored);
    node.wait(2 * ELECTION);
    node.receive(2, vote(2, true, Some(true)));
    node.persist_all();
    node.receive(2, vote(2, true, Some(false)));
    node.persist_all();
    assert!(node.consensus.is_leader());
    node
}

impl Node {
    pub(super) fn progress(&self, id: u64) -> raft::Progress {
        self.consensus.raw.as_ref().unwrap().raft.prs().get(id).unwrap().clone()
    }

    /// What was sent to `id`.
    pub(super) fn sent_to(&mut self, id: u64) -> Vec<Message> {
        self.take_sent().into_iter().filter(|(to, _)| *to == NodeId(id)).map(|(_, message)| message).collect()
    }
}
