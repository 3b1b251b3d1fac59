//! One immutable state of a database.

use std::fmt;

use super::tree::Tree;
use super::{Page, page1};
use crate::base::PageNo;

/// One immutable state of a database, shared by everyone who pinned it.
#[derive(Clone)]
pub struct Version {
    pub(super) seq: u64,
    pub(super) n_pages: u32,
    pub(super) page_size: u32,
    /// Wider than what SQLite sees, so that it never comes round.
    pub(super) counter: u64,
    pub(super) tree: Tree,
}

impl Version {
    /// Its place in the order of this database's versions, from 0 for a new database; never used twice.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// How many pages the database has.
    #[must_use]
    pub fn n_pages(&self) -> u32 {
        self.n_pages
    }

    /// The size of each page.
    #[must_use]
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// The change counter that SQLite is shown.
    #[must_use]
    pub fn counter(&self) -> u32 {
        let [.., a, b, c, d] = self.counter.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// The change counter before it is cut to the 32 bits that SQLite is shown: it only grows.
    #[must_use]
    pub fn full_counter(&self) -> u64 {
        self.counter
    }

    /// The stored image of a page; none beyond the end, and for a page that was never written (all zeros).
    #[must_use]
    pub fn page(&self, no: PageNo) -> Option<&Page> {
        if no.0 > self.n_pages { None } else { self.tree.get(no) }
    }

    /// Every page in order, with its stored image; a page without one is all zeros.
    pub fn pages(&self) -> impl Iterator<Item = (PageNo, Option<&Page>)> {
        (1..=self.n_pages).map(|no| (PageNo(no), self.tree.get(PageNo(no))))
    }

    /// Lets go of images up to `no`, which whoever goes through all pages in their order has passed: those beside it
    /// with lower numbers, when it is the last of its kind. The page count stays.
    pub fn pass(&mut self, no: PageNo) {
        self.tree.drop_leaf_ending_at(no);
    }

    /// The stored image of page 1.
    pub(super) fn first(&self) -> &[u8] {
        self.tree.get(PageNo(1)).map(Page::as_slice).unwrap_or_default()
    }

    /// Turns this state into the next one: `pages` laid over, everything beyond `n_pages` removed.
    pub(super) fn advance(&mut self, pages: &[(PageNo, Page)], n_pages: u32) {
        if n_pages < self.n_pages {
            self.tree.truncate(n_pages);
        }
        for (no, page) in pages.iter().filter(|(no, _)| no.0 <= n_pages) {
            self.tree.set(*no, page.clone());
        }
        self.n_pages = n_pages;
    }

    /// Invariant I10 for versions that were made here.
    pub(super) fn is_sound(&self) -> bool {
        page1::is_sound(self.first(), self.n_pages)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version")
            .field("seq", &self.seq)
            .field("n_pages", &self.n_pages)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}
