//! Good bytes of every kind, from which mutations start.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use dqlite::base::{Entry, EntryKind, Index, NodeId, PageNo, Payload, Role, Term};
use dqlite::codec::client::{OwnedParams, PROTOCOL_VERSION, Param, Request, Schema};
use dqlite::codec::command::encode_frames;
use dqlite::codec::membership::{Configuration, Server};
use dqlite::codec::peer::{
    AppendEntries, AppendResult, InstallSnapshot, Message, RequestVote, TimeoutNow, VoteResult, encode,
    encode_connect,
};
use dqlite::disk::{Disk, FaultDisk};
use dqlite::format::metadata::Metadata;
use dqlite::format::segment::encode_batch;
use dqlite::format::snapshot::encode_meta;
use dqlite::node::effect::SnapshotJob;
use dqlite::pages::{Database, View};
use dqlite::runtime::snapshot;
use dqlite::storage::loader::{self, LoadOptions};
use dqlite::storage::writer::{Writer, WriterConfig, WriterState};

use crate::targets::FILES;

fn put(folder: &Path, target: &str, name: &str, bytes: &[u8]) {
    let folder = folder.join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

/// Writes the seeds of all targets.
pub fn write(folder: &Path) {
    let requests = requests();
    for (name, bytes) in &requests {
        put(folder, "client_request", name, bytes);
        put(folder, "client_session", name, &[PROTOCOL_VERSION.to_le_bytes().as_slice(), bytes].concat());
    }
    let all: Vec<u8> = requests.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    put(
        folder,
        "client_session",
        "conversation",
        &[PROTOCOL_VERSION.to_le_bytes().as_slice(), &all].concat(),
    );
    for (name, bytes) in responses() {
        put(folder, "client_response", name, &bytes);
    }
    for (name, bytes) in peer_messages() {
        put(folder, "peer_stream", name, &bytes);
    }
    let frames = frames("test", 1..=2).contiguous().to_vec();
    put(folder, "command", "frames", &[&[2][..], &frames].concat());
    put(folder, "command", "two", &[&[66][..], &frames, &frames].concat());
    put(folder, "configuration", "three", &configuration(3).encode());
    put(folder, "configuration", "none", &configuration(0).encode());
    let metadata = |version| Metadata { version, term: Term(3), voted_for: NodeId(1) }.encode();
    put(folder, "metadata", "both", &[metadata(1), metadata(2)].concat());
    put(folder, "segment", "two-batches", &segment());
    put(folder, "snapshot_meta", "meta", &encode_meta(Index(2), &configuration(2).encode()));
    for compress in [false, true] {
        let name = if compress { "compressed" } else { "plain" };
        let disk = disk_with_snapshot(compress);
        let data = files(&disk)
            .into_iter()
            .find(|(name, _)| name.starts_with("snapshot") && !name.ends_with("meta"));
        put(folder, "snapshot", name, &data.unwrap().1);
        put(folder, "directory", &format!("snapshot-{name}"), &packed(&disk));
    }
    put(folder, "directory", "log", &packed(&disk_with_log()));
    let closed = disk_with_log();
    writer(&closed).close().unwrap();
    put(folder, "directory", "stopped", &packed(&closed));
}

fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let some = OwnedParams::new(&[
        Param::Integer(7),
        Param::Text(b"seven"),
        Param::Blob(&[1; 20]),
        Param::Null,
        Param::Float(0.5),
    ]);
    let none = OwnedParams::default();
    let (schema, db) = (Schema::V0, 0);
    let requests = [
        ("leader", Request::Leader),
        ("client", Request::Client { id: 1 }),
        ("open", Request::Open { filename: b"bad", flags: 6, vfs: b"volatile" }),
        ("prepare", Request::Prepare { schema, db, sql: b"INSERT INTO t VALUES(?, ?, ?, ?)" }),
        ("prepare-1", Request::Prepare { schema: Schema::V1, db, sql: b"SELECT * FROM t; SELECT 2" }),
        ("exec", Request::Exec { schema, db: 0, stmt: 0, params: some.view() }),
        ("exec-1", Request::Exec { schema: Schema::V1, db: 0, stmt: 0, params: some.view() }),
        ("query", Request::Query { schema, db: 0, stmt: 1, params: none.view() }),
        ("exec-sql", Request::ExecSql { schema, db, sql: b"CREATE TABLE t(a)", params: none.view() }),
        ("query-sql", Request::QuerySql { schema: Schema::V1, db, sql: b"SELECT ?", params: some.view() }),
        ("interrupt", Request::Interrupt { db }),
        ("finalize", Request::Finalize { db: 0, stmt: 0 }),
        ("dump", Request::Dump { filename: b"bad" }),
        ("cluster", Request::Cluster { format: 1 }),
        ("describe", Request::Describe { format: 0 }),
        ("weight", Request::Weight { weight: 3 }),
        ("add", Request::Add { id: NodeId(7), address: b"127.0.0.1:7" }),
        ("assign", Request::Assign { id: NodeId(7), role: Role::StandBy }),
        ("remove", Request::Remove { id: NodeId(7) }),
        ("transfer", Request::Transfer { id: NodeId(0) }),
        ("connect", Request::Connect { id: NodeId(2), address: b"127.0.0.1:9002" }),
    ];
    requests.into_iter().map(|(name, request)| (name, request.encode().unwrap())).collect()
}

/// A message of the protocol, by hand.
fn message(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let words = u32::try_from(body.len() / 8).unwrap().to_le_bytes();
    [&words[..], &[kind, 0, 0, 0], &body].concat()
}

fn responses() -> Vec<(&'static str, Vec<u8>)> {
    let word = |value: u64| value.to_le_bytes();
    vec![
        ("failure", message(0, &[&word(5), b"database is locked\0\0\0\0\0\0"])),
        ("server", message(1, &[&word(1), b"127.0.0.1:9001\0\0"])),
        ("servers", message(3, &[&word(1), &word(1), b"127.0.0.1:9001\0\0", &word(0)])),
        ("db", message(4, &[&word(0)])),
        ("stmt", message(5, &[&word(1 << 32), &word(2)])),
        ("result", message(6, &[&word(3), &word(1)])),
        (
            "rows",
            message(
                7,
                &[
                    &word(2),
                    b"a\0\0\0\0\0\0\0",
                    b"b\0\0\0\0\0\0\0",
                    &word(0x31),
                    &word(7),
                    b"text\0\0\0\0",
                    &[0xff; 8],
                ],
            ),
        ),
        ("empty", message(8, &[&word(0)])),
        ("files", message(9, &[&word(1), b"test\0\0\0\0", &word(16), &[7; 16]])),
        ("metadata", message(10, &[&word(1), &word(2)])),
    ]
}

fn configuration(count: u64) -> Configuration {
    let roles = [Role::Voter, Role::StandBy, Role::Spare];
    let server =
        |(id, role): (u64, Role)| Server { id: NodeId(id), address: format!("127.0.0.1:900{id}"), role };
    let count = usize::try_from(count).unwrap();
    Configuration { servers: (1..).zip(roles).take(count).map(server).collect() }
}

fn frames(name: &str, pages: std::ops::RangeInclusive<u32>) -> Payload {
    let database = Database::new(name.as_bytes(), 512, 3_040_001);
    let first = database.pin(View::Committed).page(PageNo(1)).unwrap().as_slice().to_vec();
    let image =
        |no: u32| if no == 1 { first.clone().into() } else { vec![u8::try_from(no).unwrap(); 512].into() };
    let pages: Vec<_> = pages.map(|no| (PageNo(no), image(no))).collect();
    encode_frames(name.as_bytes(), 512, pages)
}

fn entry(index: u64, kind: EntryKind, payload: Payload) -> Entry {
    Entry { index: Index(index), term: Term(1), kind, payload }
}

fn entries() -> Vec<Entry> {
    vec![
        entry(2, EntryKind::Command, frames("a", 1..=1)),
        entry(3, EntryKind::Barrier, Payload::from_bytes(&[0; 8])),
        entry(4, EntryKind::Change, Payload::from_bytes(&configuration(2).encode())),
        entry(5, EntryKind::Command, frames("b", 1..=2)),
    ]
}

fn segment() -> Vec<u8> {
    let mut bytes = 1_u64.to_le_bytes().to_vec();
    encode_batch(&entries()[..2], &mut bytes);
    encode_batch(&entries()[2..], &mut bytes);
    bytes.resize(bytes.len() + 512, 0);
    bytes
}

fn peer_messages() -> Vec<(&'static str, Vec<u8>)> {
    let (term, last_index, last_term) = (Term(3), Index(40), Term(2));
    let appended = AppendEntries {
        term,
        prev_index: Index(1),
        prev_term: Term(1),
        commit: Index(1),
        entries: entries(),
    };
    let heartbeat = AppendEntries { entries: Vec::new(), ..appended.clone() };
    let vote = |disrupt_leader, pre_vote| {
        Message::RequestVote(RequestVote {
            term,
            candidate: NodeId(7),
            last_index,
            last_term,
            disrupt_leader,
            pre_vote,
        })
    };
    let configuration = configuration(2);
    let snapshot = InstallSnapshot {
        term,
        last_index,
        last_term,
        configuration_index: Index(5),
        configuration_bytes: configuration.encode(),
        configuration,
        data_bytes: 600,
    };
    let messages = [
        ("append", Message::AppendEntries(appended)),
        ("heartbeat", Message::AppendEntries(heartbeat)),
        (
            "append-result",
            Message::AppendResult(AppendResult { term, rejected: 0, last_index, features: Some(1) }),
        ),
        ("vote", vote(true, false)),
        ("pre-vote", vote(false, true)),
        ("vote-result", Message::VoteResult(VoteResult { term, granted: true, pre_vote: Some(false) })),
        ("timeout-now", Message::TimeoutNow(TimeoutNow { term, last_index, last_term })),
        ("snapshot", Message::InstallSnapshot(snapshot)),
    ];
    let mut found = Vec::new();
    for (name, message) in messages {
        let mut out = Vec::new();
        encode(&message, &mut out).unwrap();
        if name == "snapshot" {
            out.resize(out.len() + 600, 5);
        }
        found.push((name, out));
    }
    let stream: Vec<u8> = found.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    found.push(("stream", stream));
    found.push(("connect", encode_connect(NodeId(2), "127.0.0.1:9002").1));
    found
}

fn writer(disk: &FaultDisk) -> Writer<FaultDisk> {
    let options = LoadOptions { auto_recovery: true, id: NodeId(1), wall_ns: 1 };
    let state = WriterState::from(&loader::load(&mut disk.clone(), &options).unwrap());
    let config = WriterConfig { segment_bytes: 4096, block_size: 512, prewrite: false };
    Writer::new(disk.clone(), state, config)
}

fn disk_with_log() -> FaultDisk {
    let mut disk = FaultDisk::new(1);
    loader::prepare(&mut disk).unwrap();
    assert!(loader::bootstrap(&mut disk, NodeId(1), "127.0.0.1:9001").unwrap());
    let mut writer = writer(&disk);
    writer.set_metadata(Term(1), NodeId(1)).unwrap();
    let all = entries();
    writer.append(&[all[..1].to_vec(), all[1..2].to_vec()]).unwrap();
    disk
}

fn disk_with_snapshot(compress: bool) -> FaultDisk {
    let disk = disk_with_log();
    let job = SnapshotJob {
        index: Index(3),
        term: Term(1),
        configuration: configuration(1),
        configuration_index: Index(1),
        databases: vec![(b"test".to_vec(), Database::new(b"test", 512, 3_040_001).pin(View::Committed))],
    };
    // Before the snapshot: a start deletes what has a temporary name.
    let mut writer = writer(&disk);
    let finished = snapshot::write(disk.clone(), job, compress, 5, &AtomicBool::new(false)).unwrap();
    writer.install_snapshot_files(finished, 1).unwrap();
    disk
}

fn files(disk: &FaultDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.clone().list().unwrap();
    names.into_iter().map(|(name, _)| (name.clone(), disk.content(&name).unwrap())).collect()
}

/// As the target `directory` unpacks it.
fn packed(disk: &FaultDisk) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files(disk) {
        let Some(at) = FILES.iter().position(|file| *file == name) else { continue };
        bytes.push(u8::try_from(at).unwrap());
        bytes.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        bytes.extend(content);
    }
    bytes
}
