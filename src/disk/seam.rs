//! What the data directory needs of a file system: one flat directory, positioned I/O, explicit syncs.
//!
//! Nothing is durable before the matching sync has returned: the bytes and the length of a file before
//! [`Disk::sync`], names (created, renamed, unlinked) before [`Disk::sync_dir`].

use std::io;

use rustix::io::Errno;

/// How much [`Disk::read_all`] asks for at a time.
const READ_CHUNK_BYTES: usize = 1 << 20;

/// One directory. Names are plain file names without a slash.
pub trait Disk {
    /// An open file.
    type File;

    /// The regular files and their sizes, in no particular order. Names that are not UTF-8 are left out:
    /// none of ours looks like that.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;

    /// A new empty file, readable and writable by its owner alone.
    ///
    /// # Errors
    /// `AlreadyExists`, or whatever the file system says.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;

    /// An existing file, for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, or whatever the file system says.
    fn open(&mut self, name: &str) -> io::Result<Self::File>;

    /// Reads at most `buf.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn read_at(&mut self, file: &Self::File, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// Whatever the file system says; an unknown part of the bytes may have been written then.
    fn write_at(&mut self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn set_len(&mut self, file: &mut Self::File, len: u64) -> io::Result<()>;

    /// Reserves space so that the file has at least `len` bytes, zeros where nothing was written.
    ///
    /// # Errors
    /// Whatever the file system says. One that cannot reserve only extends.
    fn preallocate(&mut self, file: &mut Self::File, len: u64) -> io::Result<()>;

    /// Makes the bytes and the length of the file durable.
    ///
    /// # Errors
    /// Whatever the file system says. What was written since the last sync counts as lost then, even if a
    /// later sync succeeds.
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;

    /// Makes the names of the directory durable.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// Gives a file another name; a file that had it before is gone.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a name away.
    ///
    /// # Errors
    /// `NotFound`, or whatever the file system says.
    fn unlink(&mut self, name: &str) -> io::Result<()>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn read_all(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.open(name)?;
        let mut content = Vec::new();
        let mut chunk = vec![0; READ_CHUNK_BYTES];
        loop {
            let len = self.read_at(&file, content.len() as u64, &mut chunk)?;
            let Some(read) = chunk.get(..len).filter(|read| !read.is_empty()) else {
                return Ok(content);
            };
            content.extend_from_slice(read);
        }
    }
}

impl<D: Disk + ?Sized> Disk for &mut D {
    type File = D::File;

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        (**self).list()
    }

    fn create(&mut self, name: &str) -> io::Result<Self::File> {
        (**self).create(name)
    }

    fn open(&mut self, name: &str) -> io::Result<Self::File> {
        (**self).open(name)
    }

    fn read_at(&mut self, file: &Self::File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(file, offset, buf)
    }

    fn write_at(&mut self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).write_at(file, offset, bytes)
    }

    fn set_len(&mut self, file: &mut Self::File, len: u64) -> io::Result<()> {
        (**self).set_len(file, len)
    }

    fn preallocate(&mut self, file: &mut Self::File, len: u64) -> io::Result<()> {
        (**self).preallocate(file, len)
    }

    fn sync(&mut self, file: &mut Self::File) -> io::Result<()> {
        (**self).sync(file)
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        (**self).sync_dir()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        (**self).rename(from, to)
    }

    fn unlink(&mut self, name: &str) -> io::Result<()> {
        (**self).unlink(name)
    }
}

/// Whether an error says that there is no room, so that the same may succeed when there is again. Room for open
/// files counts too: clients can use up a process's descriptors, and nothing is written when a file is not opened.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    let no_descriptor = matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
    let no_space = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero
    );
    no_descriptor || no_space
}
