//! What clients ask, what operators change, and what goes wrong.

use super::net::MS;
use super::referee::Verdict;
use super::{Event, Kind, Server, World};
use crate::base::{NodeId, Prng, Role};
use crate::codec::membership::Configuration;
use crate::consensus::Change;
use crate::consensus::membership::{self, is_voter};
use crate::consensus::tests::harness::bytes;

/// What slow disks take unless a run says otherwise.
pub(super) const SLOW_DISK: u64 = 1500;

/// How much of what happens in a run.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) voters: u64,
    /// Servers that are no members at the beginning.
    pub(super) extra: u64,
    pub(super) kinds: Vec<Kind>,
    pub(super) threshold: u64,
    pub(super) trailing: u64,
    /// How long servers stay away at most.
    pub(super) away: u64,
    /// How long a slow disk takes at most for one piece of work, in ms.
    pub(super) slow_disk: u64,
    /// Time between faults and between requests.
    pub(super) fault_every: u64,
    pub(super) client_every: u64,
    /// Weights: break a connection, cut, stall, kill, slow disk, failing disk.
    pub(super) faults: [u64; 6],
    /// Of 100 requests so many are reads, changes of members, transfers; the others write.
    pub(super) reads: u64,
    pub(super) changes: u64,
    pub(super) transfers: u64,
    /// Nothing but reads and writes.
    pub(super) quiet: bool,
    /// Nothing at all.
    pub(super) over: bool,
}

impl Scenario {
    /// The scenario of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut prng = Prng::new(!seed);
        let kinds = match seed % 4 {
            0 => vec![Kind::Ours],
            1 => vec![Kind::Ours, Kind::New],
            2 => vec![Kind::Ours, Kind::Old],
            _ => vec![Kind::Ours, Kind::New, Kind::Old],
        };
        let mut faults = [0; 6];
        faults.iter_mut().for_each(|weight| *weight = prng.below(4) * prng.below(4));
        faults[0] += 2;
        Self {
            voters: if prng.below(3) == 0 { 5 } else { 3 },
            extra: prng.below(3),
            kinds,
            threshold: 10 + prng.below(60),
            trailing: prng.below(40),
            away: (1 + prng.below(20)) * 1000 * MS,
            slow_disk: SLOW_DISK,
            fault_every: (200 + prng.below(6000)) * MS,
            client_every: (4 + prng.below(100)) * MS,
            faults,
            reads: prng.below(50),
            changes: prng.below(3) * prng.below(3),
            transfers: prng.below(3),
            quiet: false,
            over: false,
        }
    }

    pub(super) fn kind(&self, prng: &mut Prng) -> Kind {
        self.kinds[usize::try_from(prng.below(self.kinds.len() as u64)).unwrap()]
    }
}

impl World {
    fn any(&mut self) -> u64 {
        self.prng.below(self.count()) + 1
    }

    pub(super) fn client(&mut self) -> Verdict {
        let next = self.now + 1 + self.prng.below(2 * self.scenario.client_every);
        self.at(next, Event::Client);
        if self.scenario.over {
            return Ok(());
        }
        let leaders = self.leaders();
        let lucky = self.prng.below(20) > 0 && !leaders.is_empty();
        let place = self.prng.below(leaders.len() as u64);
        let id = if lucky { leaders[usize::try_from(place).unwrap()] } else { self.any() };
        if self.place(id).stalled > self.now {
            return Ok(());
        }
        let now = self.clock(id, self.now);
        match &mut self.place(id).server {
            Server::Ours(it) => it.now = it.now.max(now),
            Server::Rival(it) => it.now = it.now.max(now),
            Server::Down(_) => return Ok(()),
        }
        let Scenario { reads, changes, transfers, quiet, .. } = self.scenario;
        let what = self.prng.below(100);
        if what < reads {
            return self.read(id);
        }
        if what < reads + changes && !quiet {
            self.change(id);
        } else if what < reads + changes + transfers && !quiet {
            let to = self.any();
            match &mut self.place(id).server {
                Server::Ours(it) => it.transfer(to),
                Server::Rival(it) if it.leads() => it.transfer(to),
                Server::Rival(_) | Server::Down(_) => {}
            }
        } else {
            self.done.writes += 1;
            let payload = bytes(self.done.writes);
            match &mut self.place(id).server {
                Server::Ours(it) => it.propose(payload),
                Server::Rival(it) => drop(it.propose(payload)),
                Server::Down(_) => {}
            }
        }
        self.settle(id)
    }

    /// A change of members, by which two voters stay: a single one of the C library leads without a new term.
    fn change(&mut self, id: u64) {
        let other = self.any();
        let change = match self.prng.below(6) {
            0 => Change::Remove { id: NodeId(other) },
            1 => Change::Add { id: NodeId(other), address: format!("node-{other}") },
            2 | 3 => Change::Assign { id: NodeId(other), role: Role::Voter },
            4 => Change::Assign { id: NodeId(other), role: Role::StandBy },
            _ => Change::Assign { id: NodeId(other), role: Role::Spare },
        };
        let next = |current: &Configuration| match &change {
            Change::Add { id, address } => membership::add(current, *id, address),
            Change::Assign { id, role } => membership::assign(current, *id, *role),
            Change::Remove { id } => membership::remove(current, *id),
        };
        let done = match &mut self.place(id).server {
            Server::Ours(it) => match next(it.consensus.configuration()) {
                Ok(after) if after.voters().count() >= 2 => {
                    it.change(&change);
                    true
                }
                _ => false,
            },
            Server::Rival(it) if it.may_change() => match next(&it.in_force.configuration) {
                Ok(after) if after.voters().count() >= 2 => {
                    let promotes = is_voter(&after, NodeId(other)) && other != id;
                    if promotes {
                        it.promote(other)
                    } else {
                        it.change(&after)
                    }
                    true
                }
                _ => false,
            },
            Server::Rival(_) | Server::Down(_) => false,
        };
        self.done.changes += u64::from(done);
    }

    pub(super) fn fault(&mut self) -> Verdict {
        if self.calm {
            return Ok(());
        }
        let next = self.now + 1 + self.prng.below(2 * self.scenario.fault_every);
        self.at(next, Event::Fault);
        let (id, other) = (self.any(), self.any());
        let total: u64 = self.scenario.faults.iter().sum();
        let mut which = self.prng.below(total);
        let place = self.scenario.faults.iter().position(|weight| {
            let here = which < *weight;
            which = which.saturating_sub(*weight);
            here
        });
        let while_long = self.now + self.prng.below(12_000 * MS);
        match place {
            Some(0) if id != other => {
                self.reconnect((id, other));
                return self.settle(id);
            }
            Some(1) => self.cut(id, other, while_long),
            Some(2) => self.place(id).stalled = while_long,
            Some(3) => self.kill(id),
            Some(4) => {
                let slow = self.place(id).slow_disk;
                self.place(id).slow_disk = !slow;
            }
            Some(5) => {
                let no_space = self.prng.below(3) > 0;
                let place = self.place(id);
                match &mut place.server {
                    Server::Ours(it) => {
                        it.run_full(no_space);
                        place.disk_busy &= !it.disk.jobs.is_empty();
                    }
                    Server::Rival(it) => {
                        it.disk_failed();
                        place.disk_busy &= !it.disk.jobs.is_empty();
                    }
                    Server::Down(_) => {}
                }
                return self.settle(id);
            }
            _ => {}
        }
        Ok(())
    }

    /// One way, or a server from all others.
    fn cut(&mut self, id: u64, other: u64, until: u64) {
        let alone = self.prng.below(2) == 0;
        for peer in (1..=self.count()).filter(|peer| *peer != id) {
            if alone || peer == other {
                self.net.cuts.insert((id, peer), until);
                if alone {
                    self.net.cuts.insert((peer, id), until);
                }
            }
        }
    }
}
