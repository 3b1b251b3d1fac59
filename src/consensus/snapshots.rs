//! Snapshots on their way to peers that lag, and in from a leader. Their data never come here.
//!
//! Out: raft-rs writes nothing more to a peer that was sent a snapshot, until the peer says that it stores that much
//! or [`Consensus::handle_snapshot_sent`], the peer or time say that it failed. That the data were written is no
//! success.
//!
//! In, three steps: [`Consensus::handle_snapshot_offer`] at the head of the message, where nothing changes yet;
//! [`Consensus::handle_snapshot_received`] when all data are on disk beside what is in use: from here on
//! this server neither votes nor campaigns nor takes entries; and [`Consensus::handle_snapshot_installed`]
//! when the snapshot has taken the place of log and databases.

use std::time::Duration;

use raft::eraftpb::{Message as RaftMessage, MessageType, Snapshot};
use raft::{ProgressState, SnapshotStatus, StateRole};

use super::adapter::Consensus;
use super::inbound::{LABELS_FROM, TERMS_FROM, raft_message};
use super::leadership::Rest;
use super::membership::{Ownership, Placed, RaftMembers};
use super::outbound::Translated;
use super::planted::Planted;
use super::start::conf_state;
use super::{Effect, SnapshotMeta};
use crate::base::limits::{SNAPSHOT_RETRY, SNAPSHOT_RETRY_MAX};
use crate::base::{Index, NodeId, Term, Time};
use crate::codec::peer::{InstallSnapshot, Message};

/// How long after the last byte a peer may take to say that it has installed a snapshot.
const INSTALL_MAX: Duration = Duration::from_secs(30);

/// What to do with a snapshot whose head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Store its data, then call [`Consensus::handle_snapshot_received`].
    Take,
    /// Skip its data: it is of no use, and what there is to answer was answered.
    Skip,
}

/// A snapshot on its way in.
#[derive(Debug)]
pub(super) struct Intake {
    from: NodeId,
    term: Term,
    meta: SnapshotMeta,
    installing: bool,
}

impl Consensus {
    pub(super) fn translate_snapshot(&mut self, message: &RaftMessage) -> Translated {
        let to = NodeId(message.to);
        let Some(leadership) = self.leadership.as_mut().filter(|it| it.term.0 == message.term) else {
            return Translated::Nothing;
        };
        let Some(meta) = self.raw.as_ref().and_then(|raw| raw.store().snapshot_meta().cloned()) else {
            return Translated::Nothing;
        };
        let peer = leadership.peer(to);
        peer.snapshot_sent = None;
        // Its answer is no answer to an append, and counts all the same.
        peer.note_sent(meta.index, meta.index);
        Translated::Message(Message::InstallSnapshot(InstallSnapshot {
            term: leadership.term,
            last_index: meta.index,
            last_term: meta.term,
            configuration_index: meta.configuration_index,
            configuration: meta.configuration,
            configuration_bytes: Vec::new(),
            data_bytes: 0,
        }))
    }

    /// Has the newest snapshot sent, if it still is the one that this message is about, and this server leads.
    pub(super) fn send_snapshot(&mut self, to: NodeId, address: String, head: &InstallSnapshot) {
        let meta = self.raw.as_ref().and_then(|raw| raw.store().snapshot_meta().cloned());
        let leads = self.leadership.as_ref().is_some_and(|leadership| leadership.term == head.term);
        match meta.filter(|meta| leads && meta.index == head.last_index) {
            Some(meta) => {
                self.effects.push_back(Effect::SendSnapshot { to, address, term: head.term, meta });
            }
            None => self.report_snapshot_failed(to, true, "there is a newer one"),
        }
    }

    /// The data of a snapshot for `to` were written, or not.
    pub fn handle_snapshot_sent(&mut self, to: NodeId, result: Result<(), String>) {
        match result {
            Ok(()) => {
                let now = self.now;
                if let Some(leadership) = &mut self.leadership {
                    leadership.peer(to).snapshot_sent = Some(now);
                }
            }
            Err(text) => self.report_snapshot_failed(to, false, &text),
        }
    }

    /// The snapshot for `to` could not be read here: another one may be sent as soon as there is one.
    pub fn handle_snapshot_unreadable(&mut self, to: NodeId, text: &str) {
        self.report_snapshot_failed(to, true, text);
    }

    /// The peer does not have its snapshot. The next one goes after a pause, which grows with each failure in a row.
    pub(super) fn report_snapshot_failed(&mut self, to: NodeId, unreadable: bool, text: &str) {
        let Some(leadership) = &mut self.leadership else { return };
        let peer = leadership.peer(to);
        peer.snapshot_sent = None;
        peer.snapshot_failures = peer.snapshot_failures.saturating_add(1);
        let pause = snapshot_pause(peer.snapshot_failures);
        peer.rests = Some(Rest { until: self.now.after(pause), unreadable });
        log::warn!(
            "node {to} did not get its snapshot, attempt {}: {text}; no other one for {} s",
            peer.snapshot_failures,
            pause.as_secs()
        );
        self.call("snapshot failed", |raw| {
            raw.mut_store().set_resting(to.0, true);
            raw.report_snapshot(to.0, SnapshotStatus::Failure);
        });
    }

    /// Ends the pauses that `ends` says.
    pub(super) fn end_rests(&mut self, ends: impl Fn(NodeId, Rest) -> bool) {
        let (Some(raw), Some(leadership)) = (&mut self.raw, &mut self.leadership) else { return };
        for (&id, peer) in leadership.peers_mut() {
            if peer.rests.take_if(|rest| ends(id, *rest)).is_some() {
                raw.mut_store().set_resting(id.0, false);
            }
        }
    }

    /// A peer has taken an append, and where it was `awaited` to install a snapshot, maybe it has just done so.
    pub(super) fn note_success(&mut self, from: NodeId, awaited: bool) {
        let (Some(raw), Some(leadership)) = (&self.raw, &mut self.leadership) else { return };
        let last = Index(raw.raft.raft_log.last_index());
        let peer = leadership.peer(from);
        (peer.snapshot_failures, peer.denials) = (0, 0);
        if let Some(progress) = raw.raft.prs().get(from.0) {
            if awaited && progress.state != ProgressState::Snapshot {
                peer.catches_up_to = Some(last);
            }
            if peer.catches_up_to.is_some_and(|to| progress.matched >= to.0) {
                peer.catches_up_to = None;
            }
        }
        self.end_rests(|id, _| id == from);
    }

    /// Gives up on peers that do not say what became of their snapshot.
    pub(super) fn check_snapshots_sent(&mut self) {
        let (Some(raw), Some(leadership)) = (&self.raw, &mut self.leadership) else { return };
        let mut late = Vec::new();
        for (&id, progress) in raw.raft.prs().iter() {
            let peer = leadership.peer(NodeId(id));
            if progress.state != ProgressState::Snapshot {
                peer.snapshot_sent = None;
            } else if peer.snapshot_sent.is_some_and(|sent| self.now.since(sent) > INSTALL_MAX) {
                late.push(NodeId(id));
            }
        }
        late.sort_unstable();
        for id in late {
            let text = format!("nothing heard of it {} s after it was sent", INSTALL_MAX.as_secs());
            self.report_snapshot_failed(id, false, &text);
        }
        let now = self.now;
        self.end_rests(|_, rest| rest.until <= now);
    }

    /// The first index that a peer needs once it has installed the snapshot that it was sent, or needs now because it
    /// has just done so: what came into the log meanwhile must still be there, or the next snapshot would not help
    /// more than this one did. A peer that is silent for as long as a snapshot may take is not waited for.
    #[must_use]
    pub fn first_awaited(&self) -> Option<Index> {
        let keeps = !self.errs(Planted::ForgottenTail);
        let raw = self.raw.as_ref().filter(|raw| raw.raft.state == StateRole::Leader && keeps)?;
        let awaited = raw.raft.prs().iter().filter_map(|(&id, progress)| {
            let peer = self.leadership.as_ref().and_then(|leadership| leadership.known_peer(NodeId(id)));
            let heard = peer.and_then(|peer| peer.heard);
            let lives = heard.is_some_and(|heard| self.now.since(heard) < INSTALL_MAX);
            match progress.state {
                ProgressState::Snapshot => Some(Index(progress.pending_snapshot).next()),
                _ if lives && peer?.catches_up_to.is_some() => Some(Index(progress.matched).next()),
                _ => None,
            }
        });
        awaited.min()
    }

    /// Whether this peer still needs the snapshot that it is sent.
    #[must_use]
    pub fn awaits_snapshot(&self, peer: NodeId) -> bool {
        let leads = self.raw.as_ref().filter(|raw| raw.raft.state == StateRole::Leader);
        let progress = leads.and_then(|raw| raw.raft.prs().get(peer.0));
        progress.is_some_and(|progress| progress.state == ProgressState::Snapshot)
    }

    /// Whether a heartbeat of `from`, after an entry that is not here, would be refused with the index of the
    /// snapshot that `from` is sending: a C leader takes that for a refusal of the snapshot.
    pub(super) fn is_ambiguous(&self, from: NodeId, prev: Index) -> bool {
        self.intake.as_ref().is_some_and(|intake| intake.from == from && intake.meta.index == prev)
    }

    /// While a snapshot could not be put in place, entries from `next` on were taken from the log on disk.
    pub fn handle_tail_lost(&mut self, next: Index) {
        if next <= self.last_index() {
            self.persistence.abandon();
            self.restart_on_log_before(next);
        }
    }

    /// Whether a snapshot is taking the place of log and databases.
    pub(super) fn is_installing(&self) -> bool {
        self.installing().is_some()
    }

    /// Index and term of the last entry in the snapshot that is taking the place of log and databases.
    pub(super) fn installing(&self) -> Option<(Index, Term)> {
        let intake = self.intake.as_ref().filter(|intake| intake.installing)?;
        Some((intake.meta.index, intake.meta.term))
    }

    /// The head of a snapshot has come; its data follow.
    pub fn handle_snapshot_offer(
        &mut self,
        from: NodeId,
        from_address: &str,
        head: InstallSnapshot,
        now: Time,
    ) -> Offer {
        self.now = self.now.max(now);
        if self.raw.is_none() || from == NodeId(0) || from == self.config.id {
            return Offer::Skip;
        }
        if head.term.0 >= TERMS_FROM || head.last_index.0 >= LABELS_FROM / 2 {
            log::error!("snapshot of {from} refused: index {} in term {}", head.last_index, head.term);
            return Offer::Skip;
        }
        self.note_caller(from, from_address);
        if head.term < self.term() || head.term == Term(0) {
            self.refuse_append(from, head.last_index.0);
            return Offer::Skip;
        }
        if head.last_index == Index(0) || head.last_term == Term(0) || head.last_term > head.term {
            log::error!("snapshot of {from} refused: index {} of term {}", head.last_index, head.last_term);
            return Offer::Skip;
        }
        if !self.accepts_leader(from, head.term) {
            return Offer::Skip;
        }
        self.follow(from, head.term);
        self.handle_other_leader();
        let busy = self.intake.is_some() || self.shortage.is_some();
        if busy || self.covers(from, head.last_index, head.last_term) {
            return Offer::Skip;
        }
        let meta = SnapshotMeta {
            index: head.last_index,
            term: head.last_term,
            configuration: head.configuration,
            configuration_index: head.configuration_index,
        };
        self.intake = Some(Intake { from, term: head.term, meta, installing: false });
        Offer::Take
    }

    /// Whether the log holds all that the snapshot does; if so the leader is told. Where it holds something else for
    /// committed the snapshot is of no use either, and the operator is told.
    fn covers(&mut self, from: NodeId, index: Index, term: Term) -> bool {
        let Some(raw) = &self.raw else { return false };
        let log = &raw.raft.raft_log;
        let committed = index.0 <= log.committed;
        let covered = committed || log.match_term(index.0, term.0);
        let ours = self.term_at(index).unwrap_or(term);
        if committed && ours != term {
            self.tell_conflict(from, self.term(), (index, term, ours));
        } else if covered {
            let me = self.config.id;
            let mut message = raft_message(MessageType::MsgAppendResponse, me, from, self.term());
            message.index = index.0;
            self.answer(message);
        }
        covered
    }

    /// All data of the snapshot are stored, beside what is in use. Returns whether it is to take its place
    /// now: then nothing but term and vote is to be made durable before [`Consensus::handle_snapshot_installed`].
    pub fn handle_snapshot_received(&mut self) -> bool {
        let (Some(raw), Some(intake)) = (&self.raw, &self.intake) else { return false };
        let (from, meta) = (intake.from, (intake.meta.index, intake.meta.term));
        let follows = raw.raft.state == StateRole::Follower && Term(raw.raft.term) == intake.term;
        if !follows || self.shortage.is_some() || self.covers(from, meta.0, meta.1) {
            self.intake = None;
            return false;
        }
        if let Some(intake) = &mut self.intake {
            intake.installing = true;
        }
        true
    }

    /// The data did not all come. The leader tries again.
    pub fn handle_snapshot_broken_off(&mut self) {
        if !self.is_installing() {
            self.intake = None;
        }
    }

    /// The snapshot has taken the place of log and databases, or could not and everything is as it was.
    pub fn handle_snapshot_installed(&mut self, result: Result<(), String>) {
        if !self.is_installing() {
            return;
        }
        let Some(Intake { from, term, meta, .. }) = self.intake.take() else { return };
        let index = meta.index;
        if let Err(text) = &result {
            log::error!("snapshot at {index} not installed: {text}");
        } else if !self.replace_log(meta) {
            self.fail(&format!("snapshot at {index} has taken the place of a log that it does not fit"));
            return;
        }
        // After a change of term the answer would mean something else.
        if self.term() == term {
            let mut message = raft_message(MessageType::MsgAppendResponse, self.config.id, from, term);
            (message.index, message.reject) = (index.0, result.is_err());
            self.answer(message);
        }
    }

    fn replace_log(&mut self, meta: SnapshotMeta) -> bool {
        let index = meta.index;
        // raft-rs ignores a snapshot without this server, as it is for one that is being promoted.
        let members = RaftMembers::of(&meta.configuration, Some(self.config.id), None);
        // Before raft 0.17 a snapshot carried the newest configuration, even one of an entry behind it: that entry comes
        // again.
        let placed_at = meta.configuration_index.min(index);
        let placed = Placed { configuration: meta.configuration.clone(), index: placed_at };
        let members = conf_state(&members);
        let replaced = self.call("install", |raw| {
            let mut snapshot = Snapshot::default();
            let metadata = snapshot.mut_metadata();
            (metadata.index, metadata.term) = (index.0, meta.term.0);
            metadata.set_conf_state(members.clone());
            raw.mut_store().set_snapshot(meta, members);
            raw.raft.restore(snapshot)
        });
        if replaced == Some(true) {
            self.membership = Ownership::new(placed.clone(), placed);
            (self.handed_out, self.applied) = (index, index);
            self.persistence.lost_from = None;
            self.tell_members();
        }
        replaced == Some(true)
    }
}

/// The pause after so many failures in a row.
#[must_use]
pub fn snapshot_pause(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    SNAPSHOT_RETRY.saturating_mul(factor).min(SNAPSHOT_RETRY_MAX)
}
