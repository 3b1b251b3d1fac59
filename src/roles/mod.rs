//! Who in the cluster votes, who stands by, and who takes over from a server that leaves.
//!
//! Everything here is pure: what servers are there, which of them answered and what they said of themselves come
//! in, changes of roles go out. [`plan()`] decides a round of changes, [`Manager`] when to look and that at most one
//! change is under way, [`successor`] who gets the vote of a server that hands over. Nothing here connects to
//! anybody or changes a configuration.

mod manager;
mod plan;

pub use manager::{Effect, Manager};
pub use plan::{plan, successor};

use crate::base::{NodeId, Role};

/// What a server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Servers that fail together have the same number here.
    pub failure_domain: u64,
    /// Servers with little weight are made voters first.
    pub weight: u64,
}

/// A server of the configuration, and whether it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its id.
    pub id: NodeId,
    /// Its role in the configuration.
    pub role: Role,
    /// What it said; `None` for one that did not answer, which counts as gone.
    pub online: Option<Metadata>,
}

/// What the cluster should have. Numbers below zero count as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// So many voters, the leader among them.
    pub voters: i32,
    /// So many stand-bys.
    pub standbys: i32,
}

/// Another role for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The server.
    pub id: NodeId,
    /// What it is to be.
    pub role: Role,
}
