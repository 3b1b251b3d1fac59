//! The short form of fuzzing: every target over its kept corpus, and over mutations of it that a seed decides.
//!
//! `FUZZ_ROUNDS` sets how many mutations each file gets, `FUZZ_SEED` which; `REWRITE=1` writes the seeds anew.
//! What a longer run finds is kept in `fuzz/corpus` under the name of what it shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "reads the kept corpus")]

#[path = "../../fuzz/targets.rs"]
mod targets;

mod mutate;
mod seeds;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use dqlite::base::Prng;
use targets::{TARGETS, Target};

/// Mutations of each file in a usual run.
const ROUNDS: u64 = 400;

/// What the process may grow by, in MiB, over all of this: whatever a few KiB say, they are not worth more.
const GROWTH_MIB_MAX: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The files of a corpus in the order of their names.
fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus(target);
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; REWRITE=1 writes it", folder.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Most memory that the process ever had, in MiB.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Runs a target; what makes it panic is written down where it can be found.
fn run(name: &str, target: Target, data: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(data))).is_err() {
        let path = std::env::temp_dir().join(format!("fuzz-{name}-{}", std::process::id()));
        fs::write(&path, data).unwrap();
        panic!("{name}: {what} panics; the bytes are in {}", path.display());
    }
}

#[test]
fn no_bytes_make_a_decoder_panic_or_take_memory() {
    if std::env::var_os("REWRITE").is_some() {
        seeds::write(&corpus(""));
    }
    let rounds = number("FUZZ_ROUNDS").unwrap_or(ROUNDS);
    let first_seed = number("FUZZ_SEED").unwrap_or(0);
    let before = peak_mib();
    for (name, target) in TARGETS {
        let files = files(name);
        assert!(!files.is_empty(), "no corpus for {name}");
        run(name, target, &[], "nothing");
        for (file, bytes) in &files {
            run(name, target, bytes, file);
            // Large files cost more per round; the small ones get the rest.
            let rounds = if bytes.len() > 10_000 { rounds / 8 } else { rounds };
            for seed in first_seed..first_seed + rounds {
                let mut prng = Prng::new(seed);
                let other = &files[usize::try_from(prng.below(files.len() as u64)).unwrap()].1;
                let mutated = mutate::mutate(&mut prng, bytes, other);
                run(name, target, &mutated, &format!("{file} with FUZZ_SEED={seed}"));
            }
        }
    }
    let grown = peak_mib().saturating_sub(before);
    assert!(grown < GROWTH_MIB_MAX, "{grown} MiB for decoding a few KiB at a time");
}
