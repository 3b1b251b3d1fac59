//! Several nodes in one process: elections, replication, membership, and what clients see of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "clients in threads, waiting for conditions")]

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod claims;
mod elsewhere;
mod failover;
mod leadership;
mod links;
mod liveness;
mod members;
mod snapshots;
mod wire;
mod writers;

/// The database of most tests.
const NAME: &str = "test";

/// What clients are told by a node that does not lead.
const NOT_LEADER: (u64, &str) = (10250, "not leader");

/// What clients are told whose request was under way when leadership was lost.
const LEADERSHIP_LOST: (u64, &str) = (10506, "leadership lost");

#[track_caller]
fn refused(answer: support::client::Answer, (code, text): (u64, &str)) {
    assert_eq!(answer.failure(), (code, text.to_owned()));
}
