//! Dialing peers: a thread per attempt, since the program's connect function may block for as long as it likes.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::base::NodeId;
use crate::base::limits::{PEER_DIALS_MAX, STRANGER_DIALS_MAX};
use crate::codec::peer::encode_connect;
use crate::runtime::connect::Connector;
use crate::runtime::threads::{self, Calls};

/// How long a write of the opening bytes may take: they fit the buffer of any socket.
const OPENING_PATIENCE: Duration = Duration::from_secs(5);

/// The attempts that are under way.
#[derive(Clone)]
pub struct Dials {
    connector: Connector,
    /// What a connection begins with: the protocol word, and who connects. Two writes, as from C.
    opening: Arc<([u8; 8], Vec<u8>)>,
    calls: Calls,
}

impl Dials {
    /// Attempts of the node with this id and address.
    #[must_use]
    pub fn new(connector: Connector, id: NodeId, address: &str) -> Self {
        Self { connector, opening: Arc::new(encode_connect(id, address)), calls: Calls::default() }
    }

    /// Connects to `address` on a thread of its own, which ends with `report`: a socket over which the opening
    /// bytes are written, in non-blocking mode. `member`: it is one of the cluster, and does not wait for others.
    ///
    /// # Errors
    /// There is no room for another thread, or the node stops.
    pub fn start(
        &self,
        address: String,
        member: bool,
        report: impl FnOnce(Result<OwnedFd, String>) + Send + 'static,
    ) -> io::Result<()> {
        let call = self.calls.begin(if member { PEER_DIALS_MAX } else { STRANGER_DIALS_MAX })?;
        let dials = self.clone();
        threads::start("dqlite-dial", move || {
            if call.is_stopped() {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(|| dials.connect(&address)))
                .unwrap_or_else(|_| Err("the connect function panicked".to_owned()));
            // The program's function has returned; a stop need not wait for more.
            drop(call);
            report(result);
        })?;
        Ok(())
    }

    fn connect(&self, address: &str) -> Result<OwnedFd, String> {
        let socket = self.connector.connect(address).map_err(|error| error.to_string())?;
        self.open(socket).map_err(|error| format!("the opening bytes could not be written: {error}"))
    }

    fn open(&self, socket: OwnedFd) -> io::Result<OwnedFd> {
        // The calls are the same for sockets of other families.
        let mut stream = TcpStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(OPENING_PATIENCE))?;
        let (word, connect) = &*self.opening;
        write_quietly(&mut stream, word)?;
        write_quietly(&mut stream, connect)?;
        stream.set_nonblocking(true)?;
        Ok(stream.into())
    }

    /// Has no attempt begin from here on, and waits `patience` for the connect functions that are running.
    pub fn stop(&self, patience: Duration) {
        self.calls.stop(patience);
    }
}

/// Writes everything, without ever raising SIGPIPE.
fn write_quietly(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    struct Quiet<'a>(&'a TcpStream);
    impl Write for Quiet<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(rustix::net::send(self.0, bytes, rustix::net::SendFlags::NOSIGNAL)?)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    Quiet(stream).write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use crossbeam_channel::{bounded, unbounded};

    use super::Dials;
    use crate::base::NodeId;
    use crate::runtime::connect::{Connector, NO_CONNECTION};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn dials(connector: Connector) -> Dials {
        Dials::new(connector, NodeId(1), "127.0.0.1:21301")
    }

    /// As captured from a C node with this id and address.
    const OPENING: [u8; 40] = *b"\x01\0\0\0\0\0\0\0\x03\0\0\0\x0b\0\0\0\x01\0\0\0\0\0\0\x00127.0.0.1:21301\0";

    fn result_of(dials: &Dials, address: &str) -> Result<OwnedFd, String> {
        let (report, reported) = bounded(1);
        dials.start(address.to_owned(), true, move |result| report.send(result).unwrap()).unwrap();
        reported.recv_timeout(PATIENCE).unwrap()
    }

    #[test]
    fn a_connection_begins_with_the_bytes_of_a_c_node() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dials = dials(Connector::default());
        let socket = result_of(&dials, &listener.local_addr().unwrap().to_string()).unwrap();
        let mut found = [0; OPENING.len()];
        listener.accept().unwrap().0.read_exact(&mut found).unwrap();
        assert_eq!(found, OPENING);
        let flags = rustix::fs::fcntl_getfl(&socket).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
    }

    #[test]
    fn sockets_of_the_programs_function_may_be_of_any_family_and_mode() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let given = OwnedFd::from(near);
        let dials = dials(Connector::new(move |address| {
            assert_eq!(address, "anywhere");
            given.try_clone().map_err(|_| 1)
        }));
        result_of(&dials, "anywhere").unwrap();
        let mut found = [0; OPENING.len()];
        far.read_exact(&mut found).unwrap();
        assert_eq!(found, OPENING);
    }

    #[test]
    fn what_fails_is_reported_with_its_reason() {
        let refusing = dials(Connector::new(|_| Err(NO_CONNECTION)));
        assert_eq!(result_of(&refusing, "a").unwrap_err(), "connect function: 0 expected, found 16");
        let panicking = dials(Connector::new(|_| std::panic::resume_unwind(Box::new("planned"))));
        assert_eq!(result_of(&panicking, "a").unwrap_err(), "the connect function panicked");
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let given = OwnedFd::from(near);
        let closed = dials(Connector::new(move |_| given.try_clone().map_err(|_| 1)));
        let text = result_of(&closed, "a").unwrap_err();
        assert!(text.starts_with("the opening bytes could not be written: "), "{text}");
    }

    #[test]
    fn a_stop_waits_for_the_function_but_not_for_ever_and_nothing_begins_after_it() {
        let (entered, enter) = unbounded();
        let (leave, left) = bounded::<()>(0);
        let dials = dials(Connector::new(move |_| {
            entered.send(()).unwrap();
            // Ends when the test drops its side.
            left.recv().map_or(Err(NO_CONNECTION), |()| Err(NO_CONNECTION))
        }));
        let (report, reported) = bounded(1);
        dials.start("a".to_owned(), true, move |result| report.send(result.is_err()).unwrap()).unwrap();
        enter.recv_timeout(PATIENCE).unwrap();
        dials.stop(Duration::from_millis(1));
        assert!(dials.start("a".to_owned(), true, |_| {}).is_err());
        drop(leave);
        dials.stop(PATIENCE);
        assert_eq!(dials.calls.running(), 0);
        assert!(reported.recv_timeout(PATIENCE).unwrap());
    }

    #[test]
    fn attempts_to_reach_strangers_leave_room_for_members() {
        let (leave, left) = bounded::<()>(0);
        let dials =
            dials(Connector::new(move |_| left.recv().map_or(Err(NO_CONNECTION), |()| Err(NO_CONNECTION))));
        let begun = |member| (0..100).filter(|_| dials.start("a".to_owned(), member, |_| {}).is_ok()).count();
        assert_eq!(begun(false), super::STRANGER_DIALS_MAX);
        assert_eq!(begun(true), super::PEER_DIALS_MAX - super::STRANGER_DIALS_MAX);
        drop(leave);
        dials.stop(PATIENCE);
        assert_eq!(dials.calls.running(), 0);
    }
}
