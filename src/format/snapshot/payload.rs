//! Reading of a payload from a stream, page by page.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;

use super::{FORMAT, SnapshotDatabase};
use crate::base::limits::DATABASE_NAME_BYTES_MAX;
use crate::format::{Class, FormatError};

const WAL_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The header of a database file, with which page 1 begins.
const DATABASE_HEADER_BYTES: usize = 100;
/// Name, two sizes.
const ENTRY_BYTES_MIN: u64 = 24;
const PENDING_BYTE: u64 = 0x4000_0000;
/// Releases up to 1.16 count the bytes of the main part in 32 bits.
const WRAP: u64 = 1 << 32;

/// Decodes a payload of `len` bytes.
pub(super) fn decode(reader: impl Read, len: u64) -> Result<Vec<SnapshotDatabase>, FormatError> {
    let mut source = Source { reader, left: len, ahead: Vec::new() };
    let format = source.u64("format")?;
    if format != FORMAT {
        return Err(malformed(format!("format: {FORMAT} expected, found {format}")));
    }
    let count = source.u64("number of databases")?;
    let fits = source.left / ENTRY_BYTES_MIN;
    if count > fits {
        return Err(malformed(format!("number of databases: at most {fits}, found {count}")));
    }
    let (mut databases, mut names) = (Vec::new(), BTreeSet::new());
    for _ in 0..count {
        let name = source.name()?;
        let database = decode_database(&mut source, &name).map_err(|error| {
            let place = format!("database '{}': ", String::from_utf8_lossy(&name));
            malformed(place + &error)
        })?;
        if !names.insert(name.clone()) {
            return Err(malformed(format!("database '{}': found twice", String::from_utf8_lossy(&name))));
        }
        databases.push(database);
    }
    Ok(databases)
}

fn malformed(text: String) -> FormatError {
    FormatError::new(Class::Malformed, text).within("snapshot payload: ")
}

fn decode_database<R: Read>(source: &mut Source<R>, name: &[u8]) -> Result<SnapshotDatabase, String> {
    let (mut main_size, wal_size) = (source.u64_of("main size")?, source.u64_of("WAL size")?);
    source.check("main part and WAL", main_size.saturating_add(wal_size))?;
    let wrapped = main_size == 0 && source.left >= WRAP && source.peek(16)? == b"SQLite format 3\0";
    let mut header = None;
    if main_size > 0 || wrapped {
        let found = Header::read(&source.peek(DATABASE_HEADER_BYTES)?)?;
        let announced = found.size();
        if found.trusted && announced > main_size && (announced - main_size).is_multiple_of(WRAP) {
            source.check(
                "main part, whose size was cut to 32 bits, and WAL",
                announced.saturating_add(wal_size),
            )?;
            main_size = announced;
        }
        if found.trusted && announced > main_size && wal_size <= WAL_HEADER_BYTES {
            let size = found.page_size;
            return Err(format!(
                "{} pages of {size} bytes expected by page 1, {main_size} bytes found",
                found.n_pages
            ));
        }
        header = Some(found);
    }
    let mut page_size = header.as_ref().map(|header| header.page_size);
    let mut pages = Vec::new();
    if let Some(size) = page_size {
        if !main_size.is_multiple_of(u64::from(size)) {
            return Err(format!("main size: a multiple of the page size {size} expected, found {main_size}"));
        }
        for _ in 0..main_size / u64::from(size) {
            pages.push(source.page(size)?);
        }
    }
    if wal_size > WAL_HEADER_BYTES {
        pages = overlay(source, pages, wal_size, &mut page_size)?;
    } else {
        source.skip(wal_size)?;
        if let Some(header) = header.filter(|header| header.trusted) {
            // A file may be longer than the database in it: SQLite goes by the header.
            pages.truncate(usize::try_from(header.n_pages).unwrap_or(usize::MAX));
        }
    }
    let n_pages = u32::try_from(pages.len()).map_err(|_| format!("{} pages are too many", pages.len()))?;
    Ok(SnapshotDatabase { name: name.to_vec(), page_size: page_size.unwrap_or(4096), n_pages, pages })
}

/// Lays the frames of a WAL over `main`.
fn overlay<R: Read>(
    source: &mut Source<R>,
    main: Vec<Arc<[u8]>>,
    wal_size: u64,
    page_size: &mut Option<u32>,
) -> Result<Vec<Arc<[u8]>>, String> {
    let header = source.bytes("WAL header", 32)?;
    let size = match *page_size {
        Some(size) => size,
        None => valid_page_size(big_endian(&header, 8))?,
    };
    *page_size = Some(size);
    let frame = FRAME_HEADER_BYTES as u64 + u64::from(size);
    let frames = (wal_size - WAL_HEADER_BYTES) / frame;
    if !(wal_size - WAL_HEADER_BYTES).is_multiple_of(frame) {
        return Err(format!(
            "WAL size: a header and whole frames of {frame} bytes expected, found {wal_size}"
        ));
    }
    let (mut newest, mut n_pages) = (BTreeMap::new(), 0);
    for _ in 0..frames {
        let header = source.bytes("frame header", FRAME_HEADER_BYTES)?;
        n_pages = big_endian(&header, 4);
        newest.insert(big_endian(&header, 0), source.page(size)?);
    }
    if n_pages == 0 {
        return Err("WAL: a commit expected as last frame, found one that is not".to_owned());
    }
    let mut main = main.into_iter();
    let mut pages = Vec::new();
    for number in 1..=n_pages {
        let below = main.next();
        let image = match newest.remove(&number).or(below) {
            Some(image) => image,
            None if u64::from(number) == PENDING_BYTE / u64::from(size) + 1 => vec![0; size as usize].into(),
            None => return Err(format!("{n_pages} pages expected, page {number} found nowhere")),
        };
        pages.push(image);
    }
    Ok(pages)
}

fn big_endian(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    if let Some(found) = bytes.get(at..at.saturating_add(4)) {
        word.copy_from_slice(found);
    }
    u32::from_be_bytes(word)
}

fn valid_page_size(found: u32) -> Result<u32, String> {
    if found.is_power_of_two() && (512..=65536).contains(&found) {
        Ok(found)
    } else {
        Err(format!("page size: a power of two from 512 to 65536 expected, found {found}"))
    }
}

/// What page 1 says about its database.
struct Header {
    page_size: u32,
    n_pages: u32,
    /// SQLite believes the page count only when it was written together with the change counter.
    trusted: bool,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < DATABASE_HEADER_BYTES {
            return Err(format!(
                "main part: a header of {DATABASE_HEADER_BYTES} bytes expected, {} found",
                bytes.len()
            ));
        }
        // 65536 does not fit its two bytes and is written as 1.
        let stored = big_endian(bytes, 16) >> 16;
        let page_size = valid_page_size(if stored == 1 { 65536 } else { stored })?;
        let n_pages = big_endian(bytes, 28);
        let trusted = n_pages > 0 && big_endian(bytes, 24) == big_endian(bytes, 92);
        Ok(Self { page_size, n_pages, trusted })
    }

    fn size(&self) -> u64 {
        u64::from(self.n_pages) * u64::from(self.page_size)
    }
}

/// The payload's bytes, and how many are left: nothing is allocated that is not there.
struct Source<R> {
    reader: R,
    left: u64,
    /// Read already, not consumed.
    ahead: Vec<u8>,
}

impl<R: Read> Source<R> {
    fn check(&self, field: &str, len: u64) -> Result<(), String> {
        if len > self.left {
            return Err(format!("{field}: {len} bytes expected, {} left", self.left));
        }
        Ok(())
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<(), String> {
        let from_ahead = self.ahead.len().min(buf.len());
        let (first, rest) = buf.split_at_mut(from_ahead);
        for (to, byte) in first.iter_mut().zip(self.ahead.drain(..from_ahead)) {
            *to = byte;
        }
        self.left = self.left.saturating_sub((first.len() + rest.len()) as u64);
        self.reader.read_exact(rest).map_err(|error| match error.kind() {
            // Of a raw file: the size of the file was wrong. A frame says more than "failed to fill".
            io::ErrorKind::UnexpectedEof if error.get_ref().is_none() => "the file ends too early".to_owned(),
            _ => error.to_string(),
        })
    }

    fn bytes(&mut self, field: &str, len: usize) -> Result<Vec<u8>, String> {
        self.check(field, len as u64)?;
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The next bytes, not consumed; fewer when there are no more.
    fn peek(&mut self, len: usize) -> Result<Vec<u8>, String> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(len);
        if self.ahead.len() < len {
            let missing = (len - self.ahead.len()) as u64;
            let read = self.reader.by_ref().take(missing).read_to_end(&mut self.ahead);
            read.map_err(|error| error.to_string())?;
        }
        Ok(self.ahead.get(..len).unwrap_or(&self.ahead).to_vec())
    }

    fn page(&mut self, size: u32) -> Result<Arc<[u8]>, String> {
        Ok(self.bytes("page", size as usize)?.into())
    }

    fn skip(&mut self, len: u64) -> Result<(), String> {
        let len = usize::try_from(len).map_err(|error| error.to_string())?;
        self.bytes("WAL header", len).map(drop)
    }

    fn u64_of(&mut self, field: &str) -> Result<u64, String> {
        let mut word = [0; 8];
        self.check(field, 8)?;
        self.fill(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn u64(&mut self, field: &str) -> Result<u64, FormatError> {
        self.u64_of(field).map_err(malformed)
    }

    /// A name: words of 8 bytes up to the one with a NUL.
    fn name(&mut self) -> Result<Vec<u8>, FormatError> {
        let mut name = Vec::new();
        loop {
            let word = self.bytes("database name", 8).map_err(malformed)?;
            if let Some(end) = word.iter().position(|&byte| byte == 0) {
                name.extend(word.iter().take(end));
                return Ok(name);
            }
            name.extend_from_slice(&word);
            if name.len() > DATABASE_NAME_BYTES_MAX {
                let text = format!("database name: at most {DATABASE_NAME_BYTES_MAX} bytes, found more");
                return Err(malformed(text));
            }
        }
    }
}
