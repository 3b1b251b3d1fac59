//! The loop's state, stepped by one thread at a time: feeds what happened to the core, and does what the core
//! wants. Sockets are in `sockets`, the loop itself in `run`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::Registry;

use super::answers;
use super::clock::Clock;
use super::disk::{DiskDone, DiskWork};
use super::habits::Habits;
use super::inquiry::Inquiry;
use super::intake::Arrived;
use super::mailbox::{Inbox, Mailbox};
use super::metrics::{Meters, Report};
use super::net::Acceptor;
use super::peers::Peers;
use super::peers::dial::Dials;
use super::slot::{Slot, Tried};
use super::sql_pool::{SqlDone, SqlPool, SqlWork};
use super::storing::Storing;
use super::threads;
use crate::base::{Entry, Event, Index, Journal, NodeId, Time};
use crate::codec::peer;
use crate::disk::DirectoryLock;
use crate::disk::real::RealDisk;
use crate::engine::ConnId;
use crate::node::Core;
use crate::node::effect::{Effect, HandoverStep};
use crate::roles::{Metadata, Targets};
use crate::storage::snapshots::FinishedSnapshot;

mod disk;
mod figures;
mod peers;
mod roles;
mod run;
mod snapshots;
mod sockets;

pub use run::{Duty, LISTEN, WAKE, start};
pub use snapshots::Traffic;
pub use sockets::Sockets;
use sockets::SqlPlace;

/// How long a stopping node waits for statements that do not end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What other threads post to the loop.
pub enum Message {
    /// From an SQL thread.
    Sql(SqlDone),
    /// From the disk thread.
    Disk(DiskDone),
    /// From a snapshot thread: the finished files.
    Snapshot(Result<FinishedSnapshot, String>),
    /// From a dial thread: which attempt for which peer, and the socket.
    Dialed {
        /// The peer.
        to: NodeId,
        /// The attempt.
        attempt: u64,
        /// What came of it.
        result: Result<OwnedFd, String>,
    },
    /// What servers said of themselves, for role management.
    Described {
        /// Which time.
        round: u64,
        /// What each said.
        answers: BTreeMap<NodeId, Metadata>,
    },
    /// The program hands the node's duties over.
    Handover(Sender<HandoverStep>),
    /// The program changed what role management aims at.
    RoleTargets(Targets),
    /// The program moved the node to another failure domain.
    FailureDomain(u64),
    /// From a thread that read old entries of the log.
    EntriesRead {
        /// The first that was asked for.
        first: Index,
        /// They, or why there are none.
        result: Result<Vec<Entry>, String>,
    },
    /// From an intake thread: it has room again.
    IntakeRoom,
    /// From an intake thread: how it ended.
    Arrived {
        /// Which one.
        attempt: u64,
        /// The snapshot, or why there is none.
        result: Result<Arrived, String>,
    },
    /// From a thread that sent a snapshot.
    Transferred {
        /// To whom.
        to: NodeId,
        /// Which attempt.
        attempt: u64,
        /// Why the peer does not have it.
        result: Result<(), crate::runtime::peers::transfer::Failure>,
    },
    /// Somebody wants to know how the node stands.
    Measure(Sender<Report>),
    /// From `stop`.
    Stop,
}

impl From<SqlDone> for Message {
    fn from(done: SqlDone) -> Self {
        Self::Sql(done)
    }
}

/// Everything the loop owns.
pub struct Shell {
    /// Where sockets are registered with the loop's poll.
    pub registry: Registry,
    /// Monotonic time.
    pub clock: Clock,
    /// Accepts clients; gone once the node stops.
    pub acceptor: Option<Acceptor>,
    /// The node.
    pub core: Core,
    /// The SQL threads.
    pub pool: SqlPool,
    /// What is to be durable.
    pub storing: Storing,
    /// What other threads posted.
    pub inbox: Inbox<Message>,
    /// Where other threads hand in what they finished.
    pub desk: Desk,
    /// The directory, for snapshot threads.
    pub directory: RealDisk,
    /// Whether snapshots are compressed.
    pub compress: bool,
    /// The greatest time in the name of a snapshot so far.
    pub snapshot_time: u64,
    /// The sockets.
    pub sockets: Sockets,
    /// The connections to peers.
    pub peers: Peers,
    /// Makes them.
    pub dials: Dials,
    /// Asks other servers about themselves.
    pub inquiry: Inquiry,
    /// Whoever hands the node's duties over and wants to know how it goes.
    pub leaving: Vec<Sender<HandoverStep>>,
    /// Snapshots that are being written or received: a stop waits for them to clear their files away.
    pub snapshots_running: usize,
    /// Snapshots from and for other nodes.
    pub traffic: Traffic,
    /// Ends snapshots early.
    pub cancelled: Arc<AtomicBool>,
    /// How far the node's life came.
    pub phase: Phase,
    /// When the loop wakes by itself.
    pub sleeps_until: Option<Time>,
    /// Sockets in which answers wait for whoever steps the state to send them without it.
    pub outbox: answers::Batch,
    /// Answers are left there.
    pub sends_later: bool,
    /// Short statements that the loop runs itself.
    pub ready: VecDeque<SqlWork>,
    /// What is known of statements.
    pub habits: Habits,
    /// The directory is this node's until its last file is closed.
    pub lock: Arc<DirectoryLock>,
    /// When the loop was last told of events.
    pub turn_began: Time,
    /// What is counted: how long its turns took, and more.
    pub meters: Arc<Meters>,
    /// When the running snapshot began.
    pub snapshot_began: Time,
    /// When figures were last told to the log.
    pub told: Time,
    /// Dropped once clients find a leader, if nothing but this node is needed for that: `start` waits for it.
    pub starting: Option<Sender<Infallible>>,
}

/// Where other threads hand in what they finished. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// Where the loop's state lies while the loop waits.
    pub slot: Arc<Slot<Shell, Duty>>,
    /// Else.
    pub mailbox: Mailbox<Message>,
    /// The threads that are the loop in turn.
    pub crew: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// The node's last events.
    pub journal: Journal,
}

impl Desk {
    /// Steps the loop's state with `message` on this thread, answers included, if that needs no waiting; else the
    /// loop does it.
    pub fn deliver(&self, message: Message) {
        answers::send(self.step(message));
    }

    /// The same, but for the answers, which are left for the caller to send.
    pub fn step(&self, message: Message) -> answers::Batch {
        let mut batch = answers::Batch::new();
        match self.slot.try_step(message, |shell, message| batch = shell.step_with(message)) {
            Tried::Stepped => {}
            Tried::Missed(message) => self.mailbox.post(message),
            Tried::Failed => {
                log::error!("a thread panicked over the node's state: the node serves nobody any more");
                self.journal.tell();
                self.mailbox.wake();
            }
        }
        batch
    }
}

/// How far the node's life came.
pub enum Phase {
    /// It serves.
    Serving,
    /// Waiting for statements to end, until this time.
    Draining(Time),
    /// Waiting for the disk thread.
    Closing,
    /// The loop ends.
    Done,
}

impl Shell {
    /// What the loop would do with a message, for another thread that has it, and that sends the answers.
    fn step_with(&mut self, message: Message) -> answers::Batch {
        self.sends_later = true;
        self.step(message);
        self.sends_later = false;
        self.storing.hand_over();
        let earlier = match (self.next_timeout(), self.sleeps_until) {
            (Some(next), Some(until)) => next < until,
            (next, None) => next.is_some(),
            (None, Some(_)) => false,
        };
        let due = self.has_more_to_do() || matches!(self.phase, Phase::Done);
        if earlier || due {
            self.desk.mailbox.wake();
        }
        std::mem::take(&mut self.outbox)
    }

    /// When the loop has something to do next.
    fn next_timeout(&self) -> Option<Time> {
        let draining = if let Phase::Draining(until) = self.phase { Some(until) } else { None };
        let accept = self.sockets.accept_again;
        let cores = [self.core.poll_timeout(), self.pool.poll_timeout()];
        cores.into_iter().chain([draining, accept, self.peers.poll_timeout()]).flatten().min()
    }

    /// Has messages wake the loop from here on; how long it may sleep.
    fn doze(&mut self) -> Option<Duration> {
        self.sleeps_until = self.next_timeout();
        if self.has_more_to_do() || !self.inbox.doze() {
            return Some(Duration::ZERO);
        }
        // The poll counts whole milliseconds and rounds up, so it never wakes before its time in vain.
        self.sleeps_until.map(|until| until.since(self.clock.now()))
    }

    /// Whether there is something to do that the poll does not tell: bytes that were left in a socket, room that
    /// one has for more, statements to run.
    fn has_more_to_do(&self) -> bool {
        !self.ready.is_empty()
            || !self.sockets.to_flush_on.is_empty()
            || self.unread_and_wanted().next().is_some()
    }

    /// Does what the core wants, and writes what is to be written, until nothing is left to do.
    fn settle(&mut self) {
        loop {
            while let Some(effect) = self.core.poll_effect() {
                self.execute(effect);
            }
            // Other servers work on what they get while answers are sent.
            if self.serve_peers() {
                continue;
            }
            let Some(conn) = self.sockets.to_flush.pop_first() else { break };
            self.flush(conn);
        }
        self.sockets.flushed.clear();
        self.end_transfers();
        self.starting.take_if(|_| !self.core.is_about_to_lead());
    }

    fn handle_messages(&mut self, now: Time) {
        let messages: Vec<Message> = self.inbox.drain().collect();
        for message in messages {
            self.handle_message(message, now);
        }
    }

    fn handle_message(&mut self, message: Message, now: Time) {
        match message {
            Message::Sql(SqlDone::Opened { conn, sql }) => {
                let result = sql.map(|sql| {
                    self.sockets.sql.insert(conn, SqlPlace::Here(sql));
                });
                if let Err(error) = result {
                    self.sockets.sql.remove(&conn);
                    self.core.handle_sql_opened(conn, Err((error.code, error.message)), now);
                } else {
                    self.core.handle_sql_opened(conn, Ok(()), now);
                }
            }
            Message::Sql(SqlDone::Ran { conn, sql, progress, spent }) => {
                self.habits.handle_ran(conn, spent);
                self.sockets.sql.insert(conn, SqlPlace::Here(sql));
                self.core.handle_sql_ran(conn, progress, now);
            }
            Message::Sql(SqlDone::Broken { conn }) => {
                self.desk.journal.note(now, Event::Broken, [conn.0, 0]);
                self.drop_socket(conn, now);
                self.forget_sql(conn, now);
            }
            Message::Sql(SqlDone::Closed { conn }) => self.forget_sql(conn, now),
            Message::Disk(done) => self.handle_disk(done, now),
            Message::EntriesRead { first, result } => self.core.handle_entries_read(first, result, now),
            Message::IntakeRoom => self.core.pause_intake(false),
            Message::Arrived { attempt, result } => self.handle_arrived(attempt, result, now),
            Message::Transferred { to, attempt, result } => {
                self.handle_transferred(to, attempt, result, now);
            }
            Message::Snapshot(Ok(snapshot)) => {
                self.snapshots_running = self.snapshots_running.saturating_sub(1);
                self.meters.snapshot_bytes.store(snapshot.bytes, Ordering::Relaxed);
                let trailing = self.core.settle_trailing();
                self.submit(DiskWork::Install { snapshot, trailing });
            }
            Message::Snapshot(Err(text)) => {
                self.snapshots_running = self.snapshots_running.saturating_sub(1);
                self.core.handle_snapshot(Err(text), now);
            }
            Message::Dialed { to, attempt, result } => {
                let place = self.sockets.next_place();
                if let Err(text) = &result {
                    self.core.handle_unreachable(to, text, now);
                }
                self.peers.handle_dialed((to, attempt), result, place, &self.registry, now);
            }
            Message::Described { round, answers } => self.core.handle_described(round, &answers, now),
            Message::Handover(tell) => self.begin_handover(tell, now),
            Message::RoleTargets(targets) => self.core.set_role_targets(targets),
            Message::FailureDomain(code) => self.core.set_failure_domain(code),
            Message::Measure(tell) => {
                // Whoever asked may have lost patience.
                let _ = tell.try_send(self.report());
            }
            Message::Stop => {
                self.cancelled.store(true, Ordering::Release);
                self.stop_traffic();
                self.begin_stop(now);
                self.phase = Phase::Draining(now.after(STOP_PATIENCE));
            }
        }
    }

    fn begin_stop(&mut self, now: Time) {
        self.peers.close(&self.registry);
        if let Some(mut acceptor) = self.acceptor.take()
            && let Err(error) = self.registry.deregister(acceptor.source())
        {
            log::debug!("the listening socket was not registered: {error}");
        }
        let conns: BTreeSet<ConnId> = self.sockets.connections.keys().copied().collect();
        for conn in conns {
            self.drop_socket(conn, now);
        }
    }

    fn step_phase(&mut self, now: Time) {
        if let Phase::Draining(until) = self.phase
            && (self.sockets.sql.is_empty() && self.snapshots_running == 0 || now >= until)
        {
            if self.snapshots_running > 0 {
                log::warn!("a snapshot did not end; the node stops without it");
            }
            if !self.sockets.sql.is_empty() {
                log::warn!("{} statements did not end; the node stops without them", self.sockets.sql.len());
            }
            self.submit(DiskWork::Close);
            self.phase = Phase::Closing;
        }
    }

    fn submit(&mut self, work: DiskWork) {
        self.storing.submit(work, matches!(self.phase, Phase::Serving));
    }

    fn execute(&mut self, effect: Effect) {
        let now = self.clock.now();
        match effect {
            Effect::Flush { conn } => {
                self.sockets.to_flush.insert(conn);
            }
            Effect::Close { conn } => self.drop_socket(conn, now),
            Effect::OpenSql { conn, database } => {
                self.sockets.sql.insert(conn, SqlPlace::Opening);
                self.pool.submit(SqlWork::Open { conn, database }, now);
            }
            Effect::RunSql { conn, request } => {
                self.storing.lone.handle_request(conn);
                let short = self.habits.is_short(conn, &request);
                if let Some(sql) = self.sockets.lend(conn) {
                    self.run_sql(SqlWork::Run { conn, sql, request }, short, now);
                }
            }
            Effect::ResumeSql { conn } => {
                let short = self.habits.goes_on_short(conn);
                if let Some(sql) = self.sockets.lend(conn) {
                    self.run_sql(SqlWork::Resume { conn, sql }, short, now);
                }
            }
            Effect::CloseSql { conn } => {
                if let Some(sql) = self.sockets.lend(conn) {
                    self.pool.submit(SqlWork::Close { conn, sql }, now);
                }
            }
            Effect::InterruptSql { conn } => {
                if let Some(SqlPlace::Away(interrupter)) = self.sockets.sql.get(&conn) {
                    interrupter.interrupt();
                }
            }
            Effect::Persist { ticket, truncate_from, entries, metadata } => {
                if !self.core.is_leading() {
                    self.storing.lone.handle_append();
                }
                self.submit(DiskWork::Persist { ticket, truncate_from, entries, metadata });
            }
            Effect::PeerConnected { id } => self.peers.handle_heard(id, now),
            Effect::SendPeer { to, address, message } => {
                if matches!(&message, peer::Message::AppendResult(result) if result.rejected > 0) {
                    self.storing.lone.handle_question();
                }
                self.send_peer(to, &address, &message, now);
            }
            Effect::Snapshot { job, .. } => self.start_snapshot(job, now),
            Effect::ReadEntries { first, last } => self.read_entries(first, last, now),
            Effect::TakeSnapshot(head) => self.take_snapshot(head, now),
            Effect::SnapshotBytes { bytes } => self.pass_snapshot_bytes(bytes),
            Effect::DropSnapshot => self.drop_snapshot(),
            Effect::SendSnapshot { to, address, term, wanted } => {
                self.send_snapshot((to, address), term, wanted, now);
            }
            Effect::Describe { round, servers } => self.describe(round, servers),
            Effect::Handover(step) => self.tell_handover(&step),
            Effect::Drop(waste) => threads::drop_aside(waste),
        }
    }

    /// What is short waits for the loop's own thread, the rest goes to another.
    fn run_sql(&mut self, work: SqlWork, short: bool, now: Time) {
        if short { self.ready.push_back(work) } else { self.pool.submit(work, now) }
    }

    fn forget_sql(&mut self, conn: ConnId, now: Time) {
        self.habits.forget(conn);
        self.sockets.sql.remove(&conn);
        self.core.handle_sql_closed(conn, now);
    }
}
