//! The checks of what servers say to each other: recordings of the C library and clusters of ours pass, and each
//! check finds the violation that is planted for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use dqlite::base::{Entry, EntryKind, Index, NodeId, Payload, Term};
use dqlite::codec::peer::{
    AppendEntries, AppendResult, Message, RequestVote, VoteResult, encode, encode_connect,
};
use support::capture::{Recorded, SETS, streams};
use support::wire::Rules;

mod support;

/// Server 1 is ours, 2 and 3 are of the C library.
fn rules() -> Rules {
    Rules { ours: [1].into(), known: [(1, 1)].into() }
}

fn append(term: u64, prev: (u64, u64), commit: u64, entries: &[(u64, u8)]) -> Message {
    let entry = |(nth, (term, byte)): (usize, &(u64, u8))| Entry {
        index: Index(prev.0 + 1 + nth as u64),
        term: Term(*term),
        kind: EntryKind::Command,
        payload: Payload::from_bytes(&[*byte; 8]),
    };
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        prev_index: Index(prev.0),
        prev_term: Term(prev.1),
        commit: Index(commit),
        entries: entries.iter().enumerate().map(entry).collect(),
    })
}

fn stored(term: u64, last: u64) -> Message {
    let (term, last_index) = (Term(term), Index(last));
    Message::AppendResult(AppendResult { term, rejected: 0, last_index, features: Some(0) })
}

fn ask(term: u64, candidate: u64) -> Message {
    let (term, candidate) = (Term(term), NodeId(candidate));
    let (last_index, last_term) = (Index(1), Term(1));
    let (disrupt_leader, pre_vote) = (false, false);
    Message::RequestVote(RequestVote { term, candidate, last_index, last_term, disrupt_leader, pre_vote })
}

fn grant(term: u64) -> Message {
    Message::VoteResult(VoteResult { term: Term(term), granted: true, pre_vote: Some(false) })
}

/// A connection from one server to another with these messages at these seconds.
fn line(from: u64, to: u64, messages: &[(f64, Message)]) -> Recorded {
    let (word, connect) = encode_connect(NodeId(from), &format!("127.0.0.1:{from}"));
    let mut recorded = Recorded { to: format!("node{to}"), ..Recorded::default() };
    recorded.sent.push((0.0, [&word[..], &connect].concat()));
    for (at, message) in messages {
        let mut bytes = Vec::new();
        encode(message, &mut bytes).unwrap();
        recorded.sent.push((*at, bytes));
    }
    recorded
}

/// The only violation in these connections, as rule and text.
#[track_caller]
fn only(connections: &[Recorded]) -> (u8, String) {
    let found = rules().check(connections);
    assert_eq!(found.len(), 1, "{found:?}");
    (found[0].rule, found[0].text.clone())
}

/// A proper beginning: server 1 leads term 2 and server 2 follows.
fn sound() -> Vec<Recorded> {
    vec![
        line(
            1,
            2,
            &[
                (1.0, ask(2, 1)),
                (1.2, append(2, (1, 1), 1, &[(2, 7)])),
                (1.4, append(2, (2, 2), 2, &[])),
                (1.6, append(2, (1 << 62, 2), 2, &[])),
                (9.0, append(2, (2, 2), 2, &[])),
            ],
        ),
        line(2, 1, &[(1.1, grant(2)), (1.3, stored(2, 2)), (1.5, stored(2, 2))]),
    ]
}

#[test]
fn servers_of_the_c_library_keep_the_rules() {
    for set in SETS {
        // One recording begins with a log in place.
        let last = if set == "c1186-snapshot" { 43 } else { 1 };
        let found = Rules { ours: [].into(), known: [(1, last)].into() }.check(&streams(set));
        assert_eq!(found, [], "{set}");
    }
    assert_eq!(rules().check(&sound()), []);
}

#[test]
fn w1_finds_wrong_opening_bytes_and_talking_back() {
    let mut lines = sound();
    let end = lines[0].sent[0].1.len();
    lines[0].sent[0].1[end - 1] = 9;
    assert_eq!(only(&lines).0, 1);
    let mut lines = sound();
    lines[0].answered = vec![1, 2, 3];
    assert_eq!(only(&lines), (1, "1 to 2: nothing expected in return, found 3 bytes".to_owned()));
}

#[test]
fn w2_finds_a_length_that_nobody_sends_and_one_that_we_do_not_send() {
    let short = AppendResult { term: Term(2), rejected: 0, last_index: Index(1), features: None };
    let result = [(1.0, Message::AppendResult(short))];
    assert_eq!(rules().check(&[line(2, 1, &result)]).len(), 1, "and nobody sent what it acknowledges");
    assert_eq!(only(&[line(1, 2, &result)]).0, 2);
    let mut odd = line(2, 1, &[(1.0, ask(2, 2))]);
    odd.sent[1].1[8] = 32;
    assert_eq!(only(&[odd]).0, 2);
    let mut high = line(2, 1, &[(1.0, ask(2, 2))]);
    high.sent[1].1[4] = 1;
    assert_eq!(only(&[high]).0, 2);
}

#[test]
fn w3_finds_an_entry_that_is_cut_elsewhere_by_the_receiver() {
    let mut lines = vec![line(1, 2, &[(1.0, append(2, (1, 1), 1, &[(2, 7)]))])];
    lines[0].sent[1].1[16 + 52] = 7;
    assert_eq!(only(&lines), (3, "1: an entry of whole words expected, found 7 bytes".to_owned()));
}

#[test]
fn w4_finds_two_leaders_of_a_term_and_lets_a_sole_voter_of_c_follow() {
    let heartbeat = |at| (at, append(2, (1, 2), 1, &[]));
    let first = line(2, 3, &[heartbeat(1.0), heartbeat(2.0)]);
    assert_eq!(rules().check(&[first.clone(), line(3, 2, &[heartbeat(2.5)])]), []);
    assert_eq!(only(&[first.clone(), line(3, 2, &[heartbeat(1.5)])]).0, 4);
    assert_eq!(only(&[first, line(1, 2, &[heartbeat(2.5)])]).0, 4);
}

#[test]
fn w5_finds_another_entry_in_the_same_place() {
    let other = line(2, 3, &[(5.0, append(3, (1, 1), 1, &[(2, 8)]))]);
    let lines = [sound(), vec![other]].concat();
    assert_eq!(only(&lines).0, 5);
}

#[test]
fn w6_finds_an_append_of_ours_that_ends_in_an_older_term() {
    let early = |from, to| vec![line(from, to, &[(1.0, append(2, (0, 0), 0, &[(1, 7)]))])];
    assert_eq!(only(&early(1, 2)).0, 6);
    assert_eq!(rules().check(&early(2, 3)), []);
}

#[test]
fn w7_finds_an_acknowledgement_of_what_was_never_received() {
    let mut lines = sound();
    lines[1] = line(2, 1, &[(1.1, grant(2)), (1.3, stored(2, 3))]);
    assert_eq!(only(&lines), (7, "2 to 1: at most 2 acknowledged expected, found 3".to_owned()));
}

#[test]
fn w8_finds_a_second_vote_in_a_term() {
    let asked = |from| line(from, 2, &[(1.0, ask(2, from)), (9.0, ask(3, from))]);
    let mut lines = vec![asked(1), asked(3)];
    lines.push(line(2, 1, &[(1.1, grant(2))]));
    lines.push(line(2, 3, &[(1.2, grant(2))]));
    assert_eq!(only(&lines), (8, "2 in term 2: one vote expected, found 1 and 3".to_owned()));
}

#[test]
fn w9_finds_a_term_that_falls_on_one_connection_and_over_two() {
    let one = line(2, 1, &[(1.0, ask(3, 2)), (1.1, ask(2, 2))]);
    assert_eq!(only(&[one]).0, 9);
    let over = |at| [line(2, 1, &[(1.0, ask(3, 2))]), line(2, 1, &[(at, ask(2, 2))])];
    assert_eq!(only(&over(5.0)).0, 9);
    assert_eq!(rules().check(&over(1.1)), [], "the proxy may have seen them in another order");
}

#[test]
fn w10_finds_a_request_for_a_vote_that_a_server_of_c_leaves_unanswered() {
    let mut lines = sound();
    lines[1] = line(2, 1, &[(1.3, stored(2, 2)), (1.5, stored(2, 2))]);
    assert_eq!(only(&lines).0, 10);
    // It may have died.
    lines[1].closed = Some(1.6);
    assert_eq!(rules().check(&lines), []);
}

#[test]
fn w11_finds_a_commit_index_that_falls() {
    let falls = [(1.0, append(2, (2, 2), 2, &[])), (1.1, append(2, (2, 2), 1, &[]))];
    assert_eq!(only(&[line(1, 2, &falls)]).0, 11);
}
