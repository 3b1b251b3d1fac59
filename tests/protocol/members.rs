//! Requests about the node and its cluster, on a cluster of one.

use dqlite::base::Role;

use crate::support::client::{Answer, Client};
use crate::support::node::TestNode;

fn refused(answer: Answer, text: &str) {
    assert_eq!(answer.failure(), (1, text.to_owned()));
}

#[test]
fn a_cluster_of_one_knows_itself_and_keeps_its_members() {
    let mut node = TestNode::start_with(|options| options.failure_domain = 7);
    let address = node.address().to_owned();
    let mut client = Client::connect(&address).unwrap();
    assert_eq!(client.leader(), Answer::Server { id: 1, address: address.clone() });
    let me = (1, address.clone(), Role::Voter);
    assert_eq!(client.cluster(), Answer::Servers(vec![me.clone()]));
    assert_eq!(client.describe(), Answer::Metadata { failure_domain: 7, weight: 0 });
    assert_eq!(client.weight(5), Answer::Empty);
    assert_eq!(client.describe(), Answer::Metadata { failure_domain: 7, weight: 5 });

    assert_eq!(client.add(2, "127.0.0.1:2"), Answer::Empty);
    assert_eq!(client.add(3, "127.0.0.1:3"), Answer::Empty);
    assert_eq!(client.assign(2, Role::StandBy), Answer::Empty);
    refused(client.assign(2, Role::StandBy), "server role is not valid");
    refused(client.add(2, "127.0.0.1:9"), "server ID already in use");
    refused(client.add(9, "127.0.0.1:2"), "server address already in use");
    refused(client.remove(9), "server ID is not valid");
    refused(client.assign(9, Role::Spare), "Resource not found");
    refused(client.transfer(0), "Resource not found");
    for id in [1, 2, 3, 9] {
        refused(client.transfer(id), "server ID is not valid");
    }
    let spare = (3, "127.0.0.1:3".to_owned(), Role::Spare);
    let members = Answer::Servers(vec![me, (2, "127.0.0.1:2".to_owned(), Role::StandBy), spare]);
    assert_eq!(client.cluster(), members);

    node.restart();
    let mut client = Client::connect(&address).unwrap();
    assert_eq!(client.cluster(), members);
    assert_eq!(client.describe(), Answer::Metadata { failure_domain: 7, weight: 0 }, "a weight is not kept");
    assert_eq!(client.remove(2), Answer::Empty);
    assert_eq!(client.remove(3), Answer::Empty);
    assert!(matches!(client.cluster(), Answer::Servers(left) if left.len() == 1));
}

#[test]
fn only_one_change_of_the_cluster_goes_on_at_a_time() {
    let node = TestNode::start();
    let mut client = Client::connect(node.address()).unwrap();
    // Nobody is there to catch up.
    assert_eq!(client.add(2, "127.0.0.1:2"), Answer::Empty);
    let mut promoting = Client::connect(node.address()).unwrap();
    promoting
        .request(&dqlite::codec::client::Request::Assign { id: dqlite::base::NodeId(2), role: Role::Voter })
        .unwrap();
    let pending = (5, "a configuration change is already in progress".to_owned());
    loop {
        // Until the node has seen the other's request, there is nothing to collide with.
        match client.assign(2, Role::Spare) {
            Answer::Failure { code: 1, .. } => {}
            answer => break assert_eq!(answer.failure(), pending),
        }
    }
    assert_eq!(client.add(3, "127.0.0.1:3").failure(), pending);
    assert_eq!(client.remove(2).failure(), pending);
    // SQL goes on.
    let mut sql = crate::connect(&node);
    sql.exec("CREATE TABLE t(a)", &[]).ok();
}

#[test]
fn a_client_older_than_1_0_gets_the_address_alone() {
    let node = TestNode::start();
    let leader = Client::connect_legacy(node.address()).unwrap().leader();
    assert_eq!(leader, Answer::Server { id: 0, address: node.address().to_owned() });
}
