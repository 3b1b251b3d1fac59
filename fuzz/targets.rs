//! What is fuzzed: each target takes any bytes, must not panic, and must not allocate much more than it was given.
//!
//! `fuzz_targets/` hands these to libFuzzer, `tests/fuzz` runs them over the kept corpus and mutations of it.

use std::io::Cursor;

use dqlite::base::{EntryKind, Index, NodeId, PageNo, Payload};
use dqlite::codec::client::{Context, Format, FrameReader, Request, Response, failure};
use dqlite::codec::command::{Command, split};
use dqlite::codec::membership::Configuration;
use dqlite::codec::peer::{self, Incoming, PeerReader};
use dqlite::disk::FaultDisk;
use dqlite::engine::apply::Applier;
use dqlite::engine::{Databases, Patience};
use dqlite::format::recovery::SegmentFile;
use dqlite::format::{lz4, metadata, segment, snapshot};
use dqlite::session::{Reply, Session, SessionEvent};
use dqlite::storage::loader::{self, LoadOptions};

/// Any bytes in; a panic says that something is wrong.
pub type Target = fn(&[u8]);

/// Every target and its name, which is also that of its corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("client_request", client_request),
    ("client_response", client_response),
    ("client_session", client_session),
    ("peer_stream", peer_stream),
    ("command", command),
    ("configuration", configuration),
    ("metadata", metadata_file),
    ("segment", segment_file),
    ("snapshot", snapshot_data),
    ("snapshot_meta", snapshot_meta),
    ("directory", directory),
];

/// The longest body that a fuzzed message may have; nodes take more.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// Messages of a client behind its handshake. What decodes is encoded and decoded again: it must stay the same.
pub fn client_request(data: &[u8]) {
    let mut frames = FrameReader::new(BODY_BYTES_MAX);
    frames.feed(data);
    while let Ok(Some(frame)) = frames.next_frame() {
        let Ok(request) = Request::decode(frame) else { continue };
        let encoded = request.encode().expect("what was short enough to come in is short enough to go out");
        let mut again = FrameReader::new(BODY_BYTES_MAX * 2);
        again.feed(&encoded);
        let frame = again.next_frame().expect("a good header").expect("a whole message");
        assert_eq!(Request::decode(frame).as_ref(), Ok(&request));
    }
}

/// Answers of a node, as the library's own client reads them.
pub fn client_response(data: &[u8]) {
    for legacy in [false, true] {
        let mut frames = FrameReader::new(BODY_BYTES_MAX);
        frames.feed(data);
        while let Ok(Some(frame)) = frames.next_frame() {
            let _any = Response::decode(frame, Context { legacy, format: Format::Roles });
        }
    }
}

/// A client's whole conversation: cut into pieces, its session asks for the same.
pub fn client_session(data: &[u8]) {
    let heard = |piece: usize| {
        let mut session = Session::new();
        let mut events = Vec::new();
        for bytes in data.chunks(piece) {
            session.handle_bytes(bytes);
        }
        let mut answers = Vec::new();
        loop {
            while let Some(event) = session.poll_event(true) {
                let ends = matches!(event, SessionEvent::Close(_) | SessionEvent::PeerUpgrade { .. });
                let waits = !matches!(event, SessionEvent::Interrupt);
                events.push(format!("{event:?}"));
                assert!(events.len() < data.len() + 8, "a session that asks for ever: {:?}", events.last());
                if ends {
                    return (events, answers);
                }
                if waits {
                    session.handle_reply(Reply::Failure(failure::FULL));
                }
            }
            answers.extend_from_slice(session.output());
            match session.output().len() {
                0 => return (events, answers),
                len => session.handle_written(len),
            }
        }
    };
    assert_eq!(heard(1), heard(data.len().max(1)));
}

/// Bytes of another server. What arrives is the same however it is cut; what can be encoded comes back.
pub fn peer_stream(data: &[u8]) {
    let heard = |piece: usize| {
        let (mut reader, mut heard, mut chunk) = (PeerReader::new(), Vec::new(), Vec::new());
        for bytes in data.chunks(piece) {
            reader.push(bytes);
            loop {
                match reader.next_incoming() {
                    Ok(Some(Incoming::SnapshotBytes(bytes))) => chunk.extend(bytes),
                    Ok(Some(other)) => {
                        heard.push(format!("{chunk:?} {other:?}"));
                        chunk.clear();
                        if let Incoming::Message(message) = other {
                            let mut out = Vec::new();
                            let _some_cannot_be_sent = peer::encode(&message, &mut out);
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        heard.push(error.to_string());
                        return heard;
                    }
                }
            }
        }
        heard
    };
    assert_eq!(heard(7), heard(data.len().max(1)));
}

/// An entry of the log, decoded and applied, in a row or in parts. The first byte says where the second entry begins.
pub fn command(data: &[u8]) {
    let _decoded = Command::decode(data);
    let Some((at, data)) = data.split_first() else { return };
    let (first, second) = data.split_at(data.len().min(usize::from(*at) * 64));
    let applied = |payload: fn(&[u8]) -> Payload| {
        let patience = Patience { wait: std::time::Duration::ZERO, idle: None };
        let mut databases = Databases::new(patience, 4096, 3_040_001);
        let mut applier = Applier::default();
        let mut apply = |(index, part)| applier.apply(&mut databases, Index(index), &payload(part));
        let results: Vec<_> = (2..).zip([data, first, second]).map(&mut apply).collect();
        let versions = databases.iter().map(|(_, state)| state.database.pin(dqlite::pages::View::Committed));
        (results, versions.collect::<Vec<_>>())
    };
    let (in_a_row, in_parts) =
        (applied(Payload::from_bytes), applied(|part| split(EntryKind::Command, part)));
    assert_eq!(in_a_row.0, in_parts.0);
    assert_eq!(in_a_row.1.len(), in_parts.1.len());
    for (version, other) in in_a_row.1.iter().zip(&in_parts.1) {
        // A database may say that it has any number of pages; those that nobody sent take no memory.
        assert!(version.n_pages() >= 1 && version.n_pages() == other.n_pages());
        let some = |page: u32| version.page(PageNo(page)) == other.page(PageNo(page));
        assert!((1..=version.n_pages().min(1000)).all(some), "{version:?}");
    }
}

/// The servers of a cluster.
pub fn configuration(data: &[u8]) {
    if let Ok(found) = Configuration::decode(data) {
        assert_eq!(Configuration::decode(&found.encode()).as_ref(), Ok(&found));
    }
}

/// Both metadata files, one behind the other.
pub fn metadata_file(data: &[u8]) {
    let (first, second) = data.split_at(data.len().min(metadata::METADATA_BYTES));
    let first = metadata::decode("metadata1", first);
    let second = metadata::decode("metadata2", second);
    if let (Ok(first), Ok(second)) = (first, second) {
        let _newer = metadata::newer(first, second);
    }
}

/// A segment of the log.
pub fn segment_file(data: &[u8]) {
    let decoded = segment::decode(data);
    let file = SegmentFile::new("open-1", &decoded, data);
    assert!(file.used <= data.len() as u64);
    for at in [0, 8, 16, data.len() as u64 / 2] {
        let _found = segment::good_batch_after(data, at);
    }
}

/// The data of a snapshot, compressed or not.
pub fn snapshot_data(data: &[u8]) {
    let _databases = snapshot::decode_data(Cursor::new(data), data.len() as u64);
    let mut out = Limited(8 << 20);
    let _whole = lz4::decompress(Cursor::new(data), &mut out);
}

/// Takes a few MiB and then no more.
struct Limited(usize);

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The small file beside it.
pub fn snapshot_meta(data: &[u8]) {
    let _meta = snapshot::decode_meta("snapshot-1-1-1.meta", data);
}

/// The names that the files of a directory may have here.
pub const FILES: [&str; 12] = [
    "metadata1",
    "metadata2",
    "open-1",
    "open-2",
    "open-3",
    "0000000000000001-0000000000000001",
    "0000000000000001-0000000000000003",
    "0000000000000002-0000000000000003",
    "0000000000000004-0000000000000006",
    "snapshot-1-3-5",
    "snapshot-1-3-5.meta",
    "snapshot-1-2-4.meta",
];

/// A whole directory: for each file the number of its name, four bytes for its length, and its content. When it
/// loads, it loads again and holds the same.
pub fn directory(data: &[u8]) {
    let mut disk = FaultDisk::new(1);
    let mut rest = data;
    while let Some(([name, a, b, c, d], tail)) = rest.split_first_chunk::<5>() {
        let len = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let (content, tail) = tail.split_at(tail.len().min(len));
        disk.put(FILES[usize::from(*name) % FILES.len()], content);
        rest = tail;
    }
    for auto_recovery in [false, true] {
        let options = LoadOptions { auto_recovery, id: NodeId(1), wall_ns: 1_700_000_000_000_000_000 };
        let Ok(loaded) = loader::load(&mut disk, &options) else { continue };
        let again = loader::load(&mut disk, &options).expect("what loaded once loads again");
        assert_eq!(loaded.entries, again.entries);
        assert_eq!(
            (loaded.term, loaded.voted_for, loaded.last_index),
            (again.term, again.voted_for, again.last_index)
        );
    }
}
