//! The power goes at every operation of a start: the next start succeeds, with the same log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use dqlite::base::{Index, NodeId, Role, Term};
use dqlite::disk::fault::{Fault, Survival};
use dqlite::disk::{Disk, FaultDisk};
use dqlite::format::metadata::Metadata;
use dqlite::format::names::closed_name;
use dqlite::storage::loader::{LoadError, LoadOptions, Loaded, bootstrap, load, prepare};
use support::datadir::{Golden, load_all, rebuild};

mod support;

const OPTIONS: LoadOptions = LoadOptions { auto_recovery: true, id: NodeId(1), wall_ns: 7 };

fn start(disk: &mut FaultDisk) -> Result<Loaded, LoadError> {
    prepare(disk)?;
    bootstrap(disk, NodeId(1), "127.0.0.1:9001")?;
    load(disk, &OPTIONS)
}

/// Everything that a later start must not change.
fn essence(loaded: &Loaded) -> impl PartialEq + std::fmt::Debug + use<> {
    let images: Vec<_> = rebuild(loaded).iter().map(|(name, image)| (name.clone(), image.bytes())).collect();
    (loaded.term, loaded.last_index, loaded.last_term, loaded.configuration.clone(), images)
}

/// Starts from `base` with the power going at every operation, and once more after each.
fn sweep(place: &str, base: &FaultDisk, check: impl Fn(&Loaded, &str)) -> u64 {
    for number in 0.. {
        let mut finished = false;
        for survival in [Survival::Nothing, Survival::Torn, Survival::Everything] {
            let mut disk = base.fork(number);
            disk.fail_at(number, Fault::PowerOff);
            finished = start(&mut disk).is_ok();
            disk.crash(survival);
            let place = format!("{place}, operation {number}, survival {survival:?}");
            match start(&mut disk) {
                Ok(loaded) => check(&loaded, &place),
                Err(error) => panic!("{place}: {error}\n{}", disk.take_trace().join("\n")),
            }
        }
        if finished {
            return number;
        }
    }
    unreachable!("the loop ends with a start that no fault stops")
}

#[test]
fn a_start_cut_short_anywhere_is_done_again_with_the_same_result() {
    let (mut directories, mut operations) = (0, 0);
    for golden in load_all() {
        let base = FaultDisk::new(1);
        for (name, bytes) in &golden.files {
            // Zeros cost time here and nothing else.
            base.put(name, &bytes[..bytes.len().min(48 << 10)]);
        }
        let Ok(reference) = start(&mut base.fork(0)) else { continue };
        let expected = essence(&reference);
        operations += sweep(&golden.name, &base, |loaded, place| {
            assert!(essence(loaded) == expected, "{place}: another state, up to {}", loaded.last_index);
        });
        directories += 1;
    }
    assert!(directories > 60 && operations > 300, "{directories} directories, {operations} operations");
}

#[test]
fn a_new_cluster_begun_in_spite_of_power_cuts_is_one_voter_in_term_1() {
    let check = |loaded: &Loaded, place: &str| {
        assert_eq!(
            (loaded.term, loaded.last_index, loaded.last_term),
            (Term(1), Index(1), Term(1)),
            "{place}"
        );
        let server = &loaded.configuration.servers[0];
        assert_eq!((server.id, server.role), (NodeId(1), Role::Voter), "{place}");
        assert_eq!(server.address, "127.0.0.1:9001", "{place}");
    };
    let operations = sweep("bootstrap", &FaultDisk::new(3), check);
    assert!(operations > 8, "{operations} operations");
}

/// Directories as a process leaves them that was killed: what is in open segments and metadata can be read, and
/// was never synced.
fn never_synced(golden: &Golden) -> FaultDisk {
    let mut disk = FaultDisk::new(1);
    for (name, bytes) in &golden.files {
        let bytes = &bytes[..bytes.len().min(48 << 10)];
        if name.starts_with("open-") || name.starts_with("metadata") {
            disk.put(name, &vec![0; bytes.len()]);
            let mut file = disk.open(name).unwrap();
            disk.write_at(&mut file, 0, bytes).unwrap();
        } else {
            disk.put(name, bytes);
        }
    }
    disk
}

fn files(disk: &FaultDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.clone().list().unwrap();
    names.into_iter().map(|(name, _)| (name.clone(), disk.content(&name).unwrap())).collect()
}

/// What was put aside, without the time.
fn aside(disk: &FaultDisk) -> BTreeSet<(String, Vec<u8>)> {
    let timeless = |name: &str| Some(name.strip_prefix("corrupt-")?.split_once('-')?.1.to_owned());
    files(disk).into_iter().filter_map(|(name, bytes)| Some((timeless(&name)?, bytes))).collect()
}

/// What is wrong after a power cut during a start that should have ended like `reference`, or behind it, when
/// the directory should be as it was `left`.
fn check_cut(
    disk: &mut FaultDisk,
    reference: (&Loaded, &FaultDisk),
    left: Option<BTreeMap<String, Vec<u8>>>,
) -> Result<(), String> {
    if left.is_some_and(|left| left != files(disk)) {
        return Err("what a start left is not durable".to_owned());
    }
    let again = start(disk).map_err(|error| error.to_string())?;
    if essence(&again) != essence(reference.0) {
        return Err(format!("another state, up to {}", again.last_index));
    }
    if !aside(disk).is_superset(&aside(reference.1)) {
        return Err("bytes that were to be put aside are lost".to_owned());
    }
    Ok(())
}

/// Starts from `base` with the syncs of one class ignored and the power going at each operation, or behind the
/// last one; says what that breaks.
fn without(base: &FaultDisk, class: &str, durable: bool) -> Result<(), String> {
    let mut undisturbed = base.fork(0);
    let loaded = start(&mut undisturbed).map_err(|error| error.to_string())?;
    for number in 0.. {
        let mut finished = false;
        for seed in 0..8 {
            let survival = if seed == 0 { Survival::Nothing } else { Survival::Torn };
            let mut disk = base.fork(seed);
            disk.ignore_syncs(Some(class));
            disk.fail_at(number, Fault::PowerOff);
            finished = start(&mut disk).is_ok();
            disk.ignore_syncs(None);
            let left = finished.then(|| files(&disk));
            disk.crash(survival);
            if finished || durable {
                check_cut(&mut disk, (&loaded, &undisturbed), left)?;
            }
        }
        if finished {
            break;
        }
    }
    Ok(())
}

#[test]
fn every_sync_of_a_start_is_needed() {
    let (mut needed, mut needless) = (BTreeMap::new(), BTreeSet::new());
    let mut try_all = |base: &FaultDisk, durable: bool| {
        let mut disk = base.fork(0);
        if start(&mut disk).is_err() {
            return;
        }
        for class in disk.sync_classes() {
            if needed.contains_key(&class) {
                continue;
            }
            match without(base, &class, durable) {
                Ok(()) => drop(needless.insert(class)),
                Err(text) => drop(needed.insert(class, text)),
            }
        }
    };
    try_all(&FaultDisk::new(3), true);
    // A name that was changed and not synced, and nothing else to do.
    let mut renamed = FaultDisk::new(3);
    start(&mut renamed).unwrap();
    let name = closed_name(Index(1), Index(1));
    renamed.rename(&name, "elsewhere").unwrap();
    renamed.sync_dir().unwrap();
    renamed.rename("elsewhere", &name).unwrap();
    try_all(&renamed, false);
    // As much of a new cluster as C makes first.
    let begun = FaultDisk::new(3);
    begun.put("metadata1", &Metadata { version: 1, term: Term(1), voted_for: NodeId(0) }.encode());
    try_all(&begun, true);
    for golden in load_all() {
        let durable = FaultDisk::new(1);
        for (name, bytes) in &golden.files {
            durable.put(name, &bytes[..bytes.len().min(48 << 10)]);
        }
        try_all(&durable, true);
        try_all(&never_synced(&golden), false);
    }
    needless.retain(|class| !needed.contains_key(class));
    // The last one of a start that found nothing to change.
    assert_eq!(needless, BTreeSet::from(["sync_dir: nothing".to_owned()]), "needed: {needed:#?}");
    assert!(needed.len() > 20, "{needed:#?}");
}
