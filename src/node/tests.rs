//! The core with real page stores and consensus; the test plays the disk and the SQL threads.

mod bursts;
mod elsewhere;
mod interrupts;
mod peers;
mod proofs;
mod roles;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, CoreConfig, Restored};
use super::effect::{Effect, HandoverStep, Waste};
use super::snapshots::SnapshotPolicy;
use crate::base::{Entry, EntryKind, Index, NodeId, PageNo, Payload, Role, Term, Time};
use crate::codec::client::{
    Context, Format, FrameReader, OwnedParams, PROTOCOL_VERSION, Param, Request, Response, Schema,
};
use crate::codec::membership::{Configuration, Server};
use crate::codec::peer::Message;
use crate::consensus;
use crate::engine::jobs::{Outcome, Progress, SqlRequest};
use crate::engine::{ConnId, Patience};
use crate::pages::{Changes, Database, Page, Refusal, Veto, View, WriterId};
use crate::session::{Reply, Sql};

mod contradictions;
mod large;
mod readers;
mod stuck;

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);
const C: ConnId = ConnId(3);
const PAGE: u32 = 4096;

/// A node, its disk and its SQL threads.
struct World {
    core: Core,
    now: Time,
    /// Persist effects that are not done yet.
    disk: VecDeque<u64>,
    /// SQL jobs that are not done yet.
    jobs: VecDeque<(ConnId, Option<SqlRequest>)>,
    databases: BTreeMap<ConnId, Arc<Database>>,
    interrupted: Vec<ConnId>,
    snapshots: Vec<(Index, u64)>,
    closed: Vec<ConnId>,
    peers: Vec<NodeId>,
    /// Messages to other servers.
    sent: Vec<Message>,
    stored: Vec<Entry>,
    /// Servers to be described: which round, and who.
    to_describe: Vec<(u64, Vec<NodeId>)>,
    handover: Vec<HandoverStep>,
    /// What is to be dropped elsewhere.
    waste: Vec<Waste>,
}

fn config(snapshots: SnapshotPolicy, wait: Duration) -> CoreConfig {
    CoreConfig {
        id: NodeId(1),
        address: "127.0.0.1:9001".to_owned(),
        heartbeat: Duration::from_millis(500),
        election_timeout: Duration::from_millis(3000),
        failure_domain: 7,
        snapshots,
        patience: Patience { wait, idle: Some(Duration::from_secs(60)) },
        page_size: PAGE,
        sqlite_version: 3_040_001,
        seed: 1,
    }
}

fn fresh() -> Restored {
    let server = Server { id: NodeId(1), address: "127.0.0.1:9001".to_owned(), role: Role::Voter };
    let configuration = Configuration { servers: vec![server] };
    let entry = Entry {
        index: Index(1),
        term: Term(1),
        kind: EntryKind::Change,
        payload: Payload::from_bytes(&configuration.encode()),
    };
    Restored {
        consensus: consensus::Restored {
            term: Term(1),
            first_index: Index(1),
            entries: vec![entry],
            configuration,
            configuration_index: Index(1),
            configuration_committed: true,
            bootstrapped_now: true,
            ..consensus::Restored::default()
        },
        snapshot: (Index(0), Term(0)),
        databases: Vec::new(),
    }
}

impl World {
    fn new() -> Self {
        Self::with(SnapshotPolicy::Default, Duration::from_secs(10))
    }

    fn with(snapshots: SnapshotPolicy, wait: Duration) -> Self {
        let mut world = Self::asleep(snapshots, wait);
        world.sync();
        world
    }

    /// A node whose first writes to disk have not been done.
    fn asleep(snapshots: SnapshotPolicy, wait: Duration) -> Self {
        Self::of(Core::new(config(snapshots, wait), fresh(), Time(0)).unwrap())
    }

    fn of(core: Core) -> Self {
        let mut world = Self {
            core,
            now: Time(0),
            disk: VecDeque::new(),
            jobs: VecDeque::new(),
            databases: BTreeMap::new(),
            interrupted: Vec::new(),
            snapshots: Vec::new(),
            closed: Vec::new(),
            peers: Vec::new(),
            sent: Vec::new(),
            stored: Vec::new(),
            to_describe: Vec::new(),
            handover: Vec::new(),
            waste: Vec::new(),
        };
        world.collect();
        world
    }

    fn collect(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Persist { ticket, entries, .. } => {
                    self.disk.push_back(ticket);
                    self.stored.extend(entries);
                }
                Effect::OpenSql { conn, database } => {
                    self.databases.insert(conn, database);
                    self.core.handle_sql_opened(conn, Ok(()), self.now);
                }
                Effect::RunSql { conn, request } => self.jobs.push_back((conn, Some(request))),
                Effect::ResumeSql { conn } => self.jobs.push_back((conn, None)),
                Effect::InterruptSql { conn } => self.interrupted.push(conn),
                Effect::CloseSql { conn } => {
                    if let Some(database) = self.databases.remove(&conn) {
                        database.release(WriterId(conn.0));
                    }
                    self.core.handle_sql_closed(conn, self.now);
                }
                Effect::Snapshot { job, trailing } => self.snapshots.push((job.index, trailing)),
                Effect::Describe { round, servers } => {
                    self.to_describe.push((round, servers.iter().map(|server| server.id).collect()));
                }
                Effect::Handover(step) => self.handover.push(step),
                Effect::Drop(waste) => self.waste.push(waste),
                Effect::Close { conn } => {
                    self.closed.push(conn);
                    self.core.handle_gone(conn, self.now);
                }
                Effect::PeerConnected { id } => self.peers.push(id),
                Effect::ReadEntries { .. }
                | Effect::TakeSnapshot(_)
                | Effect::SnapshotBytes { .. }
                | Effect::DropSnapshot
                | Effect::SendSnapshot { .. } => panic!("nobody sends or needs a snapshot here"),
                Effect::SendPeer { message, .. } => self.sent.push(message),
                Effect::Flush { .. } => {}
            }
        }
    }

    /// The disk does everything it was asked.
    fn sync(&mut self) {
        while let Some(ticket) = self.disk.pop_front() {
            self.core.handle_persisted(ticket, self.now);
            self.collect();
        }
    }

    fn connect(&mut self, conn: ConnId) {
        self.core.handle_connected(conn);
        self.core.handle_bytes(conn, &PROTOCOL_VERSION.to_le_bytes(), self.now);
    }

    fn send(&mut self, conn: ConnId, request: &Request<'_>) {
        self.core.handle_bytes(conn, &request.encode().unwrap(), self.now);
        self.collect();
    }

    fn open(&mut self, conn: ConnId) {
        self.connect(conn);
        self.send(conn, &Request::Open { filename: b"test", flags: 0, vfs: b"" });
        assert_eq!(self.answers(conn), ["db 0"]);
    }

    fn exec(&mut self, conn: ConnId, sql: &str) {
        let params = OwnedParams::new(&[] as &[Param<'_>]);
        self.send(
            conn,
            &Request::ExecSql { schema: Schema::V0, db: 0, sql: sql.as_bytes(), params: params.view() },
        );
    }

    /// What the client got, in words.
    fn answers(&mut self, conn: ConnId) -> Vec<String> {
        let mut reader = FrameReader::new(1 << 30);
        loop {
            let output = self.core.output(conn).to_vec();
            if output.is_empty() {
                break;
            }
            reader.feed(&output);
            self.core.handle_written(conn, output.len(), self.now);
            self.collect();
        }
        let context = Context { legacy: false, format: Format::Roles };
        let mut answers = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            answers.push(match Response::decode(frame, context).unwrap() {
                Response::Failure { code, text } => {
                    format!("failure {code} {}", String::from_utf8_lossy(text))
                }
                Response::Db { id } => format!("db {id}"),
                Response::Result { rows_affected, .. } => format!("result {rows_affected}"),
                Response::Empty => "empty".to_owned(),
                Response::Server { id, .. } => format!("server {id}"),
                Response::Files(files) => {
                    files.iter().map(|file| format!("{} bytes ", file.bytes.len())).collect()
                }
                other => format!("{other:?}"),
            });
        }
        answers
    }

    /// Plays a SQL thread: runs the oldest job as an UPDATE of one page.
    fn run_write(&mut self, keep_slot: bool) -> ConnId {
        let (conn, _) = self.jobs.pop_front().expect("a job waits");
        let database = Arc::clone(&self.databases[&conn]);
        let who = WriterId(conn.0);
        let pinned = database.pin(View::Head);
        let progress = match database.reserve(who, &pinned) {
            Ok(()) if keep_slot => {
                Progress::Done(Outcome { reply: Some(result(0)), holds_slot: true, ..Outcome::default() })
            }
            Ok(()) => {
                database.check_commit(who, u64::from(PAGE)).unwrap();
                let mut changes = Changes { n_pages: pinned.n_pages(), ..Changes::default() };
                let mut page = pinned.page(PageNo(1)).unwrap().as_slice().to_vec();
                page[200] = page[200].wrapping_add(1);
                changes.pages.insert(PageNo(1), Page::from_slice(&page));
                let version = database.publish(who, pinned, changes);
                database.release(who);
                let published = Some(version.seq());
                Progress::Done(Outcome { reply: Some(result(1)), published, ..Outcome::default() })
            }
            Err(Refusal::Busy) => Progress::NeedsSlot,
            Err(other) => panic!("{other:?}"),
        };
        self.core.handle_sql_ran(conn, progress, self.now);
        self.collect();
        conn
    }

    /// Ends the oldest job with an outcome of its own.
    fn end_job(&mut self, outcome: Outcome) -> ConnId {
        let (conn, _) = self.jobs.pop_front().expect("a job waits");
        self.core.handle_sql_ran(conn, Progress::Done(outcome), self.now);
        self.collect();
        conn
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.core.handle_time(self.now);
        self.collect();
    }

    /// Drops what is to be dropped elsewhere; how many pages that may take.
    fn dropped(&mut self) -> usize {
        self.waste.drain(..).flat_map(|waste| waste.garbage).map(|garbage| garbage.pages()).sum()
    }

    fn commands(&self) -> usize {
        self.stored.iter().filter(|entry| entry.kind == EntryKind::Command).count()
    }
}

fn result(rows_affected: u64) -> Reply {
    Reply::Result { last_insert_id: 0, rows_affected }
}

#[test]
fn a_sole_voter_leads_once_its_first_write_is_durable_and_whoever_came_before_waits_for_that() {
    let mut world = World::asleep(SnapshotPolicy::Default, Duration::from_secs(10));
    world.connect(A);
    world.send(A, &Request::Leader);
    let early = world.answers(A);
    assert!(early == ["server 0"] || early == ["server 1"], "{early:?}");
    world.sync();
    world.open(A);
    world.send(A, &Request::Leader);
    assert_eq!(world.answers(A), ["server 1"]);
}

#[test]
fn a_write_is_answered_when_its_entry_is_durable_and_not_before() {
    let mut world = World::new();
    world.open(A);
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    assert_eq!(world.answers(A), [] as [&str; 0]);
    world.sync();
    assert_eq!(world.answers(A), ["result 1"]);
}

#[test]
fn writes_that_finish_while_the_disk_is_busy_share_one_entry() {
    let mut world = World::new();
    let conns: Vec<ConnId> = (1..=8).map(ConnId).collect();
    for &conn in &conns {
        world.open(conn);
        world.exec(conn, "UPDATE t SET a = 1");
    }
    for _ in &conns {
        world.run_write(false);
    }
    world.sync();
    for &conn in &conns {
        assert_eq!(world.answers(conn), ["result 1"], "{conn:?}");
    }
    // Three may be in flight; the rest went together.
    assert_eq!(world.commands(), 4);
}

#[test]
fn autocommit_writers_wait_for_each_other_and_none_is_turned_away() {
    let mut world = World::with(SnapshotPolicy::Default, Duration::ZERO);
    for conn in [A, B, C] {
        world.open(conn);
        world.exec(conn, "INSERT INTO t VALUES(1)");
    }
    assert_eq!(world.jobs.len(), 1, "one runs, the others wait");
    assert_eq!([world.run_write(false), world.run_write(false), world.run_write(false)], [A, B, C]);
    world.sync();
    for conn in [A, B, C] {
        assert_eq!(world.answers(conn), ["result 1"]);
    }
}

#[test]
fn a_writer_behind_a_transaction_is_told_busy_at_its_deadline() {
    let mut world = World::with(SnapshotPolicy::Default, Duration::from_millis(300));
    world.open(A);
    world.open(B);
    world.exec(A, "BEGIN IMMEDIATE");
    world.run_write(true);
    assert_eq!(world.answers(A), ["result 0"]);
    world.exec(B, "UPDATE t SET a = 1");
    assert_eq!(world.jobs.len(), 0);
    world.pass(Duration::from_millis(299));
    assert_eq!(world.answers(B), [] as [&str; 0]);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.answers(B), ["failure 5 database is locked"]);
    world.exec(A, "COMMIT");
    world.run_write(false);
    world.exec(B, "UPDATE t SET a = 1");
    world.run_write(false);
    world.sync();
    assert_eq!(world.answers(B), ["result 1"]);
}

#[test]
fn a_statement_that_was_not_known_to_write_is_run_again_when_its_turn_comes() {
    let mut world = World::new();
    world.open(A);
    world.open(B);
    world.exec(A, "PRAGMA user_version = 1");
    world.exec(B, "PRAGMA user_version = 2");
    // A has taken the slot by itself when B tries.
    let database = Arc::clone(&world.databases[&A]);
    database.reserve(WriterId(A.0), &database.pin(View::Head)).unwrap();
    let first = world.jobs.pop_front().unwrap();
    assert_eq!(world.run_write(false), B);
    assert_eq!(world.jobs.len(), 0, "B waits, and does not spin");
    database.release(WriterId(A.0));
    world.jobs.push_front(first);
    assert_eq!(world.run_write(false), A);
    assert_eq!(world.run_write(false), B);
    world.sync();
    assert_eq!((world.answers(A), world.answers(B)), (vec!["result 1".into()], vec!["result 1".into()]));
}

#[test]
fn a_client_that_goes_frees_the_slot_and_the_next_one_writes() {
    let mut world = World::new();
    world.open(A);
    world.open(B);
    world.exec(A, "BEGIN IMMEDIATE");
    world.run_write(true);
    world.answers(A);
    world.exec(B, "UPDATE t SET a = 1");
    world.core.handle_gone(A, world.now);
    world.collect();
    assert_eq!(world.run_write(false), B);
    world.sync();
    assert_eq!(world.answers(B), ["result 1"]);
}

#[test]
fn a_client_that_goes_while_its_statement_runs_has_it_interrupted_and_its_connection_closed() {
    let mut world = World::new();
    world.open(A);
    world.exec(A, "SELECT 1");
    world.core.handle_gone(A, world.now);
    world.collect();
    assert_eq!(world.interrupted, [A]);
    world.end_job(Outcome { reply: Some(result(0)), ..Outcome::default() });
    assert!(world.databases.is_empty());
    assert!(!world.core.wants_bytes(A));
}

#[test]
fn a_transaction_that_idles_while_others_wait_is_rolled_back_and_its_next_statement_says_so() {
    let mut world = World::with(SnapshotPolicy::Default, Duration::from_secs(120));
    world.open(A);
    world.open(B);
    world.exec(A, "BEGIN IMMEDIATE");
    world.run_write(true);
    world.answers(A);
    world.exec(B, "UPDATE t SET a = 1");
    world.pass(Duration::from_secs(61));
    let (conn, request) = world.jobs.pop_front().unwrap();
    assert!(conn == A && matches!(request, Some(SqlRequest::Rollback)));
    world.databases[&A].release(WriterId(A.0));
    world.core.handle_sql_ran(A, Progress::Done(Outcome::default()), world.now);
    world.collect();
    assert_eq!(world.run_write(false), B);
    world.exec(A, "INSERT INTO t VALUES(1)");
    let answers = world.answers(A);
    assert!(answers[0].starts_with("failure 5 database is locked: this connection's transaction idled"));
}

#[test]
fn a_full_disk_fails_the_writers_keeps_the_readers_and_heals() {
    let mut world = World::new();
    world.open(A);
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    let ticket = world.disk.pop_front().unwrap();
    world.core.handle_persist_failed(ticket, true, "no space left", world.now);
    world.collect();
    assert_eq!(world.answers(A), ["failure 13 database or disk is full"]);
    world.end_job(Outcome::default());
    let database = Arc::clone(&world.databases[&A]);
    assert_eq!(database.head_seq(), database.committed_seq(), "the lost version is gone");
    world.exec(A, "SELECT 1");
    world.end_job(Outcome { reply: Some(result(0)), ..Outcome::default() });
    assert_eq!(world.answers(A), ["result 0"], "reads go on");
    assert_eq!(database.reserve(WriterId(9), &database.pin(View::Head)), Err(Refusal::Veto(Veto::Full)));
    world.sync();
    for _ in 0..20 {
        world.pass(Duration::from_secs(1));
        world.sync();
    }
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    world.sync();
    assert_eq!(world.answers(A), ["result 1"]);
}

#[test]
fn a_failed_sync_ends_the_nodes_part_and_nothing_is_acknowledged_after_it() {
    let mut world = World::new();
    world.open(A);
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    let ticket = world.disk.pop_front().unwrap();
    world.core.handle_persist_failed(ticket, false, "input/output error", world.now);
    world.collect();
    assert_eq!(world.answers(A), ["failure 10506 leadership lost"]);
    world.exec(A, "UPDATE t SET a = 1");
    assert_eq!(world.answers(A), ["failure 10250 not leader"]);
    world.connect(B);
    world.send(B, &Request::Open { filename: b"test", flags: 0, vfs: b"" });
    assert_eq!(world.answers(B), ["failure 10250 not leader"]);
}

#[test]
fn a_dump_is_the_committed_image_with_an_empty_wal() {
    let mut world = World::new();
    world.open(A);
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    world.connect(B);
    world.send(B, &Request::Dump { filename: b"test" });
    assert_eq!(world.answers(B), ["4096 bytes 0 bytes "]);
    world.send(B, &Request::Dump { filename: b"nothing" });
    assert_eq!(world.answers(B), ["failure 1002 database does not exists"]);
}

#[test]
fn adding_a_spare_is_answered_when_it_is_durable() {
    let mut world = World::new();
    world.connect(A);
    world.send(A, &Request::Add { id: NodeId(2), address: b"127.0.0.1:9002" });
    assert_eq!(world.answers(A), [] as [&str; 0]);
    world.sync();
    assert_eq!(world.answers(A), ["empty"]);
    world.send(A, &Request::Add { id: NodeId(2), address: b"127.0.0.1:9003" });
    assert_eq!(world.answers(A), ["failure 1 server ID already in use"]);
}

#[test]
fn names_that_would_kill_c_nodes_are_refused() {
    let mut world = World::new();
    world.connect(A);
    world.send(A, &Request::Open { filename: b"x-wal", flags: 0, vfs: b"" });
    assert_eq!(world.answers(A), ["failure 14 unable to open database file: name x-wal is not allowed"]);
}

#[test]
fn snapshots_follow_the_numbers_that_the_program_gave() {
    let policy = SnapshotPolicy::Given { threshold: 8, trailing: 16, dynamic: false };
    let mut world = World::with(policy, Duration::from_secs(10));
    world.open(A);
    for _ in 0..20 {
        world.exec(A, "UPDATE t SET a = 1");
        world.run_write(false);
        world.sync();
        world.answers(A);
        if !world.snapshots.is_empty() {
            break;
        }
    }
    let &[(index, trailing)] = world.snapshots.as_slice() else { panic!("one snapshot expected") };
    assert_eq!((index, trailing), (Index(8), 16));
    world.core.handle_snapshot(Ok(()), world.now);
}

#[test]
fn a_snapshot_that_cannot_be_read_is_made_again_and_not_again_and_again() {
    let mut world = World::new();
    let unread = |world: &mut World| {
        world.core.handle_snapshot_unsent(NodeId(2), true, "damaged", world.now);
        world.collect();
        std::mem::take(&mut world.snapshots).len()
    };
    world.core.handle_snapshot_unsent(NodeId(2), false, "gone", world.now);
    world.collect();
    assert!(world.snapshots.is_empty(), "the peer's fault");
    assert_eq!(unread(&mut world), 1);
    assert_eq!(unread(&mut world), 0, "it is being made");
    world.core.handle_snapshot(Err("planned".to_owned()), world.now);
    assert_eq!(unread(&mut world), 0, "it has just failed");
    world.now = world.now.after(consensus::snapshot_pause(1));
    assert_eq!(unread(&mut world), 1);
    world.core.handle_snapshot(Ok(()), world.now);
    assert_eq!(unread(&mut world), 1, "of the same entry");
}

#[test]
fn a_prepared_writer_queues_like_a_text() {
    let mut world = World::new();
    world.open(A);
    world.open(B);
    world.send(A, &Request::Prepare { schema: Schema::V0, db: 0, sql: b"INSERT INTO t VALUES(1)" });
    let (conn, request) = world.jobs.pop_front().unwrap();
    assert!(matches!(request, Some(SqlRequest::Client(Sql::Prepare { stmt: 0, .. }))));
    let outcome = Outcome {
        reply: Some(Reply::Prepared { params: 0, tail: 0 }),
        prepared_writes: Some(true),
        ..Outcome::default()
    };
    world.core.handle_sql_ran(conn, Progress::Done(outcome), world.now);
    world.collect();
    world.answers(A);
    world.exec(B, "BEGIN IMMEDIATE");
    world.run_write(true);
    let params = OwnedParams::new(&[] as &[Param<'_>]);
    world.send(A, &Request::Exec { schema: Schema::V0, db: 0, stmt: 0, params: params.view() });
    assert_eq!(world.jobs.len(), 0, "it waits for the transaction without running first");
}
