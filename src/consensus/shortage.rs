//! What happens when work for the disk failed. The rules stand in the module's description.

use raft::RawNode;
use raft::eraftpb::HardState;

use super::Effect;
use super::adapter::{Consensus, Standing};
use super::membership::Refusal;
use crate::base::{Index, Time, limits};

/// There was no room on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    /// Whether this server leads on for readers, and if so whether it had applied an entry of its term.
    leads: Option<bool>,
    /// When to try again.
    retry_at: Time,
    /// The ticket whose success ends the shortage.
    probe: Option<u64>,
}

impl Shortage {
    pub(super) fn leads(&self) -> bool {
        self.leads.is_some()
    }
}

impl Consensus {
    /// The work of `ticket`, and all after it, was not done. `no_space`: for want of room, and nothing of it
    /// is durable but perhaps its term and vote, or its truncation. Otherwise nobody can tell what is durable, and
    /// this server stops.
    pub fn handle_persist_failed(&mut self, ticket: u64, no_space: bool) {
        if !self.persistence.awaits(ticket) {
            return;
        }
        if !no_space {
            self.fail("the log could not be written");
            return;
        }
        let standing = self.standing();
        let led = matches!(standing, Standing::Leader(_)).then(|| self.has_applied_own_term());
        // Asked before the configuration may roll back: a voter of a lost configuration could be elected.
        let leads = led.filter(|_| self.is_only_voter());
        let known = self.shortage.is_some_and(|shortage| shortage.leads());
        let first = self.persistence.abandon();
        let end = self.last_index().next();
        let Some(lost_from) = self.restart_on_log_before(first.unwrap_or(end)) else { return };
        let retry_at = self.now.after(limits::DISK_SPACE_RETRY);
        self.shortage = Some(Shortage { leads, retry_at, probe: None });
        if leads.is_some() {
            self.announced = if known { self.announced } else { standing };
            if let Some(promotion) = self.promotion.take() {
                let outcome = Err(Refusal::Io);
                self.effects.push_back(Effect::PromotionEnded { id: promotion.id, outcome });
            }
            if !known {
                self.effects.push_back(Effect::OutOfSpace { lost_from });
            }
        }
    }

    /// Forgets all entries from `first` on and gives raft-rs the rest. Returns the first index that is lost.
    pub(super) fn restart_on_log_before(&mut self, first: Index) -> Option<Index> {
        self.effects.retain(|effect| !matches!(effect, Effect::Persist { .. }));
        let mut raw = self.raw.take()?;
        let known = raw.raft.hard_state();
        let mut log = std::mem::take(raw.mut_store());
        let lost_from = first.min(Index(log.last()).next());
        log.truncate(lost_from);
        log.clear_staged();
        self.membership.handle_truncated(lost_from);
        self.persistence.lost_from = Some(lost_from);
        // The term does not go back, durable or not: nothing is ever appended in it a second time.
        let hard_state =
            HardState { term: known.term, vote: known.vote, commit: known.commit.min(log.last()) };
        if let Err(text) = self.launch(log, hard_state) {
            self.fail(&text);
            return None;
        }
        Some(lost_from)
    }

    /// There may be room on the disk again. Needs not be called: it is tried from time to time.
    pub fn handle_space_available(&mut self) {
        let Some(shortage) = &mut self.shortage else { return };
        if !shortage.leads() {
            // Elections are allowed again; if there is no room for a vote, that is the next shortage.
            self.shortage = None;
        } else if shortage.probe.is_none() {
            shortage.probe = Some(self.persistence.last_ticket() + 1);
            self.call("campaign", RawNode::campaign);
        }
    }

    /// Tries again when it is time.
    pub(super) fn check_shortage(&mut self) {
        if self.shortage.is_some_and(|shortage| shortage.probe.is_none() && shortage.retry_at <= self.now) {
            self.handle_space_available();
        }
    }

    /// Work was done: if it was that of the probe, proposals are accepted again.
    pub(super) fn handle_room(&mut self, ticket: u64) {
        let Some(shortage) = self.shortage else { return };
        if !shortage.leads() {
            self.shortage = None;
        } else if shortage.probe.is_some_and(|probe| probe <= ticket) {
            self.shortage = None;
            if let Standing::Leader(term) = self.standing() {
                self.announced = Standing::Leader(term);
                self.effects.push_back(Effect::BecameLeader { term });
            }
        }
    }

    /// Another server leads in spite of all: it has a configuration that this one does not know.
    pub(super) fn handle_other_leader(&mut self) {
        let other = self
            .raw
            .as_ref()
            .is_some_and(|raw| raw.raft.leader_id != 0 && raw.raft.leader_id != self.config.id.0);
        if other && let Some(shortage) = &mut self.shortage {
            shortage.leads = None;
        }
    }

    /// During a shortage in which this server leads on: whether it may serve reads.
    pub(super) fn may_read_in_shortage(&self) -> Option<bool> {
        self.shortage.filter(Shortage::leads).map(|shortage| shortage.leads == Some(true))
    }
}
