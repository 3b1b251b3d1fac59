//! What clients ask, and when they are answered.
//!
//! Each client has at most one request in hand. A request that needs SQL goes through these stations: wait until
//! the node may serve, wait for the writer slot, run, wait until the version it made or read is committed, be
//! answered; rows in several messages go round from "run" once each message was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::core::Core;
use super::dump::Dump;
use super::effect::Effect;
use super::proofs::Proof;
use crate::base::{Event, Time};
use crate::codec::client::{Failure, failure};
use crate::engine::jobs::SqlRequest;
use crate::engine::{ConnId, Slot};
use crate::pages::WriterId;
use crate::session::{Reply, Session, SessionEvent, Sql};

/// One client.
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) database: Option<Slot>,
    pub(super) sql: Place,
    pub(super) wait: Wait,
    /// The statements that it keeps, and the one that is being prepared.
    pub(super) kept: BTreeMap<u32, Kept>,
    pub(super) preparing: Option<(u32, Kept)>,
    pub(super) rolled_back: RolledBack,
    /// Since when it waits to write.
    pub(super) waits_since: Option<Time>,
    /// What the answer in hand needs to be linearizable.
    pub(super) proof: Proof,
    /// What is still to come of the dump that it asked for.
    pub(super) dump: Option<Box<Dump>>,
    /// It reads an old version that takes too much memory, and is told to end.
    pub(super) stopping: bool,
    /// The ground went while a statement ran: its result is void, and this is the answer.
    pub(super) void: Option<Failure>,
    pub(super) gone: bool,
    /// Its OPEN asked to be served by a node that does not lead, too.
    pub(super) anywhere: bool,
}

/// What is known of a kept statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// It is likely to write.
    pub(super) writes: bool,
    /// It begins or ends a transaction.
    pub(super) bounds: bool,
}

/// Whether a transaction of the client was rolled back for the sake of others. Its statements are refused until it
/// begins or ends one itself: run alone, they would be committed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RolledBack {
    No,
    Untold(Why),
    Told(Why),
}

/// Why it was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It idled while others waited to write.
    Idled,
    /// It kept too many replaced pages in memory.
    OldPages,
}

/// Where the client's SQLite connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    None,
    Opening,
    Idle,
    Busy,
    Closing,
}

/// What is gone, on which clients were served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// This node led.
    Leadership,
    /// Another node led: who reads here need not notice.
    OtherLeader,
    /// The databases, or that they can be trusted, on a node that did not lead.
    Databases,
}

/// What the request in hand waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// There is none, or it is not the engine's.
    Nothing,
    /// To serve as a leader: open this database.
    Opening(Vec<u8>),
    /// To serve as a leader: run this.
    Request(Sql),
    /// To serve as a leader: change the cluster.
    Node(SessionEvent),
    /// The writer slot: to run this, or to go on.
    Slot(Option<SqlRequest>),
    /// The SQL thread, for a request.
    Running,
    /// The SQL thread, for something that nobody is answered.
    Internal,
    /// The version that the answer depends on.
    Held(Reply),
    /// The client to take the rows sent so far.
    Written,
}

impl Client {
    fn new() -> Self {
        Self {
            session: Session::new(),
            database: None,
            sql: Place::None,
            wait: Wait::Nothing,
            kept: BTreeMap::new(),
            preparing: None,
            rolled_back: RolledBack::No,
            waits_since: None,
            proof: Proof::None,
            dump: None,
            stopping: false,
            void: None,
            gone: false,
            anywhere: false,
        }
    }
}

impl Core {
    /// A client connected.
    pub fn handle_connected(&mut self, conn: ConnId) {
        self.clients.insert(conn, Client::new());
    }

    /// Whether the client's session takes more bytes now.
    #[must_use]
    pub fn wants_bytes(&self, conn: ConnId) -> bool {
        let wants = |client: &Client| !client.gone && client.session.wants_read();
        (self.inbound.contains_key(&conn) && !self.is_intake_paused(conn))
            || self.clients.get(&conn).is_some_and(wants)
    }

    /// A client sent bytes.
    pub fn handle_bytes(&mut self, conn: ConnId, bytes: &[u8], now: Time) {
        if self.inbound.contains_key(&conn) {
            self.handle_peer_bytes(conn, bytes, now);
        } else if let Some(client) = self.clients.get_mut(&conn) {
            client.session.handle_bytes(bytes);
            self.serve(conn, now);
        }
        self.settle(now);
    }

    /// Bytes to send to the client; empty when there are none.
    #[must_use]
    pub fn output(&self, conn: ConnId) -> &[u8] {
        self.clients.get(&conn).filter(|client| !client.gone).map_or(&[], |client| client.session.output())
    }

    /// The first `count` bytes of the client's output were sent.
    pub fn handle_written(&mut self, conn: ConnId, count: usize, now: Time) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.session.handle_written(count);
        if client.session.output().is_empty() {
            self.serve(conn, now);
            self.settle(now);
        }
    }

    /// The client is gone: whatever it had open is rolled back.
    pub fn handle_gone(&mut self, conn: ConnId, now: Time) {
        self.journal.note(now, Event::Gone, [conn.0, 0]);
        self.inbound.remove(&conn);
        self.break_intake_off(conn);
        if let Some(client) = self.clients.get_mut(&conn) {
            client.session.handle_eof();
        }
        self.serve(conn, now);
        self.settle(now);
    }

    fn leave(&mut self, conn: ConnId, now: Time) {
        self.forget_changes(conn);
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.gone = true;
        if let Some(dump) = client.dump.take() {
            self.end_dump(*dump);
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        match client.sql {
            Place::None => {
                self.clients.remove(&conn);
            }
            Place::Idle => self.close_sql(conn, now),
            // Its end is waited for: `handle_sql_ran` or `handle_sql_opened` closes it.
            Place::Busy => self.effects.push_back(Effect::InterruptSql { conn }),
            Place::Opening | Place::Closing => {}
        }
    }

    /// Rolls back and closes the client's idle SQLite connection.
    pub(super) fn close_sql(&mut self, conn: ConnId, now: Time) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.sql = Place::Closing;
        client.rolled_back = RolledBack::No;
        client.proof = Proof::None;
        client.stopping = false;
        client.kept.clear();
        let waits = std::mem::replace(&mut client.wait, Wait::Nothing);
        if let (Wait::Held(_), Some(slot)) = (&waits, client.database) {
            self.databases.drop_held(slot, conn);
        }
        let Some(client) = self.clients.get(&conn) else { return };
        if let Some(state) = client.database.and_then(|slot| self.databases.get_mut(slot)) {
            // It waits no more; what it holds, it holds until it is closed.
            if matches!(waits, Wait::Slot(_)) {
                state.queue.handle_withdrawn(conn, now);
            }
            state.queue.handle_closing(conn);
        }
        self.effects.push_back(Effect::CloseSql { conn });
    }

    /// The connection to the client's database is there, or could not be made: code and text.
    pub fn handle_sql_opened(&mut self, conn: ConnId, result: Result<(), (i32, Vec<u8>)>, now: Time) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let void = client.void.take().is_some();
        client.wait = Wait::Nothing;
        match result {
            Ok(()) => {
                client.sql = Place::Idle;
                let gone = client.gone;
                if gone || void {
                    self.close_sql(conn, now);
                }
                if void && !gone {
                    self.fail(conn, &failure::NOT_LEADER, now);
                } else if !gone {
                    self.reply(conn, Reply::Opened, now);
                }
            }
            Err((code, text)) => {
                client.sql = Place::None;
                client.database = None;
                if client.gone {
                    self.clients.remove(&conn);
                } else {
                    let code = u64::from(code.unsigned_abs());
                    self.fail(conn, &Failure::new(code, text), now);
                }
            }
        }
        self.settle(now);
    }

    /// The client's SQLite connection is closed; everything it held is free.
    pub fn handle_sql_closed(&mut self, conn: ConnId, now: Time) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.sql = Place::None;
        if let Some(slot) = client.database.take() {
            if self.databases.get(slot).is_some_and(|state| state.database.is_broken()) {
                // Nothing that it holds can be trusted, nor what others would be told from it.
                self.consensus.fail("a thread panicked while it changed a database's pages");
            }
            if let Some(state) = self.databases.get(slot) {
                // In case SQLite could not close it: nobody else could ever write.
                state.database.release(WriterId(conn.0));
            }
            self.databases.forget(slot, conn);
            self.databases.note_ran(slot);
        }
        let decided = self.is_ready() || !self.is_leading();
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if client.gone {
            self.clients.remove(&conn);
        } else if let Wait::Opening(name) = &client.wait
            && decided
        {
            let name = name.clone();
            self.check_open(conn, name, now);
        } else {
            self.serve(conn, now);
        }
        self.settle(now);
    }

    /// Answers the request in hand and goes on with the next.
    pub(super) fn reply(&mut self, conn: ConnId, reply: Reply, now: Time) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.wait = Wait::Nothing;
        client.proof = Proof::None;
        client.preparing = None;
        if let Reply::Failure(failure) = &reply {
            self.tally.handle_failure(failure);
        }
        client.session.handle_reply(reply);
        self.effects.push_back(Effect::Flush { conn });
        self.serve(conn, now);
    }

    /// Refuses the request in hand.
    pub(super) fn fail(&mut self, conn: ConnId, failure: &Failure, now: Time) {
        self.reply(conn, Reply::Failure(failure.clone()), now);
    }

    /// Does what the session of the client found in its bytes.
    pub(super) fn serve(&mut self, conn: ConnId, now: Time) {
        loop {
            let leading = self.is_leading();
            let Some(client) = self.clients.get_mut(&conn) else { return };
            if client.gone || matches!(client.wait, Wait::Internal) {
                return;
            }
            let Some(event) = client.session.poll_event(leading) else { break };
            self.handle_session_event(conn, event, now);
        }
        // The session may have answered by itself.
        if !self.output(conn).is_empty() {
            self.effects.push_back(Effect::Flush { conn });
        }
    }

    fn handle_session_event(&mut self, conn: ConnId, event: SessionEvent, now: Time) {
        match event {
            SessionEvent::Sql(sql) if self.is_ready() || matches!(sql, Sql::Finalize { .. }) => {
                self.run_sql(conn, sql, now);
            }
            SessionEvent::Sql(sql) if !self.is_leading() => self.run_sql_here(conn, sql, now),
            SessionEvent::Sql(sql) => self.wait_for_leadership(conn, Wait::Request(sql), now),
            SessionEvent::Open { name, anywhere } => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.anywhere = anywhere;
                }
                self.check_open(conn, name, now);
            }
            SessionEvent::Interrupt => self.interrupt(conn, now),
            SessionEvent::MoreRows if self.resume_dump(conn, now) => {}
            SessionEvent::MoreRows => self.resume(conn),
            SessionEvent::RowsAbandoned => self.start_internal(conn, SqlRequest::Abandon),
            SessionEvent::PeerUpgrade { id, address, rest } => {
                // The connection stays, but it is no client's any more.
                self.leave(conn, now);
                if let Err(text) = self.become_peer(conn, id, address, &rest, now) {
                    self.tell_turned_away(&text, now);
                    self.effects.push_back(Effect::Close { conn });
                }
            }
            SessionEvent::Close(reason) => {
                log::debug!("client {}: connection closed: {reason}", conn.0);
                self.effects.push_back(Effect::Close { conn });
                self.leave(conn, now);
            }
            other => self.handle_node_request(conn, other, now),
        }
    }

    pub(super) fn wait_for_leadership(&mut self, conn: ConnId, wait: Wait, now: Time) {
        if self.waits_for_room() {
            // Nobody knows for how long.
            self.fail(conn, &failure::FULL, now);
        } else if let Some(client) = self.clients.get_mut(&conn) {
            client.wait = wait;
        }
    }

    /// The node serves now: whoever waited for that goes on.
    pub(super) fn wake_clients_waiting_for_leadership(&mut self, now: Time) {
        for conn in self.all_clients() {
            let Some(client) = self.clients.get_mut(&conn) else { continue };
            match std::mem::replace(&mut client.wait, Wait::Nothing) {
                Wait::Request(request) => self.run_sql(conn, request, now),
                Wait::Opening(name) => self.open(conn, name),
                Wait::Node(event) => self.handle_node_request(conn, event, now),
                other => client.wait = other,
            }
        }
    }

    /// There is no room for the entry with which serving begins.
    pub(super) fn fail_whoever_waits_for_leadership(&mut self, now: Time) {
        for conn in self.all_clients() {
            let waits =
                |client: &Client| matches!(client.wait, Wait::Request(_) | Wait::Opening(_) | Wait::Node(_));
            if self.clients.get(&conn).is_some_and(waits) {
                self.fail(conn, &failure::FULL, now);
            }
        }
    }

    /// Nothing that is under way can be confirmed, and no database stays open. `held` are the clients whose answers
    /// waited for a version that is dropped.
    pub(super) fn fail_clients(&mut self, held: &[ConnId], gone: Gone, now: Time) {
        let lost = if gone == Gone::Leadership { failure::LEADERSHIP_LOST } else { failure::NOT_LEADER };
        for conn in self.all_clients() {
            let Some(client) = self.clients.get_mut(&conn) else { continue };
            if client.anywhere && gone == Gone::OtherLeader {
                continue;
            }
            client.session.handle_database_closed();
            let answer = match client.wait {
                Wait::Opening(_) | Wait::Request(_) | Wait::Node(_) | Wait::Slot(Some(_)) => {
                    Some(failure::NOT_LEADER)
                }
                // Earlier statements of the same text may have written already.
                Wait::Slot(None) => Some(lost.clone()),
                Wait::Held(_) => Some(Self::lost_while_held(client.proof)),
                Wait::Written => Some(lost.clone()),
                Wait::Nothing | Wait::Running | Wait::Internal => None,
            };
            debug_assert!(!held.contains(&conn) || answer.is_some(), "a held answer waits for its version");
            match client.sql {
                Place::Idle => self.close_sql(conn, now),
                Place::Busy | Place::Opening => {
                    client.void = Some(lost.clone());
                    self.effects.push_back(Effect::InterruptSql { conn });
                }
                Place::None | Place::Closing => {}
            }
            if let Some(failure) = answer {
                self.fail(conn, &failure, now);
            }
        }
    }

    fn all_clients(&self) -> Vec<ConnId> {
        self.clients.keys().copied().collect()
    }

    fn check_open(&mut self, conn: ConnId, name: Vec<u8>, now: Time) {
        if self.databases.find(&name).is_none() && !crate::session::is_name_allowed(&name) {
            return self.fail(conn, &failure::name_not_allowed(&name), now);
        }
        if self.is_ready() {
            self.open(conn, name);
        } else if !self.is_leading() {
            self.open_here(conn, name, now);
        } else {
            self.wait_for_leadership(conn, Wait::Opening(name), now);
        }
    }

    pub(super) fn open(&mut self, conn: ConnId, name: Vec<u8>) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if client.sql != Place::None {
            // Its connection of an earlier leadership is still being closed.
            client.wait = Wait::Opening(name);
            return;
        }
        let slot = self.databases.open(&name);
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let Some(state) = self.databases.get(slot) else { return };
        client.database = Some(slot);
        client.sql = Place::Opening;
        client.wait = Wait::Running;
        self.effects.push_back(Effect::OpenSql { conn, database: Arc::clone(&state.database) });
    }
}
