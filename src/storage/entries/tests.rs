use std::sync::atomic::{AtomicBool, Ordering};

use super::read_entries;
use crate::base::{Entry, EntryKind, Index, Payload, Prng, Term};
use crate::disk::{Disk, FaultDisk};
use crate::storage::{Writer, WriterConfig, WriterState};

fn writer(disk: &FaultDisk) -> Writer<FaultDisk> {
    let state = WriterState { next_index: Index(1), ..WriterState::default() };
    let config = WriterConfig { block_size: 512, segment_bytes: 4096, prewrite: false };
    Writer::new(disk.clone(), state, config)
}

/// An entry whose bytes and length follow from its place.
fn entry(index: u64, term: u64) -> Entry {
    let words = 1 + (index * 37 + term * 11) % 90;
    let bytes: Vec<u8> = (0..words).flat_map(|at| (index * 1000 + term + at).to_le_bytes()).collect();
    let payload = Payload::from_bytes(&bytes);
    Entry { index: Index(index), term: Term(term), kind: EntryKind::Command, payload }
}

fn entries(first: u64, last: u64, term: u64) -> Vec<Entry> {
    (first..=last).map(|index| entry(index, term)).collect()
}

fn read(disk: &FaultDisk, first: u64, last: u64) -> Result<Vec<Entry>, String> {
    read_entries(&mut disk.clone(), Index(first), Index(last))
}

#[test]
fn every_range_is_found_in_closed_and_open_segments_alike() {
    let disk = FaultDisk::new(1);
    let mut writer = writer(&disk);
    let mut prng = Prng::new(3);
    let mut last = 0;
    while last < 60 {
        let count = 1 + prng.below(4);
        writer.append(&[entries(last + 1, last + count, 1)]).unwrap();
        last += count;
        while prng.below(2) == 0 && writer.prepare_ahead().unwrap() {}
        for first in 1..=last {
            assert_eq!(read(&disk, first, last).unwrap(), entries(first, last, 1));
            let end = first + prng.below(last - first + 1);
            assert_eq!(read(&disk, first, end).unwrap(), entries(first, end, 1));
        }
    }
    assert!(disk.used_bytes() > 5 * 4096, "several segments");
    let refused = read(&disk, last, last + 1).unwrap_err();
    let expected = format!("entries {last} to {0}: {0} not found in a log from 1 to {last}", last + 1);
    assert_eq!(refused, expected);
}

fn large_writer(disk: &FaultDisk) -> Writer<FaultDisk> {
    let state = WriterState { next_index: Index(1), ..WriterState::default() };
    let config = WriterConfig { block_size: 512, segment_bytes: 1 << 20, prewrite: false };
    Writer::new(disk.clone(), state, config)
}

fn large(index: u64) -> Vec<Entry> {
    let payload = Payload::from_bytes(&[u8::try_from(index).unwrap(); 32 << 10]);
    vec![Entry { index: Index(index), term: Term(1), kind: EntryKind::Command, payload }]
}

/// A peer that lags is sent one piece after another: reading the log as a whole for each would take the square of it.
#[test]
fn a_piece_of_a_closed_segment_costs_what_it_holds_and_not_what_the_segment_does() {
    let disk = FaultDisk::new(1);
    let mut writer = large_writer(&disk);
    (1..=80).for_each(|index| writer.append(&[large(index)]).unwrap());
    let before = disk.read_bytes();
    assert_eq!(read(&disk, 20, 21).unwrap(), [large(20), large(21)].concat());
    let cost = disk.read_bytes() - before;
    // They, and the head of each entry before them.
    assert!(cost < (2 * 32 + 21 * 5) << 10, "{cost} bytes read");
    // A segment that is open is checked up to there.
    let before = disk.read_bytes();
    assert_eq!(read(&disk, 80, 80).unwrap(), large(80));
    let cost = disk.read_bytes() - before;
    assert!((1..2 << 20).contains(&cost), "{cost} bytes read");
}

#[test]
fn damaged_data_is_not_found_and_costs_no_more_than_what_depends_on_it() {
    let disk = FaultDisk::new(1);
    let mut writer = large_writer(&disk);
    (1..=40).for_each(|index| writer.append(&[large(index)]).unwrap());
    while writer.prepare_ahead().unwrap() {}
    let names: Vec<String> = disk.clone().list().unwrap().into_iter().map(|(name, _)| name).collect();
    for name in names {
        let mut content = disk.content(&name).unwrap();
        for damaged in [5, 38] {
            // Within the data of that entry, wherever it is.
            let place = content.windows(64).position(|bytes| bytes == [damaged; 64]);
            place.into_iter().for_each(|at| content[at + 7] ^= 1);
        }
        disk.put(&name, &content);
    }
    assert_eq!(read(&disk, 1, 4).unwrap(), (1..=4).flat_map(large).collect::<Vec<_>>());
    for (first, last) in [(5, 5), (4, 6), (38, 38), (39, 39), (37, 40)] {
        let found = read(&disk, first, last);
        let refused = found.map_or_else(|text| text, |found| format!("{} entries found", found.len()));
        assert!(refused.contains("not found in a log"), "{refused}");
    }
    // The name of a closed segment says where an entry is, whatever is before it.
    assert_eq!(read(&disk, 6, 7).unwrap(), [large(6), large(7)].concat());
    assert_eq!(read(&disk, 37, 37).unwrap(), large(37));
}

#[test]
fn what_follows_a_damaged_open_segment_is_not_taken_for_what_is_missing_there() {
    let disk = FaultDisk::new(1);
    let mut writer = large_writer(&disk);
    (1..=33).for_each(|index| writer.append(&[large(index)]).unwrap());
    // Before the writer gets to give the first one its name, as it does at leisure.
    let names: Vec<String> = disk.clone().list().unwrap().into_iter().map(|(name, _)| name).collect();
    for name in names.iter().filter(|name| name.starts_with("open-")) {
        let mut content = disk.content(name).unwrap();
        let place = content.windows(64).position(|bytes| bytes == [5; 64]);
        place.into_iter().for_each(|at| content[at + 7] ^= 1);
        disk.put(name, &content);
    }
    assert_eq!(read(&disk, 4, 4).unwrap(), large(4));
    let found = read(&disk, 5, 5).map(|found| found.len());
    assert_eq!(found.unwrap_err(), "entries 5 to 5: 5 not found in a log from 1 to 4");
}

#[test]
fn what_was_taken_back_is_not_found_and_what_stands_there_now_is() {
    let disk = FaultDisk::new(1);
    let mut writer = writer(&disk);
    (0..10).for_each(|at| writer.append(&[entries(at * 3 + 1, at * 3 + 3, 1)]).unwrap());
    writer.truncate(Index(11)).unwrap();
    assert!(read(&disk, 5, 11).is_err());
    writer.append(&[entries(11, 14, 2)]).unwrap();
    let expected: Vec<Entry> = [entries(5, 10, 1), entries(11, 14, 2)].concat();
    assert_eq!(read(&disk, 5, 14).unwrap(), expected);
}

#[test]
fn a_writer_at_work_never_makes_a_reader_find_an_entry_in_a_wrong_place() {
    let disk = FaultDisk::new(1);
    let mut writer = writer(&disk);
    writer.append(&[entries(1, 8, 1)]).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut prng, mut found) = (Prng::new(9), 0);
            while !over.load(Ordering::Relaxed) || found == 0 {
                let first = 1 + prng.below(200);
                let last = first + prng.below(20);
                let Ok(read) = read(&disk, first, last) else { continue };
                found += 1;
                for (index, got) in (first..=last).zip(&read) {
                    assert_eq!(*got, entry(index, got.term.0), "between {first} and {last}");
                }
            }
        });
        let (mut prng, mut last, mut term) = (Prng::new(4), 8, 1);
        for _ in 0..600 {
            if last > 200 || prng.below(12) == 0 {
                last = prng.below(last);
                term += 1;
                writer.truncate(Index(last + 1)).unwrap();
            }
            let count = 1 + prng.below(5);
            writer.append(&[entries(last + 1, last + count, term)]).unwrap();
            last += count;
            if prng.below(3) == 0 {
                writer.prepare_ahead().unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}
