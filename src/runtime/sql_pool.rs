//! The threads that run SQL: a connection travels to one of them with its request and back with the result.
//!
//! A few threads serve while statements are short. When work waits and nothing finishes, statements are long,
//! and another thread joins, so that no statement waits for another connection's; idle ones leave again.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::clock::{self, Clock};
use super::executor::SqlConn;
use super::habits::{SHORT, Spent};
use super::threads;
use crate::base::Time;
use crate::engine::ConnId;
use crate::engine::jobs::{Progress, SqlRequest};
use crate::pages::Database;
use crate::sqlite::SqlError;

/// How long work may wait without anything finishing before another thread joins.
const PATIENCE: Duration = Duration::from_millis(2);

/// How long a thread beyond the first few stays without work.
const IDLE: Duration = Duration::from_secs(5);

/// Threads at most; beyond, work waits for a statement to end.
const THREADS_MAX: usize = 256;

/// Something to do on a connection.
pub enum SqlWork {
    /// Make the connection.
    Open {
        /// Whose it will be.
        conn: ConnId,
        /// The database it is for.
        database: Arc<Database>,
    },
    /// Run a request.
    Run {
        /// Whose connection.
        conn: ConnId,
        /// The connection.
        sql: Box<SqlConn>,
        /// What to do.
        request: SqlRequest,
    },
    /// Go on with the request whose last batch of rows has been written.
    Resume {
        /// Whose connection.
        conn: ConnId,
        /// The connection.
        sql: Box<SqlConn>,
    },
    /// Roll back and close.
    Close {
        /// Whose connection.
        conn: ConnId,
        /// The connection.
        sql: Box<SqlConn>,
    },
}

/// What became of it.
pub enum SqlDone {
    /// The connection is there.
    Opened {
        /// Whose.
        conn: ConnId,
        /// The connection, or why there is none.
        sql: Result<Box<SqlConn>, SqlError>,
    },
    /// The request ended, or needs something to go on.
    Ran {
        /// Whose connection.
        conn: ConnId,
        /// The connection.
        sql: Box<SqlConn>,
        /// The result.
        progress: Progress,
        /// How long it took.
        spent: Spent,
    },
    /// The thread panicked, and the connection is lost: rolled back and closed.
    Broken {
        /// Whose.
        conn: ConnId,
    },
    /// The connection is closed.
    Closed {
        /// Whose.
        conn: ConnId,
    },
}

/// The pool, as the loop sees it.
pub struct SqlPool {
    work: Sender<SqlWork>,
    shared: Arc<Shared>,
    receiver: Receiver<SqlWork>,
    report: Report,
    threads_min: usize,
    submitted: u64,
    check: Option<(Time, u64)>,
}

/// Where results go.
type Report = Arc<dyn Fn(SqlDone) + Send + Sync>;

#[derive(Default)]
struct Shared {
    threads: AtomicUsize,
    finished: AtomicU64,
}

impl SqlPool {
    /// A pool of at least `threads_min` threads that hand results to `report`.
    ///
    /// # Errors
    /// The system has no room for the first threads.
    pub fn start(
        threads_min: usize,
        report: impl Fn(SqlDone) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (work, receiver) = unbounded();
        let shared = Arc::new(Shared::default());
        let report: Report = Arc::new(report);
        let pool = Self { work, shared, receiver, report, threads_min, submitted: 0, check: None };
        for _ in 0..threads_min {
            pool.add_thread()?;
        }
        Ok(pool)
    }

    /// Hands out work.
    pub fn submit(&mut self, work: SqlWork, now: Time) {
        self.submitted += 1;
        // The pool holds a receiver itself, so the channel cannot be closed.
        if self.work.send(work).is_err() {
            log::error!("the SQL threads are gone");
        }
        if self.check.is_none() {
            self.check = Some((now.after(PATIENCE), self.shared.finished.load(Ordering::Acquire)));
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.check.map(|(at, _)| at)
    }

    /// Adds a thread when work waits and nothing has finished for a while.
    pub fn handle_timeout(&mut self, now: Time) {
        let Some((at, finished_then)) = self.check else { return };
        if now < at {
            return;
        }
        let finished = self.shared.finished.load(Ordering::Acquire);
        let threads = self.shared.threads.load(Ordering::Acquire);
        let running = usize::try_from(self.submitted.saturating_sub(finished)).unwrap_or(usize::MAX);
        if running > threads
            && finished == finished_then
            && threads < THREADS_MAX
            && let Err(error) = self.add_thread()
        {
            log::warn!("no further SQL thread: {error}");
        }
        self.check = (running > 0).then(|| (now.after(PATIENCE), finished));
    }

    fn add_thread(&self) -> std::io::Result<()> {
        let (receiver, report, shared) =
            (self.receiver.clone(), Arc::clone(&self.report), Arc::clone(&self.shared));
        let threads_min = self.threads_min;
        shared.threads.fetch_add(1, Ordering::AcqRel);
        let result =
            threads::start("dqlite-sql", move || serve(&receiver, &*report, &shared, threads_min)).map(drop);
        if result.is_err() {
            self.shared.threads.fetch_sub(1, Ordering::AcqRel);
        }
        result
    }
}

fn serve(work: &Receiver<SqlWork>, report: &dyn Fn(SqlDone), shared: &Shared, threads_min: usize) {
    loop {
        match work.recv_timeout(IDLE) {
            Ok(work) => {
                let done = execute(work);
                shared.finished.fetch_add(1, Ordering::AcqRel);
                report(done);
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let leave = shared
                    .threads
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |threads| {
                        (threads > threads_min).then(|| threads - 1)
                    })
                    .is_ok();
                if leave {
                    return;
                }
            }
        }
    }
}

/// After a statement that looked long, the processor's time of so many is measured.
const GAUGED: u32 = 256;

thread_local! {
    /// Of how many statements on this thread the processor's time is still to be measured.
    static TO_GAUGE: Cell<u32> = const { Cell::new(GAUGED) };
}

/// Measures a statement. Asking for the processor's time costs as much as a small statement's parts, so it is asked
/// for only while there are statements which take long by the clock.
struct Gauge {
    clock: Clock,
    cpu: Option<Duration>,
}

impl Gauge {
    fn begin() -> Self {
        let left = TO_GAUGE.get();
        TO_GAUGE.set(left.saturating_sub(1));
        Self { clock: Clock::start(), cpu: (left > 0).then(clock::thread_cpu) }
    }

    fn spent(&self) -> Spent {
        let took = self.clock.now().since(Time(0));
        let long = took > SHORT;
        if long {
            TO_GAUGE.set(GAUGED);
        }
        let cpu = match self.cpu {
            Some(before) => Some(clock::thread_cpu().saturating_sub(before)),
            None => Some(took).filter(|_| !long),
        };
        Spent { cpu, overtaken: false }
    }
}

/// Does the work on this thread, for as long as it takes.
pub(super) fn execute(work: SqlWork) -> SqlDone {
    let conn = match &work {
        SqlWork::Open { conn, .. }
        | SqlWork::Run { conn, .. }
        | SqlWork::Resume { conn, .. }
        | SqlWork::Close { conn, .. } => *conn,
    };
    catch_unwind(AssertUnwindSafe(|| perform(work))).unwrap_or_else(|_| {
        log::error!("client {}: a thread panicked over a statement; its connection is closed", conn.0);
        SqlDone::Broken { conn }
    })
}

fn perform(work: SqlWork) -> SqlDone {
    let gauge = Gauge::begin();
    match work {
        SqlWork::Open { conn, database } => {
            SqlDone::Opened { conn, sql: SqlConn::open(&database, conn.0).map(Box::new) }
        }
        SqlWork::Run { conn, mut sql, request } => {
            let progress = sql.start(request);
            SqlDone::Ran { conn, sql, progress, spent: gauge.spent() }
        }
        SqlWork::Resume { conn, mut sql } => {
            let progress = sql.resume();
            SqlDone::Ran { conn, sql, progress, spent: gauge.spent() }
        }
        SqlWork::Close { conn, sql } => {
            drop(sql);
            SqlDone::Closed { conn }
        }
    }
}
