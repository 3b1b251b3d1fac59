//! The managed server: a node that keeps its identity and its view of the cluster in two files, so that it can be
//! started again with nothing but its directory.
//!
//! Not here: joining a cluster of others, which needs the protocol between nodes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::{Budget, Client};
use super::member::Member;
use super::node::Node;
use super::node_id;
use super::server_files::{
    NODE_STORE, SERVER_INFO, ServerInfo, decode_store, encode_store, read_or_create, replace,
};
use crate::base::{NodeId, Role, ids::BOOTSTRAP_IDS};
use crate::runtime::connect::Connector;
use crate::runtime::threads;

/// How long finding the cluster may take, at start and at each refresh.
const BUDGET: Duration = Duration::from_secs(5);

/// How often the list of servers is refreshed.
const REFRESH_PERIOD: Duration = Duration::from_secs(30);

/// How soon to ask again while no leader is known.
const LEADER_RETRY: Duration = Duration::from_millis(20);

/// A server, started or not.
pub struct Server {
    directory: PathBuf,
    address: Option<Vec<u8>>,
    bind_address: Option<Vec<u8>>,
    auto_bootstrap: bool,
    auto_join: Vec<Vec<u8>>,
    connector: Connector,
    id: NodeId,
    started: Option<Started>,
}

struct Started {
    node: Node,
    refresh: Refresh,
}

impl Server {
    /// A server that keeps its files in the directory `path`. Nothing is touched yet.
    #[must_use]
    pub fn new(path: &[u8]) -> Self {
        Self {
            directory: PathBuf::from(OsStr::from_bytes(path)),
            address: None,
            bind_address: None,
            auto_bootstrap: false,
            auto_join: Vec::new(),
            connector: Connector::default(),
            id: NodeId(0),
            started: None,
        }
    }

    /// Sets the address that others know the server by.
    pub fn set_address(&mut self, address: &[u8]) {
        self.address = Some(address.to_vec());
    }

    /// Sets the address to listen on, where it is another one.
    pub fn set_bind_address(&mut self, address: &[u8]) {
        self.bind_address = Some(address.to_vec());
    }

    /// Sets whether the first start makes a new cluster.
    pub fn set_auto_bootstrap(&mut self, on: bool) {
        self.auto_bootstrap = on;
    }

    /// Adds servers to join.
    pub fn add_auto_join(&mut self, addresses: &[&[u8]]) {
        self.auto_join.extend(addresses.iter().map(|address| address.to_vec()));
    }

    /// Sets how servers are reached, this one included; `None` is the default way.
    pub fn set_connector(&mut self, connector: Option<Connector>) {
        self.connector = connector.unwrap_or_default();
    }

    /// The node's id; 0 before the first start.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Starts the node and finds its cluster.
    ///
    /// # Errors
    /// In words, which the C API has no place for.
    pub fn start(&mut self) -> Result<(), String> {
        if self.started.is_some() {
            return Err("a stopped server expected, found a started one".to_owned());
        }
        if self.auto_bootstrap && !self.auto_join.is_empty() {
            return Err("either auto-bootstrap or servers to join expected, found both".to_owned());
        }
        let read = |name| read_or_create(&self.directory, name).map_err(|error| format!("{name}: {error}"));
        let (info, store) = (read(SERVER_INFO)?, read(NODE_STORE)?);
        let info = ServerInfo::decode(&info).map_err(|error| error.to_string())?;
        let store = decode_store(&store).map_err(|error| error.to_string())?;
        let new = info.is_none();
        if new && store.is_some() {
            return Err(format!("{NODE_STORE}: no servers expected without {SERVER_INFO}, found some"));
        }
        let info = info.map_or_else(|| self.new_info(), Ok)?;
        self.id = info.id;
        let mut node = self.start_node(&info)?;
        let found = replace(&self.directory, SERVER_INFO, &info.encode())
            .map_err(|error| format!("{SERVER_INFO}: {error}"))
            .and_then(|()| self.find_cluster(&info, new, store))
            .and_then(|(client, members)| {
                let cluster = Cluster {
                    directory: self.directory.clone(),
                    connector: self.connector.clone(),
                    client: Some(client),
                    members,
                };
                cluster.save().map_err(|error| format!("{NODE_STORE}: {error}"))?;
                Refresh::start(cluster).map_err(|error| format!("refresh thread: {error}"))
            });
        match found {
            Ok(refresh) => {
                self.started = Some(Started { node, refresh });
                Ok(())
            }
            Err(text) => {
                // The start has failed already; how the stop went does not matter.
                let _ = node.stop();
                Err(text)
            }
        }
    }

    /// As [`Self::start`], the text in the log.
    pub fn start_logged(&mut self) -> Option<()> {
        self.start().map_err(|text| log::warn!("server '{}': {text}", self.directory.display())).ok()
    }

    /// Who a server is that was never started.
    fn new_info(&self) -> Result<ServerInfo, String> {
        let address = self.address.as_deref().ok_or("an address expected, none was set")?;
        let id = if self.auto_bootstrap { BOOTSTRAP_IDS[1] } else { node_id::generate_now(address) };
        let address = String::from_utf8(address.to_vec()).ok().filter(|address| !address.contains('\n'));
        Ok(ServerInfo { address: address.ok_or("an address of one line of UTF-8 expected")?, id })
    }

    fn start_node(&self, info: &ServerInfo) -> Result<Node, String> {
        let address = info.address.as_bytes();
        let (mut node, failure) =
            Node::create(info.id, Some(address), Some(self.directory.as_os_str().as_bytes()));
        if let Some(failure) = failure {
            return Err(failure.to_string());
        }
        let started = node
            .set_connector(Some(self.connector.clone()))
            .and_then(|()| node.bind(self.bind_address.as_deref().unwrap_or(address)).map(drop))
            .and_then(|()| node.start());
        started.map_err(|failure| failure.to_string())?;
        Ok(node)
    }

    /// Connects to the leader and learns the servers of the cluster.
    fn find_cluster(
        &self,
        info: &ServerInfo,
        new: bool,
        store: Option<Vec<Member>>,
    ) -> Result<(Client, Vec<Member>), String> {
        let budget = Budget::new(BUDGET);
        if new && self.auto_bootstrap {
            let client = Client::connect(&self.connector, &info.address, &budget)?;
            let own = Member { id: info.id, address: info.address.clone().into_bytes(), role: Role::Voter };
            return Ok((client, vec![own]));
        }
        let addresses = match store {
            Some(members) => members.into_iter().map(|member| member.address).collect(),
            None => self.auto_join.clone(),
        };
        let mut client = connect_to_leader(&self.connector, &addresses, &budget)?;
        let members = client.cluster(&budget)?;
        if members.iter().any(|member| member.id == info.id) {
            Ok((client, members))
        } else {
            Err("joining a cluster of other servers is not supported by this release".to_owned())
        }
    }

    /// Gives leadership and the vote to other servers; `None` where nobody can take over or nothing runs.
    pub fn handover(&mut self) -> Option<()> {
        self.started.as_ref()?.node.handover().ok()
    }

    /// Stops the server; `None` where it does not run, or the node had failed.
    pub fn stop(&mut self) -> Option<()> {
        let Started { mut node, refresh } = self.started.take()?;
        refresh.stop();
        node.stop().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Goes to the leader. While none is known, which is so for a moment after each start, asks again as long as the
/// budget lasts.
fn connect_to_leader(
    connector: &Connector,
    addresses: &[Vec<u8>],
    budget: &Budget,
) -> Result<Client, String> {
    loop {
        if let Some(client) = ask_for_leader(connector, addresses, budget)? {
            return Ok(client);
        }
        if budget.left().is_none_or(|left| left < LEADER_RETRY) {
            return Err("a leader expected, none is known".to_owned());
        }
        std::thread::park_timeout(LEADER_RETRY);
    }
}

/// Asks the first of the servers that answers where the leader is, and goes there.
fn ask_for_leader(
    connector: &Connector,
    addresses: &[Vec<u8>],
    budget: &Budget,
) -> Result<Option<Client>, String> {
    let mut last = "a server to ask expected, none is known".to_owned();
    for address in addresses {
        let address = String::from_utf8_lossy(address);
        let asked = Client::connect(connector, &address, budget)
            .and_then(|mut client| client.leader(budget).map(|leader| (client, leader)));
        match asked {
            Ok((_, None)) => return Ok(None),
            Ok((client, Some((_, leader)))) if leader == address => return Ok(Some(client)),
            Ok((_, Some((_, leader)))) => return Client::connect(connector, &leader, budget).map(Some),
            Err(text) => last = text,
        }
    }
    Err(last)
}

/// The servers of the cluster as they were known last, and the connection to ask anew.
struct Cluster {
    directory: PathBuf,
    connector: Connector,
    client: Option<Client>,
    members: Vec<Member>,
}

impl Cluster {
    fn save(&self) -> std::io::Result<()> {
        replace(&self.directory, NODE_STORE, &encode_store(&self.members))
    }

    fn refresh(&mut self) -> Result<(), String> {
        let budget = Budget::new(BUDGET);
        let mut client = match self.client.take() {
            Some(client) => client,
            None => {
                let addresses: Vec<_> = self.members.iter().map(|member| member.address.clone()).collect();
                connect_to_leader(&self.connector, &addresses, &budget)?
            }
        };
        self.members = client.cluster(&budget)?;
        self.client = Some(client);
        self.save().map_err(|error| format!("{NODE_STORE}: {error}"))
    }
}

/// The thread that keeps the list of servers fresh.
struct Refresh {
    /// Dropping it wakes and ends the thread.
    wake: Sender<()>,
    thread: JoinHandle<()>,
}

impl Refresh {
    fn start(mut cluster: Cluster) -> std::io::Result<Self> {
        let (wake, woken): (Sender<()>, Receiver<()>) = channel();
        let thread = threads::start("dqlite-refresh", move || {
            while woken.recv_timeout(REFRESH_PERIOD) == Err(RecvTimeoutError::Timeout) {
                if let Err(text) = cluster.refresh() {
                    log::info!("the list of servers was not refreshed: {text}");
                }
            }
        })?;
        Ok(Self { wake, thread })
    }

    fn stop(self) {
        drop(self.wake);
        if self.thread.join().is_err() {
            log::error!("internal error: the refresh thread panicked");
        }
    }
}

#[cfg(test)]
#[path = "server/tests.rs"]
mod tests;
