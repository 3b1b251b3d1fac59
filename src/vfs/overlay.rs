//! What a connection sees: its write set laid over the version that it pinned.

use std::collections::BTreeMap;

use crate::base::PageNo;
use crate::pages::{Changes, PAGE_NO_MAX, Page, Version, page1, pending_page};

/// The page at a file offset, and the place within it; no page when the number is beyond SQLite's.
pub(super) fn locate(offset: u64, page_size: u32) -> (Option<PageNo>, usize) {
    let size = u64::from(page_size.max(1));
    let no = u32::try_from(offset / size + 1).ok().filter(|no| *no <= PAGE_NO_MAX).map(PageNo);
    (no, usize::try_from(offset % size).unwrap_or_default())
}

/// Fills `out` from within one page; whether the page is there.
pub(super) fn fill(
    version: &Version,
    writes: Option<&Changes>,
    no: Option<PageNo>,
    within: usize,
    out: &mut [u8],
) -> bool {
    let n_pages = writes.map_or(version.n_pages(), |writes| writes.n_pages);
    let Some(no) = no.filter(|no| no.0 <= n_pages) else {
        out.fill(0);
        return false;
    };
    if let Some(page) = writes.and_then(|writes| writes.pages.get(&no)) {
        // Page 1 too goes back to SQLite as SQLite wrote it.
        copy(page, within, out);
    } else if let Some(page) = version.page(no) {
        match no {
            PageNo(1) => page1::present(page.as_slice(), version.counter(), within, out),
            _ => copy(page, within, out),
        }
    } else {
        out.fill(0);
    }
    true
}

fn copy(page: &Page, within: usize, out: &mut [u8]) {
    match page.as_slice().get(within..within.saturating_add(out.len())) {
        Some(bytes) => out.copy_from_slice(bytes),
        None => out.fill(0),
    }
}

/// A write set that changes nothing yet.
pub(super) fn untouched(pin: &Version) -> Changes {
    Changes { pages: BTreeMap::new(), n_pages: pin.n_pages() }
}

/// Makes the write set reach up to page `to`. Pages of the base that were cut off before in this transaction come
/// back as zeros.
pub(super) fn grow(writes: &mut Changes, pin: &Version, to: u32) {
    let returning = writes.n_pages.saturating_add(1)..=to.min(pin.n_pages());
    for no in returning.map(PageNo).filter(|no| *no != pending_page(pin.page_size())) {
        writes.pages.entry(no).or_insert_with(|| Page::zeroed(pin.page_size()));
    }
    writes.n_pages = writes.n_pages.max(to);
}

/// Whether a pager that has page 1 of `old`, and nothing else, may go on as if it were page 1 of `new`.
pub(super) fn has_equal_header(old: &Version, new: &Version) -> bool {
    let firsts = (old.page(PageNo(1)), new.page(PageNo(1)));
    old.n_pages() == new.n_pages() && matches!(firsts, (Some(a), Some(b)) if a.is_same(b))
}
