//! Snapshot files under temporary names: streamed out in chunks, synced, and read back before they count.
//!
//! Runs beside the writer on a disk of its own; [`super::Writer::install_snapshot_files`] and
//! [`super::Writer::restore_snapshot`] give the files their names afterwards.

use std::io::{self, Read, Write};

use super::io::{Io, StorageError};
use crate::base::crc::checksum;
use crate::base::{Index, Term};
use crate::disk::Disk;
use crate::format::names::{self, FileName, SnapshotName};
use crate::format::{lz4, snapshot};

mod receive;
mod source;

pub use receive::receive_snapshot;
pub use source::SnapshotSource;

/// How much is read or written at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// How much of a data file waits for its sync at most. The log is on the same disk: its syncs wait behind what is
/// written meanwhile, and on some file systems for all of it.
const UNSYNCED_BYTES: u64 = 4 << 20;

/// The snapshots of a listing of which both files are there and not empty, ascending.
#[must_use]
pub fn complete_snapshots(listing: &[(String, u64)]) -> Vec<SnapshotName> {
    let filled = |wanted: &str| listing.iter().any(|(name, size)| name == wanted && *size > 0);
    let mut found: Vec<SnapshotName> = listing
        .iter()
        .filter_map(|(name, _)| match FileName::parse(name) {
            FileName::SnapshotMeta(name) => Some(name),
            _ => None,
        })
        .filter(|name| filled(&names::snapshot_name(*name)))
        .collect();
    found.sort_unstable();
    found
}

/// What a snapshot says besides the databases.
#[derive(Clone, Debug)]
pub struct SnapshotHeader {
    /// The term of the last entry it covers.
    pub term: Term,
    /// The last entry it covers.
    pub index: Index,
    /// Milliseconds of the monotonic clock, now.
    pub time: u64,
    /// The index of the configuration.
    pub configuration_index: Index,
    /// The last committed configuration, encoded.
    pub configuration: Vec<u8>,
}

/// The frozen pages of one database.
pub trait PageSource {
    /// Its name.
    fn name(&self) -> &[u8];
    /// The size of its pages, in bytes.
    fn page_size(&self) -> u32;
    /// How many pages it has.
    fn n_pages(&self) -> u32;
    /// Appends page `number` (from 1), [`PageSource::page_size`] bytes.
    fn page(&self, number: u32, out: &mut Vec<u8>);
    /// Whether nobody wants the snapshot any more.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// A pair of snapshot files, durable and read back, which still have temporary names.
#[derive(Debug)]
pub struct FinishedSnapshot {
    /// What they will be called.
    pub name: SnapshotName,
    pub(super) temporary_meta: String,
    pub(super) temporary_data: String,
    /// The size of the data file.
    pub bytes: u64,
}

/// Writes a snapshot of `databases` to temporary files.
///
/// # Errors
/// As [`StorageError`] says; the temporary files are gone then.
pub fn write_snapshot<D: Disk, S: PageSource>(
    disk: &mut D,
    header: &SnapshotHeader,
    databases: &[S],
    compress: bool,
) -> Result<FinishedSnapshot, StorageError> {
    let payload = PayloadReader::new(databases);
    let len = payload.len();
    let stream = |out: &mut DataWriter<'_, &mut D>| {
        if compress { lz4::compress(payload, len, out) } else { copy(payload, out) }
    };
    write_files(disk, header, stream, skim).map(|(files, ())| files)
}

/// Stores the `len` bytes of a leader's snapshot in temporary files, compressed or not as `compress` says,
/// whatever form they come in.
///
/// # Errors
/// As [`StorageError`] says; [`StorageError::Refused`] when the bytes are damaged. The temporary files are gone
/// then.
pub fn store_snapshot<D: Disk, R: Read>(
    disk: &mut D,
    header: &SnapshotHeader,
    mut source: R,
    len: u64,
    compress: bool,
) -> Result<FinishedSnapshot, StorageError> {
    let mut magic = Vec::new();
    let head = source.by_ref().take(lz4::MAGIC.len() as u64).read_to_end(&mut magic);
    head.map_err(|error| StorageError::Refused { text: format!("store snapshot: {error}") })?;
    let compressed = magic == lz4::MAGIC;
    let whole = magic.as_slice().chain(source);
    let stream = |out: &mut DataWriter<'_, &mut D>| match (compressed, compress) {
        // Checked for damage on the way when it is read back.
        (true, true) | (false, false) => copy(whole, out),
        (true, false) => lz4::decompress(whole, out),
        (false, true) => lz4::compress(whole, len, out),
    };
    write_files(disk, header, stream, skim).map(|(files, ())| files)
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let len = from.read(&mut chunk)?;
        let Some(read) = chunk.get(..len).filter(|read| !read.is_empty()) else { return Ok(()) };
        to.write_all(read)?;
    }
}

/// Writes both files; `look` reads the data back, from the file, and says what it found.
fn write_files<D: Disk, T>(
    disk: &mut D,
    header: &SnapshotHeader,
    stream: impl FnOnce(&mut DataWriter<'_, &mut D>) -> io::Result<()>,
    look: impl FnOnce(&mut dyn Read, u64) -> io::Result<T>,
) -> Result<(FinishedSnapshot, T), StorageError> {
    let mut io = Io::new(disk);
    let name = free_name(header, &io.list()?);
    let snap = FinishedSnapshot {
        name,
        temporary_meta: names::temporary_name(&names::snapshot_meta_name(name)),
        temporary_data: names::temporary_name(&names::snapshot_name(name)),
        bytes: 0,
    };
    let written = write_data(&mut io, &snap.temporary_data, stream, look).and_then(|done| {
        let meta = snapshot::encode_meta(header.configuration_index, &header.configuration);
        io.write_temporary(&snap.temporary_meta, &meta)?;
        if io.read_all(&snap.temporary_meta)? == meta {
            Ok(done)
        } else {
            Err(io.fail(format!("read back {}: not what was written", snap.temporary_meta)))
        }
    });
    match written {
        Ok((bytes, found)) => Ok((FinishedSnapshot { bytes, ..snap }, found)),
        Err(error) => {
            for name in [&snap.temporary_data, &snap.temporary_meta] {
                // Whatever it says: the next start deletes what is left.
                let _ = io.disk().unlink(name);
            }
            Err(error)
        }
    }
}

/// The name of the snapshot: its time is above that of every other one at the same entry.
fn free_name(header: &SnapshotHeader, listing: &[(String, u64)]) -> SnapshotName {
    let taken = listing.iter().filter_map(|(name, _)| match FileName::parse(name) {
        FileName::SnapshotMeta(name) | FileName::SnapshotData(name)
            if (name.term, name.index) == (header.term, header.index) =>
        {
            Some(name.time.saturating_add(1))
        }
        _ => None,
    });
    let time = taken.max().unwrap_or(0).max(header.time);
    SnapshotName { term: header.term, index: header.index, time }
}

/// Streams the data file out, syncs it, and reads it back; returns its size and what was found in it.
fn write_data<D: Disk, T>(
    io: &mut Io<D>,
    name: &str,
    stream: impl FnOnce(&mut DataWriter<'_, D>) -> io::Result<()>,
    look: impl FnOnce(&mut dyn Read, u64) -> io::Result<T>,
) -> Result<(u64, T), StorageError> {
    let mut file = io.create(name)?;
    let mut writer =
        DataWriter { io, name, file: &mut file, chunk: Vec::new(), len: 0, synced: 0, sum: 0, failed: None };
    let streamed = stream(&mut writer).and_then(|()| writer.flush());
    let (len, sum, failed) = (writer.len, writer.sum, writer.failed.take());
    if let Some(failed) = failed {
        return Err(failed);
    }
    streamed.map_err(|error| StorageError::Refused { text: format!("{name}: {error}") })?;
    // Before it takes its final name: else a crash can leave that name with old or no bytes.
    io.sync(name, &mut file)?;
    read_back(io, name, &file, (len, sum), look).map(|found| (len, found))
}

/// Reads the whole file again: its bytes are those that were written, and `look` finds them sound.
fn read_back<D: Disk, T>(
    io: &mut Io<D>,
    name: &str,
    file: &D::File,
    (len, sum): (u64, u32),
    look: impl FnOnce(&mut dyn Read, u64) -> io::Result<T>,
) -> Result<T, StorageError> {
    let mut reader = DataReader { disk: io.disk(), file, at: 0, sum: 0 };
    let found = look(&mut reader, len);
    // Whoever looked may not need all of it.
    let found = found.and_then(|found| copy(&mut reader, io::sink()).map(|()| found));
    let (found_len, found_sum) = (reader.at, reader.sum);
    match found {
        Ok(found) if (found_len, found_sum) == (len, sum) => Ok(found),
        Ok(_) => Err(io.fail(format!(
            "read back {name}: {len} bytes with checksum {sum:08x} expected, {found_len} with {found_sum:08x} found"
        ))),
        Err(error) => Err(StorageError::Refused { text: format!("read back {name}: {error}") }),
    }
}

/// Looks at the frame alone, if it is one: its checksum.
fn skim(reader: &mut dyn Read, _len: u64) -> io::Result<()> {
    let mut magic = Vec::new();
    reader.take(lz4::MAGIC.len() as u64).read_to_end(&mut magic)?;
    let whole = magic.as_slice().chain(reader);
    if magic == lz4::MAGIC { lz4::decompress(whole, io::sink()) } else { copy(whole, io::sink()) }
}

/// Writes in chunks and keeps the first failure as it was.
struct DataWriter<'a, D: Disk> {
    io: &'a mut Io<D>,
    name: &'a str,
    file: &'a mut D::File,
    chunk: Vec<u8>,
    len: u64,
    synced: u64,
    sum: u32,
    failed: Option<StorageError>,
}

impl<D: Disk> DataWriter<'_, D> {
    fn put(&mut self) -> io::Result<()> {
        let mut done = self.io.write_at(self.name, self.file, self.len, &self.chunk);
        self.len += self.chunk.len() as u64;
        if self.len - self.synced >= UNSYNCED_BYTES {
            done = done.and_then(|()| self.io.sync(self.name, self.file));
            self.synced = self.len;
        }
        self.sum = checksum(self.sum, &self.chunk);
        self.chunk.clear();
        done.map_err(|error| {
            let text = error.to_string();
            self.failed.get_or_insert(error);
            io::Error::other(text)
        })
    }
}

impl<D: Disk> Write for DataWriter<'_, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.put()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() { Ok(()) } else { self.put() }
    }
}

struct DataReader<'a, D: Disk> {
    disk: &'a mut D,
    file: &'a D::File,
    at: u64,
    sum: u32,
}

impl<D: Disk> Read for DataReader<'_, D> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.disk.read_at(self.file, self.at, buf)?;
        self.at += len as u64;
        self.sum = checksum(self.sum, buf.get(..len).unwrap_or_default());
        Ok(len)
    }
}

/// The payload of a snapshot, made page by page.
struct PayloadReader<'a, S> {
    databases: &'a [S],
    database: usize,
    /// The next page of `database`; 0 is its header.
    page: u32,
    chunk: Vec<u8>,
    given: usize,
}

impl<'a, S: PageSource> PayloadReader<'a, S> {
    fn new(databases: &'a [S]) -> Self {
        let chunk = snapshot::encode_payload_header(databases.len() as u64);
        Self { databases, database: 0, page: 0, chunk, given: 0 }
    }

    fn len(&self) -> u64 {
        let of = |database: &S| {
            let header = snapshot::encode_database_header(database.name(), 0).len() as u64;
            header + main_size(database)
        };
        self.chunk.len() as u64 + self.databases.iter().map(of).sum::<u64>()
    }

    fn refill(&mut self) {
        self.chunk.clear();
        self.given = 0;
        while let Some(database) = self.databases.get(self.database) {
            if self.page == 0 {
                self.chunk = snapshot::encode_database_header(database.name(), main_size(database));
            }
            while self.page < database.n_pages() && self.chunk.len() < CHUNK_BYTES {
                self.page += 1;
                database.page(self.page, &mut self.chunk);
            }
            if self.page == database.n_pages() {
                self.database += 1;
                self.page = 0;
            }
            if !self.chunk.is_empty() {
                return;
            }
        }
    }
}

fn main_size(database: &impl PageSource) -> u64 {
    u64::from(database.n_pages()) * u64::from(database.page_size())
}

impl<S: PageSource> Read for PayloadReader<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.given == self.chunk.len() {
            if self.databases.iter().any(PageSource::is_cancelled) {
                return Err(io::Error::other("the node is stopping"));
            }
            self.refill();
        }
        let rest = self.chunk.get(self.given..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(bytes)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(bytes);
        }
        self.given += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests;
