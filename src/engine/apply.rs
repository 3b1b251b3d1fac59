//! Committed entries of other leaders, or from before a restart, become versions of the page stores.
//!
//! No connection and no SQLite call is needed, and nothing here waits for a client.

use std::fmt;
use std::sync::Arc;

use super::databases::Databases;
use crate::base::{DecodeError, Index, PageNo, Payload};
use crate::codec::command::{Command, shared_frames};
use crate::pages::Page;

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
    unfinished: Vec<(PageNo, Page)>,
}

impl Applier {
    /// Applies the command in `payload`. Pages that are parts of it are shared with the database, not copied.
    ///
    /// # Errors
    /// The command does not decode, or does not fit its database.
    pub fn apply(
        &mut self,
        databases: &mut Databases,
        index: Index,
        payload: &Payload,
    ) -> Result<(), ApplyFailure> {
        if let Some(frames) = shared_frames(payload) {
            let shared = |(number, page): (PageNo, &Arc<[u8]>)| (number, Page::from(Arc::clone(page)));
            let pages = frames.pages.into_iter().map(shared);
            return self.take(databases, index, (frames.filename, frames.is_commit), pages);
        }
        let reason = |error: DecodeError| ApplyFailure { index, reason: error.to_string() };
        match Command::decode(&payload.contiguous()).map_err(reason)? {
            Command::Open { .. } | Command::Checkpoint { .. } => Ok(()),
            Command::Undo { .. } => {
                self.unfinished.clear();
                Ok(())
            }
            Command::Frames(frames) => {
                let pages = frames.pages.iter().map(|(number, page)| (*number, Page::from_slice(page)));
                self.take(databases, index, (frames.filename, frames.is_commit), pages)
            }
        }
    }

    fn take(
        &mut self,
        databases: &mut Databases,
        index: Index,
        (filename, is_commit): (&[u8], bool),
        pages: impl Iterator<Item = (PageNo, Page)>,
    ) -> Result<(), ApplyFailure> {
        self.unfinished.extend(pages);
        if !is_commit {
            return Ok(());
        }
        let pages = std::mem::take(&mut self.unfinished);
        let slot = databases.open(filename);
        let Some(state) = databases.get(slot) else { return Ok(()) };
        let garbage = state.database.apply_pages(pages).map_err(|error| {
            let name = String::from_utf8_lossy(filename);
            ApplyFailure { index, reason: format!("database '{name}': {error}") }
        })?;
        databases.note_garbage(garbage);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::Applier;
    use crate::base::{EntryKind, Index, PageNo, Payload};
    use crate::codec::command::{encode_frames, split};
    use crate::engine::databases::Databases;
    use crate::engine::scheduler::Patience;
    use crate::pages::{Page, View};

    fn databases() -> Databases {
        let wait = Duration::from_secs(1);
        Databases::new(Patience { wait, idle: Some(wait) }, 4096, 3_040_001)
    }

    /// A transaction of two pages, as it comes from another server.
    fn bytes(filled: u8, is_commit: bool) -> Vec<u8> {
        let page = |byte: u8| -> Arc<[u8]> { vec![byte; 4096].into() };
        let pages = vec![(PageNo(2), page(filled)), (PageNo(3), page(filled + 1))];
        let mut bytes = encode_frames(b"t", 4096, pages).contiguous().into_owned();
        assert_eq!(bytes[28], 1, "where it says that the transaction ends");
        bytes[28] = is_commit.into();
        bytes
    }

    fn page(databases: &mut Databases, number: u32) -> Page {
        let slot = databases.open(b"t");
        databases.get(slot).unwrap().database.pin(View::Committed).page(PageNo(number)).unwrap().clone()
    }

    #[test]
    fn pages_that_came_from_another_server_are_held_once_by_the_log_and_the_database() {
        let (mut databases, mut applier) = (databases(), Applier::default());
        let payload = split(EntryKind::Command, &bytes(7, true));
        applier.apply(&mut databases, Index(1), &payload).unwrap();
        for (number, part) in (2..).zip(payload.shared_parts().skip(1)) {
            assert!(page(&mut databases, number).is_same(&Page::from(Arc::clone(part))));
        }
        // One that is in a row is taken as well.
        applier.apply(&mut databases, Index(2), &Payload::from_bytes(&bytes(9, true))).unwrap();
        assert_eq!(page(&mut databases, 3).as_slice(), [10; 4096]);
    }

    #[test]
    fn a_transaction_in_several_commands_is_seen_when_it_ends() {
        for make in [|bytes: &[u8]| split(EntryKind::Command, bytes), Payload::from_bytes] {
            let (mut databases, mut applier) = (databases(), Applier::default());
            applier.apply(&mut databases, Index(1), &make(&bytes(1, true))).unwrap();
            applier.apply(&mut databases, Index(2), &make(&bytes(5, false))).unwrap();
            assert_eq!(page(&mut databases, 2).as_slice(), [1; 4096]);
            applier.apply(&mut databases, Index(3), &make(&bytes(7, true))).unwrap();
            assert_eq!(page(&mut databases, 2).as_slice(), [7; 4096]);
        }
    }
}
