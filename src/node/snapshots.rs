//! When a snapshot is due, and how much of the log before it stays.
//!
//! By default both go by bytes, so that neither disk nor memory is spent on rewriting an unchanged database.
//! Numbers that the program gave through the C API rule instead, exactly as in C.

use std::collections::VecDeque;

use crate::base::{Index, Term, Time};
use crate::consensus::snapshot_pause;

/// Entries at least between two default snapshots: C's number.
const ENTRIES_MIN: u64 = 1024;

/// Log bytes at least between two default snapshots.
const BYTES_MIN: u64 = 16 << 20;

/// Entries kept before a snapshot at most, by default: C's number.
const TRAILING_MAX: u64 = 8192;

/// Entries whose sizes are remembered at most, whatever the program asks to keep: eight bytes each.
const SIZES_MAX: u64 = 1 << 20;

/// How `dqlite_node_set_snapshot_params` and `_v2` set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPolicy {
    /// Not called: by bytes.
    Default,
    /// Called: by numbers of entries.
    Given {
        /// Applied entries between two snapshots.
        threshold: u32,
        /// Entries kept before a snapshot; at most that many with the dynamic strategy.
        trailing: u32,
        /// Keep only as many entries as weigh as much as the snapshot, at least `threshold`.
        dynamic: bool,
    },
}

/// Watches the log grow.
#[derive(Debug)]
pub struct SnapshotSchedule {
    policy: SnapshotPolicy,
    last: Index,
    term_min: Term,
    bytes_since: u64,
    sizes: VecDeque<u64>,
    newest: Index,
    running: bool,
    /// What the newest snapshot covers.
    covered: Index,
    /// Failures in a row, and until when none is made for the sake of a peer after that.
    failures: u32,
    rests_until: Time,
}

impl SnapshotSchedule {
    /// A schedule after a snapshot at `last` (0: none) of `term`.
    #[must_use]
    pub fn new(policy: SnapshotPolicy, last: Index, term: Term) -> Self {
        Self {
            policy,
            last,
            term_min: term,
            bytes_since: 0,
            sizes: VecDeque::new(),
            newest: last,
            running: false,
            covered: last,
            failures: 0,
            rests_until: Time::default(),
        }
    }

    /// An entry with a payload of `bytes` was applied.
    pub fn handle_applied(&mut self, index: Index, bytes: usize) {
        let bytes = bytes as u64;
        self.newest = index;
        self.bytes_since = self.bytes_since.saturating_add(bytes);
        self.sizes.push_back(bytes);
        if self.sizes.len() as u64 > self.sizes_max() {
            self.sizes.pop_front();
        }
    }

    fn sizes_max(&self) -> u64 {
        match self.policy {
            SnapshotPolicy::Default => TRAILING_MAX,
            SnapshotPolicy::Given { trailing, dynamic: true, .. } => u64::from(trailing).min(SIZES_MAX),
            SnapshotPolicy::Given { .. } => 0,
        }
    }

    /// Whether a snapshot at the applied entry `index` of `term` should start now. One of a lower term than an
    /// earlier snapshot would count as older than that one, so it waits for the next term.
    #[must_use]
    pub fn is_due(&self, index: Index, term: Term, database_bytes: impl FnOnce() -> u64) -> bool {
        let entries = index.0.saturating_sub(self.last.0);
        if self.running || term < self.term_min || entries == 0 {
            return false;
        }
        match self.policy {
            SnapshotPolicy::Given { threshold, .. } => entries >= u64::from(threshold),
            SnapshotPolicy::Default => {
                entries >= ENTRIES_MIN
                    && self.bytes_since >= BYTES_MIN
                    && self.bytes_since >= database_bytes()
            }
        }
    }

    /// Whether one of the applied entry `index` of `term` should start now for the sake of a peer, though it is not
    /// due. `again`: the newest one cannot be read, so that another one of the same entry is better than it.
    #[must_use]
    pub fn is_wanted(&self, index: Index, term: Term, again: bool, now: Time) -> bool {
        let better = index > self.covered || (again && index == self.covered && index > Index(0));
        better && !self.running && term >= self.term_min && now >= self.rests_until
    }

    /// A snapshot started.
    pub fn handle_started(&mut self) {
        self.running = true;
        // What is applied while it is being written counts for the next one. After a failure that one is due
        // after as much log again: a full disk must not be hammered.
        self.bytes_since = 0;
    }

    /// The snapshot at `index` is durable, or failed.
    pub fn handle_ended(&mut self, done: Option<(Index, Term)>, now: Time) {
        self.running = false;
        match done {
            Some((index, term)) => {
                (self.last, self.covered, self.term_min, self.failures) = (index, index, term, 0);
            }
            None => {
                self.last = self.newest;
                self.failures = self.failures.saturating_add(1);
                self.rests_until = now.after(snapshot_pause(self.failures));
            }
        }
    }

    /// A leader's snapshot at `index` took the place of everything.
    pub fn handle_restored(&mut self, index: Index, term: Term) {
        (self.last, self.newest, self.covered, self.term_min) = (index, index, index, term);
        self.bytes_since = 0;
        self.sizes.clear();
    }

    /// How many entries stay before a snapshot of `snapshot_bytes`.
    #[must_use]
    pub fn trailing(&self, snapshot_bytes: u64) -> u64 {
        let fitting = |budget: u64| {
            let mut left = budget;
            let fits = |bytes: &&u64| left.checked_sub(**bytes).map(|rest| left = rest).is_some();
            self.sizes.iter().rev().take_while(fits).count() as u64
        };
        match self.policy {
            SnapshotPolicy::Default => fitting(snapshot_bytes.max(BYTES_MIN)).min(TRAILING_MAX),
            SnapshotPolicy::Given { trailing, dynamic: false, .. } => u64::from(trailing),
            SnapshotPolicy::Given { threshold, trailing, dynamic: true } => fitting(snapshot_bytes)
                .clamp(u64::from(threshold).min(u64::from(trailing)), u64::from(trailing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SnapshotPolicy, SnapshotSchedule};
    use crate::base::{Index, Term, Time};
    use crate::consensus::snapshot_pause;

    #[test]
    fn given_numbers_rule_exactly() {
        let given = SnapshotPolicy::Given { threshold: 8, trailing: 16, dynamic: false };
        let mut schedule = SnapshotSchedule::new(given, Index(10), Term(1));
        assert!(!schedule.is_due(Index(17), Term(1), || 0));
        assert!(schedule.is_due(Index(18), Term(1), || u64::MAX));
        schedule.handle_started();
        assert!(!schedule.is_due(Index(18), Term(1), || 0));
        schedule.handle_ended(Some((Index(18), Term(1))), Time(0));
        assert!(!schedule.is_due(Index(25), Term(1), || 0));
        assert_eq!(schedule.trailing(0), 16);
    }

    #[test]
    fn by_default_entries_and_bytes_must_both_have_come() {
        let mut schedule = SnapshotSchedule::new(SnapshotPolicy::Default, Index(0), Term(0));
        (1..=2000).for_each(|index| schedule.handle_applied(Index(index), 4096));
        assert!(!schedule.is_due(Index(2000), Term(1), || 0), "8 MB of log are too little");
        (2001..=5000).for_each(|index| schedule.handle_applied(Index(index), 4096));
        assert!(schedule.is_due(Index(5000), Term(1), || 1 << 20));
        assert!(!schedule.is_due(Index(5000), Term(1), || 1 << 30), "less log than database");
        assert_eq!(schedule.trailing(0), 4096, "16 MiB of entries stay");
    }

    #[test]
    fn what_is_applied_while_a_snapshot_is_written_counts_for_the_next_one() {
        let mut schedule = SnapshotSchedule::new(SnapshotPolicy::Default, Index(0), Term(0));
        (1..=5000).for_each(|index| schedule.handle_applied(Index(index), 4096));
        schedule.handle_started();
        (5001..=10_000).for_each(|index| schedule.handle_applied(Index(index), 4096));
        assert!(!schedule.is_due(Index(10_000), Term(1), || 0), "one at a time");
        schedule.handle_ended(Some((Index(5000), Term(1))), Time(0));
        assert!(schedule.is_due(Index(10_000), Term(1), || 0));
    }

    #[test]
    fn the_memory_of_sizes_is_bounded_whatever_is_asked() {
        let given = SnapshotPolicy::Given { threshold: 4, trailing: u32::MAX, dynamic: true };
        let mut schedule = SnapshotSchedule::new(given, Index(0), Term(0));
        (1..=super::SIZES_MAX + 10).for_each(|index| schedule.handle_applied(Index(index), 1));
        assert_eq!(schedule.sizes.len() as u64, super::SIZES_MAX);
    }

    #[test]
    fn the_dynamic_strategy_keeps_what_fits_between_its_bounds() {
        let given = SnapshotPolicy::Given { threshold: 4, trailing: 100, dynamic: true };
        let mut schedule = SnapshotSchedule::new(given, Index(0), Term(0));
        (1..=200).for_each(|index| schedule.handle_applied(Index(index), 10));
        assert_eq!(schedule.trailing(95), 9);
        assert_eq!(schedule.trailing(5), 4);
        assert_eq!(schedule.trailing(1 << 30), 100);
    }

    #[test]
    fn one_for_a_peer_is_made_at_once_but_not_again_and_again() {
        let mut schedule = SnapshotSchedule::new(SnapshotPolicy::Default, Index(10), Term(2));
        let start = Time(7);
        assert!(!schedule.is_wanted(Index(10), Term(2), false, start), "there is one");
        assert!(schedule.is_wanted(Index(10), Term(2), true, start), "it cannot be read");
        assert!(!schedule.is_wanted(Index(11), Term(1), true, start), "it would count as older");
        assert!(schedule.is_wanted(Index(11), Term(2), false, start));
        let mut now = start;
        for failures in 1..10 {
            schedule.handle_started();
            assert!(!schedule.is_wanted(Index(12), Term(2), true, now), "one at a time");
            schedule.handle_ended(None, now);
            assert!(!schedule.is_wanted(Index(12), Term(2), true, now), "a full disk is not hammered");
            now = now.after(snapshot_pause(failures));
            assert!(schedule.is_wanted(Index(12), Term(2), true, now));
        }
        assert_eq!(snapshot_pause(9), snapshot_pause(u32::MAX));
        schedule.handle_started();
        schedule.handle_ended(Some((Index(12), Term(2))), now);
        assert!(!schedule.is_wanted(Index(12), Term(2), false, now));
        assert!(schedule.is_wanted(Index(13), Term(2), false, now));
    }

    #[test]
    fn a_snapshot_of_a_lower_term_than_the_last_waits() {
        let given = SnapshotPolicy::Given { threshold: 1, trailing: 4, dynamic: false };
        let schedule = SnapshotSchedule::new(given, Index(16), Term(2));
        assert!(!schedule.is_due(Index(17), Term(1), || 0));
        assert!(schedule.is_due(Index(18), Term(2), || 0));
    }
}
