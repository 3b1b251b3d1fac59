//! What a start does with a data directory: read everything, decide, then repair and close what is left of the
//! run before. A refusal leaves the directory as it was.
//!
//! Entries are held in memory, each payload in bytes of its own.

mod bootstrap;
mod read;
mod repair;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::base::{Entry, EntryKind, Index, NodeId, Term};
use crate::codec::membership::Configuration;
use crate::disk::Disk;
use crate::format::metadata::Metadata;
use crate::format::recovery::{self, Listing, Log, LogPlan, Settings, SnapshotFiles};
use crate::format::snapshot::SnapshotDatabase;
use crate::format::{Class, FormatError};

pub use bootstrap::{bootstrap, check, prepare};

/// What to do with a directory that cannot be repaired.
const ADVICE: &str =
    "restore the file, or remove this node from the cluster, empty its directory and add it again";

/// How to start.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Whether to start although entries are missing that a segment's name promises.
    pub auto_recovery: bool,
    /// This node.
    pub id: NodeId,
    /// The wall clock, for the names of files that are put aside.
    pub wall_ns: u64,
}

/// The snapshot to start from.
#[derive(Clone, Debug)]
pub struct LoadedSnapshot {
    /// The term of the entry at `index`.
    pub term: Term,
    /// The last entry in it.
    pub index: Index,
    /// The configuration that was committed then.
    pub configuration: Configuration,
    /// The index of that configuration.
    pub configuration_index: Index,
    /// The time in its name: it breaks ties and means nothing.
    pub time: u64,
    /// What its data file is called.
    pub file: String,
    /// Whether a checksum covers the data, as in every compressed file.
    pub has_checksum: bool,
    /// All databases, page by page.
    pub databases: Vec<SnapshotDatabase>,
}

/// A node's state as the directory has it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The current term: never below that of any entry or the snapshot.
    pub term: Term,
    /// The vote in that term; 0 when there is none.
    pub voted_for: NodeId,
    /// The version of the newest metadata file; 0 when there is none.
    pub metadata_version: u64,
    /// Where the state begins.
    pub snapshot: Option<LoadedSnapshot>,
    /// The index of the first of `entries`; of the next entry when there is none. May lie before the
    /// snapshot's index: those entries are for followers that lag and must not be applied again.
    pub first_index: Index,
    /// The log.
    pub entries: Vec<Entry>,
    /// The last index of log and snapshot; 0 when both are empty.
    pub last_index: Index,
    /// The term of the entry there.
    pub last_term: Term,
    /// The newest configuration of log and snapshot; without servers when there is none.
    pub configuration: Configuration,
    /// Its index; 0 when there is none.
    pub configuration_index: Index,
    /// Whether it is known to be committed.
    pub configuration_committed: bool,
    /// The closed segments that hold `entries`.
    pub closed_segments: Vec<(Index, Index)>,
    /// The highest time in the name of any snapshot; a new one needs a higher.
    pub newest_snapshot_time: u64,
    /// What was repaired, for the log.
    pub notes: Vec<String>,
}

/// Why a start is refused. Shows C's text first, without `raft_start(): ` or `raft_init(): `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    text: String,
}

impl LoadError {
    fn new(text: impl fmt::Display) -> Self {
        Self { text: format!("io: {text}") }
    }

    fn disk(operation: &str, name: &str, error: &std::io::Error) -> Self {
        Self::new(format_args!("{operation} {name}: {error}"))
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for LoadError {}

impl From<FormatError> for LoadError {
    fn from(error: FormatError) -> Self {
        Self::new(format_args!("{error}; {ADVICE}"))
    }
}

/// Reads the directory, repairs what can be repaired, closes the open segments.
///
/// # Errors
/// Why this node cannot start with this directory, which is unchanged then unless the disk failed.
pub fn load<D: Disk>(disk: &mut D, options: &LoadOptions) -> Result<Loaded, LoadError> {
    load_for(disk, options, Purpose::Start(&|_| Ok(())))
}

/// As [`load`]; a snapshot that `check` finds fault with counts as damaged, as if it could not be read.
///
/// # Errors
/// As [`load`].
pub fn load_checked<D: Disk>(
    disk: &mut D,
    options: &LoadOptions,
    check: &SnapshotCheck,
) -> Result<Loaded, LoadError> {
    load_for(disk, options, Purpose::Start(check))
}

/// Says what is wrong with the databases of a snapshot.
pub type SnapshotCheck = dyn Fn(&LoadedSnapshot) -> Result<(), String>;

/// As [`load`], for a node that does not run: it casts no vote, so a lost one does not matter, and the metadata
/// stays as it is for the start to judge.
///
/// # Errors
/// Why the log cannot be read.
pub fn load_offline<D: Disk>(disk: &mut D, options: &LoadOptions) -> Result<Loaded, LoadError> {
    load_for(disk, options, Purpose::Offline)
}

/// What a directory is loaded for.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    /// To vote and to lead, if the snapshot is sound.
    Start(&'a SnapshotCheck),
    /// To look at the log, or to append to it.
    Offline,
}

impl Purpose<'_> {
    fn is_start(self) -> bool {
        matches!(self, Self::Start(_))
    }

    /// Reads a snapshot, and looks at its databases if they will be used.
    fn snapshot<D: Disk>(self, disk: &mut D, files: &SnapshotFiles) -> Result<LoadedSnapshot, FormatError> {
        let snapshot = read::snapshot(disk, files)?;
        match self {
            Self::Offline => Ok(()),
            Self::Start(check) => check(&snapshot),
        }
        .map_err(|text| FormatError::new(Class::Corrupt, format!("{}: {text}", files.data)))?;
        Ok(snapshot)
    }
}

fn load_for<D: Disk>(disk: &mut D, options: &LoadOptions, purpose: Purpose<'_>) -> Result<Loaded, LoadError> {
    let files = disk.list().map_err(|error| LoadError::disk("list", "the directory", &error))?;
    let listing = Listing::new(&files);
    let metadata = read::metadata(disk, &files)?;
    let log = read::log(disk, &listing)?;
    let settings =
        Settings { auto_recovery: options.auto_recovery, aside_ns: options.wall_ns.max(listing.aside_ns) };
    let Start { snapshot, mut plan, damaged } = choose(disk, &listing, &log, settings, purpose)?;
    let (configuration, configuration_index) = effective_configuration(snapshot.as_ref(), &plan)?;
    let snapshot_index = snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index);
    let none = Metadata { version: 0, term: Term(0), voted_for: NodeId(0) };
    let stored = metadata.unwrap_or(none);
    if metadata.is_none() && purpose.is_start() {
        check_lost_vote(options.id, &configuration, &plan, snapshot_index)?;
    }

    let terms = plan.entries.iter().map(|entry| entry.term);
    let highest = terms.chain(snapshot.as_ref().map(|snapshot| snapshot.term)).max().unwrap_or_default();
    let raised = Metadata { version: stored.version.saturating_add(1), term: highest, voted_for: NodeId(0) };
    let current = if highest > stored.term && purpose.is_start() { raised } else { stored };

    repair::put_snapshots_aside(&damaged, settings, &mut plan);
    repair::carry_out(disk, &listing, &files, &plan.steps)?;
    if purpose.is_start() {
        repair::settle_metadata(disk, &files)?;
    }
    if current != stored {
        plan.notes.push(format!("term raised from {} to that of the log, {highest}", stored.term));
        // Before anybody acts in that term: else a crash forgets a vote given in it.
        repair::store_metadata(disk, &current)?;
    }

    let last = plan.entries.last().map(|entry| entry.term);
    Ok(Loaded {
        term: current.term,
        voted_for: current.voted_for,
        metadata_version: current.version,
        first_index: plan.first_index,
        last_index: plan.last_index(),
        last_term: last.or(snapshot.as_ref().map(|snapshot| snapshot.term)).unwrap_or_default(),
        configuration_committed: configuration_index <= snapshot_index.max(Index(1)),
        configuration,
        configuration_index,
        closed_segments: plan.closed,
        newest_snapshot_time: listing.newest_time,
        notes: plan.notes,
        entries: plan.entries,
        snapshot,
    })
}

/// What a start can begin with.
struct Start {
    snapshot: Option<LoadedSnapshot>,
    plan: LogPlan,
    /// Newer snapshots that cannot be read.
    damaged: Vec<(SnapshotFiles, FormatError)>,
}

/// The newest snapshot from which the log goes on; older ones count when all that newer ones promise is in the
/// log. C tries the newest only.
fn choose<D: Disk>(
    disk: &mut D,
    listing: &Listing,
    log: &Log,
    settings: Settings,
    purpose: Purpose<'_>,
) -> Result<Start, LoadError> {
    let mut damaged: Vec<(SnapshotFiles, FormatError)> = Vec::new();
    let mut refused: Option<FormatError> = None;
    let mut reach = Index(0);
    for candidate in listing.snapshots.iter().map(Some).chain([None]) {
        if candidate.is_none_or(|files| files.size > 0) {
            let found = recovery::plan_log(log, candidate, reach, settings).and_then(|plan| {
                let snapshot = candidate.map(|files| purpose.snapshot(disk, files)).transpose();
                snapshot.map(|snapshot| (plan, snapshot)).inspect_err(|error| {
                    damaged.extend(candidate.map(|files| (files.clone(), error.clone())));
                })
            });
            match (found, &mut refused) {
                (Ok((plan, snapshot)), _) => {
                    let start = Start { snapshot, plan, damaged };
                    return Ok(prefer_higher(disk, listing, log, settings, purpose, start));
                }
                (Err(error), None) => refused = Some(error),
                (Err(error), Some(refused)) => refused.text.push_str(&format!("; without it: {error}")),
            }
        }
        // All that a snapshot covers was acknowledged, whether it can be read or not.
        reach = reach.max(candidate.map_or(Index(0), |files| files.name.index));
    }
    let mut refused = refused.unwrap_or_else(|| FormatError::new(Class::Corrupt, "no snapshot, no log"));
    if !listing.orphans.is_empty() {
        let orphans = listing.orphans.join(", ");
        refused.text.push_str(&format!("; {orphans}: only one of the two files of a snapshot found"));
    }
    Err(refused.into())
}

/// C's order puts the term before the index, so an entry of an older term behind one of a newer (left by
/// `dqlite_node_recover`) makes a newer snapshot count as an older one. The log tells.
fn prefer_higher<D: Disk>(
    disk: &mut D,
    listing: &Listing,
    log: &Log,
    settings: Settings,
    purpose: Purpose<'_>,
    start: Start,
) -> Start {
    let index = start.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index);
    let borne_out = |files: &&SnapshotFiles| {
        let same = start.plan.entry(files.name.index).is_some_and(|entry| entry.term == files.name.term);
        files.size > 0
            && files.name.index > index
            && same
            && !start.damaged.iter().any(|(bad, _)| bad == *files)
    };
    let better = listing.snapshots.iter().filter(borne_out).max_by_key(|files| files.name.index);
    let Some(files) = better else { return start };
    let plan = recovery::plan_log(log, Some(files), Index(0), settings);
    match (plan, purpose.snapshot(disk, files)) {
        (Ok(plan), Ok(snapshot)) => Start { snapshot: Some(snapshot), plan, damaged: start.damaged },
        _ => start,
    }
}

fn effective_configuration(
    snapshot: Option<&LoadedSnapshot>,
    plan: &LogPlan,
) -> Result<(Configuration, Index), LoadError> {
    let (configuration, index) = snapshot.map_or((Configuration::default(), Index(0)), |snapshot| {
        (snapshot.configuration.clone(), snapshot.configuration_index)
    });
    let newest = plan.entries.iter().rev().find(|entry| entry.kind == EntryKind::Change);
    let Some(entry) = newest.filter(|entry| entry.index > index) else {
        return Ok((configuration, index));
    };
    let found = Configuration::decode(&entry.payload.contiguous());
    let found =
        found.map_err(|error| LoadError::new(format_args!("entry {}: {error}; {ADVICE}", entry.index)))?;
    Ok((found, entry.index))
}

/// Without metadata a vote may be forgotten: that is harmless only where no other node's vote counts, or where
/// no vote was ever asked for.
fn check_lost_vote(
    id: NodeId,
    configuration: &Configuration,
    plan: &LogPlan,
    snapshot_index: Index,
) -> Result<(), LoadError> {
    let last = plan.last_index();
    let only_voter = configuration.voters().all(|server| server.id == id) && configuration.get(id).is_some();
    let entry_one_alone = snapshot_index == Index(0) && last == Index(1);
    if last == Index(0) || only_voter || entry_one_alone {
        return Ok(());
    }
    let voters = configuration.voters().count();
    Err(LoadError::new(format_args!(
        "neither metadata1 nor metadata2 is there, but a log up to index {last} of a cluster with {voters} \
         voters: a vote of this node may be forgotten; {ADVICE}"
    )))
}
