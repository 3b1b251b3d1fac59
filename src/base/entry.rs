//! Entries of the Raft log as they travel between proposer, consensus, storage and engine.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Index, Term, pool};

/// What the payload of an entry means. The numbers are those of the log format and the peer protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A command for the state machine.
    Command = 1,
    /// Nothing: 8 zero bytes.
    Barrier = 2,
    /// A complete new configuration.
    Change = 3,
}

impl EntryKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Command),
            2 => Some(Self::Barrier),
            3 => Some(Self::Change),
            _ => None,
        }
    }

    /// The number of this kind on disk and on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Immutable bytes in shared parts, so that page images are never copied to become part of an entry.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    parts: Arc<Parts>,
    len: usize,
}

/// Page images among them are used again when nobody has them any more.
#[derive(Debug, Default)]
struct Parts(Vec<Arc<[u8]>>);

impl Drop for Parts {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(pool::give_back);
    }
}

impl Payload {
    /// A payload of these parts, in order.
    #[must_use]
    pub fn from_parts(parts: Vec<Arc<[u8]>>) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        Self { parts: Arc::new(Parts(parts)), len }
    }

    /// A payload that owns `bytes`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::from_parts(vec![Arc::from(bytes)])
    }

    /// How many bytes there are in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.0.iter().map(AsRef::as_ref)
    }

    /// The parts themselves, in order.
    pub fn shared_parts(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.parts.0.iter()
    }

    /// All bytes in a row: borrowed when there is one part, else copied.
    #[must_use]
    pub fn contiguous(&self) -> Cow<'_, [u8]> {
        match &*self.parts.0 {
            [] => Cow::Borrowed(&[]),
            [one] => Cow::Borrowed(one),
            many => {
                let mut all = Vec::with_capacity(self.len);
                many.iter().for_each(|part| all.extend_from_slice(part));
                Cow::Owned(all)
            }
        }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.contiguous() == other.contiguous()
    }
}

impl Eq for Payload {}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub index: Index,
    /// The term of the leader that created it.
    pub term: Term,
    /// What `payload` is.
    pub kind: EntryKind,
    /// The encoded command, barrier or configuration: a multiple of 8 bytes.
    pub payload: Payload,
}
