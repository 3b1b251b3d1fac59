//! Bytes that cross a connection or stand in the log: client protocol, peer protocol, payloads of entries.

pub mod client;
pub mod command;
pub mod membership;
pub mod peer;
