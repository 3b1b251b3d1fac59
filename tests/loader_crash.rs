//! The power goes at every operation of a start: the next start succeeds, with the same log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use dqlite::base::{Index, NodeId, Role, Term};
use dqlite::disk::FaultDisk;
use dqlite::disk::fault::{Fault, Survival};
use dqlite::storage::loader::{LoadError, LoadOptions, Loaded, bootstrap, load, prepare};
use support::datadir::{load_all, rebuild};

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
