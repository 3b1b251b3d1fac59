//! One lock for all of SQLite, for processes in which SQLite has no mutexes: fair, nestable, handed over.
//!
//! Invariants: waiters are served first come, first served; who lets go hands the lock to the head waiter
//! directly, so nobody, not even the thread that let go, can take it in between. A thread that holds the lock
//! may take it again, and [`FairLock::yield_now`] gives up all its holds at once and takes them all back.
//! Order: this lock first, the engine's mutexes after it; nobody waits here while holding one of those.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread, ThreadId};

/// The lock.
#[derive(Debug)]
pub struct FairLock {
    state: Mutex<State>,
    /// The length of the queue, so that a yield with nobody waiting is one load.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct State {
    owner: Option<ThreadId>,
    depth: usize,
    queue: VecDeque<Arc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    thread: Thread,
    /// How many holds it is given: more than one when it yielded inside nested holds.
    depth: usize,
    granted: AtomicBool,
}

/// One hold on the lock; lets go when dropped, also when its thread panics.
#[derive(Debug)]
pub struct Held<'a> {
    lock: &'a FairLock,
    /// The lock belongs to a thread, so a hold cannot move to another one.
    thread_bound: PhantomData<*const ()>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.lock.leave();
    }
}

impl Default for FairLock {
    fn default() -> Self {
        Self::new()
    }
}

impl FairLock {
    /// A free lock.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Mutex::new(State { owner: None, depth: 0, queue: VecDeque::new() }),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes the lock, behind all who wait already; at once if this thread holds it.
    pub fn enter(&self) -> Held<'_> {
        let mut state = self.state();
        if !take(&mut state) {
            self.wait(state, 1);
        }
        Held { lock: self, thread_bound: PhantomData }
    }

    /// Takes the lock if nobody else holds it or waits for it.
    pub fn try_enter(&self) -> Option<Held<'_>> {
        let taken = take(&mut self.state());
        taken.then(|| Held { lock: self, thread_bound: PhantomData })
    }

    /// Lets everybody go first who waits, if this thread holds the lock; else does nothing.
    pub fn yield_now(&self) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut state = self.state();
        if state.owner != Some(thread::current().id()) || state.queue.is_empty() {
            return;
        }
        let depth = state.depth;
        self.hand_over(&mut state);
        self.wait(state, depth);
    }

    /// How many threads wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether this thread holds the lock.
    #[must_use]
    pub fn is_held_here(&self) -> bool {
        self.state().owner == Some(thread::current().id())
    }

    fn leave(&self) {
        let mut state = self.state();
        debug_assert_eq!(state.owner, Some(thread::current().id()), "a hold is dropped by its own thread");
        state.depth = state.depth.saturating_sub(1);
        if state.depth == 0 {
            self.hand_over(&mut state);
        }
    }

    /// Gives the lock to the head of the queue, or frees it.
    fn hand_over(&self, state: &mut State) {
        match state.queue.pop_front() {
            Some(next) => {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                state.owner = Some(next.thread.id());
                state.depth = next.depth;
                next.granted.store(true, Ordering::Release);
                next.thread.unpark();
            }
            None => {
                state.owner = None;
                state.depth = 0;
            }
        }
    }

    /// Waits for `depth` holds at the end of the queue.
    fn wait(&self, mut state: MutexGuard<'_, State>, depth: usize) {
        let thread = thread::current();
        let waiter = Arc::new(Waiter { thread, depth, granted: AtomicBool::new(false) });
        state.queue.push_back(Arc::clone(&waiter));
        self.waiting.fetch_add(1, Ordering::Relaxed);
        drop(state);
        // Parking may end without a reason; the flag is what counts.
        while !waiter.granted.load(Ordering::Acquire) {
            thread::park();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a free lock, or one more hold on this thread's own.
fn take(state: &mut State) -> bool {
    let here = thread::current().id();
    match state.owner {
        None => {
            state.owner = Some(here);
            state.depth = 1;
            true
        }
        Some(owner) if owner == here => {
            state.depth = state.depth.saturating_add(1);
            true
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::FairLock;

    /// Waits, without a clock, until so many threads stand in the queue.
    fn until_waiting(lock: &FairLock, count: usize) {
        while lock.waiting() != count {
            thread::yield_now();
        }
    }

    #[test]
    fn waiters_are_served_in_the_order_in_which_they_came() {
        let (lock, order) = (FairLock::new(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let held = lock.enter();
            for number in 0..6 {
                let (lock, order) = (&lock, &order);
                scope.spawn(move || {
                    let _held = lock.enter();
                    order.lock().unwrap().push(number);
                });
                until_waiting(lock, number + 1);
            }
            drop(held);
        });
        assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 3, 4, 5]);
        assert!(!lock.is_held_here());
    }

    #[test]
    fn the_thread_that_lets_go_stands_behind_those_who_wait() {
        let (lock, order) = (FairLock::new(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let held = lock.enter();
            scope.spawn(|| {
                let _held = lock.enter();
                order.lock().unwrap().push("waiter");
            });
            until_waiting(&lock, 1);
            drop(held);
            let _again = lock.enter();
            order.lock().unwrap().push("first again");
        });
        assert_eq!(order.into_inner().unwrap(), ["waiter", "first again"]);
    }

    #[test]
    fn a_yield_lets_every_waiter_go_first_and_gives_back_all_holds() {
        let (lock, order) = (FairLock::new(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let (outer, inner) = (lock.enter(), lock.enter());
            for number in 0..3 {
                let (lock, order) = (&lock, &order);
                scope.spawn(move || {
                    let _held = lock.enter();
                    order.lock().unwrap().push(number);
                });
                until_waiting(lock, number + 1);
            }
            lock.yield_now();
            order.lock().unwrap().push(9);
            assert!(lock.is_held_here());
            drop(inner);
            assert!(lock.is_held_here(), "one hold is left after a yield inside two");
            drop(outer);
            assert!(!lock.is_held_here());
        });
        assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 9]);
    }

    #[test]
    fn a_yield_of_a_thread_without_the_lock_changes_nothing() {
        let lock = FairLock::new();
        lock.yield_now();
        thread::scope(|scope| {
            let held = lock.enter();
            scope.spawn(|| drop(lock.enter()));
            until_waiting(&lock, 1);
            // A third thread, such as one of SQLite's own sorters, may call in.
            scope.spawn(|| lock.yield_now()).join().unwrap();
            assert_eq!(lock.waiting(), 1);
            assert!(lock.is_held_here());
            drop(held);
        });
    }

    #[test]
    fn trying_succeeds_only_when_nobody_else_holds_or_waits() {
        let lock = FairLock::new();
        let held = lock.try_enter().expect("free");
        assert!(lock.try_enter().is_some(), "one's own lock can be taken again");
        thread::scope(|scope| {
            scope.spawn(|| assert!(lock.try_enter().is_none()));
        });
        drop(held);
        thread::scope(|scope| {
            scope.spawn(|| assert!(lock.try_enter().is_some()));
        });
    }

    #[test]
    fn a_panic_lets_go() {
        let lock = FairLock::new();
        let panicked = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _held = lock.enter();
                    std::panic::resume_unwind(Box::new("planned"));
                })
                .join()
        });
        assert!(panicked.is_err());
        assert!(lock.try_enter().is_some());
    }

    #[test]
    fn no_two_threads_are_inside_at_once_whatever_they_do() {
        let (lock, inside) = (FairLock::new(), Mutex::new(()));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..500 {
                        let _held = lock.enter();
                        let alone = inside.try_lock().expect("nobody else is inside");
                        thread::yield_now();
                        drop(alone);
                        if turn % 3 == 0 {
                            lock.yield_now();
                            let _alone = inside.try_lock().expect("nobody else is inside after a yield");
                            thread::yield_now();
                        }
                    }
                });
            }
        });
    }
}
