//! The part of a node in role management and in handing over: what is known of the cluster goes to `roles`, what
//! that wants becomes changes of the cluster like those of clients.

use std::collections::BTreeMap;

use super::core::Core;
use super::effect::{Effect, HandoverStep};
use super::requests::{Asker, Pending};
use crate::base::{NodeId, Role, Time};
use crate::codec::membership::Configuration;
use crate::consensus::membership::is_voter;
use crate::consensus::{Change, Started};
use crate::roles::{self, Manager, Metadata, Targets};

/// Role management on this node.
pub(super) struct Roles {
    pub(super) manager: Manager,
    /// The configuration whose servers are being asked.
    asked: Configuration,
}

impl Roles {
    pub(super) fn new(manager: Manager) -> Self {
        Self { manager, asked: Configuration::default() }
    }
}

impl Core {
    /// From now on this node, whenever it leads, chooses the roles of all nodes.
    pub fn enable_role_management(&mut self, targets: Targets, now: Time) {
        let mut manager = Manager::new(true, self.config.id, targets);
        manager.handle_leading(self.is_ready(), now);
        self.roles = Roles::new(manager);
    }

    /// Sets what role management aims at.
    pub fn set_role_targets(&mut self, targets: Targets) {
        self.roles.manager.set_targets(targets);
    }

    /// What the servers said that were to be described in this round; those that said nothing are left out.
    pub fn handle_described(&mut self, round: u64, answers: &BTreeMap<NodeId, Metadata>, now: Time) {
        let own = Metadata { failure_domain: self.config.failure_domain, weight: self.weight };
        let me = self.config.id;
        let servers = self.roles.asked.servers.iter().map(|server| roles::Server {
            id: server.id,
            role: server.role,
            online: if server.id == me { Some(own) } else { answers.get(&server.id).copied() },
        });
        let servers: Vec<roles::Server> = servers.collect();
        // Somebody who was not asked must not count as gone.
        let current = self.roles.asked == *self.consensus.configuration();
        self.roles.manager.handle_answers(round, current.then_some(&servers), now);
        self.settle(now);
    }

    /// Does what role management wants.
    pub(super) fn manage_roles(&mut self, now: Time) -> bool {
        let mut progressed = false;
        while let Some(effect) = self.roles.manager.poll_effect() {
            progressed = true;
            match effect {
                roles::Effect::Ask { round } => {
                    self.roles.asked = self.consensus.configuration().clone();
                    let others = self.roles.asked.servers.iter().filter(|server| server.id != self.config.id);
                    let servers = others.cloned().collect();
                    self.effects.push_back(Effect::Describe { round, servers });
                }
                roles::Effect::Assign(roles::Change { id, role }) => self.assign_role(id, role, now),
            }
        }
        progressed
    }

    fn assign_role(&mut self, id: NodeId, role: Role, now: Time) {
        log::info!("role management: node {id} is to be {role:?}");
        let pending = match self.consensus.request_change(&Change::Assign { id, role }) {
            Ok(Started::Entry(index, term)) => Pending::Entry(index, term),
            Ok(Started::Promotion) => Pending::Promotion(id),
            Err(refusal) => {
                log::info!("role management: node {id} keeps its role: {}", refusal.text());
                return self.roles.manager.handle_ended(now);
            }
        };
        self.changes.push_back((Asker::Roles, pending));
    }

    /// The program wants the node's duties in other hands. Role management ends here for good; leadership goes to
    /// the voter that is furthest. [`Effect::Handover`] tells how it goes.
    pub fn handle_handover(&mut self, now: Time) {
        self.roles.manager.switch_off();
        let me = self.config.id;
        let configuration = self.consensus.configuration().clone();
        let alone = configuration.voters().all(|server| server.id == me);
        if alone || !is_voter(&configuration, me) || self.unavailable().is_some() {
            self.effects.push_back(Effect::Handover(HandoverStep::Impossible));
        } else if !self.is_leading() {
            self.effects.push_back(Effect::Handover(HandoverStep::Begun(configuration)));
            self.settle_handover(self.consensus.leader());
        } else {
            match self.consensus.transfer(NodeId(0)) {
                Ok(target) => {
                    self.effects.push_back(Effect::Handover(HandoverStep::Begun(configuration)));
                    self.changes.push_back((Asker::Handover, Pending::Transfer(target)));
                }
                Err(refusal) => {
                    log::warn!("leadership is not handed over: {}", refusal.text());
                    self.effects.push_back(Effect::Handover(HandoverStep::Impossible));
                }
            }
        }
        self.settle(now);
    }

    /// As far as handing over goes, this server leads.
    pub(super) fn settle_handover(&mut self, leader: Option<NodeId>) {
        let leader = leader.filter(|id| *id != self.config.id);
        let address = leader.and_then(|id| self.consensus.configuration().get(id));
        let step = HandoverStep::Settled { leader: address.map(|server| server.address.clone()) };
        self.effects.push_back(Effect::Handover(step));
    }
}
