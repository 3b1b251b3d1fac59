//! One event, and what it leads to.

use std::io::Write;

use super::disk::{Job, Packet};
use super::net::{Broken, MS};
use super::referee::{Verdict, must};
use super::{Event, Kind, Ours, Read, Rival, Server, World};
use crate::base::{Index, NodeId, Time};
use crate::codec::membership::Configuration;
use crate::codec::peer::Message;

impl World {
    pub(super) fn happen(&mut self, event: Event) -> Verdict {
        let id = match event {
            Event::Arrival { way, .. } => way.1,
            Event::Disk { id, life } | Event::Tick { id, life } | Event::Entries { id, life, .. } => {
                if self.place(id).life != life {
                    return Ok(());
                }
                id
            }
            Event::Start { id } => {
                self.start(id);
                return self.settle(id);
            }
            Event::Client => return self.client(),
            Event::Fault => return self.fault(),
        };
        let stalled = self.place(id).stalled;
        if stalled > self.now {
            let later = stalled + self.prng.below(5 * MS);
            self.at(later, event);
            return Ok(());
        }
        let now = self.clock(id, self.now);
        match &mut self.place(id).server {
            Server::Ours(it) => it.now = now,
            Server::Rival(it) => it.now = now,
            Server::Down(_) => {}
        }
        match event {
            Event::Arrival { way, conn } => self.arrive(way, conn)?,
            Event::Disk { .. } => {
                let place = self.place(id);
                place.disk_busy = false;
                match &mut place.server {
                    Server::Ours(it) => it.disk_done(),
                    Server::Rival(it) => it.disk_done(),
                    Server::Down(_) => {}
                }
                let disk = self.places[usize::try_from(id - 1).unwrap()].server.disk();
                self.referee.stored(disk)?;
            }
            Event::Tick { .. } => {
                let place = self.place(id);
                place.tick_at = u64::MAX;
                match &mut place.server {
                    Server::Ours(it) => it.consensus.handle_time(now),
                    Server::Rival(it) => it.tick(),
                    Server::Down(_) => {}
                }
            }
            Event::Entries { first, last, .. } => {
                if let Server::Ours(it) = &mut self.place(id).server {
                    let found = it.entries(first, last);
                    it.consensus.handle_entries_read(first, found);
                    self.done.fetched += 1;
                }
            }
            Event::Start { .. } | Event::Client | Event::Fault => {}
        }
        self.settle(id)
    }

    fn start(&mut self, id: u64) {
        let (seed, planted, now) = (self.prng.next_u64(), self.planted, self.clock(id, self.now));
        let place = self.place(id);
        let Server::Down(disk) = &mut place.server else { return };
        let disk = std::mem::take(disk);
        place.life += 1;
        (place.disk_busy, place.tick_at, place.stalled) = (false, u64::MAX, 0);
        place.server = match place.kind {
            Kind::Ours => Server::Ours(Box::new(Ours::start(id, seed, disk, planted, now))),
            kind => Server::Rival(Box::new(Rival::start(id, kind == Kind::Old, disk, seed, now))),
        };
    }

    /// The power of a server fails, or its process is killed.
    pub(super) fn kill(&mut self, id: u64) {
        let mut prng = self.prng.clone();
        let place = self.place(id);
        let disk = match &mut place.server {
            Server::Ours(it) => std::mem::take(&mut it.disk),
            Server::Rival(it) => std::mem::take(&mut it.disk),
            Server::Down(_) => return,
        };
        place.server = Server::Down(disk.crash(&mut prng));
        place.life += 1;
        place.reads.clear();
        self.prng = prng;
        for other in (1..=self.count()).filter(|other| *other != id) {
            self.reconnect((id, other));
            self.reconnect((other, id));
        }
        let back = self.now + self.prng.below(self.scenario.away);
        self.at(back, Event::Start { id });
    }

    /// The connection from one server to another breaks.
    pub(super) fn reconnect(&mut self, way: (u64, u64)) {
        let doubles = self.place(way.0).kind != Kind::Old && self.place(way.1).kind != Kind::Old;
        let broken = self.net.break_up(way, self.now, doubles, &mut self.prng);
        let Some(Broken { arrivals, lost_snapshot, again }) = broken else { return };
        for (due, conn) in arrivals {
            self.at(due, Event::Arrival { way, conn });
        }
        let noticed = lost_snapshot || self.prng.below(4) > 0;
        match &mut self.place(way.0).server {
            Server::Ours(it) if lost_snapshot => {
                it.consensus.handle_snapshot_sent(NodeId(way.1), Err("connection lost".to_owned()));
            }
            Server::Ours(it) if noticed => {
                if it.consensus.raw.as_ref().is_some_and(|raw| raw.raft.prs().get(way.1).is_some()) {
                    it.consensus.handle_send_failed(NodeId(way.1));
                }
            }
            Server::Rival(it) if noticed => it.send_failed(way.1),
            Server::Ours(_) | Server::Rival(_) | Server::Down(_) => {}
        }
        again.into_iter().for_each(|packet| self.post(way, packet));
    }

    /// For who looks into a failure.
    fn trace(&self, what: &str, way: (u64, u64), packet: &Packet) {
        if way.0 == self.traced || way.1 == self.traced {
            let text = format!("{packet:?}");
            let told = writeln!(
                std::io::stdout(),
                "{} ms: {} to {} {what}: {text:.300}",
                self.now / MS,
                way.0,
                way.1
            );
            told.unwrap();
        }
    }

    fn post(&mut self, way: (u64, u64), packet: Packet) {
        self.trace("sent", way, &packet);
        let (now, calm) = (self.now, self.calm);
        for (due, conn) in self.net.send(way, packet, now, calm, &mut self.prng) {
            self.at(due, Event::Arrival { way, conn });
        }
    }

    fn arrive(&mut self, way: (u64, u64), conn: u64) -> Verdict {
        let Some((packet, first)) = self.net.arrive(way, conn, self.now) else { return Ok(()) };
        self.trace("arrives", way, &packet);
        let (from, id) = way;
        let sent = matches!(packet, Packet::Data);
        if matches!(self.place(id).server, Server::Down(_)) {
            // On a connection that broke before, this is no loss that `reconnect` could see.
            if sent && let Server::Ours(it) = &mut self.place(from).server {
                it.consensus.handle_snapshot_sent(NodeId(id), Err("connection refused".to_owned()));
            }
            self.reconnect(way);
            return self.settle(from);
        }
        match &mut self.place(id).server {
            Server::Ours(it) => {
                if first {
                    it.consensus.handle_peer_connected(NodeId(from));
                }
                match packet {
                    Packet::Message(message) => it.receive(from, message),
                    Packet::Snapshot(head, image) => it.receive_head(from, conn, head, image),
                    Packet::Data => it.receive_data(from, conn),
                    Packet::End => it.break_off(from, conn),
                }
            }
            Server::Rival(it) => match packet {
                Packet::Message(message) => it.receive(from, message),
                Packet::Snapshot(head, image) => drop(it.heads.insert((from, conn), (head, image))),
                Packet::Data => {
                    if let Some((head, image)) = it.heads.remove(&(from, conn)) {
                        it.receive_snapshot(from, &head, image);
                    }
                }
                Packet::End => drop(it.heads.remove(&(from, conn))),
            },
            Server::Down(_) => {}
        }
        if sent && let Server::Ours(it) = &mut self.place(from).server {
            it.consensus.handle_snapshot_sent(NodeId(id), Ok(()));
        }
        Ok(())
    }

    /// Takes what a server wants done, and looks whether all is as it must be.
    pub(super) fn settle(&mut self, id: u64) -> Verdict {
        let (threshold, trailing) = (self.scenario.threshold, self.scenario.trailing);
        let mut installed = false;
        let mut wanted = Vec::new();
        let (sent, applied) = match &mut self.place(id).server {
            Server::Ours(it) => {
                it.poll();
                it.consider_snapshot(threshold, trailing);
                installed = std::mem::take(&mut it.installed);
                wanted = std::mem::take(&mut it.wanted);
                (std::mem::take(&mut it.sent), std::mem::take(&mut it.applied))
            }
            Server::Rival(it) => {
                it.consider_snapshot(threshold, trailing);
                (std::mem::take(&mut it.sent), std::mem::take(&mut it.applied))
            }
            Server::Down(_) => return Ok(()),
        };
        self.done.installs += u64::from(installed);
        for entry in &applied {
            self.referee.applied(entry).map_err(|text| format!("server {id}: {text}"))?;
        }
        self.check(id).map_err(|text| format!("server {id}: {text}"))?;
        for (to, packet) in sent {
            self.dispatch(id, to, packet).map_err(|text| format!("server {id} to {to}: {text}"))?;
        }
        let life = self.place(id).life;
        for (first, last) in wanted {
            let due = self.now + self.prng.below(50 * MS);
            self.at(due, Event::Entries { id, life, first, last });
        }
        self.schedule(id);
        Ok(())
    }

    fn dispatch(&mut self, id: u64, to: u64, packet: Packet) -> Verdict {
        let place = &self.places[usize::try_from(id - 1).unwrap()];
        let (ours, disk) = (place.kind == Kind::Ours, place.server.disk());
        let message = match &packet {
            Packet::Message(message) => message.clone(),
            Packet::Snapshot(head, image) => {
                self.referee.state(head.last_index, *image)?;
                let known = self.referee.configuration_at(head.last_index.0);
                let right = (head.configuration_index.0, &head.configuration) == (known.0, &known.1);
                must!(right, "a snapshot at {} with another configuration than {known:?}", head.last_index);
                Message::InstallSnapshot(head.clone())
            }
            Packet::Data | Packet::End => return Ok(()),
        };
        self.referee.says(id, ours, to, &message, disk)?;
        if let (Some(sent), Message::AppendEntries(it)) = (&mut self.sent, &message)
            && let (Some(first), Some(last)) = (it.entries.first(), it.entries.last())
        {
            let before = sent.insert((id, to), last.index.0).unwrap_or(0);
            must!(first.index.0 > before, "entry {} sent again, although nothing was refused", first.index);
        }
        if to <= self.count() && to != id {
            // What an old library reports of other leaders' writes, leaders of its own kind believe: not ours to find.
            self.post((id, to), packet);
        }
        Ok(())
    }

    fn schedule(&mut self, id: u64) {
        let place = self.place(id);
        let (life, slow) = (place.life, place.slow_disk);
        let (jobs, tick) = match &place.server {
            Server::Ours(it) => (it.disk.jobs.front(), it.consensus.poll_timeout()),
            Server::Rival(it) => (it.disk.jobs.front(), Some(it.next_tick())),
            Server::Down(_) => return,
        };
        let rival = matches!(place.server, Server::Rival(_));
        let mut due = None;
        if let Some(job) = jobs.filter(|_| !place.disk_busy) {
            let large = !matches!(job, Job::Write(..));
            place.disk_busy = true;
            due = Some(match (large, slow) {
                (false, false) => 4,
                (true, false) => 400,
                (_, true) => self.scenario.slow_disk,
            });
        }
        if let Some(most) = due {
            let when = self.now + MS / 2 + self.prng.below(most * MS);
            self.at(when, Event::Disk { id, life });
        }
        if let Some(tick) = tick {
            let when = self.moment(id, tick).max(self.now + 1);
            let place = self.place(id);
            if if rival { place.tick_at == u64::MAX } else { when < place.tick_at } {
                place.tick_at = when;
                self.at(when, Event::Tick { id, life });
            }
        }
    }

    fn check(&mut self, id: u64) -> Verdict {
        let place = &self.places[usize::try_from(id - 1).unwrap()];
        let (term, leads, commit) = match &place.server {
            Server::Ours(it) => {
                if let Some(text) = it.consensus.unavailable() {
                    must!(text == "the log could not be written", "unavailable: {text}");
                    self.kill(id);
                    return Ok(());
                }
                let raft = &it.consensus.raw.as_ref().unwrap().raft;
                (raft.term, raft.state == raft::StateRole::Leader, it.consensus.commit_index().0)
            }
            Server::Rival(it) => (it.term(), it.leads(), it.commit),
            Server::Down(_) => return Ok(()),
        };
        if let Some(machine) = place.server.machine() {
            self.referee.state(machine.index, machine.sum)?;
        }
        self.check_configuration(id)?;
        self.check_tail(id)?;
        if leads {
            self.check_leader(id, term, commit)?;
        }
        let now = self.now;
        let place = self.place(id);
        for left in place.term..term {
            place.left.insert(left, now);
        }
        place.term = term;
        self.check_follower(id)?;
        self.check_reads(id)
    }

    fn check_leader(&mut self, id: u64, term: u64, commit: u64) -> Verdict {
        if self.referee.leads(id, term)? {
            self.done.leaderships += 1;
            let last = self.referee.last();
            let place = &self.places[usize::try_from(id - 1).unwrap()];
            let covered = place.server.disk().stored.snapshot.as_ref().map_or(0, |it| it.index.0);
            let has = match &place.server {
                Server::Ours(it) => it.consensus.term_at(Index(last)).map(|it| it.0),
                Server::Rival(it) => it.term_at(last),
                Server::Down(_) => None,
            };
            let complete = covered >= last || has == self.referee.committed_term(last);
            must!(complete, "leads term {term} without the committed entry {last}");
        }
        let place = &self.places[usize::try_from(id - 1).unwrap()];
        let (configurations, commit_term): (Vec<Configuration>, _) = match &place.server {
            Server::Ours(it) => {
                let committed = it.consensus.membership.committed().configuration.clone();
                let all = vec![it.consensus.configuration().clone(), committed];
                (all, it.consensus.term_at(Index(commit)).map(|it| it.0))
            }
            Server::Rival(it) => {
                let all = vec![it.in_force.configuration.clone(), it.committed.configuration.clone()];
                (all, it.term_at(commit))
            }
            Server::Down(_) => return Ok(()),
        };
        if let Some(commit_term) = commit_term {
            let has = |voter: NodeId| {
                let place = self.places.get(usize::try_from(voter.0 - 1).unwrap());
                place.is_some_and(|it| it.server.disk().has(Index(commit), commit_term))
            };
            let enough = |it: &Configuration| {
                let stored = it.voters().filter(|voter| has(voter.id)).count();
                stored > it.voters().count() / 2
            };
            must!(configurations.iter().any(enough), "{commit} committed, and no majority has it durably");
        }
        let place = &self.places[usize::try_from(id - 1).unwrap()];
        if let Some(machine) = place.server.machine() {
            let index = machine.index.0;
            self.acknowledge(index);
        }
        Ok(())
    }

    /// The configuration in force is the newest in the log.
    fn check_configuration(&mut self, id: u64) -> Verdict {
        let place = &self.places[usize::try_from(id - 1).unwrap()];
        let Server::Ours(it) = &place.server else { return Ok(()) };
        let in_force = it.consensus.membership.in_force();
        let newest = it.disk.stored.entries.iter().rev().find(|it| it.kind == crate::base::EntryKind::Change);
        let Some(newest) = newest.filter(|_| it.disk.jobs.is_empty()) else { return Ok(()) };
        let held = it.consensus.term_at(newest.index) == Some(newest.term);
        must!(
            !held || in_force.index >= newest.index,
            "the configuration of entry {} is durable, that of {} in force",
            newest.index,
            in_force.index
        );
        Ok(())
    }

    /// What a peer needs after the snapshot that it installs is there.
    fn check_tail(&mut self, id: u64) -> Verdict {
        let place = &self.places[usize::try_from(id - 1).unwrap()];
        let Server::Ours(it) = &place.server else { return Ok(()) };
        let Some(raw) = it.consensus.raw.as_ref().filter(|raw| raw.raft.state == raft::StateRole::Leader)
        else {
            return Ok(());
        };
        for (peer, progress) in raw.raft.prs().iter() {
            if progress.state == raft::ProgressState::Snapshot {
                let needed = progress.pending_snapshot + 1;
                let first = it.disk.stored.entries.first().map_or(needed, |it| it.index.0);
                let known = it.consensus.first_index().0;
                must!(first <= needed && known <= needed, "{peer} needs {needed}, the log begins at {first}");
            }
        }
        Ok(())
    }

    fn check_reads(&mut self, id: u64) -> Verdict {
        let now = self.now;
        let place = self.place(id);
        let Server::Ours(it) = &mut place.server else { return Ok(()) };
        let (lost, ready) = (std::mem::take(&mut it.lost_leadership), std::mem::take(&mut it.ready));
        let applied = it.machine.index.0;
        let voters: Vec<u64> = it.consensus.configuration().voters().map(|it| it.id.0).collect();
        let Some(up_to) = ready.into_iter().max() else {
            if lost {
                place.reads.clear();
            }
            return Ok(());
        };
        let later = place.reads.split_off(&crate::consensus::ReadTicket(up_to.0 + 1));
        let answered = std::mem::replace(&mut place.reads, later);
        if lost {
            place.reads.clear();
        }
        for read in answered.into_values() {
            self.done.reads += 1;
            must!(
                applied >= read.acknowledged,
                "a stale read: {applied}, {} acknowledged",
                read.acknowledged
            );
            must!(
                self.sent.is_none() || now - read.at < 1400 * MS,
                "a read took {} ms",
                (now - read.at) / MS
            );
            let followed = |voter: &&u64| {
                let left = self.places[usize::try_from(**voter - 1).unwrap()].left.range(read.term..).next();
                left.is_none_or(|left| *left.1 >= read.at)
            };
            let followers = voters.iter().filter(followed).count();
            must!(followers > voters.len() / 2, "a read of term {}, which a majority had left", read.term);
        }
        Ok(())
    }

    pub(super) fn read(&mut self, id: u64) -> Verdict {
        let (acknowledged, at, now) = (self.acknowledged, self.now, self.clock(id, self.now));
        let place = self.place(id);
        let Server::Ours(it) = &mut place.server else { return Ok(()) };
        it.now = now;
        if let Ok(Some(ticket)) = it.consensus.request_read(Time(now.0)) {
            let term = it.consensus.term().0;
            place.reads.insert(ticket, Read { acknowledged, term, at });
        }
        self.settle(id)
    }
}
