//! Whole nodes on directories made by the C library: everything acknowledged is there, and they go on writing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dqlite::base::NodeId;
use dqlite::disk::FaultDisk;
use dqlite::runtime::RunningNode;
use dqlite::runtime::listen::Listener;
use dqlite::storage::loader::{LoadOptions, Loaded, load, prepare};
use serde_json::json;
use sha1::{Digest, Sha1};
use support::client::{Answer, Client, Value};
use support::datadir::{Golden, load_all, rebuild};
use support::node::options;
use tempfile::TempDir;

mod support;

/// Starts that work at least: fewer would mean that the test looks at nothing.
const STARTS_MIN: usize = 40;

/// What a start finds, worked out without a node.
fn foreseen(golden: &Golden) -> Result<Loaded, String> {
    let mut disk = FaultDisk::new(1);
    golden.files.iter().for_each(|(name, bytes)| disk.put(name, bytes));
    let id = NodeId(1);
    prepare(&mut disk).map_err(|error| error.to_string())?;
    load(&mut disk, &LoadOptions { auto_recovery: true, id, wall_ns: 1 }).map_err(|error| error.to_string())
}

/// The server that can lead alone.
fn only_voter(loaded: &Loaded) -> Option<NodeId> {
    let voters: Vec<NodeId> = loaded.configuration.voters().map(|server| server.id).collect();
    let [only] = voters.as_slice() else { return None };
    Some(*only)
}

fn start(directory: &Path, id: NodeId) -> Result<(RunningNode, String), String> {
    let listener = Listener::bind(b"127.0.0.1:0").unwrap();
    let address = listener.ip_address().unwrap().to_string();
    let mut options = options(directory, &address);
    options.id = id;
    match RunningNode::start(options, listener) {
        Ok(node) => Ok((node, address)),
        Err(error) => Err(error.text),
    }
}

fn image(client: &mut Client, name: &str) -> Vec<u8> {
    match client.dump(name) {
        Answer::Files(files) => files[0].1.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

fn one(client: &mut Client, sql: &str) -> Option<Value> {
    match client.query(sql, &[]) {
        Answer::Rows { rows, .. } => Some(rows[0][0].clone()),
        Answer::Failure { .. } => None,
        other => panic!("{sql}: {other:?}"),
    }
}

/// Compares everything that a node serves with what is foreseen; the row counts of the tables `t`.
fn check(name: &str, address: &str, golden: Option<&Golden>, loaded: &Loaded) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for (database, expected) in rebuild(loaded) {
        let place = format!("{name}, database {database}");
        let mut client = Client::with_database(address, &database);
        let found = image(&mut client, &database);
        assert!(found == expected.bytes(), "{place}: not the pages of snapshot and log");
        let expected = golden.map(|golden| &golden.expected["databases"][&database]);
        if let Some(expected) = expected.filter(|expected| expected.is_object()) {
            let sha1: String = Sha1::digest(&found).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(json!([found.len(), sha1]), json!([expected["size"], expected["sha1"]]), "{place}");
            for (table, about) in expected["tables"].as_object().unwrap() {
                let count = one(&mut client, &format!("SELECT count(*) FROM \"{table}\""));
                assert_eq!(count, about["rows"].as_i64().map(Value::Integer), "{place}, table {table}");
            }
        }
        let checked = one(&mut client, "PRAGMA integrity_check");
        assert_eq!(checked, Some(Value::Text("ok".to_owned())), "{place}");
        if let Some(Value::Integer(count)) = one(&mut client, "SELECT count(*) FROM t") {
            counts.insert(database, count);
        }
    }
    counts
}

/// Starts a node on the directory, compares, writes a row into each `t`, stops, and does it again.
fn go_on_from(golden: &Golden, loaded: &Loaded, id: NodeId) {
    let name = &golden.name;
    let directory = TempDir::new().unwrap();
    golden.files.iter().for_each(|(file, bytes)| fs::write(directory.path().join(file), bytes).unwrap());
    let (node, address) = start(directory.path(), id).unwrap_or_else(|text| panic!("{name}: {text}"));
    // Of damaged ones less is told there: C drops whole segments where entries can be saved.
    let whole = (!name.starts_with("corrupt-")).then_some(golden);
    let counts = check(name, &address, whole, loaded);
    for database in counts.keys() {
        let answer = Client::with_database(&address, database).exec("INSERT INTO t DEFAULT VALUES", &[]);
        assert!(matches!(answer, Answer::Result { rows_affected: 1, .. }), "{name}: {answer:?}");
    }
    assert_eq!(node.stop(), 0, "{name}");

    let (node, address) = start(directory.path(), id).unwrap_or_else(|text| panic!("{name} again: {text}"));
    for (database, count) in &counts {
        let mut client = Client::with_database(&address, database);
        let found = one(&mut client, "SELECT count(*) FROM t");
        assert_eq!(found, Some(Value::Integer(count + 1)), "{name} again, database {database}");
    }
    assert_eq!(node.stop(), 0, "{name}");
}

#[test]
fn a_node_goes_on_from_every_directory_of_a_single_voter() {
    let all: Vec<(Golden, Loaded, NodeId)> = load_all()
        .into_iter()
        .filter_map(|golden| {
            let loaded = foreseen(&golden).ok()?;
            let id = only_voter(&loaded)?;
            Some((golden, loaded, id))
        })
        .collect();
    let starts = all.len();
    // They mostly wait for the disk.
    std::thread::scope(|scope| {
        for some in all.chunks(starts.div_ceil(8).max(1)) {
            scope.spawn(|| some.iter().for_each(|(golden, loaded, id)| go_on_from(golden, loaded, *id)));
        }
    });
    assert!(starts >= STARTS_MIN, "{starts} directories of single voters found");
}

#[test]
fn a_node_refuses_what_cannot_be_loaded_and_says_why() {
    let mut refusals = 0;
    for golden in load_all() {
        let Err(expected) = foreseen(&golden) else { continue };
        let directory = TempDir::new().unwrap();
        golden.files.iter().for_each(|(file, bytes)| fs::write(directory.path().join(file), bytes).unwrap());
        let text = match start(directory.path(), NodeId(1)) {
            Err(text) => text,
            Ok((node, _)) => {
                node.stop();
                panic!("{}: started, though: {expected}", golden.name)
            }
        };
        let words = text.split_once(": ").map_or("", |(_, words)| words);
        assert_eq!(words, expected, "{}", golden.name);
        refusals += 1;
    }
    assert!(refusals > 0);
}
