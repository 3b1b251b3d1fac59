//! One statement: its parameters, the version it sees, the writer slot it may need, how it ends.

use super::SqlConn;
use crate::codec::client::{Failure, OwnedParams, Param, failure};
use crate::pages::{Refusal, Veto, View};
use crate::sqlite::{SqlError, Step, StmtId, ValueRef, codes, threads};

/// How often a statement that read nothing yet is begun again on the newest version, before it waits its turn.
const REPINS_MAX: usize = 3;

/// Why a statement did not run to its end.
pub(super) enum Halt {
    /// Another connection has the writer slot; nothing happened.
    NeedsSlot,
    /// It failed.
    Failed(Failure),
}

/// What becomes of more values than the statement has parameters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TooMany {
    Ignored,
    Refused,
}

/// The parameters do not fit the statement.
pub(super) struct BadParams;

/// What the client is told about an error of SQLite's. Codes of our own come with SQLite's text for I/O errors.
pub(super) fn failure_of(error: SqlError) -> Failure {
    match error.code {
        codes::IOERR_NOT_LEADER => failure::NOT_LEADER,
        codes::IOERR_LEADERSHIP_LOST => failure::LEADERSHIP_LOST,
        code => Failure::new(u64::from(code.unsigned_abs()), error.message),
    }
}

impl SqlConn {
    /// Whether the statement may change anything. EXPLAIN never does, though SQLite says otherwise.
    pub(super) fn writes(&self, id: StmtId) -> bool {
        !self.conn.readonly(id) && !self.conn.is_explain(id)
    }

    /// Refuses what writes, before it begins, where the node does not lead: to some clients it answers all the same.
    pub(super) fn check_leads(&self, id: StmtId) -> Result<(), Failure> {
        let refused = self.writes(id) && self.control.database().check_writable() == Err(Veto::NotLeader);
        if refused { Err(failure::NOT_LEADER) } else { Ok(()) }
    }

    pub(super) fn has_blank_tail(&mut self, sql: &[u8], tail: usize) -> bool {
        self.conn.is_blank(sql.get(tail..).unwrap_or_default())
    }

    /// Compiling reads the schema: as `usual`, unless a transaction is open or this request wrote already.
    pub(super) fn set_prepare_view(&self, usual: View) {
        let own = self.conn.in_transaction() || self.published.is_some();
        self.control.set_view(if own { View::Head } else { usual });
    }

    /// Binds the values from `skip` on.
    pub(super) fn bind(
        &mut self,
        id: StmtId,
        params: &OwnedParams,
        skip: usize,
        too_many: TooMany,
    ) -> Result<(), BadParams> {
        let (view, count) = (params.view(), self.conn.stmt_param_count(id));
        if too_many == TooMany::Refused && view.len().saturating_sub(skip) > count {
            return Err(BadParams);
        }
        for (index, value) in view.iter().skip(skip).take(count).enumerate() {
            let value = match value.map_err(|_| BadParams)? {
                Param::Integer(value) => ValueRef::Integer(value),
                Param::Float(value) => ValueRef::Float(value),
                Param::Text(text) | Param::Iso8601(text) => ValueRef::Text(text),
                Param::Blob(blob) => ValueRef::Blob(blob),
                Param::Null => ValueRef::Null,
                Param::Boolean(value) => ValueRef::Integer(i64::from(value != 0)),
            };
            self.conn.bind(id, index.saturating_add(1), value).map_err(|_| BadParams)?;
        }
        Ok(())
    }

    /// The first step of a statement, on the version that it must see. When it fails the statement is reset.
    ///
    /// A reader outside of a transaction sees what is committed; a writer, and whatever a transaction does, sees
    /// the newest version, so that fewer transactions are stale when they write.
    pub(super) fn first_step(&mut self, id: StmtId) -> Result<Step, Halt> {
        self.check_leads(id).map_err(Halt::Failed)?;
        let newest = self.conn.in_transaction() || self.writes(id) || self.published.is_some();
        self.control.set_view(if newest { View::Head } else { View::Committed });
        for _ in 0..=REPINS_MAX {
            let _an_earlier_one = self.control.refusal();
            let error = match self.conn.step(id) {
                Ok(step) => return Ok(step),
                Err(error) => error,
            };
            let refusal = self.control.refusal();
            self.end_run(id);
            match (refusal, error.code) {
                (Some(Refusal::Busy), codes::BUSY) => return Err(Halt::NeedsSlot),
                // Nothing is pinned any more, so nothing depends on what was: try on the newest version.
                (Some(Refusal::Stale), codes::BUSY_SNAPSHOT) if self.control.pinned_seq().is_none() => {
                    self.control.set_view(View::Head);
                }
                _ => return Err(Halt::Failed(failure_of(error))),
            }
            threads::yield_now();
        }
        Err(Halt::NeedsSlot)
    }

    /// Resets a statement whose last step told its error already.
    pub(super) fn end_run(&mut self, id: StmtId) {
        if let Err(error) = self.conn.reset(id) {
            log::trace!("a statement ended: {error}");
        }
        self.note_versions();
    }

    pub(super) fn note_versions(&mut self) {
        // A version that was discarded must be noticed, whatever came after it.
        let lost = self.published.is_some_and(|seq| self.control.database().was_discarded(seq));
        if let Some(seq) = self.control.last_published().filter(|_| !lost) {
            self.published = Some(seq);
        }
        self.read = self.read.max(self.control.read_seq());
    }

    /// Runs a statement that must give no rows.
    pub(super) fn exec(&mut self, id: StmtId) -> Result<(), Halt> {
        if self.conn.column_count(id) > 0 && self.writes(id) {
            return self.exec_undoable(id);
        }
        let step = self.first_step(id)?;
        self.end_run(id);
        match step {
            Step::Done => Ok(()),
            Step::Row => Err(Halt::Failed(failure::ROWS_IN_EXEC)),
        }
    }

    /// Runs a statement that writes and may give a row, such as an INSERT with RETURNING. By the time of its
    /// first row it has written everything, and ending it there would commit: so it runs in a savepoint.
    fn exec_undoable(&mut self, id: StmtId) -> Result<(), Halt> {
        let failed = |error| Halt::Failed(failure_of(error));
        let own_transaction = !self.conn.in_transaction();
        self.run_own("SAVEPOINT dqlite_exec").map_err(failed)?;
        let outcome = match self.first_step(id) {
            Ok(Step::Done) => Ok(()),
            Ok(Step::Row) => Err(Halt::Failed(failure::ROWS_IN_EXEC)),
            Err(halt) => Err(halt),
        };
        self.end_run(id);
        // The error may have rolled everything back, the savepoint too.
        if !self.conn.in_transaction() {
            return outcome;
        }
        if matches!(&outcome, Err(Halt::Failed(failure)) if *failure == failure::ROWS_IN_EXEC) {
            if own_transaction {
                // Not to the savepoint: the commit that follows would write the pages, though they are as before.
                self.roll_back();
                return outcome;
            }
            self.run_own("ROLLBACK TO dqlite_exec").map_err(failed)?;
        }
        let released = self.run_own("RELEASE dqlite_exec");
        if released.is_err() && own_transaction {
            // The commit was refused: nothing of it may stay.
            self.roll_back();
        }
        outcome.and(released.map_err(failed))
    }

    /// Runs a statement of our own, which gives no rows.
    pub(super) fn run_own(&mut self, sql: &str) -> Result<(), SqlError> {
        let Some(id) = self.conn.prepare(sql.as_bytes(), true)?.id else { return Ok(()) };
        let outcome = self.conn.step(id).map(drop);
        match &outcome {
            Ok(()) => self.conn.finalize(id),
            Err(_) => self.conn.discard(id),
        }
        self.note_versions();
        outcome
    }
}
