//! What can be asked of [`Consensus`] at any time.

use raft::StateRole;

use super::adapter::{Consensus, Standing};
use super::membership::{Placed, is_only_voter};
use super::planted::Planted;
use super::shortage::Shortage;
use super::{Refused, SnapshotMeta};
use crate::base::{Index, NodeId, Payload, Term};
use crate::codec::membership::Configuration;

impl Consensus {
    /// Whether this server leads: it may serve reads once [`Consensus::has_applied_own_term`].
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.raw.is_some() && matches!(self.standing(), Standing::Leader(_))
    }

    /// Whether this server leads and takes no proposals for now, since it hands leadership over or has proposed
    /// that it votes no more: they have to wait for the end of that.
    #[must_use]
    pub fn holds_proposals(&self) -> bool {
        self.is_leader() && self.may_propose() == Err(Refused::NotLeader)
    }

    /// Payloads that are not needed any more, and are best dropped where nobody waits.
    pub fn take_shed(&mut self) -> Vec<Payload> {
        self.raw.as_mut().map_or_else(Vec::new, |raw| raw.mut_store().take_shed())
    }

    /// The leader, as far as known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.raw.as_ref()?;
        match self.standing() {
            Standing::Leader(_) => Some(self.config.id),
            Standing::Follower(_, leader) => leader,
        }
    }

    /// The role at this moment.
    pub(super) fn standing(&self) -> Standing {
        let Some(raw) = &self.raw else { return self.announced };
        if self.shortage.as_ref().is_some_and(Shortage::leads) {
            return self.announced;
        }
        let raft = &raw.raft;
        match raft.state {
            StateRole::Leader => Standing::Leader(Term(raft.term)),
            StateRole::Follower | StateRole::Candidate | StateRole::PreCandidate => {
                let leader = (raft.leader_id != 0).then_some(NodeId(raft.leader_id));
                Standing::Follower(Term(raft.term), leader)
            }
        }
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        match (&self.raw, self.announced) {
            (Some(raw), _) => Term(raw.raft.term),
            (None, Standing::Leader(term) | Standing::Follower(term, _)) => term,
        }
    }

    /// The index of the last entry, durable or not.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.raw.as_ref().map_or(self.handed_out, |raw| Index(raw.raft.raft_log.last_index()))
    }

    /// The index up to which entries are known to be committed.
    #[must_use]
    pub fn commit_index(&self) -> Index {
        self.raw.as_ref().map_or(self.handed_out, |raw| Index(raw.raft.raft_log.committed))
    }

    /// The index up to which entries are applied.
    #[must_use]
    pub fn applied_index(&self) -> Index {
        self.applied
    }

    /// Whether an entry of this leader's own term is applied: until then what is committed may lag behind
    /// what an earlier leader has acknowledged.
    #[must_use]
    pub fn has_applied_own_term(&self) -> bool {
        let Standing::Leader(term) = self.standing() else { return false };
        self.may_read_in_shortage().unwrap_or_else(|| self.term_at(self.applied) == Some(term))
    }

    /// The term of an entry of the log, or of the one before its first.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.raw.as_ref()?.store().term_at(index)
    }

    /// The first index that the log in memory knows.
    #[must_use]
    pub fn first_index(&self) -> Index {
        self.raw.as_ref().map_or(Index(0), |raw| Index(raw.store().first()))
    }

    /// The newest snapshot that this log knows of.
    #[must_use]
    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.raw.as_ref()?.store().snapshot_meta()
    }

    /// Bytes of payload in memory.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.raw.as_ref().map_or(0, |raw| raw.store().cached_bytes())
    }

    /// Bytes of the payloads of all entries that the log still has.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.raw.as_ref().map_or(0, |raw| raw.store().kept_bytes())
    }

    /// The configuration in force: the newest in the log.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.membership.in_force().configuration
    }

    /// The configuration that a snapshot taken now, at the applied index, has to carry.
    #[must_use]
    pub fn committed_configuration(&self) -> &Placed {
        if self.errs(Planted::UncommittedSnapshot) {
            return self.membership.in_force();
        }
        self.membership.committed()
    }

    /// Whether nobody but this server votes, whichever of the two configurations is asked.
    #[must_use]
    pub fn is_only_voter(&self) -> bool {
        is_only_voter(&self.membership.in_force().configuration, self.config.id)
            && is_only_voter(&self.membership.committed().configuration, self.config.id)
    }

    /// Why this server takes no part any more, if so.
    #[must_use]
    pub fn unavailable(&self) -> Option<&str> {
        self.unavailable.as_deref()
    }
}
