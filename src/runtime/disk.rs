//! The disk thread: takes everything that is queued, makes it durable in the order of the queue with as few
//! writes and syncs as that order allows, and reports.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::base::{Entry, Index, NodeId, Term};
use crate::disk::Disk;
use crate::storage::StorageError;
use crate::storage::snapshots::FinishedSnapshot;
use crate::storage::writer::Writer;

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
    /// Finish the files and end the thread.
    Close,
}

/// What became of it.
#[derive(Debug)]
pub enum DiskDone {
    /// Durable.
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
    /// The files are closed.
    Closed {
        /// The reason why they could not be finished, if so. Nothing that was reported is lost by it.
        error: Option<String>,
    },
}

/// Works until told to close. `report` is called after the work it reports is durable.
pub fn run<D: Disk>(mut writer: Writer<D>, work: &Receiver<DiskWork>, report: impl Fn(DiskDone)) {
    let mut more_to_prepare = true;
    let mut batch = Batch::default();
    loop {
        let first = if more_to_prepare {
            match work.recv_timeout(Duration::from_millis(1)) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    more_to_prepare = writer.prepare_ahead().unwrap_or_else(|error| {
                        log::debug!("no segment prepared ahead: {error}");
                        false
                    });
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        } else {
            match work.recv() {
                Ok(first) => first,
                Err(_) => return,
            }
        };
        more_to_prepare = true;
        for item in std::iter::once(first).chain(work.try_iter()) {
            match item {
                DiskWork::Persist { ticket, truncate_from, entries, metadata } => {
                    if truncate_from.is_some() || metadata.is_some() {
                        batch.flush(&mut writer, &report);
                    }
                    if let Err(error) = batch.before_entries(&mut writer, truncate_from, metadata) {
                        batch.fail(ticket, &error, &report);
                        continue;
                    }
                    batch.tickets.push(ticket);
                    if !entries.is_empty() {
                        batch.entries.push(entries);
                    }
                }
                DiskWork::Install { snapshot, trailing } => {
                    batch.flush(&mut writer, &report);
                    report(match writer.install_snapshot_files(snapshot, trailing) {
                        Ok(()) => DiskDone::Installed,
                        Err(error) => DiskDone::NotInstalled { text: error.to_string() },
                    });
                }
                DiskWork::Close => {
                    batch.flush(&mut writer, &report);
                    report(DiskDone::Closed { error: writer.close().err().map(|error| error.to_string()) });
                    return;
                }
            }
        }
        batch.flush(&mut writer, &report);
    }
}

/// Appends that share one write and one sync.
#[derive(Default)]
struct Batch {
    tickets: Vec<u64>,
    entries: Vec<Vec<Entry>>,
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
        let result = if self.entries.is_empty() { Ok(()) } else { writer.append(&self.entries) };
        self.entries.clear();
        for ticket in std::mem::take(&mut self.tickets) {
            match &result {
                Ok(()) => report(DiskDone::Persisted { ticket }),
                Err(error) => self.fail(ticket, error, report),
            }
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
