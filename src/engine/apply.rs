//! Committed entries of other leaders, or from before a restart, become versions of the page stores.
//!
//! No connection and no SQLite call is needed, and nothing here waits for a client.

use std::fmt;

use super::databases::Databases;
use crate::base::{Index, PageNo};
use crate::codec::command::Command;

/// Why a committed command could not be applied: the node must not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyFailure {
    /// The entry.
    pub index: Index,
    /// What was expected and what was found.
    pub reason: String,
}

impl fmt::Display for ApplyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot apply log entry {}: {}", self.index, self.reason)
    }
}

/// Applies commands in log order, and keeps the pages of a transaction that comes in several commands.
#[derive(Debug, Default)]
pub struct Applier {
    /// Pages of FRAMES commands without the commit flag, as very old versions wrote them; one for all databases.
    unfinished: Vec<(PageNo, Vec<u8>)>,
}

impl Applier {
    /// Applies the command in `bytes`.
    ///
    /// # Errors
    /// The command does not decode, or does not fit its database.
    pub fn apply(
        &mut self,
        databases: &mut Databases,
        index: Index,
        bytes: &[u8],
    ) -> Result<(), ApplyFailure> {
        let failure = |reason: String| ApplyFailure { index, reason };
        match Command::decode(bytes).map_err(|error| failure(error.to_string()))? {
            Command::Open { .. } | Command::Checkpoint { .. } => Ok(()),
            Command::Undo { .. } => {
                self.unfinished.clear();
                Ok(())
            }
            Command::Frames(frames) if !frames.is_commit => {
                let pages = frames.pages.iter().map(|(number, page)| (*number, page.to_vec()));
                self.unfinished.extend(pages);
                Ok(())
            }
            Command::Frames(frames) => {
                let unfinished = std::mem::take(&mut self.unfinished);
                let mut pages: Vec<(PageNo, &[u8])> =
                    unfinished.iter().map(|(number, page)| (*number, page.as_slice())).collect();
                pages.extend(frames.pages.iter().copied());
                let slot = databases.open(frames.filename);
                let Some(state) = databases.get(slot) else { return Ok(()) };
                let garbage = state.database.apply(&pages).map_err(|error| {
                    let name = String::from_utf8_lossy(frames.filename);
                    failure(format!("database '{name}': {error}"))
                })?;
                databases.note_garbage(garbage);
                Ok(())
            }
        }
    }
}
