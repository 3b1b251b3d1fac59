//! What creating a node does to its directory.

use std::io;
use std::path::Path;

use crate::disk::{DirectoryLock, Disk, LockError, RealDisk, check_directory, probe};
use crate::format::names::FileName;
use crate::storage::loader::{self, LoadError};

/// The part of an error text that C's inner library has room for.
const INNER_TEXT_BYTES_MAX: usize = 255;

const PREFIX: &str = "raft_init(): ";

/// Checks the directory and deletes what an interrupted run never finished.
///
/// On a directory that is in order this leaves nothing behind, not even the lock file. While another node has the
/// lock nothing is changed, since what looks half made may be in the making. Halves of snapshots and of metadata
/// stay until a load has succeeded without them; C deletes them here.
///
/// # Errors
/// The text for `dqlite_node_errmsg`, C's.
pub fn prepare(path: &Path) -> Result<(), String> {
    check_directory(path).map_err(|error| cut(error.to_string()))?;
    let failed = |error: io::Error| cut(format!("{PREFIX}io: {error}"));
    let wrong = |error: LoadError| cut(format!("{PREFIX}{error}"));
    let mut disk = RealDisk::open(path).map_err(failed)?;
    let files = disk.list().map_err(failed)?;
    let needs_lock =
        |name: &str| matches!(FileName::parse(name), FileName::Lock | FileName::Temporary | FileName::Probe);
    let lock = if files.iter().any(|(name, _)| needs_lock(name)) {
        match DirectoryLock::take(path) {
            Ok(lock) => Some(lock),
            Err(LockError::Held { .. }) => return loader::check(&mut disk).map_err(wrong),
            // Most likely no file can be made at all; then the probe has the better text.
            Err(LockError::Io { .. }) => None,
        }
    } else {
        None
    };
    probe(&mut disk).map_err(|error| cut(error.to_string()))?;
    if lock.is_some() { loader::prepare(&mut disk) } else { loader::check(&mut disk) }.map_err(wrong)
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
        for name in ["tmp-1", "keep.txt"] {
            fs::write(place.path().join(name), b"x").unwrap();
        }
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
