//! The order of disk operations in the data directory. Formats are `format`'s, syscalls are `disk`'s.

pub mod entries;
mod io;
pub mod loader;
mod segment_file;
pub mod snapshots;
pub mod writer;

pub use io::StorageError;
pub use segment_file::{Preparation, ZERO_STEP_BYTES};
pub use snapshots::{FinishedSnapshot, PageSource, SnapshotHeader, store_snapshot, write_snapshot};
pub use writer::{Writer, WriterConfig, WriterState};
