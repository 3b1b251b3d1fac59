//! Snapshots of this node's own databases: when one starts, and what follows when it is there. The files are
//! written elsewhere.

use super::core::Core;
use super::effect::{Effect, SnapshotJob};
use crate::base::{Event, Index, NodeId, Time};
use crate::consensus::SnapshotMeta;
use crate::pages::View;

impl Core {
    /// The snapshot asked for is in place, or failed.
    pub fn handle_snapshot(&mut self, result: Result<(), String>, now: Time) {
        let Some((meta, trailing)) = self.snapshot_in_flight.take() else { return };
        let (index, term) = (meta.index, meta.term);
        self.journal.note(now, Event::SnapshotEnded, [index.0, u64::from(result.is_ok())]);
        match result {
            Ok(()) => {
                let keep_from = Index(index.0.saturating_sub(trailing).saturating_add(1));
                self.consensus.compact(meta, keep_from);
                self.schedule.handle_ended(Some((index, term)), now);
                self.tally.snapshots.taken += 1;
            }
            Err(text) => {
                log::warn!("no snapshot at {index}, the log stays: {text}");
                self.schedule.handle_ended(None, now);
                self.tally.snapshots.failed += 1;
            }
        }
        self.settle(now);
    }

    /// How much of the log before the snapshot that is being written has to stay, which is now to be put in place:
    /// what a peer needs that is being sent an older one stays too.
    pub fn settle_trailing(&mut self) -> u64 {
        let Some((meta, trailing)) = &mut self.snapshot_in_flight else { return u64::MAX };
        if let Some(awaited) = self.consensus.first_awaited() {
            *trailing = (*trailing).max(meta.index.0.saturating_add(1).saturating_sub(awaited.0));
        }
        *trailing
    }

    pub(super) fn start_snapshot_if_due(&mut self) {
        let (index, term) = self.applied;
        if self.schedule.is_due(index, term, || self.databases.committed_bytes()) {
            self.start_snapshot();
        }
    }

    /// A peer needs this entry, and can get it only by way of a snapshot.
    pub(super) fn make_snapshot_covering(&mut self, covering: Index, now: Time) {
        let (index, term) = self.applied;
        if covering <= index && self.schedule.is_wanted(index, term, false, now) {
            log::info!("a peer needs a snapshot from {covering} on: one at {index} is made for it");
            self.start_snapshot();
        }
    }

    /// A snapshot that was to be sent did not arrive, as far as is known. `unreadable`: since it cannot be read here;
    /// then another one is made in its place.
    pub fn handle_snapshot_unsent(&mut self, to: NodeId, unreadable: bool, text: &str, now: Time) {
        if !unreadable {
            self.consensus.handle_snapshot_sent(to, Err(text.to_owned()));
        } else {
            self.consensus.handle_snapshot_unreadable(to, text);
            let (index, term) = self.applied;
            if self.schedule.is_wanted(index, term, true, now) {
                log::warn!("the newest snapshot cannot be read, another one at {index} is made: {text}");
                self.start_snapshot();
            }
        }
        self.settle(now);
    }

    fn start_snapshot(&mut self) {
        let (index, term) = self.applied;
        let placed = self.consensus.committed_configuration().clone();
        let databases = self
            .databases
            .iter()
            .map(|(_, state)| (state.database.name().to_vec(), state.database.pin(View::Committed)));
        let job = SnapshotJob {
            index,
            term,
            configuration: placed.configuration,
            configuration_index: placed.index,
            databases: databases.collect(),
        };
        let trailing = self.schedule.trailing(self.databases.committed_bytes());
        self.schedule.handle_started();
        let meta = SnapshotMeta {
            index,
            term,
            configuration: job.configuration.clone(),
            configuration_index: job.configuration_index,
        };
        self.snapshot_in_flight = Some((meta, trailing));
        self.effects.push_back(Effect::Snapshot { job, trailing });
    }
}
