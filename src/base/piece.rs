//! Runs of bytes that wait to be written to a socket.

use std::sync::Arc;

/// A run of bytes: made for one receiver, or shared with whoever else has them.
#[derive(Debug)]
pub enum Piece {
    /// Bytes of its own.
    Owned(Vec<u8>),
    /// Bytes that are not copied, such as pages.
    Shared(Arc<[u8]>),
}

impl Piece {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}
