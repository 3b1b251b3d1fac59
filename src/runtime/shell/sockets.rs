//! The clients' sockets and where their SQL connections are.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::time::Duration;

use mio::{Registry, Token};

use super::Shell;
use super::run::FIRST_CONNECTION;
use crate::base::Time;
use crate::base::limits::FLUSH_PER_TURN_BYTES;
use crate::engine::ConnId;
use crate::node::Core;
use crate::runtime::executor::SqlConn;
use crate::runtime::net::{Connection, ReadOutcome, Stream, WriteOutcome};
use crate::sqlite::Interrupter;

/// How often one socket is read before the others have their turn.
const READS_PER_TURN: usize = 16;

/// Less than this is not worth being remembered until the end of the turn.
const MUCH_BYTES: usize = 16 << 10;

/// How long a client waits that could not be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Where a client's SQL connection is.
pub(super) enum SqlPlace {
    Here(Box<SqlConn>),
    Away(Interrupter),
    Opening,
}

/// The sockets and SQL connections of all clients.
#[derive(Default)]
pub struct Sockets {
    pub(super) connections: HashMap<ConnId, Connection>,
    pub(super) sql: HashMap<ConnId, SqlPlace>,
    pub(super) to_flush: BTreeSet<ConnId>,
    /// Sockets that may take more, once the others had their turn.
    pub(super) to_flush_on: BTreeSet<ConnId>,
    /// What sockets took in this turn, where that was much.
    pub(super) flushed: HashMap<ConnId, usize>,
    /// Sockets that may hold bytes which their sessions did not want yet.
    unread: BTreeSet<ConnId>,
    /// When to look for clients that could not be accepted.
    pub(super) accept_again: Option<Time>,
    next: u64,
}

impl Shell {
    pub(super) fn flush(&mut self, conn: ConnId) {
        let now = self.clock.now();
        if self.core.output(conn).is_empty() {
            // The socket may take again what was left there.
            if let Some(connection) = self.sockets.connections.get(&conn) {
                connection.send_waiting();
            }
            return;
        }
        // What a client takes may bring more for it at once: a turn would last for as long as it keeps up.
        let before = self.sockets.flushed.get(&conn).copied().unwrap_or(0);
        let written = self.write(conn, before, now);
        if written > before.max(MUCH_BYTES) {
            self.sockets.flushed.insert(conn, written);
        }
    }

    /// Writes to a socket that took `written` bytes in this turn; how many these are then.
    fn write(&mut self, conn: ConnId, mut written: usize, now: Time) -> usize {
        while let Some(connection) = self.sockets.connections.get_mut(&conn) {
            let output = self.core.output(conn);
            if output.is_empty() {
                break;
            }
            if written >= FLUSH_PER_TURN_BYTES {
                // The poll does not tell again of a socket that takes more.
                self.sockets.to_flush_on.insert(conn);
                break;
            }
            if self.sends_later
                && let Some(outlet) = connection.leave(output)
            {
                self.outbox.push(outlet);
                let count = output.len();
                written += count;
                self.core.handle_written(conn, count, now);
                continue;
            }
            match connection.write(output) {
                WriteOutcome::Bytes(count) => {
                    written += count;
                    self.core.handle_written(conn, count, now);
                }
                // The poll says when the socket takes more.
                WriteOutcome::Blocked => break,
                WriteOutcome::Gone => self.drop_socket(conn, now),
            }
        }
        written
    }

    pub(super) fn drop_socket(&mut self, conn: ConnId, now: Time) {
        self.sockets.unread.remove(&conn);
        self.sockets.to_flush_on.remove(&conn);
        if let Some(mut connection) = self.sockets.connections.remove(&conn) {
            connection.deregister(&self.registry);
            self.core.handle_gone(conn, now);
        }
    }

    pub(super) fn accept(&mut self) {
        let Some(acceptor) = &self.acceptor else { return };
        loop {
            match acceptor.accept() {
                Ok(Some(stream)) => {
                    if let Err(error) = self.sockets.add(stream, &self.registry, &mut self.core) {
                        log::warn!("a client could not be served: {error}");
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    // Out of descriptors. Nothing tells when there are some again, and the poll does not say
                    // once more that somebody is waiting.
                    log::warn!("accepting a client failed: {error}");
                    self.sockets.accept_again = Some(self.clock.now().after(ACCEPT_RETRY));
                    return;
                }
            }
        }
    }

    /// Reads what there is. The poll tells of an end only once, perhaps along with the last bytes: `ends` says
    /// that it did, and then the end has to be found.
    pub(super) fn read(&mut self, conn: ConnId, buffer: &mut [u8], ends: bool, now: Time) {
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.sockets.connections.get_mut(&conn) else { return };
            if !self.core.wants_bytes(conn) {
                self.sockets.unread.insert(conn);
                return;
            }
            self.sockets.unread.remove(&conn);
            match connection.read(buffer) {
                ReadOutcome::Bytes(count) => {
                    self.core.handle_bytes(conn, buffer.get(..count).unwrap_or_default(), now);
                    if count < buffer.len() && !ends {
                        return;
                    }
                }
                ReadOutcome::Nothing => return,
                ReadOutcome::Gone => return self.drop_socket(conn, now),
            }
        }
        // Others first; the loop comes back at once.
        self.sockets.unread.insert(conn);
    }

    /// Reads from sockets that were left unread because their sessions had enough.
    pub(super) fn read_on(&mut self, buffer: &mut [u8], now: Time) {
        for conn in self.unread_and_wanted().collect::<Vec<_>>() {
            // Its end may have been told while it was not wanted.
            self.read(conn, buffer, true, now);
        }
    }

    /// Sockets that were left unread and whose sessions want more now.
    pub(super) fn unread_and_wanted(&self) -> impl Iterator<Item = ConnId> {
        self.sockets.unread.iter().copied().filter(|conn| self.core.wants_bytes(*conn))
    }
}

impl Sockets {
    fn add(&mut self, stream: Stream, registry: &Registry, core: &mut Core) -> io::Result<()> {
        let (conn, token) = self.next_place();
        let connection = Connection::new(stream, registry, token)?;
        self.connections.insert(conn, connection);
        core.handle_connected(conn);
        Ok(())
    }

    /// An id and a token that no connection has had.
    pub(super) fn next_place(&mut self) -> (ConnId, Token) {
        self.next += 1;
        let token = usize::try_from(self.next).unwrap_or(usize::MAX).saturating_add(FIRST_CONNECTION);
        (ConnId(self.next), Token(token))
    }

    /// Takes the SQL connection away for an SQL thread.
    pub(super) fn lend(&mut self, conn: ConnId) -> Option<Box<SqlConn>> {
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
