//! What a leader knows of its peers beyond raft-rs.

use std::collections::BTreeMap;

use raft::{GetEntriesContext, RawNode, StateRole};

use super::fence::Fence;
use super::log_view::LogView;
use super::reads::Rounds;
use crate::base::{Index, NodeId, Prng, Term, Time};

/// One leadership of this server.
#[derive(Debug)]
pub(super) struct Leadership {
    pub(super) term: Term,
    /// The first entry of the term. Each append of the term ends there or beyond (rule I1): what a peer stores
    /// once it has taken one is a part of this leader's log, however far the peer's answer says it reaches.
    pub(super) first: Index,
    peers: BTreeMap<NodeId, Peer>,
    pub(super) rounds: Rounds,
    /// Entries that are being read from disk for peers that lag, by the first.
    pub(super) reading: BTreeMap<Index, (Index, Vec<GetEntriesContext>)>,
}

/// One peer during one leadership.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The highest index at which an append of this term ended that was sent to it.
    pub(super) sent_to: Option<Index>,
    /// A heartbeat went out whose answer raft-rs has not been told of.
    pub(super) heartbeat_due: bool,
    /// The highest number of a round whose label it has answered.
    pub(super) answered: u32,
    pub(super) fence: Fence,
    /// When all data of a snapshot had been written to it.
    pub(super) snapshot_sent: Option<Time>,
}

impl Leadership {
    /// Follows raft-rs's role, after every single call: on the first one after an election the log ends with
    /// the entry that begins the term.
    pub(super) fn follow(known: &mut Option<Self>, raw: &RawNode<LogView>, prng: &mut Prng) {
        let raft = &raw.raft;
        if raft.state != StateRole::Leader {
            *known = None;
        } else if known.as_ref().is_none_or(|known| known.term.0 != raft.term) {
            let first = Index(raft.raft_log.last_index());
            let rounds = Rounds::new(prng.next_u64());
            *known = Some(Self {
                term: Term(raft.term),
                first,
                peers: BTreeMap::new(),
                rounds,
                reading: BTreeMap::new(),
            });
        }
    }

    /// The highest number of a round whose label this peer has answered.
    pub(super) fn answered(&self, id: NodeId) -> u32 {
        self.peers.get(&id).map_or(0, |peer| peer.answered)
    }

    pub(super) fn peer(&mut self, id: NodeId) -> &mut Peer {
        self.peers.entry(id).or_default()
    }
}

impl Peer {
    /// An append that ends at `end` is on its way.
    pub(super) fn note_sent(&mut self, end: Index) {
        self.sent_to = self.sent_to.max(Some(end));
    }
}
