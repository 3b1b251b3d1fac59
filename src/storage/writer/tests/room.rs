//! Disks that are full or broken: what fails for want of room succeeds when there is room, without a restart;
//! after anything else nothing is acknowledged any more.

use super::crash::scripts;
use super::script::{Run, Step, load, survivals};
use super::*;
use crate::disk::fault::{Fault, Survival};
use crate::storage::StorageError;

/// Everything that may be left by a crash now.
fn check_all(run: &Run, seeds: u64) {
    for (seed, survival) in survivals(seeds) {
        let left = run.disk.fork(seed);
        left.crash(survival);
        for auto_recovery in [true, false] {
            let found = run.check_loaded(&left.fork(seed), auto_recovery);
            found.unwrap_or_else(|text| panic!("{survival:?} {seed}: {text}"));
        }
        run.check(&left).unwrap_or_else(|text| panic!("{survival:?} {seed}: {text}"));
    }
}

/// A step that failed for want of room: what it left is as promised, and done again it succeeds.
fn again(run: &mut Run, step: &Step) {
    let next = run.writer.next_index().0;
    if matches!(step, Step::Append { .. }) {
        assert_eq!(run.view.next(), next, "an append that failed changes nothing");
    }
    check_all(run, 3);
    run.view = run.view.with_log(|index| index < next);
    run.step(step).unwrap_or_else(|error| panic!("again: {error}"));
}

#[test]
fn want_of_room_at_any_operation_is_over_when_there_is_room_again() {
    for (name, script) in scripts() {
        let mut at = 0;
        loop {
            let disk = FaultDisk::new(at);
            disk.fail_at(at, Fault::NoSpace);
            let mut run = Run::new(&disk, at % 2 == 0);
            for step in &script {
                match run.step(step) {
                    Ok(()) => {}
                    Err(StorageError::NoSpace { .. }) => again(&mut run, step),
                    // A sync that fails, for whatever reason, is the end.
                    Err(error) => {
                        let StorageError::Failed { text } = &error else {
                            panic!("{name} at {at}: {error:?}")
                        };
                        assert!(text.starts_with("sync "), "{name} at {at}: {text}");
                        break;
                    }
                }
            }
            check_all(&run, 3);
            if disk.operations() <= at {
                break;
            }
            at += 1;
        }
        assert!(at > 50, "{name}: {at}");
    }
}

#[test]
fn a_disk_that_is_too_small_refuses_appends_and_goes_on_when_it_grows() {
    for capacity in (0..40_000).step_by(997) {
        for (_, script) in scripts() {
            let disk = FaultDisk::new(capacity);
            disk.set_capacity(Some(capacity));
            let mut run = Run::new(&disk, false);
            for step in &script {
                if let Err(error) = run.step(step) {
                    assert!(matches!(error, StorageError::NoSpace { .. }), "{error:?}");
                    // Still full: still refused, and still whole.
                    let _ = run.step(step);
                    disk.set_capacity(None);
                    again(&mut run, step);
                }
            }
            check_all(&run, 2);
        }
    }
}

#[test]
fn after_a_failure_of_the_disk_nothing_is_written_or_acknowledged() {
    for (name, script) in scripts() {
        let mut at = 0;
        loop {
            let disk = FaultDisk::new(at);
            disk.fail_at(at, Fault::Broken);
            let mut run = Run::new(&disk, at % 2 == 0);
            let mut failed = false;
            for step in &script {
                let before = disk.operations();
                match run.step(step) {
                    Ok(()) => assert!(!failed, "{name} at {at}: {step:?} was acknowledged"),
                    Err(error) => {
                        assert!(matches!(error, StorageError::Failed { .. }), "{name} at {at}: {error:?}");
                        let snapshot = matches!(step, Step::Snapshot { .. } | Step::Restore { .. });
                        assert!(
                            !failed || snapshot || disk.operations() == before,
                            "{name} at {at}: {step:?}"
                        );
                        if run.writer.io.check().is_ok() {
                            // Only the snapshot beside the writer failed; another one does not.
                            assert!(snapshot, "{name} at {at}: {step:?}");
                            again(&mut run, step);
                        } else {
                            failed = true;
                        }
                    }
                }
            }
            check_all(&run, 3);
            if disk.operations() <= at {
                break;
            }
            at += 1;
        }
    }
}

#[test]
fn what_a_failed_sync_left_to_be_read_is_durable_once_a_start_has_taken_it() {
    for seed in 0..64 {
        let disk = FaultDisk::new(seed);
        let mut run = Run::new(&disk, false);
        run.step(&Step::Append { term: 1, sizes: &[(1, 496)] }).unwrap();
        disk.fail_at(1, Fault::Broken);
        run.step(&Step::Append { term: 1, sizes: &[(1, 496), (1, 2000)] }).unwrap_err();
        // Another process, the same operating system.
        let loaded = run.check_loaded(&disk, true).unwrap_or_else(|text| panic!("{seed}: {text}"));
        disk.crash(Survival::Nothing);
        let again = load(&mut disk.clone(), true).unwrap_or_else(|text| panic!("{seed}: {text}"));
        assert_eq!(again.entries, loaded.entries, "{seed}");
        assert_eq!(again.last_index, Index(3), "{seed}");
    }
}

/// Appends, fails an append of four batches for want of room, appends another batch of the same size, with the
/// power going at each operation of that; returns what is wrong with what is left.
fn stale_tail(ignored: Option<&str>) -> Result<(), String> {
    let same: &[(u64, usize)] = &[(1, 496), (1, 496), (1, 496), (1, 496)];
    for power_off in 0..20 {
        let disk = FaultDisk::new(power_off);
        disk.ignore_syncs(ignored);
        let mut run = Run::new(&disk, false);
        run.step(&Step::Append { term: 1, sizes: &[(1, 488)] }).unwrap();
        disk.fail_at(0, Fault::NoSpace);
        disk.fail_at(power_off + 1, Fault::PowerOff);
        let refused = run.step(&Step::Append { term: 1, sizes: same }).unwrap_err();
        assert!(matches!(refused, StorageError::NoSpace { .. }) || power_off < 2, "{refused:?}");
        let _ = run.step(&Step::Append { term: 2, sizes: &[(1, 496)] });
        for (seed, survival) in survivals(64) {
            let left = disk.fork(seed);
            left.crash(survival);
            run.check(&left).map_err(|text| format!("{power_off}, {survival:?} {seed}: {text}"))?;
        }
    }
    Ok(())
}

#[test]
fn what_a_failed_append_left_never_follows_the_next_one() {
    stale_tail(None).unwrap();
    stale_tail(Some("sync open-#: write, zeros")).unwrap_err();
}

#[test]
fn a_failed_append_leaves_no_bytes_and_no_file_behind() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    writer.append(&[entries(1, 1, 1, 64)]).unwrap();
    for index in 2..=100 {
        disk.fail_at(0, Fault::NoSpace);
        let error = writer.append(&[entries(index, 1, 1, 64)]);
        // The first operation is the write, or the making of the next segment.
        assert!(matches!(error, Err(StorageError::NoSpace { .. })), "{index}: {error:?}");
        writer.append(&[entries(index, 1, 1, 64)]).unwrap();
    }
    writer.close().unwrap();
    let segments = names(&disk).len();
    assert!(segments <= 100 * 96 / 4096 + 3, "{:?}", names(&disk));
}

#[test]
fn the_words_for_a_full_disk_begin_as_those_of_c() {
    let disk = FaultDisk::new(1);
    disk.set_capacity(Some(100));
    let error = fresh(&disk).append(&[entries(1, 1, 1, 64)]).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("not enough space to allocate 4096 bytes: "), "{text}");
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_no_files() {
    let mut at = 0;
    loop {
        let disk = FaultDisk::new(1);
        disk.fail_at(at, Fault::NoSpace);
        let done = write_snapshot(&mut disk.clone(), &header(5, 1), &[TwoPages], true);
        if disk.operations() <= at {
            done.unwrap();
            break;
        }
        match done.unwrap_err() {
            StorageError::NoSpace { .. } => assert_eq!(names(&disk), [] as [String; 0], "at {at}"),
            error => assert!(error.to_string().starts_with("sync "), "{error}"),
        }
        at += 1;
    }
    assert_eq!(at, 6);
}
