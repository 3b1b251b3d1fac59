//! Messages on the wire: an 8-byte header, then whole words. The reader takes bytes as they come.

use std::fmt;

use crate::base::Writer;

/// Bytes of a message header.
pub const HEADER_BYTES: usize = 8;

/// Capacity above which an emptied buffer gives its memory back.
const KEPT_CAPACITY: usize = 64 << 10;

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the body in 8-byte words.
    pub words: u32,
    /// What the message is: a request or a response code.
    pub kind: u8,
    /// Revision of the body's layout.
    pub schema: u8,
    /// Sent as 0, ignored on receipt.
    pub extra: u16,
}

impl Header {
    /// The header in these bytes; every value is a header.
    #[must_use]
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Self {
        let [a, b, c, d, kind, schema, e, f] = bytes;
        let (words, extra) = (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]));
        Self { words, kind, schema, extra }
    }

    /// The bytes of this header.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let ([a, b, c, d], [e, f]) = (self.words.to_le_bytes(), self.extra.to_le_bytes());
        [a, b, c, d, self.kind, self.schema, e, f]
    }

    /// Length of the body in bytes.
    #[must_use]
    pub fn body_bytes(self) -> u64 {
        u64::from(self.words) * 8
    }
}

/// The two layouts of parameter tuples and of the prepare request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Tuples count with 8 bits; prepare takes one statement.
    V0,
    /// Tuples count with 32 bits; prepare answers where the next statement begins.
    V1,
}

impl Schema {
    /// The schema with this number, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::V0),
            1 => Some(Self::V1),
            _ => None,
        }
    }

    /// The number of this schema in a header.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }

    /// This schema, or the wide one if this one cannot count so many parameters.
    pub(super) fn wide_enough(self, param_count: usize) -> Self {
        if param_count > usize::from(u8::MAX) { Self::V1 } else { self }
    }
}

/// A writer that has left room for the header which [`finish`] fills in.
#[must_use]
pub(super) fn begin() -> Writer {
    let mut out = Writer::with_capacity(64);
    out.u64(0);
    out
}

/// Completes a message begun with [`begin`]: pads the body to whole words and writes the header.
/// `None` when the body is longer than a header can say (32 GiB).
#[must_use]
pub(super) fn finish(mut out: Writer, kind: u8, schema: u8) -> Option<Vec<u8>> {
    out.pad();
    let words = u32::try_from(out.len().saturating_sub(HEADER_BYTES) / 8).ok()?;
    out.set_u64(0, u64::from_le_bytes(Header { words, kind, schema, extra: 0 }.encode()));
    Some(out.into_bytes())
}

/// One complete message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Exactly the bytes that the header announces.
    pub body: &'a [u8],
}

/// Why a stream of messages cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A message without body, which no client sends; C stops reading there for ever.
    Empty,
    /// A message longer than we read.
    TooLong {
        /// Bytes announced.
        found: u64,
        /// Bytes allowed.
        max: u64,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "message body: at least 1 word expected, found 0"),
            Self::TooLong { found, max } => write!(f, "message body: at most {max} bytes, found {found}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Cuts a byte stream into messages.
///
/// The buffer grows with the bytes that arrive, never by an announced length. How the stream is cut into
/// calls of [`FrameReader::feed`] makes no difference to what comes out.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Where the unread bytes begin in `buffer`.
    start: usize,
    /// Bytes fed since the beginning.
    fed: u64,
    body_bytes_max: u64,
}

impl FrameReader {
    /// A reader that refuses bodies of more than `body_bytes_max` bytes.
    #[must_use]
    pub fn new(body_bytes_max: u64) -> Self {
        Self { buffer: Vec::new(), start: 0, fed: 0, body_bytes_max }
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        // Moving the rest to the front only when it is the smaller half keeps the total cost linear.
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
                self.buffer = Vec::new();
            }
        }
        self.buffer.extend_from_slice(bytes);
        self.fed = self.fed.saturating_add(bytes.len() as u64);
    }

    /// How many bytes wait to be read.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// How many bytes were fed since the beginning.
    #[must_use]
    pub fn fed(&self) -> u64 {
        self.fed
    }

    /// The protocol word at the start of the stream, once it has arrived.
    pub fn next_word(&mut self) -> Option<u64> {
        let word = *self.unread().first_chunk()?;
        self.start += word.len();
        Some(u64::from_le_bytes(word))
    }

    /// The next message, once all of it has arrived.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the header is there; the same again at each later call.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let Some((header, end)) = self.complete()? else { return Ok(None) };
        let body = self.start + HEADER_BYTES..self.start + end;
        self.start = body.end;
        Ok(Some(Frame { header, body: self.buffer.get(body).unwrap_or_default() }))
    }

    /// The header of the next message if all of it has arrived, and how many bytes had been fed when its
    /// last byte came. Consumes nothing.
    #[must_use]
    pub fn peek(&self) -> Option<(Header, u64)> {
        let (header, end) = self.complete().ok()??;
        let behind = self.waiting().saturating_sub(end) as u64;
        Some((header, self.fed.saturating_sub(behind)))
    }

    /// Ends the reader and hands out what was not read.
    #[must_use]
    pub fn into_rest(mut self) -> Vec<u8> {
        self.buffer.drain(..self.start);
        self.buffer
    }

    /// Header and length of the next message, header included, if it has arrived in whole.
    fn complete(&self) -> Result<Option<(Header, usize)>, FrameError> {
        let Some(&head) = self.unread().first_chunk() else { return Ok(None) };
        let header = Header::decode(head);
        let found = header.body_bytes();
        if found == 0 {
            return Err(FrameError::Empty);
        }
        if found > self.body_bytes_max {
            return Err(FrameError::TooLong { found, max: self.body_bytes_max });
        }
        let end = usize::try_from(found).unwrap_or(usize::MAX).saturating_add(HEADER_BYTES);
        Ok((self.waiting() >= end).then_some((header, end)))
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, FrameError, FrameReader, Header};

    const LEADER: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_message_comes_out_when_its_last_byte_is_there_and_not_before() {
        let mut reader = FrameReader::new(1024);
        for byte in LEADER {
            assert_eq!(reader.next_frame(), Ok(None));
            reader.feed(&[byte]);
        }
        let header = Header { words: 1, kind: 0, schema: 0, extra: 0 };
        assert_eq!(reader.peek(), Some((header, 16)));
        assert_eq!(reader.next_frame(), Ok(Some(Frame { header, body: &[0; 8] })));
        assert_eq!(reader.next_frame(), Ok(None));
    }

    #[test]
    fn an_empty_and_a_too_long_message_are_refused_by_the_header_alone() {
        let mut reader = FrameReader::new(1024);
        reader.feed(&[0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reader.next_frame(), Err(FrameError::Empty));
        for (words, found) in [(129, 1032), (0x1fff_ffff, 0xffff_fff8), (u32::MAX, 0x7_ffff_fff8)] {
            let mut reader = FrameReader::new(1024);
            reader.feed(&Header { words, kind: 0, schema: 0, extra: 0 }.encode());
            assert_eq!(reader.next_frame(), Err(FrameError::TooLong { found, max: 1024 }));
        }
    }

    #[test]
    fn memory_follows_the_bytes_that_came_not_the_announced_length() {
        let mut reader = FrameReader::new(1 << 30);
        reader.feed(&Header { words: 1 << 27, kind: 0, schema: 0, extra: 0 }.encode());
        reader.feed(&[0; 100]);
        assert_eq!(reader.next_frame(), Ok(None));
        assert!(reader.buffer.capacity() < 1024, "{} bytes reserved", reader.buffer.capacity());
    }

    #[test]
    fn what_was_read_does_not_pile_up_and_a_large_buffer_is_given_back() {
        let mut reader = FrameReader::new(1 << 30);
        for _ in 0..10_000 {
            reader.feed(&LEADER);
            assert!(reader.next_frame().unwrap().is_some());
        }
        assert!(reader.buffer.capacity() < 1024);
        let mut large = Header { words: 1 << 16, kind: 0, schema: 0, extra: 0 }.encode().to_vec();
        large.resize(8 + (8 << 16), 0);
        reader.feed(&large);
        assert!(reader.next_frame().unwrap().is_some());
        reader.feed(&LEADER);
        assert!(reader.buffer.capacity() < 1024);
    }

    #[test]
    fn the_rest_behind_a_message_is_handed_out_untouched() {
        let mut reader = FrameReader::new(1024);
        reader.feed(&[LEADER.as_slice(), &[1, 2, 3]].concat());
        assert!(reader.next_frame().unwrap().is_some());
        assert_eq!(reader.into_rest(), [1, 2, 3]);
    }
}
