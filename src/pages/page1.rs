//! Page 1: what of its header is stored, what is shown to SQLite, and what makes it worth replicating.
//!
//! Stored, and so replicated and in snapshots: bytes 18 and 19 say write-ahead log, because the nodes of the C
//! library would leave that mode otherwise; 24 and 92 hold the same change counter, which grows by one with each
//! stored image. Shown to SQLite here: bytes 18 and 19 say rollback journal, or it would look for a log file; the
//! two counters are the version's, which is how SQLite notices that its page cache is out of date.

use std::ops::Range;

use super::Page;

const FORMATS: Range<usize> = 18..20;
const COUNTER: Range<usize> = 24..28;
const PAGE_COUNT: Range<usize> = 28..32;
const COOKIE: Range<usize> = 40..44;
const VALID_FOR: Range<usize> = 92..96;
const HEADER: usize = 100;
/// The version-valid-for number of a database that was deleted: deliberately not its change counter.
const DELETED: u32 = 0x0100_0000;

/// Page 1 of a new database, as every node makes it by itself.
#[must_use]
pub fn base(page_size: u32, sqlite_version: u32) -> Page {
    let mut image = vec![0; page_size as usize];
    // 65536 is written as 1, being 0x10000 without its low half.
    let [_, high, low, last] = page_size.to_be_bytes();
    let size = if high == 1 { [0, 1] } else { [low, last] };
    put(&mut image, 0..16, b"SQLite format 3\0");
    put(&mut image, 16..18, &size);
    put(&mut image, FORMATS, &[2, 2]);
    put(&mut image, 21..24, &[0x40, 0x20, 0x20]);
    put(&mut image, COUNTER, &1u32.to_be_bytes());
    put(&mut image, PAGE_COUNT, &1u32.to_be_bytes());
    put(&mut image, VALID_FOR, &1u32.to_be_bytes());
    put(&mut image, 96..100, &sqlite_version.to_be_bytes());
    put(&mut image, 100..101, &[0x0d]);
    // The start of the cell content; 65536 is written as 0.
    put(&mut image, 105..107, &[low, last]);
    Page::from_slice(&image)
}

/// Copies the bytes of page 1 from `at` on into `out`, as SQLite is to see them.
///
/// `out` that reaches past the end of the page is left as it is there.
pub fn present(stored: &[u8], counter: u32, at: usize, out: &mut [u8]) {
    let tail = stored.get(at..).unwrap_or_default();
    out.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
    let counter = counter.to_be_bytes();
    for (range, bytes) in [(FORMATS, &[1, 1][..]), (COUNTER, &counter), (VALID_FOR, &counter)] {
        for (place, byte) in range.zip(bytes) {
            if let Some(to) = place.checked_sub(at).and_then(|place| out.get_mut(place)) {
                *to = *byte;
            }
        }
    }
}

/// The image to store when SQLite wrote `written` over `previous`: none when nothing but counters and the
/// version of SQLite changed, so that `previous` stays and need not be replicated.
#[must_use]
pub fn normalise(written: &[u8], previous: &[u8], n_pages: u32) -> Option<Page> {
    let same = |range: Range<usize>| written.get(range.clone()) == previous.get(range);
    if same(0..18)
        && same(20..24)
        && page_count(previous) == n_pages
        && same(32..92)
        && same(HEADER..written.len().max(previous.len()))
    {
        return None;
    }
    let mut image = written.to_vec();
    put(&mut image, FORMATS, &[2, 2]);
    put(&mut image, PAGE_COUNT, &n_pages.to_be_bytes());
    let counter = get(previous, COUNTER).wrapping_add(1).to_be_bytes();
    put(&mut image, COUNTER, &counter);
    put(&mut image, VALID_FOR, &counter);
    Some(Page::from_slice(&image))
}

/// The only page of a database that was just deleted: an empty schema, and the mark that says so to each node.
#[must_use]
pub fn marker(previous: &[u8]) -> Page {
    let mut image = vec![0; previous.len()];
    put(&mut image, 0..HEADER, previous.get(..HEADER).unwrap_or_default());
    put(&mut image, FORMATS, &[2, 2]);
    let counter = match get(previous, COUNTER).wrapping_add(1) {
        DELETED => DELETED + 1,
        other => other,
    };
    put(&mut image, COUNTER, &counter.to_be_bytes());
    put(&mut image, VALID_FOR, &DELETED.to_be_bytes());
    // Page count and freelist; default cache size and largest root; user version, vacuum mode, application.
    put(&mut image, 28..40, &[0; 12]);
    put(&mut image, 48..56, &[0; 8]);
    put(&mut image, 60..72, &[0; 12]);
    // Other connections must read the schema again.
    put(&mut image, COOKIE, &get(previous, COOKIE).wrapping_add(1).to_be_bytes());
    put(&mut image, HEADER..HEADER + 1, &[0x0d]);
    let [_, _, low, last] = u32::try_from(previous.len()).unwrap_or_default().to_be_bytes();
    put(&mut image, 105..107, &[low, last]);
    Page::from_slice(&image)
}

/// The page count that the header gives; 0 in a deletion mark.
#[must_use]
pub fn page_count(image: &[u8]) -> u32 {
    get(image, PAGE_COUNT)
}

/// The change counter in the header.
#[must_use]
pub fn counter(image: &[u8]) -> u32 {
    get(image, COUNTER)
}

/// Whether an image of ours may be stored for a database of `n_pages` pages (invariant I10).
#[must_use]
pub fn is_sound(image: &[u8], n_pages: u32) -> bool {
    let counters = (get(image, COUNTER), get(image, VALID_FOR));
    let deleted = page_count(image) == 0 && n_pages == 1 && counters.1 == DELETED;
    image.get(FORMATS) == Some(&[2, 2])
        && (deleted || (counters.0 == counters.1 && page_count(image) == n_pages))
}

fn get(image: &[u8], range: Range<usize>) -> u32 {
    image.get(range).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn put(image: &mut [u8], range: Range<usize>, bytes: &[u8]) {
    if let Some(place) = image.get_mut(range) {
        place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use super::{base, counter, is_sound, marker, normalise, page_count, present};

    #[test]
    fn the_base_page_is_the_one_of_the_c_library() {
        let page = base(4096, 3_040_001);
        let mut expected = [0u8; 4096];
        expected[..16].copy_from_slice(b"SQLite format 3\0");
        for (at, byte) in [(16, 0x10), (18, 2), (19, 2), (21, 0x40), (22, 0x20), (23, 0x20), (27, 1), (31, 1)]
        {
            expected[at] = byte;
        }
        for (at, byte) in [(95, 1), (96, 0), (97, 0x2e), (98, 0x63), (99, 0x01), (100, 0x0d), (105, 0x10)] {
            expected[at] = byte;
        }
        assert_eq!(page.as_slice(), expected);
        assert!(is_sound(page.as_slice(), 1));
        let large = base(65536, 1);
        assert_eq!((&large.as_slice()[16..18], &large.as_slice()[105..107]), (&[0, 1][..], &[0, 0][..]));
    }

    #[test]
    fn a_part_of_page_1_is_shown_like_the_whole() {
        let page = base(512, 1);
        let mut whole = [0; 512];
        present(page.as_slice(), 0x0102_0304, 0, &mut whole);
        assert_eq!(whole[16..28], [2, 0, 1, 1, 0, 0x40, 0x20, 0x20, 1, 2, 3, 4]);
        assert_eq!(whole[92..96], [1, 2, 3, 4]);
        for at in 0..130 {
            for len in 0..40 {
                let mut part = vec![0xff; len];
                present(page.as_slice(), 0x0102_0304, at, &mut part);
                assert_eq!(part, whole[at..at + len], "{len} bytes at {at}");
            }
        }
        let mut past = [7; 4];
        present(page.as_slice(), 1, 510, &mut past);
        assert_eq!(past, [0, 0, 7, 7]);
    }

    #[test]
    fn counters_alone_are_not_worth_storing_and_anything_else_is() {
        let previous = base(512, 1);
        for at in 0..512 {
            let mut written = previous.as_slice().to_vec();
            written[at] ^= 0x55;
            let stored = normalise(&written, previous.as_slice(), 1);
            let ignored = matches!(at, 18 | 19 | 24..=31 | 92..=99);
            assert_eq!(stored.is_none(), ignored, "byte {at}");
            if let Some(stored) = stored {
                assert!(is_sound(stored.as_slice(), 1), "byte {at}");
                assert_eq!(counter(stored.as_slice()), 2);
            }
        }
        let grown = normalise(previous.as_slice(), previous.as_slice(), 9).expect("the size changed");
        assert_eq!(page_count(grown.as_slice()), 9);
    }

    #[test]
    fn a_deletion_mark_has_no_pages_and_counters_that_differ() {
        let mut previous = base(512, 1).as_slice().to_vec();
        previous[24..28].copy_from_slice(&0x00ff_ffffu32.to_be_bytes());
        previous[300] = 9;
        let mark = marker(&previous);
        let image = mark.as_slice();
        assert_eq!(page_count(image), 0);
        assert_eq!(image[92..96], [1, 0, 0, 0]);
        assert_ne!(image[24..28], image[92..96]);
        assert_eq!((image[43], image[100], image[105], image[300]), (1, 0x0d, 2, 0));
        assert!(is_sound(image, 1) && !is_sound(image, 2));
    }
}
