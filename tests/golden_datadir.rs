//! Directories made by the C library: decoded, encoded again, started from, and damaged further.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use dqlite::base::{Entry, Index, NodeId, Payload, Prng};
use dqlite::codec::command::{Command, encode_frames};
use dqlite::codec::membership::{Configuration, role_code};
use dqlite::disk::{Disk, FaultDisk};
use dqlite::format::metadata::{self, Metadata};
use dqlite::format::segment::{self, SEGMENT_HEADER, Segment, encode_batch};
use dqlite::format::snapshot::{SnapshotDatabase, decode_data, decode_meta, encode_meta};
use dqlite::storage::loader::{LoadError, LoadOptions, Loaded, bootstrap, load, prepare};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use support::datadir::{Golden, load_all, rebuild, rebuild_up_to};

mod support;

const WALL_NS: u64 = 1_700_000_000_000_000_000;

fn sha1(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn disk_of(files: &BTreeMap<String, Vec<u8>>) -> FaultDisk {
    let disk = FaultDisk::new(1);
    files.iter().for_each(|(name, bytes)| disk.put(name, bytes));
    disk
}

/// What `dqlite_node_create` and `dqlite_node_start` do, as far as files go.
fn start(disk: &mut FaultDisk, id: NodeId, auto_recovery: bool) -> Result<Loaded, LoadError> {
    prepare(disk)?;
    assert!(!bootstrap(disk, id, "127.0.0.1:9001")?, "a new cluster was begun in an old directory");
    load(disk, &LoadOptions { auto_recovery, id, wall_ns: WALL_NS })
}

fn sizes(disk: &mut FaultDisk) -> BTreeMap<String, u64> {
    disk.list().unwrap().into_iter().collect()
}

fn configuration_json(found: &Configuration) -> Value {
    let names = ["standby", "voter", "spare"];
    let server = |server: &dqlite::codec::membership::Server| {
        let code = role_code(server.role);
        json!({ "id": server.id.0, "address": server.address, "role": names[usize::from(code)], "role_code": code })
    };
    found.servers.iter().map(server).collect()
}

fn check_payload(payload: &[u8], kind: u8, expected: &Value, place: &str) {
    match kind {
        1 => check_command(payload, expected, place),
        3 => {
            let found = Configuration::decode(payload).unwrap();
            assert_eq!(configuration_json(&found), expected["servers"], "{place}");
            // What is behind the last server is padding, which C does not clear.
            let padding = usize::try_from(expected["padding"].as_u64().unwrap()).unwrap();
            let used = payload.len() - padding;
            assert_eq!(found.encode()[..used], payload[..used], "{place}");
        }
        _ => assert_eq!(
            payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            *expected,
            "{place}"
        ),
    }
}

fn check_command(payload: &[u8], expected: &Value, place: &str) {
    match Command::decode(payload).unwrap() {
        Command::Frames(frames) => {
            assert_eq!(expected["command"], "frames", "{place}");
            assert_eq!(frames.filename, expected["filename"].as_str().unwrap().as_bytes(), "{place}");
            assert_eq!(frames.is_commit, expected["is_commit"] == 1, "{place}");
            assert_eq!(json!(frames.page_size), expected["page_size"], "{place}");
            let numbers: Vec<u32> = frames.pages.iter().map(|(number, _)| number.0).collect();
            assert_eq!(json!(numbers), expected["page_numbers"], "{place}");
            let hashes: Vec<String> =
                frames.pages.iter().map(|(_, page)| sha1(page)[..12].to_owned()).collect();
            assert_eq!(json!(hashes), expected["page_sha1"], "{place}");
            let pages: Vec<_> = frames.pages.iter().map(|(number, page)| (*number, (*page).into())).collect();
            let again = encode_frames(frames.filename, frames.page_size, pages).contiguous().into_owned();
            // Three bytes behind `is_commit` mean nothing, and old releases do not clear them.
            let unused = 8 + (frames.filename.len() + 8) / 8 * 8 + 13;
            let mut expected = payload.to_vec();
            expected[unused..unused + 3].fill(0);
            assert!(again == expected, "{place}: encoded otherwise");
        }
        Command::Checkpoint { filename } => {
            assert_eq!(expected["command"], "checkpoint", "{place}");
            assert_eq!(filename, expected["filename"].as_str().unwrap().as_bytes(), "{place}");
        }
        other => panic!("{place}: no release wrote {other:?}"),
    }
}

/// Encodes the good batches of a segment again.
fn encode_segment(found: &Segment<'_>) -> Vec<u8> {
    let mut bytes = SEGMENT_HEADER.to_vec();
    let mut entries = found.entries.iter();
    for batch in &found.batches {
        let batch: Vec<Entry> = entries
            .by_ref()
            .take(usize::try_from(batch.count).unwrap())
            .map(|raw| Entry {
                index: Index(0),
                term: raw.term,
                kind: raw.kind,
                payload: Payload::from_bytes(raw.payload),
            })
            .collect();
        encode_batch(&batch, &mut bytes);
    }
    bytes
}

fn check_segment(bytes: &[u8], expected: &Value, place: &str) {
    let found = segment::decode(bytes);
    assert_eq!(json!(found.used), expected["used"], "{place}");
    let again = encode_segment(&found);
    if found.used > 0 {
        assert!(again == bytes[..again.len()], "{place}: encoded otherwise");
    }
    if let Some(text) = expected["error"].as_str() {
        let error = found.end.clone().expect_err(place);
        assert!(error.text.starts_with(text), "{place}: {error}");
    }
    assert_eq!(found.batches.len(), expected["batches"].as_array().unwrap().len(), "{place}");
    let mut entries = found.entries.iter();
    for (batch, expected) in found.batches.iter().zip(expected["batches"].as_array().unwrap()) {
        assert_eq!(
            json!([batch.offset, batch.len]),
            json!([expected["offset"], expected["length"]]),
            "{place}"
        );
        let at = usize::try_from(batch.offset).unwrap();
        let crc = |at: usize| format!("{:08x}", u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
        assert_eq!(json!([crc(at), crc(at + 4)]), json!([expected["header_crc"], expected["data_crc"]]));
        for expected in expected["entries"].as_array().unwrap() {
            let entry = entries.next().unwrap();
            let place = format!("{place}, entry {}", expected["index"]);
            let kind = ["", "command", "barrier", "change"][usize::from(entry.kind.code())];
            assert_eq!(json!([entry.term.0, kind]), json!([expected["term"], expected["type"]]), "{place}");
            assert_eq!(json!(entry.payload.len()), expected["size"], "{place}");
            check_payload(entry.payload, entry.kind.code(), &expected["payload"], &place);
        }
    }
    assert!(entries.next().is_none(), "{place}");
}

fn check_metadata(golden: &Golden, name: &str, expected: &Value) {
    let place = format!("{} {name}", golden.name);
    match metadata::decode(name, &golden.files[name]) {
        Err(error) => assert_eq!(json!(error.text), expected["error"], "{place}"),
        Ok(None) => assert!(expected["size"].as_u64().unwrap() < 32 && expected["term"].is_null(), "{place}"),
        Ok(Some(found)) => {
            let Metadata { version, term, voted_for } = found;
            let expected = json!([expected["version"], expected["term"], expected["voted_for"]]);
            assert_eq!(json!([version, term.0, voted_for.0]), expected, "{place}");
            assert_eq!(found.encode()[..], golden.files[name], "{place}");
        }
    }
}

fn check_database(found: &SnapshotDatabase, expected: &Value, place: &str) {
    assert_eq!(found.name, expected["filename"].as_str().unwrap().as_bytes(), "{place}");
    assert_eq!(json!(found.n_pages), expected["pages"], "{place}");
    assert_eq!(json!(sha1(&found.pages.concat())), expected["sha1"], "{place}");
}

/// Returns whether both files could be read.
fn check_snapshot(golden: &Golden, expected: &Value) -> bool {
    let name = expected["name"].as_str().unwrap();
    let place = format!("{} {name}", golden.name);
    let data = &golden.files[name];
    let mut good = true;
    if let Some(bytes) = golden.files.get(&format!("{name}.meta")) {
        match decode_meta(name, bytes) {
            Ok(meta) => {
                let expected = &expected["meta"];
                assert_eq!(json!(meta.configuration_index.0), expected["configuration_index"], "{place}");
                assert_eq!(
                    configuration_json(&meta.configuration),
                    expected["configuration"]["servers"],
                    "{place}"
                );
                assert!(
                    encode_meta(meta.configuration_index, &meta.encoded) == *bytes,
                    "{place}: encoded otherwise"
                );
            }
            Err(_) => {
                assert!(expected["error"].is_string(), "{place}");
                good = false;
            }
        }
    }
    match decode_data(data.as_slice(), data.len() as u64) {
        Ok(databases) if expected["error"].is_null() => {
            let expected = expected["databases"].as_array().unwrap();
            assert_eq!(databases.len(), expected.len(), "{place}");
            databases
                .iter()
                .zip(expected)
                .for_each(|(found, expected)| check_database(found, expected, &place));
        }
        Ok(_) => assert!(!good || !golden.files.contains_key(&format!("{name}.meta")), "{place}"),
        Err(error) => {
            assert!(expected["error"].is_string(), "{place}: {error}");
            good = false;
        }
    }
    good
}

#[test]
fn every_file_decodes_to_what_it_holds_and_encodes_to_the_same_bytes() {
    let (mut segments, mut snapshots) = (0, 0);
    for golden in load_all() {
        for (name, expected) in golden.expected["metadata"].as_object().unwrap() {
            check_metadata(&golden, name, expected);
        }
        for expected in golden.expected["snapshots"].as_array().unwrap() {
            snapshots += usize::from(check_snapshot(&golden, expected));
        }
        for expected in golden.expected["segments"].as_array().unwrap() {
            let name = expected["name"].as_str().unwrap();
            check_segment(&golden.files[name], expected, &format!("{} {name}", golden.name));
            segments += 1;
        }
    }
    assert!(segments > 200 && snapshots > 30, "only {segments} segments and {snapshots} snapshots");
}

#[test]
fn a_sound_directory_starts_as_c_starts_it() {
    let goldens = load_all();
    // C 1.18.6 does not start with a raw snapshot unless told to: see the next test.
    let as_c = |golden: &&Golden| golden.observed.is_empty() && golden.expected["start"]["start_rc"] == 0;
    let sound: Vec<_> = goldens.iter().filter(as_c).collect();
    assert!(sound.len() > 30);
    for golden in sound {
        let expected = &golden.expected["start"];
        let mut disk = disk_of(&golden.files);
        let before = sizes(&mut disk);
        let place = &golden.name;
        let loaded = start(&mut disk, NodeId(1), true).unwrap_or_else(|error| panic!("{place}: {error}"));
        let snapshot = loaded
            .snapshot
            .as_ref()
            .map(|found| format!("snapshot-{}-{}-{}", found.term, found.index, found.time));
        let found = json!({
            "term": loaded.term.0, "voted_for": loaded.voted_for.0, "snapshot": snapshot,
            "start_index": loaded.first_index.0, "entries": loaded.entries.len(),
            "last_index": loaded.last_index.0, "last_term": loaded.last_term.0,
            "configuration": configuration_json(&loaded.configuration),
            "configuration_index": loaded.configuration_index.0,
        });
        for (field, found) in found.as_object().unwrap() {
            assert_eq!(found, &expected[field], "{place}: {field}");
        }
        assert_eq!(files_json(&before, &sizes(&mut disk)), changes_json(expected), "{place}");
        let databases: BTreeMap<String, Value> = rebuild(&loaded)
            .iter()
            .map(|(name, image)| (name.clone(), json!([image.bytes().len(), sha1(&image.bytes())])))
            .collect();
        let expected: BTreeMap<String, Value> = golden.expected["databases"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, database)| (name.clone(), json!([database["size"], database["sha1"]])))
            .collect();
        assert_eq!(databases, expected, "{place}");
        assert_eq!(loaded.notes, Vec::<String>::new(), "{place}");

        // What was closed starts again, with nothing left to do.
        let settled = sizes(&mut disk);
        let again = start(&mut disk, NodeId(1), true).unwrap();
        assert_eq!((again.entries == loaded.entries, sizes(&mut disk)), (true, settled), "{place}");
    }
}

#[test]
fn a_raw_snapshot_starts_whatever_the_setting() {
    for name in ["c1186-snapshot-raw", "mixed-1186-raw-then-1111"] {
        let goldens = load_all();
        let golden = goldens.iter().find(|golden| golden.name == name).unwrap();
        let mut disk = disk_of(&golden.files);
        let loaded = start(&mut disk, NodeId(1), false).unwrap();
        assert!(loaded.snapshot.is_some(), "{name}");
        let rows = rebuild(&loaded)["test"].rows().unwrap();
        let expected = if name.starts_with("mixed") { (29, Some(504)) } else { (24, Some(24)) };
        assert_eq!(rows, expected, "{name}");
    }
}

fn changes_json(result: &Value) -> Value {
    let removed: Vec<_> =
        result["removed"].as_array().unwrap().iter().filter(|name| *name != "dqlite-lock").collect();
    json!({ "removed": removed, "added": result["added"], "resized": result["resized"] })
}

/// The difference between two listings; times in names of files put aside read TIME.
fn files_json(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Value {
    let timeless = |name: &str| match name.strip_prefix("corrupt-") {
        Some(rest) => format!("corrupt-TIME-{}", rest.split_once('-').unwrap().1),
        None => name.to_owned(),
    };
    let removed: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    let added: BTreeMap<_, _> = after
        .iter()
        .filter(|(name, _)| !before.contains_key(*name))
        .map(|(name, size)| (timeless(name), size))
        .collect();
    let resized: BTreeMap<_, _> =
        after.iter().filter(|(name, size)| before.get(*name).is_some_and(|was| was != *size)).collect();
    json!({ "removed": removed, "added": added, "resized": resized })
}

/// Where ours starts and C 1.18.6 does not, or keeps more than C does: the rows of `test` and the files that
/// change. Everything else is as C does it.
struct Better {
    name: &'static str,
    auto_recovery: &'static [bool],
    rows: Option<(i64, i64)>,
    removed: &'static [&'static str],
    added: &'static [(&'static str, u64)],
    resized: &'static [(&'static str, u64)],
}

const BOTH: &[bool] = &[true, false];
const OPEN: &[&str] = &["open-1", "open-2", "open-3"];
const OPEN_LATER: &[&str] = &["open-4", "open-5", "open-6"];
const CLOSED: (&str, u64) = ("0000000000000025-0000000000000026", 8360);
const NEWEST: &str = "0000000000000011-0000000000000014";
const NEWEST_ASIDE: &str = "corrupt-TIME-0000000000000011-0000000000000014";

const fn better(name: &'static str, auto_recovery: &'static [bool], rows: (i64, i64)) -> Better {
    Better { name, auto_recovery, rows: Some(rows), removed: &[], added: &[], resized: &[] }
}

/// A newest snapshot that cannot be read: put aside, the older one and the log hold everything.
const fn older(name: &'static str, added: &'static [(&'static str, u64)]) -> Better {
    let removed = &["open-4", "open-5", "open-6", "snapshot-1-24-2425680", "snapshot-1-24-2425680.meta"];
    Better { removed, added, ..better(name, BOTH, (24, 24)) }
}

const fn aside(data: u64, meta: u64) -> [(&'static str, u64); 3] {
    [CLOSED, ("corrupt-TIME-snapshot-1-24-2425680", data), ("corrupt-TIME-snapshot-1-24-2425680.meta", meta)]
}

const BETTER: &[Better] = &[
    // The entries before the damage stay.
    Better {
        removed: &[NEWEST],
        added: &[("0000000000000011-0000000000000011", 4184), (NEWEST_ASIDE, 16712)],
        ..better("corrupt-closed-last-flip", &[true], (9, 9))
    },
    Better {
        removed: &[NEWEST],
        added: &[("0000000000000011-0000000000000011", 4184), (NEWEST_ASIDE, 8356)],
        ..better("corrupt-closed-last-short", &[true], (9, 9))
    },
    Better {
        removed: &[NEWEST],
        added: &[("0000000000000011-0000000000000012", 8360)],
        ..better("corrupt-closed-last-whole-batch-missing", &[true], (10, 10))
    },
    // Nothing is missing: there are zeros too many, or a file whose entries are in another one.
    Better { resized: &[(NEWEST, 16712)], ..better("corrupt-closed-zero-tail", BOTH, (12, 12)) },
    Better {
        resized: &[("0000000000000007-0000000000000010", 16712)],
        ..better("corrupt-closed-middle-zero-tail", BOTH, (12, 12))
    },
    Better {
        removed: &["0000000000000007-0000000000000008"],
        ..better("corrupt-closed-overlap", BOTH, (12, 12))
    },
    // The only voter: nobody else counts its votes.
    Better { resized: &[("metadata1", 32)], ..better("corrupt-metadata1-empty", BOTH, (12, 12)) },
    Better { added: &[("metadata1", 32)], ..better("corrupt-metadata-missing", BOTH, (12, 12)) },
    Better {
        removed: &["metadata2"],
        resized: &[("metadata1", 32)],
        ..better("corrupt-metadata-both-empty", BOTH, (6, 100))
    },
    // C throws away what follows the damage.
    Better {
        removed: OPEN,
        added: &[("corrupt-TIME-open-1", 8 << 20)],
        rows: None,
        ..better("corrupt-open-first-flip", BOTH, (0, 0))
    },
    Better {
        removed: OPEN,
        added: &[("0000000000000002-0000000000000003", 12464), ("corrupt-TIME-open-1", 8 << 20)],
        ..better("corrupt-open-middle-flip", BOTH, (1, 1))
    },
    // The blank segments beside it are not worth keeping.
    Better {
        removed: OPEN,
        added: &[("corrupt-TIME-open-1", 8 << 20)],
        rows: None,
        ..better("corrupt-open-format", &[true], (0, 0))
    },
    // C crashes.
    Better {
        removed: OPEN,
        added: &[("0000000000000002-0000000000000007", 29168)],
        ..better("corrupt-open-short", BOTH, (5, 5))
    },
    // C makes a closed segment of it that nobody reads.
    Better {
        removed: OPEN_LATER,
        added: &[("corrupt-TIME-open-4", 8 << 20)],
        ..better("corrupt-snapshot-ahead-of-log", &[true], (22, 22))
    },
    older("corrupt-snapshot-lz4-flip", &aside(416, 72)),
    older("corrupt-snapshot-lz4-short", &aside(208, 72)),
    older("corrupt-snapshot-meta-flip", &aside(416, 72)),
    older("corrupt-snapshot-meta-format", &aside(416, 72)),
    older("corrupt-snapshot-meta-short", &aside(416, 20)),
    Better {
        removed: &["open-4", "open-5", "open-6", "snapshot-1-24-2426552", "snapshot-1-24-2426552.meta"],
        added: &[
            CLOSED,
            ("corrupt-TIME-snapshot-1-24-2426552", 5000),
            ("corrupt-TIME-snapshot-1-24-2426552.meta", 72),
        ],
        ..better("corrupt-snapshot-raw-short", BOTH, (24, 24))
    },
    // Compressed or not is seen from the file, whatever the setting.
    Better {
        removed: OPEN_LATER,
        added: &[CLOSED],
        ..better("odd-lz4-snapshot-compression-off", BOTH, (24, 24))
    },
    Better {
        removed: OPEN_LATER,
        added: &[CLOSED],
        ..better("odd-raw-snapshot-compression-on", BOTH, (24, 24))
    },
];

/// Refusals where C has no text of its own: it crashes, or starts with a node that is of no use.
const REFUSALS: &[(&str, &str)] = &[
    ("corrupt-first-entry-not-configuration", "io: entry 1: a configuration (type 3) expected, type 1 found"),
    (
        "corrupt-open-bad-type",
        "io: load open segment open-1: entries batch 7 starting at byte 29168: type of entry 1",
    ),
];

type Rows = BTreeMap<String, (i64, Option<i64>)>;

/// What a start makes of a directory: the rows and changes, or the text.
fn outcome(golden: &Golden, auto_recovery: bool) -> (Result<Rows, String>, Value) {
    let mut disk = disk_of(&golden.files);
    let before = sizes(&mut disk);
    let loaded = start(&mut disk, NodeId(1), auto_recovery);
    let changes = files_json(&before, &sizes(&mut disk));
    if loaded.is_err() {
        for (name, bytes) in &golden.files {
            assert!(
                disk.content(name).as_ref() == Some(bytes),
                "{}: {name} changed by a refusal",
                golden.name
            );
        }
    }
    let rows = |loaded: Loaded| {
        let images = rebuild(&loaded);
        images.iter().filter_map(|(name, image)| Some((name.clone(), image.rows()?))).collect()
    };
    (loaded.map(rows).map_err(|error| error.to_string()), changes)
}

fn check_better(better: &Better, (rows, changes): &(Result<Rows, String>, Value), place: &str) {
    let rows = rows.as_ref().unwrap_or_else(|error| panic!("{place}: {error}"));
    let expected: Rows =
        better.rows.iter().map(|&(count, max)| ("test".to_owned(), (count, Some(max)))).collect();
    assert_eq!(*rows, expected, "{place}");
    let map = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
        pairs.iter().map(|&(name, size)| (name.to_owned(), size)).collect()
    };
    let (added, resized) = (map(better.added), map(better.resized));
    assert_eq!(*changes, json!({ "removed": better.removed, "added": added, "resized": resized }), "{place}");
}

fn check_as_c(
    golden: &Golden,
    observed: &Value,
    (rows, changes): &(Result<Rows, String>, Value),
    place: &str,
) {
    let started = observed["create_rc"] == 0 && observed["start_rc"] == 0;
    match rows {
        Ok(rows) => {
            assert!(started, "{place}: C refused");
            let found: BTreeMap<_, _> = rows.iter().map(|(name, rows)| (name.clone(), json!(rows))).collect();
            assert_eq!(json!(found), observed["rows"], "{place}");
            assert_eq!(*changes, changes_json(observed), "{place}");
        }
        Err(text) => {
            if let Some((_, own)) = REFUSALS.iter().find(|(name, _)| *name == golden.name) {
                assert!(text.starts_with(own), "{place}: {text}");
                return;
            }
            assert!(!started, "{place}: {text}");
            let c = observed["error"].as_str().unwrap();
            let c = c.trim_start_matches("raft_start(): ").trim_start_matches("raft_init(): ");
            assert!(text.starts_with(c), "{place}: {text}");
            assert!(text.contains("; restore the file, or "), "{place}: {text}");
        }
    }
}

#[test]
fn a_damaged_directory_starts_at_least_where_c_starts_it_and_with_as_many_rows() {
    let mut used = 0;
    for golden in load_all().iter().filter(|golden| !golden.observed.is_empty()) {
        for auto_recovery in [true, false] {
            let found = outcome(golden, auto_recovery);
            let is = |better: &&Better| {
                better.name == golden.name && better.auto_recovery.contains(&auto_recovery)
            };
            let better = BETTER.iter().find(is);
            let place = format!("{}, auto-recovery {auto_recovery}", golden.name);
            if let Some(better) = better {
                check_better(better, &found, &place);
                used += 1;
            }
            for observed in &golden.observed {
                let options = observed["options"].as_array().unwrap();
                if options.contains(&json!("auto=0")) == auto_recovery {
                    continue;
                }
                let place = format!("{place}, beside {}", observed["library"]);
                for (name, rows) in observed["rows"].as_object().into_iter().flatten() {
                    let ours = found.0.as_ref().unwrap_or_else(|error| panic!("{place}: {error}"));
                    assert!(json!(ours[name].0).as_i64() >= rows[0].as_i64(), "{place}: fewer rows");
                }
                if better.is_none() {
                    check_as_c(golden, observed, &found, &place);
                }
            }
        }
    }
    assert_eq!(used, BETTER.iter().map(|better| better.auto_recovery.len()).sum::<usize>());
}

#[test]
fn no_flip_or_cut_anywhere_makes_a_start_panic_or_refuse_without_a_text() {
    let goldens = load_all();
    let names = [
        "c1186-snapshot-lz4",
        "c1186-closed-segments",
        "c1111-snapshot",
        "c1186-roles",
        "c1186-recover-started",
    ];
    for golden in goldens.iter().filter(|golden| names.contains(&golden.name.as_str())) {
        let mut files = golden.files.clone();
        // Room for damage, not for zeros.
        files.values_mut().for_each(|bytes| bytes.truncate(64 << 10));
        let sound = start(&mut disk_of(&files), NodeId(1), false).unwrap();
        let mut prng = Prng::new(golden.name.len() as u64);
        let targets: Vec<String> = files.keys().filter(|name| !files[*name].is_empty()).cloned().collect();
        for round in 0..400 {
            let mut damaged = files.clone();
            let name = &targets[usize::try_from(prng.below(targets.len() as u64)).unwrap()];
            let bytes = damaged.get_mut(name).unwrap();
            let what = damage(&mut prng, bytes);
            let place = format!("{}, round {round}: {what} of {name}", golden.name);
            let before = damaged.clone();
            let mut disk = disk_of(&damaged);
            match start(&mut disk, NodeId(1), round % 2 == 0) {
                Ok(loaded) => {
                    check_consistent(&loaded, &place);
                    check_state(&sound, &loaded, &place);
                    let again = start(&mut disk, NodeId(1), round % 2 == 0);
                    let again = again.unwrap_or_else(|error| panic!("{place}: the second start: {error}"));
                    assert_eq!(again.last_index, loaded.last_index, "{place}");
                }
                Err(error) => {
                    assert!(error.to_string().len() > "io: ".len(), "{place}");
                    for (name, bytes) in &before {
                        assert!(disk.content(name).as_ref() == Some(bytes), "{place}: {name} changed");
                    }
                }
            }
        }
    }
}

/// Whatever was lost: what is there is what was there.
fn check_state(sound: &Loaded, loaded: &Loaded, place: &str) {
    let last = loaded.last_index;
    let index = sound.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index);
    assert!((index..=sound.last_index).contains(&last), "{place}: the log ends at {last}");
    let (expected, found) = (rebuild_up_to(sound, last), rebuild(loaded));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{place}");
    assert!(
        expected.iter().all(|(name, image)| image.bytes() == found[name].bytes()),
        "{place}: other content"
    );
}

fn damage(prng: &mut Prng, bytes: &mut Vec<u8>) -> String {
    // The beginning is where the structure is.
    let span = if prng.below(2) == 0 { bytes.len().min(200) } else { bytes.len() };
    let at = usize::try_from(prng.below(span as u64)).unwrap();
    match prng.below(4) {
        0 => {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        1 => {
            let end = bytes.len().min(at + 600);
            bytes[at..end].fill(0);
            format!("zeros from byte {at}")
        }
        _ => {
            let bit = prng.below(8);
            bytes[at] ^= 1 << bit;
            format!("flip of bit {bit} of byte {at}")
        }
    }
}

/// What every other part relies on.
fn check_consistent(loaded: &Loaded, place: &str) {
    let mut index = loaded.first_index;
    for entry in &loaded.entries {
        assert_eq!(entry.index, index, "{place}");
        assert!(entry.term <= loaded.term, "{place}");
        index = index.next();
    }
    assert_eq!(loaded.last_index.next(), index, "{place}");
    let snapshot = loaded.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index);
    assert!(loaded.last_index >= snapshot && loaded.first_index <= snapshot.next(), "{place}");
    let mut next = loaded.first_index;
    for (first, last) in &loaded.closed_segments {
        assert_eq!(*first, next, "{place}");
        next = last.next();
    }
    assert_eq!(next, index, "{place}: closed segments end elsewhere");
}
