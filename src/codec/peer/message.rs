//! The six messages. Which server sent one is known from its connection alone.

use crate::base::{Entry, Index, NodeId, Term};
use crate::codec::membership::Configuration;

/// Anything one server tells another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Entries, or a heartbeat.
    AppendEntries(AppendEntries),
    /// The answer to entries and to snapshots.
    AppendResult(AppendResult),
    /// A candidate asks for a vote, or whether it would get one.
    RequestVote(RequestVote),
    /// The answer to that.
    VoteResult(VoteResult),
    /// The head of a snapshot; its bytes follow on the connection and are not part of this.
    InstallSnapshot(InstallSnapshot),
    /// The leader asks this server to become leader at once.
    TimeoutNow(TimeoutNow),
}

impl Message {
    /// The term that it speaks of.
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Self::AppendEntries(it) => it.term,
            Self::AppendResult(it) => it.term,
            Self::RequestVote(it) => it.term,
            Self::VoteResult(it) => it.term,
            Self::InstallSnapshot(it) => it.term,
            Self::TimeoutNow(it) => it.term,
        }
    }
}

/// Entries from a leader; none make it a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The index before the first entry; 0 at the start of the log.
    pub prev_index: Index,
    /// The term of the entry there; 0 with index 0.
    pub prev_term: Term,
    /// How far the leader has committed.
    pub commit: Index,
    /// The entries from `prev_index + 1` on.
    pub entries: Vec<Entry>,
}

/// What became of entries or of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendResult {
    /// The answering server's term.
    pub term: Term,
    /// 0 for success, else the index that was refused: that before the entries, or the snapshot's last.
    pub rejected: u64,
    /// The last index that the answering server has durably; a hint in a refusal.
    pub last_index: Index,
    /// Flags that no release has a use for; `None` in the short form of libraries before 1.17.
    pub features: Option<u64>,
}

/// A request for a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVote {
    /// The candidate's term; one more than that in a pre-vote.
    pub term: Term,
    /// The candidate.
    pub candidate: NodeId,
    /// The last index of the candidate's log.
    pub last_index: Index,
    /// The term of the entry there.
    pub last_term: Term,
    /// A leader asked for this election, so votes are granted in spite of it.
    pub disrupt_leader: bool,
    /// Only the question whether a vote would be granted.
    pub pre_vote: bool,
}

/// The answer to a request for a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteResult {
    /// The answering server's term; in answer to a pre-vote the term of the request.
    pub term: Term,
    /// Whether the vote is, or would be, granted.
    pub granted: bool,
    /// Whether this answers a pre-vote; `None` in the short form, which does not say.
    pub pre_vote: Option<bool>,
}

/// The head of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// The last index that the snapshot covers.
    pub last_index: Index,
    /// The term of that entry.
    pub last_term: Term,
    /// The index of the entry with `configuration`.
    pub configuration_index: Index,
    /// The last configuration committed at `last_index`.
    pub configuration: Configuration,
    /// The encoded configuration as it came; empty in a message of our own making.
    pub configuration_bytes: Vec<u8>,
    /// How many bytes of data follow, uncompressed.
    pub data_bytes: u64,
}

/// The leader hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
    /// The last index of the leader's log.
    pub last_index: Index,
    /// The term of that entry.
    pub last_term: Term,
}
