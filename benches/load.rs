//! Load on one node over the client protocol: whoever serves at the address is measured, ours or not.
//!
//! `load address=HOST:PORT [connections=16] [seconds=5] [warmup=1] [reads=PERCENT] [statements=K] [value=BYTES]`
//! `     [keys=N] [pid=PID] [label=TEXT]`
//!
//! One thread per connection, each with prepared statements: a write replaces a random row, alone (`statements=0`)
//! or `K` of them in one explicit transaction; a read asks for a random row. A refused operation is tried again at
//! once, and its latency runs from the first attempt. Prints one line of JSON. With `pid`, bytes written per commit
//! come from that process's `/proc/PID/io`, which other processes on the disk do not disturb.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own that measures time with its own threads"
)]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dqlite::base::Prng;
use dqlite::codec::client::{
    Context, FrameReader, OwnedParams, PROTOCOL_VERSION, Param, Params, Request, Response, RowsEnd, Schema,
};

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const END: u8 = 2;

/// What to do, from the command line.
struct Options {
    address: String,
    connections: u64,
    seconds: f64,
    warmup: f64,
    reads_percent: u64,
    /// Statements of an explicit transaction; 0 for autocommit.
    statements: u64,
    value_bytes: usize,
    keys: u64,
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
            reads_percent: take(&mut given, "reads", 0)?,
            statements: take(&mut given, "statements", 0)?,
            value_bytes: take(&mut given, "value", 100)?,
            keys: take(&mut given, "keys", 10_000)?,
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

/// What a node answered, as far as a load program cares.
enum Reply {
    Done,
    Statement(u32),
    Refused(u64, String),
}

/// A client connection that waits for each answer.
struct Connection {
    stream: TcpStream,
    frames: FrameReader,
    buffer: Vec<u8>,
}

fn unexpected(text: impl Display) -> io::Error {
    io::Error::other(text.to_string())
}

impl Connection {
    fn open(address: &str, database: &[u8]) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut connection = Self { stream, frames: FrameReader::new(1 << 30), buffer: vec![0; 64 << 10] };
        connection.stream.write_all(&PROTOCOL_VERSION.to_le_bytes())?;
        connection.expect(&Request::Open { filename: database, flags: 0, vfs: b"" })?;
        Ok(connection)
    }

    /// Sends a request and reads its answer; of rows, all parts.
    fn call(&mut self, request: &Request<'_>) -> io::Result<Reply> {
        let message = request.encode().ok_or_else(|| unexpected("request too long"))?;
        self.stream.write_all(&message)?;
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(unexpected)? {
                match Response::decode(frame, Context::default()).map_err(unexpected)? {
                    Response::Failure { code, text } => {
                        return Ok(Reply::Refused(code, String::from_utf8_lossy(text).into_owned()));
                    }
                    Response::Stmt { id, .. } => return Ok(Reply::Statement(id)),
                    Response::Rows(rows) if rows.end == RowsEnd::Part => continue,
                    _ => return Ok(Reply::Done),
                }
            }
            let count = self.stream.read(&mut self.buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.frames.feed(self.buffer.get(..count).unwrap_or_default());
        }
    }

    fn expect(&mut self, request: &Request<'_>) -> io::Result<()> {
        match self.call(request)? {
            Reply::Refused(code, text) => Err(unexpected(format!("refused: {code} {text}"))),
            Reply::Done | Reply::Statement(_) => Ok(()),
        }
    }

    fn run(&mut self, sql: &[u8]) -> io::Result<Reply> {
        self.call(&Request::ExecSql { schema: Schema::V0, db: 0, sql, params: Params::default() })
    }

    fn prepare(&mut self, sql: &[u8]) -> io::Result<u32> {
        match self.call(&Request::Prepare { schema: Schema::V0, db: 0, sql })? {
            Reply::Statement(id) => Ok(id),
            Reply::Refused(code, text) => Err(unexpected(format!("prepare: {code} {text}"))),
            Reply::Done => Err(unexpected("prepare: a statement expected")),
        }
    }
}

/// What one connection saw during the measured time.
#[derive(Default)]
struct Seen {
    /// Microseconds of each commit and of each read.
    commits: Vec<u32>,
    reads: Vec<u32>,
    /// Commits of the whole run, warm-up included.
    commits_ever: u64,
    refusals: BTreeMap<u64, u64>,
}

/// One connection at work.
struct Worker<'a> {
    options: &'a Options,
    connection: Connection,
    write: u32,
    read: u32,
    random: Prng,
    value: Vec<u8>,
    seen: Seen,
}

impl<'a> Worker<'a> {
    fn new(options: &'a Options, number: u64) -> io::Result<Self> {
        let mut connection = Connection::open(&options.address, b"load")?;
        let write = connection.prepare(b"REPLACE INTO load(key, value) VALUES(?, ?)")?;
        let read = connection.prepare(b"SELECT value FROM load WHERE key = ?")?;
        let value = vec![b'x'; options.value_bytes];
        Ok(Self {
            options,
            connection,
            write,
            read,
            random: Prng::new(number + 1),
            value,
            seen: Seen::default(),
        })
    }

    fn key(&mut self) -> Param<'static> {
        Param::Integer(i64::try_from(self.random.below(self.options.keys)).unwrap_or_default())
    }

    fn replace_row(&mut self) -> io::Result<Reply> {
        let params = OwnedParams::new(&[self.key(), Param::Blob(&self.value)]);
        let (schema, stmt) = (Schema::V0, self.write);
        self.connection.call(&Request::Exec { schema, db: 0, stmt, params: params.view() })
    }

    fn read_row(&mut self) -> io::Result<Reply> {
        let params = OwnedParams::new(&[self.key()]);
        let (schema, stmt) = (Schema::V0, self.read);
        self.connection.call(&Request::Query { schema, db: 0, stmt, params: params.view() })
    }

    /// One attempt of one transaction. A refusal inside it is followed by a rollback.
    fn write_once(&mut self) -> io::Result<Reply> {
        if self.options.statements == 0 {
            return self.replace_row();
        }
        let begun = self.connection.run(b"BEGIN IMMEDIATE")?;
        if let Reply::Refused(..) = begun {
            return Ok(begun);
        }
        for _ in 0..self.options.statements {
            let reply = self.replace_row()?;
            if let Reply::Refused(..) = reply {
                self.connection.run(b"ROLLBACK")?;
                return Ok(reply);
            }
        }
        let reply = self.connection.run(b"COMMIT")?;
        if let Reply::Refused(..) = reply {
            self.connection.run(b"ROLLBACK")?;
        }
        Ok(reply)
    }

    fn work(mut self, phase: &AtomicU8) -> io::Result<Seen> {
        while phase.load(Ordering::Relaxed) != END {
            let is_read = self.random.below(100) < self.options.reads_percent;
            let (began, measured) = (Instant::now(), phase.load(Ordering::Relaxed) == MEASURE);
            loop {
                let reply = if is_read { self.read_row()? } else { self.write_once()? };
                let Reply::Refused(code, _) = reply else { break };
                if measured {
                    *self.seen.refusals.entry(code).or_default() += 1;
                }
                if phase.load(Ordering::Relaxed) == END {
                    return Ok(self.seen);
                }
            }
            self.seen.commits_ever += u64::from(!is_read);
            // What ends after the measured time does not count: else a stall would look like a short pause.
            if measured && phase.load(Ordering::Relaxed) == MEASURE {
                let micros = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
                if is_read { &mut self.seen.reads } else { &mut self.seen.commits }.push(micros);
            }
        }
        Ok(self.seen)
    }
}

/// Bytes that a process has sent towards the disk.
fn bytes_written(pid: Option<u32>) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/io", pid?)).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

/// `percent` of the sorted latencies, in milliseconds.
fn percentile(sorted: &[u32], percent: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a position within the slice"
    )]
    let position = (sorted.len() as f64 * percent / 100.0) as usize;
    let micros = sorted.get(position.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default();
    f64::from(micros) / 1000.0
}

fn latencies(mut all: Vec<u32>, seconds: f64) -> serde_json::Value {
    all.sort_unstable();
    serde_json::json!({
        "count": all.len(),
        "per_second": (all.len() as f64 / seconds * 10.0).round() / 10.0,
        "p50_ms": percentile(&all, 50.0),
        "p90_ms": percentile(&all, 90.0),
        "p99_ms": percentile(&all, 99.0),
        "max_ms": percentile(&all, 100.0),
    })
}

fn report(options: &Options, seen: Vec<Seen>, seconds: f64, written: Option<u64>) -> serde_json::Value {
    let each: Vec<usize> = seen.iter().map(|one| one.commits.len()).collect();
    let total: usize = each.iter().sum();
    let mean = total as f64 / each.len().max(1) as f64;
    let least = each.iter().min().copied().unwrap_or_default() as f64;
    let mut refusals: BTreeMap<String, u64> = BTreeMap::new();
    let (mut commits, mut reads, mut ever) = (Vec::new(), Vec::new(), 0);
    for one in seen {
        commits.extend(one.commits);
        reads.extend(one.reads);
        ever += one.commits_ever;
        one.refusals.iter().for_each(|(code, count)| *refusals.entry(code.to_string()).or_default() += count);
    }
    serde_json::json!({
        "label": options.label,
        "connections": options.connections,
        "reads_percent": options.reads_percent,
        "statements": options.statements,
        "value_bytes": options.value_bytes,
        "seconds": (seconds * 100.0).round() / 100.0,
        "commits": latencies(commits, seconds),
        "reads": latencies(reads, seconds),
        "refusals": refusals,
        // Of the commits per connection: 1 is perfectly fair, 0 means that somebody starved.
        "fairness": if mean > 0.0 { (least / mean * 1000.0).round() / 1000.0 } else { 0.0 },
        "bytes_per_commit": written.filter(|_| total > 0).map(|bytes| bytes / total as u64),
        "commits_ever": ever,
    })
}

fn measure(options: &Options) -> io::Result<serde_json::Value> {
    let mut setup = Connection::open(&options.address, b"load")?;
    let create = b"CREATE TABLE IF NOT EXISTS load(key INTEGER PRIMARY KEY, value BLOB)";
    setup.expect(&Request::ExecSql { schema: Schema::V0, db: 0, sql: create, params: Params::default() })?;
    let workers = (0..options.connections)
        .map(|number| Worker::new(options, number))
        .collect::<io::Result<Vec<_>>>()?;
    let phase = AtomicU8::new(WARM_UP);
    thread::scope(|scope| {
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(|| worker.work(&phase))).collect();
        thread::sleep(Duration::from_secs_f64(options.warmup));
        let (began, before) = (Instant::now(), bytes_written(options.pid));
        phase.store(MEASURE, Ordering::Relaxed);
        thread::sleep(Duration::from_secs_f64(options.seconds));
        phase.store(END, Ordering::Relaxed);
        let (seconds, after) = (began.elapsed().as_secs_f64(), bytes_written(options.pid));
        let seen = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| unexpected("a worker panicked"))?)
            .collect::<io::Result<Vec<_>>>()?;
        let written = after.zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok(report(options, seen, seconds, written))
    })
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
