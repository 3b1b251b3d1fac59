//! What a server does in its cluster. The numbers differ between the client protocol and the log
//! (client: 0 voter, 1 stand-by, 2 spare; log: 0 stand-by, 1 voter, 2 spare), so they exist in codecs only.

/// The role of a server in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Stores the log and votes.
    Voter,
    /// Stores the log and does not vote.
    StandBy,
    /// Neither stores the log nor votes.
    Spare,
}
