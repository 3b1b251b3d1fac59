//! When to look at the cluster, and one change after another.
//!
//! Only the leader does anything. It looks once in a while: all servers are asked ([`Effect::Ask`]), what they say
//! is handed in by [`Manager::handle_answers`], and the changes that follow come out as [`Effect::Assign`], each
//! one after [`Manager::handle_ended`] for the one before. After the last it waits again.
//!
//! Invariant: between an `Assign` and its end there is no other effect.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Change, Server, Targets, plan};
use crate::base::{NodeId, Time};

/// From one look at the cluster to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// Answers that are not there by then will not come: whoever asks gives up well before.
const ANSWERS_PATIENCE: Duration = Duration::from_secs(15);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask all servers about themselves, then call [`Manager::handle_answers`] with this number.
    Ask {
        /// Names the round.
        round: u64,
    },
    /// Change a server's role, then call [`Manager::handle_ended`], however it ended.
    Assign(Change),
}

/// The state of role management on one server.
#[derive(Debug)]
pub struct Manager {
    me: NodeId,
    targets: Targets,
    round: u64,
    state: State,
    effects: VecDeque<Effect>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Switched off, for good.
    Off,
    /// Another server leads, or none.
    Following,
    /// Until the next look.
    Waiting(Time),
    /// For answers, until this time.
    Asking(Time),
    /// For the end of a change; these come next.
    Changing(VecDeque<Change>),
}

impl Manager {
    /// The manager of server `me`; unless `enabled` it never does anything.
    #[must_use]
    pub fn new(enabled: bool, me: NodeId, targets: Targets) -> Self {
        let state = if enabled { State::Following } else { State::Off };
        Self { me, targets, round: 0, state, effects: VecDeque::new() }
    }

    /// Sets what the cluster should have, from the next look on.
    pub fn set_targets(&mut self, targets: Targets) {
        self.targets = targets;
    }

    /// Does nothing from now on: this server is about to leave, and hands over its role itself.
    pub fn switch_off(&mut self) {
        self.state = State::Off;
        self.effects.clear();
    }

    /// This server leads now, or does not any more. A change that is under way then ends without this one.
    pub fn handle_leading(&mut self, leading: bool, now: Time) {
        self.effects.clear();
        self.state = match &self.state {
            State::Off => return,
            State::Following | State::Waiting(_) | State::Asking(_) | State::Changing(_) if !leading => {
                State::Following
            }
            State::Following | State::Waiting(_) | State::Asking(_) | State::Changing(_) => {
                State::Waiting(now.after(PERIOD))
            }
        };
    }

    /// Time went on.
    pub fn handle_timeout(&mut self, now: Time) {
        match self.state {
            State::Waiting(until) if now >= until => {
                self.round += 1;
                self.state = State::Asking(now.after(ANSWERS_PATIENCE));
                self.effects.push_back(Effect::Ask { round: self.round });
            }
            State::Asking(until) if now >= until => self.state = State::Waiting(now.after(PERIOD)),
            State::Off | State::Following | State::Waiting(_) | State::Asking(_) | State::Changing(_) => {}
        }
    }

    /// When [`Self::handle_timeout`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Waiting(until) | State::Asking(until) => Some(until),
            State::Off | State::Following | State::Changing(_) => None,
        }
    }

    /// What is known of the servers of the configuration in force; `None` if it is another one than was asked.
    /// The answers to an earlier round are ignored.
    pub fn handle_answers(&mut self, round: u64, servers: Option<&[Server]>, now: Time) {
        if !matches!(self.state, State::Asking(_)) || round != self.round {
            return;
        }
        let changes = servers.map(|servers| plan(servers, self.targets, self.me)).unwrap_or_default();
        self.state = State::Changing(changes.into());
        self.handle_ended(now);
    }

    /// The change that was under way was made, or was not.
    pub fn handle_ended(&mut self, now: Time) {
        let State::Changing(changes) = &mut self.state else { return };
        match changes.pop_front() {
            Some(change) => self.effects.push_back(Effect::Assign(change)),
            None => self.state = State::Waiting(now.after(PERIOD)),
        }
    }

    /// What to do now, if anything.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}

#[cfg(test)]
#[path = "manager/tests.rs"]
mod tests;
