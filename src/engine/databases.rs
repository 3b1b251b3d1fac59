//! The databases of a node: page store, queue of writers and replies that wait for their version.
//!
//! Invariant (I5 of the engine): a reply that reports a write, or a read of a version that is not committed,
//! leaves only when that version is committed. Databases are kept in the order in which this node met them,
//! which is their order in snapshots.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::scheduler::{ConnId, Patience, SlotEffect, WriteQueue};
use crate::base::Time;
use crate::pages::{Database, Garbage, Version, Veto, View, WriterId};

/// The place of a database in the node's list: stable until the next restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub usize);

/// A writer that no connection is: connections count from 1.
const NOBODY: WriterId = WriterId(0);

/// One database and what the engine knows about it.
#[derive(Debug)]
pub struct DatabaseState {
    /// The page store, shared with the connections.
    pub database: Arc<Database>,
    /// Who writes next.
    pub queue: WriteQueue,
    held: VecDeque<(u64, ConnId)>,
}

/// What is known of a version that a reply depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is committed: the reply may leave.
    Committed,
    /// It is not yet: the reply is held.
    Held,
    /// It was dropped: the reply must not leave.
    Discarded,
}

/// A set of databases, ascending. Most of the time one is in it, or none: a tree would ask for memory each time.
#[derive(Debug, Default)]
struct Marks(Vec<Slot>);

impl Marks {
    fn insert(&mut self, slot: Slot) {
        if let Err(at) = self.0.binary_search(&slot) {
            self.0.insert(at, slot);
        }
    }

    fn remove(&mut self, slot: &Slot) {
        if let Ok(at) = self.0.binary_search(slot) {
            self.0.remove(at);
        }
    }

    fn first(&self) -> Option<Slot> {
        self.0.first().copied()
    }

    fn pop_first(&mut self) -> Option<Slot> {
        let first = self.first()?;
        self.0.remove(0);
        Some(first)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// All databases of the node.
#[derive(Debug)]
pub struct Databases {
    list: Vec<DatabaseState>,
    by_name: BTreeMap<Vec<u8>, Slot>,
    patience: Patience,
    page_size: u32,
    sqlite_version: u32,
    writable: Result<(), Veto>,
    /// Databases whose queues may have effects; the others need not be looked at. So for those below.
    touched: Marks,
    /// Databases that may have transactions to propose.
    unproposed: Marks,
    /// Databases whose watermark moved: replies that were held for it may leave.
    moved: Marks,
    /// What takes long to give back.
    garbage: Vec<Garbage>,
}

impl Databases {
    /// No database yet. Databases made later get pages of `page_size` bytes and refuse writes until
    /// [`Self::set_writable`] says otherwise.
    #[must_use]
    pub fn new(patience: Patience, page_size: u32, sqlite_version: u32) -> Self {
        Self {
            list: Vec::new(),
            by_name: BTreeMap::new(),
            patience,
            page_size,
            sqlite_version,
            writable: Err(Veto::NotLeader),
            touched: Marks::default(),
            unproposed: Marks::default(),
            moved: Marks::default(),
            garbage: Vec::new(),
        }
    }

    /// Takes in a database that a snapshot held.
    pub fn insert(&mut self, database: Arc<Database>) -> Slot {
        database.set_writable(self.writable);
        let slot = Slot(self.list.len());
        self.by_name.insert(database.name().to_vec(), slot);
        self.list.push(DatabaseState {
            database,
            queue: WriteQueue::new(self.patience),
            held: VecDeque::new(),
        });
        slot
    }

    /// Takes over the state of a leader's snapshot. Connections that are open stay so: they see it from their next
    /// transaction on, and finish the one they are in on what they saw. A database that is not among `fresh` gets
    /// empty, as if it had just been opened.
    ///
    /// Returns what nobody may need any more: it may be large, and is best dropped elsewhere.
    pub fn restore(&mut self, fresh: Vec<Arc<Database>>) -> Vec<Arc<Version>> {
        let mut old = Vec::new();
        let mut missing: BTreeMap<Vec<u8>, Slot> = self.by_name.clone();
        for database in fresh {
            match missing.remove(database.name()) {
                Some(slot) => old.extend(self.restore_one(slot, database)),
                None => {
                    self.insert(database);
                }
            }
        }
        for (name, slot) in missing {
            old.extend(self.restore_one(slot, Database::new(&name, self.page_size, self.sqlite_version)));
        }
        old
    }

    fn restore_one(&mut self, slot: Slot, fresh: Arc<Database>) -> Vec<Arc<Version>> {
        let writable = self.writable;
        let Some(state) = self.get_mut(slot) else { return Vec::new() };
        match state.database.restore_from(&fresh) {
            Ok(old) => old,
            Err(error) => {
                // Nothing that this library writes: whoever is connected stays with the old one, as a reader.
                log::warn!("database '{}': {error}", String::from_utf8_lossy(fresh.name()));
                state.database.set_writable(Err(Veto::NotLeader));
                fresh.set_writable(writable);
                state.database = fresh;
                Vec::new()
            }
        }
    }

    /// The database of this name, made empty when there is none.
    pub fn open(&mut self, name: &[u8]) -> Slot {
        match self.find(name) {
            Some(slot) => slot,
            None => self.insert(Database::new(name, self.page_size, self.sqlite_version)),
        }
    }

    /// The database of this name, if the node has met it.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Slot> {
        self.by_name.get(name).copied()
    }

    /// The state of the database at `slot`.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&DatabaseState> {
        self.list.get(slot.0)
    }

    /// The state of the database at `slot`.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut DatabaseState> {
        self.touched.insert(slot);
        self.list.get_mut(slot.0)
    }

    /// Every database, in the order in which the node met them.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &DatabaseState)> {
        self.list.iter().enumerate().map(|(at, state)| (Slot(at), state))
    }

    /// Bytes of all committed pages.
    #[must_use]
    pub fn committed_bytes(&self) -> u64 {
        self.list.iter().map(DatabaseState::committed_bytes).sum()
    }

    /// Allows or refuses writes on every database, those made later included.
    pub fn set_writable(&mut self, writable: Result<(), Veto>) {
        self.writable = writable;
        self.list.iter().for_each(|state| state.database.set_writable(writable));
    }

    /// Holds the reply of `conn` until version `seq` of the database is committed.
    pub fn hold(&mut self, slot: Slot, seq: u64, conn: ConnId) -> Hold {
        let Some(state) = self.list.get_mut(slot.0) else { return Hold::Discarded };
        if state.database.was_discarded(seq) {
            return Hold::Discarded;
        }
        if seq <= state.database.committed_seq() {
            return Hold::Committed;
        }
        state.held.push_back((seq, conn));
        // Another connection may have made it, whose request goes on.
        self.unproposed.insert(slot);
        Hold::Held
    }

    /// A request on the database ended or paused, or one of its entries was committed: there may be something
    /// to propose.
    pub fn note_ran(&mut self, slot: Slot) {
        self.unproposed.insert(slot);
    }

    /// A database that may have something to propose.
    pub(super) fn unproposed(&self) -> Option<Slot> {
        self.unproposed.first()
    }

    /// The database has nothing to propose, or not now.
    pub(super) fn note_proposed(&mut self, slot: Slot) {
        self.unproposed.remove(&slot);
    }

    /// Moves the watermark of the database up to version `seq`.
    pub(super) fn commit_to(&mut self, slot: Slot, seq: u64) {
        if let Some(state) = self.list.get(slot.0) {
            let garbage = state.database.commit_to(seq);
            self.moved.insert(slot);
            self.note_garbage(garbage);
        }
    }

    /// Nobody may need this any more: what is small goes now.
    pub fn note_garbage(&mut self, garbage: Garbage) {
        if garbage.is_large() {
            self.garbage.push(garbage);
        }
    }

    /// What takes long to give back, and is best dropped elsewhere.
    pub fn take_garbage(&mut self) -> Vec<Garbage> {
        std::mem::take(&mut self.garbage)
    }

    /// The next database whose watermark moved, and the connections whose replies may leave by that, in order.
    pub fn poll_released(&mut self) -> Option<Vec<ConnId>> {
        let slot = self.moved.pop_first()?;
        Some(self.release(slot))
    }

    fn release(&mut self, slot: Slot) -> Vec<ConnId> {
        let Some(state) = self.get_mut(slot) else { return Vec::new() };
        let committed = state.database.committed_seq();
        let mut released = Vec::new();
        state.held.retain(|&(seq, conn)| {
            let ready = seq <= committed;
            if ready {
                released.push(conn);
            }
            !ready
        });
        state.pause_or_resume();
        released
    }

    /// Nobody wants the reply any more that is held for the connection.
    pub fn drop_held(&mut self, slot: Slot, conn: ConnId) {
        if let Some(state) = self.list.get_mut(slot.0) {
            state.held.retain(|&(_, held)| held != conn);
        }
    }

    /// Forgets the connection everywhere: it neither waits nor holds, and nothing is held for it.
    pub fn forget(&mut self, slot: Slot, conn: ConnId) {
        if let Some(state) = self.get_mut(slot) {
            state.held.retain(|&(_, held)| held != conn);
            state.queue.handle_gone(conn);
        }
    }

    /// Drops everything speculative and returns the connections whose held replies failed by that, in order.
    pub fn discard_speculative(&mut self) -> Vec<ConnId> {
        let mut failed = Vec::new();
        (0..self.list.len()).for_each(|at| self.touched.insert(Slot(at)));
        self.unproposed.clear();
        for state in &mut self.list {
            let garbage = state.database.discard_speculative();
            if garbage.is_large() {
                self.garbage.push(garbage);
            }
            state.pause_or_resume();
            failed.extend(state.held.drain(..).map(|(_, conn)| conn));
        }
        failed
    }

    /// Whether [`Self::poll_effect`] has anything to look at.
    #[must_use]
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// What the queues want done now, the page stores' slots prepared for it.
    pub fn poll_effect(&mut self) -> Option<(Slot, SlotEffect)> {
        while let Some(slot) = self.touched.first() {
            let Some(state) = self.list.get_mut(slot.0) else { break };
            let effect = state.queue.poll_effect();
            state.sync_grant();
            match effect {
                Some(effect) => return Some((slot, effect)),
                None => self.touched.pop_first(),
            };
        }
        None
    }

    /// When a queue wants to be looked at again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.list.iter().filter_map(|state| state.queue.poll_timeout()).min()
    }

    /// Lets every queue act on its deadlines.
    pub fn handle_timeout(&mut self, now: Time) {
        for (at, state) in self.list.iter_mut().enumerate() {
            if state.queue.poll_timeout().is_some_and(|due| due <= now) {
                state.queue.handle_timeout(now);
                self.touched.insert(Slot(at));
            }
        }
    }
}

impl DatabaseState {
    /// Bytes of the committed pages.
    #[must_use]
    pub fn committed_bytes(&self) -> u64 {
        let version = self.database.pin(View::Committed);
        u64::from(version.n_pages()) * u64::from(version.page_size())
    }

    /// Stops granting the slot while too much is speculative, and goes on when it is not.
    pub fn pause_or_resume(&mut self) {
        self.queue.set_paused(self.database.is_overloaded());
    }

    /// Tells the page store who may try for its slot: the queue's holder, anybody when there is none, nobody
    /// while it is paused.
    pub fn sync_grant(&self) {
        let who = match self.queue.holder() {
            Some(conn) => Some(WriterId(conn.0)),
            None if self.queue.is_paused() => Some(NOBODY),
            None => None,
        };
        self.database.grant_only(who);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Databases, Patience};
    use crate::base::PageNo;
    use crate::pages::{Changes, Database, Page, Version, View, WriterId};

    fn databases() -> Databases {
        let wait = Duration::from_secs(1);
        Databases::new(Patience { wait, idle: Some(wait) }, 4096, 3_040_001)
    }

    /// A database of so many pages, each of which says so.
    fn with_pages(name: &[u8], n_pages: u32) -> Arc<Database> {
        let database = Database::new(name, 4096, 3_040_001);
        let who = WriterId(1);
        let pinned = database.pin(View::Head);
        database.reserve(who, &pinned).unwrap();
        let page = Page::from_slice(&vec![u8::try_from(n_pages).unwrap(); 4096]);
        let pages = (2..=n_pages).map(|no| (PageNo(no), page.clone())).collect();
        let written = database.publish(who, pinned, Changes { pages, n_pages });
        database.commit_to(written.seq());
        database.release(who);
        database
    }

    fn shape(version: &Version) -> (u32, u8) {
        let last = version.page(PageNo(version.n_pages())).unwrap().as_slice();
        (version.n_pages(), last[4095])
    }

    #[test]
    fn a_snapshot_replaces_what_it_names_empties_what_it_does_not_and_disturbs_no_reader() {
        let mut databases = databases();
        let (kept, gone) = (with_pages(b"kept", 9), with_pages(b"gone", 7));
        let slots = [databases.insert(Arc::clone(&kept)), databases.insert(Arc::clone(&gone))];
        let reading = kept.pin(View::Committed);
        let old = databases.restore(vec![with_pages(b"new", 4), with_pages(b"kept", 3)]);
        assert_eq!(old.iter().filter(|version| version.n_pages() > 1).count(), 2);
        drop(old);

        // Who is connected goes on: in its transaction on what it saw, then on what came.
        assert_eq!(shape(&reading), (9, 9));
        assert_eq!(shape(&kept.pin(View::Committed)), (3, 3));
        assert!(kept.pin(View::Committed).counter() > reading.counter(), "no cache believes an old page");
        assert_eq!(gone.pin(View::Committed).n_pages(), 1);
        assert_eq!([databases.find(b"kept"), databases.find(b"gone")], slots.map(Some));
        let new = databases.find(b"new").and_then(|slot| databases.get(slot)).unwrap();
        assert_eq!(shape(&new.database.pin(View::Committed)), (4, 4));
    }

    #[test]
    fn a_database_with_pages_of_another_size_takes_the_place_of_the_old_one() {
        let mut databases = databases();
        let old = with_pages(b"test", 9);
        let slot = databases.insert(Arc::clone(&old));
        databases.restore(vec![Database::new(b"test", 1024, 3_040_001)]);
        assert_eq!(databases.get(slot).unwrap().database.page_size(), 1024);
        assert_eq!(shape(&old.pin(View::Committed)), (9, 9));
        assert!(old.reserve(WriterId(2), &old.pin(View::Head)).is_err());
    }
}
