//! A node as a program holds it: created, configured, bound, started, stopped, never started twice.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::config::{NodeConfig, SnapshotParams, Trailing};
use super::directory;
use super::failure::{Code, Failure};
use super::member::Member;
use super::recover::{self, LastEntry};
use crate::base::NodeId;
use crate::disk::DirectoryLock;
use crate::node::snapshots::SnapshotPolicy;
use crate::runtime::connect::Connector;
use crate::runtime::listen::Listener;
use crate::runtime::settings::Settings;
use crate::runtime::{NodeOptions, RunningNode, trace};
use crate::sqlite::threads;

/// A node and where it is in its life.
pub struct Node {
    config: NodeConfig,
    connector: Connector,
    /// What the environment said when the node was created; a mistake in it comes out at start.
    settings: Result<Settings, String>,
    /// Why the last address was refused that should have been bound, in brackets; or nothing.
    refused_address: String,
    phase: Phase,
}

enum Phase {
    /// Create or start failed: good for nothing any more.
    Failed,
    /// Perhaps with an address.
    Created(Option<Listener>),
    /// Clients are served.
    Running(RunningNode),
    /// A start needs a new node.
    Stopped,
}

impl Node {
    /// A node for the data directory `directory`. There is one even where that is refused, to hold the error.
    #[must_use]
    pub fn create(id: NodeId, address: Option<&[u8]>, directory: Option<&[u8]>) -> (Self, Option<Failure>) {
        let path = PathBuf::from(OsStr::from_bytes(directory.unwrap_or_default()));
        let config = NodeConfig::new(id, address.unwrap_or_default().to_vec(), path);
        let failure = if address.is_none() {
            Some(Failure::misuse("dqlite_node_create(): an address expected, found NULL"))
        } else if directory.is_none() {
            Some(Failure::misuse("dqlite_node_create(): a data directory expected, found NULL"))
        } else {
            directory::prepare(&config.directory).err().map(Failure::error)
        };
        let phase = if failure.is_some() { Phase::Failed } else { Phase::Created(None) };
        // The earliest moment: what the host wants of SQLite, it has configured before it creates a node.
        let settings = Settings::from_environment().and_then(|settings| {
            let mode = threads::initialise(settings.sqlite_threads).map_err(|error| error.to_string())?;
            if mode.single {
                log::info!(
                    "SQLite is in single-thread mode: the library takes turns (locked: {}); a host that uses SQLite \
                     itself is better off with threads (go-dqlite: GO_DQLITE_MULTITHREAD=1)",
                    mode.locked
                );
            }
            Ok(settings)
        });
        let refused_address = String::new();
        (Self { config, connector: Connector::default(), settings, refused_address, phase }, failure)
    }

    /// Changes a setting that is fixed once the node runs.
    ///
    /// # Errors
    /// `DQLITE_MISUSE` while the node runs, or what `change` answers.
    pub fn configure<R>(
        &mut self,
        change: impl FnOnce(&mut NodeConfig) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        self.not_running()?;
        change(&mut self.config)
    }

    /// Changes a setting that may change at any time.
    pub fn adjust(&mut self, change: impl FnOnce(&mut NodeConfig)) {
        change(&mut self.config);
        if let Phase::Running(running) = &self.phase {
            running.set_role_targets(self.config.target_voters, self.config.target_standbys);
        }
    }

    /// Sets the failure domain, at once.
    pub fn set_failure_domain(&mut self, code: u64) {
        self.config.failure_domain = code;
        if let Phase::Running(running) = &self.phase {
            running.set_failure_domain(code);
        }
    }

    /// Sets how peers are reached; `None` is the default way.
    ///
    /// # Errors
    /// `DQLITE_MISUSE` while the node runs.
    pub fn set_connector(&mut self, connector: Option<Connector>) -> Result<(), Failure> {
        self.not_running()?;
        self.connector = connector.unwrap_or_default();
        Ok(())
    }

    /// Binds the address, and lets go of the last one. Answers the address as it is reported.
    ///
    /// # Errors
    /// `DQLITE_MISUSE` while the node runs; `DQLITE_ERROR` where the address cannot be had. Then the last one
    /// stays.
    pub fn bind(&mut self, address: &[u8]) -> Result<Vec<u8>, Failure> {
        self.not_running()?;
        let listener = Listener::bind(address).map_err(|error| {
            let address = String::from_utf8_lossy(address);
            let text = format!("dqlite_node_set_bind_address(): '{address}': {error}");
            self.refused_address = format!(" ({text})");
            Failure::error(text)
        })?;
        let reported = listener.reported().to_vec();
        match &mut self.phase {
            Phase::Created(place) => *place = Some(listener),
            Phase::Failed | Phase::Running(_) | Phase::Stopped => {
                let text = "bind: a new node expected, found one that failed or was stopped";
                return Err(Failure::logged(Code::Misuse, text));
            }
        }
        Ok(reported)
    }

    /// Starts serving.
    ///
    /// # Errors
    /// Why not, in words. The node cannot be used any more then, except where it runs already.
    pub fn start(&mut self) -> Result<(), Failure> {
        trace::install_from_environment();
        match &self.phase {
            Phase::Created(Some(_)) => {}
            Phase::Running(_) => return Err(self.in_use()),
            Phase::Created(None) => {
                let text = format!(
                    "dqlite_node_start(): a bind address expected, none was set{}",
                    self.refused_address
                );
                return Err(Failure::misuse(text));
            }
            Phase::Failed | Phase::Stopped => {
                return Err(Failure::misuse("dqlite_node_start(): a new node expected, found a used one"));
            }
        }
        let options = self.options()?;
        let Phase::Created(Some(listener)) = std::mem::replace(&mut self.phase, Phase::Failed) else {
            return Err(Failure::silent(Code::Misuse));
        };
        let running = RunningNode::start(options, listener)
            .map_err(|error| Failure { code: start_code(error.code), text: Some(error.text) })?;
        self.phase = Phase::Running(running);
        log::debug!("node {}: serves '{}'", self.config.id, self.config.directory.display());
        Ok(())
    }

    /// The node has the lock itself; the text is that of a second node.
    fn in_use(&self) -> Failure {
        match DirectoryLock::take(&self.config.directory) {
            Err(error) => Failure::error(error.to_string()),
            Ok(_) => Failure::error("couldn't lock the raft directory: the node runs already"),
        }
    }

    /// Stops serving and answers what came of the node's work: 0, or a code.
    ///
    /// # Errors
    /// `DQLITE_MISUSE` where the node does not run.
    pub fn stop(&mut self) -> Result<(), Failure> {
        self.running("stop")?;
        let Phase::Running(running) = std::mem::replace(&mut self.phase, Phase::Stopped) else {
            return Ok(());
        };
        let result = running.stop();
        log::debug!("node {}: stopped with {result}", self.config.id);
        if result == 0 {
            return Ok(());
        }
        let text = format!("stop: node {} had failed before, with {result}", self.config.id);
        Err(Failure::logged(start_code(result), text))
    }

    /// Gives leadership and the vote to other nodes, as far as there are any.
    ///
    /// # Errors
    /// `DQLITE_MISUSE` where the node does not run, `DQLITE_ERROR` where nobody can take over.
    pub fn handover(&self) -> Result<(), Failure> {
        self.running("handover")?.hand_over().map_err(|text| {
            // The usual answer in a cluster of voters only.
            log::info!("node {}: nothing more to hand over: {text}", self.config.id);
            Failure::silent(Code::Error)
        })
    }

    /// Makes `members` the whole cluster, from the end of this node's log on.
    ///
    /// # Errors
    /// `DQLITE_ERROR` where the directory is in use or cannot be loaded.
    pub fn recover(&mut self, members: Vec<Member>) -> Result<(), Failure> {
        trace::install_from_environment();
        match &self.phase {
            // The lock refuses a running node.
            Phase::Created(_) | Phase::Running(_) | Phase::Stopped => recover::recover(&self.config, members),
            Phase::Failed => {
                Err(Failure::misuse("raft_recover(): a new node expected, found one that failed"))
            }
        }
    }

    /// The last entry of the node's log.
    ///
    /// # Errors
    /// `DQLITE_MISUSE` while the node runs, `DQLITE_ERROR` where the log cannot be loaded.
    pub fn describe_last_entry(&self) -> Result<LastEntry, Failure> {
        match &self.phase {
            Phase::Created(_) | Phase::Stopped => recover::describe_last_entry(&self.config),
            Phase::Failed | Phase::Running(_) => Err(Failure::misuse(
                "dqlite_node_describe_last_entry(): a node that was neither started nor failed expected",
            )),
        }
    }

    fn not_running(&self) -> Result<(), Failure> {
        match &self.phase {
            Phase::Failed | Phase::Created(_) | Phase::Stopped => Ok(()),
            Phase::Running(_) => {
                let text =
                    format!("setting: a node that does not run expected, node {} does", self.config.id);
                Err(Failure::logged(Code::Misuse, text))
            }
        }
    }

    fn running(&self, call: &str) -> Result<&RunningNode, Failure> {
        match &self.phase {
            Phase::Running(running) => Ok(running),
            Phase::Failed | Phase::Created(_) | Phase::Stopped => {
                let text = format!("{call}: a node that runs expected, node {} does not", self.config.id);
                Err(Failure::logged(Code::Misuse, text))
            }
        }
    }

    fn options(&self) -> Result<NodeOptions, Failure> {
        let config = &self.config;
        let address = std::str::from_utf8(&config.address)
            .map_err(|_| Failure::error("dqlite_node_start(): an address in UTF-8 expected"))?;
        Ok(NodeOptions {
            id: config.id,
            address: address.to_owned(),
            directory: config.directory.clone(),
            heartbeat: config.heartbeat,
            election_timeout: config.election_timeout,
            failure_domain: config.failure_domain,
            snapshots: policy(config.snapshots),
            block_size: config.block_size,
            auto_recovery: config.auto_recovery,
            compression: config.compression,
            busy_timeout: config.busy_timeout,
            role_management: config.role_management,
            target_voters: config.target_voters,
            target_standbys: config.target_standbys,
            connector: self.connector.clone(),
            settings: self.settings.clone().map_err(Failure::error)?,
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if matches!(self.phase, Phase::Running(_)) {
            // Nobody is left to hear the result.
            let _ = self.stop();
        }
    }
}

fn policy(params: Option<SnapshotParams>) -> SnapshotPolicy {
    match params {
        None => SnapshotPolicy::Default,
        Some(SnapshotParams { threshold, trailing, strategy }) => {
            SnapshotPolicy::Given { threshold, trailing, dynamic: strategy == Trailing::Dynamic }
        }
    }
}

fn start_code(code: i32) -> Code {
    match code {
        2 => Code::Misuse,
        3 => Code::NoMemory,
        _ => Code::Error,
    }
}
