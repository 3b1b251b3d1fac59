//! A script of everything a writer is asked for, and what a start may find when it is cut off anywhere.

use std::collections::BTreeMap;

use super::c_start::{self, Started};
use super::*;
use crate::base::NodeId;
use crate::disk::fault::Survival;
use crate::storage::StorageError;
use crate::storage::loader::{self, LoadOptions, Loaded};

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
    /// The process is killed, and another one loads what it left.
    Restart,
}

/// What a start finds, reduced to what was promised.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub metadata: (u64, u64, u64),
    pub snapshot: (u64, u64),
    /// The log above the snapshot.
    pub log: BTreeMap<u64, (u64, Vec<u8>)>,
    /// What may stand in the log up to the snapshot, for followers that lag.
    pub below: BTreeMap<u64, (u64, Vec<u8>)>,
    /// Whether no open segment is left.
    pub closed: bool,
}

impl View {
    pub fn empty() -> Self {
        let (log, below) = (BTreeMap::new(), BTreeMap::new());
        Self { metadata: (0, 0, 0), snapshot: (0, 0), log, below, closed: false }
    }

    fn of(started: &Started) -> Self {
        let mut below = started.log.clone();
        let log = below.split_off(&(started.snapshot.1 + 1));
        Self { metadata: started.metadata, snapshot: started.snapshot, log, below, closed: false }
    }

    /// Whether a start that found `found` found what it had to. A start of ours stores a term below that of the
    /// log before it goes on.
    fn is_met_by(&self, found: &Self, ours: bool) -> bool {
        let terms = found.log.values().chain(found.below.values()).map(|entry| entry.0);
        let highest = terms.chain([found.snapshot.0]).max().unwrap_or(0);
        let (version, term, _) = self.metadata;
        let raised = (version + 1, highest, 0);
        let metadata = if ours && highest > term { raised } else { self.metadata };
        (metadata, self.snapshot, &self.log) == (found.metadata, found.snapshot, &found.log)
            && found.below.iter().all(|(index, entry)| self.below.get(index) == Some(entry))
            && (found.closed || !self.closed)
    }

    /// The snapshot moves up to `index`; what is up to there stays as it was, if it is there at all.
    fn with_snapshot(&self, index: u64, term: u64) -> Self {
        let mut below = self.below.clone();
        below.extend(self.log.range(..=index).map(|(at, entry)| (*at, entry.clone())));
        Self { snapshot: (term, index), below, ..self.with_log(|at| at > index) }
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

    /// Goes on where a start of C ended.
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

    /// Goes on where a start of ours ended.
    pub fn loaded(disk: &FaultDisk, loaded: &Loaded) -> Self {
        let writer = Writer::new(disk.clone(), WriterState::from(loaded), small(false));
        let view = View::of(&started(loaded));
        Self { disk: disk.clone(), writer, view, also: Vec::new(), past: Vec::new() }
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
            Step::Restart => self.restart(),
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

    fn restart(&mut self) -> Result<(), StorageError> {
        let files = super::names(&self.disk);
        let loaded = load(&mut self.disk, true).map_err(|text| StorageError::Failed { text })?;
        self.writer = Writer::new(self.disk.clone(), WriterState::from(&loaded), small(false));
        self.compare(&View::of(&started(&loaded)), &files, true).unwrap_or_else(|text| panic!("{text}"));
        Ok(())
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
                let term = self.view.term_at(*index).unwrap_or(self.view.snapshot.0);
                after = View { closed: false, ..self.view.with_snapshot(*index, term) };
            }
            Step::Restore { index, term } => {
                let mut left = self.view.clone();
                if self.view.term_at(*index).is_some_and(|held| held != *term) {
                    between.extend((*index..self.view.next()).map(|end| self.view.with_log(|at| at < end)));
                    left = self.view.with_log(|at| at < *index);
                }
                let mut kept = View { closed: false, ..left.with_snapshot(*index, *term) };
                if left.term_at(*index) != Some(*term) && left.snapshot.1 != *index {
                    // A log that does not reach the snapshot is another's history.
                    kept.below.clear();
                }
                after = kept.with_log(|_| false);
                // The tail of a log that agrees with the snapshot may still be there.
                between.push(kept);
            }
            Step::Ahead | Step::Restart => {}
            Step::Close => after.closed = true,
        }
        (between, after)
    }

    /// Starts on what is left as C does, and says what is wrong with it.
    pub fn check(&self, disk: &FaultDisk) -> Result<Started, String> {
        let files = super::names(disk);
        let started = start(&mut disk.clone()).map_err(|text| format!("C: no start: {text}; {files:?}"))?;
        self.compare(&View::of(&started), &files, false).map_err(|text| format!("C: {text}"))?;
        Ok(started)
    }

    /// Starts on what is left as a node of ours does, and says what is wrong with it.
    pub fn check_loaded(&self, disk: &FaultDisk, auto_recovery: bool) -> Result<Loaded, String> {
        let files = super::names(disk);
        let said = |text: String| format!("auto-recovery {auto_recovery}: {text}");
        let loaded = load(&mut disk.clone(), auto_recovery);
        let loaded = loaded.map_err(|text| said(format!("no start: {text}; {files:?}")))?;
        self.compare(&View::of(&started(&loaded)), &files, true)
            .map_err(|text| said(format!("{text}, {:?}", loaded.notes)))?;
        Ok(loaded)
    }

    fn compare(&self, found: &View, files: &[String], ours: bool) -> Result<(), String> {
        let closed = !files.iter().any(|name| name.starts_with("open-"));
        let found = View { closed, ..found.clone() };
        if std::iter::once(&self.view).chain(&self.also).any(|view| view.is_met_by(&found, ours)) {
            return Ok(());
        }
        let said = |view: &View| {
            let log: Vec<(u64, u64)> = view.log.iter().map(|(index, entry)| (*index, entry.0)).collect();
            let below: Vec<u64> = view.below.keys().copied().collect();
            format!("{:?} {:?} {below:?} {log:?}", view.metadata, view.snapshot)
        };
        let also: Vec<String> = self.also.iter().map(said).collect();
        Err(format!("expected {} or {also:?}, found {}; {files:?}", said(&self.view), said(&found)))
    }
}

/// A start of ours.
pub(super) fn load(disk: &mut FaultDisk, auto_recovery: bool) -> Result<Loaded, String> {
    let options = LoadOptions { auto_recovery, id: NodeId(1), wall_ns: 7 };
    loader::prepare(disk).and_then(|()| loader::load(disk, &options)).map_err(|error| error.to_string())
}

/// What a start of ours found, in the words of one of C.
fn started(loaded: &Loaded) -> Started {
    let mut next = loaded.first_index;
    let mut log = BTreeMap::new();
    for entry in &loaded.entries {
        assert_eq!(entry.index, next, "the entries are in a row");
        log.insert(next.0, (entry.term.0, entry.payload.contiguous().into_owned()));
        next = next.next();
    }
    assert_eq!(loaded.last_index.next(), next);
    let mut closed_next = loaded.first_index;
    for (first, last) in &loaded.closed_segments {
        assert_eq!(*first, closed_next, "the segments are in a row");
        closed_next = last.next();
    }
    assert_eq!(closed_next, next, "the segments hold the log");
    let snapshot = loaded.snapshot.as_ref();
    Started {
        metadata: (loaded.metadata_version, loaded.term.0, loaded.voted_for.0),
        snapshot: snapshot.map_or((0, 0), |snapshot| (snapshot.term.0, snapshot.index.0)),
        log,
        closed: loaded.closed_segments.iter().map(|(first, last)| (first.0, last.0)).collect(),
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
