//! How a node reaches a peer: a function of the program, or the default one for IP addresses.

use std::fmt;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::address::parse_ip;

/// What a failed connect function returns: no connection.
pub const NO_CONNECTION: i32 = 16;

/// How long the default way tries. The system tries for two minutes, with a stop of the node waiting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

type ConnectFunction = dyn Fn(&str) -> Result<OwnedFd, i32> + Send + Sync;

/// Connects to an address of the cluster's configuration. It may block for as long as it likes, so it is called
/// on threads of its own, never on the loop's, and several calls may run at once.
#[derive(Clone)]
pub struct Connector(Arc<ConnectFunction>);

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The function returned this code.
    Refused(i32),
    /// What the function gave is not a stream socket of a kind that can be used.
    NotAStreamSocket,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "connect function: 0 expected, found {code}"),
            Self::NotAStreamSocket => f.write_str(
                "connect function: a connected TCP or Unix stream socket expected, found another file descriptor",
            ),
        }
    }
}

impl std::error::Error for ConnectError {}

impl Connector {
    /// A connector that calls `connect`; its error is the code that the program's function returned.
    pub fn new(connect: impl Fn(&str) -> Result<OwnedFd, i32> + Send + Sync + 'static) -> Self {
        Self(Arc::new(connect))
    }

    /// Calls the function and looks at what it gave. The socket may be in blocking mode or not.
    ///
    /// # Errors
    /// The function failed, or gave something that is not a stream socket; then that is closed.
    pub fn connect(&self, address: &str) -> Result<OwnedFd, ConnectError> {
        let fd = (self.0)(address).map_err(ConnectError::Refused)?;
        if is_stream_socket(&fd) { Ok(fd) } else { Err(ConnectError::NotAStreamSocket) }
    }
}

impl Default for Connector {
    /// Connects to `ADDR[:PORT]` or `[ADDR]:PORT`, IPv4 and IPv6, all numeric. A machine that says nothing is given
    /// up after a while: the system would try for two minutes, and notice late that it is back.
    fn default() -> Self {
        Self::new(|address| {
            let address = parse_ip(address.as_bytes()).map_err(|_| NO_CONNECTION)?;
            TcpStream::connect_timeout(&address, CONNECT_PATIENCE)
                .map(OwnedFd::from)
                .map_err(|_| NO_CONNECTION)
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

fn is_stream_socket(fd: &OwnedFd) -> bool {
    let family = sockopt::socket_domain(fd);
    let usable = [AddressFamily::INET, AddressFamily::INET6, AddressFamily::UNIX];
    family.is_ok_and(|family| usable.contains(&family)) && sockopt::socket_type(fd) == Ok(SocketType::STREAM)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::{ConnectError, Connector, NO_CONNECTION};

    #[test]
    fn the_default_connects_over_ipv4_and_ipv6() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        Connector::default().connect(&v4.local_addr().unwrap().to_string()).unwrap();
        // A machine without IPv6 has nothing to connect to.
        if let Ok(v6) = TcpListener::bind("[::1]:0") {
            Connector::default().connect(&v6.local_addr().unwrap().to_string()).unwrap();
        }
    }

    #[test]
    fn the_default_answers_16_to_whatever_it_cannot_reach() {
        let refused = Err(ConnectError::Refused(NO_CONNECTION));
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        for address in [free.as_str(), "localhost:1", "@name", ""] {
            assert_eq!(Connector::default().connect(address).map(drop), refused, "{address}");
        }
    }

    #[test]
    fn only_stream_sockets_count_as_connections() {
        let (near, _far) = UnixStream::pair().unwrap();
        let given = OwnedFd::from(near);
        let connector = Connector::new(move |_| given.try_clone().map_err(|_| 1));
        connector.connect("a").unwrap();

        let connector = Connector::new(|_| UnixDatagram::unbound().map(OwnedFd::from).map_err(|_| 1));
        assert_eq!(connector.connect("a").map(drop), Err(ConnectError::NotAStreamSocket));
        let connector = Connector::new(|_| std::io::pipe().map(|(end, _)| end.into()).map_err(|_| 1));
        assert_eq!(connector.connect("a").map(drop), Err(ConnectError::NotAStreamSocket));
    }
}
