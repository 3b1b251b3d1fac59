//! Segment files before they are written (prepared) and after (finalised).
//!
//! A segment takes batches only when its name, its full length and its format word are durable: a batch then
//! never goes on behind the end of the file, which the C library does not survive at its next start, and is
//! never found behind a format word that a crash has lost, which it refuses.

use super::io::{Io, StorageError};
use crate::base::Index;
use crate::disk::Disk;
use crate::format::names;
use crate::format::segment::SEGMENT_HEADER;

/// How much is zeroed in one step: little enough that a commit which meets it hardly waits longer than for another.
pub const ZERO_STEP_BYTES: u64 = 64 << 10;

/// Zeros written at once. Linux keeps what one call wrote in one piece, and would count (and some file systems
/// write) all of that piece again for each batch that goes into it.
const ZERO_PIECE_BYTES: u64 = 4 << 10;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An open segment that can take batches, or takes them.
#[derive(Debug)]
pub(super) struct OpenSegment<F> {
    pub name: String,
    pub file: F,
    /// The index of the first entry in it; meaningless while there is none.
    pub first: Index,
    /// How many bytes count, with the format word.
    pub used: u64,
    /// How long the file is, durably.
    pub len: u64,
    /// Up to where bytes of a failed write may lie behind `used`.
    pub dirty_to: u64,
}

/// A segment on its way to be an [`OpenSegment`]: reserved, then written with zeros, because a sync of reserved
/// but unwritten blocks takes twice as long.
#[derive(Debug)]
pub struct Preparation<F> {
    name: String,
    len: u64,
    file: Option<F>,
    reserved: bool,
    /// Up to where it is written; the format word is the first thing.
    zeroed: u64,
    zero_to: u64,
    named: bool,
}

impl<F> Preparation<F> {
    pub(super) fn new(counter: u64, len: u64, prewrite: bool) -> Self {
        let zero_to = if prewrite { len } else { 0 };
        Self {
            name: names::open_name(counter),
            len,
            file: None,
            reserved: false,
            zeroed: 0,
            zero_to,
            named: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the file may exist.
    pub(super) fn is_begun(&self) -> bool {
        self.file.is_some()
    }

    /// Whether batches may go into it, if need be before all of it is zeroed.
    pub(super) fn is_usable(&self) -> bool {
        self.named
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.named && self.zeroed >= self.zero_to
    }

    /// Leaves the rest of it unwritten: for when it will be filled so soon that the zeros would only be in the way.
    pub fn leave_unwritten(&mut self) {
        self.zero_to = self.zero_to.min(self.zeroed);
    }

    /// One step of the work on a disk of one's own, for a thread beside the writer's.
    ///
    /// # Errors
    /// As [`StorageError`] says; hand it to [`super::writer::Writer::give_back`] together with this.
    pub fn step_aside<D: Disk<File = F>>(&mut self, disk: D) -> Result<bool, StorageError> {
        self.step(&mut Io::new(disk))
    }

    /// One step of the work; returns whether more is left. A step that failed for want of room can be repeated.
    pub(super) fn step<D: Disk<File = F>>(&mut self, io: &mut Io<D>) -> Result<bool, StorageError> {
        let Some(file) = &mut self.file else {
            self.file = Some(io.create(&self.name)?);
            return Ok(true);
        };
        if !self.reserved {
            io.preallocate(&self.name, file, self.len)?;
            // Before the first batch: else a crash can keep its beginning and forget the length that holds
            // the rest, and a C library that starts on this directory dies of it.
            io.sync(&self.name, file)?;
            self.reserved = true;
        } else if self.zeroed == 0 {
            io.write_at(&self.name, file, 0, &SEGMENT_HEADER)?;
            // Before the first batch: else a crash can leave a later part of that without the format word.
            io.sync(&self.name, file)?;
            self.zeroed = SEGMENT_HEADER.len() as u64;
        } else if !self.named {
            // Before the first acknowledged batch: else a crash can take the file away with it.
            io.sync_dir()?;
            self.named = true;
        } else if self.zeroed < self.zero_to {
            let end = (self.zeroed + 1).next_multiple_of(ZERO_STEP_BYTES).min(self.zero_to);
            let mut at = self.zeroed;
            while at < end {
                let piece_end = (at + 1).next_multiple_of(ZERO_PIECE_BYTES).min(end);
                io.write_at(&self.name, file, at, zeros(piece_end - at))?;
                at = piece_end;
            }
            // For speed alone: else the first append pays for all the zeros in its own sync.
            io.sync(&self.name, file)?;
            self.zeroed = end;
        }
        Ok(!self.is_done())
    }

    /// The segment; `None` (and nothing is lost) when it is not usable yet.
    pub(super) fn into_segment(self) -> Option<OpenSegment<F>> {
        let Self { name, len, file, named, .. } = self;
        let file = file.filter(|_| named)?;
        Some(OpenSegment { name, file, first: Index(0), used: SEGMENT_HEADER.len() as u64, len, dirty_to: 0 })
    }
}

/// So many zeros, at most those of a step.
fn zeros(len: u64) -> &'static [u8] {
    usize::try_from(len).ok().and_then(|len| ZEROS.get(..len)).unwrap_or(&ZEROS)
}

impl<F> OpenSegment<F> {
    /// Whether no batch was written.
    pub fn is_empty(&self) -> bool {
        self.used == SEGMENT_HEADER.len() as u64
    }

    /// Takes away what a failed write left behind the last good batch.
    ///
    /// Old bytes there could continue the next batch as if they were part of the log: a batch of a given up
    /// write may begin exactly where the next one, of the same size, ends.
    pub fn clean_tail<D: Disk<File = F>>(&mut self, io: &mut Io<D>) -> Result<(), StorageError> {
        if self.dirty_to <= self.used {
            return Ok(());
        }
        if self.dirty_to > self.len {
            io.set_len(&self.name, &mut self.file, self.len)?;
            self.dirty_to = self.len;
        }
        let mut at = self.used;
        while at < self.dirty_to {
            let step = ZERO_STEP_BYTES.min(self.dirty_to - at);
            io.write_at(&self.name, &mut self.file, at, zeros(step))?;
            at += step;
        }
        // Before the next batch is written: else a crash can keep that one and the old bytes behind it.
        io.sync(&self.name, &mut self.file)?;
        self.dirty_to = 0;
        Ok(())
    }
}

/// A full segment on its way to its final name. Each step can be repeated after a want of room.
#[derive(Debug)]
pub(super) struct Closing<F> {
    segment: OpenSegment<F>,
    last: Index,
    cut: bool,
    renamed: bool,
}

impl<F> Closing<F> {
    pub fn new(segment: OpenSegment<F>, last: Index) -> Self {
        Self { segment, last, cut: false, renamed: false }
    }

    /// Gives the segment its exact size and its final name, durably; returns the indexes it holds.
    pub fn finish<D: Disk<File = F>>(&mut self, io: &mut Io<D>) -> Result<(Index, Index), StorageError> {
        let segment = &mut self.segment;
        if !self.cut {
            io.set_len(&segment.name, &mut segment.file, segment.used)?;
            // Before the rename: else a crash can leave zeros behind the last batch of a closed segment.
            io.sync(&segment.name, &mut segment.file)?;
            self.cut = true;
        }
        if !self.renamed {
            io.rename(&segment.name, &names::closed_name(segment.first, self.last))?;
            self.renamed = true;
        }
        // Before a later segment gets its name, and before anything counts on this one: else a crash can
        // leave a gap, or an open segment that is taken for what follows a later one.
        io.sync_dir()?;
        Ok((segment.first, self.last))
    }
}
