//! A directory in memory that forgets, tears and refuses as it is told.
//!
//! It keeps apart what a program sees and what would survive: bytes and lengths become durable by
//! [`Disk::sync`], names by [`Disk::sync_dir`], nothing earlier and nothing else. [`FaultDisk::crash`] takes the
//! power away and decides, from the seed, what of the rest survived: any set of 512-byte sectors, cuts and
//! names, in any order. After a sync that failed the same is decided at once, and what is lost then stays
//! lost whatever is synced later, while reads go on showing it: this is what operating systems do.

mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::seam::Disk;
use model::{Model, NameChange};

/// What happens to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails like a broken medium; a write or a sync may have been carried out in part.
    Broken,
    /// It fails for want of room; half of a write has been carried out.
    NoSpace,
    /// The power goes while it is under way: it and all later ones fail until [`FaultDisk::crash`].
    PowerOff,
}

/// How much of what was never synced survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// All of it, as after the kill of a process.
    Everything,
    /// Each sector, cut and name by the toss of a coin.
    Torn,
}

/// An open file of a [`FaultDisk`].
#[derive(Debug)]
pub struct FaultFile {
    inode: usize,
    boot: u64,
}

struct State {
    model: Model,
    boot: u64,
    operations: u64,
    read_bytes: u64,
    faults: Vec<(u64, Fault)>,
    off: bool,
    capacity: Option<u64>,
    ignored: Option<String>,
    classes: BTreeSet<String>,
    trace: Vec<String>,
}

/// The directory; clones share it, also between threads.
#[derive(Clone)]
pub struct FaultDisk {
    state: Arc<Mutex<State>>,
}

impl FaultDisk {
    /// An empty directory; `seed` decides what survives.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            model: Model::new(seed),
            boot: 0,
            operations: 0,
            read_bytes: 0,
            faults: Vec::new(),
            off: false,
            capacity: None,
            ignored: None,
            classes: BTreeSet::new(),
            trace: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `number`-th operation from now on, counted from 0, meets `fault`. Reads and lists do not count.
    pub fn fail_at(&self, number: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.operations + number;
        state.faults.push((at, fault));
    }

    /// How many operations there were, reads and lists not counted.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How many bytes were read.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.state().read_bytes
    }

    /// From now on the files may have this many bytes in all; more is refused for want of room.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// How many bytes the files have in all.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().model.used_bytes()
    }

    /// Syncs of this class (see [`FaultDisk::sync_classes`]) report success and do nothing.
    pub fn ignore_syncs(&self, class: Option<&str>) {
        self.state().ignored = class.map(str::to_owned);
    }

    /// The classes of all syncs so far: what was synced, and what had happened to it since the last one.
    #[must_use]
    pub fn sync_classes(&self) -> BTreeSet<String> {
        self.state().classes.clone()
    }

    /// The operations since the last call, one line each; reads and lists are left out.
    pub fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.state().trace)
    }

    /// Takes the power away if it is not gone yet, decides what survived, and switches on again: files that
    /// were open are so no more, faults are forgotten.
    pub fn crash(&self, survival: Survival) {
        let mut state = self.state();
        state.model.crash(survival);
        state.boot += 1;
        state.off = false;
        state.faults.clear();
        state.trace.clear();
    }

    /// A file as a program sees it, for tests.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.state().model.content(name)
    }

    /// Puts a durable file there, for tests.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.state().model.put(name, bytes);
    }

    /// A second disk that starts as this one is now; they share nothing.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        copy.state().model = self.state().model.fork(seed);
        copy
    }
}

impl State {
    /// Counts one operation and says what befalls it. `line` describes it in the trace.
    fn begin(&mut self, line: String) -> io::Result<Option<Fault>> {
        if self.off {
            return Err(power_is_off());
        }
        let number = self.operations;
        self.operations += 1;
        self.trace.push(line);
        let fault = self.faults.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault);
        if fault == Some(Fault::PowerOff) {
            self.off = true;
        }
        Ok(fault)
    }

    fn inode(&self, file: &FaultFile) -> io::Result<usize> {
        if self.off || file.boot != self.boot {
            return Err(power_is_off());
        }
        Ok(file.inode)
    }

    /// An operation on names: atomic, so under a broken medium it did not happen.
    fn change_names(&mut self, line: String, change: NameChange) -> io::Result<()> {
        match self.begin(line)? {
            None => self.model.change_names(change),
            Some(Fault::PowerOff) => {
                self.model.change_names(change);
                return Err(power_is_off());
            }
            Some(fault) => return Err(refusal(fault)),
        }
        Ok(())
    }

    /// Whether a file may get this long, and if not, how long it may get.
    fn room(&self, inode: usize, len: u64) -> Result<(), u64> {
        let now = self.model.len(inode);
        let grown = len.saturating_sub(now);
        let free = self.capacity.map_or(u64::MAX, |all| all.saturating_sub(self.model.used_bytes()));
        if grown > free { Err(now + free) } else { Ok(()) }
    }

    fn count_sync(&mut self, class: String) -> bool {
        let ignored = self.ignored.as_ref() == Some(&class);
        self.classes.insert(class);
        ignored
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

fn refusal(fault: Fault) -> io::Error {
    match fault {
        Fault::Broken => io::Error::other("the medium is broken"),
        Fault::NoSpace => io::Error::from(io::ErrorKind::StorageFull),
        Fault::PowerOff => power_is_off(),
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name}: no such file"))
}

impl Disk for FaultDisk {
    type File = FaultFile;

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        if state.off { Err(power_is_off()) } else { Ok(state.model.list()) }
    }

    fn create(&mut self, name: &str) -> io::Result<FaultFile> {
        let mut state = self.state();
        if !state.off && state.model.find(name).is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name}: exists")));
        }
        let inode = state.model.new_inode(name);
        let change = NameChange { gone: None, there: Some((name.to_owned(), inode)) };
        state.change_names(format!("create {name}"), change)?;
        Ok(FaultFile { inode, boot: state.boot })
    }

    fn open(&mut self, name: &str) -> io::Result<FaultFile> {
        let state = self.state();
        if state.off {
            return Err(power_is_off());
        }
        let inode = state.model.find(name).ok_or_else(|| not_found(name))?;
        Ok(FaultFile { inode, boot: state.boot })
    }

    fn read_at(&mut self, file: &FaultFile, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        let inode = state.inode(file)?;
        let len = state.model.read(inode, offset, buf);
        state.read_bytes += len as u64;
        Ok(len)
    }

    fn write_at(&mut self, file: &mut FaultFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.inode(file)?;
        let line = format!("write {} {offset}+{}", state.model.name(inode), bytes.len());
        let fault = state.begin(line)?;
        let (done, refused) = match (fault, state.room(inode, offset + bytes.len() as u64)) {
            (None, Ok(())) => (bytes, None),
            (None, Err(end)) => {
                let fits = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
                (bytes.get(..fits).unwrap_or(bytes), Some(Fault::NoSpace))
            }
            (Some(Fault::PowerOff), _) => (bytes, Some(Fault::PowerOff)),
            (Some(fault), _) => (bytes.get(..bytes.len() / 2).unwrap_or(&[]), Some(fault)),
        };
        state.model.write(inode, offset, done);
        refused.map_or(Ok(()), |fault| Err(refusal(fault)))
    }

    fn set_len(&mut self, file: &mut FaultFile, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.inode(file)?;
        let line = format!("set_len {} {len}", state.model.name(inode));
        let fault = state.begin(line)?;
        if matches!(fault, None | Some(Fault::PowerOff)) {
            state.model.set_len(inode, len);
        }
        fault.map_or(Ok(()), |fault| Err(refusal(fault)))
    }

    fn preallocate(&mut self, file: &mut FaultFile, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.inode(file)?;
        let line = format!("preallocate {} {len}", state.model.name(inode));
        let mut fault = state.begin(line)?;
        if fault.is_none() && state.room(inode, len).is_err() {
            fault = Some(Fault::NoSpace);
        }
        if matches!(fault, None | Some(Fault::PowerOff)) && state.model.len(inode) < len {
            state.model.set_len(inode, len);
        }
        fault.map_or(Ok(()), |fault| Err(refusal(fault)))
    }

    fn sync(&mut self, file: &mut FaultFile) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.inode(file)?;
        let line = format!("sync {}", state.model.name(inode));
        let fault = state.begin(line)?;
        let class = state.model.sync_class(inode);
        let ignored = state.count_sync(class);
        match fault {
            None if ignored => {}
            None => state.model.sync(inode),
            Some(Fault::PowerOff) => return Err(power_is_off()),
            Some(fault) => {
                state.model.lose(inode);
                return Err(refusal(fault));
            }
        }
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.begin("sync_dir".to_owned())?;
        let class = state.model.sync_dir_class();
        let ignored = state.count_sync(class);
        match fault {
            None if ignored => {}
            None => state.model.sync_dir(),
            Some(fault) => return Err(refusal(fault)),
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let found = state.model.find(from);
        if state.off {
            return Err(power_is_off());
        }
        let inode = found.ok_or_else(|| not_found(from))?;
        let change = NameChange { gone: Some((from.to_owned(), inode)), there: Some((to.to_owned(), inode)) };
        state.change_names(format!("rename {from} {to}"), change)
    }

    fn unlink(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let found = state.model.find(name);
        if state.off {
            return Err(power_is_off());
        }
        let inode = found.ok_or_else(|| not_found(name))?;
        let change = NameChange { gone: Some((name.to_owned(), inode)), there: None };
        state.change_names(format!("unlink {name}"), change)
    }
}
