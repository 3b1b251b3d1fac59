//! One database as its users share it: SQL threads pin, reserve and publish; the core commits, discards, applies.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chain::{Chain, Finished, advanced};
use super::pins::{Pinned, Pins};
use super::tree::Tree;
use super::{
    ApplyError, Changes, Garbage, Group, PAGE_NO_MAX, Page, Refusal, Version, Veto, View, WriterId, page1,
    pending_page,
};
use crate::base::PageNo;
use crate::base::limits::{GROUP_PAGES_MAX, SPECULATIVE_BYTES_MAX, SPECULATIVE_TRANSACTIONS_MAX};

/// Up to this many pages a transaction is worked in while the mutex is held, which lets it reuse the nodes of a
/// version that nobody pinned; larger ones are prepared before, so that nobody waits for them.
const IN_PLACE_PAGES_MAX: usize = 128;

/// One database. Shared by everyone as `Arc<Database>`.
pub struct Database {
    name: Box<[u8]>,
    page_size: u32,
    chain: Mutex<Chain>,
    pins: Pins,
}

impl Database {
    /// A new database, which has the base page alone, as each node makes it when it first hears the name.
    ///
    /// # Panics
    /// If `page_size` is not one of SQLite's: a power of two from 512 to 65536.
    #[must_use]
    pub fn new(name: &[u8], page_size: u32, sqlite_version: u32) -> Arc<Self> {
        let valid = page_size.is_power_of_two() && (512..=65536).contains(&page_size);
        assert!(valid, "a power of two from 512 to 65536 expected as page size, found {page_size}");
        let mut tree = Tree::new();
        tree.set(PageNo(1), page1::base(page_size, sqlite_version));
        Self::with(name, Version { seq: 0, n_pages: 1, page_size, counter: 1, tree })
    }

    /// A database of the pages of a snapshot. Pages that do not come along are all zeros.
    ///
    /// # Errors
    /// When a page has a size or number that cannot be, or page 1 is missing.
    pub fn from_snapshot(
        name: &[u8],
        page_size: u32,
        pages: impl IntoIterator<Item = (PageNo, Page)>,
        n_pages: u32,
    ) -> Result<Arc<Self>, ApplyError> {
        let mut tree = Tree::new();
        for (no, page) in pages {
            check_size(page_size, page.as_slice())?;
            if no.0 == 0 || no.0 > n_pages.min(PAGE_NO_MAX) {
                return Err(ApplyError::PageNumber { found: no.0 });
            }
            if no != pending_page(page_size) {
                tree.set(no, page);
            }
        }
        let first = tree.get(PageNo(1)).ok_or(ApplyError::Missing { page: 1 })?;
        let counter = u64::from(page1::counter(first.as_slice()));
        Ok(Self::with(name, Version { seq: 0, n_pages, page_size, counter, tree }))
    }

    fn with(name: &[u8], first: Version) -> Arc<Self> {
        let page_size = first.page_size;
        Arc::new(Self {
            name: name.into(),
            page_size,
            chain: Mutex::new(Chain::new(first)),
            pins: Pins::default(),
        })
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name that clients open, byte for byte.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The size of each page.
    #[must_use]
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// The version to read now. It stays as it is for as long as it is held.
    #[must_use]
    pub fn pin(&self, view: View) -> Arc<Version> {
        self.chain().pin(view)
    }

    /// Whether a thread panicked while it changed the versions, which may be half changed since.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.chain.is_poisoned()
    }

    /// A place where a connection notes what it has pinned, to be given back with [`Self::forget_pins_of`].
    #[must_use]
    pub fn note_pins_of(&self, who: WriterId) -> Pinned {
        self.pins.add(who)
    }

    /// The connection is gone.
    pub fn forget_pins_of(&self, pinned: &Pinned) {
        self.pins.remove(pinned);
    }

    /// Which connections have pinned a version now, and which.
    #[must_use]
    pub fn pins(&self) -> Vec<(WriterId, u64)> {
        self.pins.seqs()
    }

    /// The connections whose pins keep more than `limit` bytes of replaced pages in memory, together with all
    /// newer pins: who, the version, and the bytes, of which not more than a little beyond the limit are counted.
    #[must_use]
    pub fn pins_beyond(&self, limit: u64) -> Vec<(WriterId, u64, u64)> {
        let page_bytes = u64::from(self.page_size);
        let pages = usize::try_from(limit / page_bytes.max(1)).unwrap_or(usize::MAX);
        let held = self.pins.held(&self.pin(View::Committed), pages);
        let bytes = held.into_iter().map(|(who, seq, pages)| (who, seq, pages as u64 * page_bytes));
        bytes.filter(|(.., bytes)| *bytes > limit).collect()
    }

    /// Takes the writer slot for a connection that pinned `pinned`; again for its holder is fine.
    ///
    /// # Errors
    /// Why the slot was not given.
    pub fn reserve(&self, who: WriterId, pinned: &Version) -> Result<(), Refusal> {
        self.chain().reserve(who, pinned)
    }

    /// Whether the slot's holder may commit a transaction of this many page bytes: the last moment to refuse.
    ///
    /// # Errors
    /// Why not.
    pub fn check_commit(&self, who: WriterId, bytes: u64) -> Result<(), Veto> {
        self.chain().check_commit(who, bytes)
    }

    /// The commit point: makes the transaction the newest version, which is returned. It cannot fail; when the
    /// speculative versions were discarded just now, the version returned counts as discarded with them
    /// ([`Self::was_discarded`]) and nobody else sees it.
    ///
    /// Hand over the pin: if nobody else holds the version, its nodes are reused.
    #[must_use]
    pub fn publish(&self, who: WriterId, pinned: Arc<Version>, changes: Changes) -> Arc<Version> {
        self.publish_finished(who, pinned, |pinned| finish(pinned, changes))
    }

    /// The commit point of a transaction that deletes the database: an empty schema, in an entry of its own.
    #[must_use]
    pub fn publish_delete(&self, who: WriterId, pinned: Arc<Version>) -> Arc<Version> {
        self.publish_finished(who, pinned, |pinned| Finished {
            pages: vec![(PageNo(1), page1::marker(pinned.first()))],
            n_pages: 1,
            deletes: true,
            prepared: None,
        })
    }

    fn publish_finished(
        &self,
        who: WriterId,
        pinned: Arc<Version>,
        finish: impl FnOnce(&Version) -> Finished,
    ) -> Arc<Version> {
        let mut finished = finish(&pinned);
        if finished.pages.len() > GROUP_PAGES_MAX {
            finished.prepared = Some(finished.pages.clone());
        }
        let large = finished.pages.len() > IN_PLACE_PAGES_MAX;
        let built = large.then(|| advanced(&pinned, &finished));
        // Keeps what the transaction replaced from being freed under the mutex.
        let _kept = large.then(|| Arc::clone(&pinned));
        self.chain().publish(who, pinned, finished, built)
    }

    /// Gives the writer slot back; nothing happens when `who` does not have it.
    pub fn release(&self, who: WriterId) {
        self.chain().release(who);
    }

    /// Who has the writer slot.
    #[must_use]
    pub fn slot_holder(&self) -> Option<WriterId> {
        self.chain().slot_holder()
    }

    /// While a connection is named here, every other one is refused as busy even if the slot is free.
    pub fn grant_only(&self, who: Option<WriterId>) {
        self.chain().grant_only(who);
    }

    /// Whether anyone may write here; the veto is what they are told. A new database is writable.
    pub fn set_writable(&self, writable: Result<(), Veto>) {
        self.chain().set_writable(writable);
    }

    /// Whether anyone may write here now.
    ///
    /// # Errors
    /// Why not.
    pub fn check_writable(&self) -> Result<(), Veto> {
        self.chain().check_writable()
    }

    /// The newest version's place in the order.
    #[must_use]
    pub fn head_seq(&self) -> u64 {
        self.chain().head().seq
    }

    /// The committed version's place in the order.
    #[must_use]
    pub fn committed_seq(&self) -> u64 {
        self.chain().committed().seq
    }

    /// Whether this version was discarded, and so will never be committed. A reply that is held for a version
    /// must not be sent then, even if the committed one is beyond it.
    #[must_use]
    pub fn was_discarded(&self, seq: u64) -> bool {
        self.chain().was_discarded(seq)
    }

    /// Merges the finished transactions that were not taken yet into the pages of one log entry: as many as fit
    /// the limits, at least one; a deletion stays alone. None when there is none.
    #[must_use]
    pub fn take_group(&self, max_pages: usize, max_bytes: usize) -> Option<Group> {
        self.chain().take_group(max_pages, max_bytes)
    }

    /// Moves the watermark up to a version, since the entry that holds it is committed. A version at or below
    /// the watermark changes nothing. Returns what nobody may need any more.
    ///
    /// # Panics
    /// If the version is neither: an entry that was discarded must be applied from its bytes.
    pub fn commit_to(&self, seq: u64) -> Garbage {
        self.chain().commit_to(seq)
    }

    /// Drops every version beyond the committed one, and breaks the slot of a running writer. Returns what nobody
    /// may need any more.
    pub fn discard_speculative(&self) -> Garbage {
        self.chain().discard()
    }

    /// Takes one whole transaction from the log, and returns what nobody may need any more. Nothing changes on an
    /// error.
    ///
    /// # Errors
    /// When the pages cannot be a transaction of this database, or finished local transactions are in the way.
    pub fn apply_pages(&self, pages: Vec<(PageNo, Page)>) -> Result<Garbage, ApplyError> {
        for (no, image) in &pages {
            check_size(self.page_size, image.as_slice())?;
            if no.0 == 0 || no.0 > PAGE_NO_MAX || *no == pending_page(self.page_size) {
                return Err(ApplyError::PageNumber { found: no.0 });
            }
        }
        let base = self.pin(View::Committed);
        let highest = pages.iter().map(|(no, _)| no.0).max().ok_or(ApplyError::Empty)?;
        let first = pages.iter().rfind(|(no, _)| *no == PageNo(1));
        let n_pages = match first.map(|(_, image)| page1::page_count(image.as_slice())) {
            None => highest.max(base.n_pages),
            Some(0) if pages.len() == 1 => 1,
            Some(found) if found == 0 || found > PAGE_NO_MAX => {
                return Err(ApplyError::PageCount { found, pages: pages.len() });
            }
            Some(count) => count,
        };
        let changes = Finished { pages, n_pages, deletes: false, prepared: None };
        let large = changes.pages.len() > IN_PLACE_PAGES_MAX;
        let built = large.then(|| advanced(&base, &changes));
        // The store keeps the only reference, so that a small change can reuse its nodes.
        drop(base);
        self.chain().apply(&changes, built)
    }

    /// The same with images that it copies.
    #[cfg(test)]
    pub fn apply(&self, pages: &[(PageNo, &[u8])]) -> Result<Garbage, ApplyError> {
        self.apply_pages(pages.iter().map(|(no, image)| (*no, Page::from_slice(image))).collect())
    }

    /// Takes the committed state of `fresh` for its own next committed version, so that open connections see it
    /// from their next transaction on. What was speculative is discarded. Returns what nobody may need any more: it
    /// may be large, and is best dropped elsewhere.
    ///
    /// # Errors
    /// When the page sizes differ.
    pub fn restore_from(&self, fresh: &Self) -> Result<Vec<Arc<Version>>, ApplyError> {
        if fresh.page_size != self.page_size {
            return Err(ApplyError::PageSize { expected: self.page_size, found: fresh.page_size as usize });
        }
        let state = fresh.pin(View::Committed);
        Ok(self.chain().restore(&state))
    }

    /// Bytes of finished transactions that are not committed yet.
    #[must_use]
    pub fn speculative_bytes(&self) -> usize {
        self.chain().speculative_bytes()
    }

    /// Whether so much is finished and not committed that nobody should add to it.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        let chain = self.chain();
        chain.speculative_bytes() > SPECULATIVE_BYTES_MAX
            || chain.speculative_count() > SPECULATIVE_TRANSACTIONS_MAX
    }

    /// How many finished transactions are not committed yet.
    #[must_use]
    pub fn speculative_count(&self) -> usize {
        self.chain().speculative_count()
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.name.escape_ascii())
    }
}

fn check_size(page_size: u32, image: &[u8]) -> Result<(), ApplyError> {
    if image.len() == page_size as usize {
        Ok(())
    } else {
        Err(ApplyError::PageSize { expected: page_size, found: image.len() })
    }
}

/// Brings what SQLite wrote over `pinned` into the form that is stored and replicated.
fn finish(pinned: &Version, changes: Changes) -> Finished {
    let Changes { mut pages, n_pages } = changes;
    let n_pages = n_pages.max(1);
    let _above_the_end = pages.split_off(&PageNo(n_pages.saturating_add(1)));
    pages.remove(&pending_page(pinned.page_size));
    let written = pages.remove(&PageNo(1));
    let first = pinned.first();
    let stored = match &written {
        Some(written) => page1::normalise(written.as_slice(), first, n_pages),
        // SQLite writes page 1 in each transaction; should it ever not, the size must still be told.
        None if n_pages != pinned.n_pages => page1::normalise(first, first, n_pages),
        None => None,
    };
    let pages = stored.map(|page| (PageNo(1), page)).into_iter().chain(pages).collect();
    Finished { pages, n_pages, deletes: false, prepared: None }
}
