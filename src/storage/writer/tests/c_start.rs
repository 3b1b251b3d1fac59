//! What the C library does when it starts on a directory, by the book: what it loads, or why it refuses or dies.
//! It knows nothing of our loader.

use std::collections::BTreeMap;

use crate::disk::{Disk, FaultDisk};
use crate::format::names::{FileName, SnapshotName, snapshot_meta_name, snapshot_name};
use crate::format::segment::decode;
use crate::format::{Class, lz4, metadata};

/// What a start loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Started {
    /// Version, term and vote.
    pub metadata: (u64, u64, u64),
    /// Term and index of the snapshot.
    pub snapshot: (u64, u64),
    /// The log: index, then term and payload.
    pub log: BTreeMap<u64, (u64, Vec<u8>)>,
    /// The closed segments the log is in, when the start is over.
    pub closed: Vec<(u64, u64)>,
}

impl Started {
    pub fn next(&self) -> u64 {
        self.log.keys().next_back().map_or(self.snapshot.1, |&last| last.max(self.snapshot.1)) + 1
    }
}

/// Starts on the directory; repairs it as C does, but durably.
pub(super) fn start(disk: &mut FaultDisk) -> Result<Started, String> {
    let listing = disk.list().unwrap();
    for (name, _) in &listing {
        let orphan = match FileName::parse(name) {
            FileName::Temporary => true,
            FileName::SnapshotMeta(of) => !has(&listing, &snapshot_name(of)),
            FileName::SnapshotData(of) => !has(&listing, &snapshot_meta_name(of)),
            _ => false,
        };
        if orphan {
            disk.unlink(name).unwrap();
        }
    }
    let metadata = load_metadata(disk)?;
    let listing = disk.list().unwrap();
    let snapshot = load_snapshot(disk, &listing)?;
    let s = snapshot.map_or(0, |of| of.index.0);
    let (mut closed, mut open) = (Vec::new(), Vec::new());
    for (name, _) in &listing {
        match FileName::parse(name) {
            FileName::Closed(first, last) => closed.push((first.0, last.0, name.clone())),
            FileName::Open(counter) => open.push((counter, name.clone())),
            _ => {}
        }
    }
    closed.sort();
    open.sort();
    let mut next = if snapshot.is_some() { filter(&mut closed, s, !open.is_empty())? } else { 1 };
    let mut log = BTreeMap::new();
    let mut kept = Vec::new();
    for (first, last, name) in closed {
        if first != next {
            return Err(format!("unexpected closed segment {name}: first index should have been {next}"));
        }
        let bytes = disk.content(&name).unwrap();
        let segment = decode(&bytes);
        segment.end.clone().map_err(|error| format!("load closed segment {name}: {error}"))?;
        if segment.entries.len() as u64 != last + 1 - first {
            return Err(format!("load closed segment {name}: found {} entries", segment.entries.len()));
        }
        for found in &segment.entries {
            log.insert(next, (found.term.0, found.payload.to_vec()));
            next += 1;
        }
        kept.push((first, last));
    }
    for (_, name) in open {
        load_open(disk, &name, &mut next, &mut log, &mut kept)?;
    }
    if snapshot.is_some() && next - 1 < s {
        return Err(format!("last entry on disk has index {}, behind the snapshot's {s}", next - 1));
    }
    disk.sync_dir().unwrap();
    Ok(Started {
        metadata,
        snapshot: snapshot.map_or((0, 0), |of| (of.term.0, of.index.0)),
        log,
        closed: kept,
    })
}

fn has(listing: &[(String, u64)], name: &str) -> bool {
    listing.iter().any(|(other, _)| other == name)
}

fn load_metadata(disk: &mut FaultDisk) -> Result<(u64, u64, u64), String> {
    let mut found = [None, None];
    for (slot, name) in found.iter_mut().zip(["metadata1", "metadata2"]) {
        if let Some(bytes) = disk.content(name) {
            *slot = metadata::decode(name, &bytes).map_err(|error| error.text)?;
            if slot.is_none() {
                disk.unlink(name).unwrap();
            }
        }
    }
    let newer = metadata::newer(found[0], found[1]).map_err(|error| error.text)?;
    Ok(newer.map_or((0, 0, 0), |found| (found.version, found.term.0, found.voted_for.0)))
}

fn load_snapshot(disk: &FaultDisk, listing: &[(String, u64)]) -> Result<Option<SnapshotName>, String> {
    let Some(&newest) = crate::storage::snapshots::complete_snapshots(listing).last() else {
        return Ok(None);
    };
    let meta = disk.content(&snapshot_meta_name(newest)).unwrap();
    if meta.len() < 32 || crate::base::crc::checksum(0, &meta[16..]).to_le_bytes() != meta[8..12] {
        return Err(format!("read {}: checksum mismatch", snapshot_meta_name(newest)));
    }
    let data = disk.content(&snapshot_name(newest)).unwrap();
    let mut payload = Vec::new();
    let sound = lz4::decompress(data.as_slice(), &mut payload);
    sound.map_err(|error| format!("{}: {error}", snapshot_name(newest)))?;
    if crate::base::crc::checksum(0, &payload) != super::two_pages_checksum() {
        return Err(format!("{}: damaged", snapshot_name(newest)));
    }
    Ok(Some(newest))
}

/// The closed segments that count beside a snapshot at `s`; returns where the log starts.
fn filter(closed: &mut Vec<(u64, u64, String)>, s: u64, open: bool) -> Result<u64, String> {
    let Some(&(_, newest_end, _)) = closed.last() else { return Ok(s + 1) };
    if newest_end < s && !open {
        closed.clear();
        return Ok(s + 1);
    }
    let mut first_kept = closed.len() - 1;
    while first_kept > 0 && closed[first_kept - 1].1 + 1 == closed[first_kept].0 {
        first_kept -= 1;
    }
    closed.drain(..first_kept);
    if closed[0].0 > s + 1 {
        return Err(format!("closed segment {} is past last snapshot {s}", closed[0].2));
    }
    Ok(closed[0].0)
}

fn load_open(
    disk: &mut FaultDisk,
    name: &str,
    next: &mut u64,
    log: &mut BTreeMap<u64, (u64, Vec<u8>)>,
    kept: &mut Vec<(u64, u64)>,
) -> Result<(), String> {
    let bytes = disk.content(name).unwrap();
    let segment = decode(&bytes);
    if segment.entries.is_empty() && (segment.blank || segment.tail_zero || segment.format_good) {
        if segment.end.as_ref().is_err_and(|error| error.class == Class::Io && !segment.blank) {
            return Err(format!("dies of {name}: {:?}", segment.end));
        }
        disk.unlink(name).unwrap();
        return Ok(());
    }
    if segment.end.as_ref().is_err_and(|error| error.class != Class::Corrupt || !segment.format_good) {
        return Err(format!("dies of {name}: {:?}", segment.end));
    }
    let first = *next;
    for found in &segment.entries {
        log.insert(*next, (found.term.0, found.payload.to_vec()));
        *next += 1;
    }
    kept.push((first, *next - 1));
    let mut file = disk.open(name).unwrap();
    disk.set_len(&mut file, segment.used).unwrap();
    disk.sync(&mut file).unwrap();
    let closed = crate::format::names::closed_name(crate::base::Index(first), crate::base::Index(*next - 1));
    disk.rename(name, &closed).unwrap();
    Ok(())
}
