//! Messages of peers, filtered and translated for raft-rs.
//!
//! Who sent one is known from its connection. What raft-rs would answer in another way than the C library, or
//! not at all, is answered here; such answers go through raft-rs's own queue, so that they leave in order and
//! never before the term that they carry is durable. Elections are in `votes`.

use raft::eraftpb::{Message as RaftMessage, MessageType};
use raft::{ProgressState, SnapshotStatus, StateRole};

use super::adapter::Consensus;
use super::log_view::handle;
use super::membership::is_only_voter;
use super::outbound::Outgoing;
use super::planted::Planted;
use crate::base::{Entry, EntryKind, Index, NodeId, Term, Time, limits};
use crate::codec::membership::Configuration;
use crate::codec::peer::{AppendEntries, AppendResult, Message, TimeoutNow};

/// Refused indexes from here on are no indexes: no log is that long.
pub(super) const LABELS_FROM: u64 = 1 << 62;

/// No cluster gets to such terms: who claims one would keep all others from ever being elected again, and what counts
/// on from it does not get far.
pub(super) const TERMS_FROM: u64 = 1 << 62;

/// A message for raft-rs.
pub(super) fn raft_message(kind: MessageType, from: NodeId, to: NodeId, term: Term) -> RaftMessage {
    let mut message = RaftMessage { from: from.0, to: to.0, term: term.0, ..RaftMessage::default() };
    message.set_msg_type(kind);
    message
}

impl Consensus {
    /// A peer that calls itself `from`, at `from_address`, sent this.
    pub fn handle_peer(&mut self, from: NodeId, from_address: &str, message: Message, now: Time) {
        self.now = self.now.max(now);
        if self.raw.is_none() || from == NodeId(0) || from == self.config.id {
            return;
        }
        if message.term().0 >= TERMS_FROM {
            log::error!(
                "message of {from} refused: a term below {TERMS_FROM} expected, found {}",
                message.term()
            );
            return;
        }
        self.note_caller(from, from_address);
        match message {
            Message::AppendEntries(append) => self.handle_append(from, append),
            Message::AppendResult(result) => self.handle_append_result(from, result),
            Message::RequestVote(request) => self.handle_vote_request(from, request),
            Message::VoteResult(result) => self.handle_vote_result(from, result),
            Message::TimeoutNow(request) => self.handle_timeout_now(from, request),
            Message::InstallSnapshot(_) => log::warn!("a snapshot of {from} came without its data"),
        }
        self.handle_other_leader();
        self.check_promotion();
    }

    /// Remembers where this peer wants its answers.
    pub(super) fn note_caller(&mut self, from: NodeId, address: &str) {
        if self.callers.get(&from).is_some_and(|known| known == address) {
            return;
        }
        if self.callers.len() >= limits::CALLERS_MAX {
            self.callers.clear();
        }
        self.callers.insert(from, address.to_owned());
    }

    /// Passes a message to raft-rs.
    pub(super) fn step(&mut self, message: RaftMessage) {
        self.call("step", |raw| {
            // Answers of servers that are no members any more, and the like.
            if let Err(error) = raw.step(message) {
                log::debug!("message ignored: {error}");
            }
        });
    }

    /// Sends an answer that raft-rs knows nothing of.
    pub(super) fn answer(&mut self, message: RaftMessage) {
        self.call("answer", |raw| raw.raft.msgs.push(message));
    }

    pub(super) fn refuse_append(&mut self, to: NodeId, rejected: u64) {
        let term = self.term();
        let mut message = raft_message(MessageType::MsgAppendResponse, self.config.id, to, term);
        message.index = rejected;
        message.reject = true;
        // A refusal of index 0 looks like a success to whoever leads this term by now: one that says nothing.
        message.reject_hint = if rejected == 0 { 0 } else { self.last_index().0 };
        self.answer(message);
    }

    /// Answers a label: at once where this server's term is durable, else when it is.
    fn answer_label(&mut self, to: NodeId, label: u64) {
        let Some(raw) = &self.raw else { return };
        let term = Term(raw.raft.term);
        let last_index = if self.is_installing() { Index(0) } else { Index(raw.raft.raft_log.persisted) };
        if self.persistence.durable_term() == Some(term) {
            let result = AppendResult { term, rejected: label, last_index, features: Some(0) };
            self.send(vec![Outgoing { to, message: Message::AppendResult(result) }]);
        } else {
            let mut message = raft_message(MessageType::MsgAppendResponse, self.config.id, to, term);
            (message.index, message.reject, message.reject_hint) = (label, true, last_index.0);
            self.answer(message);
        }
    }

    fn handle_append(&mut self, from: NodeId, append: AppendEntries) {
        if append.term < self.term() || append.term == Term(0) {
            self.refuse_append(from, append.prev_index.0);
            return;
        }
        if let Err(text) = check_append(&append) {
            log::error!("append of {from} refused: {text}");
            return;
        }
        if !self.accepts_leader(from, append.term) {
            log::warn!("append of {from} ignored: another server leads term {}", append.term);
            return;
        }
        if let Some((index, theirs, ours)) = self.find_conflict(&append) {
            self.tell_conflict(from, append.term, (index, theirs, ours));
            return;
        }
        if let Err(text) = self.check_overlap(&append) {
            self.fail(&text);
            return;
        }
        self.note_commit_of(from, append.term, append.commit);
        if append.prev_index.0 >= LABELS_FROM {
            self.follow(from, append.term);
            self.answer_label(from, append.prev_index.0);
            return;
        }
        if append.entries.is_empty() && self.is_ambiguous(from, append.prev_index) {
            self.follow(from, append.term);
            self.answer_label(from, LABELS_FROM);
            return;
        }
        if self.is_installing() && !append.entries.is_empty() {
            self.follow(from, append.term);
            return;
        }
        if !self.may_search(&append) {
            self.follow(from, append.term);
            self.refuse_append(from, append.prev_index.0);
            return;
        }
        let mut message = raft_message(MessageType::MsgAppend, from, self.config.id, append.term);
        message.index = append.prev_index.0;
        message.log_term = append.prev_term.0;
        message.commit = append.commit.0;
        for entry in &append.entries {
            let (context, data) = handle(entry.kind, entry.payload.len() as u64);
            let (index, term) = (entry.index.0, entry.term.0);
            message.entries.push(raft::eraftpb::Entry { index, term, context, data, ..Default::default() });
        }
        self.call("append", |raw| {
            for entry in append.entries {
                raw.mut_store().stage(entry.index, entry.term, entry.kind, entry.payload);
            }
            if let Err(error) = raw.step(message) {
                log::debug!("append ignored: {error}");
            }
            if raw.raft.raft_log.unstable_entries().is_empty() {
                raw.mut_store().clear_staged();
            }
        });
    }

    /// Whether `from` may lead `term` as far as is known here. A term has two leaders only when the first took its
    /// own vote away and left a single other voter, which in the C library leads without raising the term.
    pub(super) fn accepts_leader(&mut self, from: NodeId, term: Term) -> bool {
        let Some(raw) = &self.raw else { return false };
        let (known, current) = (raw.raft.leader_id, Term(raw.raft.term));
        if term > current || known == 0 || known == from.0 {
            return true;
        }
        // The only voter: so this server is none.
        if !is_only_voter(self.configuration(), from) {
            return false;
        }
        self.taken_over = Some(term);
        self.follow(from, term);
        true
    }

    /// The first entry that is committed here and has another term in the log of who sent this, with both terms: the
    /// two were never of one cluster, or one of them has lost what it had.
    fn find_conflict(&self, append: &AppendEntries) -> Option<(Index, Term, Term)> {
        let committed = self.raw.as_ref()?.raft.raft_log.committed;
        let names = append.entries.iter().map(|entry| (entry.index, entry.term));
        let mut names = std::iter::once((append.prev_index, append.prev_term))
            .chain(names)
            .take_while(|(index, _)| index.0 <= committed);
        let other = names.find_map(|(index, theirs)| {
            let ours = self.term_at(index).filter(|ours| *ours != theirs && index > Index(0))?;
            Some((index, theirs, ours))
        });
        other.or_else(|| self.find_install_conflict(append))
    }

    /// While a snapshot takes the place of a log that does not have its last entry: whether who sent this has what this
    /// log has there or behind it. That must be neither acknowledged nor committed, as it is about to be cut off.
    fn find_install_conflict(&self, append: &AppendEntries) -> Option<(Index, Term, Term)> {
        let (index, term) = self.installing()?;
        let theirs = match append.prev_index {
            prev if prev == index => append.prev_term,
            prev if prev > index && self.term_at(prev) == Some(append.prev_term) => self.term_at(index)?,
            _ => return None,
        };
        (theirs != term).then_some((index, theirs, term))
    }

    /// Tells the operator, once for each leader. Nothing is answered: the leader must not believe that what it has is
    /// stored here.
    pub(super) fn tell_conflict(
        &mut self,
        from: NodeId,
        term: Term,
        (index, theirs, ours): (Index, Term, Term),
    ) {
        if self.told_conflict.replace((from, term)) != Some((from, term)) {
            let (last, last_term) = (self.last_index(), self.term_at(self.last_index()).unwrap_or_default());
            log::error!(
                "member with conflicting history: node {from}, which leads term {term}, has an entry {index} of term \
                 {theirs}, and here one of term {ours} is committed (last entry here: {last} of term {last_term}): \
                 one of the two servers has to leave the cluster and come back with an empty directory"
            );
        }
    }

    /// Where a second leader writes in the term of the first, one name may stand for two entries. raft-rs would not
    /// notice, and nothing can repair it.
    fn check_overlap(&self, append: &AppendEntries) -> Result<(), String> {
        let Some(raw) = self.raw.as_ref().filter(|_| self.taken_over == Some(append.term)) else {
            return Ok(());
        };
        for entry in append.entries.iter().filter(|entry| entry.index.0 > raw.raft.raft_log.committed) {
            let known = raw.store().entry(entry.index).filter(|known| known.term == entry.term);
            if known.is_some_and(|known| !same_content(&known, entry)) {
                return Err(format!(
                    "two leaders of term {} made entry {} differently: this server has to leave the cluster and \
                     come back with an empty directory",
                    entry.term, entry.index
                ));
            }
        }
        Ok(())
    }

    /// Whether raft-rs may look for the place where this log and the leader's part: the search must end above
    /// what is committed, since what lies before may be compacted away.
    fn may_search(&self, append: &AppendEntries) -> bool {
        let Some(raw) = &self.raw else { return false };
        let log = &raw.raft.raft_log;
        let term = |index| Term(log.term(index).unwrap_or_default());
        append.prev_index.0 <= log.committed
            || term(append.prev_index.0) == append.prev_term
            || append.prev_term >= term(log.committed)
    }

    /// Takes `from` for the leader of `term`, as after an append.
    pub(super) fn follow(&mut self, from: NodeId, term: Term) {
        self.call("follow", |raw| {
            let raft = &mut raw.raft;
            let follows = raft.term == term.0 && raft.state == StateRole::Follower;
            if !follows || raft.leader_id != from.0 {
                raft.become_follower(term.0, from.0);
            }
            raft.election_elapsed = 0;
        });
    }

    fn handle_append_result(&mut self, from: NodeId, result: AppendResult) {
        let Some(raw) = &self.raw else { return };
        let me = self.config.id;
        if raw.raft.state != StateRole::Leader || result.term < self.term() {
            return;
        }
        if result.term > self.term() {
            self.step(raft_message(MessageType::MsgAppendResponse, from, me, result.term));
            return;
        }
        if result.rejected >= LABELS_FROM {
            self.handle_label_answer(from, result.rejected, result.last_index);
            if self.errs(Planted::SteppedLabel) {
                let mut message = raft_message(MessageType::MsgAppendResponse, from, me, result.term);
                (message.index, message.reject) = (result.rejected, true);
                message.reject_hint = result.last_index.0;
                self.step(message);
            }
            return;
        }
        if raw.raft.prs().get(from.0).is_none() {
            return;
        }
        let unverified = self.is_unverified(from, &result) && !self.errs(Planted::NoFence);
        let uncapped = self.errs(Planted::UncappedMatch);
        if result.rejected > 0 {
            self.take_fence_down(from);
        }
        let Some(raw) = &self.raw else { return };
        let (Some(progress), Some(leadership)) = (raw.raft.prs().get(from.0), &mut self.leadership) else {
            return;
        };
        // Nothing that was sent in this term can have been answered yet.
        let peer = leadership.peer(from);
        let Some(sent_to) = peer.sent_to else { return };
        peer.heard = Some(self.now);
        let mut message = raft_message(MessageType::MsgAppendResponse, from, me, result.term);
        let matched = progress.matched;
        let installs = progress.state == ProgressState::Snapshot;
        let stepped = if result.rejected == 0 && unverified {
            if installs && result.last_index.0 >= progress.pending_snapshot {
                // If that is not true, the next append is refused.
                self.call("snapshot sent", |raw| raw.report_snapshot(from.0, SnapshotStatus::Finish));
            }
            None
        } else if result.rejected > 0 && installs {
            if result.rejected == progress.pending_snapshot {
                self.report_snapshot_failed(from, false, "it answered that it could not install it");
            }
            None
        } else if result.rejected > 0 && result.rejected <= matched {
            // raft-rs would go back behind what is known to be stored.
            self.handle_denial(from, Index(matched), result.last_index);
            None
        } else if result.rejected > 0 {
            let hint = result.last_index.0.clamp(matched, raw.raft.raft_log.last_index().max(matched));
            (message.index, message.reject, message.reject_hint) = (result.rejected, true, hint);
            Some(message)
        } else {
            let last = Index(raw.raft.raft_log.last_index());
            message.index =
                if uncapped { result.last_index } else { result.last_index.min(last).min(sent_to) }.0;
            Some(message)
        };
        match stepped {
            Some(message) if message.reject => self.step(message),
            Some(message) => {
                self.step(message);
                self.note_success(from, installs);
            }
            None => self.note_active(from),
        }
        self.release_heartbeat(from, result.term);
    }

    /// A peer does not have what it had confirmed. Late answers say so too, but not again and again: then its directory
    /// was emptied or put back. It is sent all that it lacks; what it had helped to commit stays committed.
    fn handle_denial(&mut self, from: NodeId, confirmed: Index, last: Index) {
        let Some(leadership) = &mut self.leadership else { return };
        let peer = leadership.peer(from);
        peer.denials += 1;
        if peer.denials < DENIALS_MIN || last >= confirmed {
            return;
        }
        peer.denials = 0;
        log::error!(
            "member with conflicting history: node {from} had confirmed the entries up to {confirmed} and has a log that ends with \
             {last}: its directory was emptied, or is an old copy. It gets them again, but it does not know how it has voted: a \
             server without its directory has to be removed and added under a new id"
        );
        self.call("denial", |raw| {
            if let Some(progress) = raw.raft.mut_prs().get_mut(from.0) {
                progress.matched = 0;
                progress.become_probe();
                progress.next_idx = last.0 + 1;
            }
        });
    }

    /// The peer was heard from.
    pub(super) fn note_active(&mut self, id: NodeId) {
        self.call("active", |raw| {
            if let Some(progress) = raw.raft.mut_prs().get_mut(id.0) {
                progress.recent_active = true;
            }
        });
    }

    /// Tells raft-rs of one answer per heartbeat that was sent. For each answer it would send again, and each
    /// message is answered.
    fn release_heartbeat(&mut self, from: NodeId, term: Term) {
        let due = self.leadership.as_mut().map(|leadership| &mut leadership.peer(from).heartbeat_due);
        if due.is_some_and(std::mem::take) {
            self.step(raft_message(MessageType::MsgHeartbeatResponse, from, self.config.id, term));
        }
    }

    /// The leader hands over to this server: only if it is as far as the leader was.
    fn handle_timeout_now(&mut self, from: NodeId, request: TimeoutNow) {
        let Some(raw) = &self.raw else { return };
        let raft = &raw.raft;
        let last = (Index(raft.raft_log.last_index()), Term(raft.raft_log.last_term()));
        let wanted = raft.state == StateRole::Follower
            && raft.leader_id == from.0
            && request.term >= Term(raft.term)
            && (request.last_index, request.last_term) == last;
        if wanted && self.is_settled() {
            self.step(raft_message(MessageType::MsgTimeoutNow, from, self.config.id, request.term));
        }
    }
}

/// A log that is shorter than it was is believed after so many answers.
const DENIALS_MIN: u32 = 3;

fn same_content(one: &Entry, other: &Entry) -> bool {
    let decode = |entry: &Entry| Configuration::decode(&entry.payload.contiguous());
    one.kind == other.kind
        && match one.kind {
            EntryKind::Command => one.payload == other.payload,
            // What pads a configuration, and all of a barrier, is arbitrary.
            EntryKind::Change => decode(one) == decode(other),
            EntryKind::Barrier => true,
        }
}

/// What no server sends that means well.
fn check_append(append: &AppendEntries) -> Result<(), String> {
    if append.prev_index > Index(0) && append.prev_term == Term(0) {
        return Err(format!("a term expected with index {}, found none", append.prev_index));
    }
    let mut expected = append.prev_index;
    for entry in &append.entries {
        expected = expected.next();
        check_entry(entry, expected, append.term)?;
    }
    Ok(())
}

fn check_entry(entry: &Entry, expected: Index, term: Term) -> Result<(), String> {
    let index = entry.index;
    if index != expected {
        return Err(format!("entry {expected} expected, found {index}"));
    }
    if entry.term == Term(0) || entry.term > term {
        return Err(format!("entry {index}: a term between 1 and {term} expected, found {}", entry.term));
    }
    let len = entry.payload.len();
    if len == 0 || !len.is_multiple_of(8) {
        return Err(format!("entry {index}: a length that is a multiple of 8 expected, found {len}"));
    }
    if entry.kind == EntryKind::Change {
        Configuration::decode(&entry.payload.contiguous())
            .map_err(|error| format!("entry {index}: {error}"))?;
    }
    Ok(())
}
