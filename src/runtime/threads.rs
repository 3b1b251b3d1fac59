//! How this library starts threads: named, and with the caller's signal mask (the C boundary blocks all signals
//! around a start, so that the host's signals go to the host's threads).

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::reclaim;

/// Starts a thread. Names longer than 15 bytes are cut by the system.
///
/// # Errors
/// The system has no room for another thread.
pub fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(body)
}

/// Drops what takes long to give back, on a thread of its own; here, if there is no room for one. That thread also
/// sees to it that the system gets the memory, when it is much.
pub fn drop_aside(waste: impl Send + 'static) {
    let body = move || {
        drop(waste);
        reclaim::after_a_drop();
    };
    if let Err(error) = start("dqlite-drop", body) {
        log::debug!("no thread to give memory back: {error}");
    }
}

/// The calls of the program's connect function that are under way, each on a thread of its own. Any of them may
/// hang; a node that stops waits for them only so long.
#[derive(Clone, Default)]
pub struct Calls(Arc<Counted>);

#[derive(Default)]
struct Counted {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    running: usize,
}

impl Counted {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, until it is dropped.
pub struct Call(Arc<Counted>);

impl Call {
    /// Whether the node has stopped since this call was begun: it must not use what is the program's any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.lock().stopped
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.ended.notify_all();
    }
}

impl Calls {
    /// Counts another one.
    ///
    /// # Errors
    /// The node has stopped, or `most` are under way.
    pub fn begin(&self, most: usize) -> io::Result<Call> {
        let mut state = self.0.lock();
        if state.stopped {
            return Err(io::Error::other("the node stops"));
        }
        if state.running >= most {
            return Err(io::Error::other(format!("{} attempts are under way", state.running)));
        }
        state.running += 1;
        Ok(Call(Arc::clone(&self.0)))
    }

    /// How many are under way.
    #[cfg(test)]
    pub fn running(&self) -> usize {
        self.0.lock().running
    }

    /// Has none begin from here on, and waits for those under way: what they use may go away with the node. One
    /// that hangs is left to itself after `patience`.
    pub fn stop(&self, patience: Duration) {
        let mut state = self.0.lock();
        state.stopped = true;
        let waited = self.0.ended.wait_timeout_while(state, patience, |state| state.running > 0);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.running > 0 {
            log::warn!("{} connect functions did not return; the node stops without them", state.running);
        }
    }
}
