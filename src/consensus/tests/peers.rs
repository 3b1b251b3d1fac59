//! A server and messages made by hand: orders of events that a cluster seldom shows.

use raft::eraftpb::{Message, MessageType};

use super::harness::*;
use crate::base::{Entry, EntryKind, Index, NodeId, Role, Term};
use crate::consensus::log_view::handle;

/// An append of leader `from`, after the entry at `prev`.
fn append(from: u64, term: u64, prev: (u64, u64), entries: &[Entry]) -> (Message, Vec<Entry>) {
    let mut message = Message { from, to: 1, term, index: prev.0, log_term: prev.1, ..Message::default() };
    message.set_msg_type(MessageType::MsgAppend);
    for entry in entries {
        let (context, data) = handle(entry.kind, entry.payload.len() as u64);
        let (index, term) = (entry.index.0, entry.term.0);
        message.entries.push(raft::eraftpb::Entry { index, term, context, data, ..Default::default() });
    }
    (message, entries.to_vec())
}

impl Node {
    fn receive(&mut self, (message, payloads): (Message, Vec<Entry>)) {
        self.consensus.step(message, payloads);
        self.poll();
    }
}

fn follower() -> Node {
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2, 3])));
    node.receive(append(2, 2, (1, 1), &[entry(2, 2, EntryKind::Barrier, bytes(0))]));
    node.persist_all();
    node.sent.clear();
    node
}

#[test]
fn nobody_campaigns_with_a_log_that_is_not_durable() {
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2])));
    let alone = change(2, 2, &voters(&[1]));
    node.receive(append(2, 2, (1, 1), &[alone]));
    node.persist_all();
    node.receive(append(2, 2, (2, 2), &[entry(3, 2, EntryKind::Command, bytes(3))]));
    let mut now = Message { from: 2, to: 1, term: 2, ..Message::default() };
    now.set_msg_type(MessageType::MsgTimeoutNow);
    node.receive((now, Vec::new()));
    node.wait(3 * ELECTION);
    assert_eq!(node.consensus.unavailable(), None);
    assert_eq!((node.consensus.term(), node.consensus.is_leader()), (Term(2), false));
    node.persist_all();
    node.wait(HEARTBEAT);
    assert_eq!((node.consensus.term(), node.consensus.is_leader()), (Term(3), true));
}

#[test]
fn a_configuration_that_was_overwritten_before_it_was_durable_never_comes_in_force() {
    let mut node = follower();
    let four = servers(&[(1, Role::Voter), (2, Role::Voter), (3, Role::Voter), (4, Role::Spare)]);
    node.receive(append(2, 2, (2, 2), &[change(3, 2, &four)]));
    node.receive(append(3, 3, (2, 2), &[entry(3, 3, EntryKind::Barrier, bytes(0))]));
    assert_eq!(node.queue[1].truncate_from, Some(Index(3)));
    node.persist_one();
    assert_eq!(node.consensus.configuration(), &voters(&[1, 2, 3]));
    node.persist_all();
    assert_eq!(node.consensus.configuration(), &voters(&[1, 2, 3]));
    assert_eq!(node.stored.terms(), [1, 2, 3]);
}

#[test]
fn a_vote_that_may_not_have_reached_the_disk_is_stored_again_before_an_answer_leaves() {
    let mut node = follower();
    node.wait(3 * ELECTION);
    let mut granted = Message { from: 2, to: 1, term: 3, ..Message::default() };
    granted.set_msg_type(MessageType::MsgRequestPreVoteResponse);
    node.receive((granted, Vec::new()));
    assert_eq!(node.queue[0].metadata, Some((Term(3), NodeId(1))));
    node.sent.clear();
    node.run_full();
    assert_eq!(node.sent, [], "no request without a durable vote");
    node.receive(append(3, 3, (2, 2), &[]));
    assert_eq!(node.queue[0].metadata, Some((Term(3), NodeId(1))));
    assert_eq!(node.sent, []);
    node.persist_all();
    assert_eq!(node.sent.len(), 1);
    assert_eq!((node.stored.term, node.stored.vote), (Term(3), NodeId(1)));
}

#[test]
fn a_stand_by_gives_its_vote_once_the_leader_was_silent_for_an_election_timeout() {
    // It may be a voter already in a configuration that only the candidate holds.
    let mut node = Node::start(config(1), Stored::fresh(&servers(&[(1, Role::StandBy), (2, Role::Voter)])));
    node.receive(append(2, 2, (1, 1), &[]));
    let mut asks = Message { from: 2, to: 1, term: 3, index: 9, log_term: 2, ..Message::default() };
    asks.set_msg_type(MessageType::MsgRequestPreVote);
    node.persist_all();
    node.sent.clear();
    node.wait(ELECTION - HEARTBEAT);
    node.receive((asks.clone(), Vec::new()));
    assert_eq!(node.sent, []);
    node.wait(2 * HEARTBEAT);
    node.receive((asks, Vec::new()));
    assert!(!node.sent[0].1.0.reject);
    assert_eq!(node.consensus.poll_timeout(), None);
}
