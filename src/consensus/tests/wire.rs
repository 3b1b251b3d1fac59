//! The rules of the translation, each with messages made by hand.

use super::harness::*;
use crate::base::{EntryKind, Index, NodeId, Role, Term};
use crate::codec::peer::{Message, RequestVote, TimeoutNow, VoteResult};
use crate::consensus::Change;

/// Server 1 of three follows 2 in term 2; entries 1 of term 1 and 2 of term 2 are durable.
fn follower() -> Node {
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2, 3])));
    node.receive(2, append(2, (1, 1), 0, &[entry(2, 2, EntryKind::Barrier, bytes(0))]));
    node.persist_all();
    assert_eq!(node.take_sent(), [(NodeId(2), result(2, 0, 2))]);
    node
}

#[test]
fn a_leader_sends_all_its_entries_and_heartbeats_after_an_entry_of_its_own_term() {
    let mut node = leader();
    let barrier = entry(2, 2, EntryKind::Barrier, crate::consensus::log_view::barrier());
    assert_eq!(node.sent_to(2), [append(2, (1, 1), 1, &[barrier])]);
    node.receive(2, result(2, 0, 2));
    node.sent.clear();
    node.propose(3);
    node.propose(4);
    node.sent.clear();
    node.wait(HEARTBEAT);
    // Server 2 has entry 2 of this term; of 3 nothing is known, its log may end differently.
    assert_eq!(node.sent_to(2), [append(2, (2, 2), 2, &[])]);
    node.wait(HEARTBEAT);
    assert_eq!(node.sent_to(3), [append(2, (4, 2), 2, &[])]);
}

#[test]
fn a_server_is_not_written_the_change_by_which_it_is_written_to_no_more() {
    for change in [Change::Assign { id: NodeId(3), role: Role::Spare }, Change::Remove { id: NodeId(3) }] {
        let mut node = leader();
        node.persist_all();
        for id in [2, 3] {
            node.receive(id, result(2, 0, 2));
        }
        node.sent.clear();
        node.consensus.request_change(&change).unwrap();
        node.poll();
        let sent = node.take_sent();
        assert!(
            !sent.iter().any(|(to, _)| *to == NodeId(3)),
            "it goes on naming the leader, as in C: {sent:?}"
        );
        let Some((NodeId(2), Message::AppendEntries(append))) = sent.first() else { panic!("{sent:?}") };
        assert_eq!(append.entries.first().map(|entry| entry.kind), Some(EntryKind::Change));
    }
}

#[test]
fn an_append_that_ends_before_the_leaders_term_never_leaves() {
    let mut node = leader();
    node.sent.clear();
    node.receive(2, result(2, 0, 2));
    let mut message = super::super::inbound::raft_message(
        raft::eraftpb::MessageType::MsgAppend,
        NodeId(1),
        NodeId(2),
        Term(2),
    );
    (message.index, message.log_term) = (1, 1);
    assert_eq!(node.progress(2).state, raft::ProgressState::Replicate);
    node.consensus.answer(message);
    node.sent.clear();
    node.poll();
    assert_eq!(node.sent, []);
    assert_eq!(node.progress(2).state, raft::ProgressState::Probe, "raft-rs knows that it was lost");
}

#[test]
pub(super) fn a_peer_that_says_it_stores_more_counts_only_for_what_it_was_sent() {
    let mut node = leader();
    node.receive(2, result(2, 0, 2));
    // In raft-rs's window of 256 messages there is room for no more: the rest is not sent.
    for number in 0..300 {
        node.propose(number);
    }
    node.persist_all();
    let sent = node.sent_to(2).into_iter().map(|message| match message {
        Message::AppendEntries(append) => append.prev_index.0 + append.entries.len() as u64,
        other => panic!("{other:?}"),
    });
    let sent = sent.max().unwrap();
    assert!(sent < node.consensus.last_index().0, "{sent}");
    node.receive(2, result(2, 0, 1 << 40));
    assert_eq!(node.progress(2).matched, sent);
    assert_eq!(node.consensus.commit_index(), Index(sent));
}

#[test]
fn results_are_of_no_use_before_something_was_sent_in_the_term() {
    let mut node = leader();
    let leadership = node.consensus.leadership.as_mut().unwrap();
    leadership.peer(NodeId(2)).sent_to = None;
    node.receive(2, result(2, 0, 2));
    assert_eq!(node.progress(2).matched, 0);
    assert_eq!(node.consensus.commit_index(), Index(1));
}

#[test]
fn a_result_of_a_higher_term_ends_a_leadership_and_one_of_a_lower_is_nothing() {
    let mut node = leader();
    node.receive(2, result(1, 0, 2));
    assert_eq!(node.progress(2).matched, 0);
    node.receive(3, result(7, 0, 2));
    assert_eq!((node.consensus.is_leader(), node.consensus.term()), (false, Term(7)));
    // A follower takes no notice.
    node.receive(3, result(9, 0, 2));
    assert_eq!(node.consensus.term(), Term(7));
}

#[test]
fn a_refusal_leads_to_one_probe_and_never_back_behind_what_is_stored() {
    let mut node = leader();
    for number in 3..8 {
        node.propose(number);
    }
    node.sent.clear();
    node.receive(2, result(2, 1, 0));
    let sent = node.sent_to(2);
    let [Message::AppendEntries(probe)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((probe.prev_index, probe.entries.len()), (Index(0), 7));
    node.receive(2, result(2, 0, 7));
    assert_eq!(node.progress(2).matched, 7);
    node.propose(8);
    node.consensus.handle_send_failed(NodeId(2));
    node.poll();
    node.sent.clear();
    // Late refusals in the state in which raft-rs would believe them.
    assert_eq!(node.progress(2).state, raft::ProgressState::Probe);
    node.receive(2, result(2, 7, 3));
    assert_eq!((node.progress(2).next_idx, node.progress(2).matched), (8, 7));
}

#[test]
fn one_answer_per_heartbeat_makes_the_leader_send_again() {
    let mut node = leader();
    node.receive(2, result(2, 0, 2));
    node.propose(3);
    node.consensus.handle_send_failed(NodeId(2));
    node.wait(HEARTBEAT);
    node.sent.clear();
    for _ in 0..20 {
        node.receive(2, result(2, 0, 2));
    }
    assert_eq!(node.sent_to(2).len(), 1);
}

#[test]
fn requests_of_old_terms_are_refused_with_the_own_term() {
    let mut node = follower();
    for term in [0, 1] {
        node.receive(3, append(term, (5, 1), 9, &[]));
        assert_eq!(node.take_sent(), [(NodeId(3), result(2, 5, 2))]);
        node.receive(3, Message::RequestVote(asks(3, term, (9, 9), false)));
        assert_eq!(node.take_sent(), [(NodeId(3), vote(2, false, Some(false)))]);
        node.receive(3, Message::RequestVote(asks(3, term, (9, 9), true)));
        assert_eq!(node.take_sent(), [(NodeId(3), vote(term, false, Some(true)))]);
    }
    assert_eq!(node.consensus.leader(), Some(NodeId(2)));
}

#[test]
fn what_no_leader_sends_changes_nothing() {
    let mut node = follower();
    let before = node.stored.clone();
    let odd = entry(3, 2, EntryKind::Command, crate::base::Payload::from_bytes(&[1; 12]));
    let torn = entry(3, 2, EntryKind::Change, bytes(99));
    for message in [
        append(2, (2, 0), 0, &[]),
        append(2, (2, 2), 0, &[entry(3, 0, EntryKind::Command, bytes(1))]),
        append(2, (2, 2), 0, &[entry(3, 3, EntryKind::Command, bytes(1))]),
        append(2, (2, 2), 0, &[entry(4, 2, EntryKind::Command, bytes(1))]),
        append(2, (2, 2), 0, &[odd]),
        append(2, (2, 2), 0, &[torn]),
    ] {
        node.receive(2, message);
        node.persist_all();
        assert_eq!((node.take_sent(), &node.stored), (Vec::new(), &before));
    }
    for from in [0, 1] {
        node.receive(from, append(9, (2, 2), 0, &[]));
        assert_eq!(node.consensus.term(), Term(2));
    }
    node.receive(3, append(2, (2, 2), 0, &[]));
    assert_eq!(node.consensus.leader(), Some(NodeId(2)), "one leader per term");
    assert_eq!(node.take_sent(), []);
    // A candidate speaks for itself: whoever asks for another is refused.
    for pre_vote in [true, false] {
        node.receive(
            3,
            Message::RequestVote(RequestVote { disrupt_leader: true, ..asks(2, 9, (9, 9), pre_vote) }),
        );
        let term = if pre_vote { Term(9) } else { Term(2) };
        let refusal = VoteResult { term, granted: false, pre_vote: Some(pre_vote) };
        assert_eq!(node.take_sent(), [(NodeId(3), Message::VoteResult(refusal))]);
    }
}

#[test]
fn a_search_for_the_common_part_never_runs_into_what_is_compacted() {
    let mut node = follower();
    let more: Vec<_> = (3..40).map(|index| entry(index, 2, EntryKind::Command, bytes(index))).collect();
    node.receive(2, append(2, (2, 2), 30, &more));
    node.persist_all();
    let covered = crate::consensus::SnapshotMeta {
        index: Index(30),
        term: Term(2),
        configuration: voters(&[1, 2, 3]),
        configuration_index: Index(1),
    };
    node.consensus.compact(covered, Index(31));
    node.sent.clear();
    node.receive(3, append(3, (60, 1), 30, &[]));
    assert_eq!(node.consensus.unavailable(), None);
    node.persist_all();
    assert_eq!(node.take_sent(), [(NodeId(3), result(3, 60, 39))]);
    assert_eq!(node.consensus.leader(), Some(NodeId(3)));
}

#[test]
fn a_previous_entry_of_a_low_term_is_taken_where_it_is_the_same() {
    // Offline recovery writes term 1 behind higher ones, on all servers alike.
    let mut stored = Stored::fresh(&voters(&[1, 2, 3]));
    stored.term = Term(5);
    stored.entries = vec![change(1, 5, &voters(&[1])), change(2, 1, &voters(&[1, 2, 3]))];
    let mut node = Node::start(config(1), stored);
    node.receive(2, append(6, (2, 1), 0, &[entry(3, 6, EntryKind::Barrier, bytes(0))]));
    node.persist_all();
    assert_eq!(node.take_sent(), [(NodeId(2), result(6, 0, 3))]);
}

#[test]
fn a_server_with_a_leader_refuses_votes_and_keeps_its_term() {
    let mut node = follower();
    node.receive(3, Message::RequestVote(asks(3, 9, (9, 9), false)));
    assert_eq!(node.take_sent(), [(NodeId(3), vote(2, false, Some(false)))]);
    node.receive(3, Message::RequestVote(asks(3, 9, (9, 9), true)));
    assert_eq!(node.take_sent(), [(NodeId(3), vote(9, false, Some(true)))]);
    let disrupts = RequestVote { disrupt_leader: true, ..asks(3, 9, (9, 9), false) };
    node.receive(3, Message::RequestVote(disrupts));
    assert_eq!(node.take_sent(), [], "not before the vote is durable");
    node.persist_all();
    assert_eq!(node.take_sent(), [(NodeId(3), vote(9, true, Some(false)))]);

    let mut node = leader();
    node.sent.clear();
    node.receive(3, Message::RequestVote(asks(3, 9, (9, 9), false)));
    assert_eq!(node.take_sent(), [(NodeId(3), vote(2, false, Some(false)))]);
    assert!(node.consensus.is_leader());
}

#[test]
fn a_pre_vote_is_answered_by_the_log_alone_and_changes_nothing() {
    let mut node = pre_candidate(4);
    for (term, last, granted) in [(5, (1, 1), true), (5, (0, 0), false), (9, (7, 1), true), (4, (1, 1), true)]
    {
        node.receive(2, Message::RequestVote(asks(2, term, last, true)));
        assert_eq!(node.sent_to(2), [vote(term, granted, Some(true))], "{term}");
    }
    assert_eq!((node.consensus.term(), node.queue.len()), (Term(4), 0));
}

#[test]
fn of_two_servers_the_one_with_the_longer_log_is_elected_though_the_other_has_the_higher_term() {
    let mut shorter = pre_candidate(1);
    shorter.receive(3, vote(2, true, Some(true)));
    shorter.persist_all();
    assert_eq!((shorter.consensus.term(), shorter.stored.vote), (Term(2), NodeId(1)));
    shorter.sent.clear();
    shorter.receive(2, Message::RequestVote(asks(2, 2, (2, 1), true)));
    assert_eq!(shorter.sent_to(2), [vote(2, true, Some(true))]);
    shorter.receive(2, Message::RequestVote(asks(2, 3, (2, 1), false)));
    shorter.persist_all();
    assert_eq!(shorter.sent_to(2), [vote(3, true, Some(false))]);
}

#[test]
fn refused_pre_votes_do_not_raise_the_term() {
    let mut node = pre_candidate(4);
    node.receive(2, vote(5, false, Some(true)));
    node.receive(3, vote(5, false, Some(true)));
    assert_eq!((node.consensus.term(), node.queue.len()), (Term(4), 0));
    node.wait(2 * ELECTION);
    node.receive(3, vote(9, false, Some(true)));
    assert_eq!(node.consensus.term(), Term(9), "somebody is further");
}

#[test]
fn only_answers_to_the_question_count() {
    for stale in [
        vote(4, true, Some(true)),
        vote(6, true, Some(true)),
        vote(5, true, Some(false)),
        vote(4, true, Some(false)),
        vote(0, true, None),
    ] {
        let mut node = pre_candidate(4);
        node.receive(2, stale.clone());
        assert_eq!((node.consensus.term(), node.queue.len()), (Term(4), 0), "{stale:?}");
        // No voter of the configuration.
        node.receive(9, vote(5, true, Some(true)));
        assert_eq!((node.consensus.term(), node.queue.len()), (Term(4), 0));
        // The short form does not say what it answers.
        node.receive(2, vote(5, true, None));
        node.persist_all();
        assert_eq!((node.stored.term, node.stored.vote), (Term(5), NodeId(1)));
        node.receive(2, vote(5, true, None));
        assert!(node.consensus.is_leader());
    }
}

#[test]
fn leadership_is_taken_over_only_from_the_leader_and_with_its_whole_log() {
    let now = |term, index, last_term| {
        Message::TimeoutNow(TimeoutNow {
            term: Term(term),
            last_index: Index(index),
            last_term: Term(last_term),
        })
    };
    let mut node = follower();
    for (from, message) in
        [(3, now(2, 2, 2)), (2, now(1, 2, 2)), (2, now(2, 0, 0)), (2, now(2, 2, 1)), (2, now(2, 3, 2))]
    {
        node.receive(from, message);
        assert_eq!((node.consensus.term(), node.queue.len()), (Term(2), 0));
    }
    node.receive(2, now(2, 2, 2));
    node.persist_all();
    let disrupts = RequestVote { disrupt_leader: true, ..asks(1, 3, (2, 2), false) };
    let disrupts = Message::RequestVote(disrupts);
    assert_eq!(node.take_sent(), [(NodeId(2), disrupts.clone()), (NodeId(3), disrupts)]);
}

#[test]
fn answers_go_to_the_address_that_the_asking_server_gave() {
    let mut node = follower();
    let heartbeat = append(2, (2, 2), 0, &[]);
    node.consensus.handle_peer(NodeId(2), "elsewhere", heartbeat, node.now);
    let effect = node.consensus.poll_effect();
    let answer = crate::consensus::Effect::Send {
        to: NodeId(2),
        address: "elsewhere".to_owned(),
        message: result(2, 0, 2),
    };
    assert_eq!(effect, Some(answer));
}

#[test]
fn a_demoted_leader_makes_way_for_the_only_voter_in_the_same_term() {
    let demoted = servers(&[(1, Role::StandBy), (2, Role::Voter)]);
    let mut node = elected(Stored::fresh(&voters(&[1, 2])));
    node.receive(2, result(2, 0, 2));
    node.consensus.propose_change(&demoted).unwrap();
    node.poll();
    node.persist_all();
    assert!(node.consensus.is_leader());
    node.sent.clear();
    // 2 has committed the change alone and leads term 2 without an election, as the C library does.
    node.receive(2, append(2, (3, 2), 3, &[entry(4, 2, EntryKind::Command, bytes(4))]));
    assert_eq!((node.consensus.is_leader(), node.consensus.leader()), (false, Some(NodeId(2))));
    node.persist_all();
    assert_eq!(node.take_sent(), [(NodeId(2), result(2, 0, 4))]);
    assert_eq!(node.stored.last(), 4);
    // The same name for something else.
    node.receive(2, append(2, (3, 2), 3, &[entry(4, 2, EntryKind::Command, bytes(5))]));
    let text = node.consensus.unavailable().unwrap();
    assert!(text.contains("entry 4"), "{text}");
}

#[test]
fn a_long_backlog_is_sent_in_pieces_that_end_in_the_leaders_term_and_read_from_disk() {
    let big = || crate::base::Payload::from_bytes(&vec![7; 1 << 20]);
    // 20 MiB of an older term, 60 MiB of the own one: more than the memory keeps.
    let mut stored = Stored::fresh(&voters(&[1, 2, 3]));
    stored.entries.extend((2..=21).map(|index| entry(index, 1, EntryKind::Command, big())));
    let mut node = elected(stored);
    node.receive(2, result(2, 0, 22));
    for _ in 0..60 {
        node.consensus.propose(EntryKind::Command, big()).unwrap();
        node.poll();
        node.persist_all();
        node.receive(2, result(2, 0, node.consensus.last_index().0));
    }
    assert!(node.consensus.cached_bytes() <= crate::base::limits::LOG_CACHE_BYTES_MAX);
    node.sent.clear();
    node.take_news();
    // Server 3 has nothing but entry 1.
    node.receive(3, result(2, 21, 1));
    let mut stored_at_3 = 1;
    let mut messages = 0;
    while stored_at_3 < 82 {
        let reads: Vec<_> = node.take_news();
        for effect in &reads {
            let crate::consensus::Effect::ReadEntries { first, last } = effect else { panic!("{effect:?}") };
            let range = usize::try_from(first.0 - 1).unwrap()..usize::try_from(last.0).unwrap();
            let entries = node.stored.entries[range].to_vec();
            node.consensus.handle_entries_read(*first, Ok(entries));
            node.poll();
        }
        let sent = node.sent_to(3);
        assert!(!reads.is_empty() || !sent.is_empty(), "stuck at {stored_at_3}");
        let mut bytes_in_flight = 0;
        for message in sent {
            let Message::AppendEntries(it) = message else { panic!("{message:?}") };
            assert_eq!(it.prev_index.0, stored_at_3);
            stored_at_3 += it.entries.len() as u64;
            assert!(stored_at_3 >= 22, "it ends before the leader's term");
            let bytes: usize = it.entries.iter().map(|entry| entry.payload.len()).sum();
            assert!(bytes <= 4 << 20 || it.prev_index < Index(22), "{bytes}");
            bytes_in_flight += bytes;
            messages += 1;
        }
        assert!(bytes_in_flight <= 48 << 20, "{bytes_in_flight}");
        node.receive(3, result(2, 0, stored_at_3));
    }
    assert!((10..=20).contains(&messages), "{messages}");
    assert_eq!(node.progress(3).matched, 82);
}

#[test]
fn a_peer_for_which_the_log_cannot_be_read_gets_a_snapshot() {
    let mut node = leader();
    node.receive(2, result(2, 0, 2));
    for number in 3..=9 {
        node.propose(number);
    }
    node.persist_all();
    node.receive(2, result(2, 0, 9));
    let meta = crate::consensus::SnapshotMeta {
        index: Index(9),
        term: Term(2),
        configuration: voters(&[1, 2, 3]),
        configuration_index: Index(1),
    };
    node.consensus.compact(meta, Index(1));
    node.consensus.raw.as_mut().unwrap().mut_store().forget_payloads();
    node.receive(3, result(2, 1, 0));
    let news = node.take_news();
    let [.., crate::consensus::Effect::ReadEntries { first: Index(1), .. }] = news.as_slice() else {
        panic!("{news:?}")
    };
    node.consensus.handle_entries_read(Index(1), Err("gone".to_owned()));
    node.poll();
    let news = node.take_news();
    assert!(
        matches!(news.as_slice(), [crate::consensus::Effect::SendSnapshot { to: NodeId(3), .. }]),
        "{news:?}"
    );
}

#[test]
fn a_leader_with_another_history_is_not_followed_and_nothing_is_acknowledged_to_it() {
    let other = entry(3, 1, EntryKind::Command, bytes(99));
    for conflict in [append(9, (2, 1), 2, &[]), append(9, (2, 2), 9, &[other]), append(9, (1, 8), 0, &[])] {
        let mut node = follower();
        let more: Vec<_> = (3..=6).map(|index| entry(index, 2, EntryKind::Command, bytes(index))).collect();
        node.receive(2, append(2, (2, 2), 5, &more));
        node.persist_all();
        node.sent.clear();
        let before = node.stored.clone();
        node.receive(3, conflict.clone());
        node.receive(3, conflict);
        node.persist_all();
        assert_eq!((node.take_sent(), &node.stored), (vec![], &before));
        assert_eq!(node.consensus.leader(), Some(NodeId(2)));
        assert_eq!(node.consensus.told_conflict, Some((NodeId(3), Term(9))));
        // What is not committed may go: entry 6.
        node.receive(3, append(9, (5, 2), 5, &[entry(6, 9, EntryKind::Command, bytes(66))]));
        node.persist_all();
        assert_eq!(node.take_sent(), [(NodeId(3), result(9, 0, 6))]);
        assert_eq!(node.consensus.unavailable(), None);
    }
}
