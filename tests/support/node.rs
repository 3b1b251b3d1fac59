//! A node in the test's own process, on a directory and a port of its own.

use std::path::Path;
use std::time::Duration;

use dqlite::base::NodeId;
use dqlite::node::snapshots::SnapshotPolicy;
use dqlite::runtime::connect::Connector;
use dqlite::runtime::listen::Listener;
use dqlite::runtime::settings::Settings;
use dqlite::runtime::{NodeOptions, RunningNode};
use tempfile::TempDir;

/// A running node. It stops when dropped; its directory goes with it.
pub struct TestNode {
    node: Option<RunningNode>,
    address: String,
    directory: TempDir,
    options: NodeOptions,
}

impl TestNode {
    /// A bootstrapped node with the C library's defaults.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same, with other options.
    pub fn start_with(change: impl FnOnce(&mut NodeOptions)) -> Self {
        // So that the whole suite can be run in another threading mode of SQLite, as the C API would.
        let settings = Settings::from_environment().unwrap();
        dqlite::sqlite::threads::initialise(settings.sqlite_threads).unwrap();
        let directory = TempDir::new().unwrap();
        let listener = Listener::bind(b"127.0.0.1:0").unwrap();
        let address = listener.ip_address().unwrap().to_string();
        let mut options = options(directory.path(), &address);
        change(&mut options);
        let node = RunningNode::start(options.clone(), listener).unwrap();
        Self { node: Some(node), address, directory, options }
    }

    /// Stops the node and starts it again on its directory, at the same address and with the same options.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Stops the node, if it runs. Other nodes see no more of it than when its process is killed.
    pub fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            assert_eq!(node.stop(), 0);
        }
    }

    /// Starts a stopped node on its directory, at the same address and with the same options.
    pub fn start_again(&mut self) {
        let listener = Listener::bind(self.address.as_bytes()).unwrap();
        self.node = Some(RunningNode::start(self.options.clone(), listener).unwrap());
    }

    /// Starts a stopped node on its directory, at another port, where it declares this address.
    pub fn start_elsewhere(&mut self, declared: &str) {
        let listener = Listener::bind(b"127.0.0.1:0").unwrap();
        self.address = listener.ip_address().unwrap().to_string();
        declared.clone_into(&mut self.options.address);
        self.node = Some(RunningNode::start(self.options.clone(), listener).unwrap());
    }

    /// Whether it was started and not stopped since.
    pub fn is_running(&self) -> bool {
        self.node.is_some()
    }

    /// Where clients find it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How long the turns of its loop took.
    pub fn loop_latency(&self) -> dqlite::base::latency::Latencies {
        self.node.as_ref().unwrap().loop_latency()
    }

    /// How many snapshots it has sent to others, and how many it has received.
    pub fn snapshots_sent_and_received(&self) -> (u64, u64) {
        let counts = self.node.as_ref().unwrap().report().unwrap().figures.snapshots;
        (counts.sent, counts.received)
    }

    /// Where it tells its figures, if it does and at an IP address.
    pub fn metrics_address(&self) -> Option<std::net::SocketAddr> {
        self.node.as_ref()?.metrics_address()
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop();
        }
    }
}

/// Options with the C library's defaults.
pub fn options(directory: &Path, address: &str) -> NodeOptions {
    NodeOptions {
        id: NodeId(1),
        address: address.to_owned(),
        directory: directory.to_owned(),
        heartbeat: Duration::from_millis(500),
        election_timeout: Duration::from_millis(3000),
        failure_domain: 0,
        snapshots: SnapshotPolicy::Default,
        block_size: None,
        auto_recovery: true,
        compression: true,
        busy_timeout: None,
        role_management: false,
        target_voters: 3,
        target_standbys: 0,
        connector: Connector::default(),
        settings: Settings::from_environment().unwrap(),
    }
}
