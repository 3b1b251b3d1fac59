//! What the loop tells of itself.

use std::time::Duration;

use super::Shell;
use super::sockets::SqlPlace;
use crate::base::Time;
use crate::runtime::metrics::Report;

/// How often the main figures go to the log, if something happens at all.
const TELL: Duration = Duration::from_secs(30);

impl Shell {
    /// How the node stands.
    pub(super) fn report(&self) -> Report {
        let open = self.sockets.sql.values().filter(|place| !matches!(place, SqlPlace::Opening));
        Report {
            figures: self.core.figures(),
            sql_connections: open.count() as u64,
            snapshots_running: self.snapshots_running as u64,
            sent: self.peers.traffic().collect(),
        }
    }

    /// Tells the log the main figures now and then. No timer is set for it: a node that does nothing has nothing to
    /// tell.
    pub(super) fn tell_figures(&mut self, now: Time) {
        if now >= self.told.after(TELL) {
            self.told = now;
            if log::log_enabled!(log::Level::Debug) {
                log::debug!("{}", self.report());
            }
        }
    }
}
