//! A snapshot on its own thread: pinned versions in, finished temporary files out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::PageNo;
use crate::disk::Disk;
use crate::node::effect::SnapshotJob;
use crate::pages::Version;
use crate::storage::snapshots::{FinishedSnapshot, PageSource, SnapshotHeader, write_snapshot};

/// One pinned database.
struct Pinned<'a> {
    name: Vec<u8>,
    version: Arc<Version>,
    cancelled: &'a AtomicBool,
}

impl PageSource for Pinned<'_> {
    fn name(&self) -> &[u8] {
        &self.name
    }

    fn n_pages(&self) -> u32 {
        self.version.n_pages()
    }

    fn page_size(&self) -> u32 {
        self.version.page_size()
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn page(&self, number: u32, out: &mut Vec<u8>) {
        match self.version.page(PageNo(number)) {
            Some(page) => out.extend_from_slice(page.as_slice()),
            // The page that SQLite never writes.
            None => out.resize(out.len() + self.version.page_size() as usize, 0),
        }
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
    let databases: Vec<Pinned<'_>> =
        job.databases.into_iter().map(|(name, version)| Pinned { name, version, cancelled }).collect();
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

    use super::write;
    use crate::base::{Index, Term};
    use crate::codec::membership::Configuration;
    use crate::disk::{Disk, FaultDisk};
    use crate::node::effect::SnapshotJob;
    use crate::pages::{Database, View};

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
