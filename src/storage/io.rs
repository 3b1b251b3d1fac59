//! Disk operations of the writer: counted, and with every failure sorted into "no room" or "for good".

use std::fmt;
use std::io;

use crate::disk::{Disk, is_no_space};

/// Why something was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// There is no room: nothing of what was asked for counts, and the same may succeed later.
    NoSpace {
        /// What was tried and what the system said.
        text: String,
    },
    /// What was asked for does not fit the log on disk; nothing was changed.
    Refused {
        /// What was expected and what was found.
        text: String,
    },
    /// A write or a sync failed: nobody knows what is on the disk. The writer answers this from now on.
    Failed {
        /// What was tried first and what the system said.
        text: String,
    },
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace { text } | Self::Refused { text } | Self::Failed { text } => f.write_str(text),
        }
    }
}

impl std::error::Error for StorageError {}

/// A disk behind the writer's rules: after a failure which is not for want of room nothing works any more.
#[derive(Debug)]
pub(super) struct Io<D> {
    disk: D,
    failed: Option<String>,
    names_changed: bool,
    pub bytes_written: u64,
    pub syncs: u64,
}

impl<D: Disk> Io<D> {
    pub fn new(disk: D) -> Self {
        Self { disk, failed: None, names_changed: false, bytes_written: 0, syncs: 0 }
    }

    pub fn check(&self) -> Result<(), StorageError> {
        self.failed.as_ref().map_or(Ok(()), |text| Err(StorageError::Failed { text: text.clone() }))
    }

    /// Gives up for good: whoever finds the log in a state that must not be.
    pub fn fail(&mut self, text: String) -> StorageError {
        let text = self.failed.get_or_insert(text).clone();
        StorageError::Failed { text }
    }

    fn sort<T>(&mut self, done: io::Result<T>, what: impl FnOnce() -> String) -> Result<T, StorageError> {
        match done {
            Ok(value) => Ok(value),
            Err(error) if is_no_space(&error) => {
                Err(StorageError::NoSpace { text: format!("{}: {error}", what()) })
            }
            Err(error) => Err(self.fail(format!("{}: {error}", what()))),
        }
    }

    /// A new empty file; a left-over of that name is replaced.
    pub fn create(&mut self, name: &str) -> Result<D::File, StorageError> {
        self.check()?;
        self.names_changed = true;
        let mut done = self.disk.create(name);
        if done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            done = self.disk.unlink(name).and_then(|()| self.disk.create(name));
        }
        self.sort(done, || format!("create {name}"))
    }

    pub fn list(&mut self) -> Result<Vec<(String, u64)>, StorageError> {
        self.check()?;
        let done = self.disk.list();
        self.sort(done, || "list the data directory".to_owned())
    }

    pub fn read_all(&mut self, name: &str) -> Result<Vec<u8>, StorageError> {
        self.check()?;
        let done = self.disk.read_all(name);
        self.sort(done, || format!("read {name}"))
    }

    pub fn write_at(
        &mut self,
        name: &str,
        file: &mut D::File,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        self.check()?;
        let done = self.disk.write_at(file, at, bytes);
        self.bytes_written += bytes.len() as u64;
        self.sort(done, || format!("write {} bytes at {at} of {name}", bytes.len()))
    }

    pub fn set_len(&mut self, name: &str, file: &mut D::File, len: u64) -> Result<(), StorageError> {
        self.check()?;
        let done = self.disk.set_len(file, len);
        self.sort(done, || format!("cut {name} to {len} bytes"))
    }

    pub fn preallocate(&mut self, name: &str, file: &mut D::File, len: u64) -> Result<(), StorageError> {
        self.check()?;
        let done = self.disk.preallocate(file, len);
        // C's words for it come first: programs know them.
        self.sort(done, || format!("not enough space to allocate {len} bytes: reserve {name}"))
    }

    /// Any failure of a sync is for good: what was written before it may be lost while reads still show it.
    pub fn sync(&mut self, name: &str, file: &mut D::File) -> Result<(), StorageError> {
        self.check()?;
        self.syncs += 1;
        let done = self.disk.sync(file);
        done.map_err(|error| self.fail(format!("sync {name}: {error}")))
    }

    pub fn sync_dir(&mut self) -> Result<(), StorageError> {
        self.check()?;
        self.syncs += 1;
        let done = self.disk.sync_dir();
        self.names_changed = false;
        done.map_err(|error| self.fail(format!("sync the data directory: {error}")))
    }

    /// Makes the names durable, if any was changed since they were.
    pub fn sync_changed_names(&mut self) -> Result<(), StorageError> {
        if self.names_changed { self.sync_dir() } else { self.check() }
    }

    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), StorageError> {
        self.check()?;
        self.names_changed = true;
        let done = self.disk.rename(from, to);
        self.sort(done, || format!("rename {from} to {to}"))
    }

    /// Takes a name away; one that is already gone is as good.
    pub fn unlink(&mut self, name: &str) -> Result<(), StorageError> {
        self.check()?;
        self.names_changed = true;
        match self.disk.unlink(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => self.sort(done, || format!("delete {name}")),
        }
    }

    /// A whole file under a temporary name, durable; it is gone again when it does not succeed.
    pub fn write_temporary(&mut self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let mut file = self.create(name)?;
        let written = self.write_at(name, &mut file, 0, bytes);
        if written.is_err() {
            self.discard(name);
        }
        written?;
        // Before any rename: else a crash can leave the final name with old or no bytes.
        self.sync(name, &mut file)
    }

    /// Deletes a temporary file that nobody needs; the next start deletes it if this does not.
    pub fn discard(&mut self, name: &str) {
        if self.failed.is_none() {
            let _ = self.disk.unlink(name);
        }
    }

    /// The disk itself, for code that does its own sorting of failures.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }
}
