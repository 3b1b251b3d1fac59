//! The loop's side of the data directory: what it asked for, and who does it.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::answers;
use super::clock::Clock;
use super::disk::{self, DiskDone, DiskWork, Worker};
use super::lone::Lone;
use super::metrics::Meters;
use super::queue::{CloseOnDrop, Queue};
use super::shell::{Desk, Message};
use super::threads;
use super::token::{self, Nudge, Token};
use crate::disk::DirectoryLock;
use crate::disk::real::RealDisk;
use crate::storage::writer::Writer;

/// What the loop knows of the disk.
pub struct Storing {
    /// The disk thread's queue.
    queue: CloseOnDrop<DiskWork>,
    /// The last of the tickets that were given out, and of those answered.
    last: u64,
    answered: u64,
    installs: usize,
    /// For what the loop writes itself.
    pub(super) token: Arc<Token<RealDisk>>,
    /// Has segments prepared.
    pub(super) nudge: Nudge,
    /// Whether one client is alone at work.
    pub(super) lone: Lone,
    /// Its commit, which the loop writes itself before it does anything else.
    own_work: Option<DiskWork>,
}

impl Storing {
    /// Starts the disk thread, which ends with [`DiskWork::Close`], and the one that prepares segments, which ends
    /// when nobody can ask it any more. The directory is `lock`ed until both have ended.
    ///
    /// # Errors
    /// The system has no room for the threads.
    pub fn start(
        writer: Writer<RealDisk>,
        directory: &RealDisk,
        lock: &Arc<DirectoryLock>,
        desk: &Desk,
        clock: Clock,
        meters: &Meters,
    ) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let work = Queue::default();
        let queue = work.close_on_drop();
        let token = Arc::new(Token::new(Worker::new(writer).counting(&meters.batches)));
        let (nudge, nudges) = token::nudges();
        nudge.give();
        let (prepared, locked) = (Arc::clone(&token), Arc::clone(lock));
        let aside = directory.metered(&meters.ahead);
        let ahead = threads::start("dqlite-ahead", move || {
            token::prepare(&prepared, &aside, &nudges, clock);
            drop(locked);
        })?;
        let (written, more, locked) = (Arc::clone(&token), nudge.clone(), Arc::clone(lock));
        let report = desk.clone();
        let disk = threads::start("dqlite-disk", move || {
            let answered = RefCell::new(Vec::new());
            let report = |done| answered.borrow_mut().append(&mut report.step(Message::Disk(done)));
            disk::run(&written, &work, &more, report, || answers::send(answered.take()));
            drop(locked);
        })?;
        let lone = Lone::default();
        let storing = Self { queue, last: 0, answered: 0, installs: 0, token, nudge, lone, own_work: None };
        Ok((storing, vec![disk, ahead]))
    }

    /// For the disk thread, or for the loop itself if a lone writer waits for it, nothing is ahead of it, and the
    /// node is `serving`.
    pub fn submit(&mut self, work: DiskWork, serving: bool) {
        let idle = self.answered >= self.last && self.installs == 0;
        match &work {
            DiskWork::Persist { ticket, truncate_from, metadata, .. } => {
                self.last = *ticket;
                let plain = truncate_from.is_none() && metadata.is_none();
                if serving && idle && plain && self.lone.writes_itself() {
                    self.own_work = Some(work);
                    return;
                }
            }
            DiskWork::Install { .. } | DiskWork::Restore { .. } => self.installs += 1,
            DiskWork::Discard { .. } | DiskWork::Close => {}
        }
        self.hand_over();
        self.send(work);
    }

    /// What the loop is to write itself, now.
    pub fn take_own_work(&mut self) -> Option<DiskWork> {
        self.own_work.take()
    }

    /// There is company, or this thread is not the loop: the disk thread writes what waits.
    pub fn hand_over(&mut self) {
        if let Some(work) = self.own_work.take() {
            self.send(work);
        }
    }

    pub(super) fn send(&self, work: DiskWork) {
        if self.queue.push(work).is_err() {
            log::error!("the disk thread is gone");
        }
    }

    /// What was asked for is done.
    pub fn handle_done(&mut self, done: &DiskDone) {
        match done {
            DiskDone::Persisted { ticket } | DiskDone::Failed { ticket, .. } => {
                self.answered = self.answered.max(*ticket);
            }
            DiskDone::Installed
            | DiskDone::NotInstalled { .. }
            | DiskDone::Restored
            | DiskDone::NotRestored { .. } => {
                self.installs = self.installs.saturating_sub(1);
            }
            DiskDone::Closed { .. } => {}
        }
    }
}
