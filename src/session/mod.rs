//! One client connection: handshake, one request at a time, reply order, back-pressure.
//!
//! Sans-io: bytes come in through [`Session::handle_bytes`], what the node has to do comes out of
//! [`Session::poll_event`], its replies go in through [`Session::handle_reply`], bytes to send come out of
//! [`Session::output`].
//!
//! Invariants: a request is decoded only when the answer to the one before it has been written out; every
//! request gets exactly one last message; every interrupt gets exactly one `empty`, after all rows messages.
//!
//! It does not know who leads (the caller says so), whether a statement runs or waits, or what SQL means.

mod client;
mod connection;
mod event;
mod output;
mod statements;

#[cfg(test)]
mod tests;

pub use connection::Session;
pub use event::{CloseReason, Reply, ServerInfo, SessionEvent, Sql};

/// Whether a database of this name may be created. C nodes that meet one of the others in the log die, at each
/// start again; one that exists already (made by them, in a log or a snapshot) is served all the same.
#[must_use]
pub fn is_name_allowed(name: &[u8]) -> bool {
    let is_uri = name.starts_with(b"file:") && name.iter().any(|byte| matches!(byte, b'?' | b'%'));
    let is_companion = name.ends_with(b"-wal") || name.ends_with(b"-journal");
    !(name.is_empty() || name == b":memory:" || is_uri || is_companion)
}
