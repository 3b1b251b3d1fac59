//! The rules: which servers change their role, and in which order.
//!
//! They are those of the C library, so that a cluster of both kinds does not change its mind with its leader, but
//! for four things. The leader counts as online whether or not it reaches itself. Nothing is changed while less
//! than a majority of the voters answers: then it is most likely the leader that is cut off, and a voter that was
//! demoted for that would be missed. Weights are compared in full, and any number of failure domains is counted.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Change, Metadata, Server, Targets};
use crate::base::{NodeId, Role};

/// The changes that bring the cluster from what it is to what it should be, to be carried out one after another.
///
/// Servers that did not answer become spares, first of all. Then missing voters are chosen, from failure domains
/// with few voters, of little weight, stand-bys before spares; too many become spares, the other way round, but
/// never `me`, the leader. The same goes for stand-bys. A server is named once at most.
///
/// Each change leaves a majority of the voters among those that answered, provided it was so before.
#[must_use]
pub fn plan(servers: &[Server], targets: Targets, me: NodeId) -> Vec<Change> {
    let mut round = Round::new(servers, me);
    if !round.has_majority() {
        return Vec::new();
    }
    round.demote_whoever_is_gone();
    let voters = usize::try_from(targets.voters).unwrap_or(0);
    let standbys = usize::try_from(targets.standbys).unwrap_or(0);
    round.fill(Role::Voter, voters, |server| server.role != Role::Voter);
    round.thin_out(Role::Voter, voters);
    round.fill(Role::StandBy, standbys, |server| server.role == Role::Spare);
    round.thin_out(Role::StandBy, standbys);
    round.changes
}

/// Who gets the vote of `me` when it leaves: the best of the servers that answered and do not vote, by the order in
/// which they would be promoted. `None` where there is none.
#[must_use]
pub fn successor(servers: &[Server], me: NodeId) -> Option<NodeId> {
    let others = servers.iter().filter(|server| server.id != me);
    let mut round = Round { servers: others.copied().collect(), me, changes: Vec::new() };
    let domains = round.domains(Role::Voter);
    round.servers.retain(|server| server.online.is_some() && server.role != Role::Voter);
    round.servers.sort_by(|a, b| promote_first(&domains, a, b));
    round.servers.first().map(|server| server.id)
}

/// How many servers of one role each failure domain has.
type Domains = BTreeMap<u64, usize>;

/// Which of two servers is promoted first.
fn promote_first(domains: &Domains, a: &Server, b: &Server) -> Ordering {
    let key = |server: &Server| {
        let Metadata { failure_domain, weight } = server.online.unwrap_or_default();
        (domains.get(&failure_domain).copied().unwrap_or(0), weight, server.role)
    };
    key(a).cmp(&key(b))
}

/// The servers as they will be once the changes so far are carried out.
struct Round {
    servers: Vec<Server>,
    me: NodeId,
    changes: Vec<Change>,
}

impl Round {
    fn new(servers: &[Server], me: NodeId) -> Self {
        let mut servers = servers.to_vec();
        for server in servers.iter_mut().filter(|server| server.id == me) {
            server.online = Some(server.online.unwrap_or_default());
        }
        Self { servers, me, changes: Vec::new() }
    }

    fn has_majority(&self) -> bool {
        let voters = || self.servers.iter().filter(|server| server.role == Role::Voter);
        voters().filter(|server| server.online.is_some()).count() > voters().count() / 2
    }

    /// How many servers that answered have the role.
    fn count(&self, role: Role) -> usize {
        self.servers.iter().filter(|server| server.online.is_some() && server.role == role).count()
    }

    fn domains(&self, role: Role) -> Domains {
        let mut domains = Domains::new();
        let having = self.servers.iter().filter(|server| server.role == role);
        for Metadata { failure_domain, .. } in having.filter_map(|server| server.online) {
            *domains.entry(failure_domain).or_default() += 1;
        }
        domains
    }

    fn change(&mut self, id: NodeId, role: Role) {
        self.servers.iter_mut().filter(|server| server.id == id).for_each(|server| server.role = role);
        match self.changes.iter_mut().find(|change| change.id == id) {
            // A voter too many that stands by now.
            Some(change) => change.role = role,
            None => self.changes.push(Change { id, role }),
        }
    }

    fn demote_whoever_is_gone(&mut self) {
        let gone = self.servers.iter().filter(|server| server.online.is_none() && server.role != Role::Spare);
        for id in gone.map(|server| server.id).collect::<Vec<_>>() {
            self.change(id, Role::Spare);
        }
    }

    /// Gives `role` to servers that answered and are `eligible`, until `wanted` have it. The order is that of the
    /// beginning: one walk is not sorted anew for what it changes itself, as in C.
    fn fill(&mut self, role: Role, wanted: usize, eligible: impl Fn(&Server) -> bool) {
        let missing = wanted.saturating_sub(self.count(role));
        if missing == 0 {
            return;
        }
        let domains = self.domains(role);
        self.servers.sort_by(|a, b| promote_first(&domains, a, b));
        let chosen = self.servers.iter().filter(|server| server.online.is_some() && eligible(server));
        for id in chosen.map(|server| server.id).take(missing).collect::<Vec<_>>() {
            self.change(id, role);
        }
    }

    /// Makes spares of servers with `role`, the leader excepted, until no more than `wanted` have it.
    fn thin_out(&mut self, role: Role, wanted: usize) {
        let surplus = self.count(role).saturating_sub(wanted);
        if surplus == 0 {
            return;
        }
        let domains = self.domains(role);
        self.servers.sort_by(|a, b| promote_first(&domains, b, a));
        let chosen = self.servers.iter().filter(|server| server.role == role && server.id != self.me);
        for id in chosen.map(|server| server.id).take(surplus).collect::<Vec<_>>() {
            self.change(id, Role::Spare);
        }
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
