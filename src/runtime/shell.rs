//! The loop: feeds what happened to the core, does what the core wants, and waits for more.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::{Events, Poll, Token};

use super::clock::{self, Clock};
use super::disk::{DiskDone, DiskWork};
use super::executor::SqlConn;
use super::mailbox::{Inbox, Mailbox};
use super::net::{Acceptor, Connection, ReadOutcome, Stream, WriteOutcome};
use super::sql_pool::{SqlDone, SqlPool, SqlWork};
use super::{snapshot, threads};
use crate::base::Time;
use crate::disk::real::RealDisk;
use crate::engine::ConnId;
use crate::node::Core;
use crate::node::effect::{Effect, SnapshotJob};
use crate::sqlite::Interrupter;
use crate::storage::snapshots::FinishedSnapshot;

/// The token of the waker.
pub const WAKE: Token = Token(0);
/// The token of the listening socket.
pub const LISTEN: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;

/// How long a stopping node waits for statements that do not end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What other threads post to the loop.
pub enum Message {
    /// From an SQL thread.
    Sql(SqlDone),
    /// From the disk thread.
    Disk(DiskDone),
    /// From a snapshot thread: the finished files and how many entries before it stay.
    Snapshot(Result<(FinishedSnapshot, u64), String>),
    /// The program moved the node to another failure domain.
    FailureDomain(u64),
    /// From `stop`.
    Stop,
}

impl From<SqlDone> for Message {
    fn from(done: SqlDone) -> Self {
        Self::Sql(done)
    }
}

/// Where a client's SQL connection is.
enum SqlPlace {
    Here(Box<SqlConn>),
    Away(Interrupter),
    Opening,
}

/// Everything the loop owns.
pub struct Shell {
    /// The poll that sockets and waker are registered with.
    pub poll: Poll,
    /// Monotonic time.
    pub clock: Clock,
    /// Accepts clients; gone once the node stops.
    pub acceptor: Option<Acceptor>,
    /// The node.
    pub core: Core,
    /// The SQL threads.
    pub pool: SqlPool<Message>,
    /// The disk thread's queue.
    pub disk: Sender<DiskWork>,
    /// What other threads posted.
    pub inbox: Inbox<Message>,
    /// Where snapshot threads post.
    pub mailbox: Mailbox<Message>,
    /// The directory, for snapshot threads.
    pub directory: RealDisk,
    /// Whether snapshots are compressed.
    pub compress: bool,
    /// The greatest time in the name of a snapshot so far.
    pub snapshot_time: u64,
    /// The sockets.
    pub sockets: Sockets,
}

/// The sockets and SQL connections of all clients.
#[derive(Default)]
pub struct Sockets {
    connections: HashMap<ConnId, Connection>,
    sql: HashMap<ConnId, SqlPlace>,
    next: u64,
    to_flush: BTreeSet<ConnId>,
}

enum Phase {
    Serving,
    /// Waiting for statements to end, until this time.
    Draining(Time),
    /// Waiting for the disk thread.
    Closing,
    Done,
}

impl Shell {
    /// Serves until stopped.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; READ_BYTES];
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut phase = Phase::Serving;
        while !matches!(phase, Phase::Done) {
            self.settle(&cancelled);
            let timeout = self.timeout(&phase);
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("waiting for events failed: {error}");
                break;
            }
            let now = self.clock.now();
            for event in &events {
                match event.token() {
                    WAKE => {}
                    LISTEN => self.accept(),
                    Token(at) => {
                        let conn = ConnId((at - FIRST_CONNECTION) as u64);
                        if event.is_writable() {
                            self.sockets.to_flush.insert(conn);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.read(conn, &mut buffer, now);
                        }
                    }
                }
            }
            let messages: Vec<Message> = self.inbox.drain().collect();
            for message in messages {
                self.handle_message(message, &mut phase, &cancelled, now);
            }
            self.core.handle_time(now);
            self.pool.handle_timeout(now);
            self.read_on(&mut buffer, now);
            self.step_phase(&mut phase, now);
        }
    }

    fn timeout(&self, phase: &Phase) -> Option<Duration> {
        let now = self.clock.now();
        let draining = if let Phase::Draining(until) = phase { Some(*until) } else { None };
        let next =
            [self.core.poll_timeout(), self.pool.poll_timeout(), draining].into_iter().flatten().min()?;
        // The poll counts whole milliseconds and rounds up, so it never wakes before its time in vain.
        Some(next.since(now))
    }

    /// Does what the core wants, and writes what is to be written, until nothing is left to do.
    fn settle(&mut self, cancelled: &Arc<AtomicBool>) {
        loop {
            while let Some(effect) = self.core.poll_effect() {
                self.execute(effect, cancelled);
            }
            let Some(conn) = self.sockets.to_flush.pop_first() else { return };
            self.flush(conn);
        }
    }

    fn flush(&mut self, conn: ConnId) {
        let now = self.clock.now();
        while let Some(connection) = self.sockets.connections.get_mut(&conn) {
            let output = self.core.output(conn);
            if output.is_empty() {
                return;
            }
            match connection.write(output) {
                WriteOutcome::Bytes(count) => self.core.handle_written(conn, count, now),
                // The poll says when the socket takes more.
                WriteOutcome::Blocked => return,
                WriteOutcome::Gone => return self.drop_socket(conn, now),
            }
        }
    }

    fn drop_socket(&mut self, conn: ConnId, now: Time) {
        if let Some(mut connection) = self.sockets.connections.remove(&conn) {
            connection.deregister(self.poll.registry());
            self.core.handle_gone(conn, now);
        }
    }

    fn accept(&mut self) {
        let Some(acceptor) = &self.acceptor else { return };
        loop {
            match acceptor.accept() {
                Ok(Some(stream)) => {
                    if let Err(error) = self.sockets.add(stream, &self.poll, &mut self.core) {
                        log::warn!("a client could not be served: {error}");
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    // Out of descriptors: the next readiness tries again.
                    log::warn!("accepting a client failed: {error}");
                    return;
                }
            }
        }
    }

    fn read(&mut self, conn: ConnId, buffer: &mut [u8], now: Time) {
        loop {
            let Some(connection) = self.sockets.connections.get_mut(&conn) else { return };
            if !self.core.wants_bytes(conn) {
                connection.unread = true;
                return;
            }
            connection.unread = false;
            match connection.read(buffer) {
                ReadOutcome::Bytes(count) => {
                    self.core.handle_bytes(conn, buffer.get(..count).unwrap_or_default(), now);
                    if count < buffer.len() {
                        return;
                    }
                }
                ReadOutcome::Nothing => return,
                ReadOutcome::Gone => return self.drop_socket(conn, now),
            }
        }
    }

    /// Reads from sockets that were left unread because their sessions had enough.
    fn read_on(&mut self, buffer: &mut [u8], now: Time) {
        let unread = |(conn, connection): (&ConnId, &Connection)| {
            (connection.unread && self.core.wants_bytes(*conn)).then_some(*conn)
        };
        let ready: BTreeSet<ConnId> = self.sockets.connections.iter().filter_map(unread).collect();
        for conn in ready {
            self.read(conn, buffer, now);
        }
    }

    fn handle_message(
        &mut self,
        message: Message,
        phase: &mut Phase,
        cancelled: &Arc<AtomicBool>,
        now: Time,
    ) {
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
            Message::Sql(SqlDone::Ran { conn, sql, progress }) => {
                self.sockets.sql.insert(conn, SqlPlace::Here(sql));
                self.core.handle_sql_ran(conn, progress, now);
            }
            Message::Sql(SqlDone::Closed { conn }) => {
                self.sockets.sql.remove(&conn);
                self.core.handle_sql_closed(conn, now);
            }
            Message::Disk(DiskDone::Persisted { ticket }) => self.core.handle_persisted(ticket, now),
            Message::Disk(DiskDone::Failed { ticket, no_space, text }) => {
                self.core.handle_persist_failed(ticket, no_space, &text, now);
            }
            Message::Disk(DiskDone::Installed) => self.core.handle_snapshot(Ok(()), now),
            Message::Disk(DiskDone::NotInstalled { text }) => self.core.handle_snapshot(Err(text), now),
            Message::Disk(DiskDone::Closed { error }) => {
                if let Some(error) = error {
                    log::warn!("the log could not be closed cleanly; the next start does it: {error}");
                }
                *phase = Phase::Done;
            }
            Message::Snapshot(Ok((snapshot, trailing))) => {
                self.to_disk(DiskWork::Install { snapshot, trailing });
            }
            Message::Snapshot(Err(text)) => self.core.handle_snapshot(Err(text), now),
            Message::FailureDomain(code) => self.core.set_failure_domain(code),
            Message::Stop => {
                cancelled.store(true, Ordering::Release);
                self.begin_stop(now);
                *phase = Phase::Draining(now.after(STOP_PATIENCE));
            }
        }
    }

    fn begin_stop(&mut self, now: Time) {
        if let Some(mut acceptor) = self.acceptor.take()
            && let Err(error) = self.poll.registry().deregister(acceptor.source())
        {
            log::debug!("the listening socket was not registered: {error}");
        }
        let conns: BTreeSet<ConnId> = self.sockets.connections.keys().copied().collect();
        for conn in conns {
            self.drop_socket(conn, now);
        }
    }

    fn step_phase(&mut self, phase: &mut Phase, now: Time) {
        if let Phase::Draining(until) = phase
            && (self.sockets.sql.is_empty() || now >= *until)
        {
            if !self.sockets.sql.is_empty() {
                log::warn!("{} statements did not end; the node stops without them", self.sockets.sql.len());
            }
            self.to_disk(DiskWork::Close);
            *phase = Phase::Closing;
        }
    }

    fn to_disk(&self, work: DiskWork) {
        if self.disk.send(work).is_err() {
            log::error!("the disk thread is gone");
        }
    }

    fn execute(&mut self, effect: Effect, cancelled: &Arc<AtomicBool>) {
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
                if let Some(sql) = self.sockets.lend(conn) {
                    self.pool.submit(SqlWork::Run { conn, sql, request }, now);
                }
            }
            Effect::ResumeSql { conn } => {
                if let Some(sql) = self.sockets.lend(conn) {
                    self.pool.submit(SqlWork::Resume { conn, sql }, now);
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
                self.to_disk(DiskWork::Persist { ticket, truncate_from, entries, metadata });
            }
            Effect::Snapshot { job, trailing } => {
                self.start_snapshot(job, trailing, Arc::clone(cancelled), now)
            }
        }
    }

    fn start_snapshot(&mut self, job: SnapshotJob, trailing: u64, cancelled: Arc<AtomicBool>, now: Time) {
        // Names must grow even when the machine was restarted since the last snapshot.
        self.snapshot_time = clock::boot_ms().max(self.snapshot_time.saturating_add(1));
        let (time, compress) = (self.snapshot_time, self.compress);
        let (directory, mailbox) = (self.directory.clone(), self.mailbox.clone());
        let started = threads::start("dqlite-snapshot", move || {
            let result = snapshot::write(directory, job, compress, time, &cancelled);
            mailbox.post(Message::Snapshot(result.map(|snapshot| (snapshot, trailing))));
        });
        if let Err(error) = started {
            self.core.handle_snapshot(Err(format!("no thread for the snapshot: {error}")), now);
        }
    }
}

impl Sockets {
    fn add(&mut self, stream: Stream, poll: &Poll, core: &mut Core) -> io::Result<()> {
        self.next += 1;
        let conn = ConnId(self.next);
        let token = usize::try_from(self.next).unwrap_or(usize::MAX).saturating_add(FIRST_CONNECTION);
        let connection = Connection::new(stream, poll.registry(), Token(token))?;
        self.connections.insert(conn, connection);
        core.handle_connected(conn);
        Ok(())
    }

    /// Takes the SQL connection away for an SQL thread.
    fn lend(&mut self, conn: ConnId) -> Option<Box<SqlConn>> {
        match self.sql.remove(&conn) {
            Some(SqlPlace::Here(sql)) => {
                self.sql.insert(conn, SqlPlace::Away(sql.interrupter()));
                Some(sql)
            }
            elsewhere => {
                log::error!("the SQL connection of client {} is not here", conn.0);
                if let Some(place) = elsewhere {
                    self.sql.insert(conn, place);
                }
                None
            }
        }
    }
}
