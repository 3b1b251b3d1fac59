//! Long random runs on a disk that fails, fills up and loses power, against a model that is a vector.

use super::script::load;
use super::*;
use crate::base::Prng;
use crate::disk::fault::{Fault, Survival};
use crate::storage::StorageError;
use crate::storage::loader::Loaded;

/// What the log is: a snapshot's term and index, and every entry from index 1 on that may be read.
#[derive(Clone, PartialEq)]
struct Log {
    snapshot: (u64, u64),
    entries: Vec<Option<(u64, Vec<u8>)>>,
}

impl Log {
    fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        let at = usize::try_from(index).unwrap().checked_sub(1)?;
        self.entries.get(at)?.as_ref().map(|entry| entry.0)
    }

    fn cut(&self, last: u64) -> Self {
        let last = usize::try_from(last).unwrap();
        Self { snapshot: self.snapshot, entries: self.entries[..last].to_vec() }
    }

    /// Whether a start that found `loaded` found this.
    fn is(&self, loaded: &Loaded) -> bool {
        let snapshot = loaded.snapshot.as_ref();
        snapshot.map_or((0, 0), |snapshot| (snapshot.term.0, snapshot.index.0)) == self.snapshot
            && loaded.last_index.0 == self.last()
            && loaded.first_index.0 <= self.snapshot.1 + 1
            && loaded.entries.len() as u64 == loaded.last_index.next().0 - loaded.first_index.0
            && loaded.entries.iter().zip(loaded.first_index.0..).all(|(entry, index)| {
                let bytes = entry.payload.contiguous().into_owned();
                let at = usize::try_from(index).unwrap() - 1;
                entry.index.0 == index && self.entries[at] == Some((entry.term.0, bytes))
            })
    }
}

/// A writer, and everything that a start may find.
struct World {
    prng: Prng,
    disk: FaultDisk,
    writer: Writer<FaultDisk>,
    term: u64,
    log: Log,
    /// What the log may be instead, since something was not finished.
    doubts: Vec<Log>,
    /// Version, term and vote; likewise.
    metadata: (u64, u64, u64),
    metadata_doubt: Option<(u64, u64, u64)>,
    /// What was done, for whoever has to find out why.
    told: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = FaultDisk::new(seed);
        let log = Log { snapshot: (0, 0), entries: Vec::new() };
        Self {
            prng: Prng::new(seed),
            writer: fresh(&disk),
            disk,
            term: 1,
            log,
            doubts: Vec::new(),
            metadata: (0, 0, 0),
            metadata_doubt: None,
            told: Vec::new(),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.prng.below(limit)
    }

    /// Does one thing. Says whether the writer is of use after it.
    fn step(&mut self) -> bool {
        if self.below(4) == 0 {
            let fault =
                [Fault::NoSpace, Fault::Broken, Fault::PowerOff][usize::try_from(self.below(3)).unwrap()];
            let at = self.below(8);
            self.told.push(format!("{fault:?} at {at}"));
            self.disk.fail_at(at, fault);
        }
        let done = match self.below(16) {
            0..=6 => self.append(),
            7 | 8 => self.truncate(),
            9 => self.set_metadata(),
            10..=12 => self.snapshot(),
            13 => self.restore(),
            14 => self.ahead(),
            _ => self.writer.close(),
        };
        match done {
            Ok(()) => true,
            Err(StorageError::NoSpace { .. }) => {
                self.told.push("no room".to_owned());
                true
            }
            Err(error) => {
                self.told.push(error.to_string());
                assert!(matches!(error, StorageError::Failed { .. }), "{error:?}");
                // A snapshot is written beside the writer.
                self.writer.io.check().is_ok()
            }
        }
    }

    fn append(&mut self) -> Result<(), StorageError> {
        self.term += u64::from(self.below(5) == 0);
        let mut next = self.log.last() + 1;
        let (mut batches, mut after) = (Vec::new(), self.log.clone());
        let mut states = Vec::new();
        for _ in 0..=self.below(3) {
            let count = 1 + self.below(3);
            let len = [32, 200, 496, 2000, 5000][usize::try_from(self.below(5)).unwrap()];
            let batch = entries(next, count, self.term, len);
            next += count;
            for entry in &batch {
                states.push(after.clone());
                after.entries.push(Some((entry.term.0, entry.payload.contiguous().into_owned())));
            }
            batches.push(batch);
        }
        self.told.push(format!("append up to {} in term {}", next - 1, self.term));
        let done = self.writer.append(&batches);
        self.settle(done, after, states)
    }

    /// Takes note of how it ended: `after` counts, or it and `between` are in doubt.
    fn settle(
        &mut self,
        done: Result<(), StorageError>,
        after: Log,
        between: Vec<Log>,
    ) -> Result<(), StorageError> {
        if done.is_ok() {
            self.log = after;
            self.doubts.clear();
        } else {
            self.doubts.extend(between);
            self.doubts.push(after);
        }
        done
    }

    fn truncate(&mut self) -> Result<(), StorageError> {
        let above = self.log.last() - self.log.snapshot.1;
        let from = self.log.snapshot.1 + 1 + self.below(above + 1);
        self.term += 1;
        self.told.push(format!("truncate from {from}"));
        let after = self.log.cut((from - 1).min(self.log.last()));
        let between = (from..=self.log.last()).map(|last| self.log.cut(last)).collect();
        let done = self.writer.truncate(Index(from));
        let next = self.writer.next_index().0;
        let done = self.settle(done, after, between);
        if matches!(done, Err(StorageError::NoSpace { .. })) {
            self.log = self.log.cut(next - 1);
        }
        done
    }

    fn set_metadata(&mut self) -> Result<(), StorageError> {
        self.term += self.below(2);
        let (term, vote) = (self.term, self.below(3));
        self.told.push(format!("metadata {term} {vote}"));
        let done = self.writer.set_metadata(Term(term), NodeId(vote));
        let after = (self.metadata.0 + 1, term, vote);
        if done.is_ok() {
            (self.metadata, self.metadata_doubt) = (after, None);
        } else {
            self.metadata_doubt = Some(after);
        }
        done
    }

    fn snapshot(&mut self) -> Result<(), StorageError> {
        let above = self.log.last() - self.log.snapshot.1;
        if above == 0 {
            return Ok(());
        }
        let (index, trailing) = (self.log.snapshot.1 + 1 + self.below(above), self.below(6));
        let term = self.log.term_at(index).unwrap();
        self.told.push(format!("snapshot {term} {index} with {trailing} trailing"));
        let after = Log { snapshot: (term, index), ..self.log.clone() };
        // What the log may be because of what came before holds for the new snapshot as well.
        let doubts: Vec<Log> = self.doubts.iter().filter(|log| log.last() >= index).cloned().collect();
        let snap = write_snapshot(&mut self.disk.clone(), &header(index, term), &[TwoPages], true)?;
        let done = self.writer.install_snapshot_files(snap, trailing);
        let still = doubts.into_iter().map(|log| Log { snapshot: (term, index), ..log });
        if done.is_ok() {
            self.log = after;
            self.doubts = still.collect();
        } else {
            self.doubts.extend(still);
            self.doubts.push(after);
        }
        done
    }

    fn restore(&mut self) -> Result<(), StorageError> {
        let (s_term, s) = self.log.snapshot;
        let index = s + 1 + self.below(self.log.last() - s + 8);
        let held = self.log.term_at(index);
        let term = match held {
            Some(held) if self.below(2) == 0 => held,
            _ => s_term + self.below(self.term - s_term + 1),
        };
        if self.log.entries.is_empty() && term == 0 {
            return Ok(());
        }
        self.told.push(format!("leader's snapshot {term} {index}, {held:?} held"));
        let same = held == Some(term);
        let blank = vec![None; usize::try_from(index).unwrap()];
        let below = if same { self.log.cut(index).entries } else { blank };
        let after = Log { snapshot: (term, index), entries: below };
        let mut between = vec![];
        if same {
            between.push(Log { snapshot: (term, index), ..self.log.clone() });
        } else if held.is_some() {
            between.extend((index..=self.log.last()).map(|end| self.log.cut(end - 1)));
        }
        let snap = write_snapshot(&mut self.disk.clone(), &header(index, term), &[TwoPages], true)?;
        let done = self.writer.restore_snapshot(snap, held.map(Term));
        let next = self.writer.next_index().0;
        let done = self.settle(done, after, between);
        if matches!(done, Err(StorageError::NoSpace { .. })) {
            self.log = self.log.cut(next - 1);
        }
        done
    }

    fn ahead(&mut self) -> Result<(), StorageError> {
        self.told.push("ahead".to_owned());
        while self.writer.prepare_ahead()? {}
        Ok(())
    }

    /// The process ends, perhaps with the power; another one loads what is left, if need be several times.
    fn restart(&mut self) {
        let survival = [Survival::Nothing, Survival::Everything, Survival::Torn];
        loop {
            if let Some(survival) = survival.get(usize::try_from(self.below(4)).unwrap()) {
                self.told.push(format!("crash, {survival:?}"));
                self.disk.crash(*survival);
            }
            if self.below(3) == 0 {
                let fault = [Fault::NoSpace, Fault::Broken][usize::try_from(self.below(2)).unwrap()];
                let at = self.below(6);
                self.told.push(format!("{fault:?} at {at}"));
                self.disk.fail_at(at, fault);
            }
            let auto_recovery = self.below(2) == 0;
            self.told.push(format!("load, auto-recovery {auto_recovery}"));
            let loaded = match load(&mut self.disk, auto_recovery) {
                Ok(loaded) => loaded,
                Err(text) => {
                    self.told.push(text.clone());
                    let of_the_disk = ["no storage space", "the medium is broken", "the power is off"];
                    assert!(of_the_disk.iter().any(|fault| text.contains(fault)), "no start: {text}");
                    self.disk.crash(Survival::Everything);
                    continue;
                }
            };
            self.take(&loaded);
            return;
        }
    }

    /// What was done, what is there, and what should be.
    fn account(&self) -> String {
        let said = |log: &Log| {
            let terms = log.entries.iter().map(|entry| entry.as_ref().map_or(0, |entry| entry.0));
            format!("{:?} {:?}", log.snapshot, terms.collect::<Vec<_>>())
        };
        let doubts: Vec<String> = self.doubts.iter().map(said).collect();
        let (told, files) = (self.told.join("\n  "), names(&self.disk));
        format!("{told}\n{files:?}\nexpected {}\nor {}", said(&self.log), doubts.join("\nor "))
    }

    /// Goes on with what was loaded, which is one of the things that may be.
    fn take(&mut self, loaded: &Loaded) {
        let found = std::iter::once(&self.log).chain(&self.doubts).find(|log| log.is(loaded));
        self.log = found.cloned().unwrap_or_else(|| panic!("loaded {}", said(loaded)));
        self.doubts.clear();
        let metadata = (loaded.metadata_version, loaded.term.0, loaded.voted_for.0);
        let terms = loaded.entries.iter().map(|entry| entry.term.0);
        let highest = terms.chain([self.log.snapshot.0]).max().unwrap();
        let may_be = [Some(self.metadata), self.metadata_doubt]
            .into_iter()
            .flatten()
            .map(|stored| if highest > stored.1 { (stored.0 + 1, highest, 0) } else { stored });
        let may_be: Vec<_> = may_be.collect();
        assert!(may_be.contains(&metadata), "metadata {metadata:?} loaded, {may_be:?} expected");
        (self.metadata, self.metadata_doubt) = (metadata, None);
        self.writer =
            Writer::new(self.disk.clone(), WriterState::from(loaded), small(self.prng.below(2) == 0));
    }
}

fn said(loaded: &Loaded) -> String {
    let snapshot = loaded.snapshot.as_ref().map(|snapshot| (snapshot.term.0, snapshot.index.0));
    let entries: Vec<_> = loaded.entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect();
    format!("{snapshot:?} {entries:?}, {:?}", loaded.notes)
}

#[test]
fn whatever_happens_in_whatever_order_a_start_finds_what_was_acknowledged() {
    for seed in 0..300 {
        let world = std::cell::RefCell::new(World::new(seed));
        let run = std::panic::AssertUnwindSafe(|| {
            let mut world = world.borrow_mut();
            for _ in 0..60 {
                if !world.step() || world.below(8) == 0 {
                    world.restart();
                }
            }
        });
        if std::panic::catch_unwind(run).is_err() {
            panic!("seed {seed}: {}", world.borrow().account());
        }
    }
}
