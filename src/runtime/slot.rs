//! Where the loop's state lies while its thread does something else: whoever finds it there may step it, and
//! when that thread is away for long, another one takes over its duty.
//!
//! The thread on duty parks the state while it waits for events; and it leaves the state together with the
//! duty (what it waits with) while it runs a statement. Then the others, who stand by, take both over as soon
//! as the statement gives them up, or after a millisecond or two whatever it does: the loop moves, the
//! statement stays where it is.
//!
//! Invariants: one thread at a time has the state, and one the duty, which `Box` and `&mut` prove; a duty that
//! was left is taken exactly once, by its owner or by another; once the slot is closed both are gone for good,
//! and everybody who asks for them is told so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::limits;

/// How often a thread that stands by looks after a duty that was left, while there are any.
const WATCH: Duration = Duration::from_millis(1);

/// After so many looks without anything new it sleeps until the next duty is left.
const QUIET_LOOKS: u32 = 8;

/// Threads that stand by; more leave.
const STANDBYS_KEPT: usize = 2;

/// The slot for a state `T` and the duty `D` of a loop.
#[derive(Debug)]
pub struct Slot<T, D> {
    inner: Mutex<Inner<T, D>>,
    /// For those who stand by.
    called: Condvar,
    /// For those who wait for the end.
    ended: Condvar,
}

#[derive(Debug)]
struct Inner<T, D> {
    place: Place<T>,
    /// The duty, while its owner is away in a statement and nobody took over.
    duty: Option<Box<D>>,
    /// Counts duties that were left.
    ticket: u64,
    /// The statement takes long: the duty may be taken at once.
    given_up: bool,
    /// One of those who stand by looks after duties that were left.
    watched: bool,
    standing_by: usize,
    /// Threads of the crew: on duty, standing by, or `away`.
    crew: usize,
    /// Threads in a statement whose duty was taken.
    away: usize,
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

/// A thread's place in the crew, until it is dropped.
#[derive(Debug)]
pub struct Member<'a, T, D>(&'a Slot<T, D>);

impl<T, D> Drop for Member<'_, T, D> {
    fn drop(&mut self) {
        self.0.lock().crew -= 1;
        self.0.ended.notify_all();
    }
}

impl<T, D> Default for Slot<T, D> {
    fn default() -> Self {
        let inner = Inner {
            place: Place::Taken,
            duty: None,
            ticket: 0,
            given_up: false,
            watched: false,
            standing_by: 0,
            crew: 0,
            away: 0,
        };
        Self { inner: Mutex::new(inner), called: Condvar::new(), ended: Condvar::new() }
    }
}

impl<T, D> Slot<T, D> {
    /// Puts the state down, and keeps the duty.
    pub fn park(&self, state: Box<T>) {
        let mut inner = self.lock();
        if matches!(inner.place, Place::Taken) {
            inner.place = Place::Here(state);
        }
    }

    /// Takes the state up again, after the step that another thread may be making. `None` once closed.
    pub fn take(&self) -> Option<Box<T>> {
        self.lock().place.take()
    }

    /// Steps the state with `message`, if it lies here and no other thread does the same.
    pub fn try_step<M>(&self, message: M, step: impl FnOnce(&mut T, M)) -> Tried<M> {
        let Ok(mut inner) = self.inner.try_lock() else { return Tried::Missed(message) };
        let Place::Here(state) = &mut inner.place else { return Tried::Missed(message) };
        // A panic may leave the state half changed: nobody may use it again.
        if catch_unwind(AssertUnwindSafe(|| step(state, message))).is_ok() {
            return Tried::Stepped;
        }
        self.close_inner(inner, true);
        Tried::Failed
    }

    /// Leaves state and duty before something that may take long; the number gets them back. They come back at
    /// once when nobody stands by to take over, or too many did already.
    ///
    /// # Errors
    /// They come back.
    pub fn leave(&self, state: Box<T>, duty: Box<D>) -> Result<u64, (Box<T>, Box<D>)> {
        let mut inner = self.lock();
        let crowded = inner.away >= limits::OVERTAKEN_MAX;
        if inner.standing_by == 0 || crowded || !matches!(inner.place, Place::Taken) {
            return Err((state, duty));
        }
        inner.place = Place::Here(state);
        inner.duty = Some(duty);
        inner.ticket += 1;
        inner.given_up = false;
        if !inner.watched {
            self.called.notify_one();
        }
        Ok(inner.ticket)
    }

    /// What was left under `ticket`; `None` when another thread has taken over, or the slot is closed.
    pub fn come_back(&self, ticket: u64) -> Option<(Box<T>, Box<D>)> {
        let mut inner = self.lock();
        if inner.ticket == ticket
            && let Some(duty) = inner.duty.take()
        {
            return inner.place.take().map(|state| (state, duty));
        }
        inner.away = inner.away.saturating_sub(1);
        None
    }

    /// Lets another thread take over at once what was left under `ticket`. False when it should be tried again.
    pub fn give_up(&self, ticket: u64) -> bool {
        let Ok(mut inner) = self.inner.try_lock() else { return false };
        if inner.ticket == ticket && inner.duty.is_some() {
            inner.given_up = true;
            self.called.notify_all();
        }
        true
    }

    /// A place in the crew for the calling thread.
    pub fn join(&self) -> Member<'_, T, D> {
        self.lock().crew += 1;
        Member(self)
    }

    /// Whether anybody could take over.
    pub fn has_standby(&self) -> bool {
        self.lock().standing_by > 0
    }

    /// Waits until there is something to take over; whoever does is on duty then. `None` when the slot is
    /// closed, or enough others stand by.
    pub fn stand_by(&self) -> Option<(Box<T>, Box<D>)> {
        let mut inner = self.lock();
        if inner.standing_by >= STANDBYS_KEPT {
            return None;
        }
        inner.standing_by += 1;
        let mut watch = Watch { last: inner.ticket, ..Watch::default() };
        loop {
            if matches!(inner.place, Place::Closed { .. }) {
                inner.standing_by -= 1;
                return None;
            }
            if inner.duty.is_some() && (inner.given_up || watch.is_overdue(inner.ticket)) {
                if watch.on {
                    inner.watched = false;
                }
                inner.standing_by -= 1;
                return take_over(&mut inner);
            }
            watch.look(&mut inner);
            inner = if watch.on {
                let waited = self.called.wait_timeout(inner, WATCH);
                let (inner, time) = waited.unwrap_or_else(PoisonError::into_inner);
                if !time.timed_out() {
                    watch.seen = None;
                }
                inner
            } else {
                self.called.wait(inner).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Ends the use of the slot; what lies in it is dropped. The first call decides whether it `failed`.
    pub fn close(&self, failed: bool) {
        self.close_inner(self.lock(), failed);
    }

    fn close_inner(&self, mut inner: MutexGuard<'_, Inner<T, D>>, failed: bool) {
        if matches!(inner.place, Place::Closed { .. }) {
            return;
        }
        let state = std::mem::replace(&mut inner.place, Place::Closed { failed });
        let duty = inner.duty.take();
        if duty.is_some() {
            // Whoever left it finds nothing to come back to.
            inner.away += 1;
        }
        drop(inner);
        drop((state, duty));
        self.called.notify_all();
        self.ended.notify_all();
    }

    /// Waits for the slot to be closed and for the crew to go home, but for those in a statement that does not
    /// end: whether it failed, and how many those are.
    pub fn wait_closed(&self) -> (bool, usize) {
        let mut inner = self.lock();
        loop {
            if let Place::Closed { failed } = inner.place
                && inner.crew <= inner.away
            {
                return (failed, inner.away);
            }
            inner = self.ended.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T, D>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Place<T> {
    fn take(&mut self) -> Option<Box<T>> {
        match std::mem::replace(self, Self::Taken) {
            Self::Here(state) => Some(state),
            other => {
                *self = other;
                None
            }
        }
    }
}

fn take_over<T, D>(inner: &mut Inner<T, D>) -> Option<(Box<T>, Box<D>)> {
    inner.given_up = false;
    inner.away += 1;
    inner.duty.take().zip(inner.place.take()).map(|(duty, state)| (state, duty))
}

/// How a thread that stands by looks after duties that were left.
#[derive(Default)]
struct Watch {
    /// It is the one that does.
    on: bool,
    /// What was there at the last look; the wait since then was a whole one.
    seen: Option<u64>,
    last: u64,
    quiet: u32,
}

impl Watch {
    fn is_overdue(&self, ticket: u64) -> bool {
        self.on && self.seen == Some(ticket)
    }

    fn look<T, D>(&mut self, inner: &mut Inner<T, D>) {
        if !self.on && !inner.watched && inner.duty.is_some() {
            (self.on, inner.watched, self.quiet) = (true, true, 0);
        }
        if !self.on {
            return;
        }
        self.seen = inner.duty.is_some().then_some(inner.ticket);
        self.quiet = if self.seen.is_none() && inner.ticket == self.last { self.quiet + 1 } else { 0 };
        self.last = inner.ticket;
        if self.quiet > QUIET_LOOKS {
            (self.on, inner.watched) = (false, false);
        }
    }
}

#[cfg(test)]
mod tests;
