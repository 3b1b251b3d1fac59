use super::*;
use crate::disk::FaultDisk;
use crate::disk::fault::Fault;
use crate::format::snapshot::decode_data;

/// A database of so many pages, none like another; the first one says how many.
struct Pages(u32);

impl PageSource for Pages {
    fn name(&self) -> &[u8] {
        if self.0 == 300 {
            b"a database"
        } else if self.0 == 1 {
            b"another one"
        } else {
            b"a third one"
        }
    }
    fn page_size(&self) -> u32 {
        4096
    }
    fn n_pages(&self) -> u32 {
        self.0
    }
    fn page(&self, number: u32, out: &mut Vec<u8>) {
        let mut page: Vec<u8> = (0..1024u32).flat_map(|at| (number * 7 + at / 9).to_le_bytes()).collect();
        if number == 1 {
            page[..16].copy_from_slice(b"SQLite format 3\0");
            page[16..20].copy_from_slice(&[0x10, 0, 2, 2]);
            page[28..32].copy_from_slice(&self.0.to_be_bytes());
        }
        out.append(&mut page);
    }
}

fn header() -> SnapshotHeader {
    SnapshotHeader {
        term: Term(2),
        index: Index(9),
        time: 1,
        configuration_index: Index(1),
        configuration: vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    }
}

/// The bytes of a snapshot of three databases as it is stored.
fn written(compress: bool) -> Vec<u8> {
    let mut disk = FaultDisk::new(1);
    write_snapshot(&mut disk, &header(), &[Pages(1), Pages(300), Pages(70)], compress).unwrap();
    disk.content("tmp-snapshot-2-9-1").unwrap()
}

#[test]
fn what_was_written_is_what_is_loaded_compressed_or_not() {
    let (raw, compressed) = (written(false), written(true));
    assert_eq!(raw.len(), 16 + 3 * (16 + 16) + 371 * 4096);
    assert!(compressed.len() < raw.len() / 2);
    assert_eq!(compressed[..6], [0x04, 0x22, 0x4d, 0x18, 0x4c, 0x40]);
    for data in [raw, compressed] {
        let found = decode_data(data.as_slice(), data.len() as u64).unwrap();
        let counts: Vec<u32> = found.iter().map(|database| database.n_pages).collect();
        assert_eq!(counts, [1, 300, 70]);
        for (database, source) in found.iter().zip([Pages(1), Pages(300), Pages(70)]) {
            assert_eq!((database.name.as_slice(), database.page_size), (source.name(), 4096));
            for (number, page) in (1..).zip(&database.pages) {
                let mut expected = Vec::new();
                source.page(number, &mut expected);
                assert!(page[..] == expected, "page {number}");
            }
        }
    }
}

#[test]
fn a_leaders_snapshot_is_stored_in_the_form_that_is_asked_for_whatever_it_comes_in() {
    for (from, to) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut disk = FaultDisk::new(1);
        let source = written(from);
        let snap = store_snapshot(&mut disk, &header(), source.as_slice(), source.len() as u64, to).unwrap();
        assert_eq!(disk.content("tmp-snapshot-2-9-1").unwrap(), written(to), "{from} {to}");
        assert_eq!(snap.bytes, written(to).len() as u64);
        assert_eq!(disk.content("tmp-snapshot-2-9-1.meta").unwrap().len(), 48);
    }
}

#[test]
fn a_damaged_or_cut_snapshot_of_a_leader_is_refused_and_leaves_nothing() {
    let good = written(true);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for (bad, to) in [(&flipped[..], true), (&flipped[..], false), (&good[..good.len() - 5], true)] {
        let mut disk = FaultDisk::new(1);
        let refused = store_snapshot(&mut disk, &header(), bad, bad.len() as u64, to).unwrap_err();
        assert!(matches!(refused, StorageError::Refused { .. }), "{refused:?}");
        assert_eq!(disk.list().unwrap(), []);
    }
}

#[test]
fn a_file_that_reads_back_different_does_not_count() {
    /// A disk that changes one byte of all that is read.
    struct Liar(FaultDisk);
    impl Disk for Liar {
        type File = <FaultDisk as Disk>::File;
        fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
            self.0.list()
        }
        fn create(&mut self, name: &str) -> io::Result<Self::File> {
            self.0.create(name)
        }
        fn open(&mut self, name: &str) -> io::Result<Self::File> {
            self.0.open(name)
        }
        fn read_at(&mut self, file: &Self::File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            let len = self.0.read_at(file, offset, buf)?;
            buf[..len].iter_mut().take(1).for_each(|byte| *byte ^= 0x40);
            Ok(len)
        }
        fn write_at(&mut self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_at(file, offset, bytes)
        }
        fn set_len(&mut self, file: &mut Self::File, len: u64) -> io::Result<()> {
            self.0.set_len(file, len)
        }
        fn preallocate(&mut self, file: &mut Self::File, len: u64) -> io::Result<()> {
            self.0.preallocate(file, len)
        }
        fn sync(&mut self, file: &mut Self::File) -> io::Result<()> {
            self.0.sync(file)
        }
        fn sync_dir(&mut self) -> io::Result<()> {
            self.0.sync_dir()
        }
        fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn unlink(&mut self, name: &str) -> io::Result<()> {
            self.0.unlink(name)
        }
    }
    let mut disk = Liar(FaultDisk::new(1));
    for compress in [false, true] {
        let text = write_snapshot(&mut disk, &header(), &[Pages(3)], compress).unwrap_err().to_string();
        assert!(text.starts_with("read back tmp-snapshot-2-9-1: "), "{text}");
        assert_eq!(disk.list().unwrap(), []);
    }
}

#[test]
fn a_failure_in_the_middle_of_the_stream_keeps_its_kind() {
    for (fault, no_space) in [(Fault::NoSpace, true), (Fault::Broken, false)] {
        let disk = FaultDisk::new(1);
        disk.fail_at(2, fault);
        let failed = write_snapshot(&mut disk.clone(), &header(), &[Pages(300)], false).unwrap_err();
        assert_eq!(matches!(failed, StorageError::NoSpace { .. }), no_space, "{failed:?}");
    }
}

#[test]
fn no_more_than_so_many_bytes_wait_for_a_sync_however_large_the_snapshot_is() {
    let mut disk = FaultDisk::new(1);
    let large = Pages(u32::try_from(5 * UNSYNCED_BYTES / 4096).unwrap());
    disk.take_trace();
    write_snapshot(&mut disk, &header(), &[large], false).unwrap();
    let (mut waiting, mut most, mut all) = (0, 0, 0);
    for line in disk.take_trace() {
        if let Some(place) = line.strip_prefix("write tmp-snapshot-2-9-1 ") {
            let bytes: u64 = place.split('+').nth(1).unwrap().parse().unwrap();
            (waiting, all) = (waiting + bytes, all + bytes);
        } else if line == "sync tmp-snapshot-2-9-1" {
            waiting = 0;
        }
        most = most.max(waiting);
    }
    assert!(all > 5 * UNSYNCED_BYTES, "{all}");
    assert!(most <= UNSYNCED_BYTES + 2 * CHUNK_BYTES as u64, "{most} bytes waited");
}
