//! Taking entries back: a leader has others at their indexes.

use super::Writer;
use crate::base::{Entry, Index, Payload};
use crate::disk::Disk;
use crate::format::names;
use crate::format::segment::{SEGMENT_HEADER, decode, encode_batch};
use crate::storage::io::StorageError;

impl<D: Disk> Writer<D> {
    /// Deletes the entries from `from` on. The log on disk ends earlier and earlier meanwhile, so that a crash
    /// leaves a log that starts, whose end is anywhere from `from` on.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`]: the log is as before, or some of the entries are gone and
    /// [`Writer::next_index`] says which. Call it again when there is room.
    pub fn truncate(&mut self, from: Index) -> Result<(), StorageError> {
        self.begin()?;
        if from >= self.next_index {
            return Ok(());
        }
        if from <= self.snapshot_index {
            let text = format!(
                "truncate: an index above the snapshot's, {}, expected, {from} found",
                self.snapshot_index
            );
            return Err(StorageError::Refused { text });
        }
        self.finish_closing()?;
        self.drop_or_finish_current(from)?;
        // The rest of the segment that is cut is made before anything is deleted: there may be no room for it.
        let kept = self.write_kept_part(from)?;
        while let Some(&(first, last)) = self.closed.back().filter(|(first, _)| *first >= from) {
            self.io.unlink(&names::closed_name(first, last))?;
            self.closed.pop_back();
            self.next_index = first;
            // Before the segment in front of it goes: else a crash can leave a gap in the log.
            self.io.sync_dir()?;
        }
        if let Some((first, last, temporary)) = kept {
            self.io.rename(&temporary, &names::closed_name(first, from.prev()))?;
            self.closed.pop_back();
            self.closed.push_back((first, from.prev()));
            self.next_index = from;
            self.doomed.push(names::closed_name(first, last));
            // Before the old one goes: else a crash can take both.
            self.io.sync_dir()?;
        }
        // Before new entries are written behind the cut: else a crash can bring the old ones back there.
        self.finish_doomed()
    }

    /// The segment in use goes away when it holds nothing before `from`, else it gets its final name.
    fn drop_or_finish_current(&mut self, from: Index) -> Result<(), StorageError> {
        let Some(current) = &self.current else { return Ok(()) };
        if current.is_empty() {
            return Ok(());
        }
        if current.first < from {
            return self.finish_current();
        }
        let (name, first) = (current.name.clone(), current.first);
        self.io.unlink(&name)?;
        self.current = None;
        self.next_index = first;
        // Before the segments in front of it go: else a crash can leave its entries behind fewer others.
        self.io.sync_dir()
    }

    /// Writes the entries before `from` of the segment that holds it to a temporary file.
    fn write_kept_part(&mut self, from: Index) -> Result<Option<(Index, Index, String)>, StorageError> {
        let holder = self.closed.iter().copied().find(|&(first, last)| first < from && from <= last);
        let Some((first, last)) = holder else { return Ok(None) };
        let name = names::closed_name(first, last);
        let bytes = self.io.read_all(&name)?;
        let cut = match cut_segment(&name, &bytes, first, from) {
            Ok(cut) => cut,
            Err(text) => return Err(self.io.fail(format!("truncate: {text}"))),
        };
        let temporary = names::temporary_name(&names::closed_name(first, from.prev()));
        self.io.write_temporary(&temporary, &cut)?;
        Ok(Some((first, last, temporary)))
    }
}

/// The bytes of the closed segment `name` up to `from`: whole batches as they are, the one that is cut anew.
fn cut_segment(name: &str, bytes: &[u8], first: Index, from: Index) -> Result<Vec<u8>, String> {
    let segment = decode(bytes);
    let mut left = from.0 - first.0;
    let mut end = SEGMENT_HEADER.len() as u64;
    let mut skipped = 0;
    for batch in &segment.batches {
        let Some(rest) = left.checked_sub(batch.count) else { break };
        left = rest;
        skipped += batch.count;
        end = batch.offset + batch.len;
    }
    let short = || format!("{name}: entries up to {} expected, fewer found", from.prev());
    let place = |at: u64| usize::try_from(at).ok();
    let mut cut = place(end).and_then(|end| bytes.get(..end)).ok_or_else(short)?.to_vec();
    let kept = place(skipped).zip(place(skipped + left));
    let rest = kept.and_then(|(start, end)| segment.entries.get(start..end)).ok_or_else(short)?;
    let mut index = Index(from.0 - rest.len() as u64);
    let mut entries = Vec::with_capacity(rest.len());
    for entry in rest {
        entries.push(Entry {
            index,
            term: entry.term,
            kind: entry.kind,
            payload: Payload::from_bytes(entry.payload),
        });
        index = index.next();
    }
    if !entries.is_empty() {
        encode_batch(&entries, &mut cut);
    }
    Ok(cut)
}
