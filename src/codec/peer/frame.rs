//! Numbers of messages, lengths of headers, and why bytes are no message.

use std::fmt;

use crate::base::{DecodeError, limits};
use crate::codec::membership::MembershipError;

/// Bytes before a header: what the message is, and how long the header is.
pub(super) const FRAME_BYTES: usize = 16;

/// The header of entries up to their number.
pub(super) const APPEND_BYTES: u64 = 40;
/// One entry of that header.
pub(super) const ENTRY_BYTES: u64 = 16;
/// The header of a snapshot without its configuration.
pub(super) const SNAPSHOT_BYTES: u64 = 48;

pub(super) const DISRUPT_LEADER: u64 = 1;
pub(super) const PRE_VOTE: u64 = 2;
/// The same in the answer.
pub(super) const ANSWERS_PRE_VOTE: u64 = 1;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    AppendEntries = 1,
    AppendResult = 2,
    RequestVote = 3,
    VoteResult = 4,
    InstallSnapshot = 5,
    TimeoutNow = 6,
}

impl Kind {
    /// Only the low 16 bits count, as in C since 0.17.
    fn from_word(word: u64) -> Option<Self> {
        match word & 0xffff {
            1 => Some(Self::AppendEntries),
            2 => Some(Self::AppendResult),
            3 => Some(Self::RequestVote),
            4 => Some(Self::VoteResult),
            5 => Some(Self::InstallSnapshot),
            6 => Some(Self::TimeoutNow),
            _ => None,
        }
    }

    pub(super) fn code(self) -> u64 {
        self as u64
    }

    /// Whether C reads a header of this length, and in words which lengths it reads.
    fn takes(self, length: u64) -> Result<(), (&'static str, &'static str)> {
        let (fits, field, expected) = match self {
            Self::AppendEntries => (length >= APPEND_BYTES, "header of entries", "at least 40 bytes"),
            Self::AppendResult => {
                (matches!(length, 24 | 32), "header of an answer to entries", "24 or 32 bytes")
            }
            Self::RequestVote => {
                (matches!(length, 32 | 40), "header of a request for a vote", "32 or 40 bytes")
            }
            Self::VoteResult => {
                (matches!(length, 16 | 24), "header of an answer to a request for a vote", "16 or 24 bytes")
            }
            Self::InstallSnapshot => (length >= SNAPSHOT_BYTES, "header of a snapshot", "at least 48 bytes"),
            Self::TimeoutNow => (length == 24, "header of a call to take over", "24 bytes"),
        };
        if fits { Ok(()) } else { Err((field, expected)) }
    }
}

/// Kind of the message and length of its header, from the first [`FRAME_BYTES`].
pub(super) fn check_frame(word: u64, length: u64) -> Result<(Kind, usize), PeerError> {
    let Some(kind) = Kind::from_word(word) else {
        let expected = "1 to 6";
        return Err(DecodeError::Value { field: "message type", expected, found: word & 0xffff }.into());
    };
    if let Err((field, expected)) = kind.takes(length) {
        return Err(DecodeError::Value { field, expected, found: length }.into());
    }
    let max = limits::PEER_HEADER_BYTES_MAX;
    match usize::try_from(length) {
        Ok(length_in_memory) if length <= max => Ok((kind, length_in_memory)),
        _ => Err(DecodeError::Range { field: "bytes of a header", max, found: length }.into()),
    }
}

/// Why a connection between servers cannot go on: bytes came that are no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// A field is cut or out of range.
    Field(DecodeError),
    /// The configuration of a snapshot cannot be read.
    Configuration(MembershipError),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(error) => error.fmt(f),
            Self::Configuration(error) => write!(f, "snapshot: {error}"),
        }
    }
}

impl std::error::Error for PeerError {}

impl From<DecodeError> for PeerError {
    fn from(error: DecodeError) -> Self {
        Self::Field(error)
    }
}
