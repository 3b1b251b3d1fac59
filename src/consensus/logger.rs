//! Passes what raft-rs logs on to the `log` crate, under one target.

use std::fmt::{self, Write};

use slog::{Drain, KV, Level, Logger, Never, OwnedKVList, Record, o};

const TARGET: &str = "dqlite::raft";

/// The logger that raft-rs is given.
pub(super) fn forwarding() -> Logger {
    Logger::root(Forward, o!())
}

struct Forward;

impl Drain for Forward {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _context: &OwnedKVList) -> Result<(), Never> {
        let level = match record.level() {
            Level::Critical | Level::Error => log::Level::Error,
            Level::Warning => log::Level::Warn,
            Level::Info => log::Level::Debug,
            Level::Debug | Level::Trace => log::Level::Trace,
        };
        if log::log_enabled!(target: TARGET, level) {
            let mut text = record.msg().to_string();
            // Writing to a String does not fail; a value that cannot be shown is left out of the line.
            let _ = record.kv().serialize(record, &mut Pairs(&mut text));
            log::log!(target: TARGET, level, "{text}");
        }
        Ok(())
    }
}

struct Pairs<'a>(&'a mut String);

impl slog::Serializer for Pairs<'_> {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, ", {key}: {value}")?;
        Ok(())
    }
}
