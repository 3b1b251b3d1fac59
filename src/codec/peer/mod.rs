//! What servers say to each other: Raft messages as they cross a connection, in both widths that releases of
//! the C library write and read.
//!
//! A connection carries messages in one direction only. It begins as a client connection, with what
//! [`encode_connect`] gives; from then on [`PeerReader`] cuts it into messages and [`encode()`] makes them.
//! No sockets and no rules of Raft here: a message that can be read may still be nonsense.

mod encode;
mod frame;
mod message;
mod reader;

pub use encode::{Unsendable, encode, encode_connect, encode_head};
pub use frame::PeerError;
pub use message::{
    AppendEntries, AppendResult, InstallSnapshot, Message, RequestVote, TimeoutNow, VoteResult,
};
pub use reader::{Incoming, PeerReader};

#[cfg(test)]
mod tests;
