//! Segments: files of log entries in batches, each batch with its checksums. Indexes stand in no segment: they
//! come from the name of a closed one and by counting in an open one.

use super::{Class, FormatError};
use crate::base::crc::checksum;
use crate::base::limits::BATCH_ENTRIES_MAX;
use crate::base::{Entry, EntryKind, Reader, Term};

/// What every segment begins with: the format word.
pub const SEGMENT_HEADER: [u8; 8] = 1u64.to_le_bytes();
/// Checksums and count, before the entry headers of a batch.
const PREAMBLE_BYTES: u64 = 16;
const ENTRY_HEADER_BYTES: u64 = 16;

/// Where a batch stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// From the start of the file.
    pub offset: u64,
    /// Checksums, headers and data.
    pub len: u64,
    /// The entries in it, at least one.
    pub count: u64,
}

/// An entry as it stands in a segment: without its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEntry<'a> {
    /// The term of the leader that created it.
    pub term: Term,
    /// What `payload` is.
    pub kind: EntryKind,
    /// The bytes as they are in the file, padding included.
    pub payload: &'a [u8],
}

/// What could be read of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The good batches from the start.
    pub batches: Vec<BatchInfo>,
    /// Their entries.
    pub entries: Vec<RawEntry<'a>>,
    /// The bytes up to the end of the last good batch; 0 when not even the format word is good.
    pub used: u64,
    /// Why reading ended there; nothing when the file ends there too.
    pub end: Result<(), FormatError>,
    /// Whether the file is empty or holds nothing but zeros.
    pub blank: bool,
    /// Whether nothing but zeros follows `used`.
    pub tail_zero: bool,
    /// Whether the format word is good, so that `end` is about a batch.
    pub format_good: bool,
}

impl Default for Segment<'_> {
    fn default() -> Self {
        Self {
            batches: Vec::new(),
            entries: Vec::new(),
            used: 0,
            end: Ok(()),
            blank: false,
            tail_zero: false,
            format_good: false,
        }
    }
}

/// The size of a batch of these entries on disk.
#[must_use]
pub fn batch_bytes(entries: &[Entry]) -> u64 {
    let data: u64 = entries.iter().map(|entry| entry.payload.len() as u64).sum();
    PREAMBLE_BYTES + ENTRY_HEADER_BYTES * entries.len() as u64 + data
}

/// Appends one batch of `entries` to `out`.
///
/// # Panics
/// When there is no entry or more than [`BATCH_ENTRIES_MAX`], or a payload is not a multiple of 8 bytes below
/// 4 GiB: C refuses all of these.
pub fn encode_batch(entries: &[Entry], out: &mut Vec<u8>) {
    let count = entries.len() as u64;
    assert!((1..=BATCH_ENTRIES_MAX).contains(&count), "a batch of {count} entries cannot be read back");
    out.reserve(usize::try_from(batch_bytes(entries)).unwrap_or(0));
    let mut data_crc = 0;
    for part in entries.iter().flat_map(|entry| entry.payload.parts()) {
        data_crc = checksum(data_crc, part);
    }
    let mut headers = Vec::with_capacity(8 + 16 * entries.len());
    headers.extend_from_slice(&count.to_le_bytes());
    for entry in entries {
        let len = entry.payload.len();
        let size = u32::try_from(len).ok().filter(|size| size.is_multiple_of(8));
        let Some(size) = size else {
            panic!("the payload of entry {} has {len} bytes: not a multiple of 8 below 4 GiB", entry.index);
        };
        headers.extend_from_slice(&entry.term.0.to_le_bytes());
        headers.extend_from_slice(&[entry.kind.code(), 0, 0, 0]);
        headers.extend_from_slice(&size.to_le_bytes());
    }
    out.extend_from_slice(&checksum(0, &headers).to_le_bytes());
    out.extend_from_slice(&data_crc.to_le_bytes());
    out.extend_from_slice(&headers);
    for part in entries.iter().flat_map(|entry| entry.payload.parts()) {
        out.extend_from_slice(part);
    }
}

/// Reads a segment up to its end or its first defect. The text of the defect is C's without the file's name.
#[must_use]
pub fn decode(bytes: &[u8]) -> Segment<'_> {
    let blank = all_zero(bytes);
    let mut segment = Segment { blank, tail_zero: blank, ..Segment::default() };
    if bytes.is_empty() {
        segment.end = Err(FormatError::new(Class::Corrupt, "file is empty"));
        return segment;
    }
    let mut reader = Reader::new(bytes);
    let Ok(format) = reader.u64("format") else {
        let text = format!("file has only {} bytes", bytes.len());
        segment.end = Err(FormatError::new(Class::Io, text));
        return segment;
    };
    if format.to_le_bytes() != SEGMENT_HEADER {
        let text = format!("unexpected format version {format}");
        segment.end = Err(FormatError::new(Class::Corrupt, text));
        return segment;
    }
    segment.format_good = true;
    segment.used = SEGMENT_HEADER.len() as u64;
    loop {
        let rest = reader.rest();
        if let Err(error) = decode_batch(&mut reader, &mut segment) {
            let number = segment.batches.len() as u64 + 1;
            let place = format!("entries batch {number} starting at byte {}", segment.used);
            let separator = if error.text.is_empty() { "" } else { ": " };
            segment.end = Err(error.within(separator).within(&place));
            segment.tail_zero = all_zero(rest);
            return segment;
        }
        if reader.is_empty() {
            segment.tail_zero = true;
            return segment;
        }
    }
}

/// Compares blocks: a preallocated segment is 8 MiB of zeros.
fn all_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|block| ZEROS.starts_with(block))
}

fn short(field: &str, found: usize, wanted: u64) -> FormatError {
    let text = format!("read {field}: short read: {found} bytes instead of {wanted}");
    FormatError::new(Class::Io, text)
}

/// Reads one batch into `segment`; leaves it as it was on an error.
fn decode_batch<'a>(reader: &mut Reader<'a>, segment: &mut Segment<'a>) -> Result<(), FormatError> {
    let corrupt = |text: String| FormatError::new(Class::Corrupt, text);
    let BatchHead { entries, data_crc, head_bytes, data_bytes } = decode_head(reader)?;
    let count = entries.len() as u64;
    let data = take(reader, "data", data_bytes)?;
    if checksum(0, data) != data_crc {
        return Err(corrupt("data checksum mismatch".to_owned()));
    }
    let mut data = Reader::new(data);
    let before = segment.entries.len();
    for (term, kind, size) in entries {
        match data.take("", size) {
            Ok(payload) => segment.entries.push(RawEntry { term, kind, payload }),
            Err(error) => {
                segment.entries.truncate(before);
                return Err(FormatError::new(Class::Malformed, error.to_string()));
            }
        }
    }
    let len = head_bytes + data_bytes;
    segment.batches.push(BatchInfo { offset: segment.used, len, count });
    segment.used += len;
    Ok(())
}

/// What stands before the data of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// Term, kind and length of each entry, of which there is at least one.
    pub entries: Vec<(Term, EntryKind, usize)>,
    /// The checksum of the data.
    pub data_crc: u32,
    /// The bytes of checksums and headers.
    pub head_bytes: u64,
    /// The bytes of data that follow.
    pub data_bytes: u64,
}

impl BatchHead {
    /// The head of the batch that begins with `bytes`; or, if those do not reach to its end, how many it has.
    ///
    /// # Errors
    /// No good batch begins there.
    pub fn decode(bytes: &[u8]) -> Result<Result<Self, usize>, FormatError> {
        let mut reader = Reader::new(bytes);
        let head = decode_head(&mut reader);
        let count = bytes.get(8..16).and_then(|count| Reader::new(count).u64("").ok());
        let len = count.map_or(PREAMBLE_BYTES, |count| {
            PREAMBLE_BYTES + ENTRY_HEADER_BYTES * count.min(BATCH_ENTRIES_MAX)
        });
        match (head, usize::try_from(len)) {
            (Err(_), Ok(len)) if len > bytes.len() => Ok(Err(len)),
            (head, _) => head.map(Ok),
        }
    }
}

fn decode_head(reader: &mut Reader<'_>) -> Result<BatchHead, FormatError> {
    let corrupt = |text: String| FormatError::new(Class::Corrupt, text);
    let header_crc = reader.u32("").map_err(|_| short("preamble", reader.rest().len(), 8))?;
    let data_crc = reader.u32("").map_err(|_| short("preamble", reader.rest().len() + 4, 8))?;
    let headers_start = reader.rest();
    let count = reader.u64("").map_err(|_| short("preamble", reader.rest().len(), 8))?;
    if count == 0 {
        return Err(corrupt("entries count in preamble is zero".to_owned()));
    }
    if count > BATCH_ENTRIES_MAX {
        return Err(corrupt(format!("entries count {count} in preamble is too high")));
    }
    let headers = take(reader, "header", ENTRY_HEADER_BYTES * count)?;
    let covered = headers_start.get(..8 + headers.len()).unwrap_or_default();
    if checksum(0, covered) != header_crc {
        return Err(corrupt("header checksum mismatch".to_owned()));
    }
    let (entries, data_bytes) = decode_headers(headers)?;
    let head_bytes = PREAMBLE_BYTES + headers.len() as u64;
    Ok(BatchHead { entries, data_crc, head_bytes, data_bytes })
}

fn take<'a>(reader: &mut Reader<'a>, field: &str, len: u64) -> Result<&'a [u8], FormatError> {
    let found = reader.rest().len();
    let len_here = usize::try_from(len).map_err(|_| short(field, found, len))?;
    reader.take("", len_here).map_err(|_| short(field, found, len))
}

type EntryHeader = (Term, EntryKind, usize);

/// The entry headers of a batch, and the bytes of data that they announce.
fn decode_headers(headers: &[u8]) -> Result<(Vec<EntryHeader>, u64), FormatError> {
    let malformed = |text: String| FormatError::new(Class::Malformed, text);
    let mut reader = Reader::new(headers);
    let mut found = Vec::with_capacity(headers.len() / 16);
    let mut total = 0u64;
    while !reader.is_empty() {
        let mut fields = || {
            let (term, code) = (reader.u64("entry term")?, reader.u8("entry type")?);
            reader.take("unused bytes", 3)?;
            Ok((term, code, reader.u32("entry size")?))
        };
        let (term, code, size) =
            fields().map_err(|error: crate::base::DecodeError| malformed(error.to_string()))?;
        let Some(kind) = EntryKind::from_code(code) else {
            return Err(malformed(format!(
                "type of entry {}: 1 (command), 2 (barrier) or 3 (change) expected, found {code}",
                found.len() + 1
            )));
        };
        if !size.is_multiple_of(8) {
            let number = found.len() + 1;
            return Err(malformed(format!("size of entry {number}: a multiple of 8 expected, found {size}")));
        }
        let len = usize::try_from(size).map_err(|error| malformed(error.to_string()))?;
        total = total.saturating_add(size.into());
        found.push((Term(term), kind, len));
    }
    Ok((found, total))
}

/// Whether a good batch follows the one at `at`, whose data is not what its checksum says: then the file is
/// damaged in its middle, or one write of several batches was torn.
#[must_use]
pub fn good_batch_after(bytes: &[u8], at: u64) -> bool {
    let Some(rest) = usize::try_from(at).ok().and_then(|at| bytes.get(at..)) else { return false };
    let mut reader = Reader::new(rest);
    let after = skip_batch(&mut reader);
    after.is_some() && decode_batch(&mut reader, &mut Segment::default()).is_ok()
}

/// Passes over a batch whose headers at least are good.
fn skip_batch(reader: &mut Reader<'_>) -> Option<()> {
    let head = decode_head(reader).ok()?;
    take(reader, "data", head.data_bytes).ok().map(drop)
}

#[cfg(test)]
mod tests;
