//! Seeded runs with late, full and dying disks: nothing committed is lost, no (index, term) names two entries.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cluster::{Cluster, below};
use super::harness::*;
use crate::base::{Entry, EntryKind, Index, NodeId, Prng, Role, Term, limits};
use crate::consensus::Change;

/// What must hold over a whole run.
#[derive(Default)]
pub(super) struct Referee {
    /// Every entry that was ever proposed or on its way to a disk, and who was the first to have it.
    named: BTreeMap<(Term, Index), (u64, Entry)>,
    committed: BTreeMap<Index, Entry>,
    leaders: BTreeMap<Term, u64>,
}

impl Referee {
    pub(super) fn name(&mut self, seed: u64, id: u64, entry: &Entry) {
        let (_, known) = self.named.entry((entry.term, entry.index)).or_insert_with(|| (id, entry.clone()));
        assert_eq!(known, entry, "seed {seed}: one name for two entries");
    }

    /// A server dies. What it proposed in a term that it never stored has left it nowhere: names in that
    /// term are free again.
    pub(super) fn forget_volatile(&mut self, id: u64, stored: &Stored) {
        self.named.retain(|(term, _), (owner, _)| *owner != id || *term <= stored.term);
    }

    pub(super) fn watch(&mut self, seed: u64, id: u64, node: &Node) {
        assert_eq!(node.consensus.unavailable(), None, "seed {seed}, server {id}");
        node.stored.entries.iter().for_each(|entry| self.name(seed, id, entry));
        node.queue.iter().flat_map(|work| &work.entries).for_each(|entry| self.name(seed, id, entry));
        for entry in &node.applied {
            let known = self.committed.entry(entry.index).or_insert_with(|| entry.clone());
            assert_eq!(known, entry, "seed {seed}, server {id}: a committed entry was replaced");
        }
        let raft = &node.consensus.raw.as_ref().unwrap().raft;
        if raft.state == raft::StateRole::Leader {
            let leader = *self.leaders.entry(Term(raft.term)).or_insert(id);
            assert_eq!(leader, id, "seed {seed}: two leaders in one term");
        }
    }
}

#[test]
fn an_only_voter_loses_nothing_it_acknowledged() {
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut referee = Referee::default();
        let mut node = Node::bootstrap();
        let mut number = 0;
        for _ in 0..150 {
            match prng.below(12) {
                0..=5 => {
                    number += 1;
                    // Refused during a shortage; several may leave in one work.
                    let proposed = node.consensus.propose(EntryKind::Command, bytes(number));
                    if let Ok((index, term)) = proposed {
                        referee.name(seed, 1, &entry(index.0, term.0, EntryKind::Command, bytes(number)));
                    }
                    if prng.below(2) == 0 {
                        node.poll();
                    }
                }
                6..=8 => drop(node.persist_one()),
                9 if !node.queue.is_empty() => node.run_full(),
                10 => node.wait(limits::DISK_SPACE_RETRY),
                11 if prng.below(3) == 0 => {
                    referee.forget_volatile(1, &node.stored);
                    node = node.crash(config(1));
                }
                _ => node.poll(),
            }
            referee.watch(seed, 1, &node);
        }
        node.wait(2 * limits::DISK_SPACE_RETRY);
        node.persist_all();
        node.propose(u64::MAX);
        node.persist_all();
        referee.watch(seed, 1, &node);
        let last = *referee.committed.keys().last().unwrap();
        assert_eq!(node.applied.last().unwrap().index, last, "seed {seed}");
        assert_eq!(node.stored.entries.last().unwrap().payload, bytes(u64::MAX), "seed {seed}");
    }
}

#[test]
fn three_servers_agree_on_everything_committed() {
    for seed in 0..40 {
        let mut prng = Prng::new(seed);
        let mut referee = Referee::default();
        let mut cluster = Cluster::new(&voters(&[1, 2, 3]), 3);
        for number in 0..1500 {
            let id = prng.below(3) + 1;
            match prng.below(40) {
                0..=4 => {
                    let proposed = cluster.node(id).consensus.propose(EntryKind::Command, bytes(number));
                    if let Ok((index, term)) = proposed {
                        referee.name(seed, id, &entry(index.0, term.0, EntryKind::Command, bytes(number)));
                    }
                }
                5..=14 => drop(cluster.node(id).persist_one()),
                15 if prng.below(3) == 0 && !cluster.node(id).queue.is_empty() => cluster.node(id).run_full(),
                16 if prng.below(3) == 0 => {
                    let old = cluster.nodes.remove(usize::try_from(id - 1).unwrap());
                    referee.forget_volatile(id, &old.stored);
                    let new = old.crash(config(id));
                    cluster.nodes.insert(usize::try_from(id - 1).unwrap(), new);
                }
                17 => {
                    cluster.cut = if prng.below(3) == 0 { vec![id] } else { Vec::new() };
                }
                18 => {
                    let role = [Role::Voter, Role::StandBy, Role::Spare][below(&mut prng, 3)];
                    let change = Change::Assign { id: NodeId(prng.below(3) + 1), role };
                    // Refused for many good reasons.
                    let _ = cluster.node(id).consensus.request_change(&change);
                }
                19 => drop(cluster.node(id).consensus.transfer(NodeId(0))),
                20..=25 => cluster.node(id).wait(Duration::from_millis(100 * prng.below(8))),
                _ => {
                    cluster.collect();
                    if let Some(packet) = (!cluster.wire.is_empty())
                        .then(|| below(&mut prng, cluster.wire.len().min(4)))
                        .and_then(|place| cluster.wire.remove(place))
                        && prng.below(10) > 0
                    {
                        cluster.deliver(packet);
                    }
                }
            }
            cluster.node(id).poll();
            for (id, node) in (1..).zip(&cluster.nodes) {
                referee.watch(seed, id, node);
            }
        }
        cluster.cut.clear();
        cluster.wait(6 * ELECTION);
        let leader = cluster.leader().unwrap_or_else(|| panic!("seed {seed}: no leader"));
        cluster.node(leader).propose(1 << 40);
        cluster.wait(ELECTION);
        for (id, node) in (1..).zip(&cluster.nodes) {
            referee.watch(seed, id, node);
        }
        let (last, _) = referee.committed.last_key_value().unwrap();
        assert_eq!(cluster.node(leader).applied.last().unwrap().index, *last, "seed {seed}");
    }
}
