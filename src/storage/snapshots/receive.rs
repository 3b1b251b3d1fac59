//! A leader's snapshot on its way into this directory: streamed to a temporary file, synced, read back and decoded
//! before it counts. Nothing that is there is touched.

use std::io::{self, Read};

use super::{CHUNK_BYTES, DataWriter, FinishedSnapshot, SnapshotHeader, copy, write_files};
use crate::disk::Disk;
use crate::format::lz4;
use crate::format::snapshot::{SnapshotDatabase, decode_data};
use crate::storage::io::StorageError;

/// Stores the `data_bytes` bytes that come from `source`, as every server sends them: uncompressed. `judge` sees what
/// the file holds, all databases page by page, and has the last word; what it makes of them is returned along with
/// the files, for [`crate::storage::Writer::restore_snapshot`].
///
/// # Errors
/// As [`StorageError`] says; [`StorageError::Refused`] when the bytes end too early or are no snapshot, or `judge`
/// refuses. The temporary files are gone then, unless the disk failed.
pub fn receive_snapshot<D: Disk, R: Read, T>(
    disk: &mut D,
    header: &SnapshotHeader,
    source: R,
    data_bytes: u64,
    compress: bool,
    judge: impl FnOnce(Vec<SnapshotDatabase>) -> Result<T, String>,
) -> Result<(FinishedSnapshot, T), StorageError> {
    let exact = Exactly { inner: source, left: data_bytes };
    let stream = |out: &mut DataWriter<'_, &mut D>| {
        if compress { lz4::compress(exact, data_bytes, out) } else { copy(exact, out) }
    };
    let look = |reader: &mut dyn Read, len: u64| {
        let databases = decode_data(io::BufReader::with_capacity(CHUNK_BYTES, reader), len)
            .map_err(|error| io::Error::other(error.to_string()))?;
        judge(databases).map_err(io::Error::other)
    };
    write_files(disk, header, stream, look)
}

/// As many bytes as were announced; fewer are an error, more are left alone.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let Some(room) = buf.get_mut(..most).filter(|room| !room.is_empty()) else { return Ok(0) };
        let len = self.inner.read(room)?;
        self.left -= len as u64;
        if len == 0 {
            let text = format!("{} bytes more expected, none came", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests;
