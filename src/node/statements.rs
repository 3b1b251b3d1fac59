//! A client's statement on its way: the writer slot, the SQL thread, the version that its answer waits for.

use super::clients::{Client, Kept, Place, RolledBack, Wait, Why};
use super::core::Core;
use super::effect::Effect;
use super::readers::transaction_stopped;
use crate::base::{Time, limits};
use crate::codec::client::{Failure, failure};
use crate::engine::jobs::{Outcome, Progress, SqlRequest, text_bounds_transaction, text_looks_like_write};
use crate::engine::{ConnId, Hold, Slot, SlotEffect};
use crate::pages::WriterId;
use crate::session::{Reply, Sql};

/// What an idle transaction's client is told.
fn idled_too_long() -> Failure {
    Failure::new(
        failure::LOCKED.code,
        "database is locked: this connection's transaction idled while others waited to write, and was rolled back",
    )
}

fn rolled_back(why: Why) -> Failure {
    match why {
        Why::Idled => idled_too_long(),
        Why::OldPages => transaction_stopped(),
    }
}

impl Core {
    /// A request on the client's connection ended or paused.
    pub fn handle_sql_ran(&mut self, conn: ConnId, mut progress: Progress, now: Time) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.sql = Place::Idle;
        let Some(slot) = client.database else { return };
        self.databases.note_ran(slot);
        let answered = !matches!(client.wait, Wait::Internal);
        let void = client.void.take();
        if client.gone || void.is_some() {
            let failure = void.filter(|_| !client.gone && answered);
            self.close_sql(conn, now);
            if let Some(failure) = failure {
                self.fail(conn, &failure, now);
            }
            return self.settle(now);
        }
        if self.refuse_if_old(conn, &mut progress, now) {
            return self.settle(now);
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        match progress {
            Progress::NeedsSlot => {
                let interrupted = client.session.is_interrupted();
                client.stopping = false;
                client.wait = Wait::Slot(None);
                self.queue_again(conn, slot, now);
                if interrupted {
                    // It was told while it gave up already, and would be forgotten.
                    self.interrupt(conn, now);
                }
            }
            Progress::Batch { messages, read_seq } => {
                let stopping = client.stopping;
                client.wait = Wait::Held(Reply::RowsPart(messages));
                if let Some(state) = self.databases.get_mut(slot) {
                    // From here on it is the client that others may have to wait for: not without a limit.
                    let holds_slot = state.database.slot_holder() == Some(WriterId(conn.0));
                    state.queue.handle_done(conn, holds_slot, now);
                }
                if stopping {
                    self.stop_rows(conn);
                } else {
                    self.settle_doubt(conn, false, now);
                    self.hold_or_send(conn, slot, read_seq, now);
                }
            }
            Progress::Done(outcome) => self.finish(conn, slot, outcome, now),
        }
        self.settle(now);
    }

    /// The slot was not to be had: whoever has it is the queue's holder now, and `conn` waits.
    pub(super) fn queue_again(&mut self, conn: ConnId, slot: Slot, now: Time) {
        let is_idle = |owner| self.clients.get(&owner).is_some_and(|client| client.sql == Place::Idle);
        let Some(state) = self.databases.get(slot) else { return };
        let taken = state.database.slot_holder().map(|owner| ConnId(owner.0)).filter(|owner| *owner != conn);
        let taken = taken.map(|owner| (owner, is_idle(owner)));
        if let Some(state) = self.databases.get_mut(slot) {
            // Too much that is not committed is a reason to wait, too.
            state.pause_or_resume();
            if taken.is_none() && state.queue.is_paused() {
                state.queue.handle_done(conn, false, now);
                state.queue.handle_request(conn, now);
            } else {
                state.queue.handle_refused(conn, taken, now);
            }
        }
    }

    pub(super) fn finish(&mut self, conn: ConnId, slot: Slot, outcome: Outcome, now: Time) {
        if let Some(state) = self.databases.get_mut(slot) {
            state.queue.handle_done(conn, outcome.holds_slot, now);
            state.pause_or_resume();
        }
        if self.end_stopped_reader(conn, &outcome) {
            return;
        }
        self.complete_proof(conn, &outcome, now);
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if let (Some((stmt, kept)), Some(writes)) = (client.preparing.take(), outcome.prepared_writes) {
            client.kept.insert(stmt, Kept { writes, ..kept });
        }
        match outcome.reply {
            Some(reply) => {
                client.wait = Wait::Held(reply);
                let lost = |seq: &u64| {
                    self.databases.get(slot).is_some_and(|state| state.database.was_discarded(*seq))
                };
                let seq = outcome.published.filter(lost).or(outcome.published.max(outcome.read_seq));
                self.hold_or_send(conn, slot, seq, now);
            }
            None => {
                client.wait = Wait::Nothing;
                self.serve(conn, now);
            }
        }
    }

    pub(super) fn hold_or_send(&mut self, conn: ConnId, slot: Slot, seq: Option<u64>, now: Time) {
        match seq.map_or(Hold::Committed, |seq| self.databases.hold(slot, seq, conn)) {
            Hold::Committed => self.send_held(conn, now),
            Hold::Held => {}
            // It was finished while the disk ran full.
            Hold::Discarded => self.fail_held(conn),
        }
    }

    /// Sends the answer that was held for its version.
    pub(super) fn send_held(&mut self, conn: ConnId, now: Time) {
        if self.lacks_proof(conn) {
            return;
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        match std::mem::replace(&mut client.wait, Wait::Nothing) {
            Wait::Held(Reply::RowsPart(messages)) => {
                client.wait = Wait::Written;
                client.session.handle_reply(Reply::RowsPart(messages));
                self.effects.push_back(Effect::Flush { conn });
                self.serve(conn, now);
            }
            Wait::Held(reply) => self.reply(conn, reply, now),
            other => client.wait = other,
        }
    }

    pub(super) fn resume(&mut self, conn: ConnId) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.wait = Wait::Running;
        client.sql = Place::Busy;
        if let Some(state) = client.database.and_then(|slot| self.databases.get_mut(slot)) {
            state.queue.handle_activity(conn);
        }
        self.effects.push_back(Effect::ResumeSql { conn });
    }

    pub(super) fn start_internal(&mut self, conn: ConnId, request: SqlRequest) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.wait = Wait::Internal;
        client.sql = Place::Busy;
        self.effects.push_back(Effect::RunSql { conn, request });
    }

    pub(super) fn interrupt(&mut self, conn: ConnId, now: Time) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        match client.wait {
            Wait::Running => self.effects.push_back(Effect::InterruptSql { conn }),
            Wait::Slot(_) => {
                if let Some(state) = client.database.and_then(|slot| self.databases.get_mut(slot)) {
                    state.queue.handle_withdrawn(conn, now);
                }
                self.fail(conn, &failure::INTERRUPTED, now);
            }
            // Too late, or about to be answered by itself.
            Wait::Nothing
            | Wait::Opening(_)
            | Wait::Request(_)
            | Wait::Node(_)
            | Wait::Internal
            | Wait::Held(_)
            | Wait::Written => {}
        }
    }

    /// Lets interrupts stop the statements that they came along with and that still run.
    pub(super) fn hear_early_interrupts(&mut self, now: Time) {
        // They are due in the order in which they came.
        while let Some(&(at, conn, began_at)) = self.early_interrupts.front()
            && at <= now
        {
            self.early_interrupts.pop_front();
            if let Some(client) = self.clients.get_mut(&conn) {
                client.session.hear_interrupt(began_at);
                self.serve(conn, now);
            }
        }
    }

    pub(super) fn run_sql(&mut self, conn: ConnId, sql: Sql, now: Time) {
        let leads = self.is_leading();
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let Some(slot) = client.database.filter(|_| client.sql == Place::Idle) else {
            return self.fail(conn, &failure::NO_DATABASE, now);
        };
        let Kept { writes, bounds } = match &sql {
            Sql::Exec { stmt, .. } | Sql::Query { stmt, .. } => {
                client.kept.get(stmt).copied().unwrap_or_default()
            }
            Sql::ExecSql { sql, .. } | Sql::QuerySql { sql, .. } => {
                Kept { writes: text_looks_like_write(sql), bounds: text_bounds_transaction(sql) }
            }
            Sql::Prepare { .. } | Sql::Finalize { .. } => Kept::default(),
        };
        if writes && !leads {
            return self.fail(conn, &failure::NOT_LEADER, now);
        }
        match &sql {
            Sql::Prepare { stmt, sql, .. } => {
                let bounds = text_bounds_transaction(sql);
                client.preparing = Some((*stmt, Kept { bounds, ..Kept::default() }));
            }
            Sql::Finalize { .. } => {}
            Sql::Exec { .. } | Sql::Query { .. } | Sql::ExecSql { .. } | Sql::QuerySql { .. } => {
                let before = client.rolled_back;
                if let RolledBack::Untold(why) | RolledBack::Told(why) = before {
                    client.rolled_back = if bounds { RolledBack::No } else { RolledBack::Told(why) };
                    if !bounds || before == RolledBack::Untold(why) {
                        return self.fail(conn, &rolled_back(why), now);
                    }
                }
            }
        }
        if let Some(began_at) = client.session.interrupt_that_came_along() {
            self.early_interrupts.push_back((now.after(limits::EARLY_INTERRUPT_GRACE), conn, began_at));
        }
        self.tally.statements += 1;
        self.readers.handle_statement(now);
        match &sql {
            Sql::Prepare { .. } | Sql::Finalize { .. } => {}
            Sql::Exec { .. } | Sql::ExecSql { .. } => self.begin_proof(conn, slot, writes, bounds, now),
            Sql::Query { .. } | Sql::QuerySql { .. } => self.begin_proof(conn, slot, writes, false, now),
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let Some(state) = self.databases.get_mut(slot) else { return };
        let request = SqlRequest::Client(sql);
        if writes {
            client.wait = Wait::Slot(Some(request));
            client.waits_since = Some(now);
            state.queue.handle_request(conn, now);
        } else {
            state.queue.handle_activity(conn);
            client.wait = Wait::Running;
            client.sql = Place::Busy;
            self.effects.push_back(Effect::RunSql { conn, request });
        }
    }

    /// Acts on what the queues of writers decided.
    pub(super) fn run_queues(&mut self, now: Time) -> bool {
        let mut acted = false;
        while let Some((slot, effect)) = self.databases.poll_effect() {
            match effect {
                SlotEffect::Grant(conn) => self.granted(conn, slot, now),
                SlotEffect::Busy(conn) => {
                    let waits = |client: &Client| matches!(client.wait, Wait::Slot(_));
                    if self.clients.get(&conn).is_some_and(waits) {
                        self.fail(conn, &failure::LOCKED, now);
                    }
                }
                SlotEffect::RollBack(conn) => self.roll_back_idle(conn, slot, now),
            }
            acted = true;
        }
        acted
    }

    /// The version that the client's answer waited for will never be: there is no room for it. A transaction
    /// that saw it must not go on, nor a query.
    pub(super) fn fail_held(&mut self, conn: ConnId) {
        if self.clients.get(&conn).is_some_and(|client| matches!(client.wait, Wait::Held(_))) {
            self.fail_and_roll_back(conn, failure::FULL);
        }
    }

    /// Refuses the request in hand, and takes back what its connection has open before the next one begins.
    pub(super) fn fail_and_roll_back(&mut self, conn: ConnId, failure: Failure) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.preparing = None;
        self.tally.handle_failure(&failure);
        client.session.handle_reply(Reply::Failure(failure));
        self.effects.push_back(Effect::Flush { conn });
        self.start_internal(conn, SqlRequest::Rollback);
    }

    pub(super) fn granted(&mut self, conn: ConnId, slot: Slot, now: Time) {
        let wait =
            self.clients.get_mut(&conn).map(|client| std::mem::replace(&mut client.wait, Wait::Nothing));
        match wait {
            Some(Wait::Slot(request)) => {
                let since = self.clients.get_mut(&conn).and_then(|client| client.waits_since.take());
                self.note_granted(since, now);
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.wait = Wait::Running;
                    client.sql = Place::Busy;
                }
                self.effects.push_back(match request {
                    Some(request) => Effect::RunSql { conn, request },
                    None => Effect::ResumeSql { conn },
                });
            }
            other => {
                if let (Some(client), Some(wait)) = (self.clients.get_mut(&conn), other) {
                    client.wait = wait;
                }
                if let Some(state) = self.databases.get_mut(slot) {
                    state.queue.handle_done(conn, false, now);
                }
            }
        }
    }

    pub(super) fn roll_back_idle(&mut self, conn: ConnId, slot: Slot, now: Time) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let idle = client.sql == Place::Idle;
        match client.wait {
            Wait::Nothing if idle => {
                client.rolled_back = RolledBack::Untold(Why::Idled);
                self.start_internal(conn, SqlRequest::Rollback);
            }
            // The client does not take the rows that it asked for.
            Wait::Written if idle => {
                client.rolled_back = RolledBack::Told(Why::Idled);
                self.fail_and_roll_back(conn, idled_too_long());
            }
            _ => {
                // It does not idle for its client's sake: looked at again later.
                if let Some(state) = self.databases.get_mut(slot) {
                    state.queue.handle_done(conn, true, now);
                }
                return;
            }
        }
        self.tally.rolled_back += 1;
        log::warn!("a transaction idled while others waited to write: rolled back");
    }
}
