//! Operations on the log of a node that does not run.

use std::io;

use super::backup;
use super::config::NodeConfig;
use super::failure::Failure;
use super::member::{self, Member};
use crate::base::{Entry, EntryKind, Index, Payload, Term};
use crate::codec::membership::{Configuration, Server};
use crate::disk::overlay::Overlay;
use crate::disk::{DirectoryLock, Disk, LockError, RealDisk};
use crate::format::names::{METADATA, closed_name, temporary_name};
use crate::format::segment::{SEGMENT_HEADER, encode_batch};
use crate::runtime::clock;
use crate::storage::loader::{self, LoadOptions, Loaded};

/// How texts begin, as in C.
const PREFIX: &str = "raft_recover(): ";

/// The last entry of a log; both numbers are 0 where there is no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastEntry {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
}

/// Appends an entry that makes `members` the whole cluster.
///
/// The lock is held meanwhile, and released whatever happens.
///
/// # Errors
/// `DQLITE_MISUSE` for a list that no cluster can have, `DQLITE_ERROR` where the directory is in use, cannot be
/// loaded or not be written. Each with a text, also where C has none: whoever recovers is in trouble already.
pub fn recover(config: &NodeConfig, members: Vec<Member>) -> Result<(), Failure> {
    let configuration = configuration(members)
        .map_err(|text| Failure::misuse(format!("{PREFIX}{text}; nothing was changed")))?;
    let _lock = DirectoryLock::take(&config.directory).map_err(|error| {
        let advice = match error {
            LockError::Held { .. } => "stop the node that uses it first",
            LockError::Io { .. } => "the directory has to be writable",
        };
        Failure::error(format!("{PREFIX}{error}; {advice}"))
    })?;
    let failed = |error: io::Error| {
        let place = config.directory.display();
        let advice = "the members are as they were: mend that and try again";
        Failure::error(format!("{PREFIX}io: '{place}': {error}; {advice}"))
    };
    let mut disk = RealDisk::open(&config.directory).map_err(failed)?;
    let loaded = load(&mut disk, config).map_err(|error| Failure::error(format!("{PREFIX}{error}")))?;
    let place = config.directory.display();
    log::info!("recover '{place}': last entry: index {}, term {}", loaded.last_index, loaded.last_term);
    change(&mut disk, &loaded, &configuration).map_err(failed)?;
    log::info!(
        "recover '{place}': from index {} on the cluster is {}; before, as of entry {}, it was {}; '{}' has that, and \
         how to go back",
        loaded.last_index.next(),
        in_words(&configuration),
        loaded.configuration_index,
        in_words(&loaded.configuration),
        backup::NAME,
    );
    Ok(())
}

fn configuration(members: Vec<Member>) -> Result<Configuration, String> {
    member::check(&members)?;
    let server = |Member { id, address, role }| {
        let address =
            String::from_utf8(address).map_err(|_| format!("server {id}: an address in UTF-8 expected"));
        address.map(|address| Server { id, address, role })
    };
    Ok(Configuration { servers: members.into_iter().map(server).collect::<Result<_, _>>()? })
}

fn in_words(configuration: &Configuration) -> String {
    let server = |it: &Server| format!("{} at '{}' ({:?})", it.id, it.address, it.role);
    configuration.servers.iter().map(server).collect::<Vec<_>>().join(", ")
}

/// Keeps what was, then appends the entry.
fn change<D: Disk>(disk: &mut D, loaded: &Loaded, configuration: &Configuration) -> io::Result<()> {
    let next = loaded.last_index.next();
    let name = closed_name(next, next);
    let files = disk.list()?;
    let mut read = |wanted: &[&str]| -> io::Result<Vec<(String, Vec<u8>)>> {
        let found = files.iter().filter(|(name, _)| wanted.contains(&name.as_str()));
        found.map(|(name, _)| Ok((name.clone(), disk.read_all(name)?))).collect()
    };
    let (before, metadata) = (read(&[backup::NAME])?, read(&METADATA)?);
    let before = before.first().map(|(_, bytes)| bytes.as_slice());
    let content = backup::content(before, loaded, &metadata, &name);
    if before != Some(content.as_bytes()) {
        write(disk, backup::NAME, content.as_bytes())?;
    }
    append(disk, next, &name, configuration)
}

/// Writes the entry as a closed segment of its own. Its term is 1 whatever the log's is, as in C.
fn append<D: Disk>(disk: &mut D, index: Index, name: &str, configuration: &Configuration) -> io::Result<()> {
    let payload = Payload::from_bytes(&configuration.encode());
    let entry = Entry { term: Term(1), index, kind: EntryKind::Change, payload };
    let mut bytes = SEGMENT_HEADER.to_vec();
    encode_batch(&[entry], &mut bytes);
    write(disk, name, &bytes)
}

/// Writes a file that is durable with its name when this returns.
fn write<D: Disk>(disk: &mut D, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_and_sync(disk, name, bytes)
        .map_err(|error| io::Error::new(error.kind(), format!("write {name}: {error}")))
}

fn write_and_sync<D: Disk>(disk: &mut D, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(name);
    let mut file = disk.create(&temporary)?;
    disk.write_at(&mut file, 0, bytes)?;
    // Before the rename: else a crash can leave a segment that is empty or torn at the end of the log, or nothing of
    // what was before.
    disk.sync(&mut file)?;
    disk.rename(&temporary, name)?;
    // Before the next file: else a crash can keep the new members and forget the old ones. And before success is
    // reported: the directory is copied to other machines next.
    disk.sync_dir()
}

/// Loads the log and says how it ends.
///
/// Loading repairs what it finds, as it does at start, but for the metadata; while another node has the lock that
/// happens in memory only.
///
/// # Errors
/// `DQLITE_ERROR` where it cannot be loaded. With a text, unlike in C.
pub fn describe_last_entry(config: &NodeConfig) -> Result<LastEntry, Failure> {
    let failed = |text: String| Failure::error(format!("dqlite_node_describe_last_entry(): {text}"));
    let lock = DirectoryLock::take(&config.directory);
    let mut disk = RealDisk::open(&config.directory).map_err(|error| failed(error.to_string()))?;
    let loaded = match lock {
        Ok(_lock) => load(&mut disk, config),
        Err(LockError::Held { .. }) => load(&mut Overlay::new(disk), config),
        Err(error @ LockError::Io { .. }) => return Err(failed(error.to_string())),
    };
    let loaded = loaded.map_err(failed)?;
    Ok(LastEntry { index: loaded.last_index, term: loaded.last_term })
}

fn load<D: Disk>(disk: &mut D, config: &NodeConfig) -> Result<Loaded, String> {
    let options =
        LoadOptions { auto_recovery: config.auto_recovery, id: config.id, wall_ns: clock::wall_ns() };
    let loaded = loader::load_offline(disk, &options).map_err(|error| error.to_string())?;
    loaded.notes.iter().for_each(|note| log::warn!("{note}"));
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{NodeId, Role};
    use crate::disk::FaultDisk;
    use crate::disk::fault::{Fault, Survival};

    fn servers(ids: &[u64]) -> Configuration {
        let server = |&id: &u64| Server { id: NodeId(id), address: id.to_string(), role: Role::Voter };
        Configuration { servers: ids.iter().map(server).collect() }
    }

    fn load(disk: &mut FaultDisk) -> Result<Loaded, String> {
        let options = LoadOptions { auto_recovery: false, id: NodeId(1), wall_ns: 7 };
        loader::load_offline(disk, &options).map_err(|error| error.to_string())
    }

    fn recover(disk: &mut FaultDisk) -> Result<(), String> {
        let loaded = load(disk)?;
        change(disk, &loaded, &servers(&[1])).map_err(|error| error.to_string())
    }

    /// A node of a cluster of three that was killed: two entries, the second one in an open segment.
    fn killed() -> FaultDisk {
        let disk = FaultDisk::new(1);
        for (name, index) in [("0000000000000001-0000000000000001", 1), ("open-1", 2)] {
            let payload = Payload::from_bytes(&servers(&[1, 2, 3]).encode());
            let entry = Entry { index: Index(index), term: Term(4), kind: EntryKind::Change, payload };
            let mut bytes = SEGMENT_HEADER.to_vec();
            encode_batch(&[entry], &mut bytes);
            if index == 2 {
                bytes.resize(4096, 0);
            }
            disk.put(name, &bytes);
        }
        disk
    }

    /// The power goes at each operation of a recovery of `begun`, whose log ends at `last`, the syncs of one class being
    /// ignored; returns what that breaks.
    fn sweep(begun: &FaultDisk, last: u64, ignored: Option<&str>) -> Result<(), String> {
        for number in 0.. {
            let mut done = false;
            for seed in 0..16 {
                let mut disk = begun.fork(seed);
                disk.ignore_syncs(ignored);
                disk.fail_at(number, Fault::PowerOff);
                done = recover(&mut disk).is_ok();
                let left = done.then(|| disk.fork(seed));
                disk.crash(if seed == 0 { Survival::Nothing } else { Survival::Torn });
                let lengths = |mut disk: FaultDisk| disk.list().unwrap();
                if left.is_some_and(|left| lengths(left) != lengths(disk.fork(seed))) {
                    return Err("what a recovery left is not durable".to_owned());
                }
                let loaded = load(&mut disk.fork(seed))?;
                let members = if last == 2 { servers(&[1, 2, 3]) } else { servers(&[1]) };
                let old = !done && loaded.last_index == Index(last) && loaded.configuration == members;
                let new = loaded.last_index == Index(last + 1) && loaded.configuration == servers(&[1]);
                if !old && !new {
                    return Err(format!("a log up to {} after operation {number}", loaded.last_index));
                }
                check_backup(&disk, loaded.last_index, number)?;
                // Whoever is interrupted tries again.
                recover(&mut disk)?;
                let again = load(&mut disk)?.last_index;
                check_backup(&disk, again, number)?;
            }
            if done {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The three members of entry 2 are kept wherever others follow them, and how to go back to them.
    fn check_backup(disk: &FaultDisk, last: Index, number: u64) -> Result<(), String> {
        let text = disk.content(backup::NAME).map(|bytes| String::from_utf8(bytes).unwrap());
        let Some(text) = text.filter(|text| !text.is_empty() || last > Index(2)) else {
            let fine = last == Index(2) && disk.content(backup::NAME).is_none();
            return if fine { Ok(()) } else { Err(format!("no backup after operation {number}")) };
        };
        let added = (3..=last.0)
            .all(|at| text.contains(&format!("# added: {}\n", closed_name(Index(at), Index(at)))));
        let whole =
            text.contains("# last entry: index 2, term 4\n") && text.ends_with("  ID: 3\n  Role: 0\n");
        if whole && added { Ok(()) } else { Err(format!("after operation {number} it is kept that\n{text}")) }
    }

    #[test]
    fn an_interrupted_recovery_has_happened_or_not_and_every_sync_of_it_is_needed() {
        sweep(&killed(), 2, None).unwrap();
        let mut disk = killed();
        recover(&mut disk).unwrap();
        let classes = disk.sync_classes();
        let needless: Vec<_> =
            classes.iter().filter(|class| sweep(&killed(), 2, Some(class)).is_ok()).collect();
        // The last one of a load that left nothing to sync, and one that is followed by that of the backup's name.
        assert_eq!(needless, ["sync_dir: nothing", "sync_dir: rename open-# #-#"]);
        assert!(classes.len() >= 6, "{classes:?}");
    }

    #[test]
    fn a_second_recovery_that_is_interrupted_keeps_what_was_before_the_first() {
        let mut disk = killed();
        recover(&mut disk).unwrap();
        sweep(&disk, 3, None).unwrap();
    }

    #[test]
    fn a_recovery_is_undone_by_deleting_what_it_added() {
        let mut disk = killed();
        recover(&mut disk).unwrap();
        recover(&mut disk).unwrap();
        let text = String::from_utf8(disk.content(backup::NAME).unwrap()).unwrap();
        for name in text.lines().filter_map(|line| line.strip_prefix("# added: ")) {
            disk.unlink(name).unwrap();
        }
        let loaded = load(&mut disk).unwrap();
        assert_eq!((loaded.last_index, loaded.last_term), (Index(2), Term(4)));
        assert_eq!(loaded.configuration, servers(&[1, 2, 3]));
    }
}
