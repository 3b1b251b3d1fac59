//! When followers hear what is committed.

use std::time::Duration;

use super::harness::*;
use crate::base::{EntryKind, Role};
use crate::codec::peer::Message;

/// A tick of a leader.
const TICK: Duration = Duration::from_millis(100);

/// Server 1 of three leads term 2, the others have all that it has, and know that it is committed.
fn quiet_leader() -> Node {
    let mut node = leader();
    node.receive(2, result(2, 0, 2));
    node.receive(3, result(2, 0, 2));
    // Up to a heartbeat, so that the next one is five ticks away.
    node.wait(5 * TICK);
    node.sent.clear();
    node
}

impl Node {
    /// What was sent to this server: where each append ends, and what it says is committed.
    fn told(&mut self, id: u64) -> Vec<(usize, u64)> {
        let append = |message| match message {
            Message::AppendEntries(it) => Some((it.entries.len(), it.commit.0)),
            _ => None,
        };
        self.sent_to(id).into_iter().filter_map(append).collect()
    }

    /// Proposes an entry, which is committed at once.
    fn commit(&mut self, number: u64, index: u64) {
        self.propose(number);
        self.persist_all();
        self.receive(2, result(2, 0, index));
        assert_eq!(self.consensus.applied_index().0, index);
    }
}

#[test]
fn a_commit_costs_no_message_of_its_own_and_the_next_entries_tell_of_it() {
    let mut node = quiet_leader();
    node.commit(3, 3);
    node.receive(3, result(2, 0, 3));
    assert_eq!(node.told(2), [(1, 2)], "the entry itself, and nothing that says it is committed");
    node.commit(4, 4);
    assert_eq!(node.told(3), [(1, 3)]);
}

#[test]
fn where_nothing_follows_a_commit_is_told_two_ticks_later_at_the_latest_and_once() {
    let mut node = quiet_leader();
    node.commit(3, 3);
    node.receive(3, result(2, 0, 3));
    node.sent.clear();
    node.wait(2 * TICK);
    let told = node.take_sent();
    assert_eq!(told.len(), 2, "each follower once: {told:?}");
    for (_, message) in told {
        let Message::AppendEntries(append) = message else { panic!("{message:?}") };
        assert_eq!((append.entries.len(), append.prev_index.0, append.commit.0), (0, 3, 3));
    }
    node.wait(2 * TICK);
    assert_eq!(node.told(2), [], "it is said once");
    node.wait(TICK);
    assert_eq!(node.told(2), [(0, 3)], "but for heartbeats");
}

#[test]
fn a_change_of_the_configuration_is_told_as_soon_as_it_is_committed() {
    let mut node = quiet_leader();
    let roles = [(1, Role::Voter), (2, Role::Voter), (3, Role::StandBy)];
    node.consensus.propose_change(&servers(&roles)).unwrap();
    node.poll();
    node.persist_all();
    node.sent.clear();
    node.receive(2, result(2, 0, 3));
    assert_eq!(node.stored.entries[2].kind, EntryKind::Change);
    assert_eq!(node.told(2), [(0, 3)]);
}
