//! Closed segments: which of them make up the log, and what to do about damaged ones.

use super::{ClosedSegment, Planner, Step};
use crate::base::Index;
use crate::format::segment::SEGMENT_HEADER;
use crate::format::{Class, FormatError, names};

impl ClosedSegment {
    /// How many entries the name promises.
    fn promised(&self) -> u64 {
        self.last.0.saturating_sub(self.first.0).saturating_add(1)
    }

    /// How many of them are there in whole batches, and where those end.
    fn usable(&self) -> (u64, u64) {
        let (mut count, mut end) = (0u64, self.file.used.min(SEGMENT_HEADER.len() as u64));
        for batch in &self.file.batches {
            let sum = count.saturating_add(batch.count);
            if sum > self.promised() {
                break;
            }
            (count, end) = (sum, batch.offset.saturating_add(batch.len));
        }
        (count, end)
    }

    fn is_complete(&self) -> bool {
        self.usable().0 == self.promised() && self.file.entries.len() as u64 == self.promised()
    }

    /// Named as if it ended before it began: left when a segment without entries was closed.
    fn is_empty_range(&self) -> bool {
        self.last.next() == self.first && self.file.entries.is_empty()
    }

    fn defect(&self) -> FormatError {
        let (name, promised, (usable, end)) = (&self.file.name, self.promised(), self.usable());
        let class = self.file.end.as_ref().err().map_or(Class::Corrupt, |error| error.class);
        let found = self.file.entries.len();
        let text = match &self.file.end {
            Err(error) => error.text.clone(),
            Ok(()) => format!("found {found} entries (expected {promised})"),
        };
        let rest = format!("{usable} of {promised} entries are good, up to byte {end} of {}", self.file.size);
        FormatError::new(class, format!("load closed segment {name}: {text}; {rest}"))
    }
}

impl<'a> Planner<'a> {
    /// Takes the closed segments that belong to the log.
    pub(super) fn closed(&mut self) -> Result<(), FormatError> {
        let mut chain = Vec::new();
        for segment in &self.log.closed {
            if !segment.is_empty_range() {
                chain.push(segment);
            } else if segment.file.blank || segment.file.end.is_ok() || segment.file.tail_zero {
                self.plan.notes.push(format!("{} deleted: no entries in it", segment.file.name));
                self.unlink(&segment.file.name);
            } else {
                self.put_aside(&segment.file.name, "no entries expected, other bytes found");
            }
        }
        let chain = self.behind_the_snapshot(chain)?;
        let mut rest = chain.as_slice();
        while let Some(segment) = rest.first() {
            let same = rest.iter().take_while(|other| other.first == segment.first).count();
            let (group, behind) = rest.split_at(same.max(1));
            rest = behind;
            if segment.first == self.next() {
                self.take_best(group, chain.iter().all(|other| other.last <= segment.last))?;
            } else {
                group.iter().try_for_each(|segment| self.drop_redundant(segment))?;
            }
        }
        Ok(())
    }

    /// C's filter: the contiguous segments at the end of the log, if they reach back to the snapshot.
    fn behind_the_snapshot(
        &mut self,
        closed: Vec<&'a ClosedSegment>,
    ) -> Result<Vec<&'a ClosedSegment>, FormatError> {
        let Some(snapshot) = self.snapshot else {
            self.restart_at(Index(1));
            return Ok(closed);
        };
        let index = snapshot.name.index;
        self.restart_at(index.next());
        let Some(end) = closed.iter().map(|segment| segment.last).max() else { return Ok(closed) };
        let open: usize = self.log.open.iter().map(|file| file.entries.len()).sum();
        let reached = Index(end.0.saturating_add(open as u64));
        if end < index && reached < index {
            // Segments that the snapshot made useless: they stay. An open one behind them would come right
            // after them, or right after the snapshot; its bytes do not tell.
            self.cut_off = Some(self.behind_snapshot(reached));
            return Ok(Vec::new());
        }
        // Where open segments reach the snapshot from the closed ones, they go on right after those: a snapshot
        // of ours may be taken in the middle of an open segment, and C reads such a directory likewise.
        let mut run: Vec<&ClosedSegment> = Vec::new();
        let mut run_end = Index(0);
        for segment in closed {
            if segment.first > run_end.next() {
                run.clear();
            }
            run_end = run_end.max(segment.last);
            run.push(segment);
        }
        match run.first() {
            Some(first) if first.first > index.next() => {
                let text = format!(
                    "closed segment {} is past last snapshot {}; entries from index {} on expected, {} found",
                    first.file.name,
                    snapshot.data,
                    index.next(),
                    first.first
                );
                Err(FormatError::new(Class::Corrupt, text))
            }
            first => {
                self.restart_at(first.map_or(index.next(), |first| first.first));
                Ok(run)
            }
        }
    }

    /// Takes the best of several segments with the same first index: a truncation that was cut short leaves
    /// the old one beside its beginning. The longer one is no risk: what it has more was never taken back.
    fn take_best(&mut self, group: &[&ClosedSegment], newest: bool) -> Result<(), FormatError> {
        let canonical =
            |segment: &ClosedSegment| segment.file.name == names::closed_name(segment.first, segment.last);
        let rank = |segment: &ClosedSegment| (segment.usable().0, segment.is_complete(), canonical(segment));
        let Some(best) = group.iter().max_by_key(|segment| rank(segment)) else { return Ok(()) };
        self.take_closed(best, newest)?;
        let others = group.iter().filter(|segment| segment.file.name != best.file.name);
        others.into_iter().try_for_each(|segment| self.drop_redundant(segment))
    }

    fn take_closed(&mut self, segment: &ClosedSegment, newest: bool) -> Result<(), FormatError> {
        if segment.last < segment.first || segment.first == Index(0) {
            return Err(self.unexpected(segment));
        }
        let (usable, end) = segment.usable();
        if segment.is_complete() {
            self.keep(segment, usable, end);
            return Ok(());
        }
        let defect = segment.defect();
        if segment.last <= self.snapshot_index() {
            // Nothing is lost: the snapshot has it all. What came before is of no use with a gap behind it.
            self.put_aside(&segment.file.name, &defect.text);
            self.restart_at(segment.last.next());
            return Ok(());
        }
        if !newest || !self.settings.auto_recovery || segment.file.malformed() {
            return Err(defect);
        }
        let last = Index(segment.first.0.saturating_add(usable)).prev();
        if usable == 0 || last < self.snapshot_index() {
            self.put_aside(&segment.file.name, &defect.text);
            if last < self.snapshot_index() {
                self.restart_at(self.snapshot_index().next());
            }
        } else {
            self.keep(segment, usable, end);
        }
        self.cut_off = Some(defect);
        Ok(())
    }

    /// Takes the first `count` entries, which end at byte `end`.
    fn keep(&mut self, segment: &ClosedSegment, count: u64, end: u64) {
        let file = &segment.file;
        let last = Index(segment.first.0.saturating_add(count)).prev();
        let to = names::closed_name(segment.first, last);
        if end < file.size {
            if file.tail_zero && segment.is_complete() {
                let zeros = file.size.saturating_sub(end);
                self.plan.notes.push(format!("{} cut to {end} bytes: {zeros} zeros behind it", file.name));
            } else {
                self.copy_aside(&file.name, &segment.defect().text);
            }
            self.plan.steps.push(Step::Cut { name: file.name.clone(), len: end, to });
        } else if file.name != to {
            if let Some(copied) = (!segment.is_complete()).then(|| segment.defect().text) {
                self.plan.notes.push(format!("{} is called {to} now: {copied}", file.name));
            }
            self.plan.steps.push(Step::Rename { from: file.name.clone(), to });
        }
        self.take(file, usize::try_from(count).unwrap_or(usize::MAX));
    }

    /// Passes over a segment whose entries have all been taken from another one.
    fn drop_redundant(&mut self, segment: &ClosedSegment) -> Result<(), FormatError> {
        if segment.first >= self.next() || segment.last >= self.next() || segment.last < segment.first {
            return Err(self.unexpected(segment));
        }
        if segment.last <= self.snapshot_index() {
            return Ok(());
        }
        let mut index = segment.first;
        for stored in &segment.file.entries {
            let same = self.plan.entry(index).is_some_and(|entry| {
                (entry.term, entry.kind, &entry.payload) == (stored.term, stored.kind, &stored.payload)
            });
            if !same {
                return Err(self.unexpected(segment));
            }
            index = index.next();
        }
        if self.log.open.iter().any(|file| !file.unused()) {
            // Where the log ended when the open segment was begun cannot be told.
            return Err(self.unexpected(segment));
        }
        if segment.is_complete() {
            self.plan
                .notes
                .push(format!("{} deleted: its entries are in another segment", segment.file.name));
            self.unlink(&segment.file.name);
        } else {
            self.put_aside(&segment.file.name, &segment.defect().text);
        }
        Ok(())
    }

    fn unexpected(&self, segment: &ClosedSegment) -> FormatError {
        let (name, next) = (&segment.file.name, self.next());
        let text = format!("unexpected closed segment {name}: first index should have been {next}");
        let found = format!("found {} to {}", segment.first, segment.last);
        FormatError::new(Class::Corrupt, format!("{text}; {found}"))
    }
}
