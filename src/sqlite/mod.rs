//! A safe wrapper around SQLite: connections, statements, values, result codes, threading mode.
//!
//! A connection is moved to one worker at a time and never shared. Nothing here touches SQLite before the
//! first node of the process is created: a Go program configures SQLite at its start, and could not any more.

pub mod codes;
mod conn;
mod hooks;
pub mod lock;
pub mod memory;
mod stmt;
pub mod threads;
mod value;

pub use codes::SqlError;
pub use conn::{Conn, ConnOptions, Interrupter, set_progress_hook};
pub use stmt::{Prepared, Step, StmtId};
pub use value::{Value, ValueRef};

#[cfg(test)]
mod tests;
