//! Connections for tests: on the VFS, and plain ones to compare with.
#![expect(unsafe_code, reason = "calls SQLite directly, without the wrapper that is built on this module")]

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libsqlite3_sys as ffi;

use crate::base::PageNo;
use crate::pages::{Database, Group, View, WriterId};
use crate::vfs::{Control, VFS_NAME, register, with_binding};

pub const PAGE_SIZE: u32 = 4096;

/// What every connection of an engine runs first; the last one says whether pages are fetched.
const OPENING: &str = "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; PRAGMA foreign_keys=1; \
                       PRAGMA cache_size=8; PRAGMA cache_spill=64; PRAGMA mmap_size=";

pub fn database() -> Arc<Database> {
    named(b"test")
}

pub fn named(name: &[u8]) -> Arc<Database> {
    // SAFETY: no precondition.
    let version = unsafe { ffi::sqlite3_libversion_number() };
    Database::new(name, PAGE_SIZE, u32::try_from(version).unwrap())
}

/// A connection; rows come out as text.
pub struct Sql {
    raw: *mut ffi::sqlite3,
    pub control: Arc<Control>,
}

// SAFETY: SQLite is built with mutexes, and each connection is used by one thread at a time.
unsafe impl Send for Sql {}

impl Sql {
    /// On the VFS, with the head view, as the settings of an engine have it.
    pub fn open(database: &Arc<Database>, fetch: bool) -> Self {
        let sql = Self::bare(database, View::Head);
        let answer = sql.rows(&format!("{OPENING}{}", if fetch { 1i64 << 40 } else { 0 })).unwrap();
        let limit = answer.rsplit(';').next().unwrap().parse::<i64>().unwrap();
        assert_eq!(limit > 0, fetch, "{answer}");
        sql
    }

    /// On the VFS, without any setting.
    pub fn bare(database: &Arc<Database>, view: View) -> Self {
        static WRITERS: AtomicU64 = AtomicU64::new(1);
        register().unwrap();
        let who = WriterId(WRITERS.fetch_add(1, Ordering::Relaxed));
        let control = Control::new(Arc::clone(database), who);
        control.set_view(view);
        let raw = with_binding(Arc::clone(&control), |name, vfs| open(name, vfs.as_ptr()));
        Self { raw: raw.unwrap(), control }
    }

    /// A stock database in write-ahead mode.
    pub fn plain(path: &std::path::Path) -> Self {
        let name = CString::new(path.to_str().unwrap()).unwrap();
        let control = Control::new(database(), WriterId(0));
        let sql = Self { raw: open(&name, null()).unwrap(), control };
        sql.rows("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA foreign_keys=1").unwrap();
        sql
    }

    /// Runs statements up to the first error; rows as `a|b;c|d`, or the extended code.
    pub fn rows(&self, sql: &str) -> Result<String, i32> {
        let text = CString::new(sql).unwrap();
        let mut rest = text.as_ptr();
        let mut rows = Vec::new();
        loop {
            let mut statement = null_mut();
            // SAFETY: the connection is open, `rest` points into `text`.
            let code = unsafe { ffi::sqlite3_prepare_v2(self.raw, rest, -1, &mut statement, &mut rest) };
            if code != ffi::SQLITE_OK {
                return Err(code);
            }
            // SAFETY: `rest` points into `text`, a C string.
            if statement.is_null() && unsafe { CStr::from_ptr(rest) }.is_empty() {
                return Ok(rows.join(";"));
            }
            let mut statement = Statement(statement);
            while let Some(row) = statement.step()? {
                rows.push(row);
            }
        }
    }

    /// Runs statements that must succeed.
    pub fn run(&self, sql: &str) -> String {
        self.rows(sql).unwrap_or_else(|code| panic!("{sql}: {code} {}", self.message()))
    }

    /// A statement that is stepped row by row.
    pub fn prepare(&self, sql: &str) -> Statement {
        let (text, mut statement) = (CString::new(sql).unwrap(), null_mut());
        // SAFETY: the connection is open, the text is a C string.
        let code =
            unsafe { ffi::sqlite3_prepare_v2(self.raw, text.as_ptr(), -1, &mut statement, null_mut()) };
        assert_eq!(code, ffi::SQLITE_OK, "{sql}");
        Statement(statement)
    }

    pub fn in_transaction(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_get_autocommit(self.raw) == 0 }
    }

    pub fn message(&self) -> String {
        // SAFETY: the connection is open; the text lives until its next use.
        unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.raw)) }.to_str().unwrap().to_owned()
    }

    /// Adds an SQL function `hook()` that calls `f` in the middle of a statement, and gives 1.
    pub fn hook(&self, f: impl Fn() + 'static) {
        type Hook = Box<dyn Fn()>;
        unsafe extern "C" fn call(
            context: *mut ffi::sqlite3_context,
            _: c_int,
            _: *mut *mut ffi::sqlite3_value,
        ) {
            // SAFETY: the user data is what was given below; SQLite frees it with the function.
            unsafe {
                (*ffi::sqlite3_user_data(context).cast::<Hook>())();
                ffi::sqlite3_result_int(context, 1);
            }
        }
        unsafe extern "C" fn free(data: *mut c_void) {
            // SAFETY: from `Box::into_raw` below, freed once.
            drop(unsafe { Box::from_raw(data.cast::<Hook>()) });
        }
        let data = Box::into_raw(Box::new(Box::new(f) as Hook)).cast();
        // SAFETY: the connection is open; both functions fit the data.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                self.raw,
                c"hook".as_ptr(),
                0,
                ffi::SQLITE_UTF8,
                data,
                Some(call),
                None,
                None,
                Some(free),
            )
        };
        assert_eq!(code, ffi::SQLITE_OK);
    }

    /// Everything that SQL can see of the database.
    pub fn dump(&self) -> String {
        let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name";
        let mut text = self.run(&format!("{schema}; PRAGMA user_version; PRAGMA page_count"));
        text += &self.run("PRAGMA freelist_count; PRAGMA integrity_check(3)");
        let tables = self.run("SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name");
        for table in tables.split(';').filter(|name| !name.is_empty()) {
            text += &format!("\n{table}: {}", self.run(&format!("SELECT * FROM \"{table}\" ORDER BY 1")));
        }
        text
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        // SAFETY: opened by us and closed once; statements of a test end before it.
        let code = unsafe { ffi::sqlite3_close(self.raw) };
        assert!(code == ffi::SQLITE_OK || std::thread::panicking(), "statements left open");
    }
}

/// A statement in the middle of its rows.
pub struct Statement(*mut ffi::sqlite3_stmt);

impl Statement {
    /// The next row as text, none at the end, or the extended code.
    pub fn step(&mut self) -> Result<Option<String>, i32> {
        // SAFETY: the statement is ours, or null, which SQLite answers with an error that is looked at.
        match unsafe { ffi::sqlite3_step(self.0) } {
            ffi::SQLITE_ROW => {}
            ffi::SQLITE_DONE => return Ok(None),
            ffi::SQLITE_MISUSE if self.0.is_null() => return Ok(None),
            code => return Err(code),
        }
        // SAFETY: the statement stands on a row.
        let columns = (0..unsafe { ffi::sqlite3_column_count(self.0) }).map(|column| unsafe {
            let text = ffi::sqlite3_column_text(self.0, column);
            if text.is_null() {
                "NULL".to_owned()
            } else {
                CStr::from_ptr(text.cast()).to_string_lossy().into_owned()
            }
        });
        Ok(Some(columns.collect::<Vec<_>>().join("|")))
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: the statement is ours, and finalized once; null is fine.
        unsafe { ffi::sqlite3_finalize(self.0) };
    }
}

fn open(name: &CStr, vfs: *const std::ffi::c_char) -> Result<*mut ffi::sqlite3, i32> {
    let flags = ffi::SQLITE_OPEN_READWRITE
        | ffi::SQLITE_OPEN_CREATE
        | ffi::SQLITE_OPEN_NOMUTEX
        | ffi::SQLITE_OPEN_PRIVATECACHE
        | ffi::SQLITE_OPEN_EXRESCODE;
    let mut raw = null_mut();
    // SAFETY: both names are C strings, or null for the default VFS.
    let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &mut raw, flags, vfs) };
    if code == ffi::SQLITE_OK {
        return Ok(raw);
    }
    // SAFETY: a failed open may leave a connection, which must be closed.
    unsafe { ffi::sqlite3_close(raw) };
    Err(code)
}

/// Opens the VFS without a binding, as a stray ATTACH would.
pub fn open_unbound() -> i32 {
    register().unwrap();
    open(c"stray", VFS_NAME.as_ptr()).err().unwrap_or(0)
}

/// Takes one group, if there is something, replays it into `follower` and commits it.
pub fn commit(db: &Database, follower: &Database) -> Option<Group> {
    let group = db.take_group(256, 1 << 20)?;
    replay(&group, follower);
    db.commit_to(group.last_seq);
    Some(group)
}

pub fn replay(group: &Group, into: &Database) {
    let pages: Vec<_> = group.pages.iter().map(|(no, page)| (*no, page.as_slice())).collect();
    if !pages.is_empty() {
        into.apply(&pages).unwrap();
    }
}

/// The stored images of every page in a row, as a snapshot has them.
pub fn image(db: &Database, view: View) -> Vec<u8> {
    let version = db.pin(view);
    let mut all = Vec::new();
    for (no, page) in version.pages() {
        assert!(no <= PageNo(version.n_pages()));
        match page {
            Some(page) => all.extend_from_slice(page.as_slice()),
            None => all.resize(all.len() + PAGE_SIZE as usize, 0),
        }
    }
    all
}

pub const TABLE: &str = "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)";

/// Runs a check with pages copied and with pages fetched.
pub fn both(check: impl Fn(bool)) {
    [false, true].into_iter().for_each(check);
}

pub fn table(fetch: bool) -> (Arc<Database>, Arc<Database>, Sql) {
    let (db, follower) = (database(), database());
    let sql = Sql::open(&db, fetch);
    sql.run(TABLE);
    sql.run("INSERT INTO t VALUES (1, 'one'), (2, 'two')");
    commit(&db, &follower).unwrap();
    (db, follower, sql)
}

pub fn count(sql: &Sql) -> String {
    sql.run("SELECT count(*) FROM t")
}
