//! Who belongs to the cluster: what a request makes of a configuration, and which one is in force.
//!
//! - [`add`], [`assign`], [`remove`] and [`transfer_target`] are pure: a configuration and a request in,
//!   the next configuration or the refusal with the C library's code and text out.
//! - [`Ownership`] knows the configuration *in force* (the newest in the log: from the append on for a
//!   leader, from persistence on for a follower) and the last *committed* one, to which truncation returns.
//! - [`Promotion`] is the wait for a server that is to become a voter to catch up, in rounds.
//!
//! raft-rs is told the result as sets of voters and learners ([`RaftMembers`]); it never sees spares,
//! and a leader that removes or demotes itself stays a learner until that entry is applied, since raft-rs
//! panics when a leader is missing from its own tracker.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::base::{Index, NodeId, Role, Time};
use crate::codec::membership::{Configuration, Server};

/// Why a request about the cluster's members was refused. The texts are the C library's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This server does not lead.
    NotLeader,
    /// This server ceased to lead before the request was done.
    LeadershipLost,
    /// Another change is not committed yet, or a promotion is running.
    InProgress,
    /// The id to add belongs to a member.
    IdInUse,
    /// The address to add belongs to a member.
    AddressInUse,
    /// There is no such member, or nobody who could lead.
    NotFound,
    /// The member has this role already, or the cluster would be left without a voter.
    BadRole,
    /// No member that the request could mean, or the cluster would be left without a voter.
    BadId,
    /// The server to promote did not catch up in time.
    NoConnection,
    /// The log cannot be written at the moment.
    Io,
}

impl Refusal {
    /// The code of the answer to the client.
    #[must_use]
    pub fn code(self) -> u64 {
        match self {
            Self::NotLeader => 10250,
            Self::LeadershipLost => 10506,
            Self::InProgress => 5,
            Self::IdInUse
            | Self::AddressInUse
            | Self::NotFound
            | Self::BadRole
            | Self::BadId
            | Self::NoConnection
            | Self::Io => 1,
        }
    }

    /// The text of the answer to the client.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NotLeader => "server is not the leader",
            Self::LeadershipLost => "server has lost leadership",
            Self::InProgress => "a configuration change is already in progress",
            Self::IdInUse => "server ID already in use",
            Self::AddressInUse => "server address already in use",
            Self::NotFound => "Resource not found",
            Self::BadRole => "server role is not valid",
            Self::BadId => "server ID is not valid",
            Self::NoConnection => "no connection to remote server available",
            Self::Io => "I/O error",
        }
    }
}

/// The configuration with one more server, a spare.
///
/// # Errors
/// [`Refusal::BadId`] for id 0, [`Refusal::IdInUse`], [`Refusal::AddressInUse`].
pub fn add(current: &Configuration, id: NodeId, address: &str) -> Result<Configuration, Refusal> {
    if id == NodeId(0) {
        return Err(Refusal::BadId);
    }
    for server in &current.servers {
        if server.id == id {
            return Err(Refusal::IdInUse);
        }
        if server.address == address {
            return Err(Refusal::AddressInUse);
        }
    }
    let mut next = current.clone();
    next.servers.push(Server { id, address: address.to_owned(), role: Role::Spare });
    Ok(next)
}

/// The configuration in which server `id` has `role`.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::BadRole`] when it has that role, or is the only voter.
pub fn assign(current: &Configuration, id: NodeId, role: Role) -> Result<Configuration, Refusal> {
    let server = current.get(id).ok_or(Refusal::NotFound)?;
    if server.role == role || is_only_voter(current, id) {
        return Err(Refusal::BadRole);
    }
    let mut next = current.clone();
    next.servers.iter_mut().filter(|server| server.id == id).for_each(|server| server.role = role);
    Ok(next)
}

/// The configuration without server `id`.
///
/// # Errors
/// [`Refusal::BadId`] when there is no such server, or it is the only voter.
pub fn remove(current: &Configuration, id: NodeId) -> Result<Configuration, Refusal> {
    if current.get(id).is_none() || is_only_voter(current, id) {
        return Err(Refusal::BadId);
    }
    let mut next = current.clone();
    next.servers.retain(|server| server.id != id);
    Ok(next)
}

/// The voter to which `me` may hand leadership: `wanted`, or for 0 the one with the highest stored index.
///
/// # Errors
/// [`Refusal::BadId`] when `wanted` is not another voter; [`Refusal::NotFound`] when there is none at all.
pub fn transfer_target(
    current: &Configuration,
    me: NodeId,
    wanted: NodeId,
    stored: impl Fn(NodeId) -> Index,
) -> Result<NodeId, Refusal> {
    let mut others = current.voters().map(|server| server.id).filter(|&id| id != me);
    if wanted == NodeId(0) {
        // `max_by_key` takes the last of equals; the first is wanted, so compare places too.
        return others
            .enumerate()
            .max_by_key(|&(place, id)| (stored(id), std::cmp::Reverse(place)))
            .map(|(_, id)| id)
            .ok_or(Refusal::NotFound);
    }
    others.find(|&id| id == wanted).ok_or(Refusal::BadId)
}

/// Whether `id` is a voter and no other server is.
#[must_use]
pub fn is_only_voter(configuration: &Configuration, id: NodeId) -> bool {
    let mut voters = configuration.voters();
    voters.next().is_some_and(|server| server.id == id) && voters.next().is_none()
}

/// Whether `id` is a voter.
#[must_use]
pub fn is_voter(configuration: &Configuration, id: NodeId) -> bool {
    configuration.get(id).is_some_and(|server| server.role == Role::Voter)
}

/// How many servers are voters in one of the two configurations only.
pub(super) fn voters_changed(before: &Configuration, after: &Configuration) -> usize {
    let ids = |configuration: &Configuration| -> BTreeSet<NodeId> {
        configuration.voters().map(|server| server.id).collect()
    };
    ids(before).symmetric_difference(&ids(after)).count()
}

/// A configuration and the index of the entry that holds it; 0 when none does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The configuration.
    pub configuration: Configuration,
    /// The index of its entry.
    pub index: Index,
}

/// Which configuration is in force, and which is the last committed one.
#[derive(Clone, Debug, Default)]
pub(super) struct Ownership {
    in_force: Placed,
    committed: Placed,
    /// Configurations handed out for application, oldest first.
    applying: VecDeque<Placed>,
}

impl Ownership {
    pub(super) fn new(in_force: Placed, committed: Placed) -> Self {
        Self { in_force, committed, applying: VecDeque::new() }
    }

    pub(super) fn in_force(&self) -> &Placed {
        &self.in_force
    }

    pub(super) fn committed(&self) -> &Placed {
        &self.committed
    }

    /// Whether the configuration in force is not committed yet.
    pub(super) fn is_pending(&self) -> bool {
        self.in_force.index > self.committed.index
    }

    /// An entry with this configuration was appended (leader) or persisted (follower).
    pub(super) fn handle_stored(&mut self, placed: Placed) {
        if placed.index > self.in_force.index {
            self.in_force = placed;
        }
    }

    /// The log was cut from `from` on. Returns whether another configuration came in force.
    pub(super) fn handle_truncated(&mut self, from: Index) -> bool {
        let rolls_back = from <= self.in_force.index && self.in_force.index > self.committed.index;
        if rolls_back {
            self.in_force = self.committed.clone();
        }
        rolls_back
    }

    /// The entry with this configuration is committed and was handed out for application.
    pub(super) fn handle_applying(&mut self, placed: Placed) {
        self.applying.push_back(placed);
    }

    /// Everything up to `index` is applied. Returns whether a configuration became committed by it.
    pub(super) fn handle_applied(&mut self, index: Index) -> bool {
        let mut moved = false;
        while self.applying.front().is_some_and(|placed| placed.index <= index) {
            if let Some(placed) = self.applying.pop_front()
                && placed.index > self.committed.index
            {
                self.committed = placed;
                moved = true;
            }
        }
        moved
    }
}

/// The members as raft-rs is to know them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RaftMembers {
    pub(super) voters: BTreeSet<u64>,
    pub(super) learners: BTreeSet<u64>,
}

impl RaftMembers {
    /// Voters vote, stand-bys learn, spares are unknown. `kept` is this server when raft-rs has to know it, as
    /// it does a leader; `catching_up` the one that is being promoted. Both learn if they are nothing better.
    ///
    /// Where nobody votes (recovery of C can write that, and the log of a new server is empty), raft-rs is told of one
    /// voter that does not exist: it refuses to take the last one away, and nobody is elected either way.
    pub(super) fn of(
        configuration: &Configuration,
        kept: Option<NodeId>,
        catching_up: Option<NodeId>,
    ) -> Self {
        let mut members = Self::default();
        for server in &configuration.servers {
            match server.role {
                Role::Voter => members.voters.insert(server.id.0),
                Role::StandBy => members.learners.insert(server.id.0),
                Role::Spare => false,
            };
        }
        for NodeId(id) in [kept, catching_up].into_iter().flatten() {
            if !members.voters.contains(&id) {
                members.learners.insert(id);
            }
        }
        if members.voters.is_empty() {
            members.voters.extend((0..=u64::MAX).rev().find(|id| !members.learners.contains(id)));
        }
        members
    }
}

/// Rounds after which a server that still lags is given up.
const ROUNDS_MAX: u32 = 100;

/// The longest that one round may take.
const ROUND_MAX: Duration = Duration::from_secs(50);

/// What a promotion needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CatchUp {
    /// More time.
    Waiting,
    /// The change entry: the server is up to date, or nearly.
    Ready,
    /// To be given up.
    TooSlow,
}

/// A server on its way to become a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promotion {
    pub(super) id: NodeId,
    round: u32,
    target: Index,
    since: Time,
}

impl Promotion {
    /// Round 1, whose aim is the present end of the log.
    pub(super) fn new(id: NodeId, last: Index, now: Time) -> Self {
        Self { id, round: 1, target: last, since: now }
    }

    /// The server stores the log up to `stored` of `last`.
    pub(super) fn handle_progress(
        &mut self,
        stored: Index,
        last: Index,
        now: Time,
        election_timeout: Duration,
    ) -> CatchUp {
        let took = now.since(self.since);
        if stored >= self.target {
            if stored >= last || took < election_timeout {
                return CatchUp::Ready;
            }
            if self.round < ROUNDS_MAX {
                *self = Self { id: self.id, round: self.round + 1, target: last, since: now };
                return CatchUp::Waiting;
            }
        }
        if took > ROUND_MAX || (self.round >= ROUNDS_MAX && took > election_timeout) {
            return CatchUp::TooSlow;
        }
        CatchUp::Waiting
    }
}

#[cfg(test)]
mod tests;
