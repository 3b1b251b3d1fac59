//! Runs of the simulation, as it is and with mistakes planted.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::net::MS;
use super::scenario::{SLOW_DISK, Scenario};
use super::{Done, Kind, World};
use crate::consensus::adapter::panic_text;
use crate::consensus::planted::{PLANTED, Planted};
use crate::consensus::tests::{fence, reads, wire};

const FOUND_BY_CHANCE: [Planted; 8] = [
    Planted::JoinedRound,
    Planted::SteppedLabel,
    Planted::ShortAppends,
    Planted::LateConfiguration,
    Planted::EarlyVotes,
    Planted::UncommittedSnapshot,
    Planted::ForgottenTail,
    Planted::FreshByHearing,
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run(seed: u64, planted: Option<Planted>, scenario: Scenario, steps: u64) -> Result<Done, String> {
    let all = || {
        let mut world = World::new(seed, planted, scenario);
        world.traced = number("DQLITE_WORLD_TRACE", 0);
        world.run(steps, u64::MAX)?;
        if planted.is_none_or(|it| it == Planted::SteppedLabel) {
            world.heal()?;
        }
        Ok(world.done)
    };
    // What a server asserts of itself is a finding too.
    catch_unwind(AssertUnwindSafe(all)).unwrap_or_else(|panic| Err(panic_text(panic.as_ref()).to_owned()))
}

/// Where a mistake shows.
fn scenario(mistake: Planted, seed: u64) -> Scenario {
    let scenario = Scenario::of(seed);
    let client_every = scenario.client_every.min(20_000);
    match mistake {
        Planted::JoinedRound => Scenario {
            kinds: vec![Kind::Ours],
            voters: 3,
            extra: 0,
            reads: 70,
            transfers: 1,
            changes: 0,
            client_every: client_every / 2 + 1,
            fault_every: 1_500_000,
            faults: [6, 4, 3, 0, 0, 0],
            ..scenario
        },
        Planted::SteppedLabel => Scenario { kinds: vec![Kind::Ours], reads: 40, client_every, ..scenario },
        Planted::ShortAppends => Scenario {
            kinds: vec![Kind::Ours, Kind::New, Kind::Old],
            client_every,
            fault_every: 2_500_000,
            faults: [2, 4, 2, 2, 2, 0],
            ..scenario
        },
        Planted::LateConfiguration | Planted::UncommittedSnapshot => Scenario {
            kinds: vec![Kind::Ours],
            changes: 30,
            threshold: 10,
            extra: 2,
            fault_every: 2_500_000,
            faults: [2, 3, 0, 2, 2, 0],
            ..scenario
        },
        Planted::EarlyVotes => Scenario { kinds: vec![Kind::Ours], ..scenario },
        Planted::ForgottenTail => Scenario {
            kinds: vec![Kind::Ours],
            threshold: 10,
            trailing: 2,
            client_every,
            faults: [3, 2, 0, 3, 0, 0],
            ..scenario
        },
        Planted::FreshByHearing => Scenario { kinds: vec![Kind::Ours], client_every, ..scenario },
        Planted::OldLabels | Planted::NoFence | Planted::UncappedMatch => scenario,
    }
}

#[test]
fn each_mistake_that_is_planted_is_found() {
    let seeds = number("DQLITE_WORLD_PLANTED", 40);
    let mut missed = Vec::new();
    for mistake in FOUND_BY_CHANCE {
        let found = (0..seeds).find_map(|seed| run(seed, Some(mistake), scenario(mistake, seed), 6000).err());
        if found.is_none() {
            missed.push(mistake);
        }
    }
    assert!(missed.is_empty(), "in {seeds} runs each not found: {missed:?}");
}

/// What needs more coincidences than random runs have is found by tests of its own.
#[test]
fn directed_tests_find_what_random_runs_hardly_do() {
    let tests: [(Planted, fn()); 3] = [
        (Planted::OldLabels, reads::answers_of_an_earlier_leadership_and_numbers_never_sent_prove_nothing),
        (Planted::NoFence, fence::ends_of_an_earlier_leaders_writes_are_never_counted),
        (Planted::UncappedMatch, wire::a_peer_that_says_it_stores_more_counts_only_for_what_it_was_sent),
    ];
    for (mistake, test) in tests {
        PLANTED.set(Some(mistake));
        let failed = catch_unwind(test).is_err();
        PLANTED.set(None);
        assert!(failed, "{mistake:?} is not found");
    }
}

#[test]
fn whatever_happens_to_mixed_clusters_nothing_acknowledged_is_lost_and_no_read_is_stale() {
    let (from, seeds) = (number("DQLITE_WORLD_FROM", 0), number("DQLITE_WORLD_SEEDS", 40));
    let steps = number("DQLITE_WORLD_STEPS", 4000);
    let slow_disk = number("DQLITE_WORLD_DISK_MS", SLOW_DISK);
    let (mut all, mut wrong) = (Done::default(), Vec::new());
    for seed in from..from + seeds {
        let done = match run(seed, None, Scenario { slow_disk, ..Scenario::of(seed) }, steps) {
            Ok(done) => done,
            Err(text) => {
                wrong.push(format!("seed {seed}: {text}"));
                continue;
            }
        };
        all.steps += done.steps;
        all.reads += done.reads;
        all.follower_late = all.follower_late.max(done.follower_late);
        all.writes += done.writes;
        all.installs += done.installs;
        all.leaderships += done.leaderships;
        all.changes += done.changes;
        all.fetched += done.fetched;
    }
    if from > 0 {
        let told = writeln!(
            std::io::stdout(),
            "{} steps, {} leaderships, {} writes, {} reads, {} changes, {} installs, {} fetched, followers {} ms late",
            all.steps,
            all.leaderships,
            all.writes,
            all.reads,
            all.changes,
            all.installs,
            all.fetched,
            all.follower_late / MS
        );
        told.unwrap();
    }
    assert!(wrong.is_empty(), "{} of {seeds} runs:\n{}", wrong.len(), wrong.join("\n"));
    // Single ones may lead once and read nothing.
    let enough = all.leaderships > seeds && all.reads > seeds && all.writes > 10 * seeds;
    assert!(enough || seeds < 10, "the runs do nothing");
}
