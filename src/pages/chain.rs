//! The versions of one database, from the committed one to the newest: who may add one, and what becomes of it.
//!
//! Plain data behind the mutex of [`super::Database`].

use std::collections::VecDeque;
use std::sync::Arc;

use super::group::{self, Group, Record};
use super::{ApplyError, Garbage, Page, Refusal, Version, Veto, View, WriterId};
use crate::base::PageNo;
use crate::base::limits::TRANSACTION_BYTES_MAX;

/// How many ranges of discarded versions are remembered: one for each loss of leadership with writes in flight.
/// A reply would have to be held across this many losses to be taken for a committed one.
const DISCARDED_RANGES_MAX: usize = 1024;

struct Slot {
    who: WriterId,
    /// The ground was taken away: this writer can never publish.
    broken: bool,
}

/// A transaction that is ready to become a version.
pub(super) struct Finished {
    /// As [`Record::pages`].
    pub(super) pages: Vec<(PageNo, Page)>,
    pub(super) n_pages: u32,
    pub(super) deletes: bool,
    /// As [`Record::prepared`].
    pub(super) prepared: Option<Vec<(PageNo, Page)>>,
}

pub(super) struct Chain {
    committed: Arc<Version>,
    /// The ends of groups in flight, and the newest version last. Others between are not kept: who pinned one
    /// holds it, and the records can make it again.
    versions: VecDeque<Arc<Version>>,
    /// Each speculative transaction, oldest first.
    records: VecDeque<Record>,
    /// The last version that was handed out in a group.
    taken: u64,
    next_seq: u64,
    /// The highest change counter that any version has or any writer may have written.
    counter_max: u64,
    slot: Option<Slot>,
    only: Option<WriterId>,
    writable: Result<(), Veto>,
    discarded: VecDeque<(u64, u64)>,
    /// Pages held by `records`.
    pages_held: usize,
}

impl Chain {
    pub(super) fn new(first: Version) -> Self {
        Self {
            taken: first.seq,
            next_seq: first.seq + 1,
            counter_max: first.counter,
            committed: Arc::new(first),
            versions: VecDeque::new(),
            records: VecDeque::new(),
            slot: None,
            only: None,
            writable: Ok(()),
            discarded: VecDeque::new(),
            pages_held: 0,
        }
    }

    pub(super) fn head(&self) -> &Arc<Version> {
        self.versions.back().unwrap_or(&self.committed)
    }

    pub(super) fn committed(&self) -> &Arc<Version> {
        &self.committed
    }

    pub(super) fn pin(&self, view: View) -> Arc<Version> {
        Arc::clone(match view {
            View::Committed => &self.committed,
            View::Head => self.head(),
        })
    }

    pub(super) fn reserve(&mut self, who: WriterId, pinned: &Version) -> Result<(), Refusal> {
        self.writable.map_err(Refusal::Veto)?;
        match &self.slot {
            Some(slot) if slot.who == who => return Ok(()),
            Some(_) => return Err(Refusal::Busy),
            None => {}
        }
        if self.only.is_some_and(|only| only != who) {
            return Err(Refusal::Busy);
        }
        let head = self.head();
        if pinned.seq != head.seq {
            return Err(Refusal::Stale);
        }
        // SQLite will write a counter one above what it was shown; remember it, so that it is never given to
        // another content even if this transaction ends in the middle.
        self.counter_max = self.counter_max.max(head.counter + 1);
        self.slot = Some(Slot { who, broken: false });
        Ok(())
    }

    pub(super) fn check_commit(&self, who: WriterId, bytes: u64) -> Result<(), Veto> {
        match &self.slot {
            Some(slot) if slot.who == who && !slot.broken => {}
            _ => return Err(Veto::LeadershipLost),
        }
        self.writable?;
        if bytes > TRANSACTION_BYTES_MAX { Err(Veto::Full) } else { Ok(()) }
    }

    pub(super) fn release(&mut self, who: WriterId) {
        self.slot.take_if(|slot| slot.who == who);
    }

    pub(super) fn slot_holder(&self) -> Option<WriterId> {
        self.slot.as_ref().map(|slot| slot.who)
    }

    pub(super) fn grant_only(&mut self, who: Option<WriterId>) {
        self.only = who;
    }

    pub(super) fn check_writable(&self) -> Result<(), Veto> {
        self.writable
    }

    pub(super) fn set_writable(&mut self, writable: Result<(), Veto>) {
        self.writable = writable;
    }

    /// Adds a transaction on top of `pinned`. `built` is the version it makes, when that was done beforehand.
    ///
    /// This cannot fail, since SQLite has already told itself that the transaction is committed. So one whose
    /// ground was taken away in the last moment gets a version that counts as discarded from the start.
    pub(super) fn publish(
        &mut self,
        who: WriterId,
        pinned: Arc<Version>,
        finished: Finished,
        built: Option<Version>,
    ) -> Arc<Version> {
        let seq = self.next_seq;
        self.next_seq += 1;
        let stands = self.slot.as_ref().is_some_and(|slot| slot.who == who && !slot.broken)
            && pinned.seq == self.head().seq;
        if !stands {
            let mut version = built.unwrap_or_else(|| advanced(&pinned, &finished));
            (version.seq, version.counter) = (seq, self.fresh_counter());
            // One more, so that the next writer's counter, which may be this one, counts as used.
            self.counter_max += 1;
            self.note_discarded(seq, seq);
            return Arc::new(version);
        }

        let before = self.head().n_pages;
        // What SQLite wrote itself, so that it keeps its cache; unless a discarded transaction had that one.
        let expected = self.head().counter + 1;
        let counter = if self.counter_max > expected { self.fresh_counter() } else { expected };
        self.counter_max = counter;
        // A newest version that is not the end of a group in flight leaves the chain; if nobody else holds it,
        // the new one is made of its nodes, in place.
        let replaced = if self.head().seq > self.taken { self.versions.pop_back() } else { None };
        let mut next = match built {
            Some(version) => Arc::new(version),
            None => {
                let mut base = replaced.unwrap_or_else(|| Arc::clone(self.head()));
                drop(pinned);
                Arc::make_mut(&mut base).advance(&finished.pages, finished.n_pages);
                base
            }
        };
        let version = Arc::make_mut(&mut next);
        (version.seq, version.counter) = (seq, counter);
        let Finished { pages, n_pages, deletes, prepared } = finished;
        let untouched = pages.first().is_none_or(|(no, _)| *no != PageNo(1));
        debug_assert!(untouched || version.is_sound(), "page 1 does not fit version {version:?}");
        self.pages_held += pages.len();
        self.records.push_back(Record { seq, counter, pages, before, n_pages, deletes, prepared });
        self.versions.push_back(Arc::clone(&next));
        next
    }

    pub(super) fn take_group(&mut self, max_pages: usize, max_bytes: usize) -> Option<Group> {
        let taken = self.taken;
        let page_size = self.committed.page_size;
        let pages_max = group::pages_max(page_size, max_pages, max_bytes);
        let at = self.records.partition_point(|record| record.seq <= taken);
        let first = self.records.get_mut(at)?;
        let group = match first.pages.len() > pages_max {
            true => group::alone(first),
            false => group::merge(self.records.iter().skip(at), page_size, pages_max)?,
        };
        self.taken = group.last_seq;
        Some(group)
    }

    /// Moves the watermark, and returns what nobody may need any more, to be dropped without the mutex.
    pub(super) fn commit_to(&mut self, seq: u64) -> Garbage {
        let mut garbage = Garbage::default();
        if seq <= self.committed.seq {
            return garbage;
        }
        assert!(
            self.records.binary_search_by_key(&seq, |record| record.seq).is_ok(),
            "version {seq} cannot become the committed one: it is not between {} and {}",
            self.committed.seq,
            self.head().seq
        );
        let passed = self.versions.partition_point(|version| version.seq <= seq);
        garbage.note_versions(self.versions.drain(..passed));
        let mut next = garbage.versions.pop().unwrap_or_else(|| Arc::clone(&self.committed));
        let done = self.records.partition_point(|record| record.seq <= seq);
        for record in self.records.drain(..done) {
            self.pages_held -= record.pages.len();
            if record.seq > next.seq {
                let version = Arc::make_mut(&mut next);
                version.advance(&record.pages, record.n_pages);
                (version.seq, version.counter) = (record.seq, record.counter);
            }
            garbage.note_record(record);
        }
        self.taken = self.taken.max(seq);
        garbage.versions.push(std::mem::replace(&mut self.committed, next));
        garbage
    }

    pub(super) fn discard(&mut self) -> Garbage {
        let range = (self.committed.seq + 1, self.next_seq - 1);
        if range.0 <= range.1 && self.discarded.back() != Some(&range) {
            self.note_discarded(range.0, range.1);
        }
        let mut garbage = Garbage::default();
        self.records.drain(..).for_each(|record| garbage.note_record(record));
        self.pages_held = 0;
        let counter = self.fresh_counter();
        Arc::make_mut(&mut self.committed).counter = counter;
        self.taken = self.committed.seq;
        self.break_slot();
        garbage.note_versions(self.versions.drain(..));
        garbage
    }

    /// Makes the next committed version of this one's pages and the changes, which the caller has checked, or
    /// takes the one that was `built` so beforehand.
    pub(super) fn apply(
        &mut self,
        changes: &Finished,
        built: Option<Version>,
    ) -> Result<Garbage, ApplyError> {
        if !self.records.is_empty() {
            return Err(ApplyError::Speculation { transactions: self.records.len() });
        }
        let (seq, counter) = (self.next_seq, self.fresh_counter());
        let mut garbage = Garbage::default();
        if let Some(version) = built {
            garbage.pages =
                changes.pages.len() + self.committed.n_pages.saturating_sub(version.n_pages) as usize;
            garbage.versions.push(std::mem::replace(&mut self.committed, Arc::new(version)));
        }
        let version = Arc::make_mut(&mut self.committed);
        if garbage.versions.is_empty() {
            version.advance(&changes.pages, changes.n_pages);
        }
        (version.seq, version.counter) = (seq, counter);
        self.arrive();
        Ok(garbage)
    }

    /// Takes another database's state for the next committed version.
    pub(super) fn restore(&mut self, from: &Version) -> Vec<Arc<Version>> {
        let mut old = self.discard().versions;
        let mut version = from.clone();
        (version.seq, version.counter) = (self.next_seq, self.fresh_counter());
        old.push(std::mem::replace(&mut self.committed, Arc::new(version)));
        self.arrive();
        old
    }

    /// A version from elsewhere is in place: it is the newest, and a writer on an older one has lost.
    fn arrive(&mut self) {
        self.taken = self.next_seq;
        self.next_seq += 1;
        self.break_slot();
    }

    fn break_slot(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.broken = true;
        }
    }

    fn fresh_counter(&mut self) -> u64 {
        self.counter_max += 1;
        self.counter_max
    }

    fn note_discarded(&mut self, first: u64, last: u64) {
        if self.discarded.len() == DISCARDED_RANGES_MAX {
            self.discarded.pop_front();
        }
        self.discarded.push_back((first, last));
    }

    pub(super) fn was_discarded(&self, seq: u64) -> bool {
        self.discarded.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }

    pub(super) fn speculative_bytes(&self) -> usize {
        self.pages_held * self.committed.page_size as usize
    }

    pub(super) fn speculative_count(&self) -> usize {
        self.records.len()
    }
}

/// The state after `finished`, on a copy of the path to each changed page.
pub(super) fn advanced(pinned: &Version, finished: &Finished) -> Version {
    let mut version = pinned.clone();
    version.advance(&finished.pages, finished.n_pages);
    version
}
