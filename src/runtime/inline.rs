//! Short statements on the loop's own thread, which saves two wake-ups: the loop's state and duty are left in
//! the slot meanwhile, and a statement that turns out to be long goes on without them.

use std::cell::RefCell;
use std::sync::Arc;

use super::clock::Clock;
use super::habits::SHORT;
use super::shell::{Desk, Duty, Message, Shell};
use super::slot::Slot;
use super::sql_pool::{self, SqlDone, SqlWork};
use crate::base::Time;
use crate::sqlite::threads;

/// The statement that this thread runs while the loop's duty lies in the slot.
struct Running {
    slot: Arc<Slot<Shell, Duty>>,
    ticket: u64,
    clock: Clock,
    /// When it is long.
    until: Time,
}

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// What SQLite calls from time to time within a statement: gives the loop away when the statement is long.
pub fn handle_progress() {
    RUNNING.with(|running| {
        let Ok(mut running) = running.try_borrow_mut() else { return };
        let given =
            running.as_ref().is_some_and(|now| now.clock.now() >= now.until && now.slot.give_up(now.ticket));
        if given {
            *running = None;
        }
    });
}

/// Runs a statement between two steps of the loop. `None`: it was long, and another thread is the loop now.
pub fn run(
    desk: &Desk,
    mut shell: Box<Shell>,
    duty: Box<Duty>,
    work: SqlWork,
) -> Option<(Box<Shell>, Box<Duty>)> {
    let (clock, started) = (shell.clock, shell.clock.now());
    let Some(sqlite) = threads::try_enter() else {
        shell.pool.submit(work, started);
        return Some((shell, duty));
    };
    let ticket = match desk.slot.leave(shell, duty) {
        Ok(ticket) => ticket,
        Err((mut shell, duty)) => {
            shell.pool.submit(work, started);
            return Some((shell, duty));
        }
    };
    let slot = Arc::clone(&desk.slot);
    RUNNING.set(Some(Running { slot, ticket, clock, until: started.after(SHORT) }));
    let mut done = sql_pool::execute(work);
    RUNNING.set(None);
    drop(sqlite);
    if let Some((mut shell, duty)) = desk.slot.come_back(ticket) {
        shell.step(Message::Sql(done));
        return Some((shell, duty));
    }
    if let SqlDone::Ran { spent, .. } = &mut done {
        spent.overtaken = true;
    }
    desk.deliver(Message::Sql(done));
    None
}
