use std::sync::Arc;

use super::{Command, Frames, encode_frames};
use crate::base::{DecodeError, PageNo, Prng};

fn two_pages() -> Vec<u8> {
    let page = |byte: u8| -> Arc<[u8]> { vec![byte; 512].into() };
    let payload = encode_frames(b"t", 512, vec![(PageNo(1), page(b'a')), (PageNo(2), page(b'b'))]);
    payload.contiguous().into_owned()
}

#[test]
fn frames_have_the_bytes_that_c_writes() {
    let bytes = two_pages();
    let head: &[u8] = &[
        1, 2, 0, 0, 0, 0, 0, 0, b't', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2,
        0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(bytes[..head.len()], *head);
    assert_eq!(bytes.len(), head.len() + 1024);
    let expected = Frames {
        filename: b"t",
        is_commit: true,
        page_size: 512,
        pages: vec![(PageNo(1), &[b'a'; 512]), (PageNo(2), &[b'b'; 512])],
    };
    assert_eq!(Command::decode(&bytes), Ok(Command::Frames(expected)));
}

#[test]
fn the_other_commands_are_read_although_none_is_written() {
    let open = b"\x01\x01\0\0\0\0\0\0abc\0\0\0\0\0";
    assert_eq!(Command::decode(open), Ok(Command::Open { filename: b"abc" }));
    let undo = b"\x01\x03\0\0\0\0\0\0\x07\0\0\0\0\0\0\0";
    assert_eq!(Command::decode(undo), Ok(Command::Undo { tx_id: 7 }));
    let checkpoint = b"\x01\x04\0\0\0\0\0\0abc\0\0\0\0\0";
    assert_eq!(Command::decode(checkpoint), Ok(Command::Checkpoint { filename: b"abc" }));
}

#[test]
fn every_field_is_checked_and_named() {
    let refused = |at: usize, bytes: &[u8]| {
        let mut command = two_pages();
        command[at..at + bytes.len()].copy_from_slice(bytes);
        Command::decode(&command).map(|_| ()).map_err(|error| error.to_string()).unwrap_err()
    };
    assert_eq!(refused(0, &[2]), "command format: 1 expected, found 2");
    assert!(refused(1, &[9]).starts_with("command type: "));
    assert_eq!(refused(8, &[0]), "database name length: at least 1 byte expected, found 0");
    assert_eq!(refused(32, &[3]), "page count: at most 2, found 3");
    assert_eq!(refused(32, &[255; 4]), "page count: at most 2, found 4294967295");
    assert!(refused(36, &[0, 0]).starts_with("page size: a power of two"));
    assert!(refused(36, &[0, 1]).starts_with("page size: a power of two"));
    assert_eq!(refused(40, &[0]), "page number: at least 1 expected, found 0");
    assert!(refused(40, &[0, 0, 0, 0x80]).starts_with("page number: at most 2147483647"));
    assert!(refused(40, &[1, 0, 0x20, 0]).contains("pending byte"));
}

#[test]
fn a_name_longer_than_a_client_may_give_is_refused() {
    let open = |len: usize| {
        let mut writer = crate::base::Writer::new();
        writer.bytes(&[1, 1, 0, 0, 0, 0, 0, 0]).text(&vec![b'n'; len]);
        Command::decode(writer.as_slice()).map(|_| ())
    };
    assert_eq!(open(504), Ok(()));
    let expected = DecodeError::Range { field: "database name length", max: 504, found: 505 };
    assert_eq!(open(505), Err(expected));
}

#[test]
fn no_bytes_at_all_make_decoding_panic() {
    let whole = two_pages();
    for len in 0..whole.len() {
        assert!(Command::decode(&whole[..len]).is_err(), "{len} bytes of {} were enough", whole.len());
    }
    let mut prng = Prng::new(11);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=prng.below(3) {
            let at = usize::try_from(prng.below(64)).unwrap();
            bytes[at] = prng.next_u64().to_le_bytes()[0];
        }
        if let Ok(Command::Frames(frames)) = Command::decode(&bytes) {
            assert!(frames.pages.iter().all(|(_, page)| page.len() == frames.page_size as usize));
        }
    }
}
