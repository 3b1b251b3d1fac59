//! Several nodes in the test's own process, which form a cluster.

use std::collections::HashMap;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dqlite::base::{NodeId, Role};
use dqlite::runtime::NodeOptions;
use dqlite::runtime::connect::Connector;

use super::client::{Answer, Client, Value};
use super::node::TestNode;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whom nodes reach under which address: what they declare need not be where they listen.
#[derive(Clone, Default)]
struct Directory(Arc<Mutex<HashMap<String, String>>>);

impl Directory {
    fn connector(&self) -> Connector {
        let places = self.clone();
        Connector::new(move |address| {
            let place = places.0.lock().unwrap().get(address).cloned().ok_or(16)?;
            TcpStream::connect(place).map(OwnedFd::from).map_err(|_| 16)
        })
    }
}

/// Nodes 1 to n.
pub struct Cluster {
    nodes: Vec<TestNode>,
    places: Directory,
}

impl Cluster {
    /// Nodes that do not know each other yet; the first is a cluster of its own. Number `n` declares itself as
    /// 127.0.0.1:1978(n-1), as in the transcripts.
    pub fn apart(count: usize, change: impl Fn(&mut NodeOptions)) -> Self {
        let mut cluster = Self { nodes: Vec::new(), places: Directory::default() };
        for number in 1..=count {
            cluster.add_node(number, &change);
        }
        cluster
    }

    fn add_node(&mut self, number: usize, change: impl Fn(&mut NodeOptions)) {
        let (connector, declared) = (self.places.connector(), declared(number));
        let node = TestNode::start_with(|options| {
            options.id = NodeId(number as u64);
            options.address.clone_from(&declared);
            options.connector = connector;
            (options.heartbeat, options.election_timeout) =
                (Duration::from_millis(60), Duration::from_millis(600));
            change(options);
        });
        self.places.0.lock().unwrap().insert(declared, node.address().to_owned());
        self.nodes.push(node);
    }

    /// As many voters, the first of which leads.
    pub fn of(count: usize) -> Self {
        Self::with(count, |_| {})
    }

    /// The same, with other options.
    pub fn with(count: usize, change: impl Fn(&mut NodeOptions)) -> Self {
        let cluster = Self::apart(count, change);
        let mut client = cluster.connect(1);
        for number in 2..=count {
            assert_eq!(client.add(number as u64, &declared(number)), Answer::Empty);
            assert_eq!(client.assign(number as u64, Role::Voter), Answer::Empty);
        }
        cluster
    }

    /// The node with this number.
    pub fn node(&mut self, number: usize) -> &mut TestNode {
        &mut self.nodes[number - 1]
    }

    /// Starts the node anew, at another place and under another address.
    pub fn move_node(&mut self, number: usize, address: &str) {
        let node = &mut self.nodes[number - 1];
        node.stop();
        node.start_elsewhere(address);
        let mut places = self.places.0.lock().unwrap();
        places.remove(&declared(number));
        places.insert(address.to_owned(), node.address().to_owned());
    }

    /// A client of this node.
    #[track_caller]
    pub fn connect(&self, number: usize) -> Client {
        Client::connect(self.nodes[number - 1].address()).unwrap()
    }

    /// The same, if that works.
    pub fn try_connect(&self, number: usize) -> std::io::Result<Client> {
        Client::connect(self.nodes[number - 1].address())
    }

    /// Where the nodes listen.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address().to_owned()).collect()
    }

    /// The numbers of all nodes that run.
    pub fn running(&self) -> Vec<usize> {
        (1..=self.nodes.len()).filter(|number| self.nodes[number - 1].is_running()).collect()
    }

    /// The number of the node that leads and says so itself, once there is one.
    #[track_caller]
    pub fn leader(&self) -> usize {
        wait_for("a leader", || {
            self.running().into_iter().find(|number| {
                let own = Answer::Server { id: *number as u64, address: declared(*number) };
                self.connect(*number).leader() == own
            })
        })
    }

    /// A client of the leader, with the database open.
    #[track_caller]
    pub fn leader_client(&self, name: &str) -> (usize, Client) {
        wait_for("a leader that serves", || {
            let number = self.leader();
            let mut client = self.connect(number);
            (!matches!(client.open(name), Answer::Failure { .. })).then_some((number, client))
        })
    }

    /// Waits until all running nodes hold the same database; its bytes.
    #[track_caller]
    pub fn equal_dumps(&self, name: &str) -> Vec<u8> {
        wait_for("equal databases", || {
            let dumps = self.running().into_iter().map(|number| match self.connect(number).dump(name) {
                Answer::Files(files) => Some(files[0].1.clone()),
                _ => None,
            });
            let mut dumps: Vec<Vec<u8>> = dumps.collect::<Option<_>>()?;
            dumps.dedup();
            (dumps.len() == 1).then(|| dumps.remove(0))
        })
    }
}

/// The address by which the node with this number goes.
pub fn declared(number: usize) -> String {
    format!("127.0.0.1:{}", 19779 + number)
}

/// All integers that a query gives.
#[track_caller]
pub fn integers(client: &mut Client, sql: &str) -> Vec<i64> {
    let rows = client.query(sql, &[]).rows();
    let only = |row: &Vec<Value>| match row[..] {
        [Value::Integer(value)] => value,
        _ => panic!("one integer expected: {row:?}"),
    };
    rows.iter().map(only).collect()
}
