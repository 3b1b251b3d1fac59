//! A blocking client of the wire protocol, for tests.
//!
//! Addresses are `host:port`, `@name` for an abstract unix socket, `/path` for a unix socket. The short helpers
//! use database 0, which [`Client::open`] opened, and give the node's answer whatever it is;
//! [`Answer::ok`] turns a failure into a panic that shows it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use dqlite::base::{NodeId, Role};
use dqlite::codec::client::request::OPEN_ANYWHERE;
use dqlite::codec::client::{
    Cell, Context, Format, FrameReader, OwnedParams, PROTOCOL_LEGACY, PROTOCOL_VERSION, Param, Request,
    Response, RowsEnd, Schema,
};

/// How long a test waits for an answer before it fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a node answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Failure { code: u64, text: String },
    Server { id: u64, address: String },
    Welcome { heartbeat_timeout_ms: u64 },
    Servers(Vec<(u64, String, Role)>),
    Db { id: u32 },
    Stmt { id: u32, params: u64, tail: Option<u64> },
    Result { last_insert_id: u64, rows_affected: u64 },
    Rows { columns: Vec<String>, rows: Vec<Vec<Value>>, more: bool },
    Empty,
    Files(Vec<(String, Vec<u8>)>),
    Metadata { failure_domain: u64, weight: u64 },
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(i64),
    Float(f64),
    Text(String),
    Blob(Vec<u8>),
    Null,
    Unixtime(i64),
    Iso8601(String),
    Boolean(i64),
}

impl Answer {
    /// The answer, if it is no failure.
    #[track_caller]
    pub fn ok(self) -> Self {
        if let Self::Failure { code, text } = &self {
            panic!("failure {code}: {text}");
        }
        self
    }

    /// The code of a failure.
    #[track_caller]
    pub fn code(&self) -> u64 {
        match self {
            Self::Failure { code, .. } => *code,
            other => panic!("a failure expected, found {other:?}"),
        }
    }

    /// The rows of an answer to a query.
    #[track_caller]
    pub fn rows(self) -> Vec<Vec<Value>> {
        match self.ok() {
            Self::Rows { rows, .. } => rows,
            other => panic!("rows expected, found {other:?}"),
        }
    }

    /// The code and text of a failure.
    #[track_caller]
    pub fn failure(self) -> (u64, String) {
        match self {
            Self::Failure { code, text } => (code, text),
            other => panic!("a failure expected, found {other:?}"),
        }
    }

    /// The only integer of an answer to a query.
    #[track_caller]
    pub fn integer(self) -> i64 {
        match self.rows().as_slice() {
            [row] => match row.as_slice() {
                [Value::Integer(value)] => *value,
                other => panic!("one integer expected, found {other:?}"),
            },
            other => panic!("one row expected, found {other:?}"),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection.
pub struct Client {
    stream: Stream,
    frames: FrameReader,
    context: Context,
}

impl Client {
    /// Connects and sends the protocol word.
    pub fn connect(address: &str) -> io::Result<Self> {
        let mut client = Self::connect_silently(address)?;
        client.send(&PROTOCOL_VERSION.to_le_bytes())?;
        Ok(client)
    }

    /// Connects as a client older than 1.0.
    pub fn connect_legacy(address: &str) -> io::Result<Self> {
        let mut client = Self::connect_silently(address)?;
        client.context.legacy = true;
        client.send(&PROTOCOL_LEGACY.to_le_bytes())?;
        Ok(client)
    }

    /// Connects and sends nothing.
    pub fn connect_silently(address: &str) -> io::Result<Self> {
        let stream = if let Some(name) = address.strip_prefix('@') {
            Stream::Unix(UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?)
        } else if address.starts_with('/') {
            Stream::Unix(UnixStream::connect(address)?)
        } else {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        };
        let client = Self { stream, frames: FrameReader::new(u64::MAX), context: Context::default() };
        client.set_patience(PATIENCE)?;
        Ok(client)
    }

    /// How long a read may take before it fails.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(patience)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(patience)),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Sends a request and does not wait.
    pub fn request(&mut self, request: &Request<'_>) -> io::Result<()> {
        let message = request.encode().ok_or_else(|| io::Error::other("request too long"))?;
        self.send(&message)
    }

    /// The same connection for another thread, which sends while this one reads.
    pub fn second_handle(&self) -> TcpStream {
        match &self.stream {
            Stream::Tcp(stream) => stream.try_clone().unwrap(),
            Stream::Unix(_) => panic!("a connection over TCP expected"),
        }
    }

    /// Breaks the connection off: the node gets a reset instead of an end.
    pub fn abort(self) {
        if let Stream::Tcp(stream) = self.stream {
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
    }

    /// What has come, at most `buffer`; 0 when the node closed the connection. Not to be mixed with
    /// [`Client::answer`], which reads ahead.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }

    /// The next message.
    pub fn answer(&mut self) -> io::Result<Answer> {
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(io::Error::other)? {
                return Response::decode(frame, self.context).map(|it| owned(&it)).map_err(io::Error::other);
            }
            let mut chunk = [0; 64 << 10];
            match self.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.frames.feed(&chunk[..len]),
            }
        }
    }

    /// Sends a request and waits for one message.
    pub fn call(&mut self, request: &Request<'_>) -> io::Result<Answer> {
        self.request(request)?;
        let format = match request {
            Request::Cluster { format } => Format::from_code(*format),
            _ => None,
        };
        self.context.format = format.unwrap_or(Format::Roles);
        self.answer()
    }

    /// Sends a query and puts its parts together. A failure after some parts is the answer then.
    pub fn call_for_rows(&mut self, request: &Request<'_>) -> io::Result<Answer> {
        let mut all = self.call(request)?;
        while let Answer::Rows { rows, more, .. } = &mut all {
            if !*more {
                break;
            }
            match self.answer()? {
                Answer::Rows { rows: next, more: still, .. } => {
                    rows.extend(next);
                    *more = still;
                }
                other => return Ok(other),
            }
        }
        Ok(all)
    }
}

/// The helpers for what most tests do; they panic when the connection fails.
impl Client {
    /// Connects, and opens the database.
    #[track_caller]
    pub fn with_database(address: &str, name: &str) -> Self {
        let mut client = Self::connect(address).unwrap();
        client.open(name).ok();
        client
    }

    #[track_caller]
    fn must(&mut self, request: Request<'_>) -> Answer {
        self.call(&request).unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    #[track_caller]
    pub fn open(&mut self, name: &str) -> Answer {
        self.must(Request::Open { filename: name.as_bytes(), flags: 0, vfs: b"volatile" })
    }

    /// Opens the database for reading on whatever node this is.
    #[track_caller]
    pub fn open_anywhere(&mut self, name: &str) -> Answer {
        self.must(Request::Open { filename: name.as_bytes(), flags: OPEN_ANYWHERE, vfs: b"volatile" })
    }

    /// Runs all statements of a text.
    #[track_caller]
    pub fn exec(&mut self, sql: &str, params: &[Param<'_>]) -> Answer {
        let (schema, params) = (schema_for(params), OwnedParams::new(params));
        self.must(Request::ExecSql { schema, db: 0, sql: sql.as_bytes(), params: params.view() })
    }

    /// Sends a text to run and does not wait.
    #[track_caller]
    pub fn begin_exec(&mut self, sql: &str) {
        let params = OwnedParams::default();
        let sql = sql.as_bytes();
        self.request(&Request::ExecSql { schema: Schema::V0, db: 0, sql, params: params.view() }).unwrap();
    }

    /// Sends a query and does not wait.
    #[track_caller]
    pub fn begin_query(&mut self, sql: &str) {
        let params = OwnedParams::default();
        let sql = sql.as_bytes();
        self.request(&Request::QuerySql { schema: Schema::V0, db: 0, sql, params: params.view() }).unwrap();
    }

    /// Runs the only statement of a text and reads all its rows.
    #[track_caller]
    pub fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Answer {
        let (schema, params) = (schema_for(params), OwnedParams::new(params));
        let request = Request::QuerySql { schema, db: 0, sql: sql.as_bytes(), params: params.view() };
        self.call_for_rows(&request).unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    /// Prepares a statement and gives its id.
    #[track_caller]
    pub fn prepare(&mut self, sql: &str) -> u32 {
        match self.must(Request::Prepare { schema: Schema::V0, db: 0, sql: sql.as_bytes() }).ok() {
            Answer::Stmt { id, .. } => id,
            other => panic!("a statement expected, found {other:?}"),
        }
    }

    #[track_caller]
    pub fn exec_prepared(&mut self, stmt: u32, params: &[Param<'_>]) -> Answer {
        let (schema, params) = (schema_for(params), OwnedParams::new(params));
        self.must(Request::Exec { schema, db: 0, stmt, params: params.view() })
    }

    #[track_caller]
    pub fn query_prepared(&mut self, stmt: u32, params: &[Param<'_>]) -> Answer {
        let (schema, params) = (schema_for(params), OwnedParams::new(params));
        let request = Request::Query { schema, db: 0, stmt, params: params.view() };
        self.call_for_rows(&request).unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    #[track_caller]
    pub fn finalize(&mut self, stmt: u32) -> Answer {
        self.must(Request::Finalize { db: 0, stmt })
    }

    #[track_caller]
    pub fn leader(&mut self) -> Answer {
        self.must(Request::Leader)
    }

    #[track_caller]
    pub fn cluster(&mut self) -> Answer {
        self.must(Request::Cluster { format: 1 })
    }

    #[track_caller]
    pub fn add(&mut self, id: u64, address: &str) -> Answer {
        self.must(Request::Add { id: NodeId(id), address: address.as_bytes() })
    }

    #[track_caller]
    pub fn assign(&mut self, id: u64, role: Role) -> Answer {
        self.must(Request::Assign { id: NodeId(id), role })
    }

    #[track_caller]
    pub fn remove(&mut self, id: u64) -> Answer {
        self.must(Request::Remove { id: NodeId(id) })
    }

    #[track_caller]
    pub fn transfer(&mut self, id: u64) -> Answer {
        self.must(Request::Transfer { id: NodeId(id) })
    }

    #[track_caller]
    pub fn dump(&mut self, name: &str) -> Answer {
        self.must(Request::Dump { filename: name.as_bytes() })
    }

    #[track_caller]
    pub fn describe(&mut self) -> Answer {
        self.must(Request::Describe { format: 0 })
    }

    #[track_caller]
    pub fn weight(&mut self, weight: u64) -> Answer {
        self.must(Request::Weight { weight })
    }

    #[track_caller]
    pub fn interrupt(&mut self) -> Answer {
        self.must(Request::Interrupt { db: 0 })
    }
}

/// As Go chooses: the old format says up to 255 parameters.
fn schema_for(params: &[Param<'_>]) -> Schema {
    if params.len() <= 255 { Schema::V0 } else { Schema::V1 }
}

fn owned(response: &Response<'_>) -> Answer {
    match response {
        Response::Failure { code, text } => Answer::Failure { code: *code, text: string(text) },
        Response::Server { id, address } => Answer::Server { id: id.0, address: string(address) },
        Response::ServerLegacy { address } => Answer::Server { id: 0, address: string(address) },
        Response::Welcome { heartbeat_timeout_ms } => {
            Answer::Welcome { heartbeat_timeout_ms: *heartbeat_timeout_ms }
        }
        Response::Servers { servers, .. } => {
            Answer::Servers(servers.iter().map(|it| (it.id.0, string(it.address), it.role)).collect())
        }
        Response::Db { id } => Answer::Db { id: *id },
        Response::Stmt { id, params, tail, .. } => Answer::Stmt { id: *id, params: *params, tail: *tail },
        Response::Result { last_insert_id, rows_affected } => {
            Answer::Result { last_insert_id: *last_insert_id, rows_affected: *rows_affected }
        }
        Response::Rows(rows) => Answer::Rows {
            columns: rows.columns.iter().map(|name| string(name)).collect(),
            rows: rows.rows.iter().map(|row| row.iter().map(value).collect()).collect(),
            more: rows.end == RowsEnd::Part,
        },
        Response::Empty => Answer::Empty,
        Response::Files(files) => {
            Answer::Files(files.iter().map(|file| (string(file.name), file.bytes.to_vec())).collect())
        }
        Response::Metadata { failure_domain, weight } => {
            Answer::Metadata { failure_domain: *failure_domain, weight: *weight }
        }
    }
}

fn value(cell: &Cell<'_>) -> Value {
    match *cell {
        Cell::Integer(value) => Value::Integer(value),
        Cell::Float(value) => Value::Float(value),
        Cell::Text(text) => Value::Text(string(text)),
        Cell::Blob(blob) => Value::Blob(blob.to_vec()),
        Cell::Null => Value::Null,
        Cell::Unixtime(value) => Value::Unixtime(value),
        Cell::Iso8601(text) => Value::Iso8601(string(text)),
        Cell::Boolean(value) => Value::Boolean(value),
    }
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
