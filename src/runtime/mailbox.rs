//! The way back to the loop: what other threads finished, with one wake-up for many messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TryIter, unbounded};
use mio::Waker;

/// Where threads post to the loop. Cheap to clone.
pub struct Mailbox<T> {
    sender: Sender<T>,
    wake: Arc<Wake>,
}

struct Wake {
    waker: Waker,
    pending: AtomicBool,
}

/// The loop's end.
pub struct Inbox<T> {
    receiver: Receiver<T>,
    wake: Arc<Wake>,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), wake: Arc::clone(&self.wake) }
    }
}

/// A mailbox whose messages wake the poll behind `waker`.
#[must_use]
pub fn mailbox<T>(waker: Waker) -> (Mailbox<T>, Inbox<T>) {
    let (sender, receiver) = unbounded();
    let wake = Arc::new(Wake { waker, pending: AtomicBool::new(false) });
    (Mailbox { sender, wake: Arc::clone(&wake) }, Inbox { receiver, wake })
}

impl<T> Mailbox<T> {
    /// Posts a message; the loop wakes up once for all that were posted before it looked.
    pub fn post(&self, message: T) {
        // The loop is gone only while the node stops, and then nobody waits for the message.
        if self.sender.send(message).is_ok() && !self.wake.pending.swap(true, Ordering::AcqRel) {
            // A wake-up that fails is made up for by the loop's next timeout.
            if let Err(error) = self.wake.waker.wake() {
                log::warn!("the loop could not be woken: {error}");
            }
        }
    }
}

impl<T> Inbox<T> {
    /// All messages posted so far. The flag is cleared first, so that a later message wakes the loop again.
    pub fn drain(&self) -> TryIter<'_, T> {
        self.wake.pending.store(false, Ordering::Release);
        self.receiver.try_iter()
    }
}
