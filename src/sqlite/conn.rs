//! One SQLite connection: opened, asked about its state, interrupted, closed.
//!
//! A connection is `Send` but not `Sync`: it is moved to the thread that uses it. Every call takes SQLite's lock
//! by itself; who makes several in a row holds [`super::threads::enter`] around them.
#![expect(unsafe_code, reason = "calls SQLite")]

use std::ffi::{CStr, c_int};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::codes::{self, SqlError};
use super::hooks::{self, Shared};
use super::stmt::{Statements, StmtId};
use super::threads;
use crate::base::limits;
use crate::vfs::{self, Control};

pub use super::hooks::set_progress_hook;

/// How a connection is set up.
#[derive(Clone, Copy, Debug)]
pub struct ConnOptions {
    /// Pages of SQLite's own cache beside changed ones. Pages are read in place, so it need hold hardly any.
    pub cache_pages: u32,
    /// Whether foreign keys are enforced from the start.
    pub foreign_keys: bool,
}

impl Default for ConnOptions {
    fn default() -> Self {
        Self { cache_pages: limits::CONNECTION_CACHE_PAGES, foreign_keys: true }
    }
}

/// A connection.
pub struct Conn {
    pub(super) db: NonNull<ffi::sqlite3>,
    pub(super) statements: Statements,
    /// The callbacks point to it: dropped after the connection is closed.
    shared: Arc<Shared>,
}

// SAFETY: a connection is used by one thread at a time, which `&mut` proves; SQLite allows it to change in
// between. Its statements go along.
unsafe impl Send for Conn {}

/// Stops the statement that a connection runs, from any thread.
#[derive(Clone)]
pub struct Interrupter(Arc<Shared>);

impl Interrupter {
    /// Stops the running statement, or the next one: [`Conn::clear_interrupt`] takes it back.
    pub fn interrupt(&self) {
        self.0.interrupt();
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupter")
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("db", &self.db).finish_non_exhaustive()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let _guard = threads::enter();
        self.finalize_all();
        self.shared.detach();
        // SAFETY: the last use of the handle; no interrupter reaches it any more, and no statement is left.
        let code = unsafe { ffi::sqlite3_close(self.db.as_ptr()) };
        if code != ffi::SQLITE_OK {
            // An extension keeps a statement of its own: the handle stays, so its callbacks' data must too.
            log::warn!("a SQLite connection cannot be closed, code {code}");
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}

impl Conn {
    /// A connection to the database of `control`, which the connection's main file shares from now on.
    ///
    /// # Errors
    /// [`SqlError`] as SQLite gives it.
    pub fn open(control: &Arc<Control>, options: &ConnOptions) -> Result<Self, SqlError> {
        if let Err(error) = threads::initialise(threads::Setting::Auto) {
            return Err(SqlError::new(codes::MISUSE, error.to_string()));
        }
        let _guard = threads::enter();
        vfs::register().map_err(|code| SqlError::new(code, "cannot register the VFS"))?;
        vfs::with_binding(Arc::clone(control), |name, vfs| Self::open_file(name, Some(vfs), options))
    }

    /// A private database in memory, without replication.
    #[cfg(test)]
    pub(super) fn open_memory(options: &ConnOptions) -> Result<Self, SqlError> {
        Self::open_file(c":memory:", None, options)
    }

    fn open_file(name: &CStr, vfs: Option<&CStr>, options: &ConnOptions) -> Result<Self, SqlError> {
        let flags: c_int = ffi::SQLITE_OPEN_READWRITE
            | ffi::SQLITE_OPEN_CREATE
            | ffi::SQLITE_OPEN_NOMUTEX
            | ffi::SQLITE_OPEN_PRIVATECACHE;
        let mut db = ptr::null_mut();
        let vfs = vfs.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: NUL-terminated names and a place for the handle.
        let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, vfs) };
        let Some(db) = NonNull::new(db) else {
            return Err(SqlError::new(code, "out of memory"));
        };
        // From here on dropping `conn` closes the handle.
        let shared = Arc::new(Shared::new(db.as_ptr()));
        let mut conn = Self { db, statements: Statements::default(), shared };
        if code != ffi::SQLITE_OK {
            return Err(conn.last_error());
        }
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_extended_result_codes(conn.db.as_ptr(), 1) };
        conn.configure(options)?;
        // SAFETY: the connection is open, and `shared` is dropped after it is closed.
        unsafe { hooks::install(conn.db.as_ptr(), Arc::as_ptr(&conn.shared)) }?;
        Ok(conn)
    }

    /// The settings that clients may not change run before the authorizer is there.
    fn configure(&mut self, options: &ConnOptions) -> Result<(), SqlError> {
        let foreign_keys = u8::from(options.foreign_keys);
        let text = format!(
            "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; PRAGMA foreign_keys={foreign_keys}; \
             PRAGMA mmap_size=9223372036854775807; PRAGMA cache_size={}; \
             PRAGMA cache_spill={}",
            options.cache_pages,
            limits::CONNECTION_CHANGED_PAGES
        );
        let mut rest = text.as_bytes();
        while let prepared = self.prepare(rest, false)?
            && let Some(id) = prepared.id
        {
            let mut step = self.step(id);
            while step == Ok(super::Step::Row) {
                step = self.step(id);
            }
            self.finalize(id);
            step?;
            rest = rest.get(prepared.tail..).unwrap_or_default();
        }
        // With the first page SQLite allocated room for twenty. From now on it keeps to the size set above.
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_db_release_memory(self.db.as_ptr()) };
        Ok(())
    }

    /// Whether a transaction is open: begun by the client, and not rolled back by an error.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        let _guard = threads::enter();
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_get_autocommit(self.db.as_ptr()) == 0 }
    }

    /// The rowid of the last row inserted by this connection.
    #[must_use]
    pub fn last_insert_rowid(&self) -> i64 {
        let _guard = threads::enter();
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_last_insert_rowid(self.db.as_ptr()) }
    }

    /// The rows changed by the last INSERT, UPDATE or DELETE of this connection; 32 bits as in C.
    #[must_use]
    pub fn changes(&self) -> i32 {
        let _guard = threads::enter();
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_changes(self.db.as_ptr()) }
    }

    /// All rows changed by this connection since it was opened, triggers' too.
    #[must_use]
    pub fn total_changes(&self) -> i32 {
        let _guard = threads::enter();
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_total_changes(self.db.as_ptr()) }
    }

    /// A handle that stops this connection's statements from any thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(Arc::clone(&self.shared))
    }

    /// Whether an interrupt came that nobody cleared yet.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.shared.interrupted.load(Ordering::Relaxed)
    }

    /// Forgets an interrupt, before the next statement. Only for the connection's owner while nothing runs.
    pub fn clear_interrupt(&self) {
        self.shared.interrupted.store(false, Ordering::Relaxed);
    }

    /// Ends a run of the statement so that it fails: what it wrote is rolled back, with its transaction.
    pub fn abort(&mut self, id: StmtId) {
        let _guard = threads::enter();
        // SAFETY: the handle is open. The flag stops the running statements at their next instruction.
        unsafe { ffi::sqlite3_interrupt(self.db.as_ptr()) };
        while self.is_running(id) && self.step(id).is_ok() {}
    }

    /// What the last call that failed left on the connection.
    pub(super) fn last_error(&self) -> SqlError {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::sqlite3_extended_errcode(self.db.as_ptr()) };
        // SAFETY: the handle is open; the text is NUL-terminated and valid until the next call, and copied.
        let message = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.db.as_ptr())) };
        SqlError { code, message: message.to_bytes().to_vec() }
    }
}
