use super::cluster::connect_to_leader;
use super::*;
use crate::codec::client::{Format, Response, ServerEntry};
use crate::runtime::client::tests::{answering, recording};

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

fn spare(id: u64, address: &'static str) -> ServerEntry<'static> {
    ServerEntry { id: NodeId(id), address: address.as_bytes(), role: Role::Spare }
}

fn joined() -> Response<'static> {
    let voter = ServerEntry { id: NodeId(1), address: b"a", role: Role::Voter };
    Response::Servers { format: Format::Roles, servers: vec![voter, spare(2, "b")] }
}

const BUSY: Response<'static> =
    Response::Failure { code: 5, text: b"a configuration change is already in progress" };

fn own() -> Member {
    Member { id: NodeId(2), address: b"b".to_vec(), role: Role::Voter }
}

#[test]
fn one_that_knows_no_leader_does_not_hide_one_that_does() {
    let connector = in_turn(vec![answering(vec![server(0, "")]), answering(vec![server(3, "b")])]);
    connect_to_leader(&connector, &addresses(&["a", "b"]), &Budget::new(BUDGET)).unwrap();
}

#[test]
fn a_server_is_added_to_the_cluster_that_it_is_not_in() {
    let (leader, asked) = recording(vec![server(1, "a"), list(1, "a"), Response::Empty, joined()]);
    let (_, members) = join(&leader, &addresses(&["a"]), &own(), &Budget::new(BUDGET)).unwrap();
    let roles: Vec<_> = members.iter().map(|member| (member.id.0, member.role)).collect();
    assert_eq!(roles, [(1, Role::Voter), (2, Role::Spare)]);
    assert_eq!(*asked.lock().unwrap(), [0, 16, 12, 16], "leader, cluster, add, cluster");
}

#[test]
fn a_server_that_is_in_the_cluster_is_not_added() {
    let (leader, asked) = recording(vec![server(1, "a"), joined()]);
    join(&leader, &addresses(&["a"]), &own(), &Budget::new(BUDGET)).unwrap();
    assert_eq!(*asked.lock().unwrap(), [0, 16]);
}

#[test]
fn servers_that_join_at_the_same_time_wait_for_each_other() {
    let busy = answering(vec![server(1, "a"), list(1, "a"), BUSY]);
    let (free, asked) = recording(vec![server(1, "a"), list(1, "a"), Response::Empty, joined()]);
    join(&in_turn(vec![busy, free]), &addresses(&["a"]), &own(), &Budget::new(BUDGET)).unwrap();
    assert_eq!(asked.lock().unwrap().len(), 4);
}

#[test]
fn a_refusal_to_add_it_is_told() {
    let refusal = Response::Failure { code: 1, text: b"server address already in use" };
    let leader = answering(vec![server(1, "a"), list(1, "a"), refusal]);
    let refused = join(&leader, &addresses(&["a"]), &own(), &Budget::new(BUDGET)).map(drop);
    assert_eq!(refused.unwrap_err(), "joining the cluster: failure 1 'server address already in use'");
}

#[test]
fn a_server_that_comes_back_starts_without_its_cluster_and_a_new_one_does_not() {
    let place = tempfile::tempdir().unwrap();
    let mut returning = Server::new(place.path().as_os_str().as_bytes());
    returning.set_connector(Some(nobody()));
    returning.add_auto_join(&[b"a"]);
    let info = ServerInfo { address: "b".to_owned(), id: NodeId(2) };
    let found = returning.find_cluster(&info, false, vec![own()]).unwrap();
    assert_eq!((found.0.is_none(), found.1), (true, vec![own()]));
    assert!(returning.find_cluster(&info, false, vec![]).is_err(), "it never joined");
    assert!(returning.find_cluster(&info, true, vec![]).is_err());
}

fn cluster(directory: &std::path::Path, connector: Connector) -> Cluster {
    let members = vec![Member { id: NodeId(9), address: b"a".to_vec(), role: Role::Spare }];
    Cluster::new(directory.to_owned(), connector, None, members)
}

#[test]
fn the_refresh_keeps_the_list_on_disk() {
    let place = tempfile::tempdir().unwrap();
    let peer = answering(vec![server(1, "a"), list(1, "a"), server(1, "a"), list(2, "a")]);
    let mut cluster = cluster(place.path(), peer);
    cluster.refresh().unwrap();
    let store = || read_or_create(place.path(), NODE_STORE).unwrap();
    assert_eq!(store(), "v1\na\n1\nvoter\n");
    cluster.refresh().unwrap();
    assert_eq!(store(), "v1\na\n2\nvoter\n", "asked again on the same connection");
    // The peer is gone: the list stays as it was.
    cluster.refresh().unwrap_err();
    cluster.refresh().unwrap_err();
    assert_eq!(store(), "v1\na\n2\nvoter\n");
}

#[test]
fn the_refresh_follows_the_leader() {
    let place = tempfile::tempdir().unwrap();
    let old = answering(vec![server(1, "a"), list(1, "a"), server(2, "b")]);
    let new = answering(vec![server(2, "a"), list(2, "a")]);
    let mut cluster = cluster(place.path(), in_turn(vec![old, new]));
    cluster.refresh().unwrap();
    cluster.refresh().unwrap();
    assert_eq!(read_or_create(place.path(), NODE_STORE).unwrap(), "v1\na\n2\nvoter\n");
}

#[test]
fn the_refresh_ends_although_a_server_is_silent() {
    let place = tempfile::tempdir().unwrap();
    let (connected, connections) = std::sync::mpsc::channel();
    let connector = Connector::new(move |_| {
        let (near, far) = std::os::unix::net::UnixStream::pair().map_err(|_| 1)?;
        connected.send(far).map_err(|_| 1)?;
        Ok(near.into())
    });
    let refresh = Refresh::start(cluster(place.path(), connector), Duration::from_millis(1)).unwrap();
    let _far = connections.recv_timeout(BUDGET).unwrap();
    refresh.stop();
}
