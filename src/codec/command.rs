//! The commands of the state machine: payloads of log entries of kind command.
//!
//! Every command that a release of the C library wrote is decoded; we write FRAMES alone, one whole transaction
//! (or several merged ones) each. What a command *does* is the engine's business.

use std::sync::Arc;

use crate::base::{DecodeError, EntryKind, PageNo, Payload, Reader, Writer, limits, pool};

const FORMAT: u8 = 1;
const OPEN: u8 = 1;
const FRAMES: u8 = 2;
const UNDO: u8 = 3;
const CHECKPOINT: u8 = 4;

/// The largest page number that C accepts.
pub const PAGE_NUMBER_MAX: u64 = 0x7fff_ffff;

/// The byte of a database file that SQLite locks; the page around it never holds data.
const PENDING_BYTE: u64 = 0x4000_0000;

/// One command, borrowed from the entry's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Does nothing. Written by releases before 1.0 only.
    Open {
        /// The database.
        filename: &'a [u8],
    },
    /// Pages of a transaction.
    Frames(Frames<'a>),
    /// Drops the pages of FRAMES commands whose `is_commit` was not set. Written by releases before 1.0 only.
    Undo {
        /// Ignored.
        tx_id: u64,
    },
    /// Does nothing. Written by leaders up to 1.18.2.
    Checkpoint {
        /// The database.
        filename: &'a [u8],
    },
}

/// The page images of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames<'a> {
    /// The database, byte for byte as the client named it; never a path.
    pub filename: &'a [u8],
    /// Whether the transaction ends here; when not, the pages wait for the FRAMES that says so.
    pub is_commit: bool,
    /// A power of two between 512 and 32768: the field on disk has 16 bits.
    pub page_size: u32,
    /// In the order of the command; of a number given twice the last image wins.
    pub pages: Vec<(PageNo, &'a [u8])>,
}

impl Command<'_> {
    /// Decodes a command. All that follows it in `bytes` is ignored, as in C.
    ///
    /// # Errors
    /// Which field is cut, or holds what no command may hold.
    pub fn decode(bytes: &[u8]) -> Result<Command<'_>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8("command format")?;
        if format != FORMAT {
            return Err(DecodeError::Value { field: "command format", expected: "1", found: format.into() });
        }
        let code = reader.u8("command type")?;
        reader.take("command header", 6)?;
        match code {
            OPEN => Ok(Command::Open { filename: filename(&mut reader)? }),
            FRAMES => Ok(Command::Frames(frames(&mut reader)?)),
            UNDO => Ok(Command::Undo { tx_id: reader.u64("transaction id")? }),
            CHECKPOINT => Ok(Command::Checkpoint { filename: filename(&mut reader)? }),
            found => {
                let expected = "1 (open), 2 (frames), 3 (undo) or 4 (checkpoint)";
                Err(DecodeError::Value { field: "command type", expected, found: found.into() })
            }
        }
    }
}

fn filename<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let field = "database name length";
    let name = reader.text("database name")?;
    if name.is_empty() {
        return Err(DecodeError::Value { field, expected: "at least 1 byte", found: 0 });
    }
    if name.len() > limits::DATABASE_NAME_BYTES_MAX {
        let max = limits::DATABASE_NAME_BYTES_MAX as u64;
        return Err(DecodeError::Range { field, max, found: name.len() as u64 });
    }
    Ok(name)
}

fn frames<'a>(reader: &mut Reader<'a>) -> Result<Frames<'a>, DecodeError> {
    let FramesHead { filename, is_commit, page_size, numbers } = frames_head(reader, 0)?;
    let mut pages = Vec::with_capacity(numbers.len());
    for number in numbers {
        pages.push((number, reader.take("page", page_size.into())?));
    }
    Ok(Frames { filename, is_commit, page_size: page_size.into(), pages })
}

/// A FRAMES command up to its pages.
struct FramesHead<'a> {
    filename: &'a [u8],
    is_commit: bool,
    page_size: u16,
    numbers: Vec<PageNo>,
}

/// `elsewhere`: so many bytes of the pages are not in the reader.
fn frames_head<'a>(reader: &mut Reader<'a>, elsewhere: usize) -> Result<FramesHead<'a>, DecodeError> {
    let filename = filename(reader)?;
    reader.u64("transaction id")?;
    reader.u32("truncate")?;
    let is_commit = reader.u8("is_commit")? != 0;
    reader.take("unused bytes after is_commit", 3)?;
    let n_pages = u64::from(reader.u32("page count")?);
    let page_size = reader.u16("page size")?;
    reader.u16("unused bytes after page size")?;
    if !page_size.is_power_of_two() || page_size < 512 {
        let expected = "a power of two between 512 and 32768";
        return Err(DecodeError::Value { field: "page size", expected, found: page_size.into() });
    }
    let fits = reader.rest().len().saturating_add(elsewhere) as u64 / (8 + u64::from(page_size));
    let count = usize::try_from(n_pages).ok().filter(|_| n_pages <= fits);
    let Some(count) = count else {
        return Err(DecodeError::Range { field: "page count", max: fits, found: n_pages });
    };
    let mut listed = Reader::new(reader.take("page numbers", count.saturating_mul(8))?);
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        numbers.push(page_number(listed.u64("page number")?, page_size.into())?);
    }
    Ok(FramesHead { filename, is_commit, page_size, numbers })
}

fn page_number(found: u64, page_size: u64) -> Result<PageNo, DecodeError> {
    let field = "page number";
    if found == 0 {
        return Err(DecodeError::Value { field, expected: "at least 1", found });
    }
    if found > PAGE_NUMBER_MAX {
        return Err(DecodeError::Range { field, max: PAGE_NUMBER_MAX, found });
    }
    if found == PENDING_BYTE / page_size + 1 {
        return Err(DecodeError::Value { field, expected: "not the page of the pending byte", found });
    }
    let number = u32::try_from(found);
    number.map(PageNo).map_err(|_| DecodeError::Range { field, max: PAGE_NUMBER_MAX, found })
}

/// A FRAMES command whose pages are parts of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedFrames<'a> {
    /// As [`Frames::filename`].
    pub filename: &'a [u8],
    /// As [`Frames::is_commit`].
    pub is_commit: bool,
    /// As [`Frames::pages`].
    pub pages: Vec<(PageNo, &'a Arc<[u8]>)>,
}

/// The payload with these bytes, copied once: the pages of a FRAMES command each on its own, so that [`shared_frames`]
/// finds them and the log and the databases hold them once between them.
#[must_use]
pub fn split(kind: EntryKind, bytes: &[u8]) -> Payload {
    let pages = Some(bytes).filter(|_| kind == EntryKind::Command).and_then(pages_of);
    let Some((head, pages, rest)) = pages else { return Payload::from_bytes(bytes) };
    let mut parts: Vec<Arc<[u8]>> = Vec::with_capacity(2 + pages.len());
    parts.push(Arc::from(head));
    parts.extend(pages.map(pool::copy_of));
    parts.extend(Some(rest).filter(|rest| !rest.is_empty()).map(Arc::from));
    Payload::from_parts(parts)
}

/// What is before the pages of a FRAMES command, they, and what follows them.
fn pages_of(bytes: &[u8]) -> Option<(&[u8], std::slice::ChunksExact<'_, u8>, &[u8])> {
    let mut reader = Reader::new(bytes);
    let head = starts_frames(&mut reader).then(|| frames_head(&mut reader, 0).ok())??;
    let (size, rest) = (usize::from(head.page_size), reader.rest());
    let (pages, beyond) = rest.split_at_checked(size.checked_mul(head.numbers.len())?)?;
    let before = bytes.get(..bytes.len().checked_sub(rest.len())?)?;
    Some((before, pages.chunks_exact(size), beyond))
}

fn starts_frames(reader: &mut Reader<'_>) -> bool {
    reader.take("command header", 8).is_ok_and(|header| header.starts_with(&[FORMAT, FRAMES]))
}

/// The FRAMES command in a payload whose parts are its head and its pages, as [`encode_frames`] and [`split`] make
/// them. `None`: it is something else, or no command; [`Command::decode`] tells.
#[must_use]
pub fn shared_frames(payload: &Payload) -> Option<SharedFrames<'_>> {
    let mut parts = payload.shared_parts();
    let head = parts.next()?;
    let mut reader = Reader::new(head);
    let elsewhere = payload.len().checked_sub(head.len())?;
    let head = starts_frames(&mut reader).then(|| frames_head(&mut reader, elsewhere).ok())??;
    let FramesHead { filename, is_commit, page_size, numbers } = head;
    let wanted = numbers.len();
    let fitting = parts.take_while(|part| part.len() == usize::from(page_size));
    let pages: Vec<(PageNo, &Arc<[u8]>)> = numbers.into_iter().zip(fitting).collect();
    let found = pages.len() == wanted && reader.is_empty();
    found.then_some(SharedFrames { filename, is_commit, pages })
}

/// Encodes FRAMES as we write it: one whole transaction. The page images become part of the payload uncopied.
///
/// # Panics
/// When a page does not have `page_size` bytes, or the size or count has no place in the command.
#[must_use]
pub fn encode_frames(filename: &[u8], page_size: u32, pages: Vec<(PageNo, Arc<[u8]>)>) -> Payload {
    let (size, count) = (u16::try_from(page_size).unwrap_or(0), u32::try_from(pages.len()).unwrap_or(0));
    assert!(
        size.is_power_of_two() && count as usize == pages.len(),
        "{} pages of {page_size} bytes do not fit a command",
        pages.len()
    );
    let mut head = Writer::with_capacity(48 + filename.len() + 8 * pages.len());
    head.u8(FORMAT).u8(FRAMES).bytes(&[0; 6]).text(filename);
    head.u64(0).u32(0).u8(1).bytes(&[0; 3]);
    head.u32(count).u16(size).u16(0);
    let mut parts: Vec<Arc<[u8]>> = Vec::with_capacity(1 + pages.len());
    for (number, image) in &pages {
        assert!(image.len() == usize::from(size), "page {number} has {} bytes, not {size}", image.len());
        head.u64(number.0.into());
    }
    parts.push(head.into_bytes().into());
    parts.extend(pages.into_iter().map(|(_, image)| image));
    Payload::from_parts(parts)
}

#[cfg(test)]
mod tests;
