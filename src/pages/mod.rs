//! The multi-version page store of one database.
//!
//! A [`Version`] is one immutable state of a database: its pages in a radix tree of shared nodes. A [`Database`]
//! holds the committed version and the speculative ones after it, grants the one writer slot, turns finished
//! transactions into the page images of log entries, and takes transactions from the log.
//!
//! Invariants, by their numbers in the engine's design:
//! * I1: the pages of a version never change once somebody else can reach it.
//! * I2, I3: `committed` only moves forward; speculative versions form a chain from it to `head`, without gaps.
//! * I4: at most one writer slot, whose connection pinned `head`.
//! * I6: a change counter shown to SQLite names one content for the life of the process.
//! * I7: groups leave in the order of their versions.
//! * I8: applying the groups elsewhere gives equal bytes.
//! * I10: page 1 as stored has the header that other nodes expect.
//!
//! SQLite is not touched here, nor is time, disk or network; every method takes one short mutex at most.

mod chain;
mod database;
mod garbage;
mod group;
mod page;
pub mod page1;
mod pins;
mod tree;
mod version;

#[cfg(test)]
mod tests;

pub use database::Database;
pub use garbage::Garbage;
pub use group::Group;
pub use page::Page;
pub use pins::{Pin, Pinned};
pub use version::Version;

use std::collections::BTreeMap;
use std::fmt;

use crate::base::PageNo;

/// The largest page number that a log entry may hold.
pub const PAGE_NO_MAX: u32 = (1 << 31) - 1;

/// The page that holds SQLite's lock bytes in ordinary files: never written, never replicated.
#[must_use]
pub fn pending_page(page_size: u32) -> PageNo {
    PageNo((1 << 30) / page_size.max(1) + 1)
}

/// One SQLite connection, as the owner of a writer slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct WriterId(pub u64);

/// Which version a new transaction pins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// The newest one that a majority holds.
    Committed,
    /// The newest finished transaction, also when its entry is not committed yet.
    Head,
}

/// Why a transaction may not begin to write, or not commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Veto {
    /// This node is not the leader.
    NotLeader,
    /// This node was the leader when the transaction began, and is not any more.
    LeadershipLost,
    /// The transaction is larger than allowed, or there is no room.
    Full,
}

impl Veto {
    /// The extended SQLite result code.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::NotLeader => 10_250,
            Self::LeadershipLost => 10_506,
            Self::Full => 13,
        }
    }
}

/// Why the writer slot was not given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Another connection has it, or its turn comes first.
    Busy,
    /// The pinned version is not the newest any more.
    Stale,
    /// Nobody may write here now.
    Veto(Veto),
}

impl Refusal {
    /// The extended SQLite result code.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Busy => 5,
            Self::Stale => 517,
            Self::Veto(veto) => veto.code(),
        }
    }
}

/// What one transaction wrote: images as SQLite wrote them, and the page count after it.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Whole page images. Page 1 is brought into its stored form by [`Database::publish`].
    pub pages: BTreeMap<PageNo, Page>,
    /// How many pages the database has afterwards.
    pub n_pages: u32,
}

/// Why pages from the log or from a snapshot cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// Finished local transactions are still waiting for their fate.
    Speculation {
        /// How many.
        transactions: usize,
    },
    /// There is no page.
    Empty,
    /// A page has the wrong size.
    PageSize {
        /// The database's page size.
        expected: u32,
        /// The length of the image.
        found: usize,
    },
    /// No database of ours has a page of this number.
    PageNumber {
        /// The number.
        found: u32,
    },
    /// Page 1 gives a page count that cannot be.
    PageCount {
        /// The count.
        found: u32,
        /// How many pages come with it.
        pages: usize,
    },
    /// A page that must be there is not.
    Missing {
        /// Its number.
        page: u32,
    },
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Speculation { transactions } => {
                write!(f, "no unreplicated transaction expected, {transactions} found")
            }
            Self::Empty => write!(f, "at least one page expected, none found"),
            Self::PageSize { expected, found } => {
                write!(f, "a page of {expected} bytes expected, {found} found")
            }
            Self::PageNumber { found } => {
                write!(
                    f,
                    "a page number from 1 to {PAGE_NO_MAX}, not of the lock page, expected, {found} found"
                )
            }
            Self::PageCount { found, pages } => {
                write!(f, "page 1 says that the database has {found} pages, and comes with {pages} pages")
            }
            Self::Missing { page } => write!(f, "page {page} expected, not found"),
        }
    }
}

impl std::error::Error for ApplyError {}
