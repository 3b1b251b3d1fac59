use super::{LoadOptions, Loaded, bootstrap, check, load, prepare};
use crate::base::{Entry, EntryKind, Index, NodeId, Payload, Role, Term};
use crate::codec::membership::{Configuration, Server};
use crate::disk::fault::Survival;
use crate::disk::{Disk, FaultDisk};
use crate::format::metadata::Metadata;
use crate::format::names::{SnapshotName, closed_name, snapshot_meta_name, snapshot_name};
use crate::format::segment::{SEGMENT_HEADER, encode_batch};
use crate::format::snapshot::{encode_meta, encode_payload_header};

fn servers(ids: &[u64]) -> Configuration {
    let server =
        |&id: &u64| Server { id: NodeId(id), address: format!("10.0.0.{id}:9001"), role: Role::Voter };
    Configuration { servers: ids.iter().map(server).collect() }
}

/// A closed segment from `first` on with entries of these terms; entry 1 is a configuration of `ids`.
fn put_segment(disk: &FaultDisk, first: u64, terms: &[u64], ids: &[u64]) {
    let mut bytes = SEGMENT_HEADER.to_vec();
    let mut index = Index(first);
    for &term in terms {
        let change = index == Index(1);
        let kind = if change { EntryKind::Change } else { EntryKind::Barrier };
        let payload = if change { servers(ids).encode() } else { vec![0; 8] };
        let entry = Entry { index, term: Term(term), kind, payload: Payload::from_bytes(&payload) };
        encode_batch(&[entry], &mut bytes);
        index = index.next();
    }
    disk.put(&closed_name(Index(first), index.prev()), &bytes);
}

fn put_metadata(disk: &FaultDisk, term: u64) {
    disk.put("metadata1", &Metadata { version: 1, term: Term(term), voted_for: NodeId(2) }.encode());
}

fn put_snapshot(disk: &FaultDisk, term: u64, index: u64) {
    let name = SnapshotName { term: Term(term), index: Index(index), time: 5 };
    disk.put(&snapshot_meta_name(name), &encode_meta(Index(1), &servers(&[1, 2, 3]).encode()));
    disk.put(&snapshot_name(name), &encode_payload_header(0));
}

fn start(disk: &mut FaultDisk, id: u64) -> Result<Loaded, String> {
    let options = LoadOptions { auto_recovery: true, id: NodeId(id), wall_ns: 7 };
    load(disk, &options).map_err(|error| error.to_string())
}

#[test]
fn a_term_below_that_of_the_log_is_raised_and_stored_before_anybody_acts_in_it() {
    let mut disk = FaultDisk::new(1);
    put_segment(&disk, 1, &[1, 4, 2], &[1, 2, 3]);
    put_metadata(&disk, 3);
    let loaded = start(&mut disk, 2).unwrap();
    assert_eq!((loaded.term, loaded.voted_for, loaded.metadata_version), (Term(4), NodeId(0), 2));
    assert_eq!(loaded.last_term, Term(2));
    let stored = Metadata { version: 2, term: Term(4), voted_for: NodeId(0) }.encode();
    assert_eq!(disk.content("metadata2"), Some(stored.to_vec()));
    assert_eq!(loaded.configuration, servers(&[1, 2, 3]));
    assert!(loaded.configuration_committed);
}

#[test]
fn a_vote_is_kept_when_the_term_is() {
    let mut disk = FaultDisk::new(1);
    put_segment(&disk, 1, &[1, 3], &[1, 2, 3]);
    put_metadata(&disk, 3);
    let loaded = start(&mut disk, 2).unwrap();
    assert_eq!((loaded.term, loaded.voted_for, loaded.metadata_version), (Term(3), NodeId(2), 1));
}

#[test]
fn a_vote_that_was_read_is_not_forgotten_though_whoever_wrote_it_never_synced_it() {
    let mut disk = FaultDisk::new(1);
    put_segment(&disk, 1, &[1, 3], &[1, 2, 3]);
    put_metadata(&disk, 3);
    let mut file = disk.open("metadata1").unwrap();
    let newer = Metadata { version: 3, term: Term(4), voted_for: NodeId(3) };
    disk.write_at(&mut file, 0, &newer.encode()).unwrap();
    for _ in 0..2 {
        let loaded = start(&mut disk, 2).unwrap();
        assert_eq!((loaded.term, loaded.voted_for, loaded.metadata_version), (Term(4), NodeId(3), 3));
        disk.crash(Survival::Nothing);
    }
}

#[test]
fn without_metadata_only_a_node_whose_vote_nobody_counts_starts() {
    let mut disk = FaultDisk::new(1);
    put_segment(&disk, 1, &[1, 3], &[1, 2, 3]);
    let text = start(&mut disk, 2).unwrap_err();
    assert!(text.starts_with("io: neither metadata1 nor metadata2 is there"), "{text}");
    assert_eq!(disk.list().unwrap().len(), 1, "a refusal leaves the directory as it was");

    let mut alone = FaultDisk::new(1);
    put_segment(&alone, 1, &[1, 3], &[2]);
    assert_eq!(start(&mut alone, 2).unwrap().term, Term(3));
    let mut other = FaultDisk::new(1);
    put_segment(&other, 1, &[1, 3], &[2]);
    assert!(start(&mut other, 3).is_err(), "a node that is not the voter");
    // What `dqlite_node_recover` leaves in an empty directory.
    let mut recovered = FaultDisk::new(1);
    put_segment(&recovered, 1, &[1], &[1, 2, 3]);
    assert_eq!(start(&mut recovered, 2).unwrap().term, Term(1));
}

#[test]
fn of_two_snapshots_the_higher_index_counts_if_the_log_bears_it_out() {
    let mut disk = FaultDisk::new(1);
    put_metadata(&disk, 2);
    put_segment(&disk, 10, &[2, 2, 1, 2], &[]);
    put_snapshot(&disk, 2, 11);
    put_snapshot(&disk, 1, 12);
    assert_eq!(start(&mut disk, 2).unwrap().snapshot.unwrap().index, Index(12));

    // Entry 12 has another term: that snapshot is of a history that was given up.
    let mut disk = FaultDisk::new(1);
    put_metadata(&disk, 2);
    put_segment(&disk, 10, &[2, 2, 2, 2], &[]);
    put_snapshot(&disk, 2, 11);
    put_snapshot(&disk, 1, 12);
    assert_eq!(start(&mut disk, 2).unwrap().snapshot.unwrap().index, Index(11));

    // The log was cut at the snapshot that C takes for the older one.
    let mut disk = FaultDisk::new(1);
    put_metadata(&disk, 2);
    put_segment(&disk, 13, &[2, 2], &[]);
    put_snapshot(&disk, 2, 11);
    put_snapshot(&disk, 1, 12);
    assert_eq!(start(&mut disk, 2).unwrap().snapshot.unwrap().index, Index(12));
}

#[test]
fn a_damaged_snapshot_whose_entries_are_not_in_the_log_is_refused_with_both_reasons() {
    let mut disk = FaultDisk::new(1);
    put_metadata(&disk, 1);
    put_segment(&disk, 9, &[1, 1], &[]);
    put_snapshot(&disk, 1, 9);
    put_snapshot(&disk, 1, 20);
    disk.put("snapshot-1-20-5", &[4, 0x22, 0x4d, 0x18, 0]);
    let before = disk.list().unwrap();
    let text = start(&mut disk, 2).unwrap_err();
    assert!(text.starts_with("io: LZ4F_getFrameInfo ERROR_frameHeader_incomplete"), "{text}");
    assert!(
        text.contains("in snapshot-1-20-5; without it: closed segments up to index 20 expected"),
        "{text}"
    );
    assert_eq!(disk.list().unwrap(), before);
}

#[test]
fn the_newest_change_counts_and_is_not_known_to_be_committed() {
    let mut disk = FaultDisk::new(1);
    put_metadata(&disk, 1);
    put_snapshot(&disk, 1, 5);
    let mut bytes = SEGMENT_HEADER.to_vec();
    let payload = Payload::from_bytes(&servers(&[1, 2]).encode());
    encode_batch(&[Entry { index: Index(6), term: Term(1), kind: EntryKind::Change, payload }], &mut bytes);
    disk.put("open-1", &bytes);
    let loaded = start(&mut disk, 2).unwrap();
    assert_eq!((loaded.configuration, loaded.configuration_index), (servers(&[1, 2]), Index(6)));
    assert!(!loaded.configuration_committed);
    assert_eq!(loaded.closed_segments, [(Index(6), Index(6))]);
}

#[test]
fn a_cluster_is_begun_only_by_the_ids_that_do_so_and_only_where_nothing_is() {
    let mut disk = FaultDisk::new(1);
    assert_eq!(bootstrap(&mut disk, NodeId(2), "a"), Ok(false));
    assert_eq!(disk.list().unwrap(), []);
    assert_eq!(bootstrap(&mut disk, NodeId(1), "127.0.0.1:9001"), Ok(true));
    assert_eq!(disk.content(&closed_name(Index(1), Index(1))).unwrap().len(), 80);
    assert_eq!(bootstrap(&mut disk, NodeId(1), "127.0.0.1:9001"), Ok(false));
    let loaded = start(&mut disk, 1).unwrap();
    assert_eq!((loaded.term, loaded.last_index, loaded.notes.len()), (Term(1), Index(1), 0));

    for name in ["snapshot-1-2-3", "open-1", "corrupt-1-open-1", "0000000000000005-0000000000000006"] {
        let mut disk = FaultDisk::new(1);
        disk.put(name, &[1]);
        assert_eq!(bootstrap(&mut disk, NodeId(1), "a"), Ok(false), "beside {name}");
    }
}

#[test]
fn preparing_deletes_what_was_never_finished_unless_the_metadata_is_damaged() {
    let mut disk = FaultDisk::new(1);
    disk.put("tmp-x", &[1]);
    disk.put("keep.txt", &[1]);
    check(&mut disk).unwrap();
    assert_eq!(disk.list().unwrap().len(), 2, "checking changes nothing");
    disk.put("metadata1", &[0; 40]);
    let text = prepare(&mut disk).unwrap_err().to_string();
    assert!(text.starts_with("io: metadata1 has size 40 instead of 32; "), "{text}");
    assert!(disk.content("tmp-x").is_some());
    disk.unlink("metadata1").unwrap();
    prepare(&mut disk).unwrap();
    assert_eq!(disk.list().unwrap(), [("keep.txt".to_owned(), 1)]);
}
