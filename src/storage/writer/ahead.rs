//! Work that is done before anybody waits for it: finalising full segments, preparing the next one.

use super::Writer;
use crate::disk::Disk;
use crate::storage::io::StorageError;
use crate::storage::segment_file::Preparation;

impl<D: Disk> Writer<D> {
    /// One step of work that can be done ahead: finalising the last full segment, preparing the next one.
    /// Call it when idle; returns whether more remains. The first call may precede the first append.
    ///
    /// # Errors
    /// As [`StorageError`] says; want of room here does no harm.
    pub fn prepare_ahead(&mut self) -> Result<bool, StorageError> {
        self.begin()?;
        if !self.closing.is_empty() {
            self.finish_closing()?;
            return Ok(true);
        }
        if self.away.is_some() {
            return Ok(false);
        }
        let mut preparation = match self.preparation.take() {
            Some(preparation) => preparation,
            None => self.new_preparation(),
        };
        let more = if preparation.is_done() { Ok(false) } else { preparation.step(&mut self.io) };
        self.preparation = Some(preparation);
        more
    }

    /// Whether there is work that can be done ahead: a full segment to finalise, or the next one to prepare.
    #[must_use]
    pub fn wants_preparation(&self) -> bool {
        let prepared = self.preparation.as_ref().is_some_and(Preparation::is_done);
        !self.closing.is_empty() || (self.away.is_none() && !prepared)
    }

    /// Finalises the last full segment.
    ///
    /// # Errors
    /// As [`StorageError`] says.
    pub fn finalise_ahead(&mut self) -> Result<(), StorageError> {
        self.begin()?;
        self.finish_closing()
    }

    /// Hands out the preparation of the next segment, for a thread with a disk of its own, so that zeroing never
    /// stands in the way of an append. `None` when there is nothing to prepare.
    ///
    /// # Errors
    /// As [`StorageError`] says.
    pub fn take_preparation(&mut self) -> Result<Option<Preparation<D::File>>, StorageError> {
        self.begin()?;
        if self.away.is_some() || self.preparation.as_ref().is_some_and(Preparation::is_done) {
            return Ok(None);
        }
        let preparation = match self.preparation.take() {
            Some(preparation) => preparation,
            None => self.new_preparation(),
        };
        self.away = Some(preparation.name().to_owned());
        Ok(Some(preparation))
    }

    /// Takes back what [`Writer::take_preparation`] gave, finished or not.
    ///
    /// # Errors
    /// As [`StorageError`] says.
    pub fn give_back(
        &mut self,
        preparation: Preparation<D::File>,
        outcome: Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        if let Err(StorageError::Failed { text }) = outcome {
            return Err(self.io.fail(text));
        }
        if self.away.as_deref() == Some(preparation.name()) && self.preparation.is_none() {
            self.away = None;
            self.preparation = Some(preparation);
            return Ok(());
        }
        // Nobody waits for it any more.
        self.io.unlink(preparation.name())
    }

    pub(super) fn new_preparation(&mut self) -> Preparation<D::File> {
        self.counter += 1;
        let len = self.config.segment_bytes.next_multiple_of(self.config.block_size.max(1));
        Preparation::new(self.counter, len, self.config.prewrite)
    }

    pub(super) fn drop_preparation(&mut self) -> Result<(), StorageError> {
        if let Some(name) = self.away.take() {
            self.io.unlink(&name)?;
        }
        if let Some(preparation) = &self.preparation {
            if preparation.is_begun() {
                let name = preparation.name().to_owned();
                self.io.unlink(&name)?;
            }
            self.preparation = None;
        }
        Ok(())
    }
}
