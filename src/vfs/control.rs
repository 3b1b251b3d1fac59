//! What an engine and its connection's main file tell each other, past SQLite.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::VFS_NAME;
use crate::pages::{Database, Pinned, Refusal, Version, View, WriterId};

const NONE: u64 = u64::MAX;
/// What SQLite is told when it must not see the client's name: it would take it for something special.
const ALIAS: &CStr = c"database";
/// Longer names would not fit with `-journal` behind them.
const NAME_BYTES_MAX: usize = 1000;

/// Shared by the owner of a connection and the connection's main file.
#[derive(Debug)]
pub struct Control {
    database: Arc<Database>,
    who: WriterId,
    committed_view: AtomicBool,
    silent_repin: AtomicBool,
    holds_slot: AtomicBool,
    pinned: Pinned,
    read: AtomicU64,
    published: AtomicU64,
    refusal: Mutex<Option<Refusal>>,
}

impl Control {
    /// For one connection to `database`, which writes as `who`. Its view is [`View::Committed`] at first, and
    /// it may silently pin again.
    #[must_use]
    pub fn new(database: Arc<Database>, who: WriterId) -> Arc<Self> {
        let pinned = database.note_pins_of(who);
        Arc::new(Self {
            database,
            who,
            committed_view: AtomicBool::new(true),
            silent_repin: AtomicBool::new(true),
            holds_slot: AtomicBool::new(false),
            pinned,
            read: AtomicU64::new(NONE),
            published: AtomicU64::new(NONE),
            refusal: Mutex::new(None),
        })
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The connection's identity as a writer.
    #[must_use]
    pub fn who(&self) -> WriterId {
        self.who
    }

    /// Which version the next transaction pins. A transaction that runs keeps its own.
    pub fn set_view(&self, view: View) {
        self.committed_view.store(view == View::Committed, Ordering::Release);
    }

    pub(super) fn view(&self) -> View {
        if self.committed_view.load(Ordering::Acquire) { View::Committed } else { View::Head }
    }

    /// Whether a transaction that has read nothing yet may move to the newest version when it begins to write,
    /// instead of being told that it is stale.
    pub fn set_silent_repin(&self, allowed: bool) {
        self.silent_repin.store(allowed, Ordering::Release);
    }

    pub(super) fn silent_repin(&self) -> bool {
        self.silent_repin.load(Ordering::Acquire)
    }

    /// The version that the last commit made, told once.
    #[must_use]
    pub fn last_published(&self) -> Option<u64> {
        some(self.published.swap(NONE, Ordering::AcqRel))
    }

    /// The last version that was read from, told once: a reply that shows it must wait until it is committed.
    #[must_use]
    pub fn read_seq(&self) -> Option<u64> {
        some(self.read.swap(NONE, Ordering::AcqRel))
    }

    /// The version that is pinned now: by a statement or transaction that has not ended.
    #[must_use]
    pub fn pinned_seq(&self) -> Option<u64> {
        self.pinned.pin().seq()
    }

    /// Why the writer slot or the commit was last refused, told once.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the connection has the writer slot now.
    #[must_use]
    pub fn holds_slot(&self) -> bool {
        self.holds_slot.load(Ordering::Acquire)
    }

    pub(super) fn note_pinned(&self, version: &Arc<Version>) {
        self.pinned.pin().set(version);
        self.read.store(version.seq(), Ordering::Release);
    }

    /// The pages that are read are those of an older version, which this one does not change.
    pub(super) fn note_renamed(&self, seq: u64) {
        self.pinned.pin().set_seq(Some(seq));
        self.read.store(seq, Ordering::Release);
    }

    pub(super) fn note_unpinned(&self) {
        self.pinned.pin().set_seq(None);
    }

    pub(super) fn note_published(&self, seq: u64) {
        self.published.store(seq, Ordering::Release);
    }

    pub(super) fn note_refusal(&self, refusal: Refusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    pub(super) fn note_slot(&self, held: bool) {
        self.holds_slot.store(held, Ordering::Release);
    }

    /// The client's name for the database if SQLite takes it for a plain one, so that `PRAGMA database_list`
    /// shows it; else an alias.
    fn file_name(&self) -> CString {
        let name = self.database.name();
        let special = name.is_empty()
            || name == b":memory:"
            || name.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"file:"))
            || name.len() > NAME_BYTES_MAX;
        if special { ALIAS.to_owned() } else { CString::new(name).unwrap_or_else(|_| ALIAS.to_owned()) }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.database.forget_pins_of(&self.pinned);
    }
}

fn some(seq: u64) -> Option<u64> {
    (seq != NONE).then_some(seq)
}

thread_local! {
    static BINDING: RefCell<Option<Arc<Control>>> = const { RefCell::new(None) };
}

/// Takes what [`with_binding`] left for the main file that is being opened on this thread.
pub(super) fn take_binding() -> Option<Arc<Control>> {
    BINDING.try_with(|binding| binding.try_borrow_mut().ok()?.take()).ok().flatten()
}

/// Runs `open` with the file name and the VFS name that it must give to SQLite; the main file that it opens
/// on this thread belongs to `control`. Any other main file on this VFS cannot be opened.
pub fn with_binding<R>(control: Arc<Control>, open: impl FnOnce(&CStr, &CStr) -> R) -> R {
    /// Removes what was not consumed, also when `open` panics.
    struct Unbind;
    impl Drop for Unbind {
        fn drop(&mut self) {
            drop(take_binding());
        }
    }
    let name = control.file_name();
    let _unbind = Unbind;
    BINDING.set(Some(control));
    open(&name, VFS_NAME)
}

static YIELD_HOOK: OnceLock<fn()> = OnceLock::new();

/// Sets what is called at the entry of each read, write, fetch and truncation, where SQLite holds none of its
/// global mutexes. The first one of the process stays.
pub fn set_yield_hook(hook: fn()) {
    YIELD_HOOK.get_or_init(|| hook);
}

pub(super) fn yield_now() {
    if let Some(hook) = YIELD_HOOK.get() {
        hook();
    }
}
