//! How old what a follower has applied can be, for reads that are answered without the leader.
//!
//! A message of the leader says what is committed. Once that is applied here, what is applied is as new as the
//! message. Two things would make it look newer than it is, and are looked after:
//! - a new leader may not know yet what those before it have committed, so that an entry of its own term has to be
//!   applied; all that was committed before stands in front of it. A leader without other voters knows everything;
//! - after a pause of this process or of the network, messages come at once that lay in a buffer, so that those that
//!   come first after a silence do not count.
//!
//! What is not seen: a message that was on its way for less than an election timeout, and a leader that others have
//! replaced, which notices after an election timeout.

use std::time::Duration;

use super::adapter::Consensus;
use super::membership::is_only_voter;
use super::planted::Planted;
use crate::base::{Index, NodeId, Term, Time};

/// A message of a leader, and what has to be applied here for it to say something.
#[derive(Clone, Copy, Debug)]
struct Probe {
    at: Time,
    term: Term,
    commit: Index,
    /// Nobody else votes.
    alone: bool,
}

/// What is known of the age of what is applied.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    /// When a leader was heard last.
    heard: Option<Time>,
    /// Messages that came before this do not count.
    counts_from: Time,
    /// The term of the leader that was heard last, and what it said to be committed.
    commit: (Term, Index),
    /// One at a time: while entries are being applied later messages would only put it off.
    probe: Option<Probe>,
    fresh_at: Option<Time>,
}

impl Freshness {
    fn handle_heard(&mut self, probe: Probe, silence: Duration, rest: Duration) {
        if self.heard.is_none_or(|heard| probe.at.since(heard) > silence) {
            self.counts_from = probe.at.after(rest);
        }
        self.heard = Some(probe.at);
        // What an older connection still brings is late.
        self.commit = match self.commit {
            (term, commit) if term == probe.term => (term, commit.max(probe.commit)),
            _ => (probe.term, probe.commit),
        };
        let probe = Probe { commit: self.commit.1, ..probe };
        if probe.at >= self.counts_from && self.probe.is_none_or(|known| known.term < probe.term) {
            self.probe = Some(probe);
        }
    }

    fn handle_applied(&mut self, applied: Index, term: Option<Term>) {
        let reached = |probe: &mut Probe| {
            applied >= probe.commit && (probe.alone || term.is_some_and(|term| term >= probe.term))
        };
        if let Some(probe) = self.probe.take_if(reached) {
            self.fresh_at = self.fresh_at.max(Some(probe.at));
        }
    }
}

impl Consensus {
    /// The leader of this term says that everything up to `commit` is committed.
    pub(super) fn note_commit_of(&mut self, leader: NodeId, term: Term, commit: Index) {
        self.check_freshness();
        let hearing = self.errs(Planted::FreshByHearing);
        let alone = is_only_voter(self.configuration(), leader) || hearing;
        let commit = if hearing { Index(0) } else { commit };
        let probe = Probe { at: self.now, term, commit, alone };
        self.freshness.handle_heard(probe, self.config.election_timeout, self.config.heartbeat);
        self.check_freshness();
    }

    /// More is applied, perhaps.
    pub(super) fn check_freshness(&mut self) {
        let term = self.term_at(self.applied);
        self.freshness.handle_applied(self.applied, term);
    }

    /// The last moment of which it is known that all that was committed by then is applied here, give or take an
    /// election timeout. Of servers that do not lead.
    #[must_use]
    pub fn fresh_at(&self) -> Option<Time> {
        self.freshness.fresh_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_millis(3000);
    const HEARTBEAT: Duration = Duration::from_millis(500);

    fn at(ms: u64) -> Time {
        Time(0).after(Duration::from_millis(ms))
    }

    impl Freshness {
        /// A leader of term 2 was heard for a while.
        fn settled() -> Self {
            let mut fresh = Self::default();
            fresh.hears(0, 2, 5);
            fresh.hears(500, 2, 5);
            fresh.handle_applied(Index(5), Some(Term(2)));
            assert_eq!(fresh.fresh_at, Some(at(500)));
            fresh
        }

        fn hears(&mut self, ms: u64, term: u64, commit: u64) {
            let probe = Probe { at: at(ms), term: Term(term), commit: Index(commit), alone: false };
            self.handle_heard(probe, SILENCE, HEARTBEAT);
        }
    }

    #[test]
    fn what_is_committed_has_to_be_applied_here() {
        let mut fresh = Freshness::settled();
        fresh.hears(1000, 2, 9);
        fresh.handle_applied(Index(8), Some(Term(2)));
        assert_eq!(fresh.fresh_at, Some(at(500)));
        // Later messages do not put it off, nor do they count for more.
        fresh.hears(1500, 2, 20);
        fresh.handle_applied(Index(9), Some(Term(2)));
        assert_eq!(fresh.fresh_at, Some(at(1000)));
        // One that is late, from an older connection, says nothing new.
        fresh.hears(2000, 2, 7);
        fresh.handle_applied(Index(19), Some(Term(2)));
        assert_eq!(fresh.fresh_at, Some(at(1000)));
        fresh.handle_applied(Index(20), Some(Term(2)));
        assert_eq!(fresh.fresh_at, Some(at(2000)));
    }

    #[test]
    fn a_new_leader_counts_once_an_entry_of_its_own_is_applied() {
        let mut fresh = Freshness::settled();
        fresh.hears(1000, 3, 5);
        fresh.handle_applied(Index(5), Some(Term(2)));
        assert_eq!(fresh.fresh_at, Some(at(500)));
        fresh.handle_applied(Index(6), Some(Term(3)));
        assert_eq!(fresh.fresh_at, Some(at(1000)));
        // Alone it counts at once.
        let probe = Probe { at: at(1100), term: Term(4), commit: Index(6), alone: true };
        fresh.handle_heard(probe, SILENCE, HEARTBEAT);
        fresh.handle_applied(Index(6), Some(Term(3)));
        assert_eq!(fresh.fresh_at, Some(at(1100)));
    }

    #[test]
    fn what_a_silence_had_kept_back_does_not_count() {
        let mut fresh = Freshness::settled();
        // All at once, after a minute: the second was sent a minute ago, too.
        for ms in [60_000, 60_001, 60_499] {
            fresh.hears(ms, 2, 5);
            fresh.handle_applied(Index(5), Some(Term(2)));
            assert_eq!(fresh.fresh_at, Some(at(500)));
        }
        fresh.hears(60_500, 2, 5);
        fresh.handle_applied(Index(5), Some(Term(2)));
        assert_eq!(fresh.fresh_at, Some(at(60_500)));
    }
}
