//! How such a server leads.

use std::collections::BTreeMap;

use super::{Completion, ELECTION, HEARTBEAT, Rival, Role};
use crate::base::{Entry, EntryKind, Index, NodeId, Payload, Role as Duty, Term, Time};
use crate::codec::membership::Configuration;
use crate::codec::peer::{AppendEntries, AppendResult, InstallSnapshot, Message, TimeoutNow};
use crate::consensus::membership::{Placed, is_voter};
use crate::consensus::tests::world::disk::Packet;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Probe,
    Pipeline,
    Snapshot { index: u64, since: Time },
}

#[derive(Clone, Debug)]
struct Progress {
    next: u64,
    matched: u64,
    mode: Mode,
    last_send: Time,
    heard: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Lead {
    peers: BTreeMap<u64, Progress>,
    check_at: Time,
    promoting: Option<u64>,
    transfer: Option<(u64, Time, bool)>,
}

impl Rival {
    fn leading(&mut self) -> &mut Lead {
        match &mut self.role {
            Role::Leader(lead) => lead,
            _ => unreachable!("leads"),
        }
    }

    pub(super) fn lead(&mut self) {
        self.role = Role::Leader(Lead { check_at: self.now.after(ELECTION), ..Lead::default() });
        self.leader = self.id;
        self.know_peers();
        self.append(EntryKind::Barrier, Self::barrier());
    }

    /// Voters and stand-bys are replicated to, and who is being promoted.
    fn know_peers(&mut self) {
        let (now, next, me) = (self.now, self.last() + 1, self.id);
        let known = self.in_force.configuration.servers.iter();
        let mut wanted: Vec<u64> =
            known.filter(|it| it.role != Duty::Spare && it.id.0 != me).map(|it| it.id.0).collect();
        let lead = self.leading();
        wanted.extend(lead.promoting);
        lead.peers.retain(|id, _| wanted.contains(id));
        let past = Time(now.0.saturating_sub(500_000_000));
        for id in wanted {
            let fresh = Progress { next, matched: 0, mode: Mode::Probe, last_send: past, heard: false };
            lead.peers.entry(id).or_insert(fresh);
        }
    }

    fn append(&mut self, kind: EntryKind, payload: Payload) -> (Index, Term) {
        let (index, term) = (Index(self.last() + 1), Term(self.term()));
        if kind == EntryKind::Change {
            let configuration = Configuration::decode(&payload.contiguous()).unwrap();
            self.in_force = Placed { configuration, index };
            self.know_peers();
        }
        self.write(None, vec![Entry { index, term, kind, payload }], Completion::Led);
        self.replicate_all();
        (index, term)
    }

    pub(crate) fn propose(&mut self, payload: Payload) -> Option<(Index, Term)> {
        let Role::Leader(lead) = &self.role else { return None };
        let leaves = !is_voter(&self.in_force.configuration, NodeId(self.id));
        (lead.transfer.is_none() && !leaves).then(|| self.append(EntryKind::Command, payload))
    }

    /// Whether a change may begin, by the stricter rule that ours follow.
    pub(crate) fn may_change(&self) -> bool {
        let Role::Leader(lead) = &self.role else { return false };
        lead.transfer.is_none()
            && lead.promoting.is_none()
            && self.in_force.index == self.committed.index
            && self.term_at(self.commit) == Some(self.term())
    }

    pub(crate) fn change(&mut self, next: &Configuration) {
        self.append(EntryKind::Change, Payload::from_bytes(&next.encode()));
    }

    pub(crate) fn promote(&mut self, id: u64) {
        self.leading().promoting = Some(id);
        self.know_peers();
        self.promote_if_ready();
    }

    fn promote_if_ready(&mut self) {
        let last = self.last();
        let Role::Leader(lead) = &mut self.role else { return };
        let Some(id) = lead.promoting else { return };
        let ready = lead.peers.get(&id).is_some_and(|it| it.matched == last);
        if ready && lead.transfer.is_none() {
            lead.promoting = None;
            let mut next = self.in_force.configuration.clone();
            next.servers.iter_mut().filter(|it| it.id.0 == id).for_each(|it| it.role = Duty::Voter);
            self.change(&next);
        }
    }

    pub(crate) fn transfer(&mut self, to: u64) {
        let until = self.now.after(ELECTION);
        let voter = is_voter(&self.in_force.configuration, NodeId(to)) && to != self.id;
        let lead = self.leading();
        if voter && lead.transfer.is_none() {
            lead.transfer = Some((to, until, false));
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let (last, term) = (self.last(), Term(self.term()));
        let last_term = Term(self.term_at(last).unwrap());
        let Role::Leader(lead) = &mut self.role else { return };
        let Some((to, _, sent)) = &mut lead.transfer else { return };
        let to = *to;
        if !*sent && lead.peers.get(&to).is_some_and(|it| it.matched == last) {
            *sent = true;
            self.send(to, Message::TimeoutNow(TimeoutNow { term, last_index: Index(last), last_term }));
        }
    }

    fn replicate_all(&mut self) {
        let Role::Leader(lead) = &self.role else { return };
        for to in lead.peers.keys().copied().collect::<Vec<_>>() {
            self.replicate(to);
        }
    }

    fn replicate(&mut self, to: u64) {
        let (now, last) = (self.now, self.last());
        let peer = self.leading().peers[&to].clone();
        let idle = now.since(peer.last_send) >= HEARTBEAT;
        let (prev, send_entries) = match peer.mode {
            Mode::Snapshot { .. } if idle => (last, false),
            Mode::Snapshot { .. } => return,
            Mode::Probe if !idle => return,
            Mode::Pipeline if !idle && peer.next > last => return,
            Mode::Probe | Mode::Pipeline => {
                let covered = self.disk.stored.snapshot.clone();
                let gone = self.term_at(peer.next - 1).is_none() || peer.next <= self.base;
                if !gone && (peer.next > 1 || covered.is_none()) {
                    (peer.next - 1, true)
                } else if peer.heard {
                    return self.send_snapshot(to);
                } else {
                    (last, false)
                }
            }
        };
        let skip = usize::try_from(prev.saturating_sub(self.base)).unwrap();
        let entries: Vec<Entry> =
            if send_entries { self.log.iter().skip(skip).cloned().collect() } else { Vec::new() };
        let append = AppendEntries {
            term: Term(self.term()),
            prev_index: Index(prev),
            prev_term: Term(self.term_at(prev).unwrap()),
            commit: Index(self.commit),
            entries,
        };
        let known = self.leading().peers.get_mut(&to).unwrap();
        known.last_send = now;
        if peer.mode == Mode::Pipeline {
            known.next = last + 1;
        }
        self.send(to, Message::AppendEntries(append));
    }

    fn send_snapshot(&mut self, to: u64) {
        let (now, term) = (self.now, Term(self.term()));
        let meta = self.disk.stored.snapshot.clone().unwrap();
        let head = InstallSnapshot {
            term,
            last_index: meta.index,
            last_term: meta.term,
            configuration_index: meta.configuration_index,
            configuration: meta.configuration,
            configuration_bytes: Vec::new(),
            data_bytes: 8,
        };
        let peer = self.leading().peers.get_mut(&to).unwrap();
        peer.mode = Mode::Snapshot { index: meta.index.0, since: now };
        peer.last_send = now;
        let image = self.disk.image;
        self.sent.push((to, Packet::Snapshot(head, image)));
    }

    pub(crate) fn send_failed(&mut self, to: u64) {
        let Role::Leader(lead) = &mut self.role else { return };
        if let Some(peer) = lead.peers.get_mut(&to) {
            peer.mode = Mode::Probe;
            peer.next = peer.next.min(peer.matched + 1).max(1);
        }
    }

    pub(super) fn handle_result(&mut self, from: u64, result: AppendResult) {
        if !self.leads() || result.term.0 < self.term() {
            return;
        }
        if result.term.0 > self.term() {
            self.adopt(result.term.0);
            return;
        }
        let last = self.last();
        let Some(peer) = self.leading().peers.get_mut(&from) else { return };
        peer.heard = true;
        let (rejected, told) = (result.rejected, result.last_index.0);
        if rejected != 0 {
            match peer.mode {
                Mode::Snapshot { index, .. } if index == rejected => peer.mode = Mode::Probe,
                Mode::Pipeline if rejected > peer.matched => {
                    (peer.next, peer.mode) = (peer.matched + 1, Mode::Probe);
                }
                Mode::Probe if rejected + 1 == peer.next => {
                    peer.next = rejected.min(told + 1).max(1).max(peer.matched + 1);
                }
                _ => return,
            }
            self.replicate(from);
            return;
        }
        let index = told.min(last);
        if index <= peer.matched {
            return;
        }
        peer.matched = index;
        peer.next = peer.next.max(index + 1);
        match peer.mode {
            Mode::Probe => peer.mode = Mode::Pipeline,
            Mode::Snapshot { index: sent, .. } if index >= sent => {
                (peer.mode, peer.next) = (Mode::Probe, index + 1);
            }
            _ => {}
        }
        self.promote_if_ready();
        self.count(index);
        if self.leads() {
            self.hand_over();
            self.replicate(from);
        }
    }

    /// Whether `index`, just stored by one more, is stored by enough.
    pub(super) fn count(&mut self, index: u64) {
        let (term, me, persisted) = (self.term(), self.id, self.persisted);
        let Role::Leader(lead) = &self.role else { return };
        let has = |id: u64| match id == me {
            true => persisted >= index,
            false => lead.peers.get(&id).is_some_and(|it| it.matched >= index),
        };
        let voters = &self.in_force.configuration;
        let stored = voters.voters().filter(|it| has(it.id.0)).count();
        if stored > voters.voters().count() / 2 && self.term_at(index) == Some(term) {
            self.commit_to(index);
        }
    }

    pub(super) fn lead_tick(&mut self) {
        let (now, me) = (self.now, self.id);
        let voters: Vec<u64> = self.in_force.configuration.voters().map(|it| it.id.0).collect();
        let lead = self.leading();
        if now >= lead.check_at {
            lead.check_at = now.after(ELECTION);
            let has = |id: &&u64| **id == me || lead.peers.get(id).is_some_and(|it| it.heard);
            let heard = voters.iter().filter(has).count();
            lead.peers.values_mut().for_each(|it| it.heard = false);
            if heard <= voters.len() / 2 {
                return self.follow(0);
            }
        }
        if lead.transfer.is_some_and(|(_, until, _)| now >= until) {
            lead.transfer = None;
        }
        for peer in lead.peers.values_mut() {
            if matches!(peer.mode, Mode::Snapshot { since, .. } if now.since(since) > 10 * ELECTION) {
                peer.mode = Mode::Probe;
            }
        }
        self.replicate_all();
    }
}
