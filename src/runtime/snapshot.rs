//! A snapshot on its own thread: pinned versions in, finished temporary files out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::PageNo;
use crate::disk::real::RealDisk;
use crate::node::effect::SnapshotJob;
use crate::pages::Version;
use crate::storage::snapshots::{FinishedSnapshot, PageSource, SnapshotHeader, write_snapshot};

/// One pinned database.
struct Pinned {
    name: Vec<u8>,
    version: Arc<Version>,
}

impl PageSource for Pinned {
    fn name(&self) -> &[u8] {
        &self.name
    }

    fn n_pages(&self) -> u32 {
        self.version.n_pages()
    }

    fn page_size(&self) -> u32 {
        self.version.page_size()
    }

    fn page(&self, number: u32, out: &mut Vec<u8>) {
        match self.version.page(PageNo(number)) {
            Some(page) => out.extend_from_slice(page.as_slice()),
            // The page that SQLite never writes.
            None => out.resize(out.len() + self.version.page_size() as usize, 0),
        }
    }
}

/// Writes the snapshot; `cancelled` ends it early with an error, leaving only temporary files.
///
/// # Errors
/// The reason, in words.
pub fn write(
    mut disk: RealDisk,
    job: SnapshotJob,
    compress: bool,
    time: u64,
    cancelled: &AtomicBool,
) -> Result<FinishedSnapshot, String> {
    if cancelled.load(Ordering::Acquire) {
        return Err("the node is stopping".to_owned());
    }
    let header = SnapshotHeader {
        term: job.term,
        index: job.index,
        time,
        configuration_index: job.configuration_index,
        configuration: job.configuration.encode(),
    };

    let databases: Vec<Pinned> =
        job.databases.into_iter().map(|(name, version)| Pinned { name, version }).collect();
    write_snapshot(&mut disk, &header, &databases, compress).map_err(|error| error.to_string())
}
