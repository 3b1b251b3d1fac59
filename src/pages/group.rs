//! Finished transactions, and how several become one log entry.

use std::collections::BTreeMap;

use super::{Page, page1, pending_page};
use crate::base::PageNo;

/// What one finished transaction changed, kept until its fate is known.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) counter: u64,
    /// Ascending, in stored form, none above `n_pages`.
    pub(super) pages: Vec<(PageNo, Page)>,
    /// The page count before.
    pub(super) before: u32,
    pub(super) n_pages: u32,
    pub(super) deletes: bool,
    /// The pages once more, for the log entry, if they are more than fit one with others.
    pub(super) prepared: Option<Vec<(PageNo, Page)>>,
}

/// The pages of one log entry: one transaction, or several that commit or fail as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The version that holds once the entry is committed.
    pub last_seq: u64,
    /// Stored images, ascending. Empty: nothing changed that another node could see; no entry is needed.
    pub pages: Vec<(PageNo, Page)>,
    /// The page count afterwards.
    pub n_pages: u32,
    /// How many transactions that changed something it holds.
    pub transactions: u32,
}

/// The group of a record that is too large to share one.
pub(super) fn alone(record: &mut Record) -> Group {
    let pages = record.prepared.take().unwrap_or_else(|| record.pages.clone());
    let group = Group { last_seq: record.seq, pages, n_pages: record.n_pages, transactions: 1 };
    debug_assert!(group.is_sound(record.before, record.deletes), "unsound group {group:?}");
    group
}

/// How many pages fit a group.
pub(super) fn pages_max(page_size: u32, max_pages: usize, max_bytes: usize) -> usize {
    max_pages.min(max_bytes / page_size.max(1) as usize)
}

/// Merges as many records as the limits allow, at least one; none when there is none.
pub(super) fn merge<'a>(
    records: impl Iterator<Item = &'a Record>,
    page_size: u32,
    max_pages: usize,
) -> Option<Group> {
    let mut records = records.peekable();
    let first = records.next()?;
    let (before, mut floor, mut last) = (first.before, first.before.min(first.n_pages), first);
    let mut pages: BTreeMap<PageNo, Page> = first.pages.iter().cloned().collect();
    let mut transactions = u32::from(!first.pages.is_empty());
    // A deletion is an entry of its own: a node of the C library aborts when it finds it beside other pages.
    while let Some(next) = records.next_if(|next| !first.deletes && !next.deletes) {
        let added = next.pages.iter().filter(|(no, _)| !pages.contains_key(no)).count();
        if pages.len() + added > max_pages {
            break;
        }
        if next.n_pages < last.n_pages {
            let _above_the_end = pages.split_off(&PageNo(next.n_pages.saturating_add(1)));
        }
        pages.extend(next.pages.iter().cloned());
        floor = floor.min(next.n_pages);
        transactions = transactions.saturating_add(u32::from(!next.pages.is_empty()));
        last = next;
    }
    // Cut off by one transaction and not written by the later one that grew the database again: zeros here, but
    // a follower sees the merged entry only and would keep what it had.
    let regrown = floor.saturating_add(1)..=before.min(last.n_pages);
    for no in regrown.map(PageNo).filter(|no| *no != pending_page(page_size)) {
        pages.entry(no).or_insert_with(|| Page::zeroed(page_size));
    }
    let (last_seq, n_pages) = (last.seq, last.n_pages);
    let group = Group { last_seq, pages: pages.into_iter().collect(), n_pages, transactions };
    debug_assert!(group.is_sound(before, last.deletes), "unsound group {group:?} after {before} pages");
    Some(group)
}

impl Group {
    /// What each node that applies the entry relies on.
    fn is_sound(&self, before: u32, deletes: bool) -> bool {
        let first = self.pages.first().filter(|(no, _)| *no == PageNo(1));
        let ends_inside = self.pages.last().is_none_or(|(no, _)| no.0 <= self.n_pages);
        let ascends = self.pages.is_sorted_by(|(a, _), (b, _)| a < b);
        let size_known = match first {
            Some((_, image)) => page1::is_sound(image.as_slice(), self.n_pages),
            None => self.n_pages == before,
        };
        ends_inside && ascends && size_known && (!deletes || self.pages.len() == 1)
    }
}
