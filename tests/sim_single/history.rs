//! What clients were told, and what must therefore be found.

use std::collections::{BTreeMap, BTreeSet};

/// What is known of a row that a client wanted to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not answered yet, or the answer said nothing.
    Open,
    /// It was acknowledged, or somebody was shown it.
    There,
    /// Its request was refused, or it was not there after a restart.
    Never,
}

/// Every row that was ever asked for.
#[derive(Default)]
pub struct History {
    fates: BTreeMap<i64, Fate>,
    /// Rows that stand or fall together, by their first.
    groups: Vec<Vec<i64>>,
    /// In the order in which clients learned of them.
    there: Vec<i64>,
}

impl History {
    /// New rows of one transaction.
    pub fn issue(&mut self, count: usize) -> Vec<i64> {
        let first = i64::try_from(self.fates.len()).unwrap() + 1;
        let ids: Vec<i64> = (first..).take(count).collect();
        self.fates.extend(ids.iter().map(|&id| (id, Fate::Open)));
        ids
    }

    /// These rows are one transaction's.
    pub fn bind(&mut self, ids: &[i64]) {
        self.groups.push(ids.to_vec());
    }

    /// How much is known to be there.
    pub fn mark(&self) -> usize {
        self.there.len()
    }

    pub fn acknowledge(&mut self, ids: &[i64]) -> Result<(), String> {
        for &id in ids {
            match self.fates.insert(id, Fate::There) {
                Some(Fate::Open) => self.there.push(id),
                Some(Fate::There) => {}
                other => return Err(format!("row {id} was acknowledged after it was {other:?}")),
            }
        }
        Ok(())
    }

    pub fn refuse(&mut self, ids: &[i64]) -> Result<(), String> {
        for &id in ids {
            if self.fates.insert(id, Fate::Never) == Some(Fate::There) {
                return Err(format!("row {id} was refused after somebody saw it"));
            }
        }
        Ok(())
    }

    /// Somebody was shown these rows, by a read that began when `mark` was known.
    pub fn seen(&mut self, found: &BTreeSet<i64>, mark: usize) -> Result<(), String> {
        if let Some(lost) = self.there.iter().take(mark).find(|id| !found.contains(id)) {
            return Err(format!("row {lost} is missing from a read that came after its answer"));
        }
        self.check(found)?;
        let all: Vec<i64> = found.iter().copied().collect();
        self.acknowledge(&all)
    }

    fn check(&self, found: &BTreeSet<i64>) -> Result<(), String> {
        for id in found {
            match self.fates.get(id) {
                Some(Fate::Open | Fate::There) => {}
                other => return Err(format!("row {id} is there, though its fate is {other:?}")),
            }
        }
        for group in &self.groups {
            let there = group.iter().filter(|id| found.contains(id)).count();
            if there != 0 && there != group.len() {
                return Err(format!("of the rows {group:?} of one transaction {there} are there"));
            }
        }
        Ok(())
    }

    /// All rows after a restart: what is not there now will never be.
    pub fn restarted(&mut self, found: &BTreeSet<i64>) -> Result<(), String> {
        self.seen(found, self.there.len())?;
        for (id, fate) in &mut self.fates {
            if !found.contains(id) {
                *fate = Fate::Never;
            }
        }
        Ok(())
    }
}
