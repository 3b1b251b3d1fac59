use super::{ClosedSegment, Listing, Log, LogPlan, SegmentFile, Settings, SnapshotFiles, Step, plan_log};
use crate::base::{Entry, EntryKind, Index, Payload, Term};
use crate::format::FormatError;
use crate::format::names::{SnapshotName, closed_name, open_name};
use crate::format::segment::{SEGMENT_HEADER, decode, encode_batch};

/// The bytes of a segment with entries `first` to `last`, each a batch, the payload telling index and `salt`.
fn segment_bytes(first: u64, last: u64, salt: u8) -> Vec<u8> {
    let mut bytes = SEGMENT_HEADER.to_vec();
    for index in first..=last {
        let kind = if index == 1 { EntryKind::Change } else { EntryKind::Command };
        let payload = Payload::from_bytes(&[index.to_le_bytes()[0], salt, 0, 0, 0, 0, 0, 0]);
        encode_batch(&[Entry { index: Index(index), term: Term(1), kind, payload }], &mut bytes);
    }
    bytes
}

fn file(name: &str, bytes: &[u8]) -> SegmentFile {
    SegmentFile::new(name, &decode(bytes), bytes)
}

fn closed_of(first: u64, last: u64, bytes: &[u8]) -> ClosedSegment {
    let (first, last) = (Index(first), Index(last));
    ClosedSegment { first, last, file: file(&closed_name(first, last), bytes) }
}

fn closed(first: u64, last: u64) -> ClosedSegment {
    closed_of(first, last, &segment_bytes(first, last, 0))
}

fn open(counter: u64, first: u64, last: u64) -> SegmentFile {
    let mut bytes = segment_bytes(first, last, 0);
    bytes.resize(4096, 0);
    file(&open_name(counter), &bytes)
}

fn snapshot(term: u64, index: u64) -> SnapshotFiles {
    let name = SnapshotName { term: Term(term), index: Index(index), time: 5 };
    SnapshotFiles { name, data: crate::format::names::snapshot_name(name), size: 100 }
}

const RECOVER: Settings = Settings { auto_recovery: true, aside_ns: 9 };
const STRICT: Settings = Settings { auto_recovery: false, aside_ns: 9 };

fn plan(log: &Log, at: Option<u64>, settings: Settings) -> Result<LogPlan, FormatError> {
    plan_log(log, at.map(|index| snapshot(1, index)).as_ref(), Index(0), settings)
}

fn range(plan: &LogPlan) -> (u64, u64) {
    (plan.first_index.0, plan.last_index().0)
}

fn refusal(log: &Log, at: Option<u64>, settings: Settings) -> String {
    plan(log, at, settings).map(|plan| range(&plan)).unwrap_err().text
}

#[test]
fn an_empty_directory_and_a_snapshot_alone_have_an_empty_log() {
    assert_eq!(range(&plan(&Log::default(), None, STRICT).unwrap()), (1, 0));
    assert_eq!(range(&plan(&Log::default(), Some(24), STRICT).unwrap()), (25, 24));
}

#[test]
fn open_segments_follow_the_last_closed_one_or_the_snapshot() {
    let log = Log { closed: vec![closed(1, 4)], open: vec![open(1, 5, 6), open(3, 7, 7)] };
    let found = plan(&log, None, STRICT).unwrap();
    assert_eq!(range(&found), (1, 7));
    let cut = |name: &str, len, to: &str| Step::Cut { name: name.to_owned(), len, to: to.to_owned() };
    let expected = [
        cut("open-1", 88, "0000000000000005-0000000000000006"),
        cut("open-3", 48, "0000000000000007-0000000000000007"),
    ];
    assert_eq!(found.steps, expected);
    let log = Log { closed: Vec::new(), open: vec![open(1, 25, 26)] };
    assert_eq!(range(&plan(&log, Some(24), STRICT).unwrap()), (25, 26));
}

#[test]
fn a_segment_named_as_if_it_ended_before_it_began_is_deleted() {
    let log = Log { closed: vec![closed(1, 4), closed_of(5, 4, &SEGMENT_HEADER)], open: vec![open(1, 5, 5)] };
    let found = plan(&log, None, STRICT).unwrap();
    assert_eq!(range(&found), (1, 5));
    assert_eq!(found.steps[0], Step::Unlink { name: closed_name(Index(5), Index(4)) });
}

#[test]
fn segments_before_the_snapshot_stay_if_they_reach_it_and_are_passed_over_if_not() {
    let log = Log { closed: vec![closed(3, 4), closed(7, 10)], open: Vec::new() };
    assert_eq!(range(&plan(&log, Some(8), STRICT).unwrap()), (7, 10));
    assert_eq!(range(&plan(&log, Some(12), STRICT).unwrap()), (13, 12));
    let text = refusal(&log, Some(5), STRICT);
    assert!(text.starts_with(
        "closed segment 0000000000000007-0000000000000010 is past last snapshot snapshot-1-5-5"
    ));
}

#[test]
fn an_open_segment_that_begins_before_the_snapshot_and_ends_behind_it_follows_the_closed_ones() {
    let log = Log { closed: vec![closed(1, 10)], open: vec![open(2, 11, 30)] };
    let found = plan(&log, Some(20), STRICT).unwrap();
    assert_eq!(range(&found), (1, 30));
    assert_eq!(found.closed, [(Index(1), Index(10)), (Index(11), Index(30))]);
    assert!(found.notes.is_empty(), "{:?}", found.notes);
}

#[test]
fn damage_before_the_snapshot_costs_nothing_in_either_setting() {
    let mut bytes = segment_bytes(5, 8, 0);
    bytes[60] ^= 1;
    let log = Log {
        closed: vec![closed(3, 4), closed_of(5, 8, &bytes), closed(9, 10)],
        open: vec![open(1, 11, 11)],
    };
    for settings in [RECOVER, STRICT] {
        let found = plan(&log, Some(8), settings).unwrap();
        assert_eq!(range(&found), (9, 11));
        let name = closed_name(Index(5), Index(8));
        assert_eq!(found.steps[0], Step::Rename { to: format!("corrupt-9-{name}"), from: name });
    }
    assert!(
        refusal(&log, Some(7), RECOVER)
            .starts_with("load closed segment 0000000000000005-0000000000000008: ")
    );
}

#[test]
fn a_damaged_end_before_the_snapshot_is_forgotten_with_all_that_came_before() {
    let mut bytes = segment_bytes(5, 12, 0);
    bytes[100] ^= 1;
    let log = Log { closed: vec![closed(3, 4), closed_of(5, 12, &bytes)], open: Vec::new() };
    assert_eq!(range(&plan(&log, Some(8), RECOVER).unwrap()), (9, 8));
    assert!(plan(&log, Some(8), STRICT).is_err());
}

#[test]
fn what_follows_a_torn_end_is_put_aside_or_refused_but_never_moved_up() {
    let mut torn = segment_bytes(5, 7, 0);
    torn[8 + 40 + 33] ^= 1;
    torn.truncate(8 + 80);
    torn.resize(4096, 0);
    let log = Log { closed: vec![closed(1, 4)], open: vec![file("open-1", &torn), open(2, 8, 9)] };
    let found = plan(&log, None, RECOVER).unwrap();
    assert_eq!(range(&found), (1, 5));
    assert_eq!(found.steps[1], Step::Rename { from: "open-2".to_owned(), to: "corrupt-9-open-2".to_owned() });
    let text = refusal(&log, None, STRICT);
    assert!(
        text.starts_with("load open segment open-1: entries batch 2 starting at byte 48: data checksum"),
        "{text}"
    );
    assert!(text.ends_with("open-2 follows and has no certain place in the log"), "{text}");
}

#[test]
fn a_segment_prepared_behind_a_torn_end_or_a_cut_short_truncation_stands_in_nobodys_way() {
    let mut torn = segment_bytes(5, 6, 0);
    torn[8 + 40 + 33] ^= 1;
    let mut prepared = SEGMENT_HEADER.to_vec();
    prepared.resize(4096, 0);
    let unlink = Step::Unlink { name: "open-2".to_owned() };
    let mut log =
        Log { closed: vec![closed(1, 4)], open: vec![file("open-1", &torn), file("open-2", &prepared)] };
    for settings in [RECOVER, STRICT] {
        let found = plan(&log, None, settings).unwrap();
        assert_eq!(range(&found), (1, 5));
        assert_eq!(found.steps.last(), Some(&unlink));
    }
    log.closed.push(closed(1, 2));
    log.open.remove(0);
    let found = plan(&log, None, STRICT).unwrap();
    assert_eq!(found.steps, [Step::Unlink { name: closed_name(Index(1), Index(2)) }, unlink]);
}

#[test]
fn a_beginning_beside_the_whole_is_dropped_only_if_it_says_the_same() {
    let mut log = Log { closed: vec![closed(1, 4), closed(1, 2), closed(5, 6)], open: Vec::new() };
    let found = plan(&log, None, STRICT).unwrap();
    assert_eq!(range(&found), (1, 6));
    assert_eq!(found.steps, [Step::Unlink { name: closed_name(Index(1), Index(2)) }]);

    log.open = vec![open(1, 7, 7)];
    assert!(
        refusal(&log, None, RECOVER)
            .starts_with("unexpected closed segment 0000000000000001-0000000000000002")
    );
    log.open.clear();
    log.closed[1] = closed_of(1, 2, &segment_bytes(1, 2, 7));
    let text = refusal(&log, None, RECOVER);
    assert!(text.ends_with("first index should have been 5; found 1 to 2"), "{text}");
}

#[test]
fn a_name_that_promises_fewer_entries_than_there_are_is_kept_to() {
    let log = Log { closed: vec![closed_of(1, 2, &segment_bytes(1, 3, 0))], open: Vec::new() };
    assert!(refusal(&log, None, STRICT).contains("found 3 entries (expected 2)"));
    let found = plan(&log, None, RECOVER).unwrap();
    assert_eq!(range(&found), (1, 2));
    assert!(matches!(&found.steps[..], [Step::Copy { .. }, Step::Cut { len: 88, .. }]), "{:?}", found.steps);
}

#[test]
fn names_of_another_width_are_made_the_usual_ones() {
    let mut segment = closed(1, 3);
    segment.file.name = "1-3".to_owned();
    let found = plan(&Log { closed: vec![segment], open: Vec::new() }, None, STRICT).unwrap();
    let to = closed_name(Index(1), Index(3));
    assert_eq!(found.steps, [Step::Rename { from: "1-3".to_owned(), to }]);
}

#[test]
fn the_log_must_reach_the_newer_snapshot_that_is_damaged() {
    let log = Log { closed: vec![closed(9, 20)], open: vec![open(1, 21, 22)] };
    let older = snapshot(1, 16);
    assert_eq!(range(&plan_log(&log, Some(&older), Index(20), STRICT).unwrap()), (9, 22));
    let error = plan_log(&log, Some(&older), Index(21), STRICT).unwrap_err().text;
    assert_eq!(error, "closed segments up to index 21 expected, found up to 20");
}

#[test]
fn a_listing_puts_the_term_of_a_snapshot_before_its_index_and_knows_halves() {
    let file = |name: &str| (name.to_owned(), 10);
    let files = [
        "snapshot-1-17-9",
        "snapshot-1-17-9.meta",
        "snapshot-2-16-3",
        "snapshot-2-16-3.meta",
        "snapshot-3-1-44",
        "snapshot-3-2-1.meta",
        "tmp-x",
        ".probe",
        "open-10",
        "open-9",
        "2-3",
        "1-1",
        "corrupt-77-open-1",
        "other",
    ];
    let listing = Listing::new(&files.map(file));
    let snapshots: Vec<&str> = listing.snapshots.iter().map(|files| files.data.as_str()).collect();
    assert_eq!(snapshots, ["snapshot-2-16-3", "snapshot-1-17-9"]);
    assert_eq!(listing.orphans, ["snapshot-3-1-44", "snapshot-3-2-1.meta"]);
    assert_eq!(listing.temporary, ["tmp-x", ".probe"]);
    assert_eq!(listing.open, ["open-9", "open-10"]);
    assert_eq!(listing.closed.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["1-1", "2-3"]);
    assert_eq!((listing.newest_time, listing.aside_ns), (44, 78));
}
