//! What creating a node does to its directory.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::disk::{DirectoryLock, Disk, LockError, RealDisk, check_directory, probe};
use crate::format::FormatError;
use crate::format::metadata::{self, METADATA_BYTES};
use crate::format::names::{FileName, METADATA, SnapshotName};

/// The part of an error text that C's inner library has room for.
const INNER_TEXT_BYTES_MAX: usize = 255;

const PREFIX: &str = "raft_init(): ";

/// Checks the directory and clears away what an interrupted run left half made.
///
/// On a directory that is in order this leaves nothing behind, not even the lock file. While another node has the
/// lock nothing is changed, since what looks half made may be in the making.
///
/// # Errors
/// The text for `dqlite_node_errmsg`, C's.
pub fn prepare(path: &Path) -> Result<(), String> {
    check_directory(path).map_err(|error| cut(error.to_string()))?;
    let failed = |error: io::Error| cut(format!("{PREFIX}io: {error}"));
    let mut disk = RealDisk::open(path).map_err(failed)?;
    let files = disk.list().map_err(failed)?;
    let lock_exists = files.iter().any(|(name, _)| FileName::parse(name) == FileName::Lock);
    let lock = if lock_exists || !left_overs(&files).is_empty() {
        match DirectoryLock::take(path) {
            Ok(lock) => Some(lock),
            Err(LockError::Held { .. }) => return check_metadata(&mut disk),
            // Most likely no file can be made at all; then the probe has the better text.
            Err(LockError::Io { .. }) => None,
        }
    } else {
        None
    };
    probe(&mut disk).map_err(|error| cut(error.to_string()))?;
    if lock.is_some() {
        clear(&mut disk).map_err(failed)?;
    }
    check_metadata(&mut disk)
}

fn clear(disk: &mut RealDisk) -> io::Result<()> {
    // Listed again, under the lock.
    let files = disk.list()?;
    let names = left_overs(&files);
    for name in &names {
        disk.unlink(name)?;
    }
    // Before the node is used: else a crash can bring half of a snapshot back beside a new one of that name.
    if names.is_empty() { Ok(()) } else { disk.sync_dir() }
}

/// Files of an interrupted run: temporary ones, halves of snapshots, metadata that was not written to its end.
fn left_overs(files: &[(String, u64)]) -> Vec<&str> {
    let mut halves: BTreeMap<SnapshotName, Vec<&str>> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, size) in files {
        match FileName::parse(name) {
            FileName::Temporary | FileName::Probe => found.push(name.as_str()),
            FileName::Metadata(_) if *size < METADATA_BYTES as u64 => found.push(name),
            FileName::SnapshotData(snapshot) | FileName::SnapshotMeta(snapshot) => {
                halves.entry(snapshot).or_default().push(name);
            }
            FileName::Metadata(_)
            | FileName::Open(_)
            | FileName::Closed(..)
            | FileName::Corrupt
            | FileName::Lock
            | FileName::Other => {}
        }
    }
    found.extend(halves.into_values().filter(|names| names.len() == 1).flatten());
    found
}

fn check_metadata(disk: &mut RealDisk) -> Result<(), String> {
    let failed = |error: FormatError| cut(format!("{PREFIX}io: {error}"));
    let mut read = |name: &str| match disk.read_all(name) {
        Ok(bytes) => metadata::decode(name, &bytes).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cut(format!("{PREFIX}io: read {name}: {error}"))),
    };
    let [first, second] = METADATA;
    metadata::newer(read(first)?, read(second)?).map(drop).map_err(failed)
}

/// As C cuts it.
fn cut(mut text: String) -> String {
    if text.starts_with(PREFIX) {
        let mut end = text.len().min(PREFIX.len() + INNER_TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn metadata_bytes(format: u64, version: u64) -> Vec<u8> {
        [format, version, 1, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_in_order_is_left_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        prepare(place.path()).unwrap();
        assert_eq!(names(place.path()), [""; 0]);

        fs::write(place.path().join("metadata1"), metadata_bytes(1, 1)).unwrap();
        prepare(place.path()).unwrap();
        assert_eq!(names(place.path()), ["metadata1"]);
    }

    #[test]
    fn left_overs_are_cleared_away_but_not_under_a_running_node() {
        let place = tempfile::tempdir().unwrap();
        for name in ["tmp-1", "snapshot-1-2-3", "snapshot-1-9-3.meta", "keep.txt"] {
            fs::write(place.path().join(name), b"x").unwrap();
        }
        fs::write(place.path().join("metadata2"), b"short").unwrap();
        let running = DirectoryLock::take(place.path()).unwrap();
        let before = names(place.path());
        prepare(place.path()).unwrap();
        assert_eq!(names(place.path()), before);
        drop(running);
        prepare(place.path()).unwrap();
        assert_eq!(names(place.path()), ["dqlite-lock", "keep.txt"]);
    }

    #[test]
    fn wrong_metadata_is_refused_with_the_c_librarys_text_locked_or_not() {
        for (first, second, text) in [
            (vec![0; 40], None, "metadata1 has size 40 instead of 32"),
            (metadata_bytes(7, 1), None, "decode content of metadata1: bad format version 7"),
            (metadata_bytes(1, 0), None, "decode content of metadata1: version is set to zero"),
            (
                metadata_bytes(1, 3),
                Some(metadata_bytes(1, 3)),
                "metadata1 and metadata2 are both at version 3",
            ),
        ] {
            let place = tempfile::tempdir().unwrap();
            fs::write(place.path().join("metadata1"), first).unwrap();
            if let Some(second) = second {
                fs::write(place.path().join("metadata2"), second).unwrap();
            }
            let expected = format!("raft_init(): io: {text}");
            assert!(prepare(place.path()).unwrap_err().starts_with(&expected));
            let _running = DirectoryLock::take(place.path()).unwrap();
            assert!(prepare(place.path()).unwrap_err().starts_with(&expected));
            drop(_running);
            assert!(prepare(place.path()).unwrap_err().starts_with(&expected));
        }
    }

    #[test]
    fn a_long_text_is_cut_where_c_cuts_it() {
        let long = "x".repeat(800);
        let text = prepare(Path::new(&format!("/{long}/a"))).unwrap_err();
        assert_eq!(text.len(), 268, "{text}");
    }
}
