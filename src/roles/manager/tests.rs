use super::*;
use crate::base::Role;
use crate::roles::Metadata;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Time {
    Time::default().after(SECOND * u32::try_from(seconds).unwrap())
}

fn manager() -> Manager {
    Manager::new(true, NodeId(1), Targets { voters: 3, standbys: 0 })
}

/// Server 1 votes, the others are spares.
fn cluster(count: u64) -> Vec<Server> {
    let role = |id| if id == 1 { Role::Voter } else { Role::Spare };
    (1..=count)
        .map(|id| Server { id: NodeId(id), role: role(id), online: Some(Metadata::default()) })
        .collect()
}

fn drain(manager: &mut Manager) -> Vec<Effect> {
    std::iter::from_fn(|| manager.poll_effect()).collect()
}

fn assign(id: u64, role: Role) -> Effect {
    Effect::Assign(Change { id: NodeId(id), role })
}

#[test]
fn the_leader_looks_after_a_second_and_makes_one_change_after_another() {
    let mut manager = manager();
    assert_eq!(manager.poll_timeout(), None, "only the leader does anything");
    manager.handle_leading(true, at(10));
    manager.handle_timeout(at(10));
    assert_eq!(drain(&mut manager), []);
    assert_eq!(manager.poll_timeout(), Some(at(11)));
    manager.handle_timeout(at(11));
    assert_eq!(drain(&mut manager), [Effect::Ask { round: 1 }]);

    manager.handle_answers(1, Some(&cluster(3)), at(12));
    assert_eq!(drain(&mut manager), [assign(2, Role::Voter)]);
    manager.handle_timeout(at(100));
    assert_eq!((drain(&mut manager), manager.poll_timeout()), (vec![], None), "one change at a time");
    manager.handle_ended(at(100));
    assert_eq!(drain(&mut manager), [assign(3, Role::Voter)]);
    manager.handle_ended(at(101));
    assert_eq!(drain(&mut manager), []);
    assert_eq!(manager.poll_timeout(), Some(at(102)));
}

#[test]
fn answers_that_are_late_or_about_another_configuration_change_nothing() {
    let mut manager = manager();
    manager.handle_answers(0, Some(&cluster(3)), at(0));
    manager.handle_leading(true, at(0));
    manager.handle_timeout(at(1));
    manager.handle_timeout(at(16));
    assert_eq!(manager.poll_timeout(), Some(at(17)), "whoever asks was lost: again");
    manager.handle_timeout(at(17));
    assert_eq!(drain(&mut manager), [Effect::Ask { round: 1 }, Effect::Ask { round: 2 }]);
    manager.handle_answers(1, Some(&cluster(3)), at(17));
    assert_eq!(drain(&mut manager), []);
    manager.handle_answers(2, None, at(18));
    assert_eq!(drain(&mut manager), []);
    assert_eq!(manager.poll_timeout(), Some(at(19)));
}

#[test]
fn who_does_not_lead_any_more_forgets_what_it_wanted() {
    let mut manager = manager();
    manager.handle_leading(true, at(0));
    manager.handle_timeout(at(1));
    manager.handle_answers(1, Some(&cluster(3)), at(1));
    manager.handle_leading(false, at(2));
    manager.handle_ended(at(2));
    assert_eq!((drain(&mut manager), manager.poll_timeout()), (vec![], None));
    manager.handle_leading(true, at(3));
    manager.handle_timeout(at(4));
    assert_eq!(drain(&mut manager), [Effect::Ask { round: 2 }]);
}

#[test]
fn new_targets_count_from_the_next_look_on() {
    let mut manager = manager();
    manager.set_targets(Targets { voters: 1, standbys: 1 });
    manager.handle_leading(true, at(0));
    manager.handle_timeout(at(1));
    assert_eq!(drain(&mut manager), [Effect::Ask { round: 1 }]);
    manager.handle_answers(1, Some(&cluster(2)), at(1));
    assert_eq!(drain(&mut manager), [assign(2, Role::StandBy)]);
}

#[test]
fn switched_off_it_stays_off() {
    let off = Manager::new(false, NodeId(1), Targets { voters: 3, standbys: 0 });
    let mut left = manager();
    left.handle_leading(true, at(0));
    left.handle_timeout(at(1));
    left.switch_off();
    for mut manager in [off, left] {
        manager.handle_leading(true, at(2));
        manager.handle_timeout(at(9));
        manager.handle_answers(1, Some(&cluster(3)), at(9));
        assert_eq!((drain(&mut manager), manager.poll_timeout()), (vec![], None));
    }
}
