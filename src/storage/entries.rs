//! Old entries of the log, read from the segments of a running node for a server that lags.
//!
//! A lagging peer needs one piece after another, so what a piece costs does not depend on how much else its segments
//! hold: of a closed one only the heads of its batches are read, and the data of those with entries that are wanted.
//!
//! Runs beside the writer, on a disk of its own. The writer renames, cuts and deletes segments meanwhile, and open
//! ones say nothing about where they begin: what was read counts only if the directory holds the same segments
//! afterwards as before.

use std::io;

use super::snapshots::complete_snapshots;
use crate::base::crc::checksum;
use crate::base::{Entry, Index};
use crate::codec::command;
use crate::disk::Disk;
use crate::format::names::FileName;
use crate::format::segment::{BatchHead, SEGMENT_HEADER};

/// How often reading begins anew because the writer was quicker.
const TRIES: usize = 16;

/// How much is read to find out what a batch holds: most heads fit.
const HEAD_BYTES: usize = 4 << 10;

/// How much is read at a time of data that only its checksum is wanted of.
const CHUNK_BYTES: usize = 64 << 10;

/// The entries from `first` to `last`, which must be durable. Memory: they, and the largest
/// of them once more.
///
/// Whoever asked compares kinds, lengths and terms with what it knows of them.
///
/// # Errors
/// Which entry was not found, and where the log that was found ends or begins; or what the system said.
pub fn read_entries<D: Disk>(disk: &mut D, first: Index, last: Index) -> Result<Vec<Entry>, String> {
    let mut outcome = Err(String::new());
    for _ in 0..TRIES {
        let before = Segments::list(disk)?;
        outcome = before.read(disk, first, last);
        if Segments::list(disk)? == before {
            return outcome;
        }
    }
    // The log moves on faster than it can be read; what was found is then no proof of anything.
    let found = outcome.map_or_else(|text| text, |_| "read".to_owned());
    Err(format!("entries {first} to {last}: the segments changed {TRIES} times meanwhile: {found}"))
}

/// The segments of the directory at one moment.
#[derive(PartialEq, Eq)]
struct Segments {
    closed: Vec<(Index, Index, String)>,
    open: Vec<(u64, String)>,
    /// Where the first open segment begins.
    open_from: Index,
}

impl Segments {
    fn list<D: Disk>(disk: &mut D) -> Result<Self, String> {
        let listing = disk.list().map_err(|error| format!("list the data directory: {error}"))?;
        let snapshot = complete_snapshots(&listing).iter().map(|name| name.index).max();
        let (mut closed, mut open) = (Vec::new(), Vec::new());
        for (name, _) in listing {
            match FileName::parse(&name) {
                FileName::Closed(first, last) => closed.push((first, last, name)),
                FileName::Open(counter) => open.push((counter, name)),
                _ => {}
            }
        }
        closed.sort();
        open.sort();
        let end = closed.iter().map(|(_, last, _)| *last).max().or(snapshot);
        Ok(Self { closed, open, open_from: end.unwrap_or_default().next() })
    }

    fn read<D: Disk>(&self, disk: &mut D, first: Index, last: Index) -> Result<Vec<Entry>, String> {
        let mut found = Found { entries: Vec::new(), next: first, last };
        let mut taken_to = Index(0);
        for (from, to, name) in &self.closed {
            // One that begins where another one was taken is about to be deleted.
            if *from > taken_to && *from <= found.next && found.next <= *to && !found.is_complete() {
                // Its name says how many entries it has, so that data which nobody wants need not be looked at.
                found.take(disk, name, *from, false)?;
                taken_to = *to;
            }
        }
        let mut from = self.open_from;
        for (_, name) in &self.open {
            if found.is_complete() {
                break;
            }
            let whole;
            (from, whole) = found.take(disk, name, from, true)?;
            if !whole {
                // Nobody knows at which entry the next one begins.
                break;
            }
        }
        if found.is_complete() {
            return Ok(found.entries);
        }
        let begin = self.closed.first().map_or(self.open_from, |(from, ..)| *from);
        Err(format!(
            "entries {first} to {last}: {} not found in a log from {begin} to {}",
            found.next,
            from.prev()
        ))
    }
}

struct Found {
    entries: Vec<Entry>,
    next: Index,
    last: Index,
}

impl Found {
    fn is_complete(&self) -> bool {
        self.next > self.last
    }

    /// Takes what is wanted of a segment that begins at `from`. Returns the index after the last entry that was looked
    /// at, and whether nothing is wrong there. `checks`: batches count only if their data is good, wanted or not.
    fn take<D: Disk>(
        &mut self,
        disk: &mut D,
        name: &str,
        from: Index,
        checks: bool,
    ) -> Result<(Index, bool), String> {
        let failed = |error: io::Error| format!("read {name}: {error}");
        let file = disk.open(name).map_err(failed)?;
        let mut batches = Batches { disk, file, at: SEGMENT_HEADER.len() as u64, buffer: Vec::new() };
        let format = batches.read(0, SEGMENT_HEADER.len()).map_err(failed)?;
        if format != SEGMENT_HEADER {
            return Ok((from, is_zero(format)));
        }
        let mut index = from;
        while !self.is_complete() {
            let head = match batches.next().map_err(failed)? {
                Next::Batch(head) => head,
                Next::End => break,
                Next::Damage => return Ok((index, false)),
            };
            let after = Index(index.0.saturating_add(head.entries.len() as u64));
            let good = match after > self.next {
                true => self.take_batch(&mut batches, &head, index),
                false if checks => batches.is_good(&head),
                false => Ok(true),
            };
            if !good.map_err(failed)? {
                return Ok((index, false));
            }
            batches.at += head.head_bytes + head.data_bytes;
            index = after;
        }
        Ok((index, true))
    }

    /// Takes what is wanted of the batch with this head that begins at `index`. False if its data is damaged: then
    /// nothing is taken.
    fn take_batch<D: Disk>(
        &mut self,
        batches: &mut Batches<'_, D>,
        head: &BatchHead,
        mut index: Index,
    ) -> io::Result<bool> {
        let (taken, first, mut sum) = (self.entries.len(), self.next, 0);
        let mut at = batches.at + head.head_bytes;
        for (term, kind, len) in &head.entries {
            let bytes = batches.read(at, *len)?;
            if bytes.len() < *len {
                break;
            }
            sum = checksum(sum, bytes);
            at += *len as u64;
            if index == self.next && !self.is_complete() {
                let payload = command::split(*kind, bytes);
                self.entries.push(Entry { index, term: *term, kind: *kind, payload });
                self.next = index.next();
            }
            index = index.next();
        }
        let good = at == batches.at + head.head_bytes + head.data_bytes && sum == head.data_crc;
        if !good {
            self.entries.truncate(taken);
            self.next = first;
        }
        Ok(good)
    }
}

/// What follows a batch.
enum Next {
    Batch(BatchHead),
    /// The file ends, or nothing was written there yet.
    End,
    Damage,
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// A segment file, batch by batch.
struct Batches<'a, D: Disk> {
    disk: &'a mut D,
    file: D::File,
    /// Where the next batch begins.
    at: u64,
    buffer: Vec<u8>,
}

impl<D: Disk> Batches<'_, D> {
    /// Reads so many bytes, or those up to the end of the file.
    fn read(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        self.buffer.resize(len, 0);
        let found = self.disk.read_at(&self.file, at, &mut self.buffer)?;
        Ok(self.buffer.get(..found).unwrap_or_default())
    }

    /// What the next batch holds.
    fn next(&mut self) -> io::Result<Next> {
        let mut wanted = HEAD_BYTES;
        loop {
            let bytes = self.read(self.at, wanted)?;
            match BatchHead::decode(bytes) {
                Ok(Ok(head)) => return Ok(Next::Batch(head)),
                // The file may end first.
                Ok(Err(len)) if bytes.len() == wanted => wanted = len,
                Ok(Err(_)) | Err(_) if is_zero(bytes) => return Ok(Next::End),
                Ok(Err(_)) | Err(_) => return Ok(Next::Damage),
            }
        }
    }

    /// Whether the data behind this head is what its checksum says.
    fn is_good(&mut self, head: &BatchHead) -> io::Result<bool> {
        let (mut at, mut sum) = (self.at + head.head_bytes, 0);
        let mut left = head.data_bytes;
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let bytes = self.read(at, len)?;
            if bytes.len() < len {
                return Ok(false);
            }
            sum = checksum(sum, bytes);
            (at, left) = (at + len as u64, left - len as u64);
        }
        Ok(sum == head.data_crc)
    }
}

#[cfg(test)]
mod tests;
