//! What a start makes of the files it finds: which belong to the log, what must be repaired, or why not to
//! start. Nothing is touched here: out comes a plan, or a refusal before anything was changed.
//!
//! A start succeeds wherever every entry that can have been acknowledged is still there, also where C refuses;
//! with auto-recovery also where C starts although entries are lost. What is not understood is put aside under a
//! `corrupt-` name, never deleted. Else C's text comes first, then what was expected and found.

mod closed;
mod open;
#[cfg(test)]
mod tests;

use super::names::{self, FileName, SnapshotName};
use super::segment::{BatchInfo, Segment, good_batch_after};
use super::{Class, FormatError};
use crate::base::{Entry, EntryKind, Index, Payload, Term};
use crate::codec::command;

/// The files of a directory, by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Never finished: to be deleted.
    pub temporary: Vec<String>,
    /// Half a snapshot: left when one was being made or deleted.
    pub orphans: Vec<String>,
    /// Whole snapshots, the newest first in C's order: term before index before time.
    pub snapshots: Vec<SnapshotFiles>,
    /// Closed segments: name, first and last index; by first index, the longer one first.
    pub closed: Vec<(String, Index, Index)>,
    /// Open segments, by their counter.
    pub open: Vec<String>,
    /// The highest time of any snapshot.
    pub newest_time: u64,
    /// Above the time of every file that was put aside.
    pub aside_ns: u64,
}

/// A snapshot whose two files are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// What its name says.
    pub name: SnapshotName,
    /// The data file, as it is called.
    pub data: String,
    /// The size of the data file. Without content the snapshot does not count.
    pub size: u64,
}

impl Listing {
    /// Sorts out a directory.
    #[must_use]
    pub fn new(files: &[(String, u64)]) -> Self {
        let mut listing = Self::default();
        let size_of = |wanted: &str| files.iter().find(|(name, _)| name == wanted).map(|&(_, size)| size);
        let mut open = Vec::new();
        for (name, _) in files {
            let kind = FileName::parse(name);
            if let FileName::SnapshotMeta(snapshot) | FileName::SnapshotData(snapshot) = kind {
                listing.newest_time = listing.newest_time.max(snapshot.time);
            }
            match kind {
                FileName::Temporary | FileName::Probe => listing.temporary.push(name.clone()),
                FileName::Open(counter) => open.push((counter, name.clone())),
                FileName::Closed(first, last) => listing.closed.push((name.clone(), first, last)),
                FileName::SnapshotData(_) if size_of(&names::meta_name(name)).is_none() => {
                    listing.orphans.push(name.clone());
                }
                FileName::SnapshotMeta(snapshot) => {
                    let data = names::data_name(name).to_owned();
                    match size_of(&data) {
                        Some(size) => listing.snapshots.push(SnapshotFiles { name: snapshot, data, size }),
                        None => listing.orphans.push(name.clone()),
                    }
                }
                FileName::Corrupt => listing.aside_ns = listing.aside_ns.max(aside_time(name)),
                FileName::SnapshotData(_) | FileName::Metadata(_) | FileName::Lock | FileName::Other => {}
            }
        }
        listing.snapshots.sort_by_key(|files| std::cmp::Reverse(files.name));
        listing.closed.sort_by_key(|(name, first, last)| (*first, std::cmp::Reverse(*last), name.clone()));
        open.sort_unstable();
        listing.open = open.into_iter().map(|(_, name)| name).collect();
        listing
    }
}

fn aside_time(name: &str) -> u64 {
    let time = name.strip_prefix("corrupt-").and_then(|rest| rest.split('-').next());
    time.and_then(|time| time.parse::<u64>().ok()).map_or(0, |time| time.saturating_add(1))
}

/// An entry without its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// The term of the leader that created it.
    pub term: Term,
    /// What `payload` is.
    pub kind: EntryKind,
    /// The bytes as they are in the file.
    pub payload: Payload,
}

/// What could be read of a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// As it is called.
    pub name: String,
    /// Its size.
    pub size: u64,
    /// The entries of the good batches from the start.
    pub entries: Vec<StoredEntry>,
    /// Those batches.
    pub batches: Vec<BatchInfo>,
    /// Where the last good batch ends.
    pub used: u64,
    /// Why reading ended before the end of the file.
    pub end: Result<(), FormatError>,
    /// Whether there is nothing but zeros in it, or nothing at all.
    pub blank: bool,
    /// Whether nothing but zeros follows `used`.
    pub tail_zero: bool,
    /// Whether it begins as a segment does.
    pub format_good: bool,
    /// Whether a good batch follows the one that ended the reading.
    pub good_batch_after: bool,
}

impl SegmentFile {
    /// Keeps what was decoded from `bytes`.
    #[must_use]
    pub fn new(name: &str, segment: &Segment<'_>, bytes: &[u8]) -> Self {
        let entries = segment.entries.iter().map(|entry| StoredEntry {
            term: entry.term,
            kind: entry.kind,
            payload: command::split(entry.kind, entry.payload),
        });
        Self {
            name: name.to_owned(),
            size: bytes.len() as u64,
            entries: entries.collect(),
            batches: segment.batches.clone(),
            used: segment.used,
            end: segment.end.clone(),
            blank: segment.blank,
            tail_zero: segment.tail_zero,
            format_good: segment.format_good,
            good_batch_after: segment.end.is_err() && good_batch_after(bytes, segment.used),
        }
    }

    fn defect(&self) -> String {
        self.end.as_ref().map_or_else(|error| error.text.clone(), |()| String::new())
    }

    /// Whether no entry was ever written to it: it is blank, or was prepared for the first one.
    fn unused(&self) -> bool {
        self.blank || (self.format_good && self.entries.is_empty() && self.tail_zero)
    }

    fn malformed(&self) -> bool {
        self.end.as_ref().is_err_and(|error| error.class == Class::Malformed)
    }
}

/// A closed segment, with what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedSegment {
    /// The first index.
    pub first: Index,
    /// The last index.
    pub last: Index,
    /// Its content.
    pub file: SegmentFile,
}

/// All segments of a directory, in the order of [`Listing`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The closed ones.
    pub closed: Vec<ClosedSegment>,
    /// The open ones.
    pub open: Vec<SegmentFile>,
}

/// What a start is allowed to do, and under which time it puts files aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether to start although entries are missing that a segment's name promises.
    pub auto_recovery: bool,
    /// Nanoseconds for names of files put aside: no such file has it or a later one.
    pub aside_ns: u64,
}

/// One change of the directory. They are carried out in order, each durable before the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Keeps a copy under another name, before the file is cut.
    Copy {
        /// The file.
        from: String,
        /// The name of the copy.
        to: String,
    },
    /// Cuts a segment behind its last good batch and gives it the name of what is left.
    Cut {
        /// The file.
        name: String,
        /// Its new size.
        len: u64,
        /// Its new name; may be the old one.
        to: String,
    },
    /// Gives a file another name.
    Rename {
        /// The file.
        from: String,
        /// Its new name.
        to: String,
    },
    /// Deletes a file in which there is nothing, or nothing that is not elsewhere too.
    Unlink {
        /// The file.
        name: String,
    },
}

/// A log that a node can start with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPlan {
    /// The index of the first entry; of the next one when there is none.
    pub first_index: Index,
    /// The entries in a row.
    pub entries: Vec<Entry>,
    /// The closed segments that will hold them.
    pub closed: Vec<(Index, Index)>,
    /// What to change.
    pub steps: Vec<Step>,
    /// What was repaired, in words.
    pub notes: Vec<String>,
}

impl LogPlan {
    /// The last index; that before `first_index` when there is no entry.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.entries.last().map_or(self.first_index.prev(), |entry| entry.index)
    }

    /// The entry at `index`.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let at = usize::try_from(index.0.checked_sub(self.first_index.0)?).ok()?;
        self.entries.get(at)
    }
}

/// Decides what of `log` follows `snapshot`. Its closed segments must reach `reach`: the index of a newer
/// snapshot that is damaged.
///
/// # Errors
/// Why this log cannot be used; C's text first, where C has one.
pub fn plan_log(
    log: &Log,
    snapshot: Option<&SnapshotFiles>,
    reach: Index,
    settings: Settings,
) -> Result<LogPlan, FormatError> {
    let mut planner = Planner { log, snapshot, settings, plan: LogPlan::default(), cut_off: None };
    planner.closed()?;
    if planner.next().prev() < reach {
        let (end, reach) = (planner.next().prev(), reach.0);
        let text = format!("closed segments up to index {reach} expected, found up to {end}");
        return Err(FormatError::new(Class::Corrupt, text));
    }
    planner.open()?;
    planner.finish()
}

struct Planner<'a> {
    log: &'a Log,
    snapshot: Option<&'a SnapshotFiles>,
    settings: Settings,
    plan: LogPlan,
    /// Why what follows in open segments has no certain place in the log.
    cut_off: Option<FormatError>,
}

impl Planner<'_> {
    /// The index after what was taken so far.
    fn next(&self) -> Index {
        self.plan.last_index().next()
    }

    fn snapshot_index(&self) -> Index {
        self.snapshot.map_or(Index(0), |snapshot| snapshot.name.index)
    }

    /// Starts over: the log has no entries before `next`.
    fn restart_at(&mut self, next: Index) {
        self.plan.first_index = next;
        self.plan.entries.clear();
        self.plan.closed.clear();
    }

    /// Appends the first `count` entries of a segment.
    fn take(&mut self, file: &SegmentFile, count: usize) {
        let first = self.next();
        for stored in file.entries.iter().take(count) {
            let StoredEntry { term, kind, payload } = stored.clone();
            let index = self.next();
            self.plan.entries.push(Entry { index, term, kind, payload });
        }
        self.plan.closed.push((first, self.plan.last_index()));
    }

    fn aside_name(&mut self, name: &str) -> String {
        let aside = names::corrupt_name(self.settings.aside_ns, name);
        self.settings.aside_ns = self.settings.aside_ns.saturating_add(1);
        aside
    }

    fn put_aside(&mut self, name: &str, why: &str) {
        let to = self.aside_name(name);
        self.plan.notes.push(format!("{name} put aside as {to}: {why}"));
        self.plan.steps.push(Step::Rename { from: name.to_owned(), to });
    }

    fn copy_aside(&mut self, name: &str, why: &str) {
        let to = self.aside_name(name);
        self.plan.notes.push(format!("{name} copied to {to} and cut behind its last good batch: {why}"));
        self.plan.steps.push(Step::Copy { from: name.to_owned(), to });
    }

    fn unlink(&mut self, name: &str) {
        self.plan.steps.push(Step::Unlink { name: name.to_owned() });
    }

    fn finish(self) -> Result<LogPlan, FormatError> {
        let last = self.plan.last_index();
        if last < self.snapshot_index() {
            return Err(self.behind_snapshot(last));
        }
        let first = self.plan.entries.first();
        if let Some(first) = first.filter(|_| self.snapshot.is_none())
            && first.kind != EntryKind::Change
        {
            let text =
                format!("entry 1: a configuration (type 3) expected, type {} found", first.kind.code());
            return Err(FormatError::new(Class::Malformed, text));
        }
        Ok(self.plan)
    }

    fn behind_snapshot(&self, last: Index) -> FormatError {
        let text = format!(
            "last entry on disk has index {last}, which is behind last snapshot's index {}",
            self.snapshot_index()
        );
        FormatError::new(Class::Corrupt, text)
    }
}
