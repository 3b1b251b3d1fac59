//! The disk token: who holds it may change the data directory. The disk thread takes it for whatever is queued,
//! the loop for a lone writer's commit, and a third thread, for moments, to get segments to prepare.
//!
//! Invariant: reports are made while the token is held, so they come in the order of the work.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::clock::Clock;
use super::disk::Worker;
use crate::base::Time;
use crate::base::limits::SEGMENT_BYTES;
use crate::disk::Disk;
use crate::storage::{Preparation, StorageError, ZERO_STEP_BYTES};

/// When segments fill faster than this they are not written with zeros first: the zeros would take what the disk
/// and the processor can do from the log itself, and a sync that carries many commits may take longer.
const FILLS_FAST: Duration = Duration::from_millis(140);

/// How many must have filled so fast in a row: the first two are prepared at the start.
const FAST_MIN: u32 = 2;

/// The longest pause between two steps of zeroing.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// The worker, for one thread at a time; gone after a panic.
pub struct Token<D: Disk>(Mutex<Option<Worker<D>>>);

/// Asks for segments to be prepared. Cheap to clone; asking again before it was heard changes nothing.
#[derive(Clone)]
pub struct Nudge(SyncSender<()>);

/// The other end.
pub struct Nudges(Receiver<()>);

/// A way to ask, and to hear it.
#[must_use]
pub fn nudges() -> (Nudge, Nudges) {
    let (sender, receiver) = sync_channel(1);
    (Nudge(sender), Nudges(receiver))
}

impl Nudge {
    /// Asks.
    pub fn give(&self) {
        // One that is not heard yet is as good; and at the end nobody prepares anything.
        let _ = self.0.try_send(());
    }
}

impl<D: Disk> Token<D> {
    /// A token for `worker`.
    #[must_use]
    pub fn new(worker: Worker<D>) -> Self {
        Self(Mutex::new(Some(worker)))
    }

    /// Waits for the token.
    pub fn lock(&self) -> MutexGuard<'_, Option<Worker<D>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Option<Worker<D>>>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn take_preparation(&self) -> Option<Preparation<D::File>> {
        self.lock().as_mut()?.take_preparation()
    }

    fn give_back(&self, preparation: Preparation<D::File>, outcome: Result<(), StorageError>) {
        if let Some(worker) = self.lock().as_mut() {
            worker.give_back(preparation, outcome);
        }
    }
}

/// The pause between two steps of preparing a segment, when the one before took so long to fill: half of that time is
/// for all steps together, so commits meet few of them and the segment is ready early.
fn pause(filled_in: Duration) -> Duration {
    let steps = u32::try_from(SEGMENT_BYTES / ZERO_STEP_BYTES).unwrap_or(u32::MAX);
    (filled_in / 2 / steps).min(PAUSE_MAX)
}

/// Prepares segments until nobody can ask for any more. Writes on `disk`, so that appends never wait for it.
pub fn prepare<D: Disk + Clone>(token: &Token<D>, disk: &D, nudges: &Nudges, clock: Clock) {
    let (mut last, mut fast): (Option<Time>, u32) = (None, 0);
    let mut asked = false;
    while asked || nudges.0.recv().is_ok() {
        asked = false;
        let Some(mut preparation) = token.take_preparation() else { continue };
        let now = clock.now();
        let filled_in = last.replace(now).map(|last| now.since(last));
        fast = if filled_in.is_some_and(|time| time < FILLS_FAST) { fast.saturating_add(1) } else { 0 };
        let mut pause = pause(filled_in.unwrap_or_default());
        if fast >= FAST_MIN {
            preparation.leave_unwritten();
        }
        let outcome = loop {
            match preparation.step_aside(disk.clone()) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
            if pause.is_zero() {
                continue;
            }
            match nudges.0.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                // The segment in use is full already.
                Ok(()) => (asked, pause) = (true, Duration::ZERO),
                // The node stops.
                Err(RecvTimeoutError::Disconnected) => break Ok(()),
            }
        };
        if let Err(error) = &outcome {
            log::debug!("no segment prepared ahead: {error}");
        }
        token.give_back(preparation, outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{PAUSE_MAX, pause};

    #[test]
    fn zeroing_takes_half_of_the_time_that_the_segment_before_took() {
        assert_eq!(pause(Duration::ZERO), Duration::ZERO);
        assert_eq!(pause(Duration::from_millis(256)), Duration::from_millis(1));
        assert_eq!(pause(Duration::from_secs(3600)), PAUSE_MAX);
    }
}
