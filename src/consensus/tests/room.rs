//! Disks that are full, or broken.

use super::harness::*;
use crate::base::{EntryKind, Index, NodeId, Role, Term, limits};
use crate::codec::peer::Message;
use crate::consensus::membership::Refusal;
use crate::consensus::{Change, Effect, Refused};

#[test]
fn a_full_disk_keeps_an_only_voter_readable_and_room_makes_it_writable_in_a_new_term() {
    let mut node = Node::bootstrap();
    node.propose(2);
    node.persist_all();
    node.take_news();
    node.propose(3);
    node.propose(4);
    node.run_full();
    assert_eq!(node.take_news(), [Effect::OutOfSpace { lost_from: Index(3) }]);
    assert!(node.consensus.is_leader() && node.consensus.has_applied_own_term());
    assert_eq!(node.consensus.leader(), Some(NodeId(1)));
    assert_eq!(node.consensus.last_index(), Index(2));
    assert_eq!(node.consensus.propose(EntryKind::Command, bytes(5)), Err(Refused::OutOfSpace));
    let change = Change::Add { id: NodeId(2), address: "node-2".to_owned() };
    assert_eq!(node.consensus.request_change(&change), Err(Refusal::Io));

    // Two attempts meet a full disk still.
    for term in 2..4 {
        assert_eq!(node.queue.len(), 0);
        node.wait(limits::DISK_SPACE_RETRY + HEARTBEAT);
        assert_eq!(node.queue[0].metadata, Some((Term(term), NodeId(1))));
        assert_eq!(node.queue[0].truncate_from, Some(Index(3)));
        assert_eq!(node.consensus.propose(EntryKind::Command, bytes(5)), Err(Refused::OutOfSpace));
        node.run_full();
        assert_eq!(node.take_news(), []);
    }
    node.consensus.handle_space_available();
    node.poll();
    node.persist_all();
    assert_eq!(node.take_news(), [Effect::BecameLeader { term: Term(4) }]);
    assert_eq!(node.propose(6), (Index(4), Term(4)));
    node.persist_all();
    assert_eq!(node.applied_numbers(), [2, 6]);
    assert_eq!(node.stored.terms(), [1, 1, 4, 4]);
}

#[test]
fn a_full_disk_at_the_start_leaves_a_leader_that_may_not_answer_reads() {
    let mut node = Node::bootstrap();
    node.propose(2);
    node.persist_all();
    let mut node = node.crash(config(1));
    node.run_full();
    assert!(node.consensus.is_leader() && !node.consensus.has_applied_own_term());
    node.wait(limits::DISK_SPACE_RETRY + HEARTBEAT);
    node.persist_all();
    assert!(node.consensus.has_applied_own_term());
    assert_eq!(node.applied_numbers(), [2]);
    assert_eq!(node.stored.terms(), [1, 1, 3]);
}

#[test]
fn a_full_disk_at_the_bootstrap_start_is_survived() {
    let mut node = Node::bootstrap();
    node.run_full();
    node.wait(limits::DISK_SPACE_RETRY + HEARTBEAT);
    node.persist_all();
    assert_eq!(node.stored.terms(), [1, 2]);
    assert_eq!(node.propose(3), (Index(3), Term(2)));
}

#[test]
fn a_configuration_that_did_not_reach_the_disk_is_taken_back() {
    let mut node = Node::bootstrap();
    node.persist_all();
    node.take_news();
    node.consensus.request_change(&Change::Add { id: NodeId(2), address: "b".to_owned() }).unwrap();
    node.poll();
    node.run_full();
    assert_eq!(node.take_news(), [Effect::OutOfSpace { lost_from: Index(2) }]);
    assert_eq!(node.consensus.configuration(), &voters(&[1]));
}

#[test]
fn a_leader_among_several_voters_steps_down_for_a_full_disk() {
    // Two voters by a change that is not committed: the other one may hold it, and may be elected.
    let mut node = Node::start(config(1), Stored::fresh(&servers(&[(1, Role::Voter), (2, Role::Spare)])));
    node.persist_all();
    node.take_news();
    node.consensus.propose_change(&voters(&[1, 2])).unwrap();
    node.poll();
    node.run_full();
    let news = node.take_news();
    assert_eq!(news, [Effect::BecameFollower { term: Term(2), leader: None }]);
    assert!(!node.consensus.is_leader());
    node.wait(3 * ELECTION);
    node.persist_all();
    assert!(node.consensus.is_leader() && node.consensus.term() > Term(2), "once there is room");
}

#[test]
fn a_promotion_ends_with_the_room_on_the_disk() {
    let mut node = Node::start(config(1), Stored::fresh(&servers(&[(1, Role::Voter), (2, Role::Spare)])));
    node.persist_all();
    node.take_news();
    node.consensus.request_change(&Change::Assign { id: NodeId(2), role: Role::Voter }).unwrap();
    node.propose(3);
    node.run_full();
    let ended = Effect::PromotionEnded { id: NodeId(2), outcome: Err(Refusal::Io) };
    assert_eq!(node.take_news(), [ended, Effect::OutOfSpace { lost_from: Index(3) }]);
}

#[test]
fn a_failed_write_ends_this_servers_part() {
    let mut node = Node::bootstrap();
    node.persist_all();
    node.take_news();
    node.propose(2);
    let ticket = node.queue[0].ticket;
    node.consensus.handle_persist_failed(ticket + 1, false);
    assert_eq!(node.consensus.unavailable(), None, "no such ticket");
    node.consensus.handle_persist_failed(ticket, false);
    node.poll();
    let text = "the log could not be written".to_owned();
    assert_eq!(node.take_news(), [Effect::Unavailable { text }]);
    node.consensus.handle_persisted(ticket);
    node.poll();
    assert_eq!(node.applied_numbers(), [0; 0]);
}

/// Three leaders while the disk is busy, of which the first comes back, and a `between` after its first entries.
fn cut_off_and_brought_back(between: Option<Message>) {
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2, 3])));
    let of = |term, index: u64| entry(index, term, EntryKind::Command, bytes(index));
    node.receive(2, append(2, (1, 1), 1, &[of(2, 2), of(2, 3)]));
    between.into_iter().for_each(|message| node.receive(3, message));
    node.receive(3, append(3, (1, 1), 1, &[of(3, 2)]));
    node.receive(2, append(4, (1, 1), 3, &[of(2, 2), of(2, 3)]));
    assert_eq!(node.queue.len(), 3);
    node.persist_one();
    assert_eq!(node.applied_numbers(), [], "they are about to be cut off, and to be written again");
    node.run_full();
    assert_eq!(node.consensus.unavailable(), None);
    node.receive(2, append(4, (1, 1), 3, &[of(2, 2), of(2, 3)]));
    node.persist_all();
    assert_eq!(node.applied_numbers(), [2, 3]);
}

#[test]
fn an_entry_that_was_cut_off_and_came_back_is_applied_once_it_is_written_again() {
    cut_off_and_brought_back(None);
}

#[test]
fn what_is_about_to_be_cut_off_is_not_applied_for_an_answer_that_left_meanwhile() {
    // This needs nothing of the disk, and is done as soon as what came before it is.
    cut_off_and_brought_back(Some(Message::RequestVote(asks(3, 3, (9, 2), true))));
}
