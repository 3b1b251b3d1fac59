use std::time::Duration;

use super::*;

fn servers(list: &[(u64, Role)]) -> Configuration {
    let server = |&(id, role)| Server { id: NodeId(id), address: format!("node-{id}"), role };
    Configuration { servers: list.iter().map(server).collect() }
}

#[test]
fn servers_stay_in_the_order_of_their_addition() {
    let one = servers(&[(1, Role::Voter)]);
    let two = add(&one, NodeId(9), "node-9").unwrap();
    let three = add(&two, NodeId(4), "node-4").unwrap();
    let promoted = assign(&three, NodeId(9), Role::Voter).unwrap();
    assert_eq!(promoted, servers(&[(1, Role::Voter), (9, Role::Voter), (4, Role::Spare)]));
    assert_eq!(remove(&promoted, NodeId(1)), Ok(servers(&[(9, Role::Voter), (4, Role::Spare)])));
}

#[test]
fn the_last_voter_can_be_neither_demoted_nor_removed() {
    let current = servers(&[(1, Role::StandBy), (2, Role::Voter)]);
    assert_eq!(assign(&current, NodeId(2), Role::Spare), Err(Refusal::BadRole));
    assert_eq!(remove(&current, NodeId(2)), Err(Refusal::BadId));
    assert!(remove(&current, NodeId(1)).is_ok());
}

#[test]
fn leadership_goes_to_the_voter_that_is_furthest_and_to_the_first_of_equals() {
    let current = servers(&[(1, Role::Voter), (2, Role::Voter), (3, Role::Voter), (4, Role::StandBy)]);
    let stored = |best: u64| move |id: NodeId| Index(if id.0 == best { 9 } else { 5 });
    assert_eq!(transfer_target(&current, NodeId(1), NodeId(0), stored(3)), Ok(NodeId(3)));
    assert_eq!(transfer_target(&current, NodeId(1), NodeId(0), stored(4)), Ok(NodeId(2)));
    assert_eq!(transfer_target(&current, NodeId(1), NodeId(2), stored(3)), Ok(NodeId(2)));
    assert_eq!(transfer_target(&current, NodeId(1), NodeId(4), stored(4)), Err(Refusal::BadId));
    assert_eq!(transfer_target(&current, NodeId(1), NodeId(1), stored(1)), Err(Refusal::BadId));
}

#[test]
fn a_leader_outside_its_configuration_stays_a_learner() {
    let current = servers(&[(2, Role::Voter), (3, Role::StandBy), (4, Role::Spare)]);
    let members = RaftMembers::of(&current, Some(NodeId(1)), Some(NodeId(4)));
    assert_eq!(members.voters.into_iter().collect::<Vec<_>>(), [2]);
    assert_eq!(members.learners.into_iter().collect::<Vec<_>>(), [1, 3, 4]);
    let members = RaftMembers::of(&current, Some(NodeId(2)), None);
    assert_eq!(members.learners.into_iter().collect::<Vec<_>>(), [3]);
}

#[test]
fn truncation_returns_to_the_committed_configuration_and_not_past_it() {
    let placed = |index| Placed { configuration: servers(&[(index, Role::Voter)]), index: Index(index) };
    let mut ownership = Ownership::new(placed(1), placed(1));
    ownership.handle_stored(placed(5));
    assert!(ownership.is_pending());
    assert!(!ownership.handle_truncated(Index(6)));
    assert!(ownership.handle_truncated(Index(5)));
    assert_eq!(ownership.in_force(), &placed(1));
    ownership.handle_stored(placed(7));
    ownership.handle_applying(placed(7));
    assert!(!ownership.handle_applied(Index(6)));
    assert!(ownership.is_pending());
    assert!(ownership.handle_applied(Index(8)));
    assert_eq!(ownership.committed(), &placed(7));
    assert!(!ownership.handle_truncated(Index(3)));
}

#[test]
fn catching_up_ends_at_the_end_of_the_log_or_after_a_quick_round() {
    let timeout = Duration::from_secs(3);
    let at = |seconds| Time::default().after(Duration::from_secs(seconds));
    let mut promotion = Promotion::new(NodeId(2), Index(10), at(0));
    assert_eq!(promotion.handle_progress(Index(9), Index(12), at(1), timeout), CatchUp::Waiting);
    assert_eq!({ promotion }.handle_progress(Index(10), Index(12), at(2), timeout), CatchUp::Ready);
    assert_eq!({ promotion }.handle_progress(Index(12), Index(12), at(9), timeout), CatchUp::Ready);
    // Too slow a round: the next one aims at the new end.
    assert_eq!(promotion.handle_progress(Index(10), Index(12), at(4), timeout), CatchUp::Waiting);
    assert_eq!(promotion.handle_progress(Index(11), Index(12), at(53), timeout), CatchUp::Waiting);
    assert_eq!(promotion.handle_progress(Index(11), Index(12), at(55), timeout), CatchUp::TooSlow);
}

#[test]
fn the_hundredth_round_is_the_last() {
    let timeout = Duration::from_secs(3);
    let mut promotion = Promotion::new(NodeId(2), Index(1), Time::default());
    let mut now = Time::default();
    for round in 1..100 {
        now = now.after(Duration::from_secs(4));
        let last = Index(round + 1);
        assert_eq!(promotion.handle_progress(Index(round), last, now, timeout), CatchUp::Waiting, "{round}");
    }
    now = now.after(Duration::from_secs(4));
    assert_eq!(promotion.handle_progress(Index(100), Index(101), now, timeout), CatchUp::TooSlow);
}

#[test]
fn majorities_that_might_not_meet_are_counted() {
    let three = servers(&[(1, Role::Voter), (2, Role::Voter), (3, Role::StandBy)]);
    assert_eq!(voters_changed(&three, &servers(&[(1, Role::Voter), (2, Role::Voter)])), 0);
    assert_eq!(voters_changed(&three, &servers(&[(1, Role::Voter), (3, Role::Voter)])), 2);
}
