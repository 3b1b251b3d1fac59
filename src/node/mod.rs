//! The whole node as one state machine over sessions, engine and consensus: events in, effects out, time as an
//! argument, no I/O.

mod clients;
pub mod core;
mod dump;
pub mod effect;
mod elsewhere;
pub mod figures;
mod identity;
mod install;
mod own_snapshots;
mod peers;
mod proofs;
pub mod readers;
mod requests;
mod roles;
mod situation;
pub mod snapshots;
mod statements;
#[cfg(test)]
mod tests;

pub use self::core::{Core, CoreConfig};
pub use effect::Effect;
