//! A directory as it would be after changes, without changing it.
//!
//! For looking at the directory of a node that runs: loading repairs what it finds, and that is not ours to do there.

use std::collections::BTreeMap;
use std::io;

use super::seam::Disk;

/// A disk over another one; every change stays in memory.
#[derive(Debug)]
pub struct Overlay<D> {
    below: D,
    /// What names mean that were changed.
    names: BTreeMap<String, Place>,
    contents: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Place {
    Gone,
    /// The file that has this name below.
    Below(String),
    Memory(usize),
}

/// An open file.
#[derive(Debug)]
pub enum OverlayFile<F> {
    /// Not changed so far: the file below, and its name there.
    Below(String, F),
    /// The place of its content in memory.
    Memory(usize),
}

impl<D: Disk> Overlay<D> {
    /// A disk that looks like `below`.
    pub fn new(below: D) -> Self {
        Self { below, names: BTreeMap::new(), contents: Vec::new() }
    }

    fn place(&self, name: &str) -> Place {
        self.names.get(name).cloned().unwrap_or_else(|| Place::Below(name.to_owned()))
    }

    /// Whether there is a file of that name.
    fn exists(&mut self, name: &str) -> io::Result<bool> {
        match self.place(name) {
            Place::Gone => Ok(false),
            Place::Memory(_) => Ok(true),
            Place::Below(original) => Ok(self.below.list()?.iter().any(|(listed, _)| *listed == original)),
        }
    }

    fn remember(&mut self, content: Vec<u8>) -> usize {
        self.contents.push(content);
        self.contents.len() - 1
    }

    /// The content of a file that is about to be changed, in memory from now on.
    fn content(&mut self, file: &mut OverlayFile<D::File>) -> io::Result<&mut Vec<u8>> {
        if let OverlayFile::Below(original, _) = file {
            let original = original.clone();
            let content = self.below.read_all(&original)?;
            let id = self.remember(content);
            for place in self.names.values_mut() {
                if matches!(place, Place::Below(name) if *name == original) {
                    *place = Place::Memory(id);
                }
            }
            self.names.entry(original).or_insert(Place::Memory(id));
            *file = OverlayFile::Memory(id);
        }
        let OverlayFile::Memory(id) = file else { return Err(io::ErrorKind::NotFound.into()) };
        self.contents.get_mut(*id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl<D: Disk> Disk for Overlay<D> {
    type File = OverlayFile<D::File>;

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let below: BTreeMap<String, u64> = self.below.list()?.into_iter().collect();
        let mut files: Vec<_> = below
            .iter()
            .filter(|(name, _)| !self.names.contains_key(*name))
            .map(|(name, size)| (name.clone(), *size))
            .collect();
        for (name, place) in &self.names {
            let size = match place {
                Place::Gone => None,
                Place::Below(original) => below.get(original).copied(),
                Place::Memory(id) => self.contents.get(*id).map(|content| content.len() as u64),
            };
            files.extend(size.map(|size| (name.clone(), size)));
        }
        Ok(files)
    }

    fn create(&mut self, name: &str) -> io::Result<Self::File> {
        if self.exists(name)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.remember(Vec::new());
        self.names.insert(name.to_owned(), Place::Memory(id));
        Ok(OverlayFile::Memory(id))
    }

    fn open(&mut self, name: &str) -> io::Result<Self::File> {
        match self.place(name) {
            Place::Gone => Err(io::ErrorKind::NotFound.into()),
            Place::Memory(id) => Ok(OverlayFile::Memory(id)),
            Place::Below(original) => {
                let file = self.below.open(&original)?;
                Ok(OverlayFile::Below(original, file))
            }
        }
    }

    fn read_at(&mut self, file: &Self::File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match file {
            OverlayFile::Below(_, file) => self.below.read_at(file, offset, buf),
            OverlayFile::Memory(id) => {
                let content = self.contents.get(*id).map_or(&[][..], Vec::as_slice);
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = content.get(start..).unwrap_or_default();
                let len = rest.len().min(buf.len());
                for (to, from) in buf.iter_mut().zip(rest) {
                    *to = *from;
                }
                Ok(len)
            }
        }
    }

    fn write_at(&mut self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let content = self.content(file)?;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if content.len() < end {
            content.resize(end, 0);
        }
        for (to, from) in content.iter_mut().skip(start).zip(bytes) {
            *to = *from;
        }
        Ok(())
    }

    fn set_len(&mut self, file: &mut Self::File, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.content(file)?.resize(len, 0);
        Ok(())
    }

    fn preallocate(&mut self, file: &mut Self::File, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let content = self.content(file)?;
        if content.len() < len {
            content.resize(len, 0);
        }
        Ok(())
    }

    fn sync(&mut self, _file: &mut Self::File) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        if !self.exists(from)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let place = self.place(from);
        self.names.insert(from.to_owned(), Place::Gone);
        self.names.insert(to.to_owned(), place);
        Ok(())
    }

    fn unlink(&mut self, name: &str) -> io::Result<()> {
        if !self.exists(name)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.names.insert(name.to_owned(), Place::Gone);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::real::RealDisk;
    use super::*;

    #[test]
    fn changes_are_seen_above_and_not_below() {
        let place = tempfile::tempdir().unwrap();
        let mut below = RealDisk::open(place.path()).unwrap();
        for (name, text) in [("open-1", "abcdef"), ("open-2", "xyz"), ("tmp-1", "t")] {
            std::fs::write(place.path().join(name), text).unwrap();
        }
        let before = sorted(&mut below);

        let mut disk = Overlay::new(below.clone());
        assert_eq!(sorted(&mut disk), before);
        let mut file = disk.open("open-1").unwrap();
        disk.set_len(&mut file, 3).unwrap();
        disk.write_at(&mut file, 4, b"!").unwrap();
        disk.rename("open-1", "1-3").unwrap();
        disk.rename("open-2", "4-4").unwrap();
        let mut renamed = disk.open("4-4").unwrap();
        disk.write_at(&mut renamed, 0, b"X").unwrap();
        disk.unlink("tmp-1").unwrap();
        disk.create("new").unwrap();

        assert_eq!(sorted(&mut disk), [("1-3".to_owned(), 5), ("4-4".to_owned(), 3), ("new".to_owned(), 0)]);
        assert_eq!(disk.read_all("1-3").unwrap(), b"abc\0!");
        assert_eq!(disk.read_all("4-4").unwrap(), b"Xyz");
        for gone in ["open-1", "tmp-1", "never"] {
            assert_eq!(disk.open(gone).unwrap_err().kind(), io::ErrorKind::NotFound, "{gone}");
            assert_eq!(disk.unlink(gone).unwrap_err().kind(), io::ErrorKind::NotFound, "{gone}");
        }
        assert_eq!(disk.create("4-4").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.create("open-1").unwrap();

        assert_eq!(sorted(&mut below), before);
        assert_eq!(below.read_all("open-2").unwrap(), b"xyz");
    }

    fn sorted<D: Disk>(disk: &mut D) -> Vec<(String, u64)> {
        let mut files = disk.list().unwrap();
        files.sort();
        files
    }
}
