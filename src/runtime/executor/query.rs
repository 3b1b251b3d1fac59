//! Queries: a statement's rows, in messages, in batches.
//!
//! Rows of a reader go out batch by batch while the statement stays open. A statement that commits by itself
//! gives its rows before it commits, so they are kept until it is done: no client sees rows of a write that failed.

use super::statement::{Halt, TooMany, failure_of};
use super::{Job, Source, SqlConn, Turn};
use crate::base::limits;
use crate::codec::client::{Cell, ColumnClass, Failure, OwnedParams, RowsWriter, failure};
use crate::pages::View;
use crate::session::Reply;
use crate::sqlite::{Step, StmtId, ValueRef, threads};

/// The statement that a query runs, and whether it stays when the query is done.
#[derive(Clone, Copy)]
pub(super) struct Running {
    id: StmtId,
    kept: bool,
}

/// A query that runs.
pub(super) struct Rows {
    running: Running,
    writer: RowsWriter,
    classes: Vec<ColumnClass>,
    /// Whether nothing may leave before the statement is done.
    hold: bool,
    /// Finished messages.
    messages: Vec<u8>,
}

impl Rows {
    pub(super) fn statement(&self) -> Running {
        self.running
    }
}

impl SqlConn {
    pub(super) fn query(&mut self, source: Source, params: OwnedParams) -> Turn {
        let running = match self.find(&source) {
            Ok(running) => running,
            Err(failure) => return Turn::Reply(Reply::Failure(failure)),
        };
        let begun = match self.bind(running.id, &params, 0, TooMany::Refused) {
            Ok(()) => self.begin_rows(running),
            Err(_) => Err(Halt::Failed(failure::EXEC_FAILED)),
        };
        match begun {
            Ok((rows, step)) => self.take_rows(rows, step),
            Err(Halt::NeedsSlot) => {
                self.end_rows(running, true);
                Turn::NeedsSlot(Job::Query { source, params })
            }
            Err(Halt::Failed(failure)) => {
                self.end_rows(running, false);
                Turn::Reply(Reply::Failure(failure))
            }
        }
    }

    fn find(&mut self, source: &Source) -> Result<Running, Failure> {
        let sql = match source {
            Source::Kept(stmt) => {
                let id = self.kept.get(stmt).copied().ok_or(failure::NO_STATEMENT)?;
                return Ok(Running { id, kept: true });
            }
            Source::Text(sql) => sql,
        };
        self.set_prepare_view(View::Committed);
        let prepared = self.conn.prepare(sql, true).map_err(failure_of)?;
        let id = prepared.id.ok_or(failure::EMPTY_STATEMENT)?;
        if !self.has_blank_tail(sql, prepared.tail) {
            self.conn.finalize(id);
            return Err(failure::NONEMPTY_TAIL);
        }
        Ok(Running { id, kept: false })
    }

    /// The header is made before the first step, as C does: if the schema has changed, it is the old one.
    fn begin_rows(&mut self, running: Running) -> Result<(Rows, Step), Halt> {
        let id = running.id;
        let names = (0..self.conn.column_count(id)).map(|column| self.conn.column_name(id, column));
        let writer = RowsWriter::new(names);
        let hold = self.writes(id) && !self.conn.in_transaction();
        let step = self.first_step(id)?;
        let classes = (0..writer.column_count())
            .map(|column| ColumnClass::of(self.conn.column_decltype(id, column).as_deref()))
            .collect();
        Ok((Rows { running, writer, classes, hold, messages: Vec::new() }, step))
    }

    pub(super) fn more_rows(&mut self, rows: Rows) -> Turn {
        match self.conn.step(rows.running.id) {
            Ok(step) => self.take_rows(rows, step),
            Err(error) => self.fail_rows(rows.running, failure_of(error)),
        }
    }

    fn take_rows(&mut self, mut rows: Rows, mut step: Step) -> Turn {
        let id = rows.running.id;
        while step == Step::Row {
            rows.writer.begin_row();
            for (column, class) in rows.classes.iter().enumerate() {
                rows.writer.push(class.cell(cell(self.conn.column(id, column))));
            }
            if rows.writer.is_full() {
                rows.messages.append(&mut rows.writer.take_part());
                if rows.hold && rows.messages.len() > limits::HELD_ROWS_BYTES_MAX {
                    // More than may be kept until it is done: it must not be done.
                    return self.stop_rows(&rows, failure::TOO_BIG);
                }
                if !rows.hold && rows.messages.len() >= limits::ROWS_BATCH_BYTES {
                    let messages = std::mem::take(&mut rows.messages);
                    return Turn::Batch { messages, rest: Job::Rows(rows) };
                }
            }
            if self.conn.is_interrupted() {
                return self.stop_rows(&rows, failure::INTERRUPTED);
            }
            threads::yield_now();
            step = match self.conn.step(id) {
                Ok(step) => step,
                Err(error) => return self.fail_rows(rows.running, failure_of(error)),
            };
        }
        self.end_rows(rows.running, true);
        let mut messages = rows.messages;
        messages.append(&mut rows.writer.finish());
        Turn::Reply(Reply::Message(messages))
    }

    /// Stops a query between rows. Merely ending a statement that commits by itself would commit.
    fn stop_rows(&mut self, rows: &Rows, failure: Failure) -> Turn {
        if rows.hold {
            self.conn.abort(rows.running.id);
        }
        self.fail_rows(rows.running, failure)
    }

    fn fail_rows(&mut self, running: Running, failure: Failure) -> Turn {
        self.end_rows(running, false);
        Turn::Reply(Reply::Failure(failure))
    }

    /// Ends the run of a query's statement; a statement from text is used again only if it did not fail.
    pub(super) fn end_rows(&mut self, running: Running, fine: bool) {
        self.end_run(running.id);
        match (running.kept, fine) {
            (true, _) => self.conn.clear_bindings(running.id),
            (false, true) => self.conn.finalize(running.id),
            (false, false) => self.conn.discard(running.id),
        }
    }
}

fn cell(value: ValueRef<'_>) -> Cell<'_> {
    match value {
        ValueRef::Integer(value) => Cell::Integer(value),
        ValueRef::Float(value) => Cell::Float(value),
        ValueRef::Text(text) => Cell::Text(text),
        ValueRef::Blob(blob) => Cell::Blob(blob),
        ValueRef::Null => Cell::Null,
    }
}
