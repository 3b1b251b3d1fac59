//! Which threading mode the process's SQLite is in, and the lock that stands in for its missing mutexes.
//!
//! Go programs put SQLite into single-thread mode at their start: then it has no mutexes for anybody. The first
//! node of a process tries to undo that, finds out what is in force, and if it is that mode, every SQLite call
//! of ours goes through one fair lock, handed over at yield points. Otherwise the lock costs one relaxed load.
#![expect(unsafe_code, reason = "configures and probes SQLite")]

use std::ffi::c_int;
use std::fmt;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libsqlite3_sys as ffi;

use super::lock::{FairLock, Held};

/// What the user wants done about SQLite's threading mode: `LIBDQLITE_SQLITE_THREADS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting {
    /// Ask SQLite for its mutexes; lock if it has none nevertheless.
    #[default]
    Auto,
    /// Configure nothing; lock if there are no mutexes.
    Keep,
    /// Configure nothing; lock in any case.
    Lock,
    /// Configure nothing and never lock: crashes in single-thread mode.
    Free,
}

impl Setting {
    /// The setting of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "keep" => Some(Self::Keep),
            "lock" => Some(Self::Lock),
            "free" => Some(Self::Free),
            _ => None,
        }
    }
}

/// What was found and decided, once per process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// SQLite is in single-thread mode: it has no mutexes.
    pub single: bool,
    /// Every call goes through the lock.
    pub locked: bool,
}

/// Why SQLite cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadsError {
    /// It was compiled without mutexes; the number `sqlite3_threadsafe` returned.
    NotThreadSafe(i32),
    /// The connection that probes the mode could not be opened; SQLite's code.
    Probe(i32),
}

impl fmt::Display for ThreadsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThreadSafe(found) => {
                write!(f, "libsqlite3: must be built with SQLITE_THREADSAFE 1 or 2, found {found}")
            }
            Self::Probe(code) => write!(f, "libsqlite3: cannot open an empty database, code {code}"),
        }
    }
}

impl std::error::Error for ThreadsError {}

static MODE: OnceLock<Result<Mode, ThreadsError>> = OnceLock::new();
/// The `locked` of [`MODE`], readable in one load.
static LOCKED: AtomicBool = AtomicBool::new(false);
static LOCK: FairLock = FairLock::new();

/// One hold on the lock, or nothing if SQLite has its own mutexes.
#[derive(Debug)]
#[must_use = "the lock is let go when this is dropped"]
pub struct Guard(#[expect(dead_code, reason = "held for its drop")] Option<Held<'static>>);

/// Finds the mode out, once per process: the first call decides, later ones get its answer.
///
/// # Errors
/// [`ThreadsError`] when this SQLite cannot be used from several threads at all.
pub fn initialise(setting: Setting) -> Result<Mode, ThreadsError> {
    *MODE.get_or_init(|| {
        let mode = decide(setting)?;
        LOCKED.store(mode.locked, Ordering::Relaxed);
        if mode.locked {
            // Single instructions that never reach the progress handler, such as count(*), read many pages.
            crate::vfs::set_yield_hook(yield_now);
        }
        Ok(mode)
    })
}

/// The mode in force, if anybody asked for it yet.
#[must_use]
pub fn mode() -> Option<Mode> {
    MODE.get().and_then(|found| found.ok())
}

/// Takes the lock around one or more SQLite calls, if one is needed. Holds nest.
pub fn enter() -> Guard {
    Guard(LOCKED.load(Ordering::Relaxed).then(|| LOCK.enter()))
}

/// Takes the lock if that needs no waiting, for a thread that must not wait.
#[must_use]
pub fn try_enter() -> Option<Guard> {
    if LOCKED.load(Ordering::Relaxed) {
        LOCK.try_enter().map(|held| Guard(Some(held)))
    } else {
        Some(Guard(None))
    }
}

/// Lets waiting threads into SQLite. Only where SQLite itself holds none of its global mutexes: in a progress
/// handler, at the entry of a VFS method, between rows.
pub fn yield_now() {
    if LOCKED.load(Ordering::Relaxed) {
        LOCK.yield_now();
    }
}

fn decide(setting: Setting) -> Result<Mode, ThreadsError> {
    // SAFETY: returns a constant of the build.
    let threadsafe = unsafe { ffi::sqlite3_threadsafe() };
    if threadsafe != 1 && threadsafe != 2 {
        return Err(ThreadsError::NotThreadSafe(threadsafe));
    }
    if setting == Setting::Auto {
        // SAFETY: this option takes no argument. Once SQLite is in use it returns 21 and changes nothing, which
        // leaves the mode as it was: the probe finds it out.
        unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_SERIALIZED) };
    }
    let single = is_single_thread()?;
    let locked = match setting {
        Setting::Auto | Setting::Keep => single,
        Setting::Lock => true,
        Setting::Free => false,
    };
    Ok(Mode { single, locked })
}

/// Whether a connection that asks for a mutex gets none. Comparing two allocated mutexes instead would be
/// fooled by a static one allocated before the host's configuration.
fn is_single_thread() -> Result<bool, ThreadsError> {
    let flags: c_int = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_FULLMUTEX;
    let mut db = ptr::null_mut();
    // SAFETY: a NUL-terminated name, a place for the handle, the default VFS.
    let code = unsafe { ffi::sqlite3_open_v2(c":memory:".as_ptr(), &raw mut db, flags, ptr::null()) };
    if db.is_null() {
        return Err(ThreadsError::Probe(code));
    }
    // SAFETY: `db` is not null, so it is a handle, whatever the code: asked once, then closed.
    let mutex = unsafe { ffi::sqlite3_db_mutex(db) };
    // SAFETY: as above; nobody else has the handle.
    unsafe { ffi::sqlite3_close(db) };
    if code == ffi::SQLITE_OK { Ok(mutex.is_null()) } else { Err(ThreadsError::Probe(code)) }
}

/// The version number of the SQLite library in use, as it stands in the first page of new databases.
#[must_use]
pub fn library_version() -> u32 {
    // SAFETY: reads a constant of the library; allowed at any time, initialised or not.
    let version = unsafe { libsqlite3_sys::sqlite3_libversion_number() };
    version.unsigned_abs()
}
