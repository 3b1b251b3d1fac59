//! Seeded clusters over a hostile network: messages late, lost, doubled, on an old and a new connection at once;
//! servers that die, disks that lag, members that change. One kind of server answers as the C library does: with
//! the end of its whole log, or, as before raft 0.17.1, in the short form and with the ends of writes that an
//! earlier leader asked for. Every message on the wire is checked, and every read.
//!
//! `DQLITE_SIM_RUNS` sets the number of seeds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::cluster::below;
use super::harness::*;
use super::random::Referee;
use crate::base::{EntryKind, Index, NodeId, Prng, Role, Term};
use crate::codec::peer::{AppendResult, Message};
use crate::consensus::inbound::LABELS_FROM;
use crate::consensus::{Change, Effect, ReadTicket};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    /// Answers with the end of its whole log.
    Whole,
    /// Does that too, in the short form, and reports stray ends of writes.
    Old,
}

struct Sim {
    seed: u64,
    prng: Prng,
    nodes: Vec<Node>,
    kinds: Vec<Kind>,
    /// Per pair of servers the connections, oldest first.
    wires: BTreeMap<(u64, u64), [VecDeque<Message>; 2]>,
    cut: Vec<(u64, u64)>,
    referee: Referee,
    leaders: BTreeMap<Term, u64>,
    votes: BTreeMap<(u64, Term), NodeId>,
    terms: BTreeMap<u64, Term>,
    commits: BTreeMap<(u64, Term), Index>,
    /// The highest index that a leader has applied and so may have acknowledged.
    acknowledged: Index,
    reads: BTreeMap<(u64, ReadTicket), Index>,
    reads_done: usize,
}

impl Sim {
    fn new(seed: u64, count: u64) -> Self {
        let mut prng = Prng::new(seed);
        let ids: Vec<u64> = (1..=count).collect();
        let start = |id: &u64| Node::start(config(*id), Stored::fresh(&voters(&ids)));
        let kinds = ids.iter().map(|_| [Kind::Ours, Kind::Whole, Kind::Old][below(&mut prng, 3)]).collect();
        Self {
            seed,
            nodes: ids.iter().map(start).collect(),
            kinds,
            prng,
            wires: BTreeMap::new(),
            cut: Vec::new(),
            referee: Referee::default(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            terms: BTreeMap::new(),
            commits: BTreeMap::new(),
            acknowledged: Index(0),
            reads: BTreeMap::new(),
            reads_done: 0,
        }
    }

    fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[usize::try_from(id - 1).unwrap()]
    }

    fn kind(&self, id: u64) -> Kind {
        self.kinds[usize::try_from(id - 1).unwrap()]
    }

    fn any(&mut self) -> u64 {
        self.prng.below(self.nodes.len() as u64) + 1
    }

    /// Takes what a server sends, checks it, and follows what it tells.
    fn collect(&mut self, id: u64) {
        let seed = self.seed;
        self.node(id).poll();
        if self.kind(id) == Kind::Old {
            self.node(id).persist_all();
        }
        let (kind, stored) = (self.kind(id), self.node(id).stored.last());
        for (to, mut message) in self.node(id).take_sent() {
            if let Message::AppendResult(result) = &mut message
                && kind != Kind::Ours
            {
                if result.rejected == 0 && result.last_index > Index(0) {
                    result.last_index = Index(stored.max(result.last_index.0));
                }
                result.features = (kind == Kind::Whole).then_some(0);
            }
            self.check(id, to, &message);
            if !self.cut.contains(&(id, to.0)) {
                self.wires.entry((id, to.0)).or_default()[1].push_back(message);
            }
        }
        for effect in self.node(id).take_news() {
            match effect {
                Effect::ReadsReady { up_to, .. } => {
                    let applied = self.node(id).consensus.applied_index();
                    let ready: Vec<_> =
                        self.reads.range((id, ReadTicket(0))..=(id, up_to)).map(|it| *it.0).collect();
                    for read in ready {
                        let known = self.reads.remove(&read).unwrap();
                        assert!(applied >= known, "seed {seed}: a stale read: {applied} of {known}");
                        self.reads_done += 1;
                    }
                }
                Effect::BecameFollower { .. } => self.reads.retain(|read, _| read.0 != id),
                _ => {}
            }
        }
        let node = &self.nodes[usize::try_from(id - 1).unwrap()];
        self.referee.watch(seed, id, node);
        if node.consensus.is_leader() {
            self.acknowledged = self.acknowledged.max(node.consensus.applied_index());
        }
    }

    fn check(&mut self, id: u64, to: NodeId, message: &Message) {
        let seed = self.seed;
        let term = match message {
            Message::AppendEntries(it) => {
                let leader = *self.leaders.entry(it.term).or_insert(id);
                assert_eq!(leader, id, "seed {seed}: two leaders of {}", it.term);
                let label = it.prev_index.0 >= LABELS_FROM;
                let end = it.entries.last().map_or(it.prev_term, |entry| entry.term);
                assert!(label || end == it.term, "seed {seed}: an append ends in {end}, not {}", it.term);
                it.entries.iter().for_each(|entry| self.referee.name(seed, id, entry));
                let commit = self.commits.entry((id, it.term)).or_default();
                assert!(it.commit >= *commit, "seed {seed}: the commit index falls");
                *commit = it.commit;
                it.term
            }
            Message::AppendResult(it) => it.term,
            Message::RequestVote(it) if it.pre_vote => return,
            Message::RequestVote(it) => it.term,
            Message::VoteResult(it) if it.pre_vote == Some(true) => return,
            Message::VoteResult(it) => {
                if it.granted {
                    let voted = *self.votes.entry((id, it.term)).or_insert(to);
                    assert_eq!(voted, to, "seed {seed}: {id} votes twice in {}", it.term);
                }
                it.term
            }
            Message::TimeoutNow(it) => it.term,
            Message::InstallSnapshot(_) => panic!("not here"),
        };
        let known = self.terms.entry(id).or_default();
        assert!(term >= *known, "seed {seed}: the terms of {id} fall");
        *known = term;
    }

    /// A message arrives, or is lost or doubled on the way.
    fn deliver(&mut self, id: u64) {
        let from = self.any();
        let old = below(&mut self.prng, 4) == 0;
        let fate = self.prng.below(30);
        let doubles = self.kind(from) != Kind::Old && self.kind(id) != Kind::Old;
        let Some(wires) = self.wires.get_mut(&(from, id)) else { return };
        let wire = if old || wires[1].is_empty() { &mut wires[0] } else { &mut wires[1] };
        let Some(message) = wire.pop_front() else { return };
        match fate {
            0 => return,
            // Twice, later: as on a connection that was made anew.
            1 if doubles => wire.push_back(message.clone()),
            _ => {}
        }
        self.node(id).receive(from, message);
    }

    /// The connection breaks: a part of what was sent is lost, the rest may still be read beside the new one.
    fn reconnect(&mut self, from: u64, to: u64) {
        let kept = self.prng.below(4);
        let [old, new] = self.wires.entry((from, to)).or_default();
        new.truncate(usize::try_from(kept).unwrap());
        *old = std::mem::take(new);
        if let Some(raw) = self.node(from).consensus.raw.as_ref()
            && raw.raft.prs().get(to).is_some()
        {
            self.node(from).consensus.handle_send_failed(NodeId(to));
        }
        self.node(to).consensus.handle_peer_connected(NodeId(from));
    }

    /// A server of the old kind tells the leader of the day of a write that ended for another.
    fn stray(&mut self, id: u64) {
        let node = self.node(id);
        let (term, leader) = (node.consensus.term(), node.consensus.leader());
        let Some(leader) = leader.filter(|leader| *leader != NodeId(id)) else { return };
        let raw = node.consensus.raw.as_ref().unwrap();
        let stored = node.stored.entries.iter().filter(|entry| entry.term < term && entry.index > Index(1));
        let written: Vec<Index> = stored
            .filter(|entry| raw.raft.raft_log.term(entry.index.0).unwrap() == entry.term.0)
            .map(|entry| entry.index)
            .collect();
        if written.is_empty() || node.stored.term != term {
            return;
        }
        let last_index = written[below(&mut self.prng, written.len())];
        let stray = Message::AppendResult(AppendResult { term, rejected: 0, last_index, features: None });
        self.wires.entry((id, leader.0)).or_default()[1].push_back(stray);
    }

    fn act(&mut self, number: u64) {
        let id = self.any();
        match self.prng.below(60) {
            0..=4 => {
                let proposed = self.node(id).consensus.propose(EntryKind::Command, bytes(number));
                if let Ok((index, term)) = proposed {
                    let (seed, command) =
                        (self.seed, entry(index.0, term.0, EntryKind::Command, bytes(number)));
                    self.referee.name(seed, id, &command);
                }
            }
            5..=14 => drop(self.node(id).persist_one()),
            15 if self.prng.below(4) == 0 => {
                let old = self.nodes.remove(usize::try_from(id - 1).unwrap());
                self.referee.forget_volatile(id, &old.stored);
                self.nodes.insert(usize::try_from(id - 1).unwrap(), old.crash(config(id)));
                self.reads.retain(|read, _| read.0 != id);
                for to in 1..=self.nodes.len() as u64 {
                    self.reconnect(id, to);
                }
            }
            16 => {
                let to = self.any();
                self.reconnect(id, to);
            }
            17 => self.cut = (0..self.prng.below(3)).map(|_| (self.any(), self.any())).collect(),
            18 if self.prng.below(3) == 0 => {
                let role = [Role::Voter, Role::StandBy][below(&mut self.prng, 2)];
                let change = Change::Assign { id: NodeId(self.any()), role };
                let _ = self.node(id).consensus.request_change(&change);
            }
            19 if self.prng.below(3) == 0 => drop(self.node(id).consensus.transfer(NodeId(0))),
            20..=22 => {
                let now = self.node(id).now;
                if let Ok(Some(ticket)) = self.node(id).consensus.request_read(now) {
                    self.reads.insert((id, ticket), self.acknowledged);
                }
            }
            23..=24 if self.kind(id) == Kind::Old => self.stray(id),
            25..=29 => {
                let time = Duration::from_millis(100 * self.prng.below(6));
                self.node(id).wait(time);
            }
            _ => self.deliver(id),
        }
        self.collect(id);
    }

    /// Time goes on everywhere and everything arrives.
    fn heal(&mut self) {
        self.cut.clear();
        for _ in 0..300 {
            for id in 1..=self.nodes.len() as u64 {
                self.node(id).wait(Duration::from_millis(100));
                self.node(id).persist_all();
                self.collect(id);
                for from in 1..=self.nodes.len() as u64 {
                    while let Some(message) = self
                        .wires
                        .get_mut(&(from, id))
                        .and_then(|[old, new]| old.pop_front().or_else(|| new.pop_front()))
                    {
                        self.node(id).receive(from, message);
                        self.node(id).persist_all();
                        self.collect(id);
                    }
                }
            }
        }
    }
}

#[test]
fn whatever_the_network_does_logs_agree_and_reads_are_never_stale() {
    let runs = std::env::var("DQLITE_SIM_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(60_u64);
    let (mut reads, mut committed) = (0, 0_u64);
    for seed in 0..runs {
        let mut sim = Sim::new(seed, 3 + 2 * (seed % 2));
        for number in 0..3000 {
            sim.act(number);
        }
        sim.heal();
        let leaders = sim.nodes.iter().filter(|node| node.consensus.is_leader()).count();
        assert_eq!(leaders, 1, "seed {seed}: one leader when all is well");
        reads += sim.reads_done as u64;
        committed += sim.acknowledged.0;
    }
    assert!(reads > runs && committed > 10 * runs, "{reads} reads, {committed} entries");
}
