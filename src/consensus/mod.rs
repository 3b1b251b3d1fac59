//! Raft: `raft-rs` behind our events and effects, with the C library's rules for configurations and elections.
//!
//! [`Consensus`] is a sans-io state machine. It is told of proposals, time, persistence and application by
//! `handle_*` and [`Consensus::propose`]; afterwards [`Consensus::poll_effect`] is called until it answers
//! nothing. Proposals made before that call leave in one [`Effect::Persist`].
//!
//! # Contract with the disk
//!
//! - [`Effect::Persist`]s are carried out in the order of their tickets; within one: truncation, then metadata,
//!   then entries, all durable before [`Consensus::handle_persisted`]. A later ticket may be reported alone:
//!   it speaks for all before it.
//! - After a ticket failed for want of room, *every* later one fails too (nothing of it is written), up to
//!   the first with a `truncate_from`: that one was made after the failure was known here.
//!
//! # When the log cannot be written
//!
//! An (index, term) is never used for two different entries, also not when the first was lost:
//!
//! - A failed write or sync ends this server's part: it becomes *unavailable*, for good.
//! - Want of room is different. All entries that were not durable are forgotten, with the configuration
//!   that one of them may have brought; terms and votes are kept in memory and written again before anything
//!   that rests on them leaves. raft-rs starts anew, as a follower, on the durable rest of the log: it will
//!   never again append in the term it led. Then,
//!   - as the only voter, in force and committed, this server goes on to *lead* as far as readers are
//!     concerned, since nobody else can: [`Effect::OutOfSpace`] names the first index that is lost, and
//!     proposals are refused with [`Refused::OutOfSpace`]. From time to time, and at
//!     [`Consensus::handle_space_available`], it campaigns into the next term; when the entry that
//!     begins that term is durable, proposals are accepted again and [`Effect::BecameLeader`] says so;
//!   - otherwise it steps down ([`Effect::BecameFollower`]), since others may hold and commit what it lost.
//!     It starts no election until there may be room again. As a follower it acknowledges nothing, and
//!     the leader sends again.
//!
//! # What is not here
//!
//! Bytes of peers: their messages come in decoded through [`Consensus::handle_peer`] and go out in
//! [`Effect::Send`]. The bytes of snapshots: they go from file to file beside it.

mod adapter;
mod changes;
mod clock;
mod commits;
mod fence;
mod freshness;
mod inbound;
mod leadership;
mod log_view;
mod logger;
pub mod membership;
mod outbound;
mod planted;
mod reads;
mod ready;
mod shortage;
mod snapshots;
mod start;
mod status;
mod stuck;
#[cfg(test)]
mod tests;
mod votes;

use std::time::Duration;

pub use adapter::Consensus;
pub use changes::{Change, Started};
pub use reads::ReadTicket;
pub use snapshots::{Offer, snapshot_pause};

use crate::base::{Entry, Index, NodeId, Term};
use crate::codec::membership::Configuration;
use crate::codec::peer::Message;

/// What does not change while the node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This server.
    pub id: NodeId,
    /// Its address, for the log file only.
    pub address: String,
    /// How often a leader is heard from.
    pub heartbeat: Duration,
    /// Elections start between once and twice this time without a leader.
    pub election_timeout: Duration,
    /// Determines all randomness.
    pub seed: u64,
}

/// What stands before the log: a snapshot of everything up to `index`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last index that it covers.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
    /// The last configuration committed at that index.
    pub configuration: Configuration,
    /// The index of its entry.
    pub configuration_index: Index,
}

/// What the data directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The stored term.
    pub term: Term,
    /// The stored vote; 0 for none.
    pub voted_for: NodeId,
    /// The newest snapshot.
    pub snapshot: Option<SnapshotMeta>,
    /// The index of the first of `entries`.
    pub first_index: Index,
    /// The log. Entries before the snapshot's index may be among them.
    pub entries: Vec<Entry>,
    /// The newest configuration of log and snapshot; without servers when there is none.
    pub configuration: Configuration,
    /// The index of its entry; 0 when there is none.
    pub configuration_index: Index,
    /// Whether it is known to be committed: entry 1, or covered by the snapshot.
    pub configuration_committed: bool,
    /// Whether this very start wrote entry 1 into an empty directory.
    pub bootstrapped_now: bool,
}

/// Why a proposal was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This server does not lead, or is about to hand leadership over.
    NotLeader,
    /// This server has stopped taking part.
    Unavailable,
    /// Another configuration change is not committed yet.
    ChangePending,
    /// There is no room on the disk.
    OutOfSpace,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make this durable, in order of tickets, then call [`Consensus::handle_persisted`].
    Persist {
        /// Names this work.
        ticket: u64,
        /// First of all forget all entries from this index on; there may be none.
        truncate_from: Option<Index>,
        /// The entries to append.
        entries: Vec<Entry>,
        /// The term and vote to store.
        metadata: Option<(Term, NodeId)>,
    },
    /// Apply these committed entries, then call [`Consensus::handle_applied`]. Barriers and configurations are
    /// among them.
    Apply {
        /// The entries, without gaps between one effect and the next.
        entries: Vec<Entry>,
    },
    /// Send this to a peer.
    Send {
        /// The peer.
        to: NodeId,
        /// Where it is: its address in the configuration or, of an answer, the one it gave when it connected.
        address: String,
        /// What to send.
        message: Message,
    },
    /// Send the newest snapshot to a peer, which is too far behind for entries; answered by
    /// [`Consensus::handle_snapshot_sent`].
    SendSnapshot {
        /// The peer.
        to: NodeId,
        /// Its address.
        address: String,
        /// The term of this leadership.
        term: Term,
        /// The snapshot.
        meta: SnapshotMeta,
    },
    /// A peer needs entry `covering`, which cannot be sent to it: take a snapshot that covers it, now if that can be.
    /// Comes again for as long as the peer asks.
    SnapshotWanted {
        /// The entry.
        covering: Index,
    },
    /// Read these entries from the segments, for a peer that lags; answered by [`Consensus::handle_entries_read`].
    ReadEntries {
        /// The first.
        first: Index,
        /// The last.
        last: Index,
    },
    /// All reads up to this one may be answered now: this server led after they had arrived, and all that was
    /// committed then is applied.
    ReadsReady {
        /// The last of them.
        up_to: ReadTicket,
        /// What was committed then; it is applied.
        index: Index,
    },
    /// This server leads `term`. Coming after another such effect, or after [`Effect::OutOfSpace`], it says
    /// that proposals are accepted again.
    BecameLeader {
        /// The term.
        term: Term,
    },
    /// This server follows. When it led before, what it proposed and did not see committed may be lost.
    BecameFollower {
        /// The term.
        term: Term,
        /// The leader, once known.
        leader: Option<NodeId>,
    },
    /// There is no room on the disk: this server leads on for readers, but all proposals from `lost_from` on
    /// are lost and new ones are refused, until the next [`Effect::BecameLeader`].
    OutOfSpace {
        /// The first index that is lost.
        lost_from: Index,
    },
    /// The promotion that was started by [`Consensus::request_change`] has led to an entry, or to nothing.
    PromotionEnded {
        /// The server that was to be promoted.
        id: NodeId,
        /// The entry, which is still to be committed; or why there is none.
        outcome: Result<(Index, Term), membership::Refusal>,
    },
    /// The transfer that was started by [`Consensus::transfer`] is over.
    TransferEnded {
        /// The server that was to lead.
        target: NodeId,
        /// Whether it does.
        reached: bool,
    },
    /// This server has stopped taking part; nothing more will come.
    Unavailable {
        /// Why.
        text: String,
    },
}
