//! Clusters of ours and of servers as the C library makes them, over a hostile network, on disks that lag, run
//! full and forget, with clocks of their own; everything from a seed.
//!
//! `DQLITE_WORLD_SEEDS` sets the number of seeds and `DQLITE_WORLD_FROM` the first; a failure names its seed.
//! `DQLITE_WORLD_DISK_MS` is how long slow disks take for one piece of work at most. What goes to the server whose
//! number is `DQLITE_WORLD_TRACE`, and what comes from it, is printed.

pub(super) mod disk;
mod followers;
mod net;
pub(super) mod ours;
mod planted;
pub(super) mod referee;
mod scenario;
mod steps;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::harness::{Stored, voters};
use super::rival::Rival;
use crate::base::{Index, NodeId, Prng, Time};
use crate::consensus::ReadTicket;
use crate::consensus::planted::Planted;
use disk::{Disk, Machine};
use net::{MS, Net};
use ours::Ours;
use referee::{Referee, Verdict, must};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    /// 1.18: answers in the long form.
    New,
    /// 1.11: in the short form, and for the writes of earlier leaders.
    Old,
}

enum Server {
    Ours(Box<Ours>),
    Rival(Box<Rival>),
    Down(Disk),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival { way: (u64, u64), conn: u64 },
    Disk { id: u64, life: u64 },
    Tick { id: u64, life: u64 },
    Entries { id: u64, life: u64, first: Index, last: Index },
    Start { id: u64 },
    Client,
    Fault,
}

/// A read that waits: what was acknowledged before it, and when it came.
struct Read {
    acknowledged: u64,
    term: u64,
    at: u64,
}

struct Place {
    kind: Kind,
    server: Server,
    life: u64,
    /// Parts per thousand by which its clock runs fast.
    fast: i64,
    /// Until when it stands still.
    stalled: u64,
    disk_busy: bool,
    slow_disk: bool,
    tick_at: u64,
    reads: BTreeMap<ReadTicket, Read>,
    /// When it had left each term, as others can see it.
    left: BTreeMap<u64, u64>,
    term: u64,
}

#[derive(Default)]
struct Done {
    steps: u64,
    reads: u64,
    /// By how much data of a follower was older than it seemed, at most.
    follower_late: u64,
    writes: u64,
    installs: u64,
    leaderships: u64,
    changes: u64,
    fetched: u64,
}

struct World {
    prng: Prng,
    now: u64,
    numbers: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    places: Vec<Place>,
    net: Net,
    referee: Referee,
    planted: Option<Planted>,
    /// The highest index that some leader has acknowledged.
    acknowledged: u64,
    /// When it grew, and to what.
    acknowledgements: Vec<(u64, u64)>,
    calm: bool,
    /// The server of which what it is told and says is printed; 0 is none.
    traced: u64,
    /// While nothing goes wrong: the last entry that went from one server to another.
    sent: Option<BTreeMap<(u64, u64), u64>>,
    scenario: scenario::Scenario,
    done: Done,
}

impl World {
    fn new(seed: u64, planted: Option<Planted>, scenario: scenario::Scenario) -> Self {
        let mut prng = Prng::new(seed);
        let ids: Vec<u64> = (1..=scenario.voters).collect();
        let mut world = Self {
            now: 0,
            numbers: 0,
            events: BinaryHeap::new(),
            places: Vec::new(),
            net: Net::default(),
            referee: Referee::default(),
            planted,
            acknowledged: 1,
            acknowledgements: Vec::new(),
            calm: false,
            traced: 0,
            sent: None,
            done: Done::default(),
            scenario,
            prng: Prng::new(prng.next_u64()),
        };
        let first = Stored::fresh(&voters(&ids));
        world.referee.applied(&first.entries[0]).unwrap();
        for id in 1..=world.scenario.voters + world.scenario.extra {
            let member = id <= world.scenario.voters;
            let disk = Disk::new(if member { first.clone() } else { Stored::default() });
            let kind = world.scenario.kind(&mut prng);
            world.places.push(Place {
                kind,
                server: Server::Down(disk),
                life: 0,
                fast: prng.below(81) as i64 - 40,
                stalled: 0,
                disk_busy: false,
                slow_disk: false,
                tick_at: u64::MAX,
                reads: BTreeMap::new(),
                left: BTreeMap::new(),
                term: 0,
            });
            world.at(0, Event::Start { id });
        }
        world.at(MS, Event::Client);
        world.at(MS, Event::Fault);
        world
    }

    fn place(&mut self, id: u64) -> &mut Place {
        &mut self.places[usize::try_from(id - 1).unwrap()]
    }

    fn count(&self) -> u64 {
        self.places.len() as u64
    }

    fn at(&mut self, when: u64, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((when, self.numbers, event)));
    }

    /// What this server's clock says at a moment.
    fn clock(&self, id: u64, when: u64) -> Time {
        let fast = self.places[usize::try_from(id - 1).unwrap()].fast;
        Time(1_000_000_000 + when * (1000 + fast) as u64)
    }

    /// When this server's clock will say so.
    fn moment(&self, id: u64, time: Time) -> u64 {
        let fast = self.places[usize::try_from(id - 1).unwrap()].fast;
        (time.0.saturating_sub(1_000_000_000)).div_ceil((1000 + fast) as u64)
    }

    /// Events until there were so many, or until a moment.
    fn run(&mut self, steps: u64, until: u64) -> Verdict {
        let end = self.done.steps + steps;
        while self.done.steps < end {
            let Some(Reverse((when, _, event))) = self.events.pop() else { return Ok(()) };
            if when > until {
                self.events.push(Reverse((when, 0, event)));
                self.now = until;
                return Ok(());
            }
            self.now = self.now.max(when);
            self.done.steps += 1;
            self.happen(event).map_err(|text| format!("{text}; at {} ms, {event:?}", self.now / MS))?;
        }
        Ok(())
    }

    fn leaders(&self) -> Vec<u64> {
        let leads = |place: &&Place| match &place.server {
            Server::Ours(it) => it.consensus.is_leader(),
            Server::Rival(it) => it.leads(),
            Server::Down(_) => false,
        };
        (1..).zip(&self.places).filter(|it| leads(&it.1)).map(|it| it.0).collect()
    }

    /// The faults end; what is down comes up; soon all is well.
    fn heal(&mut self) -> Verdict {
        self.calm = true;
        self.net.cuts.clear();
        self.now += 1;
        for id in 1..=self.count() {
            (self.place(id).stalled, self.place(id).slow_disk) = (0, false);
            if matches!(self.place(id).server, Server::Down(_)) {
                self.at(self.now, Event::Start { id });
            }
        }
        self.scenario.client_every = 60 * MS;
        // Work that a slow disk has begun goes on for as long as it takes.
        let begun = self.scenario.slow_disk.saturating_sub(scenario::SLOW_DISK);
        self.run(u64::MAX / 2, self.now + (40_000 + begun) * MS)?;
        // No changes and transfers from here on.
        self.scenario.quiet = true;
        let began = self.now;
        self.run(u64::MAX / 2, began + 20_000 * MS)?;
        let leaders = self.leaders();
        must!(
            leaders.len() == 1,
            "one leader expected when all is well, found {leaders:?}{}",
            self.describe()
        );
        let before = self.referee.last();
        self.run(u64::MAX / 2, self.now + 5_000 * MS)?;
        must!(self.referee.last() > before, "nothing is committed although all is well{}", self.describe());
        self.sent = Some(BTreeMap::new());
        self.run(u64::MAX / 2, self.now + 5_000 * MS)?;
        self.scenario.over = true;
        self.run(u64::MAX / 2, self.now + 5_000 * MS)?;
        self.compare()
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for (id, place) in (1..).zip(&self.places) {
            let (term, leader, last, commit, servers) = match &place.server {
                Server::Ours(it) => (
                    it.consensus.term().0,
                    it.consensus.leader().map_or(0, |it| it.0),
                    it.consensus.last_index().0,
                    it.consensus.commit_index().0,
                    it.consensus.configuration().clone(),
                ),
                Server::Rival(it) => {
                    (it.term(), it.leader, it.last(), it.commit, it.in_force.configuration.clone())
                }
                Server::Down(_) => continue,
            };
            let roles: Vec<String> =
                servers.servers.iter().map(|it| format!("{}:{:?}", it.id, it.role)).collect();
            text += &format!(
                "\n  {id} {:?} term {term} leader {leader} last {last} commit {commit} jobs {} {roles:?}",
                place.kind,
                place.server.disk().jobs.len(),
            );
            if let Server::Ours(it) = &place.server
                && it.consensus.is_leader()
                && let (Some(raw), Some(leadership)) = (&it.consensus.raw, &it.consensus.leadership)
            {
                for (peer, progress) in raw.raft.prs().iter() {
                    text += &format!("\n    {peer} {progress:?} {:?}", leadership.known_peer(NodeId(*peer)));
                }
            }
            if let Server::Rival(it) = &place.server {
                text += &format!(
                    "\n  {id} N {:?} {:?}",
                    it.role,
                    it.disk.stored.snapshot.as_ref().map(|s| s.index)
                );
            }
        }
        text
    }

    fn compare(&self) -> Verdict {
        let (_, members) = self.referee.configuration_at(self.referee.last());
        for (id, place) in (1..).zip(&self.places) {
            let (machine, owed) = match &place.server {
                Server::Ours(it) => {
                    let owed = it.writes.len() + it.promotions.len() + it.transfers;
                    (it.machine, owed + place.reads.len())
                }
                Server::Rival(it) => (it.machine, 0),
                Server::Down(_) => return Err(format!("server {id} is still down")),
            };
            must!(owed == 0, "server {id} owes {owed} answers");
            let role = members.get(NodeId(id)).map(|it| it.role);
            if matches!(role, Some(crate::base::Role::Voter | crate::base::Role::StandBy)) {
                let last = self.referee.last();
                must!(
                    machine.index.0 == last,
                    "server {id} has applied {}, others {last}{}",
                    machine.index,
                    self.describe()
                );
            }
        }
        Ok(())
    }
}

impl Server {
    fn disk(&self) -> &Disk {
        match self {
            Self::Ours(it) => &it.disk,
            Self::Rival(it) => &it.disk,
            Self::Down(it) => it,
        }
    }

    fn machine(&self) -> Option<Machine> {
        match self {
            Self::Ours(it) => Some(it.machine),
            Self::Rival(it) => Some(it.machine),
            Self::Down(_) => None,
        }
    }
}
