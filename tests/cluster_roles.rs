//! Roles in a cluster of several nodes: the library gives them, and a node that leaves hands its own over.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dqlite::base::{NodeId, Role};
use dqlite::codec::client::{OwnedParams, Param, Request, Schema};
use dqlite::runtime::connect::Connector;
use dqlite::runtime::listen::Listener;
use dqlite::runtime::{NodeOptions, RunningNode};
use support::client::{Answer, Client, Value};
use support::local::{connect, connector, name, wait_for};
use support::node::options;
use tempfile::TempDir;

struct Member {
    id: u64,
    address: String,
    node: Option<RunningNode>,
    _directory: TempDir,
}

impl Member {
    fn node(&self) -> &RunningNode {
        self.node.as_ref().unwrap()
    }

    fn stop(&mut self) {
        assert_eq!(self.node.take().unwrap().stop(), 0);
    }
}

/// Nodes 1, 2 and so on, the first of which made the cluster.
struct Cluster {
    members: Vec<Member>,
}

impl Cluster {
    /// The first one votes, the others are spares. `change` sets what is special about a node.
    fn of_spares(count: u64, change: impl Fn(u64, &mut NodeOptions)) -> Self {
        let mut cluster = Self { members: Vec::new() };
        for id in 1..=count {
            cluster.start(id, &change);
            if id > 1 {
                let address = cluster.members.last().unwrap().address.clone();
                cluster.at(1).add(id, &address).ok();
            }
        }
        cluster
    }

    /// All vote but the last `spares`.
    fn new(voters: u64, spares: u64, change: impl Fn(u64, &mut NodeOptions)) -> Self {
        let cluster = Self::of_spares(voters + spares, change);
        for id in 2..=voters {
            cluster.assign(id, Role::Voter);
        }
        cluster
    }

    /// Starts a node, which is not a member by that.
    fn start(&mut self, id: u64, change: impl Fn(u64, &mut NodeOptions)) {
        let (directory, address) = (TempDir::new().unwrap(), name());
        let mut options = options(directory.path(), &address);
        options.id = NodeId(id);
        options.connector = connector();
        options.heartbeat = Duration::from_millis(150);
        options.election_timeout = Duration::from_millis(1000);
        change(id, &mut options);
        let listener = Listener::bind(address.as_bytes()).unwrap();
        let node = RunningNode::start(options, listener).unwrap();
        self.members.push(Member { id, address, node: Some(node), _directory: directory });
    }

    fn member(&mut self, id: u64) -> &mut Member {
        self.members.iter_mut().find(|member| member.id == id).unwrap()
    }

    /// A client of one node.
    fn at(&self, id: u64) -> Client {
        let member = self.members.iter().find(|member| member.id == id).unwrap();
        Client::connect(&member.address).unwrap()
    }

    /// The leader, as the nodes that run tell.
    fn find_leader(&self) -> Result<u64, String> {
        for member in self.members.iter().filter(|member| member.node.is_some()) {
            if let Ok(Answer::Server { id, .. }) = Client::connect(&member.address).and_then(|mut client| {
                client.set_patience(Duration::from_secs(1))?;
                client.call(&Request::Leader)
            }) && id != 0
                && self.members.iter().any(|member| member.id == id && member.node.is_some())
            {
                return Ok(id);
            }
        }
        Err("no leader".to_owned())
    }

    fn leader(&self) -> u64 {
        wait_for("a leader", || self.find_leader())
    }

    fn assign(&self, id: u64, role: Role) {
        wait_for("a change of roles", || match self.at(self.leader()).assign(id, role) {
            Answer::Empty => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// The roles as the leader knows them, in the order of the ids.
    fn roles(&self) -> Result<Vec<(u64, Role)>, String> {
        match self.at(self.find_leader()?).cluster() {
            Answer::Servers(servers) => {
                let mut roles: Vec<_> = servers.into_iter().map(|(id, _, role)| (id, role)).collect();
                roles.sort_unstable();
                Ok(roles)
            }
            other => Err(format!("{other:?}")),
        }
    }

    #[track_caller]
    fn wait_for_roles(&self, expected: &[Role]) {
        wait_for("the roles", || {
            let found: Vec<Role> = self.roles()?.into_iter().map(|(_, role)| role).collect();
            if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
        });
    }

    fn count(&self, wanted: Role) -> usize {
        self.roles().unwrap().iter().filter(|(_, role)| *role == wanted).count()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(node) = member.node.take() {
                node.stop();
            }
        }
    }
}

const V: Role = Role::Voter;
const S: Role = Role::StandBy;
const P: Role = Role::Spare;

/// Role management on every node; two nodes in each failure domain.
fn managed(voters: i32, standbys: i32) -> impl Fn(u64, &mut NodeOptions) {
    move |id, options| {
        options.role_management = true;
        (options.target_voters, options.target_standbys) = (voters, standbys);
        options.failure_domain = (id - 1) / 2;
    }
}

#[test]
fn spares_get_roles_by_failure_domain_and_lose_them_when_they_go() {
    // Alone, role management has nothing to change; then all spares are there at once.
    let mut cluster = Cluster::of_spares(1, managed(3, 1));
    for id in 2..=4 {
        cluster.start(id, managed(3, 1));
    }
    let mut client = cluster.at(1);
    for id in 2..=4 {
        let address = cluster.member(id).address.clone();
        wait_for("a new member", || match client.add(id, &address) {
            Answer::Empty => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    wait_for("three voters and a stand-by", || {
        let found = cluster.roles()?;
        let count = |wanted| found.iter().filter(|(_, role)| *role == wanted).count();
        if (count(V), count(S), count(P)) == (3, 1, 0) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let standby = cluster.roles().unwrap().into_iter().find(|(_, role)| *role == S).unwrap().0;
    cluster.member(standby).stop();
    wait_for("a spare in its place", || {
        let found = cluster.roles()?;
        if found.contains(&(standby, P)) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    assert_eq!(cluster.count(V), 3);
}

#[test]
fn a_voter_that_is_gone_is_replaced_by_a_spare() {
    let mut cluster = Cluster::new(3, 0, |_, options| options.role_management = true);
    cluster.wait_for_roles(&[V, V, V]);
    cluster.start(4, |_, options| options.role_management = true);
    let address = cluster.member(4).address.clone();
    cluster.at(cluster.leader()).add(4, &address).ok();
    let gone = if cluster.leader() == 2 { 3 } else { 2 };
    cluster.member(gone).stop();
    wait_for("the spare to vote", || {
        let found = cluster.roles()?;
        if found.contains(&(gone, P)) && found.contains(&(4, V)) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    // The cluster works on.
    let leader = cluster.members.iter().find(|member| member.id == cluster.leader()).unwrap();
    let mut client = Client::with_database(&leader.address, "test");
    client.exec("CREATE TABLE t(n)", &[]).ok();
}

#[test]
fn targets_may_change_while_nodes_run_and_light_nodes_come_first() {
    let cluster = Cluster::of_spares(3, |_, options| {
        options.role_management = true;
        options.target_voters = 1;
    });
    cluster.at(2).weight(7).ok();
    for member in &cluster.members {
        member.node().set_role_targets(1, 1);
    }
    cluster.wait_for_roles(&[V, P, S]);
}

#[test]
fn a_connect_function_that_hangs_for_one_node_holds_up_neither_roles_nor_the_stop() {
    let calls = Arc::new(AtomicU64::new(0));
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Arc::new(std::sync::Mutex::new(released));
    let (stuck, counted) = (name(), Arc::clone(&calls));
    let hangs = stuck.clone();
    let hanging = Connector::new(move |address| -> Result<OwnedFd, i32> {
        if address == hangs {
            counted.fetch_add(1, Ordering::SeqCst);
            // Ends when the test does.
            let _ = released.lock().unwrap().recv();
            return Err(16);
        }
        connect(address)
    });
    let mut cluster = Cluster::of_spares(2, |_, options| {
        options.role_management = true;
        (options.target_voters, options.target_standbys) = (1, 1);
        options.connector = hanging.clone();
    });
    cluster.at(1).add(9, &stuck).ok();
    cluster.wait_for_roles(&[V, S, P]);
    cluster.member(1).stop();
    assert!(calls.load(Ordering::SeqCst) <= 4, "{calls:?}");
    drop(release);
}

#[test]
fn a_leader_and_a_voter_hand_over_and_spares_take_their_votes() {
    let mut cluster = Cluster::new(3, 2, |_, _| {});
    let first = cluster.leader();
    let voter = (1..=3).find(|id| *id != first).unwrap();
    cluster.member(voter).node().hand_over().unwrap();
    assert_eq!(cluster.leader(), first, "leadership was not there");
    assert_eq!((cluster.count(V), cluster.count(P)), (3, 2));
    assert!(cluster.roles().unwrap().contains(&(voter, P)));

    cluster.member(first).node().hand_over().unwrap();
    let second = cluster.leader();
    assert_ne!(second, first);
    assert_eq!((cluster.count(V), cluster.count(P)), (3, 2));
    let roles = cluster.roles().unwrap();
    assert!(roles.contains(&(first, P)), "{roles:?}");
    // Whoever handed over can go, and nobody notices.
    cluster.member(first).stop();
    let leader = cluster.members.iter().find(|member| member.id == second).unwrap();
    Client::with_database(&leader.address, "test").exec("CREATE TABLE t(n)", &[]).ok();
}

#[test]
fn a_leader_of_voters_only_hands_over_leadership_though_nobody_takes_its_vote() {
    let mut cluster = Cluster::new(3, 0, |_, _| {});
    let first = cluster.leader();
    let told = cluster.member(first).node().hand_over().unwrap_err();
    assert_eq!(told, "a server to take the vote expected, none answers");
    assert_ne!(cluster.leader(), first);
    cluster.wait_for_roles(&[V, V, V]);
}

#[test]
fn whoever_has_no_vote_or_nobody_to_take_it_is_told_at_once() {
    let mut cluster = Cluster::of_spares(2, |_, _| {});
    cluster.start(3, |_, _| {});
    for (id, who) in [(1, "the only voter"), (2, "a spare"), (3, "a node that was never added")] {
        let told = cluster.member(id).node().hand_over().unwrap_err();
        assert_eq!(told, "another voter to take over expected, found none", "{who}");
    }
}

/// What a client met while it wrote.
#[derive(Debug, Default)]
struct Written {
    rows: i64,
    errors: Vec<String>,
}

/// Writes rows through whoever leads until told to stop.
fn write(addresses: &[String], stop: &AtomicBool) -> Written {
    let mut written = Written::default();
    let mut client = None;
    while !stop.load(Ordering::SeqCst) {
        let Some(open) = &mut client else {
            client = addresses.iter().find_map(|address| open_leader(address));
            continue;
        };
        let params = OwnedParams::new(&[] as &[Param<'_>]);
        let sql = b"INSERT INTO t VALUES(1)";
        let insert = Request::ExecSql { schema: Schema::V0, db: 0, sql, params: params.view() };
        match open.call(&insert) {
            Ok(Answer::Result { .. }) => written.rows += 1,
            other => {
                written.errors.push(format!("{other:?}"));
                client = None;
            }
        }
    }
    written
}

/// A client of the node at this address, if that leads.
fn open_leader(address: &str) -> Option<Client> {
    let mut client = Client::connect(address).ok()?;
    let leads = matches!(client.call(&Request::Leader), Ok(Answer::Server { address: found, .. }) if found == address);
    if !leads {
        return None;
    }
    let open = Request::Open { filename: b"test", flags: 0, vfs: b"" };
    matches!(client.call(&open), Ok(Answer::Db { .. })).then_some(client)
}

#[test]
fn a_hand_over_and_stop_of_the_leader_costs_each_client_one_error_at_most_and_no_row() {
    let mut cluster = Cluster::new(3, 1, |_, _| {});
    let first = cluster.leader();
    let addresses: Vec<String> = cluster.members.iter().map(|member| member.address.clone()).collect();
    open_leader(&cluster.member(first).address).unwrap().exec("CREATE TABLE t(n)", &[]).ok();
    let stop = AtomicBool::new(false);
    let written: Vec<Written> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4).map(|_| scope.spawn(|| write(&addresses, &stop))).collect();
        let rows = |cluster: &Cluster, least: i64| {
            wait_for("rows", || {
                let leader = cluster.find_leader()?;
                let leader = cluster.members.iter().find(|member| member.id == leader).unwrap();
                let mut client = open_leader(&leader.address).ok_or("no leader")?;
                match client.query("SELECT count(*) FROM t", &[]).rows()[..] {
                    [ref row] if matches!(row[0], Value::Integer(n) if n >= least) => Ok(()),
                    ref other => Err(format!("{other:?}")),
                }
            });
        };
        rows(&cluster, 20);
        cluster.member(first).node().hand_over().unwrap();
        cluster.member(first).stop();
        rows(&cluster, 60);
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    for writer in &written {
        assert!(writer.errors.len() <= 1, "{:?}", writer.errors);
    }
    let leader = cluster.leader();
    let mut client = open_leader(&cluster.member(leader).address).unwrap();
    let rows = client.query("SELECT count(*) FROM t", &[]).integer();
    let acknowledged: i64 = written.iter().map(|writer| writer.rows).sum();
    let errors = i64::try_from(written.iter().map(|writer| writer.errors.len()).sum::<usize>()).unwrap();
    assert!(
        (acknowledged..=acknowledged + errors).contains(&rows),
        "{rows} rows, {acknowledged} acknowledged"
    );
}
