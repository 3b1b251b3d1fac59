//! Messages to bytes, as releases from 1.17 on write them, and never a form that makes an older one crash.
//!
//! All widths that exist can be written, for tests and tools: a message says itself which one it has.

use std::fmt;

use super::frame::{
    ANSWERS_PRE_VOTE, APPEND_BYTES, DISRUPT_LEADER, ENTRY_BYTES, FRAME_BYTES, Kind, PRE_VOTE, SNAPSHOT_BYTES,
};
use super::message::{
    AppendEntries, AppendResult, InstallSnapshot, Message, RequestVote, TimeoutNow, VoteResult,
};
use crate::base::{Index, NodeId, Writer, limits};
use crate::codec::client::{PROTOCOL_VERSION, Request};

/// The word that C counts into the header of entries and never writes. Ours says nothing.
const TRAILING_BYTES: u64 = 8;

/// Why a message must not be sent: the other server could not read it, or would read something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// Too many entries.
    EntryCount {
        /// How many.
        found: usize,
    },
    /// The entries are too long together.
    PayloadBytes {
        /// How long.
        found: u64,
    },
    /// The other server cuts entries at multiples of 8 bytes; this one does not end there, or is too long.
    EntryBytes {
        /// The entry.
        index: Index,
        /// How long it is.
        found: usize,
    },
    /// The entries do not follow each other, or the entry before them.
    EntryIndex {
        /// The index that belongs there.
        expected: u64,
        /// The one that is there.
        found: Index,
    },
    /// The configuration of a snapshot is too long.
    ConfigurationBytes {
        /// How long.
        found: usize,
    },
    /// The data of a snapshot are too long.
    SnapshotBytes {
        /// How long.
        found: u64,
    },
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::EntryCount { found } => {
                write!(f, "entries of a message: at most {}, found {found}", limits::PEER_ENTRIES_MAX)
            }
            Self::PayloadBytes { found } => {
                let max = limits::PEER_PAYLOAD_BYTES_MAX;
                write!(f, "bytes of a message's entries: at most {max}, found {found}")
            }
            Self::EntryBytes { index, found } => {
                write!(f, "bytes of entry {index}: a multiple of 8 expected, found {found}")
            }
            Self::EntryIndex { expected, found } => {
                write!(f, "entries of a message: entry {expected} expected, found {found}")
            }
            Self::ConfigurationBytes { found } => {
                let max = limits::CONFIGURATION_BYTES_MAX;
                write!(f, "bytes of a snapshot's configuration: a multiple of 8 up to {max}, found {found}")
            }
            Self::SnapshotBytes { found } => {
                write!(f, "bytes of a snapshot: at most {}, found {found}", limits::PEER_SNAPSHOT_BYTES_MAX)
            }
        }
    }
}

impl std::error::Error for Unsendable {}

/// What a connection to another server begins with: the protocol word, then who connects and where answers go.
/// C writes the two one after the other, and nobody answers either.
#[must_use]
pub fn encode_connect(id: NodeId, address: &str) -> ([u8; 8], Vec<u8>) {
    let request = Request::Connect { id, address: address.as_bytes() };
    // Only an address of 32 GiB has no encoding.
    (PROTOCOL_VERSION.to_le_bytes(), request.encode().unwrap_or_default())
}

/// Appends a message to `out`. The data of a snapshot are not part of it and must follow; entries are copied,
/// which [`encode_head`] avoids.
///
/// # Errors
/// [`Unsendable`]; nothing was appended.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), Unsendable> {
    match message {
        Message::AppendEntries(message) => {
            out.extend_from_slice(&encode_head(message)?);
            let parts = message.entries.iter().flat_map(|entry| entry.payload.parts());
            parts.for_each(|part| out.extend_from_slice(part));
        }
        Message::AppendResult(message) => out.extend_from_slice(&append_result(message)),
        Message::RequestVote(message) => out.extend_from_slice(&request_vote(message)),
        Message::VoteResult(message) => out.extend_from_slice(&vote_result(message)),
        Message::InstallSnapshot(message) => out.extend_from_slice(&install_snapshot(message)?),
        Message::TimeoutNow(message) => out.extend_from_slice(&timeout_now(message)),
    }
    Ok(())
}

/// Everything of a message with entries but the payloads, which must follow in the order of the entries, with
/// nothing between them.
///
/// # Errors
/// [`Unsendable`].
pub fn encode_head(message: &AppendEntries) -> Result<Vec<u8>, Unsendable> {
    let entries = &message.entries;
    if entries.len() > limits::PEER_ENTRIES_MAX {
        return Err(Unsendable::EntryCount { found: entries.len() });
    }
    let count = entries.len() as u64;
    let mut out = begin(Kind::AppendEntries, APPEND_BYTES + ENTRY_BYTES * count + TRAILING_BYTES);
    out.u64(message.term.0)
        .u64(message.prev_index.0)
        .u64(message.prev_term.0)
        .u64(message.commit.0)
        .u64(count);
    let (mut expected, mut payload) = (message.prev_index.0, 0_u64);
    for entry in entries {
        expected = expected.saturating_add(1);
        if entry.index.0 != expected {
            return Err(Unsendable::EntryIndex { expected, found: entry.index });
        }
        let len = entry.payload.len();
        let length = u32::try_from(len).ok().filter(|_| len.is_multiple_of(8));
        let Some(length) = length else {
            return Err(Unsendable::EntryBytes { index: entry.index, found: len });
        };
        payload = payload.saturating_add(length.into());
        out.u64(entry.term.0).u8(entry.kind.code()).bytes(&[0; 3]).u32(length);
    }
    if payload > limits::PEER_PAYLOAD_BYTES_MAX {
        return Err(Unsendable::PayloadBytes { found: payload });
    }
    out.u64(0);
    Ok(out.into_bytes())
}

fn append_result(message: &AppendResult) -> Vec<u8> {
    let mut out = begin(Kind::AppendResult, if message.features.is_some() { 32 } else { 24 });
    out.u64(message.term.0).u64(message.rejected).u64(message.last_index.0);
    if let Some(features) = message.features {
        out.u64(features);
    }
    out.into_bytes()
}

fn request_vote(message: &RequestVote) -> Vec<u8> {
    let disrupt = if message.disrupt_leader { DISRUPT_LEADER } else { 0 };
    let pre_vote = if message.pre_vote { PRE_VOTE } else { 0 };
    let mut out = begin(Kind::RequestVote, 40);
    out.u64(message.term.0).u64(message.candidate.0).u64(message.last_index.0).u64(message.last_term.0);
    out.u64(disrupt | pre_vote);
    out.into_bytes()
}

fn vote_result(message: &VoteResult) -> Vec<u8> {
    let mut out = begin(Kind::VoteResult, if message.pre_vote.is_some() { 24 } else { 16 });
    out.u64(message.term.0).u64(message.granted.into());
    if let Some(pre_vote) = message.pre_vote {
        out.u64(if pre_vote { ANSWERS_PRE_VOTE } else { 0 });
    }
    out.into_bytes()
}

/// As it came where it did: C leaves arbitrary bytes behind a configuration, and checksums cover them.
fn install_snapshot(message: &InstallSnapshot) -> Result<Vec<u8>, Unsendable> {
    let made;
    let configuration = if message.configuration_bytes.is_empty() {
        made = message.configuration.encode();
        &made
    } else {
        &message.configuration_bytes
    };
    let length = configuration.len() as u64;
    if length > limits::CONFIGURATION_BYTES_MAX || !length.is_multiple_of(8) {
        return Err(Unsendable::ConfigurationBytes { found: configuration.len() });
    }
    if message.data_bytes > limits::PEER_SNAPSHOT_BYTES_MAX {
        return Err(Unsendable::SnapshotBytes { found: message.data_bytes });
    }
    let mut out = begin(Kind::InstallSnapshot, SNAPSHOT_BYTES + length);
    out.u64(message.term.0).u64(message.last_index.0).u64(message.last_term.0);
    out.u64(message.configuration_index.0).u64(length).bytes(configuration).u64(message.data_bytes);
    Ok(out.into_bytes())
}

fn timeout_now(message: &TimeoutNow) -> Vec<u8> {
    let mut out = begin(Kind::TimeoutNow, 24);
    out.u64(message.term.0).u64(message.last_index.0).u64(message.last_term.0);
    out.into_bytes()
}

/// A writer that stands behind the frame of a message with a header of `length` bytes.
fn begin(kind: Kind, length: u64) -> Writer {
    let capacity = usize::try_from(length).unwrap_or(0).saturating_add(FRAME_BYTES);
    let mut out = Writer::with_capacity(capacity);
    out.u64(kind.code()).u64(length);
    out
}
