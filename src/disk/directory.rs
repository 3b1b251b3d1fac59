//! What is asked of the data directory before it is used, and the lock that keeps two nodes apart.
//!
//! The texts are those of `dqlite_node_create` and `dqlite_node_start` of the C library, byte for byte.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::real::RealDisk;
use super::seam::Disk;

/// The longest path of a data directory, in bytes.
pub const PATH_BYTES_MAX: usize = 894;

/// The file that carries the lock. It is never deleted.
const LOCK_NAME: &str = "dqlite-lock";

/// The file by which it is tried whether files can be made. It exists for microseconds.
const PROBE_NAME: &str = ".probe";

/// Why a directory cannot be a data directory. Its text is the whole of what `dqlite_node_errmsg` says.
#[derive(Debug)]
pub enum DirectoryError {
    /// The path has more than [`PATH_BYTES_MAX`] bytes.
    TooLong,
    /// Nothing is there.
    Missing(PathBuf),
    /// Something else is there, or on the way to it.
    NotADirectory(PathBuf),
    /// The owner has no right to write; the bits decide, also for root.
    NotWritable(PathBuf),
    /// A directory on the way may not be searched.
    NoAccess(PathBuf),
    /// Anything else.
    Stat(PathBuf, Errno),
    /// No file can be made in it.
    Probe(io::Error),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("raft_uv_init(): directory path too long"),
            Self::Missing(path) => {
                write!(f, "raft_init(): io: directory '{}' does not exist", path.display())
            }
            Self::NotADirectory(path) => {
                write!(f, "raft_init(): io: path '{}' is not a directory", path.display())
            }
            Self::NotWritable(path) => {
                write!(f, "raft_init(): io: directory '{}' is not writable", path.display())
            }
            Self::NoAccess(path) => {
                write!(f, "raft_init(): io: can't access directory '{}'", path.display())
            }
            Self::Stat(path, error) => {
                write!(f, "raft_init(): io: can't stat '{}': {}", path.display(), stat_text(*error))
            }
            Self::Probe(error) => {
                write!(f, "raft_init(): io: create I/O capabilities probe file: {error}")
            }
        }
    }
}

impl std::error::Error for DirectoryError {}

/// The words that the C library's event loop has for the errors a `stat` can give.
fn stat_text(error: Errno) -> String {
    match error {
        Errno::LOOP => "too many symbolic links encountered".to_owned(),
        Errno::NAMETOOLONG => "name too long".to_owned(),
        Errno::IO => "i/o error".to_owned(),
        Errno::NOMEM => "not enough memory".to_owned(),
        Errno::OVERFLOW => "value too large for defined data type".to_owned(),
        other => io::Error::from(other).to_string(),
    }
}

/// Whether `path` may be a data directory. Changes nothing.
///
/// # Errors
/// Why it may not.
pub fn check_directory(path: &Path) -> Result<(), DirectoryError> {
    if path.as_os_str().as_bytes().len() > PATH_BYTES_MAX {
        return Err(DirectoryError::TooLong);
    }
    let stat = retry_on_intr(|| rustix::fs::stat(path)).map_err(|error| match error {
        Errno::NOENT => DirectoryError::Missing(path.to_owned()),
        Errno::NOTDIR => DirectoryError::NotADirectory(path.to_owned()),
        Errno::ACCESS => DirectoryError::NoAccess(path.to_owned()),
        other => DirectoryError::Stat(path.to_owned(), other),
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(DirectoryError::NotADirectory(path.to_owned()));
    }
    if !Mode::from_raw_mode(stat.st_mode).contains(Mode::WUSR) {
        return Err(DirectoryError::NotWritable(path.to_owned()));
    }
    Ok(())
}

/// Tries whether files can be made in the directory; leaves none behind. Only under the lock.
///
/// # Errors
/// [`DirectoryError::Probe`].
pub fn probe(disk: &mut RealDisk) -> Result<(), DirectoryError> {
    match disk.create(PROBE_NAME) {
        Ok(_) => {}
        // Left by a process that was killed within those microseconds.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(DirectoryError::Probe(error)),
    }
    disk.unlink(PROBE_NAME).map_err(DirectoryError::Probe)
}

/// Why the lock could not be taken.
#[derive(Debug)]
pub enum LockError {
    /// Another node, in this process or another one, has it.
    Held {
        /// The data directory.
        directory: PathBuf,
        /// The process that has it, where the system says so.
        pid: Option<u32>,
    },
    /// The lock file could not be opened or locked.
    Io {
        /// The data directory.
        directory: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("couldn't lock the raft directory")?;
        match self {
            Self::Held { directory, pid: Some(pid) } => {
                write!(f, ": '{}' is in use by process {pid}", directory.display())
            }
            Self::Held { directory, pid: None } => {
                write!(f, ": '{}' is in use by another node", directory.display())
            }
            Self::Io { directory, error } => {
                write!(f, ": '{}/{LOCK_NAME}': {error}", directory.display())
            }
        }
    }
}

impl std::error::Error for LockError {}

/// The right to change the data directory, until it is dropped.
///
/// It is the lock that the C library takes, on `dqlite-lock`, and one on the directory itself, which still
/// keeps two of our nodes apart when somebody has deleted that file.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
    _directory: Option<File>,
}

impl DirectoryLock {
    /// Takes the lock without waiting.
    ///
    /// # Errors
    /// [`LockError::Held`] when another node has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let mode = Mode::RUSR | Mode::WUSR;
        let directory = match Self::lock(path, path, OFlags::RDONLY | OFlags::DIRECTORY, mode) {
            Ok(file) => Some(file),
            Err(held @ LockError::Held { .. }) => return Err(held),
            // Not every file system locks directories; the lock file is the one that counts.
            Err(LockError::Io { .. }) => None,
        };
        let name = path.join(LOCK_NAME);
        let file = Self::lock(path, &name, OFlags::RDWR | OFlags::CREATE, mode)?;
        Ok(Self { _file: file, _directory: directory })
    }

    fn lock(directory: &Path, name: &Path, flags: OFlags, mode: Mode) -> Result<File, LockError> {
        let failed = |error: Errno| LockError::Io { directory: directory.to_owned(), error: error.into() };
        let file = retry_on_intr(|| rustix::fs::open(name, flags | OFlags::CLOEXEC, mode)).map_err(failed)?;
        let file = File::from(file);
        match retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(file),
            Err(Errno::WOULDBLOCK) => {
                Err(LockError::Held { directory: directory.to_owned(), pid: holder(&file) })
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// The process that holds the lock on `file`, where the system lists it.
fn holder(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // "1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF"
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let pid = words.nth(2)?;
        let place = words.next()?;
        if kind == "FLOCK" && place.rsplit(':').next() == Some(inode.as_str()) {
            pid.parse().ok()
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn said(path: &Path) -> String {
        check_directory(path).unwrap_err().to_string()
    }

    #[test]
    fn the_refusals_are_the_c_librarys_texts() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let at = |name: &str| root.join(name);
        std::fs::write(at("file"), b"").unwrap();
        std::fs::create_dir(at("bare")).unwrap();
        std::fs::set_permissions(at("bare"), std::fs::Permissions::from_mode(0o500)).unwrap();
        std::os::unix::fs::symlink("circle", at("circle")).unwrap();
        let long = "x".repeat(300);
        let dir = root.display();

        assert_eq!(said(Path::new("")), "raft_init(): io: directory '' does not exist");
        assert_eq!(said(&at("none")), format!("raft_init(): io: directory '{dir}/none' does not exist"));
        assert_eq!(said(&at("file")), format!("raft_init(): io: path '{dir}/file' is not a directory"));
        assert_eq!(said(&at("file/a")), format!("raft_init(): io: path '{dir}/file/a' is not a directory"));
        assert_eq!(said(&at("bare")), format!("raft_init(): io: directory '{dir}/bare' is not writable"));
        assert_eq!(
            said(&at("circle")),
            format!("raft_init(): io: can't stat '{dir}/circle': too many symbolic links encountered")
        );
        assert_eq!(said(&at(&long)), format!("raft_init(): io: can't stat '{dir}/{long}': name too long"));
        check_directory(root).unwrap();
    }

    #[test]
    fn a_path_of_894_bytes_is_the_longest() {
        let path = "/".repeat(894);
        check_directory(Path::new(&path)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(said(Path::new(&format!("{path}/"))), "raft_uv_init(): directory path too long");
    }

    #[test]
    fn the_lock_keeps_a_second_node_out_until_it_is_dropped() {
        let place = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(place.path()).unwrap();
        let refusal = DirectoryLock::take(place.path()).unwrap_err();
        assert!(matches!(refusal, LockError::Held { .. }));
        assert!(refusal.to_string().starts_with("couldn't lock the raft directory"), "{refusal}");

        // Deleting the lock file does not help.
        std::fs::remove_file(place.path().join(LOCK_NAME)).unwrap();
        DirectoryLock::take(place.path()).unwrap_err();
        drop(lock);
        DirectoryLock::take(place.path()).unwrap();
        assert!(place.path().join(LOCK_NAME).exists());
    }

    #[test]
    fn the_lock_is_the_one_that_the_c_library_takes() {
        let place = tempfile::tempdir().unwrap();
        let name = place.path().join(LOCK_NAME);
        let theirs = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(name).unwrap();
        rustix::fs::flock(&theirs, FlockOperation::NonBlockingLockExclusive).unwrap();
        DirectoryLock::take(place.path()).unwrap_err();
        drop(theirs);
        DirectoryLock::take(place.path()).unwrap();
    }

    #[test]
    fn a_probe_leaves_nothing_behind_and_is_not_put_off_by_an_old_one() {
        let place = tempfile::tempdir().unwrap();
        let mut disk = RealDisk::open(place.path()).unwrap();
        std::fs::write(place.path().join(PROBE_NAME), b"").unwrap();
        probe(&mut disk).unwrap();
        probe(&mut disk).unwrap();
        assert_eq!(disk.list().unwrap(), []);
    }

    #[test]
    fn a_directory_that_is_gone_cannot_be_probed() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let mut disk = RealDisk::open(&inner).unwrap();
        std::fs::remove_dir(&inner).unwrap();
        let text = probe(&mut disk).unwrap_err().to_string();
        assert!(text.starts_with("raft_init(): io: create I/O capabilities probe file: "), "{text}");
    }
}
