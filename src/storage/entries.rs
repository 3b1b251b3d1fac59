//! Old entries of the log, read from the segments of a running node for a server that lags.
//!
//! Runs beside the writer, on a disk of its own. The writer renames, cuts and deletes segments meanwhile, and open
//! ones say nothing about where they begin: what was read counts only if the directory holds the same segments
//! afterwards as before.

use std::io;

use super::snapshots::complete_snapshots;
use crate::base::{Entry, Index, Payload};
use crate::disk::Disk;
use crate::format::names::FileName;
use crate::format::segment::{self, RawEntry};

/// How often reading begins anew because the writer was quicker.
const TRIES: usize = 16;

/// The entries from `first` to `last`, which must be durable. Memory: they, and one segment.
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
                found.take(*from, &segment::decode(&whole(disk, name)?).entries);
                taken_to = *to;
            }
        }
        let mut from = self.open_from;
        for (_, name) in &self.open {
            if found.is_complete() {
                break;
            }
            let bytes = whole(disk, name)?;
            let entries = segment::decode(&bytes).entries;
            found.take(from, &entries);
            from = Index(from.0 + entries.len() as u64);
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

fn whole<D: Disk>(disk: &mut D, name: &str) -> Result<Vec<u8>, String> {
    disk.read_all(name).map_err(|error: io::Error| format!("read {name}: {error}"))
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

    /// Takes what is wanted of a segment that begins at `from`.
    fn take(&mut self, from: Index, entries: &[RawEntry<'_>]) {
        for (index, entry) in (from.0..).map(Index).zip(entries) {
            if index == self.next && !self.is_complete() {
                let payload = Payload::from_bytes(entry.payload);
                self.entries.push(Entry { index, term: entry.term, kind: entry.kind, payload });
                self.next = index.next();
            }
        }
    }
}

#[cfg(test)]
mod tests;
