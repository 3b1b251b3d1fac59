use raft::eraftpb::Entry as RaftEntry;
use raft::{GetEntriesContext, Storage};

use super::{LogView, handle};
use crate::base::{EntryKind, Index, Payload, Term};

fn payload(len: usize) -> Payload {
    Payload::from_bytes(&vec![1; len])
}

/// Entries as raft-rs holds them, their payloads staged.
fn staged(log: &mut LogView, entries: &[(u64, u64, usize)]) -> Vec<RaftEntry> {
    let mut made = Vec::new();
    for &(index, term, len) in entries {
        log.stage(Index(index), Term(term), EntryKind::Command, payload(len));
        let (context, data) = handle(EntryKind::Command, len as u64);
        made.push(RaftEntry { index, term, context, data, ..RaftEntry::default() });
    }
    made
}

fn log(entries: &[(u64, u64, usize)]) -> LogView {
    let mut log = LogView::new(64);
    let entries = staged(&mut log, entries);
    log.append(&entries);
    log
}

fn terms(log: &LogView) -> Vec<u64> {
    (log.first()..=log.last()).map(|index| log.term(index).unwrap()).collect()
}

#[test]
fn terms_may_fall_and_rise_along_the_log() {
    let mut log = log(&[(1, 1, 8), (2, 3, 8), (3, 3, 8), (4, 1, 8), (5, 1, 8), (6, 3, 8)]);
    assert_eq!(terms(&log), [1, 3, 3, 1, 1, 3]);
    assert_eq!(log.highest_term(), Term(3));
    assert_eq!(log.term_at(Index(0)), Some(Term(0)));
    assert_eq!(log.term_at(Index(7)), None);
    log.truncate(Index(5));
    assert_eq!(terms(&log), [1, 3, 3, 1]);
    log.compact(Index(3));
    assert_eq!(terms(&log), [3, 1]);
    assert_eq!(log.term_at(Index(2)), Some(Term(3)));
    assert_eq!(log.term_at(Index(1)), None);
    log.compact(Index(5));
    assert_eq!((log.first(), log.last(), log.term_at(Index(4))), (5, 4, Some(Term(1))));
    let more = staged(&mut log, &[(5, 1, 8), (6, 9, 8)]);
    log.append(&more);
    assert_eq!(terms(&log), [1, 9]);
    log.truncate(Index(5));
    assert_eq!((log.last(), log.cached_bytes()), (4, 0));
}

#[test]
fn appending_over_entries_cuts_them_off_and_says_from_where() {
    let mut log = log(&[(1, 1, 8), (2, 1, 16), (3, 1, 24)]);
    let over = staged(&mut log, &[(2, 2, 32)]);
    let done = log.append(&over);
    assert_eq!(done.truncated_from, Some(Index(2)));
    assert_eq!(done.entries.len(), 1);
    assert_eq!((log.last(), log.cached_bytes()), (2, 40));
    assert_eq!(log.entry(Index(2)).unwrap().payload, payload(32));
}

#[test]
fn raft_gets_handles_and_always_all_it_asks_for() {
    let log = log(&[(1, 1, 8), (2, 1, 4096), (3, 1, 24)]);
    let found = log.entries(1, 4, Some(1), GetEntriesContext::empty(false)).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(found[1].data, [1, 0, 16, 0, 0, 0, 0, 0, 0]);
    assert!(log.entries(0, 2, None, GetEntriesContext::empty(false)).is_err());
    assert!(log.entries(3, 5, None, GetEntriesContext::empty(false)).is_err());
}

#[test]
fn payloads_leave_from_the_front_and_never_beyond_what_is_pinned() {
    let mut log = log(&[(1, 1, 40), (2, 1, 40), (3, 1, 40), (4, 1, 40)]);
    assert_eq!(log.cached_bytes(), 160);
    log.pin_after(Index(1));
    assert_eq!(log.cached_bytes(), 120);
    assert_eq!(log.entry(Index(1)), None);
    log.pin_after(Index(4));
    assert_eq!(log.cached_bytes(), 40);
    assert_eq!(log.entry(Index(3)), None);
    assert!(log.entry(Index(4)).is_some());
    assert_eq!(terms(&log), [1, 1, 1, 1]);
    log.compact(Index(4));
    assert_eq!((log.cached_bytes(), log.first()), (40, 4));
    let more = staged(&mut log, &[(5, 1, 24)]);
    log.append(&more);
    assert_eq!(log.cached_bytes(), 64);
}

#[test]
fn an_empty_entry_of_raft_is_a_barrier_of_eight_zeros() {
    let mut log = LogView::new(64);
    let done = log.append(&[RaftEntry { index: 1, term: 2, ..RaftEntry::default() }]);
    assert_eq!(done.entries[0].kind, EntryKind::Barrier);
    assert_eq!(done.entries[0].payload, Payload::from_bytes(&[0; 8]));
    let found = log.entries(1, 2, None, GetEntriesContext::empty(false)).unwrap();
    assert!(found[0].data.is_empty());
}

#[test]
fn a_configuration_carries_its_mark() {
    let (context, data) = handle(EntryKind::Change, 40);
    assert_eq!((context.as_slice(), data.len()), (&[3][..], 9));
}
