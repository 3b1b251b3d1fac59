//! Stands between the nodes of a test: swallows what they say, or passes it on slowly.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dqlite::runtime::connect::Connector;

/// The type of the message that carries a snapshot.
const INSTALL_SNAPSHOT: u64 = 5;

/// All connections between the nodes of a cluster.
#[derive(Clone, Default)]
pub struct Links(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Addresses of nodes that nothing reaches and whom nobody hears.
    cut: BTreeSet<String>,
    /// Bytes per second and connection, if that is limited.
    speed: Option<u64>,
    /// To whom snapshots went, connection by connection.
    snapshots: Vec<String>,
}

impl Links {
    /// Connects as `inner` does, in the name of the node at `from`.
    pub fn around(&self, from: &str, inner: Connector) -> Connector {
        let (links, from) = (self.clone(), from.to_owned());
        Connector::new(move |to| {
            let there = TcpStream::from(inner.connect(to).map_err(|_| 16)?);
            let (here, given) = UnixStream::pair().map_err(|_| 16)?;
            links.join((&from, to), &here, &there).map_err(|_| 16)?;
            Ok(OwnedFd::from(given))
        })
    }

    fn join(&self, (from, to): (&str, &str), here: &UnixStream, there: &TcpStream) -> io::Result<()> {
        there.set_nonblocking(false)?;
        let ends = (here.try_clone()?, there.try_clone()?);
        self.pass((from, to), here.try_clone()?, there.try_clone()?, ends, true);
        let ends = (here.try_clone()?, there.try_clone()?);
        self.pass((from, to), there.try_clone()?, here.try_clone()?, ends, false);
        Ok(())
    }

    fn pass(
        &self,
        (from, to): (&str, &str),
        mut source: impl Read + Send + 'static,
        mut sink: impl Write + Send + 'static,
        (here, there): (UnixStream, TcpStream),
        forward: bool,
    ) {
        let (links, from, to) = (self.clone(), from.to_owned(), to.to_owned());
        thread::spawn(move || {
            let (mut buffer, mut head, mut spoilt) = (vec![0; 1 << 16], Some(Vec::new()), false);
            let (begun, mut passed) = (Instant::now(), 0);
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                let (cut, speed) = links.state_between(&from, &to);
                if cut {
                    spoilt = true;
                    continue;
                }
                if forward && let Some(bytes) = &mut head {
                    bytes.extend_from_slice(&buffer[..count]);
                    if let Some(kind) = first_message(bytes) {
                        head = None;
                        if kind == INSTALL_SNAPSHOT {
                            links.0.lock().unwrap().snapshots.push(to.clone());
                        }
                    }
                }
                // Half of what was said is worse than nothing.
                if spoilt || sink.write_all(&buffer[..count]).is_err() {
                    break;
                }
                passed += count as u64;
                if let Some(speed) = speed {
                    let due = Duration::from_secs_f64(passed as f64 / speed as f64);
                    thread::sleep(due.saturating_sub(begun.elapsed()));
                }
            }
            // Whoever is cut off does not hear that the other side is gone either.
            if !links.state_between(&from, &to).0 {
                let _ended = (here.shutdown(Shutdown::Both), there.shutdown(Shutdown::Both));
            }
        });
    }

    fn state_between(&self, from: &str, to: &str) -> (bool, Option<u64>) {
        let state = self.0.lock().unwrap();
        (state.cut.contains(from) || state.cut.contains(to), state.speed)
    }

    /// Swallows what is said to and by the node at `address`. No connection ends by that.
    pub fn cut(&self, address: &str) {
        self.0.lock().unwrap().cut.insert(address.to_owned());
    }

    /// All nodes reach each other again. Connections on which something was lost end when they are used.
    pub fn heal(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    /// Passes on so many bytes a second on each connection.
    pub fn slow_down(&self, speed: u64) {
        self.0.lock().unwrap().speed = Some(speed);
    }

    /// How many snapshots were begun to be sent to the node at `address`.
    pub fn snapshots_to(&self, address: &str) -> usize {
        self.0.lock().unwrap().snapshots.iter().filter(|to| *to == address).count()
    }
}

/// The type of the first message after the opening of a connection, once it is there.
fn first_message(bytes: &[u8]) -> Option<u64> {
    let words = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
    let at = 16 + 8 * usize::try_from(words).ok()?;
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?) & 0xffff)
}
