//! The writer against a disk that forgets, tears and refuses.

mod c_start;
mod count;
mod crash;
mod order;
mod random;
mod room;
mod script;

use crate::base::{Entry, EntryKind, Index, NodeId, Payload, Role, Term};
use crate::codec::membership::{Configuration, Server};
use crate::disk::FaultDisk;
use crate::storage::{FinishedSnapshot, PageSource, SnapshotHeader, write_snapshot};

use super::{Writer, WriterConfig, WriterState};

/// Segments of 8 blocks of 512 bytes, so that scripts fill some.
pub(super) fn small(prewrite: bool) -> WriterConfig {
    WriterConfig { block_size: 512, segment_bytes: 4096, prewrite }
}

pub(super) fn fresh(disk: &FaultDisk) -> Writer<FaultDisk> {
    let state = WriterState { next_index: Index(1), ..WriterState::default() };
    Writer::new(disk.clone(), state, small(false))
}

/// A cluster of node 1 alone.
fn alone(address: &str) -> Vec<u8> {
    let server = Server { id: NodeId(1), address: address.to_owned(), role: Role::Voter };
    Configuration { servers: vec![server] }.encode()
}

/// An entry whose bytes say which one it is, so that an old one in a wrong place is found. The first one of a
/// log is a configuration.
pub(super) fn entry(index: u64, term: u64, len: usize) -> Entry {
    if index == 1 && len >= 24 {
        let address = format!("{term:.>width$}", width = len - 19);
        let (kind, payload) = (EntryKind::Change, Payload::from_bytes(&alone(&address)));
        return Entry { index: Index(1), term: Term(term), kind, payload };
    }
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        bytes.extend_from_slice(&(index * 1_000_003 + term * 7919 + bytes.len() as u64).to_le_bytes());
    }
    Entry {
        index: Index(index),
        term: Term(term),
        kind: EntryKind::Command,
        payload: Payload::from_bytes(&bytes),
    }
}

/// `count` entries from `first` on.
pub(super) fn entries(first: u64, count: u64, term: u64, len: usize) -> Vec<Entry> {
    (first..first + count).map(|index| entry(index, term, len)).collect()
}

/// A database of two small pages.
pub(super) struct TwoPages;

impl PageSource for TwoPages {
    fn name(&self) -> &[u8] {
        b"main.db"
    }
    fn page_size(&self) -> u32 {
        512
    }
    fn n_pages(&self) -> u32 {
        2
    }
    fn page(&self, number: u32, out: &mut Vec<u8>) {
        let byte = u8::try_from(number).unwrap();
        let mut page: Vec<u8> = (0..512u32).map(|at| byte ^ u8::try_from(at % 251).unwrap()).collect();
        if number == 1 {
            page[..16].copy_from_slice(b"SQLite format 3\0");
            page[16..18].copy_from_slice(&[2, 0]);
            page[24..32].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2]);
            page[92..96].copy_from_slice(&[0, 0, 0, 1]);
        }
        out.append(&mut page);
    }
}

/// The checksum of the payload of a snapshot of [`TwoPages`].
pub(super) fn two_pages_checksum() -> u32 {
    let mut payload = Vec::new();
    for word in [1, 1, u64::from_le_bytes(*b"main.db\0"), 1024, 0] {
        payload.extend_from_slice(&word.to_le_bytes());
    }
    TwoPages.page(1, &mut payload);
    TwoPages.page(2, &mut payload);
    crate::base::crc::checksum(0, &payload)
}

pub(super) fn header(index: u64, term: u64) -> SnapshotHeader {
    SnapshotHeader {
        term: Term(term),
        index: Index(index),
        time: 7,
        configuration_index: Index(1),
        configuration: alone("a"),
    }
}

pub(super) fn snapshot(disk: &FaultDisk, index: u64, term: u64) -> FinishedSnapshot {
    write_snapshot(&mut disk.clone(), &header(index, term), &[TwoPages], true).unwrap()
}

pub(super) fn names(disk: &FaultDisk) -> Vec<String> {
    use crate::disk::Disk;
    disk.clone().list().unwrap().into_iter().map(|(name, _)| name).collect()
}
