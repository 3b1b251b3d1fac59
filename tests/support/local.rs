//! Several nodes in the test's own process, found by names instead of ports: no port can be taken meanwhile.

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dqlite::runtime::connect::Connector;

/// How long a test waits for something that takes a moment: much more than it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A name for a socket that nobody else uses.
pub fn name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("@dqlite-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Connects to such names.
pub fn connect(address: &str) -> Result<OwnedFd, i32> {
    let name = address.strip_prefix('@').ok_or(16)?;
    let address = SocketAddr::from_abstract_name(name).map_err(|_| 16)?;
    UnixStream::connect_addr(&address).map(OwnedFd::from).map_err(|_| 16)
}

/// A connector to such names.
pub fn connector() -> Connector {
    Connector::new(connect)
}

/// Waits until `found` gives something, and fails with what it said last if that takes too long.
#[track_caller]
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match found() {
            Ok(value) => return value,
            Err(text) => assert!(Instant::now() < deadline, "{what} expected, found {text}"),
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
