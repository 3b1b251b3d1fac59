//! How such a server elects.

use super::{Rival, Role};
use crate::base::{Index, NodeId, Term};
use crate::codec::peer::{Message, RequestVote, TimeoutNow, VoteResult};
use crate::consensus::membership::is_voter;

impl Rival {
    fn votes(&self) -> bool {
        is_voter(&self.in_force.configuration, NodeId(self.id))
    }

    fn writes(&self) -> bool {
        !self.disk.jobs.is_empty() && !self.old
    }

    /// The time without a leader is over.
    pub(super) fn expire(&mut self) {
        let follows = matches!(self.role, Role::Follower);
        if !self.votes() || self.installing || (follows && self.writes()) {
            self.timer = self.now;
            return;
        }
        let (pre_vote, disrupt) = match self.role {
            Role::Candidate { pre_vote, disrupt, .. } => (pre_vote, disrupt),
            _ => (true, false),
        };
        self.campaign(pre_vote, disrupt);
    }

    fn campaign(&mut self, pre_vote: bool, disrupt: bool) {
        if !pre_vote {
            self.disk.stored.term.0 += 1;
            self.disk.stored.vote = NodeId(self.id);
        }
        self.leader = 0;
        self.role = Role::Candidate { pre_vote, disrupt, votes: Vec::new() };
        self.draw();
        let last = if self.old { self.last() } else { self.persisted };
        let request = RequestVote {
            term: Term(self.term() + u64::from(pre_vote)),
            candidate: NodeId(self.id),
            last_index: Index(last),
            last_term: Term(self.term_at(last).unwrap_or(0)),
            disrupt_leader: disrupt,
            pre_vote,
        };
        let voters: Vec<u64> = self.in_force.configuration.voters().map(|it| it.id.0).collect();
        for to in voters {
            if to != self.id {
                self.send(to, Message::RequestVote(request));
            }
        }
        self.tally(self.id);
    }

    fn tally(&mut self, voter: u64) {
        let majority = self.in_force.configuration.voters().count() / 2;
        let Role::Candidate { pre_vote, disrupt, votes } = &mut self.role else { return };
        if !votes.contains(&voter) {
            votes.push(voter);
        }
        if votes.len() <= majority {
            return;
        }
        match (*pre_vote, *disrupt) {
            (true, disrupt) => self.campaign(false, disrupt),
            (false, _) => self.lead(),
        }
    }

    pub(super) fn handle_request(&mut self, from: u64, request: RequestVote) {
        let has_leader = self.leads() || (matches!(self.role, Role::Follower) && self.leader != 0);
        let shielded = has_leader && !request.disrupt_leader;
        if !shielded && !request.pre_vote {
            self.adopt(request.term.0);
        }
        let last = self.last();
        let last_term = self.term_at(last).unwrap_or(0);
        let current = last == 0 || (request.last_term.0, request.last_index.0) >= (last_term, last);
        let free = request.pre_vote || [NodeId(0), NodeId(from)].contains(&self.disk.stored.vote);
        let reached = request.term.0 >= self.term() && !self.installing && !shielded;
        let granted = reached && self.votes() && free && current;
        if granted && !request.pre_vote {
            self.disk.stored.vote = NodeId(from);
            self.timer = self.now;
        }
        let term = if request.pre_vote { request.term } else { Term(self.term()) };
        let pre_vote = Some(request.pre_vote);
        self.send(from, Message::VoteResult(VoteResult { term, granted, pre_vote }));
    }

    pub(super) fn handle_vote(&mut self, from: u64, result: VoteResult) {
        let Role::Candidate { pre_vote, .. } = self.role else { return };
        let voter = is_voter(&self.in_force.configuration, NodeId(from));
        let term = result.term.0;
        if !voter || term < self.term() || result.pre_vote.is_some_and(|it| it != pre_vote) {
            return;
        }
        let asked = self.term() + u64::from(pre_vote);
        if term > asked {
            self.adopt(term);
        } else if result.granted && term == asked {
            self.tally(from);
        }
    }

    pub(super) fn handle_timeout_now(&mut self, from: u64, request: TimeoutNow) {
        let last = (self.last(), self.term_at(self.last()).unwrap_or(0));
        let wanted = self.votes()
            && matches!(self.role, Role::Follower)
            && self.leader == from
            && request.term.0 >= self.term()
            && (request.last_index.0, request.last_term.0) == last
            && !self.writes()
            && !self.installing;
        if wanted {
            self.adopt(request.term.0);
            self.campaign(false, true);
        }
    }
}
