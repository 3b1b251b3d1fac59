//! When followers hear what is committed: with the next entries or the next heartbeat, or a moment later at the
//! latest, if neither comes.
//!
//! raft-rs would tell each of them at once, in a message of its own that each of them answers: of the messages
//! that a lone writer's commit costs these were every second one, and nobody waits for them. While the
//! configuration changes or leadership moves they are told at once.

use raft::ProgressState;

use super::adapter::Consensus;
use crate::base::{Index, NodeId};

impl Consensus {
    /// Whether raft-rs leaves it to [`Self::tell_commit`] and to other messages.
    pub(super) fn tells_commit_later(&self) -> bool {
        !self.membership.is_pending() && self.transfer.is_none()
    }

    /// Tells followers what was committed before the last tick and no message since has said.
    pub(super) fn tell_commit(&mut self) {
        let (Some(raw), Some(leadership)) = (&self.raw, &mut self.leadership) else { return };
        let before = std::mem::replace(&mut leadership.committed_at_tick, Index(raw.raft.raft_log.committed));
        if raw.raft.heartbeat_elapsed() == 0 {
            // A heartbeat is on its way.
            return;
        }
        let told = |id: u64| leadership.known_peer(NodeId(id)).map_or(Index(0), |peer| peer.told_commit);
        let peers = raw.raft.prs().iter().filter(|(id, _)| **id != self.config.id.0);
        let replicating = peers.filter(|(_, progress)| progress.state == ProgressState::Replicate);
        // What it is not known to have it could not take for committed.
        let untold = replicating.filter(|(id, progress)| told(**id) < before.min(Index(progress.matched)));
        let mut untold: Vec<u64> = untold.map(|(id, _)| *id).collect();
        if untold.is_empty() {
            return;
        }
        // raft-rs keeps its peers in a hash map.
        untold.sort_unstable();
        self.call("tell commit", |raw| untold.into_iter().for_each(|id| raw.raft.send_append(id)));
    }
}
