//! The disk thread: takes everything that is queued, makes it durable in the order of the queue with as few
//! writes and syncs as that order allows, and reports.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::queue::Queue;
use super::token::{Nudge, Token};
use crate::base::limits::WRITE_BYTES_MAX;
use crate::base::meter::Sizes;
use crate::base::{Entry, Index, NodeId, Term};
use crate::disk::Disk;
use crate::storage::snapshots::FinishedSnapshot;
use crate::storage::writer::Writer;
use crate::storage::{Preparation, StorageError};

/// Something that must become durable.
#[derive(Debug)]
pub enum DiskWork {
    /// Truncate, then store term and vote, then append: whatever of it is given.
    Persist {
        /// Names the work in the report.
        ticket: u64,
        /// The first index to go.
        truncate_from: Option<Index>,
        /// Entries for the end of the log.
        entries: Vec<Entry>,
        /// Term and vote.
        metadata: Option<(Term, NodeId)>,
    },
    /// Put a finished snapshot in place and drop the log that it makes needless.
    Install {
        /// The temporary files.
        snapshot: FinishedSnapshot,
        /// How many entries before it stay.
        trailing: u64,
    },
    /// Put a leader's snapshot in the place of the whole log.
    Restore {
        /// The temporary files.
        snapshot: FinishedSnapshot,
        /// The term of the entry that the log holds at the snapshot's index, if it does.
        held: Option<Term>,
    },
    /// Delete the files of a snapshot that is not wanted any more.
    Discard {
        /// The temporary files.
        snapshot: FinishedSnapshot,
    },
    /// Finish the files and end the thread.
    Close,
}

/// What became of it.
#[derive(Debug)]
pub enum DiskDone {
    /// Durable, like everything before it.
    Persisted {
        /// The work.
        ticket: u64,
    },
    /// Not durable, and nothing after it either.
    Failed {
        /// The work.
        ticket: u64,
        /// There is no room: later work may succeed.
        no_space: bool,
        /// The reason.
        text: String,
    },
    /// The snapshot counts.
    Installed,
    /// The snapshot does not count; the older ones and the log are untouched.
    NotInstalled {
        /// The reason.
        text: String,
    },
    /// The leader's snapshot is the log now.
    Restored,
    /// It is not.
    NotRestored {
        /// Where the next entry goes: the log may have lost entries which the snapshot contradicts.
        next: Index,
        /// There is no room: later work may succeed.
        no_space: bool,
        /// The reason.
        text: String,
    },
    /// The files are closed.
    Closed {
        /// The reason why they could not be finished, if so. Nothing that was reported is lost by it.
        error: Option<String>,
    },
}

/// Works until told to close. `report` is called after the work it reports is durable, with the token; and `after`
/// each turn without it. A panic ends the writing for good: all work is refused from
/// then on, so that nobody waits for it.
pub fn run<D: Disk>(
    token: &Token<D>,
    work: &Queue<DiskWork>,
    nudge: &Nudge,
    report: impl Fn(DiskDone),
    after: impl Fn(),
) {
    loop {
        let mut items = work.wait();
        if items.is_empty() {
            return;
        }
        let mut held = token.lock();
        // What came while the token was waited for goes along.
        items.append(&mut work.take());
        let turn = perform(&mut held, items, &report);
        drop(held);
        match turn {
            Ok(Turn::Closed) => return after(),
            Ok(Turn::Worked { prepare }) => {
                after();
                if prepare {
                    nudge.give();
                }
            }
            Err(owed) => {
                refuse_all(owed, work, report);
                return after();
            }
        }
    }
}

/// Does all of `items` as the holder of the token.
///
/// # Errors
/// A panic, now or earlier: what is to be reported of the items. Some of it may have been reported already.
pub fn perform<D: Disk>(
    held: &mut Option<Worker<D>>,
    items: Vec<DiskWork>,
    report: &impl Fn(DiskDone),
) -> Result<Turn, Vec<DiskDone>> {
    let owed: Vec<DiskDone> = items.iter().filter_map(refused).collect();
    // What a panic leaves behind is dropped unseen.
    let Some(mut worker) = held.take() else { return Err(owed) };
    match catch_unwind(AssertUnwindSafe(|| (worker.work(items, report), worker))) {
        Ok((turn, worker)) => {
            *held = Some(worker);
            Ok(turn)
        }
        Err(_) => {
            log::error!("a thread panicked over the log: nothing is written any more");
            Err(owed)
        }
    }
}

/// The answer to work that will not be done.
fn refused(work: &DiskWork) -> Option<DiskDone> {
    let text = "a thread panicked over the log".to_owned();
    Some(match work {
        DiskWork::Persist { ticket, .. } => DiskDone::Failed { ticket: *ticket, no_space: false, text },
        DiskWork::Install { .. } => DiskDone::NotInstalled { text },
        DiskWork::Restore { .. } => DiskDone::NotRestored { next: Index(0), no_space: false, text },
        DiskWork::Discard { .. } => return None,
        DiskWork::Close => DiskDone::Closed { error: Some(text) },
    })
}

fn refuse_all(mut owed: Vec<DiskDone>, work: &Queue<DiskWork>, report: impl Fn(DiskDone)) {
    // Those that were reported before the panic are not waited for any more, and not heard.
    loop {
        for done in owed {
            let last = matches!(done, DiskDone::Closed { .. });
            report(done);
            if last {
                return;
            }
        }
        let items = work.wait();
        if items.is_empty() {
            return;
        }
        owed = items.iter().filter_map(refused).collect();
    }
}

/// What a turn of the disk thread was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// For work that was queued; whether something should be prepared for work to come.
    Worked {
        /// It should.
        prepare: bool,
    },
    /// For the end.
    Closed,
}

/// The work of the disk thread, without the thread.
pub struct Worker<D: Disk> {
    writer: Writer<D>,
    batch: Batch,
}

impl<D: Disk> Worker<D> {
    /// Counts in `sizes` how many entries share a write.
    #[must_use]
    pub fn counting(mut self, sizes: &Arc<Sizes>) -> Self {
        self.batch.sizes = Arc::clone(sizes);
        self
    }
}

impl<D: Disk> Worker<D> {
    /// Works with `writer`.
    #[must_use]
    pub fn new(writer: Writer<D>) -> Self {
        Self { writer, batch: Batch::default() }
    }

    /// Prepares the next segment a little further; whether more of that is to be done.
    pub fn prepare_ahead(&mut self) -> bool {
        self.writer.prepare_ahead().unwrap_or_else(|error| {
            log::debug!("no segment prepared ahead: {error}");
            false
        })
    }

    /// Finalises the last full segment, and hands out the preparation of the next one, if there is anything to
    /// prepare.
    pub fn take_preparation(&mut self) -> Option<Preparation<D::File>> {
        let taken = self.writer.finalise_ahead().and_then(|()| self.writer.take_preparation());
        taken.unwrap_or_else(|error| {
            log::debug!("no segment prepared ahead: {error}");
            None
        })
    }

    /// Takes back what was handed out.
    pub fn give_back(&mut self, preparation: Preparation<D::File>, outcome: Result<(), StorageError>) {
        if let Err(error) = self.writer.give_back(preparation, outcome) {
            log::debug!("no segment prepared ahead: {error}");
        }
    }

    /// Does all of `items`, in their order. Of several that became durable together, the last is reported.
    pub fn work(&mut self, items: impl IntoIterator<Item = DiskWork>, report: &impl Fn(DiskDone)) -> Turn {
        let Self { writer, batch } = self;
        for item in items {
            match item {
                DiskWork::Persist { ticket, truncate_from, entries, metadata } => {
                    if truncate_from.is_some() || metadata.is_some() {
                        batch.flush(writer, report);
                    }
                    if let Err(error) = batch.before_entries(writer, truncate_from, metadata) {
                        batch.fail(ticket, &error, report);
                        continue;
                    }
                    batch.tickets.push(ticket);
                    if !entries.is_empty() {
                        batch.bytes += entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
                        batch.entries.push(entries);
                    }
                    if batch.bytes >= WRITE_BYTES_MAX {
                        batch.flush(writer, report);
                    }
                }
                DiskWork::Install { snapshot, trailing } => {
                    batch.flush(writer, report);
                    report(match writer.install_snapshot_files(snapshot, trailing) {
                        Ok(()) => DiskDone::Installed,
                        Err(error) => DiskDone::NotInstalled { text: error.to_string() },
                    });
                }
                DiskWork::Restore { snapshot, held } => {
                    batch.flush(writer, report);
                    report(batch.restore(writer, snapshot, held));
                }
                DiskWork::Discard { snapshot } => writer.discard_snapshot(&snapshot),
                DiskWork::Close => {
                    batch.flush(writer, report);
                    report(DiskDone::Closed { error: writer.close().err().map(|error| error.to_string()) });
                    return Turn::Closed;
                }
            }
        }
        batch.flush(writer, report);
        Turn::Worked { prepare: writer.wants_preparation() }
    }
}

/// Appends that share one write and one sync.
#[derive(Default)]
struct Batch {
    tickets: Vec<u64>,
    entries: Vec<Vec<Entry>>,
    bytes: usize,
    /// How many entries shared a write.
    sizes: Arc<Sizes>,
    /// There was no room: nothing more goes into the log until consensus, told of it, truncates what is lost.
    /// Entries behind a hole must never be written.
    hole: Option<StorageError>,
}

impl Batch {
    fn before_entries<D: Disk>(
        &mut self,
        writer: &mut Writer<D>,
        truncate_from: Option<Index>,
        metadata: Option<(Term, NodeId)>,
    ) -> Result<(), StorageError> {
        if let Some(from) = truncate_from {
            writer.truncate(from)?;
            self.hole = None;
        }
        if let Some(hole) = &self.hole {
            return Err(hole.clone());
        }
        match metadata {
            Some((term, voted_for)) => writer.set_metadata(term, voted_for),
            None => Ok(()),
        }
    }

    fn flush<D: Disk>(&mut self, writer: &mut Writer<D>, report: &impl Fn(DiskDone)) {
        let count = self.entries.iter().map(Vec::len).sum();
        let result = if count == 0 { Ok(()) } else { writer.append(&self.entries) };
        if count > 0 {
            self.sizes.record(count);
        }
        self.entries.clear();
        self.bytes = 0;
        let tickets = std::mem::take(&mut self.tickets);
        match (&result, tickets.last()) {
            (Ok(()), Some(&ticket)) => report(DiskDone::Persisted { ticket }),
            (Ok(()), None) => {}
            (Err(error), _) => tickets.iter().for_each(|&ticket| self.fail(ticket, error, report)),
        }
    }

    fn restore<D: Disk>(
        &mut self,
        writer: &mut Writer<D>,
        snapshot: FinishedSnapshot,
        held: Option<Term>,
    ) -> DiskDone {
        match writer.restore_snapshot(snapshot, held) {
            Ok(()) => {
                // Whatever was lost before it is covered.
                self.hole = None;
                DiskDone::Restored
            }
            Err(error) => DiskDone::NotRestored {
                next: writer.next_index(),
                // What does not fit the log on disk was not written either.
                no_space: !matches!(error, StorageError::Failed { .. }),
                text: error.to_string(),
            },
        }
    }

    fn fail(&mut self, ticket: u64, error: &StorageError, report: &impl Fn(DiskDone)) {
        let no_space = matches!(error, StorageError::NoSpace { .. });
        if no_space {
            self.hole = Some(error.clone());
        }
        report(DiskDone::Failed { ticket, no_space, text: error.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::{DiskDone, DiskWork, Worker, run};
    use crate::base::{Entry, EntryKind, Index, NodeId, Payload, Term};
    use crate::disk::FaultDisk;
    use crate::runtime::queue::Queue;
    use crate::runtime::token::{Token, nudges};
    use crate::storage::writer::{Writer, WriterConfig, WriterState};

    #[test]
    fn entries_that_came_all_at_once_are_written_a_few_mebibytes_at_a_time_and_small_ones_together() {
        for (len, groups) in [(1 << 20, &[4, 8, 9][..]), (1 << 10, &[9])] {
            let persist = |ticket| {
                let payload = Payload::from_bytes(&vec![1; len]);
                let entry = Entry { index: Index(ticket), term: Term(1), kind: EntryKind::Command, payload };
                DiskWork::Persist { ticket, truncate_from: None, entries: vec![entry], metadata: None }
            };
            let state = WriterState { next_index: Index(1), ..WriterState::default() };
            let disk = FaultDisk::new(1);
            let config = WriterConfig { prewrite: false, ..WriterConfig::default() };
            let mut worker = Worker::new(Writer::new(disk.clone(), state, config));
            let durable = RefCell::new(Vec::new());
            worker.work((1..=9).map(persist), &|done| {
                let DiskDone::Persisted { ticket } = done else { panic!("{done:?}") };
                durable.borrow_mut().push(ticket);
            });
            assert_eq!(*durable.borrow(), groups);
            let trace = disk.take_trace();
            let lens =
                trace.iter().filter_map(|line| line.strip_prefix("write ")?.split_once('+')?.1.parse().ok());
            assert!(lens.max().is_some_and(|most: u64| most < 5 << 20), "{trace:?}");
        }
    }

    #[test]
    fn after_a_panic_all_work_is_refused_and_the_thread_still_ends_when_told() {
        let work = Queue::default();
        for ticket in 1..=3 {
            let metadata = Some((Term(ticket), NodeId(1)));
            work.push(DiskWork::Persist { ticket, truncate_from: None, entries: Vec::new(), metadata })
                .unwrap();
        }
        work.push(DiskWork::Close).unwrap();
        let (reports, planned) = (RefCell::new(Vec::new()), Cell::new(true));
        let writer = Writer::new(FaultDisk::new(1), WriterState::default(), WriterConfig::default());
        let (token, (nudge, _nudges)) = (Token::new(Worker::new(writer)), nudges());
        let report = |done| {
            if planned.replace(false) {
                std::panic::resume_unwind(Box::new("planned"));
            }
            reports.borrow_mut().push(match done {
                DiskDone::Failed { ticket, no_space: false, .. } => format!("{ticket} failed"),
                DiskDone::Closed { error: Some(text) } => text,
                other => format!("{other:?}"),
            });
        };
        run(&token, &work, &nudge, report, || {});
        let expected = ["1 failed", "2 failed", "3 failed", "a thread panicked over the log"];
        assert_eq!(reports.into_inner(), expected);
    }
}
