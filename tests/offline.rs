//! Creating, recovering and describing a node on directories made by the C library: what each may change.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use dqlite::admin::member::Member;
use dqlite::admin::node::Node;
use dqlite::base::{EntryKind, NodeId, Role, Term};
use dqlite::codec::membership::Configuration;
use dqlite::disk::DirectoryLock;
use dqlite::format::names::FileName;
use dqlite::format::segment;
use support::datadir::{Golden, load_all};
use tempfile::TempDir;

mod support;

const LOCK: &str = "dqlite-lock";

fn golden(name: &str) -> Golden {
    load_all().into_iter().find(|golden| golden.name == name).unwrap()
}

/// A real directory with the files, but those that begin with one of `without`.
fn directory(golden: &Golden, without: &[&str]) -> TempDir {
    let place = TempDir::new().unwrap();
    for (name, bytes) in &golden.files {
        if !without.iter().any(|start| name.starts_with(start)) {
            fs::write(place.path().join(name), bytes).unwrap();
        }
    }
    place
}

/// Every file but the lock.
fn files(place: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = fs::read_dir(place).unwrap().map(|item| item.unwrap());
    let names = names.map(|item| (item.file_name().into_string().unwrap(), item.path()));
    names.filter(|(name, _)| name != LOCK).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

fn node(place: &Path, id: u64) -> (Node, Option<String>) {
    let (node, failure) =
        Node::create(NodeId(id), Some(b"127.0.0.1:27991"), Some(place.as_os_str().as_bytes()));
    (node, failure.map(|failure| failure.text.unwrap_or_default()))
}

fn member(id: u64, address: &str, role: Role) -> Member {
    Member { id: NodeId(id), address: address.as_bytes().to_vec(), role }
}

/// Where the log ends, as the node says.
fn last(node: &Node) -> (u64, u64) {
    let last = node.describe_last_entry().unwrap();
    (last.index.0, last.term.0)
}

#[test]
fn creating_a_node_deletes_what_was_never_finished_and_nothing_else() {
    let mut cleared = 0;
    for golden in load_all() {
        let place = directory(&golden, &[LOCK]);
        let mut expected = files(place.path());
        let (_, refused) = node(place.path(), 1);
        if refused.is_none() {
            let before = expected.len();
            expected
                .retain(|name, _| !matches!(FileName::parse(name), FileName::Temporary | FileName::Probe));
            cleared += before - expected.len();
        }
        assert!(files(place.path()) == expected, "{}: other files after create", golden.name);
    }
    assert!(cleared > 0, "no directory had left-overs");
}

#[test]
fn creating_a_node_beside_a_running_one_changes_nothing() {
    for golden in load_all() {
        let place = directory(&golden, &[]);
        let running = DirectoryLock::take(place.path()).unwrap();
        let before = files(place.path());
        drop(node(place.path(), 1));
        assert!(files(place.path()) == before, "{}: other files after create", golden.name);
        drop(running);
    }
}

#[test]
fn halves_of_both_snapshots_are_still_there_after_a_refused_start() {
    let place = directory(&golden("corrupt-snapshot-no-meta-both"), &[LOCK]);
    let before = files(place.path());
    let (mut node, refused) = node(place.path(), 1);
    assert_eq!(refused, None);
    node.bind(b"127.0.0.1:0").unwrap();
    let text = node.start().unwrap_err().text.unwrap();
    let c = "raft_start(): io: unexpected closed segment 0000000000000017-0000000000000024: first index should \
             have been 1";
    assert!(text.starts_with(c), "{text}");
    assert!(text.contains("only one of the two files of a snapshot found"), "{text}");
    assert!(files(place.path()) == before, "other files after the start");
}

#[test]
fn the_last_entry_is_what_the_c_library_says_with_and_without_metadata() {
    for (name, expected) in [
        ("c1186-roles", (16, 2)),
        ("c1186-recover", (17, 1)),
        ("c1186-recover-started", (18, 2)),
        ("c1186-three-leader", (11, 1)),
        ("c1186-three-follower", (11, 1)),
    ] {
        for without in [&[LOCK][..], &[LOCK, "metadata"]] {
            let place = directory(&golden(name), without);
            let before = files(place.path());
            let running = DirectoryLock::take(place.path()).unwrap();
            let (beside, refused) = node(place.path(), 2);
            assert_eq!((refused, last(&beside)), (None, expected), "{name} beside a running node");
            assert!(files(place.path()) == before, "{name}: changed beside a running node");
            drop(running);
            assert_eq!(last(&beside), expected, "{name}");
            let metadata = |files: BTreeMap<String, Vec<u8>>| {
                files.into_iter().filter(|(name, _)| name.starts_with("metadata")).collect::<Vec<_>>()
            };
            assert_eq!(metadata(files(place.path())), metadata(before), "{name}");
        }
    }
}

#[test]
fn a_recovery_appends_what_the_c_library_appends() {
    let place = directory(&golden("c1186-roles"), &[LOCK]);
    let (mut node, _) = node(place.path(), 1);
    let members = [member(1, "127.0.0.1:27991", Role::Voter), member(77, "127.0.0.1:27777", Role::Spare)];
    node.recover(members.to_vec()).unwrap();
    let (expected, mut found) = (golden("c1186-recover").files, files(place.path()));
    // What is ours alone: how it was before.
    let kept = String::from_utf8(found.remove("cluster-before-recover.yaml").unwrap()).unwrap();
    assert!(kept.contains("# last entry: index 16, term 2\n"), "{kept}");
    let names = |files: &BTreeMap<String, Vec<u8>>| {
        files.keys().filter(|name| *name != LOCK).cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(&found), names(&expected));
    for (name, bytes) in &found {
        let (ours, c) = (segment::decode(bytes), segment::decode(&expected[name]));
        if name != "0000000000000017-0000000000000017" {
            assert!(*bytes == expected[name], "{name}");
            continue;
        }
        let [ours, c] = [&ours.entries[..], &c.entries[..]].map(|entries| {
            let [entry] = entries else { panic!("{name}: one entry expected, found {}", entries.len()) };
            (entry.term, entry.kind, entry.payload.len(), Configuration::decode(entry.payload).unwrap())
        });
        assert_eq!(ours, c);
        assert_eq!((ours.0, ours.1), (Term(1), EntryKind::Change));
    }
}

#[test]
fn a_recovery_of_one_of_many_voters_needs_no_metadata_and_only_a_start_does() {
    for name in ["c1186-three-leader", "c1186-three-follower", "c1186-recover", "c1186-recover-started"] {
        let voters = |count: u64| -> Vec<Member> {
            (1..=count).map(|id| member(id, &format!("127.0.0.1:2799{id}"), Role::Voter)).collect()
        };
        let place = directory(&golden(name), &[LOCK, "metadata"]);
        let (mut first, _) = node(place.path(), 2);
        let (index, _) = last(&first);
        let running = DirectoryLock::take(place.path()).unwrap();
        let before = files(place.path());
        first.recover(voters(3)).unwrap_err();
        assert!(files(place.path()) == before, "{name}: changed beside a running node");
        drop(running);
        first.recover(voters(3)).unwrap();
        assert_eq!(last(&first), (index + 1, 1), "{name}");
        assert!(files(place.path()).keys().all(|name| !name.starts_with("metadata")), "{name}");

        first.bind(b"127.0.0.1:0").unwrap();
        let text = first.start().unwrap_err().text.unwrap();
        assert!(text.starts_with("raft_start(): io: neither metadata1 nor metadata2 is there"), "{text}");

        let (mut second, _) = node(place.path(), 1);
        second.recover(voters(1)).unwrap();
        assert_eq!(last(&second), (index + 2, 1), "{name}");
        second.bind(b"127.0.0.1:0").unwrap();
        second.start().unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        second.stop().unwrap();
    }
}
