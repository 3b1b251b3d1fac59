//! How much of the log stays in memory, and how much of it one append may carry.

use super::LogView;
use crate::base::limits;

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
            self.cached_bytes -= payload.len();
        }
    }
}
