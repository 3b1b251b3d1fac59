//! How many files the log takes: as many as its bytes fill, whatever happens to it.

use super::*;
use crate::disk::fault::{Fault, Survival};
use crate::format::segment::encode_batch;
use crate::storage::StorageError;
use crate::storage::loader::{LoadOptions, load};

const ROUNDS: u64 = 1000;

fn is_segment(name: &str) -> bool {
    name.starts_with("open-") || name.starts_with(|first: char| first.is_ascii_digit())
}

fn segments(disk: &FaultDisk) -> u64 {
    names(disk).iter().filter(|name| is_segment(name)).count() as u64
}

fn bytes_of(batch: &[Entry]) -> u64 {
    let mut bytes = Vec::new();
    encode_batch(batch, &mut bytes);
    bytes.len() as u64
}

#[test]
fn barriers_snapshots_and_appends_that_fail_take_no_files_of_their_own() {
    for prewrite in [false, true] {
        let disk = FaultDisk::new(1);
        let state = WriterState { next_index: Index(1), ..WriterState::default() };
        let mut writer = Writer::new(disk.clone(), state, small(prewrite));
        let (mut index, mut bytes, mut refused) = (1, 0, 0);
        let mut append = |writer: &mut Writer<FaultDisk>, batch: Vec<Entry>| {
            let size = bytes_of(&batch);
            let done = writer.append(&[batch]);
            bytes += if done.is_ok() { size } else { 0 };
            (done, bytes)
        };
        append(&mut writer, entries(1, 1, 1, 64)).0.unwrap();
        for round in 1..=ROUNDS {
            if round % 3 == 0 {
                disk.fail_at(0, Fault::NoSpace);
            }
            match append(&mut writer, entries(index + 1, 1, 1, 16)).0 {
                Err(StorageError::NoSpace { .. }) => refused += 1,
                Ok(()) => index += 1,
                Err(error) => panic!("round {round}: {error}"),
            }
            let (kind, payload) = (EntryKind::Barrier, Payload::from_bytes(&[0; 8]));
            let barrier = Entry { index: Index(index + 1), term: Term(1), kind, payload };
            let (done, bytes) = append(&mut writer, vec![barrier]);
            done.unwrap();
            index += 1;
            writer.install_snapshot_files(snapshot(&disk, index, 1), u64::MAX).unwrap();
            while writer.wants_preparation() && writer.prepare_ahead().unwrap() {}
            let (found, most) = (segments(&disk), bytes.div_ceil(4096) + 3);
            assert!(found <= most, "round {round}: {found} files for {bytes} bytes, {most} at most expected");
        }
        assert!(refused > 100, "{refused} appends had no room");
        // And all of it is there.
        drop(writer);
        disk.crash(Survival::Nothing);
        let loaded =
            load(&mut disk.clone(), &LoadOptions { auto_recovery: false, id: NodeId(1), wall_ns: 1 })
                .unwrap();
        assert_eq!(loaded.last_index, Index(index));
    }
}
