//! Bytes on their way to the client.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::Piece;

/// What waits to be written. There is one answer, or one part of one, at a time.
#[derive(Debug, Default)]
pub(super) struct Output {
    pieces: VecDeque<Piece>,
    /// Of the first piece.
    written: usize,
}

impl Output {
    /// Appends `bytes`, without a copy.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.pieces.push_back(Piece::Owned(bytes));
        }
    }

    /// Appends bytes that somebody else has too.
    pub(super) fn push_shared(&mut self, parts: Vec<Arc<[u8]>>) {
        self.pieces.extend(parts.into_iter().filter(|part| !part.is_empty()).map(Piece::Shared));
    }

    /// The next bytes to write: all that lie together.
    pub(super) fn rest(&self) -> &[u8] {
        self.pieces.front().and_then(|piece| piece.bytes().get(self.written..)).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// `len` more bytes of [`Output::rest`] were written; the memory goes with the last of each piece.
    pub(super) fn advance(&mut self, len: usize) {
        self.written = self.written.saturating_add(len);
        while let Some(front) = self.pieces.front()
            && self.written >= front.bytes().len()
        {
            self.written -= front.bytes().len();
            self.pieces.pop_front();
        }
    }
}
