//! One LZ4 frame with the parameters that every reader of the C library accepts: linked blocks of 64 KiB,
//! content size, content checksum (FLG `4C`, BD `40`). Any frame with a content size is read.
//!
//! Streams in both directions: memory is a few blocks, whatever a header claims.

use std::io::{self, Cursor, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, Error as FrameError, FrameDecoder, FrameEncoder, FrameInfo};

/// What a frame begins with. A snapshot that does not is not compressed.
pub const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// Magic, two bytes of flags, content size.
const HEAD_BYTES: u64 = 14;
const CONTENT_SIZE_FLAG: u8 = 8;
const CHUNK_BYTES: usize = 64 << 10;

/// Writes the `content_size` bytes of `reader` as one frame.
///
/// # Errors
/// Those of reader and writer, and when the reader does not give exactly `content_size` bytes.
pub fn compress(mut reader: impl Read, content_size: u64, writer: impl Write) -> io::Result<()> {
    let info = FrameInfo::new()
        .block_mode(BlockMode::Linked)
        .block_size(BlockSize::Max64KB)
        .content_checksum(true)
        .content_size(Some(content_size));
    let mut encoder = FrameEncoder::with_frame_info(info, writer);
    let copied = copy(&mut reader, &mut encoder)?;
    if copied != content_size {
        let text = format!("{content_size} bytes to compress expected, {copied} found");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    encoder.finish()?.flush()
}

/// Writes the content of the frame in `reader`; what follows the frame is left alone.
///
/// # Errors
/// Those of reader and writer, and when the frame is damaged or cut: C's text first.
pub fn decompress(reader: impl Read, mut writer: impl Write) -> io::Result<()> {
    copy(&mut FrameReader::open(reader)?, &mut writer).map(drop)
}

/// [`io::copy`] with a chunk of the frame's block size.
fn copy(reader: &mut impl Read, writer: &mut impl Write) -> io::Result<u64> {
    let (mut chunk, mut total) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let len = reader.read(&mut chunk)?;
        let Some(read) = chunk.get(..len).filter(|read| !read.is_empty()) else { return Ok(total) };
        writer.write_all(read)?;
        total += len as u64;
    }
}

/// Gives the content of a frame. Its end is reached only when size and checksum are right.
pub struct FrameReader<R: Read> {
    decoder: FrameDecoder<Tail<io::Chain<Cursor<Vec<u8>>, R>>>,
    content_size: u64,
    given: u64,
    ended: bool,
}

impl<R: Read> FrameReader<R> {
    /// Reads the header of the frame.
    ///
    /// # Errors
    /// When this is no frame, or one without content size, which C does not read either.
    pub fn open(mut reader: R) -> io::Result<Self> {
        let mut head = Vec::new();
        reader.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
        if !head.starts_with(&MAGIC) {
            let text = "LZ4F_getFrameInfo ERROR_frameType_unknown: 04224d18 expected as first bytes";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let Some((head_size, flags)) = head.get(6..14).zip(head.get(4)) else {
            let text = format!("LZ4F_getFrameInfo ERROR_frameHeader_incomplete: {} bytes found", head.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        };
        if flags & CONTENT_SIZE_FLAG == 0 {
            let text = "LZ4 frame: a content size expected, none found";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut size = [0; 8];
        size.copy_from_slice(head_size);
        let whole = Cursor::new(head).chain(reader);
        Ok(Self {
            decoder: FrameDecoder::new(Tail { inner: whole, last: [0; 8], at_end: false }),
            content_size: u64::from_le_bytes(size),
            given: 0,
            ended: false,
        })
    }

    /// How many bytes the header promises.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        self.content_size
    }

    fn cut(&self) -> io::Error {
        let text = format!(
            "short read: 0 bytes instead of {}: the LZ4 frame ends after {} bytes of its content",
            self.content_size, self.given
        );
        io::Error::new(io::ErrorKind::UnexpectedEof, text)
    }

    fn explain(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return self.cut();
        }
        let Some(frame) = error.get_ref().and_then(|inner| inner.downcast_ref::<FrameError>()) else {
            return error;
        };
        let name = match frame {
            FrameError::WrongMagicNumber | FrameError::SkippableFrame(_) => {
                "LZ4F_getFrameInfo ERROR_frameType_unknown"
            }
            FrameError::HeaderChecksumError => "LZ4F_getFrameInfo ERROR_headerChecksum_invalid",
            FrameError::UnsupportedBlocksize(_) => "LZ4F_getFrameInfo ERROR_maxBlockSize_invalid",
            FrameError::UnsupportedVersion(_) => "LZ4F_getFrameInfo ERROR_headerVersion_wrong",
            FrameError::ReservedBitsSet => "LZ4F_getFrameInfo ERROR_reservedFlag_set",
            FrameError::BlockTooBig | FrameError::InvalidBlockInfo => {
                "LZ4F_decompress ERROR_maxBlockSize_invalid"
            }
            FrameError::BlockChecksumError => "LZ4F_decompress ERROR_blockChecksum_invalid",
            FrameError::ContentChecksumError => "LZ4F_decompress ERROR_contentChecksum_invalid",
            FrameError::ContentLengthError { .. } => "LZ4F_decompress ERROR_frameSize_wrong",
            _ => "LZ4F_decompress ERROR_decompressionFailed",
        };
        let text = format!("{name}: after {} of {} bytes of content", self.given, self.content_size);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.ended || buf.is_empty() {
            return Ok(0);
        }
        let len = self.decoder.read(buf).map_err(|error| self.explain(error))?;
        self.given = self.given.saturating_add(len as u64);
        if len == 0 {
            // The decoder takes an end of file between blocks, and a block of no bytes, for the end.
            let tail = self.decoder.get_ref();
            if tail.at_end || !tail.last.starts_with(&[0; 4]) || self.given != self.content_size {
                return Err(self.cut());
            }
            self.ended = true;
        }
        Ok(len)
    }
}

/// Remembers the last bytes read (end mark and checksum, after a whole frame), and whether the file ended.
struct Tail<R> {
    inner: R,
    last: [u8; 8],
    at_end: bool,
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.at_end |= len == 0 && !buf.is_empty();
        for &byte in buf.get(len.saturating_sub(8)..len).unwrap_or_default() {
            self.last.rotate_left(1);
            if let Some(newest) = self.last.last_mut() {
                *newest = byte;
            }
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAGIC, compress, decompress};
    use crate::base::Prng;

    /// Blocks that compress, blocks that do not, and more than one window of history.
    fn content(len: usize) -> Vec<u8> {
        let mut prng = Prng::new(7);
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let word = prng.next_u64();
            let repeat = if word.is_multiple_of(3) { 4000 } else { 3 };
            (0..repeat).for_each(|_| bytes.extend_from_slice(&word.to_le_bytes()));
        }
        bytes.truncate(len);
        bytes
    }

    fn frame(content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress(content, content.len() as u64, &mut out).unwrap();
        out
    }

    fn unframe(frame: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        decompress(frame, &mut out).map_err(|error| error.to_string())?;
        Ok(out)
    }

    #[test]
    fn the_header_is_that_of_c_and_the_content_comes_back() {
        for len in [0, 1, 13, 65_536, 65_537, 500_000] {
            let content = content(len);
            let frame = frame(&content);
            assert_eq!(frame[..4], MAGIC);
            assert_eq!(frame[4..6], [0x4c, 0x40]);
            assert_eq!(frame[6..14], (len as u64).to_le_bytes());
            assert_eq!(unframe(&frame).unwrap(), content);
        }
    }

    #[test]
    fn a_cut_frame_never_ends_well() {
        let frame = frame(&content(140_000));
        for len in (0..frame.len()).step_by(97).chain(frame.len() - 9..frame.len()) {
            let error = unframe(&frame[..len]).expect_err("a cut frame was read");
            let wanted =
                if len < 14 { "LZ4F_getFrameInfo ERROR_" } else { "short read: 0 bytes instead of 140000" };
            assert!(error.starts_with(wanted), "{len}: {error}");
        }
    }

    #[test]
    fn no_flipped_bit_gets_other_content_through() {
        let content = content(70_000);
        let frame = frame(&content);
        let mut prng = Prng::new(21);
        for round in 0..3_000 {
            let mut damaged = frame.clone();
            let at = match round {
                0..400 => round % 20,
                400..800 => frame.len() - 1 - round % 20,
                _ => usize::try_from(prng.below(frame.len() as u64)).unwrap(),
            };
            damaged[at] ^= 1 << prng.below(8);
            match unframe(&damaged) {
                Ok(found) => assert!(found == content, "bit of byte {at}: other content"),
                Err(text) => assert!(!text.is_empty()),
            }
        }
    }

    #[test]
    fn a_reader_of_another_length_is_refused() {
        let error = compress(&[0; 10][..], 11, Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "11 bytes to compress expected, 10 found");
    }
}
