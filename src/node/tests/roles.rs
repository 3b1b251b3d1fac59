//! Role management and handing over, of a node that is the only voter: its changes need nobody else.

use super::*;
use crate::roles::{Metadata, Targets};

const SECOND: Duration = Duration::from_secs(1);

/// A leader with two spares, in different failure domains from its own 7.
fn with_spares() -> World {
    let mut world = World::new();
    world.connect(A);
    for (id, address) in [(2, b"b"), (3, b"c")] {
        world.send(A, &Request::Add { id: NodeId(id), address });
        world.sync();
        assert_eq!(world.answers(A), ["empty"]);
    }
    world
}

fn managed(standbys: i32) -> World {
    let mut world = with_spares();
    world.core.enable_role_management(Targets { voters: 1, standbys }, world.now);
    world
}

fn said(answers: &[(u64, u64)]) -> BTreeMap<NodeId, Metadata> {
    let metadata = |weight| Metadata { failure_domain: 0, weight };
    answers.iter().map(|&(id, weight)| (NodeId(id), metadata(weight))).collect()
}

impl World {
    fn described(&mut self, round: u64, answers: &[(u64, u64)]) {
        self.core.handle_described(round, &said(answers), self.now);
        self.collect();
    }

    fn roles(&mut self) -> Vec<(u64, Role)> {
        let servers = &self.core.consensus.configuration().servers;
        servers.iter().map(|server| (server.id.0, server.role)).collect()
    }
}

#[test]
fn the_leader_asks_the_others_and_changes_one_role_at_a_time() {
    let mut world = managed(2);
    world.pass(SECOND / 2);
    assert_eq!(world.to_describe, []);
    world.pass(SECOND);
    assert_eq!(world.to_describe, [(1, vec![NodeId(2), NodeId(3)])]);
    world.described(1, &[(2, 9), (3, 1)]);
    // The lighter one first; the other when that is durable.
    let (v, s, p) = (Role::Voter, Role::StandBy, Role::Spare);
    assert_eq!(world.roles(), [(1, v), (2, p), (3, s)]);
    world.sync();
    assert_eq!(world.roles(), [(1, v), (2, s), (3, s)]);

    // One does not answer any more.
    world.pass(2 * SECOND);
    assert_eq!(world.to_describe.len(), 2);
    world.described(2, &[(3, 0)]);
    world.sync();
    assert_eq!(world.roles(), [(1, v), (2, p), (3, s)]);
}

#[test]
fn a_refused_change_is_dropped_and_the_next_one_is_made() {
    let mut world = managed(2);
    world.pass(SECOND);
    // A client is faster: its change is not durable yet.
    world.send(A, &Request::Assign { id: NodeId(2), role: Role::StandBy });
    world.described(1, &[(2, 0), (3, 0)]);
    world.sync();
    assert_eq!(world.answers(A), ["empty"]);
    let (v, s, p) = (Role::Voter, Role::StandBy, Role::Spare);
    assert_eq!(world.roles(), [(1, v), (2, s), (3, p)], "the cluster is not the one that was asked");
    world.pass(2 * SECOND);
    world.described(2, &[(2, 0), (3, 0)]);
    world.sync();
    assert_eq!(world.roles(), [(1, v), (2, s), (3, s)]);
}

#[test]
fn new_targets_count_from_the_next_look_on() {
    let mut world = managed(0);
    world.pass(SECOND);
    world.described(1, &[(2, 0), (3, 0)]);
    world.core.set_role_targets(Targets { voters: 1, standbys: 1 });
    world.pass(SECOND);
    world.described(2, &[(2, 0), (3, 0)]);
    world.sync();
    let standbys = world.roles().iter().filter(|(_, role)| *role == Role::StandBy).count();
    assert_eq!(standbys, 1);
}

#[test]
fn without_role_management_nobody_is_asked_and_nothing_wakes_the_node_for_it() {
    let mut world = with_spares();
    world.pass(60 * SECOND);
    assert_eq!(world.to_describe, []);
}

#[test]
fn nobody_can_take_over_from_the_only_voter_and_role_management_ends_all_the_same() {
    let mut world = managed(2);
    world.core.handle_handover(world.now);
    world.collect();
    assert_eq!(world.handover, [HandoverStep::Impossible]);
    world.pass(60 * SECOND);
    assert_eq!(world.to_describe, []);
}
