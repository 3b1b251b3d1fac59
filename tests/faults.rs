//! Rules that a random run hardly ever shows to be missing: each is shown here by a story of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::cell::RefCell;

use dqlite::base::{Entry, EntryKind, Index, NodeId, Payload, Term};
use dqlite::disk::FaultDisk;
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
