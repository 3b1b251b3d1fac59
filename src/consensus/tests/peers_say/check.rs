//! What must hold after each step, and of each message that leaves.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ours, Verdict, must};
use crate::base::{Entry, Index, Term};
use crate::codec::peer::{AppendEntries, InstallSnapshot, Message};
use crate::consensus::inbound::LABELS_FROM;

#[derive(Default)]
pub(super) struct Known {
    term: u64,
    commit: u64,
    /// The term of each committed entry.
    committed: BTreeMap<u64, u64>,
    applied: u64,
    applied_to: Index,
    checks: u64,
    led: BTreeSet<u64>,
    /// Sender, its term, index and the term of the entry there.
    said: BTreeSet<(u64, u64, u64, u64)>,
    /// Who has just contradicted what is committed here, and its term.
    confused: Option<(u64, u64)>,
    votes: BTreeMap<u64, u64>,
    term_said: u64,
    commits_said: BTreeMap<(u64, u64), u64>,
    /// Entries of terms that this server led, by term and index.
    named: BTreeMap<(u64, u64), Entry>,
}

impl Known {
    /// The server starts: how far the log is committed it has to learn again.
    pub(super) fn handle_start(&mut self, server: &Ours) {
        self.term = server.consensus.term().0;
        self.handle_lost(server);
        if self.applied_to == Index(0) && server.consensus.commit_index() == Index(1) {
            // Of entry 1 there is only one in a cluster, so that a start takes it for committed. Here there may be others,
            // one of which was told to be committed and is lost.
            self.commit = 0;
            self.committed.clear();
        }
        self.commits_said.clear();
        self.confused = None;
    }

    /// What was not durable is lost: of that it may have heard that it is committed, and has not applied it.
    pub(super) fn handle_lost(&mut self, server: &Ours) {
        self.commit = self.commit.min(server.consensus.commit_index().0);
        let commit = self.commit;
        self.committed.retain(|index, _| *index <= commit);
    }

    pub(super) fn leaderships(&self) -> u64 {
        self.led.len() as u64
    }

    pub(super) fn committed(&self) -> u64 {
        self.applied
    }

    /// Whether this says that a committed entry is another one: it must not be acknowledged. What waits for the disk may
    /// be an answer to what was said before.
    pub(super) fn contradicts(&mut self, from: u64, append: &AppendEntries, server: &Ours) -> bool {
        let idle = is_idle(server);
        // What is compacted away cannot be compared.
        let kept = |index| server.consensus.term_at(Index(index)).is_some();
        let other = |(index, term)| kept(index) && self.committed.get(&index).is_some_and(|it| *it != term);
        let found = append.term.0 >= self.term && names(append).any(other);
        self.confused = (found && idle).then_some((from, append.term.0));
        found
    }

    /// All that it led to has been looked at.
    pub(super) fn handle_settled(&mut self) {
        self.confused = None;
    }

    pub(super) fn note_said(&mut self, from: u64, append: &AppendEntries) {
        self.said.extend(names(append).map(|(index, term)| (from, append.term.0, index, term)));
    }

    pub(super) fn note_head(&mut self, from: u64, head: &InstallSnapshot) {
        self.said.insert((from, head.term.0, head.last_index.0, head.last_term.0));
    }

    pub(super) fn check(&mut self, server: &mut Ours) -> Verdict {
        let raft = &server.consensus.raw.as_ref().unwrap().raft;
        let log = &raft.raft_log;
        must!(raft.term >= self.term, "the term falls from {} to {}", self.term, raft.term);
        must!(
            log.committed >= self.commit,
            "the commit index falls from {} to {}",
            self.commit,
            log.committed
        );
        let (applied, last) = (server.consensus.applied_index().0, log.last_index());
        must!(applied <= log.committed && log.committed <= last, "applied {applied}, {}", log.committed);
        self.term = raft.term;
        // A snapshot may have taken the place of the log.
        let from = self.commit.saturating_add(1).max(server.consensus.first_index().0.saturating_sub(1));
        for index in from..=log.committed {
            if let Some(term) = server.consensus.term_at(Index(index)) {
                let known = *self.committed.entry(index).or_insert(term.0);
                must!(known == term.0, "committed entry {index} of term {known} is one of term {term} now");
            }
        }
        self.commit = log.committed;
        for entry in server.applied.drain(..) {
            let known = self.committed.get(&entry.index.0).copied();
            must!(known == Some(entry.term.0), "entry {} applied, term {known:?} expected", entry.index);
            self.applied += 1;
            self.applied_to = entry.index;
        }
        for (id, progress) in raft.prs().iter() {
            must!(progress.next_idx > progress.matched, "next and matched of {id}: {progress:?}");
        }
        if raft.state == raft::StateRole::Leader {
            self.led.insert(raft.term);
        }
        self.checks += 1;
        if self.checks.is_multiple_of(64) { self.check_log(server) } else { Ok(()) }
    }

    fn check_log(&self, server: &Ours) -> Verdict {
        for (index, term) in &self.committed {
            let here = server.consensus.term_at(Index(*index));
            must!(
                here.is_none_or(|it| it.0 == *term),
                "committed entry {index} of term {term} is {here:?} now"
            );
        }
        if server.disk.jobs.is_empty() {
            for entry in &server.disk.stored.entries {
                let here = server.consensus.term_at(entry.index);
                let lost = entry.index > server.consensus.last_index();
                must!(
                    lost || here.is_none_or(|it| it == entry.term),
                    "{entry:?} on disk, {here:?} in memory"
                );
            }
        }
        Ok(())
    }

    /// A message leaves.
    pub(super) fn says(&mut self, to: u64, message: &Message, server: &Ours) -> Verdict {
        let stored = &server.disk.stored;
        let (durable, vote) = (stored.term.0, stored.vote.0);
        let term = match message {
            Message::AppendEntries(it) => {
                let label = it.prev_index.0 >= LABELS_FROM;
                let end = it.entries.last().map_or(it.prev_term, |entry| entry.term);
                must!(label || end == it.term, "an append of {} ends in {end}", it.term);
                for entry in it.entries.iter().filter(|entry| self.led.contains(&entry.term.0)) {
                    let key = (entry.term.0, entry.index.0);
                    let known = self.named.entry(key).or_insert_with(|| entry.clone());
                    must!(known == entry, "two entries {} of term {}", entry.index, entry.term);
                }
                let commit = self.commits_said.entry((it.term.0, to)).or_default();
                must!(it.commit.0 >= *commit, "the commit index told to {to} falls");
                *commit = it.commit.0;
                it.term
            }
            Message::AppendResult(it) => {
                if it.rejected == 0 && it.last_index > Index(0) {
                    self.acknowledges(to, it.term.0, it.last_index.0, server)?;
                }
                it.term
            }
            Message::RequestVote(it) if it.pre_vote => return Ok(()),
            Message::VoteResult(it) if it.pre_vote == Some(true) => return Ok(()),
            Message::RequestVote(it) => {
                let stored = it.term.0 < durable || (it.term.0, 1) == (durable, vote);
                must!(stored, "votes of {} asked for, {durable} durable", it.term);
                self.votes_once(it.term.0, 1)?;
                it.term
            }
            Message::VoteResult(it) => {
                if it.granted {
                    let stored = it.term.0 < durable || (it.term.0, to) == (durable, vote);
                    must!(stored, "a vote of {} for {to} is not durable", it.term);
                    self.votes_once(it.term.0, to)?;
                }
                it.term
            }
            Message::TimeoutNow(it) => it.term,
            Message::InstallSnapshot(it) => {
                must!(stored.snapshot.as_ref().is_some_and(|s| s.index == it.last_index), "no such snapshot");
                it.term
            }
        };
        must!(term.0 <= durable, "term {term} said, {durable} durable");
        must!(term.0 >= self.term_said, "the term falls from {} to {term}", self.term_said);
        self.term_said = term.0;
        Ok(())
    }

    /// What is acknowledged is durable, and is what the leader has there.
    fn acknowledges(&self, to: u64, term: u64, index: u64, server: &Ours) -> Verdict {
        let all = (to, term, index, 0)..=(to, term, index, u64::MAX);
        let known: Vec<u64> = self.said.range(all).map(|it| it.3).collect();
        // It was durable when the disk reported it, and is cut off by now.
        let cut = |known: u64| server.cut.contains(&(Index(index), Term(known)));
        let stored = &server.disk.stored;
        let covered = stored.snapshot.as_ref().map_or((0, 0), |it| (it.index.0, it.term.0));
        let here = match server.disk.term_at(Index(index)) {
            Some(here) => here,
            None if index == covered.0 => covered.1,
            None => {
                must!(
                    index < covered.0 || known.iter().any(|it| cut(*it)),
                    "{index} acknowledged, durable is {}",
                    stored.last().max(covered.0)
                );
                return Ok(());
            }
        };
        must!(self.confused != Some((to, term)), "{index} acknowledged to {to}, which has another history");
        must!(
            index <= self.commit || known.contains(&here) || known.iter().any(|it| cut(*it)),
            "entry {index} of term {here} acknowledged, {to} has {known:?} there, {} is committed",
            self.commit
        );
        Ok(())
    }

    fn votes_once(&mut self, term: u64, to: u64) -> Verdict {
        let voted = *self.votes.entry(term).or_insert(to);
        must!(voted == to, "votes of term {term} for {voted} and {to}");
        Ok(())
    }
}

/// Whether whatever leaves now answers what came last.
fn is_idle(server: &Ours) -> bool {
    server.consensus.persistence.is_idle() && server.consensus.intake.is_none()
}

fn names(append: &AppendEntries) -> impl Iterator<Item = (u64, u64)> {
    let entries = append.entries.iter().map(|entry| (entry.index.0, entry.term.0));
    std::iter::once((append.prev_index.0, append.prev_term.0)).chain(entries)
}
