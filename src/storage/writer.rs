//! Everything that changes the data directory of a running node, one call at a time.
//!
//! Every call returns when its effect is durable. The order of disk operations is such that a crash at any
//! moment leaves a directory which starts, for this library and for the C one (but for one moment of a
//! truncation, which only this library repairs), with every acknowledged entry and none that was taken back.
//!
//! Invariants:
//! - Bytes go only into segments whose name and length are durable ([`super::segment_file`]).
//! - Behind the last good batch of the segment in use there are zeros before the next batch is written.
//! - Closed segments get their names in the order of the log, each durably before the next.
//! - *The anchor*: open segments carry no index. While one may hold entries, the newest closed segment ends
//!   right before it, or there is none and it begins right behind the newest snapshot (or at index 1).
//! - After a failure other than want of room nothing is written any more.

mod ahead;
mod begin;
mod install;
#[cfg(test)]
mod tests;
mod truncate;

use std::collections::VecDeque;

use super::io::{Io, StorageError};
use super::loader::Loaded;
use super::segment_file::{Closing, OpenSegment, Preparation};
use crate::base::limits::{BATCH_ENTRIES_MAX, SEGMENT_BYTES};
use crate::base::{Entry, Index, NodeId, Term};
use crate::disk::Disk;
use crate::format::metadata::Metadata;
use crate::format::names;
use crate::format::segment::encode_batch;

/// How large the buffer of encoded batches stays between appends.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// How the writer works; nothing here changes what can be read back.
#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// The size of a segment is a multiple of this many bytes.
    pub block_size: u64,
    /// The size at which a segment is full.
    pub segment_bytes: u64,
    /// Whether segments are written with zeros ahead of time: twice the bytes, half the time of a sync.
    pub prewrite: bool,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self { block_size: 4096, segment_bytes: SEGMENT_BYTES, prewrite: true }
    }
}

/// What the loader found, as far as the writer goes on from it.
#[derive(Clone, Debug, Default)]
pub struct WriterState {
    /// Where the next entry goes: one past the last one of log and snapshot.
    pub next_index: Index,
    /// The version of the newest metadata; 0 when there is none.
    pub metadata_version: u64,
    /// The closed segments that hold the log, ascending.
    pub closed: Vec<(Index, Index)>,
    /// The last index that the newest snapshot covers; 0 when there is none.
    pub snapshot_index: Index,
}

impl From<&Loaded> for WriterState {
    fn from(loaded: &Loaded) -> Self {
        Self {
            next_index: loaded.last_index.next(),
            metadata_version: loaded.metadata_version,
            closed: loaded.closed_segments.clone(),
            snapshot_index: loaded.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index),
        }
    }
}

/// The one owner of the data directory of a running node.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    io: Io<D>,
    config: WriterConfig,
    next_index: Index,
    snapshot_index: Index,
    metadata_version: u64,
    closed: VecDeque<(Index, Index)>,
    closing: VecDeque<Closing<D::File>>,
    current: Option<OpenSegment<D::File>>,
    preparation: Option<Preparation<D::File>>,
    /// The name of a preparation that somebody else works on.
    away: Option<String>,
    counter: u64,
    /// Files that are no part of the log any more and must be gone before anything else is written.
    doomed: Vec<String>,
    /// Whether the going of some may not be durable yet.
    doomed_unsynced: bool,
    begun: bool,
    buffer: Vec<u8>,
}

impl<D: Disk> Writer<D> {
    /// A writer that goes on where the loader ended. Touches nothing yet.
    #[must_use]
    pub fn new(disk: D, state: WriterState, config: WriterConfig) -> Self {
        Self {
            io: Io::new(disk),
            config,
            next_index: Index(state.next_index.0.max(1)),
            snapshot_index: state.snapshot_index,
            metadata_version: state.metadata_version,
            closed: state.closed.into(),
            closing: VecDeque::new(),
            current: None,
            preparation: None,
            away: None,
            counter: 0,
            doomed: Vec::new(),
            doomed_unsynced: false,
            begun: false,
            buffer: Vec::new(),
        }
    }

    /// Where the next entry goes.
    #[must_use]
    pub fn next_index(&self) -> Index {
        self.next_index
    }

    /// How many bytes were written, zeros and snapshots' renaming aside, since the start.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.io.bytes_written
    }

    /// How many syncs there were since the start.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.io.syncs
    }

    /// Appends batches, each slice as one batch on disk, with one write and one sync for all.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`]: none of them is on disk, and the log is as before. Else the writer is of
    /// no use any more, and any of them may be on disk.
    pub fn append(&mut self, batches: &[Vec<Entry>]) -> Result<(), StorageError> {
        self.begin()?;
        let next = self.encode(batches)?;
        if next == self.next_index {
            return Ok(());
        }
        if let Some(current) = &mut self.current {
            // Before rolling too: a segment that is left must end at its last good batch.
            current.clean_tail(&mut self.io)?;
        }
        let bytes = self.buffer.len() as u64;
        let full = |current: &OpenSegment<D::File>| current.used + bytes > self.config.segment_bytes;
        if self.current.as_ref().is_some_and(|current| !current.is_empty() && full(current)) {
            self.roll()?;
        }
        self.provide_segment()?;
        self.write_buffer()?;
        self.next_index = next;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }

    /// Encodes the batches into the buffer and returns the index after their last entry.
    fn encode(&mut self, batches: &[Vec<Entry>]) -> Result<Index, StorageError> {
        self.buffer.clear();
        let mut next = self.next_index;
        for entry in batches.iter().flatten() {
            if entry.index != next {
                let text = format!("append: entry {next} expected, entry {} found", entry.index);
                return Err(self.io.fail(text));
            }
            next = next.next();
        }
        let entries_max = usize::try_from(BATCH_ENTRIES_MAX).unwrap_or(usize::MAX);
        for batch in batches {
            for part in batch.chunks(entries_max) {
                encode_batch(part, &mut self.buffer);
            }
        }
        Ok(next)
    }

    /// Leaves the segment in use; it is finalised behind the appends that follow, but never two of them.
    fn roll(&mut self) -> Result<(), StorageError> {
        self.finish_closing()?;
        if let Some(segment) = self.current.take() {
            self.closing.push_back(Closing::new(segment, self.next_index.prev()));
        }
        Ok(())
    }

    /// Makes sure that there is a segment to write to, which is long enough for the buffer.
    fn provide_segment(&mut self) -> Result<(), StorageError> {
        if self.current.is_none() {
            let mut preparation = match self.preparation.take() {
                Some(preparation) => preparation,
                None => {
                    // One that somebody still works on comes too late: when it is given back, a later one is in
                    // use, and open segments are read in the order of their numbers.
                    self.away = None;
                    self.new_preparation()
                }
            };
            while !preparation.is_usable() {
                if let Err(error) = preparation.step(&mut self.io) {
                    self.preparation = Some(preparation);
                    return Err(error);
                }
            }
            self.current = preparation.into_segment();
        }
        let Some(current) = &mut self.current else {
            return Err(self.io.fail("append: a prepared segment expected, none found".to_owned()));
        };
        let end = current.used + self.buffer.len() as u64;
        if end > current.len {
            let len = end.next_multiple_of(self.config.block_size.max(1));
            io_grow(&mut self.io, current, len)?;
        }
        Ok(())
    }

    fn write_buffer(&mut self) -> Result<(), StorageError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let at = current.used;
        if current.is_empty() {
            current.first = self.next_index;
        }
        let end = at + self.buffer.len() as u64;
        if let Err(error) = self.io.write_at(&current.name, &mut current.file, at, &self.buffer) {
            current.dirty_to = current.dirty_to.max(end);
            if matches!(error, StorageError::NoSpace { .. }) {
                // What cannot be cleaned now is cleaned before the next batch.
                match current.clean_tail(&mut self.io) {
                    Ok(()) | Err(StorageError::NoSpace { .. } | StorageError::Refused { .. }) => {}
                    Err(failed @ StorageError::Failed { .. }) => return Err(failed),
                }
            }
            return Err(error);
        }
        // Before the entries are acknowledged: else a crash takes them back.
        self.io.sync(&current.name, &mut current.file)?;
        current.used = end;
        Ok(())
    }

    /// Stores the term and the vote.
    ///
    /// # Errors
    /// As [`StorageError`] says; the values stored before still hold then.
    pub fn set_metadata(&mut self, term: Term, voted_for: NodeId) -> Result<(), StorageError> {
        self.begin()?;
        let version = self.metadata_version + 1;
        // Odd versions go to the first file, even ones to the second, so that the previous one stays intact.
        let name = names::metadata_name(version);
        let bytes = Metadata { version, term, voted_for }.encode();
        // Never in place, as C does it: a write that fails halfway would leave a new version with an old vote.
        let temporary = names::temporary_name(name);
        self.io.write_temporary(&temporary, &bytes)?;
        self.io.rename(&temporary, name)?;
        // Before any message depends on the term or the vote: else a crash lets this node vote twice.
        self.io.sync_dir()?;
        self.metadata_version = version;
        Ok(())
    }

    /// A clean end: closed segments only are left, durably.
    ///
    /// # Errors
    /// As [`StorageError`] says; everything acknowledged is durable even so.
    pub fn close(&mut self) -> Result<(), StorageError> {
        self.begin()?;
        self.drop_preparation()?;
        self.finish_current()?;
        // Before we say so: else a crash can bring an open segment back.
        self.io.sync_changed_names()
    }

    /// Finalises all full segments; what is closed counts from here on.
    fn finish_closing(&mut self) -> Result<(), StorageError> {
        while let Some(closing) = self.closing.front_mut() {
            let indexes = closing.finish(&mut self.io)?;
            self.closing.pop_front();
            self.closed.push_back(indexes);
        }
        Ok(())
    }

    /// Finalises all segments, also the one in use; one without entries is deleted.
    fn finish_current(&mut self) -> Result<(), StorageError> {
        self.finish_closing()?;
        if let Some(current) = &self.current {
            if current.is_empty() {
                let name = current.name.clone();
                self.io.unlink(&name)?;
                self.current = None;
            } else {
                self.roll()?;
                self.finish_closing()?;
            }
        }
        Ok(())
    }
}

/// Makes room in the segment for a batch that is larger than a segment.
fn io_grow<D: Disk>(
    io: &mut Io<D>,
    segment: &mut OpenSegment<D::File>,
    len: u64,
) -> Result<(), StorageError> {
    io.preallocate(&segment.name, &mut segment.file, len)?;
    // Before the batch: else a crash can leave its beginning in a file that is too short for the rest, and a
    // C library that starts on this directory dies of it.
    io.sync(&segment.name, &mut segment.file)?;
    segment.len = len;
    Ok(())
}
