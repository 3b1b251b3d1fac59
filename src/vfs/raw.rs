//! SQLite's file methods: C arguments become references here, and panics stop here.
#![expect(unsafe_code, reason = "SQLite calls these functions with raw pointers")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use libsqlite3_sys as ffi;

use super::control::yield_now;
use super::main_file::{Answer, Lock, MainFile};
use super::temp::TempFile;

const DEVICE: c_int = ffi::SQLITE_IOCAP_ATOMIC
    | ffi::SQLITE_IOCAP_SAFE_APPEND
    | ffi::SQLITE_IOCAP_SEQUENTIAL
    | ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE;

/// What is behind SQLite's file pointer.
pub(super) enum File {
    Main(MainFile),
    Temp(TempFile),
}

/// What SQLite allocates for a file: its own part first, as it demands.
#[repr(C)]
pub(super) struct RawFile {
    base: ffi::sqlite3_file,
    file: *mut File,
}

impl RawFile {
    /// Fills the memory that SQLite gave for a file that could not be opened: there is nothing to close.
    ///
    /// # Safety
    /// `to` points to writable memory of `size_of::<RawFile>()` bytes, aligned for it.
    pub(super) unsafe fn write_closed(to: *mut ffi::sqlite3_file) {
        // SAFETY: by the contract above.
        unsafe { to.cast::<Self>().write(Self { base: no_methods(), file: null_mut() }) };
    }

    /// Fills the memory that SQLite gave for an open file; its close method frees `file`.
    ///
    /// # Safety
    /// As [`Self::write_closed`].
    pub(super) unsafe fn write_open(to: *mut ffi::sqlite3_file, file: File) {
        let methods = match &file {
            File::Main(_) => &MAIN_METHODS,
            File::Temp(_) => &TEMP_METHODS,
        };
        let base = ffi::sqlite3_file { pMethods: methods };
        // SAFETY: by the contract above.
        unsafe { to.cast::<Self>().write(Self { base, file: Box::into_raw(Box::new(file)) }) };
    }
}

fn no_methods() -> ffi::sqlite3_file {
    ffi::sqlite3_file { pMethods: std::ptr::null() }
}

const NO_METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};
static TEMP_METHODS: ffi::sqlite3_io_methods = NO_METHODS;
/// Without shared memory methods SQLite does not offer write-ahead logging.
static MAIN_METHODS: ffi::sqlite3_io_methods =
    ffi::sqlite3_io_methods { iVersion: 3, xFetch: Some(fetch), xUnfetch: Some(unfetch), ..NO_METHODS };

/// Runs `body` on the file; `failure` is the answer when it panics.
///
/// # Safety
/// `file` is one that [`RawFile::write_open`] filled and [`close`] has not freed, and no other call on it runs.
unsafe fn with_file(
    file: *mut ffi::sqlite3_file,
    failure: c_int,
    body: impl FnOnce(&mut File) -> c_int,
) -> c_int {
    // SAFETY: SQLite passes back what `write_open` filled; it calls the methods of a file one at a time, since a
    // connection is used by one thread at a time, so this is the only reference to the box.
    let Some(file) = (unsafe { file.cast::<RawFile>().as_mut().and_then(|raw| raw.file.as_mut()) }) else {
        return failure;
    };
    // A panic is a broken invariant of ours; the file's state is still memory-safe, and SQLite gets an error.
    catch_unwind(AssertUnwindSafe(|| body(file))).unwrap_or(failure)
}

/// Yields the SQLite lock, if there is one; no panic gets out.
fn yield_point() {
    if catch_unwind(yield_now).is_err() {
        // The hook's own state is its owner's concern; this call goes on.
    }
}

fn code(outcome: Result<(), c_int>) -> c_int {
    outcome.err().unwrap_or(ffi::SQLITE_OK)
}

fn complete(complete: bool) -> c_int {
    if complete { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once, and passes what `write_open` filled.
    let Some(raw) = (unsafe { file.cast::<RawFile>().as_mut() }) else { return ffi::SQLITE_OK };
    raw.base = no_methods();
    let inner = std::mem::replace(&mut raw.file, null_mut());
    if inner.is_null() {
        return ffi::SQLITE_OK;
    }
    // SAFETY: `inner` came from `Box::into_raw` in `write_open`, and the null that took its place keeps it from
    // being freed twice.
    let inner = unsafe { Box::from_raw(inner) };
    catch_unwind(AssertUnwindSafe(|| drop(inner))).map_or(ffi::SQLITE_IOERR_CLOSE, |()| ffi::SQLITE_OK)
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    yield_point();
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite gives a buffer of `amount` bytes that nobody else uses during the call. They may hold
    // anything, but SQLite's memory is initialised as far as bytes can tell.
    let out = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), amount) };
    let body = |file: &mut File| match file {
        File::Main(file) => complete(file.read(offset, out)),
        File::Temp(file) => file.read(offset, out).map_or_else(|code| code, complete),
    };
    // SAFETY: `file` is SQLite's, as `with_file` demands.
    unsafe { with_file(file, ffi::SQLITE_IOERR_READ, body) }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    buffer: *const c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    yield_point();
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite gives `amount` bytes that do not change during the call.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), amount) };
    let body = |file: &mut File| match file {
        File::Main(file) => code(file.write(offset, bytes)),
        File::Temp(file) => code(file.write(offset, bytes)),
    };
    // SAFETY: `file` is SQLite's, as `with_file` demands.
    unsafe { with_file(file, ffi::SQLITE_IOERR_WRITE, body) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    yield_point();
    let Ok(size) = u64::try_from(size) else { return ffi::SQLITE_IOERR_TRUNCATE };
    let body = |file: &mut File| match file {
        File::Main(file) => code(file.truncate(size)),
        File::Temp(file) => code(file.truncate(size)),
    };
    // SAFETY: `file` is SQLite's, as `with_file` demands.
    unsafe { with_file(file, ffi::SQLITE_IOERR_TRUNCATE, body) }
}

/// Nothing: what is durable is the Raft log, and temporary files need not be.
unsafe extern "C" fn sync(_file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    let Some(size) = (unsafe { size.as_mut() }) else { return ffi::SQLITE_IOERR_FSTAT };
    let body = |file: &mut File| {
        let bytes = match file {
            File::Main(file) => file.size(),
            File::Temp(file) => file.size(),
        };
        i64::try_from(bytes).map_or(ffi::SQLITE_IOERR_FSTAT, |bytes| {
            *size = bytes;
            ffi::SQLITE_OK
        })
    };
    // SAFETY: `file` is SQLite's, as `with_file` demands.
    unsafe { with_file(file, ffi::SQLITE_IOERR_FSTAT, body) }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    let body = |file: &mut File| match (file, Lock::from_code(level)) {
        (File::Main(file), Some(level)) => code(file.lock(level)),
        (File::Main(_), None) => ffi::SQLITE_IOERR_LOCK,
        (File::Temp(_), _) => ffi::SQLITE_OK,
    };
    // SAFETY: `file` is SQLite's, as `with_file` demands.
    unsafe { with_file(file, ffi::SQLITE_IOERR_LOCK, body) }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    let body = |file: &mut File| {
        if let (File::Main(file), Some(level)) = (file, Lock::from_code(level)) {
            file.unlock(level);
        }
        ffi::SQLITE_OK
    };
    // SAFETY: `file` is SQLite's, as `with_file` demands.
    unsafe { with_file(file, ffi::SQLITE_IOERR_UNLOCK, body) }
}

/// Nobody: a reader never has to look for a journal that a dead writer left.
unsafe extern "C" fn check_reserved_lock(_file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    if let Some(out) = unsafe { out.as_mut() } {
        *out = 0;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    let body = |file: &mut File| {
        let File::Main(file) = file else { return ffi::SQLITE_NOTFOUND };
        match op {
            ffi::SQLITE_FCNTL_SYNC => code(file.before_commit()),
            ffi::SQLITE_FCNTL_COMMIT_PHASETWO => {
                file.commit();
                ffi::SQLITE_OK
            }
            // SAFETY: for this operation SQLite passes an array of three strings: out, name, value.
            ffi::SQLITE_FCNTL_PRAGMA => unsafe { pragma(file, argument.cast()) },
            ffi::SQLITE_FCNTL_MMAP_SIZE => {
                // SAFETY: for this operation SQLite passes a 64-bit number, in and out.
                if let Some(limit) = unsafe { argument.cast::<i64>().as_mut() } {
                    *limit = file.mmap_limit(*limit);
                }
                ffi::SQLITE_OK
            }
            _ => ffi::SQLITE_NOTFOUND,
        }
    };
    // SAFETY: `file` is SQLite's, as `with_file` demands.
    unsafe { with_file(file, ffi::SQLITE_IOERR, body) }
}

/// Answers a PRAGMA.
///
/// # Safety
/// `arguments` points to three string pointers, of which the second is a name and the third a value or null.
unsafe fn pragma(file: &mut MainFile, arguments: *mut *mut c_char) -> c_int {
    // SAFETY: by the contract above.
    let Some([out, name, value]) = (unsafe { arguments.cast::<[*mut c_char; 3]>().as_mut() }) else {
        return ffi::SQLITE_NOTFOUND;
    };
    let bytes = |text: *mut c_char| {
        // SAFETY: the text is null or a C string that lives during the call.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
    };
    let (name, value) = (bytes(*name), bytes(*value));
    let Some(name) = name else { return ffi::SQLITE_NOTFOUND };
    let (text, code) = match file.pragma(name, value) {
        Answer::NotOurs => return ffi::SQLITE_NOTFOUND,
        Answer::Done => return ffi::SQLITE_OK,
        Answer::Row(text) => (text, ffi::SQLITE_OK),
        Answer::Error(text) => (text, ffi::SQLITE_ERROR),
    };
    // SAFETY: the format takes one C string; SQLite frees the copy, which must be of its own allocator.
    *out = unsafe { ffi::sqlite3_mprintf(c"%s".as_ptr(), text.as_ptr()) };
    code
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // More than a page would make SQLite write pages that did not change.
    let body = |file: &mut File| match file {
        File::Main(file) => c_int::try_from(file.page_size()).unwrap_or(4096),
        File::Temp(_) => 4096,
    };
    // SAFETY: `file` is SQLite's, as `with_file` demands.
    unsafe { with_file(file, 4096, body) }
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    DEVICE
}

unsafe extern "C" fn fetch(
    file: *mut ffi::sqlite3_file,
    offset: i64,
    amount: c_int,
    out: *mut *mut c_void,
) -> c_int {
    yield_point();
    // SAFETY: SQLite gives a place for the answer.
    let Some(out) = (unsafe { out.as_mut() }) else { return ffi::SQLITE_IOERR_MMAP };
    *out = null_mut();
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return ffi::SQLITE_OK;
    };
    let body = |file: &mut File| {
        if let File::Main(file) = file
            && let Some(page) = file.fetch(offset, amount)
        {
            // The file keeps the page alive until its lock is given up, and SQLite never writes to fetched pages.
            *out = page.as_ptr().cast_mut().cast();
        }
        ffi::SQLITE_OK
    };
    // SAFETY: `file` is SQLite's, as `with_file` demands.
    unsafe { with_file(file, ffi::SQLITE_IOERR_MMAP, body) }
}

unsafe extern "C" fn unfetch(file: *mut ffi::sqlite3_file, _offset: i64, page: *mut c_void) -> c_int {
    let body = |file: &mut File| {
        // A null page means: forget every mapping. There is none.
        if let (File::Main(file), false) = (file, page.is_null()) {
            file.unfetch();
        }
        ffi::SQLITE_OK
    };
    // SAFETY: `file` is SQLite's, as `with_file` demands.
    unsafe { with_file(file, ffi::SQLITE_IOERR_MMAP, body) }
}
