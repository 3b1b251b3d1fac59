//! A snapshot on its own thread: pinned versions in, finished temporary files out.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::PageNo;
use crate::disk::Disk;
use crate::node::effect::SnapshotJob;
use crate::pages::Version;
use crate::storage::snapshots::{FinishedSnapshot, PageSource, SnapshotHeader, write_snapshot};

/// One pinned database. Pages that were written to the snapshot are let go: they may have been replaced meanwhile,
/// and a database that is written to all the time would be in memory twice.
struct Pinned<'a> {
    name: Vec<u8>,
    version: RefCell<Version>,
    cancelled: &'a AtomicBool,
}

impl PageSource for Pinned<'_> {
    fn name(&self) -> &[u8] {
        &self.name
    }

    fn n_pages(&self) -> u32 {
        self.version.borrow().n_pages()
    }

    fn page_size(&self) -> u32 {
        self.version.borrow().page_size()
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn page(&self, number: u32, out: &mut Vec<u8>) {
        let mut version = self.version.borrow_mut();
        match version.page(PageNo(number)) {
            Some(page) => out.extend_from_slice(page.as_slice()),
            // The page that SQLite never writes.
            None => out.resize(out.len() + version.page_size() as usize, 0),
        }
        version.pass(PageNo(number));
    }
}

/// Writes the snapshot; `cancelled` ends it early with an error. A panic is an error like others: the log stays,
/// and the next snapshot tries again.
///
/// # Errors
/// The reason, in words.
pub fn write<D: Disk>(
    mut disk: D,
    job: SnapshotJob,
    compress: bool,
    time: u64,
    cancelled: &AtomicBool,
) -> Result<FinishedSnapshot, String> {
    let header = SnapshotHeader {
        term: job.term,
        index: job.index,
        time,
        configuration_index: job.configuration_index,
        configuration: job.configuration.encode(),
    };
    let pinned = |(name, version)| {
        let version = RefCell::new(Arc::unwrap_or_clone(version));
        Pinned { name, version, cancelled }
    };
    let databases: Vec<Pinned<'_>> = job.databases.into_iter().map(pinned).collect();
    // Only the temporary files are left behind, which the next start deletes.
    let written = catch_unwind(AssertUnwindSafe(|| write_snapshot(&mut disk, &header, &databases, compress)));
    match written {
        Ok(written) => written.map_err(|error| error.to_string()),
        Err(_) => Err("the thread panicked".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use std::cell::RefCell;
    use std::sync::{Arc, Weak};

    use super::{Pinned, write};
    use crate::base::{Index, PageNo, Term};
    use crate::codec::membership::Configuration;
    use crate::disk::{Disk, FaultDisk};
    use crate::node::effect::SnapshotJob;
    use crate::pages::{Database, Page, View};
    use crate::storage::snapshots::PageSource;

    #[test]
    fn pages_that_were_written_to_a_snapshot_and_replaced_meanwhile_are_not_kept_for_it() {
        let database = Database::new(b"test", 4096, 3_040_001);
        let fill = |byte: u8| {
            let page = |number| (PageNo(number), Page::from_slice(&[byte; 4096]));
            drop(database.apply_pages((2..=300).map(page).collect()).unwrap());
        };
        fill(1);
        let version = database.pin(View::Committed);
        let weak = |number| Arc::downgrade(&version.page(PageNo(number)).unwrap().shared());
        let images: Vec<Weak<[u8]>> = (2..=300).map(weak).collect();
        let cancelled = AtomicBool::new(false);
        let version = RefCell::new(Arc::unwrap_or_clone(version));
        let pinned = Pinned { name: b"test".to_vec(), version, cancelled: &cancelled };
        fill(2);
        assert!(images.iter().all(|image| image.upgrade().is_some()), "nothing is written yet");
        let mut out = Vec::new();
        for number in 1..=pinned.n_pages() {
            out.clear();
            pinned.page(number, &mut out);
            assert!(number == 1 || out == [1; 4096], "page {number} as it was");
        }
        let kept = images.iter().filter(|image| image.upgrade().is_some()).count();
        // Those of the last leaf go with the rest.
        assert_eq!(kept, 300 % 64);
    }

    #[test]
    fn a_snapshot_of_a_node_that_stops_ends_early_and_leaves_nothing() {
        let pinned = Database::new(b"test", 4096, 3_040_001).pin(View::Committed);
        let job = SnapshotJob {
            index: Index(5),
            term: Term(1),
            configuration: Configuration::default(),
            configuration_index: Index(1),
            databases: vec![(b"test".to_vec(), pinned)],
        };
        let mut disk = FaultDisk::new(1);
        let stopped = write(disk.clone(), job.clone(), true, 7, &AtomicBool::new(true));
        assert!(stopped.is_err_and(|text| text.contains("the node is stopping")));
        assert_eq!(disk.list().unwrap(), []);
        assert!(write(disk, job, true, 7, &AtomicBool::new(false)).is_ok());
    }
}
