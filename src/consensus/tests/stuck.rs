//! A leader whose disk hangs.

use std::time::Duration;

use super::cluster::Cluster;
use super::harness::*;

/// Time passes; the disk of server `frozen` does nothing.
fn wait_frozen(cluster: &mut Cluster, frozen: u64, duration: Duration) {
    for _ in 0..duration.as_millis() / 100 {
        for node in &mut cluster.nodes {
            node.wait(Duration::from_millis(100));
        }
        loop {
            for (id, node) in (1..).zip(&mut cluster.nodes) {
                if id != frozen {
                    node.persist_all();
                }
            }
            cluster.collect();
            let Some(packet) = cluster.wire.pop_front() else { break };
            cluster.deliver(packet);
        }
    }
}

fn led() -> (Cluster, u64) {
    let mut cluster = Cluster::new(&voters(&[1, 2, 3]), 3);
    cluster.wait(5 * ELECTION);
    let leader = cluster.leader().unwrap();
    (cluster, leader)
}

#[test]
fn a_leader_whose_disk_hangs_gives_up_and_another_leads_until_it_answers() {
    let (mut cluster, old) = led();
    cluster.node(old).propose(7);
    wait_frozen(&mut cluster, old, 2 * ELECTION);
    assert_eq!(cluster.leader(), Some(old), "it may be a slow disk");
    wait_frozen(&mut cluster, old, 6 * ELECTION);
    let new = cluster.leader().unwrap();
    assert_ne!(new, old);
    assert!(!cluster.node(old).consensus.is_leader());
    cluster.node(new).propose(8);
    // What it cannot write it cannot lead with either.
    wait_frozen(&mut cluster, old, 10 * ELECTION);
    assert_eq!(cluster.leader(), Some(new));
    cluster.wait(2 * ELECTION);
    for id in 1..=3 {
        assert_eq!(cluster.node(id).applied_numbers(), [7, 8], "server {id}");
    }
}

#[test]
fn a_slow_disk_that_makes_progress_keeps_its_leader() {
    let (mut cluster, leader) = led();
    for number in 0..10 {
        cluster.node(leader).propose(number);
        wait_frozen(&mut cluster, leader, 2 * ELECTION);
        cluster.node(leader).persist_one();
    }
    assert_eq!(cluster.leader(), Some(leader));
}

#[test]
fn the_only_voter_waits_for_its_disk() {
    let mut node = Node::bootstrap();
    node.persist_all();
    node.propose(1);
    node.wait(20 * ELECTION);
    assert!(node.consensus.is_leader());
    node.persist_all();
    assert_eq!(node.applied_numbers(), [1]);
}
