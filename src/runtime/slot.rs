//! Where the loop's state lies while its thread waits: whoever finds it there may step it.
//!
//! Invariants: one thread at a time has the state, which `Box` and `&mut` prove; once the slot is closed the
//! state is gone for good, and everybody who asks for it is told so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The slot.
#[derive(Debug)]
pub struct Slot<T> {
    place: Mutex<Place<T>>,
    closed: Condvar,
}

#[derive(Debug)]
enum Place<T> {
    /// A thread has it.
    Taken,
    Here(Box<T>),
    /// It is gone: in order, or because a thread panicked over it.
    Closed {
        failed: bool,
    },
}

/// What came of trying to step the state.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried<M> {
    /// Done.
    Stepped,
    /// Another thread has it; the message comes back.
    Missed(M),
    /// The step panicked: the slot is closed now.
    Failed,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { place: Mutex::new(Place::Taken), closed: Condvar::new() }
    }
}

impl<T> Slot<T> {
    /// Puts the state down.
    pub fn park(&self, state: Box<T>) {
        let mut place = self.place();
        if let Place::Taken = *place {
            *place = Place::Here(state);
        }
    }

    /// Takes the state up again, after the step that another thread may be making. `None` once closed.
    pub fn take(&self) -> Option<Box<T>> {
        let mut place = self.place();
        match std::mem::replace(&mut *place, Place::Taken) {
            Place::Here(state) => Some(state),
            other => {
                *place = other;
                None
            }
        }
    }

    /// Steps the state with `message`, if it lies here and no other thread does the same.
    pub fn try_step<M>(&self, message: M, step: impl FnOnce(&mut T, M)) -> Tried<M> {
        let Ok(mut place) = self.place.try_lock() else { return Tried::Missed(message) };
        let Place::Here(state) = &mut *place else { return Tried::Missed(message) };
        // A panic may leave the state half changed: nobody may use it again.
        if catch_unwind(AssertUnwindSafe(|| step(state, message))).is_ok() {
            return Tried::Stepped;
        }
        self.close_place(place, true);
        Tried::Failed
    }

    /// Ends the use of the slot; what lies in it is dropped. The first call decides whether it `failed`.
    pub fn close(&self, failed: bool) {
        self.close_place(self.place(), failed);
    }

    fn close_place(&self, mut place: MutexGuard<'_, Place<T>>, failed: bool) {
        if matches!(*place, Place::Closed { .. }) {
            return;
        }
        let state = std::mem::replace(&mut *place, Place::Closed { failed });
        drop(place);
        drop(state);
        self.closed.notify_all();
    }

    /// Waits for the slot to be closed; whether it failed.
    pub fn wait_closed(&self) -> bool {
        let mut place = self.place();
        loop {
            if let Place::Closed { failed } = *place {
                return failed;
            }
            place = self.closed.wait(place).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn place(&self) -> MutexGuard<'_, Place<T>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::{Slot, Tried};

    #[test]
    fn what_lies_in_the_slot_can_be_stepped_and_what_is_taken_cannot() {
        let slot = Slot::default();
        assert_eq!(slot.try_step(1, |sum, add| *sum += add), Tried::Missed(1), "nothing lies here yet");
        slot.park(Box::new(10));
        assert_eq!(slot.try_step(2, |sum, add| *sum += add), Tried::Stepped);
        assert_eq!(slot.take(), Some(Box::new(12)));
        assert_eq!(slot.try_step(3, |sum, add| *sum += add), Tried::Missed(3));
    }

    #[test]
    fn a_step_misses_while_another_thread_makes_one() {
        let slot = Slot::default();
        slot.park(Box::new(0));
        let missed = Mutex::new(None);
        let outer = slot.try_step(1, |sum, add| {
            thread::scope(|scope| {
                scope.spawn(|| *missed.lock().unwrap() = Some(slot.try_step(2, |sum, add| *sum += add)));
            });
            *sum += add;
        });
        assert_eq!((outer, missed.into_inner().unwrap()), (Tried::Stepped, Some(Tried::Missed(2))));
        assert_eq!(slot.take(), Some(Box::new(1)));
    }

    #[test]
    fn a_panic_in_a_step_closes_the_slot_for_everybody() {
        let slot: Slot<i32> = Slot::default();
        slot.park(Box::new(0));
        let tried = slot.try_step((), |_, ()| std::panic::resume_unwind(Box::new("planned")));
        assert_eq!(tried, Tried::Failed);
        assert_eq!(slot.take(), None);
        slot.close(false);
        assert!(slot.wait_closed(), "the first end counts");
    }

    #[test]
    fn closing_drops_the_state_and_ends_the_wait() {
        let slot: Slot<i32> = Slot::default();
        slot.park(Box::new(0));
        thread::scope(|scope| {
            let waits = scope.spawn(|| slot.wait_closed());
            slot.close(false);
            assert!(!waits.join().unwrap());
        });
        slot.park(Box::new(1));
        assert_eq!(slot.take(), None, "nothing comes back into a closed slot");
    }
}
