//! What one connection does, request by request.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use dqlite::base::Prng;
use dqlite::codec::client::{OwnedParams, Param, Params, Request, Schema};

use super::Options;
use super::client::{Client, Reply};

/// What a connection is for.
pub enum Task {
    /// Reads and writes of single rows.
    Mix { reads_percent: u64 },
    /// Writes of single rows, each so long after the one before at the earliest.
    Write { pause: Duration },
    /// A query of so many steps over and over, from the moment on that is measured.
    Select { steps: u64 },
}

/// The request that was sent last.
#[derive(Clone, Copy)]
enum Step {
    Read,
    Write,
    Begin,
    /// So many rows of the transaction are still to come, this one included.
    Row(u64),
    Commit,
    Rollback,
    Select,
}

/// What one connection saw during the measured time.
#[derive(Default)]
pub struct Seen {
    /// Microseconds of each commit and of each read.
    pub commits: Vec<u32>,
    pub reads: Vec<u32>,
    /// Commits of the whole run, warm-up included.
    pub commits_ever: u64,
    pub refusals: BTreeMap<u64, u64>,
    /// It is one of those whose commits are counted for fairness.
    pub writes: bool,
}

/// One connection at work.
pub struct Worker<'a> {
    options: &'a Options,
    task: Task,
    pub client: Client,
    write: u32,
    read: u32,
    random: Prng,
    value: Vec<u8>,
    step: Step,
    /// When the operation in hand began, and whether it is measured.
    began: Instant,
    measured: bool,
    /// When the next operation begins, where it waits for its time.
    pub due: Option<Instant>,
    pub seen: Seen,
}

impl<'a> Worker<'a> {
    pub fn new(options: &'a Options, number: u64, task: Task) -> io::Result<Self> {
        let mut client = Client::open(&options.address, b"load")?;
        let write = client.prepare(b"REPLACE INTO load(key, value) VALUES(?, ?)")?;
        let read = client.prepare(b"SELECT value FROM load WHERE key = ?")?;
        let writes = match task {
            Task::Mix { reads_percent } => reads_percent < 100,
            Task::Write { .. } => true,
            Task::Select { .. } => false,
        };
        Ok(Self {
            options,
            task,
            client,
            write,
            read,
            random: Prng::new(number),
            value: vec![b'x'; options.value_bytes],
            step: Step::Select,
            began: Instant::now(),
            measured: false,
            due: None,
            seen: Seen { writes, ..Seen::default() },
        })
    }

    /// Sends the first request.
    pub fn begin(&mut self, now: Instant) -> io::Result<()> {
        if matches!(self.task, Task::Select { .. }) { Ok(()) } else { self.next(now, false) }
    }

    /// The measured time begins.
    pub fn begin_measured(&mut self, now: Instant) -> io::Result<()> {
        if matches!(self.task, Task::Select { .. }) { self.next(now, true) } else { Ok(()) }
    }

    /// Bytes came: if they complete an answer, goes on with what follows from it.
    pub fn go_on(&mut self, now: Instant, measuring: bool) -> io::Result<()> {
        while let Some(reply) = self.client.reply()? {
            let next = self.follow(&reply);
            if let Reply::Refused(code, _) = reply
                && self.measured
            {
                *self.seen.refusals.entry(code).or_default() += 1;
            }
            match next {
                Some(step) => self.send(step)?,
                None => {
                    self.note_done(now, measuring);
                    match self.task {
                        Task::Write { pause } if self.began + pause > now => {
                            self.due = Some(self.began + pause)
                        }
                        _ => self.next(now, measuring)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// What follows within the operation; `None` when it is done. What was refused is tried again at once.
    fn follow(&self, reply: &Reply) -> Option<Step> {
        let refused = matches!(reply, Reply::Refused(..));
        match self.step {
            Step::Rollback => Some(Step::Begin),
            Step::Row(_) | Step::Commit if refused => Some(Step::Rollback),
            step if refused => Some(step),
            Step::Begin => Some(Step::Row(self.options.statements)),
            Step::Row(1) => Some(Step::Commit),
            Step::Row(left) => Some(Step::Row(left - 1)),
            Step::Read | Step::Write | Step::Commit | Step::Select => None,
        }
    }

    fn note_done(&mut self, now: Instant, measuring: bool) {
        let is_commit = matches!(self.step, Step::Write | Step::Commit);
        self.seen.commits_ever += u64::from(is_commit);
        if !self.measured || !measuring {
            return;
        }
        let micros = u32::try_from(now.duration_since(self.began).as_micros()).unwrap_or(u32::MAX);
        match self.step {
            Step::Read => self.seen.reads.push(micros),
            Step::Write | Step::Commit => self.seen.commits.push(micros),
            _ => {}
        }
    }

    /// The time of the next operation has come.
    pub fn begin_due(&mut self, now: Instant, measuring: bool) -> io::Result<()> {
        self.due = None;
        self.next(now, measuring)
    }

    fn next(&mut self, now: Instant, measuring: bool) -> io::Result<()> {
        (self.began, self.measured) = (now, measuring);
        let step = match self.task {
            Task::Select { .. } => Step::Select,
            Task::Mix { reads_percent } if self.random.below(100) < reads_percent => Step::Read,
            _ if self.options.statements > 0 => Step::Begin,
            Task::Mix { .. } | Task::Write { .. } => Step::Write,
        };
        self.send(step)
    }

    fn key(&mut self) -> Param<'static> {
        Param::Integer(i64::try_from(self.random.below(self.options.keys)).unwrap_or_default())
    }

    fn send(&mut self, step: Step) -> io::Result<()> {
        self.step = step;
        let (schema, db) = (Schema::V0, 0);
        let sql = match step {
            Step::Read => {
                let params = OwnedParams::new(&[self.key()]);
                return self.client.send(&Request::Query {
                    schema,
                    db,
                    stmt: self.read,
                    params: params.view(),
                });
            }
            Step::Write | Step::Row(_) => {
                let params = OwnedParams::new(&[self.key(), Param::Blob(&self.value)]);
                return self.client.send(&Request::Exec {
                    schema,
                    db,
                    stmt: self.write,
                    params: params.view(),
                });
            }
            Step::Select => {
                let Task::Select { steps } = self.task else { return Ok(()) };
                let sql = format!(
                    "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {steps}) \
                     SELECT sum(i) FROM n"
                );
                let (sql, params, db) = (sql.as_bytes(), Params::default(), 0);
                return self.client.send(&Request::QuerySql { schema, db, sql, params });
            }
            Step::Begin => "BEGIN IMMEDIATE",
            Step::Commit => "COMMIT",
            Step::Rollback => "ROLLBACK",
        };
        self.client.send(&Request::ExecSql { schema, db: 0, sql: sql.as_bytes(), params: Params::default() })
    }
}
