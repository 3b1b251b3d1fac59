//! Snapshots take their final names, and what they make needless goes.

use super::Writer;
use crate::base::{Index, Term};
use crate::disk::Disk;
use crate::format::names::{self, SnapshotName};
use crate::storage::io::StorageError;
use crate::storage::segment_file::OpenSegment;
use crate::storage::snapshots::{FinishedSnapshot, complete_snapshots};

/// How many snapshots stay.
const SNAPSHOTS_KEPT: usize = 2;

impl<D: Disk> Writer<D> {
    /// Gives a snapshot of this node's own its final name, then deletes what neither it nor `trailing` entries
    /// before it nor the snapshot kept beside it need.
    ///
    /// Deleting for which there is no room is left to the next snapshot.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when the log on disk does not reach it, or when a C library would not take it
    /// for the newest one. Whatever the error, the temporary files are gone.
    pub fn install_snapshot_files(
        &mut self,
        snap: FinishedSnapshot,
        trailing: u64,
    ) -> Result<(), StorageError> {
        let placed = self.begin().and_then(|()| self.install(&snap));
        if let Err(error) = placed {
            self.discard(&snap);
            return Err(error);
        }
        let snapshot = snap.name;
        without_room(self.drop_snapshots(snapshot, false))?;
        without_room(self.drop_segments(snapshot, trailing))
    }

    /// Stores a leader's snapshot in place of the whole log: the next entry is the one behind it. `held` is the
    /// term of the entry that the log holds at the snapshot's index, if it does.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`]: the log is as before, but for entries from the snapshot's index on if `held`
    /// is another term than the snapshot's. Whatever the error, the temporary files are gone.
    pub fn restore_snapshot(
        &mut self,
        snap: FinishedSnapshot,
        held: Option<Term>,
    ) -> Result<(), StorageError> {
        let placed = self.begin().and_then(|()| self.restore(&snap, held));
        if let Err(error) = placed {
            self.discard(&snap);
            return Err(error);
        }
        let snapshot = snap.name;
        self.next_index = snapshot.index.next();
        // A snapshot that C takes for a newer one goes before the log which it would need.
        without_room(self.drop_snapshots(snapshot, true))?;
        let closed = std::mem::take(&mut self.closed);
        self.doomed.extend(closed.into_iter().map(|(first, last)| names::closed_name(first, last)));
        without_room(self.finish_doomed())
    }

    fn install(&mut self, snap: &FinishedSnapshot) -> Result<(), StorageError> {
        let SnapshotName { term, index, .. } = snap.name;
        if index >= self.next_index || index < self.snapshot_index {
            let text = format!(
                "install snapshot: an index from {} to {} expected, {index} found",
                self.snapshot_index,
                self.next_index.prev()
            );
            return Err(StorageError::Refused { text });
        }
        if let Some(other) = self.snapshots()?.iter().find(|other| other.term > term) {
            let text = format!("install snapshot: a term from {} on expected, {term} found", other.term);
            return Err(StorageError::Refused { text });
        }
        // The anchor: with no closed segment in front of it, the segment in use would be taken for what
        // follows the new snapshot.
        self.finish_closing()?;
        let begun_below = |current: &OpenSegment<D::File>| !current.is_empty() && current.first <= index;
        if self.closed.is_empty() && self.current.as_ref().is_some_and(begun_below) {
            self.finish_current()?;
        }
        self.place(snap)
    }

    fn restore(&mut self, snap: &FinishedSnapshot, held: Option<Term>) -> Result<(), StorageError> {
        let SnapshotName { term, index, .. } = snap.name;
        if index < self.snapshot_index {
            let text =
                format!("restore snapshot: an index from {} on expected, {index} found", self.snapshot_index);
            return Err(StorageError::Refused { text });
        }
        if held.is_some_and(|held| held != term) {
            // Else a crash before the log is deleted would bring its divergent tail back behind the snapshot.
            self.truncate(index)?;
        }
        self.drop_preparation()?;
        self.finish_current()?;
        // Before the snapshot is there: else a crash can leave it beside an open segment and a log that ends
        // before it, with which a C library does not start.
        self.io.sync_changed_names()?;
        self.place(snap)
    }

    /// Gives the pair of files their final names. One without the other is deleted at the next start.
    fn place(&mut self, snap: &FinishedSnapshot) -> Result<(), StorageError> {
        let name = snap.name;
        let (meta, data) = (names::snapshot_meta_name(name), names::snapshot_name(name));
        self.io.rename(&snap.temporary_meta, &meta)?;
        let renamed = self.io.rename(&snap.temporary_data, &data);
        if renamed.is_err() {
            self.io.discard(&meta);
        }
        renamed?;
        // Before anything is deleted that the snapshot stands for: else a crash can take both.
        self.io.sync_dir()?;
        self.snapshot_index = name.index;
        Ok(())
    }

    fn snapshots(&mut self) -> Result<Vec<SnapshotName>, StorageError> {
        Ok(complete_snapshots(&self.io.list()?))
    }

    /// Keeps `newest` and the one before it.
    fn drop_snapshots(&mut self, newest: SnapshotName, replaced: bool) -> Result<(), StorageError> {
        let all = self.snapshots()?;
        let above = all.iter().filter(|other| **other > newest).count();
        let below = all.iter().filter(|other| **other < newest).count();
        let old =
            all.iter().filter(|other| **other < newest).take((below + 1).saturating_sub(SNAPSHOTS_KEPT));
        for other in old.chain(all.iter().filter(|other| **other > newest)) {
            self.io.unlink(&names::snapshot_meta_name(*other))?;
            self.io.unlink(&names::snapshot_name(*other))?;
        }
        if replaced && above > 0 {
            // Before the log goes: else a crash can leave C with the wrong snapshot and no log for it.
            self.io.sync_dir()?;
        }
        Ok(())
    }

    /// Deletes closed segments from the oldest on. That they are gone need not be durable: one that comes back
    /// holds entries below the snapshot.
    fn drop_segments(&mut self, newest: SnapshotName, trailing: u64) -> Result<(), StorageError> {
        let kept = self.snapshots()?.first().map_or(newest.index, |oldest| oldest.index.min(newest.index));
        let limit = Index(newest.index.0.saturating_sub(trailing)).min(kept);
        while let Some(&(first, last)) = self.closed.front() {
            // The anchor: the last one stays while entries may follow it in an open segment.
            let needed = self.closed.len() == 1 && last.next() != self.snapshot_index.next();
            let followed = self.closed.len() == 1 && self.next_index != last.next();
            if last > limit || needed || followed {
                break;
            }
            self.io.unlink(&names::closed_name(first, last))?;
            self.closed.pop_front();
        }
        Ok(())
    }

    /// Deletes the files of a snapshot that nobody wants any more; the next start deletes them if this does not.
    pub fn discard_snapshot(&mut self, snap: &FinishedSnapshot) {
        self.discard(snap);
    }

    fn discard(&mut self, snap: &FinishedSnapshot) {
        self.io.discard(&snap.temporary_meta);
        self.io.discard(&snap.temporary_data);
    }
}

/// Deleting may wait until there is room.
fn without_room(done: Result<(), StorageError>) -> Result<(), StorageError> {
    match done {
        Err(StorageError::NoSpace { .. }) => Ok(()),
        other => other,
    }
}
