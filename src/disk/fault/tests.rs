use super::*;

fn with_file(content: &[u8]) -> (FaultDisk, FaultFile) {
    let mut disk = FaultDisk::new(1);
    let mut file = disk.create("a").unwrap();
    disk.write_at(&mut file, 0, content).unwrap();
    (disk, file)
}

#[test]
fn bytes_without_a_sync_and_names_without_a_sync_of_the_directory_are_forgotten() {
    let (mut disk, mut file) = with_file(b"one");
    disk.sync(&mut file).unwrap();
    disk.crash(Survival::Nothing);
    assert_eq!(disk.content("a"), None);

    let (mut disk, _) = with_file(b"one");
    disk.sync_dir().unwrap();
    disk.crash(Survival::Nothing);
    assert_eq!(disk.content("a").as_deref(), Some(b"".as_slice()));
}

#[test]
fn what_was_synced_survives_and_later_changes_do_not() {
    let (mut disk, mut file) = with_file(b"one");
    disk.sync(&mut file).unwrap();
    disk.sync_dir().unwrap();
    disk.write_at(&mut file, 0, b"TWO").unwrap();
    disk.set_len(&mut file, 9).unwrap();
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.content("b").as_deref(), Some(b"TWO\0\0\0\0\0\0".as_slice()));
    disk.crash(Survival::Nothing);
    assert_eq!(disk.content("a").as_deref(), Some(b"one".as_slice()));
    assert_eq!(disk.content("b"), None);
}

#[test]
fn a_torn_crash_keeps_whole_sectors_only_and_differs_by_seed() {
    let outcome = |seed: u64| {
        let mut disk = FaultDisk::new(seed);
        let mut file = disk.create("a").unwrap();
        disk.preallocate(&mut file, 2048).unwrap();
        disk.sync(&mut file).unwrap();
        disk.sync_dir().unwrap();
        disk.write_at(&mut file, 256, &[1; 1024]).unwrap();
        disk.crash(Survival::Torn);
        let content = disk.content("a").unwrap();
        let states = [&content[256..512], &content[512..1024], &content[1024..1280]]
            .map(|sector| sector.iter().map(|&byte| u64::from(byte)).sum::<u64>() / sector.len() as u64);
        assert!(content[..256].iter().chain(&content[1280..]).all(|&byte| byte == 0));
        states
    };
    let all: BTreeSet<[u64; 3]> = (0..100).map(outcome).collect();
    assert_eq!(all.len(), 8, "every combination of three sectors comes up");
}

#[test]
fn what_a_failed_sync_lost_stays_lost_though_reads_show_it() {
    let lost = (0..50).filter(|&seed| {
        let mut disk = FaultDisk::new(seed);
        let mut file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        disk.write_at(&mut file, 0, b"x").unwrap();
        disk.fail_at(0, Fault::Broken);
        disk.sync(&mut file).unwrap_err();
        disk.sync(&mut file).unwrap();
        assert_eq!(disk.content("a").unwrap(), b"x");
        disk.crash(Survival::Everything);
        disk.content("a").unwrap() != b"x"
    });
    let lost = lost.count();
    assert!(0 < lost && lost < 50, "{lost} of 50");
}

#[test]
fn a_full_disk_takes_what_fits_and_the_rest_when_there_is_room() {
    let (mut disk, mut file) = with_file(b"1234");
    disk.set_capacity(Some(6));
    let error = disk.write_at(&mut file, 4, b"5678").unwrap_err();
    assert!(crate::disk::is_no_space(&error));
    assert_eq!(disk.content("a").unwrap(), b"123456");
    assert!(disk.preallocate(&mut file, 7).is_err());
    disk.write_at(&mut file, 0, b"abcd").unwrap();
    disk.set_capacity(Some(8));
    disk.write_at(&mut file, 4, b"5678").unwrap();
    assert_eq!(disk.content("a").unwrap(), b"abcd5678");
}

#[test]
fn after_the_power_is_off_nothing_works_until_the_crash_is_over() {
    let (mut disk, mut file) = with_file(b"one");
    disk.fail_at(1, Fault::PowerOff);
    disk.sync(&mut file).unwrap();
    disk.sync_dir().unwrap_err();
    assert!(disk.list().is_err() && disk.open("a").is_err() && disk.unlink("a").is_err());
    disk.crash(Survival::Everything);
    assert!(disk.sync(&mut file).is_err(), "files are closed by a crash");
    assert_eq!(disk.read_all("a").unwrap(), b"one");
}

#[test]
fn a_class_of_syncs_can_be_ignored() {
    let (mut disk, mut file) = with_file(b"one");
    disk.ignore_syncs(Some("sync a: write"));
    disk.sync(&mut file).unwrap();
    disk.rename("a", "b-12").unwrap();
    disk.sync_dir().unwrap();
    let classes: Vec<String> = disk.sync_classes().into_iter().collect();
    assert_eq!(classes, ["sync a: write", "sync_dir: create a, rename a b-#"]);
    disk.crash(Survival::Nothing);
    assert_eq!(disk.content("b-12").unwrap(), b"");
}

#[test]
fn lost_goings_of_names_leave_one_name_per_file() {
    for seed in 0..64 {
        let mut disk = FaultDisk::new(seed);
        let mut file = disk.create("a").unwrap();
        disk.write_at(&mut file, 0, b"x").unwrap();
        disk.sync(&mut file).unwrap();
        disk.sync_dir().unwrap();
        disk.rename("a", "b").unwrap();
        disk.rename("b", "c").unwrap();
        disk.crash(Survival::Torn);
        let files = disk.list().unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
    }
}
