//! What must not leave a client without its answer, or with one that is not true.

use super::*;

impl World {
    /// The disk refuses its oldest work for want of room.
    fn no_room(&mut self) {
        let ticket = self.disk.pop_front().expect("work for the disk");
        self.core.handle_persist_failed(ticket, true, "no space left", self.now);
        self.collect();
    }

    /// The disk refuses everything that it is asked.
    fn no_room_at_all(&mut self) {
        while !self.disk.is_empty() {
            self.no_room();
        }
    }

    fn heal(&mut self) {
        for _ in 0..20 {
            self.pass(Duration::from_secs(1));
            self.sync();
        }
    }

    fn query(&mut self, conn: ConnId, sql: &str) {
        let params = OwnedParams::new(&[] as &[Param<'_>]);
        let sql = sql.as_bytes();
        self.send(conn, &Request::QuerySql { schema: Schema::V0, db: 0, sql, params: params.view() });
    }

    /// Ends the oldest job as one that needs more, or waits.
    fn pause_job(&mut self, progress: Progress) -> ConnId {
        let (conn, _) = self.jobs.pop_front().expect("a job waits");
        self.core.handle_sql_ran(conn, progress, self.now);
        self.collect();
        conn
    }

    /// The next job, which must be a rollback, is done.
    fn roll_back(&mut self, conn: ConnId) {
        let (who, request) = self.jobs.pop_front().expect("a job waits");
        assert!(who == conn && matches!(request, Some(SqlRequest::Rollback)), "{who:?}: {request:?}");
        self.databases[&conn].release(WriterId(conn.0));
        self.core.handle_sql_ran(conn, Progress::Done(Outcome::default()), self.now);
        self.collect();
    }
}

fn rows() -> Progress {
    Progress::Batch { messages: vec![0; 8], read_seq: None }
}

#[test]
fn a_change_of_members_that_the_full_disk_lost_is_refused() {
    let mut world = World::new();
    world.connect(A);
    world.send(A, &Request::Add { id: NodeId(2), address: b"127.0.0.1:9002" });
    world.no_room();
    assert_eq!(world.answers(A), ["failure 1 I/O error"]);
}

#[test]
fn a_start_on_a_full_disk_answers_all_clients_and_serves_once_there_is_room() {
    let mut world = World::asleep(SnapshotPolicy::Default, Duration::from_secs(10));
    let open = Request::Open { filename: b"test", flags: 0, vfs: b"" };
    world.connect(A);
    world.send(A, &open);
    world.no_room_at_all();
    let full = "failure 13 database or disk is full";
    let refused = world.answers(A);
    assert!(refused == [full] || refused == ["failure 10250 not leader"], "{refused:?}");
    world.connect(B);
    world.send(B, &open);
    assert_eq!(world.answers(B), [full]);
    world.send(B, &Request::Remove { id: NodeId(1) });
    assert_eq!(world.answers(B), [full]);
    world.heal();
    world.open(C);
}

#[test]
fn a_transaction_that_began_on_a_version_that_was_lost_is_rolled_back_before_the_next_statement() {
    let mut world = World::new();
    world.open(A);
    world.open(B);
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    // B begins on what A has finished, and is told when that is durable.
    world.exec(B, "BEGIN IMMEDIATE");
    let database = Arc::clone(&world.databases[&B]);
    let head = database.pin(View::Head);
    database.reserve(WriterId(B.0), &head).unwrap();
    let begun = Outcome {
        reply: Some(result(0)),
        read_seq: Some(head.seq()),
        holds_slot: true,
        ..Outcome::default()
    };
    world.end_job(begun);
    assert_eq!(world.answers(B), [] as [&str; 0]);
    world.no_room();
    assert_eq!(world.answers(B), ["failure 13 database or disk is full"]);
    world.exec(B, "INSERT INTO t VALUES(1)");
    world.roll_back(A);
    world.roll_back(B);
    assert_eq!(database.slot_holder(), None);
    let (conn, request) = world.jobs.front().expect("the statement after it");
    assert!(*conn == B && matches!(request, Some(SqlRequest::Client(_))));
}

#[test]
fn a_text_of_which_one_write_was_lost_is_refused_though_the_last_one_stands() {
    let mut world = World::new();
    world.open(A);
    world.exec(A, "INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)");
    let database = Arc::clone(&world.databases[&A]);
    let lost = database.head_seq() + 1;
    let request = world.jobs.pop_front().unwrap();
    world.jobs.push_back(request.clone());
    world.run_write(false);
    world.no_room();
    world.answers(A);
    world.roll_back(A);
    world.heal();
    // As if both had been one text: its first version is gone, its last one stands.
    world.exec(A, "INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)");
    world.jobs.pop_front().unwrap();
    let read_seq = Some(database.committed_seq());
    let outcome = Outcome { reply: Some(result(1)), published: Some(lost), read_seq, ..Outcome::default() };
    world.jobs.push_back(request);
    world.end_job(outcome);
    assert_eq!(world.answers(A), ["failure 13 database or disk is full"]);
}

#[test]
fn no_snapshot_covers_an_entry_that_could_not_be_applied() {
    let policy = SnapshotPolicy::Given { threshold: 1, trailing: 1, dynamic: false };
    let mut world = World::with(policy, Duration::ZERO);
    world.core.handle_snapshot(Ok(()), world.now);
    world.snapshots.clear();
    let payload = Payload::from_bytes(&[9; 16]);
    let bad = Entry { index: Index(9), term: Term(1), kind: EntryKind::Command, payload };
    world.core.apply(&[bad], world.now);
    world.collect();
    assert_eq!(world.snapshots, []);
    let text = world.core.unavailable().expect("the node must not go on");
    assert!(text.contains("log entry 9"), "{text}");
}

#[test]
fn whoever_does_not_take_the_rows_of_its_write_is_no_obstacle_for_ever() {
    let mut world = World::with(SnapshotPolicy::Default, Duration::from_secs(120));
    world.open(A);
    world.open(B);
    world.exec(A, "BEGIN");
    world.end_job(Outcome { reply: Some(result(0)), ..Outcome::default() });
    world.answers(A);
    world.query(A, "INSERT INTO t SELECT * FROM u RETURNING a");
    let database = Arc::clone(&world.databases[&A]);
    database.reserve(WriterId(A.0), &database.pin(View::Head)).unwrap();
    assert_eq!(world.pause_job(rows()), A);
    world.exec(B, "UPDATE t SET a = 1");
    assert_eq!(world.jobs.len(), 0);
    // A takes nothing of it.
    world.pass(Duration::from_secs(61));
    world.roll_back(A);
    assert_eq!(world.run_write(false), B);
    world.sync();
    assert_eq!(world.answers(B), ["result 1"]);
    let sent = world.core.output(A).to_vec();
    assert_eq!(sent, [0; 8], "the rows that were there");
    world.core.handle_written(A, sent.len(), world.now);
    let answers = world.answers(A);
    assert!(answers[0].starts_with("failure 5 database is locked: this connection's transaction idled"));
}

#[test]
fn a_writer_that_waits_behind_rows_that_nobody_takes_is_told_busy_at_its_deadline() {
    let mut world = World::with(SnapshotPolicy::Default, Duration::from_millis(300));
    world.open(A);
    world.open(B);
    world.query(A, "INSERT INTO t SELECT * FROM u RETURNING a");
    let database = Arc::clone(&world.databases[&A]);
    database.reserve(WriterId(A.0), &database.pin(View::Head)).unwrap();
    world.pause_job(rows());
    world.exec(B, "UPDATE t SET a = 1");
    world.pass(Duration::from_millis(300));
    assert_eq!(world.answers(B), ["failure 5 database is locked"]);
}

#[test]
fn being_refused_by_the_page_store_gives_no_new_deadline() {
    let mut world = World::with(SnapshotPolicy::Default, Duration::from_millis(300));
    for conn in [A, B] {
        world.open(conn);
    }
    world.exec(B, "UPDATE t SET a = 1");
    // A's statement was not known to write; it is the first to reach the slot and stays in a transaction.
    let database = Arc::clone(&world.databases[&A]);
    database.grant_only(None);
    database.reserve(WriterId(A.0), &database.pin(View::Head)).unwrap();
    world.pass(Duration::from_millis(200));
    assert_eq!(world.run_write(false), B);
    world.pass(Duration::from_millis(99));
    assert_eq!(world.answers(B), [] as [&str; 0]);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.answers(B), ["failure 5 database is locked"]);
}

#[test]
fn a_text_that_was_parked_between_its_statements_is_not_told_that_nothing_happened() {
    let mut world = World::new();
    world.open(A);
    world.exec(A, "INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)");
    // Somebody else's statement that was not known to write has the slot.
    let database = Arc::clone(&world.databases[&A]);
    database.grant_only(None);
    database.reserve(WriterId(7), &database.pin(View::Head)).unwrap();
    world.pause_job(Progress::NeedsSlot);
    assert_eq!(world.jobs.len(), 0);
    world.connect(B);
    world.send(B, &Request::Add { id: NodeId(2), address: b"127.0.0.1:9002" });
    let ticket = world.disk.pop_front().unwrap();
    world.core.handle_persist_failed(ticket, false, "input/output error", world.now);
    world.collect();
    assert_eq!(world.answers(A), ["failure 10506 leadership lost"]);
}

#[test]
fn all_databases_share_one_turn_of_the_disk() {
    let mut world = World::new();
    let conns: Vec<ConnId> = (1..=20).map(ConnId).collect();
    for &conn in &conns {
        world.connect(conn);
        let name = format!("database {}", conn.0);
        world.send(conn, &Request::Open { filename: name.as_bytes(), flags: 0, vfs: b"" });
        assert_eq!(world.answers(conn), ["db 0"]);
        world.exec(conn, "UPDATE t SET a = 1");
    }
    for _ in &conns {
        world.run_write(false);
    }
    assert_eq!(world.commands(), conns.len(), "none waits for another database's entry");
    world.sync();
    for &conn in &conns {
        assert_eq!(world.answers(conn), ["result 1"]);
    }
}

#[test]
fn a_write_whose_client_is_gone_goes_into_the_log_without_waiting_for_another() {
    let mut world = World::new();
    world.open(A);
    world.exec(A, "UPDATE t SET a = 1");
    world.core.handle_gone(A, world.now);
    world.collect();
    world.run_write(false);
    assert_eq!(world.commands(), 1);
}

#[test]
fn a_client_that_is_gone_leaves_no_held_answer_behind() {
    let mut world = World::new();
    world.open(A);
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    // Its connection is being closed when the write that it waited for fails.
    world.core.handle_gone(A, world.now);
    let ticket = world.disk.pop_front().unwrap();
    world.core.handle_persist_failed(ticket, false, "input/output error", world.now);
    world.collect();
    assert!(world.databases.is_empty());
}

#[test]
fn what_was_meant_for_a_transaction_that_was_rolled_back_is_never_run_alone() {
    let mut world = World::with(SnapshotPolicy::Default, Duration::from_secs(120));
    world.open(A);
    world.open(B);
    world.exec(A, "BEGIN IMMEDIATE");
    world.run_write(true);
    world.answers(A);
    world.exec(B, "UPDATE t SET a = 1");
    world.pass(Duration::from_secs(61));
    world.roll_back(A);
    for sql in ["INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(1)", "SELECT 1", "ROLLBACK TO x"] {
        world.exec(A, sql);
        let answers = world.answers(A);
        assert!(
            answers[0].starts_with("failure 5 database is locked: this connection's"),
            "{sql}: {answers:?}"
        );
    }
    assert_eq!(world.run_write(false), B);
    world.exec(A, "ROLLBACK");
    world.end_job(Outcome { reply: Some(result(0)), ..Outcome::default() });
    assert_eq!(world.answers(A), ["result 0"]);
    world.exec(A, "INSERT INTO t VALUES(1)");
    assert_eq!(world.run_write(false), A);
    world.sync();
    assert_eq!(world.answers(A), ["result 1"]);
}

/// A panic in the page store may leave a database half changed. Its thread's connection dies with it; the node must
/// not serve from such pages, nor write them into snapshots.
#[test]
fn after_a_panic_in_the_page_store_the_node_serves_nobody_and_says_why() {
    let mut world = World::new();
    world.open(A);
    world.open(B);
    let database = Arc::clone(&world.databases[&A]);
    world.exec(A, "UPDATE t SET a = 1");
    world.jobs.pop_front().unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| database.commit_to(999)));
    assert!(panicked.is_err() && database.is_broken());
    // As the shell does it when an SQL thread panicked: the socket first, then the connection.
    world.core.handle_gone(A, world.now);
    world.collect();
    world.core.handle_sql_closed(A, world.now);
    world.collect();
    assert!(world.core.unavailable().is_some_and(|text| text.contains("panicked")));
    world.exec(B, "SELECT 1");
    assert_eq!(world.answers(B), ["failure 10250 not leader"]);
}

/// Any other panic on an SQL thread costs its client the connection, and nobody else anything.
#[test]
fn after_a_panic_over_a_statement_others_are_served() {
    let mut world = World::new();
    world.open(A);
    world.open(B);
    world.exec(A, "UPDATE t SET a = 1");
    world.jobs.pop_front().unwrap();
    world.exec(B, "UPDATE t SET a = 1");
    world.core.handle_gone(A, world.now);
    world.collect();
    world.core.handle_sql_closed(A, world.now);
    world.collect();
    assert_eq!(world.run_write(false), B, "the slot is free");
    world.sync();
    assert_eq!(world.answers(B), ["result 1"]);
    assert_eq!(world.core.unavailable(), None);
}
