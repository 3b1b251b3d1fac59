//! Reading the files of the directory into what `format` decodes.

use std::io::{self, BufReader, Read};

use super::{LoadError, LoadedSnapshot};
use crate::disk::Disk;
use crate::format::metadata::{self, Metadata};
use crate::format::names::{self, FileName};
use crate::format::recovery::{ClosedSegment, Listing, Log, SegmentFile, SnapshotFiles};
use crate::format::{Class, FormatError, lz4, segment, snapshot};

const CHUNK_BYTES: usize = 256 << 10;

pub(super) fn whole<D: Disk>(disk: &mut D, name: &str) -> Result<Vec<u8>, LoadError> {
    disk.read_all(name).map_err(|error| LoadError::disk("read", name, &error))
}

/// The newer metadata. A file that is too short counts as none.
pub(super) fn metadata<D: Disk>(
    disk: &mut D,
    files: &[(String, u64)],
) -> Result<Option<Metadata>, LoadError> {
    let mut read = |name: &str| {
        if !files.iter().any(|(file, _)| file == name) {
            return Ok(None);
        }
        Ok::<_, LoadError>(metadata::decode(name, &whole(disk, name)?)?)
    };
    let [first, second] = names::METADATA;
    Ok(metadata::newer(read(first)?, read(second)?)?)
}

/// Whether a metadata file is too short to be one.
pub(super) fn is_short_metadata(name: &str, size: u64) -> bool {
    matches!(FileName::parse(name), FileName::Metadata(_)) && size < metadata::METADATA_BYTES as u64
}

pub(super) fn log<D: Disk>(disk: &mut D, listing: &Listing) -> Result<Log, LoadError> {
    let mut log = Log::default();
    for (name, first, last) in &listing.closed {
        log.closed.push(ClosedSegment { first: *first, last: *last, file: segment_file(disk, name)? });
    }
    for name in &listing.open {
        log.open.push(segment_file(disk, name)?);
    }
    Ok(log)
}

fn segment_file<D: Disk>(disk: &mut D, name: &str) -> Result<SegmentFile, LoadError> {
    let bytes = whole(disk, name)?;
    Ok(SegmentFile::new(name, &segment::decode(&bytes), &bytes))
}

/// Reads both files of a snapshot.
pub(super) fn snapshot<D: Disk>(disk: &mut D, files: &SnapshotFiles) -> Result<LoadedSnapshot, FormatError> {
    let failed = |name: &str, error: io::Error| FormatError::new(Class::Io, format!("read {name}: {error}"));
    let meta_name = names::meta_name(&files.data);
    let bytes = disk.read_all(&meta_name).map_err(|error| failed(&meta_name, error))?;
    let meta = snapshot::decode_meta(&meta_name, &bytes)?;
    let file = disk.open(&files.data).map_err(|error| failed(&files.data, error))?;
    let mut magic = lz4::MAGIC.map(|byte| !byte);
    disk.read_at(&file, 0, &mut magic).map_err(|error| failed(&files.data, error))?;
    let reader = BufReader::with_capacity(CHUNK_BYTES, FileReader { disk, file: &file, at: 0 });
    let databases = snapshot::decode_data(reader, files.size).map_err(|mut error| {
        error.text.push_str(&format!(" in {}", files.data));
        error
    })?;
    Ok(LoadedSnapshot {
        term: files.name.term,
        index: files.name.index,
        configuration: meta.configuration,
        configuration_index: meta.configuration_index,
        time: files.name.time,
        file: files.data.clone(),
        has_checksum: magic == lz4::MAGIC,
        databases,
    })
}

struct FileReader<'a, D: Disk> {
    disk: &'a mut D,
    file: &'a D::File,
    at: u64,
}

impl<D: Disk> Read for FileReader<'_, D> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.disk.read_at(self.file, self.at, buf)?;
        self.at = self.at.saturating_add(len as u64);
        Ok(len)
    }
}
