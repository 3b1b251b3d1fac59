//! Snapshots: the `.meta` file, and the payload of the data file (all databases, page by page).
//!
//! We write what every release reads: all pages in the main part, no WAL part. Releases up to 1.16 wrote a WAL
//! part with meaning: its frames lie over the main part, the last image of a page wins, and its last frame says
//! how many pages there are.

mod payload;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::sync::Arc;

use super::{Class, FormatError, lz4};
use crate::base::crc::checksum;
use crate::base::limits::CONFIGURATION_BYTES_MAX;
use crate::base::{Index, Reader, Writer};
use crate::codec::membership::Configuration;

const FORMAT: u64 = 1;
/// Format, checksum, configuration index, configuration length.
const META_HEADER_BYTES: usize = 32;

/// What a `.meta` file holds. Term and index of the snapshot are in the file's name only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The index of the configuration.
    pub configuration_index: Index,
    /// The last committed configuration.
    pub configuration: Configuration,
    /// The same as it stands in the file: padding and all.
    pub encoded: Vec<u8>,
}

/// One database of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDatabase {
    /// The name that clients open, byte for byte.
    pub name: Vec<u8>,
    /// The size of its pages, in bytes.
    pub page_size: u32,
    /// How many pages it has: the length of `pages`.
    pub n_pages: u32,
    /// All pages in order, the first one is page 1.
    pub pages: Vec<Arc<[u8]>>,
}

/// The content of a `.meta` file.
#[must_use]
pub fn encode_meta(configuration_index: Index, configuration: &[u8]) -> Vec<u8> {
    let mut covered = Writer::with_capacity(16 + configuration.len());
    covered.u64(configuration_index.0).u64(configuration.len() as u64).bytes(configuration);
    let mut writer = Writer::with_capacity(META_HEADER_BYTES + configuration.len());
    writer.u64(FORMAT).u64(checksum(0, covered.as_slice()).into()).bytes(covered.as_slice());
    writer.into_bytes()
}

/// Decodes the content of the `.meta` file `name`.
///
/// # Errors
/// What is wrong with it, C's text first.
pub fn decode_meta(name: &str, bytes: &[u8]) -> Result<SnapshotMeta, FormatError> {
    let short = |found: usize, wanted: u64| {
        let text = format!("short read: {found} bytes instead of {wanted}: {name} is cut");
        FormatError::new(Class::Io, text)
    };
    let mut reader = Reader::new(bytes);
    let mut field = || reader.u64("").map_err(|_| short(bytes.len(), META_HEADER_BYTES as u64));
    let (format, expected, configuration_index, len) = (field()?, field()?, field()?, field()?);
    if format != FORMAT {
        let text = format!("read {name}: bad format version {format}, 1 expected");
        return Err(FormatError::new(Class::Malformed, text));
    }
    if len == 0 || len > CONFIGURATION_BYTES_MAX {
        let text = format!(
            "read {name}: a configuration of 1 to {CONFIGURATION_BYTES_MAX} bytes expected, {len} found"
        );
        return Err(FormatError::new(Class::Corrupt, text));
    }
    let rest = reader.rest();
    let encoded = usize::try_from(len).ok().and_then(|len| rest.get(..len));
    let encoded = encoded.ok_or_else(|| short(rest.len(), len))?;
    let covered = bytes.get(16..META_HEADER_BYTES + encoded.len()).unwrap_or_default();
    let found = checksum(0, covered);
    // C looks at the lower half alone.
    if u64::from(found) != expected & u64::from(u32::MAX) {
        let text = format!("read {name}: checksum mismatch: {expected:08x} expected, {found:08x} found");
        return Err(FormatError::new(Class::Corrupt, text));
    }
    let configuration = Configuration::decode(encoded)
        .map_err(|error| FormatError::new(Class::Malformed, format!("read {name}: {error}")))?;
    let configuration_index = Index(configuration_index);
    Ok(SnapshotMeta { configuration_index, configuration, encoded: encoded.to_vec() })
}

/// What a payload of `databases` databases begins with.
#[must_use]
pub fn encode_payload_header(databases: u64) -> Vec<u8> {
    let mut writer = Writer::with_capacity(16);
    writer.u64(FORMAT).u64(databases);
    writer.into_bytes()
}

/// What stands before the `main_size` bytes of pages of one database.
#[must_use]
pub fn encode_database_header(name: &[u8], main_size: u64) -> Vec<u8> {
    let mut writer = Writer::with_capacity(name.len() + 24);
    writer.text(name).u64(main_size).u64(0);
    writer.into_bytes()
}

/// Reads the `len` bytes of a snapshot's data, compressed or not: the first bytes tell. Holds the pages and a
/// few blocks in memory, never the whole file.
///
/// # Errors
/// What is wrong with it, C's text first; nothing of it should be used then.
pub fn decode_data(mut data: impl Read, len: u64) -> Result<Vec<SnapshotDatabase>, FormatError> {
    let failed = |error: std::io::Error| FormatError::new(Class::Io, error.to_string());
    let mut magic = Vec::new();
    data.by_ref().take(lz4::MAGIC.len() as u64).read_to_end(&mut magic).map_err(failed)?;
    let compressed = magic == lz4::MAGIC;
    let whole = std::io::Cursor::new(magic).chain(data);
    if !compressed {
        return payload::decode(whole, len);
    }
    let frame = lz4::FrameReader::open(whole).map_err(failed)?;
    let content_size = frame.content_size();
    let mut frame = Noting { inner: frame, failed: None };
    let databases = payload::decode(&mut frame, content_size);
    // To the end of the frame: only there its checksum is looked at.
    let end = std::io::copy(&mut frame, &mut std::io::sink());
    // What is wrong with the frame makes its content wrong too, and says more.
    match frame.failed {
        Some(text) => Err(FormatError::new(Class::Io, text)),
        None => databases.and_then(|databases| end.map(|_| databases).map_err(failed)),
    }
}

/// Keeps the text of the first error.
struct Noting<R> {
    inner: R,
    failed: Option<String>,
}

impl<R: Read> Read for Noting<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buf).inspect_err(|error| {
            self.failed.get_or_insert_with(|| error.to_string());
        })
    }
}
