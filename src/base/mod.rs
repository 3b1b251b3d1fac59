//! The vocabulary that every other module speaks. Imports nothing of the crate.

pub mod bytes;
pub mod crc;
pub mod entry;
pub mod ids;
pub mod journal;
pub mod latency;
pub mod limits;
pub mod meter;
pub mod piece;
pub mod pool;
pub mod prng;
pub mod role;
pub mod time;

pub use bytes::{DecodeError, Reader, Writer};
pub use entry::{Entry, EntryKind, Payload};
pub use ids::{Index, NodeId, PageNo, Term};
pub use journal::{Event, Journal};
pub use piece::Piece;
pub use prng::Prng;
pub use role::Role;
pub use time::Time;
