//! The log as raft-rs sees it: an index in memory that always answers, and a byte-bounded cache of payloads.
//!
//! raft-rs gets *handles*: the data of its entries says only which kind an entry is and how long its payload;
//! `(term, index)` names the payload, which waits in [`LogView::stage`] until the entry enters the log and
//! in the cache afterwards. Kinds and lengths of all entries are kept, terms as runs.
//!
//! Invariants:
//! - the cache holds the payloads of an unbroken tail of the log; its front is dropped beyond the bound,
//!   but never an entry that is not yet persisted or not yet applied ([`LogView::pin_after`]);
//! - the term of the entry before the first one is known. Where a directory does not tell it, the first
//!   entry serves as that entry and is kept for its term alone.
//!
//! Terms may fall along the log (offline recovery writes term 1): nothing here assumes the contrary.
//! A broken invariant panics; the adapter around raft-rs turns that into an unavailable node.

mod bounds;
mod storage;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::eraftpb::{ConfState, Entry as RaftEntry, HardState};
use raft::{GetEntriesContext, RaftState, StorageError};

use super::{Restored, SnapshotMeta};
use crate::base::{Entry, EntryKind, Index, Payload, Term, limits};

/// `Entry.context` of a configuration entry inside raft-rs.
pub(super) const CHANGE_CONTEXT: [u8; 1] = [EntryKind::Change as u8];

/// A payload of more bytes is dropped where nobody waits.
const LARGE_PAYLOAD_BYTES: usize = 4 << 20;

/// Kind and payload length of one entry in eight bytes.
#[derive(Clone, Copy, Debug)]
struct Shape(u64);

impl Shape {
    fn new(kind: EntryKind, len: usize) -> Self {
        Self((len as u64) << 8 | u64::from(kind.code()))
    }

    fn kind(self) -> EntryKind {
        let [code, ..] = self.0.to_le_bytes();
        EntryKind::from_code(code).unwrap_or(EntryKind::Barrier)
    }

    fn len(self) -> u64 {
        self.0 >> 8
    }
}

/// What stands for a payload inside raft-rs: nothing for a barrier, else kind and length.
pub(super) fn handle(kind: EntryKind, len: u64) -> (Vec<u8>, Vec<u8>) {
    let mut data = Vec::new();
    let mut context = Vec::new();
    match kind {
        EntryKind::Barrier => {}
        EntryKind::Command | EntryKind::Change => {
            data.reserve_exact(9);
            data.push(kind.code());
            data.extend_from_slice(&len.to_le_bytes());
        }
    }
    if kind == EntryKind::Change {
        context.extend_from_slice(&CHANGE_CONTEXT);
    }
    (context, data)
}

/// What [`LogView::append`] did.
#[derive(Debug, Default)]
pub(super) struct Appended {
    /// The first index that was overwritten, if any was.
    pub(super) truncated_from: Option<Index>,
    /// The entries with their payloads.
    pub(super) entries: Vec<Entry>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct LogView {
    initial: RaftState,
    snapshot: Option<(SnapshotMeta, ConfState)>,
    /// Index and term of the entry before the first.
    before: (u64, u64),
    shapes: VecDeque<Shape>,
    /// First index and term of each stretch of entries with one term.
    runs: VecDeque<(u64, u64)>,
    payloads: VecDeque<Payload>,
    cached_bytes: usize,
    cached_bytes_max: usize,
    /// Bytes of the payloads of all entries, in memory or on disk.
    kept_bytes: u64,
    pinned_after: u64,
    staged: BTreeMap<(u64, u64), (EntryKind, Payload)>,
    /// The first entry of the term that this server leads: an append must not end before it.
    append_floor: u64,
    /// What appends need and is not in memory.
    wanted: RefCell<Vec<Wanted>>,
    /// Entries read from disk for appends that are about to be made.
    fetched: BTreeMap<u64, Vec<Entry>>,
    /// Entries up to here could not be read from disk.
    unreadable_to: u64,
    /// The entry that a peer needs next, and neither can be sent nor is covered by the snapshot.
    uncovered: Cell<Option<u64>>,
    /// Peers that get no snapshot for now.
    resting: BTreeSet<u64>,
    /// Payloads that are not needed here any more, and take long to give back.
    shed: Vec<Payload>,
    #[cfg(test)]
    append_bytes: Option<u64>,
}

/// Entries that raft-rs would send and that are on disk only.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) first: Index,
    pub(super) last: Index,
    /// What raft-rs wants to be reminded of when they are there.
    pub(super) context: GetEntriesContext,
}

impl LogView {
    /// An empty log that caches up to `cached_bytes_max` bytes.
    pub(super) fn new(cached_bytes_max: usize) -> Self {
        Self { cached_bytes_max, ..Self::default() }
    }

    /// The log that a data directory holds.
    ///
    /// # Errors
    /// When the entries do not join each other or the snapshot; the text says what was expected and found.
    pub(super) fn restore(restored: &mut Restored, cached_bytes_max: usize) -> Result<Self, String> {
        let mut view = Self::new(cached_bytes_max);
        let entries = std::mem::take(&mut restored.entries);
        let first = restored.first_index.0;
        for (expected, entry) in (first..).zip(&entries) {
            if entry.index.0 != expected {
                return Err(format!("log entry: index {expected} expected, found {}", entry.index));
            }
        }
        let last = entries.last().map_or(0, |entry| entry.index.0);
        if let Some(snapshot) = &restored.snapshot {
            view.before = (snapshot.index.0, snapshot.term.0);
        }
        let (covered, covered_term) = view.before;
        if entries.is_empty() || last < covered {
            return Ok(view);
        }
        if first == 0 || first > covered + 1 {
            return Err(format!("first log entry: index {} at most expected, found {first}", covered + 1));
        }
        if first <= covered {
            view.before = (first - 1, 0);
        }
        entries.into_iter().for_each(|entry| view.push(entry.term.0, entry.kind, entry.payload));
        if first <= covered {
            if view.term_at(Index(covered)) != Some(Term(covered_term)) {
                return Err(format!(
                    "log entry {covered}: term {covered_term} of the snapshot expected, found {:?}",
                    view.term_at(Index(covered))
                ));
            }
            if first > 1 {
                // Nothing tells the term of the entry before `first`: it stays for its own term only.
                view.drop_front(first);
            }
        }
        Ok(view)
    }

    /// What raft-rs is told when it starts on this log.
    pub(super) fn set_initial_state(&mut self, hard_state: HardState, conf_state: ConfState) {
        self.initial = RaftState { hard_state, conf_state };
    }

    /// The newest snapshot, and what raft-rs calls its configuration.
    pub(super) fn set_snapshot(&mut self, snapshot: SnapshotMeta, conf_state: ConfState) {
        self.snapshot = Some((snapshot, conf_state));
    }

    /// The snapshot takes the place of the whole log.
    pub(super) fn start_over(&mut self) {
        let before = self.snapshot.as_ref().map_or((0, 0), |(meta, _)| (meta.index.0, meta.term.0));
        self.before = before;
        self.shapes.clear();
        self.runs.clear();
        std::mem::take(&mut self.payloads).into_iter().for_each(|payload| self.shed(payload));
        self.staged.clear();
        self.fetched.clear();
        self.cached_bytes = 0;
        self.kept_bytes = 0;
    }

    /// The newest snapshot.
    pub(super) fn snapshot_meta(&self) -> Option<&SnapshotMeta> {
        self.snapshot.as_ref().map(|(meta, _)| meta)
    }

    /// The index of the first entry.
    pub(super) fn first(&self) -> u64 {
        self.before.0 + 1
    }

    /// The index of the last entry; that before the first when there is none.
    pub(super) fn last(&self) -> u64 {
        self.before.0 + self.shapes.len() as u64
    }

    /// How many bytes of payload are in memory.
    pub(super) fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// Bytes of the payloads of all entries, in memory or on disk.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// The term of an entry, if the entry or at least its term is known.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        let Index(index) = index;
        if index == self.before.0 {
            return Some(Term(self.before.1));
        }
        if index < self.before.0 || index > self.last() {
            return None;
        }
        let run = self.runs.partition_point(|&(first, _)| first <= index).checked_sub(1)?;
        self.runs.get(run).map(|&(_, term)| Term(term))
    }

    /// The highest term in the log: not always the last.
    pub(super) fn highest_term(&self) -> Term {
        let before = if self.before.0 > 0 { self.before.1 } else { 0 };
        Term(self.runs.iter().map(|&(_, term)| term).max().unwrap_or(0).max(before))
    }

    /// An entry with its payload, if the payload is in memory.
    pub(super) fn entry(&self, index: Index) -> Option<Entry> {
        let term = self.term_at(index)?;
        let shape = self.shapes.get(usize::try_from(index.0.checked_sub(self.first())?).ok()?)?;
        let place = index.0.checked_sub(self.first_cached())?;
        let payload = self.payloads.get(usize::try_from(place).ok()?)?.clone();
        Some(Entry { index, term, kind: shape.kind(), payload })
    }

    /// An entry with its payload, from memory or as it was just read from disk.
    pub(super) fn entry_to_send(&self, index: Index) -> Option<Entry> {
        self.entry(index).or_else(|| {
            let (&first, block) = self.fetched.range(..=index.0).next_back()?;
            block.get(usize::try_from(index.0 - first).ok()?).cloned()
        })
    }

    pub(super) fn set_append_floor(&mut self, first: Index) {
        self.append_floor = first.0;
    }

    /// What appends needed since this was asked last.
    pub(super) fn take_wanted(&mut self) -> Vec<Wanted> {
        std::mem::take(self.wanted.get_mut())
    }

    /// An entry that a peer needed since this was asked last, and that cannot be sent to it: only a snapshot that
    /// covers it would help, and there is none.
    pub(super) fn take_uncovered(&self) -> Option<Index> {
        self.uncovered.take().map(Index)
    }

    /// Whether a peer that has all entries before `low` can be sent the others.
    pub(super) fn is_sendable_from(&self, low: Index) -> bool {
        self.end_of_append(low.0, self.last() + 1).is_some()
    }

    /// Whether this peer gets no snapshot for now.
    pub(super) fn set_resting(&mut self, peer: u64, rests: bool) {
        if rests {
            self.resting.insert(peer);
        } else {
            self.resting.remove(&peer);
        }
    }

    /// Entries from `first` on were read from disk. Returns whether they are those of this log.
    pub(super) fn fetch(&mut self, first: Index, entries: Vec<Entry>) -> bool {
        let mut expected = first.0..;
        let fits = |entry: &Entry| {
            expected.next() == Some(entry.index.0) && self.term_at(entry.index) == Some(entry.term)
        };
        let fits = entries.iter().all(fits);
        if fits {
            self.fetched.insert(first.0, entries);
        }
        fits
    }

    /// Entries up to `last` cannot be read: whoever needs them gets a snapshot.
    pub(super) fn note_unreadable(&mut self, last: Index) {
        self.unreadable_to = self.unreadable_to.max(last.0);
    }

    /// The appends that needed entries from disk are made.
    pub(super) fn drop_fetched(&mut self) {
        self.fetched.clear();
    }

    /// Bytes of the payloads from `low` up to, and without, `high`; no further than it takes to exceed `limit`.
    pub(super) fn bytes_between(&self, low: u64, high: u64, limit: u64) -> u64 {
        let skip = usize::try_from(low.saturating_sub(self.first())).unwrap_or(usize::MAX);
        let count = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        for shape in self.shapes.iter().skip(skip).take(count) {
            bytes += shape.len();
            if bytes > limit {
                break;
            }
        }
        bytes
    }

    /// Where an append that begins at `low` is to end: not before the first entry of the leader's term, and beyond
    /// it with no more bytes than a message is to have. `None`: it would be larger than a peer takes.
    fn end_of_append(&self, low: u64, high: u64) -> Option<u64> {
        let least = low.max(self.append_floor).saturating_add(1).min(high);
        let bytes_max = limits::PEER_PAYLOAD_BYTES_MAX;
        let mut bytes = self.bytes_between(low, least, bytes_max);
        let entries = usize::try_from(least - low).unwrap_or(usize::MAX);
        if bytes > bytes_max || entries > limits::PEER_ENTRIES_MAX || low <= self.unreadable_to {
            return None;
        }
        let mut end = least;
        let skip = usize::try_from(end - self.first()).unwrap_or(usize::MAX);
        for shape in self.shapes.iter().skip(skip) {
            bytes += shape.len();
            if end >= high || bytes > self.append_bytes() {
                break;
            }
            end += 1;
        }
        Some(end)
    }

    /// The end of an append for which everything is in memory, or why there is none.
    fn prepare_append(&self, low: u64, high: u64, context: GetEntriesContext) -> Result<u64, StorageError> {
        let Some(end) = self.end_of_append(low, high) else {
            let covered = self.snapshot.as_ref().is_some_and(|(meta, _)| meta.index.0 >= low);
            if covered {
                return Err(StorageError::Compacted);
            }
            self.uncovered.set(Some(self.uncovered.get().map_or(low, |other| other.max(low))));
            return Err(StorageError::LogTemporarilyUnavailable);
        };
        let missing = end.min(self.first_cached());
        if low < missing && (low..missing).any(|index| self.entry_to_send(Index(index)).is_none()) {
            let (first, last) = (Index(low), Index(missing).prev());
            self.wanted.borrow_mut().push(Wanted { first, last, context });
            return Err(StorageError::LogTemporarilyUnavailable);
        }
        Ok(end)
    }

    /// Keeps the payload of an entry that raft-rs is about to be given.
    pub(super) fn stage(&mut self, index: Index, term: Term, kind: EntryKind, payload: Payload) {
        self.staged.insert((index.0, term.0), (kind, payload));
    }

    /// Takes back what [`LogView::stage`] was given: raft-rs refused the entry.
    pub(super) fn unstage(&mut self, index: Index, term: Term) {
        self.staged.remove(&(index.0, term.0));
    }

    /// Adds entries that raft-rs put into its log, overwriting what stood from the first one's index on.
    pub(super) fn append(&mut self, entries: &[RaftEntry]) -> Appended {
        let mut done = Appended::default();
        let Some(first) = entries.first() else { return done };
        assert!(
            first.index > self.before.0 && first.index <= self.last() + 1,
            "entry to append: index between {} and {} expected, found {}",
            self.first(),
            self.last() + 1,
            first.index
        );
        if first.index <= self.last() {
            done.truncated_from = Some(Index(first.index));
            self.truncate(Index(first.index));
        }
        for entry in entries {
            let (kind, payload) = match self.staged.remove(&(entry.index, entry.term)) {
                Some(staged) => staged,
                // The empty entry with which a leader of raft-rs begins its term.
                None if entry.data.is_empty() => (EntryKind::Barrier, barrier()),
                None => panic!("entry {} of term {}: its payload is missing", entry.index, entry.term),
            };
            assert_eq!(entry.index, self.last() + 1, "index of the next entry to append");
            self.push(entry.term, kind, payload.clone());
            done.entries.push(Entry { index: Index(entry.index), term: Term(entry.term), kind, payload });
        }
        // What is left belonged to entries that raft-rs overwrote before it handed them out.
        self.staged.clear();
        done
    }

    /// Drops all entries from `from` on, and everything staged.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(from.0 > self.before.0, "truncation: index above {} expected, found {from}", self.before.0);
        while self.last() >= from.0 {
            self.kept_bytes -= self.shapes.pop_back().map_or(0, Shape::len);
            if let Some(payload) = self.payloads.pop_back() {
                self.shed(payload);
            }
        }
        while self.runs.back().is_some_and(|&(first, _)| first >= from.0) {
            self.runs.pop_back();
        }
    }

    /// Drops whatever was staged.
    pub(super) fn clear_staged(&mut self) {
        self.staged.clear();
    }

    /// Drops the entries before `keep_from`, which may be at most one past the last.
    pub(super) fn compact(&mut self, keep_from: Index) {
        if keep_from.0 > self.first() && keep_from.0 <= self.last() + 1 {
            self.drop_front(keep_from.0 - 1);
        }
    }

    /// Says that payloads above `index` must stay in memory: not yet persisted, or not yet applied.
    pub(super) fn pin_after(&mut self, index: Index) {
        self.pinned_after = index.0;
        self.evict();
    }

    /// Makes `new_before` the entry before the first: its term is kept, all else up to it dropped.
    fn drop_front(&mut self, new_before: u64) {
        let term = self.term_at(Index(new_before)).unwrap_or_default();
        while self.before.0 < new_before
            && let Some(shape) = self.shapes.pop_front()
        {
            self.kept_bytes -= shape.len();
            if self.payloads.len() > self.shapes.len()
                && let Some(payload) = self.payloads.pop_front()
            {
                self.shed(payload);
            }
            self.before.0 += 1;
        }
        self.before.1 = term.0;
        let first = self.first();
        while self.runs.get(1).is_some_and(|&(start, _)| start <= first) {
            self.runs.pop_front();
        }
        if self.shapes.is_empty() {
            self.runs.clear();
        } else if let Some(run) = self.runs.front_mut() {
            run.0 = first;
        }
    }

    fn push(&mut self, term: u64, kind: EntryKind, payload: Payload) {
        let index = self.last() + 1;
        self.shapes.push_back(Shape::new(kind, payload.len()));
        if self.runs.back().is_none_or(|&(_, last)| last != term) {
            self.runs.push_back((index, term));
        }
        self.kept_bytes += payload.len() as u64;
        self.cached_bytes += payload.len();
        self.payloads.push_back(payload);
        self.evict();
    }

    fn first_cached(&self) -> u64 {
        self.last() + 1 - self.payloads.len() as u64
    }
}

/// The content of a barrier entry.
pub(super) fn barrier() -> Payload {
    Payload::from_bytes(&[0; 8])
}

#[cfg(test)]
mod tests;
