//! A queue for one thread that waits. Whoever waits sleeps at once: the channels of the libraries look a few times
//! more first, and give the processor away between, which costs most when there is most to do.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What waits for a thread. Cheap to clone.
#[derive(Debug)]
pub struct Queue<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    items: Vec<T>,
    asleep: bool,
    closed: bool,
}

/// The queue; closed when this is dropped.
#[derive(Debug)]
pub struct CloseOnDrop<T>(Queue<T>);

impl<T> Deref for CloseOnDrop<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.0
    }
}

impl<T> Drop for CloseOnDrop<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let inner = Mutex::new(Inner { items: Vec::new(), asleep: false, closed: false });
        Self(Arc::new(Shared { inner, filled: Condvar::new() }))
    }
}

impl<T> Queue<T> {
    /// Adds to the end.
    ///
    /// # Errors
    /// The queue is closed: it comes back.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(item);
        }
        inner.items.push(item);
        let asleep = std::mem::take(&mut inner.asleep);
        drop(inner);
        if asleep {
            self.0.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until there is something, and takes all that there is, in its order. Empty: the queue is closed and
    /// nothing comes any more.
    #[must_use]
    pub fn wait(&self) -> Vec<T> {
        let mut inner = self.lock();
        while inner.items.is_empty() && !inner.closed {
            inner.asleep = true;
            inner = self.0.filled.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.asleep = false;
        std::mem::take(&mut inner.items)
    }

    /// Takes all that there is, in its order.
    #[must_use]
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.lock().items)
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// Takes no more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.filled.notify_all();
    }

    /// A value whose end is the queue's.
    #[must_use]
    pub fn close_on_drop(&self) -> CloseOnDrop<T> {
        CloseOnDrop(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use crate::runtime::threads;

    #[test]
    fn all_that_was_pushed_arrives_in_its_order_and_the_end_after_it() {
        let queue = Queue::default();
        let (source, end) = (queue.clone(), queue.close_on_drop());
        let pusher = threads::start("test-push", move || {
            for item in 0..1000 {
                source.push(item).unwrap();
            }
            drop(end);
        });
        let (mut found, mut taken) = (Vec::new(), queue.wait());
        while !taken.is_empty() {
            found.append(&mut taken);
            taken = queue.wait();
        }
        pusher.unwrap().join().unwrap();
        assert_eq!(found, (0..1000).collect::<Vec<_>>());
        assert_eq!(queue.push(1), Err(1));
        assert!(queue.is_empty() && queue.take().is_empty());
    }
}
