//! The last events of a node, for whoever has to find out afterwards how something came that must not.
//!
//! A ring of a fixed size, written without a lock by whichever thread has something to note, in a few nanoseconds. While
//! it is read others may write: a line that is overwritten meanwhile may then mix two events.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Time;

/// How many events are kept.
pub const EVENTS_MAX: usize = 256;

/// What happened. Two numbers go with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// This node leads this term.
    Leads = 1,
    /// It follows: the term, and the leader or 0.
    Follows,
    /// An entry was proposed: index and term.
    Proposed,
    /// Something is to be made durable: the ticket, and how many entries.
    Persist,
    /// It is durable.
    Persisted,
    /// It is not: the ticket, and 1 if there was no room.
    NotPersisted,
    /// Entries are to be applied: the last index, and how many.
    Apply,
    /// A snapshot is being taken: index and term.
    Snapshot,
    /// It ended: index, and 1 if it is in place.
    SnapshotEnded,
    /// A leader's snapshot took the place of everything: index and term.
    Restored,
    /// A client is gone.
    Gone,
    /// A client's connection of SQLite broke by a panic.
    Broken,
    /// Another server connected: its id.
    PeerConnected,
    /// The disk is full: entries from this index are lost.
    Full,
    /// The node does not take part any more.
    Unavailable,
}

impl Event {
    const ALL: [Self; 15] = [
        Self::Leads,
        Self::Follows,
        Self::Proposed,
        Self::Persist,
        Self::Persisted,
        Self::NotPersisted,
        Self::Apply,
        Self::Snapshot,
        Self::SnapshotEnded,
        Self::Restored,
        Self::Gone,
        Self::Broken,
        Self::PeerConnected,
        Self::Full,
        Self::Unavailable,
    ];

    /// How it is told, and what the numbers are.
    fn words(self) -> (&'static str, [&'static str; 2]) {
        match self {
            Self::Leads => ("leads", ["term", ""]),
            Self::Follows => ("follows", ["term", "leader"]),
            Self::Proposed => ("proposed", ["index", "term"]),
            Self::Persist => ("persist", ["ticket", "entries"]),
            Self::Persisted => ("persisted", ["ticket", ""]),
            Self::NotPersisted => ("not persisted", ["ticket", "no room"]),
            Self::Apply => ("apply", ["index", "entries"]),
            Self::Snapshot => ("snapshot begun", ["index", "term"]),
            Self::SnapshotEnded => ("snapshot ended", ["index", "in place"]),
            Self::Restored => ("restored", ["index", "term"]),
            Self::Gone => ("gone", ["client", ""]),
            Self::Broken => ("panicked", ["client", ""]),
            Self::PeerConnected => ("server connected", ["id", ""]),
            Self::Full => ("disk full", ["index", ""]),
            Self::Unavailable => ("unavailable", ["term", ""]),
        }
    }
}

/// The last events of one node. Clones share them.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Ring>);

#[derive(Debug)]
struct Ring {
    /// How many there ever were.
    next: AtomicU64,
    /// Kind, time and the two numbers.
    events: [[AtomicU64; 4]; EVENTS_MAX],
}

impl Default for Journal {
    fn default() -> Self {
        let events = [const { [const { AtomicU64::new(0) }; 4] }; EVENTS_MAX];
        Self(Arc::new(Ring { next: AtomicU64::new(0), events }))
    }
}

impl Journal {
    /// Notes an event.
    pub fn note(&self, now: Time, event: Event, numbers: [u64; 2]) {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let Some(place) = self.0.events.get(place_of(number)) else { return };
        let [first, second] = numbers;
        for (cell, value) in place.iter().zip([event as u64, now.0, first, second]) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// How many events there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.next.load(Ordering::Relaxed)
    }

    /// Tells the log the last events: something happened that must not.
    pub fn tell(&self) {
        log::error!("the last of {} events, in seconds since the start: {self}", self.count());
    }
}

/// All that are kept, the oldest first.
impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = self.count();
        for number in next.saturating_sub(EVENTS_MAX as u64)..next {
            let Some(place) = self.0.events.get(place_of(number)) else { continue };
            let [kind, at, first, second] = place.each_ref().map(|cell| cell.load(Ordering::Relaxed));
            let Some(event) = Event::ALL.into_iter().find(|event| *event as u64 == kind) else { continue };
            let (what, names) = event.words();
            let mut line = String::new();
            for (name, value) in names.iter().zip([first, second]).filter(|(name, _)| !name.is_empty()) {
                write!(line, " {name} {value}")?;
            }
            write!(f, "\n  {}.{:06} {what}{line}", at / 1_000_000_000, at % 1_000_000_000 / 1000)?;
        }
        Ok(())
    }
}

fn place_of(number: u64) -> usize {
    usize::try_from(number % EVENTS_MAX as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{EVENTS_MAX, Event, Journal};
    use crate::base::Time;

    #[test]
    fn the_last_events_are_told_in_their_order_and_no_more_than_fit() {
        let journal = Journal::default();
        assert_eq!(journal.to_string(), "");
        journal.note(Time(1_500_000_000), Event::Leads, [3, 0]);
        journal.note(Time(2_000_001_000), Event::Proposed, [17, 3]);
        assert_eq!(journal.to_string(), "\n  1.500000 leads term 3\n  2.000001 proposed index 17 term 3");
        for ticket in 0..1000 {
            journal.note(Time(3_000_000_000), Event::Persisted, [ticket, 0]);
        }
        let told = journal.to_string();
        let lines: Vec<_> = told.lines().skip(1).collect();
        assert_eq!((lines.len(), journal.count()), (EVENTS_MAX, 1002));
        assert_eq!(lines[0], format!("  3.000000 persisted ticket {}", 1000 - EVENTS_MAX));
        assert_eq!(lines[EVENTS_MAX - 1], "  3.000000 persisted ticket 999");
    }

    #[test]
    fn every_event_has_its_words() {
        let journal = Journal::default();
        for event in Event::ALL {
            journal.note(Time(0), event, [1, 2]);
        }
        assert_eq!(journal.to_string().lines().count(), Event::ALL.len() + 1);
    }
}
