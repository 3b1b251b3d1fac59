//! Who writes when, what waits for what, and how committed entries reach the page stores. No SQLite here:
//! a SQL job is data, and whoever owns the connections runs it.

pub mod apply;
pub mod databases;
pub mod jobs;
pub mod proposer;
pub mod scheduler;

pub use databases::{Databases, Hold, Slot};
pub use scheduler::{ConnId, Patience, SlotEffect};
