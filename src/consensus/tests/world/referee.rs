//! What must hold at every step, whoever takes part.

use std::collections::BTreeMap;

use super::disk::{Disk, Machine, content};
use crate::base::{Entry, EntryKind, Index, Term};
use crate::codec::membership::Configuration;
use crate::codec::peer::Message;
use crate::consensus::inbound::LABELS_FROM;

/// A violation, in words.
pub(in crate::consensus::tests) type Verdict = Result<(), String>;

macro_rules! must {
    ($holds:expr, $($text:tt)*) => { if !$holds { return Err(format!($($text)*)); } };
}
pub(in crate::consensus::tests) use must;

#[derive(Default)]
pub(in crate::consensus::tests) struct Referee {
    /// Kind and content of every entry that was durable or on the wire, and the term of the one before.
    named: BTreeMap<(u64, u64), (u64, u64)>,
    /// Term and content of committed entries, by index from 1 on, and the databases' checksum after each.
    committed: Vec<(u64, u64)>,
    sums: Vec<u64>,
    changes: Vec<(u64, Configuration)>,
    leaders: BTreeMap<u64, u64>,
    votes: BTreeMap<(u64, u64), u64>,
    terms: BTreeMap<u64, u64>,
    commits: BTreeMap<(u64, u64, u64), u64>,
}

impl Referee {
    /// Term and index determine an entry, and the term of the one before it: so whole logs up to there (W5).
    fn name(&mut self, entry: &Entry, prev_term: Option<u64>) -> Verdict {
        let key = (entry.term.0, entry.index.0);
        let known = self.named.entry(key).or_insert((content(entry), prev_term.unwrap_or(u64::MAX)));
        must!(known.0 == content(entry), "two entries {} of term {}", entry.index, entry.term);
        match prev_term {
            Some(term) if known.1 == u64::MAX => known.1 = term,
            Some(term) => {
                must!(known.1 == term, "two logs before entry {} of term {}", entry.index, entry.term)
            }
            None => {}
        }
        must!(
            entry.payload.len().is_multiple_of(8),
            "entry {} of {} bytes (W3)",
            entry.index,
            entry.payload.len()
        );
        Ok(())
    }

    fn names(&mut self, entries: &[Entry], before: Option<u64>) -> Verdict {
        let mut prev = before;
        for entry in entries {
            self.name(entry, prev)?;
            prev = Some(entry.term.0);
        }
        Ok(())
    }

    /// What this server has on its disk.
    pub(in crate::consensus::tests) fn stored(&mut self, disk: &Disk) -> Verdict {
        let entries = &disk.stored.entries;
        let skip = entries.len().saturating_sub(40);
        self.names(&entries[skip..], None)?;
        let fresh = |it: &&Entry| it.kind == EntryKind::Change && it.index.0 > self.last().max(1);
        let pending = entries.iter().filter(fresh).count();
        must!(pending <= 1, "{pending} configurations that are not committed");
        Ok(())
    }

    pub(in crate::consensus::tests) fn last(&self) -> u64 {
        self.committed.len() as u64
    }

    pub(in crate::consensus::tests) fn committed_term(&self, index: u64) -> Option<u64> {
        let place = usize::try_from(index.checked_sub(1)?).unwrap();
        self.committed.get(place).map(|it| it.0)
    }

    /// The last committed configuration at this index.
    pub(in crate::consensus::tests) fn configuration_at(&self, index: u64) -> &(u64, Configuration) {
        self.changes.iter().rev().find(|it| it.0 <= index).unwrap()
    }

    /// An entry was applied; `sum` is the databases' checksum after it, where known.
    pub(in crate::consensus::tests) fn applied(&mut self, entry: &Entry) -> Verdict {
        let place = usize::try_from(entry.index.0 - 1).unwrap();
        let this = (entry.term.0, content(entry));
        match self.committed.get(place) {
            Some(known) => {
                must!(*known == this, "committed entry {} was replaced: {known:?} by {this:?}", entry.index);
            }
            None => {
                must!(
                    place == self.committed.len(),
                    "entry {} applied before the one before it",
                    entry.index
                );
                let sum = self.sums.last().copied().unwrap_or(0);
                let mut machine = Machine { index: entry.index.prev(), sum };
                machine.apply(entry);
                self.sums.push(machine.sum);
                self.committed.push(this);
                if entry.kind == EntryKind::Change {
                    let configuration = Configuration::decode(&entry.payload.contiguous()).unwrap();
                    self.changes.push((entry.index.0, configuration));
                }
            }
        }
        Ok(())
    }

    /// The databases of a server that has applied everything up to `index`.
    pub(in crate::consensus::tests) fn state(&self, index: Index, sum: u64) -> Verdict {
        let known = index.0.checked_sub(1).and_then(|place| self.sums.get(usize::try_from(place).unwrap()));
        let known = if index.0 == 0 { Some(&0) } else { known };
        must!(known == Some(&sum), "databases at {index}: checksum {known:?} expected, found {sum}");
        Ok(())
    }

    /// A server leads (W4).
    pub(in crate::consensus::tests) fn leads(&mut self, id: u64, term: u64) -> Result<bool, String> {
        let known = self.leaders.insert(term, id);
        must!(known.is_none_or(|it| it == id), "two leaders of term {term}: {known:?} and {id}");
        Ok(known.is_none())
    }

    /// A message leaves server `id` (W4 to W9, W11).
    pub(in crate::consensus::tests) fn says(
        &mut self,
        id: u64,
        ours: bool,
        to: u64,
        message: &Message,
        disk: &Disk,
    ) -> Verdict {
        let (durable, vote) = (disk.stored.term.0, disk.stored.vote.0);
        let term = match message {
            Message::AppendEntries(it) => {
                self.leads(id, it.term.0)?;
                let label = it.prev_index.0 >= LABELS_FROM;
                let end = it.entries.last().map_or(it.prev_term, |entry| entry.term);
                must!(!ours || label || end == it.term, "an append of {} ends in {end} (W6)", it.term);
                self.names(&it.entries, Some(it.prev_term.0))?;
                let commit = self.commits.entry((id, it.term.0, to)).or_default();
                must!(it.commit.0 >= *commit, "the commit index falls from {commit} to {} (W11)", it.commit);
                *commit = it.commit.0;
                it.term
            }
            Message::AppendResult(it) => {
                let covered = disk.stored.snapshot.as_ref().map_or(0, |meta| meta.index.0);
                let stored = disk.stored.last().max(covered);
                must!(
                    it.rejected != 0 || it.last_index.0 <= stored || !ours,
                    "{} acknowledged, {stored} durable (W7)",
                    it.last_index
                );
                it.term
            }
            Message::RequestVote(it) if it.pre_vote => return Ok(()),
            Message::VoteResult(it) if it.pre_vote == Some(true) => return Ok(()),
            Message::RequestVote(it) => {
                must!(
                    it.term.0 < durable || (it.term.0, id) == (durable, vote),
                    "votes for term {} asked for too early",
                    it.term
                );
                self.votes_once(id, it.term, id)?;
                it.term
            }
            Message::VoteResult(it) => {
                if it.granted {
                    let stored = it.term.0 < durable || (it.term.0 == durable && vote == to);
                    must!(stored, "a vote of term {} for {to} is not durable", it.term);
                    self.votes_once(id, it.term, to)?;
                }
                it.term
            }
            Message::TimeoutNow(it) => it.term,
            Message::InstallSnapshot(it) => it.term,
        };
        must!(term.0 <= durable, "term {term} said, {durable} durable");
        let known = self.terms.entry(id).or_default();
        must!(term.0 >= *known, "the term falls from {known} to {term} (W9)");
        *known = term.0;
        Ok(())
    }

    fn votes_once(&mut self, id: u64, term: Term, to: u64) -> Verdict {
        let voted = *self.votes.entry((id, term.0)).or_insert(to);
        must!(voted == to, "votes of term {term} for {voted} and {to} (W8)");
        Ok(())
    }
}
