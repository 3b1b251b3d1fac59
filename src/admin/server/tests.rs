use super::super::client::tests::answering;
use super::*;
use crate::codec::client::{Format, Response, ServerEntry};

const BUDGET: Duration = Duration::from_secs(30);

fn server(id: u64, address: &str) -> Response<'_> {
    Response::Server { id: NodeId(id), address: address.as_bytes() }
}

fn list(id: u64, address: &str) -> Response<'_> {
    let entry = ServerEntry { id: NodeId(id), address: address.as_bytes(), role: Role::Voter };
    Response::Servers { format: Format::Roles, servers: vec![entry] }
}

/// A connector that takes the next of `peers` with each call.
fn in_turn(peers: Vec<Connector>) -> Connector {
    let peers = std::sync::Mutex::new(peers.into_iter());
    Connector::new(move |address| {
        let peer = peers.lock().unwrap().next().ok_or(16)?;
        peer.connect(address).map_err(|_| 16)
    })
}

fn nobody() -> Connector {
    Connector::new(|_| Err(16))
}

fn addresses(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

#[test]
fn the_first_server_that_answers_shows_the_way_to_the_leader() {
    let connector = in_turn(vec![nobody(), answering(vec![server(3, "c")]), answering(vec![list(3, "c")])]);
    let budget = Budget::new(BUDGET);
    let mut client = connect_to_leader(&connector, &addresses(&["a", "b"]), &budget).unwrap();
    let found = Member { id: NodeId(3), address: b"c".to_vec(), role: Role::Voter };
    assert_eq!(client.cluster(&budget).unwrap(), [found]);
}

#[test]
fn while_there_is_no_leader_it_is_asked_again() {
    let connector =
        in_turn(vec![answering(vec![server(0, "")]), answering(vec![server(1, "a"), list(1, "a")])]);
    let budget = Budget::new(BUDGET);
    let mut client = connect_to_leader(&connector, &addresses(&["a"]), &budget).unwrap();
    assert_eq!(client.cluster(&budget).unwrap().len(), 1);
}

#[test]
fn without_anybody_to_ask_or_an_answer_it_gives_up() {
    let budget = Budget::new(BUDGET);
    assert!(connect_to_leader(&nobody(), &[], &budget).is_err());
    assert!(connect_to_leader(&nobody(), &addresses(&["a", "b"]), &budget).is_err());
}

#[test]
fn a_cluster_that_this_server_is_not_in_is_not_joined() {
    let place = tempfile::tempdir().unwrap();
    let mut joiner = Server::new(place.path().as_os_str().as_bytes());
    joiner.set_connector(Some(in_turn(vec![answering(vec![server(1, "a"), list(1, "a")])])));
    joiner.add_auto_join(&[b"a"]);
    let info = ServerInfo { address: "b".to_owned(), id: NodeId(2) };
    let refused = joiner.find_cluster(&info, true, None).map(drop);
    assert_eq!(refused.unwrap_err(), "joining a cluster of other servers is not supported by this release");
}

#[test]
fn the_refresh_keeps_the_list_on_disk() {
    let place = tempfile::tempdir().unwrap();
    let mut cluster = Cluster {
        directory: place.path().to_owned(),
        connector: answering(vec![server(1, "a"), list(1, "a")]),
        client: None,
        members: vec![Member { id: NodeId(9), address: b"a".to_vec(), role: Role::Spare }],
    };
    cluster.refresh().unwrap();
    let store = read_or_create(place.path(), NODE_STORE).unwrap();
    assert_eq!(store, "v1\na\n1\nvoter\n");
    assert!(cluster.client.is_some());
    // The peer is gone: the list stays as it was.
    cluster.refresh().unwrap_err();
    cluster.refresh().unwrap_err();
    assert_eq!(read_or_create(place.path(), NODE_STORE).unwrap(), store);
}
