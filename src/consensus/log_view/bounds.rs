//! How much of the log stays in memory, and how much of it one append may carry.

use super::{LARGE_PAYLOAD_BYTES, LogView};
use crate::base::{Payload, limits};

impl LogView {
    /// Other bounds of the cache and of appends.
    #[cfg(test)]
    pub(in crate::consensus) fn bound(&mut self, cached_bytes_max: usize, append_bytes: u64) {
        (self.cached_bytes_max, self.append_bytes) = (cached_bytes_max, Some(append_bytes));
        self.evict();
    }

    /// Bytes of payload after which an append ends.
    pub(super) fn append_bytes(&self) -> u64 {
        #[cfg(test)]
        if let Some(bytes) = self.append_bytes {
            return bytes;
        }
        limits::APPEND_BYTES
    }

    /// As if the bound of the cache were zero.
    #[cfg(test)]
    pub(in crate::consensus) fn forget_payloads(&mut self) {
        self.payloads.clear();
        self.cached_bytes = 0;
    }

    pub(super) fn evict(&mut self) {
        while self.cached_bytes > self.cached_bytes_max && self.first_cached() <= self.pinned_after {
            let Some(payload) = self.payloads.pop_front() else { return };
            self.shed(payload);
        }
    }

    /// Drops a payload, or keeps it for [`LogView::take_shed`] where that takes long: a large one's pages are
    /// looked at one by one.
    pub(super) fn shed(&mut self, payload: Payload) {
        self.cached_bytes = self.cached_bytes.saturating_sub(payload.len());
        if payload.len() > LARGE_PAYLOAD_BYTES {
            self.shed.push(payload);
        }
    }

    /// Payloads that are best dropped elsewhere.
    pub(in crate::consensus) fn take_shed(&mut self) -> Vec<Payload> {
        std::mem::take(&mut self.shed)
    }
}
