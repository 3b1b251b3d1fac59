//! The disk of a server, what crosses the network, and what stands for databases.

use std::collections::VecDeque;

use crate::base::{Entry, EntryKind, Index, Prng};
use crate::codec::peer::{InstallSnapshot, Message};
use crate::consensus::SnapshotMeta;
use crate::consensus::tests::harness::{Stored, Work};

/// What crosses the network.
#[derive(Clone, Debug)]
pub(in crate::consensus::tests) enum Packet {
    Message(Message),
    /// The head of a snapshot and what stands for its data.
    Snapshot(InstallSnapshot, u64),
    /// Its data have arrived.
    Data,
    /// The connection has ended.
    End,
}

/// Databases: how far they are, and a checksum over all that went into them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::consensus::tests) struct Machine {
    pub(in crate::consensus::tests) index: Index,
    pub(in crate::consensus::tests) sum: u64,
}

/// A checksum of an entry's content; that of a barrier is arbitrary.
pub(in crate::consensus::tests) fn content(entry: &Entry) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325 ^ u64::from(entry.kind.code());
    if entry.kind != EntryKind::Barrier {
        for byte in entry.payload.contiguous().iter() {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    sum
}

impl Machine {
    pub(in crate::consensus::tests) fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.index.next(), "application skips or repeats");
        self.index = entry.index;
        if entry.kind == EntryKind::Command {
            self.sum = (self.sum ^ content(entry)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }
}

/// What a C server does when a write is done.
#[derive(Clone, Copy, Debug)]
pub(in crate::consensus::tests) enum Completion {
    Led,
    Stored { leader: u64, term: u64, commit: u64 },
}

#[derive(Clone, Debug)]
pub(in crate::consensus::tests) enum Job {
    Write(Work, Completion),
    /// A snapshot of this server's own.
    Snapshot {
        meta: SnapshotMeta,
        image: u64,
        keep_from: Index,
    },
    /// The data of a leader's snapshot are put beside what is in use.
    Store,
    /// They take its place.
    Install {
        meta: SnapshotMeta,
        image: u64,
        from: u64,
        term: u64,
    },
}

#[derive(Clone, Debug, Default)]
pub(in crate::consensus::tests) struct Disk {
    pub(in crate::consensus::tests) stored: Stored,
    /// The data of the snapshot.
    pub(in crate::consensus::tests) image: u64,
    pub(in crate::consensus::tests) jobs: VecDeque<Job>,
}

impl Disk {
    pub(in crate::consensus::tests) fn new(stored: Stored) -> Self {
        Self { stored, ..Self::default() }
    }

    fn write(&mut self, work: &Work, entries: usize) {
        let stored = &mut self.stored;
        if let Some(from) = work.truncate_from {
            stored.entries.retain(|entry| entry.index < from);
        }
        if let Some((term, vote)) = work.metadata {
            (stored.term, stored.vote) = (term, vote);
        }
        for entry in &work.entries[..entries] {
            let covered = stored.snapshot.as_ref().map_or(0, |it| it.index.0);
            let last = stored.entries.last().map_or(covered, |it| it.index.0);
            assert_eq!(entry.index.0, last + 1, "the log on disk would have a gap");
            stored.entries.push(entry.clone());
        }
    }

    /// The oldest work is done.
    pub(in crate::consensus::tests) fn work(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front()?;
        match &job {
            Job::Write(work, _) => self.write(work, work.entries.len()),
            Job::Store => {}
            Job::Snapshot { meta, image, keep_from } => {
                (self.stored.snapshot, self.image) = (Some(meta.clone()), *image);
                self.stored.entries.retain(|entry| entry.index >= *keep_from);
            }
            Job::Install { meta, image, .. } => {
                (self.stored.snapshot, self.image) = (Some(meta.clone()), *image);
                self.stored.entries.clear();
            }
        }
        Some(job)
    }

    /// The power fails: of what was under way some is done, and of the next work a part.
    pub(in crate::consensus::tests) fn crash(mut self, prng: &mut Prng) -> Self {
        for _ in 0..prng.below(self.jobs.len() as u64 + 1) {
            self.work();
        }
        if let Some(Job::Write(work, _)) = self.jobs.pop_front()
            && prng.below(2) == 0
        {
            let part = prng.below(work.entries.len() as u64 + 1);
            self.write(&work, usize::try_from(part).unwrap());
        }
        self.jobs.clear();
        self
    }

    pub(in crate::consensus::tests) fn consider_snapshot(
        &mut self,
        meta: SnapshotMeta,
        image: u64,
        threshold: u64,
        trailing: u64,
    ) -> bool {
        let last = self.stored.snapshot.as_ref().map_or(0, |it| it.index.0);
        let busy = self.jobs.iter().any(|job| !matches!(job, Job::Write(..)));
        if busy || meta.index.0 < last + threshold {
            return false;
        }
        let keep_from = Index((meta.index.0 + 1).saturating_sub(trailing));
        self.jobs.push_back(Job::Snapshot { meta, image, keep_from });
        true
    }

    /// Index and term of the last entry.
    pub(in crate::consensus::tests) fn term_at(&self, index: Index) -> Option<u64> {
        let first = self.stored.entries.first().map_or(1, |it| it.index.0);
        let place = usize::try_from(index.0.checked_sub(first)?).unwrap();
        self.stored.entries.get(place).map(|it| it.term.0)
    }

    /// Whether this entry is durable here, itself or under the snapshot.
    pub(in crate::consensus::tests) fn has(&self, index: Index, term: u64) -> bool {
        let covered = self.stored.snapshot.as_ref().is_some_and(|it| it.index >= index);
        covered || self.term_at(index) == Some(term)
    }
}
