//! The socket a node listens on: bound when the program names the address, listening when the node starts.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::address::{AddressError, BindAddress, parse_bind};

/// Connections that may wait to be accepted, as in C.
const BACKLOG: i32 = 128;

/// A bound, close-on-exec, non-blocking socket. Dropping it closes it.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    /// What the C API reports: an IP address as it was given, an abstract name as it came out.
    reported: Vec<u8>,
    unix: bool,
}

/// Why there is no socket.
#[derive(Debug)]
pub enum BindError {
    /// The text is not an address.
    Address(AddressError),
    /// The system refused the address.
    System(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::System(error) => write!(f, "bind: {error}"),
        }
    }
}

impl std::error::Error for BindError {}

impl From<rustix::io::Errno> for BindError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::System(errno.into())
    }
}

impl Listener {
    /// Creates a socket and binds it to the address in `text`.
    ///
    /// # Errors
    /// The text is not an address, or the system does not give the address away.
    pub fn bind(text: &[u8]) -> Result<Self, BindError> {
        match parse_bind(text).map_err(BindError::Address)? {
            BindAddress::Ip(address) => Self::bind_ip(&address, text),
            BindAddress::Abstract(name) => Self::bind_unix(&SocketAddrUnix::new_abstract_name(&name)?),
            BindAddress::Autobind => Self::bind_unix(&SocketAddrUnix::new_unnamed()),
        }
    }

    fn bind_ip(address: &SocketAddr, text: &[u8]) -> Result<Self, BindError> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = socket(family)?;
        // A restarted program takes its port back although old connections linger in TIME_WAIT.
        sockopt::set_socket_reuseaddr(&fd, true)?;
        net::bind(&fd, address)?;
        Ok(Self { fd, reported: text.to_vec(), unix: false })
    }

    fn bind_unix(address: &SocketAddrUnix) -> Result<Self, BindError> {
        let fd = socket(AddressFamily::UNIX)?;
        net::bind(&fd, address)?;
        let bound = SocketAddrUnix::try_from(net::getsockname(&fd)?)?;
        let mut reported = b"@".to_vec();
        reported.extend_from_slice(bound.abstract_name().unwrap_or_default());
        Ok(Self { fd, reported, unix: true })
    }

    /// Starts accepting connections into the backlog.
    ///
    /// # Errors
    /// Another socket listens on the port already; the text is the one the C library's event loop would give.
    pub fn listen(&self) -> Result<(), String> {
        net::listen(&self.fd, BACKLOG).map_err(|errno| format!("uv_listen(): {}", system_error_text(errno)))
    }

    /// The address as `dqlite_node_get_bind_address` reports it.
    #[must_use]
    pub fn reported(&self) -> &[u8] {
        &self.reported
    }

    /// Whether peers come through an abstract Unix socket: then only this process may connect.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.unix
    }

    /// The IP address with the port that the kernel chose, if any; none for a Unix socket.
    #[must_use]
    pub fn ip_address(&self) -> Option<SocketAddr> {
        net::getsockname(&self.fd).ok().and_then(|address| SocketAddr::try_from(address).ok())
    }

    /// The socket, for the event loop.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// The words of the C library's event loop for a system error.
#[must_use]
pub fn system_error_text(errno: rustix::io::Errno) -> String {
    use rustix::io::Errno;
    match errno {
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::ADDRINUSE => "address already in use".to_owned(),
        Errno::BADF => "bad file descriptor".to_owned(),
        Errno::INVAL => "invalid argument".to_owned(),
        Errno::NOTSOCK => "socket operation on non-socket".to_owned(),
        Errno::OPNOTSUPP => "operation not supported on socket".to_owned(),
        Errno::NOBUFS => "no buffer space available".to_owned(),
        Errno::NOMEM => "not enough memory".to_owned(),
        other => format!("system error {}", other.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};

    use super::{BindError, Listener};

    fn reported(listener: &Listener) -> String {
        String::from_utf8(listener.reported().to_vec()).unwrap()
    }

    #[test]
    fn an_ip_address_is_reported_as_it_was_given_and_the_port_is_the_kernels_choice() {
        let listener = Listener::bind(b"127.1:0").unwrap();
        assert_eq!(reported(&listener), "127.1:0");
        assert!(!listener.is_unix());
        let address = listener.ip_address().unwrap();
        assert_eq!(address.ip().to_string(), "127.0.0.1");
        assert_ne!(address.port(), 0);
    }

    #[test]
    fn a_kernel_chosen_abstract_name_is_reported_and_can_be_connected_to() {
        let listener = Listener::bind(b"@").unwrap();
        let name = reported(&listener);
        assert_eq!(name.len(), 6, "five hexadecimal digits after the @: {name}");
        let address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        UnixStream::connect_addr(&address).unwrap_err();
        listener.listen().unwrap();
        UnixStream::connect_addr(&address).unwrap();
    }

    #[test]
    fn an_abstract_name_is_taken_byte_for_byte_and_once() {
        let name = format!("@dqlite test/{}", std::process::id());
        let listener = Listener::bind(name.as_bytes()).unwrap();
        assert_eq!(reported(&listener), name);
        assert!(listener.is_unix());
        assert_eq!(listener.ip_address(), None);
        listener.listen().unwrap();
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name[1..]).unwrap()).unwrap();
        assert!(matches!(Listener::bind(name.as_bytes()), Err(BindError::System(_))));
    }

    #[test]
    fn the_longest_abstract_name_is_read_back_whole() {
        let mut name = format!("@dqlite-{}-", std::process::id());
        name.push_str(&"n".repeat(108 - name.len()));
        assert_eq!(reported(&Listener::bind(name.as_bytes()).unwrap()), name);
    }

    #[test]
    fn two_sockets_may_bind_a_port_but_only_one_listens() {
        let first = Listener::bind(b"127.0.0.1:0").unwrap();
        let address = first.ip_address().unwrap().to_string();
        let second = Listener::bind(address.as_bytes()).unwrap();
        first.listen().unwrap();
        assert_eq!(second.listen().unwrap_err(), "uv_listen(): address already in use");
        assert!(matches!(Listener::bind(address.as_bytes()), Err(BindError::System(_))));
    }

    #[test]
    fn an_address_that_is_not_of_this_machine_is_refused() {
        assert!(matches!(Listener::bind(b"192.0.2.1:0"), Err(BindError::System(_))));
        assert!(matches!(Listener::bind(b"localhost:0"), Err(BindError::Address(_))));
    }

    #[test]
    fn the_socket_is_not_inherited_by_programs_that_are_started() {
        let listener = Listener::bind(b"127.0.0.1:0").unwrap();
        let flags = rustix::io::fcntl_getfd(&listener).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}
