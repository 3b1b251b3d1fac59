//! Load on one node over the client protocol: whoever serves at the address is measured, ours or not.
//!
//! `load address=HOST:PORT [connections=16] [seconds=5] [warmup=1] [commits=N] [reads=PERCENT] [statements=K]`
//! `     [value=BYTES] [keys=N] [fill=1] [writers=N] [writer_rate=N] [select=STEPS] [scan=1] [pid=PID] [label=TEXT]`
//! `     [until=FILE]`
//!
//! One thread drives all connections, so that the load takes as little as possible of the processor that the node
//! runs on, whichever library that is. Each connection waits for its answer before it sends its next request; its
//! statements are prepared. A write replaces a random row, alone (`statements=0`) or `K` of them in one explicit
//! transaction; a read asks for a random row. A refused operation is tried again at once, and its latency runs from
//! the first attempt.
//!
//! `commits` ends the run after so many commits instead of `seconds`, and `until` when there is such a file. `fill` writes all rows before. `writers` adds
//! connections that write only, while the others read; with `writer_rate` each of them begins at most so many writes
//! per second. `select` adds one connection that runs a query of so many
//! steps when the measuring begins, again and again. `scan` has every connection read the whole table once, and
//! measures nothing else.
//!
//! Prints one line of JSON. With `pid`, bytes written per commit come from that process's `/proc/PID/io`, which
//! other processes on the disk do not disturb, and its memory from `/proc/PID/status`.

#![expect(clippy::disallowed_methods, reason = "a program of its own that measures time")]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

mod client;
mod figures;
mod worker;

use client::{Client, Reply, unexpected};
use worker::{Task, Worker};

/// Rows that one statement of `fill` writes.
const FILL_ROWS: u16 = 1000;

/// The end of the run is looked for at least so often.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// What to do, from the command line.
pub struct Options {
    address: String,
    connections: u64,
    seconds: f64,
    warmup: f64,
    commits: Option<u64>,
    until: Option<PathBuf>,
    reads_percent: u64,
    /// Statements of an explicit transaction; 0 for autocommit.
    statements: u64,
    value_bytes: usize,
    keys: u64,
    fill: bool,
    writers: u64,
    /// Writes per second of each of them at most; 0 for as many as can be.
    writer_rate: u32,
    select: u64,
    scan: bool,
    pid: Option<u32>,
    label: String,
}

impl Options {
    fn from_arguments() -> Result<Self, String> {
        let mut given = BTreeMap::new();
        for argument in std::env::args().skip(1) {
            let (name, value) =
                argument.split_once('=').ok_or(format!("NAME=VALUE expected, found {argument}"))?;
            given.insert(name.to_owned(), value.to_owned());
        }
        let options = Self {
            address: given.remove("address").ok_or("address=HOST:PORT is missing")?,
            connections: take(&mut given, "connections", 16)?,
            seconds: take(&mut given, "seconds", 5.0)?,
            warmup: take(&mut given, "warmup", 1.0)?,
            commits: take(&mut given, "commits", 0).map(|count| Some(count).filter(|count| *count > 0))?,
            until: given.remove("until").map(PathBuf::from),
            reads_percent: take(&mut given, "reads", 0)?,
            statements: take(&mut given, "statements", 0)?,
            value_bytes: take(&mut given, "value", 100)?,
            keys: take(&mut given, "keys", 10_000)?,
            fill: take(&mut given, "fill", 0_u8)? > 0,
            writers: take(&mut given, "writers", 0)?,
            writer_rate: take(&mut given, "writer_rate", 0)?,
            select: take(&mut given, "select", 0)?,
            scan: take(&mut given, "scan", 0_u8)? > 0,
            pid: given
                .remove("pid")
                .map(|text| text.parse().map_err(|error| format!("pid: {error}")))
                .transpose()?,
            label: given.remove("label").unwrap_or_default(),
        };
        match given.keys().next() {
            Some(name) => Err(format!("unknown option {name}")),
            None => Ok(options),
        }
    }
}

fn take<T: FromStr<Err: Display>>(
    given: &mut BTreeMap<String, String>,
    name: &str,
    default: T,
) -> Result<T, String> {
    given
        .remove(name)
        .map_or(Ok(default), |text| text.parse().map_err(|error| format!("{name}={text}: {error}")))
}

/// The time from one write to the next at this rate.
fn pause(writer_rate: u32) -> Duration {
    Duration::from_secs(1).checked_div(writer_rate).unwrap_or_default()
}

/// The measured part of a run: when it began, and what the process had written by then.
struct Span {
    began: Instant,
    written: Option<u64>,
}

/// All connections, and how far the run came.
struct Run<'a> {
    options: &'a Options,
    workers: Vec<Worker<'a>>,
    poll: Poll,
    began: Instant,
    measured: Option<Span>,
    /// When the file that ends the run was looked for last.
    looked: Instant,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options) -> io::Result<Self> {
        let mix = || Task::Mix { reads_percent: options.reads_percent };
        let tasks = (0..options.connections)
            .map(|_| mix())
            .chain((0..options.writers).map(|_| Task::Write { pause: pause(options.writer_rate) }))
            .chain((options.select > 0).then_some(Task::Select { steps: options.select }));
        let mut workers = Vec::new();
        for (number, task) in (1..).zip(tasks) {
            workers.push(Worker::new(options, number, task)?);
        }
        let poll = Poll::new()?;
        let polled = if workers.len() > 1 { workers.as_mut_slice() } else { &mut [] };
        for (number, worker) in polled.iter_mut().enumerate() {
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(worker.client.source()?, Token(number), interest)?;
        }
        let now = Instant::now();
        Ok(Self { options, workers, poll, began: now, measured: None, looked: now })
    }

    /// How long the poll may wait.
    fn patience(&self, now: Instant) -> Duration {
        let due = self.workers.iter().filter_map(|worker| worker.due).min();
        due.map_or(LONGEST_WAIT, |due| due.saturating_duration_since(now).min(LONGEST_WAIT))
    }

    /// Drives the connections to the end of the measured time; returns how long that was and what was written.
    fn drive(&mut self) -> io::Result<(f64, Option<u64>)> {
        let mut events = Events::with_capacity(256);
        let now = Instant::now();
        for worker in &mut self.workers {
            worker.begin(now)?;
        }
        if self.options.writer_rate == 0 && self.workers.len() == 1 {
            return self.drive_only_one();
        }
        loop {
            self.poll.poll(&mut events, Some(self.patience(Instant::now())))?;
            let mut now = Instant::now();
            let measuring = self.measured.is_some();
            for worker in self.workers.iter_mut().filter(|worker| worker.due.is_some_and(|due| due <= now)) {
                worker.begin_due(now, measuring)?;
            }
            for event in &events {
                let Token(number) = event.token();
                let Some(worker) = self.workers.get_mut(number) else { continue };
                if event.is_writable() {
                    worker.client.write_on()?;
                }
                if event.is_readable() && worker.client.read()? {
                    now = Instant::now();
                    worker.go_on(now, measuring)?;
                }
            }
            if let Some(figures) = self.step_phase(now)? {
                return Ok(figures);
            }
        }
    }

    /// The same with one connection: a thread of an application would just wait for its answer, without a poll.
    fn drive_only_one(&mut self) -> io::Result<(f64, Option<u64>)> {
        loop {
            let measuring = self.measured.is_some();
            for worker in &mut self.workers {
                worker.client.read()?;
                worker.go_on(Instant::now(), measuring)?;
            }
            if let Some(figures) = self.step_phase(Instant::now())? {
                return Ok(figures);
            }
        }
    }

    fn step_phase(&mut self, now: Instant) -> io::Result<Option<(f64, Option<u64>)>> {
        let since = |then: Instant| now.duration_since(then).as_secs_f64();
        let Some(measured) = &self.measured else {
            if since(self.began) >= self.options.warmup {
                self.measured = Some(Span { began: now, written: figures::bytes_written(self.options.pid) });
                for worker in &mut self.workers {
                    worker.begin_measured(now)?;
                }
            }
            return Ok(None);
        };
        let seconds = since(measured.began);
        let over = match (self.options.commits, &self.options.until) {
            (Some(count), _) => {
                self.workers.iter().map(|worker| worker.seen.commits.len() as u64).sum::<u64>() >= count
            }
            (None, Some(file)) => {
                let looks = now.duration_since(self.looked) >= LONGEST_WAIT;
                self.looked = if looks { now } else { self.looked };
                looks && file.exists()
            }
            (None, None) => seconds >= self.options.seconds,
        };
        let written = || figures::bytes_written(self.options.pid).zip(measured.written);
        Ok(over.then(|| (seconds, written().map(|(after, before)| after.saturating_sub(before)))))
    }
}

fn create(options: &Options) -> io::Result<()> {
    let mut setup = Client::open(&options.address, b"load")?;
    setup.expect(b"CREATE TABLE IF NOT EXISTS load(key INTEGER PRIMARY KEY, value BLOB)")?;
    for first in (0..options.keys).step_by(FILL_ROWS.into()).take_while(|_| options.fill) {
        let last = (first + u64::from(FILL_ROWS)).min(options.keys) - 1;
        let sql = format!(
            "WITH RECURSIVE k(key) AS (VALUES({first}) UNION ALL SELECT key + 1 FROM k WHERE key < {last}) \
             REPLACE INTO load SELECT key, randomblob({}) FROM k",
            options.value_bytes
        );
        setup.expect(sql.as_bytes())?;
    }
    Ok(())
}

/// Every connection reads the whole table once and stays.
fn scan(options: &Options) -> io::Result<serde_json::Value> {
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        let mut client = Client::open(&options.address, b"load")?;
        if let Reply::Refused(code, text) = client.query(b"SELECT count(*), sum(length(value)) FROM load")? {
            return Err(unexpected(format!("scan: {code} {text}")));
        }
        clients.push(client);
    }
    Ok(serde_json::json!({
        "label": options.label,
        "connections": clients.len(),
        "memory": figures::memory_kib(options.pid),
    }))
}

fn measure(options: &Options) -> io::Result<serde_json::Value> {
    create(options)?;
    if options.scan {
        return scan(options);
    }
    let mut run = Run::new(options)?;
    let (seconds, written) = run.drive()?;
    let seen = run.workers.into_iter().map(|worker| worker.seen).collect();
    Ok(figures::report(options, seen, seconds, written))
}

fn main() {
    let result =
        Options::from_arguments().and_then(|options| measure(&options).map_err(|error| error.to_string()));
    match result {
        Ok(figures) => println!("{figures}"),
        Err(text) => {
            eprintln!("load: {text}");
            std::process::exit(1);
        }
    }
}
