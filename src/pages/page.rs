//! One immutable page image.

use std::fmt;
use std::sync::Arc;

use crate::base::pool;

/// An immutable page image that versions, log entries and SQLite's readers share.
#[derive(Clone)]
pub struct Page(Arc<[u8]>);

impl Page {
    /// A page that owns a copy of `bytes`.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Self {
        Self(pool::copy_of(bytes))
    }

    /// A page of `size` zero bytes.
    #[must_use]
    pub fn zeroed(size: u32) -> Self {
        Self(std::iter::repeat_n(0, size as usize).collect())
    }

    /// The image.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The image as a shared buffer, not copied.
    #[must_use]
    pub fn shared(&self) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }

    /// The image, which stays with whoever asks, not copied.
    #[must_use]
    pub fn into_shared(mut self) -> Arc<[u8]> {
        std::mem::take(&mut self.0)
    }

    /// Whether both are the very same buffer.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        pool::give_back(&mut self.0);
    }
}

impl From<Arc<[u8]>> for Page {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self(bytes)
    }
}

impl PartialEq for Page {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.0 == other.0
    }
}

impl Eq for Page {}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({} bytes)", self.0.len())
    }
}
