//! Messages of raft-rs as the peer protocol has them.
//!
//! Translated are the messages of a Ready at once, when the log is as they describe it; messages that wait for
//! the disk wait translated. Requests go to the address in the configuration, answers to the one that the asking
//! server gave when it connected.

use raft::eraftpb::{Message as RaftMessage, MessageType};
use raft::{ProgressState, RawNode};

use super::Effect;
use super::adapter::Consensus;
use super::log_view::Wanted;
use super::planted::Planted;
use crate::base::{Entry, Index, NodeId, Term, limits};
use crate::codec::peer::{AppendEntries, AppendResult, Message, RequestVote, TimeoutNow, VoteResult};

/// The mark of raft-rs on votes asked for by a leader that hands over.
pub(super) const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) to: NodeId,
    pub(super) message: Message,
}

/// What became of one message of raft-rs.
pub(super) enum Translated {
    Message(Message),
    /// Left over from a role that this server has no more, or without a counterpart.
    Nothing,
    /// It must not leave; raft-rs has to know that it was lost.
    Lost,
}

impl Consensus {
    /// What raft-rs wants sent, in order per peer.
    pub(super) fn translate(&mut self, messages: Vec<RaftMessage>) -> Vec<Outgoing> {
        let mut outgoing = Vec::with_capacity(messages.len());
        for message in messages {
            let to = NodeId(message.to);
            match self.translate_one(message) {
                Translated::Message(message @ Message::AppendEntries(_)) => {
                    self.fenced(to, message, &mut outgoing);
                }
                Translated::Message(message) => outgoing.push(Outgoing { to, message }),
                Translated::Nothing => {}
                Translated::Lost => self.handle_send_failed(to),
            }
        }
        self.call("sent", |raw| raw.mut_store().drop_fetched());
        outgoing
    }

    fn translate_one(&mut self, message: RaftMessage) -> Translated {
        let term = Term(message.term);
        let index = Index(message.index);
        let translated = match message.get_msg_type() {
            MessageType::MsgAppend => return self.translate_append(message),
            MessageType::MsgHeartbeat => return self.translate_heartbeat(&message),
            MessageType::MsgSnapshot => return self.translate_snapshot(&message),
            MessageType::MsgTimeoutNow => return self.translate_timeout_now(term),
            MessageType::MsgAppendResponse => Message::AppendResult(AppendResult {
                term,
                rejected: if message.reject { index.0 } else { 0 },
                last_index: if message.reject { Index(message.reject_hint) } else { index },
                features: Some(0),
            }),
            kind @ (MessageType::MsgRequestPreVote | MessageType::MsgRequestVote) => {
                Message::RequestVote(RequestVote {
                    term,
                    candidate: self.config.id,
                    last_index: index,
                    last_term: Term(message.log_term),
                    disrupt_leader: message.context == TRANSFER_CONTEXT,
                    pre_vote: kind == MessageType::MsgRequestPreVote,
                })
            }
            kind @ (MessageType::MsgRequestPreVoteResponse | MessageType::MsgRequestVoteResponse) => {
                Message::VoteResult(VoteResult {
                    term,
                    granted: !message.reject,
                    pre_vote: Some(kind == MessageType::MsgRequestPreVoteResponse),
                })
            }
            kind => {
                log::debug!("a message of kind {kind:?} has no counterpart");
                return Translated::Nothing;
            }
        };
        Translated::Message(translated)
    }

    fn translate_append(&mut self, message: RaftMessage) -> Translated {
        let short = self.errs(Planted::ShortAppends);
        let (Some(raw), Some(leadership)) = (&self.raw, &mut self.leadership) else {
            return Translated::Nothing;
        };
        // raft-rs sends an entry as soon as it is appended: also one by which the receiver is replicated to no more.
        if leadership.term.0 != message.term || raw.raft.prs().get(message.to).is_none() {
            return Translated::Nothing;
        }
        let log = raw.store();
        let mut entries: Vec<Entry> = Vec::with_capacity(message.entries.len());
        for wanted in &message.entries {
            match log.entry_to_send(Index(wanted.index)) {
                Some(entry) if entry.term.0 == wanted.term => entries.push(entry),
                _ => return Translated::Lost,
            }
        }
        let prev_index = Index(message.index);
        let end = entries.last().map_or(prev_index, |entry| entry.index);
        if end < leadership.first && !short {
            log::error!(
                "append to {}: an end at {} at least expected, found {end}",
                message.to,
                leadership.first
            );
            return Translated::Lost;
        }
        // As of now: a heartbeat before it in the same row says so too.
        let commit = Index(raw.raft.raft_log.committed);
        leadership.peer(NodeId(message.to)).note_sent(end, commit);
        Translated::Message(Message::AppendEntries(AppendEntries {
            term: leadership.term,
            prev_index,
            prev_term: Term(message.log_term),
            commit,
            entries,
        }))
    }

    /// An append without entries, after an entry of this term: the last one that the peer is known to have or,
    /// where that is an older one or no longer in the log, the last of all.
    fn translate_heartbeat(&mut self, message: &RaftMessage) -> Translated {
        let short = self.errs(Planted::ShortAppends);
        let (Some(raw), Some(leadership)) = (&self.raw, &mut self.leadership) else {
            return Translated::Nothing;
        };
        let Some(progress) = raw.raft.prs().get(message.to) else { return Translated::Nothing };
        if leadership.term.0 != message.term {
            return Translated::Nothing;
        }
        let matched = Index(progress.matched);
        let last = Index(raw.store().last());
        let installs = progress.state == ProgressState::Snapshot && progress.pending_snapshot == last.0;
        let term_at = |index| {
            raw.store()
                .term_at(index)
                .filter(|_| index >= leadership.first || short)
                .map(|term| (index, term))
        };
        let Some((prev_index, prev_term)) = term_at(matched).or_else(|| term_at(last)) else {
            return Translated::Nothing;
        };
        let peer = leadership.peer(NodeId(message.to));
        peer.heartbeat_due = true;
        if installs {
            // A refusal of the snapshot's own index would say that it could not be installed.
            return self.label().map_or(Translated::Nothing, Translated::Message);
        }
        let commit = Index(raw.raft.raft_log.committed);
        peer.note_sent(prev_index, commit);
        Translated::Message(Message::AppendEntries(AppendEntries {
            term: leadership.term,
            prev_index,
            prev_term,
            commit,
            entries: Vec::new(),
        }))
    }

    /// The receiver compares the end of this log with its own.
    fn translate_timeout_now(&self, term: Term) -> Translated {
        let (Some(raw), Some(leadership)) = (&self.raw, &self.leadership) else {
            return Translated::Nothing;
        };
        if leadership.term != term {
            return Translated::Nothing;
        }
        let last_index = Index(raw.store().last());
        let last_term = raw.store().term_at(last_index).unwrap_or_default();
        Translated::Message(Message::TimeoutNow(TimeoutNow { term, last_index, last_term }))
    }

    pub(super) fn send(&mut self, outgoing: Vec<Outgoing>) {
        for Outgoing { to, mut message } in outgoing {
            // It may have waited: what was told to others meanwhile is told here too, if this server still leads.
            if let (Message::AppendEntries(it), Some(raw)) = (&mut message, &self.raw) {
                if self.leadership.as_ref().is_none_or(|leadership| leadership.term != it.term) {
                    continue;
                }
                it.commit = Index(raw.raft.raft_log.committed);
            }
            let address = match message {
                Message::AppendResult(_) | Message::VoteResult(_) => self.callers.get(&to),
                _ => None,
            };
            let servers = &self.membership.in_force().configuration;
            let address = address.or_else(|| servers.get(to).map(|server| &server.address));
            match address.cloned() {
                Some(address) => match message {
                    Message::InstallSnapshot(head) => self.send_snapshot(to, address, &head),
                    message => self.effects.push_back(Effect::Send { to, address, message }),
                },
                None => log::debug!("a message to {to} has no address"),
            }
        }
    }

    /// Has entries read that appends to lagging peers need and that have left the memory. A peer that has not yet
    /// acknowledged what it was sent gets no more for now: its answers make raft-rs ask again.
    pub(super) fn read_wanted(&mut self) {
        let wanted = self.raw.as_mut().map(|raw| raw.mut_store().take_wanted()).unwrap_or_default();
        let uncovered = self.raw.as_ref().and_then(|raw| raw.store().take_uncovered());
        // One of what is applied helps if what follows it can be sent.
        let (applied, log) = (self.applied, self.raw.as_ref().map(RawNode::store));
        let helps =
            |index: &Index| *index <= applied && log.is_some_and(|log| log.is_sendable_from(applied.next()));
        if let Some(covering) = uncovered.filter(helps) {
            self.effects.push_back(Effect::SnapshotWanted { covering });
        }
        let (Some(raw), Some(leadership)) = (&self.raw, &mut self.leadership) else { return };
        for Wanted { first, last, context } in wanted {
            // Of who is probed nothing is known to be on its way.
            let busy = raw.raft.prs().iter().map(|(_, progress)| progress).any(|progress| {
                let window = limits::APPEND_BYTES_IN_FLIGHT;
                progress.next_idx == first.0
                    && progress.state == ProgressState::Replicate
                    && raw.store().bytes_between(progress.matched + 1, first.0, window) > window
            });
            if busy {
                continue;
            }
            let reading = leadership.reading.entry(first).or_insert_with(|| {
                self.effects.push_back(Effect::ReadEntries { first, last });
                (last, Vec::new())
            });
            reading.1.push(context);
        }
    }

    /// The entries that [`Effect::ReadEntries`] asked for, or why there are none.
    pub fn handle_entries_read(&mut self, first: Index, result: Result<Vec<Entry>, String>) {
        let Some(leadership) = &mut self.leadership else { return };
        let Some((last, contexts)) = leadership.reading.remove(&first) else { return };
        self.call("entries read", |raw| {
            match result {
                Ok(entries) => {
                    if !raw.mut_store().fetch(first, entries) {
                        log::warn!("log entries from {first} on: not those of this log any more");
                        return;
                    }
                }
                Err(text) => {
                    log::error!("log entries from {first} to {last} for a peer: {text}");
                    raw.mut_store().note_unreadable(last);
                }
            }
            contexts.into_iter().for_each(|context| raw.on_entries_fetched(context));
        });
    }

    /// A message to this peer was lost, as far as is known: raft-rs probes what the peer has.
    pub fn handle_send_failed(&mut self, to: NodeId) {
        self.call("unreachable", |raw| raw.report_unreachable(to.0));
    }
}
