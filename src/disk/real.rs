//! A directory of the operating system.
//!
//! All names are resolved from one open descriptor of the directory, so that a program which changes its
//! working directory, or moves the directory, does no harm. Every descriptor is closed on exec.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::seam::Disk;
use crate::base::meter::DiskMeter;

/// From this size on a file that is deleted is left to somebody else to close: what it occupies is freed then, which
/// for a gigabyte takes as long as a hundred syncs.
const LARGE_BYTES: u64 = 1 << 20;

/// Zeros written per call where a file system cannot reserve space.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Takes a large file that was deleted, to close it. Others may still read it.
pub type Deleted = fn(File);

/// A real directory; clones share it.
#[derive(Clone, Debug)]
pub struct RealDisk {
    directory: Arc<File>,
    meter: Option<Arc<DiskMeter>>,
    deleted: Option<Deleted>,
}

impl RealDisk {
    /// The directory at `path`, which must exist.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
        Ok(Self { directory: Arc::new(File::from(directory)), meter: None, deleted: None })
    }

    /// The same directory; what is written and synced by way of this value is counted there.
    #[must_use]
    pub fn metered(&self, meter: &Arc<DiskMeter>) -> Self {
        Self { meter: Some(Arc::clone(meter)), ..self.clone() }
    }

    /// The same directory; large files that are deleted by way of this value go to `deleted`, still open.
    #[must_use]
    pub fn deleting_by(self, deleted: Deleted) -> Self {
        Self { deleted: Some(deleted), ..self }
    }

    /// A large file that is about to be deleted, and who is to have it then.
    fn hold(&self, name: &str) -> Option<(Deleted, File)> {
        let deleted = self.deleted?;
        let file = self.open_with(name, OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
        let is_large = file.metadata().is_ok_and(|found| found.is_file() && found.len() >= LARGE_BYTES);
        is_large.then_some((deleted, file))
    }

    fn timed(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let Some(meter) = &self.meter else { return sync() };
        let began = (meter.now_ns)();
        let done = sync();
        meter.syncs.record(Duration::from_nanos((meter.now_ns)().saturating_sub(began)));
        done
    }

    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = flags | OFlags::CLOEXEC;
        let file = retry_on_intr(|| rustix::fs::openat(&*self.directory, name, flags, mode))?;
        Ok(File::from(file))
    }
}

impl Disk for RealDisk {
    type File = File;

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for item in rustix::fs::Dir::read_from(&*self.directory)? {
            let item = item?;
            let Ok(name) = item.file_name().to_str() else { continue };
            let stat = match rustix::fs::statat(&*self.directory, name, AtFlags::empty()) {
                Ok(stat) => stat,
                // Gone since it was listed, or a link that leads nowhere.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                files.push((name.to_owned(), u64::try_from(stat.st_size).unwrap_or(0)));
            }
        }
        Ok(files)
    }

    fn create(&mut self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlags::RDWR)
    }

    fn read_at(&mut self, file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(meter) = &self.meter {
            meter.bytes.add(bytes.len() as u64);
        }
        file.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, file: &mut File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn preallocate(&mut self, file: &mut File, len: u64) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => extend_with_zeros(file, len),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        self.timed(|| file.sync_data())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.timed(|| self.directory.sync_all())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&*self.directory, from, &*self.directory, to)?)
    }

    fn unlink(&mut self, name: &str) -> io::Result<()> {
        let held = self.hold(name);
        rustix::fs::unlinkat(&*self.directory, name, AtFlags::empty())?;
        if let Some((deleted, file)) = held {
            deleted(file);
        }
        Ok(())
    }
}

/// Reserves by writing, where there is no other way: the space is taken and its blocks are written.
fn extend_with_zeros(file: &File, len: u64) -> io::Result<()> {
    let mut end = file.metadata()?.len();
    while end < len {
        let step = usize::try_from(len - end).unwrap_or(ZEROS.len()).min(ZEROS.len());
        file.write_all_at(ZEROS.get(..step).unwrap_or(&ZEROS), end)?;
        end += step as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_file_is_created_written_renamed_and_read_back() {
        let place = tempfile::tempdir().unwrap();
        let mut disk = RealDisk::open(place.path()).unwrap();
        let mut file = disk.create("open-1").unwrap();
        assert_eq!(disk.create("open-1").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.preallocate(&mut file, 8192).unwrap();
        disk.write_at(&mut file, 8, b"hello").unwrap();
        disk.set_len(&mut file, 13).unwrap();
        disk.sync(&mut file).unwrap();
        disk.rename("open-1", "1-1").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), [("1-1".to_owned(), 13)]);
        assert_eq!(disk.read_all("1-1").unwrap(), b"\0\0\0\0\0\0\0\0hello");
        disk.unlink("1-1").unwrap();
        assert_eq!(disk.open("1-1").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn files_are_for_their_owner_alone_and_closed_on_exec() {
        let place = tempfile::tempdir().unwrap();
        let mut disk = RealDisk::open(place.path()).unwrap();
        let file = disk.create("metadata1").unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o177, 0);
        for descriptor in [&file, &*disk.directory] {
            let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn a_large_file_that_is_deleted_is_closed_by_somebody_else_and_whole_till_then() {
        static DELETED: Mutex<Vec<File>> = Mutex::new(Vec::new());
        let place = tempfile::tempdir().unwrap();
        let open = RealDisk::open(place.path()).unwrap();
        let mut disk = open.deleting_by(|file| DELETED.lock().unwrap().push(file));
        for (name, len) in [("small", LARGE_BYTES - 1), ("large", LARGE_BYTES)] {
            let mut file = disk.create(name).unwrap();
            disk.preallocate(&mut file, len).unwrap();
        }
        disk.unlink("small").unwrap();
        assert!(DELETED.lock().unwrap().is_empty());
        disk.unlink("large").unwrap();
        assert_eq!(disk.unlink("large").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.list().unwrap(), []);
        let file = DELETED.lock().unwrap().pop().unwrap();
        assert_eq!(file.metadata().unwrap().len(), LARGE_BYTES);
    }

    #[test]
    fn sub_directories_are_not_listed() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("open-1")).unwrap();
        std::fs::write(place.path().join("a"), b"xyz").unwrap();
        assert_eq!(RealDisk::open(place.path()).unwrap().list().unwrap(), [("a".to_owned(), 3)]);
    }

    #[test]
    fn space_is_taken_by_writing_where_it_cannot_be_reserved() {
        let place = tempfile::tempdir().unwrap();
        let mut disk = RealDisk::open(place.path()).unwrap();
        let mut file = disk.create("x").unwrap();
        disk.write_at(&mut file, 0, b"abc").unwrap();
        extend_with_zeros(&file, 100_000).unwrap();
        let content = disk.read_all("x").unwrap();
        assert_eq!(content.len(), 100_000);
        assert_eq!(content[..4], *b"abc\0");
    }
}
