//! What the nodes say to each other, by the rules that every server keeps.

use crate::NAME;
use crate::support::cluster::{Cluster, declared};
use crate::support::tap::Tap;
use crate::support::wire::Rules;

#[test]
fn nodes_keep_the_rules_of_the_wire_while_leaders_die_and_come_back() {
    let tap = Tap::new();
    let mut cluster = Cluster::with(3, |options| {
        let name = |address: &str| {
            let number = (1..=3).find(|number| declared(*number) == address);
            format!("node{}", number.unwrap())
        };
        options.connector = tap.around(options.connector.clone(), name);
    });
    let (_, mut client) = cluster.leader_client(NAME);
    client.exec("CREATE TABLE t(a)", &[]).ok();
    for _ in 0..2 {
        let (leader, mut client) = cluster.leader_client(NAME);
        for _ in 0..10 {
            client.exec("INSERT INTO t VALUES(1)", &[]).ok();
        }
        cluster.node(leader).stop();
        let (_, mut client) = cluster.leader_client(NAME);
        client.exec("INSERT INTO t VALUES(2)", &[]).ok();
        cluster.node(leader).restart();
        cluster.equal_dumps(NAME);
    }
    let recorded = tap.recorded();
    let used = recorded.iter().filter(|line| !line.sent.is_empty()).count();
    assert!(used >= 6, "only {used} connections");
    let found = Rules { ours: [1, 2, 3].into(), known: [(1, 1)].into() }.check(&recorded);
    assert_eq!(found, []);
}
