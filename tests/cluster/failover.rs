//! Leaders that die while clients write: what was acknowledged is there, on every node.

use crate::NAME;
use crate::support::cluster::{Cluster, integers};
use crate::writers::Writers;

#[test]
fn another_node_leads_when_the_leader_dies_and_the_dead_one_comes_back_as_a_follower() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    for round in 0..3 {
        let (leader, mut client) = cluster.leader_client(NAME);
        let before: Vec<i64> = (0..round * 10).collect();
        assert_eq!(integers(&mut client, "SELECT n FROM t ORDER BY n"), before);
        for n in round * 10..round * 10 + 10 {
            client.exec(&format!("INSERT INTO t VALUES({n})"), &[]).ok();
        }
        cluster.node(leader).stop();
        let (next, mut client) = cluster.leader_client(NAME);
        assert_ne!(next, leader);
        let after: Vec<i64> = (0..round * 10 + 10).collect();
        assert_eq!(integers(&mut client, "SELECT n FROM t ORDER BY n"), after);
        cluster.node(leader).start_again();
    }
    cluster.equal_dumps(NAME);
}

#[test]
fn no_acknowledged_row_is_lost_however_often_leaders_die() {
    let mut cluster = Cluster::of(3);
    let (_, mut client) = cluster.leader_client(NAME);
    client.exec("CREATE TABLE t(client, n, PRIMARY KEY(client, n))", &[]).ok();
    let writers = Writers::new(&cluster, 4);
    let acknowledged = writers.run(|progress| {
        for _ in 0..4 {
            progress(100);
            let leader = cluster.leader();
            cluster.node(leader).stop();
            progress(1);
            cluster.node(leader).start_again();
        }
    });
    writers.check(&cluster, &acknowledged);
}

#[test]
fn a_node_that_was_away_for_long_catches_up() {
    let mut cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n, data)", &[]).ok();
    cluster.node(3).stop();
    for n in 0..300 {
        client.exec(&format!("INSERT INTO t VALUES({n}, randomblob(5000))"), &[]).ok();
    }
    cluster.node(3).start_again();
    cluster.equal_dumps(NAME);
    // It counts from then on.
    cluster.node(2).stop();
    client.exec("INSERT INTO t VALUES(300, NULL)", &[]).ok();
    cluster.equal_dumps(NAME);
}
