//! Mistakes that tests plant, to see that they would be found. In the library there are none: the question
//! is answered when it is compiled.

use super::adapter::Consensus;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// Answers to labels of an earlier leadership count (B15).
    OldLabels,
    /// A read joins the round that is under way (B16).
    JoinedRound,
    /// raft-rs is told that a label was refused (B17).
    SteppedLabel,
    /// Peers of old libraries are believed at once (B18).
    NoFence,
    /// Appends end wherever they like (I1).
    ShortAppends,
    /// Answers count for more than was sent.
    UncappedMatch,
    /// A configuration is in force once it is committed.
    LateConfiguration,
    /// Votes leave before they are durable.
    EarlyVotes,
    /// Snapshots carry the configuration in force.
    UncommittedSnapshot,
    /// The log is forgotten while a peer needs it that installs a snapshot.
    ForgottenTail,
    /// Whoever hears of a leader counts as fresh, whatever it has applied.
    FreshByHearing,
}

#[cfg(test)]
std::thread_local! {
    /// What servers that start on this thread are given.
    pub(super) static PLANTED: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

impl Consensus {
    /// Whether this mistake is to be made.
    #[cfg(test)]
    pub(super) fn errs(&self, mistake: Planted) -> bool {
        self.planted == Some(mistake)
    }

    /// Whether this mistake is to be made: never.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the tests have a field for it")]
    pub(super) const fn errs(&self, _mistake: Planted) -> bool {
        false
    }
}
