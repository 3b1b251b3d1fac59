//! One connection: blocking while it is set up, then driven by readiness.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dqlite::codec::client::{
    Context, FrameReader, PROTOCOL_VERSION, Params, Request, Response, RowsEnd, Schema,
};

/// What a node answered, as far as a load program cares.
pub enum Reply {
    Done,
    Statement(u32),
    Refused(u64, String),
}

enum Socket {
    Blocking(TcpStream),
    Polled(mio::net::TcpStream),
}

/// A client connection with one request at a time.
pub struct Client {
    socket: Socket,
    frames: FrameReader,
    buffer: Vec<u8>,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
}

pub fn unexpected(text: impl Display) -> io::Error {
    io::Error::other(text.to_string())
}

impl Client {
    pub fn open(address: &str, database: &[u8]) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(&PROTOCOL_VERSION.to_le_bytes())?;
        let mut client = Self {
            socket: Socket::Blocking(stream),
            frames: FrameReader::new(1 << 30),
            buffer: vec![0; 16 << 10],
            unsent: Vec::new(),
        };
        match client.call(&Request::Open { filename: database, flags: 0, vfs: b"" })? {
            Reply::Refused(code, text) => Err(unexpected(format!("open: {code} {text}"))),
            Reply::Done | Reply::Statement(_) => Ok(client),
        }
    }

    /// Sends a request and waits for its answer; of rows, all parts.
    fn call(&mut self, request: &Request<'_>) -> io::Result<Reply> {
        self.send(request)?;
        loop {
            if let Some(reply) = self.reply()? {
                return Ok(reply);
            }
            if !self.read()? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// Runs a statement that must succeed.
    pub fn expect(&mut self, sql: &[u8]) -> io::Result<()> {
        match self.call(&Request::ExecSql { schema: Schema::V0, db: 0, sql, params: Params::default() })? {
            Reply::Refused(code, text) => Err(unexpected(format!("refused: {code} {text}"))),
            Reply::Done | Reply::Statement(_) => Ok(()),
        }
    }

    pub fn query(&mut self, sql: &[u8]) -> io::Result<Reply> {
        self.call(&Request::QuerySql { schema: Schema::V0, db: 0, sql, params: Params::default() })
    }

    pub fn prepare(&mut self, sql: &[u8]) -> io::Result<u32> {
        match self.call(&Request::Prepare { schema: Schema::V0, db: 0, sql })? {
            Reply::Statement(id) => Ok(id),
            Reply::Refused(code, text) => Err(unexpected(format!("prepare: {code} {text}"))),
            Reply::Done => Err(unexpected("prepare: a statement expected")),
        }
    }

    /// The socket, from here on for a poll.
    pub fn source(&mut self) -> io::Result<&mut mio::net::TcpStream> {
        if let Socket::Blocking(stream) = &self.socket {
            let stream = stream.try_clone()?;
            stream.set_nonblocking(true)?;
            self.socket = Socket::Polled(mio::net::TcpStream::from_std(stream));
        }
        match &mut self.socket {
            Socket::Polled(stream) => Ok(stream),
            Socket::Blocking(_) => Err(unexpected("a polled socket expected")),
        }
    }

    pub fn send(&mut self, request: &Request<'_>) -> io::Result<()> {
        self.unsent = request.encode().ok_or_else(|| unexpected("request too long"))?;
        self.write_on()
    }

    /// Writes what the socket takes; the poll says when it takes more.
    pub fn write_on(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let written = match &mut self.socket {
                Socket::Blocking(stream) => stream.write(&self.unsent),
                Socket::Polled(stream) => stream.write(&self.unsent),
            };
            match written {
                Ok(count) if count == self.unsent.len() => self.unsent.clear(),
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what there is; whether there was anything.
    pub fn read(&mut self) -> io::Result<bool> {
        let mut any = false;
        loop {
            let read = match &mut self.socket {
                Socket::Blocking(stream) => stream.read(&mut self.buffer),
                Socket::Polled(stream) => stream.read(&mut self.buffer),
            };
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.frames.feed(self.buffer.get(..count).unwrap_or_default());
                    any = true;
                    if count < self.buffer.len() || matches!(self.socket, Socket::Blocking(_)) {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) => return Err(error),
            }
        }
    }

    /// The answer, once all of it has been read.
    pub fn reply(&mut self) -> io::Result<Option<Reply>> {
        while let Some(frame) = self.frames.next_frame().map_err(unexpected)? {
            match Response::decode(frame, Context::default()).map_err(unexpected)? {
                Response::Failure { code, text } => {
                    return Ok(Some(Reply::Refused(code, String::from_utf8_lossy(text).into_owned())));
                }
                Response::Stmt { id, .. } => return Ok(Some(Reply::Statement(id))),
                Response::Rows(rows) if rows.end == RowsEnd::Part => {}
                _ => return Ok(Some(Reply::Done)),
            }
        }
        Ok(None)
    }
}
