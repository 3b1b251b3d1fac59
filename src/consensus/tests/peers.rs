//! A server and messages made by hand: orders of events that a cluster seldom shows.

use super::harness::*;
use crate::base::{EntryKind, Index, NodeId, Role, Term};
use crate::codec::peer::{Message, RequestVote, TimeoutNow, VoteResult};

fn follower() -> Node {
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2, 3])));
    node.receive(2, append(2, (1, 1), 0, &[entry(2, 2, EntryKind::Barrier, bytes(0))]));
    node.persist_all();
    node.sent.clear();
    node
}

#[test]
fn nobody_campaigns_with_a_log_that_is_not_durable() {
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2])));
    let alone = change(2, 2, &voters(&[1]));
    node.receive(2, append(2, (1, 1), 0, &[alone]));
    node.persist_all();
    node.receive(2, append(2, (2, 2), 0, &[entry(3, 2, EntryKind::Command, bytes(3))]));
    let now = TimeoutNow { term: Term(2), last_index: Index(3), last_term: Term(2) };
    node.receive(2, Message::TimeoutNow(now));
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
    node.receive(2, append(2, (2, 2), 0, &[change(3, 2, &four)]));
    node.receive(3, append(3, (2, 2), 0, &[entry(3, 3, EntryKind::Barrier, bytes(0))]));
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
    node.receive(2, Message::VoteResult(VoteResult { term: Term(3), granted: true, pre_vote: Some(true) }));
    assert_eq!(node.queue[0].metadata, Some((Term(3), NodeId(1))));
    node.sent.clear();
    node.run_full();
    assert_eq!(node.sent, [], "no request without a durable vote");
    node.receive(3, append(3, (2, 2), 0, &[]));
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
    node.receive(2, append(2, (1, 1), 0, &[]));
    let asks = RequestVote {
        term: Term(3),
        candidate: NodeId(2),
        last_index: Index(9),
        last_term: Term(2),
        disrupt_leader: false,
        pre_vote: true,
    };
    let answer = |granted| {
        [(NodeId(2), Message::VoteResult(VoteResult { term: Term(3), granted, pre_vote: Some(true) }))]
    };
    node.persist_all();
    node.sent.clear();
    node.wait(ELECTION - HEARTBEAT);
    node.receive(2, Message::RequestVote(asks));
    assert_eq!(node.take_sent(), answer(false));
    node.wait(2 * HEARTBEAT);
    node.receive(2, Message::RequestVote(asks));
    assert_eq!(node.take_sent(), answer(true));
    assert_eq!(node.consensus.poll_timeout(), None);
}
