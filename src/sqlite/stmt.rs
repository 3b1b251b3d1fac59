//! Prepared statements of a connection, and the cache that keeps those prepared from text.
#![expect(unsafe_code, reason = "calls SQLite")]

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int};
use std::ptr::{self, NonNull};
use std::slice;

use libsqlite3_sys as ffi;

use super::codes::{self, SqlError};
use super::{Conn, ValueRef, threads};
use crate::base::limits;

/// A statement of one connection, valid until it is finalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StmtId(usize);

/// What preparing a text gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The statement; none when the text holds only blanks, comments and semicolons.
    pub id: Option<StmtId>,
    /// Where the text goes on after the statement's `;`.
    pub tail: usize,
}

/// What a step gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A row is there to be read.
    Row,
    /// The statement is done.
    Done,
}

#[derive(Debug)]
struct Statement {
    raw: NonNull<ffi::sqlite3_stmt>,
    /// The text it was prepared from, up to the end of what was given, when it may go back to the cache.
    text: Option<Box<[u8]>>,
    tail: usize,
}

/// The statements of a connection: those in use by slot, and those that wait to be used again.
#[derive(Debug, Default)]
pub(super) struct Statements {
    slots: Vec<Option<Statement>>,
    free: Vec<usize>,
    /// Least recently used first.
    cache: VecDeque<Statement>,
    cache_bytes: usize,
}

impl Statements {
    fn insert(&mut self, statement: Statement) -> StmtId {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index)
        {
            *slot = Some(statement);
            return StmtId(index);
        }
        self.slots.push(Some(statement));
        StmtId(self.slots.len().saturating_sub(1))
    }

    fn remove(&mut self, id: StmtId) -> Option<Statement> {
        let statement = self.slots.get_mut(id.0)?.take()?;
        self.free.push(id.0);
        Some(statement)
    }

    fn take_cached(&mut self, text: &[u8]) -> Option<Statement> {
        let position = self.cache.iter().rposition(|known| known.text.as_deref() == Some(text))?;
        let statement = self.cache.remove(position)?;
        self.cache_bytes = self.cache_bytes.saturating_sub(text.len());
        Some(statement)
    }
}

impl Conn {
    /// Compiles the first statement of `sql`. With `cached`, a statement prepared from the same text before is
    /// used again, and [`Self::finalize`] keeps it for the next time.
    ///
    /// # Errors
    /// [`SqlError`] when the text does not compile, or the authorizer refuses it.
    pub fn prepare(&mut self, sql: &[u8], cached: bool) -> Result<Prepared, SqlError> {
        if cached && let Some(statement) = self.statements.take_cached(sql) {
            let tail = statement.tail;
            return Ok(Prepared { id: Some(self.statements.insert(statement)), tail });
        }
        let _guard = threads::enter();
        let Ok(length) = c_int::try_from(sql.len()) else {
            return Err(SqlError::new(codes::TOOBIG, "string or blob too big"));
        };
        let (mut raw, mut end) = (ptr::null_mut(), ptr::null());
        let start = sql.as_ptr().cast::<c_char>();
        // SAFETY: the handle is open, the text has this length, and both results have a place.
        let code = unsafe {
            ffi::sqlite3_prepare_v3(
                self.db.as_ptr(),
                start,
                length,
                ffi::SQLITE_PREPARE_PERSISTENT,
                &raw mut raw,
                &raw mut end,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(self.last_error());
        }
        // The end lies within the text, or is null when there was none to look at.
        let tail = if end.is_null() { sql.len() } else { end.addr().saturating_sub(start.addr()) };
        let tail = tail.min(sql.len());
        let text = cached.then(|| sql.into());
        let id = NonNull::new(raw).map(|raw| self.statements.insert(Statement { raw, text, tail }));
        Ok(Prepared { id, tail })
    }

    /// Whether `sql` holds anything but blanks, comments and semicolons; what does not compile counts.
    pub fn is_blank(&mut self, sql: &[u8]) -> bool {
        if sql.iter().all(|byte| byte.is_ascii_whitespace() || *byte == b';') {
            return true;
        }
        match self.prepare(sql, false) {
            Ok(Prepared { id: None, .. }) => true,
            Ok(Prepared { id: Some(id), .. }) => {
                self.finalize(id);
                false
            }
            Err(_) => false,
        }
    }

    fn raw(&self, id: StmtId) -> Option<*mut ffi::sqlite3_stmt> {
        self.statements.slots.get(id.0)?.as_ref().map(|statement| statement.raw.as_ptr())
    }

    /// An `int` that SQLite knows about the statement, by a call that needs nothing else.
    fn number(&self, id: StmtId, call: unsafe extern "C" fn(*mut ffi::sqlite3_stmt) -> c_int) -> c_int {
        let _guard = threads::enter();
        // SAFETY: all callers in this file pass getters of a statement, and `raw` gives live ones only.
        self.raw(id).map_or(0, |raw| unsafe { call(raw) })
    }

    /// The highest parameter index.
    #[must_use]
    pub fn stmt_param_count(&self, id: StmtId) -> usize {
        usize::try_from(self.number(id, ffi::sqlite3_bind_parameter_count)).unwrap_or(0)
    }

    /// How many columns a row of the statement has; 0 when it yields none.
    #[must_use]
    pub fn column_count(&self, id: StmtId) -> usize {
        usize::try_from(self.number(id, ffi::sqlite3_column_count)).unwrap_or(0)
    }

    /// Whether the statement itself writes nothing. Trap: also true for BEGIN, COMMIT and the like, and false
    /// for writes to temporary tables.
    #[must_use]
    pub fn readonly(&self, id: StmtId) -> bool {
        self.number(id, ffi::sqlite3_stmt_readonly) != 0
    }

    /// Whether the statement is an EXPLAIN or EXPLAIN QUERY PLAN.
    #[must_use]
    pub fn is_explain(&self, id: StmtId) -> bool {
        self.number(id, ffi::sqlite3_stmt_isexplain) != 0
    }

    /// Whether the statement is between its first step and its last.
    #[must_use]
    pub fn is_running(&self, id: StmtId) -> bool {
        self.number(id, ffi::sqlite3_stmt_busy) != 0
    }

    /// A text that SQLite knows about a column.
    fn column_text(
        &self,
        id: StmtId,
        column: usize,
        call: unsafe extern "C" fn(*mut ffi::sqlite3_stmt, c_int) -> *const c_char,
    ) -> Option<Vec<u8>> {
        let _guard = threads::enter();
        let (raw, column) = (self.raw(id)?, c_int::try_from(column).ok()?);
        // SAFETY: the statement is live; a column that does not exist gives null.
        let text = unsafe { call(raw, column) };
        // SAFETY: not null, so NUL-terminated, and valid until the next call: it is copied.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes().to_vec())
    }

    /// The name of a result column.
    #[must_use]
    pub fn column_name(&self, id: StmtId, column: usize) -> Vec<u8> {
        let name = self.column_text(id, column, ffi::sqlite3_column_name).unwrap_or_default();
        // SQLite names the column of a PRAGMA that a VFS answers after the answer; our VFS answers only this one.
        if name == JOURNAL_MODE && self.is_pragma(id) { b"journal_mode".to_vec() } else { name }
    }

    fn is_pragma(&self, id: StmtId) -> bool {
        let _guard = threads::enter();
        let Some(raw) = self.raw(id) else { return false };
        // SAFETY: the statement is live, so it has its text, which stays where it is until it is finalized.
        let text = unsafe { CStr::from_ptr(ffi::sqlite3_sql(raw)) };
        first_word(text.to_bytes()).eq_ignore_ascii_case(b"PRAGMA")
    }

    /// The declared type of the table column that a result column shows, if it is one.
    #[must_use]
    pub fn column_decltype(&self, id: StmtId, column: usize) -> Option<Vec<u8>> {
        self.column_text(id, column, ffi::sqlite3_column_decltype)
    }

    /// Binds a parameter, counted from 1.
    ///
    /// # Errors
    /// [`SqlError`] when there is no such parameter, the value is too long, or the statement runs.
    pub fn bind(&mut self, id: StmtId, index: usize, value: ValueRef<'_>) -> Result<(), SqlError> {
        let _guard = threads::enter();
        let raw = self.raw(id).ok_or_else(no_statement)?;
        let index = c_int::try_from(index).unwrap_or(c_int::MAX);
        // SAFETY: the statement is live; SQLite copies texts and blobs before it returns.
        let code = unsafe {
            let copy = ffi::SQLITE_TRANSIENT();
            match value {
                ValueRef::Integer(value) => ffi::sqlite3_bind_int64(raw, index, value),
                ValueRef::Float(value) => ffi::sqlite3_bind_double(raw, index, value),
                ValueRef::Text(text) => {
                    let (start, utf8) = (text.as_ptr().cast(), UTF8);
                    ffi::sqlite3_bind_text64(raw, index, start, text.len() as u64, copy, utf8)
                }
                ValueRef::Blob(blob) => {
                    ffi::sqlite3_bind_blob64(raw, index, blob.as_ptr().cast(), blob.len() as u64, copy)
                }
                ValueRef::Null => ffi::sqlite3_bind_null(raw, index),
            }
        };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.last_error()) }
    }

    /// Sets all parameters to NULL.
    pub fn clear_bindings(&mut self, id: StmtId) {
        self.number(id, ffi::sqlite3_clear_bindings);
    }

    /// Runs the statement to its next row, or to its end.
    ///
    /// # Errors
    /// [`SqlError`] when the statement fails; it must be reset then.
    pub fn step(&mut self, id: StmtId) -> Result<Step, SqlError> {
        let _guard = threads::enter();
        let raw = self.raw(id).ok_or_else(no_statement)?;
        // SAFETY: the statement is live, and `&mut` keeps others off the connection.
        match unsafe { ffi::sqlite3_step(raw) } {
            ffi::SQLITE_ROW => Ok(Step::Row),
            ffi::SQLITE_DONE => Ok(Step::Done),
            _ => Err(self.last_error()),
        }
    }

    /// A value of the current row; NULL when there is no row or no such column.
    #[must_use]
    pub fn column(&self, id: StmtId, column: usize) -> ValueRef<'_> {
        let _guard = threads::enter();
        let (Some(raw), Ok(column)) = (self.raw(id), c_int::try_from(column)) else {
            return ValueRef::Null;
        };
        // SAFETY: the statement is live. SQLite keeps the bytes of a text or blob until the statement is stepped,
        // reset or finalized, all of which need `&mut self`. Texts are stored as UTF-8, so asking twice converts
        // nothing; the length is asked after the pointer, as SQLite demands.
        unsafe {
            match ffi::sqlite3_column_type(raw, column) {
                ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_column_int64(raw, column)),
                ffi::SQLITE_FLOAT => ValueRef::Float(ffi::sqlite3_column_double(raw, column)),
                ffi::SQLITE_TEXT => {
                    let start = ffi::sqlite3_column_text(raw, column);
                    ValueRef::Text(bytes(start, ffi::sqlite3_column_bytes(raw, column)))
                }
                ffi::SQLITE_BLOB => {
                    let start = ffi::sqlite3_column_blob(raw, column).cast();
                    ValueRef::Blob(bytes(start, ffi::sqlite3_column_bytes(raw, column)))
                }
                _ => ValueRef::Null,
            }
        }
    }

    /// Ends a run of the statement; its transaction too, if it has one of its own. What failed then was told by
    /// the step already, but for a commit that a statement stopped half way makes here.
    ///
    /// # Errors
    /// [`SqlError`] as the last step gave it, or as the commit gives it.
    pub fn reset(&mut self, id: StmtId) -> Result<(), SqlError> {
        let code = self.number(id, ffi::sqlite3_reset);
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.last_error()) }
    }

    /// Gives the statement up; one from a cached text is kept for the next who prepares that text.
    pub fn finalize(&mut self, id: StmtId) {
        let Some(statement) = self.statements.remove(id) else { return };
        let _guard = threads::enter();
        let Some(text) = statement.text.as_ref() else { return finalize_raw(&statement) };
        let bytes = text.len();
        // SAFETY: the statement is live. What the reset returns was told by the step.
        unsafe {
            ffi::sqlite3_reset(statement.raw.as_ptr());
            ffi::sqlite3_clear_bindings(statement.raw.as_ptr());
        }
        if bytes > limits::STATEMENT_CACHE_BYTES_MAX / 2 {
            return finalize_raw(&statement);
        }
        self.statements.cache_bytes = self.statements.cache_bytes.saturating_add(bytes);
        self.statements.cache.push_back(statement);
        while self.statements.cache.len() > limits::STATEMENT_CACHE_COUNT_MAX
            || self.statements.cache_bytes > limits::STATEMENT_CACHE_BYTES_MAX
        {
            let Some(oldest) = self.statements.cache.pop_front() else { break };
            let oldest_bytes = oldest.text.as_ref().map_or(0, |text| text.len());
            self.statements.cache_bytes = self.statements.cache_bytes.saturating_sub(oldest_bytes);
            finalize_raw(&oldest);
        }
    }

    /// Gives the statement up for good, as one that failed.
    pub fn discard(&mut self, id: StmtId) {
        if let Some(statement) = self.statements.remove(id) {
            let _guard = threads::enter();
            finalize_raw(&statement);
        }
    }

    pub(super) fn finalize_all(&mut self) {
        let in_use = self.statements.slots.drain(..).flatten();
        in_use.chain(self.statements.cache.drain(..)).for_each(|statement| finalize_raw(&statement));
        self.statements = Statements::default();
    }

    /// How many statements wait to be used again, and the bytes of their texts.
    #[must_use]
    pub fn cached_statements(&self) -> (usize, usize) {
        (self.statements.cache.len(), self.statements.cache_bytes)
    }
}

/// What our VFS answers to `PRAGMA journal_mode`.
const JOURNAL_MODE: &[u8] = b"wal";

/// The first word of a text, behind blanks, comments and semicolons.
fn first_word(mut text: &[u8]) -> &[u8] {
    loop {
        let after = |text: &[u8], end: &[u8]| {
            let found = text.windows(end.len()).position(|part| part == end);
            found.map_or(text.len(), |at| at.saturating_add(end.len()))
        };
        let skipped = match text {
            [b';', ..] => 1,
            [byte, ..] if byte.is_ascii_whitespace() => 1,
            [b'-', b'-', ..] => after(text, b"\n"),
            [b'/', b'*', inside @ ..] => after(inside, b"*/").saturating_add(2),
            _ => break,
        };
        text = text.get(skipped..).unwrap_or_default();
    }
    let end = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// `SQLITE_UTF8` in the type that the call wants.
const UTF8: u8 = 1;

fn no_statement() -> SqlError {
    SqlError::new(codes::MISUSE, "no such statement")
}

/// The statement was taken out of its table: nobody can use it after this.
fn finalize_raw(statement: &Statement) {
    // SAFETY: made by `prepare`, owned by the caller, and not used again. The code repeats the last step's.
    unsafe { ffi::sqlite3_finalize(statement.raw.as_ptr()) };
}

/// # Safety
/// `start` is null, or has `length` bytes that live for `'a`.
unsafe fn bytes<'a>(start: *const u8, length: c_int) -> &'a [u8] {
    match usize::try_from(length) {
        // SAFETY: the caller's contract.
        Ok(length) if length > 0 && !start.is_null() => unsafe { slice::from_raw_parts(start, length) },
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::first_word;

    #[test]
    fn the_first_word_stands_behind_blanks_and_comments() {
        for text in ["pragma x", " ;\t\npragma", "-- a\npragma.x", "/* a */ /**/pragma(", "/* -- */pragma"] {
            assert_eq!(first_word(text.as_bytes()), b"pragma", "{text}");
        }
        for text in ["", " ", "-- pragma", "/* pragma", "(pragma)", "/", "--"] {
            assert_eq!(first_word(text.as_bytes()), b"", "{text}");
        }
    }
}
