//! The VFS itself: how files are opened, and what SQLite asks the operating system for.
#![expect(
    unsafe_code,
    reason = "SQLite calls these functions with raw pointers, and keeps the table forever"
)]
#![expect(clippy::disallowed_methods, reason = "SQLite's own clock and sleep, which SQL functions ask for")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libsqlite3_sys as ffi;

use super::control::take_binding;
use super::main_file::MainFile;
use super::raw::{File, RawFile};
use super::temp::{BUDGET, TempFile};

/// The name under which SQLite knows this VFS.
pub const VFS_NAME: &CStr = c"dqlite-rs";

/// The longest file name, with room for the suffixes that SQLite appends.
const PATH_BYTES_MAX: c_int = 1024;
/// The start of 1970 in SQLite's time: milliseconds since noon of November 24th, 4714 B.C.
const UNIX_EPOCH_MS: i64 = 210_866_760_000_000;
const MS_PER_DAY: f64 = 86_400_000.0;

/// What may be held in memory: everything that is neither a database nor its log.
const TEMPORARY: c_int = ffi::SQLITE_OPEN_TEMP_DB
    | ffi::SQLITE_OPEN_TRANSIENT_DB
    | ffi::SQLITE_OPEN_MAIN_JOURNAL
    | ffi::SQLITE_OPEN_TEMP_JOURNAL
    | ffi::SQLITE_OPEN_SUBJOURNAL
    | ffi::SQLITE_OPEN_SUPER_JOURNAL;

/// Makes the VFS known to SQLite, once per process; not as the default one.
///
/// This initialises SQLite: a program that wants to configure it must have done so before.
///
/// # Errors
/// SQLite's result code.
pub fn register() -> Result<(), i32> {
    static OUTCOME: OnceLock<c_int> = OnceLock::new();
    let code = *OUTCOME.get_or_init(|| {
        let vfs = Box::leak(Box::new(table()));
        // SAFETY: the table is complete, and leaked: SQLite keeps the pointer and links it into its list.
        unsafe { ffi::sqlite3_vfs_register(vfs, 0) }
    });
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(code) }
}

fn table() -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: c_int::try_from(size_of::<RawFile>()).unwrap_or(c_int::MAX),
        mxPathname: PATH_BYTES_MAX,
        pNext: null_mut(),
        zName: VFS_NAME.as_ptr(),
        pAppData: null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: Some(dl_open),
        xDlError: Some(dl_error),
        xDlSym: Some(dl_sym),
        xDlClose: Some(dl_close),
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(get_last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    _name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives `szOsFile` bytes, aligned for any type. Nothing to close until there is a file.
    unsafe { RawFile::write_closed(file) };
    let opened = catch_unwind(|| {
        if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            take_binding().map(|control| File::Main(MainFile::new(control)))
        } else if flags & TEMPORARY != 0 {
            Some(File::Temp(TempFile::new(&BUDGET)))
        } else {
            None
        }
    });
    let Ok(Some(opened)) = opened else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: as above.
    unsafe { RawFile::write_open(file, opened) };
    // SAFETY: null, or a place for the answer.
    if let Some(out_flags) = unsafe { out_flags.as_mut() } {
        *out_flags = flags;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, _name: *const c_char, _sync: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// No file beside the databases exists: else SQLite would look for journals to roll back.
unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    _name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    if let Some(out) = unsafe { out.as_mut() } {
        *out = 0;
    }
    ffi::SQLITE_OK
}

/// Names are bytes, not paths.
unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    let Ok(size) = usize::try_from(size) else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: SQLite passes a C string.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if name.len() > size {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has room for `size` bytes, which is enough, and does not overlap the name.
    unsafe { out.cast::<u8>().copy_from_nonoverlapping(name.as_ptr(), name.len()) };
    ffi::SQLITE_OK
}

/// Extensions are never loaded.
unsafe extern "C" fn dl_open(_vfs: *mut ffi::sqlite3_vfs, _name: *const c_char) -> *mut c_void {
    null_mut()
}

unsafe extern "C" fn dl_error(_vfs: *mut ffi::sqlite3_vfs, size: c_int, out: *mut c_char) {
    // SAFETY: `out` has room for `size` bytes; `sqlite3_snprintf` ends the text within them.
    unsafe { ffi::sqlite3_snprintf(size, out, c"loadable extensions are not allowed".as_ptr()) };
}

type Symbol = unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *mut c_void, *const c_char);

unsafe extern "C" fn dl_sym(
    _vfs: *mut ffi::sqlite3_vfs,
    _library: *mut c_void,
    _symbol: *const c_char,
) -> Option<Symbol> {
    None
}

unsafe extern "C" fn dl_close(_vfs: *mut ffi::sqlite3_vfs, _library: *mut c_void) {}

/// How many random bytes were given: all, or none.
unsafe extern "C" fn randomness(_vfs: *mut ffi::sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    let Ok(len) = usize::try_from(size) else { return 0 };
    // SAFETY: SQLite gives a buffer of `size` initialised bytes.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), len) };
    match catch_unwind(AssertUnwindSafe(|| getrandom::fill(out))) {
        Ok(Ok(())) => size,
        _ => 0,
    }
}

unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::sleep(Duration::from_micros(u64::try_from(microseconds).unwrap_or_default()));
    microseconds
}

/// Milliseconds in SQLite's time.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH_MS.saturating_add(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

unsafe extern "C" fn current_time_int64(_vfs: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    if let Some(out) = unsafe { out.as_mut() } {
        *out = now();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    if let Some(out) = unsafe { out.as_mut() } {
        *out = now() as f64 / MS_PER_DAY;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn get_last_error(_vfs: *mut ffi::sqlite3_vfs, _size: c_int, _out: *mut c_char) -> c_int {
    0
}
