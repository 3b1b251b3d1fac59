//! The only threads, sockets and clock reads: a loop that feeds events to the core and executes its effects,
//! a disk thread, one that prepares segments, SQL threads, and a thread per snapshot.

pub mod address;
pub mod answers;
pub mod client;
pub mod clock;
pub mod connect;
pub mod deletions;
pub mod disk;
pub mod executor;
pub mod habits;
pub mod handover;
pub mod inline;
pub mod inquiry;
pub mod intake;
pub mod listen;
pub mod lone;
pub mod mailbox;
pub mod metrics;
pub mod net;
pub mod peers;
pub mod queue;
pub mod reclaim;
pub mod running;
pub mod settings;
pub mod shell;
pub mod slot;
pub mod snapshot;
pub mod sql_pool;
pub mod storing;
pub mod threads;
pub mod token;
pub mod trace;
pub mod verify;

pub use running::{NodeOptions, RunningNode, StartError};
