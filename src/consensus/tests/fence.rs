//! Peers of raft before 0.17.1, which report the ends of earlier leaders' writes to the new leader.

use super::harness::*;
use crate::base::{Index, Term};
use crate::codec::peer::{AppendResult, Message};
use crate::consensus::inbound::LABELS_FROM;

/// An answer in the short form.
fn short(term: u64, rejected: u64, last_index: u64) -> Message {
    let last_index = Index(last_index);
    Message::AppendResult(AppendResult { term: Term(term), rejected, last_index, features: None })
}

/// What was sent to server 2: labels by their number, appends by where they begin and end.
fn row(node: &mut Node) -> Vec<(u64, u64)> {
    let place = |message| match message {
        Message::AppendEntries(it) => (it.prev_index.0, it.prev_index.0 + it.entries.len() as u64),
        other => panic!("{other:?}"),
    };
    node.sent_to(2).into_iter().map(place).collect()
}

/// Server 1 leads term 2 and knows that server 2 answers in the short form.
fn leader_of_old() -> Node {
    let mut node = leader();
    for number in 3..10 {
        node.propose(number);
    }
    node.persist_all();
    node.receive(2, short(2, 1, 1));
    node
}

#[test]
pub(super) fn ends_of_an_earlier_leaders_writes_are_never_counted() {
    // One refused append, then 59 successes with the indexes of the old leader's tail, as they were recorded.
    let mut node = leader();
    for number in 3..70 {
        node.propose(number);
    }
    node.persist_all();
    node.sent.clear();
    node.receive(2, short(2, 1, 60));
    for stale in 2..=60 {
        node.receive(2, short(2, 0, stale));
    }
    assert_eq!(node.progress(2).matched, 0);
    assert_eq!(node.consensus.commit_index(), Index(1));
    // The leader probed from the start; that is accepted.
    node.wait(HEARTBEAT);
    let sent = row(&mut node);
    let labels: Vec<u64> = sent.iter().map(|place| place.0).filter(|prev| *prev >= LABELS_FROM).collect();
    for label in labels {
        node.receive(2, short(2, label, 69));
    }
    node.receive(2, short(2, 0, 69));
    assert_eq!((node.progress(2).matched, node.consensus.commit_index()), (69, Index(69)));
}

#[test]
fn successes_count_once_both_labels_around_an_append_were_answered() {
    let mut node = leader_of_old();
    let sent = row(&mut node);
    let [.., (first, _), (0, 9), (second, _)] = sent.as_slice() else { panic!("{sent:?}") };
    node.receive(2, short(2, 0, 9));
    node.receive(2, short(2, *first, 9));
    node.receive(2, short(2, 0, 9));
    assert_eq!(node.progress(2).matched, 0);
    node.receive(2, short(2, *second, 9));
    assert_eq!(node.progress(2).matched, 0, "nothing was said since");
    node.receive(2, short(2, 0, 9));
    assert_eq!(node.progress(2).matched, 9);
    assert_eq!(node.consensus.commit_index(), Index(9));
    // A new connection: all over again.
    node.consensus.handle_peer_connected(crate::base::NodeId(2));
    node.propose(10);
    node.persist_all();
    node.receive(2, short(2, 0, 10));
    assert_eq!(node.progress(2).matched, 9);
}

#[test]
fn a_refusal_between_the_labels_and_an_empty_log_prove_nothing() {
    let mut node = leader_of_old();
    let sent = row(&mut node);
    let [.., (first, _), (0, 9), (second, _)] = sent.as_slice() else { panic!("{sent:?}") };
    node.receive(2, short(2, *first, 9));
    node.receive(2, short(2, 9, 3));
    node.receive(2, short(2, *second, 9));
    node.receive(2, short(2, 0, 9));
    assert_eq!(node.progress(2).matched, 0);

    let mut node = leader_of_old();
    let sent = row(&mut node);
    let [.., (first, _), (0, 9), (second, _)] = sent.as_slice() else { panic!("{sent:?}") };
    // It installs a snapshot.
    node.receive(2, short(2, *first, 0));
    node.receive(2, short(2, *second, 9));
    node.receive(2, short(2, 0, 9));
    assert_eq!(node.progress(2).matched, 0);
    // A fence that got lost is put up again.
    node.sent.clear();
    node.wait(4 * HEARTBEAT);
    assert!(row(&mut node).iter().filter(|place| place.0 >= LABELS_FROM).count() >= 2);
}

#[test]
fn peers_that_answer_in_the_long_form_need_no_fence() {
    let mut node = leader();
    node.receive(2, result(2, 0, 2));
    node.propose(3);
    node.wait(HEARTBEAT);
    assert!(row(&mut node).iter().all(|place| place.0 < LABELS_FROM));
    assert_eq!(node.progress(2).matched, 2);
}

#[test]
fn a_refusal_of_index_0_says_nothing_that_could_pass_for_a_success() {
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2, 3])));
    node.receive(2, append(3, (1, 1), 0, &[]));
    node.persist_all();
    node.sent.clear();
    node.receive(3, append(2, (0, 0), 0, &[]));
    assert_eq!(node.take_sent(), [(crate::base::NodeId(3), result(3, 0, 0))]);
}
