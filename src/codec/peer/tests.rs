use std::sync::Arc;

use super::*;
use crate::base::{Entry, EntryKind, Index, NodeId, PageNo, Payload, Prng, Role, Term, limits};
use crate::codec::command;
use crate::codec::membership::{Configuration, Server};

fn entry(index: u64, kind: EntryKind, bytes: &[u8]) -> Entry {
    Entry { index: Index(index), term: Term(2), kind, payload: Payload::from_bytes(bytes) }
}

fn append(prev: u64, entries: Vec<Entry>) -> AppendEntries {
    let (term, prev_term) = (Term(3), Term(2));
    AppendEntries { term, prev_index: Index(prev), prev_term, commit: Index(4), entries }
}

fn vote(disrupt_leader: bool, pre_vote: bool) -> Message {
    let (term, candidate, last_index, last_term) = (Term(9), NodeId(7), Index(12), Term(8));
    Message::RequestVote(RequestVote { term, candidate, last_index, last_term, disrupt_leader, pre_vote })
}

fn snapshot(data_bytes: u64) -> InstallSnapshot {
    let server = Server { id: NodeId(1), address: "127.0.0.1:9001".to_owned(), role: Role::Voter };
    let configuration = Configuration { servers: vec![server] };
    InstallSnapshot {
        term: Term(3),
        last_index: Index(40),
        last_term: Term(2),
        configuration_index: Index(5),
        configuration_bytes: configuration.encode(),
        configuration,
        data_bytes,
    }
}

/// One of each kind and width that we write.
fn messages() -> Vec<Message> {
    let (term, rejected, last_index) = (Term(3), 0, Index(12));
    let result = |features| Message::AppendResult(AppendResult { term, rejected, last_index, features });
    let answer = |granted, pre_vote| Message::VoteResult(VoteResult { term, granted, pre_vote });
    let entries = vec![
        entry(6, EntryKind::Command, &[1; 24]),
        entry(7, EntryKind::Barrier, &[0; 8]),
        entry(8, EntryKind::Change, &snapshot(0).configuration_bytes),
    ];
    vec![
        Message::AppendEntries(append(5, entries)),
        Message::AppendEntries(append(u64::MAX, Vec::new())),
        result(None),
        result(Some(0)),
        vote(false, false),
        vote(true, false),
        vote(false, true),
        answer(true, None),
        answer(true, Some(false)),
        answer(false, Some(true)),
        Message::TimeoutNow(TimeoutNow { term, last_index, last_term: Term(2) }),
    ]
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out).unwrap();
    out
}

/// Everything in `bytes`, which is pushed in one piece.
fn decoded(bytes: &[u8]) -> Result<Vec<Incoming>, PeerError> {
    let (mut reader, mut all) = (PeerReader::new(), Vec::new());
    reader.push(bytes);
    while let Some(incoming) = reader.next_incoming()? {
        all.push(incoming);
    }
    Ok(all)
}

/// How a message that is nothing but a frame and these words is refused.
fn refused(words: &[u64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    decoded(&bytes).unwrap_err().to_string()
}

#[test]
fn every_message_comes_back_as_it_was_sent() {
    let bytes = messages().iter().map(encoded).collect::<Vec<_>>().concat();
    let expected: Vec<Incoming> = messages().into_iter().map(Incoming::Message).collect();
    assert_eq!(decoded(&bytes), Ok(expected));
}

#[test]
fn cutting_the_stream_anywhere_changes_nothing() {
    let mut prng = Prng::new(11);
    let mut bytes = messages().iter().map(encoded).collect::<Vec<_>>().concat();
    bytes.extend(encoded(&Message::InstallSnapshot(snapshot(5000))));
    bytes.extend((0..5000_u32).map(|i| i.to_le_bytes()[0]));
    bytes.extend(encoded(&vote(true, false)));
    for _ in 0..200 {
        let (mut reader, mut found, mut data) = (PeerReader::new(), Vec::new(), Vec::new());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let len = usize::try_from(1 + prng.below(300)).unwrap().min(rest.len());
            let (piece, behind) = rest.split_at(len);
            rest = behind;
            reader.push(piece);
            while let Some(incoming) = reader.next_incoming().unwrap() {
                match incoming {
                    Incoming::SnapshotBytes(chunk) => data.extend(chunk),
                    other => found.push(other),
                }
            }
        }
        let mut expected: Vec<Incoming> = messages().into_iter().map(Incoming::Message).collect();
        expected.push(Incoming::Message(Message::InstallSnapshot(snapshot(5000))));
        expected.push(Incoming::SnapshotEnd);
        expected.push(Incoming::Message(vote(true, false)));
        assert_eq!(found, expected);
        assert!(data.iter().enumerate().all(|(i, &byte)| byte == i.to_le_bytes()[0]) && data.len() == 5000);
        assert!(reader.is_between_messages());
    }
}

#[test]
fn a_snapshot_without_data_ends_at_once() {
    let head = Message::InstallSnapshot(snapshot(0));
    assert_eq!(decoded(&encoded(&head)), Ok(vec![Incoming::Message(head), Incoming::SnapshotEnd]));
}

#[test]
fn the_opening_bytes_are_those_that_c_sends() {
    let (word, request) = encode_connect(NodeId(1), "127.0.0.1:21301");
    assert_eq!(word, *b"\x01\0\0\0\0\0\0\0");
    assert_eq!(request, b"\x03\0\0\0\x0b\0\0\0\x01\0\0\0\0\0\0\x00127.0.0.1:21301\0");
}

#[test]
fn headers_have_the_lengths_that_c_declares() {
    let length = |message: &Message| u64::from_le_bytes(encoded(message)[8..16].try_into().unwrap());
    let found: Vec<u64> = messages().iter().map(length).collect();
    assert_eq!(found, [96, 48, 24, 32, 40, 40, 40, 16, 24, 24, 24]);
    assert_eq!(length(&Message::InstallSnapshot(snapshot(8232))), 48 + 40);
}

#[test]
fn trailing_unused_and_upper_bytes_are_ignored() {
    let heartbeat = Message::AppendEntries(append(5, vec![entry(6, EntryKind::Command, &[1; 8])]));
    let mut bytes = encoded(&heartbeat);
    bytes[2..8].fill(0xee);
    bytes[16 + 49..16 + 52].fill(0xaa);
    bytes[16 + 56..16 + 64].fill(0xbb);
    assert_eq!(decoded(&bytes), Ok(vec![Incoming::Message(heartbeat.clone())]));
    // Without the trailing word.
    let mut short = encoded(&heartbeat);
    short[8] -= 8;
    short.drain(16 + 56..16 + 64);
    assert_eq!(decoded(&short), Ok(vec![Incoming::Message(heartbeat)]));
    // A snapshot as releases up to 1.18.6 send it.
    let head = Message::InstallSnapshot(snapshot(0));
    let mut long = encoded(&head);
    long[8] += 8;
    long.extend([0xcc; 8]);
    assert_eq!(decoded(&long), Ok(vec![Incoming::Message(head), Incoming::SnapshotEnd]));
}

#[test]
fn what_1_18_7_refuses_is_refused_with_what_was_expected_and_found() {
    assert_eq!(refused(&[1, 0]), "header of entries: at least 40 bytes expected, found 0");
    assert_eq!(refused(&[99, 24]), "message type: 1 to 6 expected, found 99");
    assert_eq!(refused(&[1, (4 << 20) + 8]), "bytes of a header: at most 4194304, found 4194312");
    assert_eq!(refused(&[2, 40]), "header of an answer to entries: 24 or 32 bytes expected, found 40");
    assert_eq!(refused(&[3, 48]), "header of a request for a vote: 32 or 40 bytes expected, found 48");
    let text = "header of an answer to a request for a vote: 16 or 24 bytes expected, found 32";
    assert_eq!(refused(&[4, 32]), text);
    assert_eq!(refused(&[5, 40]), "header of a snapshot: at least 48 bytes expected, found 40");
    assert_eq!(refused(&[6, 16]), "header of a call to take over: 24 bytes expected, found 16");
    assert_eq!(refused(&[1, 40, 1, 0, 0, 0, 1]), "number of entries: at most 0, found 1");
    assert_eq!(
        refused(&[1, 56, 1, 0, 0, 0, u64::MAX, 0, 0]),
        format!("number of entries: at most 1, found {}", u64::MAX)
    );
    let entry = |kind: u64, length: u64| refused(&[1, 56, 1, 0, 0, 0, 1, 1, kind | length << 32]);
    let text = "type of an entry: 1 (command), 2 (barrier) or 3 (change) expected, found 9";
    assert_eq!(entry(9, 8), text);
    assert_eq!(entry(1, 9), "bytes of an entry: a multiple of 8 expected, found 9");
    let text = "bytes of a message's entries: at most 524288000, found 524288008";
    assert_eq!(entry(1, 524_288_008), text);
    let text = refused(&[1, 56, 1, u64::MAX, 0, 0, 1, 1, 1]);
    assert_eq!(text, format!("index before the entries: at most {}, found {}", u64::MAX - 1, u64::MAX));
    let configuration = |length, bytes: &[u64]| {
        let words = [&[5, 40 + 8 * bytes.len() as u64, 1, 1, 1, 1, length], bytes].concat();
        refused(&words)
    };
    assert_eq!(configuration(8, &[2, 0]), "snapshot: configuration: encoding version: 1 expected, found 2");
    let text = "bytes of a snapshot's configuration: at most 8, found 16";
    assert_eq!(configuration(16, &[1]), text);
}

#[test]
fn an_address_without_end_is_refused() {
    let mut bytes = encoded(&Message::InstallSnapshot(snapshot(0)));
    // Address, its NUL, role and padding.
    bytes[16 + 40 + 17..16 + 40 + 40].fill(b'a');
    let text = "snapshot: configuration: server address: no NUL byte at its end";
    assert_eq!(decoded(&bytes).unwrap_err().to_string(), text);
}

#[test]
fn after_bytes_that_are_no_message_nothing_is_read_any_more() {
    let mut reader = PeerReader::new();
    reader.push(&[99, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0]);
    let error = reader.next_incoming().unwrap_err();
    reader.push(&encoded(&vote(false, false)));
    assert_eq!(reader.next_incoming(), Err(error));
}

#[test]
fn memory_follows_the_bytes_that_came_not_the_announced_length() {
    let long = append(0, vec![entry(1, EntryKind::Command, &[0; 8]); 1]);
    let mut bytes = encode_head(&long).unwrap();
    bytes[16 + 52..16 + 56].copy_from_slice(&524_288_000_u32.to_le_bytes());
    let mut reader = PeerReader::new();
    reader.push(&bytes);
    reader.push(&[0; 1000]);
    assert_eq!(reader.next_incoming(), Ok(None));
    reader.push(&[0; 1000]);
    assert_eq!(reader.next_incoming(), Ok(None));
    assert!(reader.capacity() < 8192, "{} bytes reserved", reader.capacity());

    let mut reader = PeerReader::new();
    reader.push(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0]);
    assert_eq!(reader.next_incoming(), Ok(None));
    assert!(reader.capacity() < 8192, "{} bytes reserved", reader.capacity());
}

#[test]
fn a_snapshot_is_never_held_as_a_whole() {
    let mut reader = PeerReader::new();
    reader.push(&encoded(&Message::InstallSnapshot(snapshot(1 << 40))));
    assert!(matches!(reader.next_incoming(), Ok(Some(Incoming::Message(Message::InstallSnapshot(_))))));
    for _ in 0..10_000 {
        reader.push(&[7; 1000]);
        assert_eq!(reader.next_incoming(), Ok(Some(Incoming::SnapshotBytes(vec![7; 1000]))));
        assert_eq!(reader.next_incoming(), Ok(None));
    }
    assert!(reader.capacity() < 8192, "{} bytes reserved", reader.capacity());
}

#[test]
fn the_head_with_the_parts_of_the_payloads_is_the_whole_message() {
    let parts = vec![Arc::from([1; 8].as_slice()), Arc::from([2; 16].as_slice())];
    let payload = Payload::from_parts(parts);
    let message = append(5, vec![Entry { payload, ..entry(6, EntryKind::Command, &[]) }]);
    let mut whole = encode_head(&message).unwrap();
    whole.extend([[1; 8].as_slice(), [2; 16].as_slice()].concat());
    assert_eq!(encoded(&Message::AppendEntries(message)), whole);
}

#[test]
fn what_would_break_the_other_server_is_never_written() {
    let unsendable = |message: AppendEntries| {
        let mut out = vec![1, 2, 3];
        let error = encode(&Message::AppendEntries(message.clone()), &mut out).unwrap_err();
        assert_eq!((encode_head(&message).unwrap_err(), out), (error, vec![1, 2, 3]));
        error.to_string()
    };
    let odd = append(5, vec![entry(6, EntryKind::Command, &[0; 12])]);
    assert_eq!(unsendable(odd), "bytes of entry 6: a multiple of 8 expected, found 12");
    let gap = append(5, vec![entry(7, EntryKind::Command, &[0; 8])]);
    assert_eq!(unsendable(gap), "entries of a message: entry 6 expected, found 7");
    let one = entry(0, EntryKind::Barrier, &[0; 8]);
    let many = |n| (1..=n).map(|index| Entry { index: Index(index), ..one.clone() }).collect();
    assert!(encode_head(&append(0, many(262_141))).is_ok());
    let text = "entries of a message: at most 262141, found 262142";
    assert_eq!(unsendable(append(0, many(262_142))), text);
    let part: Arc<[u8]> = vec![0; 1 << 20].into();
    let large = |megabytes| Payload::from_parts(vec![Arc::clone(&part); megabytes]);
    let message = append(0, vec![Entry { payload: large(500), ..entry(1, EntryKind::Command, &[]) }]);
    assert!(encode_head(&message).is_ok());
    let message = append(0, vec![Entry { payload: large(501), ..entry(1, EntryKind::Command, &[]) }]);
    let text = "bytes of a message's entries: at most 524288000, found 525336576";
    assert_eq!(encode_head(&message).unwrap_err().to_string(), text);

    let long = InstallSnapshot { configuration_bytes: vec![0; 20], ..snapshot(0) };
    let text = "bytes of a snapshot's configuration: a multiple of 8 up to 1048576, found 20";
    let error = encode(&Message::InstallSnapshot(long), &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), text);
    let huge = snapshot(limits::PEER_SNAPSHOT_BYTES_MAX + 1);
    assert!(encode(&Message::InstallSnapshot(huge), &mut Vec::new()).is_err());
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let mut prng = Prng::new(3);
    let mut whole = messages().iter().map(encoded).collect::<Vec<_>>().concat();
    whole.extend(encoded(&Message::InstallSnapshot(snapshot(64))));
    whole.extend([0; 64]);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=prng.below(3) {
            let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
            bytes[at] = prng.next_u64().to_le_bytes()[0];
        }
        bytes.truncate(usize::try_from(prng.below(bytes.len() as u64 + 1)).unwrap());
        if let Ok(found) = decoded(&bytes) {
            for incoming in found {
                if let Incoming::Message(message) = incoming {
                    let again = decoded(&encoded(&message)).unwrap();
                    assert_eq!(again.first(), Some(&Incoming::Message(message)));
                }
            }
        }
    }
}

#[test]
fn pages_of_an_entry_come_apart_from_each_other_so_that_a_database_can_take_them() {
    let page = |byte: u8| -> Arc<[u8]> { vec![byte; 4096].into() };
    let pages = vec![(PageNo(2), page(1)), (PageNo(3), page(2))];
    let payload = command::encode_frames(b"t", 4096, pages);
    let command = Entry { payload: payload.clone(), ..entry(6, EntryKind::Command, &[]) };
    let message = Message::AppendEntries(append(5, vec![command]));
    let mut bytes = Vec::new();
    encode(&message, &mut bytes).unwrap();
    let mut reader = PeerReader::new();
    reader.push(&bytes);
    let found = reader.next_incoming().unwrap();
    assert_eq!(found, Some(Incoming::Message(message)));
    let Some(Incoming::Message(Message::AppendEntries(append))) = found else { unreachable!() };
    let lens = |payload: &Payload| payload.parts().map(<[u8]>::len).collect::<Vec<_>>();
    assert_eq!(lens(&append.entries[0].payload), lens(&payload));
    assert_eq!(lens(&payload).len(), 3);
}
