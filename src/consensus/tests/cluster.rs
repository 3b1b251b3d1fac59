//! Several servers that exchange messages.

use std::collections::VecDeque;
use std::time::Duration;

use super::harness::*;
use crate::base::{Index, NodeId, Prng, Role};
use crate::codec::membership::Configuration;
use crate::codec::peer::{Message, TimeoutNow};
use crate::consensus::membership::Refusal;
use crate::consensus::{Change, Effect, Started};

/// A message on its way.
pub(super) struct Packet {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) message: Message,
}

pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    pub(super) wire: VecDeque<Packet>,
    /// Servers that nothing reaches or leaves.
    pub(super) cut: Vec<u64>,
}

impl Cluster {
    pub(super) fn new(configuration: &Configuration, count: u64) -> Self {
        let start = |id| Node::start(config(id), Stored::fresh(configuration));
        Self { nodes: (1..=count).map(start).collect(), wire: VecDeque::new(), cut: Vec::new() }
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[usize::try_from(id - 1).unwrap()]
    }

    /// Puts what the servers want to send on the wire.
    pub(super) fn collect(&mut self) {
        for (from, node) in (1..).zip(&mut self.nodes) {
            node.poll();
            for (to, message) in node.take_sent() {
                self.wire.push_back(Packet { from, to: to.0, message });
            }
        }
    }

    pub(super) fn deliver(&mut self, packet: Packet) {
        let Packet { from, to, message } = packet;
        let known = usize::try_from(to).unwrap() <= self.nodes.len();
        if known && !self.cut.contains(&from) && !self.cut.contains(&to) {
            self.node(to).receive(from, message);
        }
    }

    /// Disks work and messages arrive until nothing is left to do.
    pub(super) fn settle(&mut self) {
        loop {
            self.nodes.iter_mut().for_each(Node::persist_all);
            self.collect();
            match self.wire.pop_front() {
                Some(packet) => self.deliver(packet),
                None if self.nodes.iter().all(|node| node.queue.is_empty()) => return,
                None => {}
            }
        }
    }

    pub(super) fn wait(&mut self, duration: Duration) {
        for _ in 0..duration.as_millis() / 100 {
            for node in &mut self.nodes {
                node.wait(Duration::from_millis(100));
            }
            self.settle();
        }
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let leaders = (1..).zip(&self.nodes).filter(|(_, node)| node.consensus.is_leader());
        leaders.max_by_key(|(_, node)| node.consensus.term()).map(|(id, _)| id)
    }

    pub(super) fn elect(&mut self) -> u64 {
        for _ in 0..10 {
            self.wait(ELECTION);
            if let Some(leader) = self.leader().filter(|leader| !self.cut.contains(leader)) {
                return leader;
            }
        }
        panic!("no leader");
    }
}

#[test]
fn three_voters_elect_one_and_commit_by_majority() {
    let mut cluster = Cluster::new(&voters(&[1, 2, 3]), 3);
    let leader = cluster.elect();
    for number in 10..20 {
        cluster.node(leader).propose(number);
    }
    cluster.settle();
    cluster.wait(HEARTBEAT);
    for node in &cluster.nodes {
        assert_eq!(node.applied_numbers(), (10..20).collect::<Vec<_>>());
    }
    cluster.cut = vec![leader];
    cluster.node(leader).propose(99);
    let next = cluster.elect();
    assert_ne!(next, leader);
    cluster.node(next).propose(20);
    cluster.settle();
    cluster.cut.clear();
    cluster.wait(2 * ELECTION);
    for node in &cluster.nodes {
        assert_eq!(*node.applied_numbers().last().unwrap(), 20);
        assert_eq!(node.stored.entries, cluster.nodes[0].stored.entries);
    }
}

#[test]
fn a_leaders_messages_leave_before_its_own_entries_are_durable() {
    let mut cluster = Cluster::new(&voters(&[1, 2, 3]), 3);
    let leader = cluster.elect();
    cluster.node(leader).propose(7);
    let node = cluster.node(leader);
    assert_eq!(node.queue.len(), 1);
    let with_entry =
        |message: &Message| matches!(message, Message::AppendEntries(it) if it.entries.len() == 1);
    assert_eq!(node.sent.iter().filter(|(_, message)| with_entry(message)).count(), 2);
}

#[test]
fn a_followers_answer_and_configuration_wait_for_its_disk_and_a_cut_brings_the_old_one_back() {
    let mut cluster = Cluster::new(&voters(&[1, 2, 3]), 3);
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    let third = follower % 3 + 1;
    cluster.cut = vec![third];
    let add = Change::Add { id: NodeId(4), address: "node-4".to_owned() };
    let Ok(Started::Entry(index, _)) = cluster.node(leader).consensus.request_change(&add) else { panic!() };
    cluster.collect();
    let to_follower = cluster.wire.iter().position(|packet| packet.to == follower).unwrap();
    let packet = cluster.wire.remove(to_follower).unwrap();
    cluster.wire.clear();
    cluster.deliver(packet);
    let node = cluster.node(follower);
    assert!(node.sent.is_empty(), "no answer before the entry is durable");
    assert_eq!(node.consensus.configuration().servers.len(), 3);
    node.persist_all();
    assert_eq!(node.consensus.configuration().servers.len(), 4);
    assert_eq!(node.sent.len(), 1);
    assert_eq!(node.consensus.committed_configuration().index, Index(1));

    // The old leader loses the entry, and so can elect the third server or be elected by it.
    cluster.cut = vec![follower];
    cluster.node(leader).run_full();
    assert_eq!(cluster.node(leader).consensus.configuration().servers.len(), 3);
    cluster.elect();
    let new = cluster.leader().unwrap();
    assert_ne!(new, follower);
    cluster.node(new).propose(5);
    cluster.settle();
    cluster.cut.clear();
    cluster.wait(2 * ELECTION);
    let node = cluster.node(follower);
    assert_eq!(node.consensus.configuration().servers.len(), 3, "rolled back at the truncation");
    assert!(node.applied.iter().any(|entry| entry.index == index));
}

#[test]
fn a_spare_that_answers_is_promoted_once_it_has_caught_up() {
    let spare = servers(&[(1, Role::Voter), (2, Role::Spare)]);
    let mut cluster = Cluster::new(&spare, 1);
    cluster.nodes.push(Node::start(config(2), Stored::default()));
    cluster.settle();
    for number in 0..50 {
        cluster.node(1).propose(number);
    }
    cluster.settle();
    assert_eq!(cluster.node(2).stored.last(), 0);
    let promote = Change::Assign { id: NodeId(2), role: Role::Voter };
    assert_eq!(cluster.node(1).consensus.request_change(&promote), Ok(Started::Promotion));
    cluster.wait(2 * HEARTBEAT);
    let news = cluster.node(1).take_news();
    let [.., Effect::PromotionEnded { id: NodeId(2), outcome: Ok((index, _)) }] = news.as_slice() else {
        panic!("{news:?}")
    };
    assert_eq!(cluster.node(1).consensus.committed_configuration().index, *index);
    assert_eq!(cluster.node(2).consensus.configuration(), &voters(&[1, 2]));
    assert_eq!(cluster.node(2).applied_numbers(), (0..50).collect::<Vec<_>>());
    cluster.cut = vec![2];
    cluster.node(1).propose(99);
    cluster.settle();
    assert!(!cluster.node(1).applied_numbers().contains(&99), "its voice counts now");
}

#[test]
fn a_leader_that_is_demoted_leads_until_that_is_committed_and_proposes_nothing_more() {
    let mut cluster = Cluster::new(&voters(&[1, 2, 3]), 3);
    let leader = cluster.elect();
    cluster.node(leader).take_news();
    let demote = Change::Remove { id: NodeId(leader) };
    cluster.node(leader).consensus.request_change(&demote).unwrap();
    cluster.node(leader).poll();
    assert!(cluster.node(leader).consensus.is_leader());
    let refused = cluster.node(leader).consensus.propose(crate::base::EntryKind::Command, bytes(1));
    assert_eq!(refused, Err(crate::consensus::Refused::NotLeader));
    cluster.settle();
    assert!(!cluster.node(leader).consensus.is_leader());
    let term = cluster.node(leader).consensus.term();
    assert_eq!(cluster.node(leader).take_news(), [Effect::BecameFollower { term, leader: None }]);
    let next = cluster.elect();
    assert_ne!(next, leader);
    assert!(cluster.node(next).consensus.term() > term);
}

#[test]
fn leadership_is_transferred_and_nothing_is_proposed_meanwhile() {
    let mut cluster = Cluster::new(&voters(&[1, 2, 3]), 3);
    let leader = cluster.elect();
    cluster.node(leader).take_news();
    let target = leader % 3 + 1;
    assert_eq!(cluster.node(leader).consensus.transfer(NodeId(target)), Ok(NodeId(target)));
    cluster.node(leader).poll();
    let refused = cluster.node(leader).consensus.propose(crate::base::EntryKind::Command, bytes(1));
    assert_eq!(refused, Err(crate::consensus::Refused::NotLeader));
    assert_eq!(cluster.node(leader).consensus.transfer(NodeId(0)), Err(Refusal::NotLeader));
    let (last_index, term) =
        (cluster.node(leader).consensus.last_index(), cluster.node(leader).consensus.term());
    let asked = Message::TimeoutNow(TimeoutNow { term, last_index, last_term: term });
    assert_eq!(cluster.node(leader).sent, [(NodeId(target), asked)]);
    cluster.wait(HEARTBEAT);
    assert_eq!(cluster.leader(), Some(target));
    let news = cluster.node(leader).take_news();
    assert!(news.contains(&Effect::TransferEnded { target: NodeId(target), reached: true }), "{news:?}");

    // And one that fails, for the target does not hear of it.
    cluster.node(target).take_news();
    cluster.cut = vec![leader];
    assert!(cluster.node(target).consensus.transfer(NodeId(leader)).is_ok());
    cluster.wait(ELECTION + HEARTBEAT);
    let news = cluster.node(target).take_news();
    assert_eq!(news, [Effect::TransferEnded { target: NodeId(leader), reached: false }]);
    cluster.node(target).propose(3);
    cluster.settle();
    assert_eq!(cluster.node(target).applied_numbers(), [3]);
}

#[test]
fn a_leader_without_majority_steps_down() {
    let mut cluster = Cluster::new(&voters(&[1, 2, 3]), 3);
    let leader = cluster.elect();
    cluster.node(leader).take_news();
    cluster.cut = vec![leader];
    cluster.wait(2 * ELECTION);
    let term = cluster.node(leader).consensus.term();
    let news = cluster.node(leader).take_news();
    assert_eq!(news[0], Effect::BecameFollower { term, leader: None });
}

/// A number below `bound`, as an index.
pub(super) fn below(prng: &mut Prng, bound: usize) -> usize {
    usize::try_from(prng.below(bound as u64)).unwrap()
}
