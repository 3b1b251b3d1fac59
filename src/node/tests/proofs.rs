//! Linearizable answers: what a leader with a second voter holds back until that voter has answered a label.

use super::*;
use crate::codec::peer::AppendResult;

impl World {
    /// A second voter, which has stored everything.
    fn with_two_voters() -> Self {
        let mut world = Self::new();
        let server = |id, port| Server { id, address: format!("127.0.0.1:{port}"), role: Role::Voter };
        let servers = vec![server(NodeId(1), 9001), server(NodeId(2), 9002)];
        world.core.consensus.propose_change(&Configuration { servers }).unwrap();
        world.core.settle(world.now);
        world.collect();
        world.sync();
        world.stores_all();
        assert!(!world.core.consensus.is_only_voter());
        world.sent.clear();
        world
    }

    fn peer_says(&mut self, term: u64, rejected: u64, last_index: Index) {
        let result = AppendResult { term: Term(term), rejected, last_index, features: Some(0) };
        let message = Message::AppendResult(result);
        self.core.consensus.handle_peer(NodeId(2), "127.0.0.1:9002", message, self.now);
        self.core.settle(self.now);
        self.collect();
    }

    fn stores_all(&mut self) {
        let last = self.core.consensus.last_index();
        self.peer_says(1, 0, last);
    }

    /// The labels that were sent since this was asked last.
    fn labels(&mut self) -> Vec<u64> {
        let label = |message| match message {
            Message::AppendEntries(it) if it.prev_index.0 >= 1 << 62 => Some(it.prev_index.0),
            _ => None,
        };
        std::mem::take(&mut self.sent).into_iter().filter_map(label).collect()
    }
}

fn read() -> Outcome {
    Outcome { reply: Some(result(0)), read_seq: Some(0), ..Outcome::default() }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_read_runs_at_once_and_is_answered_when_its_round_is_over() {
    let mut world = World::with_two_voters();
    world.open(A);
    world.open(B);
    world.exec(A, "SELECT 1");
    let [label] = world.labels()[..] else { panic!("one label to the one peer") };
    world.end_job(read());
    assert_eq!(world.answers(A), NOTHING);
    // B comes too late for this round.
    world.exec(B, "SELECT 1");
    assert_eq!(world.labels(), [] as [u64; 0]);
    world.peer_says(1, label, Index(0));
    assert_eq!(world.answers(A), ["result 0"]);
    let [next] = world.labels()[..] else { panic!("the next round") };
    world.end_job(read());
    world.peer_says(1, label, Index(0));
    assert_eq!(world.answers(B), NOTHING);
    world.peer_says(1, next, Index(0));
    assert_eq!(world.answers(B), ["result 0"]);
    // A round that is quicker than the statement.
    world.exec(A, "SELECT 1");
    let [label] = world.labels()[..] else { panic!() };
    world.peer_says(1, label, Index(0));
    world.end_job(read());
    assert_eq!(world.answers(A), ["result 0"]);
}

#[test]
fn a_write_proves_itself_and_one_that_changed_nothing_is_proved_like_a_read() {
    let mut world = World::with_two_voters();
    world.open(A);
    world.exec(A, "UPDATE t SET a = 1");
    world.run_write(false);
    world.sync();
    assert_eq!(world.labels(), [] as [u64; 0]);
    world.stores_all();
    assert_eq!(world.answers(A), ["result 1"]);
    world.exec(A, "UPDATE t SET a = 1 WHERE false");
    world.end_job(read());
    assert_eq!(world.answers(A), NOTHING);
    let [label] = world.labels()[..] else { panic!() };
    world.peer_says(1, label, Index(0));
    assert_eq!(world.answers(A), ["result 0"]);
}

#[test]
fn a_transaction_with_the_writer_slot_waits_for_no_proof_before_its_commit() {
    let mut world = World::with_two_voters();
    world.open(A);
    world.exec(A, "BEGIN IMMEDIATE");
    world.run_write(true);
    assert_eq!(world.answers(A), ["result 0"]);
    world.exec(A, "SELECT 1");
    world.end_job(Outcome { holds_slot: true, ..read() });
    assert_eq!(world.answers(A), ["result 0"]);
    assert_eq!(world.labels(), [] as [u64; 0]);
}

#[test]
fn a_leader_that_others_have_left_behind_never_answers_a_read() {
    let mut world = World::with_two_voters();
    world.open(A);
    world.exec(A, "SELECT 1");
    world.end_job(read());
    world.pass(Duration::from_millis(2500));
    assert_eq!(world.answers(A), NOTHING);
    // It hears of its successor.
    world.peer_says(9, 0, Index(0));
    assert_eq!(world.answers(A), ["failure 10250 not leader"]);
}
