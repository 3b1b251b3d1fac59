//! Changes of the cluster's members, promotions and transfers of leadership.
//!
//! A change is one entry with the complete next configuration. It is in force here from its append on, and
//! refused while another is not committed, while a promotion or a transfer is under way, and before an entry
//! of this leader's own term is committed; the last closes the known hole of single-server changes across
//! changes of leader.

use raft::StateRole;
use raft::eraftpb::{ConfChange, ConfChangeType};

use super::adapter::{Consensus, Standing};
use super::membership::{
    self, CatchUp, Placed, Promotion, RaftMembers, Refusal, is_voter, transfer_target, voters_changed,
};
use super::planted::Planted;
use super::{Effect, Refused};
use crate::base::{EntryKind, Index, NodeId, Payload, Role, Term, Time};
use crate::codec::membership::Configuration;

/// What a client wants changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new server, as a spare.
    Add {
        /// Its id.
        id: NodeId,
        /// Its address.
        address: String,
    },
    /// Another role for a server.
    Assign {
        /// Its id.
        id: NodeId,
        /// The role.
        role: Role,
    },
    /// One server less.
    Remove {
        /// Its id.
        id: NodeId,
    },
}

/// How a change goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// This entry was appended; the change is done once it is applied.
    Entry(Index, Term),
    /// The server to promote has to catch up first; [`Effect::PromotionEnded`] follows.
    Promotion,
}

/// Leadership is being handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    target: NodeId,
    until: Time,
}

impl Consensus {
    /// Begins a change of members.
    ///
    /// # Errors
    /// The refusal for the client; nothing was changed.
    pub fn request_change(&mut self, change: &Change) -> Result<Started, Refusal> {
        self.may_change()?;
        let current = self.configuration();
        let next = match change {
            Change::Add { id, address } => membership::add(current, *id, address)?,
            Change::Assign { id, role } => membership::assign(current, *id, *role)?,
            Change::Remove { id } => membership::remove(current, *id)?,
        };
        if let Change::Assign { id, role: Role::Voter } = *change
            && self.stored_by(id) < self.last_index()
        {
            self.promotion = Some(Promotion::new(id, self.last_index(), self.now));
            self.tell_members();
            return Ok(Started::Promotion);
        }
        self.propose_change(&next).map(|(index, term)| Started::Entry(index, term))
    }

    /// Appends `next` as the configuration; it is in force at once.
    ///
    /// # Errors
    /// The refusal for the client; nothing was changed.
    ///
    /// # Panics
    /// When more than one server becomes a voter or ceases to be one: majorities before and after might not
    /// meet.
    pub fn propose_change(&mut self, next: &Configuration) -> Result<(Index, Term), Refusal> {
        let changed = voters_changed(self.configuration(), next);
        assert!(changed <= 1, "configuration change: one voter at most expected to change, found {changed}");
        self.may_change()?;
        let payload = Payload::from_bytes(&next.encode());
        let (index, term) = self.append(EntryKind::Change, payload).map_err(Refusal::from)?;
        if !self.errs(Planted::LateConfiguration) {
            self.membership.handle_stored(Placed { configuration: next.clone(), index });
        }
        self.tell_members();
        Ok((index, term))
    }

    fn may_change(&self) -> Result<(), Refusal> {
        self.may_propose()?;
        let settled = self.raw.as_ref().is_some_and(|raw| raw.raft.commit_to_current_term());
        if !settled || self.promotion.is_some() || self.membership.is_pending() {
            return Err(Refusal::InProgress);
        }
        Ok(())
    }

    /// How far a peer's log is known to be stored.
    fn stored_by(&self, id: NodeId) -> Index {
        let progress = self.raw.as_ref().and_then(|raw| raw.raft.prs().get(id.0));
        Index(progress.map_or(0, |progress| progress.matched))
    }

    /// Looks whether the server that is being promoted has caught up. Not during a transfer: nothing may be
    /// proposed then, and most transfers end with this leadership.
    pub(super) fn check_promotion(&mut self) {
        let (last, now, timeout) = (self.last_index(), self.now, self.config.election_timeout);
        let Some(mut promotion) = self.promotion.filter(|_| self.transfer.is_none()) else { return };
        let stored = self.stored_by(promotion.id);
        match promotion.handle_progress(stored, last, now, timeout) {
            CatchUp::Waiting => self.promotion = Some(promotion),
            CatchUp::Ready => {
                self.promotion = None;
                let next = membership::assign(self.configuration(), promotion.id, Role::Voter);
                let outcome = next.and_then(|next| self.propose_change(&next));
                self.end_promotion(promotion.id, outcome);
            }
            CatchUp::TooSlow => {
                self.promotion = None;
                self.end_promotion(promotion.id, Err(Refusal::NoConnection));
            }
        }
    }

    fn end_promotion(&mut self, id: NodeId, outcome: Result<(Index, Term), Refusal>) {
        self.tell_members();
        self.effects.push_back(Effect::PromotionEnded { id, outcome });
    }

    /// What was begun as leader of a term comes to nothing.
    pub(super) fn handle_leadership_lost(&mut self) {
        match self.promotion.take() {
            Some(promotion) => self.end_promotion(promotion.id, Err(Refusal::LeadershipLost)),
            None => self.tell_members(),
        }
    }

    /// Hands leadership to voter `wanted`, or for 0 to the voter that is furthest. [`Effect::TransferEnded`]
    /// follows, after an election timeout at the latest. Until then nothing is proposed.
    ///
    /// # Errors
    /// The refusal for the client; nothing was begun.
    pub fn transfer(&mut self, wanted: NodeId) -> Result<NodeId, Refusal> {
        if !self.is_leader() || self.transfer.is_some() {
            return Err(Refusal::NotLeader);
        }
        let target = transfer_target(self.configuration(), self.config.id, wanted, |id| self.stored_by(id))?;
        self.may_propose()?;
        self.transfer = Some(Transfer { target, until: self.now.after(self.config.election_timeout) });
        self.call("transfer", |raw| raw.transfer_leader(target.0));
        Ok(target)
    }

    /// Looks whether a transfer has ended.
    pub(super) fn check_transfer(&mut self) {
        let Some(transfer) = self.transfer else { return };
        let reached = self.leader() == Some(transfer.target);
        if reached || self.now >= transfer.until || self.raw.is_none() {
            self.transfer = None;
            self.call("end of transfer", |raw| raw.raft.abort_leader_transfer());
            self.effects.push_back(Effect::TransferEnded { target: transfer.target, reached });
        }
    }

    /// The configuration in which this server does not vote is committed: another one has to lead.
    pub(super) fn step_down_if_removed(&mut self) {
        let leads = self.raw.as_ref().is_some_and(|raw| raw.raft.state == StateRole::Leader);
        if leads && !is_voter(&self.membership.committed().configuration, self.config.id) {
            self.call("step down", |raw| {
                let term = raw.raft.term;
                raw.raft.become_follower(term, 0);
            });
        }
    }

    /// Whether this server may ask for votes although it votes no more: the configuration that says so is not
    /// committed, and perhaps nobody else holds it. Then its log is the longest, no other server can be elected
    /// without its vote, and it has to finish the change. It does not count itself.
    pub(super) fn may_finish_own_removal(&self) -> bool {
        let me = self.config.id;
        self.membership.is_pending()
            && !is_voter(&self.membership.in_force().configuration, me)
            && is_voter(&self.membership.committed().configuration, me)
    }

    /// The members as raft-rs is to know them at this moment.
    pub(super) fn raft_members(&self) -> RaftMembers {
        let leads = matches!(self.standing(), Standing::Leader(_));
        let myself = (leads || self.may_finish_own_removal()).then_some(self.config.id);
        RaftMembers::of(self.configuration(), myself, self.promotion.map(|promotion| promotion.id))
    }

    /// Brings raft-rs's voters and learners in line with the configuration in force, one at a time: two
    /// in one call would begin a joint configuration.
    pub(super) fn tell_members(&mut self) {
        let wanted = self.raft_members();
        let told = self.call("configuration", |raw| {
            let known = raw.raft.prs().conf().to_conf_state();
            let all = wanted.voters.union(&wanted.learners).copied();
            let gone: Vec<u64> = (known.voters.iter().chain(&known.learners).copied())
                .filter(|id| !wanted.voters.contains(id) && !wanted.learners.contains(id))
                .collect();
            // New voters first: the last voter cannot be taken away.
            let mut changes = Vec::new();
            for id in wanted.voters.iter().filter(|id| !known.voters.contains(id)) {
                changes.push((*id, ConfChangeType::AddNode));
            }
            for id in all.filter(|id| wanted.learners.contains(id) && !known.learners.contains(id)) {
                changes.push((id, ConfChangeType::AddLearnerNode));
            }
            changes.extend(gone.into_iter().map(|id| (id, ConfChangeType::RemoveNode)));
            for (node_id, kind) in changes {
                let mut change = ConfChange { node_id, ..ConfChange::default() };
                change.set_change_type(kind);
                raw.apply_conf_change(&change)?;
            }
            Ok::<(), raft::Error>(())
        });
        if let Some(Err(error)) = told {
            self.fail(&format!("configuration in force cannot be taken over: {error}"));
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotLeader | Refused::Unavailable => Self::NotLeader,
            Refused::ChangePending => Self::InProgress,
            Refused::OutOfSpace => Self::Io,
        }
    }
}
