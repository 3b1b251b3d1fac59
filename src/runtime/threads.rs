//! How this library starts threads: named, and with the caller's signal mask (the C boundary blocks all signals
//! around a start, so that the host's signals go to the host's threads).

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread. Names longer than 15 bytes are cut by the system.
///
/// # Errors
/// The system has no room for another thread.
pub fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(body)
}
