//! Checksums of databases, by which replicas can be compared: equal at the same applied entry, or something is wrong.
//!
//! A checksum costs a pass over the whole database. It is made only when somebody asks for it, never on the loop, and
//! not again before the database has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::{NodeId, PageNo, crc};
use crate::pages::{Page, Version};

/// After so many pages it is looked whether the result is still wanted.
const PAGES_PER_LOOK: u32 = 256;

/// Checksums that were made before.
#[derive(Debug, Default)]
pub struct Checksums {
    /// By node and database: the version and its checksum.
    known: BTreeMap<(NodeId, Vec<u8>), (u64, u64, u32)>,
    /// How many were made, for tests.
    made: u64,
}

impl Checksums {
    /// The checksum of each database of this node; `None` when `cancelled`.
    pub fn of<'a>(
        &mut self,
        id: NodeId,
        databases: &'a [(Vec<u8>, Arc<Version>)],
        cancelled: &AtomicBool,
    ) -> Option<Vec<(&'a [u8], u32)>> {
        let mut found = Vec::new();
        for (name, version) in databases {
            let key = (id, name.clone());
            let place = (version.seq(), version.full_counter());
            let known = self.known.get(&key).filter(|known| (known.0, known.1) == place);
            let sum = match known {
                Some((.., sum)) => *sum,
                None => {
                    let sum = checksum(version, cancelled)?;
                    self.made += 1;
                    self.known.insert(key, (place.0, place.1, sum));
                    sum
                }
            };
            found.push((name.as_slice(), sum));
        }
        Some(found)
    }

    /// How many were made so far.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made
    }
}

/// The checksum of the database file that this version is; a page that was never written counts as zeros.
fn checksum(version: &Arc<Version>, cancelled: &AtomicBool) -> Option<u32> {
    let empty = Page::zeroed(version.page_size());
    let mut sum = crc::checksum(0, &version.n_pages().to_le_bytes());
    for number in 1..=version.n_pages() {
        if number % PAGES_PER_LOOK == 0 && cancelled.load(Ordering::Relaxed) {
            return None;
        }
        sum = crc::checksum(sum, version.page(PageNo(number)).unwrap_or(&empty).as_slice());
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::{Checksums, checksum};
    use crate::base::{NodeId, PageNo};
    use crate::pages::{Database, Page, Version, View};

    fn database(pages: &[u8]) -> Arc<Version> {
        let pages = pages.iter().enumerate().filter(|(_, fill)| **fill > 0);
        let pages = pages
            .map(|(at, fill)| (PageNo(u32::try_from(at).unwrap() + 1), Page::from_slice(&vec![*fill; 4096])));
        Database::from_snapshot(b"x", 4096, pages, 4).unwrap().pin(View::Committed)
    }

    fn sum(pages: &[u8]) -> u32 {
        checksum(&database(pages), &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn every_page_and_its_place_count_and_pages_that_were_never_written_are_zeros() {
        let sums =
            [sum(&[1, 2, 3, 4]), sum(&[1, 3, 2, 4]), sum(&[1, 2, 3, 5]), sum(&[1, 2, 3]), sum(&[1, 2])];
        for (at, sum) in sums.iter().enumerate() {
            assert!(!sums[..at].contains(sum), "{sums:?}");
        }
        let zeros = Page::zeroed(4096);
        let first = Page::from_slice(&[1; 4096]);
        let written =
            Database::from_snapshot(b"x", 4096, [(PageNo(1), first), (PageNo(2), zeros)], 4).unwrap();
        assert_eq!(checksum(&written.pin(View::Committed), &AtomicBool::new(false)), Some(sum(&[1])));
    }

    #[test]
    fn a_checksum_is_made_again_only_when_the_database_has_changed() {
        let database = Database::from_snapshot(b"x", 4096, [(PageNo(1), first(3))], 3).unwrap();
        let (mut sums, going_on) = (Checksums::default(), AtomicBool::new(false));
        let mut ask = |id| {
            let found = [(b"x".to_vec(), database.pin(View::Committed))];
            let sum = sums.of(NodeId(id), &found, &going_on).unwrap()[0].1;
            (sum, sums.made())
        };
        let (sum, _) = ask(1);
        assert_eq!(ask(1), (sum, 1));
        assert_eq!(ask(2), (sum, 2), "another node has its own");
        database.apply(&[(PageNo(2), &[7; 4096])]).unwrap();
        let (changed, made) = ask(1);
        assert_eq!((changed == sum, made), (false, 3));
    }

    #[test]
    fn a_checksum_that_nobody_waits_for_any_more_is_not_finished() {
        let large = Database::from_snapshot(b"x", 4096, [(PageNo(1), first(1000))], 1000).unwrap();
        assert_eq!(checksum(&large.pin(View::Committed), &AtomicBool::new(true)), None);
    }

    /// A first page that says how many there are.
    fn first(n_pages: u32) -> Page {
        let mut bytes = vec![0; 4096];
        bytes[28..32].copy_from_slice(&n_pages.to_be_bytes());
        Page::from_slice(&bytes)
    }
}
