//! Connections that other servers opened: their bytes become messages for consensus.
//!
//! Nothing is ever written on such a connection. Answers leave on connections of our own, to the address that the
//! other server gave when it connected; several connections of one server are served side by side.

use std::sync::Arc;

use super::core::Core;
use super::effect::Effect;
use crate::base::limits::{PEER_INBOUND_PER_ID_MAX, STRANGER_INBOUND_MAX};
use crate::base::{Event, NodeId, Time};
use crate::codec::peer::{Incoming, Message, PeerReader};
use crate::engine::ConnId;

/// A connection that another server opened.
#[derive(Debug)]
pub(super) struct Inbound {
    id: NodeId,
    /// Where answers go.
    address: Arc<str>,
    reader: PeerReader,
    /// The same server has connected again since.
    superseded: bool,
    /// When the last bytes came.
    heard: Time,
}

impl Inbound {
    #[cfg(test)]
    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    /// Whether whoever made it says to be this server, at this address.
    pub(super) fn is_of(&self, id: NodeId, address: &str) -> bool {
        self.id == id && *self.address == *address
    }

    /// When the last bytes came.
    pub(super) fn heard(&self) -> Time {
        self.heard
    }
}

impl Core {
    /// The client of this connection says that it is a server; `rest` came along.
    pub(super) fn become_peer(
        &mut self,
        conn: ConnId,
        id: NodeId,
        address: Vec<u8>,
        rest: &[u8],
        now: Time,
    ) -> Result<(), String> {
        if id.0 == 0 || id == self.config.id {
            let own = self.config.id;
            return Err(format!(
                "an id that is neither 0 nor this server's own {own} expected, found {id}: is it of another cluster, or does it have \
                 the wrong id?"
            ));
        }
        let address = String::from_utf8(address)
            .map_err(|error| format!("a UTF-8 address expected, found {:?}", error.as_bytes()))?;
        self.check_claim(id, &address, now)?;
        log::debug!("node {id} at {address} connected");
        self.inbound.values_mut().filter(|other| other.id == id).for_each(|other| other.superseded = true);
        let reader = PeerReader::new();
        let inbound = Inbound { id, address: address.into(), reader, superseded: false, heard: now };
        self.inbound.insert(conn, inbound);
        self.limit_inbound(id);
        self.journal.note(now, Event::PeerConnected, [id.0, 0]);
        self.consensus.handle_peer_connected(id);
        self.effects.push_back(Effect::PeerConnected { id });
        self.handle_peer_bytes(conn, rest, now);
        Ok(())
    }

    /// Whether this server is a member of the cluster, as far as is known here.
    #[must_use]
    pub fn is_member(&self, id: NodeId) -> bool {
        self.consensus.configuration().get(id).is_some()
    }

    /// Keeps connections of servers within their limits after `id` has made one. Who is silent goes first: members
    /// say something all the time, and whoever only takes up room does not.
    fn limit_inbound(&mut self, id: NodeId) {
        loop {
            let crowd_of = |wanted: &dyn Fn(NodeId) -> bool| -> Vec<(Time, ConnId)> {
                let found = self.inbound.iter().filter(|(_, other)| wanted(other.id));
                found.map(|(conn, other)| (other.heard, *conn)).collect()
            };
            let same = crowd_of(&|other| other == id);
            let strangers = crowd_of(&|other| !self.is_member(other));
            let crowd = match () {
                () if same.len() > PEER_INBOUND_PER_ID_MAX => same,
                () if strangers.len() > STRANGER_INBOUND_MAX => strangers,
                () => return,
            };
            // That of a snapshot may wait for the disk.
            let spared = self.intake_conn();
            let silent = crowd.into_iter().filter(|(_, conn)| Some(*conn) != spared).min();
            let Some((_, conn)) = silent else { return };
            if let Some(gone) = self.inbound.remove(&conn) {
                log::warn!(
                    "a silent connection of node {} at {} closed: there are too many",
                    gone.id,
                    gone.address
                );
            }
            self.effects.push_back(Effect::Close { conn });
        }
    }

    /// Another server sent bytes on this connection.
    pub(super) fn handle_peer_bytes(&mut self, conn: ConnId, bytes: &[u8], now: Time) {
        if let Some(inbound) = self.inbound.get_mut(&conn) {
            inbound.reader.push(bytes);
            inbound.heard = now;
            self.tally.handle_heard(inbound.id, 0, bytes.len());
        }
        while let Some(inbound) = self.inbound.get_mut(&conn) {
            match inbound.reader.next_incoming() {
                Ok(Some(incoming)) => {
                    let (id, address) = (inbound.id, Arc::clone(&inbound.address));
                    // The member may have come later than who took its id.
                    if let (Incoming::Message(_), Err(text)) =
                        (&incoming, self.check_claim(id, &address, now))
                    {
                        return self.close_inbound(conn, &text);
                    }
                    let superseded = self.inbound.get(&conn).is_some_and(|inbound| inbound.superseded);
                    if superseded && self.is_refused_like_success(&incoming) {
                        continue;
                    }
                    self.handle_incoming(conn, (id, &address), incoming, now);
                }
                Ok(None) => return,
                Err(error) => return self.close_inbound(conn, &error.to_string()),
            }
        }
    }

    /// Whether the answer would be a refusal of index 0, which whoever leads this term now takes for a success. What
    /// was sent in an earlier term, and lies unread on a connection that was replaced, may be of that very server.
    fn is_refused_like_success(&self, incoming: &Incoming) -> bool {
        let Incoming::Message(Message::AppendEntries(append)) = incoming else { return false };
        append.prev_index.0 == 0 && append.term < self.consensus.term()
    }

    /// A peer could not be reached, for this reason; kept for the operator.
    pub fn handle_unreachable(&mut self, id: NodeId, text: &str, now: Time) {
        self.situation.handle_unreachable(id, text, now);
    }

    fn handle_incoming(
        &mut self,
        conn: ConnId,
        (from, address): (NodeId, &str),
        incoming: Incoming,
        now: Time,
    ) {
        self.situation.handle_heard(from, now);
        self.tally.handle_heard(from, u64::from(matches!(incoming, Incoming::Message(_))), 0);
        match incoming {
            Incoming::Message(Message::InstallSnapshot(head)) => {
                self.handle_snapshot_head(conn, (from, address), head, now);
            }
            Incoming::Message(message) => self.consensus.handle_peer(from, address, message, now),
            Incoming::SnapshotBytes(bytes) => self.handle_snapshot_bytes(conn, bytes),
            Incoming::SnapshotEnd => self.handle_snapshot_end(conn),
        }
    }

    /// What came is no message, or not from who it says. Only this connection is affected: the other server makes a new one.
    fn close_inbound(&mut self, conn: ConnId, error: &str) {
        if let Some(inbound) = self.inbound.remove(&conn) {
            log::warn!("connection of node {} at {} closed: {error}", inbound.id, inbound.address);
            self.effects.push_back(Effect::Close { conn });
        }
    }
}
