//! From raft-rs's Ready to effects, and back when the disk has answered.
//!
//! The order per Ready: a leader's messages, the work for the disk, committed entries. What depends on
//! persistence waits in [`Outstanding`]. Two rules go beyond raft-rs's own:
//! - a leader's messages wait too while its term and vote are not durable. Only a voter that won without
//!   asking anybody can be in this state; if it crashed it would lead the same term again, with other entries;
//! - a Ready without work for the disk counts as persisted only after those before it.

use std::collections::VecDeque;

use raft::StateRole;
use raft::eraftpb::{Entry as RaftEntry, Message};

use super::Effect;
use super::adapter::{Consensus, Standing};
use super::log_view::Appended;
use super::membership::Placed;
use super::outbound::Outgoing;
use super::planted::Planted;
use crate::base::{Entry, EntryKind, Index, NodeId, Term};
use crate::codec::membership::Configuration;

/// A Ready whose work for the disk, or that of one before it, is not done.
#[derive(Debug, Default)]
struct Outstanding {
    /// The work for the disk; `None` when there is none.
    ticket: Option<u64>,
    /// raft-rs's number of the Ready; 0 when it knows nothing of this work.
    number: u64,
    /// Leave when the work is done.
    messages: Vec<Outgoing>,
    /// Configurations that a follower takes over when the work is done.
    changes: Vec<(Term, Placed)>,
    /// The first index that is written or cut off.
    first: Option<Index>,
    /// The last entry that is written.
    last: Option<Index>,
    stores_metadata: bool,
    /// The snapshot in place of the log, which is durable already.
    installed: Option<Index>,
}

/// What the disk was asked to do and has not answered.
#[derive(Debug)]
pub(super) struct Persistence {
    tickets: u64,
    outstanding: VecDeque<Outstanding>,
    /// Term and vote that are stored, or will be once all tickets are done. `None`: not known, after a failure.
    metadata: Option<(Term, NodeId)>,
    /// The log on disk may hold lost entries from this index on, or half of what was to be cut off.
    pub(super) lost_from: Option<Index>,
    /// The last entry of work that is done, of which raft-rs is not told: it is about to be cut off.
    withheld: Option<Index>,
}

impl Persistence {
    pub(super) fn new(metadata: (Term, NodeId)) -> Self {
        Self {
            tickets: 0,
            outstanding: VecDeque::new(),
            metadata: Some(metadata),
            lost_from: None,
            withheld: None,
        }
    }

    /// Whether nothing waits for the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// The first ticket that is not done.
    pub(super) fn oldest_ticket(&self) -> Option<u64> {
        self.outstanding.iter().find_map(|work| work.ticket)
    }

    /// The ticket that was given out last.
    pub(super) fn last_ticket(&self) -> u64 {
        self.tickets
    }

    /// Whether `ticket` was given out and is not done.
    pub(super) fn awaits(&self, ticket: u64) -> bool {
        self.outstanding.iter().any(|work| work.ticket == Some(ticket))
    }

    /// The term that is stored, if it is the last that was to be stored.
    pub(super) fn durable_term(&self) -> Option<Term> {
        self.metadata.filter(|_| !self.stores_metadata()).map(|(term, _)| term)
    }

    /// Whether a leader's messages have to wait: its term is not durable, or others wait that came before them.
    fn holds_back(&self) -> bool {
        self.stores_metadata() || self.outstanding.iter().any(|work| !work.messages.is_empty())
    }

    /// Whether what is not done yet begins at or before the entry `last`, or the last one that was written and withheld:
    /// raft-rs, told of any work, takes all before it for done as well.
    fn cuts_off(&mut self, last: Option<Index>) -> bool {
        let last = last.or(self.withheld);
        let firsts = self.outstanding.iter().filter_map(|work| work.first);
        let cut_off = last.is_some_and(|last| firsts.min().is_some_and(|first| first <= last));
        self.withheld = last.filter(|_| cut_off);
        cut_off
    }

    fn stores_metadata(&self) -> bool {
        self.outstanding.iter().any(|work| work.stores_metadata)
    }

    /// Forgets all work: it failed. Returns the lowest index that it would have written or cut off.
    pub(super) fn abandon(&mut self) -> Option<Index> {
        let first = self.outstanding.iter().filter_map(|work| work.first).min();
        if self.stores_metadata() {
            self.metadata = None;
        }
        self.outstanding.clear();
        self.withheld = None;
        first
    }

    fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }
}

/// What a Ready brings, with payloads.
struct Taken {
    number: u64,
    leads: bool,
    vote: (Term, NodeId),
    messages: Vec<Message>,
    /// The index of a snapshot that takes the place of the log.
    installed: Option<Index>,
    appended: Appended,
    committed: Vec<Entry>,
}

impl Consensus {
    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        loop {
            if let Some(effect) = self.effects.pop_front() {
                return Some(effect);
            }
            if !self.touched {
                // A node asks after each request of a client, most of which change nothing here but who waits to read.
                self.begin_round();
                if self.effects.is_empty() && !self.touched {
                    return None;
                }
                continue;
            }
            self.announce();
            if self.effects.is_empty() && !self.take_ready() {
                self.begin_round();
                self.read_wanted();
                if self.effects.is_empty() {
                    // How this server stands depends on a shortage too, which may end unseen by raft-rs.
                    self.touched = self.shortage.is_some();
                    return None;
                }
            }
        }
    }

    /// Says when the role changed.
    fn announce(&mut self) {
        let standing = self.standing();
        if standing == self.announced || self.raw.is_none() {
            return;
        }
        let before = std::mem::replace(&mut self.announced, standing);
        match (before, standing) {
            // Leading again without an announced end: what was proposed before may be lost all the same.
            (Standing::Leader(_), Standing::Leader(term)) => {
                self.effects.push_back(Effect::BecameFollower { term, leader: None });
                self.effects.push_back(Effect::BecameLeader { term });
            }
            (_, Standing::Leader(term)) => self.effects.push_back(Effect::BecameLeader { term }),
            (_, Standing::Follower(term, leader)) => {
                self.effects.push_back(Effect::BecameFollower { term, leader });
            }
        }
        if matches!(before, Standing::Leader(_)) && !matches!(standing, Standing::Leader(_)) {
            self.handle_leadership_lost();
        }
        self.check_transfer();
    }

    /// Turns one Ready into effects. Returns whether there was one.
    fn take_ready(&mut self) -> bool {
        let taken = self.call("ready", |raw| {
            if !raw.has_ready() {
                return None;
            }
            let mut ready = raw.ready();
            let installed =
                (!ready.snapshot().is_empty()).then(|| Index(ready.snapshot().get_metadata().index));
            if installed.is_some() {
                raw.mut_store().start_over();
            }
            let entries = ready.take_entries();
            let appended = raw.mut_store().append(&entries);
            let mut messages = ready.take_messages();
            messages.append(&mut ready.take_persisted_messages());
            let committed = ready.take_committed_entries();
            let number = ready.number();
            raw.advance_append_async(ready);
            let committed = committed.iter().map(|entry| cached(raw.store(), entry)).collect();
            let raft = &raw.raft;
            let leads = raft.state == StateRole::Leader;
            let vote = (Term(raft.term), NodeId(raft.vote));
            Some(Taken { number, leads, vote, messages, installed, appended, committed })
        });
        let Some(Some(mut taken)) = taken else { return false };
        // raft-rs keeps its peers in a hash map; the order per peer stays.
        taken.messages.sort_by_key(|message| message.to);
        self.take_effects(taken);
        true
    }

    fn take_effects(&mut self, taken: Taken) {
        let messages = self.translate(taken.messages);
        let Appended { truncated_from, mut entries } = taken.appended;
        if let Some(from) = truncated_from
            && self.membership.handle_truncated(from)
        {
            self.tell_members();
        }
        if let (Some(written), Some(first)) = (self.bootstrap_entry, entries.first())
            && (first.index, first.term) == written
        {
            // It is in the log already.
            self.bootstrap_entry = None;
            entries.remove(0);
        }
        let metadata = (self.persistence.metadata != Some(taken.vote)).then_some(taken.vote);
        // A vote that is not known to be stored is stored again before anything leaves, not at once.
        let unknown = self.persistence.metadata.is_none();
        let metadata = metadata.filter(|_| !unknown || !messages.is_empty() || !entries.is_empty());
        let changes = match taken.leads {
            true => Vec::new(),
            false => entries.iter().filter_map(|entry| self.decode_change(entry)).collect(),
        };
        let mut work = Outstanding {
            number: taken.number,
            changes,
            installed: taken.installed,
            first: truncated_from.or(entries.first().map(|entry| entry.index)),
            last: entries.last().map(|entry| entry.index),
            stores_metadata: metadata.is_some(),
            ..Outstanding::default()
        };
        let at_once = taken.leads && metadata.is_none() && !self.persistence.holds_back();
        if at_once || self.errs(Planted::EarlyVotes) {
            self.send(messages);
        } else {
            work.messages = messages;
        }
        if metadata.is_some() || !entries.is_empty() || truncated_from.is_some() {
            let lost_from = self.persistence.lost_from.take();
            let truncate_from = truncated_from.into_iter().chain(lost_from).min();
            self.persist(work, truncate_from, entries, metadata);
        } else if self.persistence.is_idle() {
            self.complete(work);
        } else {
            self.persistence.outstanding.push_back(work);
        }
        self.hand_out(taken.committed);
    }

    fn persist(
        &mut self,
        mut work: Outstanding,
        truncate_from: Option<Index>,
        entries: Vec<Entry>,
        metadata: Option<(Term, NodeId)>,
    ) {
        let ticket = self.persistence.next_ticket();
        work.ticket = Some(ticket);
        work.first = work.first.into_iter().chain(truncate_from).min();
        self.persistence.metadata = metadata.or(self.persistence.metadata);
        self.persistence.outstanding.push_back(work);
        self.effects.push_back(Effect::Persist { ticket, truncate_from, entries, metadata });
    }

    /// Has a term and vote stored that raft-rs was started with.
    pub(super) fn persist_metadata(&mut self, term: Term, voted_for: NodeId) {
        let work = Outstanding { stores_metadata: true, ..Outstanding::default() };
        self.persist(work, None, Vec::new(), Some((term, voted_for)));
    }

    fn hand_out(&mut self, committed: Vec<Entry>) {
        let Some(last) = committed.last() else { return };
        self.handed_out = last.index;
        for entry in &committed {
            if let Some((_, placed)) = self.decode_change(entry) {
                self.membership.handle_applying(placed);
            }
        }
        self.effects.push_back(Effect::Apply { entries: committed });
    }

    /// All work up to `ticket` is durable.
    pub fn handle_persisted(&mut self, ticket: u64) {
        if !self.persistence.awaits(ticket) {
            return;
        }
        while let Some(work) = self.persistence.outstanding.pop_front() {
            let reached = work.ticket == Some(ticket);
            self.complete(work);
            if reached {
                break;
            }
        }
        // What follows and needs nothing of the disk is done as well.
        while self.persistence.outstanding.front().is_some_and(|work| work.ticket.is_none()) {
            if let Some(work) = self.persistence.outstanding.pop_front() {
                self.complete(work);
            }
        }
        self.handle_room(ticket);
        self.pin_payloads();
        self.check_promotion();
    }

    fn complete(&mut self, work: Outstanding) {
        let mut changed = false;
        for (term, placed) in work.changes {
            // A later Ready may have cut it off again.
            if self.term_at(placed.index) == Some(term) && !self.errs(Planted::LateConfiguration) {
                self.membership.handle_stored(placed);
                changed = true;
            }
        }
        if changed {
            self.tell_members();
        }
        self.send(work.messages);
        // What was asked for later may cut these entries off again, and bring others with the same name as the last one:
        // raft-rs, which compares that one alone, would take those for durable. Their own end speaks for both.
        let cut_off = self.persistence.cuts_off(work.last);
        self.call("persisted", |raw| {
            if !cut_off {
                raw.on_persist_ready(work.number);
            }
            if let Some(index) = work.installed {
                raw.advance_apply_to(index.0);
            }
        });
    }

    /// The configuration in an entry that holds one. What cannot be decoded ends this server's part.
    fn decode_change(&mut self, entry: &Entry) -> Option<(Term, Placed)> {
        if entry.kind != EntryKind::Change {
            return None;
        }
        match Configuration::decode(&entry.payload.contiguous()) {
            Ok(configuration) => Some((entry.term, Placed { configuration, index: entry.index })),
            Err(error) => {
                self.fail(&format!("configuration in log entry {}: {error}", entry.index));
                None
            }
        }
    }
}

fn cached(log: &super::log_view::LogView, entry: &RaftEntry) -> Entry {
    match log.entry(Index(entry.index)) {
        Some(found) => found,
        None => panic!("committed entry {}: its payload is not in memory", entry.index),
    }
}
