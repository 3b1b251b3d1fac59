//! The names of the files of a data directory.

use crate::base::{Index, Term};

/// The lock file: empty, never deleted.
pub const LOCK: &str = "dqlite-lock";
/// The two halves of the metadata; odd versions go to the first, even ones to the second.
pub const METADATA: [&str; 2] = ["metadata1", "metadata2"];
/// What C looks at no more from this length on.
const NAME_BYTES_MAX: usize = 128;
const META_SUFFIX: &str = ".meta";

/// What the name of a snapshot says. C orders snapshots by these fields, the term first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    /// The term of the entry at `index`.
    pub term: Term,
    /// The last entry that is in the snapshot.
    pub index: Index,
    /// Milliseconds of a monotonic clock since boot: breaks ties, means nothing else.
    pub time: u64,
}

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// `metadata1` or `metadata2`.
    Metadata(u8),
    /// A segment under construction, with its counter.
    Open(u64),
    /// A finished segment: its first and last index.
    Closed(Index, Index),
    /// The metadata of a snapshot.
    SnapshotMeta(SnapshotName),
    /// The data of a snapshot.
    SnapshotData(SnapshotName),
    /// A file that was never finished.
    Temporary,
    /// A file that a start put aside.
    Corrupt,
    /// A file by which a start probes what the file system can do.
    Probe,
    /// The lock file.
    Lock,
    /// Not ours: never touched.
    Other,
}

impl FileName {
    /// What a file of this name is. Only a name that is matched to its end is ours; widths do not matter.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        if name.len() >= NAME_BYTES_MAX {
            return Self::Other;
        }
        match name {
            LOCK => return Self::Lock,
            ".probe" | ".probe_fallocate" => return Self::Probe,
            "metadata1" => return Self::Metadata(1),
            "metadata2" => return Self::Metadata(2),
            _ => {}
        }
        if name.starts_with("tmp-") {
            return Self::Temporary;
        }
        if name.starts_with("corrupt-") {
            return Self::Corrupt;
        }
        parse_numbered(name).unwrap_or(Self::Other)
    }
}

fn parse_numbered(name: &str) -> Option<FileName> {
    if let Some(counter) = name.strip_prefix("open-") {
        return decimal(counter).map(FileName::Open);
    }
    if let Some(rest) = name.strip_prefix("snapshot-") {
        return match rest.strip_suffix(META_SUFFIX) {
            Some(rest) => parse_snapshot(rest).map(FileName::SnapshotMeta),
            None => parse_snapshot(rest).map(FileName::SnapshotData),
        };
    }
    let (first, last) = name.split_once('-')?;
    Some(FileName::Closed(Index(decimal(first)?), Index(decimal(last)?)))
}

fn parse_snapshot(rest: &str) -> Option<SnapshotName> {
    let (term, rest) = rest.split_once('-')?;
    let (index, time) = rest.split_once('-')?;
    Some(SnapshotName { term: Term(decimal(term)?), index: Index(decimal(index)?), time: decimal(time)? })
}

/// Digits and nothing else: `u64::from_str` would take a sign.
fn decimal(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The name of the segment under construction with this counter.
#[must_use]
pub fn open_name(counter: u64) -> String {
    format!("open-{counter}")
}

/// The name of the finished segment with these indexes, both included.
#[must_use]
pub fn closed_name(first: Index, last: Index) -> String {
    format!("{:016}-{:016}", first.0, last.0)
}

/// The metadata file that takes this version.
#[must_use]
pub fn metadata_name(version: u64) -> &'static str {
    if version % 2 == 1 { "metadata1" } else { "metadata2" }
}

/// The name of a snapshot's data.
#[must_use]
pub fn snapshot_name(snapshot: SnapshotName) -> String {
    format!("snapshot-{}-{}-{}", snapshot.term, snapshot.index, snapshot.time)
}

/// The name of a snapshot's metadata.
#[must_use]
pub fn snapshot_meta_name(snapshot: SnapshotName) -> String {
    meta_name(&snapshot_name(snapshot))
}

/// The name of the metadata that belongs to a snapshot's data file.
#[must_use]
pub fn meta_name(data: &str) -> String {
    format!("{data}{META_SUFFIX}")
}

/// The name of the data that belongs to a snapshot's metadata file.
#[must_use]
pub fn data_name(meta: &str) -> &str {
    meta.strip_suffix(META_SUFFIX).unwrap_or(meta)
}

/// The name under which a file is built that will be called `name`; any start deletes it.
#[must_use]
pub fn temporary_name(name: &str) -> String {
    format!("tmp-{name}")
}

/// The name under which a damaged file is kept: nobody reads or deletes it.
#[must_use]
pub fn corrupt_name(wall_ns: u64, name: &str) -> String {
    format!("corrupt-{wall_ns}-{name}")
}

#[cfg(test)]
mod tests {
    use super::{
        FileName, SnapshotName, closed_name, corrupt_name, open_name, snapshot_meta_name, snapshot_name,
        temporary_name,
    };
    use crate::base::{Index, Term};

    #[test]
    fn names_are_read_back_as_what_they_were_made_for() {
        let snapshot = SnapshotName { term: Term(1), index: Index(24), time: 2_425_680 };
        assert_eq!(snapshot_name(snapshot), "snapshot-1-24-2425680");
        assert_eq!(FileName::parse(&snapshot_name(snapshot)), FileName::SnapshotData(snapshot));
        assert_eq!(FileName::parse(&snapshot_meta_name(snapshot)), FileName::SnapshotMeta(snapshot));
        let closed = closed_name(Index(17), Index(24));
        assert_eq!(closed, "0000000000000017-0000000000000024");
        assert_eq!(FileName::parse(&closed), FileName::Closed(Index(17), Index(24)));
        assert_eq!(FileName::parse(&open_name(12)), FileName::Open(12));
        assert_eq!(FileName::parse(&temporary_name(&closed)), FileName::Temporary);
        assert_eq!(FileName::parse(&corrupt_name(5, &closed)), FileName::Corrupt);
    }

    #[test]
    fn a_name_counts_only_when_it_is_matched_to_its_end() {
        assert_eq!(FileName::parse("1-1"), FileName::Closed(Index(1), Index(1)));
        let others = [
            "open-x",
            "open-",
            "open-1x",
            "open--1",
            "1-",
            "-1",
            "1-1-1",
            "+1-1",
            "1-1 ",
            "snapshot-1-2",
            "snapshot-1-2-3.metax",
            "snapshot-1-2-3-4",
            "18446744073709551616-1",
            "unknown.txt",
            "",
            "metadata3",
        ];
        for name in others {
            assert_eq!(FileName::parse(name), FileName::Other, "{name}");
        }
        let long = format!("open-{}1", "0".repeat(130));
        assert_eq!(FileName::parse(&long), FileName::Other);
    }
}
