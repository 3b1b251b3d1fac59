//! Proofs that this server led after a read had arrived, for linearizable reads.
//!
//! A *label* is an append without entries after an index that exists nowhere. Every server answers it at once with
//! a refusal of exactly that number: "after you sent this I was still in your term". Reads that wait form a batch
//! and share one round: one label to each voter, with a number that no label had before, sent after the last
//! read of the batch had arrived. Once a majority has answered that number or a later one, in the configuration in
//! force *and* in the committed one, no other leader can have acknowledged anything before the batch arrived
//! that is not in this log: whoever elects one has to be among those that answered, later. No clock is involved,
//! and answers are told apart by their numbers alone, never by their order.
//!
//! Where a round has just been proved, the next one asks only as many of those that answered it as a majority
//! needs: each message costs both servers a wake-up. If they are silent for a moment all voters are asked.
//!
//! A round that is not over after a few heartbeats although this server still leads is proved by an entry
//! of its own: perhaps there are servers that do not know labels.

use std::collections::BTreeSet;
use std::time::Duration;

use super::adapter::Consensus;
use super::inbound::LABELS_FROM;
use super::planted::Planted;
use super::{Effect, Refused};
use crate::base::{EntryKind, Index, NodeId, Term, Time};
use crate::codec::membership::Configuration;
use crate::codec::peer::{AppendEntries, Message};

/// Heartbeats after which a round asks the log instead.
const DEAF_AFTER: u32 = 3;

/// After so long all voters are asked by a round that had asked a few.
const FEW_PATIENCE: Duration = Duration::from_millis(5);

/// Reads up to this one, in the order of [`Consensus::request_read`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadTicket(pub u64);

/// The rounds of one leadership.
#[derive(Debug)]
pub(super) struct Rounds {
    /// Tells the labels of this leadership from those of others; 30 bits.
    nonce: u64,
    /// The number of the newest label.
    seq: u32,
    round: Option<Round>,
    /// The last read that waits for the next round.
    waiting: Option<ReadTicket>,
    /// The last round that was proved by labels, and when. Who has answered it is there, and quick.
    proved: Option<(u32, Time)>,
}

#[derive(Debug)]
struct Round {
    seq: u32,
    up_to: ReadTicket,
    /// What was committed when the round began.
    index: Index,
    proved: bool,
    began: Time,
    asked: Time,
    /// Not all voters were asked.
    few: bool,
    /// The entry that proves it instead of labels.
    barrier: Option<(Index, Term)>,
}

impl Rounds {
    pub(super) fn new(random: u64) -> Self {
        Self { nonce: random >> 34, seq: 0, round: None, waiting: None, proved: None }
    }

    /// A number that no label had yet. `None` when there are none left in this leadership.
    pub(super) fn next_seq(&mut self) -> Option<u32> {
        self.seq = self.seq.checked_add(1)?;
        Some(self.seq)
    }

    fn label(&self, seq: u32) -> Index {
        Index(LABELS_FROM + (self.nonce << 32) + u64::from(seq))
    }

    /// The number in this label, if it is one of this leadership's.
    fn round_of(&self, label: u64, any_leadership: bool) -> Option<u32> {
        let number = label.checked_sub(LABELS_FROM)?;
        let seq = u32::try_from(number & u64::from(u32::MAX)).ok()?;
        ((any_leadership || number >> 32 == self.nonce) && seq <= self.seq).then_some(seq)
    }
}

impl Consensus {
    /// A read has arrived. `None`: it may be answered now, since nobody else has a vote. Otherwise
    /// [`Effect::ReadsReady`] follows, unless this leadership ends.
    ///
    /// # Errors
    /// When this server does not lead, or has not applied an entry of its own term yet.
    pub fn request_read(&mut self, now: Time) -> Result<Option<ReadTicket>, Refused> {
        self.now = self.now.max(now);
        if !self.is_leader() || !self.has_applied_own_term() {
            return Err(Refused::NotLeader);
        }
        if self.is_only_voter() {
            return Ok(None);
        }
        let joins = self.errs(Planted::JoinedRound);
        let Some(leadership) = &mut self.leadership else { return Err(Refused::NotLeader) };
        self.read_tickets.0 += 1;
        match &mut leadership.rounds.round {
            Some(round) if joins => round.up_to = self.read_tickets,
            _ => leadership.rounds.waiting = Some(self.read_tickets),
        }
        Ok(Some(self.read_tickets))
    }

    /// While `gathers`, no round begins: more reads are about to come, and share it.
    pub fn gather_reads(&mut self, gathers: bool) {
        self.gathers = gathers;
    }

    /// Begins a round for the reads that wait, unless one is under way: that one began before they came.
    pub(super) fn begin_round(&mut self) {
        let rounds = self.leadership.as_ref().map(|leadership| &leadership.rounds);
        if self.gathers || rounds.is_none_or(|rounds| rounds.round.is_some() || rounds.waiting.is_none()) {
            return;
        }
        let few = self.few_voters();
        let (Some(raw), Some(leadership)) = (&self.raw, &mut self.leadership) else { return };
        let rounds = &mut leadership.rounds;
        let Some(seq) = rounds.next_seq() else { return };
        let Some(up_to) = rounds.waiting.take() else { return };
        rounds.round = Some(Round {
            seq,
            up_to,
            index: Index(raw.raft.raft_log.committed),
            proved: false,
            began: self.now,
            asked: self.now,
            few: few.is_some(),
            barrier: None,
        });
        match few {
            Some(few) => self.ask(few),
            None => self.ask_voters(),
        }
        self.check_round();
    }

    /// Those to ask for a majority where the last round was proved just now; `None` where all are to be asked.
    fn few_voters(&self) -> Option<Vec<(NodeId, String)>> {
        let (seq, proved) = self.leadership.as_ref()?.rounds.proved?;
        let (in_force, committed) = (self.membership.in_force(), self.membership.committed());
        if self.now.since(proved) >= self.config.heartbeat || in_force.index != committed.index {
            return None;
        }
        let voters = || in_force.configuration.voters().filter(|voter| voter.id != self.config.id);
        let all = in_force.configuration.voters().count();
        let needed = (all / 2 + 1).saturating_sub(all - voters().count());
        let near =
            voters().filter(|voter| self.leadership.as_ref().is_some_and(|it| it.answered(voter.id) >= seq));
        let few: Vec<_> = near.take(needed).map(|voter| (voter.id, voter.address.clone())).collect();
        (few.len() == needed && needed < voters().count()).then_some(few)
    }

    /// When a round that has asked a few voters asks all of them.
    pub(super) fn few_until(&self) -> Option<Time> {
        let round = self.leadership.as_ref()?.rounds.round.as_ref()?;
        (round.few && !round.proved).then(|| round.asked.after(FEW_PATIENCE))
    }

    /// Asks all voters where the few that were asked are silent.
    pub(super) fn widen_round(&mut self) {
        if self.few_until().is_none_or(|until| self.now < until) {
            return;
        }
        if let Some(leadership) = &mut self.leadership {
            leadership.rounds.proved = None;
            if let Some(round) = &mut leadership.rounds.round {
                round.few = false;
            }
        }
        self.ask_voters();
    }

    /// Sends the newest label to each voter that has not answered it.
    fn ask_voters(&mut self) {
        let Some(leadership) = &self.leadership else { return };
        let Some(seq) = leadership.rounds.round.as_ref().map(|round| round.seq) else { return };
        let (in_force, committed) = (self.membership.in_force(), self.membership.committed());
        let voters = in_force.configuration.voters().chain(committed.configuration.voters());
        let silent = voters.filter(|server| leadership.answered(server.id) < seq);
        let mut asked: Vec<(NodeId, String)> =
            silent.filter(|it| it.id != self.config.id).map(|it| (it.id, it.address.clone())).collect();
        // The configuration in force comes first: it has the address.
        let mut seen = BTreeSet::new();
        asked.retain(|(id, _)| seen.insert(*id));
        self.ask(asked);
    }

    fn ask(&mut self, voters: Vec<(NodeId, String)>) {
        let Some(seq) = self.leadership.as_ref().map(|leadership| leadership.rounds.seq) else { return };
        for (to, address) in voters {
            if let Some(message) = self.label_of(seq) {
                self.effects.push_back(Effect::Send { to, address, message });
            }
        }
    }

    /// The newest label as a message.
    pub(super) fn label(&self) -> Option<Message> {
        self.label_of(self.leadership.as_ref()?.rounds.seq)
    }

    pub(super) fn label_of(&self, seq: u32) -> Option<Message> {
        let leadership = self.leadership.as_ref()?;
        Some(Message::AppendEntries(AppendEntries {
            term: leadership.term,
            prev_index: leadership.rounds.label(seq),
            prev_term: leadership.term,
            commit: self.commit_index(),
            entries: Vec::new(),
        }))
    }

    /// A peer has answered this label in the current term.
    pub(super) fn handle_label_answer(&mut self, from: NodeId, label: u64, last_index: Index) {
        let any = self.errs(Planted::OldLabels);
        let Some(leadership) = &mut self.leadership else { return };
        let Some(seq) = leadership.rounds.round_of(label, any) else {
            log::debug!("label {label} of {from} is none of this leadership's");
            return;
        };
        let peer = leadership.peer(from);
        peer.answered = peer.answered.max(seq);
        self.note_active(from);
        self.advance_fence(from, seq, last_index);
        self.check_round();
    }

    /// Looks whether the round is over.
    pub(super) fn check_round(&mut self) {
        let proved = self.is_round_proved();
        let applied = self.applied;
        let Some(leadership) = &mut self.leadership else { return };
        let Some(round) = &mut leadership.rounds.round else { return };
        round.proved |= proved;
        if round.proved && applied >= round.index {
            let (up_to, index) = (round.up_to, round.index);
            if round.barrier.is_none() {
                leadership.rounds.proved = Some((round.seq, self.now));
            }
            leadership.rounds.round = None;
            self.effects.push_back(Effect::ReadsReady { up_to, index });
        }
    }

    fn is_round_proved(&self) -> bool {
        let Some(leadership) = &self.leadership else { return false };
        let Some(round) = &leadership.rounds.round else { return false };
        let seq = round.seq;
        let logged = round
            .barrier
            .is_some_and(|(index, term)| self.applied >= index && self.term_at(index) == Some(term));
        let majority = |configuration: &Configuration| {
            let has = |id| id == self.config.id || leadership.answered(id) >= seq;
            let answered = configuration.voters().filter(|voter| has(voter.id)).count();
            answered > configuration.voters().count() / 2
        };
        logged
            || majority(&self.membership.in_force().configuration)
                && majority(&self.membership.committed().configuration)
    }

    /// Asks again whoever has not answered for a heartbeat; after some of them asks the log.
    pub(super) fn repeat_round(&mut self) {
        let (now, heartbeat) = (self.now, self.config.heartbeat);
        let Some(leadership) = &mut self.leadership else { return };
        let Some(round) = leadership.rounds.round.as_mut().filter(|round| !round.proved) else { return };
        if now.since(round.asked) < heartbeat {
            return;
        }
        round.asked = now;
        let deaf = round.barrier.is_none() && now.since(round.began) >= heartbeat * DEAF_AFTER;
        self.ask_voters();
        if deaf && let Ok(barrier) = self.propose(EntryKind::Barrier, super::log_view::barrier()) {
            log::debug!("a round of reads is proved by entry {}", barrier.0);
            if let Some(round) = self.leadership.as_mut().and_then(|it| it.rounds.round.as_mut()) {
                round.barrier = Some(barrier);
            }
        }
    }
}
