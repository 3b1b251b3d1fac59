//! Snapshots, out and in.

use std::time::Duration;

use super::harness::*;
use crate::base::limits::SNAPSHOT_RETRY_MAX;
use crate::base::{EntryKind, Index, NodeId, Role, Term, limits};
use crate::codec::membership::Configuration;
use crate::codec::peer::{AppendResult, InstallSnapshot, Message};
use crate::consensus::inbound::LABELS_FROM;
use crate::consensus::{Effect, Offer, SnapshotMeta, snapshot_pause};

fn meta(index: u64, term: u64, configuration: &Configuration) -> SnapshotMeta {
    let configuration = configuration.clone();
    SnapshotMeta { index: Index(index), term: Term(term), configuration, configuration_index: Index(1) }
}

fn head(term: u64, index: u64, last_term: u64, configuration: &Configuration) -> InstallSnapshot {
    InstallSnapshot {
        term: Term(term),
        last_index: Index(index),
        last_term: Term(last_term),
        configuration_index: Index(1),
        configuration: configuration.clone(),
        configuration_bytes: Vec::new(),
        data_bytes: 8,
    }
}

impl Node {
    fn offer(&mut self, from: u64, head: InstallSnapshot) -> Offer {
        let offer = self.consensus.handle_snapshot_offer(NodeId(from), "address", head, self.now);
        self.poll();
        offer
    }

    fn snapshot_of(&mut self) -> Option<SnapshotMeta> {
        self.take_news().into_iter().find_map(|effect| match effect {
            Effect::SendSnapshot { to: NodeId(3), meta, .. } => Some(meta),
            _ => None,
        })
    }
}

/// Leads term 2; the log starts behind entry 20, and server 3 has none of it.
fn far_ahead() -> Node {
    let mut node = leader();
    node.receive(2, result(2, 0, 2));
    for number in 3..=20 {
        node.propose(number);
    }
    node.persist_all();
    node.receive(2, result(2, 0, 20));
    assert_eq!(node.consensus.applied_index(), Index(20));
    node.consensus.compact(meta(20, 2, &voters(&[1, 2, 3])), Index(21));
    node.take_news();
    node.receive(3, result(2, 1, 0));
    assert_eq!(node.snapshot_of(), Some(meta(20, 2, &voters(&[1, 2, 3]))));
    node.sent.clear();
    node
}

#[test]
fn a_peer_that_was_sent_a_snapshot_is_written_to_again_once_it_says_so() {
    let mut node = far_ahead();
    assert_eq!(node.consensus.first_awaited(), Some(Index(21)));
    node.propose(21);
    assert_eq!(node.sent_to(3), []);
    node.consensus.handle_snapshot_sent(NodeId(3), Ok(()));
    node.poll();
    assert_eq!(node.sent_to(3), [], "that it was written proves nothing");
    node.receive(3, result(2, 20, 0));
    assert_eq!(node.progress(3).state, raft::ProgressState::Probe, "it could not install it");
    let mut node = far_ahead();
    node.propose(21);
    node.sent.clear();
    node.receive(3, result(2, 20, 0));
    let mut node = far_ahead();
    node.propose(21);
    node.sent.clear();
    node.receive(3, result(2, 0, 20));
    assert_eq!(node.sent_to(3).len(), 1);
    assert_eq!(node.progress(3).matched, 20);
    node.persist_all();
    node.receive(3, result(2, 0, 21));
    assert_eq!(node.consensus.first_awaited(), None);
}

#[test]
fn an_answer_from_before_the_snapshot_does_not_count_as_its_installation() {
    let mut node = far_ahead();
    node.receive(3, result(2, 0, 5));
    assert_eq!(node.progress(3).state, raft::ProgressState::Snapshot);
    node.receive(3, result(2, 20, 0));
    assert_eq!(node.progress(3).state, raft::ProgressState::Probe, "it could not install it");
    assert_eq!(node.consensus.first_awaited(), None, "nothing is kept for it");
}

#[test]
fn what_came_into_the_log_while_a_snapshot_was_sent_is_kept_until_the_peer_has_it() {
    let mut node = far_ahead();
    for number in 21..=30 {
        node.propose(number);
    }
    node.persist_all();
    node.receive(2, result(2, 0, 30));
    node.receive(3, result(2, 0, 20));
    assert_eq!(node.consensus.first_awaited(), Some(Index(21)));
    node.consensus.compact(meta(30, 2, &voters(&[1, 2, 3])), Index(31));
    assert_eq!(node.consensus.first_index(), Index(21), "else it would need another snapshot at once");
    node.receive(3, result(2, 0, 25));
    assert_eq!(node.consensus.first_awaited(), Some(Index(26)));
    node.receive(3, result(2, 0, 30));
    assert_eq!(node.consensus.first_awaited(), None);

    // One that falls silent is not waited for.
    let mut node = far_ahead();
    node.propose(21);
    node.persist_all();
    node.receive(3, result(2, 0, 20));
    assert_eq!(node.consensus.first_awaited(), Some(Index(21)));
    for _ in 0..60 {
        node.wait(HEARTBEAT);
        node.receive(2, result(2, 0, 21));
    }
    assert_eq!(node.consensus.first_awaited(), None);
}

/// Waits for another snapshot for server 3, which answers and has nothing of what it is asked for.
fn wait_for_another(node: &mut Node) -> Duration {
    let from = node.now;
    for _ in 0..200 {
        node.wait(HEARTBEAT);
        node.receive(2, result(2, 0, 20));
        node.receive(3, result(2, 20, 0));
        if node.snapshot_of().is_some() {
            return node.now.since(from);
        }
    }
    panic!("no snapshot for 100 s");
}

#[test]
fn a_peer_that_cannot_install_its_snapshot_gets_the_next_ones_at_growing_distances() {
    let mut node = far_ahead();
    let mut last = Duration::ZERO;
    for failures in 1..=9 {
        node.receive(3, result(2, 20, 0));
        let (waited, pause) = (wait_for_another(&mut node), snapshot_pause(failures));
        assert!(pause <= waited && waited <= pause + 2 * HEARTBEAT, "{failures}: {waited:?} for {pause:?}");
        assert!(pause >= last && pause <= SNAPSHOT_RETRY_MAX);
        last = pause;
    }
    assert_eq!(last, SNAPSHOT_RETRY_MAX);
    // One that comes back gets it at once; and one that took it begins anew.
    node.receive(3, result(2, 20, 0));
    node.consensus.handle_peer_connected(NodeId(3));
    assert!(wait_for_another(&mut node) <= 2 * HEARTBEAT);
    node.receive(3, result(2, 0, 20));
    assert_eq!(node.consensus.leadership.as_mut().unwrap().peer(NodeId(3)).snapshot_failures, 0);
}

#[test]
fn a_snapshot_that_cannot_be_read_is_tried_again_when_there_is_another_one() {
    let mut node = far_ahead();
    for _ in 0..6 {
        node.consensus.handle_snapshot_unreadable(NodeId(3), "damaged");
        node.poll();
    }
    node.consensus.handle_peer_connected(NodeId(3));
    node.wait(4 * HEARTBEAT);
    node.receive(2, result(2, 0, 20));
    node.receive(3, result(2, 20, 0));
    assert_eq!(node.snapshot_of(), None);
    node.consensus.compact(meta(20, 2, &voters(&[1, 2, 3])), Index(21));
    assert!(wait_for_another(&mut node) <= 2 * HEARTBEAT);
}

#[test]
fn whoever_is_no_member_leaves_nothing_behind() {
    let mut node = leader();
    for id in 10..2000 {
        node.consensus.handle_peer_connected(NodeId(id));
        let short = AppendResult { term: Term(2), rejected: 0, last_index: Index(9), features: None };
        node.receive(id, Message::AppendResult(short));
    }
    assert!(node.consensus.leadership.as_mut().unwrap().peers_mut().count() <= 2);
    assert_eq!(node.consensus.short_peers.len(), 0);
}

#[test]
fn a_backlog_beyond_what_one_message_may_hold_makes_a_snapshot_wanted_at_once() {
    let last = limits::PEER_ENTRIES_MAX as u64 + 10;
    let mut stored = Stored::fresh(&voters(&[1, 2, 3]));
    let payload = bytes(7);
    stored.entries.extend((2..=last).map(|index| entry(index, 1, EntryKind::Command, payload.clone())));
    let mut node = elected(stored);
    let wanted = |node: &mut Node| {
        let wanted = |effect: &Effect| matches!(effect, Effect::SnapshotWanted { covering: Index(1) });
        node.take_news().iter().any(wanted)
    };
    node.receive(3, result(2, last, 0));
    assert!(!wanted(&mut node), "one of what is committed now would leave as much to send");
    node.receive(2, result(2, 0, last + 1));
    assert_eq!(node.consensus.applied_index(), Index(last + 1));
    node.wait(HEARTBEAT);
    node.receive(3, result(2, last + 1, 0));
    assert!(wanted(&mut node));
    // It is made, and what lies before it stays: the entries are there and still cannot be sent.
    node.consensus.compact(meta(last + 1, 2, &voters(&[1, 2, 3])), Index(2));
    node.wait(HEARTBEAT);
    node.receive(3, result(2, last + 1, 0));
    assert_eq!(node.snapshot_of(), Some(meta(last + 1, 2, &voters(&[1, 2, 3]))));
}

#[test]
fn a_heartbeat_is_never_mistaken_for_the_snapshot_that_it_would_be_refused_like() {
    let mut node = far_ahead();
    node.wait(HEARTBEAT);
    // The log ends where the snapshot does.
    let sent = node.sent_to(3);
    let [Message::AppendEntries(heartbeat)] = sent.as_slice() else { panic!("{sent:?}") };
    assert!(heartbeat.prev_index.0 >= LABELS_FROM);
    node.receive(3, result(2, heartbeat.prev_index.0, 0));
    assert_eq!(node.progress(3).state, raft::ProgressState::Snapshot);
    node.propose(21);
    node.sent.clear();
    node.wait(HEARTBEAT);
    assert_eq!(node.sent_to(3), [append(2, (21, 2), 20, &[])]);
    node.receive(3, result(2, 21, 0));
    assert_eq!(node.progress(3).state, raft::ProgressState::Snapshot, "it is still busy");
}

#[test]
fn a_peer_that_fell_behind_the_log_of_its_own_leader_is_asked_after_the_last_entry_and_gets_a_snapshot() {
    let mut node = leader();
    for id in [2, 3] {
        node.receive(id, result(2, 0, 2));
    }
    for number in 3..=20 {
        node.propose(number);
    }
    node.persist_all();
    node.receive(2, result(2, 0, 20));
    node.receive(3, result(2, 0, 10));
    // Server 3 is away; its entry 10 leaves the log, and with it the term of that entry.
    node.consensus.handle_send_failed(NodeId(3));
    node.consensus.compact(meta(20, 2, &voters(&[1, 2, 3])), Index(21));
    node.take_news();
    node.sent.clear();
    node.wait(HEARTBEAT);
    assert_eq!(node.sent_to(3), [append(2, (20, 2), 20, &[])]);
    node.receive(3, result(2, 20, 10));
    assert_eq!(node.snapshot_of(), Some(meta(20, 2, &voters(&[1, 2, 3]))));
}

#[test]
fn a_snapshot_that_failed_or_was_never_heard_of_again_is_sent_again() {
    let mut node = far_ahead();
    node.consensus.handle_snapshot_sent(NodeId(3), Err("gone".to_owned()));
    wait_for_another(&mut node);

    node.consensus.handle_snapshot_sent(NodeId(3), Ok(()));
    for _ in 0..58 {
        node.wait(HEARTBEAT);
        node.receive(2, result(2, 0, 20));
    }
    assert_eq!(node.snapshot_of(), None);
    wait_for_another(&mut node);
}

#[test]
fn the_log_behind_a_snapshot_in_flight_is_kept() {
    let mut node = far_ahead();
    for number in 21..=30 {
        node.propose(number);
    }
    node.persist_all();
    node.receive(2, result(2, 0, 30));
    node.consensus.compact(meta(30, 2, &voters(&[1, 2, 3])), Index(31));
    assert_eq!(node.consensus.first_index(), Index(21));
    node.receive(3, result(2, 0, 20));
    let sent = node.sent_to(3);
    let Some(Message::AppendEntries(rest)) = sent.last() else { panic!("{sent:?}") };
    assert_eq!((rest.prev_index, rest.entries.len()), (Index(20), 10));
    assert_eq!(node.snapshot_of(), None);
}

#[test]
fn a_snapshot_takes_the_place_of_the_log_though_its_receiver_is_not_in_it() {
    // As it comes to a server that is being promoted.
    let one = voters(&[2]);
    let mut node = Node::start(config(1), Stored::default());
    assert_eq!(node.offer(2, head(4, 30, 3, &one)), Offer::Take);
    node.persist_all();
    assert_eq!((node.take_sent(), node.stored.term), (vec![], Term(4)));
    assert_eq!(node.consensus.leader(), Some(NodeId(2)));
    assert!(node.consensus.handle_snapshot_received());
    // Meanwhile neither votes nor entries, but the leader is heard.
    node.receive(3, Message::RequestVote(asks(3, 9, (99, 9), true)));
    node.receive(3, Message::RequestVote(asks(3, 9, (99, 9), false)));
    assert_eq!(
        node.take_sent(),
        [(NodeId(3), vote(9, false, Some(true))), (NodeId(3), vote(4, false, Some(false)))]
    );
    node.receive(2, append(4, (0, 0), 0, &[entry(1, 1, EntryKind::Command, bytes(1))]));
    assert_eq!((node.take_sent(), node.queue.len()), (vec![], 0));
    node.receive(2, append(4, (LABELS_FROM, 4), 0, &[]));
    assert_eq!(node.take_sent(), [(NodeId(2), result(4, LABELS_FROM, 0))]);

    node.consensus.handle_snapshot_installed(Ok(()));
    node.poll();
    assert_eq!(node.take_sent(), [(NodeId(2), result(4, 0, 30))]);
    assert_eq!((node.consensus.applied_index(), node.consensus.last_index()), (Index(30), Index(30)));
    assert_eq!(node.consensus.configuration(), &one);
    assert_eq!(node.consensus.committed_configuration().index, Index(1));
    assert_eq!(node.consensus.snapshot(), Some(&meta(30, 3, &one)));
    node.stored.snapshot = Some(meta(30, 3, &one));
    node.receive(2, append(4, (30, 3), 31, &[entry(31, 4, EntryKind::Command, bytes(31))]));
    node.persist_all();
    assert_eq!(node.take_sent(), [(NodeId(2), result(4, 0, 31))]);
    assert_eq!(node.applied_numbers(), [31]);
    let node = node.crash(config(1));
    assert_eq!(node.consensus.last_index(), Index(31));
}

#[test]
fn a_snapshot_replaces_a_log_that_went_another_way() {
    let three = servers(&[(1, Role::Voter), (2, Role::Voter), (3, Role::StandBy)]);
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2, 3])));
    let other: Vec<_> = (2..50).map(|index| entry(index, 2, EntryKind::Command, bytes(index))).collect();
    node.receive(3, append(2, (1, 1), 0, &other));
    node.persist_all();
    node.sent.clear();
    assert_eq!(node.offer(2, head(4, 30, 3, &three)), Offer::Take);
    assert!(node.consensus.handle_snapshot_received());
    node.consensus.handle_snapshot_installed(Ok(()));
    node.poll();
    node.persist_all();
    assert_eq!(node.take_sent(), [(NodeId(2), result(4, 0, 30))]);
    assert_eq!((node.consensus.last_index(), node.consensus.commit_index()), (Index(30), Index(30)));
    assert_eq!(node.consensus.configuration(), &three);
    // It may vote, and be elected, as before.
    node.wait(3 * ELECTION);
    let asked: Vec<u64> = node.take_sent().into_iter().map(|(to, _)| to.0).collect();
    assert_eq!(asked[0], 2);
}

#[test]
fn a_snapshot_of_no_use_is_skipped_and_answered_as_it_deserves() {
    let three = voters(&[1, 2, 3]);
    let mut node = Node::start(config(1), Stored::fresh(&three));
    let log: Vec<_> = (2..=10).map(|index| entry(index, 2, EntryKind::Command, bytes(index))).collect();
    node.receive(2, append(2, (1, 1), 0, &log));
    node.persist_all();
    node.sent.clear();
    assert_eq!(node.offer(3, head(1, 30, 1, &three)), Offer::Skip);
    assert_eq!(node.take_sent(), [(NodeId(3), result(2, 30, 10))], "an old term");
    assert_eq!(node.offer(2, head(2, 10, 2, &three)), Offer::Skip);
    assert_eq!(node.take_sent(), [(NodeId(2), result(2, 0, 10))], "all there");
    assert_eq!(node.offer(3, head(2, 30, 2, &three)), Offer::Skip);
    assert_eq!(node.take_sent(), [], "no leader");
    assert_eq!(node.offer(2, head(2, 30, 2, &three)), Offer::Take);
    assert_eq!(node.offer(2, head(2, 30, 2, &three)), Offer::Skip);
    assert_eq!(node.take_sent(), [], "busy");
    node.consensus.handle_snapshot_broken_off();
    assert_eq!(node.offer(2, head(2, 30, 2, &three)), Offer::Take);
    // What it holds came in by another way.
    let rest: Vec<_> = (11..=30).map(|index| entry(index, 2, EntryKind::Command, bytes(index))).collect();
    node.receive(2, append(2, (10, 2), 0, &rest));
    node.persist_all();
    node.sent.clear();
    assert!(!node.consensus.handle_snapshot_received());
    node.poll();
    assert_eq!(node.take_sent(), [(NodeId(2), result(2, 0, 30))]);
    assert_eq!(node.offer(2, head(2, 40, 2, &three)), Offer::Take);
    assert!(node.consensus.handle_snapshot_received());
    node.consensus.handle_snapshot_installed(Err("no room".to_owned()));
    node.poll();
    assert_eq!(node.take_sent(), [(NodeId(2), result(2, 40, 0))]);
    assert_eq!(node.consensus.last_index(), Index(30));
}

#[test]
fn a_snapshot_installed_in_another_term_is_not_acknowledged_and_nobody_campaigns_meanwhile() {
    let three = voters(&[1, 2, 3]);
    let mut node = Node::start(config(1), Stored::fresh(&three));
    assert_eq!(node.offer(2, head(2, 30, 2, &three)), Offer::Take);
    node.persist_all();
    assert!(node.consensus.handle_snapshot_received());
    node.wait(Duration::from_secs(20));
    assert_eq!(node.take_sent(), []);
    node.receive(3, append(5, (LABELS_FROM, 5), 0, &[]));
    node.persist_all();
    node.sent.clear();
    node.consensus.handle_snapshot_installed(Ok(()));
    node.poll();
    assert_eq!(node.take_sent(), []);
    assert_eq!(node.consensus.last_index(), Index(30));
}

#[test]
fn a_heartbeat_of_a_c_leader_is_not_refused_like_the_snapshot_that_it_sends() {
    let three = voters(&[1, 2, 3]);
    let mut node = Node::start(config(1), Stored::fresh(&three));
    assert_eq!(node.offer(2, head(2, 30, 2, &three)), Offer::Take);
    node.persist_all();
    for installing in [false, true] {
        assert!(!installing || node.consensus.handle_snapshot_received());
        node.sent.clear();
        // Its log ends with the snapshot.
        node.receive(2, append(2, (30, 2), 30, &[]));
        let sent = node.take_sent();
        let [(NodeId(2), Message::AppendResult(answer))] = sent.as_slice() else { panic!("{sent:?}") };
        assert!(answer.rejected >= LABELS_FROM, "{answer:?}");
    }
}

#[test]
fn a_tail_that_was_cut_off_for_a_snapshot_without_room_is_gone_here_too() {
    let three = voters(&[1, 2, 3]);
    let mut node = Node::start(config(1), Stored::fresh(&three));
    let other: Vec<_> = (2..50).map(|index| entry(index, 2, EntryKind::Command, bytes(index))).collect();
    node.receive(3, append(2, (1, 1), 0, &other));
    node.persist_all();
    assert_eq!(node.offer(2, head(4, 30, 3, &three)), Offer::Take);
    node.persist_all();
    assert!(node.consensus.handle_snapshot_received());
    node.stored.entries.truncate(29);
    node.sent.clear();
    node.consensus.handle_tail_lost(Index(30));
    node.consensus.handle_snapshot_installed(Err("no room".to_owned()));
    node.poll();
    node.persist_all();
    assert_eq!(node.take_sent(), [(NodeId(2), result(4, 30, 0))]);
    assert_eq!(node.consensus.last_index(), Index(29));
    node.receive(2, append(4, (29, 2), 0, &[entry(30, 4, EntryKind::Command, bytes(30))]));
    node.persist_all();
    assert_eq!(node.stored.last(), 30);
}

#[test]
fn heartbeats_to_a_peer_that_the_log_has_left_behind_are_such_as_can_be_answered() {
    let mut node = leader();
    node.receive(2, result(2, 0, 2));
    node.receive(3, result(2, 0, 2));
    for number in 3..=20 {
        node.propose(number);
    }
    node.persist_all();
    node.receive(2, result(2, 0, 20));
    // Server 3 has entry 2 and is away.
    node.consensus.compact(meta(20, 2, &voters(&[1, 2, 3])), Index(15));
    node.sent.clear();
    node.wait(HEARTBEAT);
    assert_eq!(node.sent_to(3), [append(2, (20, 2), 20, &[])]);
    node.take_news();
    node.receive(3, result(2, 20, 2));
    node.wait(HEARTBEAT);
    node.receive(3, result(2, 20, 2));
    assert!(node.snapshot_of().is_some());
}

#[test]
fn a_snapshot_is_not_sent_before_the_term_of_its_leader_is_durable() {
    let configuration = servers(&[(1, Role::Voter), (3, Role::StandBy)]);
    let mut stored = Stored::fresh(&configuration);
    stored.snapshot = Some(meta(20, 1, &configuration));
    stored.entries.clear();
    let mut node = Node::start(config(1), stored);
    assert!(node.consensus.is_leader());
    node.receive(3, result(2, 20, 0));
    assert_eq!((node.snapshot_of(), node.take_sent()), (None, Vec::new()), "its vote is not stored");
    node.persist_all();
    assert_eq!(node.snapshot_of(), Some(meta(20, 1, &configuration)));
}
