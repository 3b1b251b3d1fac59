//! Turns finished transactions into log entries: everything since the last proposal becomes one FRAMES entry
//! per database, repeated pages once.
//!
//! Invariant (I7): proposals of one database enter the log in the order of its versions, and its watermark moves
//! in log order, only on the very entry (index and term) that was proposed.

use std::collections::{BTreeMap, VecDeque};

use super::databases::{Databases, Slot};
use crate::base::latency::{Latencies, Latency};
use crate::base::{Index, Payload, Term, Time, limits};
use crate::codec::command::encode_frames;

/// A group of transactions that is on its way through the log.
#[derive(Debug)]
struct InFlight {
    index: Index,
    term: Term,
    slot: Slot,
    seq: u64,
    transactions: u32,
    since: Time,
}

/// What is proposed and not yet committed.
#[derive(Debug, Default)]
pub struct Proposer {
    in_flight: VecDeque<InFlight>,
    /// How many of them are each database's.
    counts: BTreeMap<Slot, usize>,
    /// How long they took from here to their commit, and how many transactions that were.
    latency: Latency,
    committed: u64,
    /// Short statements follow one another.
    burst: bool,
    /// How many times each database's finished transactions waited for one more.
    waited: BTreeMap<Slot, usize>,
}

/// A payload to propose, and what to record when the log took it.
#[derive(Debug)]
pub struct Proposal {
    /// The FRAMES command.
    pub payload: Payload,
    slot: Slot,
    seq: u64,
    transactions: u32,
}

impl Proposer {
    /// The next payload to propose, if something is new. Each database may have a few in flight; what is finished
    /// meanwhile goes into its next one, and one sync carries those of all databases. Versions that need no entry
    /// are committed on the way. In a burst of short statements they wait while another writer is about to run.
    pub fn next(&mut self, databases: &mut Databases) -> Option<Proposal> {
        while let Some(slot) = databases.unproposed() {
            if self.burst && databases.get(slot).is_some_and(|state| state.queue.is_running()) {
                let waited = self.waited.entry(slot).or_default();
                if *waited < limits::BURST_TRANSACTIONS_MAX {
                    *waited += 1;
                    databases.note_proposed(slot);
                    continue;
                }
            }
            self.waited.remove(&slot);
            // Of a database that has enough in flight the next commit reminds.
            let flying = self.counts.get(&slot).copied().unwrap_or(0);
            if flying < limits::PROPOSALS_IN_FLIGHT_MAX
                && let Some(proposal) = self.take(databases, slot)
            {
                return Some(proposal);
            }
            databases.note_proposed(slot);
        }
        None
    }

    /// Short statements follow one another until [`Self::end_burst`].
    pub fn begin_burst(&mut self) {
        self.burst = true;
    }

    /// No statement follows at once: what waited for one waits no longer. Whether anything did.
    pub fn end_burst(&mut self, databases: &mut Databases) -> bool {
        self.burst = false;
        let waited = std::mem::take(&mut self.waited);
        waited.keys().for_each(|slot| databases.note_ran(*slot));
        !waited.is_empty()
    }

    fn take(&mut self, databases: &mut Databases, slot: Slot) -> Option<Proposal> {
        loop {
            let database = &databases.get(slot)?.database;
            let group = database.take_group(
                limits::GROUP_PAGES_MAX,
                limits::GROUP_PAGES_MAX * database.page_size() as usize,
            )?;
            if !group.pages.is_empty() {
                let (seq, transactions) = (group.last_seq, group.transactions);
                let pages = group.pages.into_iter().map(|(number, page)| (number, page.into_shared()));
                let payload = encode_frames(database.name(), database.page_size(), pages.collect());
                return Some(Proposal { payload, slot, seq, transactions });
            }
            // Nothing that another node could notice: the version stands or falls with the one before it.
            match self.in_flight.iter_mut().rev().find(|flying| flying.slot == slot) {
                Some(flying) => flying.seq = group.last_seq,
                None => databases.commit_to(slot, group.last_seq),
            }
        }
    }

    /// The log took the proposal at this place.
    pub fn handle_proposed(&mut self, proposal: &Proposal, index: Index, term: Term, now: Time) {
        let &Proposal { slot, seq, transactions, .. } = proposal;
        *self.counts.entry(slot).or_default() += 1;
        self.in_flight.push_back(InFlight { index, term, slot, seq, transactions, since: now });
    }

    /// The entry at `index` is committed. If it is the oldest in flight, its versions are committed too; else,
    /// told by `false`, the entry is somebody else's and must be applied from its bytes.
    pub fn handle_committed(
        &mut self,
        databases: &mut Databases,
        index: Index,
        term: Term,
        now: Time,
    ) -> bool {
        let Some(oldest) = self.in_flight.front() else { return false };
        if oldest.index != index || oldest.term != term {
            return false;
        }
        let (slot, seq) = (oldest.slot, oldest.seq);
        self.latency.record(now.since(oldest.since));
        self.committed = self.committed.saturating_add(u64::from(oldest.transactions));
        self.in_flight.pop_front();
        if let Some(count) = self.counts.get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&slot);
            }
        }
        databases.commit_to(slot, seq);
        databases.note_ran(slot);
        true
    }

    /// How many proposals are on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How many transactions were committed, and how long their entries took from the proposal to the commit.
    #[must_use]
    pub fn committed(&self) -> (u64, Latencies) {
        (self.committed, self.latency.read())
    }

    /// Leadership is gone: what was in flight is the log's business now.
    pub fn clear(&mut self) {
        self.in_flight.clear();
        self.counts.clear();
        self.waited.clear();
    }
}
