//! The way back to the loop: what other threads finished, with one wake-up for many messages and none while
//! the loop is awake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_channel::{Receiver, Sender, TryIter, unbounded};
use mio::Waker;

/// Where threads post to the loop. Cheap to clone.
pub struct Mailbox<T> {
    sender: Sender<T>,
    wake: Arc<Wake>,
}

struct Wake {
    waker: Waker,
    /// The loop waits, or is about to, and nobody woke it yet.
    asleep: AtomicBool,
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
    let wake = Arc::new(Wake { waker, asleep: AtomicBool::new(false) });
    (Mailbox { sender, wake: Arc::clone(&wake) }, Inbox { receiver, wake })
}

impl<T> Mailbox<T> {
    /// Posts a message; the loop wakes up once for all that were posted before it looked.
    pub fn post(&self, message: T) {
        // The loop is gone only while the node stops, and then nobody waits for the message.
        if self.sender.send(message).is_ok() {
            // After the send: else the loop may look before the message is there, and then sleep.
            fence(Ordering::SeqCst);
            self.wake();
        }
    }

    /// Makes the loop look up, if it sleeps.
    pub fn wake(&self) {
        if self.wake.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.wake.waker.wake()
        {
            // Made up for by the loop's next timeout.
            log::warn!("the loop could not be woken: {error}");
        }
    }
}

impl<T> Inbox<T> {
    /// All messages posted so far.
    pub fn drain(&self) -> TryIter<'_, T> {
        self.receiver.try_iter()
    }

    /// From now on a message wakes the loop. False when one is there already: the loop must not sleep.
    pub fn doze(&self) -> bool {
        self.wake.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.receiver.is_empty()
    }

    /// The loop is awake: it looks before it sleeps again, so messages need not wake it.
    pub fn rouse(&self) {
        self.wake.asleep.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token, Waker};

    use super::mailbox;

    #[test]
    fn a_message_wakes_a_dozing_loop_once_and_an_awake_one_never() {
        let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(4));
        let (mailbox, inbox) = mailbox(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut woken = || {
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            !events.is_empty()
        };
        mailbox.post(1);
        assert!(!woken(), "an awake loop looks by itself");
        assert!(!inbox.doze(), "a message is there");
        inbox.rouse();
        assert_eq!(inbox.drain().collect::<Vec<_>>(), [1]);

        assert!(inbox.doze());
        mailbox.post(2);
        mailbox.post(3);
        assert!(woken());
        assert!(!woken(), "one wake-up for both");
        assert_eq!(inbox.drain().collect::<Vec<_>>(), [2, 3]);
    }
}
