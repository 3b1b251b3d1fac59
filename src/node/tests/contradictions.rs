//! What must not happen, happened: the node serves nobody, says why, and has its last events at hand.

use super::*;

/// A node that has committed a row, and then met `contradiction`: why it is unavailable, and what it tells of before.
fn after(contradiction: impl FnOnce(&mut World)) -> (String, String) {
    let mut world = World::new();
    world.open(A);
    world.open(B);
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    world.sync();
    assert_eq!(world.answers(A), ["result 1"]);
    assert_eq!(world.core.unavailable(), None);
    contradiction(&mut world);
    world.pass(Duration::from_secs(1));
    world.exec(B, "SELECT 1");
    assert_eq!(world.answers(B), ["failure 10250 not leader"]);
    let text = world.core.unavailable().expect("a reason").to_owned();
    (text, world.core.journal().to_string())
}

/// The events must be told in this order, whatever else is told between them.
fn assert_told(told: &str, events: &[&str]) {
    let mut lines = told.lines();
    for event in events {
        assert!(lines.any(|line| line.contains(event)), "{event} in its place expected, found {told}");
    }
}

#[test]
fn in_consensus() {
    let (text, told) = after(|world| world.core.consensus.fail("broken invariant (test): planned"));
    assert_eq!(text, "broken invariant (test): planned");
    let events =
        ["leads term", "proposed index", "persist ticket", "persisted ticket", "apply index", "unavailable"];
    assert_told(&told, &events);
}

#[test]
fn in_the_engine() {
    let (text, told) = after(|world| {
        let (index, payload) = (Index(world.core.applied_index().0 + 1), Payload::from_bytes(&[9; 16]));
        let bad = Entry { index, term: Term(1), kind: EntryKind::Command, payload };
        world.core.apply(&[bad], world.now);
    });
    assert!(text.contains("log entry"), "{text}");
    assert_told(&told, &["proposed index", "apply index", "apply index", "unavailable term"]);
}

#[test]
fn in_the_page_store() {
    let (text, told) = after(|world| {
        let database = Arc::clone(&world.databases[&A]);
        let changed = std::panic::AssertUnwindSafe(|| database.commit_to(999));
        assert!(std::panic::catch_unwind(changed).is_err());
        world.core.handle_gone(A, world.now);
        world.collect();
        world.core.handle_sql_closed(A, world.now);
        world.collect();
    });
    assert!(text.contains("panicked"), "{text}");
    assert_told(&told, &["apply index", "gone client", "unavailable term"]);
}

#[test]
fn on_the_disk() {
    let (text, told) = after(|world| {
        world.exec(A, "UPDATE t SET a = 2");
        world.run_write(false);
        let ticket = world.disk.pop_front().expect("work for the disk");
        world.core.handle_persist_failed(ticket, false, "a thread panicked over the log", world.now);
        world.collect();
    });
    assert!(!text.is_empty());
    assert_told(
        &told,
        &["persisted ticket", "proposed index", "persist ticket", "not persisted ticket", "unavailable"],
    );
}
