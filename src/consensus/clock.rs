//! Time: ticks for raft-rs, and when elections may begin.

use raft::{RawNode, StateRole};

use super::adapter::Consensus;
use super::log_view::LogView;
use crate::base::{Prng, Time};

/// The election timeout in ticks, drawn from our own generator: raft-rs draws one from the system's at each
/// change of role, and gets ours put over it after every call.
#[derive(Debug)]
pub(super) struct PinnedTimeout {
    prng: Prng,
    ticks_min: usize,
    pub(super) ticks: usize,
    drawn_for: (u64, StateRole, u64),
}

impl PinnedTimeout {
    pub(super) fn new(seed: u64, ticks_min: usize) -> Self {
        let mut pin =
            Self { prng: Prng::new(seed), ticks_min, ticks: 0, drawn_for: (0, StateRole::Follower, 0) };
        pin.draw();
        pin
    }

    pub(super) fn draw(&mut self) {
        let more = self.prng.below(self.ticks_min as u64);
        self.ticks = self.ticks_min + usize::try_from(more).unwrap_or(0);
    }

    pub(super) fn set(&mut self, raw: &mut RawNode<LogView>) {
        let now = (raw.raft.term, raw.raft.state, raw.raft.leader_id);
        if now != self.drawn_for {
            self.drawn_for = now;
            self.draw();
        }
        raw.raft.set_randomized_election_timeout(self.ticks);
    }
}

impl Consensus {
    /// Time has passed. Early or repeated calls are harmless.
    pub fn handle_time(&mut self, now: Time) {
        self.now = self.now.max(now);
        if !self.needs_ticks() {
            self.next_tick = now.after(self.tick);
            return;
        }
        let mut ticks = 0;
        while self.next_tick <= now {
            // After a pause of this thread messages may wait to be read: no election before that.
            if ticks == self.raft_config.heartbeat_tick {
                self.next_tick = now.after(self.tick);
                break;
            }
            ticks += 1;
            self.next_tick = self.next_tick.after(self.tick);
            self.tick();
            self.check_disk();
        }
        if ticks > 0 {
            self.check_promotion();
            self.check_transfer();
            self.check_shortage();
            self.repeat_round();
            self.tell_commit();
            self.check_snapshots_sent();
        }
        self.widen_round();
    }

    /// When [`Consensus::handle_time`] is to be called next, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let tick = self.needs_ticks().then_some(self.next_tick);
        tick.map(|tick| self.few_until().map_or(tick, |until| until.min(tick)))
    }

    /// A leader without peers, and a server without leader that cannot be elected, have nothing to do with time.
    fn needs_ticks(&self) -> bool {
        let Some(raw) = &self.raw else { return false };
        let waits = self.promotion.is_some() || self.transfer.is_some() || self.shortage.is_some();
        waits
            || match raw.raft.state {
                StateRole::Leader => raw.raft.prs().iter().len() > 1,
                StateRole::Follower | StateRole::Candidate | StateRole::PreCandidate => {
                    // Also who cannot be elected has to forget a silent leader, or would refuse its vote for ever.
                    let in_lease =
                        raw.raft.leader_id != 0 && raw.raft.election_elapsed < raw.raft.election_timeout();
                    raw.raft.promotable() || in_lease || self.may_finish_own_removal()
                }
            }
    }

    /// Whether an election may begin: nobody asks for votes with a log or a vote that is not durable, which
    /// raft-rs takes for granted, nor while there is no room for either.
    pub(super) fn is_settled(&self) -> bool {
        let Some(raw) = &self.raw else { return false };
        self.persistence.is_idle()
            && raw.raft.raft_log.unstable_entries().is_empty()
            && self.shortage.is_none()
            && !self.is_installing()
    }

    fn tick(&mut self) {
        let Some(raw) = &self.raw else { return };
        let elects = raw.raft.state != StateRole::Leader && raw.raft.election_elapsed + 1 >= self.pin.ticks;
        if elects && !self.is_settled() {
            return;
        }
        let unasked = elects && self.may_finish_own_removal();
        let started = self.call("tick", |raw| {
            raw.tick();
            // raft-rs lets only voters campaign by themselves.
            if unasked {
                raw.raft.election_elapsed = 0;
                if let Err(error) = raw.campaign() {
                    log::debug!("campaign refused: {error}");
                }
            }
            raw.raft.state != StateRole::Leader && raw.raft.election_elapsed == 0
        });
        if started == Some(true) {
            self.pin.draw();
            self.call("election timeout", |_| ());
        }
    }
}
