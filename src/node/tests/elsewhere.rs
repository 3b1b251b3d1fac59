//! A node that does not lead: whom it serves, what, and for how long.

use std::sync::Arc;

use super::*;
use crate::codec::client::request::OPEN_ANYWHERE;
use crate::codec::command::encode_frames;
use crate::codec::peer::{AppendEntries, InstallSnapshot};

const NOT_LEADER: &str = "failure 10250 not leader";

fn configuration(own: Role) -> Configuration {
    let server = |id: u64, role| Server { id: NodeId(id), address: format!("127.0.0.1:{}", 9000 + id), role };
    Configuration { servers: vec![server(1, own), server(2, Role::Voter), server(3, Role::Voter)] }
}

/// An entry that writes `byte` into page 1 of the database "test".
fn frames(index: u64, term: u64, byte: u8) -> Entry {
    let base = Database::new(b"test", PAGE, 3_040_001).pin(View::Committed);
    let mut page = base.page(PageNo(1)).unwrap().as_slice().to_vec();
    page[200] = byte;
    let payload = encode_frames(b"test", PAGE, vec![(PageNo(1), Arc::from(page))]);
    Entry { index: Index(index), term: Term(term), kind: EntryKind::Command, payload }
}

impl World {
    /// A member of a cluster that 2 leads, with the database "test"; 0.6 s on, by which time the leader was heard twice.
    fn following(own: Role) -> Self {
        let mut world = Self::cut_off(own);
        world.leader_says(2, (1, 1), vec![frames(2, 2, 1)], 2);
        world.pass(Duration::from_millis(600));
        world.leader_says(2, (2, 2), vec![], 2);
        world
    }

    /// A member of a cluster that has heard nothing yet.
    fn cut_off(own: Role) -> Self {
        let configuration = configuration(own);
        let payload = Payload::from_bytes(&configuration.encode());
        let entry = Entry { index: Index(1), term: Term(1), kind: EntryKind::Change, payload };
        let consensus = consensus::Restored {
            term: Term(1),
            first_index: Index(1),
            entries: vec![entry],
            configuration,
            configuration_index: Index(1),
            configuration_committed: true,
            ..consensus::Restored::default()
        };
        let restored = Restored { consensus, snapshot: (Index(0), Term(0)), databases: Vec::new() };
        let config = config(SnapshotPolicy::Default, Duration::from_secs(10));
        Self::of(Core::new(config, restored, Time(0)).unwrap())
    }

    fn leader_says(&mut self, term: u64, (prev, prev_term): (u64, u64), entries: Vec<Entry>, commit: u64) {
        let append = AppendEntries {
            term: Term(term),
            prev_index: Index(prev),
            prev_term: Term(prev_term),
            commit: Index(commit),
            entries,
        };
        self.core.consensus.handle_peer(
            NodeId(2),
            "127.0.0.1:9002",
            Message::AppendEntries(append),
            self.now,
        );
        self.core.settle(self.now);
        self.collect();
        self.sync();
    }

    fn open_with(&mut self, conn: ConnId, name: &[u8], flags: u64) -> Vec<String> {
        if !self.core.clients.contains_key(&conn) {
            self.connect(conn);
        }
        self.send(conn, &Request::Open { filename: name, flags, vfs: b"" });
        self.answers(conn)
    }

    fn open_anywhere(&mut self, conn: ConnId) {
        assert_eq!(self.open_with(conn, b"test", OPEN_ANYWHERE), ["db 0"]);
    }

    /// The byte that the client's database has now.
    fn byte(&self, conn: ConnId) -> u8 {
        self.databases[&conn].pin(View::Committed).page(PageNo(1)).unwrap().as_slice()[200]
    }

    /// Runs the oldest job as a read.
    fn run_read(&mut self) {
        let conn = self.jobs.front().expect("a job waits").0;
        let seq = self.databases[&conn].committed_seq();
        self.end_job(Outcome { reply: Some(result(0)), read_seq: Some(seq), ..Outcome::default() });
    }

    /// The answer to a read.
    fn read(&mut self, conn: ConnId) -> String {
        self.exec(conn, "SELECT 1");
        if !self.jobs.is_empty() {
            self.run_read();
        }
        self.answers(conn).pop().unwrap()
    }
}

#[test]
fn only_who_asked_for_it_is_served_by_a_node_that_does_not_lead() {
    let mut world = World::following(Role::Voter);
    // All flags but the one, too: releases of long ago sent SQLite's, 6.
    for flags in [0, 6, !OPEN_ANYWHERE] {
        assert_eq!(world.open_with(A, b"test", flags), [NOT_LEADER]);
        world.exec(A, "SELECT 1");
        assert_eq!(world.answers(A), [NOT_LEADER]);
    }
    for flags in [OPEN_ANYWHERE, 7] {
        let conn = ConnId(10 + flags);
        assert_eq!(world.open_with(conn, b"test", flags), ["db 0"]);
        assert_eq!((world.read(conn).as_str(), world.byte(conn)), ("result 0", 1));
        assert_eq!(
            world.open_with(conn, b"test", flags),
            ["failure 5 a database for this connection is already open"]
        );
        assert_eq!(world.open_with(conn, b"test", 0), [NOT_LEADER]);
    }
    let members = |world: &mut World, conn| {
        world.send(conn, &Request::Remove { id: NodeId(3) });
        world.answers(conn)
    };
    assert_eq!(members(&mut world, ConnId(17)), [NOT_LEADER]);
    assert_eq!(world.jobs.len(), 0);
}

#[test]
fn a_database_that_no_leader_has_made_is_not_made_by_reading() {
    let mut world = World::following(Role::Voter);
    let answer = world.open_with(A, b"other", OPEN_ANYWHERE);
    assert_eq!(answer, ["failure 10250 not leader, and this node has no database of this name"]);
    assert!(world.core.databases.find(b"other").is_none());
    assert!(world.open_with(A, b"", OPEN_ANYWHERE)[0].starts_with("failure 14 "));
}

#[test]
fn what_looks_like_a_write_is_refused_at_once_and_waits_for_nobody() {
    let mut world = World::following(Role::Voter);
    world.open_anywhere(A);
    for sql in ["INSERT INTO t VALUES(1)", "BEGIN IMMEDIATE", "create temp table x(a)"] {
        world.exec(A, sql);
        assert_eq!(world.answers(A), [NOT_LEADER], "{sql}");
    }
    assert_eq!(world.jobs.len(), 0);
    assert_eq!(world.read(A), "result 0");
}

#[test]
fn a_node_that_hears_nothing_from_a_leader_answers_for_two_election_timeouts() {
    let mut world = World::following(Role::StandBy);
    world.open_anywhere(A);
    world.open_anywhere(B);
    world.pass(Duration::from_millis(5999));
    assert_eq!(world.read(A), "result 0");
    // Asked in time, and too late when it is answered.
    world.exec(A, "SELECT 1");
    world.exec(B, "SELECT 1");
    world.pass(Duration::from_millis(2));
    let refused = "failure 10250 not leader, and data here may be 6001 ms old: at most 6000 ms are allowed";
    world.run_read();
    assert_eq!(world.answers(A), [refused]);
    let (conn, _) = world.jobs.pop_front().unwrap();
    world.core.handle_sql_ran(
        conn,
        Progress::Batch { messages: b"rows".to_vec(), read_seq: None },
        world.now,
    );
    world.collect();
    assert!(matches!(world.jobs.pop_front(), Some((B, Some(SqlRequest::Rollback)))));
    world.core.handle_sql_ran(B, Progress::Done(Outcome::default()), world.now);
    assert_eq!(world.answers(B), [refused]);
    assert_eq!(world.read(A), refused);
    assert_eq!(world.open_with(C, b"test", OPEN_ANYWHERE), [refused]);
    assert_eq!(world.jobs.len(), 0);
    // What comes first after a silence may be old; the connections are still there.
    world.leader_says(2, (2, 2), vec![], 2);
    assert_eq!(world.read(A), refused);
    world.pass(Duration::from_millis(500));
    world.leader_says(2, (2, 2), vec![], 2);
    assert_eq!([world.read(A), world.read(B)], ["result 0", "result 0"]);
}

#[test]
fn a_node_that_lags_does_not_count_as_fresh_however_often_it_hears_of_its_leader() {
    let mut world = World::following(Role::Voter);
    world.open_anywhere(A);
    for _ in 0..12 {
        world.pass(Duration::from_millis(500));
        world.leader_says(2, (2, 2), vec![], 9);
    }
    assert_eq!(world.read(A), "result 0");
    world.pass(Duration::from_millis(500));
    world.leader_says(2, (2, 2), vec![], 9);
    assert!(world.read(A).starts_with("failure 10250 not leader, and data here may be 6500 ms old"));
    let missing = (3..=9).map(|index| frames(index, 2, u8::try_from(index).unwrap())).collect();
    world.leader_says(2, (2, 2), missing, 9);
    assert_eq!((world.read(A).as_str(), world.byte(A)), ("result 0", 9));
}

#[test]
fn readers_stay_when_another_node_leads_and_are_served_like_all_others_when_this_one_does() {
    let mut world = World::following(Role::Voter);
    world.open_anywhere(A);
    world.exec(A, "SELECT 1");
    world.leader_says(3, (2, 2), vec![frames(3, 3, 3)], 3);
    world.run_read();
    assert_eq!(world.answers(A), ["result 0"]);
    assert_eq!((world.read(A).as_str(), world.byte(A)), ("result 0", 3));
    // Alone with its vote it leads at once; the read that was under way has seen what was committed before.
    world.exec(A, "SELECT 1");
    let servers = vec![Server { id: NodeId(1), address: "127.0.0.1:9001".to_owned(), role: Role::Voter }];
    let payload = Payload::from_bytes(&Configuration { servers }.encode());
    let change = Entry { index: Index(4), term: Term(3), kind: EntryKind::Change, payload };
    world.leader_says(3, (3, 3), vec![change], 4);
    for _ in 0..20 {
        world.pass(Duration::from_millis(500));
        world.sync();
    }
    assert!(world.core.is_leading());
    world.run_read();
    assert_eq!(world.answers(A), ["result 0"]);
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    world.sync();
    assert_eq!(world.answers(A), ["result 1"]);
}

#[test]
fn a_leader_that_is_replaced_closes_what_was_opened_on_it_and_opens_it_anew_for_readers() {
    let mut world = World::new();
    world.open_anywhere(A);
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    world.sync();
    assert_eq!(world.answers(A), ["result 1"]);
    // There is another one now that may lead.
    let mut configuration = configuration(Role::Voter);
    configuration.servers.pop();
    world.core.consensus.propose_change(&configuration).unwrap();
    world.core.settle(world.now);
    world.collect();
    world.sync();
    world.open_anywhere(B);
    world.exec(B, "SELECT 1");
    let (last, term) = (world.core.consensus.last_index(), world.core.consensus.term());
    world.leader_says(9, (last.0, term.0), vec![], last.0);
    assert!(!world.core.is_leading());
    world.run_read();
    assert_eq!(world.answers(B), ["failure 10506 leadership lost"]);
    for conn in [A, B] {
        assert_eq!(world.read(conn), NOT_LEADER);
        let refused = &world.open_with(conn, b"test", OPEN_ANYWHERE)[0];
        assert!(
            refused.starts_with("failure 10250 not leader, and this node has not caught up"),
            "{refused}"
        );
    }
    // Until something of the new leader's own is applied.
    for (ms, entries) in [(0, vec![frames(last.0 + 1, 9, 9)]), (500, vec![])] {
        world.pass(Duration::from_millis(ms));
        let prev = if entries.is_empty() { (last.0 + 1, 9) } else { (last.0, term.0) };
        world.leader_says(9, prev, entries, last.0 + 1);
    }
    for conn in [A, B] {
        world.open_anywhere(conn);
        assert_eq!((world.read(conn).as_str(), world.byte(conn)), ("result 0", 9));
    }
}

#[test]
fn spares_and_nodes_that_have_heard_nothing_serve_nobody() {
    let mut world = World::following(Role::Spare);
    let refused = "failure 10250 not leader, and this node is a spare, or no member: it is sent no data";
    assert_eq!(world.open_with(A, b"test", OPEN_ANYWHERE), [refused]);
    let mut world = World::cut_off(Role::Voter);
    let refused = "failure 10250 not leader, and this node has not caught up with a leader since it started";
    assert_eq!(world.open_with(A, b"test", OPEN_ANYWHERE), [refused]);
}

#[test]
fn nothing_is_read_while_a_snapshot_is_installed_and_everything_is_opened_anew_then() {
    let mut world = World::following(Role::Voter);
    world.open_anywhere(A);
    world.open_anywhere(B);
    world.exec(B, "SELECT 1");
    world.jobs.clear();
    let configuration = configuration(Role::Voter);
    let head = InstallSnapshot {
        term: Term(2),
        last_index: Index(50),
        last_term: Term(2),
        configuration_index: Index(1),
        configuration_bytes: configuration.encode(),
        configuration,
        data_bytes: 100,
    };
    world.core.handle_snapshot_head(C, (NodeId(2), "127.0.0.1:9002"), head, world.now);
    let taken = world.core.poll_effect();
    assert!(matches!(taken, Some(Effect::TakeSnapshot(_))), "{taken:?}");
    let refused = "failure 10250 not leader, and a snapshot is being installed here";
    assert_eq!(world.read(A), refused);
    world.core.handle_snapshot_end(C);
    assert!(world.core.handle_intake_stored(world.now).is_some());
    world.core.handle_restored(vec![Database::new(b"test", 1024, 3_040_001)], world.now);
    world.collect();
    assert_eq!(world.read(A), NOT_LEADER);
    world.core.handle_sql_ran(
        B,
        Progress::Done(Outcome { reply: Some(result(0)), ..Outcome::default() }),
        world.now,
    );
    world.collect();
    assert_eq!(world.answers(B), [NOT_LEADER]);
    world.leader_says(2, (50, 2), vec![], 50);
    world.open_anywhere(A);
    assert_eq!(world.databases[&A].page_size(), 1024);
    assert_eq!(world.read(A), "result 0");
}
