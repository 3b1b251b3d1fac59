use std::sync::Mutex;
use std::thread;

use super::{Slot, Tried};
use crate::base::limits;

type Numbers = Slot<i32, &'static str>;

/// Waits, without a clock, until so many threads stand by.
fn until_standing_by(slot: &Numbers, count: usize) {
    while slot.lock().standing_by != count {
        thread::yield_now();
    }
}

#[test]
fn what_lies_in_the_slot_can_be_stepped_and_what_is_taken_cannot() {
    let slot = Numbers::default();
    assert_eq!(slot.try_step(1, |sum, add| *sum += add), Tried::Missed(1), "nothing lies here yet");
    slot.park(Box::new(10));
    assert_eq!(slot.try_step(2, |sum, add| *sum += add), Tried::Stepped);
    assert_eq!(slot.take(), Some(Box::new(12)));
    assert_eq!(slot.try_step(3, |sum, add| *sum += add), Tried::Missed(3));
}

#[test]
fn a_step_misses_while_another_thread_makes_one() {
    let slot = Numbers::default();
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
    let slot = Numbers::default();
    slot.park(Box::new(0));
    let tried = slot.try_step((), |_, ()| std::panic::resume_unwind(Box::new("planned")));
    assert_eq!(tried, Tried::Failed);
    assert_eq!(slot.take(), None);
    slot.close(false);
    assert_eq!(slot.wait_closed(), (true, 0), "the first end counts");
    slot.park(Box::new(1));
    assert_eq!(slot.take(), None, "nothing comes back into a closed slot");
}

#[test]
fn nobody_leaves_a_duty_that_nobody_could_take_over() {
    let slot = Numbers::default();
    assert_eq!(slot.leave(Box::new(1), Box::new("duty")), Err((Box::new(1), Box::new("duty"))));
}

#[test]
fn nobody_leaves_a_duty_when_too_many_threads_are_away() {
    let slot = Numbers::default();
    thread::scope(|scope| {
        scope.spawn(|| slot.stand_by());
        until_standing_by(&slot, 1);
        slot.lock().away = limits::OVERTAKEN_MAX;
        assert!(slot.leave(Box::new(1), Box::new("duty")).is_err());
        slot.close(false);
    });
}

#[test]
fn a_duty_that_was_left_can_be_stepped_and_comes_back() {
    let slot = Numbers::default();
    thread::scope(|scope| {
        scope.spawn(|| slot.stand_by());
        until_standing_by(&slot, 1);
        slot.lock().watched = true; // Nobody looks after it: whether it is overdue is another test's affair.
        let ticket = slot.leave(Box::new(1), Box::new("duty")).unwrap();
        assert_eq!(slot.try_step(2, |sum, add| *sum += add), Tried::Stepped);
        assert_eq!(slot.come_back(ticket), Some((Box::new(3), Box::new("duty"))));
        assert!(slot.give_up(ticket), "too late, but no harm");
        slot.close(false);
    });
}

#[test]
fn a_duty_given_up_is_taken_over_exactly_once() {
    let slot = Numbers::default();
    thread::scope(|scope| {
        let standbys = [scope.spawn(|| slot.stand_by()), scope.spawn(|| slot.stand_by())];
        until_standing_by(&slot, 2);
        slot.lock().watched = true;
        let ticket = slot.leave(Box::new(1), Box::new("duty")).unwrap();
        assert!(slot.give_up(ticket));
        until_standing_by(&slot, 1);
        assert_eq!(slot.lock().away, 1);
        assert_eq!(slot.come_back(ticket), None);
        assert_eq!(slot.lock().away, 0);
        slot.close(false);
        let taken: Vec<_> = standbys.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(taken, [(Box::new(1), Box::new("duty"))]);
    });
}

#[test]
fn a_duty_that_is_not_given_up_is_taken_over_all_the_same() {
    let slot = Numbers::default();
    thread::scope(|scope| {
        let standby = scope.spawn(|| slot.stand_by());
        until_standing_by(&slot, 1);
        let ticket = slot.leave(Box::new(1), Box::new("duty")).unwrap();
        assert_eq!(standby.join().unwrap(), Some((Box::new(1), Box::new("duty"))));
        assert_eq!(slot.come_back(ticket), None);
        assert!(!slot.lock().watched, "the next duty that is left calls somebody");
    });
}

#[test]
fn no_more_threads_stand_by_than_needed() {
    let slot = Numbers::default();
    thread::scope(|scope| {
        scope.spawn(|| slot.stand_by());
        scope.spawn(|| slot.stand_by());
        until_standing_by(&slot, 2);
        assert_eq!(slot.stand_by(), None);
        slot.close(false);
    });
}

#[test]
fn the_end_waits_for_the_crew_but_not_for_who_is_away() {
    let slot = Numbers::default();
    let (stuck, home) = (slot.join(), slot.join());
    thread::scope(|scope| {
        scope.spawn(|| slot.stand_by());
        until_standing_by(&slot, 1);
        let ticket = slot.leave(Box::new(1), Box::new("duty")).unwrap();
        slot.close(false);
        let waits = scope.spawn(|| slot.wait_closed());
        assert_eq!(slot.lock().crew, 2);
        drop(home);
        assert_eq!(waits.join().unwrap(), (false, 1));
        assert_eq!(slot.come_back(ticket), None);
    });
    drop(stuck);
    assert_eq!(slot.wait_closed(), (false, 0));
}
