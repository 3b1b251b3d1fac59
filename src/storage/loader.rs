//! Interim loader.
#![allow(missing_docs, clippy::too_many_lines)]
use crate::base::*;
use crate::codec::membership::{Configuration, Server};
use crate::disk::Disk;
use crate::format::names::FileName;
use crate::format::{metadata, names, segment};
use std::sync::Arc;
pub struct LoadOptions {
    pub auto_recovery: bool,
    pub compression: bool,
    pub id: NodeId,
    pub wall_ns: u64,
}
pub struct LoadedSnapshot {
    pub term: Term,
    pub index: Index,
    pub configuration: Configuration,
    pub configuration_index: Index,
    pub time: u64,
    pub databases: Vec<SnapshotDatabase>,
}
pub struct SnapshotDatabase {
    pub name: Vec<u8>,
    pub page_size: u32,
    pub n_pages: u32,
    pub pages: Vec<(PageNo, Vec<u8>)>,
}
pub struct Loaded {
    pub term: Term,
    pub voted_for: NodeId,
    pub metadata_version: u64,
    pub snapshot: Option<LoadedSnapshot>,
    pub first_index: Index,
    pub entries: Vec<Entry>,
    pub last_index: Index,
    pub last_term: Term,
    pub configuration: Configuration,
    pub configuration_index: Index,
    pub configuration_committed: bool,
    pub closed_segments: Vec<(Index, Index)>,
    pub newest_snapshot_time: u64,
    pub notes: Vec<String>,
}
fn meta<D: Disk>(disk: &mut D) -> Option<metadata::Metadata> {
    let a = disk.read_all("metadata1").ok().and_then(|b| metadata::decode("metadata1", &b).ok().flatten());
    let b = disk.read_all("metadata2").ok().and_then(|b| metadata::decode("metadata2", &b).ok().flatten());
    metadata::newer(a, b).ok().flatten()
}
pub fn load<D: Disk>(disk: &mut D, _options: &LoadOptions) -> Result<Loaded, String> {
    let m = meta(disk);
    let mut closed = Vec::new();
    let mut open = Vec::new();
    for (name, _) in disk.list().map_err(|e| e.to_string())? {
        match FileName::parse(&name) {
            FileName::Closed(f, l) => closed.push((f, l, name)),
            FileName::Open(n) => open.push((n, name)),
            _ => {}
        }
    }
    closed.sort();
    open.sort();
    let mut entries = Vec::new();
    let mut next = Index(1);
    let mut segs = Vec::new();
    let mut add = |seg: &segment::Segment<'_>, next: &mut Index| {
        for e in &seg.entries {
            entries.push(Entry {
                index: *next,
                term: e.term,
                kind: e.kind,
                payload: Payload::from_parts(vec![Arc::from(e.payload)]),
            });
            *next = next.next();
        }
    };
    for (f, l, name) in &closed {
        let b = disk.read_all(name).map_err(|e| e.to_string())?;
        let s = segment::decode_closed(name, *f, *l, &b);
        add(&s, &mut next);
        segs.push((*f, *l));
    }
    for (_, name) in &open {
        let b = disk.read_all(name).map_err(|e| e.to_string())?;
        let s = segment::decode_open(name, &b);
        let first = next;
        add(&s, &mut next);
        if next == first {
            disk.unlink(name).map_err(|e| e.to_string())?;
        } else {
            let last = next.prev();
            let mut file = disk.open(name).map_err(|e| e.to_string())?;
            disk.set_len(&mut file, s.used).map_err(|e| e.to_string())?;
            disk.sync(&mut file).map_err(|e| e.to_string())?;
            disk.rename(name, &names::closed_name(first, last)).map_err(|e| e.to_string())?;
            segs.push((first, last));
        }
    }
    disk.sync_dir().map_err(|e| e.to_string())?;
    let mut configuration = Configuration::default();
    let mut ci = Index(0);
    for e in &entries {
        if e.kind == EntryKind::Change {
            configuration = Configuration::decode(&e.payload.contiguous()).map_err(|e| e.to_string())?;
            ci = e.index;
        }
    }
    let last_term = entries.last().map_or(Term(0), |e| e.term);
    Ok(Loaded {
        term: m.map_or(Term(0), |m| m.term),
        voted_for: m.map_or(NodeId(0), |m| m.voted_for),
        metadata_version: m.map_or(0, |m| m.version),
        snapshot: None,
        first_index: Index(1),
        last_index: next.prev(),
        last_term,
        configuration,
        configuration_index: ci,
        configuration_committed: ci.0 == 1,
        closed_segments: segs,
        newest_snapshot_time: 0,
        notes: Vec::new(),
        entries,
    })
}
pub fn bootstrap<D: Disk>(disk: &mut D, id: NodeId, address: &str) -> Result<bool, String> {
    if meta(disk).is_some() || !crate::base::ids::BOOTSTRAP_IDS.contains(&id) {
        return Ok(false);
    }
    let e = |e: std::io::Error| e.to_string();
    let m = metadata::Metadata { version: 1, term: Term(1), voted_for: NodeId(0) };
    let mut f = disk.create("metadata1").map_err(e)?;
    disk.write_at(&mut f, 0, &m.encode()).map_err(e)?;
    disk.sync(&mut f).map_err(e)?;
    let c = Configuration { servers: vec![Server { id, address: address.to_owned(), role: Role::Voter }] };
    let entry = Entry {
        index: Index(1),
        term: Term(1),
        kind: EntryKind::Change,
        payload: Payload::from_bytes(&c.encode()),
    };
    let mut out = segment::SEGMENT_HEADER.to_vec();
    segment::encode_batch(&[entry], &mut out);
    let mut f = disk.create("tmp-x").map_err(e)?;
    disk.write_at(&mut f, 0, &out).map_err(e)?;
    disk.sync(&mut f).map_err(e)?;
    disk.rename("tmp-x", &names::closed_name(Index(1), Index(1))).map_err(e)?;
    disk.sync_dir().map_err(e)?;
    Ok(true)
}
