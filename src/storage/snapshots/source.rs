//! A snapshot on disk as it goes to another server: uncompressed, whatever form the file has, and never in memory
//! as a whole.
//!
//! The file stays open: that its name is deleted meanwhile, because there is a newer snapshot, does no harm.

use std::io::{self, BufReader, Read};

use super::{CHUNK_BYTES, complete_snapshots};
use crate::base::{Index, Term};
use crate::disk::Disk;
use crate::format::lz4::{self, FrameReader};
use crate::format::names::{self, SnapshotName};
use crate::format::snapshot::{SnapshotMeta, decode_meta};

/// How often another snapshot is chosen because the one before was deleted before it was opened.
const TRIES: usize = 8;

/// A snapshot that is being read. [`Read`] gives its [`SnapshotSource::data_bytes`] bytes, uncompressed, and ends
/// well only if all of them were there and, in a compressed file, their checksum is right.
pub struct SnapshotSource<D: Disk> {
    /// The last entry that it covers, and its term.
    pub name: SnapshotName,
    /// The configuration, and the index of its entry.
    pub meta: SnapshotMeta,
    /// How many bytes there are to read.
    pub data_bytes: u64,
    left: u64,
    content: Content<D>,
}

enum Content<D: Disk> {
    Raw(FileReader<D>),
    Compressed(Box<FrameReader<BufReader<FileReader<D>>>>),
}

impl<D: Disk + Clone> SnapshotSource<D> {
    /// Opens the snapshot at `wanted`; if it is gone, the newest one that covers more.
    ///
    /// # Errors
    /// There is none, or it cannot be read: which file, and what was found.
    pub fn open(disk: &D, wanted: (Term, Index)) -> Result<Self, String> {
        let mut disk = disk.clone();
        for _ in 0..TRIES {
            let listing = disk.list().map_err(|error| format!("list the data directory: {error}"))?;
            let mut found = complete_snapshots(&listing);
            found.retain(|name| name.index >= wanted.1);
            let exact = found.iter().rfind(|name| (name.term, name.index) == wanted);
            let Some(name) = exact.or(found.last()).copied() else {
                return Err(format!("a snapshot at {} or later expected, none found", wanted.1));
            };
            // A file has its length when it gets this name, and keeps it.
            let data = names::snapshot_name(name);
            let size = listing.iter().find(|(file, _)| *file == data).map_or(0, |(_, size)| *size);
            match Self::open_files(&mut disk, name, size) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened.map_err(|error| error.to_string()),
            }
        }
        Err(format!("snapshots from {} on were deleted {TRIES} times before they were opened", wanted.1))
    }

    fn open_files(disk: &mut D, name: SnapshotName, size: u64) -> io::Result<Self> {
        let (data, meta) = (names::snapshot_name(name), names::snapshot_meta_name(name));
        let placed = |file: &str, error: io::Error| io::Error::new(error.kind(), format!("{file}: {error}"));
        let file = disk.open(&data).map_err(|error| placed(&data, error))?;
        let bytes = disk.read_all(&meta).map_err(|error| placed(&meta, error))?;
        let meta = decode_meta(&meta, &bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let mut magic = lz4::MAGIC.map(|byte| !byte);
        disk.read_at(&file, 0, &mut magic).map_err(|error| placed(&data, error))?;
        let (content, data_bytes) = if magic == lz4::MAGIC {
            let reader = FileReader { disk: disk.clone(), file, at: 0 };
            let frame = FrameReader::open(BufReader::with_capacity(CHUNK_BYTES, reader))
                .map_err(|error| placed(&data, error))?;
            let size = frame.content_size();
            (Content::Compressed(Box::new(frame)), size)
        } else {
            (Content::Raw(FileReader { disk: disk.clone(), file, at: 0 }), size)
        };
        Ok(Self { name, meta, data_bytes, left: data_bytes, content })
    }
}

impl<D: Disk> Read for SnapshotSource<D> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = match &mut self.content {
            Content::Raw(file) => file.read(buf),
            Content::Compressed(frame) => frame.read(buf),
        };
        let named =
            |error: io::Error| io::Error::other(format!("{}: {error}", names::snapshot_name(self.name)));
        let len = len.map_err(named)?;
        match self.left.checked_sub(len as u64) {
            Some(left) if len > 0 || left == 0 || buf.is_empty() => {
                self.left = left;
                Ok(len)
            }
            _ => {
                let wrong =
                    format!("{} bytes expected, {} found", self.data_bytes, self.data_bytes - self.left);
                Err(named(io::Error::other(wrong)))
            }
        }
    }
}

struct FileReader<D: Disk> {
    disk: D,
    file: D::File,
    at: u64,
}

impl<D: Disk> Read for FileReader<D> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.disk.read_at(&self.file, self.at, buf)?;
        self.at = self.at.saturating_add(len as u64);
        Ok(len)
    }
}

#[cfg(test)]
mod tests;
