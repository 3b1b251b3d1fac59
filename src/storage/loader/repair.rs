//! Carrying out what was decided. Each step is durable before the next one, so that a crash anywhere in between
//! leaves a directory from which the same decision, or a harmless part of it, follows again.

use std::io;

use super::LoadError;
use super::read::{is_short_metadata, whole};
use crate::disk::Disk;
use crate::format::FormatError;
use crate::format::metadata::Metadata;
use crate::format::names::{self, FileName};
use crate::format::recovery::{Listing, LogPlan, Settings, SnapshotFiles, Step};

/// How much is written again at a time.
const REWRITE_BYTES: usize = 1 << 20;

/// Plans to put both files of each damaged snapshot aside, the metadata first: data without metadata does not
/// count as a snapshot.
pub(super) fn put_snapshots_aside(
    damaged: &[(SnapshotFiles, FormatError)],
    settings: Settings,
    plan: &mut LogPlan,
) {
    // Names of segments put aside never equal these, whatever the time in them.
    for (files, error) in damaged {
        for name in [names::meta_name(&files.data), files.data.clone()] {
            let to = names::corrupt_name(settings.aside_ns, &name);
            plan.steps.push(Step::Rename { from: name, to });
        }
        let older = "the state was rebuilt from an older snapshot and the log";
        plan.notes.push(format!("{} put aside: {error}; {older}", files.data));
    }
}

/// Carries out the steps, then deletes what nobody needs.
pub(super) fn carry_out<D: Disk>(
    disk: &mut D,
    listing: &Listing,
    files: &[(String, u64)],
    steps: &[Step],
) -> Result<(), LoadError> {
    let mut useless: Vec<&str> = Vec::new();
    for step in steps {
        match step {
            Step::Copy { from, to } => copy(disk, from, to)?,
            Step::Cut { name, len, to } => {
                cut(disk, name, *len)?;
                rename(disk, name, to)?;
            }
            Step::Rename { from, to } => rename(disk, from, to)?,
            Step::Unlink { name } => useless.push(name),
        }
    }
    let short = files.iter().filter(|(name, size)| is_short_metadata(name, *size)).map(|(name, _)| name);
    useless.extend(short.chain(&listing.temporary).chain(&listing.orphans).map(String::as_str));
    unlink(disk, &useless)?;
    // Even if nothing was changed: names that an earlier process changed and did not sync have been read, and a
    // crash can bring the old ones back.
    sync_dir(disk)
}

/// Makes the metadata durable as it was read: a process of C may have been killed between write and sync.
pub(super) fn settle_metadata<D: Disk>(disk: &mut D, files: &[(String, u64)]) -> Result<(), LoadError> {
    for (name, size) in files {
        if matches!(FileName::parse(name), FileName::Metadata(_)) && !is_short_metadata(name, *size) {
            let failed = |error| LoadError::disk("write", name, &error);
            let mut file = disk.open(name).map_err(failed)?;
            rewrite(disk, &mut file, *size).map_err(failed)?;
            // Before anybody acts on the vote in it: else a crash forgets that.
            disk.sync(&mut file).map_err(failed)?;
        }
    }
    Ok(())
}

/// Deletes these files, durably.
pub(super) fn delete<D: Disk>(disk: &mut D, files: &[&str]) -> Result<(), LoadError> {
    if files.is_empty() {
        return Ok(());
    }
    unlink(disk, files)?;
    sync_dir(disk)
}

fn unlink<D: Disk>(disk: &mut D, files: &[&str]) -> Result<(), LoadError> {
    files
        .iter()
        .try_for_each(|name| disk.unlink(name).map_err(|error| LoadError::disk("unlink", name, &error)))
}

fn sync_dir<D: Disk>(disk: &mut D) -> Result<(), LoadError> {
    disk.sync_dir().map_err(|error| LoadError::disk("sync", "the directory", &error))
}

fn cut<D: Disk>(disk: &mut D, name: &str, len: u64) -> Result<(), LoadError> {
    let failed = |error| LoadError::disk("truncate", name, &error);
    let mut file = disk.open(name).map_err(failed)?;
    rewrite(disk, &mut file, len).map_err(|error| LoadError::disk("write", name, &error))?;
    disk.set_len(&mut file, len).map_err(failed)?;
    // Before it has the name of a closed segment: that promises its exact size. What an earlier process wrote
    // and nobody synced becomes durable here too, before anything counts on it.
    disk.sync(&mut file).map_err(failed)
}

/// Writes the first `len` bytes of the file again, as they are.
///
/// After a sync that failed an operating system shows what it failed to write and takes it for written: an
/// earlier process gave up then, and a sync of ours alone would succeed without writing anything.
fn rewrite<D: Disk>(disk: &mut D, file: &mut D::File, len: u64) -> io::Result<()> {
    let mut chunk = vec![0; REWRITE_BYTES];
    let mut at = 0;
    while at < len {
        let wanted = usize::try_from(len - at).unwrap_or(REWRITE_BYTES).min(REWRITE_BYTES);
        let found = disk.read_at(file, at, chunk.get_mut(..wanted).unwrap_or_default())?;
        let Some(bytes) = chunk.get(..found).filter(|bytes| !bytes.is_empty()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        disk.write_at(file, at, bytes)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

fn rename<D: Disk>(disk: &mut D, from: &str, to: &str) -> Result<(), LoadError> {
    if from == to {
        return Ok(());
    }
    disk.rename(from, to).map_err(|error| LoadError::disk("rename", from, &error))?;
    // Before the next one: else a crash can keep a later segment's name and forget an earlier one's.
    sync_dir(disk)
}

fn copy<D: Disk>(disk: &mut D, from: &str, to: &str) -> Result<(), LoadError> {
    let bytes = whole(disk, from)?;
    write_new(disk, to, &bytes)?;
    // Before the original is cut: else a crash can take the only copy.
    sync_dir(disk)
}

/// Writes a file that was not there, and makes its content durable, not its name.
pub(super) fn write_new<D: Disk>(disk: &mut D, name: &str, bytes: &[u8]) -> Result<(), LoadError> {
    let failed = |error| LoadError::disk("write", name, &error);
    let mut file = disk.create(name).map_err(failed)?;
    disk.write_at(&mut file, 0, bytes).map_err(failed)?;
    disk.sync(&mut file).map_err(failed)
}

/// Writes a file under a temporary name first; durable with its name when this returns.
pub(super) fn write_whole<D: Disk>(disk: &mut D, name: &str, bytes: &[u8]) -> Result<(), LoadError> {
    let temporary = names::temporary_name(name);
    // Before the rename: else a crash can leave the final name with old or no bytes.
    write_new(disk, &temporary, bytes)?;
    rename(disk, &temporary, name)
}

/// Stores metadata in the file whose turn it is. Never in place, as C does it: a write that fails halfway would
/// leave a new version with an old vote.
pub(super) fn store_metadata<D: Disk>(disk: &mut D, metadata: &Metadata) -> Result<(), LoadError> {
    write_whole(disk, names::metadata_name(metadata.version), &metadata.encode())
}
