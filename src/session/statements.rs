//! Ids of prepared statements: always the lowest free one, from 0.

use std::collections::BTreeSet;

/// Which ids are taken.
#[derive(Debug, Default)]
pub(super) struct Statements {
    /// Ids below this were given out before.
    end: u32,
    /// Free ids below `end`.
    holes: BTreeSet<u32>,
}

impl Statements {
    /// The id that the next statement gets.
    pub(super) fn next_id(&self) -> u32 {
        self.holes.first().copied().unwrap_or(self.end)
    }

    /// Takes `id`, which [`Statements::next_id`] gave.
    pub(super) fn take(&mut self, id: u32) {
        if !self.holes.remove(&id) {
            self.end = self.end.max(id.saturating_add(1));
        }
    }

    /// Whether a statement has this id.
    pub(super) fn is_live(&self, id: u32) -> bool {
        id < self.end && !self.holes.contains(&id)
    }

    /// Frees the id of a live statement.
    pub(super) fn free(&mut self, id: u32) {
        self.holes.insert(id);
    }
}
