//! What servers say to each other: Raft messages as they cross a connection, in both widths that releases of
//! the C library write and read.

mod message;

pub use message::{
    AppendEntries, AppendResult, InstallSnapshot, Message, RequestVote, TimeoutNow, VoteResult,
};
