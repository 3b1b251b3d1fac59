//! Runs one client's requests on its SQLite connection, one at a time, and makes the answers.
//!
//! Synchronous and without threads of its own: whoever has the [`SqlConn`] calls [`SqlConn::start`], and
//! [`SqlConn::resume`] for as long as the request is not done. Between two calls a request may have rows to
//! be written out, or wait for the writer slot; nothing is lost when the connection changes threads meanwhile.
//!
//! Invariant: after [`Progress::Done`] no statement runs, so the slot is free or an open transaction has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::client::{Failure, OwnedParams, Schema, failure};
use crate::engine::jobs::{Outcome, SqlRequest};
use crate::pages::{Database, View, WriterId};
use crate::session::{Reply, Sql};
use crate::sqlite::{Conn, ConnOptions, Interrupter, SqlError, StmtId, threads};
use crate::vfs::Control;

pub use crate::engine::jobs::Progress;

mod query;
mod statement;

use query::Rows;
use statement::{Halt, TooMany};

#[cfg(test)]
mod tests;

/// A client's connection to its database: the SQLite connection, its kept statements, the request in hand.
pub struct SqlConn {
    conn: Conn,
    control: Arc<Control>,
    /// The statements that the client prepared, by its own ids.
    kept: BTreeMap<u32, StmtId>,
    job: Option<Job>,
    /// The newest versions that the request in hand made and read.
    published: Option<u64>,
    read: Option<u64>,
}

/// A request that is not done.
enum Job {
    Exec {
        stmt: u32,
        params: OwnedParams,
    },
    Script(Script),
    /// Not begun, or nothing of it happened.
    Query {
        source: Source,
        params: OwnedParams,
    },
    /// Rows came, and more may.
    Rows(Rows),
}

/// The statements of a text, run one after another.
struct Script {
    sql: Vec<u8>,
    /// Where the next statement begins, and how many parameters those before it took.
    at: usize,
    params_used: usize,
    params: OwnedParams,
}

/// Which statement a query runs.
enum Source {
    Kept(u32),
    Text(Vec<u8>),
}

/// How far a job came.
enum Turn {
    Reply(Reply),
    Prepared { reply: Reply, writes: bool },
    Batch { messages: Vec<u8>, rest: Job },
    NeedsSlot(Job),
    Silent,
}

impl SqlConn {
    /// A connection to `database` that writes as `who`.
    ///
    /// # Errors
    /// [`SqlError`] as SQLite gives it.
    pub fn open(database: &Arc<Database>, who: u64) -> Result<Self, SqlError> {
        let control = Control::new(Arc::clone(database), WriterId(who));
        let conn = Conn::open(&control, &ConnOptions::default())?;
        let _nobodys_answer = (control.read_seq(), control.last_published(), control.refusal());
        Ok(Self { conn, control, kept: BTreeMap::new(), job: None, published: None, read: None })
    }

    /// A handle that stops the request which is given to this connection next. Earlier interrupts, which came
    /// too late for their request, are forgotten: to be called by the owner right before it hands this over.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.conn.clear_interrupt();
        self.conn.interrupter()
    }

    /// Begins a request. One that is still in hand is dropped.
    pub fn start(&mut self, request: SqlRequest) -> Progress {
        let _guard = threads::enter();
        self.drop_job();
        (self.published, self.read) = (None, None);
        let mut rolled_back = false;
        let turn = match request {
            // SQLite forgets an interrupt that comes before the first step.
            SqlRequest::Client(sql) if self.conn.is_interrupted() && !matches!(sql, Sql::Finalize { .. }) => {
                Turn::Reply(Reply::Failure(failure::INTERRUPTED))
            }
            SqlRequest::Client(sql) => self.begin(sql),
            SqlRequest::Abandon => Turn::Silent,
            SqlRequest::Rollback => {
                rolled_back = self.conn.in_transaction();
                self.roll_back();
                Turn::Silent
            }
        };
        match self.progress(turn) {
            Progress::Done(outcome) => Progress::Done(Outcome { rolled_back, ..outcome }),
            other => other,
        }
    }

    /// Goes on with the request in hand: its rows were written, or the writer slot is free for it.
    pub fn resume(&mut self) -> Progress {
        let _guard = threads::enter();
        let turn = match self.job.take() {
            Some(Job::Exec { stmt, params }) => self.exec_kept(stmt, params),
            Some(Job::Script(script)) => self.exec_script(script),
            Some(Job::Query { source, params }) => self.query(source, params),
            Some(Job::Rows(rows)) => self.more_rows(rows),
            None => Turn::Silent,
        };
        self.progress(turn)
    }

    fn begin(&mut self, sql: Sql) -> Turn {
        match sql {
            Sql::Prepare { schema, stmt, sql } => match self.prepare_kept(schema, stmt, &sql) {
                Ok((reply, writes)) => Turn::Prepared { reply, writes },
                Err(failure) => Turn::Reply(Reply::Failure(failure)),
            },
            Sql::Exec { stmt, params } => self.exec_kept(stmt, params),
            Sql::Query { stmt, params } => self.query(Source::Kept(stmt), params),
            Sql::Finalize { stmt } => Turn::Reply(match self.kept.remove(&stmt) {
                Some(id) => {
                    self.conn.finalize(id);
                    Reply::Empty
                }
                None => Reply::Failure(failure::NO_STATEMENT),
            }),
            Sql::ExecSql { sql, params } => self.exec_script(Script { sql, at: 0, params_used: 0, params }),
            Sql::QuerySql { sql, params } => self.query(Source::Text(sql), params),
        }
    }

    fn progress(&mut self, turn: Turn) -> Progress {
        self.note_versions();
        let (reply, prepared_writes) = match turn {
            Turn::Batch { messages, rest } => {
                self.job = Some(rest);
                return Progress::Batch { messages, read_seq: self.read };
            }
            Turn::NeedsSlot(job) => {
                self.job = Some(job);
                return Progress::NeedsSlot;
            }
            Turn::Prepared { reply, writes } => (Some(reply), Some(writes)),
            Turn::Reply(reply) => (Some(reply), None),
            Turn::Silent => (None, None),
        };
        Progress::Done(Outcome {
            reply,
            published: self.published,
            read_seq: self.read,
            holds_slot: self.control.holds_slot(),
            rolled_back: false,
            prepared_writes,
        })
    }

    /// Ends what is left of a request that nobody wants any more.
    fn drop_job(&mut self) {
        if let Some(Job::Rows(rows)) = self.job.take() {
            self.end_rows(rows.statement(), true);
        }
    }

    fn roll_back(&mut self) {
        if self.conn.in_transaction()
            && let Err(error) = self.run_own("ROLLBACK")
        {
            log::error!("a transaction cannot be rolled back: {error}");
        }
    }

    fn prepare_kept(&mut self, schema: Schema, stmt: u32, sql: &[u8]) -> Result<(Reply, bool), Failure> {
        self.set_prepare_view(View::Committed);
        let prepared = self.conn.prepare(sql, true).map_err(statement::failure_of)?;
        let Some(id) = prepared.id else { return Err(failure::EMPTY_STATEMENT) };
        if schema == Schema::V0 && !self.has_blank_tail(sql, prepared.tail) {
            self.conn.finalize(id);
            return Err(failure::NONEMPTY_TAIL);
        }
        if let Err(failure) = self.check_leads(id) {
            self.conn.finalize(id);
            return Err(failure);
        }
        if let Some(replaced) = self.kept.insert(stmt, id) {
            self.conn.finalize(replaced);
        }
        let (params, tail) = (self.conn.stmt_param_count(id) as u64, prepared.tail as u64);
        Ok((Reply::Prepared { params, tail }, self.writes(id)))
    }

    fn exec_kept(&mut self, stmt: u32, params: OwnedParams) -> Turn {
        let Some(id) = self.kept.get(&stmt).copied() else {
            return Turn::Reply(Reply::Failure(failure::NO_STATEMENT));
        };
        let outcome = match self.bind(id, &params, 0, TooMany::Ignored) {
            Ok(_) => self.exec(id),
            Err(_) => Err(Halt::Failed(failure::BIND_PARAMETERS)),
        };
        self.conn.clear_bindings(id);
        match outcome {
            Ok(()) => Turn::Reply(self.result()),
            Err(Halt::NeedsSlot) => Turn::NeedsSlot(Job::Exec { stmt, params }),
            Err(Halt::Failed(failure)) => Turn::Reply(Reply::Failure(failure)),
        }
    }

    /// Runs the rest of a text. Statements that are done stay done when a later one fails.
    fn exec_script(&mut self, mut script: Script) -> Turn {
        loop {
            if self.conn.is_interrupted() {
                return Turn::Reply(Reply::Failure(failure::INTERRUPTED));
            }
            match self.exec_next(&script) {
                Ok(Some((tail, params))) => {
                    script.at = script.at.saturating_add(tail);
                    script.params_used = script.params_used.saturating_add(params);
                }
                Ok(None) => return Turn::Reply(self.result()),
                Err(Halt::NeedsSlot) => return Turn::NeedsSlot(Job::Script(script)),
                Err(Halt::Failed(failure)) => return Turn::Reply(Reply::Failure(failure)),
            }
            if self.published.is_some()
                && !self.conn.in_transaction()
                && self.control.database().is_overloaded()
            {
                return Turn::NeedsSlot(Job::Script(script));
            }
            threads::yield_now();
        }
    }

    /// Runs one statement of a text: how many bytes and parameters it took; none when there is none left.
    fn exec_next(&mut self, script: &Script) -> Result<Option<(usize, usize)>, Halt> {
        let text = script.sql.get(script.at..).unwrap_or_default();
        // Almost all of these write, and those behind a CREATE TABLE must see it.
        self.set_prepare_view(View::Head);
        let prepared =
            self.conn.prepare(text, true).map_err(|error| Halt::Failed(statement::failure_of(error)))?;
        let Some(id) = prepared.id else { return Ok(None) };
        let outcome = match self.bind(id, &script.params, script.params_used, TooMany::Ignored) {
            Ok(_) => self.exec(id),
            Err(_) => Err(Halt::Failed(failure::BIND_PARAMETERS)),
        };
        let params = self.conn.stmt_param_count(id);
        match outcome {
            Err(Halt::Failed(_)) => self.conn.discard(id),
            Ok(()) | Err(Halt::NeedsSlot) => self.conn.finalize(id),
        }
        outcome.map(|()| Some((prepared.tail, params)))
    }

    /// The answer to an exec: the connection's numbers, which may be an earlier statement's.
    fn result(&self) -> Reply {
        Reply::Result {
            last_insert_id: self.conn.last_insert_rowid().cast_unsigned(),
            rows_affected: i64::from(self.conn.changes()).cast_unsigned(),
        }
    }
}
