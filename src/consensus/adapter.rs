//! [`Consensus`]: start, calls into raft-rs, proposals and messages, application and compaction.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use raft::eraftpb::HardState;
use raft::{RawNode, StateRole};
use slog::Logger;

use super::changes::Transfer;
use super::clock::PinnedTimeout;
use super::leadership::Leadership;
use super::log_view::{LogView, handle};
use super::membership::{Ownership, Promotion, RaftMembers, is_only_voter, is_voter};
use super::planted::Planted;
use super::reads::ReadTicket;
use super::ready::Persistence;
use super::shortage::Shortage;
use super::snapshots::Intake;
use super::start::{conf_state, configurations, hard_state, is_bootstrap, raft_config};
use super::{Config, Effect, Refused, Restored, SnapshotMeta, logger};
use crate::base::{EntryKind, Index, NodeId, Payload, Prng, Term, Time, limits};

/// The role that was announced last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Leader(Term),
    Follower(Term, Option<NodeId>),
}

/// One server's part in Raft. See the module's description.
pub struct Consensus {
    pub(super) config: Config,
    pub(super) raft_config: raft::Config,
    logger: Logger,
    /// Absent once the node is unavailable.
    pub(super) raw: Option<RawNode<LogView>>,
    pub(super) unavailable: Option<String>,
    /// raft-rs was called since there was last nothing to do.
    pub(super) touched: bool,
    pub(super) pin: PinnedTimeout,
    pub(super) tick: Duration,
    pub(super) next_tick: Time,
    pub(super) now: Time,
    pub(super) effects: VecDeque<Effect>,
    pub(super) persistence: Persistence,
    pub(super) disk_watch: super::stuck::Watch,
    pub(super) membership: Ownership,
    pub(super) promotion: Option<Promotion>,
    pub(super) transfer: Option<Transfer>,
    /// The last index that was handed out for application, and the last that is applied.
    pub(super) handed_out: Index,
    pub(super) applied: Index,
    pub(super) announced: Standing,
    pub(super) shortage: Option<Shortage>,
    /// While raft-rs leads.
    pub(super) leadership: Option<Leadership>,
    pub(super) prng: Prng,
    /// The last read that was taken.
    pub(super) read_tickets: ReadTicket,
    /// More reads are about to come.
    pub(super) gathers: bool,
    /// Peers that answered in the short form last time.
    pub(super) short_peers: BTreeSet<NodeId>,
    /// A snapshot of a leader on its way in.
    pub(super) intake: Option<Intake>,
    /// Where servers that connected want their answers.
    pub(super) callers: BTreeMap<NodeId, String>,
    /// The leader of whom was told last that its history is another one, and its term.
    pub(super) told_conflict: Option<(NodeId, Term)>,
    /// The term in which another server took over leadership without raising it.
    pub(super) taken_over: Option<Term>,
    /// How old what is applied can be while another server leads.
    pub(super) freshness: super::freshness::Freshness,
    /// On a bootstrap start: the entry that stands in the log already, in place of raft-rs's first.
    pub(super) bootstrap_entry: Option<(Index, Term)>,
    /// The mistake that a test has planted.
    #[cfg(test)]
    pub(super) planted: Option<super::planted::Planted>,
}

impl Consensus {
    /// Takes up what the data directory holds. The only voter campaigns at once.
    ///
    /// # Errors
    /// When log, snapshot and configuration do not fit together, in words.
    pub fn new(config: Config, mut restored: Restored, now: Time) -> Result<Self, String> {
        let logger = logger::forwarding();
        let tick = (config.heartbeat / 5).max(Duration::from_millis(1));
        let mut raft_config = raft_config(&config, tick);
        let (in_force, committed) = configurations(&restored);
        let stored = (restored.term, restored.voted_for);
        let bootstrap = is_bootstrap(&restored, &config);
        let snapshot = restored.snapshot.clone();
        let first_entry = if bootstrap { restored.entries.pop() } else { None };
        let mut log = if bootstrap {
            LogView::new(limits::LOG_CACHE_BYTES_MAX)
        } else {
            LogView::restore(&mut restored, limits::LOG_CACHE_BYTES_MAX)?
        };
        let (hard_state, raised) =
            if bootstrap { (HardState::default(), false) } else { hard_state(&log, &restored) };
        raft_config.applied = hard_state.commit;
        let bootstrap_entry = first_entry.map(|entry| {
            log.stage(entry.index, entry.term, entry.kind, entry.payload);
            (entry.index, entry.term)
        });
        if let Some(snapshot) = snapshot {
            let conf_state = conf_state(&RaftMembers::of(&snapshot.configuration, None, None));
            log.set_snapshot(snapshot, conf_state);
        }
        let (applied, term) = (Index(hard_state.commit), Term(hard_state.term));
        let mut consensus = Self {
            pin: PinnedTimeout::new(config.seed, raft_config.election_tick),
            // For the numbers of labels.
            prng: Prng::new(!config.seed),
            config,
            raft_config,
            logger,
            raw: None,
            unavailable: None,
            touched: true,
            tick,
            next_tick: now.after(tick),
            now,
            effects: VecDeque::new(),
            persistence: Persistence::new(stored),
            disk_watch: super::stuck::Watch::default(),
            membership: Ownership::new(in_force, committed),
            promotion: None,
            transfer: None,
            handed_out: applied,
            applied,
            announced: Standing::Follower(term, None),
            shortage: None,
            leadership: None,
            read_tickets: ReadTicket::default(),
            gathers: false,
            short_peers: BTreeSet::new(),
            intake: None,
            callers: BTreeMap::new(),
            told_conflict: None,
            taken_over: None,
            freshness: super::freshness::Freshness::default(),
            bootstrap_entry,
            #[cfg(test)]
            planted: super::planted::PLANTED.get(),
        };
        consensus.launch(log, hard_state)?;
        // By the configuration in force alone: offline recovery may just have made this the only voter.
        if is_only_voter(consensus.configuration(), consensus.config.id) {
            consensus.call("campaign", RawNode::campaign);
        } else if raised {
            consensus.persist_metadata(term, NodeId(0));
        }
        match consensus.unavailable {
            Some(text) => Err(text),
            None => Ok(consensus),
        }
    }

    /// Gives raft-rs a log to start from, as a follower.
    pub(super) fn launch(&mut self, mut log: LogView, hard_state: HardState) -> Result<(), String> {
        let members = self.raft_members();
        log.set_initial_state(hard_state, conf_state(&members));
        self.raft_config.applied = self.handed_out.0;
        let (config, logger) = (&self.raft_config, &self.logger);
        // A half-made node is dropped on a panic: nothing is left that could be seen inconsistent.
        let made = catch_unwind(AssertUnwindSafe(|| RawNode::new(config, log, logger)));
        let mut raw = match made {
            Ok(Ok(raw)) => raw,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(panic) => return Err(panic_text(panic.as_ref()).to_owned()),
        };
        self.pin.set(&mut raw);
        self.raw = Some(raw);
        self.pin_payloads();
        Ok(())
    }

    /// One call into raft-rs: its assertions make this node unavailable instead of ending the process.
    /// `None` when it is, or became, unavailable.
    pub(super) fn call<R>(&mut self, what: &str, call: impl FnOnce(&mut RawNode<LogView>) -> R) -> Option<R> {
        let anywhere = self.errs(Planted::ShortAppends);
        let later = self.tells_commit_later();
        let raw = self.raw.as_mut()?;
        raw.skip_bcast_commit(later);
        self.touched = true;
        // After a panic the node is dropped unseen, whatever state it is in.
        match catch_unwind(AssertUnwindSafe(|| call(raw))) {
            Ok(value) => {
                self.pin.set(raw);
                Leadership::follow(&mut self.leadership, raw, &mut self.prng);
                if let Some(leadership) = &self.leadership {
                    let first = if anywhere { Index(0) } else { leadership.first };
                    raw.mut_store().set_append_floor(first);
                }
                Some(value)
            }
            Err(panic) => {
                self.fail(&format!("broken invariant ({what}): {}", panic_text(panic.as_ref())));
                None
            }
        }
    }

    /// Ends this server's part.
    pub fn fail(&mut self, text: &str) {
        if self.unavailable.is_none() {
            log::error!("server {} at {} is unavailable: {text}", self.config.id, self.config.address);
            self.unavailable = Some(text.to_owned());
            self.raw = None;
            self.effects.clear();
            self.effects.push_back(Effect::Unavailable { text: text.to_owned() });
        }
    }

    /// Appends an entry. It is this server's own from now on: it is committed when an [`Effect::Apply`] holds
    /// an entry with this index *and* term.
    ///
    /// # Errors
    /// [`Refused`]; nothing was appended.
    ///
    /// # Panics
    /// When the payload is empty or not a multiple of 8 bytes long (peers cut entries at such boundaries), or
    /// when `kind` is a configuration, which only [`Consensus::propose_change`] may append.
    pub fn propose(&mut self, kind: EntryKind, payload: Payload) -> Result<(Index, Term), Refused> {
        assert!(kind != EntryKind::Change, "proposal: a command or barrier expected, found a configuration");
        self.may_propose()?;
        self.append(kind, payload)
    }

    pub(super) fn may_propose(&self) -> Result<(), Refused> {
        let Some(raw) = &self.raw else { return Err(Refused::Unavailable) };
        if self.shortage.as_ref().is_some_and(Shortage::leads) {
            return Err(Refused::OutOfSpace);
        }
        // After proposing its own removal a leader appends no more: the term may be used by another leader.
        let leaves = !is_voter(&self.membership.in_force().configuration, self.config.id);
        if raw.raft.state != StateRole::Leader || leaves || self.transfer.is_some() {
            return Err(Refused::NotLeader);
        }
        Ok(())
    }

    pub(super) fn append(&mut self, kind: EntryKind, payload: Payload) -> Result<(Index, Term), Refused> {
        let len = payload.len();
        assert!(
            len > 0 && len.is_multiple_of(8),
            "proposal: a length that is a multiple of 8 expected, found {len}"
        );
        let appended = self.call("propose", |raw| {
            let index = Index(raw.raft.raft_log.last_index() + 1);
            let term = Term(raw.raft.term);
            raw.mut_store().stage(index, term, kind, payload);
            let (context, data) = handle(kind, len as u64);
            match raw.propose(context, data) {
                Ok(()) => Some((index, term)),
                Err(error) => {
                    log::debug!("proposal refused: {error}");
                    raw.mut_store().unstage(index, term);
                    None
                }
            }
        });
        appended.ok_or(Refused::Unavailable)?.ok_or(Refused::NotLeader)
    }

    /// Everything up to `index` is applied.
    pub fn handle_applied(&mut self, index: Index) {
        let index = index.min(self.handed_out);
        if index <= self.applied {
            return;
        }
        self.applied = index;
        self.call("applied", |raw| {
            if index.0 > raw.raft.raft_log.applied() {
                raw.advance_apply_to(index.0);
            }
        });
        if self.membership.handle_applied(index) {
            if self.errs(Planted::LateConfiguration) {
                self.membership.handle_stored(self.membership.committed().clone());
            }
            self.step_down_if_removed();
            self.tell_members();
        }
        self.pin_payloads();
        self.check_round();
        self.check_freshness();
    }

    /// A snapshot is durable, and the log before `keep_from` may be forgotten.
    pub fn compact(&mut self, snapshot: SnapshotMeta, keep_from: Index) {
        let in_flight = self.first_awaited().unwrap_or(keep_from);
        let keep_from = keep_from.min(in_flight).min(snapshot.index.next()).min(self.applied.next());
        self.call("compact", |raw| {
            let conf_state = conf_state(&RaftMembers::of(&snapshot.configuration, None, None));
            raw.mut_store().set_snapshot(snapshot, conf_state);
            raw.mut_store().compact(keep_from);
        });
        self.end_rests(|_, rest| rest.unreadable);
    }

    /// Lets go of payloads that are durable and applied, beyond the cache's bound.
    pub(super) fn pin_payloads(&mut self) {
        let applied = self.applied.0;
        self.call("pin", |raw| {
            let done = applied.min(raw.raft.raft_log.persisted);
            raw.mut_store().pin_after(Index(done));
        });
    }
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&'static str>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "no text",
    }
}
