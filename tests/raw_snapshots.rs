//! Snapshots without compression have no checksum: a start looks at their databases through SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use dqlite::runtime::listen::Listener;
use dqlite::runtime::{RunningNode, StartError};
use support::datadir::load_all;
use tempfile::TempDir;

mod support;

const OLDER: &str = "snapshot-1-16-2426496";
const NEWER: &str = "snapshot-1-24-2426552";

fn directory() -> TempDir {
    let goldens = load_all();
    let golden = goldens.iter().find(|golden| golden.name == "c1186-snapshot-raw").unwrap();
    let place = TempDir::new().unwrap();
    for (name, bytes) in &golden.files {
        fs::write(place.path().join(name), bytes).unwrap();
    }
    place
}

/// Makes the root page of the table in a raw snapshot a page of no known kind.
fn damage(place: &Path, name: &str) {
    let path = place.join(name);
    let mut bytes = fs::read(&path).unwrap();
    let page_1 = bytes.windows(16).position(|window| window == b"SQLite format 3\0").unwrap();
    bytes[page_1 + 4096] = 99;
    fs::write(path, bytes).unwrap();
}

fn start(place: &Path) -> Result<RunningNode, StartError> {
    let listener = Listener::bind(b"127.0.0.1:0").unwrap();
    let address = listener.ip_address().unwrap().to_string();
    RunningNode::start(support::node::options(place, &address), listener)
}

#[test]
fn a_damaged_raw_snapshot_is_put_aside_for_the_older_one_and_the_log() {
    let place = directory();
    damage(place.path(), NEWER);
    assert_eq!(start(place.path()).unwrap().stop(), 0);
    let names =
        fs::read_dir(place.path()).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    let aside: Vec<String> = names.filter(|name| name.starts_with("corrupt-")).collect();
    assert_eq!(aside.len(), 2, "{aside:?}");
    assert!(aside.iter().any(|name| name.ends_with(NEWER)), "{aside:?}");
}

#[test]
fn a_damaged_raw_snapshot_with_nothing_to_replace_it_is_refused_by_name() {
    let place = directory();
    damage(place.path(), NEWER);
    damage(place.path(), OLDER);
    let text = start(place.path()).map(drop).unwrap_err().text;
    let expected = format!("raft_start(): io: {NEWER}: database 'test': PRAGMA quick_check: ");
    assert!(text.starts_with(&expected), "{text}");
    assert!(
        text.contains(&format!("; without it: {OLDER}: database 'test': PRAGMA quick_check: ")),
        "{text}"
    );
}

#[test]
fn a_sound_raw_snapshot_starts() {
    let place = directory();
    assert_eq!(start(place.path()).unwrap().stop(), 0);
    assert!(place.path().join(NEWER).exists());
}
