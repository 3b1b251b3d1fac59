//! The power goes at every operation of every script, and whatever was not synced is dropped, kept or torn.

use std::collections::BTreeSet;

use super::script::Step::{self, Ahead, Append, Close, Metadata, Restore, Snapshot, Truncate};
use super::script::{Run, survivals};
use super::*;
use crate::disk::fault::Fault;

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

/// Runs a script with the power going at operation `at`; then looks at everything that may be left. Returns
/// what is wrong with it, or whether the script came to its end.
fn cut_off(
    script: &[Step],
    prewrite: bool,
    at: u64,
    seeds: u64,
    ignored: Option<&str>,
) -> Result<bool, String> {
    let disk = FaultDisk::new(1);
    disk.ignore_syncs(ignored);
    disk.fail_at(at, Fault::PowerOff);
    let mut run = Run::new(&disk, prewrite);
    let mut last = None;
    for step in script {
        last = Some(step);
        if run.step(step).is_err() {
            break;
        }
    }
    let over = disk.operations() <= at;
    for (seed, survival) in survivals(seeds) {
        let left = disk.fork(seed);
        left.crash(survival);
        let said = |text: String| format!("cut at {at} in {last:?}, {survival:?} {seed}: {text}");
        let started = run.check(&left).map_err(said)?;
        go_on(&left, &started).map_err(said)?;
    }
    Ok(over)
}

/// A writer that starts on what is left appends, and what it appended is there.
fn go_on(disk: &FaultDisk, started: &super::c_start::Started) -> Result<(), String> {
    let mut run = Run::restarted(disk, started);
    for step in [Step::Append { term: 9, sizes: &[(1, 64)] }, Step::Metadata { term: 9, vote: 1 }] {
        run.step(&step).map_err(|error| error.to_string())?;
    }
    disk.crash(crate::disk::fault::Survival::Nothing);
    run.check(disk).map(|_| ())
}

fn sweep(script: &[Step], prewrite: bool, seeds: u64, ignored: Option<&str>) -> Result<u64, String> {
    let mut at = 0;
    while !cut_off(script, prewrite, at, seeds, ignored)? {
        at += 1;
    }
    Ok(at)
}

#[test]
fn a_start_after_a_crash_at_any_operation_finds_every_acknowledged_entry_and_none_that_was_taken_back() {
    for (name, script) in scripts() {
        for prewrite in [false, true] {
            let operations =
                sweep(&script, prewrite, 6, None).unwrap_or_else(|text| panic!("{name}: {text}"));
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
        for class in classes(&script, false).difference(&needed.clone()) {
            match sweep(&script, false, 12, Some(class)) {
                Ok(_) => needless.insert(class.clone()),
                Err(_) => needed.insert(class.clone()),
            };
        }
    }
    let needless: Vec<&String> = needless.difference(&needed).collect();
    assert_eq!(needless, [] as [&String; 0], "needed are {needed:#?}");
    assert!(needed.len() > 20, "{needed:#?}");
}
