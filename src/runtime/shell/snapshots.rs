//! Snapshots: written from the databases, sent to peers, received from a leader; and old entries of the log, read
//! for peers. All of it on other threads.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Sender, unbounded};

use super::{Message, Shell};
use crate::base::limits::SNAPSHOT_PATIENCE;
use crate::base::{Event, Index, NodeId, Term, Time};
use crate::node::effect::{IncomingSnapshot, SnapshotJob};
use crate::pages::{Database, Version};
use crate::runtime::disk::DiskWork;
use crate::runtime::intake::{Arrived, Intake, IntakeJob};
use crate::runtime::peers::transfer::{self, TransferEnd, TransferJob};
use crate::runtime::{clock, snapshot, threads};
use crate::storage::entries;
use crate::storage::snapshots::SnapshotHeader;

/// Versions with fewer pages than this are dropped where they are.
const SMALL_PAGES: u32 = 1024;

/// The snapshots that are on their way in and out.
#[derive(Default)]
pub struct Traffic {
    /// What a leader sends, while it comes.
    intake: Option<Intake>,
    /// The databases of the snapshot that is being put in place.
    placing: Vec<Arc<Database>>,
    /// By peer: the attempt, and how to end it.
    transfers: BTreeMap<NodeId, (u64, TransferEnd)>,
    /// Counts attempts in both directions.
    attempts: u64,
    /// That of the intake.
    receiving: u64,
    /// Asks for old entries of the log; made when they are needed first.
    entries: Option<Sender<(Index, Index)>>,
}

impl Shell {
    pub(super) fn start_snapshot(&mut self, job: SnapshotJob, now: Time) {
        self.snapshot_began = now;
        self.desk.journal.note(now, Event::Snapshot, [job.index.0, job.term.0]);
        let cancelled = Arc::clone(&self.cancelled);
        let (time, compress) = (self.next_snapshot_time(), self.compress);
        let (directory, desk) = (self.directory.metered(&self.meters.snapshots), self.desk.clone());
        let held = Arc::clone(&self.lock);
        let started = threads::start("dqlite-snapshot", move || {
            let result = snapshot::write(directory, job, compress, time, &cancelled);
            // Nobody else may have the directory before its files are finished or gone.
            drop(held);
            desk.deliver(Message::Snapshot(result));
        });
        self.snapshots_running += 1;
        if let Err(error) = started {
            self.snapshots_running -= 1;
            self.core.handle_snapshot(Err(format!("no thread for the snapshot: {error}")), now);
        }
    }

    /// Names must grow even when the machine was restarted since the last snapshot.
    fn next_snapshot_time(&mut self) -> u64 {
        self.snapshot_time = clock::boot_ms().max(self.snapshot_time.saturating_add(1));
        self.snapshot_time
    }

    /// Reads old entries of the log for a peer that lags, one piece after another: each takes a segment's memory, and
    /// the allocator would keep as much for every thread.
    pub(super) fn read_entries(&mut self, first: Index, last: Index, now: Time) {
        let reader = match self.traffic.entries.take() {
            Some(reader) => Ok(reader),
            None => self.start_reader(),
        };
        let asked = reader.and_then(|reader| {
            let asked =
                reader.send((first, last)).map_err(|_| "the thread that reads them is gone".to_owned());
            asked.map(|()| self.traffic.entries = Some(reader))
        });
        if let Err(text) = asked {
            self.core.handle_entries_read(first, Err(text), now);
        }
    }

    fn start_reader(&self) -> Result<Sender<(Index, Index)>, String> {
        let (mut directory, desk) = (self.directory.clone(), self.desk.clone());
        let (sender, asked) = unbounded::<(Index, Index)>();
        let started = threads::start("dqlite-entries", move || {
            for (first, last) in asked {
                let read = AssertUnwindSafe(|| entries::read_entries(&mut directory, first, last));
                let result = catch_unwind(read)
                    .unwrap_or_else(|_| Err("the thread that reads them panicked".to_owned()));
                desk.deliver(Message::EntriesRead { first, result });
            }
        });
        started.map(|_| sender).map_err(|error| format!("no thread to read them: {error}"))
    }

    /// The head of a leader's snapshot has come.
    pub(super) fn take_snapshot(&mut self, head: IncomingSnapshot, now: Time) {
        self.traffic.attempts += 1;
        let attempt = self.traffic.attempts;
        let IncomingSnapshot { index, term, configuration_index, configuration, data_bytes } = head;
        let time = self.next_snapshot_time();
        let header = SnapshotHeader { term, index, time, configuration_index, configuration };
        let job = IntakeJob { header, data_bytes, compress: self.compress };
        let (woken, done, held) = (self.desk.clone(), self.desk.clone(), Arc::clone(&self.lock));
        let intake = Intake::start(
            self.directory.metered(&self.meters.snapshots),
            job,
            move || woken.mailbox.post(Message::IntakeRoom),
            move |result| {
                drop(held);
                done.deliver(Message::Arrived { attempt, result });
            },
        );
        self.traffic.receiving = attempt;
        match intake {
            Ok(intake) => {
                self.snapshots_running += 1;
                self.traffic.intake = Some(intake);
            }
            Err(error) => {
                self.traffic.intake = None;
                self.core.handle_intake_failed(&format!("no thread for the snapshot: {error}"), now);
            }
        }
    }

    pub(super) fn pass_snapshot_bytes(&mut self, bytes: Vec<u8>) {
        if let Some(intake) = &self.traffic.intake {
            intake.push(bytes);
            if intake.is_full() {
                self.core.pause_intake(true);
            }
        }
    }

    pub(super) fn drop_snapshot(&mut self) {
        self.traffic.intake = None;
        self.traffic.receiving = 0;
    }

    /// An intake has ended.
    pub(super) fn handle_arrived(&mut self, attempt: u64, result: Result<Arrived, String>, now: Time) {
        self.snapshots_running = self.snapshots_running.saturating_sub(1);
        let current = attempt == self.traffic.receiving;
        if current {
            self.drop_snapshot();
        }
        match result {
            Ok(Arrived { files, databases }) => {
                let placement = if current { self.core.handle_intake_stored(now) } else { None };
                match placement {
                    Some(placement) => {
                        self.traffic.placing = databases;
                        self.submit(DiskWork::Restore { snapshot: files, held: placement.held });
                    }
                    None => self.submit(DiskWork::Discard { snapshot: files }),
                }
            }
            Err(text) if current => {
                log::error!("a snapshot of the leader is not taken: {text}");
                self.core.handle_intake_failed(&text, now);
            }
            Err(text) => log::debug!("a snapshot that was given up ended: {text}"),
        }
    }

    pub(super) fn handle_restored(&mut self, now: Time) {
        let databases = std::mem::take(&mut self.traffic.placing);
        let old = self.core.handle_restored(databases, now);
        drop_aside(old);
    }

    pub(super) fn handle_not_restored(&mut self, next: Index, no_space: bool, text: &str, now: Time) {
        self.traffic.placing.clear();
        self.core.handle_not_restored(next, no_space, text, now);
    }

    /// Sends the snapshot on a connection of its own.
    pub(super) fn send_snapshot(
        &mut self,
        (to, address): (NodeId, String),
        term: Term,
        wanted: (Term, Index),
        now: Time,
    ) {
        self.traffic.attempts += 1;
        let (attempt, end) = (self.traffic.attempts, TransferEnd::default());
        let (directory, desk) = (self.directory.clone(), self.desk.clone());
        let job = TransferJob { to, term, wanted };
        let (watched, place) = (end.clone(), address.clone());
        let run = move |socket: Result<OwnedFd, String>| {
            let result = transfer::guarded(|| {
                let socket = socket
                    .map_err(|text| transfer::Failure::from(format!("no connection to {place}: {text}")))?;
                transfer::run(&directory, &job, socket, &watched, SNAPSHOT_PATIENCE)
            });
            desk.deliver(Message::Transferred { to, attempt, result });
        };
        if let Some((_, old)) = self.traffic.transfers.insert(to, (attempt, end)) {
            old.end();
        }
        if let Err(error) = self.dials.start(address, true, run) {
            let text = format!("no thread to connect: {error}");
            self.handle_transferred(to, attempt, Err(text.into()), now);
        }
    }

    pub(super) fn handle_transferred(
        &mut self,
        to: NodeId,
        attempt: u64,
        result: Result<(), transfer::Failure>,
        now: Time,
    ) {
        if self.traffic.transfers.get(&to).is_none_or(|(current, _)| *current != attempt) {
            return;
        }
        self.traffic.transfers.remove(&to);
        if let Err(transfer::Failure { text, unreadable }) = result
            && self.core.awaits_snapshot(to)
        {
            self.core.handle_snapshot_unsent(to, unreadable, &text, now);
        }
    }

    /// Ends transfers that nobody needs any more: they arrived, or this node does not lead.
    pub(super) fn end_transfers(&mut self) {
        if !self.traffic.transfers.is_empty() {
            let core = &self.core;
            self.traffic.transfers.retain(|to, (_, end)| {
                let wanted = core.awaits_snapshot(*to);
                if !wanted {
                    end.end();
                }
                wanted
            });
        }
    }

    /// Ends everything that is on its way.
    pub(super) fn stop_traffic(&mut self) {
        self.drop_snapshot();
        for (_, (_, end)) in std::mem::take(&mut self.traffic.transfers) {
            end.end();
        }
    }
}

/// Giving back the memory of a large database takes long enough to be noticed.
fn drop_aside(old: Vec<Arc<Version>>) {
    if old.iter().any(|version| version.n_pages() >= SMALL_PAGES) {
        threads::drop_aside(old);
    }
}
