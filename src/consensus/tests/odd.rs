//! What only a confused peer says, or one of another cluster: refused, and nothing breaks.

use super::harness::*;
use crate::base::{EntryKind, Index, NodeId, Role, Term};
use crate::codec::membership::Configuration;
use crate::codec::peer::{InstallSnapshot, Message, TimeoutNow};
use crate::consensus::Offer;
use crate::consensus::inbound::{LABELS_FROM, TERMS_FROM};

fn head(term: u64, last: (u64, u64)) -> InstallSnapshot {
    InstallSnapshot {
        term: Term(term),
        last_index: Index(last.0),
        last_term: Term(last.1),
        configuration_index: Index(1),
        configuration: voters(&[1, 2, 3]),
        configuration_bytes: Vec::new(),
        data_bytes: 8,
    }
}

/// Server 1 of three follows server 2 in term 2; entries 2 and 3 of that term are committed.
fn follower() -> Node {
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2, 3])));
    let command = |index| entry(index, 2, EntryKind::Command, bytes(index));
    node.receive(2, append(2, (1, 1), 3, &[command(2), command(3)]));
    node.persist_all();
    assert_eq!(node.consensus.commit_index(), Index(3));
    node.take_sent();
    node
}

#[test]
fn where_nobody_votes_the_server_starts_and_follows() {
    let nobody = servers(&[(1, Role::StandBy), (2, Role::StandBy)]);
    let mut node = Node::start(config(1), Stored::fresh(&nobody));
    node.wait(4 * ELECTION);
    assert_eq!(node.take_sent(), [], "it cannot be elected");
    // Servers come and go in the log, up to none at all, and a new leader cuts that off.
    let none = Configuration::default();
    let changes = [change(2, 3, &voters(&[1, 2])), change(3, 3, &none), change(4, 3, &nobody)];
    node.receive(2, append(3, (1, 1), 1, &changes));
    node.persist_all();
    assert_eq!(node.consensus.unavailable(), None);
    assert_eq!(node.consensus.configuration(), &nobody);
    node.receive(3, append(4, (1, 1), 2, &[change(2, 4, &voters(&[1, 3]))]));
    node.persist_all();
    assert_eq!(node.consensus.unavailable(), None);
    assert_eq!(node.consensus.configuration(), &voters(&[1, 3]));
    // An empty directory whose first configuration is cut off.
    let mut node = Node::start(config(1), Stored::default());
    node.receive(2, append(3, (0, 0), 0, &[change(1, 3, &voters(&[1, 2]))]));
    node.persist_all();
    node.receive(3, append(4, (0, 0), 0, &[entry(1, 4, EntryKind::Command, bytes(1))]));
    node.persist_all();
    assert_eq!(node.consensus.unavailable(), None);
    assert_eq!(node.consensus.configuration(), &none);
}

#[test]
fn a_snapshot_of_another_history_is_not_acknowledged() {
    let mut node = follower();
    let offered = node.consensus.handle_snapshot_offer(NodeId(3), "node-3", head(5, (2, 3)), node.now);
    assert_eq!(offered, Offer::Skip);
    node.poll();
    node.persist_all();
    assert_eq!(node.take_sent(), [], "entry 2 is another one here");
    let offered = node.consensus.handle_snapshot_offer(NodeId(2), "node-2", head(6, (2, 2)), node.now);
    assert_eq!(offered, Offer::Skip);
    node.poll();
    node.persist_all();
    assert_eq!(node.take_sent(), [(NodeId(2), result(6, 0, 2))]);
}

#[test]
fn while_a_snapshot_is_installed_nothing_is_committed_that_contradicts_it() {
    for fits in [true, false] {
        let mut node = follower();
        let command = |index| entry(index, 2, EntryKind::Command, bytes(index));
        node.receive(2, append(2, (3, 2), 3, &[command(4), command(5)]));
        node.persist_all();
        let offered = node.consensus.handle_snapshot_offer(NodeId(3), "node-3", head(3, (4, 3)), node.now);
        assert_eq!(offered, Offer::Take);
        assert!(node.consensus.handle_snapshot_received());
        node.poll();
        node.persist_all();
        node.take_sent();
        // Its snapshot says that entry 4 is of term 3.
        for prev in [(5, 2), (4, 2)] {
            node.receive(3, append(3, prev, 5, &[]));
            assert_eq!((node.take_sent(), node.consensus.commit_index()), (Vec::new(), Index(3)));
        }
        node.receive(3, append(3, (3, 2), 3, &[]));
        assert_eq!(node.take_sent(), [(NodeId(3), result(3, 0, 3))], "what is before it may match");
        if fits {
            node.stored.entries.clear();
            node.applied.clear();
            node.consensus.handle_snapshot_installed(Ok(()));
        } else {
            // The disk is full, and what contradicts the snapshot was cut off before that showed.
            node.consensus.handle_tail_lost(Index(4));
            node.consensus.handle_snapshot_installed(Err("no room".to_owned()));
        }
        node.poll();
        assert_eq!(node.consensus.unavailable(), None);
        let (applied, last) = (node.consensus.applied_index(), node.consensus.last_index());
        assert_eq!((applied, last), if fits { (Index(4), Index(4)) } else { (Index(3), Index(3)) });
    }
}

#[test]
fn terms_and_indexes_that_no_cluster_reaches_change_nothing() {
    for huge in [TERMS_FROM, u64::MAX - 1, u64::MAX] {
        let mut node = follower();
        let handed = TimeoutNow { term: Term(huge), last_index: Index(3), last_term: Term(2) };
        let messages = [
            append(huge, (3, 2), 3, &[]),
            append(huge, (3, 2), 3, &[entry(4, huge, EntryKind::Command, bytes(4))]),
            result(huge, 0, 3),
            vote(huge, true, Some(false)),
            Message::RequestVote(asks(3, huge, (9, 9), false)),
            Message::RequestVote(asks(3, huge, (9, 9), true)),
            Message::TimeoutNow(handed),
        ];
        for message in messages {
            node.receive(3, message);
        }
        let offer = node.consensus.handle_snapshot_offer(NodeId(3), "node-3", head(huge, (9, 2)), node.now);
        assert_eq!(offer, Offer::Skip);
        node.persist_all();
        assert_eq!((node.consensus.term(), node.take_sent()), (Term(2), Vec::new()));
        node.wait(4 * ELECTION);
        assert_eq!(node.consensus.unavailable(), None);
        // It may be asked for a vote after this as before.
        node.receive(3, Message::RequestVote(asks(3, 7, (9, 9), false)));
        node.persist_all();
        assert_eq!(node.take_sent().pop(), Some((NodeId(3), vote(7, true, Some(false)))));
    }
    for huge in [LABELS_FROM / 2, LABELS_FROM, u64::MAX] {
        let mut node = follower();
        let offer = node.consensus.handle_snapshot_offer(NodeId(2), "node-2", head(2, (huge, 2)), node.now);
        assert_eq!(offer, Offer::Skip);
    }
}

#[test]
fn a_refusal_that_hints_at_any_index_moves_a_probe_to_what_there_is() {
    let mut node = leader();
    for hint in [u64::MAX, u64::MAX - 1, LABELS_FROM, 7, 1, 0] {
        let refused = node.progress(3).next_idx - 1;
        node.receive(3, result(2, refused, hint));
        assert_eq!(node.consensus.unavailable(), None);
        let progress = node.progress(3);
        assert!(progress.next_idx > progress.matched && progress.next_idx <= 3, "{progress:?}");
    }
}

#[test]
fn the_configuration_of_a_snapshot_counts_from_its_end_at_the_latest() {
    // Before 1.17 a snapshot came with the newest configuration, even one behind its own end.
    let mut node = follower();
    let mut head = head(2, (5, 2));
    (head.configuration_index, head.configuration) = (Index(7), voters(&[1, 2]));
    assert_eq!(node.consensus.handle_snapshot_offer(NodeId(2), "node-2", head, node.now), Offer::Take);
    assert!(node.consensus.handle_snapshot_received());
    node.stored.entries.clear();
    node.applied.clear();
    node.consensus.handle_snapshot_installed(Ok(()));
    node.poll();
    assert_eq!(node.consensus.configuration(), &voters(&[1, 2]));
    node.stored.snapshot = node.consensus.snapshot().cloned();
    node.receive(2, append(2, (5, 2), 6, &[change(6, 2, &voters(&[1, 2, 4]))]));
    node.persist_all();
    assert_eq!(node.consensus.configuration(), &voters(&[1, 2, 4]));
}
