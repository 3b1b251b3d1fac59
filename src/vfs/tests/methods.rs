//! Each file method by itself, as SQLite's pager calls it.
#![expect(unsafe_code, reason = "calls the C methods of a file")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::file::{File, P, SIZE, vfs};
use super::harness::{commit, database, image};
use crate::base::PageNo;
use crate::pages::{Veto, View, WriterId};
use crate::vfs::{Control, with_binding};

fn shared(file: &mut File) {
    assert_eq!(file.lock(ffi::SQLITE_LOCK_SHARED), 0);
}

#[test]
fn a_read_takes_any_offset_and_length_and_is_short_past_the_end() {
    let db = database();
    let mut file = File::main(&db, 1);
    file.transaction(&[(2, 2), (3, 3)]);
    shared(&mut file);
    assert_eq!(file.pages(), 3);
    let (code, all) = file.read(0, 3 * SIZE);
    assert_eq!(
        (code, &all[18..20], &all[24..28], &all[92..96]),
        (0, &[1, 1][..], &[0, 0, 0, 2][..], &[0, 0, 0, 2][..])
    );
    let offsets = [0, 17, 24, 90, P - 3, P, P + 5, 2 * P - 1, 3 * P - 4];
    for offset in offsets {
        for len in [1, 2, 4, 16, 100, 5000] {
            let from = usize::try_from(offset).unwrap();
            let inside = all.len().min(from + len) - from;
            let (code, part) = file.read(offset, len);
            assert_eq!(code, if inside == len { 0 } else { ffi::SQLITE_IOERR_SHORT_READ });
            assert_eq!(
                (&part[..inside], &part[inside..]),
                (&all[from..from + inside], &vec![0; len - inside][..])
            );
        }
    }
    for offset in [3 * P, 9 * P, i64::MAX - 100] {
        assert_eq!(file.read(offset, 50), (ffi::SQLITE_IOERR_SHORT_READ, vec![0; 50]));
    }
    assert_eq!(file.read(-1, 50).0, ffi::SQLITE_IOERR_READ);
}

#[test]
fn without_a_lock_the_committed_state_is_read() {
    let db = database();
    let mut file = File::main(&db, 1);
    assert_eq!((file.pages(), file.read(16, 4)), (1, (0, vec![0x10, 0, 1, 1])));
    file.transaction(&[(2, 2)]);
    assert_eq!((file.pages(), file.read(P, 1).0), (1, ffi::SQLITE_IOERR_SHORT_READ));
    db.commit_to(1);
    assert_eq!((file.pages(), file.read(P, 1)), (2, (0, vec![2])));
}

#[test]
fn locks_pin_reserve_and_release() {
    let db = database();
    let (mut a, mut b) = (File::main(&db, 1), File::main(&db, 2));
    a.begin();
    assert_eq!((db.slot_holder(), a.control.holds_slot()), (Some(WriterId(1)), true));
    shared(&mut b);
    assert_eq!(b.lock(ffi::SQLITE_LOCK_RESERVED), ffi::SQLITE_BUSY);
    assert_eq!((a.lock(ffi::SQLITE_LOCK_PENDING), a.lock(ffi::SQLITE_LOCK_EXCLUSIVE)), (0, 0));
    assert_eq!(a.lock(ffi::SQLITE_LOCK_SHARED), 0, "a lower lock is there already");
    let (method, mut reserved) = (b.methods().xCheckReservedLock.unwrap(), -1);
    // SAFETY: the file is open, the place is ours.
    assert_eq!((unsafe { method(b.raw(), &mut reserved) }, reserved), (0, 0));
    assert_eq!(a.unlock(ffi::SQLITE_LOCK_SHARED), 0);
    assert_eq!((db.slot_holder(), a.control.pinned_seq()), (None, Some(0)));
    assert_eq!((b.lock(ffi::SQLITE_LOCK_RESERVED), b.unlock(0)), (0, 0));
    assert_eq!((db.slot_holder(), b.control.pinned_seq()), (None, None));
    assert_eq!((a.unlock(0), a.unlock(0), a.lock(77)), (0, 0, ffi::SQLITE_IOERR_LOCK));
    b.read(P, 1);
    shared(&mut b);
    a.transaction(&[(2, 2)]);
    assert_eq!(b.lock(ffi::SQLITE_LOCK_RESERVED), ffi::SQLITE_BUSY_SNAPSHOT);
    db.set_writable(Err(Veto::NotLeader));
    shared(&mut a);
    assert_eq!(a.lock(ffi::SQLITE_LOCK_RESERVED), 10250);
    a.unlock(0);
    db.set_writable(Ok(()));
    a.begin();
    drop(a);
    assert_eq!(db.slot_holder(), None, "a file that is closed gives up everything");
}

#[test]
fn a_write_is_private_until_the_commit_point_and_gone_after_a_rollback() {
    let db = database();
    let (mut a, mut b) = (File::main(&db, 1), File::main(&db, 2));
    shared(&mut a);
    assert_eq!(a.write(P, &[1; SIZE]), ffi::SQLITE_IOERR_WRITE, "without the slot");
    a.begin();
    assert_eq!((a.write(P, &[1; SIZE]), a.write(P + 10, &[2; 5])), (0, 0));
    assert_eq!(a.read(P + 8, 9), (0, vec![1, 1, 2, 2, 2, 2, 2, 1, 1]));
    assert_eq!(a.write(P - 2, &[9; 4]), 0, "across pages");
    assert_eq!(a.read(P - 3, 6), (0, vec![0, 9, 9, 9, 9, 1]));
    assert_eq!((a.pages(), b.pages()), (2, 1));
    let (_, first) = a.read(0, 100);
    assert_eq!(first[18..20], [1, 1], "page 1 was shown when a part of it was overwritten");
    assert_eq!((a.unlock(ffi::SQLITE_LOCK_SHARED), a.pages(), db.head_seq()), (0, 1, 0));
    assert_eq!(a.read(P - 3, 3), (0, vec![0, 0, 0]));
    a.unlock(0);
    a.transaction(&[(2, 7)]);
    shared(&mut b);
    assert_eq!((b.pages(), b.read(P, 2)), (2, (0, vec![7, 7])));
    assert_eq!(
        (a.write(-1, &[1]), a.write(i64::MAX - 9, &[1; 4])),
        (ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_WRITE)
    );
}

#[test]
fn a_page_beyond_sqlites_numbers_does_not_fit_and_the_lock_page_is_not_stored() {
    let db = database();
    let mut file = File::main(&db, 1);
    file.begin();
    assert_eq!(file.write(i64::MAX - 9, &[1; 4]), ffi::SQLITE_FULL);
    assert_eq!(file.truncate(i64::MAX), ffi::SQLITE_FULL);
    assert_eq!((file.write(1 << 30, &[1; SIZE]), file.pages()), (0, 1));
    let beyond = (1 << 30) + P;
    assert_eq!((file.write(beyond, &[1; SIZE]), file.pages()), (0, beyond / P + 1));
    assert_eq!(file.read(1 << 30, 2), (0, vec![0, 0]));
    assert_eq!((file.sync(), file.commit(), file.unlock(0)), (0, 0, 0));
    let group = db.take_group(256, 1 << 20).unwrap();
    assert_eq!(group.pages.iter().map(|(no, _)| no.0).collect::<Vec<_>>(), [1, group.n_pages]);
    assert_eq!(db.pin(View::Head).page(PageNo((1 << 18) + 1)), None);
}

#[test]
fn a_truncation_cuts_and_what_grows_again_is_zeros() {
    let (db, follower) = (database(), database());
    let mut file = File::main(&db, 1);
    assert_eq!(file.truncate(0), ffi::SQLITE_IOERR_TRUNCATE, "without the slot");
    file.transaction(&[(2, 2), (3, 3), (4, 4), (5, 5)]);
    commit(&db, &follower).unwrap();
    file.begin();
    assert_eq!((file.write(3 * P, &[9; SIZE]), file.truncate(2 * P), file.pages()), (0, 0, 2));
    assert_eq!(file.read(3 * P, 1).0, ffi::SQLITE_IOERR_SHORT_READ);
    assert_eq!((file.write(4 * P, &[8; SIZE]), file.pages()), (0, 5));
    assert_eq!(
        (file.read(2 * P, 1), file.read(3 * P, 1), file.read(P, 1)),
        ((0, vec![0]), (0, vec![0]), (0, vec![2]))
    );
    assert_eq!((file.truncate(7 * P), file.pages()), (0, 7));
    assert_eq!((file.sync(), file.commit(), file.unlock(0)), (0, 0, 0));
    commit(&db, &follower).unwrap();
    assert_eq!(image(&db, View::Head), image(&follower, View::Head));
    file.begin();
    assert_eq!((file.truncate(P), file.sync(), file.commit(), file.unlock(0)), (0, 0, 0, 0));
    assert_eq!((db.pin(View::Head).n_pages(), file.truncate(-1)), (1, ffi::SQLITE_IOERR_TRUNCATE));
}

#[test]
fn the_commit_point_publishes_what_was_written_and_nothing_else() {
    let db = database();
    let mut file = File::main(&db, 1);
    assert_eq!((file.sync(), file.commit(), db.head_seq()), (0, 0, 0), "no transaction");
    file.begin();
    assert_eq!((file.sync(), file.commit(), db.head_seq()), (0, 0, 0), "nothing written");
    file.write(P, &[5; SIZE]);
    db.set_writable(Err(Veto::Full));
    assert_eq!(file.sync(), ffi::SQLITE_FULL);
    db.set_writable(Ok(()));
    assert_eq!((file.sync(), file.commit(), file.commit()), (0, 0, 0));
    assert_eq!((db.head_seq(), file.control.last_published()), (1, Some(1)));
    assert_eq!((file.pages(), file.read(P, 1)), (2, (0, vec![5])), "its own version, before any unlock");
    // Discarded after the veto was asked for: the commit point still cannot fail.
    file.unlock(0);
    file.begin();
    file.write(P, &[6; SIZE]);
    assert_eq!(file.sync(), 0);
    db.discard_speculative();
    assert_eq!((file.commit(), db.head_seq()), (0, 0));
    assert!(db.was_discarded(file.control.last_published().unwrap()));
    file.unlock(0);
    shared(&mut file);
    assert_eq!((file.pages(), db.slot_holder()), (1, None));
}

#[test]
fn a_fetched_page_stays_as_it_is_until_the_lock_is_given_up() {
    let db = database();
    let (mut a, mut b) = (File::main(&db, 1), File::main(&db, 2));
    a.transaction(&[(2, 2), (3, 3)]);
    let len = c_int::try_from(SIZE).unwrap();
    assert_eq!(b.fetch(P, len), None, "nothing is pinned");
    shared(&mut b);
    for (offset, len) in [(0, len), (3 * P, len), (2 * P, len + 1), (-P, len), (P, -1)] {
        assert_eq!(b.fetch(offset, len), None, "{len} bytes at {offset}");
    }
    let page = b.fetch(P, len).unwrap();
    let (pointer, len) = (page.as_ptr(), page.len());
    for round in 10..20 {
        a.transaction(&[(2, round), (3, round)]);
        db.commit_to(db.head_seq());
    }
    // SAFETY: lent until the unlock below; this is the promise that is checked.
    assert_eq!(unsafe { std::slice::from_raw_parts(pointer, len) }, [2; SIZE]);
    b.unfetch(pointer.cast_mut().cast());
    b.unfetch(null_mut());
    b.unlock(0);
    // A writer sees its own pages, and what it was lent before its commit stays until it gives up the lock.
    shared(&mut a);
    let own = Arc::downgrade(&db.pin(View::Head).page(PageNo(2)).unwrap().shared());
    assert_eq!(a.fetch(P, 1), Some(&[19][..]));
    assert_eq!(a.lock(ffi::SQLITE_LOCK_RESERVED), 0);
    assert_eq!(a.fetch(P, 10), None, "reads go through the write set");
    a.write(P, &[77; SIZE]);
    assert_eq!((a.sync(), a.commit(), a.unlock(ffi::SQLITE_LOCK_SHARED)), (0, 0, 0));
    db.commit_to(db.head_seq());
    assert_eq!(a.fetch(P, 1), Some(&[77][..]));
    assert!(own.upgrade().is_some(), "lent, though no version has it any more");
    a.unlock(0);
    assert!(own.upgrade().is_none());
}

#[test]
fn a_cache_that_bears_the_wrong_counter_is_not_believed() {
    let db = database();
    let mut file = File::main(&db, 1);
    file.begin();
    let (_, mut first) = file.read(0, SIZE);
    first[24..28].copy_from_slice(&77u32.to_be_bytes());
    assert_eq!((file.write(0, &first), file.sync(), file.commit(), file.unlock(0)), (0, 0, 0, 0));
    shared(&mut file);
    assert_ne!(file.read(24, 4), (0, 77u32.to_be_bytes().to_vec()));
    let spoiled = file.read(24, 16).1;
    assert_ne!(spoiled, file.read(24, 16).1, "the pager drops its cache, once");
    assert_eq!(file.read(24, 4).1, file.read(0, 100).1[24..28]);
}

#[test]
fn small_questions_are_answered() {
    let mut file = File::main(&database(), 1);
    let (sector, device) =
        (file.methods().xSectorSize.unwrap(), file.methods().xDeviceCharacteristics.unwrap());
    let (sync, version) = (file.methods().xSync.unwrap(), file.methods().iVersion);
    // SAFETY: the file is open.
    let answers = unsafe { (sector(file.raw()), device(file.raw()), sync(file.raw(), 2)) };
    assert_eq!(answers, (4096, 0x1 | 0x200 | 0x400 | 0x1000, 0));
    assert_eq!((version, file.methods().xShmMap.is_none()), (3, true));
    let mut limit = 1000i64;
    assert_eq!((file.control(ffi::SQLITE_FCNTL_MMAP_SIZE, &mut limit), limit), (0, 0));
    limit = -1;
    assert_eq!((file.control(ffi::SQLITE_FCNTL_MMAP_SIZE, &mut limit), limit), (0, 1000));
    for op in [ffi::SQLITE_FCNTL_HAS_MOVED, ffi::SQLITE_FCNTL_VFSNAME, ffi::SQLITE_FCNTL_BUSYHANDLER, 9999] {
        assert_eq!(file.control::<c_void>(op, null_mut()), ffi::SQLITE_NOTFOUND);
    }
    let ask = |file: &mut File, name: &CStr, value: *const c_char| {
        let mut arguments = [null_mut(), name.as_ptr().cast_mut(), value.cast_mut()];
        let code = file.control(ffi::SQLITE_FCNTL_PRAGMA, arguments.as_mut_ptr());
        // SAFETY: a C string of SQLite's allocator, or null, which is fine to free.
        let text = unsafe {
            let text = (!arguments[0].is_null()).then(|| CStr::from_ptr(arguments[0]).to_owned());
            ffi::sqlite3_free(arguments[0].cast());
            text
        };
        (code, text)
    };
    let null = std::ptr::null();
    assert_eq!(ask(&mut file, c"Journal_Mode", null), (0, Some(c"wal".to_owned())));
    assert_eq!(ask(&mut file, c"wal_autocheckpoint", null), (ffi::SQLITE_NOTFOUND, None));
    assert_eq!(ask(&mut file, c"journal_mode", c"MEMORY".as_ptr()), (ffi::SQLITE_NOTFOUND, None));
    assert_eq!(ask(&mut file, c"synchronous", null), (ffi::SQLITE_NOTFOUND, None));
    assert_eq!(ask(&mut file, c"delete_database", null).0, ffi::SQLITE_ERROR);
}

#[test]
fn a_file_opens_by_what_it_is_for() {
    let db = database();
    let control = Control::new(Arc::clone(&db), WriterId(1));
    let kinds = [
        (ffi::SQLITE_OPEN_MAIN_DB, Some(ffi::SQLITE_CANTOPEN)),
        (ffi::SQLITE_OPEN_WAL, Some(ffi::SQLITE_CANTOPEN)),
        (ffi::SQLITE_OPEN_MAIN_JOURNAL, None),
        (ffi::SQLITE_OPEN_TEMP_DB, None),
        (ffi::SQLITE_OPEN_TEMP_JOURNAL, None),
        (ffi::SQLITE_OPEN_TRANSIENT_DB, None),
        (ffi::SQLITE_OPEN_SUBJOURNAL, None),
        (ffi::SQLITE_OPEN_SUPER_JOURNAL, None),
    ];
    for (kind, error) in kinds {
        let flags = kind | ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
        let opened = File::open(&control, flags);
        assert_eq!(opened.as_ref().err().copied(), error, "{kind:#x}");
        let Ok(mut file) = opened else { continue };
        assert_eq!(
            (file.write(10, b"abc"), file.read(9, 5)),
            (0, (ffi::SQLITE_IOERR_SHORT_READ, b"\0abc\0".to_vec()))
        );
        assert_eq!((file.truncate(11), file.read(10, 1), file.read(10, 2).0), (0, (0, b"a".to_vec()), 522));
        assert_eq!((file.lock(4), file.unlock(0), file.sync()), (0, 0, ffi::SQLITE_NOTFOUND));
    }
    // A binding is for one file, and does not outlive its scope.
    with_binding(Arc::clone(&control), |_, _| {
        assert!(File::open(&control, ffi::SQLITE_OPEN_MAIN_DB).is_ok());
        assert!(File::open(&control, ffi::SQLITE_OPEN_MAIN_DB).is_err());
    });
    with_binding(Arc::clone(&control), |_, _| {});
    assert!(File::open(&control, ffi::SQLITE_OPEN_MAIN_DB).is_err());
}

#[test]
fn the_vfs_gives_randomness_time_and_names_and_no_libraries() {
    let vfs = vfs();
    // SAFETY: the VFS is registered forever, and each method gets what it is defined with.
    unsafe {
        let (mut one, mut two) = ([0u8; 32], [0u8; 32]);
        let random = (*vfs).xRandomness.unwrap();
        assert_eq!(random(vfs, 32, one.as_mut_ptr().cast()), 32);
        assert_eq!(random(vfs, 31, two.as_mut_ptr().cast()), 31);
        assert!(one != two && two[31] == 0);
        let (mut ms, mut days) = (0, 0.0);
        assert_eq!((*vfs).xCurrentTimeInt64.unwrap()(vfs, &mut ms), 0);
        assert_eq!((*vfs).xCurrentTime.unwrap()(vfs, &mut days), 0);
        let year_2020_ms = 212_444_596_800_000;
        assert!(ms > year_2020_ms && (days - ms as f64 / 86_400_000.0).abs() < 1.0);
        assert_eq!((*vfs).xSleep.unwrap()(vfs, 1), 1);
        let mut name = [0x55u8; 8];
        let full = (*vfs).xFullPathname.unwrap();
        assert_eq!(full(vfs, c"../a/b".as_ptr(), 8, name.as_mut_ptr().cast()), 0);
        assert_eq!(&name, b"../a/b\0\x55");
        assert_eq!(full(vfs, c"../a/b-c".as_ptr(), 8, name.as_mut_ptr().cast()), ffi::SQLITE_CANTOPEN);
        let mut exists = 9;
        assert_eq!((*vfs).xAccess.unwrap()(vfs, c"x-journal".as_ptr(), 0, &mut exists), 0);
        assert_eq!((exists, (*vfs).xDelete.unwrap()(vfs, c"x-journal".as_ptr(), 0)), (0, 0));
        assert!((*vfs).xDlOpen.unwrap()(vfs, c"/lib/x.so".as_ptr()).is_null());
        let mut text = [0u8; 20];
        (*vfs).xDlError.unwrap()(vfs, 20, text.as_mut_ptr().cast());
        assert_eq!(&text, b"loadable extensions\0");
        assert_ne!(ffi::sqlite3_vfs_find(std::ptr::null()), vfs, "not the default");
    }
}
