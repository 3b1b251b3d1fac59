//! Building a cluster and changing it.

use std::time::Instant;

use dqlite::base::{NodeId, Role};
use dqlite::codec::client::Request;

use crate::liveness::ELECTION;
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

#[test]
fn requests_that_cannot_be_done_are_refused_in_words_and_change_nothing() {
    let cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    let before = client.cluster();
    for (answer, text) in [
        (client.add(2, "127.0.0.1:9"), "server ID already in use"),
        (client.add(9, &declared(3)), "server address already in use"),
        (client.assign(9, Role::Voter), "Resource not found"),
        (client.assign(2, Role::Voter), "server role is not valid"),
        (client.remove(9), "server ID is not valid"),
        (client.transfer(9), "server ID is not valid"),
        (client.transfer(1), "server ID is not valid"),
    ] {
        refused(answer, (1, text));
    }
    assert_eq!(client.cluster(), before);

    // A promotion that never ends, since nobody is there.
    assert_eq!(client.add(4, "nowhere"), Answer::Empty);
    let mut promoting = cluster.connect(1);
    promoting.request(&Request::Assign { id: NodeId(4), role: Role::Voter }).unwrap();
    let pending = (5, "a configuration change is already in progress");
    wait_for("the promotion", || (client.assign(4, Role::Spare).code() == 5).then_some(()));
    for answer in [client.add(5, "elsewhere"), client.remove(2), client.assign(2, Role::Spare)] {
        refused(answer, pending);
    }
    // Whoever asked for it is gone; it goes on, and so does all else.
    drop(promoting);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    refused(client.remove(4), pending);
    // It ends with the leadership at the latest, and nothing of it is left.
    assert_eq!(client.transfer(2), Answer::Empty);
    let mut client = cluster.connect(2);
    wait_for("the removal", || (client.remove(4) == Answer::Empty).then_some(()));
    assert_eq!(client.cluster(), before);
}

#[test]
fn the_last_voter_remains_one() {
    let cluster = Cluster::apart(3, |_| {});
    let mut client = cluster.connect(1);
    assert_eq!(client.add(2, &declared(2)), Answer::Empty);
    assert_eq!(client.assign(2, Role::StandBy), Answer::Empty);
    assert_eq!(client.add(3, &declared(3)), Answer::Empty);
    for role in [Role::StandBy, Role::Spare] {
        refused(client.assign(1, role), (1, "server role is not valid"));
    }
    refused(client.remove(1), (1, "server ID is not valid"));
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    use Role::{Spare, StandBy, Voter};
    assert_eq!(client.cluster(), servers(&[(1, Voter), (2, StandBy), (3, Spare)]));
}

#[test]
fn a_removed_node_that_comes_back_disturbs_nobody_and_an_empty_one_takes_its_place() {
    let mut cluster = Cluster::with(3, |options| options.election_timeout = ELECTION);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    // It never hears of its removal.
    cluster.node(3).stop();
    assert_eq!(client.remove(3), Answer::Empty);
    cluster.node(3).start_again();
    let (begun, mut rows) = (Instant::now(), 0);
    while begun.elapsed() < 4 * ELECTION {
        // The connection serves only as long as the node leads.
        client.exec(&format!("INSERT INTO t VALUES({rows})"), &[]).ok();
        rows += 1;
    }
    // The same id and address, and nothing of what it knew.
    cluster.node(3).stop();
    for file in std::fs::read_dir(cluster.node(3).directory()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    cluster.node(3).start_again();
    assert_eq!(client.add(3, &declared(3)), Answer::Empty);
    assert_eq!(client.assign(3, Role::Voter), Answer::Empty);
    assert_eq!(integers(&mut client, "SELECT count(*) FROM t"), [rows]);
    cluster.equal_dumps(NAME);
}
