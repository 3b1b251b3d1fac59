//! A leader whose disk hangs: it still sends heartbeats, so nobody else would be elected, and nothing it accepts
//! is ever durable here. It gives leadership up; until its disk answers it starts no election either.

use raft::StateRole;

use super::adapter::Consensus;

/// Election timeouts without any progress of the disk after which a leader gives up.
const TIMEOUTS: usize = 3;

/// How long the oldest work for the disk has been under way. In ticks that were worked off: a pause of the whole
/// process, after which answers of the disk may wait to be read, counts as little.
#[derive(Debug, Default)]
pub(super) struct Watch {
    oldest: Option<u64>,
    ticks: usize,
}

impl Watch {
    fn tick(&mut self, oldest: Option<u64>) -> usize {
        if oldest != self.oldest || oldest.is_none() {
            *self = Self { oldest, ticks: 0 };
        }
        self.ticks += 1;
        self.ticks
    }
}

impl Consensus {
    /// A tick went by.
    pub(super) fn check_disk(&mut self) {
        let ticks = self.disk_watch.tick(self.persistence.oldest_ticket());
        let Some(raw) = &self.raw else { return };
        // Alone it goes on waiting: there is nobody to give leadership to.
        let has_heirs = raw.raft.prs().conf().voters().ids().iter().any(|id| id != self.config.id.0);
        let hangs =
            self.persistence.oldest_ticket().is_some() && ticks > TIMEOUTS * self.raft_config.election_tick;
        if hangs && has_heirs && raw.raft.state == StateRole::Leader {
            log::error!(
                "the disk has not finished a write for {TIMEOUTS} election timeouts: this node gives up leadership"
            );
            let term = raw.raft.term;
            self.call("step down", |raw| raw.raft.become_follower(term, 0));
        }
    }
}
