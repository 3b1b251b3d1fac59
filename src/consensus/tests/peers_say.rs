//! One server among peers that say anything they may say at all: messages of every type, from members and from
//! strangers, with terms and indexes around the values where something changes, in any order, mixed with time, clients,
//! operators and a disk that is late, full, failing or dead. Everything comes from a seed.
//!
//! What such peers tell contradicts itself. The server may refuse that, and nothing more: it never becomes
//! unavailable unless its disk failed, what it holds for committed stays, it acknowledges only what it has durably,
//! and at the end it follows a leader that has all of its committed entries.
//!
//! `DQLITE_PEERS_STEPS` is the number of steps, `DQLITE_PEERS_FROM` the first seed; a failure names its seed.
//! `DQLITE_PEERS_TRACE` has every message printed.

mod check;
mod make;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::harness::{Stored, append, bytes};
use super::world::disk::{Disk, Job, Packet};
use super::world::ours::Ours;
use super::world::referee::{Verdict, must};
use crate::base::{Entry, EntryKind, Index, NodeId, Prng, Role, Term, Time};
use crate::codec::peer::Message;
use crate::consensus::adapter::panic_text;
use crate::consensus::inbound::{LABELS_FROM, TERMS_FROM};
use crate::consensus::planted::Planted;
use crate::consensus::{Change, Refused};
use check::Known;
use make::{Near, answer, configuration, sender};

/// Steps of one seed.
const STEPS: u64 = 2000;

#[derive(Default)]
struct Done {
    steps: u64,
    leaderships: u64,
    committed: u64,
    installs: u64,
    contradictions: u64,
    failures: u64,
    starts: u64,
    reads: u64,
}

struct Storm {
    prng: Prng,
    /// Of a hundred messages so many are what nobody asked for.
    wild: u64,
    server: Ours,
    now: Time,
    numbers: u64,
    /// What this server has made while it led: nobody has other entries of these names.
    own: BTreeMap<(u64, u64), Entry>,
    /// What it said and nobody has answered.
    unanswered: VecDeque<(u64, Message)>,
    label: u64,
    traced: bool,
    known: Known,
    done: Done,
}

impl Storm {
    fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut prng = Prng::new(seed);
        let servers = configuration(&mut prng);
        let stored = match prng.below(6) {
            0 => Stored::default(),
            _ => Stored::fresh(&servers),
        };
        let now = Time(1_000_000_000);
        let server = Ours::start(1, prng.next_u64(), Disk::new(stored), planted, now);
        let wild = [3, 20, 50, 90][usize::try_from(prng.below(4)).unwrap()];
        let mut storm = Self {
            prng,
            wild,
            server,
            now,
            numbers: 0,
            own: BTreeMap::new(),
            unanswered: VecDeque::new(),
            label: LABELS_FROM,
            traced: std::env::var_os("DQLITE_PEERS_TRACE").is_some(),
            known: Known::default(),
            done: Done::default(),
        };
        storm.known.handle_start(&storm.server);
        storm
    }

    fn near(&self) -> Near {
        Near::of(&self.server.consensus, self.label)
    }

    /// For who looks into a failure.
    fn trace(&self, way: &str, peer: u64, message: &Message) {
        if self.traced {
            let raft = &self.server.consensus.raw.as_ref().unwrap().raft;
            let (term, role, log) = (raft.term, raft.state, &raft.raft_log);
            let text = format!("term {term} {role:?} commit {} last {}", log.committed, log.last_index());
            writeln!(std::io::stdout(), "{text}: {way} {peer}: {:.400}", format!("{message:?}")).unwrap();
        }
    }

    /// A peer says something.
    fn tell(&mut self, from: u64, message: Message) {
        self.trace("from", from, &message);
        if let Message::AppendEntries(it) = &message {
            self.done.contradictions += u64::from(self.known.contradicts(from, it, &self.server));
            self.known.note_said(from, it);
        }
        self.server.receive(from, message);
    }

    fn step(&mut self) -> Verdict {
        match self.prng.below(100) {
            0..=44 if self.prng.below(100) < self.wild => {
                let from = sender(&mut self.prng);
                let (near, own) = (self.near(), &self.own);
                let message =
                    near.message(&mut self.prng, from, &|term, index| own.get(&(term, index)).cloned());
                self.tell(from, message);
            }
            0..=49 => {
                let place = self.prng.below(self.unanswered.len().min(6) as u64);
                let taken = self.unanswered.remove(usize::try_from(place).unwrap());
                if let Some((from, said)) = taken
                    && let Some(message) = answer(&mut self.prng, &said)
                {
                    self.tell(from, message);
                }
            }
            50..=69 => self.disk(),
            70..=77 => {
                let most = if self.prng.below(10) == 0 { 7000 } else { 700 };
                self.now = self.now.after(Duration::from_millis(self.prng.below(most)));
                self.server.now = self.now;
                self.server.consensus.handle_time(self.now);
            }
            78..=86 => (0..=self.prng.below(3)).for_each(|_| self.propose()),
            87..=89 => {
                let asked = self.server.consensus.request_read(self.now);
                self.done.reads += u64::from(asked.is_ok());
            }
            90 => self.change(),
            91 => {
                let to = self.prng.below(6);
                self.server.transfer(to);
            }
            92..=93 => self.snapshot(),
            94 => {
                let (threshold, trailing) = (self.prng.below(30), self.prng.below(20));
                self.server.consider_snapshot(threshold.max(1), trailing);
            }
            95 => self.read_entries(),
            96 => self.notice(),
            97 => self.fill()?,
            98 => self.fail(),
            _ => self.bogus(),
        }
        self.settle()
    }

    fn propose(&mut self) {
        self.numbers += 1;
        let payload = bytes(self.numbers);
        match self.server.consensus.propose(EntryKind::Command, payload.clone()) {
            Ok((index, term)) => {
                let entry = Entry { index, term, kind: EntryKind::Command, payload };
                assert_eq!(self.own.insert((term.0, index.0), entry), None, "one name for two entries");
                self.server.writes.insert(index, term);
            }
            Err(Refused::Unavailable | Refused::ChangePending) => panic!("a proposal refused for no reason"),
            Err(Refused::NotLeader | Refused::OutOfSpace) => {}
        }
    }

    /// The disk does the oldest work, or two pieces that it reports together.
    fn disk(&mut self) {
        if self.server.hear_disk() {
            return;
        }
        let together = self.prng.below(5) == 0;
        let disk = &mut self.server.disk;
        if let Some(Job::Install { meta, .. }) = disk.jobs.front()
            && self.prng.below(4) == 0
        {
            // There was no room for it. What contradicts it may be gone by then.
            let held = self.server.consensus.term_at(meta.index);
            let cut = held.is_some_and(|held| held != meta.term) && self.prng.below(3) > 0;
            let next = if cut { meta.index } else { self.server.consensus.last_index().next() };
            disk.jobs.pop_front();
            self.server.disk.stored.entries.retain(|entry| entry.index < next);
            self.server.fail_install(next);
            return;
        }
        if let (Some(Job::Write(..)), Some(Job::Write(second, _))) = (disk.jobs.front(), disk.jobs.get(1))
            && together
        {
            // As the disk thread does it: it reports before it truncates or stores a vote.
            if second.truncate_from.is_some() || second.metadata.is_some() {
                self.server.disk_done_unheard();
                self.server.disk_done_unheard();
                return;
            }
            self.server.disk_done_silently();
        }
        self.server.disk_done();
    }

    /// There is no room for what is queued. That alone is lost, and nothing that is applied.
    fn fill(&mut self) -> Verdict {
        let first = self.server.disk.jobs.iter().filter_map(|job| match job {
            Job::Write(work, _) => work.truncate_from.or(work.entries.first().map(|entry| entry.index)),
            _ => None,
        });
        let kept = first.min().map_or(self.server.consensus.last_index(), Index::prev);
        let commit = self.server.consensus.commit_index();
        while self.server.hear_disk() {}
        self.server.run_full(true);
        if self.server.consensus.unavailable().is_none() {
            let now = self.server.consensus.commit_index();
            must!(now >= commit.min(kept), "{commit} was committed and {kept} kept, now {now} is committed");
            let (applied, last) = (self.server.consensus.applied_index(), self.server.consensus.last_index());
            must!(
                applied <= now && last >= kept,
                "{applied} applied, {now} committed, {kept} to be kept of {last}"
            );
            self.known.handle_lost(&self.server);
        }
        Ok(())
    }

    fn change(&mut self) {
        let id = NodeId(1 + self.prng.below(6));
        let role = [Role::Voter, Role::StandBy, Role::Spare][usize::try_from(self.prng.below(3)).unwrap()];
        let change = match self.prng.below(4) {
            0 => Change::Add { id, address: format!("node-{id}") },
            1 => Change::Remove { id },
            _ => Change::Assign { id, role },
        };
        self.server.change(&change);
    }

    fn snapshot(&mut self) {
        let from = 2 + self.prng.below(3);
        match self.prng.below(5) {
            0..=1 => {
                let head = self.near().snapshot(&mut self.prng);
                self.trace("from", from, &Message::InstallSnapshot(head.clone()));
                self.known.note_head(from, &head);
                self.server.receive_head(from, 0, head, 7);
            }
            2..=3 => self.server.receive_data(from, 0),
            _ => self.server.break_off(from, 0),
        }
    }

    fn read_entries(&mut self) {
        for (first, last) in std::mem::take(&mut self.server.wanted) {
            let found = match self.prng.below(10) {
                0 => Err("unreadable".to_owned()),
                1 => continue,
                _ => self.server.entries(first, last),
            };
            self.server.consensus.handle_entries_read(first, found);
        }
    }

    /// What connections tell.
    fn notice(&mut self) {
        let (peer, text) = (NodeId(self.prng.below(7)), "no connection");
        let consensus = &mut self.server.consensus;
        match self.prng.below(6) {
            0 => consensus.handle_send_failed(peer),
            1 => consensus.handle_peer_connected(peer),
            2 => consensus.handle_snapshot_sent(peer, Err(text.to_owned())),
            3 => consensus.handle_snapshot_unreadable(peer, text),
            4 => consensus.handle_space_available(),
            _ => drop(consensus.take_shed()),
        }
    }

    /// The disk fails for good, or the process dies.
    fn fail(&mut self) {
        match self.prng.below(12) {
            0 => {
                while self.server.hear_disk() {}
                self.server.run_full(false);
            }
            1..=2 => self.restart(),
            _ => {}
        }
    }

    fn restart(&mut self) {
        let disk = std::mem::take(&mut self.server.disk).crash(&mut self.prng);
        let planted = self.server.consensus.planted;
        self.server = Ours::start(1, self.prng.next_u64(), disk, planted, self.now);
        self.known.handle_start(&self.server);
        // What it proposed in a term that it never stored has left it nowhere.
        let stored = self.server.disk.stored.term.0;
        self.own.retain(|(term, _), _| *term <= stored);
        self.unanswered.clear();
        self.done.starts += 1;
    }

    /// Answers of the disk that answer nothing.
    fn bogus(&mut self) {
        let consensus = &mut self.server.consensus;
        let asked = consensus.persistence.last_ticket();
        match self.prng.below(4) {
            0 => consensus.handle_persisted(asked + 1),
            1 => consensus.handle_persist_failed(asked + 1, false),
            2 => consensus.handle_applied(Index(u64::MAX)),
            _ => consensus.handle_entries_read(Index(self.prng.below(40)), Ok(Vec::new())),
        }
    }

    /// Notes what it has made by itself: barriers and configurations.
    fn note_own(&mut self) {
        let consensus = &self.server.consensus;
        let (Some(raw), Some(leadership)) = (&consensus.raw, &consensus.leadership) else { return };
        for index in leadership.first.0..=consensus.last_index().0 {
            if let Some(entry) = raw.store().entry(Index(index)) {
                self.own.entry((entry.term.0, index)).or_insert(entry);
            }
        }
    }

    fn settle(&mut self) -> Verdict {
        self.server.poll();
        self.note_own();
        if let Some(text) = self.server.consensus.unavailable() {
            must!(text == "the log could not be written", "unavailable: {text}");
            self.done.failures += 1;
            self.restart();
            return Ok(());
        }
        self.server.ready.clear();
        self.done.installs += u64::from(std::mem::take(&mut self.server.installed));
        self.known.check(&mut self.server)?;
        for (to, packet) in std::mem::take(&mut self.server.sent) {
            let message = match packet {
                Packet::Message(message) => message,
                Packet::Snapshot(head, _) => Message::InstallSnapshot(head),
                Packet::Data | Packet::End => continue,
            };
            self.trace("to", to, &message);
            self.known.says(to, &message, &self.server)?;
            if let Message::AppendEntries(it) = &message
                && it.prev_index.0 >= LABELS_FROM
            {
                self.label = it.prev_index.0;
            }
            if self.unanswered.len() == 12 {
                self.unanswered.pop_front();
            }
            self.unanswered.push_back((to, message));
        }
        self.known.handle_settled();
        Ok(())
    }

    fn finish_disk(&mut self) -> Verdict {
        self.settle()?;
        while self.server.hear_disk() || !self.server.disk.jobs.is_empty() {
            self.settle()?;
            self.server.disk_done();
            self.settle()?;
        }
        Ok(())
    }

    /// All is well at last: a leader that has what is committed here is followed.
    fn end(&mut self) -> Verdict {
        for _ in 0..20 {
            self.now = self.now.after(Duration::from_secs(6));
            self.server.now = self.now;
            self.server.consensus.handle_time(self.now);
            self.finish_disk()?;
        }
        (2..=5).for_each(|peer| self.server.break_off(peer, 0));
        let consensus = &self.server.consensus;
        let (term, commit) = (consensus.term().0 + 1, consensus.commit_index());
        let before = (commit.0, consensus.term_at(commit).unwrap_or_default().0);
        let entry =
            Entry { index: commit.next(), term: Term(term), kind: EntryKind::Command, payload: bytes(1) };
        self.tell(6, append(term, before, commit.next().0, &[entry]));
        self.finish_disk()?;
        let applied = self.server.consensus.applied_index();
        must!(applied == commit.next(), "{} to be applied at the end, found {applied}", commit.next());
        Ok(())
    }
}

fn run(seed: u64, steps: u64, planted: Option<Planted>) -> Result<Done, String> {
    let mut step = 0;
    let all = || {
        let mut storm = Storm::new(seed, planted);
        while step < steps {
            step += 1;
            storm.step()?;
            must!(
                storm.server.consensus.term().0 < TERMS_FROM,
                "a term that no cluster reaches was taken over"
            );
        }
        storm.end()?;
        let mut done = std::mem::take(&mut storm.done);
        (done.steps, done.leaderships, done.committed) =
            (step, storm.known.leaderships(), storm.known.committed());
        Ok(done)
    };
    let ended = catch_unwind(AssertUnwindSafe(all));
    ended
        .unwrap_or_else(|panic| Err(panic_text(panic.as_ref()).to_owned()))
        .map_err(|text| format!("step {step}: {text}"))
}

#[test]
fn whatever_peers_say_a_server_keeps_what_is_committed_and_goes_on() {
    let number =
        |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (from, steps): (u64, u64) = (number("DQLITE_PEERS_FROM", 0), number("DQLITE_PEERS_STEPS", 1_000_000));
    let (mut all, mut wrong, mut seed) = (Done::default(), Vec::new(), from);
    let one = std::env::var_os("DQLITE_PEERS_TRACE").is_some();
    while all.steps < steps && wrong.len() < 20 && !(one && seed > from) {
        match run(seed, STEPS, None) {
            Ok(done) => {
                all.steps += done.steps;
                all.leaderships += done.leaderships;
                all.committed += done.committed;
                all.installs += done.installs;
                all.contradictions += done.contradictions;
                all.failures += done.failures;
                all.starts += done.starts;
                all.reads += done.reads;
            }
            Err(text) => wrong.push(format!("seed {seed}: {text}")),
        }
        seed += 1;
    }
    let counts = [
        ("leaderships", all.leaderships),
        ("committed", all.committed),
        ("installations", all.installs),
        ("contradictions", all.contradictions),
        ("failures", all.failures),
        ("starts", all.starts),
        ("reads", all.reads),
    ];
    let listed = counts.map(|(name, count)| format!("{count} {name}")).join(", ");
    let text = format!("{} seeds, {} steps: {listed}", seed - from, all.steps);
    writeln!(std::io::stdout(), "{text}").unwrap();
    assert!(wrong.is_empty(), "{} of {} seeds:\n{}", wrong.len(), seed - from, wrong.join("\n"));
    // Of each thing enough, unless it is a short run.
    assert!(counts.iter().all(|(_, count)| *count >= steps / 50_000), "too little happens: {text}");
}

#[test]
fn each_mistake_that_shows_in_one_server_is_found() {
    for mistake in [Planted::EarlyVotes, Planted::ShortAppends, Planted::UncappedMatch] {
        let found = (0..300).any(|seed| run(seed, STEPS, Some(mistake)).is_err());
        assert!(found, "{mistake:?} is not found");
    }
}
