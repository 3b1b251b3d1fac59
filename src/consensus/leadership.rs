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
    /// What was committed at the last tick.
    pub(super) committed_at_tick: Index,
    /// Entries that are being read from disk for peers that lag, by the first.
    pub(super) reading: BTreeMap<Index, (Index, Vec<GetEntriesContext>)>,
}

/// One peer during one leadership.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The highest index at which an append of this term ended that was sent to it.
    pub(super) sent_to: Option<Index>,
    /// How much is committed as far as it was told.
    pub(super) told_commit: Index,
    /// A heartbeat went out whose answer raft-rs has not been told of.
    pub(super) heartbeat_due: bool,
    /// The highest number of a round whose label it has answered.
    pub(super) answered: u32,
    pub(super) fence: Fence,
    /// When all data of a snapshot had been written to it.
    pub(super) snapshot_sent: Option<Time>,
    /// Attempts in a row that did not bring it a snapshot.
    pub(super) snapshot_failures: u32,
    /// Until when it gets no other one after that.
    pub(super) rests: Option<Rest>,
    /// It has installed a snapshot, and is to get the entries up to this one next.
    pub(super) catches_up_to: Option<Index>,
    /// When it answered last.
    pub(super) heard: Option<Time>,
    /// Answers in a row by which it does not have what it had confirmed.
    pub(super) denials: u32,
}

/// A pause after a snapshot that did not arrive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    pub(super) until: Time,
    /// What was to be sent could not be read: another snapshot may go at once.
    pub(super) unreadable: bool,
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
                committed_at_tick: Index(0),
                reading: BTreeMap::new(),
            });
        }
    }

    /// The highest number of a round whose label this peer has answered.
    pub(super) fn answered(&self, id: NodeId) -> u32 {
        self.peers.get(&id).map_or(0, |peer| peer.answered)
    }

    /// What is known of this peer, if anything is.
    pub(super) fn known_peer(&self, id: NodeId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    pub(super) fn peers_mut(&mut self) -> impl Iterator<Item = (&NodeId, &mut Peer)> {
        self.peers.iter_mut()
    }

    /// A member of the cluster: callers have found it there, since ids come from whoever connects.
    pub(super) fn peer(&mut self, id: NodeId) -> &mut Peer {
        self.peers.entry(id).or_default()
    }
}

impl Peer {
    /// An append that ends at `end` is on its way, and says that `commit` is committed: the peer takes that for as
    /// far as it has what is.
    pub(super) fn note_sent(&mut self, end: Index, commit: Index) {
        self.sent_to = self.sent_to.max(Some(end));
        self.told_commit = self.told_commit.max(commit.min(end));
    }
}
