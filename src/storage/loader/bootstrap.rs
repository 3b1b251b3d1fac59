//! What precedes a start: looking at a directory, and making the log of a new cluster.

use super::LoadError;
use super::read;
use super::repair::{delete, store_metadata, write_whole};
use crate::base::ids::BOOTSTRAP_IDS;
use crate::base::{Entry, EntryKind, Index, NodeId, Payload, Role, Term};
use crate::codec::membership::{Configuration, Server};
use crate::disk::Disk;
use crate::format::metadata::Metadata;
use crate::format::names::{self, FileName};
use crate::format::recovery::Listing;
use crate::format::segment::{SEGMENT_HEADER, encode_batch};

/// Checks what must be right for a node to be created on the directory, and changes nothing.
///
/// # Errors
/// When a metadata file is damaged.
pub fn check<D: Disk>(disk: &mut D) -> Result<(), LoadError> {
    let files = list(disk)?;
    read::metadata(disk, &files).map(drop)
}

/// [`check`], then deletes files that were never finished.
///
/// # Errors
/// When a metadata file is damaged: nothing is deleted then.
pub fn prepare<D: Disk>(disk: &mut D) -> Result<(), LoadError> {
    check(disk)?;
    let listing = Listing::new(&list(disk)?);
    let useless: Vec<&str> = listing.temporary.iter().map(String::as_str).collect();
    delete(disk, &useless)
}

/// Makes the directory that of a new cluster with this node alone, if its id is one that does so and nothing is
/// there yet. Says whether it did.
///
/// The log comes before the metadata: whatever a crash leaves of this loads as if all had been done. C stores
/// the metadata first, so its part of the work alone is taken up too.
///
/// # Errors
/// When a metadata file is damaged, or the disk fails.
pub fn bootstrap<D: Disk>(disk: &mut D, id: NodeId, address: &str) -> Result<bool, LoadError> {
    if !BOOTSTRAP_IDS.contains(&id) {
        return Ok(false);
    }
    let files = list(disk)?;
    let first = Metadata { version: 1, term: Term(1), voted_for: NodeId(0) };
    let found = read::metadata(disk, &files)?;
    let unfinished = found == Some(first);
    if found.is_some_and(|found| found.term != Term(0)) && !unfinished {
        return Ok(false);
    }
    if files.iter().any(|(name, size)| holds_a_log(name, *size)) {
        return Ok(false);
    }
    let configuration =
        Configuration { servers: vec![Server { id, address: address.to_owned(), role: Role::Voter }] };
    let entry = Entry {
        index: Index(1),
        term: Term(1),
        kind: EntryKind::Change,
        payload: Payload::from_bytes(&configuration.encode()),
    };
    let mut segment = SEGMENT_HEADER.to_vec();
    encode_batch(&[entry], &mut segment);
    prepare(disk)?;
    write_whole(disk, &names::closed_name(Index(1), Index(1)), &segment)?;
    if !unfinished {
        let version = found.map_or(0, |found| found.version).saturating_add(1);
        store_metadata(disk, &Metadata { version, ..first })?;
    }
    Ok(true)
}

/// Whether a file may hold something that a new cluster must not be begun beside.
fn holds_a_log(name: &str, size: u64) -> bool {
    match FileName::parse(name) {
        FileName::Closed(..) | FileName::Corrupt | FileName::SnapshotMeta(_) | FileName::SnapshotData(_) => {
            true
        }
        FileName::Open(_) => size > 0,
        FileName::Metadata(_) | FileName::Temporary | FileName::Probe | FileName::Lock | FileName::Other => {
            false
        }
    }
}

fn list<D: Disk>(disk: &mut D) -> Result<Vec<(String, u64)>, LoadError> {
    disk.list().map_err(|error| LoadError::disk("list", "the directory", &error))
}
