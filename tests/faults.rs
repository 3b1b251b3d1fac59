//! Rules that a random run hardly ever shows to be missing: each is shown here by a story of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::cell::RefCell;

use dqlite::base::{Entry, EntryKind, Index, NodeId, PageNo, Payload, Term, Time};
use dqlite::codec::command::Command;
use dqlite::disk::FaultDisk;
use dqlite::engine::proposer::Proposer;
use dqlite::engine::{ConnId, Databases, Hold, Patience};
use dqlite::pages::{Changes, Database, Page, View, WriterId};
use dqlite::runtime::disk::{DiskDone, DiskWork, Worker};
use dqlite::storage::loader::{self, LoadOptions};
use dqlite::storage::writer::{Writer, WriterConfig, WriterState};

fn entry(index: u64, bytes: usize) -> Entry {
    let payload = Payload::from_bytes(&vec![7; bytes * 8]);
    Entry { index: Index(index), term: Term(1), kind: EntryKind::Command, payload }
}

fn append(ticket: u64, index: u64, bytes: usize) -> DiskWork {
    DiskWork::Persist { ticket, truncate_from: None, entries: vec![entry(index, bytes)], metadata: None }
}

fn vote(ticket: u64) -> DiskWork {
    let metadata = Some((Term(ticket), NodeId(1)));
    DiskWork::Persist { ticket, truncate_from: None, entries: Vec::new(), metadata }
}

fn retry(ticket: u64, index: u64, bytes: usize) -> DiskWork {
    let truncate_from = Some(Index(index));
    DiskWork::Persist { ticket, truncate_from, entries: vec![entry(index, bytes)], metadata: None }
}

/// What the disk thread answers to `items` in one turn.
fn work(worker: &mut Worker<FaultDisk>, items: Vec<DiskWork>) -> Vec<String> {
    let told = RefCell::new(Vec::new());
    worker.work(items, &|done| {
        told.borrow_mut().push(match done {
            DiskDone::Persisted { ticket } => format!("{ticket} stored"),
            DiskDone::Failed { ticket, no_space: true, .. } => format!("{ticket} no room"),
            DiskDone::Failed { ticket, text, .. } => format!("{ticket} failed: {text}"),
            other => format!("{other:?}"),
        });
    });
    told.into_inner()
}

fn disk_with_log() -> (FaultDisk, Worker<FaultDisk>) {
    let mut disk = FaultDisk::new(1);
    loader::prepare(&mut disk).unwrap();
    assert!(loader::bootstrap(&mut disk, NodeId(1), "127.0.0.1:9001").unwrap());
    let options = LoadOptions { auto_recovery: true, id: NodeId(1), wall_ns: 1 };
    let state = WriterState::from(&loader::load(&mut disk, &options).unwrap());
    let config = WriterConfig { segment_bytes: 24 << 10, prewrite: false, ..WriterConfig::default() };
    let mut worker = Worker::new(Writer::new(disk.clone(), state, config));
    assert_eq!(work(&mut worker, vec![append(1, 2, 100)]), ["1 stored"]);
    (disk, worker)
}

/// What was queued behind a write that had no room belongs to a log that is lost: there may be room for it, and
/// yet it must not be written, neither entries nor a vote that stands behind them.
#[test]
fn nothing_is_written_behind_a_hole_before_consensus_has_cut_it_off() {
    let (disk, mut worker) = disk_with_log();
    disk.set_capacity(Some(disk.used_bytes()));
    assert_eq!(work(&mut worker, vec![append(2, 3, 6_000)]), ["2 no room"]);
    // There is room again, but these were sent before anybody knew.
    disk.set_capacity(None);
    let told = work(&mut worker, vec![append(3, 4, 100), vote(4)]);
    assert_eq!(told, ["3 no room", "4 no room"], "the node must try again, not end");
    assert_eq!(work(&mut worker, vec![append(5, 3, 100)]), ["5 no room"], "though it would fit the log");
    // Consensus starts over from what is durable.
    let told = work(&mut worker, vec![retry(6, 3, 200), append(7, 4, 100)]);
    assert_eq!(told.last().map(String::as_str), Some("7 stored"), "it speaks for all before it");
    let options = LoadOptions { auto_recovery: true, id: NodeId(1), wall_ns: 1 };
    let loaded = loader::load(&mut disk.clone(), &options).unwrap();
    let lengths: Vec<_> = loaded.entries.iter().skip(1).map(|entry| entry.payload.len()).collect();
    assert_eq!(lengths, [800, 1600, 800]);
}

/// The same in one turn of the disk thread, where appends share a write.
#[test]
fn a_full_disk_refuses_all_that_came_with_what_did_not_fit() {
    let (disk, mut worker) = disk_with_log();
    disk.set_capacity(Some(disk.used_bytes()));
    let told = work(&mut worker, vec![append(2, 3, 6_000), append(3, 4, 10), vote(4), append(5, 5, 10)]);
    assert_eq!(told, ["2 no room", "3 no room", "4 no room", "5 no room"]);
    disk.set_capacity(None);
    assert_eq!(work(&mut worker, vec![retry(6, 3, 10)]), ["6 stored"]);
}

/// Commits a transaction that writes these pages beside page 1.
fn write_pages(database: &Database, numbers: std::ops::RangeInclusive<u32>) -> u64 {
    let pinned = database.pin(View::Head);
    let mut first = pinned.page(PageNo(1)).unwrap().as_slice().to_vec();
    first[200] = first[200].wrapping_add(1);
    let mut changes = Changes { n_pages: pinned.n_pages().max(*numbers.end()), ..Changes::default() };
    changes.pages.insert(PageNo(1), Page::from_slice(&first));
    changes.pages.extend(numbers.map(|no| (PageNo(no), Page::zeroed(4096))));
    database.reserve(WriterId(1), &pinned).unwrap();
    let seq = database.publish(WriterId(1), pinned, changes).seq();
    database.release(WriterId(1));
    seq
}

/// Transactions that wait for the disk go together, but not all of them in one entry, however many they are.
#[test]
fn a_group_of_many_transactions_has_an_end() {
    let patience = Patience { wait: std::time::Duration::ZERO, idle: None };
    let mut databases = Databases::new(patience, 4096, 3_040_001);
    let slot = databases.open(b"test");
    databases.set_writable(Ok(()));
    let database = std::sync::Arc::clone(&databases.get(slot).unwrap().database);
    for no in 2..=600 {
        let seq = write_pages(&database, no..=no);
        assert_eq!(databases.hold(slot, seq, ConnId(1)), Hold::Held);
    }
    let mut proposer = Proposer::default();
    let (mut sizes, mut index) = (Vec::new(), 2);
    while let Some(proposal) = proposer.next(&mut databases) {
        let bytes = proposal.payload.contiguous();
        let Command::Frames(frames) = Command::decode(&bytes).unwrap() else { panic!("pages expected") };
        sizes.push(frames.pages.len());
        proposer.handle_proposed(&proposal, Index(index), Term(1), Time(0));
        index += 1;
    }
    // Each holds page 1; the third is the last that may be in flight.
    assert_eq!(sizes, [256, 256, 90]);
}

/// What is finished and not durable is bounded in bytes too: then nobody adds to it.
#[test]
fn a_database_with_much_that_is_not_durable_takes_no_more() {
    let database = Database::new(b"test", 4096, 3_040_001);
    write_pages(&database, 2..=8_000);
    assert!(!database.is_overloaded());
    let last = write_pages(&database, 2..=8_500);
    assert!(database.is_overloaded(), "16,500 pages of 4 KiB");
    database.commit_to(last);
    assert!(!database.is_overloaded());
}
