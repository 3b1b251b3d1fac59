use std::io::Read;

use super::SnapshotSource;
use crate::base::{Index, Prng, Term};
use crate::codec::membership::Configuration;
use crate::disk::{Disk, FaultDisk};
use crate::format::names::{SnapshotName, snapshot_meta_name, snapshot_name};
use crate::format::{lz4, snapshot};

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut prng = Prng::new(seed);
    let mut bytes = snapshot::encode_payload_header(seed);
    while bytes.len() < len {
        let word = prng.next_u64();
        (0..1 + word % 70).for_each(|_| bytes.extend_from_slice(&word.to_le_bytes()));
    }
    bytes.truncate(len);
    bytes
}

fn put(disk: &FaultDisk, (term, index, time): (u64, u64, u64), content: &[u8], compress: bool) -> String {
    let name = SnapshotName { term: Term(term), index: Index(index), time };
    let mut data = content.to_vec();
    if compress {
        data.clear();
        lz4::compress(content, content.len() as u64, &mut data).unwrap();
    }
    let meta = snapshot::encode_meta(Index(index - 1), &Configuration::default().encode());
    disk.put(&snapshot_meta_name(name), &meta);
    disk.put(&snapshot_name(name), &data);
    snapshot_name(name)
}

fn open(disk: &FaultDisk, term: u64, index: u64) -> Result<SnapshotSource<FaultDisk>, String> {
    SnapshotSource::open(disk, (Term(term), Index(index)))
}

fn read(mut source: SnapshotSource<FaultDisk>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn the_bytes_are_the_uncompressed_ones_whatever_the_file_is() {
    for len in [16, 17, 4096, 65_536, 65_537, 300_001] {
        for compress in [false, true] {
            let (disk, content) = (FaultDisk::new(1), content(5, len));
            put(&disk, (2, 9, 4), &content, compress);
            let source = open(&disk, 2, 9).unwrap();
            assert_eq!(source.data_bytes, len as u64);
            assert_eq!(source.meta.configuration_index, Index(8));
            assert!(read(source).unwrap() == content, "{len} {compress}");
        }
    }
}

#[test]
fn a_file_that_is_deleted_while_it_is_read_is_read_to_its_end() {
    let (mut disk, content) = (FaultDisk::new(1), content(5, 200_000));
    let name = put(&disk, (2, 9, 4), &content, true);
    let mut source = open(&disk, 2, 9).unwrap();
    let mut begin = vec![0; 1000];
    source.read_exact(&mut begin).unwrap();
    disk.unlink(&name).unwrap();
    disk.unlink(&format!("{name}.meta")).unwrap();
    assert!([begin, read(source).unwrap()].concat() == content);
    assert_eq!(open(&disk, 2, 9).err().unwrap(), "a snapshot at 9 or later expected, none found");
}

#[test]
fn the_one_that_is_wanted_comes_before_a_newer_one_and_an_older_one_never_does() {
    let disk = FaultDisk::new(1);
    put(&disk, (1, 5, 1), &content(1, 100), true);
    put(&disk, (2, 9, 1), &content(2, 100), true);
    let index = |term, wanted| open(&disk, term, wanted).map(|source| source.name.index.0);
    assert_eq!(index(1, 5), Ok(5));
    assert_eq!(index(2, 9), Ok(9));
    assert_eq!(index(1, 7), Ok(9));
    assert!(index(1, 10).is_err());
}

#[test]
fn damage_is_an_error_in_the_middle_that_names_the_file() {
    let (disk, content) = (FaultDisk::new(1), content(5, 200_000));
    let name = put(&disk, (2, 9, 4), &content, true);
    let good = disk.content(&name).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    for bad in [&flipped[..], &good[..good.len() - 3], &good[..good.len() / 2]] {
        disk.put(&name, bad);
        let text = read(open(&disk, 2, 9).unwrap()).unwrap_err().to_string();
        assert!(text.starts_with("snapshot-2-9-4: "), "{text}");
    }
    // One that is not compressed: only its end can be missed.
    let name = put(&disk, (2, 9, 4), &content, false);
    let source = open(&disk, 2, 9).unwrap();
    let mut file = disk.clone().open(&name).unwrap();
    disk.clone().set_len(&mut file, 150_000).unwrap();
    let text = read(source).unwrap_err().to_string();
    assert_eq!(text, "snapshot-2-9-4: 200000 bytes expected, 150000 found");
}
