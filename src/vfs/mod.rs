//! SQLite's files, over [`crate::pages`]: the main database is a pinned version and a private write set; journals
//! and temporary files are memory that spills to an unlinked file.
//!
//! SQLite runs in rollback-journal mode with its journal in memory: taking the SHARED lock pins a version,
//! RESERVED asks for the writer slot, the control call at the commit point publishes. There is no write-ahead
//! log, no shared memory and no checkpoint; nothing is ever synced here, since durability is the Raft log's.
//!
//! `raw` and `register` hold the C side: pointers become references there and panics stop there. The other
//! files are safe code. Nothing here touches SQLite before `register` is called.

mod control;
mod main_file;
mod overlay;
mod raw;
mod register;
mod temp;

#[cfg(test)]
mod tests;

pub use control::{Control, set_yield_hook, with_binding};
pub use register::{VFS_NAME, register};
