//! Requests that are about the node and its cluster rather than about SQL.

use super::clients::Wait;
use super::core::Core;
use crate::base::{Index, NodeId, Role, Term, Time};
use crate::codec::client::{Failure, failure};
use crate::consensus::membership::Refusal;
use crate::consensus::{self, Change, Started};
use crate::engine::ConnId;
use crate::session::{Reply, ServerInfo, SessionEvent};

/// Who wants to hear of a change of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client.
    Client(ConnId),
    /// Role management.
    Roles,
    /// Whoever hands this node's duties over.
    Handover,
}

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    /// Until this entry is applied.
    Entry(Index, Term),
    /// Until this server caught up; an entry follows.
    Promotion(NodeId),
    /// Until this server leads.
    Transfer(NodeId),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.text())
    }
}

impl Core {
    /// Answers, or starts to answer, a request that needs no SQL connection.
    pub(super) fn handle_node_request(&mut self, conn: ConnId, event: SessionEvent, now: Time) {
        match event {
            SessionEvent::Leader { legacy } => {
                let reply = self.leader_reply(legacy);
                self.reply(conn, reply, now);
            }
            SessionEvent::Cluster => {
                let servers = self.consensus.configuration().servers.iter().map(|server| ServerInfo {
                    id: server.id,
                    address: server.address.clone().into(),
                    role: server.role,
                });
                let reply = Reply::Servers(servers.collect());
                self.reply(conn, reply, now);
            }
            SessionEvent::Describe => {
                let (failure_domain, weight) = (self.config.failure_domain, self.weight);
                self.reply(conn, Reply::Metadata { failure_domain, weight }, now);
            }
            SessionEvent::Weight { weight } => {
                self.weight = weight;
                self.reply(conn, Reply::Empty, now);
            }
            SessionEvent::Dump { name } => self.dump(conn, &name, now),
            SessionEvent::Add { .. }
            | SessionEvent::Assign { .. }
            | SessionEvent::Remove { .. }
            | SessionEvent::Transfer { .. }
                if !self.is_ready() =>
            {
                self.wait_for_leadership(conn, Wait::Node(event), now);
            }
            SessionEvent::Add { id, address } => match String::from_utf8(address) {
                Ok(_) if id == NodeId(0) => self.fail(conn, &failure::BAD_ID, now),
                Ok(address) => self.change(conn, &Change::Add { id, address }, now),
                Err(_) => {
                    let failure = Failure::new(1, "server address is not valid: UTF-8 text expected");
                    self.fail(conn, &failure, now);
                }
            },
            SessionEvent::Assign { id, role } => self.change(conn, &Change::Assign { id, role }, now),
            SessionEvent::Remove { id } => self.change(conn, &Change::Remove { id }, now),
            SessionEvent::Transfer { id } => self.transfer(conn, id, now),
            SessionEvent::Open { .. }
            | SessionEvent::Sql(_)
            | SessionEvent::Interrupt
            | SessionEvent::MoreRows
            | SessionEvent::RowsAbandoned
            | SessionEvent::PeerUpgrade { .. }
            | SessionEvent::Close(_) => {}
        }
    }

    /// The leader as a voter knows it; others answer that there is none, except to old clients.
    fn leader_reply(&self, legacy: bool) -> Reply {
        let configuration = self.consensus.configuration();
        let is_voter = configuration.get(self.config.id).is_some_and(|server| server.role == Role::Voter);
        let leader = self.consensus.leader().filter(|_| is_voter || legacy);
        match leader.and_then(|id| configuration.get(id)) {
            Some(server) => Reply::Server { id: server.id, address: server.address.clone().into() },
            None => Reply::Server { id: NodeId(0), address: Vec::new() },
        }
    }

    fn change(&mut self, conn: ConnId, change: &Change, now: Time) {
        match self.consensus.request_change(change) {
            Ok(Started::Entry(index, term)) => {
                self.wait_for_change(Asker::Client(conn), Pending::Entry(index, term))
            }
            Ok(Started::Promotion) => {
                let Change::Assign { id, .. } = change else { return };
                self.wait_for_change(Asker::Client(conn), Pending::Promotion(*id));
            }
            Err(refusal) => self.fail(conn, &refusal.into(), now),
        }
    }

    fn transfer(&mut self, conn: ConnId, id: NodeId, now: Time) {
        match self.consensus.transfer(id) {
            Ok(target) => self.wait_for_change(Asker::Client(conn), Pending::Transfer(target)),
            Err(refusal) => self.fail(conn, &refusal.into(), now),
        }
    }

    fn wait_for_change(&mut self, asker: Asker, pending: Pending) {
        self.changes.push_back((asker, pending));
    }

    /// Tells how a change ended.
    fn end_change(&mut self, asker: Asker, outcome: Result<(), Failure>, now: Time) {
        match (asker, outcome) {
            (Asker::Client(conn), Ok(())) => self.reply(conn, Reply::Empty, now),
            (Asker::Client(conn), Err(failure)) => self.fail(conn, &failure, now),
            (Asker::Roles, _) => self.roles.manager.handle_ended(now),
            (Asker::Handover, _) => self.settle_handover(self.consensus.leader()),
        }
    }

    /// What consensus reports of promotions and transfers.
    pub(super) fn follow_membership(&mut self, effect: consensus::Effect, now: Time) {
        match effect {
            consensus::Effect::PromotionEnded { id, outcome } => {
                for asker in self.take_changes(|pending| pending == Pending::Promotion(id)) {
                    match outcome {
                        Ok((index, term)) => self.wait_for_change(asker, Pending::Entry(index, term)),
                        Err(refusal) => self.end_change(asker, Err(refusal.into()), now),
                    }
                }
            }
            consensus::Effect::TransferEnded { target, reached } => {
                for asker in self.take_changes(|pending| pending == Pending::Transfer(target)) {
                    let outcome = if reached { Ok(()) } else { Err(failure::TRANSFER_FAILED) };
                    self.end_change(asker, outcome, now);
                }
            }
            _ => {}
        }
    }

    /// The configuration of this entry is committed: whoever asked for it is answered.
    pub(super) fn finish_changes(&mut self, index: Index, term: Term, now: Time) {
        for asker in self.take_changes(|pending| pending == Pending::Entry(index, term)) {
            self.end_change(asker, Ok(()), now);
        }
    }

    /// Leadership is gone: nobody will hear of changes from this node. A transfer ends by itself.
    pub(super) fn fail_changes(&mut self, now: Time) {
        for asker in self.take_changes(|pending| !matches!(pending, Pending::Transfer(_))) {
            self.end_change(asker, Err(failure::MEMBERSHIP_LEADERSHIP_LOST), now);
        }
    }

    /// Entries from `lost_from` on are lost for want of room, and so are the changes in them.
    pub(super) fn fail_lost_changes(&mut self, lost_from: Index, now: Time) {
        let lost = |pending| matches!(pending, Pending::Entry(index, _) if index >= lost_from);
        for asker in self.take_changes(lost) {
            self.end_change(asker, Err(Refusal::Io.into()), now);
        }
    }

    /// The client is gone.
    pub(super) fn forget_changes(&mut self, conn: ConnId) {
        self.changes.retain(|&(waiting, _)| waiting != Asker::Client(conn));
    }

    fn take_changes(&mut self, matches: impl Fn(Pending) -> bool) -> Vec<Asker> {
        let taken = self.changes.iter().filter(|(_, pending)| matches(*pending)).map(|(asker, _)| *asker);
        let taken: Vec<Asker> = taken.collect();
        self.changes.retain(|(_, pending)| !matches(*pending));
        taken
    }
}
