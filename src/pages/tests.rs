//! What writers, readers, the proposer and the log see of one database.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::base::limits::TRANSACTION_BYTES_MAX;
use crate::base::{PageNo, Prng};

const SIZE: u32 = 512;
const A: WriterId = WriterId(1);
const B: WriterId = WriterId(2);

fn database() -> Arc<Database> {
    Database::new(b"test", SIZE, 3_040_001)
}

fn page(byte: u8) -> Page {
    Page::from_slice(&[byte; SIZE as usize])
}

/// What SQLite would write: page 1 with its counter raised and the page count set, and `pages` filled.
fn changes(pinned: &Version, n_pages: u32, cookie: u8, pages: &[(u32, u8)]) -> Changes {
    let mut first = vec![0; SIZE as usize];
    page1::present(pinned.page(PageNo(1)).unwrap().as_slice(), pinned.counter() + 1, 0, &mut first);
    first[28..32].copy_from_slice(&n_pages.to_be_bytes());
    first[43] = cookie;
    let mut all = BTreeMap::from([(PageNo(1), Page::from_slice(&first))]);
    all.extend(pages.iter().map(|(no, byte)| (PageNo(*no), page(*byte))));
    Changes { pages: all, n_pages }
}

/// One whole transaction of `who` on the newest version.
fn write(db: &Database, who: WriterId, n_pages: u32, cookie: u8, pages: &[(u32, u8)]) -> u64 {
    let pinned = db.pin(View::Head);
    db.reserve(who, &pinned).unwrap();
    let changes = changes(&pinned, n_pages, cookie, pages);
    db.check_commit(who, changes.pages.len() as u64 * u64::from(SIZE)).unwrap();
    let seq = db.publish(who, pinned, changes).seq();
    db.release(who);
    seq
}

fn bytes(version: &Version) -> Vec<Vec<u8>> {
    let zeros = page(0);
    version.pages().map(|(_, page)| page.unwrap_or(&zeros).as_slice().to_vec()).collect()
}

fn take(db: &Database) -> Option<Group> {
    db.take_group(256, 1 << 20)
}

fn replay(group: &Group, into: &Database) {
    let pages: Vec<_> = group.pages.iter().map(|(no, page)| (*no, page.as_slice())).collect();
    if !pages.is_empty() {
        into.apply(&pages).unwrap();
    }
}

fn numbers(group: &Group) -> Vec<u32> {
    group.pages.iter().map(|(no, _)| no.0).collect()
}

#[test]
fn a_finished_transaction_is_seen_by_the_head_view_at_once_and_by_the_committed_one_when_committed() {
    let db = database();
    let seq = write(&db, A, 3, 1, &[(2, 7), (3, 8)]);
    assert_eq!((db.pin(View::Committed).n_pages(), db.pin(View::Head).n_pages()), (1, 3));
    assert_eq!((db.committed_seq(), db.head_seq(), db.speculative_count()), (0, seq, 1));
    assert_eq!(db.speculative_bytes(), 3 * SIZE as usize);
    let before = db.pin(View::Committed);
    assert_eq!(take(&db).unwrap().last_seq, seq);
    db.commit_to(seq);
    assert_eq!(db.pin(View::Committed).page(PageNo(3)), Some(&page(8)));
    assert_eq!((db.speculative_count(), db.speculative_bytes()), (0, 0));
    assert_eq!((before.n_pages(), before.page(PageNo(3))), (1, None));
}

#[test]
fn a_writer_excludes_others_and_a_stale_one_must_begin_again() {
    let db = database();
    let old = db.pin(View::Head);
    db.reserve(A, &old).unwrap();
    assert_eq!(db.reserve(A, &old), Ok(()));
    assert_eq!(db.reserve(B, &old), Err(Refusal::Busy));
    assert_eq!(db.slot_holder(), Some(A));
    db.release(B);
    assert_eq!(db.slot_holder(), Some(A));
    db.release(A);
    write(&db, A, 2, 1, &[(2, 1)]);
    assert_eq!(db.reserve(B, &old), Err(Refusal::Stale));
    db.grant_only(Some(A));
    assert_eq!(db.reserve(B, &db.pin(View::Head)), Err(Refusal::Busy));
    assert_eq!(db.reserve(A, &db.pin(View::Head)), Ok(()));
    db.release(A);
    db.grant_only(None);
    assert_eq!(db.reserve(B, &db.pin(View::Head)), Ok(()));
}

#[test]
fn a_veto_is_told_when_the_slot_is_asked_for_and_at_the_commit() {
    let db = database();
    let pinned = db.pin(View::Head);
    assert_eq!(db.check_commit(A, 1), Err(Veto::LeadershipLost), "without the slot");
    db.reserve(A, &pinned).unwrap();
    assert_eq!(db.check_commit(A, TRANSACTION_BYTES_MAX), Ok(()));
    assert_eq!(db.check_commit(A, TRANSACTION_BYTES_MAX + 1), Err(Veto::Full));
    db.set_writable(Err(Veto::NotLeader));
    assert_eq!(db.check_commit(A, 1), Err(Veto::NotLeader));
    db.release(A);
    assert_eq!(db.reserve(A, &pinned), Err(Refusal::Veto(Veto::NotLeader)));
    assert_eq!(Refusal::Veto(Veto::NotLeader).code(), 10250);
    assert_eq!((Refusal::Busy.code(), Refusal::Stale.code()), (5, 517));
    assert_eq!((Veto::LeadershipLost.code(), Veto::Full.code()), (10506, 13));
}

#[test]
fn transactions_since_the_last_group_leave_as_one_with_the_last_image_of_each_page() {
    let db = database();
    write(&db, A, 4, 1, &[(2, 1), (3, 1), (4, 1)]);
    write(&db, B, 4, 1, &[(3, 2)]);
    let last = write(&db, A, 4, 1, &[(3, 3)]);
    let group = take(&db).unwrap();
    assert_eq!((group.last_seq, group.n_pages, numbers(&group)), (last, 4, vec![1, 2, 3, 4]));
    assert_eq!(group.pages[2].1, page(3));
    assert_eq!(take(&db), None);
    let next = write(&db, A, 4, 1, &[(4, 9)]);
    let group = take(&db).unwrap();
    assert_eq!((group.last_seq, numbers(&group)), (next, vec![4]), "page 1 changed in its counters only");
    let follower = database();
    db.commit_to(next);
    follower.apply(&[]).unwrap_err();
}

#[test]
fn a_transaction_that_changed_counters_only_makes_a_version_and_no_pages() {
    let db = database();
    let seq = write(&db, A, 1, 0, &[]);
    assert_eq!(seq, 1);
    assert_eq!(db.pin(View::Head).counter(), 2, "else the writer's cache would be taken for another content");
    let group = take(&db).unwrap();
    assert_eq!((group.last_seq, group.pages.len()), (1, 0));
    db.commit_to(1);
    assert_eq!(bytes(&db.pin(View::Committed)), bytes(&database().pin(View::Committed)));
}

#[test]
fn a_group_ends_at_its_limits_and_never_splits_a_transaction() {
    let db = database();
    let large: Vec<_> = (2..=20).map(|no| (no, 1)).collect();
    let first = write(&db, A, 20, 1, &large);
    let second = write(&db, A, 20, 1, &[(2, 2)]);
    let third = write(&db, A, 20, 1, &[(3, 2), (4, 2), (5, 2)]);
    let fourth = write(&db, A, 20, 1, &[(2, 3), (6, 4)]);
    let by_pages = db.take_group(4, 1 << 20).unwrap();
    assert_eq!((by_pages.last_seq, by_pages.pages.len()), (first, 20));
    let by_bytes = db.take_group(256, 4 * SIZE as usize).unwrap();
    assert_eq!((by_bytes.last_seq, numbers(&by_bytes)), (third, vec![2, 3, 4, 5]));
    assert_eq!(db.take_group(0, 0).unwrap().last_seq, fourth);
    // The watermark stops in the middle of what was collapsed into one tree.
    let follower = database();
    replay(&by_pages, &follower);
    db.commit_to(first);
    assert_eq!(bytes(&db.pin(View::Committed)), bytes(&follower.pin(View::Committed)));
    assert_eq!(db.pin(View::Committed).page(PageNo(2)), Some(&page(1)));
    db.commit_to(second);
    let committed = db.pin(View::Committed);
    assert_eq!((committed.seq(), committed.page(PageNo(2))), (second, Some(&page(2))));
    assert_eq!(committed.page(PageNo(3)), Some(&page(1)));
    db.commit_to(fourth);
    db.commit_to(first);
    assert_eq!((db.committed_seq(), db.head_seq()), (fourth, fourth));
}

#[test]
fn pages_cut_off_and_grown_again_within_a_group_are_zeros_on_both_sides() {
    let (db, follower) = (database(), database());
    write(&db, A, 6, 1, &[(2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]);
    replay(&take(&db).unwrap(), &follower);
    write(&db, A, 2, 2, &[]);
    write(&db, A, 6, 3, &[(6, 9)]);
    let group = take(&db).unwrap();
    assert_eq!(numbers(&group), [1, 3, 4, 5, 6]);
    replay(&group, &follower);
    assert_eq!(bytes(&follower.pin(View::Committed)), bytes(&db.pin(View::Head)));
    write(&db, A, 9, 4, &[(8, 5), (9, 5)]);
    write(&db, A, 3, 5, &[]);
    let group = take(&db).unwrap();
    assert_eq!((group.n_pages, numbers(&group)), (3, vec![1]), "nothing above the final page count");
    replay(&group, &follower);
    assert_eq!(bytes(&follower.pin(View::Committed)), bytes(&db.pin(View::Head)));
    assert_eq!(follower.pin(View::Committed).pages().count(), 3);
}

#[test]
fn a_shrunk_database_frees_what_it_cut_off() {
    let db = database();
    let held = db.pin(View::Head);
    write(&db, A, 3, 1, &[(2, 1), (3, 1)]);
    let seq = write(&db, A, 2, 2, &[]);
    db.commit_to(seq);
    let weak = Arc::downgrade(&db.pin(View::Committed).page(PageNo(2)).unwrap().shared());
    let seq = write(&db, A, 1, 3, &[]);
    db.commit_to(seq);
    assert!(weak.upgrade().is_none());
    assert_eq!(held.n_pages(), 1);
}

#[test]
fn discarded_versions_are_gone_for_good_and_their_counters_too() {
    let db = database();
    let committed = write(&db, A, 2, 1, &[(2, 1)]);
    db.commit_to(committed);
    let lost = write(&db, A, 2, 1, &[(2, 2)]);
    let reader = db.pin(View::Head);
    let group = take(&db).unwrap();
    db.discard_speculative();
    let now = db.pin(View::Head);
    assert_eq!((now.seq(), now.page(PageNo(2))), (committed, Some(&page(1))));
    assert!(now.counter() > reader.counter());
    assert_eq!(reader.page(PageNo(2)), Some(&page(2)), "whoever pinned it may finish");
    assert_eq!((db.speculative_count(), db.speculative_bytes(), take(&db)), (0, 0, None));
    assert!(db.was_discarded(lost) && !db.was_discarded(committed));
    assert_eq!(db.reserve(B, &reader), Err(Refusal::Stale));
    // The entry commits after all, under the next leader, and comes back from the log.
    replay(&group, &db);
    let next = write(&db, A, 2, 1, &[(2, 3)]);
    db.commit_to(next);
    assert!(next > lost && db.was_discarded(lost) && !db.was_discarded(next));
    assert!(db.pin(View::Head).counter() > now.counter());
}

#[test]
fn a_running_writer_loses_its_ground_with_the_speculation() {
    let db = database();
    let pinned = db.pin(View::Head);
    db.reserve(A, &pinned).unwrap();
    db.discard_speculative();
    assert_eq!(db.check_commit(A, 1), Err(Veto::LeadershipLost));
    assert_eq!(
        db.reserve(B, &db.pin(View::Head)),
        Err(Refusal::Busy),
        "the slot is not free before it rolls back"
    );
    // Discarded between the check and the commit point, which cannot fail.
    let written = pinned.counter() + 1;
    let own = db.publish(A, Arc::clone(&pinned), changes(&pinned, 2, 1, &[(2, 5)]));
    assert!(db.was_discarded(own.seq()));
    assert_eq!(own.page(PageNo(2)), Some(&page(5)), "its connection still reads what it wrote");
    assert_eq!((db.head_seq(), db.pin(View::Head).n_pages(), take(&db)), (0, 1, None));
    assert!(db.pin(View::Head).counter() > written && own.counter() > written);
    db.release(A);
    let seq = write(&db, B, 2, 1, &[(2, 6)]);
    assert!(seq > own.seq());
    assert!(db.pin(View::Head).counter() > own.counter());
}

#[test]
fn an_apply_breaks_the_slot_of_a_transaction_left_open() {
    let (db, leader) = (database(), database());
    db.reserve(A, &db.pin(View::Head)).unwrap();
    write(&leader, A, 2, 1, &[(2, 1)]);
    replay(&take(&leader).unwrap(), &db);
    assert_eq!(db.check_commit(A, 1), Err(Veto::LeadershipLost));
    assert_eq!(db.pin(View::Committed).page(PageNo(2)), Some(&page(1)));
}

#[test]
fn a_deletion_is_a_group_of_its_own_with_one_page() {
    let (db, follower) = (database(), database());
    write(&db, A, 3, 1, &[(2, 1), (3, 1)]);
    let pinned = db.pin(View::Head);
    db.reserve(A, &pinned).unwrap();
    let deleted = db.publish_delete(A, pinned).seq();
    db.release(A);
    let last = write(&db, A, 2, 7, &[(2, 4)]);
    let groups: Vec<_> = std::iter::from_fn(|| take(&db)).collect();
    assert_eq!(groups.iter().map(numbers).collect::<Vec<_>>(), [vec![1, 2, 3], vec![1], vec![1, 2]]);
    assert_eq!(groups.iter().map(|group| group.last_seq).collect::<Vec<_>>(), [1, deleted, last]);
    assert_eq!(page1::page_count(groups[1].pages[0].1.as_slice()), 0);
    for group in &groups {
        replay(group, &follower);
        db.commit_to(group.last_seq);
        assert_eq!(bytes(&db.pin(View::Committed)), bytes(&follower.pin(View::Committed)));
    }
    assert_eq!(follower.pin(View::Committed).n_pages(), 2);
}

#[test]
fn an_entry_that_cannot_be_is_refused_and_changes_nothing() {
    let db = database();
    write(&db, A, 1, 1, &[]);
    let some = page(1);
    let some = some.as_slice();
    assert_eq!(db.apply(&[(PageNo(2), some)]).map(drop), Err(ApplyError::Speculation { transactions: 1 }));
    db.discard_speculative();
    let before = db.pin(View::Committed);
    let zeros = page(0);
    type Pages<'a> = &'a [(PageNo, &'a [u8])];
    let cases: [(Pages<'_>, ApplyError); 7] = [
        (&[], ApplyError::Empty),
        (&[(PageNo(2), &some[1..])], ApplyError::PageSize { expected: SIZE, found: 511 }),
        (&[(PageNo(0), some)], ApplyError::PageNumber { found: 0 }),
        (&[(PageNo(1 << 31), some)], ApplyError::PageNumber { found: 1 << 31 }),
        (&[(pending_page(SIZE), some)], ApplyError::PageNumber { found: (1 << 21) + 1 }),
        (&[(PageNo(1), zeros.as_slice()), (PageNo(2), some)], ApplyError::PageCount { found: 0, pages: 2 }),
        (&[(PageNo(1), &[0xff; 512])], ApplyError::PageCount { found: u32::MAX, pages: 1 }),
    ];
    for (pages, error) in cases {
        assert_eq!(db.apply(pages).map(drop), Err(error.clone()));
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(db.pin(View::Committed).seq(), before.seq());
    assert_eq!(bytes(&db.pin(View::Committed)), bytes(&before));
}

#[test]
fn an_apply_without_page_1_grows_to_its_highest_page_and_the_last_of_equal_numbers_wins() {
    let db = database();
    let (one, two) = (page(1), page(2));
    db.apply(&[(PageNo(5), one.as_slice()), (PageNo(3), one.as_slice()), (PageNo(5), two.as_slice())])
        .unwrap();
    let version = db.pin(View::Committed);
    assert_eq!((version.n_pages(), version.page(PageNo(5)), version.page(PageNo(4))), (5, Some(&two), None));
    db.apply(&[(PageNo(2), one.as_slice())]).unwrap();
    assert_eq!(db.pin(View::Committed).n_pages(), 5);
}

#[test]
fn a_snapshot_comes_back_as_it_was_and_can_replace_a_database_in_use() {
    let db = database();
    let seq = write(&db, A, 4, 1, &[(2, 1), (4, 3)]);
    db.commit_to(seq);
    let state = db.pin(View::Committed);
    let pages = || state.pages().filter_map(|(no, page)| Some((no, page?.clone())));
    let copy = Database::from_snapshot(b"copy", SIZE, pages(), state.n_pages()).unwrap();
    assert_eq!(copy.name(), b"copy");
    assert_eq!(bytes(&copy.pin(View::Committed)), bytes(&state));
    let no_first = Database::from_snapshot(b"x", SIZE, pages().skip(1), 4).unwrap_err();
    assert_eq!(no_first, ApplyError::Missing { page: 1 });
    let above = Database::from_snapshot(b"x", SIZE, pages(), 3).unwrap_err();
    assert_eq!(above, ApplyError::PageNumber { found: 4 });

    let other = database();
    let lost = write(&other, A, 3, 9, &[(3, 3)]);
    let shown = other.pin(View::Head).counter();
    other.restore_from(&copy).unwrap();
    assert_eq!(bytes(&other.pin(View::Head)), bytes(&state));
    assert!(other.was_discarded(lost) && other.committed_seq() > lost);
    assert!(other.pin(View::Head).counter() > shown);
    assert!(other.restore_from(&Database::new(b"y", 1024, 1)).is_err());
}

/// Random transactions, groups, commits, discards and pins: the log replayed elsewhere gives equal bytes at each
/// commit (I8), pinned versions stay as they are (I1), and no counter ever names two contents (I6).
fn random_history(seed: u64) {
    let mut prng = Prng::new(seed);
    let mut below = |bound: u32| u32::try_from(prng.below(u64::from(bound))).unwrap();
    let (mut db, follower) = (database(), database());
    let mut in_flight = std::collections::VecDeque::new();
    let mut pins: Vec<(Arc<Version>, Vec<Vec<u8>>)> = Vec::new();
    let mut contents: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
    for step in 0..600u32 {
        match below(20) {
            0..10 => {
                let old = db.pin(View::Head).n_pages();
                let n_pages = if below(4) == 0 { 1 + below(200) } else { old };
                let count = if below(30) == 0 { 180 } else { below(4) };
                let pages: Vec<_> = (0..count)
                    .map(|_| (2 + below(n_pages.max(2) - 1), u8::try_from(below(256)).unwrap()))
                    .filter(|(no, _)| *no <= n_pages)
                    .collect();
                let cookie = if below(3) == 0 { u8::try_from(step % 256).unwrap() } else { 0 };
                write(&db, A, n_pages, cookie, &pages);
            }
            10..14 => in_flight.extend(db.take_group(1 + below(100) as usize, 1 << 20)),
            14..18 => {
                if let Some(group) = in_flight.pop_front() {
                    replay(&group, &follower);
                    db.commit_to(group.last_seq);
                    let (ours, theirs) = (db.pin(View::Committed), follower.pin(View::Committed));
                    assert_eq!(bytes(&ours), bytes(&theirs), "seed {seed} step {step}");
                }
            }
            18 => {
                let pin = db.pin(if below(2) == 0 { View::Head } else { View::Committed });
                pins.push((Arc::clone(&pin), bytes(&pin)));
            }
            _ if below(3) == 0 => {
                db.discard_speculative();
                for group in in_flight.drain(..) {
                    replay(&group, &db);
                    replay(&group, &follower);
                }
                assert_eq!(bytes(&db.pin(View::Head)), bytes(&follower.pin(View::Committed)));
            }
            _ => {
                db.restore_from(&follower).unwrap();
                in_flight.clear();
            }
        }
        for view in [View::Committed, View::Head] {
            let version = db.pin(view);
            let now = bytes(&version);
            let before = contents.entry(version.counter()).or_insert_with(|| now.clone());
            assert_eq!(*before, now, "seed {seed} step {step}: counter {} twice", version.counter());
        }
    }
    pins.iter().for_each(|(pin, before)| assert_eq!(bytes(pin), *before, "seed {seed}"));
    db = database();
    assert_eq!(db.head_seq(), 0);
}

#[test]
fn the_log_replayed_elsewhere_gives_equal_pages_whatever_happens() {
    (1..=12).for_each(random_history);
}
