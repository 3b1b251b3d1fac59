//! The seam between the order of disk operations and whatever carries them out.
//!
//! [`seam::Disk`] is what `storage` is written against, [`real::RealDisk`] is a directory of the operating
//! system, [`fault::FaultDisk`] one in memory for tests and the simulator; [`directory`] looks at the real one
//! before it is used and keeps a second node out; [`overlay`] is for looking at it without changing it.

pub mod directory;
pub mod fault;
pub mod overlay;
pub mod real;
pub mod seam;

pub use directory::{DirectoryError, DirectoryLock, LockError, check_directory, probe};
pub use fault::FaultDisk;
pub use real::RealDisk;
pub use seam::{Disk, is_no_space};
