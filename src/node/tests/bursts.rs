//! Short statements that follow one another share entries.

use super::*;
use crate::base::limits::BURST_TRANSACTIONS_MAX;

fn world_with_writers(count: u64) -> World {
    let mut world = World::new();
    for conn in (1..=count).map(ConnId) {
        world.open(conn);
        world.exec(conn, "UPDATE t SET a = 1");
    }
    world
}

#[test]
fn what_is_finished_waits_for_the_writer_that_follows_and_no_longer() {
    let mut world = world_with_writers(3);
    world.core.begin_burst();
    world.run_write(false);
    world.run_write(false);
    assert_eq!(world.commands(), 0, "a third one is about to run");
    world.run_write(false);
    assert_eq!(world.commands(), 1, "nobody follows");
    world.sync();
    for conn in [A, B, C] {
        assert_eq!(world.answers(conn), ["result 1"], "{conn:?}");
    }
}

#[test]
fn what_waits_for_a_statement_that_takes_long_is_proposed_when_the_burst_ends() {
    let mut world = world_with_writers(2);
    world.core.begin_burst();
    world.run_write(false);
    assert_eq!(world.commands(), 0);
    assert!(world.core.end_burst(world.now));
    world.collect();
    assert_eq!(world.commands(), 1);
    world.sync();
    assert_eq!(world.answers(A), ["result 1"]);
    assert!(!world.core.end_burst(world.now), "nothing waits");
}

#[test]
fn in_a_long_burst_no_more_than_so_many_wait() {
    let count = 2 * BURST_TRANSACTIONS_MAX as u64;
    let mut world = world_with_writers(count);
    world.core.begin_burst();
    for _ in 0..BURST_TRANSACTIONS_MAX {
        world.run_write(false);
        assert_eq!(world.commands(), 0);
    }
    world.run_write(false);
    assert_eq!(world.commands(), 1);
}

#[test]
fn a_transaction_that_is_open_makes_nobody_wait() {
    let mut world = world_with_writers(2);
    world.core.begin_burst();
    world.run_write(false);
    assert_eq!(world.commands(), 0);
    // The second one turns out to begin a transaction.
    world.run_write(true);
    assert_eq!(world.commands(), 1);
}
