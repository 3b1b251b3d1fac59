//! The only threads, sockets and clock reads: a loop that feeds events to the core and executes its effects,
//! a disk thread, SQL threads, and a thread per snapshot.

pub mod address;
pub mod connect;
pub mod listen;
pub mod trace;
