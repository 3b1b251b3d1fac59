//! What the disk has done.

use super::{Phase, Shell};
use crate::base::Time;
use crate::runtime::disk::DiskDone;

impl Shell {
    pub(super) fn handle_disk(&mut self, done: DiskDone, now: Time) {
        self.storing.handle_done(&done);
        match done {
            DiskDone::Persisted { ticket } => self.core.handle_persisted(ticket, now),
            DiskDone::Failed { ticket, no_space, text } => {
                self.core.handle_persist_failed(ticket, no_space, &text, now);
            }
            DiskDone::Installed => {
                self.meters.snapshot_latency.record(now.since(self.snapshot_began));
                self.core.handle_snapshot(Ok(()), now);
            }
            DiskDone::NotInstalled { text } => self.core.handle_snapshot(Err(text), now),
            DiskDone::Restored => self.handle_restored(now),
            DiskDone::NotRestored { next, no_space, text } => {
                self.handle_not_restored(next, no_space, &text, now);
            }
            DiskDone::Closed { error } => {
                if let Some(error) = error {
                    log::warn!("the log could not be closed cleanly; the next start does it: {error}");
                }
                self.phase = Phase::Done;
            }
        }
    }
}
