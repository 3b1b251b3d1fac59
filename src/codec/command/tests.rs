use std::sync::Arc;

use super::{Command, Frames, encode_frames, shared_frames, split};
use crate::base::{DecodeError, EntryKind, PageNo, Payload, Prng};

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

type Pages = Vec<(PageNo, Vec<u8>)>;

/// What a payload says when its parts are looked at, and when its bytes are.
fn both_ways(payload: &Payload) -> (Option<Pages>, Option<Pages>) {
    let shared = shared_frames(payload).map(|frames| {
        assert_eq!((frames.filename, frames.is_commit), (&b"t"[..], true));
        frames.pages.iter().map(|(number, page)| (*number, page.to_vec())).collect()
    });
    let bytes = payload.contiguous();
    let decoded = match Command::decode(&bytes) {
        Ok(Command::Frames(frames)) => {
            Some(frames.pages.iter().map(|(number, page)| (*number, page.to_vec())).collect())
        }
        _ => None,
    };
    (shared, decoded)
}

#[test]
fn a_payload_that_came_in_a_row_is_split_into_the_parts_that_it_was_made_of() {
    for tail in [&b""[..], b"whatever"] {
        let bytes = [&two_pages(), tail].concat();
        let payload = split(EntryKind::Command, &bytes);
        assert_eq!(*payload.contiguous(), *bytes);
        let lens: Vec<usize> = payload.parts().map(<[u8]>::len).filter(|len| *len != tail.len()).collect();
        assert_eq!(lens, [56, 512, 512]);
        let (shared, decoded) = both_ways(&payload);
        assert_eq!(shared.as_ref().map(Vec::len), Some(2));
        assert_eq!(shared, decoded);
    }
    // What is no command is not looked into.
    assert_eq!(split(EntryKind::Barrier, &two_pages()).parts().count(), 1);
    assert_eq!(shared_frames(&Payload::from_bytes(&two_pages())), None, "its pages are no parts");
    assert_eq!(shared_frames(&Payload::default()), None);
}

#[test]
fn whatever_the_bytes_and_the_parts_are_both_ways_to_read_them_agree() {
    let whole = two_pages();
    let mut prng = Prng::new(12);
    let mut at = |below: usize| usize::try_from(prng.below(below as u64)).unwrap();
    let mut found = 0;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        // In the head, past the name.
        let place = 9 + at(50);
        bytes[place] = [0, 1, 2, 3, 8, 255][at(6)];
        bytes.truncate(whole.len() - [0, 8, 512][at(3)]);
        let payload = split(EntryKind::Command, &bytes);
        assert_eq!(*payload.contiguous(), *bytes);
        // Cut anywhere, as nobody does it.
        let odd = at(bytes.len());
        let pieces = [&bytes[..odd], &bytes[odd..]].map(Arc::from).to_vec();
        for payload in [payload, Payload::from_parts(pieces)] {
            let command = payload.contiguous();
            let sound = Command::decode(&command);
            if !matches!(&sound, Ok(Command::Frames(frames)) if frames.filename == b"t" && frames.is_commit) {
                assert!(sound.is_ok() || shared_frames(&payload).is_none(), "{sound:?}");
                continue;
            }
            let (shared, decoded) = both_ways(&payload);
            assert!(shared.is_none() || shared == decoded);
            found += usize::from(shared.is_some());
        }
    }
    assert!(found > 2_000, "{found}");
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
