//! The managed server: a node that keeps its identity and its view of the cluster in two files, so that it can be
//! started again with nothing but its directory. How it finds the others and keeps an eye on them is in `cluster`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::member::Member;
use super::node::Node;
use super::node_id;
use super::server_files::{NODE_STORE, SERVER_INFO, ServerInfo, decode_store, read_or_create, replace};
use crate::base::{NodeId, Role, ids::BOOTSTRAP_IDS};
use crate::runtime::client::{Budget, Client};
use crate::runtime::connect::Connector;
use crate::runtime::settings::Settings;
use crate::runtime::trace;

mod cluster;

use cluster::{Cluster, Refresh, join};

/// How long finding the cluster may take, at start and at each refresh.
const BUDGET: Duration = Duration::from_secs(5);

/// A server, started or not.
pub struct Server {
    directory: PathBuf,
    address: Option<Vec<u8>>,
    bind_address: Option<Vec<u8>>,
    auto_bootstrap: bool,
    auto_join: Vec<Vec<u8>>,
    connector: Connector,
    refresh_period: Option<Duration>,
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
            refresh_period: None,
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

    /// Sets how often the list of servers is refreshed, instead of what the environment says.
    pub fn set_refresh_period(&mut self, period: Duration) {
        self.refresh_period = Some(period);
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
        let period = match self.refresh_period {
            Some(period) => period,
            None => Settings::from_environment()?.server_refresh,
        };
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
            .and_then(|()| self.find_cluster(&info, new, store.unwrap_or_default()))
            .and_then(|(client, members)| {
                let cluster = Cluster::new(self.directory.clone(), self.connector.clone(), client, members);
                cluster.save()?;
                Refresh::start(cluster, period).map_err(|error| format!("refresh thread: {error}"))
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
        // What fails before there is a node has to be seen as well.
        trace::install_from_environment();
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

    /// Connects to the leader, joins its cluster if need be, and learns the servers of it.
    ///
    /// A server that comes back to its cluster starts also when there is no leader for the moment: it may be the
    /// one that is missing for a majority. In C it does not, so a cluster that was stopped as a whole does not come
    /// back unless its servers are started again and again.
    fn find_cluster(
        &self,
        info: &ServerInfo,
        new: bool,
        store: Vec<Member>,
    ) -> Result<(Option<Client>, Vec<Member>), String> {
        let budget = Budget::new(BUDGET);
        let own = || Member { id: info.id, address: info.address.clone().into_bytes(), role: Role::Voter };
        if new && self.auto_bootstrap {
            let client = Client::connect(&self.connector, &info.address, &budget)?;
            return Ok((Some(client), vec![own()]));
        }
        let mut addresses: Vec<_> = store.iter().map(|member| member.address.clone()).collect();
        if addresses.is_empty() {
            addresses.clone_from(&self.auto_join);
        }
        if addresses.is_empty() && BOOTSTRAP_IDS.contains(&info.id) {
            // The start that made the cluster did not come as far as writing this down.
            addresses.push(own().address);
        }
        match join(&self.connector, &addresses, &own(), &budget) {
            Ok((client, members)) => Ok((Some(client), members)),
            Err(text) if store.iter().any(|member| member.id == info.id) => {
                log::warn!("server {}: the cluster was not found, looking on: {text}", info.id);
                Ok((None, store))
            }
            Err(text) => Err(text),
        }
    }

    /// Gives leadership and the vote to other servers; `None` where nobody can take over or nothing runs.
    pub fn handover(&mut self) -> Option<()> {
        self.running("handover")?.node.handover().ok()
    }

    fn running(&self, call: &str) -> Option<&Started> {
        if self.started.is_none() {
            log::warn!("server '{}': {call}: a server that runs expected", self.directory.display());
        }
        self.started.as_ref()
    }

    /// Stops the server; `None` where it does not run, or the node had failed.
    pub fn stop(&mut self) -> Option<()> {
        self.running("stop")?;
        let Started { mut node, refresh } = self.started.take()?;
        refresh.stop();
        node.stop().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.started.is_some() {
            self.stop();
        }
    }
}

#[cfg(test)]
#[path = "server/tests.rs"]
mod tests;
