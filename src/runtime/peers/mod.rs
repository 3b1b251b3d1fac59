//! The outgoing side of the peer protocol: one channel per peer, made by its first message.
//!
//! Bytes of a connection go one way only: what peers send arrives on connections that they open.

pub mod channel;
pub mod dial;
pub mod transfer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;

use mio::{Registry, Token};

use super::net::{Connection, ReadOutcome, Stream, WriteOutcome};
use crate::base::limits::{PEER_CHANNELS_MAX, PEER_SILENCE_MAX};
use crate::base::{NodeId, Time};
use crate::engine::ConnId;
use crate::node::figures::Traffic;
use channel::{Action, Channel, Outgoing};

/// What the channels want of others.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Connect: [`Peers::handle_dialed`] says how it went.
    Dial {
        /// For this peer.
        to: NodeId,
        /// Names the attempt.
        attempt: u64,
        /// Where to.
        address: String,
    },
    /// Tell consensus that an append for this peer is lost.
    Lost {
        /// The peer.
        to: NodeId,
    },
}

/// All channels and their connections.
#[derive(Debug, Default)]
pub struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    by_conn: HashMap<ConnId, NodeId>,
    /// Peers whose channels may have something to do.
    touched: BTreeSet<NodeId>,
    /// Counts messages, to know which channel was used last.
    sent: u64,
    closed: bool,
}

#[derive(Debug)]
struct Peer {
    channel: Channel,
    link: Option<(ConnId, Connection)>,
    last_used: u64,
    traffic: Traffic,
}

impl Peers {
    /// Sends a message to the peer with this id, which has this address now.
    pub fn send(&mut self, to: NodeId, address: &str, message: Outgoing) {
        if self.closed {
            return;
        }
        self.sent += 1;
        let last_used = self.sent;
        let peer = self.peers.entry(to).or_insert_with(|| Peer {
            channel: Channel::new(address.to_owned()),
            link: None,
            last_used,
            traffic: Traffic::default(),
        });
        peer.last_used = last_used;
        peer.traffic.messages += 1;
        peer.channel.send(address, message);
        self.touched.insert(to);
    }

    /// What was sent to each peer.
    pub fn traffic(&self) -> impl Iterator<Item = (NodeId, Traffic)> {
        self.peers.iter().map(|(id, peer)| (*id, peer.traffic))
    }

    /// Whether this is the connection to a peer.
    #[must_use]
    pub fn owns(&self, conn: ConnId) -> bool {
        self.by_conn.contains_key(&conn)
    }

    /// When [`Self::handle_time`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.peers.values().filter_map(|peer| peer.channel.poll_timeout()).min()
    }

    /// Time went on.
    pub fn handle_time(&mut self, now: Time) {
        for (id, peer) in &mut self.peers {
            if peer.channel.poll_timeout().is_some_and(|until| until <= now) {
                peer.channel.handle_time(now);
                self.touched.insert(*id);
            }
        }
    }

    /// This peer has connected to us.
    pub fn handle_heard(&mut self, from: NodeId, now: Time) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.channel.handle_heard();
            peer.channel.handle_time(now);
            self.touched.insert(from);
        }
    }

    /// An attempt has ended. A connection is known to the poll as `conn` with `token`.
    pub fn handle_dialed(
        &mut self,
        (to, attempt): (NodeId, u64),
        result: Result<OwnedFd, String>,
        (conn, token): (ConnId, Token),
        registry: &Registry,
        now: Time,
    ) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        self.touched.insert(to);
        let connected = result.and_then(|socket| register(socket, registry, token));
        match connected {
            Ok(connection) => {
                if peer.channel.handle_connected(attempt) {
                    log::debug!("connected to node {to}");
                    self.by_conn.insert(conn, to);
                    peer.link = Some((conn, connection));
                } else {
                    hang_up(connection, registry);
                }
            }
            Err(text) => {
                log::debug!("no connection to node {to}: {text}");
                peer.channel.handle_refused(attempt, now);
            }
        }
    }

    /// The socket can be written, or has something to tell: peers never write, so that is its end.
    pub fn handle_ready(&mut self, conn: ConnId, readable: bool, buffer: &mut [u8], now: Time) {
        let Some(to) = self.by_conn.get(&conn) else { return };
        let Some(peer) = self.peers.get_mut(to) else { return };
        self.touched.insert(*to);
        while readable && let Some((_, connection)) = &mut peer.link {
            match connection.read(buffer) {
                // Nobody knows what it means.
                ReadOutcome::Bytes(_) => {}
                ReadOutcome::Nothing => return,
                ReadOutcome::Gone => return peer.channel.handle_broken(now),
            }
        }
    }

    /// Writes what can be written; what is to be done by others then, if anything.
    pub fn poll(&mut self, registry: &Registry, now: Time) -> Option<Wanted> {
        while let Some(&to) = self.touched.first() {
            let Some(peer) = self.peers.get_mut(&to) else {
                self.touched.remove(&to);
                continue;
            };
            match peer.channel.poll_action() {
                Some(Action::Dial { attempt, address }) => {
                    return Some(Wanted::Dial { to, attempt, address });
                }
                Some(Action::Lost) => return Some(Wanted::Lost { to }),
                Some(Action::HangUp) => {
                    if let Some((conn, connection)) = peer.link.take() {
                        log::debug!("the connection to node {to} is over");
                        self.by_conn.remove(&conn);
                        hang_up(connection, registry);
                    }
                }
                None => {
                    if !peer.flush(now) {
                        self.touched.remove(&to);
                    }
                }
            }
        }
        self.forget_unused();
        None
    }

    /// Drops all channels; none is made any more.
    pub fn close(&mut self, registry: &Registry) {
        self.closed = true;
        self.by_conn.clear();
        for (_, peer) in std::mem::take(&mut self.peers) {
            if let Some((_, connection)) = peer.link {
                hang_up(connection, registry);
            }
        }
    }

    /// Whoever connects may claim any id and be answered. Channels that are open or being made stay.
    fn forget_unused(&mut self) {
        while self.peers.len() > PEER_CHANNELS_MAX {
            let unused = self.peers.iter().filter(|(_, peer)| peer.link.is_none());
            let Some((&oldest, _)) = unused.min_by_key(|(_, peer)| peer.last_used) else { return };
            self.peers.remove(&oldest);
        }
    }
}

impl Peer {
    /// Writes once. Whether there may be more to do.
    fn flush(&mut self, now: Time) -> bool {
        let Some((_, connection)) = &mut self.link else { return false };
        if !self.channel.has_output() {
            return false;
        }
        let mut slices = Vec::new();
        self.channel.gather(&mut slices);
        match connection.write_parts(&slices) {
            WriteOutcome::Bytes(count) => {
                self.traffic.bytes += count as u64;
                self.channel.handle_written(count);
            }
            // The poll says when the socket takes more.
            WriteOutcome::Blocked => return false,
            WriteOutcome::Gone => self.channel.handle_broken(now),
        }
        true
    }
}

fn register(socket: OwnedFd, registry: &Registry, token: Token) -> Result<Connection, String> {
    let connection = Stream::try_from(socket).and_then(|stream| Connection::new(stream, registry, token));
    let connection =
        connection.map_err(|error: io::Error| format!("the connection cannot be watched: {error}"))?;
    connection.limit_silence(PEER_SILENCE_MAX);
    Ok(connection)
}

fn hang_up(mut connection: Connection, registry: &Registry) {
    connection.deregister(registry);
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use mio::{Poll, Token};

    use super::channel::Outgoing;
    use super::{Peers, Wanted};
    use crate::base::limits::PEER_DIAL_RETRY;
    use crate::base::{NodeId, Payload, Time};
    use crate::engine::ConnId;

    const TO: NodeId = NodeId(2);
    const NOW: Time = Time(0);
    const LINK: (ConnId, Token) = (ConnId(9), Token(11));

    fn dial(attempt: u64) -> Option<Wanted> {
        Some(Wanted::Dial { to: TO, attempt, address: "a".to_owned() })
    }

    #[test]
    fn messages_cross_a_socket_that_takes_a_part_at_a_time() {
        let (poll, mut peers) = (Poll::new().unwrap(), Peers::default());
        let registry = poll.registry();
        let data = Payload::from_bytes(&vec![7; 4 << 20]);
        peers.send(TO, "a", Outgoing::append(b"head".to_vec(), std::iter::once(&data)));
        assert_eq!(peers.poll(registry, NOW), dial(1));
        assert_eq!(peers.poll(registry, NOW), None);
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        peers.handle_dialed((TO, 1), Ok(near.into()), LINK, registry, NOW);
        assert!(peers.owns(LINK.0));
        let (mut found, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        while found.len() < 4 + data.len() {
            peers.handle_ready(LINK.0, false, &mut [], NOW);
            assert_eq!(peers.poll(registry, NOW), None);
            let count = far.read(&mut buffer).unwrap();
            found.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(found[..4], *b"head");
        assert_eq!(found[4..], *data.contiguous());

        // The other side goes: nothing waits, so the second message from now dials.
        drop(far);
        peers.handle_ready(LINK.0, true, &mut buffer, NOW);
        assert_eq!(peers.poll(registry, NOW), None);
        assert!(!peers.owns(LINK.0));
        peers.send(TO, "a", Outgoing::new(b"next".to_vec()));
        assert_eq!(peers.poll(registry, NOW), None);
        peers.send(TO, "a", Outgoing::new(b"and on".to_vec()));
        assert_eq!(peers.poll(registry, NOW), dial(2));
        peers.handle_dialed((TO, 2), Err("planned".to_owned()), LINK, registry, NOW);
        assert_eq!(peers.poll(registry, NOW), None);
        let again = NOW.after(PEER_DIAL_RETRY);
        assert_eq!(peers.poll_timeout(), Some(again));
        peers.handle_heard(TO, NOW);
        assert_eq!(peers.poll(registry, NOW), dial(3));
        assert_eq!(peers.poll_timeout(), None);
    }

    #[test]
    fn a_socket_that_comes_too_late_is_closed() {
        let (poll, mut peers) = (Poll::new().unwrap(), Peers::default());
        peers.send(TO, "old", Outgoing::new(b"x".to_vec()));
        peers.send(TO, "a", Outgoing::new(b"x".to_vec()));
        while peers.poll(poll.registry(), NOW).is_some() {}
        for attempt in [1, 2] {
            let (near, mut far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            peers.handle_dialed((TO, attempt), Ok(near.into()), LINK, poll.registry(), NOW);
            assert_eq!(peers.owns(LINK.0), attempt == 2);
            if attempt == 2 {
                peers.close(poll.registry());
                peers.send(TO, "a", Outgoing::new(b"x".to_vec()));
                assert_eq!(peers.poll(poll.registry(), NOW), None);
            }
            assert_eq!(far.read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn whoever_claims_many_ids_does_not_fill_the_memory() {
        let (poll, mut peers) = (Poll::new().unwrap(), Peers::default());
        for id in 0..266 {
            peers.send(NodeId(id), "a", Outgoing::new(vec![0; 100]));
            while peers.poll(poll.registry(), NOW).is_some() {}
        }
        assert_eq!(peers.peers.len(), 256);
        assert!(peers.peers.contains_key(&NodeId(256)), "the newest stay");
    }
}
