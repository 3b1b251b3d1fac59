//! One voter: shape of the log, persistence that lags, restarts, assertions of raft-rs.

use super::harness::*;
use crate::base::{EntryKind, Index, NodeId, Payload, Role, Term, Time, limits};
use crate::codec::peer::Message;
use crate::consensus::{Change, Consensus, Effect, Refused, Restored, SnapshotMeta};

#[test]
fn a_bootstrapped_log_holds_the_configuration_at_1_and_the_first_command_at_2_in_term_1() {
    let mut node = Node::bootstrap();
    assert_eq!(node.take_news(), [Effect::BecameLeader { term: Term(1) }]);
    assert_eq!(node.queue.len(), 1);
    assert_eq!(node.queue[0].metadata, Some((Term(1), NodeId(1))));
    assert_eq!(node.queue[0].entries, [], "entry 1 stands in its file already");
    node.persist_all();
    assert_eq!(node.consensus.commit_index(), Index(1));

    for number in 2..=302 {
        assert_eq!(node.propose(number), (Index(number), Term(1)));
    }
    node.persist_all();
    assert_eq!(node.applied_numbers(), (2..=302).collect::<Vec<_>>());
    assert_eq!((node.stored.last(), node.stored.term), (302, Term(1)));
    assert!(node.stored.terms().iter().all(|&term| term == 1));
    assert!(node.consensus.has_applied_own_term());
}

#[test]
fn proposals_of_one_turn_leave_as_one_work_and_count_when_it_is_durable_not_before() {
    let mut node = Node::bootstrap();
    node.persist_all();
    for number in 2..5 {
        node.consensus.propose(EntryKind::Command, bytes(number)).unwrap();
    }
    node.poll();
    node.propose(5);
    assert_eq!(node.queue.iter().map(|work| work.entries.len()).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(node.consensus.last_index(), Index(5));
    assert_eq!(node.consensus.commit_index(), Index(1));
    node.persist_one();
    assert_eq!(node.applied_numbers(), [2, 3, 4]);
    node.persist_one();
    assert_eq!(node.applied_numbers(), [2, 3, 4, 5]);
}

#[test]
fn one_answer_speaks_for_all_work_before_it() {
    let mut node = Node::bootstrap();
    node.persist_all();
    let tickets: Vec<u64> = (2..6)
        .map(|number| {
            node.propose(number);
            node.queue.back().unwrap().ticket
        })
        .collect();
    node.consensus.handle_persisted(tickets[2]);
    node.poll();
    assert_eq!(node.applied_numbers(), [2, 3, 4]);
    node.consensus.handle_persisted(tickets[0]);
    node.consensus.handle_persisted(99);
    node.poll();
    assert_eq!(node.applied_numbers(), [2, 3, 4]);
}

#[test]
fn a_restarted_only_voter_leads_a_new_term_at_once_and_applies_its_log() {
    let mut node = Node::bootstrap();
    node.propose(2);
    node.propose(3);
    node.persist_all();
    let mut node = node.crash(config(1));
    assert_eq!(node.take_news(), [Effect::BecameLeader { term: Term(2) }]);
    assert!(node.consensus.is_leader() && !node.consensus.has_applied_own_term());
    assert_eq!(node.queue.len(), 1, "vote and first entry leave together");
    node.persist_all();
    assert!(node.consensus.has_applied_own_term());
    assert_eq!(node.applied_numbers(), [2, 3]);
    assert_eq!(node.stored.terms(), [1, 1, 1, 2]);
    assert_eq!(node.stored.entries[3].kind, EntryKind::Barrier);
    assert_eq!(node.stored.entries[3].payload, Payload::from_bytes(&[0; 8]));
    assert_eq!((node.stored.term, node.stored.vote), (Term(2), NodeId(1)));
}

#[test]
fn a_crash_before_the_first_vote_is_durable_is_an_ordinary_restart() {
    let mut node = Node::bootstrap().crash(config(1));
    node.persist_all();
    assert_eq!(node.stored.terms(), [1, 2]);
    assert_eq!(node.propose(3), (Index(3), Term(2)));
}

#[test]
fn a_log_with_falling_terms_is_taken_up() {
    // As offline recovery leaves it: term 1 after term 2. And once more after a later start.
    let one = voters(&[1]);
    let mut stored = Stored::fresh(&one);
    for (index, term) in (2..=11).map(|index| (index, 1)).chain((12..=16).map(|index| (index, 2))) {
        stored.entries.push(entry(index, term, EntryKind::Command, bytes(index)));
    }
    stored.entries.push(change(17, 1, &one));
    (stored.term, stored.vote) = (Term(2), NodeId(1));
    let started = {
        let mut stored = stored.clone();
        stored.entries.push(entry(18, 2, EntryKind::Command, bytes(18)));
        stored
    };
    for (stored, next) in [(stored, 18), (started, 19)] {
        let mut node = Node::start(config(1), stored);
        node.persist_all();
        assert_eq!(node.stored.terms().last(), Some(&3));
        assert_eq!(node.stored.last(), next);
        node.propose(next + 1);
        node.persist_all();
        assert_eq!(node.applied.last().unwrap().index, Index(next + 1));
        let mut again = node.crash(config(1));
        again.persist_all();
        assert_eq!(again.applied.last().unwrap().index, Index(next + 2));
    }
}

#[test]
fn a_server_that_recovery_made_the_only_voter_leads_at_once() {
    let mut stored = Stored::fresh(&voters(&[1, 2, 3]));
    stored.term = Term(2);
    stored.entries.push(entry(2, 2, EntryKind::Command, bytes(2)));
    stored.entries.push(change(3, 1, &voters(&[1])));
    let mut node = Node::start(config(1), stored);
    assert_eq!(node.take_news(), [Effect::BecameLeader { term: Term(3) }]);
    assert!(!node.consensus.is_only_voter(), "others may still elect by the older configuration");
    node.persist_all();
    assert!(node.consensus.is_only_voter());
    assert_eq!(node.applied_numbers(), [2]);
}

#[test]
fn whatever_was_applied_before_a_crash_is_applied_after_it() {
    // The disk does `done` pieces of work, then the process dies; for each number of pieces until none is left.
    for done in 0.. {
        let mut node = Node::bootstrap();
        let mut left = done;
        let mut work = |node: &mut Node| {
            while left > 0 && node.persist_one() {
                left -= 1;
            }
        };
        for number in 2..10 {
            node.propose(number);
            if number % 3 == 0 {
                work(&mut node);
            }
        }
        node.consensus.request_change(&Change::Add { id: NodeId(2), address: "b".to_owned() }).ok();
        node.poll();
        work(&mut node);
        let finished = left > 0;
        let before = node.applied_numbers();
        let mut again = node.crash(config(1));
        again.persist_all();
        let after = again.applied_numbers();
        assert!(after.starts_with(&before), "after {done}: {before:?}, then {after:?}");
        assert!(again.stored.terms().is_sorted());
        if finished {
            assert_eq!(after, (2..10).collect::<Vec<_>>());
            assert_eq!(again.consensus.committed_configuration().configuration.servers.len(), 2);
            break;
        }
    }
}

#[test]
fn a_term_below_the_logs_is_raised_and_stored_before_anything_else() {
    let mut stored = Stored::fresh(&voters(&[1, 2, 3]));
    stored.entries.push(entry(2, 9, EntryKind::Command, bytes(2)));
    stored.entries.push(entry(3, 4, EntryKind::Command, bytes(3)));
    (stored.term, stored.vote) = (Term(5), NodeId(3));
    let mut node = Node::start(config(1), stored);
    assert_eq!(node.queue.len(), 1);
    assert_eq!(node.queue[0].metadata, Some((Term(9), NodeId(0))));
    node.wait(3 * ELECTION);
    assert_eq!(node.sent, [], "no election before the term is durable");
    node.persist_all();
    node.wait(3 * ELECTION);
    assert!(!node.sent.is_empty());
    let Message::RequestVote(asked) = &node.sent[0].1 else { panic!("{:?}", node.sent) };
    assert_eq!(asked.term, Term(10));
}

#[test]
fn entries_below_a_snapshot_are_kept_but_not_applied_again() {
    let one = voters(&[1]);
    let meta = SnapshotMeta {
        index: Index(10),
        term: Term(2),
        configuration: one.clone(),
        configuration_index: Index(1),
    };
    for (first, known_from) in [(1, 1), (5, 6), (10, 11), (11, 11)] {
        let entries = (first..=12).map(|index| match index {
            1 => change(1, 1, &one),
            _ => entry(index, if index < 8 { 1 } else { 2 }, EntryKind::Command, bytes(index)),
        });
        let stored = Stored {
            term: Term(2),
            vote: NodeId(1),
            entries: entries.collect(),
            snapshot: Some(meta.clone()),
        };
        let mut node = Node::start(config(1), stored);
        node.persist_all();
        assert_eq!(node.consensus.first_index(), Index(known_from), "entries from {first}");
        assert_eq!(node.applied_numbers(), [11, 12], "entries from {first}");
        assert_eq!(node.consensus.term_at(Index(10)), Some(Term(2)));
    }
}

#[test]
fn a_snapshot_without_log_is_a_start_too() {
    let meta = SnapshotMeta {
        index: Index(10),
        term: Term(2),
        configuration: voters(&[1]),
        configuration_index: Index(4),
    };
    let stored = Stored { term: Term(2), snapshot: Some(meta.clone()), ..Stored::default() };
    let mut node = Node::start(config(1), stored);
    assert_eq!(node.consensus.committed_configuration().index, Index(4));
    node.persist_all();
    assert_eq!(node.propose(12), (Index(12), Term(3)));
    node.persist_all();
    assert_eq!(node.applied_numbers(), [12]);
    assert_eq!(node.consensus.snapshot(), Some(&meta));
}

#[test]
fn logs_that_do_not_join_are_refused_in_words() {
    let start = |restored| Consensus::new(config(1), restored, Time(0)).err().unwrap();
    let mut stored = Stored::fresh(&voters(&[1]));
    stored.entries.push(entry(3, 1, EntryKind::Command, bytes(3)));
    assert_eq!(start(stored.restored()), "log entry: index 2 expected, found 3");
    stored.entries.remove(0);
    assert_eq!(start(stored.restored()), "first log entry: index 1 at most expected, found 3");
    let meta = SnapshotMeta {
        index: Index(3),
        term: Term(7),
        configuration: voters(&[1]),
        ..SnapshotMeta::default()
    };
    stored.snapshot = Some(meta);
    let found = start(stored.restored());
    assert_eq!(found, "log entry 3: term 7 of the snapshot expected, found Some(Term(1))");
}

#[test]
fn compaction_forgets_the_front_and_the_log_goes_on() {
    let mut node = Node::bootstrap();
    for number in 2..=20 {
        node.propose(number);
    }
    node.persist_all();
    let meta = SnapshotMeta {
        index: Index(15),
        term: Term(1),
        configuration: voters(&[1]),
        configuration_index: Index(1),
    };
    node.consensus.compact(meta.clone(), Index(11));
    assert_eq!(node.consensus.first_index(), Index(11));
    assert_eq!(node.consensus.term_at(Index(10)), Some(Term(1)));
    assert_eq!(node.consensus.term_at(Index(9)), None);
    node.consensus.compact(meta, Index(99));
    assert_eq!(node.consensus.first_index(), Index(16), "nothing above the snapshot goes");
    node.propose(21);
    node.persist_all();
    assert_eq!(node.applied.last().unwrap().index, Index(21));
}

#[test]
fn payloads_in_memory_stay_below_the_bound_except_those_still_needed() {
    let mut node = Node::bootstrap();
    node.persist_all();
    let big = Payload::from_bytes(&vec![7; 1 << 20]);
    let bound = limits::LOG_CACHE_BYTES_MAX;
    for _ in 0..bound / (1 << 20) + 8 {
        node.consensus.propose(EntryKind::Command, big.clone()).unwrap();
    }
    node.poll();
    assert!(node.consensus.cached_bytes() > bound, "what is not durable stays");
    node.persist_all();
    assert!(node.consensus.cached_bytes() <= bound);
    assert_eq!(node.applied.len(), bound / (1 << 20) + 9);
    assert!(node.applied[1..].iter().all(|entry| entry.payload.len() == 1 << 20));
}

#[test]
fn a_server_without_configuration_waits_to_be_told() {
    let mut node = Node::start(config(4), Stored::default());
    assert_eq!(node.consensus.poll_timeout(), None);
    node.wait(10 * ELECTION);
    assert_eq!((node.news.len(), node.sent.len(), node.queue.len()), (0, 0, 0));
    assert_eq!(node.consensus.propose(EntryKind::Command, bytes(1)), Err(Refused::NotLeader));
}

#[test]
fn only_the_start_that_wrote_entry_1_counts_as_bootstrap() {
    let mut stored = Stored::fresh(&voters(&[1]));
    stored.entries.push(entry(2, 1, EntryKind::Command, bytes(2)));
    let restored = Restored { bootstrapped_now: true, ..stored.restored() };
    let mut node = Node::start_with(config(1), stored, restored);
    node.persist_all();
    assert_eq!(node.stored.terms(), [1, 1, 2]);
}

#[test]
fn an_assertion_of_raft_makes_the_node_unavailable_with_its_words() {
    let mut node = Node::bootstrap();
    node.persist_all();
    node.consensus.call("test", |raw| raw.advance_apply_to(77));
    node.poll();
    let news = node.take_news();
    let [_, Effect::Unavailable { text }] = news.as_slice() else { panic!("{news:?}") };
    assert!(text.starts_with("broken invariant (test): applied(77) is out of range"), "{text}");
    assert_eq!(node.consensus.unavailable(), Some(text.as_str()));
    assert_eq!(node.consensus.propose(EntryKind::Command, bytes(1)), Err(Refused::Unavailable));
    assert!(!node.consensus.is_leader());
    assert_eq!((node.consensus.leader(), node.consensus.poll_timeout()), (None, None));
    node.consensus.handle_time(Time(u64::MAX));
    node.consensus.handle_persisted(1);
    assert_eq!(node.consensus.poll_effect(), None);
}

#[test]
fn an_only_voter_without_peers_asks_for_no_wake_ups() {
    let mut node = Node::bootstrap();
    node.persist_all();
    assert_eq!(node.consensus.poll_timeout(), None);
}

#[test]
fn what_waited_for_the_vote_leaves_before_what_came_later() {
    let mut stored = Stored::fresh(&servers(&[(1, Role::Voter), (2, Role::StandBy)]));
    stored.term = Term(4);
    let mut node = Node::start(config(1), stored);
    assert!(node.consensus.is_leader());
    node.propose(1);
    node.wait(HEARTBEAT);
    assert_eq!(node.take_sent(), [], "the vote is not durable");
    // The vote is; an entry that was made meanwhile is still being written when the next heartbeat is due.
    node.persist_one();
    node.wait(HEARTBEAT);
    node.persist_all();
    node.wait(HEARTBEAT);
    let commit = |(_, message): (NodeId, Message)| match message {
        Message::AppendEntries(it) => it.commit.0,
        other => panic!("{other:?}"),
    };
    let commits: Vec<u64> = node.take_sent().into_iter().map(commit).collect();
    assert!(commits.is_sorted() && commits.len() > 3, "what leaders have committed never falls: {commits:?}");
}
