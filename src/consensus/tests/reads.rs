//! Reads that are proved by labels.

use std::time::Duration;

use super::harness::*;
use crate::base::{EntryKind, Index, NodeId, Role, Term};
use crate::codec::peer::Message;
use crate::consensus::inbound::LABELS_FROM;
use crate::consensus::{Effect, ReadTicket, Refused};

/// Server 1 of three leads term 2 and has applied entry 2 of it.
fn ready_leader() -> Node {
    let mut node = leader();
    node.receive(2, result(2, 0, 2));
    assert_eq!(node.consensus.applied_index(), Index(2));
    node.sent.clear();
    node.take_news();
    node
}

impl Node {
    /// The labels that were sent, and to whom.
    fn labels(&mut self) -> Vec<(u64, u64)> {
        let label = |(to, message): (NodeId, Message)| match message {
            Message::AppendEntries(it) if it.prev_index.0 >= LABELS_FROM => Some((to.0, it.prev_index.0)),
            _ => None,
        };
        self.take_sent().into_iter().filter_map(label).collect()
    }

    fn read(&mut self) -> Option<ReadTicket> {
        self.consensus.request_read(self.now).unwrap()
    }
}

fn ready(up_to: ReadTicket, index: u64) -> Effect {
    Effect::ReadsReady { up_to, index: Index(index) }
}

#[test]
fn reads_that_wait_share_a_round_and_one_answer_of_two_proves_it() {
    let mut node = ready_leader();
    let (_, last) = (node.read(), node.read().unwrap());
    node.poll();
    let labels = node.labels();
    assert_eq!(labels.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(labels[0].1, labels[1].1);
    assert_eq!(node.news, []);
    node.receive(3, result(2, labels[0].1, 0));
    assert_eq!(node.take_news(), [ready(last, 2)]);
    // The peer's progress is none of the label's business.
    assert_eq!(node.progress(3).matched, 0);
    assert_eq!((node.progress(3).next_idx, node.progress(3).recent_active), (2, true));
    node.receive(2, result(2, labels[0].1, 0));
    assert_eq!((node.news.len(), node.sent.len()), (0, 0));
}

#[test]
fn reads_that_come_in_a_row_wait_for_the_last_of_them() {
    let mut node = ready_leader();
    node.consensus.gather_reads(true);
    for _ in 0..3 {
        node.read();
        node.poll();
        assert_eq!(node.labels(), []);
    }
    node.consensus.gather_reads(false);
    node.poll();
    let labels = node.labels();
    assert_eq!(labels.len(), 2);
    // The answer and more reads come together.
    node.consensus.gather_reads(true);
    node.receive(2, result(2, labels[0].1, 2));
    assert_eq!(node.take_news(), [ready(ReadTicket(3), 2)]);
    let last = (node.read(), node.read().unwrap()).1;
    node.poll();
    assert_eq!(node.labels(), []);
    node.consensus.gather_reads(false);
    node.poll();
    let next = node.labels();
    assert_eq!(next, [(2, labels[0].1 + 1)]);
    node.receive(2, result(2, next[0].1, 2));
    assert_eq!(node.take_news(), [ready(last, 2)]);
}

#[test]
fn a_read_that_comes_during_a_round_waits_for_the_next() {
    let mut node = ready_leader();
    let first = node.read().unwrap();
    node.poll();
    let label = node.labels()[0].1;
    let second = node.read().unwrap();
    node.poll();
    assert_eq!(node.labels(), []);
    node.receive(2, result(2, label, 2));
    assert_eq!(node.take_news(), [ready(first, 2)]);
    let next = node.labels()[0].1;
    assert_eq!(next, label + 1);
    // A second answer to the first question proves nothing about the second.
    node.receive(3, result(2, label, 2));
    assert_eq!(node.news, []);
    node.receive(3, result(2, next, 2));
    assert_eq!(node.take_news(), [ready(second, 2)]);
}

#[test]
fn after_a_proof_only_those_are_asked_that_a_majority_needs_until_they_are_silent() {
    let mut node = ready_leader();
    let asked = |node: &mut Node| node.labels().iter().map(|(to, _)| *to).collect::<Vec<_>>();
    node.read();
    node.poll();
    let label = node.labels()[0].1;
    node.receive(3, result(2, label, 2));
    let up_to = node.read().unwrap();
    node.poll();
    assert_eq!(asked(&mut node), [3], "it has answered, 2 has not");
    // Without a word of it soon the other one is asked as well, and its answer is enough.
    node.take_news();
    node.wait(Duration::from_millis(4));
    assert_eq!(asked(&mut node), []);
    node.wait(Duration::from_millis(1));
    assert_eq!(asked(&mut node), [2, 3]);
    node.receive(2, result(2, label + 1, 2));
    assert_eq!(node.take_news(), [ready(up_to, 2)]);
    node.read();
    node.poll();
    assert_eq!(asked(&mut node), [2]);
    node.receive(2, result(2, label + 2, 2));
    // What was known a heartbeat ago is not known now; nor what holds while a change is pending.
    node.wait(HEARTBEAT);
    node.sent.clear();
    node.read();
    node.poll();
    assert_eq!(asked(&mut node), [2, 3]);
    node.receive(2, result(2, label + 3, 2));
    let roles = [(1, Role::Voter), (2, Role::Voter), (3, Role::StandBy)];
    node.consensus.propose_change(&servers(&roles)).unwrap();
    node.read();
    node.poll();
    assert_eq!(asked(&mut node), [2, 3]);
}

#[test]
pub(super) fn answers_of_an_earlier_leadership_and_numbers_never_sent_prove_nothing() {
    let mut node = ready_leader();
    node.read();
    node.poll();
    let label = node.labels()[0].1;
    for other in [label ^ (1 << 32), label + 1, LABELS_FROM, u64::MAX] {
        node.receive(2, result(2, other, 2));
        assert_eq!(node.news, [], "{other}");
    }
    node.receive(2, result(1, label, 2));
    assert_eq!(node.news, []);
    // Another leadership of the same server has other labels.
    node.receive(2, result(5, 0, 2));
    node.persist_all();
    assert!(!node.consensus.is_leader());
    node.take_news();
    node.wait(2 * ELECTION);
    node.receive(2, vote(6, true, Some(true)));
    node.persist_all();
    node.receive(2, vote(6, true, Some(false)));
    node.persist_all();
    node.receive(2, result(6, 0, 3));
    assert!(node.consensus.has_applied_own_term(), "{:?} {:?}", node.news, node.stored.terms());
    node.take_news();
    node.sent.clear();
    node.read();
    node.poll();
    node.receive(2, result(6, label, 3));
    assert_eq!(node.news, []);
}

#[test]
fn answers_to_appends_are_no_proof() {
    let mut node = ready_leader();
    node.propose(3);
    node.read();
    node.poll();
    node.receive(2, result(2, 0, 3));
    node.receive(3, result(2, 0, 3));
    assert_eq!(node.take_news(), []);
}

#[test]
fn a_read_waits_until_what_was_committed_is_applied_and_is_lost_with_the_leadership() {
    let mut node = leader();
    assert_eq!(
        node.consensus.request_read(node.now),
        Err(Refused::NotLeader),
        "no entry of the term is applied"
    );
    let mut node = ready_leader();
    node.read();
    node.poll();
    let label = node.labels()[0].1;
    node.receive(3, result(9, 0, 0));
    node.receive(2, result(2, label, 2));
    let term = Term(9);
    assert_eq!(node.take_news(), [Effect::BecameFollower { term, leader: None }]);
    assert_eq!(node.consensus.request_read(node.now), Err(Refused::NotLeader));
}

#[test]
fn an_only_voter_needs_no_proof() {
    let mut node = Node::bootstrap();
    node.persist_all();
    assert_eq!(node.consensus.request_read(node.now), Ok(None));
}

#[test]
fn while_a_change_is_pending_both_configurations_are_asked() {
    let mut node = ready_leader();
    node.consensus
        .propose_change(&servers(&[(1, Role::Voter), (2, Role::StandBy), (3, Role::Voter)]))
        .unwrap();
    node.poll();
    let up_to = node.read().unwrap();
    node.poll();
    let labels = node.labels();
    assert_eq!(labels.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [3, 2]);
    // A majority of the old one, and only half of the new.
    node.receive(2, result(2, labels[0].1, 2));
    assert_eq!(node.news, []);
    node.receive(3, result(2, labels[0].1, 2));
    assert_eq!(node.take_news(), [ready(up_to, 2)]);

    // One that is a voter no more has a say until that is committed.
    let mut node = elected(Stored::fresh(&voters(&[1, 2])));
    node.receive(2, result(2, 0, 2));
    node.take_news();
    node.consensus.propose_change(&voters(&[1])).unwrap();
    node.poll();
    let up_to = node.read().unwrap();
    node.poll();
    let label = node.labels()[0].1;
    assert_eq!(node.news, []);
    node.receive(2, result(2, label, 2));
    assert_eq!(node.take_news(), [ready(up_to, 2)]);
}

#[test]
fn labels_are_repeated_and_a_server_that_is_deaf_to_them_is_asked_by_an_entry() {
    let mut node = ready_leader();
    let up_to = node.read().unwrap();
    node.poll();
    let label = node.labels()[0].1;
    node.wait(HEARTBEAT + Duration::from_millis(100));
    assert!(node.labels().contains(&(2, label)));
    node.wait(3 * HEARTBEAT);
    let last = node.consensus.last_index();
    assert_eq!(last, Index(3));
    node.wait(HEARTBEAT);
    assert_eq!(node.consensus.last_index(), last, "one entry for all that wait");
    node.persist_all();
    node.receive(2, result(2, 0, 3));
    assert_eq!(node.stored.entries[2].kind, EntryKind::Barrier);
    assert_eq!(node.take_news(), [ready(up_to, 2)]);
}

#[test]
fn a_follower_answers_labels_at_once_and_stays_loyal() {
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2, 3])));
    node.receive(2, append(2, (1, 1), 0, &[entry(2, 2, EntryKind::Barrier, bytes(0))]));
    node.persist_all();
    node.receive(2, append(2, (2, 2), 0, &[entry(3, 2, EntryKind::Command, bytes(3))]));
    node.sent.clear();
    let label = LABELS_FROM + 7;
    node.receive(2, append(2, (label, 2), 3, &[]));
    assert_eq!(node.take_sent(), [(NodeId(2), result(2, label, 2))], "entry 3 is not durable yet");
    assert_eq!(node.consensus.commit_index(), Index(1));
    node.persist_all();
    node.sent.clear();
    for _ in 0..20 {
        node.wait(HEARTBEAT);
        node.receive(2, append(2, (label, 2), 3, &[]));
    }
    assert!(node.take_sent().iter().all(|sent| *sent == (NodeId(2), result(2, label, 3))));
    // A higher term is taken over first, and answered when it is durable.
    node.receive(3, append(4, (label, 4), 3, &[]));
    assert_eq!(node.take_sent(), []);
    node.persist_all();
    assert_eq!(node.take_sent(), [(NodeId(3), result(4, label, 3))]);
    node.receive(2, append(2, (label, 2), 3, &[]));
    assert_eq!(node.take_sent(), [(NodeId(2), result(4, label, 3))]);
}
