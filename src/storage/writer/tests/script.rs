//! A script of everything a writer is asked for, and what a start may find when it is cut off anywhere.

use std::collections::BTreeMap;

use super::c_start::{self, Started};
use super::*;
use crate::base::NodeId;
use crate::disk::fault::Survival;
use crate::storage::StorageError;

/// One thing asked of the writer.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Batches of so many entries of so many bytes.
    Append {
        term: u64,
        sizes: &'static [(u64, usize)],
    },
    /// The entries from here on are taken back.
    Truncate(u64),
    Metadata {
        term: u64,
        vote: u64,
    },
    /// A snapshot of one's own at the index, with so many trailing entries.
    Snapshot {
        index: u64,
        trailing: u64,
    },
    /// A leader's snapshot.
    Restore {
        index: u64,
        term: u64,
    },
    /// All that can be done ahead.
    Ahead,
    Close,
}

/// What a start finds, reduced to what was promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub metadata: (u64, u64, u64),
    pub snapshot: (u64, u64),
    /// The log above the snapshot.
    pub log: BTreeMap<u64, (u64, Vec<u8>)>,
    /// Whether no open segment is left.
    pub closed: bool,
}

impl View {
    pub fn empty() -> Self {
        Self { metadata: (0, 0, 0), snapshot: (0, 0), log: BTreeMap::new(), closed: false }
    }

    fn of(started: &Started) -> Self {
        let log = started.log.iter().filter(|(index, _)| **index > started.snapshot.1);
        let log = log.map(|(index, entry)| (*index, entry.clone())).collect();
        Self { metadata: started.metadata, snapshot: started.snapshot, log, closed: false }
    }

    pub fn next(&self) -> u64 {
        self.log.keys().next_back().copied().unwrap_or(self.snapshot.1) + 1
    }

    pub fn with_log(&self, keep: impl Fn(u64) -> bool) -> Self {
        let log = self.log.iter().filter(|(index, _)| keep(**index));
        Self { log: log.map(|(index, entry)| (*index, entry.clone())).collect(), ..self.clone() }
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        self.log.get(&index).map(|entry| entry.0)
    }
}

/// A writer, and what was acknowledged to whoever asked.
pub(super) struct Run {
    pub disk: FaultDisk,
    pub writer: Writer<FaultDisk>,
    /// What a start must find.
    pub view: View,
    /// What it may find instead, because of a step that was cut off.
    pub also: Vec<View>,
    /// Snapshots before the last one, and the log that was above each: while they are being deleted, C may
    /// start on one of them and the log, which is as good.
    past: Vec<View>,
}

impl Run {
    pub fn new(disk: &FaultDisk, prewrite: bool) -> Self {
        let state = WriterState { next_index: Index(1), ..WriterState::default() };
        let writer = Writer::new(disk.clone(), state, small(prewrite));
        Self { disk: disk.clone(), writer, view: View::empty(), also: Vec::new(), past: Vec::new() }
    }

    /// Goes on where a start ended.
    pub fn restarted(disk: &FaultDisk, started: &Started) -> Self {
        let state = WriterState {
            next_index: Index(started.next()),
            metadata_version: started.metadata.0,
            closed: started.closed.iter().map(|&(first, last)| (Index(first), Index(last))).collect(),
            snapshot_index: Index(started.snapshot.1),
        };
        let writer = Writer::new(disk.clone(), state, small(false));
        Self { disk: disk.clone(), writer, view: View::of(started), also: Vec::new(), past: Vec::new() }
    }

    /// Does one step. When it fails, `also` says what may be on the disk from now on.
    pub fn step(&mut self, step: &Step) -> Result<(), StorageError> {
        let (between, after) = self.outcomes(step);
        let done = match step {
            Step::Append { term, sizes } => {
                let batches = self.batches(*term, sizes);
                self.writer.append(&batches)
            }
            Step::Truncate(from) => self.writer.truncate(Index(*from)),
            Step::Metadata { term, vote } => self.writer.set_metadata(Term(*term), NodeId(*vote)),
            Step::Snapshot { index, trailing } => {
                let term = self.view.term_at(*index).unwrap_or(self.view.snapshot.0);
                self.write_snapshot(*index, term)
                    .and_then(|snap| self.writer.install_snapshot_files(snap, *trailing))
            }
            Step::Restore { index, term } => {
                let held = self.view.term_at(*index).map(Term);
                self.write_snapshot(*index, *term).and_then(|snap| self.writer.restore_snapshot(snap, held))
            }
            Step::Ahead => loop {
                match self.writer.prepare_ahead() {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            },
            Step::Close => self.writer.close(),
        };
        match &done {
            Ok(()) => {
                for past in &mut self.past {
                    past.log.retain(|index, _| *index < after.next());
                    past.log.extend(after.log.iter().map(|(index, entry)| (*index, entry.clone())));
                    past.metadata = after.metadata;
                }
                if matches!(step, Step::Snapshot { .. }) {
                    self.past.push(self.view.clone());
                } else if matches!(step, Step::Restore { .. }) {
                    self.past.clear();
                }
                self.view = after;
                self.also.clear();
            }
            Err(_) => {
                if matches!(step, Step::Restore { .. }) {
                    self.also.extend(self.past.clone());
                }
                self.also.extend(between);
                self.also.push(after);
            }
        }
        done
    }

    fn write_snapshot(&self, index: u64, term: u64) -> Result<FinishedSnapshot, StorageError> {
        write_snapshot(&mut self.disk.clone(), &header(index, term), &[TwoPages], true)
    }

    fn batches(&self, term: u64, sizes: &[(u64, usize)]) -> Vec<Vec<Entry>> {
        let mut next = self.writer.next_index().0;
        let mut batch = |&(count, len): &(u64, usize)| {
            next += count;
            entries(next - count, count, term, len)
        };
        sizes.iter().map(&mut batch).collect()
    }

    /// What may be found when the step is cut off, and what must be found when it succeeded.
    fn outcomes(&self, step: &Step) -> (Vec<View>, View) {
        let mut between = Vec::new();
        let mut after = View { closed: false, ..self.view.clone() };
        match step {
            Step::Append { term, sizes } => {
                for batch in self.batches(*term, sizes) {
                    between.push(after.clone());
                    for entry in batch {
                        let bytes = entry.payload.contiguous().into_owned();
                        after.log.insert(entry.index.0, (entry.term.0, bytes));
                    }
                }
            }
            Step::Truncate(from) => {
                between.extend((*from..self.view.next()).map(|end| self.view.with_log(|index| index < end)));
                after = self.view.with_log(|index| index < *from);
            }
            Step::Metadata { term, vote } => after.metadata = (self.view.metadata.0 + 1, *term, *vote),
            Step::Snapshot { index, .. } => {
                after = self.view.with_log(|other| other > *index);
                after.snapshot = (self.view.term_at(*index).unwrap_or(self.view.snapshot.0), *index);
            }
            Step::Restore { index, term } => {
                let mut left = self.view.clone();
                if self.view.term_at(*index).is_some_and(|held| held != *term) {
                    between.extend((*index..self.view.next()).map(|end| self.view.with_log(|at| at < end)));
                    left = self.view.with_log(|at| at < *index);
                }
                after = left.with_log(|_| false);
                after.snapshot = (*term, *index);
                // The tail of a log that agrees with the snapshot may still be there.
                between.push(View { snapshot: after.snapshot, ..left.with_log(|at| at > *index) });
            }
            Step::Ahead => {}
            Step::Close => after.closed = true,
        }
        (between, after)
    }

    /// Starts on what is left, and says what is wrong with it.
    pub fn check(&self, disk: &FaultDisk) -> Result<Started, String> {
        let mut disk = disk.clone();
        let files = super::names(&disk);
        let closed = !files.iter().any(|name| name.starts_with("open-"));
        let started = start(&mut disk).map_err(|text| format!("no start: {text}; {files:?}"))?;
        let found = View::of(&started);
        let fits =
            |view: &View| (View { closed: false, ..view.clone() }) == found && (closed || !view.closed);
        if fits(&self.view) || self.also.iter().any(fits) {
            return Ok(started);
        }
        let said = |view: &View| {
            let log: Vec<(u64, u64)> = view.log.iter().map(|(index, entry)| (*index, entry.0)).collect();
            format!("{:?} {:?} {log:?}", view.metadata, view.snapshot)
        };
        let also: Vec<String> = self.also.iter().map(said).collect();
        Err(format!("expected {} or {also:?}, found {}; {files:?}", said(&self.view), said(&found)))
    }
}

/// A start; the one moment of a truncation in which C does not start is first repaired as our loader does.
pub(super) fn start(disk: &mut FaultDisk) -> Result<Started, String> {
    use crate::disk::Disk;
    use crate::format::names::{FileName, closed_name};
    let segment = |name: &str| match FileName::parse(name) {
        FileName::Closed(first, last) => Some((first, last)),
        _ => None,
    };
    let mut closed: Vec<(Index, Index)> =
        super::names(disk).iter().filter_map(|name| segment(name)).collect();
    closed.sort();
    let filled = |name: &String| {
        let bytes = disk.content(name).unwrap_or_default();
        name.starts_with("open-") && !crate::format::segment::decode(&bytes).entries.is_empty()
    };
    let open = super::names(disk).iter().any(filled);
    if let [.., (first, _), (again, last)] = closed[..]
        && first == again
        && !open
    {
        disk.unlink(&closed_name(again, last)).unwrap();
    }
    c_start::start(disk)
}

/// Every way in which what was not synced may have survived.
pub(super) fn survivals(seeds: u64) -> Vec<(u64, Survival)> {
    let torn = (0..seeds).map(|seed| (seed, Survival::Torn));
    [(0, Survival::Nothing), (0, Survival::Everything)].into_iter().chain(torn).collect()
}
