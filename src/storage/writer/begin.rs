//! What precedes every change: a look at the directory, and work that want of room left undone.

use super::Writer;
use crate::disk::Disk;
use crate::format::names::FileName;
use crate::storage::io::StorageError;

impl<D: Disk> Writer<D> {
    /// Before every change: finishes what want of room left undone. Before the first one: looks at the
    /// directory, and deletes closed segments which a snapshot has made useless and which would be taken for
    /// what precedes the next open segment.
    pub(super) fn begin(&mut self) -> Result<(), StorageError> {
        self.io.check()?;
        if self.begun {
            return self.finish_doomed();
        }
        self.check_chain()?;
        for (name, _) in self.io.list()? {
            match FileName::parse(&name) {
                FileName::Open(counter) => self.counter = self.counter.max(counter),
                FileName::Closed(first, last) if !self.closed.contains(&(first, last)) => {
                    if last > self.snapshot_index {
                        let text = format!("begin: {name} is not part of the log that was loaded");
                        return Err(self.io.fail(text));
                    }
                    self.doomed.push(name);
                }
                _ => {}
            }
        }
        self.begun = true;
        self.finish_doomed()
    }

    /// Deletes the files that must be gone, durably.
    pub(super) fn finish_doomed(&mut self) -> Result<(), StorageError> {
        while let Some(name) = self.doomed.last() {
            self.io.unlink(name)?;
            self.doomed.pop();
            self.doomed_unsynced = true;
        }
        if self.doomed_unsynced {
            // Before an open segment is made: else a crash can leave both, and its entries get wrong indexes.
            self.io.sync_dir()?;
            self.doomed_unsynced = false;
        }
        Ok(())
    }

    /// The closed segments follow each other and end where the log ends.
    fn check_chain(&mut self) -> Result<(), StorageError> {
        let mut next = self.closed.front().map_or(self.next_index, |&(first, _)| first);
        for &(first, last) in &self.closed {
            if first != next || last < first {
                let text = format!("begin: a segment from {next} on expected, {first}-{last} found");
                return Err(self.io.fail(text));
            }
            next = last.next();
        }
        if next != self.next_index || (self.closed.is_empty() && next != self.snapshot_index.next()) {
            let text = format!(
                "begin: a log up to {} behind a snapshot at {} expected, segments up to {} found",
                self.next_index.prev(),
                self.snapshot_index,
                next.prev()
            );
            return Err(self.io.fail(text));
        }
        Ok(())
    }
}
