use super::{BatchInfo, SEGMENT_HEADER, Segment, batch_bytes, decode, encode_batch, good_batch_after};
use crate::base::{Entry, EntryKind, Index, Payload, Prng, Term};
use crate::format::{Class, FormatError};

fn entry(index: u64, len: usize) -> Entry {
    let payload = Payload::from_bytes(&vec![0xa5; len]);
    Entry { index: Index(index), term: Term(2), kind: EntryKind::Command, payload }
}

/// Two batches: entries 1 and 2, entry 3.
fn sample() -> Vec<u8> {
    let mut bytes = SEGMENT_HEADER.to_vec();
    encode_batch(&[entry(1, 16), entry(2, 8)], &mut bytes);
    encode_batch(&[entry(3, 24)], &mut bytes);
    bytes
}

fn end_of(segment: &Segment<'_>) -> String {
    segment.end.as_ref().unwrap_err().text.clone()
}

#[test]
fn batches_are_laid_out_as_c_does_and_read_back() {
    let bytes = sample();
    assert_eq!(bytes.len(), 8 + 72 + 56);
    assert_eq!(batch_bytes(&[entry(1, 16), entry(2, 8)]), 72);
    assert_eq!(bytes[16..24], 2u64.to_le_bytes());
    assert_eq!(bytes[24..40], [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0]);
    let segment = decode(&bytes);
    assert_eq!(segment.end, Ok(()));
    let first = BatchInfo { offset: 8, len: 72, count: 2 };
    let second = BatchInfo { offset: 80, len: 56, count: 1 };
    assert_eq!(segment.batches, [first, second]);
    assert_eq!(segment.entries.iter().map(|entry| entry.payload.len()).collect::<Vec<_>>(), [16, 8, 24]);
    assert_eq!(segment.used, 136);
}

#[test]
fn zeros_after_the_last_batch_end_the_log() {
    let mut bytes = sample();
    bytes.resize(4096, 0);
    let segment = decode(&bytes);
    assert_eq!((segment.used, segment.entries.len(), segment.tail_zero), (136, 3, true));
    assert_eq!(end_of(&segment), "entries batch 3 starting at byte 136: entries count in preamble is zero");
}

#[test]
fn defects_have_the_class_and_text_of_c() {
    let check = |bytes: &[u8], class: Class, text: &str| {
        assert_eq!(decode(bytes).end, Err(FormatError::new(class, text)));
    };
    let change = |at: usize, byte: u8| {
        let mut bytes = sample();
        bytes[at] = byte;
        bytes
    };
    check(&[], Class::Corrupt, "file is empty");
    check(&sample()[..5], Class::Io, "file has only 5 bytes");
    check(&change(0, 2), Class::Corrupt, "unexpected format version 2");
    let second = "entries batch 2 starting at byte 80: ";
    let text = |rest: &str| format!("{second}{rest}");
    check(&change(100, 1), Class::Corrupt, &text("header checksum mismatch"));
    check(&change(120, 1), Class::Corrupt, &text("data checksum mismatch"));
    check(&change(91, 1), Class::Corrupt, &text("entries count 16777217 in preamble is too high"));
    check(&sample()[..83], Class::Io, &text("read preamble: short read: 3 bytes instead of 8"));
    check(&sample()[..86], Class::Io, &text("read preamble: short read: 6 bytes instead of 8"));
    check(&sample()[..92], Class::Io, &text("read preamble: short read: 4 bytes instead of 8"));
    check(&sample()[..100], Class::Io, &text("read header: short read: 4 bytes instead of 16"));
    check(&sample()[..130], Class::Io, &text("read data: short read: 18 bytes instead of 24"));
}

#[test]
fn an_unknown_type_under_a_good_checksum_is_malformed() {
    let mut bytes = sample();
    bytes[104] = 9;
    let crc = crate::base::crc::checksum(0, &bytes[88..112]);
    bytes[80..84].copy_from_slice(&crc.to_le_bytes());
    let segment = decode(&bytes);
    assert_eq!(segment.end.as_ref().unwrap_err().class, Class::Malformed);
    assert!(end_of(&segment).ends_with("expected, found 9"));
    assert_eq!(segment.entries.len(), 2);
}

#[test]
fn no_bytes_make_decoding_panic_and_what_is_used_is_good() {
    let whole = sample();
    let mut prng = Prng::new(3);
    for round in 0..30_000 {
        let mut bytes = whole.clone();
        let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
        bytes[at] ^= prng.next_u64().to_le_bytes()[0];
        bytes.truncate(usize::try_from(prng.below(140)).unwrap());
        let segment = decode(&bytes);
        let used = usize::try_from(segment.used).unwrap();
        assert!(used <= bytes.len(), "round {round}");
        assert_eq!(segment.entries.len() as u64, segment.batches.iter().map(|b| b.count).sum::<u64>());
        if used > 8 {
            assert_eq!(decode(&bytes[..used]).end, Ok(()), "round {round}");
        }
    }
}

#[test]
fn a_good_batch_behind_a_damaged_one_is_found() {
    let mut bytes = sample();
    assert!(!good_batch_after(&bytes, 80), "nothing follows the last batch");
    bytes[60] ^= 1;
    assert_eq!(decode(&bytes).used, 8);
    assert!(good_batch_after(&bytes, 8));
    bytes[120] ^= 1;
    assert!(!good_batch_after(&bytes, 8), "the second one is damaged too");
}
