//! Snapshots between servers, as the core sees them: heads and outcomes. The data go past it, from the connection to
//! a file and from a file to a connection.

use std::sync::Arc;

use super::clients::Gone;
use super::core::Core;
use super::effect::{Effect, IncomingSnapshot};
use crate::base::{Entry, Event, Index, NodeId, Term, Time};
use crate::codec::peer::InstallSnapshot;
use crate::consensus::Offer;
use crate::engine::ConnId;
use crate::pages::{Database, Version};

/// A leader's snapshot that is being received, stored or put in place.
#[derive(Debug)]
pub(super) struct Intake {
    conn: ConnId,
    /// That of the leader.
    term: Term,
    /// The last entry that it covers.
    place: (Index, Term),
    /// So many bytes wait to be stored that no more are wanted now.
    paused: bool,
    /// All bytes have come: the connection does not matter any more.
    complete: bool,
}

/// A snapshot is to take the place of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The term of the entry that the log holds at its index, if it does.
    pub held: Option<Term>,
}

impl Core {
    /// Whether bytes of this connection would be of a snapshot for which there is no room now.
    pub(super) fn is_intake_paused(&self, conn: ConnId) -> bool {
        self.intake.as_ref().is_some_and(|intake| intake.conn == conn && intake.paused && !intake.complete)
    }

    /// The connection on which a snapshot is coming.
    pub(super) fn intake_conn(&self) -> Option<ConnId> {
        self.intake.as_ref().filter(|intake| !intake.complete).map(|intake| intake.conn)
    }

    /// The head of a snapshot came on a connection of this server; its data follow.
    pub(super) fn handle_snapshot_head(
        &mut self,
        conn: ConnId,
        (from, address): (NodeId, &str),
        head: InstallSnapshot,
        now: Time,
    ) {
        if let Some(intake) = &self.intake {
            if intake.complete || head.term < intake.term {
                log::debug!("a snapshot of node {from} passes by: another one is being put in place");
                return;
            }
            // The leader has begun anew; the old connection may never say that it is dead.
            self.break_intake_off(intake.conn);
        }
        let leads = head.term;
        let snapshot = IncomingSnapshot {
            index: head.last_index,
            term: head.last_term,
            configuration_index: head.configuration_index,
            configuration: head.configuration_bytes.clone(),
            data_bytes: head.data_bytes,
        };
        let place = (head.last_index, head.last_term);
        match self.consensus.handle_snapshot_offer(from, address, head, now) {
            Offer::Skip => {}
            Offer::Take => {
                self.intake = Some(Intake { conn, term: leads, place, paused: false, complete: false });
                self.effects.push_back(Effect::TakeSnapshot(snapshot));
            }
        }
    }

    /// Bytes of the snapshot whose head came last on this connection.
    pub(super) fn handle_snapshot_bytes(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if self.intake.as_ref().is_some_and(|intake| intake.conn == conn && !intake.complete) {
            self.effects.push_back(Effect::SnapshotBytes { bytes });
        }
    }

    /// All of its bytes have come.
    pub(super) fn handle_snapshot_end(&mut self, conn: ConnId) {
        if let Some(intake) = self.intake.as_mut().filter(|intake| intake.conn == conn) {
            intake.complete = true;
        }
    }

    /// The connection is gone.
    pub(super) fn break_intake_off(&mut self, conn: ConnId) {
        if self.intake.take_if(|intake| intake.conn == conn && !intake.complete).is_some() {
            log::warn!("the connection ended before all of a snapshot had come");
            self.consensus.handle_snapshot_broken_off();
            self.effects.push_back(Effect::DropSnapshot);
        }
    }

    /// Whether there is room for more bytes of the snapshot that is being received.
    pub fn pause_intake(&mut self, paused: bool) {
        if let Some(intake) = &mut self.intake {
            intake.paused = paused;
        }
    }

    /// The snapshot could not be stored, or is damaged. Nothing has changed by it.
    pub fn handle_intake_failed(&mut self, text: &str, now: Time) {
        if self.intake.take().is_some() && self.consensus.handle_snapshot_received() {
            self.consensus.handle_snapshot_installed(Err(text.to_owned()));
        }
        self.settle(now);
    }

    /// The snapshot is stored and sound. What to do with it; nothing if it is of no use any more.
    pub fn handle_intake_stored(&mut self, now: Time) -> Option<Placement> {
        let (index, _) = self.intake.as_ref()?.place;
        let held = self.consensus.term_at(index);
        let placed = self.consensus.handle_snapshot_received();
        if !placed {
            self.intake = None;
        }
        self.settle(now);
        placed.then_some(Placement { held })
    }

    /// The snapshot stands in the place of the log on disk, and these are its databases. Returns what nobody may
    /// need any more: it may be large, and is best dropped elsewhere.
    pub fn handle_restored(&mut self, databases: Vec<Arc<Database>>, now: Time) -> Vec<Arc<Version>> {
        let Some(intake) = self.intake.take() else { return Vec::new() };
        let (index, term) = intake.place;
        log::info!("the snapshot at {index} is in place");
        // Who reads here opens anew, if only because a database of that name may be another one now.
        self.fail_clients(&[], Gone::Databases, now);
        let old = self.databases.restore(databases);
        self.restart_from(index, term);
        self.tally.snapshots.received += 1;
        self.journal.note(now, Event::Restored, [index.0, term.0]);
        self.consensus.handle_snapshot_installed(Ok(()));
        self.settle(now);
        old
    }

    /// The snapshot could not be put in place; the log on disk ends before `next`. Without `no_space` nobody can
    /// tell what is durable.
    pub fn handle_not_restored(&mut self, next: Index, no_space: bool, text: &str, now: Time) {
        self.intake = None;
        if no_space {
            self.consensus.handle_tail_lost(next);
            self.consensus.handle_snapshot_installed(Err(text.to_owned()));
        } else {
            self.consensus.fail(&format!("a snapshot could not be put in place: {text}"));
        }
        self.settle(now);
    }

    /// The entries from `first` on that were to be read for a peer, or why there are none.
    pub fn handle_entries_read(&mut self, first: Index, result: Result<Vec<Entry>, String>, now: Time) {
        self.consensus.handle_entries_read(first, result);
        self.settle(now);
    }

    /// Whether this peer still needs the snapshot that it is sent.
    #[must_use]
    pub fn awaits_snapshot(&self, peer: NodeId) -> bool {
        self.consensus.awaits_snapshot(peer)
    }
}
