//! Turns finished transactions into log entries: everything since the last proposal becomes one FRAMES entry
//! per database, repeated pages once.
//!
//! Invariant (I7): proposals of one database enter the log in the order of its versions, and its watermark moves
//! in log order, only on the very entry (index and term) that was proposed.

use std::collections::VecDeque;

use super::databases::{Databases, Slot};
use crate::base::{Index, Payload, Term, limits};
use crate::codec::command::encode_frames;

/// A group of transactions that is on its way through the log.
#[derive(Debug)]
struct InFlight {
    index: Index,
    term: Term,
    slot: Slot,
    seq: u64,
}

/// What is proposed and not yet committed.
#[derive(Debug, Default)]
pub struct Proposer {
    in_flight: VecDeque<InFlight>,
    next: usize,
}

/// A payload to propose, and what to record when the log took it.
#[derive(Debug)]
pub struct Proposal {
    /// The FRAMES command.
    pub payload: Payload,
    slot: Slot,
    seq: u64,
}

impl Proposer {
    /// The next payload to propose, if something is new and not too much is in flight. Databases take turns.
    /// Versions that need no entry are committed on the way.
    pub fn next(&mut self, databases: &mut Databases) -> Option<Proposal> {
        if self.in_flight.len() >= limits::PROPOSALS_IN_FLIGHT_MAX {
            return None;
        }
        let slots: Vec<Slot> = databases.iter().map(|(slot, _)| slot).collect();
        let count = slots.len();
        for at in 0..count {
            let at = (self.next + at) % count;
            let Some(&slot) = slots.get(at) else { continue };
            if let Some(proposal) = self.take(databases, slot) {
                self.next = at + 1;
                return Some(proposal);
            }
        }
        None
    }

    fn take(&mut self, databases: &mut Databases, slot: Slot) -> Option<Proposal> {
        let database = &databases.get(slot)?.database;
        loop {
            let group = database.take_group(
                limits::GROUP_PAGES_MAX,
                limits::GROUP_PAGES_MAX * database.page_size() as usize,
            )?;
            if !group.pages.is_empty() {
                let pages: Vec<_> =
                    group.pages.iter().map(|(number, page)| (*number, page.shared())).collect();
                let payload = encode_frames(database.name(), database.page_size(), &pages);
                return Some(Proposal { payload, slot, seq: group.last_seq });
            }
            // Nothing that another node could notice: the version stands or falls with the one before it.
            match self.in_flight.iter_mut().rev().find(|flying| flying.slot == slot) {
                Some(flying) => flying.seq = group.last_seq,
                None => database.commit_to(group.last_seq),
            }
        }
    }

    /// The log took the proposal at this place.
    pub fn handle_proposed(&mut self, proposal: &Proposal, index: Index, term: Term) {
        self.in_flight.push_back(InFlight { index, term, slot: proposal.slot, seq: proposal.seq });
    }

    /// The entry at `index` is committed. If it is the oldest in flight, its versions are committed too and the
    /// database is returned; else the entry is somebody else's and must be applied from its bytes.
    pub fn handle_committed(&mut self, databases: &Databases, index: Index, term: Term) -> Option<Slot> {
        let oldest = self.in_flight.front()?;
        if oldest.index != index || oldest.term != term {
            return None;
        }
        let (slot, seq) = (oldest.slot, oldest.seq);
        self.in_flight.pop_front();
        databases.get(slot)?.database.commit_to(seq);
        Some(slot)
    }

    /// How many proposals are on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Leadership is gone: what was in flight is the log's business now.
    pub fn clear(&mut self) {
        self.in_flight.clear();
    }
}
