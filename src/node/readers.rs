//! Readers that keep old pages in memory for too long are stopped.
//!
//! A transaction reads the version that it pinned, for as long as it likes; the pages that others replaced
//! meanwhile stay in memory for it. Old ones may keep so many bytes, then those that began first are interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::clients::{Place, RolledBack, Wait, Why};
use super::core::Core;
use super::effect::Effect;
use crate::base::{Time, limits};
use crate::codec::client::{Failure, failure};
use crate::engine::jobs::{Outcome, SqlRequest};
use crate::engine::{ConnId, Slot};
use crate::session::Reply;

/// How often pins are looked at, as a part of the time that they are allowed.
const LOOKS: u32 = 12;

/// What readers may keep in memory, and for how long whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderLimits {
    /// Younger ones are left alone.
    pub age: Duration,
    /// Bytes of replaced pages per database; a quarter of the database, where that is more.
    pub bytes: u64,
}

impl Default for ReaderLimits {
    fn default() -> Self {
        Self { age: limits::READER_AGE_MAX, bytes: limits::READER_BYTES_MAX }
    }
}

/// Since when connections have pinned what they have.
#[derive(Debug, Default)]
pub(super) struct Readers {
    limits: ReaderLimits,
    /// By connection: the database, the version, and when it was first seen there.
    since: BTreeMap<ConnId, (Slot, u64, Time)>,
    /// When to look again; not while nothing is pinned.
    next: Option<Time>,
    stopped: u64,
}

impl Readers {
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.next
    }

    /// A statement begins, which may pin something.
    pub(super) fn handle_statement(&mut self, now: Time) {
        if self.next.is_none() {
            self.next = Some(now.after(self.limits.age / LOOKS));
        }
    }
}

/// What a statement's client is told.
fn statement_stopped() -> Failure {
    Failure::new(
        failure::INTERRUPTED.code,
        "interrupted: this statement kept too many replaced pages in memory for too long",
    )
}

/// What a transaction's client is told.
pub(super) fn transaction_stopped() -> Failure {
    Failure::new(
        failure::INTERRUPTED.code,
        "interrupted: this connection's transaction kept too many replaced pages in memory for too long, and was \
         rolled back",
    )
}

impl Core {
    /// Sets what readers may keep in memory from now on.
    pub fn set_reader_limits(&mut self, limits: ReaderLimits) {
        self.readers.limits = limits;
    }

    /// How many readers were stopped since the start.
    #[must_use]
    pub fn readers_stopped(&self) -> u64 {
        self.readers.stopped
    }

    /// Looks at the pins when it is time.
    pub(super) fn check_readers(&mut self, now: Time) {
        if self.readers.next.is_none_or(|next| now < next) {
            return;
        }
        let mut since = BTreeMap::new();
        for (slot, state) in self.databases.iter() {
            for (who, seq) in state.database.pins() {
                let conn = ConnId(who.0);
                let known = self.readers.since.get(&conn).filter(|known| (known.0, known.1) == (slot, seq));
                since.insert(conn, known.copied().unwrap_or((slot, seq, now)));
            }
        }
        let ReaderLimits { age, bytes } = self.readers.limits;
        self.readers.next = (!since.is_empty()).then(|| now.after(age / LOOKS));
        let old: BTreeMap<ConnId, (Slot, u64)> = since
            .iter()
            .filter(|(_, (.., first_seen))| first_seen.after(age) <= now)
            .map(|(conn, (slot, seq, _))| (*conn, (*slot, *seq)))
            .collect();
        self.readers.since = since;
        let slots: BTreeSet<Slot> = old.values().map(|(slot, _)| *slot).collect();
        for slot in slots {
            let Some(state) = self.databases.get(slot) else { continue };
            for (who, seq, held) in state.database.pins_beyond(bytes.max(state.committed_bytes() / 4)) {
                let conn = ConnId(who.0);
                if old.get(&conn) == Some(&(slot, seq)) {
                    self.stop_reader(conn, held, now);
                }
            }
        }
    }

    fn stop_reader(&mut self, conn: ConnId, held: u64, now: Time) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if client.gone || client.stopping {
            return;
        }
        let idle = client.sql == Place::Idle;
        match client.wait {
            Wait::Running if client.sql == Place::Busy => {
                self.effects.push_back(Effect::InterruptSql { conn });
            }
            // The client does not take the rows that it asked for.
            Wait::Written if idle => self.stop_rows(conn),
            Wait::Slot(_) if idle => {
                if let Some(state) = client.database.and_then(|slot| self.databases.get_mut(slot)) {
                    state.queue.handle_withdrawn(conn, now);
                }
                self.stop_rows(conn);
            }
            Wait::Nothing if idle => self.start_internal(conn, SqlRequest::Rollback),
            // It changes in a moment by itself.
            _ => return,
        }
        self.readers.stopped += 1;
        log::warn!(
            "client {}: its reading of an old version keeps {} MiB of replaced pages in memory: stopped",
            conn.0,
            held >> 20
        );
        if let Some(client) = self.clients.get_mut(&conn) {
            client.stopping = true;
        }
    }

    /// A request of a client whose reading is being stopped ended: whether its client was told so by that.
    pub(super) fn end_stopped_reader(&mut self, conn: ConnId, outcome: &Outcome) -> bool {
        let Some(client) = self.clients.get_mut(&conn).filter(|client| client.stopping) else { return false };
        match &outcome.reply {
            Some(Reply::Failure(found)) if found.code == failure::INTERRUPTED.code => {
                self.stop_rows(conn);
                return true;
            }
            // It was quicker. If it goes on holding what it holds, it is found again.
            Some(_) => client.stopping = false,
            // The rollback. What follows was meant for the transaction, if there was one.
            None => {
                client.stopping = false;
                if outcome.rolled_back {
                    client.rolled_back = RolledBack::Untold(Why::OldPages);
                }
            }
        }
        false
    }

    /// Tells the client that its statement was stopped, and ends what it has open.
    pub(super) fn stop_rows(&mut self, conn: ConnId) {
        self.fail_and_roll_back(conn, statement_stopped());
    }
}
