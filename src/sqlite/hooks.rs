//! What SQLite calls back: the authorizer, the progress handler, our random functions.
#![expect(unsafe_code, reason = "callbacks from SQLite")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::catch_unwind;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use libsqlite3_sys as ffi;

use super::codes::SqlError;
use super::threads;

/// VM instructions between two calls of the progress handler: some 30 to 50 us.
const PROGRESS_STEPS: c_int = 1000;

static PROGRESS_HOOK: OnceLock<fn()> = OnceLock::new();

/// Has `hook` called from within long statements of all connections, on the thread that runs them. The first
/// call of this function wins.
pub fn set_progress_hook(hook: fn()) {
    PROGRESS_HOOK.get_or_init(|| hook);
}

/// What a connection shares with its callbacks and its interrupters.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) interrupted: AtomicBool,
    /// The connection while it is open. The mutex keeps it open while `sqlite3_interrupt` runs.
    db: Mutex<Handle>,
}

#[derive(Debug)]
struct Handle(*mut ffi::sqlite3);

// SAFETY: only `sqlite3_interrupt` is called through it, which any thread may call while the handle is open.
unsafe impl Send for Handle {}

impl Shared {
    pub(super) fn new(db: *mut ffi::sqlite3) -> Self {
        Self { interrupted: AtomicBool::new(false), db: Mutex::new(Handle(db)) }
    }

    /// Stops the statement that runs; without the lock, since this only sets flags.
    pub(super) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        if !db.0.is_null() {
            // SAFETY: the handle is open, and `detach` waits for the mutex held here before it is closed.
            unsafe { ffi::sqlite3_interrupt(db.0) };
        }
    }

    /// To be called before the connection is closed.
    pub(super) fn detach(&self) {
        self.db.lock().unwrap_or_else(PoisonError::into_inner).0 = std::ptr::null_mut();
    }
}

/// Installs the callbacks.
///
/// # Safety
/// `db` is an open connection, and `shared` outlives it.
pub(super) unsafe fn install(db: *mut ffi::sqlite3, shared: *const Shared) -> Result<(), SqlError> {
    let data = shared.cast_mut().cast::<c_void>();
    // SAFETY: the caller's contract; the handler only reads `shared`.
    unsafe { ffi::sqlite3_progress_handler(db, PROGRESS_STEPS, Some(progress), data) };
    // SAFETY: the caller's contract; the authorizer takes no data.
    let code = unsafe { ffi::sqlite3_set_authorizer(db, Some(authorize), std::ptr::null_mut()) };
    if code != ffi::SQLITE_OK {
        return Err(SqlError::new(code, "cannot set the authorizer"));
    }
    // SAFETY: the option takes an int and a pointer that may be null.
    unsafe {
        ffi::sqlite3_db_config(
            db,
            ffi::SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION,
            0 as c_int,
            std::ptr::null_mut::<c_int>(),
        )
    };
    if threads::mode().is_some_and(|mode| mode.single) {
        // SAFETY: the caller's contract.
        unsafe { replace_random(db) }?;
    }
    Ok(())
}

unsafe extern "C" fn progress(data: *mut c_void) -> c_int {
    let outcome = catch_unwind(|| {
        threads::yield_now();
        if let Some(hook) = PROGRESS_HOOK.get() {
            hook();
        }
    });
    // SAFETY: `install`'s caller promised that the data outlives the connection, which runs a statement.
    let shared = unsafe { &*data.cast::<Shared>() };
    // A panic must not get into SQLite's frames; it ends the statement instead.
    c_int::from(outcome.is_err() || shared.interrupted.load(Ordering::Relaxed))
}

/// Pragmas that may be read but not set.
const READ_ONLY_PRAGMAS: [&[u8]; 4] = [b"journal_mode", b"page_size", b"wal_autocheckpoint", b"synchronous"];

/// Pragmas that may not even be read.
const REFUSED_PRAGMAS: [&[u8]; 4] =
    [b"wal_checkpoint", b"busy_timeout", b"read_uncommitted", b"locking_mode"];

/// C's rules, as of 1.18.6: what could change how the database is stored or locked is refused.
fn is_allowed(action: c_int, first: Option<&[u8]>, second: Option<&[u8]>) -> bool {
    let among = |names: &[&[u8]]| {
        first.is_some_and(|found| names.iter().any(|name| name.eq_ignore_ascii_case(found)))
    };
    match action {
        ffi::SQLITE_PRAGMA => !among(&REFUSED_PRAGMAS) && (second.is_none() || !among(&READ_ONLY_PRAGMAS)),
        // An expression instead of a literal arrives as no name at all. VACUUM attaches the empty name itself.
        ffi::SQLITE_ATTACH => first == Some(b""),
        _ => true,
    }
}

unsafe extern "C" fn authorize(
    _data: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    _database: *const c_char,
    _trigger: *const c_char,
) -> c_int {
    // SAFETY: SQLite passes null or a NUL-terminated text that lives as long as this call; `bytes` copies none.
    let bytes = |text: *const c_char| unsafe { (!text.is_null()).then(|| CStr::from_ptr(text).to_bytes()) };
    if is_allowed(action, bytes(first), bytes(second)) { ffi::SQLITE_OK } else { ffi::SQLITE_DENY }
}

/// Replaces `random()` and `randomblob()`: SQLite's generator has no mutex in single-thread mode, and the host
/// may be in it at the same time.
///
/// # Safety
/// `db` is an open connection.
unsafe fn replace_random(db: *mut ffi::sqlite3) -> Result<(), SqlError> {
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_INNOCUOUS;
    let functions: [(&CStr, c_int, Function); 2] = [(c"random", 0, random), (c"randomblob", 1, random_blob)];
    for (name, arguments, function) in functions {
        // SAFETY: the caller's contract; the functions need no data and nothing to free it.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                db,
                name.as_ptr(),
                arguments,
                flags,
                std::ptr::null_mut(),
                Some(function),
                None,
                None,
                None,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(SqlError::new(code, "cannot replace the random functions"));
        }
    }
    Ok(())
}

type Function = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// # Safety
/// `context` is the one of a running function.
unsafe fn fail(context: *mut ffi::sqlite3_context) {
    let text = "the system gives no random bytes";
    let text_len = c_int::try_from(text.len()).unwrap_or(0);
    // SAFETY: the caller's contract; SQLite copies the text.
    unsafe { ffi::sqlite3_result_error(context, text.as_ptr().cast(), text_len) };
}

unsafe extern "C" fn random(context: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        // SAFETY: SQLite's own context.
        return unsafe { fail(context) };
    }
    // Like SQLite: never the one number whose absolute value does not exist.
    let number = i64::from_le_bytes(bytes);
    let number = if number < 0 { -(number & i64::MAX) } else { number };
    // SAFETY: SQLite's own context.
    unsafe { ffi::sqlite3_result_int64(context, number) };
}

unsafe extern "C" fn random_blob(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    if count != 1 || arguments.is_null() {
        // SAFETY: SQLite's own context.
        return unsafe { fail(context) };
    }
    // SAFETY: SQLite passes as many values as it says, one here.
    let wanted = unsafe { ffi::sqlite3_value_int64(*arguments) }.max(1);
    // SAFETY: SQLite's own context; a negative value only asks for the limit.
    let limit =
        unsafe { ffi::sqlite3_limit(ffi::sqlite3_context_db_handle(context), ffi::SQLITE_LIMIT_LENGTH, -1) };
    if wanted > i64::from(limit) {
        // SAFETY: SQLite's own context.
        return unsafe { ffi::sqlite3_result_error_toobig(context) };
    }
    let Ok(size) = usize::try_from(wanted) else {
        // SAFETY: SQLite's own context.
        return unsafe { ffi::sqlite3_result_error_toobig(context) };
    };
    // SAFETY: SQLite's allocator; the buffer is checked for null, filled whole, and given back to SQLite to free.
    unsafe {
        let buffer = ffi::sqlite3_malloc64(size as u64).cast::<u8>();
        if buffer.is_null() {
            return ffi::sqlite3_result_error_nomem(context);
        }
        buffer.write_bytes(0, size);
        if getrandom::fill(slice::from_raw_parts_mut(buffer, size)).is_err() {
            ffi::sqlite3_free(buffer.cast());
            return fail(context);
        }
        ffi::sqlite3_result_blob64(context, buffer.cast(), size as u64, Some(ffi::sqlite3_free));
    }
}
