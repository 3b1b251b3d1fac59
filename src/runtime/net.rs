//! Sockets of clients: one read, one write, never SIGPIPE.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::listen::Listener;
use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendFlags, send, sendmsg, sockopt};

/// What accepts clients.
#[derive(Debug)]
pub enum Acceptor {
    /// An IP socket.
    Tcp(TcpListener),
    /// A Unix socket; it serves clients of this process alone.
    Unix(UnixListener),
}

/// One client's socket.
#[derive(Debug)]
pub enum Stream {
    /// An IP socket.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl From<Listener> for Acceptor {
    fn from(listener: Listener) -> Self {
        if listener.is_unix() {
            let socket = std::os::unix::net::UnixListener::from(listener.into_fd());
            Self::Unix(UnixListener::from_std(socket))
        } else {
            let socket = std::net::TcpListener::from(listener.into_fd());
            Self::Tcp(TcpListener::from_std(socket))
        }
    }
}

impl Acceptor {
    /// The next client that waits; `None` when none does. A client of another process on a Unix socket is
    /// closed without a byte, as the C library does.
    ///
    /// # Errors
    /// The process is out of descriptors, or the like.
    pub fn accept(&self) -> io::Result<Option<Stream>> {
        loop {
            match self.accept_any()? {
                Some(Stream::Unix(stream)) if !is_own_process(&stream) => {
                    log::debug!("a client of another process was turned away");
                }
                accepted => return Ok(accepted),
            }
        }
    }

    /// The next client that waits, whoever it is.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub fn accept_any(&self) -> io::Result<Option<Stream>> {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
                Self::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => return Ok(Some(stream)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What to register with the poll.
    pub fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener) => listener,
            Self::Unix(listener) => listener,
        }
    }
}

fn is_own_process(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.pid.as_raw_nonzero().get().unsigned_abs() == std::process::id())
}

impl TryFrom<OwnedFd> for Stream {
    type Error = io::Error;

    /// A connected socket in non-blocking mode.
    fn try_from(socket: OwnedFd) -> io::Result<Self> {
        Ok(match sockopt::socket_domain(&socket)? {
            AddressFamily::UNIX => Self::Unix(UnixStream::from_std(socket.into())),
            _ => Self::Tcp(TcpStream::from_std(socket.into())),
        })
    }
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).read(buffer),
            Self::Unix(stream) => (&*stream).read(buffer),
        }
    }
}

/// What a read found.
#[derive(Debug)]
pub enum ReadOutcome {
    /// This many bytes lie in the buffer; more may wait if it is full.
    Bytes(usize),
    /// Nothing to read now.
    Nothing,
    /// The client is gone.
    Gone,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// This many bytes were taken.
    Bytes(usize),
    /// The socket takes nothing now; it will say when it does.
    Blocked,
    /// The client is gone.
    Gone,
}

/// More than this does not wait in a socket: whoever does not take its answers gets no more of them.
const WAITING_BYTES_MAX: usize = 1024;

/// A client's socket.
#[derive(Debug)]
pub struct Connection {
    outlet: Arc<Outlet>,
}

/// The part of a client's socket that other threads may have too: they send what waits in it.
///
/// Invariant: bytes enter in the order in which they are to be sent, and nothing passes those that wait.
#[derive(Debug)]
pub struct Outlet {
    stream: Stream,
    waiting: Mutex<Vec<u8>>,
}

impl Outlet {
    /// Sends what waits; what the socket does not take goes on waiting, and if the client is gone the poll says so.
    pub fn send_waiting(&self) {
        self.write(&[]);
    }

    fn write(&self, bytes: &[u8]) -> WriteOutcome {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let send = |bytes: &[u8]| outcome_of(|| send(self.stream.fd(), bytes, SendFlags::NOSIGNAL));
        while !waiting.is_empty() {
            match send(&waiting) {
                WriteOutcome::Bytes(count) if count >= waiting.len() => waiting.clear(),
                WriteOutcome::Bytes(count) => drop(waiting.drain(..count)),
                other => return other,
            }
        }
        if bytes.is_empty() { WriteOutcome::Bytes(0) } else { send(bytes) }
    }
}

impl Connection {
    /// Registers the socket for both directions, edge-triggered.
    ///
    /// # Errors
    /// The poll refuses it.
    pub fn new(mut stream: Stream, registry: &Registry, token: Token) -> io::Result<Self> {
        if let Stream::Tcp(tcp) = &stream {
            // Answers are written whole; waiting for more bytes would only delay them.
            tcp.set_nodelay(true)?;
        }
        registry.register(stream.source(), token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { outlet: Arc::new(Outlet { stream, waiting: Mutex::default() }) })
    }

    /// Takes the socket out of the poll. It closes when this value is dropped.
    pub fn deregister(&mut self, registry: &Registry) {
        let fd = self.outlet.stream.fd().as_raw_fd();
        if let Err(error) = registry.deregister(&mut SourceFd(&fd)) {
            log::debug!("a closing connection was not registered: {error}");
        }
    }

    /// Reads once into `buffer`.
    pub fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        loop {
            match self.outlet.stream.read(buffer) {
                Ok(0) => return ReadOutcome::Gone,
                Ok(count) => return ReadOutcome::Bytes(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return ReadOutcome::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::debug!("a client's connection failed: {error}");
                    return ReadOutcome::Gone;
                }
            }
        }
    }

    /// Writes once, without ever raising SIGPIPE: its disposition is the host's.
    pub fn write(&mut self, bytes: &[u8]) -> WriteOutcome {
        self.outlet.write(bytes)
    }

    /// Sends what waits in the socket.
    pub fn send_waiting(&self) {
        self.outlet.send_waiting();
    }

    /// Leaves an answer with the socket, for whoever sends what waits there. `None`: there is no room for it.
    pub fn leave(&mut self, bytes: &[u8]) -> Option<Arc<Outlet>> {
        let mut waiting = self.outlet.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len().saturating_add(bytes.len()) > WAITING_BYTES_MAX {
            return None;
        }
        waiting.extend_from_slice(bytes);
        Some(Arc::clone(&self.outlet))
    }

    /// The same with bytes that lie in several places.
    pub fn write_parts(&mut self, parts: &[IoSlice<'_>]) -> WriteOutcome {
        outcome_of(|| {
            sendmsg(self.outlet.stream.fd(), parts, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
        })
    }

    /// Has the connection fail when the other machine leaves bytes unconfirmed for longer than this.
    pub fn limit_silence(&self, silence: Duration) {
        let milliseconds = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
        if let Stream::Tcp(tcp) = &self.outlet.stream
            && let Err(error) = sockopt::set_tcp_user_timeout(tcp, milliseconds)
        {
            log::debug!("the system has no limit for silence: {error}");
        }
    }
}

fn outcome_of(mut write: impl FnMut() -> rustix::io::Result<usize>) -> WriteOutcome {
    loop {
        match write() {
            Ok(count) => return WriteOutcome::Bytes(count),
            Err(Errno::AGAIN) => return WriteOutcome::Blocked,
            Err(Errno::INTR) => {}
            Err(error) => {
                log::debug!("a connection failed: {error}");
                return WriteOutcome::Gone;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use mio::net::UnixStream;
    use mio::{Poll, Token};

    use super::{Connection, Stream, WAITING_BYTES_MAX, WriteOutcome};

    #[test]
    fn what_was_left_in_a_socket_goes_first_and_too_much_is_not_left() {
        let poll = Poll::new().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(Stream::Unix(near), poll.registry(), Token(1)).unwrap();
        let outlet = connection.leave(b"one ").unwrap();
        assert!(matches!(connection.write(b"two "), WriteOutcome::Bytes(4)));
        outlet.send_waiting();
        connection.leave(b"three").unwrap().send_waiting();
        let mut found = [0; 64];
        let count = far.read(&mut found).unwrap();
        assert_eq!(&found[..count], b"one two three");

        assert!(connection.leave(&[7; WAITING_BYTES_MAX]).is_some());
        assert!(connection.leave(b"8").is_none(), "whoever does not read gets no more");
        outlet.send_waiting();
        assert!(connection.leave(b"8").is_some());

        // A full socket keeps what waits in front of everything else.
        while matches!(connection.write(&[9; 4096]), WriteOutcome::Bytes(_)) {}
        connection.leave(b"last").unwrap().send_waiting();
        assert!(matches!(connection.write(b"x"), WriteOutcome::Blocked));
        drop(connection);
        drop(outlet);
        let mut rest = Vec::new();
        while let Ok(count @ 1..) = far.read(&mut found) {
            rest.extend_from_slice(&found[..count]);
        }
        assert_eq!(rest[WAITING_BYTES_MAX], b'8');
        assert!(rest[WAITING_BYTES_MAX + 1..].iter().all(|byte| *byte == 9), "it never left");
    }
}
