//! Messages of peers, drawn around the values where something changes.

use crate::base::{Entry, EntryKind, Index, NodeId, Payload, Prng, Role, Term};
use crate::codec::membership::{Configuration, Server};
use crate::codec::peer::{
    AppendEntries, AppendResult, InstallSnapshot, Message, RequestVote, TimeoutNow, VoteResult,
};
use crate::consensus::Consensus;
use crate::consensus::inbound::LABELS_FROM;

/// Who may speak: members, servers that nobody knows, and what no server may call itself.
pub(super) fn sender(prng: &mut Prng) -> u64 {
    match prng.below(60) {
        0 => 0,
        1 => 1,
        2 => 9,
        3 => u64::MAX,
        other => 2 + other % 4,
    }
}

/// What there is to be near to.
pub(super) struct Near {
    pub(super) term: u64,
    terms: Vec<u64>,
    indexes: Vec<u64>,
    /// Index and term of some entries of the log.
    log: Vec<(u64, u64)>,
    labels: Vec<u64>,
    commit: u64,
}

impl Near {
    pub(super) fn of(consensus: &Consensus, label: u64) -> Self {
        let raft = &consensus.raw.as_ref().unwrap().raft;
        let log = &raft.raft_log;
        let (first, last) = (consensus.first_index().0, log.last_index());
        let mut indexes = vec![0, last, log.committed, log.persisted, log.applied, first];
        indexes.extend(consensus.snapshot().map(|it| it.index.0));
        for (_, progress) in raft.prs().iter() {
            indexes.extend([progress.matched, progress.next_idx, progress.pending_snapshot]);
        }
        if let Some(leadership) = &consensus.leadership {
            indexes.push(leadership.first.0);
        }
        indexes.push((first + last) / 2);
        let near: Vec<(u64, u64)> = indexes
            .iter()
            .flat_map(|&index| [index.saturating_sub(1), index, index + 1])
            .filter_map(|index| Some((index, consensus.term_at(Index(index))?.0)))
            .collect();
        let terms = vec![raft.term, raft.term, raft.term, log.last_term()];
        Self {
            term: raft.term,
            terms,
            indexes,
            log: near,
            labels: vec![label, LABELS_FROM],
            commit: log.committed,
        }
    }

    fn pick<T: Copy>(prng: &mut Prng, from: &[T]) -> T {
        from[usize::try_from(prng.below(from.len() as u64)).unwrap()]
    }

    fn index(&self, prng: &mut Prng) -> u64 {
        let index = Self::pick(prng, &self.indexes);
        match prng.below(64) {
            0 => Self::pick(prng, &[u64::MAX, u64::MAX - 1, 1 << 63, LABELS_FROM - 1, LABELS_FROM, 1 << 40]),
            1..=10 => index.saturating_sub(1),
            11..=20 => index.saturating_add(1),
            21..=24 => index.saturating_add(prng.below(20)),
            _ => index,
        }
    }

    fn term(&self, prng: &mut Prng) -> u64 {
        let term = Self::pick(prng, &self.terms);
        match prng.below(3000) {
            0 => Self::pick(prng, &[u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1]),
            1..=90 => 0,
            91..=300 => term.saturating_sub(1),
            301..=500 => term.saturating_add(1),
            501..=520 => term.saturating_add(2 + prng.below(5)),
            _ => term,
        }
    }

    /// An index with its term, as a rule as it is here.
    fn place(&self, prng: &mut Prng) -> (u64, u64) {
        match prng.below(20) {
            0 => (self.index(prng), self.term(prng)),
            1 => (self.index(prng), prng.below(self.term.saturating_add(2))),
            2 => (0, 0),
            _ if self.log.is_empty() => (0, 0),
            _ => Self::pick(prng, &self.log),
        }
    }

    pub(super) fn message(
        &self,
        prng: &mut Prng,
        from: u64,
        named: &dyn Fn(u64, u64) -> Option<Entry>,
    ) -> Message {
        match prng.below(100) {
            0..=44 => Message::AppendEntries(self.append(prng, from, named)),
            45..=69 => Message::AppendResult(self.result(prng)),
            70..=82 => Message::RequestVote(self.request(prng, from)),
            83..=93 => Message::VoteResult(VoteResult {
                term: Term(self.term(prng).saturating_add(prng.below(2))),
                granted: prng.below(3) > 0,
                pre_vote: Self::pick(prng, &[Some(true), Some(false), None]),
            }),
            _ => {
                let (last_index, last_term) = self.place(prng);
                let (last_index, last_term) = (Index(last_index), Term(last_term));
                Message::TimeoutNow(TimeoutNow { term: Term(self.term(prng)), last_index, last_term })
            }
        }
    }

    fn append(&self, prng: &mut Prng, from: u64, named: &dyn Fn(u64, u64) -> Option<Entry>) -> AppendEntries {
        let term = self.term(prng);
        let (mut prev, mut prev_term) = self.place(prng);
        if prng.below(30) == 0 {
            (prev, prev_term) = (Self::pick(prng, &self.labels), term);
        }
        let mut entries = Vec::new();
        let mut at = prev_term;
        // Terms fall where a log was recovered offline.
        let falls = prng.below(40) == 0;
        for more in 1..=prng.below(7) * prng.below(2) {
            let Some(index) = prev.checked_add(more) else { break };
            let known = self.log.iter().find(|it| it.0 == index && prng.below(2) == 0);
            at = match known {
                Some(&(_, known)) => known,
                None if falls => prng.below(term.saturating_add(1)),
                None => at + prng.below((term.saturating_sub(at)).saturating_add(1).min(4)),
            };
            if prng.below(3) == 0 {
                at = term;
            }
            entries.push(named(at, index).unwrap_or_else(|| entry(at, index, from)));
        }
        let commit = match prng.below(8) {
            0 => self.index(prng),
            1..=3 => prev.saturating_add(entries.len() as u64),
            4 => self.commit,
            _ => prev,
        };
        AppendEntries {
            term: Term(term),
            prev_index: Index(prev),
            prev_term: Term(prev_term),
            commit: Index(commit),
            entries,
        }
    }

    fn result(&self, prng: &mut Prng) -> AppendResult {
        let rejected = match prng.below(10) {
            0..=5 => 0,
            6 => Self::pick(prng, &self.labels),
            _ => self.index(prng),
        };
        AppendResult {
            term: Term(self.term(prng)),
            rejected,
            last_index: Index(self.index(prng)),
            features: Self::pick(prng, &[Some(0), Some(0), None, Some(u64::MAX)]),
        }
    }

    fn request(&self, prng: &mut Prng, from: u64) -> RequestVote {
        let (last_index, last_term) = self.place(prng);
        RequestVote {
            term: Term(self.term(prng).saturating_add(u64::from(prng.below(4) == 0))),
            candidate: NodeId(if prng.below(30) == 0 { sender(prng) } else { from }),
            last_index: Index(last_index.saturating_add(prng.below(3))),
            last_term: Term(last_term),
            disrupt_leader: prng.below(4) == 0,
            pre_vote: prng.below(2) == 0,
        }
    }

    pub(super) fn snapshot(&self, prng: &mut Prng) -> InstallSnapshot {
        let (index, term) = match prng.below(3) {
            0 => self.place(prng),
            1 => (self.index(prng), self.term(prng)),
            _ => (self.indexes[1].saturating_add(prng.below(4)), self.term),
        };
        InstallSnapshot {
            term: Term(self.term(prng)),
            last_index: Index(index),
            last_term: Term(term),
            configuration_index: Index(prng.below(index.saturating_add(2))),
            configuration: configuration(prng),
            configuration_bytes: Vec::new(),
            data_bytes: 8,
        }
    }
}

/// Any configuration that can be decoded: this server may be everything in it, or nothing.
pub(super) fn configuration(prng: &mut Prng) -> Configuration {
    let mut servers = Vec::new();
    for id in [1, 2, 3, 4, 5, u64::MAX] {
        let role = match prng.below(if id == u64::MAX { 40 } else { 8 }) {
            0..=3 => Role::Voter,
            4 => Role::StandBy,
            5 => Role::Spare,
            _ => continue,
        };
        servers.push(Server { id: NodeId(id), address: format!("node-{id}"), role });
    }
    match prng.below(12) {
        0 => servers.iter_mut().for_each(|it| it.role = Role::StandBy),
        1 => servers.clear(),
        2 => servers.retain(|it| it.id == NodeId(1)),
        _ => {}
    }
    Configuration { servers }
}

/// The entry that this name stands for.
fn entry(term: u64, index: u64, from: u64) -> Entry {
    let mut prng = Prng::new(term.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index.wrapping_add(7));
    let (kind, payload) = match prng.below(10) {
        0 => (EntryKind::Barrier, Payload::from_bytes(&from.to_le_bytes())),
        1 if prng.below(2) == 0 => {
            (EntryKind::Change, Payload::from_bytes(&configuration(&mut prng).encode()))
        }
        _ => {
            let words = 1 + if prng.below(50) == 0 { prng.below(600) } else { prng.below(6) };
            let bytes: Vec<u8> = (0..words).flat_map(|_| prng.next_u64().to_le_bytes()).collect();
            (EntryKind::Command, Payload::from_bytes(&bytes))
        }
    };
    Entry { index: Index(index), term: Term(term), kind, payload }
}

/// What a peer that has what it was sent answers, or one that has not.
pub(super) fn answer(prng: &mut Prng, message: &Message) -> Option<Message> {
    let features = if prng.below(4) == 0 { None } else { Some(0) };
    let refuses = prng.below(8) == 0;
    let result = |term, rejected: u64, last| {
        Some(Message::AppendResult(AppendResult { term, rejected, last_index: Index(last), features }))
    };
    match message {
        Message::AppendEntries(it) if it.prev_index.0 >= LABELS_FROM => {
            result(it.term, it.prev_index.0, prng.below(50))
        }
        Message::AppendEntries(it) if refuses => {
            result(it.term, it.prev_index.0, it.prev_index.0.saturating_sub(prng.below(5)))
        }
        Message::AppendEntries(it) => {
            let end = it.prev_index.0 + it.entries.len() as u64;
            result(it.term, 0, end + prng.below(2) * prng.below(9))
        }
        Message::RequestVote(it) => {
            let pre_vote = (prng.below(6) > 0).then_some(it.pre_vote);
            Some(Message::VoteResult(VoteResult { term: it.term, granted: !refuses, pre_vote }))
        }
        Message::InstallSnapshot(it) if refuses => result(it.term, it.last_index.0, 0),
        Message::InstallSnapshot(it) => result(it.term, 0, it.last_index.0),
        Message::AppendResult(_) | Message::VoteResult(_) | Message::TimeoutNow(_) => None,
    }
}
