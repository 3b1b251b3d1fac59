//! Building a cluster and changing it.

use dqlite::base::Role;

use crate::support::client::Answer;
use crate::support::cluster::{Cluster, declared, integers, wait_for};
use crate::{NAME, NOT_LEADER, refused};

fn servers(roles: &[(u64, Role)]) -> Answer {
    let server = |&(id, role)| (id, declared(usize::try_from(id).unwrap()), role);
    Answer::Servers(roles.iter().map(server).collect())
}

#[test]
fn voters_and_stand_bys_hold_what_the_leader_writes_and_spares_hold_nothing() {
    use Role::{Spare, StandBy, Voter};
    let cluster = Cluster::apart(4, |_| {});
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    for id in 2..=4 {
        assert_eq!(client.add(id, &declared(usize::try_from(id).unwrap())), Answer::Empty);
    }
    assert_eq!(client.assign(2, Voter), Answer::Empty);
    assert_eq!(client.assign(3, StandBy), Answer::Empty);
    for n in 0..20 {
        client.exec(&format!("INSERT INTO t VALUES({n})"), &[]).ok();
    }
    let all = servers(&[(1, Voter), (2, Voter), (3, StandBy), (4, Spare)]);
    let leader = client.dump(NAME).ok();
    for number in [2, 3] {
        wait_for("what the leader has", || {
            let mut follower = cluster.connect(number);
            (follower.dump(NAME) == leader && follower.cluster() == all).then_some(())
        });
    }
    assert_eq!(cluster.connect(4).dump(NAME).code(), 1002, "nothing was sent to the spare");

    // From one role to another.
    assert_eq!(client.assign(4, StandBy), Answer::Empty);
    assert_eq!(client.assign(3, Voter), Answer::Empty);
    assert_eq!(client.assign(2, Spare), Answer::Empty);
    client.exec("INSERT INTO t VALUES(20)", &[]).ok();
    let leader = client.dump(NAME).ok();
    for number in [3, 4] {
        wait_for("what the leader has", || (cluster.connect(number).dump(NAME) == leader).then_some(()));
    }
    assert_eq!(client.cluster(), servers(&[(1, Voter), (2, Spare), (3, Voter), (4, StandBy)]));
}

#[test]
fn a_member_that_is_removed_leaves_a_cluster_that_goes_on() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    assert_eq!(client.remove(3), Answer::Empty);
    cluster.node(3).stop();
    client.exec("INSERT INTO t VALUES(1)", &[]).ok();
    assert_eq!(client.cluster(), servers(&[(1, Role::Voter), (2, Role::Voter)]));
    cluster.equal_dumps(NAME);
    // It is let in again, with what it has.
    cluster.node(3).start_again();
    assert_eq!(client.add(3, &declared(3)), Answer::Empty);
    assert_eq!(client.assign(3, Role::Voter), Answer::Empty);
    client.exec("INSERT INTO t VALUES(2)", &[]).ok();
    cluster.equal_dumps(NAME);
}

#[test]
fn a_leader_that_removes_itself_is_followed_by_another() {
    let cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    client.exec("INSERT INTO t VALUES(7)", &[]).ok();
    assert_eq!(client.remove(1), Answer::Empty);
    let (leader, mut client) = wait_for("another leader", || {
        let leader = [2, 3].into_iter().find(|number| {
            let own = Answer::Server { id: *number as u64, address: declared(*number) };
            cluster.connect(*number).leader() == own
        })?;
        let mut client = cluster.connect(leader);
        (!matches!(client.open(NAME), Answer::Failure { .. })).then_some((leader, client))
    });
    assert_eq!(integers(&mut client, "SELECT n FROM t"), [7]);
    client.exec("INSERT INTO t VALUES(8)", &[]).ok();
    assert_eq!(client.cluster(), servers(&[(2, Role::Voter), (3, Role::Voter)]));
    assert_ne!(leader, 1);
    refused(cluster.connect(1).open(NAME), NOT_LEADER);
}

#[test]
fn every_node_describes_itself_and_knows_the_cluster() {
    let cluster = Cluster::with(3, |options| options.failure_domain = options.id.0 * 10);
    let all = servers(&[(1, Role::Voter), (2, Role::Voter), (3, Role::Voter)]);
    for number in 1..=3 {
        let mut client = cluster.connect(number);
        wait_for("the whole cluster", || (client.cluster() == all).then_some(()));
        assert_eq!(client.weight(number as u64), Answer::Empty);
        let metadata = Answer::Metadata { failure_domain: number as u64 * 10, weight: number as u64 };
        assert_eq!(client.describe(), metadata);
        wait_for("the leader", || {
            (client.leader() == Answer::Server { id: 1, address: declared(1) }).then_some(())
        });
    }
    let mut follower = cluster.connect(2);
    for answer in [
        follower.open(NAME),
        follower.add(9, "127.0.0.1:9"),
        follower.assign(3, Role::Spare),
        follower.remove(3),
        follower.transfer(3),
    ] {
        refused(answer, NOT_LEADER);
    }
}
