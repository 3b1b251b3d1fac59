//! Operations on the log of a node that does not run.

use std::io;

use super::config::NodeConfig;
use super::failure::Failure;
use super::member::{self, Member};
use crate::base::{Entry, EntryKind, Index, Payload, Term};
use crate::codec::membership::{Configuration, Server};
use crate::disk::overlay::Overlay;
use crate::disk::{DirectoryLock, Disk, LockError, RealDisk};
use crate::format::names::{closed_name, temporary_name};
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
        Failure::error(format!("{PREFIX}io: {error}; the members are as they were: mend that and try again"))
    };
    let mut disk = RealDisk::open(&config.directory).map_err(failed)?;
    let loaded = load(&mut disk, config).map_err(|error| Failure::error(format!("{PREFIX}{error}")))?;
    append(&mut disk, loaded.last_index.next(), &configuration).map_err(failed)?;
    log::info!(
        "recover '{}': the log ended at index {} of term {}; from index {} on the cluster is {:?}",
        config.directory.display(),
        loaded.last_index,
        loaded.last_term,
        loaded.last_index.next(),
        configuration.servers
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

/// Writes the entry as a closed segment of its own. Its term is 1 whatever the log's is, as in C.
fn append<D: Disk>(disk: &mut D, index: Index, configuration: &Configuration) -> io::Result<()> {
    let payload = Payload::from_bytes(&configuration.encode());
    let entry = Entry { term: Term(1), index, kind: EntryKind::Change, payload };
    let mut bytes = SEGMENT_HEADER.to_vec();
    encode_batch(&[entry], &mut bytes);
    let name = closed_name(index, index);
    let temporary = temporary_name(&name);
    let mut file = disk.create(&temporary)?;
    disk.write_at(&mut file, 0, &bytes)?;
    // Before the rename: else a crash can leave a segment that is empty or torn at the end of the log.
    disk.sync(&mut file)?;
    disk.rename(&temporary, &name)?;
    // Before success is reported: the directory is copied to other machines next.
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
        let next = load(disk)?.last_index.next();
        append(disk, next, &servers(&[1])).map_err(|error| error.to_string())
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

    /// The power goes at each operation, the syncs of one class being ignored; returns what that breaks.
    fn sweep(ignored: Option<&str>) -> Result<(), String> {
        for number in 0.. {
            let mut done = false;
            for seed in 0..16 {
                let mut disk = killed().fork(seed);
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
                let old =
                    !done && loaded.last_index == Index(2) && loaded.configuration == servers(&[1, 2, 3]);
                let new = loaded.last_index == Index(3) && loaded.configuration == servers(&[1]);
                if !old && !new {
                    return Err(format!("a log up to {} after operation {number}", loaded.last_index));
                }
                // Whoever is interrupted tries again.
                recover(&mut disk)?;
                load(&mut disk)?;
            }
            if done {
                return Ok(());
            }
        }
        Ok(())
    }

    #[test]
    fn an_interrupted_recovery_has_happened_or_not_and_every_sync_of_it_is_needed() {
        sweep(None).unwrap();
        let mut disk = killed();
        recover(&mut disk).unwrap();
        let classes = disk.sync_classes();
        let needless: Vec<_> = classes.iter().filter(|class| sweep(Some(class)).is_ok()).collect();
        // The last one of a load that left nothing to sync.
        assert_eq!(needless, ["sync_dir: nothing"]);
        assert!(classes.len() >= 4, "{classes:?}");
    }
}
