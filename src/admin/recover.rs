//! Operations on the log of a node that does not run.

use std::io;

use super::config::NodeConfig;
use super::failure::{Code, Failure};
use super::member::{self, Member};
use crate::base::{Entry, EntryKind, Index, Payload, Term};
use crate::codec::membership::{Configuration, Server};
use crate::disk::overlay::Overlay;
use crate::disk::{DirectoryLock, Disk, LockError, RealDisk};
use crate::format::names::{closed_name, temporary_name};
use crate::format::segment::{SEGMENT_HEADER, encode_batch};
use crate::runtime::clock;
use crate::storage::loader::{self, LoadOptions, Loaded};

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
/// `DQLITE_MISUSE` for a list that is none, `DQLITE_ERROR` where the directory is in use, cannot be loaded or
/// not be written; only the last two have a text.
pub fn recover(config: &NodeConfig, members: Vec<Member>) -> Result<(), Failure> {
    let configuration = configuration(members).map_err(|text| {
        log::warn!("recover: {text}");
        Failure::silent(Code::Misuse)
    })?;
    let _lock = DirectoryLock::take(&config.directory).map_err(|error| {
        log::warn!("recover: {error}");
        Failure::silent(Code::Error)
    })?;
    let failed = |error: io::Error| Failure::error(format!("raft_recover(): io: {error}"));
    let mut disk = RealDisk::open(&config.directory).map_err(failed)?;
    let loaded =
        load(&mut disk, config).map_err(|error| Failure::error(format!("raft_recover(): {error}")))?;
    append(&mut disk, loaded.last_index.next(), &configuration).map_err(failed)
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
/// `DQLITE_ERROR` where it cannot be loaded, without a text, as in C.
pub fn describe_last_entry(config: &NodeConfig) -> Result<LastEntry, Failure> {
    let failed = |text: String| {
        log::warn!("describe the last entry: {text}");
        Failure::silent(Code::Error)
    };
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
