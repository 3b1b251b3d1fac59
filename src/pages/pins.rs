//! Which connection has pinned which version, and what that keeps in memory.
//!
//! A pinned version keeps the pages that later versions replaced. Each connection notes its pin in a place of its
//! own, without a lock that others wait for; whoever asks looks at all of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Version, WriterId};

const NONE: u64 = u64::MAX;

/// Where one connection notes what it has pinned.
#[derive(Debug)]
pub struct Pin {
    who: WriterId,
    seq: AtomicU64,
    /// Does not keep the version alive: that is the connection's own business.
    version: Mutex<Weak<Version>>,
}

impl Pin {
    /// The connection has pinned this version now.
    pub fn set(&self, version: &Arc<Version>) {
        *lock(&self.version) = Arc::downgrade(version);
        self.set_seq(Some(version.seq()));
    }

    /// What it reads is to be called `seq` now, though the pages are those it had; none: it has nothing pinned.
    pub fn set_seq(&self, seq: Option<u64>) {
        self.seq.store(seq.unwrap_or(NONE), Ordering::Release);
    }

    /// The place of the version in the order of its database.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        Some(self.seq.load(Ordering::Acquire)).filter(|seq| *seq != NONE)
    }

    /// The version, unless the connection is just changing it.
    fn version(&self) -> Option<Arc<Version>> {
        let seq = self.seq()?;
        lock(&self.version).upgrade().filter(|version| version.seq() == seq)
    }
}

/// The pins of all connections to one database.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    next: u64,
    all: BTreeMap<u64, Weak<Pin>>,
}

/// A connection's place among the pins of its database; free again when dropped.
#[derive(Debug)]
pub struct Pinned {
    pin: Arc<Pin>,
    key: u64,
}

impl Pinned {
    /// The place.
    #[must_use]
    pub fn pin(&self) -> &Pin {
        &self.pin
    }
}

impl Pins {
    pub(super) fn add(&self, who: WriterId) -> Pinned {
        let pin = Arc::new(Pin { who, seq: AtomicU64::new(NONE), version: Mutex::new(Weak::new()) });
        let mut places = lock(&self.0);
        let key = places.next;
        places.next += 1;
        places.all.insert(key, Arc::downgrade(&pin));
        Pinned { pin, key }
    }

    pub(super) fn remove(&self, pinned: &Pinned) {
        lock(&self.0).all.remove(&pinned.key);
    }

    fn list(&self) -> Vec<Arc<Pin>> {
        lock(&self.0).all.values().filter_map(Weak::upgrade).collect()
    }

    /// Who has pinned what.
    pub(super) fn seqs(&self) -> Vec<(WriterId, u64)> {
        self.list().iter().filter_map(|pin| Some((pin.who, pin.seq()?))).collect()
    }

    /// Of those who pinned a version older than `committed`: how many pages are in memory for the sake of each
    /// and of those after it. Newest first; what is beyond `limit` is not counted to its end.
    pub(super) fn held(&self, committed: &Arc<Version>, limit: usize) -> Vec<(WriterId, u64, usize)> {
        let found = self.list().into_iter().filter_map(|pin| Some((pin.who, pin.version()?)));
        let mut old: Vec<(WriterId, Arc<Version>)> =
            found.filter(|(_, version)| version.seq() < committed.seq()).collect();
        old.sort_by_key(|(who, version)| (std::cmp::Reverse(version.seq()), *who));
        let (mut newer, mut pages) = (committed, 0_usize);
        let mut held = Vec::with_capacity(old.len());
        for (who, version) in &old {
            if pages <= limit {
                pages +=
                    version.tree.count_beside(&newer.tree, limit.saturating_sub(pages).saturating_add(1));
            }
            newer = version;
            held.push((*who, version.seq(), pages));
        }
        held
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
