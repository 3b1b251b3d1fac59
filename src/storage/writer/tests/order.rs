//! The exact order of operations, against the order of the C library.

use super::*;
use crate::base::NodeId;
use crate::storage::StorageError;

const ONE: &str = "0000000000000001-0000000000000001";

#[test]
fn a_segment_has_its_length_and_its_name_before_the_first_batch_and_each_append_is_one_write_and_one_sync() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    writer.append(&[entries(1, 1, 1, 64)]).unwrap();
    assert_eq!(
        disk.take_trace(),
        [
            "create open-1",
            "preallocate open-1 4096",
            "sync open-1",
            "write open-1 0+8",
            "sync open-1",
            "sync_dir",
            "write open-1 8+96",
            "sync open-1"
        ]
    );

    writer.append(&[entries(2, 2, 1, 64), entries(4, 1, 1, 8)]).unwrap();
    assert_eq!(disk.take_trace(), ["write open-1 104+216", "sync open-1"]);
    assert_eq!(writer.syncs(), 5);
    assert_eq!(writer.bytes_written(), 104 + 216);
    assert_eq!(writer.next_index(), Index(5));
}

#[test]
fn a_full_segment_is_finalised_behind_the_append_that_found_it_full() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    writer.append(&[entries(1, 1, 1, 4000)]).unwrap();
    while writer.prepare_ahead().unwrap() {}
    disk.take_trace();

    writer.append(&[entries(2, 1, 1, 4000)]).unwrap();
    assert_eq!(disk.take_trace(), ["write open-2 8+4032", "sync open-2"]);
    assert!(writer.prepare_ahead().unwrap());
    let finalised = [
        "set_len open-1 4040".to_owned(),
        "sync open-1".to_owned(),
        format!("rename open-1 {ONE}"),
        "sync_dir".to_owned(),
    ];
    assert_eq!(disk.take_trace(), finalised);
    assert_eq!(disk.content(ONE).unwrap().len(), 4040);
}

#[test]
fn a_batch_larger_than_a_segment_gets_a_fresh_one_that_is_long_enough_first() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    writer.append(&[entries(1, 1, 1, 64)]).unwrap();
    disk.take_trace();
    writer.append(&[entries(2, 1, 1, 9000)]).unwrap();
    let trace = disk.take_trace();
    let grown = ["preallocate open-2 9216", "sync open-2", "write open-2 8+9032", "sync open-2"];
    assert_eq!(trace[trace.len() - 4..], grown);
    writer.close().unwrap();
    assert_eq!(disk.content("0000000000000002-0000000000000002").unwrap().len(), 9040);
}

#[test]
fn zeroing_ahead_goes_in_steps_and_an_append_need_not_wait_for_its_end() {
    let disk = FaultDisk::new(1);
    let config = WriterConfig { block_size: 4096, segment_bytes: 1 << 20, prewrite: true };
    let state = WriterState { next_index: Index(1), ..WriterState::default() };
    let mut writer = Writer::new(disk.clone(), state, config);
    for _ in 0..5 {
        assert!(writer.prepare_ahead().unwrap());
    }
    let trace = disk.take_trace();
    let (begun, zeros) = trace.split_at(6);
    let expected = [
        "create open-1",
        "preallocate open-1 1048576",
        "sync open-1",
        "write open-1 0+8",
        "sync open-1",
        "sync_dir",
    ];
    assert_eq!(begun, expected);
    assert_eq!(zeros.len(), 16 + 1, "a sixteenth of a megabyte, block by block, and one sync");
    assert_eq!(zeros.first().unwrap(), "write open-1 8+4088");
    assert_eq!(zeros.get(15..).unwrap(), ["write open-1 61440+4096", "sync open-1"]);
    writer.append(&[entries(1, 1, 1, 64)]).unwrap();
    assert_eq!(disk.take_trace(), ["write open-1 8+96", "sync open-1"]);
    let mut steps = 0;
    while writer.prepare_ahead().unwrap() {
        steps += 1;
    }
    assert_eq!(
        steps, 19,
        "create, reserve, begin, name, and sixteen steps of zeros, the last of which says no more"
    );
    assert!(!writer.prepare_ahead().unwrap());
    writer.close().unwrap();
    assert_eq!(names(&disk), [ONE]);
}

#[test]
fn a_preparation_can_be_made_beside_the_writer() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    let mut preparation = writer.take_preparation().unwrap().unwrap();
    assert!(writer.take_preparation().unwrap().is_none(), "one at a time");
    assert!(!writer.prepare_ahead().unwrap(), "it is being done");
    while preparation.step_aside(disk.clone()).unwrap() {}
    writer.give_back(preparation, Ok(())).unwrap();
    disk.take_trace();
    writer.append(&[entries(1, 1, 1, 64)]).unwrap();
    assert_eq!(disk.take_trace(), ["write open-1 8+96", "sync open-1"]);

    let mut late = writer.take_preparation().unwrap().unwrap();
    writer.close().unwrap();
    while late.step_aside(disk.clone()).unwrap() {}
    writer.give_back(late, Ok(())).unwrap();
    assert_eq!(names(&disk), [ONE]);
}

#[test]
fn a_preparation_that_comes_too_late_is_not_used_behind_a_later_one() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    let mut late = writer.take_preparation().unwrap().unwrap();
    writer.append(&[entries(1, 1, 1, 64)]).unwrap();
    while late.step_aside(disk.clone()).unwrap() {}
    writer.give_back(late, Ok(())).unwrap();
    assert_eq!(names(&disk), ["open-2"], "open segments are read in the order of their numbers");
    let mut unzeroed = writer.take_preparation().unwrap().unwrap();
    unzeroed.leave_unwritten();
    let mut steps = 1;
    while unzeroed.step_aside(disk.clone()).unwrap() {
        steps += 1;
    }
    assert_eq!(steps, 4, "create, reserve, begin, name");
    writer.give_back(unzeroed, Ok(())).unwrap();
    assert!(!writer.wants_preparation());
    assert_eq!(names(&disk), ["open-2", "open-3"]);
}

#[test]
fn metadata_is_replaced_in_turn_and_the_version_before_stays_intact() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    writer.set_metadata(Term(1), NodeId(0)).unwrap();
    writer.set_metadata(Term(1), NodeId(9)).unwrap();
    disk.take_trace();
    writer.set_metadata(Term(2), NodeId(0)).unwrap();
    assert_eq!(
        disk.take_trace(),
        [
            "create tmp-metadata1",
            "write tmp-metadata1 0+32",
            "sync tmp-metadata1",
            "rename tmp-metadata1 metadata1",
            "sync_dir"
        ]
    );
    assert_eq!(names(&disk), ["metadata1", "metadata2"]);
    let word = |name: &str, at: usize| {
        u64::from_le_bytes(disk.content(name).unwrap()[at..at + 8].try_into().unwrap())
    };
    assert_eq!([word("metadata1", 8), word("metadata1", 16), word("metadata1", 24)], [3, 2, 0]);
    assert_eq!([word("metadata2", 8), word("metadata2", 16), word("metadata2", 24)], [2, 1, 9]);
}

#[test]
fn a_truncation_makes_the_kept_part_first_and_deletes_from_the_end_backwards() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    writer.append(&[entries(1, 2, 1, 1000), entries(3, 2, 1, 500)]).unwrap();
    writer.append(&[entries(5, 2, 1, 1600)]).unwrap();
    writer.append(&[entries(7, 1, 1, 1600)]).unwrap();
    disk.take_trace();
    writer.truncate(Index(4)).unwrap();
    let (one, two) = ("0000000000000001-0000000000000004", "0000000000000005-0000000000000006");
    let kept = "0000000000000001-0000000000000003";
    assert_eq!(
        disk.take_trace(),
        [
            "set_len open-2 3256".to_owned(),
            "sync open-2".to_owned(),
            format!("rename open-2 {two}"),
            "sync_dir".to_owned(),
            "unlink open-3".to_owned(),
            "sync_dir".to_owned(),
            format!("create tmp-{kept}"),
            format!("write tmp-{kept} 0+2592"),
            format!("sync tmp-{kept}"),
            format!("unlink {two}"),
            "sync_dir".to_owned(),
            format!("rename tmp-{kept} {kept}"),
            "sync_dir".to_owned(),
            format!("unlink {one}"),
            "sync_dir".to_owned(),
        ]
    );
    let bytes = disk.content(kept).unwrap();
    let segment = crate::format::segment::decode(&bytes);
    assert_eq!(segment.end, Ok(()));
    let counts: Vec<u64> = segment.batches.iter().map(|batch| batch.count).collect();
    assert_eq!(counts, [2, 1], "whole batches stay as they are");
    assert_eq!(writer.next_index(), Index(4));
    writer.append(&[entries(4, 1, 2, 64)]).unwrap();
}

#[test]
fn a_snapshot_takes_its_name_before_anything_goes_and_one_older_snapshot_stays() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    for (first, term) in [(1, 1), (5, 1), (9, 2), (13, 2)] {
        writer.append(&[entries(first, 4, term, 900)]).unwrap();
        writer.install_snapshot_files(snapshot(&disk, first + 2, term), 2).unwrap();
        while writer.prepare_ahead().unwrap() {}
    }
    let (third, fourth) = ("snapshot-2-11-7", "snapshot-2-15-7");
    assert_eq!(
        names(&disk),
        [
            "0000000000000009-0000000000000012",
            "open-4",
            "open-5",
            third,
            "snapshot-2-11-7.meta",
            fourth,
            "snapshot-2-15-7.meta"
        ]
    );
    writer.append(&[entries(17, 1, 2, 64)]).unwrap();
    let snap = snapshot(&disk, 17, 2);
    disk.take_trace();
    writer.install_snapshot_files(snap, 0).unwrap();
    assert_eq!(
        disk.take_trace(),
        [
            "rename tmp-snapshot-2-17-7.meta snapshot-2-17-7.meta",
            "rename tmp-snapshot-2-17-7 snapshot-2-17-7",
            "sync_dir",
            "unlink snapshot-2-11-7.meta",
            "unlink snapshot-2-11-7",
        ]
    );
}

#[test]
fn the_files_of_a_snapshot_are_written_synced_and_read_back() {
    let disk = FaultDisk::new(1);
    let snap = snapshot(&disk, 5, 2);
    let trace = disk.take_trace();
    assert_eq!(trace[0], "create tmp-snapshot-2-5-7");
    assert_eq!(trace[2], "sync tmp-snapshot-2-5-7");
    assert_eq!(
        trace[3..],
        [
            "create tmp-snapshot-2-5-7.meta",
            "write tmp-snapshot-2-5-7.meta 0+56",
            "sync tmp-snapshot-2-5-7.meta"
        ]
    );
    assert_eq!(snap.bytes, disk.content("tmp-snapshot-2-5-7").unwrap().len() as u64);
}

#[test]
fn many_snapshots_and_barriers_make_no_more_files() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    for index in 1..=200 {
        writer.append(&[entries(index, 1, 1, 8)]).unwrap();
        writer.install_snapshot_files(snapshot(&disk, index, 1), 1000).unwrap();
    }
    let segments = names(&disk).iter().filter(|name| !name.starts_with("snapshot")).count();
    assert!(segments <= 200 * 48 / 4096 + 3, "{segments} segments: {:?}", names(&disk));
}

#[test]
fn a_leaders_snapshot_replaces_the_log() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    writer.append(&[entries(1, 4, 1, 900)]).unwrap();
    writer.append(&[entries(5, 1, 1, 900)]).unwrap();
    while writer.prepare_ahead().unwrap() {}
    writer.restore_snapshot(snapshot(&disk, 32, 2), None).unwrap();
    assert_eq!(names(&disk), ["snapshot-2-32-7", "snapshot-2-32-7.meta"]);
    assert_eq!(writer.next_index(), Index(33));
    writer.append(&[entries(33, 1, 2, 64)]).unwrap();
    writer.close().unwrap();
    assert_eq!(names(&disk)[0], "0000000000000033-0000000000000033");
}

#[test]
fn what_does_not_fit_the_log_is_refused_and_leaves_nothing() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    writer.append(&[entries(1, 4, 2, 64)]).unwrap();
    let refused = |result: Result<(), StorageError>| match result {
        Err(StorageError::Refused { text }) => text,
        other => panic!("{other:?}"),
    };
    let text = refused(writer.install_snapshot_files(snapshot(&disk, 5, 2), 0));
    assert_eq!(text, "install snapshot: an index from 0 to 4 expected, 5 found");
    writer.install_snapshot_files(snapshot(&disk, 2, 2), 0).unwrap();
    let text = refused(writer.install_snapshot_files(snapshot(&disk, 4, 1), 0));
    assert_eq!(text, "install snapshot: a term from 2 on expected, 1 found");
    let text = refused(writer.truncate(Index(2)));
    assert_eq!(text, "truncate: an index above the snapshot's, 2, expected, 2 found");
    assert!(names(&disk).iter().all(|name| !name.starts_with("tmp-")), "{:?}", names(&disk));
    writer.append(&[entries(5, 1, 2, 64)]).unwrap();
}

#[test]
fn segments_that_a_snapshot_left_behind_are_gone_before_the_next_one_is_opened() {
    let disk = FaultDisk::new(1);
    let mut writer = fresh(&disk);
    writer.append(&[entries(1, 4, 1, 64)]).unwrap();
    writer.close().unwrap();
    let state = WriterState { next_index: Index(21), snapshot_index: Index(20), ..WriterState::default() };
    let mut writer = Writer::new(disk.clone(), state, small(false));
    disk.take_trace();
    writer.append(&[entries(21, 1, 1, 64)]).unwrap();
    let trace = disk.take_trace();
    assert_eq!(trace[..3], ["unlink 0000000000000001-0000000000000004", "sync_dir", "create open-1"]);
}

#[test]
fn a_log_that_is_not_the_one_that_was_loaded_stops_the_writer() {
    let disk = FaultDisk::new(1);
    disk.put("0000000000000001-0000000000000004", b"");
    let mut writer = fresh(&disk);
    let text = writer.append(&[entries(1, 1, 1, 64)]).unwrap_err().to_string();
    assert_eq!(text, "begin: 0000000000000001-0000000000000004 is not part of the log that was loaded");
    let text = fresh(&FaultDisk::new(1)).append(&[entries(2, 1, 1, 64)]).unwrap_err().to_string();
    assert_eq!(text, "append: entry 1 expected, entry 2 found");
}

#[test]
fn the_time_of_a_snapshot_is_above_every_other_one_at_its_entry() {
    let disk = FaultDisk::new(1);
    disk.put("snapshot-2-5-100.meta", b"x");
    disk.put("snapshot-2-5-200", b"x");
    disk.put("snapshot-2-4-300.meta", b"x");
    assert_eq!(snapshot(&disk, 5, 2).name.time, 201);
    assert_eq!(snapshot(&disk, 6, 2).name.time, 7);
}

#[test]
fn a_real_directory_gets_the_same_files() {
    let place = tempfile::tempdir().unwrap();
    let mut disk = crate::disk::RealDisk::open(place.path()).unwrap();
    let state = WriterState { next_index: Index(1), ..WriterState::default() };
    let mut writer = Writer::new(disk.clone(), state, WriterConfig::default());
    while writer.prepare_ahead().unwrap() {}
    writer.append(&[entries(1, 2, 1, 64)]).unwrap();
    writer.set_metadata(Term(1), NodeId(1)).unwrap();
    let size = |disk: &mut crate::disk::RealDisk, name: &str| {
        crate::disk::Disk::list(disk)
            .unwrap()
            .into_iter()
            .find(|(other, _)| other == name)
            .map(|(_, size)| size)
    };
    assert_eq!(size(&mut disk, "open-1"), Some(8 << 20));
    writer.append(&[entries(3, 1, 1, 9 << 20)]).unwrap();
    writer.truncate(Index(3)).unwrap();
    let snap = write_snapshot(&mut disk, &header(2, 1), &[TwoPages], true).unwrap();
    writer.install_snapshot_files(snap, 10).unwrap();
    writer.close().unwrap();
    assert_eq!(size(&mut disk, "0000000000000001-0000000000000002"), Some(8 + 16 + 2 * (16 + 64)));
    assert_eq!(size(&mut disk, "metadata1"), Some(32));
    assert_eq!(size(&mut disk, "snapshot-1-2-7.meta"), Some(56));
    assert_eq!(crate::disk::Disk::list(&mut disk).unwrap().len(), 4);
}
