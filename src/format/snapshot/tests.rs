use std::sync::Arc;

use super::{
    SnapshotDatabase, decode_data, decode_meta, encode_database_header, encode_meta, encode_payload_header,
};
use crate::base::{Index, NodeId, Prng, Role};
use crate::codec::membership::{Configuration, Server};
use crate::format::{Class, lz4};

const PAGE: usize = 512;

/// Page `number`, of a database of `n_pages` when it is the first.
fn page(number: u8, n_pages: u32) -> Vec<u8> {
    let mut page = vec![number; PAGE];
    if number == 1 {
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..18].copy_from_slice(&512u16.to_be_bytes());
        page[28..32].copy_from_slice(&n_pages.to_be_bytes());
    }
    page
}

fn wal_frame(number: u8, commit: u32, n_pages: u32) -> Vec<u8> {
    let mut frame = vec![0; 24];
    frame[3] = number;
    frame[4..8].copy_from_slice(&commit.to_be_bytes());
    frame.extend(page(number, n_pages));
    frame
}

fn with_wal(main: &[u8], wal: &[u8]) -> Vec<u8> {
    let mut payload = encode_payload_header(1);
    let mut header = encode_database_header(b"db", main.len() as u64);
    let end = header.len();
    header[end - 8..].copy_from_slice(&(wal.len() as u64).to_le_bytes());
    payload.extend(header);
    payload.extend(main);
    payload.extend(wal);
    payload
}

fn decode(payload: &[u8]) -> Result<Vec<SnapshotDatabase>, String> {
    decode_data(payload, payload.len() as u64).map_err(|error| error.text)
}

fn three_pages() -> Vec<u8> {
    [page(1, 3), page(2, 3), page(3, 3)].concat()
}

#[test]
fn pages_come_back_raw_and_compressed() {
    let payload = with_wal(&three_pages(), &[]);
    let expected = SnapshotDatabase {
        name: b"db".to_vec(),
        page_size: 512,
        n_pages: 3,
        pages: vec![page(1, 3).into(), page(2, 3).into(), page(3, 3).into()],
    };
    assert_eq!(decode(&payload).unwrap(), std::slice::from_ref(&expected));
    let mut frame = Vec::new();
    lz4::compress(payload.as_slice(), payload.len() as u64, &mut frame).unwrap();
    assert_eq!(decode(&frame).unwrap(), [expected]);
    assert_eq!(decode(&encode_payload_header(0)).unwrap(), []);
}

#[test]
fn frames_of_a_wal_lie_over_the_main_part_and_its_last_one_says_how_many_pages_there_are() {
    let newer: Vec<u8> = page(2, 0).iter().map(|_| 77).collect();
    let mut second = wal_frame(2, 0, 0);
    second[24..].copy_from_slice(&newer);
    let wal = [vec![0; 32], wal_frame(2, 0, 0), wal_frame(4, 0, 0), second, wal_frame(1, 2, 2)].concat();
    let found = decode(&with_wal(&page(1, 1), &wal)).unwrap();
    assert_eq!(found[0].n_pages, 2);
    assert_eq!(found[0].pages, [Arc::from(page(1, 2)), Arc::from(newer)]);

    // The main part may be empty: then the WAL's header knows the page size.
    let mut wal = [vec![0; 32], wal_frame(1, 1, 1)].concat();
    wal[8..12].copy_from_slice(&512u32.to_be_bytes());
    assert_eq!(decode(&with_wal(&[], &wal)).unwrap()[0].pages, [Arc::from(page(1, 1))]);
    // A header alone is no WAL.
    assert_eq!(decode(&with_wal(&three_pages(), &[0; 32])).unwrap()[0].n_pages, 3);
}

#[test]
fn a_wal_that_leaves_a_page_out_or_does_not_end_with_a_commit_is_refused() {
    let wal = [vec![0; 32], wal_frame(1, 3, 3)].concat();
    let text = decode(&with_wal(&page(1, 1), &wal)).unwrap_err();
    assert_eq!(text, "snapshot payload: database 'db': 3 pages expected, page 2 found nowhere");
    let wal = [vec![0; 32], wal_frame(1, 0, 3)].concat();
    assert!(decode(&with_wal(&page(1, 1), &wal)).unwrap_err().contains("a commit expected as last frame"));
    let wal = [vec![0; 32], wal_frame(1, 1, 1), vec![0; 9]].concat();
    assert!(decode(&with_wal(&page(1, 1), &wal)).unwrap_err().contains("whole frames of 536 bytes expected"));
}

#[test]
fn page_one_decides_when_the_main_part_is_longer_and_refuses_when_it_is_shorter() {
    let longer = [page(1, 2), page(2, 2), page(3, 2)].concat();
    assert_eq!(decode(&with_wal(&longer, &[])).unwrap()[0].n_pages, 2);
    let mut not_trusted = longer.clone();
    not_trusted[24] ^= 1;
    assert_eq!(decode(&with_wal(&not_trusted, &[])).unwrap()[0].n_pages, 3);
    let shorter = [page(1, 3), page(2, 3)].concat();
    let text = decode(&with_wal(&shorter, &[])).unwrap_err();
    let expected = "3 pages of 512 bytes expected by page 1, 1024 bytes found";
    assert_eq!(text, format!("snapshot payload: database 'db': {expected}"));
}

#[test]
fn a_main_size_cut_to_32_bits_is_refused_when_the_bytes_are_not_there() {
    // 2^23 pages of 512 bytes are 4 GiB: with three more the 32-bit size is that of three pages.
    let wrapped = [page(1, (1 << 23) + 3), page(2, 3), page(3, 3)].concat();
    let text = decode(&with_wal(&wrapped, &[])).unwrap_err();
    let expected = "main part, whose size was cut to 32 bits, and WAL: 4294968832 bytes expected, 1536 left";
    assert_eq!(text, format!("snapshot payload: database 'db': {expected}"));
}

/// More than 4 GiB of zeros behind the bytes in front, without the memory.
#[test]
fn a_main_size_cut_to_32_bits_is_undone_when_the_bytes_are_there() {
    let page_count = (1u64 << 16) + 2;
    let mut first = vec![0; 65536];
    first[..16].copy_from_slice(b"SQLite format 3\0");
    first[16..18].copy_from_slice(&1u16.to_be_bytes());
    first[28..32].copy_from_slice(&u32::try_from(page_count).unwrap().to_be_bytes());
    let mut payload = encode_payload_header(1);
    payload.extend(encode_database_header(b"db", 2 * 65536));
    let len = payload.len() as u64 + page_count * 65536;
    payload.extend(first);
    // The stream ends early on purpose: what is checked is how much was asked for.
    let text = decode_data(payload.as_slice(), len).unwrap_err().text;
    assert_eq!(text, "snapshot payload: database 'db': the file ends too early");
}

fn meta() -> (Configuration, Vec<u8>) {
    let server = Server { id: NodeId(1), address: "127.0.0.1:9001".to_owned(), role: Role::Voter };
    let configuration = Configuration { servers: vec![server] };
    let bytes = encode_meta(Index(12), &configuration.encode());
    (configuration, bytes)
}

#[test]
fn a_meta_file_comes_back_and_its_defects_have_the_texts_of_c() {
    let (configuration, bytes) = meta();
    let found = decode_meta("s.meta", &bytes).unwrap();
    assert_eq!((found.configuration_index, found.configuration), (Index(12), configuration.clone()));
    assert_eq!(found.encoded, configuration.encode());

    let refused = |bytes: &[u8]| decode_meta("s.meta", bytes).unwrap_err();
    assert!(refused(&bytes[..20]).text.starts_with("short read: 20 bytes instead of 32"));
    assert!(refused(&bytes[..40]).text.starts_with("short read: 8 bytes instead of 40"));
    let change = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        bytes
    };
    assert!(refused(&change(50, 9)).text.starts_with("read s.meta: checksum mismatch"));
    assert_eq!(refused(&change(0, 2)).class, Class::Malformed);
    assert!(refused(&change(31, 9)).text.contains("1 to 1048576 bytes expected"));
}

#[test]
fn no_bytes_make_decoding_panic_or_allocate_what_is_not_there() {
    let wal = [vec![0; 32], wal_frame(2, 0, 0), wal_frame(1, 2, 2)].concat();
    let whole = with_wal(&three_pages(), &wal);
    let (_, meta) = meta();
    let mut prng = Prng::new(17);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        let at = usize::try_from(prng.below(140)).unwrap();
        bytes[at] = prng.next_u64().to_le_bytes()[0];
        bytes.truncate(usize::try_from(prng.below(4000)).unwrap());
        for database in decode(&bytes).unwrap_or_default() {
            assert_eq!(database.pages.len(), database.n_pages as usize);
        }
        let mut bytes = meta.clone();
        let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
        bytes[at] ^= prng.next_u64().to_le_bytes()[0] | 1;
        let upper_half_of_checksum = (12..16).contains(&at);
        assert_eq!(decode_meta("s.meta", &bytes).is_ok(), upper_half_of_checksum, "byte {at}");
    }
}
