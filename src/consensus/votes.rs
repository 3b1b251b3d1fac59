//! Requests for votes, and their answers.
//!
//! The question whether a vote would be granted is answered here alone, by the C library's rules: its answer
//! echoes the term of the question and changes nothing. raft-rs refuses in one case where the C library grants,
//! and must: a server that voted in term T, asked about T. Where it voted for itself and its log is the shorter
//! one, neither of the two could ever be elected.
//!
//! A server grants votes whatever its own role is. The C library's stand-bys and spares refuse, and so its
//! cluster is without a leader for ever if its only voter fails between appending the entry that makes a second
//! voter and sending it: the first needs the vote of the second, which does not know that it has one. Granting
//! is safe: a vote counts only if the candidate's configuration says so, and is given once per term.

use raft::StateRole;
use raft::eraftpb::MessageType;

use super::adapter::Consensus;
use super::inbound::raft_message;
use super::membership::is_voter;
use super::outbound::TRANSFER_CONTEXT;
use crate::base::{NodeId, Term};
use crate::codec::peer::{RequestVote, VoteResult};

impl Consensus {
    pub(super) fn handle_vote_request(&mut self, from: NodeId, request: RequestVote) {
        // The vote would be another's than the answer's.
        let foreign = request.candidate != from;
        if foreign {
            log::warn!("request for votes of {from} refused: candidate {} in it", request.candidate);
        }
        let Some(raw) = &self.raw else { return };
        let raft = &raw.raft;
        let (term, me) = (Term(raft.term), self.config.id);
        let in_lease = raft.leader_id != 0 && raft.election_elapsed < raft.election_timeout();
        let has_leader = raft.state == StateRole::Leader || in_lease;
        let stale = request.term < term || request.term == Term(0);
        let refused = foreign || stale || self.is_installing() || (has_leader && !request.disrupt_leader);
        if request.pre_vote {
            let granted = !refused && raft.raft_log.is_up_to_date(request.last_index.0, request.last_term.0);
            let mut answer = raft_message(MessageType::MsgRequestPreVoteResponse, me, from, request.term);
            answer.reject = !granted;
            self.answer(answer);
        } else if refused {
            let mut answer = raft_message(MessageType::MsgRequestVoteResponse, me, from, term);
            answer.reject = true;
            self.answer(answer);
        } else {
            let mut message = raft_message(MessageType::MsgRequestVote, from, me, request.term);
            message.index = request.last_index.0;
            message.log_term = request.last_term.0;
            if request.disrupt_leader {
                message.context = TRANSFER_CONTEXT.to_vec();
            }
            self.step(message);
        }
    }

    pub(super) fn handle_vote_result(&mut self, from: NodeId, result: VoteResult) {
        let Some(raw) = &self.raw else { return };
        let pre_vote = match raw.raft.state {
            StateRole::PreCandidate => true,
            StateRole::Candidate => false,
            StateRole::Follower | StateRole::Leader => return,
        };
        let counts = is_voter(self.configuration(), from) && result.pre_vote.is_none_or(|it| it == pre_vote);
        if !counts || result.term == Term(0) {
            return;
        }
        let (me, term) = (self.config.id, Term(raw.raft.term));
        let asked = Term(term.0.saturating_add(1));
        let kind = match pre_vote {
            true => MessageType::MsgRequestPreVoteResponse,
            false => MessageType::MsgRequestVoteResponse,
        };
        let mut message = raft_message(kind, from, me, result.term);
        message.reject = !result.granted;
        if pre_vote {
            if result.granted && result.term != asked {
                // The answer to an earlier round.
                return;
            }
            if !result.granted && result.term <= asked {
                // The echo of the term that was asked about: nobody has reached it.
                message.term = term.0;
            }
        } else if result.term < term {
            return;
        }
        self.step(message);
    }
}
