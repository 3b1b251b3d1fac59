//! Interrupts that come at awkward moments, and what follows an idle transaction's end.

use super::*;
use crate::base::limits;
use crate::codec::client::failure;

const INTERRUPT: Request<'_> = Request::Interrupt { db: 0 };

fn exec_bytes(sql: &str) -> Vec<u8> {
    let params = OwnedParams::new(&[] as &[Param<'_>]);
    let request = Request::ExecSql { schema: Schema::V0, db: 0, sql: sql.as_bytes(), params: params.view() };
    request.encode().unwrap()
}

#[test]
fn an_interrupt_that_arrived_with_its_statement_stops_it_after_a_while_if_it_still_runs() {
    let mut world = World::new();
    world.open(A);
    let both = [exec_bytes("SELECT 1"), INTERRUPT.encode().unwrap()].concat();
    for ends_by_itself in [true, false] {
        world.core.handle_bytes(A, &both, world.now);
        world.collect();
        world.pass(limits::EARLY_INTERRUPT_GRACE - Duration::from_nanos(1));
        assert_eq!(world.interrupted, []);
        if ends_by_itself {
            world.end_job(Outcome { reply: Some(result(0)), ..Outcome::default() });
            assert_eq!(world.answers(A), ["result 0", "empty"]);
        }
        world.pass(Duration::from_nanos(1));
        assert_eq!(world.interrupted, if ends_by_itself { vec![] } else { vec![A] });
    }
    world.end_job(Outcome { reply: Some(Reply::Failure(failure::INTERRUPTED)), ..Outcome::default() });
    assert_eq!(world.answers(A), ["failure 9 interrupted", "empty"]);
    assert_eq!(world.core.early_interrupts.len(), 0);
}

#[test]
fn an_interrupt_told_while_the_statement_gives_way_to_another_writer_is_not_forgotten() {
    let mut world = World::new();
    world.open(A);
    world.open(B);
    world.exec(A, "BEGIN IMMEDIATE");
    world.run_write(true);
    assert_eq!(world.answers(A), ["result 0"]);
    // Not known to write, so it runs, and finds the slot taken.
    world.exec(B, "WITH x AS (SELECT 1) UPDATE t SET a = 1");
    world.send(B, &INTERRUPT);
    assert_eq!(world.interrupted, [B]);
    world.run_write(false);
    assert_eq!(world.answers(B), ["failure 9 interrupted", "empty"]);
    world.exec(A, "COMMIT");
    world.run_write(false);
    world.sync();
    assert_eq!((world.answers(A).len(), world.jobs.len()), (1, 0), "the withdrawn statement is not run");
}

#[test]
fn finalize_does_not_take_the_failure_that_is_due_after_a_transaction_idled() {
    let mut world = World::with(SnapshotPolicy::Default, 2 * limits::SLOT_IDLE_MAX);
    world.open(A);
    world.open(B);
    world.send(A, &Request::Prepare { schema: Schema::V0, db: 0, sql: b"SELECT 1" });
    world.end_job(Outcome { reply: Some(Reply::Prepared { params: 0, tail: 8 }), ..Outcome::default() });
    world.answers(A);
    world.exec(A, "BEGIN IMMEDIATE");
    world.run_write(true);
    world.answers(A);
    world.exec(B, "UPDATE t SET a = 1");
    world.pass(limits::SLOT_IDLE_MAX);
    world.databases[&A].release(WriterId(A.0));
    assert_eq!(world.end_job(Outcome::default()), A);
    world.send(A, &Request::Finalize { db: 0, stmt: 0 });
    world.run_write(false);
    assert_eq!(world.end_job(Outcome { reply: Some(Reply::Empty), ..Outcome::default() }), A);
    assert_eq!(world.answers(A), ["empty"]);
    world.exec(A, "UPDATE t SET a = 1");
    let answers = world.answers(A);
    assert!(answers[0].starts_with("failure 5 database is locked: this connection"), "{answers:?}");
}
