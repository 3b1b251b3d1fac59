//! The main database file of one connection: a pinned version, and a private write set on top of it.
//!
//! Invariants: SHARED or more means that a version is pinned; a write set exists only while the writer slot is
//! held; a page that was handed out by [`MainFile::fetch`] stays alive and unchanged until the lock is given up.

use std::ffi::CStr;
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::control::Control;
use super::overlay::{fill, grow, has_equal_header, locate, untouched};
use crate::base::PageNo;
use crate::pages::{Changes, PAGE_NO_MAX, Page, Refusal, Version, View, page1, pending_page};

/// SQLite's result code of something that did not work.
pub(super) type Code = i32;

/// The bytes that a pager reads to learn whether its cache is still right: at 24 of page 1, this many.
const CACHE_CHECK: (u64, usize) = (24, 16);

/// SQLite's lock levels, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Lock {
    None,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

impl Lock {
    pub(super) fn from_code(code: i32) -> Option<Self> {
        match code {
            ffi::SQLITE_LOCK_NONE => Some(Self::None),
            ffi::SQLITE_LOCK_SHARED => Some(Self::Shared),
            ffi::SQLITE_LOCK_RESERVED => Some(Self::Reserved),
            ffi::SQLITE_LOCK_PENDING => Some(Self::Pending),
            ffi::SQLITE_LOCK_EXCLUSIVE => Some(Self::Exclusive),
            _ => None,
        }
    }
}

/// What the file has to say to a PRAGMA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Nothing: SQLite goes on by itself.
    NotOurs,
    /// This row.
    Row(&'static CStr),
    /// Done, without a row.
    Done,
    /// This error.
    Error(&'static CStr),
}

pub(super) struct MainFile {
    control: Arc<Control>,
    lock: Lock,
    pin: Option<Arc<Version>>,
    /// Versions pinned before a commit, while pages of them may still be lent out.
    kept: Vec<Arc<Version>>,
    slot: bool,
    writes: Option<Changes>,
    deletes: bool,
    /// Pages lent out and not given back.
    lent: usize,
    /// Whether a page was lent out since the pin.
    fetched: bool,
    /// Whether the pager's cache may hold anything but page 1.
    cached: bool,
    /// The highest change counter that the pager has seen or written.
    counter_seen: u64,
    /// The pager's cache bears a change counter that is not its content's: make the next check fail.
    spoil: bool,
    mmap_limit: i64,
}

impl MainFile {
    pub(super) fn new(control: Arc<Control>) -> Self {
        Self {
            control,
            lock: Lock::None,
            pin: None,
            kept: Vec::new(),
            slot: false,
            writes: None,
            deletes: false,
            lent: 0,
            fetched: false,
            cached: false,
            counter_seen: 0,
            spoil: false,
            mmap_limit: 0,
        }
    }

    pub(super) fn page_size(&self) -> u32 {
        self.control.database().page_size()
    }

    // -- Locks ---------------------------------------------------------------------------------------------

    pub(super) fn lock(&mut self, level: Lock) -> Result<(), Code> {
        if level <= self.lock {
            return Ok(());
        }
        if self.pin.is_none() {
            let pin = self.control.database().pin(self.control.view());
            self.control.note_pinned(&pin);
            self.pin = Some(pin);
            self.lock = Lock::Shared;
        }
        if level == Lock::Reserved {
            self.reserve()?;
        }
        self.lock = level;
        Ok(())
    }

    fn reserve(&mut self) -> Result<(), Code> {
        let (database, who) = (self.control.database(), self.control.who());
        let Some(pin) = &self.pin else { return Err(ffi::SQLITE_IOERR_LOCK) };
        let mut outcome = database.reserve(who, pin);
        if outcome == Err(Refusal::Stale) && self.may_repin() {
            let head = database.pin(View::Head);
            if has_equal_header(pin, &head) {
                outcome = database.reserve(who, &head);
                if outcome.is_ok() {
                    self.control.note_pinned(&head);
                    self.pin = Some(head);
                }
            }
        }
        match outcome {
            Ok(()) => {
                self.slot = true;
                self.control.note_slot(true);
                let base = self.pin.as_ref().map_or(0, |pin| pin.full_counter());
                // What SQLite is about to write into page 1.
                self.counter_seen = self.counter_seen.max(base + 1);
                Ok(())
            }
            Err(refusal) => {
                self.control.note_refusal(refusal);
                Err(refusal.code())
            }
        }
    }

    /// Whether nothing that the connection holds depends on the pinned version, except page 1. What it keeps in
    /// its cache since earlier transactions counts too: the pager would not ask again for that.
    fn may_repin(&self) -> bool {
        self.control.silent_repin() && self.lock == Lock::Shared && !self.fetched && !self.cached
    }

    pub(super) fn unlock(&mut self, level: Lock) {
        if level >= self.lock {
            return;
        }
        if level <= Lock::Shared {
            self.writes = None;
            self.deletes = false;
            if self.slot {
                self.slot = false;
                self.control.note_slot(false);
                self.control.database().release(self.control.who());
            }
        }
        if level == Lock::None {
            self.pin = None;
            self.kept.clear();
            (self.lent, self.fetched) = (0, false);
            self.control.note_unpinned();
        }
        self.lock = level;
    }

    // -- Reading -------------------------------------------------------------------------------------------

    /// Fills `out` from `offset` on; whether all of it lies within the file. What does not is zeros.
    pub(super) fn read(&mut self, offset: u64, out: &mut [u8]) -> bool {
        let unlocked;
        let version: &Version = match &self.pin {
            Some(pin) => pin,
            None => {
                unlocked = self.control.database().pin(View::Committed);
                &unlocked
            }
        };
        let len = out.len();
        let mut beyond_first = false;
        let mut complete = true;
        let (mut at, mut rest) = (offset, &mut *out);
        while !rest.is_empty() {
            let (no, within) = locate(at, version.page_size());
            let part_len = rest.len().min((version.page_size() as usize).saturating_sub(within));
            let (part, next) = rest.split_at_mut(part_len);
            complete &= fill(version, self.writes.as_ref(), no, within, part);
            beyond_first |= no != Some(PageNo(1));
            at = at.saturating_add(part_len as u64);
            rest = next;
        }
        let (counter, pinned) = (version.full_counter(), self.pin.is_some());
        self.cached |= beyond_first;
        if pinned && (offset, len) == CACHE_CHECK {
            self.answer_cache_check(counter, out);
        }
        self.counter_seen = self.counter_seen.max(counter);
        complete
    }

    /// The pager compares these bytes with those it saw last, and drops its cache when they differ.
    fn answer_cache_check(&mut self, counter: u64, out: &mut [u8]) {
        if self.spoil
            && let Some(first) = out.first_mut()
        {
            *first ^= 0x80;
        }
        // A counter that it has never seen differs for sure.
        if self.spoil || counter > self.counter_seen {
            self.cached = false;
        }
        self.spoil = false;
    }

    pub(super) fn size(&self) -> u64 {
        let n_pages = match (&self.writes, &self.pin) {
            (Some(writes), _) => writes.n_pages,
            (None, Some(pin)) => pin.n_pages(),
            (None, None) => self.control.database().pin(View::Committed).n_pages(),
        };
        u64::from(n_pages) * u64::from(self.page_size())
    }

    /// Lends out a page of the pinned version where it lies; it stays there until the lock is given up. None:
    /// SQLite reads it instead.
    ///
    /// Nothing is lent while the connection may write, as SQLite must then see its own write set.
    pub(super) fn fetch(&mut self, offset: u64, len: usize) -> Option<&[u8]> {
        if self.slot {
            return None;
        }
        let size = self.page_size();
        let (no, within) = locate(offset, size);
        let no = no.filter(|no| *no > PageNo(1))?;
        let page = self.pin.as_ref()?.page(no)?;
        let bytes = page.as_slice().get(within..within.checked_add(len)?)?;
        self.lent += 1;
        self.fetched = true;
        Some(bytes)
    }

    /// Takes a page back.
    pub(super) fn unfetch(&mut self) {
        self.lent = self.lent.saturating_sub(1);
    }

    /// The limit that SQLite set for fetching, and a new one unless it is negative.
    pub(super) fn mmap_limit(&mut self, new: i64) -> i64 {
        let old = self.mmap_limit;
        if new >= 0 {
            self.mmap_limit = new;
        }
        old
    }

    // -- Writing -------------------------------------------------------------------------------------------

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Code> {
        let (true, Some(pin)) = (self.slot, &self.pin) else { return Err(ffi::SQLITE_IOERR_WRITE) };
        let size = pin.page_size();
        self.cached = true;
        let writes = self.writes.get_or_insert_with(|| untouched(pin));
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (no, within) = locate(at, size);
            let no = no.ok_or(ffi::SQLITE_FULL)?;
            let part_len = rest.len().min((size as usize).saturating_sub(within));
            let (part, next) = rest.split_at_checked(part_len).ok_or(ffi::SQLITE_IOERR_WRITE)?;
            let page = if part.len() == size as usize {
                Page::from_slice(part)
            } else {
                let mut whole = vec![0; size as usize];
                let _complete = fill(pin, Some(writes), Some(no), 0, &mut whole);
                whole.iter_mut().skip(within).zip(part).for_each(|(to, from)| *to = *from);
                Page::from_slice(&whole)
            };
            // The lock page exists in the numbering only.
            if no != pending_page(size) {
                grow(writes, pin, no.0);
                writes.pages.insert(no, page);
            }
            at = at.saturating_add(part_len as u64);
            rest = next;
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, bytes: u64) -> Result<(), Code> {
        let (true, Some(pin)) = (self.slot, &self.pin) else { return Err(ffi::SQLITE_IOERR_TRUNCATE) };
        let n_pages = u32::try_from(bytes.div_ceil(u64::from(pin.page_size())));
        let n_pages = n_pages.ok().filter(|n| *n <= PAGE_NO_MAX).ok_or(ffi::SQLITE_FULL)?;
        let writes = self.writes.get_or_insert_with(|| untouched(pin));
        if n_pages < writes.n_pages {
            let _above_the_end = writes.pages.split_off(&PageNo(n_pages + 1));
            writes.n_pages = n_pages;
        } else {
            grow(writes, pin, n_pages);
        }
        Ok(())
    }

    /// The last moment to refuse the commit.
    pub(super) fn before_commit(&self) -> Result<(), Code> {
        let (true, Some(writes)) = (self.slot, &self.writes) else { return Ok(()) };
        let bytes = writes.pages.len() as u64 * u64::from(self.page_size());
        self.control.database().check_commit(self.control.who(), bytes).map_err(|veto| {
            self.control.note_refusal(Refusal::Veto(veto));
            veto.code()
        })
    }

    /// The commit point. It cannot fail: SQLite has already told itself that the transaction is committed.
    pub(super) fn commit(&mut self) {
        let Some(pin) = self.pin.as_ref().filter(|_| self.slot) else { return };
        let pin = Arc::clone(pin);
        let (database, who) = (self.control.database(), self.control.who());
        // With other changes in the transaction the deletion is ignored, as C does.
        let unchanged = self.writes.as_ref().is_none_or(|w| w.pages.is_empty() && w.n_pages == pin.n_pages());
        if self.deletes && unchanged {
            // The pin stays: SQLite's cache holds the old content until the lock is given up.
            let version = database.publish_delete(who, pin);
            self.control.note_published(version.seq());
            self.control.note_renamed(version.seq());
            (self.deletes, self.writes, self.spoil) = (false, None, true);
            return;
        }
        let Some(writes) = self.writes.take_if(|w| !w.pages.is_empty() || w.n_pages != pin.n_pages()) else {
            return;
        };
        let written = writes.pages.get(&PageNo(1)).map(|page| page1::counter(page.as_slice()));
        if self.lent > 0 {
            self.kept.push(Arc::clone(&pin));
        }
        // The store reuses the nodes of a version that nobody else holds: let go of it.
        self.pin = None;
        let version = database.publish(who, pin, writes);
        self.spoil |= written != Some(version.counter());
        self.counter_seen = self.counter_seen.max(version.full_counter());
        self.control.note_published(version.seq());
        self.control.note_pinned(&version);
        self.pin = Some(version);
    }

    // -- PRAGMA --------------------------------------------------------------------------------------------

    pub(super) fn pragma(&mut self, name: &[u8], value: Option<&[u8]>) -> Answer {
        let is = |other: &[u8]| value.is_none() && name.eq_ignore_ascii_case(other);
        if is(b"journal_mode") {
            Answer::Row(c"wal")
        } else if is(b"delete_database") {
            if self.writes.is_some() {
                // Only a transaction that is larger than the cache gets here with something written.
                Answer::Error(c"PRAGMA delete_database must be the only statement run in the transaction.")
            } else if self.slot {
                self.deletes = true;
                Answer::Done
            } else {
                Answer::Error(
                    c"PRAGMA delete_database must be run in a write transaction. Use BEGIN IMMEDIATE to start one.",
                )
            }
        } else {
            Answer::NotOurs
        }
    }
}

impl Drop for MainFile {
    fn drop(&mut self) {
        self.unlock(Lock::None);
    }
}
