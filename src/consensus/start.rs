//! What raft-rs is told at the start: settings, and what follows from the data directory.

use std::time::Duration;

use raft::eraftpb::{ConfState, HardState};
use raft::{NO_LIMIT, ReadOnlyOption};

use super::log_view::LogView;
use super::membership::{Placed, RaftMembers, is_only_voter};
use super::{Config, Restored};
use crate::base::{EntryKind, Index, NodeId, Term};
use crate::codec::membership::Configuration;

/// The settings of raft-rs that the peer protocol asks for.
pub(super) fn raft_config(config: &Config, tick: Duration) -> raft::Config {
    let ticks = |time: Duration| {
        usize::try_from(time.as_nanos().div_ceil(tick.as_nanos().max(1))).unwrap_or(usize::MAX / 4).max(1)
    };
    let heartbeat_tick = ticks(config.heartbeat);
    raft::Config {
        id: config.id.0,
        heartbeat_tick,
        election_tick: ticks(config.election_timeout).max(heartbeat_tick + 1),
        check_quorum: true,
        pre_vote: true,
        max_size_per_msg: NO_LIMIT,
        max_uncommitted_size: NO_LIMIT,
        max_committed_size_per_ready: NO_LIMIT,
        max_inflight_msgs: 256,
        read_only_option: ReadOnlyOption::Safe,
        ..raft::Config::default()
    }
}

/// The configuration in force and the last committed one: the newest counts as uncommitted unless it is entry
/// 1 or covered by the snapshot, and the one before it as committed.
pub(super) fn configurations(restored: &Restored) -> (Placed, Placed) {
    let in_force =
        Placed { configuration: restored.configuration.clone(), index: restored.configuration_index };
    if restored.configuration_committed {
        return (in_force.clone(), in_force);
    }
    let covered = restored.snapshot.as_ref().map(|snapshot| Placed {
        configuration: snapshot.configuration.clone(),
        index: snapshot.configuration_index,
    });
    let mut earlier = restored
        .entries
        .iter()
        .rev()
        .filter(|entry| entry.kind == EntryKind::Change && entry.index < restored.configuration_index);
    let earlier = earlier.find_map(|entry| {
        let configuration = Configuration::decode(&entry.payload.contiguous()).ok()?;
        Some(Placed { configuration, index: entry.index })
    });
    (in_force, earlier.or(covered).unwrap_or_default())
}

/// Whether this start wrote the log, and the log is as it was written.
pub(super) fn is_bootstrap(restored: &Restored, config: &Config) -> bool {
    let [entry] = restored.entries.as_slice() else { return false };
    restored.bootstrapped_now
        && restored.snapshot.is_none()
        && (entry.index, entry.term, entry.kind) == (Index(1), Term(1), EntryKind::Change)
        && (restored.term, restored.voted_for) == (Term(1), NodeId(0))
        && is_only_voter(&restored.configuration, config.id)
}

/// Term, vote and commit index to start from, and whether the term had to be raised.
pub(super) fn hard_state(log: &LogView, restored: &Restored) -> (HardState, bool) {
    let covered = restored.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index);
    let commit = if covered > Index(0) { covered } else { Index(1).min(Index(log.last())) };
    let highest =
        restored.snapshot.as_ref().map_or(Term(0), |snapshot| snapshot.term).max(log.highest_term());
    let mut hard_state = HardState { commit: commit.0, ..HardState::default() };
    let raised = restored.term < highest;
    if raised {
        hard_state.term = highest.0;
    } else {
        hard_state.term = restored.term.0;
        hard_state.vote = restored.voted_for.0;
    }
    (hard_state, raised)
}

pub(super) fn conf_state(members: &RaftMembers) -> ConfState {
    ConfState {
        voters: members.voters.iter().copied().collect(),
        learners: members.learners.iter().copied().collect(),
        ..ConfState::default()
    }
}
