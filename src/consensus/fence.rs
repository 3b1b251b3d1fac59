//! Peers that answer in the short form: libraries before raft 0.17.1 are among them.
//!
//! Such a server reports the end of a write that an earlier leader asked for to the leader of the day, with
//! the new term, as a success. It would count for entries of this leader that the server does not have. Until it has
//! accepted an append of this term its successes therefore say nothing, and afterwards all is well: what it wrote
//! for others is cut off by then, and the end of a write that was cut off is never reported.
//!
//! Whether it has accepted one is found out by a fence: a label, the append, another label, in one row. When both
//! labels are answered and the append was not refused in between, it was accepted. The successes that were not
//! believed come again with the next heartbeat.

use super::adapter::Consensus;
use super::outbound::Outgoing;
use crate::base::{Index, NodeId, Time};
use crate::codec::peer::{AppendResult, Message};

/// Heartbeats after which a fence without answers is put up anew.
const LOST_AFTER: u32 = 3;

/// Where the proof stands that a peer has accepted an append of this term.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Fence {
    #[default]
    None,
    /// These two labels were sent around an append.
    Up { first: u32, second: u32, first_answered: bool, since: Time },
    /// It has.
    Passed,
}

impl Consensus {
    /// A server that calls itself `id` has connected: what it said on another connection proves nothing about this.
    pub fn handle_peer_connected(&mut self, id: NodeId) {
        let Some(raw) = self.raw.as_ref().filter(|raw| raw.raft.prs().get(id.0).is_some()) else { return };
        let term = raw.raft.term;
        if let Some(leadership) = self.leadership.as_mut().filter(|leadership| leadership.term.0 == term) {
            leadership.peer(id).fence = Fence::None;
        }
        // It may have been away when its snapshot failed.
        self.end_rests(|rests, rest| rests == id && !rest.unreadable);
    }

    /// Takes note of the form in which a peer answers, and returns whether its successes cannot be believed yet.
    pub(super) fn is_unverified(&mut self, from: NodeId, result: &AppendResult) -> bool {
        if result.features.is_some() {
            self.short_peers.remove(&from);
            return false;
        }
        self.short_peers.insert(from);
        self.leadership.as_mut().is_none_or(|leadership| leadership.peer(from).fence != Fence::Passed)
    }

    /// An append for `to`, with a fence around it if it needs one.
    pub(super) fn fenced(&mut self, to: NodeId, append: Message, outgoing: &mut Vec<Outgoing>) {
        let now = self.now;
        let lost = self.config.heartbeat * LOST_AFTER;
        let short = self.short_peers.contains(&to);
        let labels = self.leadership.as_mut().filter(|_| short).and_then(|leadership| {
            let wanted = match leadership.peer(to).fence {
                Fence::None => true,
                Fence::Up { since, .. } => now.since(since) >= lost,
                Fence::Passed => false,
            };
            let first = leadership.rounds.next_seq().filter(|_| wanted)?;
            let second = leadership.rounds.next_seq()?;
            leadership.peer(to).fence = Fence::Up { first, second, first_answered: false, since: now };
            Some((first, second))
        });
        let label = |seq| self.label_of(seq).map(|message| Outgoing { to, message });
        let (before, after) = labels.map_or((None, None), |(first, second)| (label(first), label(second)));
        outgoing.extend(before);
        outgoing.push(Outgoing { to, message: append });
        outgoing.extend(after);
    }

    /// A peer has answered the label of this number.
    pub(super) fn advance_fence(&mut self, from: NodeId, seq: u32, last_index: Index) {
        let Some(leadership) = &mut self.leadership else { return };
        let fence = &mut leadership.peer(from).fence;
        let Fence::Up { first, second, first_answered, .. } = fence else { return };
        // A server that installs a snapshot drops appends, and says that it has nothing.
        let has_log = last_index > Index(0);
        if seq == *first {
            *first_answered = has_log;
        } else if seq == *second {
            *fence = if *first_answered && has_log { Fence::Passed } else { Fence::None };
        }
    }

    /// A peer has refused an append.
    pub(super) fn take_fence_down(&mut self, from: NodeId) {
        if let Some(leadership) = &mut self.leadership {
            let fence = &mut leadership.peer(from).fence;
            if *fence != Fence::Passed {
                *fence = Fence::None;
            }
        }
    }
}
