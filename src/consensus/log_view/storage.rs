//! What raft-rs asks of the log.

use raft::eraftpb::{Entry as RaftEntry, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use super::{LogView, handle};
use crate::base::{Index, Term};

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    /// All that is asked for, whatever `max_size` says, but for an append: that may end anywhere in the leader's own
    /// term, and what is not in memory is asked for.
    fn entries(
        &self,
        low: u64,
        high: u64,
        _max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<RaftEntry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        let high = match context.can_async() {
            true => self.prepare_append(low, high, context).map_err(Error::Store)?,
            false => high,
        };
        let mut found = Vec::new();
        for index in low..high {
            let place = usize::try_from(index - self.first()).unwrap_or(usize::MAX);
            let (Some(shape), Some(term)) = (self.shapes.get(place), self.term_at(Index(index))) else {
                return Err(Error::Store(StorageError::Unavailable));
            };
            let (context, data) = handle(shape.kind(), shape.len());
            found.push(RaftEntry { index, term: term.0, context, data, ..RaftEntry::default() });
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_at(Index(index)) {
            Some(Term(term)) => Ok(term),
            None if index < self.before.0 => Err(Error::Store(StorageError::Compacted)),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let Some((meta, conf_state)) = self.snapshot.as_ref().filter(|_| !self.resting.contains(&to)) else {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = meta.index.0;
        metadata.term = meta.term.0;
        metadata.set_conf_state(conf_state.clone());
        Ok(snapshot)
    }
}
