//! A lone writer's commit on the loop's own thread, which saves the way to the disk thread and back: the loop's
//! state and duty are left in the slot meanwhile, as for a short statement. With company the disk thread writes,
//! since what is finished during one sync shares the next.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{self, DiskDone, DiskWork, Turn};
use super::shell::{Desk, Duty, Message, Shell};
use crate::engine::ConnId;

/// A client is alone after so many requests in a row that were all its own.
const STREAK: u32 = 8;

/// A sync that takes longer would have the loop taken over.
const QUICK: Duration = Duration::from_millis(1);

/// After so many slow syncs in a row the disk thread does the next ones.
const SLOW_MAX: u32 = 4;
const AVOIDED: u32 = 64;

/// In the place of clients: what a leader wants of a follower. No connection has these numbers.
const LEADER: ConnId = ConnId(u64::MAX);
const QUESTIONER: ConnId = ConnId(u64::MAX - 1);

/// Whether there is but one client at work, and a disk that is quick.
#[derive(Debug, Default)]
pub struct Lone {
    last: Option<ConnId>,
    streak: u32,
    slow: u32,
    avoided: u32,
}

impl Lone {
    /// A statement of this client begins.
    pub fn handle_request(&mut self, conn: ConnId) {
        self.streak = if self.last == Some(conn) { self.streak.saturating_add(1) } else { 0 };
        self.last = Some(conn);
    }

    /// A leader has entries stored here: it counts as a client.
    pub fn handle_append(&mut self) {
        self.handle_request(LEADER);
    }

    /// A leader waits for an answer that needs no disk, and may do so again: the loop must not be in a sync then.
    pub fn handle_question(&mut self) {
        self.handle_request(QUESTIONER);
    }

    /// Whether to write the commit at hand on the loop's own thread.
    pub fn writes_itself(&mut self) -> bool {
        if self.slow >= SLOW_MAX {
            (self.slow, self.avoided) = (0, AVOIDED);
        }
        self.avoided = self.avoided.saturating_sub(1);
        self.avoided == 0 && self.streak >= STREAK
    }

    /// It is being written. Slow, until it is known to be quick: who overtakes it does not learn how it went on.
    fn handle_began(&mut self) {
        self.slow += 1;
    }

    fn handle_synced(&mut self, took: Duration) {
        if took < QUICK {
            self.slow = 0;
        }
    }
}

/// Writes a commit between two steps of the loop. `None`: it took long, and another thread is the loop now.
pub fn run(
    desk: &Desk,
    mut shell: Box<Shell>,
    duty: Box<Duty>,
    work: DiskWork,
) -> Option<(Box<Shell>, Box<Duty>)> {
    let token = Arc::clone(&shell.storing.token);
    let Some(mut held) = token.try_lock() else {
        shell.storing.send(work);
        return Some((shell, duty));
    };
    let (clock, nudge, began) = (shell.clock, shell.storing.nudge.clone(), shell.clock.now());
    shell.storing.lone.handle_began();
    let ticket = match desk.slot.leave(shell, duty) {
        Ok(ticket) => ticket,
        Err((shell, duty)) => {
            shell.storing.send(work);
            return Some((shell, duty));
        }
    };
    let reports: RefCell<Vec<DiskDone>> = RefCell::default();
    let turn = disk::perform(&mut held, vec![work], &|done| reports.borrow_mut().push(done));
    let mut reports = reports.into_inner();
    match turn {
        Ok(Turn::Worked { prepare: true }) => nudge.give(),
        Ok(_) => {}
        Err(owed) => reports.extend(owed),
    }
    if let Some((mut shell, duty)) = desk.slot.come_back(ticket) {
        drop(held);
        shell.storing.lone.handle_synced(clock.now().since(began));
        for done in reports {
            shell.step(Message::Disk(done));
        }
        return Some((shell, duty));
    }
    // Still with the token: the disk thread must not report later work earlier.
    for done in reports {
        desk.deliver(Message::Disk(done));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AVOIDED, Lone, STREAK};
    use crate::engine::ConnId;

    fn alone() -> Lone {
        let mut lone = Lone::default();
        (0..=STREAK).for_each(|_| lone.handle_request(ConnId(1)));
        lone
    }

    #[test]
    fn one_request_of_another_client_is_company_for_a_while() {
        let mut lone = alone();
        assert!(lone.writes_itself());
        lone.handle_request(ConnId(2));
        for _ in 0..STREAK {
            lone.handle_request(ConnId(1));
            assert!(!lone.writes_itself());
        }
        lone.handle_request(ConnId(1));
        assert!(lone.writes_itself());
    }

    #[test]
    fn a_disk_that_is_slow_again_and_again_is_left_to_the_disk_thread_for_a_while() {
        let mut lone = alone();
        for _ in 0..3 {
            lone.handle_began();
            lone.handle_synced(Duration::from_millis(5));
        }
        lone.handle_began();
        lone.handle_synced(Duration::from_micros(100));
        for _ in 0..4 {
            assert!(lone.writes_itself());
            // Overtaken: how long it took is not heard.
            lone.handle_began();
        }
        let avoided = (0..1000).take_while(|_| !lone.writes_itself()).count();
        assert_eq!(avoided, AVOIDED as usize - 1);
    }
}
