//! What nobody may need any more, and takes long to give back.

use std::sync::Arc;

use super::Version;
use super::group::Record;

/// So many pages are given back in less than a millisecond.
const LARGE_PAGES: usize = 1024;

/// Versions and finished transactions that a database has left behind. Whoever has the last reference to a page
/// gives it back, and a change of a large database leaves hundreds of thousands of them.
#[derive(Debug, Default)]
pub struct Garbage {
    pub(super) versions: Vec<Arc<Version>>,
    pub(super) records: Vec<Record>,
    pub(super) pages: usize,
}

impl Garbage {
    /// What is left of a version that was read for long, and that may be the last to hold its pages.
    #[must_use]
    pub fn of_reader(version: Arc<Version>) -> Self {
        let pages = version.n_pages() as usize;
        Self { versions: vec![version], records: Vec::new(), pages }
    }

    /// Whether dropping it takes long enough to be noticed by whoever waits.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.pages > LARGE_PAGES
    }

    /// How many pages dropping it may take, at most.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    pub(super) fn note_versions(&mut self, versions: impl IntoIterator<Item = Arc<Version>>) {
        self.versions.extend(versions);
    }

    /// A transaction that led from one version to the next: its pages are held by it, those that it replaced or cut
    /// off by the version before.
    pub(super) fn note_record(&mut self, record: Record) {
        let cut = record.before.saturating_sub(record.n_pages) as usize;
        self.pages = self.pages.saturating_add(record.pages.len()).saturating_add(cut);
        // Most are small: dropped where they are, without a place in a list.
        if record.pages.len() > LARGE_PAGES {
            self.records.push(record);
        }
    }
}
