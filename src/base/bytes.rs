//! Bounds-checked little-endian reading, and writing that pads as the formats want it.
//!
//! A [`Reader`] cannot panic, and a count that it returns never sizes an allocation beyond the bytes present.

use std::fmt;

/// Why bytes could not be decoded: which field, what was expected, what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end within `field`.
    Short {
        /// The field that did not fit.
        field: &'static str,
        /// How many bytes it takes.
        wanted: u64,
        /// How many were left.
        found: u64,
    },
    /// A number is too large.
    Range {
        /// The field.
        field: &'static str,
        /// The largest value allowed here.
        max: u64,
        /// The value found.
        found: u64,
    },
    /// A field does not hold one of the values that it may hold.
    Value {
        /// The field.
        field: &'static str,
        /// What it may hold, in words.
        expected: &'static str,
        /// The value found.
        found: u64,
    },
    /// A text does not end with a NUL byte.
    Unterminated {
        /// The field.
        field: &'static str,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { field, wanted, found } => {
                write!(f, "{field}: {wanted} bytes expected, {found} found")
            }
            Self::Range { field, max, found } => write!(f, "{field}: at most {max}, found {found}"),
            Self::Value { field, expected, found } => {
                write!(f, "{field}: {expected} expected, found {found}")
            }
            Self::Unterminated { field } => write!(f, "{field}: no NUL byte at its end"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A cursor over bytes from outside.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when fewer are left; nothing is consumed then.
    pub fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(len) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(DecodeError::Short { field, wanted: len as u64, found: self.rest.len() as u64 }),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(out)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    /// The next 16 bits.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    /// The next 32 bits.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    /// The next 64 bits.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A 64-bit count that sizes an allocation: never more than `max` nor than the bytes left can hold.
    ///
    /// # Errors
    /// [`DecodeError::Short`], or [`DecodeError::Range`] with the bound that was broken.
    pub fn count(&mut self, field: &'static str, max: u64, item_bytes: usize) -> Result<usize, DecodeError> {
        let found = self.u64(field)?;
        let fits = (self.rest.len() / item_bytes.max(1)) as u64;
        if found > max.min(fits) {
            return Err(DecodeError::Range { field, max: max.min(fits), found });
        }
        usize::try_from(found).map_err(|_| DecodeError::Range { field, max, found })
    }

    /// The bytes before the next NUL, which is consumed and not returned.
    ///
    /// # Errors
    /// [`DecodeError::Unterminated`]; nothing is consumed then.
    pub fn c_str(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or(DecodeError::Unterminated { field })?;
        let text = self.take(field, end)?;
        self.take(field, 1)?;
        Ok(text)
    }

    /// A text of the client protocol and of commands: bytes, a NUL, zeros up to a multiple of 8 counted
    /// from the text's own start. The padding's content is not looked at.
    ///
    /// # Errors
    /// [`DecodeError::Unterminated`], or [`DecodeError::Short`] when the padding is cut.
    pub fn text(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or(DecodeError::Unterminated { field })?;
        let whole = self.take(field, pad8(end.saturating_add(1)))?;
        Ok(whole.get(..end).unwrap_or_default())
    }
}

/// `len` rounded up to a multiple of 8, saturating.
#[must_use]
pub fn pad8(len: usize) -> usize {
    len.checked_next_multiple_of(8).unwrap_or(usize::MAX & !7)
}

/// Appends little-endian fields to a buffer.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer that grows from `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: Vec::with_capacity(capacity) }
    }

    /// How many bytes were written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Appends 16 bits.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends 32 bits.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends 64 bits.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends `bytes` as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self
    }

    /// Appends a text: bytes, a NUL, zeros up to a multiple of 8 counted from the text's start.
    pub fn text(&mut self, text: &[u8]) -> &mut Self {
        let end = self.buffer.len() + pad8(text.len() + 1);
        self.bytes(text);
        self.buffer.resize(end, 0);
        self
    }

    /// Appends zeros until the length is a multiple of 8.
    pub fn pad(&mut self) -> &mut Self {
        let end = pad8(self.buffer.len());
        self.buffer.resize(end, 0);
        self
    }

    /// Overwrites 8 bytes at `at`, which must have been written before.
    pub fn set_u64(&mut self, at: usize, value: u64) {
        if let Some(slot) = self.buffer.get_mut(at..at.saturating_add(8)) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// What was written.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer
    }

    /// What was written, and nothing else.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::{DecodeError, Reader, Writer};

    #[test]
    fn a_text_of_seven_bytes_takes_eight_and_one_of_eight_takes_sixteen() {
        let mut writer = Writer::new();
        writer.text(b"1234567").text(b"12345678").text(b"");
        assert_eq!(writer.len(), 32);
        let mut reader = Reader::new(writer.as_slice());
        assert_eq!(reader.text("a"), Ok(&b"1234567"[..]));
        assert_eq!(reader.text("b"), Ok(&b"12345678"[..]));
        assert_eq!(reader.text("c"), Ok(&b""[..]));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_count_never_exceeds_what_the_bytes_left_can_hold() {
        let mut writer = Writer::new();
        writer.u64(3).bytes(&[0; 16]);
        let found = Reader::new(writer.as_slice()).count("n", 100, 8);
        assert_eq!(found, Err(DecodeError::Range { field: "n", max: 2, found: 3 }));
    }

    #[test]
    fn a_cut_field_consumes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32("x"), Err(DecodeError::Short { field: "x", wanted: 4, found: 3 }));
        assert_eq!(reader.rest(), [1, 2, 3]);
    }

    #[test]
    fn a_text_without_end_or_with_cut_padding_is_refused() {
        assert_eq!(Reader::new(b"abc").text("t"), Err(DecodeError::Unterminated { field: "t" }));
        assert_eq!(
            Reader::new(b"abc\0").text("t"),
            Err(DecodeError::Short { field: "t", wanted: 8, found: 4 })
        );
    }
}
