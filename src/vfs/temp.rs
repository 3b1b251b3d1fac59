//! Journals and temporary files: memory within a budget of the process, then an unlinked file on disk.
//!
//! Not the files of SQLite's own unix VFS: that one keeps global lists and draws names from SQLite's random
//! generator, both of which race in single-thread mode.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use libsqlite3_sys as ffi;

use super::main_file::Code;
use crate::base::limits::TEMPORARY_BYTES_MAX;

const CHUNK: usize = 8 << 10;

/// Memory that temporary files may take together.
pub(super) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

/// The process's.
pub(super) static BUDGET: Budget = Budget::new(TEMPORARY_BYTES_MAX);

impl Budget {
    pub(super) const fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// One temporary file.
pub(super) struct TempFile {
    budget: &'static Budget,
    /// The content while it is in memory, in pieces of [`CHUNK`] bytes; zeros beyond `len`.
    chunks: Vec<Box<[u8]>>,
    len: u64,
    /// The content once it did not fit in memory.
    disk: Option<File>,
}

impl TempFile {
    pub(super) fn new(budget: &'static Budget) -> Self {
        Self { budget, chunks: Vec::new(), len: 0, disk: None }
    }

    pub(super) fn size(&self) -> u64 {
        self.len
    }

    /// Fills `out` from `offset` on; whether all of it lies within the file. What does not is zeros.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Result<bool, Code> {
        let wanted = out.len();
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (inside, beyond) = out.split_at_mut(wanted.min(left));
        beyond.fill(0);
        match &self.disk {
            Some(file) => file.read_exact_at(inside, offset).map_err(|_| ffi::SQLITE_IOERR_READ)?,
            None => {
                for (chunk, within, part) in pieces_mut(offset, inside) {
                    let from =
                        self.chunks.get(chunk).and_then(|bytes| bytes.get(within..within + part.len()));
                    part.copy_from_slice(from.ok_or(ffi::SQLITE_IOERR_READ)?);
                }
            }
        }
        Ok(beyond.is_empty())
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Code> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(ffi::SQLITE_FULL)?;
        if self.disk.is_none() && !self.reach(end) {
            self.spill()?;
        }
        match &self.disk {
            Some(file) => file.write_all_at(bytes, offset).map_err(|error| write_code(&error))?,
            None => {
                let (mut at, mut rest) = (offset, bytes);
                while !rest.is_empty() {
                    let (chunk, within) = place(at);
                    let (part, next) = rest.split_at(rest.len().min(CHUNK - within));
                    let to =
                        self.chunks.get_mut(chunk).and_then(|to| to.get_mut(within..within + part.len()));
                    to.ok_or(ffi::SQLITE_IOERR_WRITE)?.copy_from_slice(part);
                    at += part.len() as u64;
                    rest = next;
                }
            }
        }
        self.len = self.len.max(end);
        Ok(())
    }

    pub(super) fn truncate(&mut self, len: u64) -> Result<(), Code> {
        match &self.disk {
            Some(file) => file.set_len(len).map_err(|_| ffi::SQLITE_IOERR_TRUNCATE)?,
            None if len > self.len => {
                if !self.reach(len) {
                    self.spill()?;
                    return self.truncate(len);
                }
            }
            None => {
                let (last, within) = place(len);
                let kept = if within == 0 { last } else { last + 1 };
                self.drop_chunks(kept);
                if let Some(tail) = self.chunks.get_mut(last).and_then(|chunk| chunk.get_mut(within..)) {
                    tail.fill(0);
                }
            }
        }
        self.len = len;
        Ok(())
    }

    /// Makes the memory reach up to `end`, if the budget allows.
    fn reach(&mut self, end: u64) -> bool {
        let Ok(count) = usize::try_from(end.div_ceil(CHUNK as u64)) else { return false };
        let missing = count.saturating_sub(self.chunks.len());
        let fits = missing.checked_mul(CHUNK).is_some_and(|bytes| self.budget.take(bytes));
        if fits {
            self.chunks.extend((0..missing).map(|_| vec![0; CHUNK].into_boxed_slice()));
        }
        fits
    }

    fn drop_chunks(&mut self, kept: usize) {
        let dropped = self.chunks.len().saturating_sub(kept);
        self.chunks.truncate(kept);
        self.budget.give_back(dropped * CHUNK);
    }

    fn spill(&mut self) -> Result<(), Code> {
        let file = unlinked_file().map_err(|error| write_code(&error))?;
        for (at, chunk) in (0u64..).step_by(CHUNK).zip(&self.chunks) {
            file.write_all_at(chunk, at).map_err(|error| write_code(&error))?;
        }
        file.set_len(self.len).map_err(|error| write_code(&error))?;
        self.drop_chunks(0);
        self.disk = Some(file);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn is_on_disk(&self) -> bool {
        self.disk.is_some()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        self.drop_chunks(0);
    }
}

/// The chunk of an offset, and the place within it.
fn place(offset: u64) -> (usize, usize) {
    let chunk = usize::try_from(offset / CHUNK as u64).unwrap_or(usize::MAX);
    (chunk, usize::try_from(offset % CHUNK as u64).unwrap_or_default())
}

/// Cuts `bytes`, which lie at `offset`, where chunks end.
fn pieces_mut(offset: u64, bytes: &mut [u8]) -> impl Iterator<Item = (usize, usize, &mut [u8])> {
    let (mut at, mut rest) = (offset, bytes);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (chunk, within) = place(at);
        let len = rest.len().min(CHUNK - within);
        let (part, next) = std::mem::take(&mut rest).split_at_mut(len);
        at += len as u64;
        rest = next;
        Some((chunk, within, part))
    })
}

fn write_code(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ffi::SQLITE_FULL,
        _ => ffi::SQLITE_IOERR_WRITE,
    }
}

/// A file without a name, in the first of SQLite's usual directories that takes one.
fn unlinked_file() -> io::Result<File> {
    let named = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let usual = ["/var/tmp", "/tmp", "."].into_iter().map(PathBuf::from);
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for directory in named.chain(usual) {
        outcome = unlinked_file_in(&directory);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn unlinked_file_in(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    if let Ok(file) = options.clone().custom_flags(libc::O_TMPFILE).open(directory) {
        return Ok(file);
    }
    // Not every file system can: make one with a name, and take the name away.
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let path = directory.join(format!("dqlite-tmp-{:032x}", u128::from_ne_bytes(random)));
    let file = options.create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
