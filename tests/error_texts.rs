//! Every function of the C API in every way in which it can fail here: its code, and a sentence for whoever has to do
//! something about it. It is in `dqlite_node_errmsg` where the header says so, else in the log, and the message stays
//! as it was: programs rely on that.
//!
//! One test, since log and environment are the process's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(unsafe_code, reason = "calls what is exported to C")]
#![allow(clippy::disallowed_methods, reason = "makes data directories that are damaged")]

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::Mutex;

use dqlite::ffi::config::*;
use dqlite::ffi::handle::{dqlite_node, dqlite_node_info, dqlite_node_info_ext, dqlite_server};
use dqlite::ffi::node::*;
use dqlite::ffi::recover::*;
use dqlite::ffi::server::*;
use tempfile::TempDir;

mod support;

/// Functions that cannot fail, or say so otherwise.
const CANNOT_FAIL: [&str; 8] = [
    "dqlite_generate_node_id",
    "dqlite_node_destroy",
    "dqlite_node_errmsg",
    "dqlite_node_get_bind_address",
    "dqlite_server_destroy",
    "dqlite_server_get_id",
    "dqlite_version_number",
    "dqlite_version_string",
];

/// The lines of the log since they were taken last.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// What has been called, and was found to fail as it should.
#[derive(Default)]
struct Table {
    called: BTreeSet<String>,
    rows: usize,
}

fn message(node: *mut dqlite_node) -> String {
    // SAFETY: null or a live handle; the text ends with a NUL.
    unsafe { CStr::from_ptr(dqlite_node_errmsg(node)) }.to_str().unwrap().to_owned()
}

impl Table {
    fn note(&mut self, call: &str) {
        self.called.insert(format!("dqlite_{call}"));
        self.rows += 1;
        LINES.lock().unwrap().clear();
    }

    /// A failure with a message: how that begins, and what it says beside that.
    #[track_caller]
    fn says(
        &mut self,
        call: &str,
        node: *mut dqlite_node,
        (expected, found): (c_int, c_int),
        parts: &[&str],
    ) {
        let text = message(node);
        assert_eq!(found, expected, "{call}: {text}");
        assert!(text.starts_with(parts[0]), "{call}: '{}' expected first, found '{text}'", parts[0]);
        for part in &parts[1..] {
            assert!(text.contains(part), "{call}: '{part}' expected, found '{text}'");
        }
        let specific = text.trim_end_matches([' ', ':']).len() > parts[0].trim_end_matches([' ', ':']).len();
        assert!(specific || !parts[0].ends_with(": "), "{call}: nothing behind '{text}'");
        self.note(call);
    }

    /// A failure that leaves the message alone, and a line in the log.
    #[track_caller]
    fn logs(&mut self, call: &str, node: *mut dqlite_node, (expected, found): (c_int, c_int), part: &str) {
        assert_eq!(found, expected, "{call}");
        let untouched = if node.is_null() { "node is NULL" } else { "" };
        assert_eq!(message(node), untouched, "{call}: no message was there before");
        let lines = std::mem::take(&mut *LINES.lock().unwrap());
        assert!(lines.iter().any(|line| line.contains(part)), "{call}: '{part}' expected in {lines:?}");
        self.note(call);
    }
}

fn c(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).unwrap()
}

fn path(place: &Path) -> CString {
    c(place.to_str().unwrap())
}

/// A handle for the directory, with what came of creating it.
fn try_create(id: u64, address: &CStr, place: &CStr) -> (*mut dqlite_node, c_int) {
    let mut node = null_mut();
    // SAFETY: strings and a place for the handle.
    let found = unsafe { dqlite_node_create(id, address.as_ptr(), place.as_ptr(), &raw mut node) };
    (node, found)
}

#[track_caller]
fn create(id: u64, place: &Path) -> *mut dqlite_node {
    let (node, found) = try_create(id, c"1", &path(place));
    assert_eq!((found, message(node).as_str()), (0, ""));
    node
}

/// A node that runs.
#[track_caller]
fn running(place: &Path) -> *mut dqlite_node {
    let node = create(1, place);
    // SAFETY: a live handle and a string.
    let started = unsafe { (dqlite_node_set_bind_address(node, c"@".as_ptr()), dqlite_node_start(node)) };
    assert_eq!(started, (0, 0), "{}", message(node));
    node
}

fn destroy(node: *mut dqlite_node) {
    // SAFETY: a live handle that nobody uses any more.
    unsafe { dqlite_node_destroy(node) };
}

fn member(id: u64, address: &CStr, role: u64) -> dqlite_node_info_ext {
    dqlite_node_info_ext {
        size: 32,
        id,
        address: address.as_ptr().expose_provenance() as u64,
        dqlite_role: role,
    }
}

fn creating(table: &mut Table) {
    let place = TempDir::new().unwrap();
    let root = place.path();
    fs::write(root.join("file"), "").unwrap();
    let mut refused = |path: &CStr, parts: &[&str]| {
        let (node, found) = try_create(1, c"1", path);
        table.says("node_create", node, (1, found), parts);
        destroy(node);
    };
    refused(&path(&root.join("none")), &["raft_init(): io: directory '", "none' does not exist"]);
    refused(&path(&root.join("file")), &["raft_init(): io: path '", "file' is not a directory"]);
    refused(&path(&root.join("file/a")), &["raft_init(): io: path '", "file/a' is not a directory"]);
    refused(c"", &["raft_init(): io: directory '' does not exist"]);
    refused(&c("x".repeat(895)), &["raft_uv_init(): directory path too long"]);
    let closed = root.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    refused(&path(&closed), &["raft_init(): io: directory '", "closed' is not writable"]);
    let metadata = |format: u64, version: u64| [format, version, 1, 0].map(u64::to_le_bytes).concat();
    for (bytes, text) in [
        (vec![0; 40], "metadata1 has size 40 instead of 32"),
        (metadata(7, 1), "decode content of metadata1: bad format version 7"),
        (metadata(1, 0), "decode content of metadata1: version is set to zero"),
    ] {
        let place = TempDir::new().unwrap();
        fs::write(place.path().join("metadata1"), bytes).unwrap();
        refused(&path(place.path()), &["raft_init(): io: ", text]);
    }
    let twice = TempDir::new().unwrap();
    for name in ["metadata1", "metadata2"] {
        fs::write(twice.path().join(name), metadata(1, 3)).unwrap();
    }
    refused(&path(twice.path()), &["raft_init(): io: metadata1 and metadata2 are both at version 3"]);
    let directory = path(root);
    for (address, data, text) in [
        (null(), directory.as_ptr(), "dqlite_node_create(): an address expected, found NULL"),
        (c"1".as_ptr(), null(), "dqlite_node_create(): a data directory expected, found NULL"),
    ] {
        let mut node = null_mut();
        // SAFETY: null or strings, and a place for the handle.
        let found = unsafe { dqlite_node_create(1, address, data, &raw mut node) };
        table.says("node_create", node, (2, found), &[text]);
        destroy(node);
    }
    // SAFETY: strings.
    assert_eq!(unsafe { dqlite_node_create(1, c"1".as_ptr(), directory.as_ptr(), null_mut()) }, 2);
}

/// What can be wrong with a start beside the files.
fn starting(table: &mut Table) {
    let place = TempDir::new().unwrap();
    let root = place.path();
    // SAFETY: live handles, each destroyed last, and strings.
    unsafe {
        let node = create(1, root);
        table.says(
            "node_start",
            node,
            (2, dqlite_node_start(node)),
            &["dqlite_node_start(): a bind address expected"],
        );
        let node = create(1, root);
        table.logs(
            "node_set_bind_address",
            node,
            (2, dqlite_node_set_bind_address(node, null())),
            "an address expected",
        );
        let address = c"localhost:1";
        let found = dqlite_node_set_bind_address(node, address.as_ptr());
        table.logs("node_set_bind_address", node, (1, found), "a numeric IPv4 or IPv6 address expected");
        let parts = [
            "dqlite_node_start(): a bind address expected, none was set (dqlite_node_set_bind_address(): 'localhost:1': ",
            "numeric",
        ];
        table.says("node_start", node, (2, dqlite_node_start(node)), &parts);
        destroy(node);

        let node = running(root);
        let lock = ["couldn't lock the raft directory: '", "is in use by process "];
        table.says("node_start", node, (1, dqlite_node_start(node)), &lock);
        let second = create(1, root);
        assert_eq!(dqlite_node_set_bind_address(second, c"@".as_ptr()), 0);
        table.says("node_start", second, (1, dqlite_node_start(second)), &lock);
        let parts = ["dqlite_node_start(): a new node expected, found a used one"];
        table.says("node_start", second, (2, dqlite_node_start(second)), &parts);
        destroy(second);
        assert_eq!(dqlite_node_stop(node), 0);
        table.says("node_start", node, (2, dqlite_node_start(node)), &parts);
        destroy(node);

        let (node, _) = try_create(1, &c([0xff]), &path(root));
        assert_eq!(dqlite_node_set_bind_address(node, c"@".as_ptr()), 0);
        let parts = ["dqlite_node_start(): an address in UTF-8 expected"];
        table.says("node_start", node, (1, dqlite_node_start(node)), &parts);
        destroy(node);

        std::env::set_var("LIBDQLITE_SQL_WORKERS", "many");
        let node = create(1, root);
        std::env::remove_var("LIBDQLITE_SQL_WORKERS");
        assert_eq!(dqlite_node_set_bind_address(node, c"@".as_ptr()), 0);
        let parts = ["LIBDQLITE_SQL_WORKERS: a number from 1 to 64 expected, found 'many'"];
        table.says("node_start", node, (1, dqlite_node_start(node)), &parts);
        destroy(node);
    }
}

/// Sockets and files that a start cannot have.
fn in_the_way(table: &mut Table) {
    let (place, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    // SAFETY: live handles, each destroyed last, and strings.
    unsafe {
        // Two sockets may be bound to one port as long as none listens.
        let (first, second) = (create(1, place.path()), create(1, other.path()));
        // Somebody else may take the port that was just free.
        let both_bound = (0..10).any(|_| {
            let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = c(probe.local_addr().unwrap().to_string());
            drop(probe);
            [first, second].iter().all(|node| dqlite_node_set_bind_address(*node, address.as_ptr()) == 0)
        });
        assert_eq!((both_bound, dqlite_node_start(first)), (true, 0));
        table.says(
            "node_start",
            second,
            (1, dqlite_node_start(second)),
            &["uv_listen(): address already in use"],
        );
        destroy(second);
        destroy(first);

        let place = TempDir::new().unwrap();
        fs::create_dir(place.path().join("metadata1")).unwrap();
        let node = create(1, place.path());
        assert_eq!(dqlite_node_set_bind_address(node, c"@".as_ptr()), 0);
        table.says("node_start", node, (1, dqlite_node_start(node)), &["raft_bootstrap(): ", "metadata1"]);
        destroy(node);
    }
}

/// Each recorded directory that is damaged, and what cannot be loaded of it.
fn damaged(table: &mut Table) -> usize {
    let mut refused = 0;
    for golden in support::datadir::load_all().iter().filter(|golden| golden.name.starts_with("corrupt-")) {
        let place = TempDir::new().unwrap();
        let restore = || {
            for (name, bytes) in &golden.files {
                fs::write(place.path().join(name), bytes).unwrap();
            }
        };
        let handle = || {
            restore();
            let (node, found) = try_create(7, c"1", &path(place.path()));
            // SAFETY: a live handle.
            assert_eq!(unsafe { dqlite_node_set_auto_recovery(node, false) }, 0);
            (found == 0).then_some(node).ok_or_else(|| destroy(node)).ok()
        };
        // SAFETY: live handles, destroyed last; strings, a server and places for numbers.
        unsafe {
            let Some(node) = handle() else { continue };
            let (mut index, mut term) = (5, 5);
            let found = dqlite_node_describe_last_entry(node, &raw mut index, &raw mut term);
            if found != 0 {
                assert_eq!((index, term), (5, 5), "nothing is stored");
                table.says(
                    "node_describe_last_entry",
                    node,
                    (1, found),
                    &["dqlite_node_describe_last_entry(): io: "],
                );
                refused += 1;
            }
            destroy(node);
            let Some(node) = handle() else { continue };
            let mut list = [member(7, c"1", 0)];
            let found = dqlite_node_recover_ext(node, list.as_mut_ptr(), 1);
            if found != 0 {
                table.says("node_recover_ext", node, (1, found), &["raft_recover(): io: "]);
                refused += 1;
            }
            destroy(node);
        }
        fs::remove_dir_all(place.path()).unwrap();
        fs::create_dir(place.path()).unwrap();
        // SAFETY: a live handle, destroyed last, and a string.
        unsafe {
            let Some(node) = handle() else { continue };
            assert_eq!(dqlite_node_set_bind_address(node, c"@".as_ptr()), 0);
            let found = dqlite_node_start(node);
            if found != 0 {
                table.says("node_start", node, (1, found), &["raft_start(): io: "]);
                refused += 1;
            }
            destroy(node);
        }
    }
    refused
}

/// Lists that no cluster can have.
fn lists(table: &mut Table) {
    let place = TempDir::new().unwrap();
    let node = create(1, place.path());
    let (a, b) = (|id| member(id, c"a", 0), |id| member(id, c"b", 0));
    let (twice, no_text) = ("the id or the address is in the list twice; nothing was changed", c([0xff]));
    let no_address = dqlite_node_info_ext { address: 0, ..a(1) };
    let short = dqlite_node_info_ext { size: 24, ..a(1) };
    let wrong: [(Vec<dqlite_node_info_ext>, &[&str]); 8] = [
        (vec![], &["raft_recover(): servers: at least one expected, found none; nothing was changed"]),
        (vec![a(1), b(1)], &["raft_recover(): server 1 'b': ", twice]),
        (vec![a(1), a(2)], &["raft_recover(): server 2 'a': ", twice]),
        (vec![a(0)], &["raft_recover(): server 'a': an id other than 0 expected"]),
        (vec![member(1, c"a", 1)], &["raft_recover(): servers: a voter expected, found none; "]),
        (vec![member(1, &no_text, 0)], &["raft_recover(): server 1: an address in UTF-8 expected"]),
        (vec![no_address], &["raft_recover(): server 0 of the list: an address expected, found NULL"]),
        (vec![short], &["raft_recover(): server 0 of the list: a size of 32, "]),
    ];
    for (mut list, parts) in wrong {
        let count = c_int::try_from(list.len()).unwrap();
        // SAFETY: a live handle and a list of that length.
        let found = unsafe { dqlite_node_recover_ext(node, list.as_mut_ptr(), count) };
        table.says("node_recover_ext", node, (2, found), parts);
    }
    let list = "raft_recover(): a list of servers expected, found NULL";
    let mut nameless = dqlite_node_info { id: 1, address: null() };
    // SAFETY: live handles, destroyed last, and lists of the length that is said.
    unsafe {
        table.says("node_recover_ext", node, (2, dqlite_node_recover_ext(node, null_mut(), 1)), &[list]);
        table.says("node_recover", node, (2, dqlite_node_recover(node, null_mut(), 1)), &[list]);
        let parts = ["raft_recover(): server 0 of the list: an address expected"];
        table.says("node_recover", node, (2, dqlite_node_recover(node, &raw mut nameless, 1)), &parts);
        destroy(node);
        let node = create(1, place.path());
        let found = dqlite_node_recover(node, &raw mut nameless, -1);
        table.logs("node_recover", node, (3, found), "a count of servers expected, found -1");
        destroy(node);
    }
}

/// Nodes and directories that cannot be recovered or described.
fn recovering(table: &mut Table) {
    let place = TempDir::new().unwrap();
    let root = place.path();
    let (call, mut index, mut term) = ("node_describe_last_entry", 0, 0);
    let mut list = [member(1, c"a", 0)];
    // SAFETY: live handles, destroyed last, a list of one, and places for numbers.
    unsafe {
        let node = running(root);
        let found = dqlite_node_recover_ext(node, list.as_mut_ptr(), 1);
        let parts =
            ["raft_recover(): couldn't lock the raft directory: '", "; stop the node that uses it first"];
        table.says("node_recover_ext", node, (1, found), &parts);
        let found = dqlite_node_describe_last_entry(node, &raw mut index, &raw mut term);
        let parts =
            ["dqlite_node_describe_last_entry(): a node that was neither started nor failed expected"];
        table.says(call, node, (2, found), &parts);
        let found = dqlite_node_describe_last_entry(node, &raw mut index, null_mut());
        let parts = ["dqlite_node_describe_last_entry(): two places for numbers expected, found NULL"];
        table.says(call, node, (2, found), &parts);
        destroy(node);

        let (failed, _) = try_create(1, c"1", c"");
        let found = dqlite_node_recover_ext(failed, list.as_mut_ptr(), 1);
        let parts = ["raft_recover(): a new node expected, found one that failed"];
        table.says("node_recover_ext", failed, (2, found), &parts);
        destroy(failed);

        // Nothing can be written: a directory is in the way.
        fs::create_dir(root.join("tmp-cluster-before-recover.yaml")).unwrap();
        let node = create(1, root);
        let found = dqlite_node_recover_ext(node, list.as_mut_ptr(), 1);
        let parts = [
            "raft_recover(): io: '",
            "write cluster-before-recover.yaml: ",
            "; the members are as they were: mend that and try again",
        ];
        table.says("node_recover_ext", node, (1, found), &parts);
        destroy(node);
    }
}

fn settings(table: &mut Table) {
    let place = TempDir::new().unwrap();
    // SAFETY: live handles, destroyed last, and strings.
    unsafe {
        let node = create(1, place.path());
        let mut refused = |call, expected, found, part| table.logs(call, node, (expected, found), part);
        let (ns, ms) = (dqlite_node_set_network_latency, dqlite_node_set_network_latency_ms);
        refused(
            "node_set_network_latency",
            2,
            ns(node, 999_999),
            "1 ms to an hour expected, found 999999 ns",
        );
        refused("node_set_network_latency", 2, ns(node, u64::MAX), "1 ms to an hour expected, found");
        refused("node_set_network_latency_ms", 2, ms(node, 0), "1 to 3600000 ms expected, found 0");
        let few = dqlite_node_set_snapshot_params(node, 0, 3);
        refused("node_set_snapshot_params", 2, few, "at least 4 trailing entries expected, found 3");
        let few = dqlite_node_set_snapshot_params_v2(node, 9, 8, 0);
        refused("node_set_snapshot_params_v2", 2, few, "at least 9 trailing entries expected, found 8");
        let unknown = dqlite_node_set_snapshot_params_v2(node, 9, 9, 7);
        refused("node_set_snapshot_params_v2", 2, unknown, "0 or 1 expected as strategy, found 7");
        let odd = dqlite_node_set_block_size(node, 1000);
        refused("node_set_block_size", 1, odd, "a power of two from 512 to 262144 expected, found 1000");
        refused("node_enable_disk_mode", 1, dqlite_node_enable_disk_mode(node), "not supported any more");
        refused("node_stop", 2, dqlite_node_stop(node), "a node that runs expected");
        refused("node_handover", 2, dqlite_node_handover(node), "a node that runs expected");
        destroy(node);

        let node = running(place.path());
        let mut refused =
            |call, found| table.logs(call, node, (2, found), "a node that does not run expected");
        refused("node_set_bind_address", dqlite_node_set_bind_address(node, c"@".as_ptr()));
        refused("node_set_connect_func", dqlite_node_set_connect_func(node, None, null_mut()));
        refused("node_set_network_latency", ns(node, 1_000_000));
        refused("node_set_network_latency_ms", ms(node, 1));
        refused("node_set_snapshot_params", dqlite_node_set_snapshot_params(node, 9, 9));
        refused("node_set_snapshot_params_v2", dqlite_node_set_snapshot_params_v2(node, 9, 9, 0));
        refused("node_set_block_size", dqlite_node_set_block_size(node, 4096));
        refused("node_enable_disk_mode", dqlite_node_enable_disk_mode(node).max(2));
        let alone = dqlite_node_handover(node);
        table.logs("node_handover", node, (1, alone), "nothing more to hand over: ");
        assert_eq!(dqlite_node_stop(node), 0);
        let found = dqlite_node_set_bind_address(node, c"@".as_ptr());
        table.logs("node_set_bind_address", node, (2, found), "a new node expected");
        table.logs("node_stop", node, (2, dqlite_node_stop(node)), "a node that runs expected");
        destroy(node);
    }
}

/// Without a node there is no message, but a code.
fn without_a_node(table: &mut Table) {
    let none: *mut dqlite_node = null_mut();
    let (mut index, mut term) = (0, 0);
    // SAFETY: null is allowed everywhere; places for numbers.
    let codes = unsafe {
        [
            ("node_start", dqlite_node_start(none)),
            ("node_stop", dqlite_node_stop(none)),
            ("node_handover", dqlite_node_handover(none)),
            ("node_recover", dqlite_node_recover(none, null_mut(), 0)),
            ("node_recover_ext", dqlite_node_recover_ext(none, null_mut(), 0)),
            (
                "node_describe_last_entry",
                dqlite_node_describe_last_entry(none, &raw mut index, &raw mut term),
            ),
            ("node_set_bind_address", dqlite_node_set_bind_address(none, c"@".as_ptr())),
            ("node_set_connect_func", dqlite_node_set_connect_func(none, None, null_mut())),
            ("node_set_network_latency", dqlite_node_set_network_latency(none, 1_000_000)),
            ("node_set_network_latency_ms", dqlite_node_set_network_latency_ms(none, 1)),
            ("node_set_snapshot_params", dqlite_node_set_snapshot_params(none, 9, 9)),
            ("node_set_snapshot_params_v2", dqlite_node_set_snapshot_params_v2(none, 9, 9, 0)),
            ("node_set_block_size", dqlite_node_set_block_size(none, 4096)),
            ("node_set_failure_domain", dqlite_node_set_failure_domain(none, 1)),
            ("node_set_target_voters", dqlite_node_set_target_voters(none, 1)),
            ("node_set_target_standbys", dqlite_node_set_target_standbys(none, 1)),
            ("node_set_pool_thread_count", dqlite_node_set_pool_thread_count(none, 1)),
            ("node_set_auto_recovery", dqlite_node_set_auto_recovery(none, true)),
            ("node_set_snapshot_compression", dqlite_node_set_snapshot_compression(none, true)),
            ("node_set_busy_timeout", dqlite_node_set_busy_timeout(none, 1)),
            ("node_enable_role_management", dqlite_node_enable_role_management(none)),
            ("node_enable_disk_mode", dqlite_node_enable_disk_mode(none)),
        ]
    };
    for (call, found) in codes {
        table.says(call, none, (2, found), &["node is NULL"]);
    }
}

fn servers(table: &mut Table) {
    let place = TempDir::new().unwrap();
    let directory = path(place.path());
    let mut server: *mut dqlite_server = null_mut();
    // SAFETY: null, or a live handle that is destroyed last; strings.
    unsafe {
        let mut refused = |call, found, part| table.logs(call, null_mut(), (1, found), part);
        refused(
            "server_create",
            dqlite_server_create(null(), &raw mut server),
            "directory: a string expected",
        );
        refused(
            "server_create",
            dqlite_server_create(directory.as_ptr(), null_mut()),
            "a place for the server",
        );
        assert_eq!(dqlite_server_create(directory.as_ptr(), &raw mut server), 0);
        refused(
            "server_set_address",
            dqlite_server_set_address(server, null()),
            "address: a string expected",
        );
        refused(
            "server_set_bind_address",
            dqlite_server_set_bind_address(server, null()),
            "bind address: a string",
        );
        let one: [*const c_char; 1] = [null()];
        let (list, nobody) = (one.as_ptr(), null());
        refused(
            "server_set_auto_join",
            dqlite_server_set_auto_join(server, list, 1),
            "address to join: a string",
        );
        refused(
            "server_set_auto_join",
            dqlite_server_set_auto_join(server, nobody, 1),
            "1 addresses to join expected",
        );
        refused("server_stop", dqlite_server_stop(server), "stop: a server that runs expected");
        refused("server_handover", dqlite_server_handover(server), "handover: a server that runs expected");
        refused("server_start", dqlite_server_start(server), "an address expected, none was set");
        assert_eq!(dqlite_server_set_address(server, c"127.0.0.1:x".as_ptr()), 0);
        assert_eq!(dqlite_server_set_auto_bootstrap(server, true), 0);
        refused(
            "server_start",
            dqlite_server_start(server),
            "dqlite_node_set_bind_address(): '127.0.0.1:x': ",
        );
        let join = [c"127.0.0.1:1".as_ptr()];
        assert_eq!(dqlite_server_set_auto_join(server, join.as_ptr(), 1), 0);
        refused(
            "server_start",
            dqlite_server_start(server),
            "either auto-bootstrap or servers to join expected",
        );
        fs::write(place.path().join("server-info"), "v9\n").unwrap();
        assert_eq!(dqlite_server_set_auto_bootstrap(server, false), 0);
        refused("server_start", dqlite_server_start(server), "server-info");
        dqlite_server_destroy(server);
        let none = null_mut();
        for (call, found) in [
            ("server_set_auto_bootstrap", dqlite_server_set_auto_bootstrap(none, true)),
            ("server_set_connect_func", dqlite_server_set_connect_func(none, None, null_mut())),
            ("server_start", dqlite_server_start(none)),
            ("server_stop", dqlite_server_stop(none)),
        ] {
            assert_eq!(found, 1, "{call}");
            table.note(call);
        }
    }
}

#[test]
fn every_function_that_fails_says_why_where_the_header_promises_it() {
    log::set_logger(&Keep).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let mut table = Table::default();
    creating(&mut table);
    starting(&mut table);
    in_the_way(&mut table);
    lists(&mut table);
    recovering(&mut table);
    settings(&mut table);
    without_a_node(&mut table);
    servers(&mut table);
    let refused = damaged(&mut table);
    assert!(refused > 30, "{refused} directories were refused");
    let exported = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/include/symbols.txt")).unwrap();
    let missing: Vec<&str> = exported
        .split_whitespace()
        .filter(|name| !CANNOT_FAIL.contains(name) && !table.called.contains(*name))
        .collect();
    assert!(missing.is_empty(), "nothing is known of the failures of {missing:?}");
    println!("{} failures of {} functions", table.rows, table.called.len());
}
