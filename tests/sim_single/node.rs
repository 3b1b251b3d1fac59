//! A whole node without threads: the real core, storage and SQLite, on a disk in memory. The test decides what
//! happens next.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dqlite::base::{NodeId, Prng, Time};
use dqlite::disk::FaultDisk;
use dqlite::engine::jobs::SqlRequest;
use dqlite::engine::{ConnId, Patience};
use dqlite::node::effect::SnapshotJob;
use dqlite::node::snapshots::SnapshotPolicy;
use dqlite::node::{Core, CoreConfig, Effect};
use dqlite::pages::Database;
use dqlite::runtime::disk::{DiskDone, DiskWork, Turn, Worker};
use dqlite::runtime::executor::SqlConn;
use dqlite::runtime::{running, snapshot};
use dqlite::storage::loader::{self, LoadOptions};
use dqlite::storage::writer::{Writer, WriterConfig, WriterState};

/// The first node of a cluster may begin one.
const ID: NodeId = NodeId(1);

enum Job {
    Open(ConnId, Arc<Database>),
    Run(ConnId, SqlRequest),
    Resume(ConnId),
    Close(ConnId),
}

pub struct Node {
    pub core: Core,
    pub now: Time,
    pub disk: FaultDisk,
    worker: Worker<FaultDisk>,
    work: VecDeque<DiskWork>,
    done: VecDeque<DiskDone>,
    jobs: Vec<Job>,
    sql: BTreeMap<ConnId, SqlConn>,
    interrupted: BTreeSet<ConnId>,
    snapshots: VecDeque<(SnapshotJob, u64)>,
    snapshot_time: u64,
    compress: bool,
    pub closed: Vec<ConnId>,
}

impl Node {
    /// Starts on what the disk holds.
    pub fn start(disk: &FaultDisk, prng: &mut Prng) -> Result<Self, String> {
        let mut directory = disk.clone();
        let address = "127.0.0.1:9001";
        loader::prepare(&mut directory).map_err(|error| error.to_string())?;
        let bootstrapped =
            loader::bootstrap(&mut directory, ID, address).map_err(|error| error.to_string())?;
        let options = LoadOptions { auto_recovery: true, id: ID, wall_ns: 1_700_000_000_000_000_000 };
        let loaded = loader::load(&mut directory, &options).map_err(|error| error.to_string())?;
        let state = WriterState::from(&loaded);
        let snapshot_time = loaded.newest_snapshot_time;
        let restored = running::restored(loaded, bootstrapped)?;
        let core = Core::new(config(address, prng), restored, Time(0))?;
        let writer =
            WriterConfig { segment_bytes: 24 << 10, prewrite: prng.below(2) == 0, ..Default::default() };
        let mut node = Self {
            core,
            now: Time(0),
            disk: disk.clone(),
            worker: Worker::new(Writer::new(directory, state, writer)),
            work: VecDeque::new(),
            done: VecDeque::new(),
            jobs: Vec::new(),
            sql: BTreeMap::new(),
            interrupted: BTreeSet::new(),
            snapshots: VecDeque::new(),
            snapshot_time,
            compress: prng.below(2) == 0,
            closed: Vec::new(),
        };
        node.collect();
        Ok(node)
    }

    /// Takes over what the core wants done.
    pub fn collect(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                // Clients look for themselves.
                Effect::Flush { .. } => {}
                Effect::Close { conn } => {
                    self.closed.push(conn);
                    self.core.handle_gone(conn, self.now);
                }
                Effect::OpenSql { conn, database } => self.jobs.push(Job::Open(conn, database)),
                Effect::RunSql { conn, request } => self.jobs.push(Job::Run(conn, request)),
                Effect::ResumeSql { conn } => self.jobs.push(Job::Resume(conn)),
                Effect::CloseSql { conn } => self.jobs.push(Job::Close(conn)),
                Effect::InterruptSql { conn } => {
                    self.interrupted.insert(conn);
                }
                Effect::Persist { ticket, truncate_from, entries, metadata } => {
                    self.work.push_back(DiskWork::Persist { ticket, truncate_from, entries, metadata });
                }
                Effect::Snapshot { job, trailing } => self.snapshots.push_back((job, trailing)),
                // One node without role management.
                Effect::PeerConnected { .. }
                | Effect::SendPeer { .. }
                | Effect::ReadEntries { .. }
                | Effect::TakeSnapshot(_)
                | Effect::SnapshotBytes { .. }
                | Effect::DropSnapshot
                | Effect::SendSnapshot { .. }
                | Effect::Describe { .. }
                | Effect::Handover(_)
                | Effect::Drop(_) => {}
            }
        }
    }

    pub fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    pub fn has_disk_work(&self) -> bool {
        !self.work.is_empty() || !self.done.is_empty() || !self.snapshots.is_empty()
    }

    /// An SQL thread finishes one of the jobs.
    pub fn run_job(&mut self, at: usize) {
        if self.jobs.is_empty() {
            return;
        }
        match self.jobs.remove(at % self.jobs.len()) {
            Job::Open(conn, database) => {
                let opened = SqlConn::open(&database, conn.0);
                let result = match opened {
                    Ok(sql) => {
                        self.sql.insert(conn, sql);
                        Ok(())
                    }
                    Err(error) => Err((error.code, error.message)),
                };
                self.core.handle_sql_opened(conn, result, self.now);
            }
            Job::Run(conn, request) => self.run_on(conn, |sql| sql.start(request)),
            Job::Resume(conn) => self.run_on(conn, SqlConn::resume),
            Job::Close(conn) => {
                self.sql.remove(&conn);
                self.core.handle_sql_closed(conn, self.now);
            }
        }
        self.collect();
    }

    fn run_on(&mut self, conn: ConnId, run: impl FnOnce(&mut SqlConn) -> dqlite::engine::jobs::Progress) {
        let sql = self.sql.get_mut(&conn).expect("a connection to run on");
        let interrupter = sql.interrupter();
        if self.interrupted.remove(&conn) {
            interrupter.interrupt();
        }
        let progress = run(sql);
        self.core.handle_sql_ran(conn, progress, self.now);
    }

    /// The disk thread takes what is queued, up to `count`; its reports are delivered later.
    pub fn run_disk(&mut self, count: usize) {
        let count = count.min(self.work.len());
        let reports = RefCell::new(Vec::new());
        let items: Vec<DiskWork> = self.work.drain(..count).collect();
        self.worker.work(items, &|done| reports.borrow_mut().push(done));
        self.done.extend(reports.into_inner());
    }

    pub fn prepare_ahead(&mut self) {
        self.worker.prepare_ahead();
    }

    /// The loop hears of something that the disk thread did.
    pub fn deliver(&mut self) {
        match self.done.pop_front() {
            Some(DiskDone::Persisted { ticket }) => self.core.handle_persisted(ticket, self.now),
            Some(DiskDone::Failed { ticket, no_space, text }) => {
                self.core.handle_persist_failed(ticket, no_space, &text, self.now);
            }
            Some(DiskDone::Installed) => self.core.handle_snapshot(Ok(()), self.now),
            Some(DiskDone::NotInstalled { text }) => self.core.handle_snapshot(Err(text), self.now),
            Some(DiskDone::Restored | DiskDone::NotRestored { .. }) => panic!("one node has no leader"),
            Some(DiskDone::Closed { .. }) | None => {}
        }
        self.collect();
    }

    /// A snapshot thread does its work.
    pub fn run_snapshot(&mut self) {
        let Some((job, trailing)) = self.snapshots.pop_front() else { return };
        self.snapshot_time += 1;
        let running = AtomicBool::new(false);
        match snapshot::write(self.disk.clone(), job, self.compress, self.snapshot_time, &running) {
            Ok(snapshot) => self.work.push_back(DiskWork::Install { snapshot, trailing }),
            Err(text) => self.core.handle_snapshot(Err(text), self.now),
        }
        self.collect();
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.core.handle_time(self.now);
        self.collect();
    }

    /// A clean end.
    pub fn close(mut self) {
        assert_eq!(self.worker.work([DiskWork::Close], &|_| {}), Turn::Closed);
    }
}

fn config(address: &str, prng: &mut Prng) -> CoreConfig {
    let snapshots = match prng.below(3) {
        0 => SnapshotPolicy::Default,
        _ => SnapshotPolicy::Given {
            threshold: 2 + u32::try_from(prng.below(12)).unwrap(),
            trailing: u32::try_from(prng.below(8)).unwrap(),
            dynamic: prng.below(2) == 0,
        },
    };
    CoreConfig {
        id: ID,
        address: address.to_owned(),
        heartbeat: Duration::from_millis(500),
        election_timeout: Duration::from_millis(3000),
        failure_domain: 0,
        snapshots,
        patience: Patience {
            wait: Duration::from_millis([0, 300, 10_000][usize::try_from(prng.below(3)).unwrap()]),
            idle: Some(Duration::from_secs(20)),
        },
        page_size: 4096,
        sqlite_version: dqlite::sqlite::threads::library_version(),
        seed: prng.next_u64(),
    }
}
