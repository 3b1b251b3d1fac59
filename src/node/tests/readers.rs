//! Readers of old versions, and the memory that is kept for them.

use super::*;
use crate::base::limits;
use crate::codec::client::failure;
use crate::node::readers::ReaderLimits;
use crate::pages::{Pinned, Version};

/// What a connection of an SQL thread would hold for a reader.
struct Reading {
    place: Pinned,
    database: Arc<Database>,
    version: Arc<Version>,
}

impl Reading {
    fn end(self) -> std::sync::Weak<Version> {
        self.database.forget_pins_of(&self.place);
        Arc::downgrade(&self.version)
    }
}

const PAGES: u32 = 40;

impl World {
    fn with_limits(bytes: u64) -> Self {
        let mut world = Self::new();
        world.core.set_reader_limits(ReaderLimits { age: limits::READER_AGE_MAX, bytes });
        world.open(A);
        world.replace_pages(0);
        world
    }

    /// Others write every page anew, `rounds` times and once more.
    fn replace_pages(&mut self, rounds: u8) {
        let database = Arc::clone(&self.databases[&A]);
        for round in 0..=rounds {
            let pinned = database.pin(View::Head);
            let mut changes = Changes { n_pages: PAGES, ..Changes::default() };
            let mut first = pinned.page(PageNo(1)).unwrap().as_slice().to_vec();
            first[200] = first[200].wrapping_add(1);
            changes.pages.insert(PageNo(1), Page::from_slice(&first));
            for no in 2..=PAGES {
                // Not zeros: pages of zeros are all one.
                changes.pages.insert(PageNo(no), Page::from_slice(&[round + 1; PAGE as usize]));
            }
            database.reserve(WriterId(99), &pinned).unwrap();
            let seq = database.publish(WriterId(99), pinned, changes).seq();
            database.release(WriterId(99));
            database.commit_to(seq);
        }
    }

    fn pin(&self, conn: ConnId) -> Reading {
        let database = Arc::clone(&self.databases[&conn]);
        let place = database.note_pins_of(WriterId(conn.0));
        let version = database.pin(View::Committed);
        place.pin().set(&version);
        Reading { place, database, version }
    }

    fn wait_until_old(&mut self) {
        for _ in 0..14 {
            self.pass(Duration::from_secs(5));
        }
    }

    /// The internal rollback of a reader that is being stopped.
    fn roll_back_reader(&mut self, conn: ConnId, reading: Reading, in_transaction: bool) {
        let (who, request) = self.jobs.pop_front().expect("a job waits");
        assert!(who == conn && matches!(request, Some(SqlRequest::Rollback)), "{who:?}: {request:?}");
        let freed = reading.end();
        assert!(freed.upgrade().is_none(), "the old version is still in memory");
        let outcome = Outcome { rolled_back: in_transaction, ..Outcome::default() };
        self.core.handle_sql_ran(conn, Progress::Done(outcome), self.now);
        self.collect();
    }

    fn select(&mut self, conn: ConnId) {
        self.exec(conn, "SELECT 1");
    }
}

const STOPPED: &str =
    "failure 9 interrupted: this statement kept too many replaced pages in memory for too long";
const ROLLED_BACK: &str = "failure 9 interrupted: this connection's transaction kept too many replaced pages in \
                           memory for too long, and was rolled back";

#[test]
fn a_statement_that_reads_an_old_version_for_long_is_interrupted_and_its_pages_are_freed() {
    let mut world = World::with_limits(20 * u64::from(PAGE));
    world.select(A);
    let reading = world.pin(A);
    world.replace_pages(3);
    world.pass(Duration::from_secs(55));
    assert_eq!(world.interrupted, [], "too early");
    world.wait_until_old();
    assert_eq!(world.interrupted, [A], "once");
    let interrupted = Outcome { reply: Some(Reply::Failure(failure::INTERRUPTED)), ..Outcome::default() };
    assert_eq!(world.end_job(interrupted), A);
    assert_eq!(world.answers(A), [STOPPED]);
    world.roll_back_reader(A, reading, false);
    // It was alone: the next one is not meant for a transaction.
    world.select(A);
    world.end_job(Outcome { reply: Some(result(0)), ..Outcome::default() });
    assert_eq!(world.answers(A), ["result 0"]);
    assert_eq!(world.core.readers_stopped(), 1);
}

#[test]
fn a_client_that_does_not_take_its_rows_is_stopped_too() {
    let mut world = World::with_limits(20 * u64::from(PAGE));
    world.select(A);
    let reading = world.pin(A);
    let (conn, _) = world.jobs.pop_front().unwrap();
    world.core.handle_sql_ran(conn, Progress::Batch { messages: vec![0; 8], read_seq: None }, world.now);
    world.collect();
    world.replace_pages(0);
    world.wait_until_old();
    assert_eq!(world.interrupted, [], "nothing runs");
    world.roll_back_reader(A, reading, false);
    let mut output = Vec::new();
    while let part = world.core.output(A).to_vec()
        && !part.is_empty()
    {
        world.core.handle_written(A, part.len(), world.now);
        world.collect();
        output.extend(part);
    }
    let text = STOPPED.strip_prefix("failure 9 ").unwrap().as_bytes();
    assert!(output.windows(text.len()).any(|part| part == text), "behind the rows that it may take yet");
}

#[test]
fn an_idle_transaction_on_an_old_version_is_rolled_back_and_its_client_is_told() {
    let mut world = World::with_limits(20 * u64::from(PAGE));
    world.exec(A, "BEGIN");
    world.end_job(Outcome { reply: Some(result(0)), ..Outcome::default() });
    let reading = world.pin(A);
    world.answers(A);
    world.replace_pages(0);
    world.wait_until_old();
    world.roll_back_reader(A, reading, true);
    assert_eq!(world.answers(A), [] as [&str; 0]);
    // What was meant for the transaction is refused until its client ends it.
    for sql in ["SELECT 1", "INSERT INTO t VALUES(1)"] {
        world.exec(A, sql);
        assert_eq!(world.answers(A), [ROLLED_BACK]);
    }
    world.exec(A, "ROLLBACK");
    world.end_job(Outcome { reply: Some(result(0)), ..Outcome::default() });
    assert_eq!(world.answers(A), ["result 0"]);
}

#[test]
fn a_reader_of_an_old_version_is_left_alone_while_that_costs_little() {
    let mut world = World::with_limits(u64::from(PAGES) * u64::from(PAGE));
    world.select(A);
    let reading = world.pin(A);
    // As often as one likes: what it keeps is one image of each page.
    world.replace_pages(100);
    world.wait_until_old();
    assert_eq!(world.interrupted, []);
    assert_eq!(world.core.readers_stopped(), 0);
    let _version = reading.end();
}

#[test]
fn readers_that_began_first_are_stopped_and_those_after_them_are_not() {
    let mut world = World::with_limits(u64::from(PAGES) * 3 / 2 * u64::from(PAGE));
    world.open(B);
    world.open(C);
    let mut readings = Vec::new();
    for conn in [C, B] {
        world.select(conn);
        readings.push(world.pin(conn));
        world.replace_pages(0);
    }
    world.wait_until_old();
    assert_eq!(world.interrupted, [C], "without it the rest is within the limit");
}

#[test]
fn nobody_wakes_the_node_for_readers_when_there_are_none() {
    let mut world = World::with_limits(20 * u64::from(PAGE));
    world.select(A);
    world.end_job(Outcome { reply: Some(result(0)), ..Outcome::default() });
    world.answers(A);
    world.pass(Duration::from_secs(5));
    let next = world.core.poll_timeout();
    world.core.handle_time(world.now);
    assert_eq!(next, world.core.poll_timeout());
    assert!(next.is_none_or(|next| next.since(world.now) != Duration::from_secs(5)));
}

#[test]
fn readers_have_a_minute_and_64_mib_where_nobody_said_otherwise() {
    let usual = ReaderLimits { age: Duration::from_secs(60), bytes: 64 << 20 };
    assert_eq!(ReaderLimits::default(), usual);
}
