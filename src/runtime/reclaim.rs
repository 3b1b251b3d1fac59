//! Gives the system the memory of pages that nobody has any more.
//!
//! Pages are made by many threads, each from an arena of the allocator's. It keeps an arena up to the last piece in
//! use, so that a few pages at the end of each hold a database that was emptied long ago; unless it is asked to look.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::base::limits::{RECLAIM_BYTES, RECLAIM_PAUSE};
use crate::base::pool;
use crate::sqlite::memory;

/// Whether a thread sees to it already, for the whole process.
static AT_WORK: Mutex<bool> = Mutex::new(false);

/// Nobody tells it anything: it is what a pause is waited at.
static PAUSE: Condvar = Condvar::new();

/// To be called by the thread that dropped something large. If enough pages were freed since the last time, one such
/// thread has the allocator give them back, and stays for a pause, after which it looks again: for all that come
/// meanwhile, who return at once.
pub fn after_a_drop() {
    let mut at_work = AT_WORK.lock().unwrap_or_else(PoisonError::into_inner);
    if *at_work {
        return;
    }
    while pool::freed() >= RECLAIM_BYTES {
        *at_work = true;
        drop(at_work);
        pool::empty();
        memory::reclaim();
        at_work = AT_WORK.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = PAUSE.wait_timeout_while(at_work, RECLAIM_PAUSE, |_| true);
        (at_work, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
    *at_work = false;
}
