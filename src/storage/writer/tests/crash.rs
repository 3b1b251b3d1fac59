//! The power goes at every operation of every script, and whatever was not synced is dropped, kept or torn.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::script::Step::{self, Ahead, Append, Close, Metadata, Restart, Restore, Snapshot, Truncate};
use super::script::{Run, survivals};
use super::*;
use crate::disk::fault::{Fault, Survival};
use crate::storage::loader::Loaded;

const ONE: &[(u64, usize)] = &[(1, 400)];
const GROUP: &[(u64, usize)] = &[(1, 400), (1, 400), (2, 200)];

/// Every kind of step, in an order that makes segments roll, be cut, grow and go.
pub(super) fn scripts() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        ("appends", appends()),
        ("truncations", truncations()),
        ("snapshots", snapshots()),
        ("leaders' snapshots", leaders_snapshots()),
        ("an older term after a recovery", older_term()),
    ]
}

fn appends() -> Vec<Step> {
    vec![
        Metadata { term: 1, vote: 0 },
        Append { term: 1, sizes: ONE },
        Append { term: 1, sizes: GROUP },
        Ahead,
        Metadata { term: 1, vote: 3 },
        Append { term: 1, sizes: GROUP },
        Append { term: 1, sizes: GROUP },
        Append { term: 1, sizes: GROUP },
        Metadata { term: 2, vote: 0 },
        Append { term: 2, sizes: &[(1, 9000)] },
        Append { term: 2, sizes: ONE },
        Ahead,
        Append { term: 2, sizes: GROUP },
        Close,
    ]
}

fn truncations() -> Vec<Step> {
    vec![
        Append { term: 1, sizes: &[(3, 400)] },
        Append { term: 1, sizes: &[(2, 600), (2, 600)] },
        Append { term: 1, sizes: &[(1, 2000), (1, 1000)] },
        Truncate(9),
        Append { term: 2, sizes: &[(1, 1000)] },
        Append { term: 2, sizes: &[(3, 900)] },
        Ahead,
        Truncate(2),
        Append { term: 3, sizes: &[(2, 400), (2, 400)] },
        Truncate(4),
        Append { term: 4, sizes: &[(2, 400)] },
        Truncate(1),
        Append { term: 5, sizes: ONE },
        Close,
    ]
}

fn snapshots() -> Vec<Step> {
    vec![
        Append { term: 1, sizes: GROUP },
        Snapshot { index: 2, trailing: 0 },
        Append { term: 1, sizes: GROUP },
        Append { term: 1, sizes: GROUP },
        Snapshot { index: 8, trailing: 2 },
        Append { term: 1, sizes: &[(1, 3000)] },
        Snapshot { index: 13, trailing: 0 },
        Append { term: 1, sizes: GROUP },
        Append { term: 1, sizes: &[(1, 3500)] },
        Ahead,
        Append { term: 1, sizes: ONE },
        Snapshot { index: 18, trailing: 0 },
        Truncate(19),
        Append { term: 2, sizes: GROUP },
        Snapshot { index: 22, trailing: 100 },
        Append { term: 2, sizes: GROUP },
    ]
}

fn leaders_snapshots() -> Vec<Step> {
    vec![
        Append { term: 1, sizes: GROUP },
        Append { term: 1, sizes: &[(1, 3000)] },
        Ahead,
        Restore { index: 20, term: 2 },
        Append { term: 2, sizes: GROUP },
        Append { term: 2, sizes: &[(2, 1700)] },
        Ahead,
        Restore { index: 22, term: 3 },
        Append { term: 3, sizes: GROUP },
        Restore { index: 24, term: 3 },
        Append { term: 3, sizes: GROUP },
        Snapshot { index: 26, trailing: 1 },
        Append { term: 3, sizes: GROUP },
        Restore { index: 40, term: 3 },
        Append { term: 3, sizes: ONE },
        Close,
    ]
}

/// A recovered cluster can have a snapshot of a lower term, which C takes for an older one.
fn older_term() -> Vec<Step> {
    vec![
        Append { term: 5, sizes: GROUP },
        Snapshot { index: 3, trailing: 0 },
        Append { term: 5, sizes: GROUP },
        Snapshot { index: 6, trailing: 0 },
        Append { term: 5, sizes: GROUP },
        Append { term: 5, sizes: &[(1, 3000)] },
        Restore { index: 30, term: 3 },
        Append { term: 3, sizes: GROUP },
        Restore { index: 32, term: 4 },
        Append { term: 4, sizes: GROUP },
    ]
}

/// Scripts in which snapshots and starts fall anywhere in the log.
fn scripts_of_starts() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        ("snapshots within open segments", within_open_segments()),
        ("two snapshots in a row", two_in_a_row()),
        ("truncations around a snapshot", truncations_around_a_snapshot()),
        ("starts between leaders' snapshots", starts_between_leaders_snapshots()),
    ]
}

const SMALL: &[(u64, usize)] = &[(1, 64), (1, 64), (1, 64)];
const HALF: &[(u64, usize)] = &[(1, 1800)];

/// Snapshots at the first, a middle and the last entry of open segments that follow none, one, or several
/// closed ones, with little or nothing kept before them.
fn within_open_segments() -> Vec<Step> {
    vec![
        Metadata { term: 9, vote: 1 },
        Append { term: 1, sizes: SMALL },
        Restart,
        Append { term: 1, sizes: SMALL },
        Snapshot { index: 5, trailing: 0 },
        Append { term: 1, sizes: HALF },
        Append { term: 1, sizes: HALF },
        Ahead,
        Append { term: 1, sizes: SMALL },
        Snapshot { index: 9, trailing: 1 },
        Restart,
        Append { term: 1, sizes: SMALL },
        Append { term: 1, sizes: HALF },
        Append { term: 1, sizes: HALF },
        Append { term: 1, sizes: SMALL },
        Snapshot { index: 16, trailing: 0 },
        Append { term: 1, sizes: HALF },
        Snapshot { index: 19, trailing: 4 },
        Restart,
        Ahead,
        Snapshot { index: 20, trailing: 1 },
        Append { term: 2, sizes: SMALL },
        Restart,
    ]
}

fn two_in_a_row() -> Vec<Step> {
    vec![
        Metadata { term: 9, vote: 1 },
        Append { term: 1, sizes: SMALL },
        Append { term: 1, sizes: HALF },
        Append { term: 1, sizes: HALF },
        Append { term: 1, sizes: SMALL },
        Snapshot { index: 6, trailing: 0 },
        Snapshot { index: 7, trailing: 0 },
        Append { term: 1, sizes: SMALL },
        Snapshot { index: 9, trailing: 0 },
        Snapshot { index: 9, trailing: 0 },
        Restart,
        Snapshot { index: 11, trailing: 0 },
        Append { term: 1, sizes: SMALL },
        Restart,
        Append { term: 1, sizes: SMALL },
        Snapshot { index: 14, trailing: 0 },
        Snapshot { index: 15, trailing: 0 },
        Append { term: 1, sizes: HALF },
        Close,
        Restart,
        Append { term: 1, sizes: SMALL },
    ]
}

fn truncations_around_a_snapshot() -> Vec<Step> {
    vec![
        Metadata { term: 9, vote: 1 },
        Append { term: 1, sizes: SMALL },
        Append { term: 1, sizes: HALF },
        Append { term: 1, sizes: HALF },
        Append { term: 1, sizes: SMALL },
        Ahead,
        Snapshot { index: 7, trailing: 1 },
        Truncate(8),
        Append { term: 2, sizes: SMALL },
        Snapshot { index: 9, trailing: 0 },
        Truncate(10),
        Restart,
        Append { term: 3, sizes: SMALL },
        Append { term: 3, sizes: HALF },
        Ahead,
        Append { term: 3, sizes: HALF },
        Snapshot { index: 12, trailing: 2 },
        Truncate(14),
        Append { term: 4, sizes: SMALL },
        Truncate(13),
        Append { term: 5, sizes: SMALL },
    ]
}

fn starts_between_leaders_snapshots() -> Vec<Step> {
    vec![
        Metadata { term: 9, vote: 1 },
        Append { term: 1, sizes: SMALL },
        Append { term: 1, sizes: HALF },
        Append { term: 1, sizes: HALF },
        Restore { index: 20, term: 2 },
        Restart,
        Append { term: 2, sizes: SMALL },
        Snapshot { index: 22, trailing: 0 },
        Append { term: 2, sizes: HALF },
        Restart,
        Append { term: 2, sizes: SMALL },
        Restore { index: 25, term: 2 },
        Append { term: 2, sizes: SMALL },
        Restore { index: 27, term: 3 },
        Ahead,
        Append { term: 3, sizes: SMALL },
        Restore { index: 27, term: 3 },
        Append { term: 4, sizes: SMALL },
        Restart,
        Append { term: 4, sizes: SMALL },
        Restore { index: 60, term: 4 },
        Append { term: 4, sizes: SMALL },
    ]
}

/// Directories that were looked at already: most cuts leave what another one left.
#[derive(Default)]
struct Seen {
    /// By the step that was cut off.
    checked: HashSet<(usize, u64)>,
    continued: HashSet<u64>,
}

fn fingerprint(disk: &FaultDisk) -> u64 {
    let mut hasher = DefaultHasher::new();
    for name in names(disk) {
        (&name, disk.content(&name)).hash(&mut hasher);
    }
    hasher.finish()
}

/// Runs a script with the power going at operation `at`; then looks at everything that may be left. Returns
/// what is wrong with it, or whether the script came to its end.
fn cut_off(
    script: &[Step],
    prewrite: bool,
    at: u64,
    seeds: u64,
    ignored: Option<&str>,
    seen: &mut Seen,
) -> Result<bool, String> {
    let disk = FaultDisk::new(1);
    disk.ignore_syncs(ignored);
    disk.fail_at(at, Fault::PowerOff);
    let mut run = Run::new(&disk, prewrite);
    let done = script.iter().take_while(|step| run.step(step).is_ok()).count();
    let over = disk.operations() <= at;
    for (seed, survival) in survivals(seeds) {
        let left = disk.fork(seed);
        left.crash(survival);
        let print = fingerprint(&left);
        if seen.checked.insert((done, print)) {
            let new = seen.continued.insert(print);
            check_cut(&run, &left, survival, new).map_err(|text| {
                format!("cut at {at} in {:?}, {survival:?} {seed}: {text}", script.get(done))
            })?;
        }
    }
    Ok(over)
}

/// Starts on what is left, as C does and as ours does in both settings, and goes on if nobody did yet.
fn check_cut(run: &Run, left: &FaultDisk, survival: Survival, goes_on: bool) -> Result<(), String> {
    for auto_recovery in [true, false] {
        let left = left.fork(1);
        let loaded = run.check_loaded(&left, auto_recovery)?;
        let aside = names(&left).into_iter().find(|name| name.starts_with("corrupt-"));
        if let Some(aside) = aside.filter(|_| survival != Survival::Torn) {
            return Err(format!("{aside}: no file expected that is put aside"));
        }
        if goes_on {
            go_on_loaded(&left, &loaded, auto_recovery)?;
        }
    }
    let started = run.check(left)?;
    if goes_on { go_on(left, &started) } else { Ok(()) }
}

/// A writer that goes on after a start of ours does each kind of thing, and another start agrees.
fn go_on_loaded(disk: &FaultDisk, loaded: &Loaded, auto_recovery: bool) -> Result<(), String> {
    let mut run = Run::loaded(disk, loaded);
    let next = loaded.last_index.next().0;
    let steps = [
        Step::Append { term: 9, sizes: &[(1, 64), (2, 64)] },
        Step::Metadata { term: 9, vote: 1 },
        Step::Truncate(next + 2),
        Step::Append { term: 10, sizes: &[(1, 64)] },
        Step::Snapshot { index: next + 1, trailing: 0 },
        Step::Append { term: 10, sizes: &[(1, 64)] },
    ];
    for step in steps {
        run.step(&step).map_err(|error| format!("{step:?} after a start: {error}"))?;
        let left = disk.fork(1);
        left.crash(Survival::Nothing);
        run.check_loaded(&left, auto_recovery).map_err(|text| format!("after {step:?}: {text}"))?;
    }
    Ok(())
}

/// A writer that starts on what is left appends, and what it appended is there.
fn go_on(disk: &FaultDisk, started: &super::c_start::Started) -> Result<(), String> {
    let mut run = Run::restarted(disk, started);
    for step in [Step::Append { term: 9, sizes: &[(1, 64)] }, Step::Metadata { term: 9, vote: 1 }] {
        run.step(&step).map_err(|error| error.to_string())?;
    }
    disk.crash(Survival::Nothing);
    run.check(disk).map(|_| ())
}

fn sweep(
    script: &[Step],
    prewrite: bool,
    seeds: u64,
    ignored: Option<&str>,
    seen: &mut Seen,
) -> Result<u64, String> {
    let mut at = 0;
    while !cut_off(script, prewrite, at, seeds, ignored, seen)? {
        at += 1;
    }
    Ok(at)
}

#[test]
fn a_start_after_a_crash_at_any_operation_finds_every_acknowledged_entry_and_none_that_was_taken_back() {
    for (name, script) in scripts().into_iter().chain(scripts_of_starts()) {
        let mut seen = Seen::default();
        for prewrite in [false, true] {
            let operations =
                sweep(&script, prewrite, 6, None, &mut seen).unwrap_or_else(|text| panic!("{name}: {text}"));
            assert!(operations > 50, "{name}: {operations}");
        }
    }
}

/// The classes of all syncs of a script.
fn classes(script: &[Step], prewrite: bool) -> BTreeSet<String> {
    let disk = FaultDisk::new(1);
    let mut run = Run::new(&disk, prewrite);
    script.iter().for_each(|step| run.step(step).unwrap());
    disk.sync_classes()
}

#[test]
fn every_sync_is_needed() {
    // The one that makes the next append quicker and promises nothing.
    let for_speed = "sync open-#: zeros";
    assert!(scripts().iter().any(|(_, script)| classes(script, true).contains(for_speed)));
    let mut needless: BTreeSet<String> = BTreeSet::new();
    let mut needed = BTreeSet::new();
    for (_, script) in scripts() {
        let mut seen = Seen::default();
        for class in classes(&script, false).difference(&needed.clone()) {
            match sweep(&script, false, 12, Some(class), &mut seen) {
                Ok(_) => needless.insert(class.clone()),
                Err(_) => needed.insert(class.clone()),
            };
        }
    }
    let needless: Vec<&String> = needless.difference(&needed).collect();
    assert_eq!(needless, [] as [&String; 0], "needed are {needed:#?}");
    assert!(needed.len() > 20, "{needed:#?}");
}
