//! Bytes on their way to the client.

/// What waits to be written. There is one answer, or one part of one, at a time.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    /// Appends `bytes`; the first ones are taken over without a copy.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        if self.is_empty() {
            *self = Self { bytes, written: 0 };
        } else {
            self.bytes.extend_from_slice(&bytes);
        }
    }

    /// What is not written yet.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// `len` more bytes were written; the memory goes with the last of them.
    pub(super) fn advance(&mut self, len: usize) {
        self.written = self.written.saturating_add(len);
        if self.is_empty() {
            *self = Self::default();
        }
    }
}
