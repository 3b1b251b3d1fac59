//! Carrying out what was decided. Each step is durable before the next one, so that a crash anywhere in between
//! leaves a directory from which the same decision, or a harmless part of it, follows again.

use super::LoadError;
use super::read::{is_short_metadata, whole};
use crate::disk::Disk;
use crate::format::FormatError;
use crate::format::metadata::Metadata;
use crate::format::names;
use crate::format::recovery::{Listing, LogPlan, Settings, SnapshotFiles, Step};

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
    delete(disk, &useless)
}

/// Deletes these files, durably.
pub(super) fn delete<D: Disk>(disk: &mut D, files: &[&str]) -> Result<(), LoadError> {
    if files.is_empty() {
        return Ok(());
    }
    for name in files {
        disk.unlink(name).map_err(|error| LoadError::disk("unlink", name, &error))?;
    }
    // Before a new open segment is made: else a crash can bring an old one back in front of it.
    sync_dir(disk)
}

fn sync_dir<D: Disk>(disk: &mut D) -> Result<(), LoadError> {
    disk.sync_dir().map_err(|error| LoadError::disk("sync", "the directory", &error))
}

fn cut<D: Disk>(disk: &mut D, name: &str, len: u64) -> Result<(), LoadError> {
    let failed = |error| LoadError::disk("truncate", name, &error);
    let mut file = disk.open(name).map_err(failed)?;
    disk.set_len(&mut file, len).map_err(failed)?;
    // Before it has the name of a closed segment: that promises its exact size. What an earlier process wrote
    // and nobody synced becomes durable here too, before anything counts on it.
    disk.sync(&mut file).map_err(failed)
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

/// Stores metadata in the file whose turn it is.
pub(super) fn store_metadata<D: Disk>(disk: &mut D, metadata: &Metadata) -> Result<(), LoadError> {
    let name = names::metadata_name(metadata.version);
    let files = disk.list().map_err(|error| LoadError::disk("list", "the directory", &error))?;
    if !files.iter().any(|(file, _)| file == name) {
        write_new(disk, name, &metadata.encode())?;
        return sync_dir(disk);
    }
    let failed = |error| LoadError::disk("write", name, &error);
    let mut file = disk.open(name).map_err(failed)?;
    disk.write_at(&mut file, 0, &metadata.encode()).map_err(failed)?;
    disk.sync(&mut file).map_err(failed)
}
