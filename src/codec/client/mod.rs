//! The client protocol, in both directions: the managed server and the tests are clients too.
//!
//! Pure bytes: no sockets, no connection state. Numbers of roles, types and failures exist here only.

pub mod failure;
pub mod frame;
pub mod request;
pub mod response;
pub mod rows;
pub mod value;

pub use failure::Failure;
pub use frame::{Frame, FrameError, FrameReader, Header, Schema};
pub use request::{Refused, Request};
pub use response::{Context, File, Format, Response, ServerEntry};
pub use rows::{Rows, RowsEnd, RowsWriter};
pub use value::{BadValue, Cell, ColumnClass, OwnedParams, Param, Params};

/// The word with which a client of the current protocol begins.
pub const PROTOCOL_VERSION: u64 = 1;

/// The word with which a client older than 1.0 begins.
pub const PROTOCOL_LEGACY: u64 = 0x8610_4dd7_6043_3fe5;

/// What a welcome answer announces. Nobody acts on it: no client sends heartbeats.
pub const HEARTBEAT_TIMEOUT_MS: u64 = 15_000;
