//! A look through SQLite at the databases of a snapshot, before a node starts with them.
//!
//! A compressed snapshot has a checksum over its content, which is the proof that nothing was changed. One that
//! is not has none: SQLite's own check finds what it can then, as it does for the C library.

use std::sync::Arc;

use crate::base::PageNo;
use crate::format::snapshot::SnapshotDatabase;
use crate::pages::{Database, Page, WriterId};
use crate::sqlite::{Conn, ConnOptions, SqlError, Step, ValueRef};
use crate::storage::loader::LoadedSnapshot;
use crate::vfs::Control;

/// Constraints of the user are not what is looked for: rows may break them without any damage.
const CHECKS: [&[u8]; 2] = [b"PRAGMA ignore_check_constraints=1", b"PRAGMA quick_check(1)"];

/// Primary codes that say that the file is damaged: SQLITE_CORRUPT, SQLITE_FORMAT, SQLITE_NOTADB.
const DAMAGE: [i32; 3] = [11, 24, 26];

/// The database of these pages, which it shares.
///
/// # Errors
/// Why they are none.
pub fn database(found: &SnapshotDatabase) -> Result<Arc<Database>, String> {
    let pages = (1..).map(PageNo).zip(found.pages.iter().cloned().map(Page::from));
    let name = String::from_utf8_lossy(&found.name);
    Database::from_snapshot(&found.name, found.page_size, pages, found.n_pages)
        .map_err(|error| format!("database '{name}': {error}"))
}

/// Looks for damage in a snapshot that no checksum covers.
///
/// # Errors
/// Which database, and what SQLite says.
pub fn check(snapshot: &LoadedSnapshot) -> Result<(), String> {
    if snapshot.has_checksum {
        return Ok(());
    }
    snapshot.databases.iter().try_for_each(|found| check_database(&database(found)?))
}

/// The databases of a leader's snapshot, which no checksum covered on the way here, each looked at.
///
/// # Errors
/// Which database, and what SQLite says.
pub fn databases(found: &[SnapshotDatabase]) -> Result<Vec<Arc<Database>>, String> {
    let checked = |found| {
        let database = database(found)?;
        check_database(&database)?;
        Ok(database)
    };
    found.iter().map(checked).collect()
}

fn check_database(database: &Arc<Database>) -> Result<(), String> {
    let name = String::from_utf8_lossy(database.name()).into_owned();
    match quick_check(database) {
        Ok(text) if text == b"ok" => Ok(()),
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            Err(format!("database '{name}': PRAGMA quick_check: ok expected, found {text}"))
        }
        Err(error) if DAMAGE.contains(&(error.code & 0xff)) => {
            Err(format!("database '{name}': PRAGMA quick_check: {error}"))
        }
        Err(error) => {
            // Most likely something that only the program brings along, as a collation.
            log::warn!("database '{name}' was not checked: {error}");
            Ok(())
        }
    }
}

/// The first line that the check gives.
fn quick_check(database: &Arc<Database>) -> Result<Vec<u8>, SqlError> {
    let control = Control::new(Arc::clone(database), WriterId(0));
    let mut conn = Conn::open(&control, &ConnOptions { foreign_keys: false, ..ConnOptions::default() })?;
    let mut line = Vec::new();
    for sql in CHECKS {
        let Some(id) = conn.prepare(sql, false)?.id else { continue };
        while conn.step(id)? == Step::Row {
            if let ValueRef::Text(text) = conn.column(id, 0) {
                line = text.to_vec();
            }
        }
        conn.finalize(id);
    }
    Ok(line)
}
