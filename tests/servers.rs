//! Managed servers: how they make, join, leave and find their cluster, and the files that they keep of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "reads the servers' files; servers join from threads")]

mod support;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use dqlite::admin::Server;
use dqlite::base::Role;
use support::client::{Answer, Client};
use support::local::{connector, name, wait_for};
use tempfile::TempDir;

/// The id of every first server.
const FIRST: u64 = 0x2dc1_7185_8c31_55be;

/// A server, its directory and its address.
struct Managed {
    server: Server,
    directory: TempDir,
    address: String,
}

impl Managed {
    /// A server that was never started. Without `join` it makes a cluster.
    fn new(join: &[&str]) -> Self {
        let (directory, address) = (TempDir::new().unwrap(), name());
        let mut server = open(directory.path());
        server.set_address(address.as_bytes());
        server.set_auto_bootstrap(join.is_empty());
        server.add_auto_join(&join.iter().map(|address| address.as_bytes()).collect::<Vec<_>>());
        Self { server, directory, address }
    }

    fn started(join: &[&str]) -> Self {
        let mut managed = Self::new(join);
        managed.server.start().unwrap();
        managed
    }

    /// The same server in a new process, which knows nothing but the directory.
    fn reopen(&mut self) {
        self.server = open(self.directory.path());
    }

    fn id(&self) -> u64 {
        self.server.id().0
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    /// Waits until the refreshed list is this.
    fn wait_for_store(&self, expected: &str) {
        wait_for("the list of servers", || {
            let found = self.file("node-store");
            if found == expected { Ok(()) } else { Err(format!("{found}, not {expected}")) }
        });
    }
}

fn open(directory: &Path) -> Server {
    let mut server = Server::new(directory.as_os_str().as_bytes());
    server.set_connector(Some(connector()));
    server.set_refresh_period(Duration::from_millis(50));
    server
}

/// The text of a list of servers.
fn store(servers: &[(&Managed, &str)]) -> String {
    let lines =
        servers.iter().map(|(managed, role)| format!("{}\n{}\n{role}\n", managed.address, managed.id()));
    format!("v1\n{}", lines.collect::<String>())
}

/// The servers as the node at `address` lists them.
fn listed(address: &str) -> Vec<u64> {
    match Client::connect(address).unwrap().cluster() {
        Answer::Servers(servers) => servers.into_iter().map(|(id, ..)| id).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn servers_join_as_spares_and_everybody_hears_of_everybody() {
    let first = Managed::started(&[]);
    assert_eq!(first.id(), FIRST);
    assert_eq!(first.file("server-info"), format!("v1\n{}\n{FIRST}\n", first.address));
    assert_eq!(first.file("node-store"), store(&[(&first, "voter")]));

    let second = Managed::started(&[&first.address]);
    let third = Managed::started(&[&first.address, &second.address]);
    assert_eq!(second.file("server-info"), format!("v1\n{}\n{}\n", second.address, second.id()));
    let all =
        |servers: [&Managed; 2]| store(&[(&first, "voter"), (servers[0], "spare"), (servers[1], "spare")]);
    // The order is that of the ids, or that of joining.
    let expected = if listed(&first.address)[1] == second.id() {
        all([&second, &third])
    } else {
        all([&third, &second])
    };
    assert_eq!(third.file("node-store"), expected, "as the cluster was when it joined");
    for managed in [&first, &second] {
        managed.wait_for_store(&expected);
    }
}

#[test]
fn a_server_comes_back_with_nothing_but_its_directory() {
    let mut first = Managed::started(&[]);
    let mut second = Managed::started(&[&first.address]);
    let id = second.id();
    second.server.stop().unwrap();
    assert_eq!(second.server.stop(), None, "it is stopped already");
    // With the same handle, and with a new one which says something else.
    second.server.start().unwrap();
    second.reopen();
    second.server.set_address(b"@elsewhere");
    second.server.set_auto_bootstrap(true);
    second.server.start().unwrap();
    assert_eq!(second.id(), id);
    first.reopen();
    first.server.start().unwrap();
    assert_eq!(first.id(), FIRST);
    assert_eq!(listed(&first.address).len(), 2, "nobody joined twice");
}

#[test]
fn servers_join_by_way_of_one_that_does_not_lead() {
    let first = Managed::started(&[]);
    let second = Managed::started(&[&first.address]);
    // A spare knows no leader; there is nobody else to ask.
    let mut stranger = Managed::new(&[&second.address]);
    assert!(stranger.server.start().is_err());
    let mut third = Managed::new(&["@nobody", &second.address, &first.address]);
    third.server.start().unwrap();
    assert_eq!(listed(&first.address).len(), 3);
    // Told of another server it joins in the end, under the identity that it took then.
    let id = stranger.id();
    stranger.reopen();
    stranger.server.add_auto_join(&[first.address.as_bytes()]);
    stranger.server.start().unwrap();
    assert_eq!(stranger.id(), id);
    assert!(listed(&first.address).contains(&id));
}

#[test]
fn many_servers_join_at_the_same_time() {
    let first = Managed::started(&[]);
    let joiners: Vec<Managed> = std::thread::scope(|scope| {
        let join = || scope.spawn(|| Managed::started(&[&first.address]));
        let threads: Vec<_> = (0..6).map(|_| join()).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut expected: Vec<u64> = joiners.iter().map(Managed::id).chain([FIRST]).collect();
    let mut found = listed(&first.address);
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn an_address_that_a_member_has_is_refused_in_words() {
    let first = Managed::started(&[]);
    let mut second = Managed::started(&[&first.address]);
    second.server.stop().unwrap();
    // Its directory is lost.
    let place = TempDir::new().unwrap();
    let mut again = open(place.path());
    again.set_address(second.address.as_bytes());
    again.add_auto_join(&[first.address.as_bytes()]);
    assert_eq!(again.start().unwrap_err(), "joining the cluster: failure 1 'server address already in use'");
}

/// Has whoever leads make the server a voter.
fn promote(managed: &Managed, servers: &[&Managed]) {
    wait_for("a new voter", || {
        let mut client = Client::connect(&leader(servers)?.address).map_err(|error| error.to_string())?;
        match client.assign(managed.id(), Role::Voter) {
            Answer::Empty => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// The server that says that it leads.
fn leader<'a>(servers: &[&'a Managed]) -> Result<&'a Managed, String> {
    let leads = |managed: &Managed| {
        let client = Client::connect(&managed.address);
        client.is_ok_and(
            |mut client| matches!(client.leader(), Answer::Server { id, .. } if id == managed.id()),
        )
    };
    servers.iter().find(|managed| leads(managed)).copied().ok_or_else(|| "no leader".to_owned())
}

fn three_voters() -> [Managed; 3] {
    let first = Managed::started(&[]);
    let second = Managed::started(&[&first.address]);
    promote(&second, &[&first]);
    let third = Managed::started(&[&first.address]);
    promote(&third, &[&first, &second]);
    for managed in [&first, &second, &third] {
        wait_for("three voters", || {
            let found = managed.file("node-store");
            if found.matches("voter\n").count() == 3 { Ok(()) } else { Err(found) }
        });
    }
    [first, second, third]
}

#[test]
fn servers_that_were_all_stopped_come_back_one_after_another() {
    let mut servers = three_voters();
    for managed in &mut servers {
        managed.server.stop().unwrap();
        managed.reopen();
    }
    // Alone, the first one cannot find a leader; it starts all the same.
    for managed in servers.iter_mut().rev() {
        managed.server.start().unwrap();
    }
    let all: Vec<&Managed> = servers.iter().collect();
    let led = wait_for("a leader", || leader(&all));
    let mut client = Client::with_database(&led.address, "test");
    client.exec("CREATE TABLE t(n)", &[]).ok();
}

#[test]
fn a_leader_hands_over_before_it_stops_and_comes_back_to_the_new_one() {
    let mut servers = three_voters();
    let all: Vec<&Managed> = servers.iter().collect();
    let id = wait_for("a leader", || leader(&all)).id();
    let at = servers.iter().position(|managed| managed.id() == id).unwrap();
    // Nobody is there to take its vote, but leadership has moved.
    assert_eq!(servers[at].server.handover(), None);
    let all: Vec<&Managed> = servers.iter().collect();
    assert_ne!(wait_for("another leader", || leader(&all)).id(), id);
    servers[at].server.stop().unwrap();
    servers[at].reopen();
    servers[at].server.start().unwrap();
    assert_eq!(servers[at].id(), id);
}
