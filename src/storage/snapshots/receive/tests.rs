use super::receive_snapshot;
use crate::base::{Index, Prng, Term};
use crate::disk::fault::{Fault, Survival};
use crate::disk::{Disk, FaultDisk};
use crate::format::snapshot::{SnapshotDatabase, encode_database_header, encode_payload_header};
use crate::storage::{FinishedSnapshot, SnapshotHeader, StorageError};

fn header() -> SnapshotHeader {
    SnapshotHeader {
        term: Term(2),
        index: Index(9),
        time: 1,
        configuration_index: Index(1),
        configuration: vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    }
}

/// A payload of databases of so many pages.
fn payload(seed: u64, sizes: &[u32]) -> Vec<u8> {
    let mut prng = Prng::new(seed);
    let mut bytes = encode_payload_header(sizes.len() as u64);
    for (at, pages) in sizes.iter().enumerate() {
        let name = format!("database {at}");
        bytes.extend(encode_database_header(name.as_bytes(), u64::from(*pages) * 512));
        for number in 1..=*pages {
            let word = prng.next_u64().to_le_bytes();
            let mut page: Vec<u8> = word.iter().copied().cycle().take(512).collect();
            if number == 1 {
                page[..16].copy_from_slice(b"SQLite format 3\0");
                page[16..20].copy_from_slice(&[2, 0, 2, 2]);
                page[28..32].copy_from_slice(&pages.to_be_bytes());
                page[92..96].copy_from_slice(&[0; 4]);
                page[24..28].copy_from_slice(&[0; 4]);
            }
            bytes.extend(page);
        }
    }
    bytes
}

fn receive(
    disk: &FaultDisk,
    bytes: &[u8],
    announced: usize,
    compress: bool,
) -> Result<(FinishedSnapshot, Vec<SnapshotDatabase>), StorageError> {
    receive_snapshot(&mut disk.clone(), &header(), bytes, announced as u64, compress, Ok)
}

#[test]
fn what_came_is_stored_in_the_form_that_is_asked_for_and_decoded() {
    let mut prng = Prng::new(11);
    for seed in 0..20 {
        let sizes: Vec<u32> =
            (0..prng.below(4)).map(|_| u32::try_from(1 + prng.below(400)).unwrap()).collect();
        let bytes = payload(seed, &sizes);
        let compress = seed % 2 == 0;
        let disk = FaultDisk::new(seed);
        // What follows the snapshot on the connection is not part of it.
        let more = [bytes.as_slice(), b"the next message"].concat();
        let (files, databases) = receive(&disk, &more, bytes.len(), compress).unwrap();
        let found: Vec<u32> = databases.iter().map(|database| database.n_pages).collect();
        assert_eq!(found, sizes);
        let stored = disk.content("tmp-snapshot-2-9-1").unwrap();
        assert_eq!(files.bytes, stored.len() as u64);
        assert_eq!(stored != bytes, compress, "{seed}");
        assert!(disk.content("tmp-snapshot-2-9-1.meta").is_some());
        disk.crash(Survival::Nothing);
    }
}

#[test]
fn a_connection_that_ends_early_or_brings_nonsense_leaves_nothing() {
    let good = payload(3, &[5, 300]);
    let mut of_another_format = good.clone();
    of_another_format[0] = 7;
    let mut too_many = good.clone();
    too_many[8] = 3;
    let cases = [
        (&good[..good.len() - 1], "1 bytes more expected, none came"),
        (&good[..0], "bytes more expected, none came"),
        (&of_another_format[..], "format: 1 expected, found 7"),
        (&too_many[..], "bytes expected"),
    ];
    for (bytes, expected) in cases {
        for compress in [false, true] {
            let disk = FaultDisk::new(1);
            let refused = receive(&disk, bytes, good.len(), compress).unwrap_err();
            assert!(matches!(refused, StorageError::Refused { .. }), "{refused:?}");
            assert!(refused.to_string().contains(expected), "{refused}");
            assert_eq!(disk.clone().list().unwrap(), []);
        }
    }
}

#[test]
fn what_the_judge_refuses_leaves_nothing() {
    let (disk, bytes) = (FaultDisk::new(1), payload(3, &[5]));
    let judge = |databases: Vec<SnapshotDatabase>| Err::<(), _>(format!("{} is wrong", databases[0].n_pages));
    let len = bytes.len() as u64;
    let refused = receive_snapshot(&mut disk.clone(), &header(), bytes.as_slice(), len, true, judge);
    assert_eq!(refused.unwrap_err().to_string(), "read back tmp-snapshot-2-9-1: 5 is wrong");
    assert_eq!(disk.clone().list().unwrap(), []);
}

#[test]
fn any_failing_operation_is_reported_as_what_it_is_and_touches_nothing_else() {
    let bytes = payload(3, &[5, 300]);
    for fault in [Fault::NoSpace, Fault::Broken, Fault::PowerOff] {
        for at in 0.. {
            let disk = FaultDisk::new(1);
            disk.put("0000000000000001-0000000000000001", b"precious");
            disk.fail_at(at, fault);
            let Err(failed) = receive(&disk, &bytes, bytes.len(), false) else {
                assert!(at > 4, "{at}");
                break;
            };
            let room = matches!(failed, StorageError::NoSpace { .. });
            // A sync that fails for want of room has lost what it was for.
            assert!(!room || fault == Fault::NoSpace, "{failed:?}");
            disk.crash(Survival::Torn);
            let mut left = disk.clone();
            let strange = |name: &str| !name.starts_with("tmp-") && !name.starts_with("0000000000000001-");
            assert!(!left.list().unwrap().iter().any(|(name, _)| strange(name)));
            assert_eq!(disk.content("0000000000000001-0000000000000001").unwrap(), b"precious");
            receive(&disk, &bytes, bytes.len(), false).unwrap();
        }
    }
}
