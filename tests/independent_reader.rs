//! What we write, read by a program that shares no code with the library: `tools/datadir.py`, which decodes the
//! files and does what the C libraries do at a start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use dqlite::base::{Entry, EntryKind, Index, NodeId, PageNo, Payload, Role, Term};
use dqlite::codec::command::encode_frames;
use dqlite::codec::membership::{Configuration, Server};
use dqlite::disk::fault::{Fault, Survival};
use dqlite::disk::{Disk, FaultDisk};
use dqlite::storage::{
    PageSource, SnapshotHeader, StorageError, Writer, WriterConfig, WriterState, write_snapshot,
};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use tempfile::TempDir;

const PAGE_BYTES: usize = 4096;
const NAME: &str = "test";

/// Prints one line per directory below the one given: what each start makes of it, and the snapshots' frames.
const DRIVER: &str = "
import hashlib, json, os, sys
sys.path.insert(0, sys.argv[1])
import datadir
for place in sorted(os.listdir(sys.argv[2]), key=int):
    files = datadir.read_dir(os.path.join(sys.argv[2], place))
    starts = []
    for library in ('1.18.6', '1.11.1'):
        for auto in (True, False):
            start = datadir.Start(files, library, auto, True, 2)
            report = start.report(files)
            report['sha1'] = {n: hashlib.sha1(b).hexdigest() for n, b in start.images().items()}
            starts.append(report)
    frames = [s.get('lz4') for s in datadir.describe(files, summary=True)['snapshots']]
    print(json.dumps({'place': int(place), 'starts': starts, 'frames': frames}))
";

fn python(arguments: &[&str]) -> String {
    let output = Command::new("python3").args(arguments).output().expect("python3 runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{}{}", text(output.stdout), text(output.stderr));
    text(output.stdout)
}

fn tools() -> String {
    format!("{}/tools", env!("CARGO_MANIFEST_DIR"))
}

/// The file of a database after each of some transactions.
fn images(count: usize) -> Vec<Vec<u8>> {
    let place = TempDir::new().unwrap();
    let path = place.path().join("db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA page_size=4096; CREATE TABLE t(a INTEGER PRIMARY KEY, b)").unwrap();
    let mut images = vec![fs::read(&path).unwrap()];
    for number in 1..count {
        // Some text to be compressed, some bytes that cannot be.
        let len = if number == 30 { 200_000 } else { number * 700 };
        let sql = format!("INSERT INTO t(b) VALUES('row {number}'), (randomblob({len}))");
        connection.execute_batch(&sql).unwrap();
        images.push(fs::read(&path).unwrap());
    }
    images
}

/// The pages that differ, as an entry.
fn transaction(before: &[u8], after: &[u8], index: u64) -> Entry {
    let numbered = (1..).map(PageNo).zip(after.chunks(PAGE_BYTES));
    let old = before.chunks(PAGE_BYTES).map(Some).chain(std::iter::repeat(None));
    let changed = numbered.zip(old).filter(|((_, new), old)| Some(*new) != *old);
    let pages: Vec<(PageNo, Arc<[u8]>)> = changed.map(|((number, page), _)| (number, page.into())).collect();
    let payload = encode_frames(NAME.as_bytes(), 4096, pages);
    Entry { index: Index(index), term: Term(1), kind: EntryKind::Command, payload }
}

struct Image<'a>(&'a [u8]);

impl PageSource for Image<'_> {
    fn name(&self) -> &[u8] {
        NAME.as_bytes()
    }
    fn page_size(&self) -> u32 {
        4096
    }
    fn n_pages(&self) -> u32 {
        u32::try_from(self.0.len() / PAGE_BYTES).unwrap()
    }
    fn page(&self, number: u32, out: &mut Vec<u8>) {
        let at = (number as usize - 1) * PAGE_BYTES;
        out.extend_from_slice(&self.0[at..at + PAGE_BYTES]);
    }
}

fn configuration() -> Vec<u8> {
    let server = |id| Server { id: NodeId(id), address: format!("10.0.0.{id}:9001"), role: Role::Voter };
    Configuration { servers: vec![server(1), server(2)] }.encode()
}

/// A node's work: a configuration, then a transaction per entry, with snapshots in between. Says how many
/// entries were acknowledged before something failed.
fn work(disk: &FaultDisk, images: &[Vec<u8>], compress: bool) -> u64 {
    let mut acknowledged = 0;
    let _ended_early = work_on(disk, images, compress, &mut acknowledged);
    acknowledged
}

fn work_on(
    disk: &FaultDisk,
    images: &[Vec<u8>],
    compress: bool,
    acknowledged: &mut u64,
) -> Result<(), StorageError> {
    let state = WriterState { next_index: Index(1), ..WriterState::default() };
    let config = WriterConfig { segment_bytes: 64 << 10, prewrite: false, ..WriterConfig::default() };
    let mut writer = Writer::new(disk.clone(), state, config);
    writer.set_metadata(Term(1), NodeId(2))?;
    let payload = Payload::from_bytes(&configuration());
    writer.append(&[vec![Entry { index: Index(1), term: Term(1), kind: EntryKind::Change, payload }]])?;
    *acknowledged = 1;
    let mut before: &[u8] = &[];
    for (index, image) in (2..).zip(images) {
        writer.append(&[vec![transaction(before, image, index)]])?;
        *acknowledged = index;
        before = image;
        if index % 5 == 0 {
            let header = SnapshotHeader {
                term: Term(1),
                index: Index(index),
                time: index,
                configuration_index: Index(1),
                configuration: configuration(),
            };
            let snapshot = write_snapshot(&mut disk.clone(), &header, &[Image(image)], compress)?;
            writer.install_snapshot_files(snapshot, index % 3)?;
        } else if index % 4 == 0 {
            while writer.prepare_ahead()? {}
        }
    }
    writer.close()
}

/// Writes what is left on the disk into a real directory.
fn put(disk: &FaultDisk, place: &Path) {
    fs::create_dir(place).unwrap();
    for (name, _) in disk.clone().list().unwrap() {
        fs::write(place.join(&name), disk.content(&name).unwrap()).unwrap();
    }
}

fn read(places: &Path) -> Vec<Value> {
    let lines = python(&["-c", DRIVER, &tools(), places.to_str().unwrap()]);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_independent_reader_agrees_with_itself() {
    assert_eq!(python(&[&format!("{}/datadir.py", tools()), "--selftest"]), "selftest ok\n");
}

#[test]
fn both_c_releases_start_on_what_a_power_cut_leaves_anywhere_with_all_that_was_acknowledged() {
    let images = images(17);
    let sums: Vec<String> = images
        .iter()
        .map(|image| Sha1::digest(image).iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    let places = TempDir::new().unwrap();
    let mut expected: Vec<(u64, String)> = Vec::new();
    let mut seen = BTreeSet::new();
    for at in 0.. {
        let disk = FaultDisk::new(at);
        disk.fail_at(at, Fault::PowerOff);
        let acknowledged = work(&disk, &images, true);
        for survival in [Survival::Nothing, Survival::Everything, Survival::Torn] {
            let left = disk.fork(at);
            left.crash(survival);
            let files: BTreeMap<_, _> = left
                .clone()
                .list()
                .unwrap()
                .into_iter()
                .map(|(name, _)| (name.clone(), left.content(&name)))
                .collect();
            if acknowledged > 0 && seen.insert((acknowledged, files)) {
                put(&left, &places.path().join(expected.len().to_string()));
                expected.push((acknowledged, format!("cut at {at}, {survival:?}")));
            }
        }
        if disk.operations() <= at {
            break;
        }
    }
    let found = read(places.path());
    assert_eq!(found.len(), expected.len());
    assert!(found.len() > 100, "{} directories", found.len());
    for (found, (acknowledged, place)) in found.iter().zip(&expected) {
        for start in found["starts"].as_array().unwrap() {
            let said = || format!("{place}: {start}");
            assert_eq!((&start["create_rc"], &start["start_rc"]), (&json!(0), &json!(0)), "{}", said());
            let last = start["last_index"].as_u64().unwrap();
            // One more may have been written and not acknowledged.
            assert!((*acknowledged..=acknowledged + 1).contains(&last), "{acknowledged}: {}", said());
            let sum = usize::try_from(last).unwrap().checked_sub(2).map(|at| &sums[at]);
            assert_eq!(
                start["sha1"].get(NAME).and_then(Value::as_str),
                sum.map(String::as_str),
                "{}",
                said()
            );
        }
    }
}

#[test]
fn our_frames_have_the_parameters_sizes_and_checksums_that_c_wants() {
    let images = images(40);
    for compress in [true, false] {
        let disk = FaultDisk::new(1);
        work(&disk, &images, compress);
        let places = TempDir::new().unwrap();
        put(&disk, &places.path().join("0"));
        let found = &read(places.path())[0];
        let frames = found["frames"].as_array().unwrap();
        assert_eq!(frames.len(), 2, "{frames:?}");
        for frame in frames.iter().filter(|_| compress) {
            // Its own checks of header, content size and content passed, or there were no frame here.
            let fields = ["flg", "bd", "version", "block_independent", "block_checksum", "content_checksum"];
            let fields = fields.map(|field| frame[field].clone());
            assert_eq!(json!(fields), json!([0x4c, 0x40, 1, false, false, true]), "{frame}");
            assert!(
                frame["content_size"].as_u64() > Some(100_000) && frame["trailing_bytes"] == 0,
                "{frame}"
            );
            assert!(frame["blocks"].as_u64() > frame["stored_blocks"].as_u64(), "{frame}");
            assert!(frame["stored_blocks"].as_u64() > Some(0), "blocks that do not compress: {frame}");
        }
        assert!(compress || frames.iter().all(Value::is_null), "{frames:?}");
    }
}
