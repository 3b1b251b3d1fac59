//! Starting and stopping a node: from a directory and a bound socket to threads that serve.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use mio::{Interest, Poll, Waker};

use super::clock::{self, Clock};
use super::connect::Connector;
use super::deletions;
use super::habits::Habits;
use super::handover::Leaving;
use super::inquiry::Inquiry;
use super::listen::Listener;
use super::mailbox::mailbox;
use super::metrics::server::Registration;
use super::metrics::{Meters, Probe, Report};
use super::net::Acceptor;
use super::peers::Peers;
use super::peers::dial::Dials;
use super::settings::Settings;
use super::shell::{self, Desk, Duty, LISTEN, Message, Phase, Shell, Sockets, WAKE};
use super::slot::Slot;
use super::sql_pool::SqlPool;
use super::storing::Storing;
use super::threads;
use super::verify;
use crate::base::latency::Latencies;
use crate::base::{Index, NodeId, Prng, Term};
use crate::consensus::{self, SnapshotMeta};
use crate::disk::DirectoryLock;
use crate::disk::real::RealDisk;
use crate::engine::Patience;
use crate::node::core::Restored;
use crate::node::snapshots::SnapshotPolicy;
use crate::node::{Core, CoreConfig};
use crate::roles::Targets;
use crate::sqlite::memory;
use crate::sqlite::set_progress_hook;
use crate::storage::loader::{self, LoadOptions, Loaded};
use crate::storage::writer::{Writer, WriterConfig, WriterState};

/// Everything that a program set before the start.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The node's id.
    pub id: NodeId,
    /// The address that other nodes and clients know it by.
    pub address: String,
    /// Its directory.
    pub directory: PathBuf,
    /// The time between two heartbeats.
    pub heartbeat: Duration,
    /// The election timeout; each node draws from one to two times this.
    pub election_timeout: Duration,
    /// Reported by describe.
    pub failure_domain: u64,
    /// When snapshots are taken and how much log stays.
    pub snapshots: SnapshotPolicy,
    /// The unit of writes to the log, in bytes.
    pub block_size: Option<u64>,
    /// Whether damaged segments may be put aside at start.
    pub auto_recovery: bool,
    /// Whether snapshots are compressed.
    pub compression: bool,
    /// What `dqlite_node_set_busy_timeout` said, if it was called.
    pub busy_timeout: Option<Duration>,
    /// Whether the library manages roles.
    pub role_management: bool,
    /// How many voters role management aims at.
    pub target_voters: i32,
    /// How many stand-bys role management aims at.
    pub target_standbys: i32,
    /// How other nodes are reached.
    pub connector: Connector,
    /// What the environment says.
    pub settings: Settings,
}

/// Why a node did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// A `DQLITE_*` code.
    pub code: i32,
    /// What the program gets as error message.
    pub text: String,
}

impl StartError {
    fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StartError {}

/// A node that serves.
pub struct RunningNode {
    desk: Desk,
    dials: Dials,
    probe: Probe,
    /// Figures are told as long as it is there.
    told: Mutex<Option<Box<Registration>>>,
    inquiry: Inquiry,
    id: NodeId,
    election_timeout: Duration,
    /// The disk thread, and the one that prepares segments, which ends when nobody can ask it any more.
    disk: Mutex<Vec<JoinHandle<()>>>,
}

/// How long a start waits for the node to lead when nobody else can.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// How long a stop waits for connect functions that are running.
const DIAL_PATIENCE: Duration = Duration::from_secs(1);

/// Pages of every database have this size, as in every C node.
const PAGE_BYTES: u32 = 4096;

impl RunningNode {
    /// Loads the directory, starts the threads and returns once clients can connect. If nobody else has a vote,
    /// they find a leader then: programs take that for granted.
    ///
    /// # Errors
    /// The directory is in use or cannot be loaded, or the socket cannot listen. Nothing is modified then,
    /// except what loading repairs.
    pub fn start(options: NodeOptions, listener: Listener) -> Result<Self, StartError> {
        let lock =
            DirectoryLock::take(&options.directory).map_err(|error| StartError::new(error.to_string()))?;
        let mut directory =
            RealDisk::open(&options.directory).map_err(|error| StartError::new(error.to_string()))?;
        let bootstrapped = loader::bootstrap(&mut directory, options.id, &options.address)
            .map_err(|error| StartError::new(format!("raft_bootstrap(): {error}")))?;
        let load =
            LoadOptions { auto_recovery: options.auto_recovery, id: options.id, wall_ns: clock::wall_ns() };
        let loaded = loader::load_checked(&mut directory, &load, &verify::check)
            .map_err(|error| StartError::new(format!("raft_start(): {error}")))?;
        loaded.notes.iter().for_each(|note| log::warn!("{note}"));
        listener.listen().map_err(StartError::new)?;
        let acceptor = Acceptor::from(listener);
        let clock = Clock::start();
        let writer_state = WriterState::from(&loaded);
        let snapshot_time = loaded.newest_snapshot_time;
        let restored = restored(loaded, bootstrapped).map_err(StartError::new)?;
        let mut core = Core::new(core_config(&options), restored, clock.now())
            .map_err(|text| StartError::new(format!("raft_start(): {text}")))?;
        // Whole segments were read, and are not needed any more.
        memory::reclaim();
        core.set_reader_limits(options.settings.readers);
        if options.role_management {
            let targets = Targets { voters: options.target_voters, standbys: options.target_standbys };
            core.enable_role_management(targets, clock.now());
        }
        let meters = Arc::<Meters>::default();
        let directory = directory.deleting_by(deletions::close_aside);
        let writer = Writer::new(directory.metered(&meters.log), writer_state, writer_config(&options));
        Self::spawn(Parts { options, lock, directory, acceptor, clock, core, writer, snapshot_time, meters })
            .map_err(|error| StartError::new(format!("the node's threads could not be started: {error}")))
    }

    fn spawn(parts: Parts) -> std::io::Result<Self> {
        let Parts { options, lock, directory, mut acceptor, clock, core, writer, snapshot_time, meters } =
            parts;
        let inquiry = Inquiry::new(options.connector.clone());
        let dials = Dials::new(options.connector, options.id, &options.address);
        let poll = Poll::new()?;
        let (mailbox, inbox) = mailbox(Waker::new(poll.registry(), WAKE)?);
        poll.registry().register(acceptor.source(), LISTEN, Interest::READABLE)?;
        set_progress_hook(super::inline::handle_progress);
        let lock = Arc::new(lock);
        let slot = Arc::new(Slot::default());
        let desk = Desk { slot, mailbox, crew: Arc::default(), journal: core.journal().clone() };
        let report = desk.clone();
        let pool = SqlPool::start(options.settings.sql_workers, move |done| {
            report.deliver(Message::Sql(done));
        })?;
        let (storing, disk_threads) = Storing::start(writer, &directory, &lock, &desk, clock, &meters)?;
        let (starting, started) = bounded(0);
        let shell = Box::new(Shell {
            registry: poll.registry().try_clone()?,
            clock,
            acceptor: Some(acceptor),
            core,
            pool,
            storing,
            inbox,
            desk: desk.clone(),
            directory,
            compress: options.compression,
            snapshot_time,
            sockets: Sockets::default(),
            peers: Peers::default(),
            dials: dials.clone(),
            inquiry: inquiry.clone(),
            leaving: Vec::new(),
            snapshots_running: 0,
            traffic: shell::Traffic::default(),
            cancelled: Arc::default(),
            phase: Phase::Serving,
            sleeps_until: None,
            outbox: Vec::new(),
            sends_later: false,
            ready: VecDeque::new(),
            habits: Habits::default(),
            lock,
            turn_began: clock.now(),
            meters: Arc::clone(&meters),
            snapshot_began: clock.now(),
            told: clock.now(),
            starting: Some(starting),
        });
        shell::start(&desk, shell, Box::new(Duty::new(poll)))?;
        // Nothing is ever sent: it ends when the loop drops its side, or is late.
        if started.recv_timeout(LEADER_PATIENCE) == Err(RecvTimeoutError::Timeout) {
            log::warn!("this node does not lead yet, though nobody else votes");
        }
        let (id, election_timeout) = (options.id, options.election_timeout);
        let disk = Mutex::new(disk_threads);
        let probe = Probe { id, mailbox: desk.mailbox.clone(), meters };
        let told = Mutex::new(options.settings.metrics.as_deref().and_then(|text| tell(text, &probe)));
        Ok(Self { desk, dials, inquiry, id, election_timeout, probe, told, disk })
    }

    /// Moves the node to another failure domain, which whoever describes it is told from now on.
    pub fn set_failure_domain(&self, code: u64) {
        self.desk.mailbox.post(Message::FailureDomain(code));
    }

    /// How long the turns of the loop took since the start.
    #[must_use]
    pub fn loop_latency(&self) -> Latencies {
        self.probe.meters.turns.read()
    }

    /// How the node stands; `None` when it does not answer. Blocks for a moment.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        self.probe.ask()
    }

    /// Where figures are told, if at an IP address.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.address()
    }

    /// Sets what role management aims at.
    pub fn set_role_targets(&self, voters: i32, standbys: i32) {
        self.desk.mailbox.post(Message::RoleTargets(Targets { voters, standbys }));
    }

    /// Gives leadership and the vote to other nodes, as far as there are any. Blocks.
    ///
    /// # Errors
    /// In words, when nobody can take over leadership, or nobody the vote.
    pub fn hand_over(&self) -> Result<(), String> {
        let (desk, inquiry) = (self.desk.clone(), self.inquiry.clone());
        let leaving = Leaving { desk, inquiry, id: self.id, election_timeout: self.election_timeout };
        let (report, result) = bounded(1);
        // The program's connect function is never called on a thread of the program.
        let started = threads::start("dqlite-leave", move || {
            // Whoever waits is there until this is sent.
            let _ = report.send(leaving.hand_over());
        });
        started.map_err(|error| format!("no thread to hand over: {error}"))?;
        result.recv().unwrap_or_else(|_| Err("internal error, see the log".to_owned()))
    }

    /// Stops serving, finishes the files and waits for the threads. 0, or 1 when a thread had failed.
    pub fn stop(&self) -> i32 {
        drop(self.told.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.inquiry.cancel();
        self.desk.mailbox.post(Message::Stop);
        let (mut failed, away) = self.desk.slot.wait_closed();
        let crew = std::mem::take(&mut *self.desk.crew.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in crew {
            // One that is still in a statement goes when that ends.
            if away == 0 || thread.is_finished() {
                failed |= thread.join().is_err();
            }
        }
        let disk = std::mem::take(&mut *self.disk.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in disk {
            failed |= thread.join().is_err();
        }
        self.dials.stop(DIAL_PATIENCE);
        log::info!("the loop: {}", self.loop_latency());
        self.inquiry.stop(DIAL_PATIENCE);
        i32::from(failed)
    }
}

struct Parts {
    options: NodeOptions,
    lock: DirectoryLock,
    directory: RealDisk,
    acceptor: Acceptor,
    clock: Clock,
    core: Core,
    writer: Writer<RealDisk>,
    snapshot_time: u64,
    meters: Arc<Meters>,
}

/// Tells figures at this address. Without them a node serves all the same.
fn tell(text: &str, probe: &Probe) -> Option<Box<Registration>> {
    match Registration::new(text, probe.clone()) {
        Ok(told) => Some(Box::new(told)),
        Err(error) => {
            log::warn!("LIBDQLITE_METRICS: no figures are told at '{text}': {error}");
            None
        }
    }
}

fn core_config(options: &NodeOptions) -> CoreConfig {
    let mut seed = [0; 8];
    // Without entropy the address and the time still make nodes differ, and only election timeouts depend on it.
    if getrandom::fill(&mut seed).is_err() {
        seed = (clock::wall_ns() ^ options.id.0).to_le_bytes();
    }
    CoreConfig {
        id: options.id,
        address: options.address.clone(),
        heartbeat: options.heartbeat,
        election_timeout: options.election_timeout,
        failure_domain: options.failure_domain,
        snapshots: options.snapshots,
        patience: Patience {
            wait: options.busy_timeout.unwrap_or(options.settings.writer_patience),
            idle: options.settings.slot_idle,
        },
        page_size: PAGE_BYTES,
        sqlite_version: crate::sqlite::threads::library_version(),
        seed: Prng::new(u64::from_le_bytes(seed)).next_u64(),
    }
}

fn writer_config(options: &NodeOptions) -> WriterConfig {
    WriterConfig { block_size: options.block_size.unwrap_or(4096), ..WriterConfig::default() }
}

/// What the loader found, as the core wants it.
pub fn restored(loaded: Loaded, bootstrapped_now: bool) -> Result<Restored, String> {
    let mut databases = Vec::new();
    let mut place = (Index(0), Term(0));
    let mut meta = None;
    if let Some(snapshot) = loaded.snapshot {
        place = (snapshot.index, snapshot.term);
        meta = Some(SnapshotMeta {
            index: snapshot.index,
            term: snapshot.term,
            configuration: snapshot.configuration,
            configuration_index: snapshot.configuration_index,
        });
        for found in snapshot.databases {
            let database = verify::database(&found)
                .map_err(|error| format!("snapshot at {}: {error}", snapshot.index))?;
            databases.push(database);
        }
    }
    let consensus = consensus::Restored {
        term: loaded.term,
        voted_for: loaded.voted_for,
        snapshot: meta,
        first_index: loaded.first_index,
        entries: loaded.entries,
        configuration: loaded.configuration,
        configuration_index: loaded.configuration_index,
        configuration_committed: loaded.configuration_committed,
        bootstrapped_now,
    };
    Ok(Restored { consensus, snapshot: place, databases })
}
