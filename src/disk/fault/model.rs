//! What a program sees of a directory, what would survive, and the changes between the two.

use std::collections::{BTreeMap, BTreeSet};

use super::Survival;
use crate::base::Prng;

/// The unit that a medium writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// One atomic change of the names: a rename takes one away and puts one there.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub gone: Option<(String, usize)>,
    pub there: Option<(String, usize)>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    name: String,
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// What happened since the last sync, in order.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    prng: Prng,
}

impl Model {
    pub fn new(seed: u64) -> Self {
        Self {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            prng: Prng::new(seed),
        }
    }

    pub fn fork(&self, seed: u64) -> Self {
        Self { prng: Prng::new(seed), ..self.clone() }
    }

    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub fn list(&self) -> Vec<(String, u64)> {
        self.names.iter().map(|(name, &inode)| (name.clone(), self.len(inode))).collect()
    }

    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.inodes.get(self.find(name)?)?.seen.clone())
    }

    pub fn put(&mut self, name: &str, bytes: &[u8]) {
        let inode = self.new_inode(name);
        if let Some(file) = self.inodes.get_mut(inode) {
            file.seen = bytes.to_vec();
            file.durable = bytes.to_vec();
        }
        self.names.insert(name.to_owned(), inode);
        self.durable_names.insert(name.to_owned(), inode);
    }

    pub fn used_bytes(&self) -> u64 {
        self.names.values().map(|&inode| self.len(inode)).sum()
    }

    pub fn len(&self, inode: usize) -> u64 {
        self.inodes.get(inode).map_or(0, |file| file.seen.len() as u64)
    }

    pub fn name(&self, inode: usize) -> &str {
        self.inodes.get(inode).map_or("", |file| &file.name)
    }

    pub fn new_inode(&mut self, name: &str) -> usize {
        self.inodes.push(Inode { name: name.to_owned(), ..Inode::default() });
        self.inodes.len() - 1
    }

    pub fn read(&self, inode: usize, offset: u64, buf: &mut [u8]) -> usize {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(rest) = self.inodes.get(inode).and_then(|file| file.seen.get(from..)) else { return 0 };
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(bytes)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(bytes);
        }
        len
    }

    pub fn write(&mut self, inode: usize, offset: u64, bytes: &[u8]) {
        self.change(inode, Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub fn set_len(&mut self, inode: usize, len: u64) {
        self.change(inode, Change::SetLen(len));
    }

    fn change(&mut self, inode: usize, change: Change) {
        if let Some(file) = self.inodes.get_mut(inode) {
            apply(&mut file.seen, &change);
            file.pending.push(change);
        }
    }

    pub fn change_names(&mut self, change: NameChange) {
        apply_names(&mut self.names, &change);
        if let Some((name, inode)) = &change.there
            && let Some(file) = self.inodes.get_mut(*inode)
        {
            file.name.clone_from(name);
        }
        self.pending_names.push(change);
    }

    /// Everything that happened to the file becomes durable.
    pub fn sync(&mut self, inode: usize) {
        if let Some(file) = self.inodes.get_mut(inode) {
            for change in std::mem::take(&mut file.pending) {
                apply(&mut file.durable, &change);
            }
        }
    }

    /// A sync failed: each sector and cut becomes durable or never will.
    pub fn lose(&mut self, inode: usize) {
        self.settle(inode, Survival::Torn);
    }

    pub fn sync_dir(&mut self) {
        for change in std::mem::take(&mut self.pending_names) {
            apply_names(&mut self.durable_names, &change);
        }
    }

    pub fn crash(&mut self, survival: Survival) {
        for inode in 0..self.inodes.len() {
            self.settle(inode, survival);
        }
        for change in std::mem::take(&mut self.pending_names) {
            if survives(&mut self.prng, survival) {
                apply_names(&mut self.durable_names, &change);
            }
        }
        for file in &mut self.inodes {
            file.seen.clone_from(&file.durable);
        }
        self.names.clone_from(&self.durable_names);
        let named: Vec<(String, usize)> = self.names.iter().map(|(name, &at)| (name.clone(), at)).collect();
        for (name, inode) in named {
            if let Some(file) = self.inodes.get_mut(inode) {
                file.name = name;
            }
        }
    }

    fn settle(&mut self, inode: usize, survival: Survival) {
        let Some(file) = self.inodes.get_mut(inode) else { return };
        for change in std::mem::take(&mut file.pending) {
            match change {
                Change::SetLen(_) => {
                    if survives(&mut self.prng, survival) {
                        apply(&mut file.durable, &change);
                    }
                }
                Change::Write { offset, bytes } => {
                    for piece in sectors(offset, &bytes) {
                        if survives(&mut self.prng, survival) {
                            apply(&mut file.durable, &piece);
                        }
                    }
                }
            }
        }
    }

    pub fn sync_class(&self, inode: usize) -> String {
        let kinds: BTreeSet<&str> = self.inodes.get(inode).map_or_else(BTreeSet::new, |file| {
            let mut len = file.durable.len() as u64;
            let mut kind = |change: &Change| match change {
                Change::Write { bytes, .. } if bytes.iter().all(|&byte| byte == 0) => "zeros",
                Change::Write { .. } => "write",
                Change::SetLen(to) => {
                    if std::mem::replace(&mut len, *to) < *to {
                        "grow"
                    } else {
                        "cut"
                    }
                }
            };
            file.pending.iter().map(&mut kind).collect()
        });
        let kinds: Vec<&str> = kinds.into_iter().collect();
        format!("sync {}: {}", without_numbers(self.name(inode)), said(&kinds))
    }

    pub fn sync_dir_class(&self) -> String {
        let kind = |change: &NameChange| match (&change.gone, &change.there) {
            (Some((from, _)), Some((to, _))) => {
                format!("rename {} {}", without_numbers(from), without_numbers(to))
            }
            (None, Some((name, _))) => format!("create {}", without_numbers(name)),
            (Some((name, _)), None) => format!("unlink {}", without_numbers(name)),
            (None, None) => String::new(),
        };
        let kinds: BTreeSet<String> = self.pending_names.iter().map(kind).collect();
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        format!("sync_dir: {}", said(&kinds))
    }
}

fn said(kinds: &[&str]) -> String {
    if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") }
}

fn survives(prng: &mut Prng, survival: Survival) -> bool {
    match survival {
        Survival::Nothing => false,
        Survival::Everything => true,
        Survival::Torn => prng.below(2) == 1,
    }
}

/// The write cut at the borders of sectors.
fn sectors(offset: u64, bytes: &[u8]) -> Vec<Change> {
    let mut pieces = Vec::new();
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let len = usize::try_from(SECTOR_BYTES - at % SECTOR_BYTES).unwrap_or(rest.len()).min(rest.len());
        let (piece, tail) = rest.split_at(len);
        pieces.push(Change::Write { offset: at, bytes: piece.to_vec() });
        at += len as u64;
        rest = tail;
    }
    pieces
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => content.resize(usize::try_from(*len).unwrap_or(content.len()), 0),
        Change::Write { bytes, .. } if bytes.is_empty() => {}
        Change::Write { offset, bytes } => {
            let from = usize::try_from(*offset).unwrap_or(usize::MAX);
            let to = from.saturating_add(bytes.len());
            if content.len() < to {
                content.resize(to, 0);
            }
            if let Some(place) = content.get_mut(from..to) {
                place.copy_from_slice(bytes);
            }
        }
    }
}

fn apply_names(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    if let Some((name, inode)) = &change.gone
        && names.get(name) == Some(inode)
    {
        names.remove(name);
    }
    if let Some((name, inode)) = &change.there {
        // An earlier name that was to go, but of which the going was lost: no file has two.
        names.retain(|_, other| other != inode);
        names.insert(name.clone(), *inode);
    }
}

/// `0000000000000001-0000000000000007` becomes `#-#`.
fn without_numbers(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if !letter.is_ascii_digit() {
            out.push(letter);
        } else if !out.ends_with('#') {
            out.push('#');
        }
    }
    out
}
