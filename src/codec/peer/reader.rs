//! Cuts the bytes of a connection between servers into messages.

use super::frame::{
    ANSWERS_PRE_VOTE, DISRUPT_LEADER, ENTRY_BYTES, FRAME_BYTES, Kind, PRE_VOTE, PeerError, check_frame,
};
use super::message::{
    AppendEntries, AppendResult, InstallSnapshot, Message, RequestVote, TimeoutNow, VoteResult,
};
use crate::base::{DecodeError, Entry, EntryKind, Index, NodeId, Reader, Term, limits};
use crate::codec::command;
use crate::codec::membership::Configuration;

/// Capacity above which an emptied buffer gives its memory back.
const KEPT_CAPACITY: usize = 64 << 10;

/// What comes out of a connection between servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message; the head of a snapshot is one.
    Message(Message),
    /// The next bytes of the snapshot whose head came last. Never empty.
    SnapshotBytes(Vec<u8>),
    /// All its bytes have come.
    SnapshotEnd,
}

/// Cuts a byte stream into messages.
///
/// Memory grows with the bytes that arrive, never by an announced length; of a snapshot no more is held than was
/// pushed since the last [`PeerReader::next_incoming`]. How the stream is cut into calls of [`PeerReader::push`]
/// makes no difference but to how a snapshot is cut.
#[derive(Debug, Default)]
pub struct PeerReader {
    buffer: Vec<u8>,
    /// Where the unread bytes begin in `buffer`.
    start: usize,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Before a message.
    #[default]
    Frame,
    /// Its header is due.
    Header(Kind, usize),
    /// The payloads of these entries are due, of which the front ones are in the message already.
    Entries(AppendEntries, std::vec::IntoIter<Announced>),
    /// That many bytes of a snapshot are due.
    Snapshot(u64),
    /// What came was no message; nothing is read any more.
    Failed(PeerError),
}

/// An entry whose payload follows.
#[derive(Clone, Copy, Debug)]
struct Announced {
    term: Term,
    kind: EntryKind,
    length: usize,
}

impl PeerReader {
    /// A reader at the beginning of a message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream. What they complete should be taken out before more are pushed.
    pub fn push(&mut self, bytes: &[u8]) {
        if let State::Failed(_) = self.state {
            return;
        }
        // Moving the rest to the front only when it is the smaller half keeps the total cost linear.
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
                self.buffer = Vec::new();
            }
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the stream could end here: no message is half there.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Frame) && self.waiting() == 0
    }

    /// The next thing that has arrived. `None`: nothing before more bytes are pushed.
    ///
    /// # Errors
    /// [`PeerError`] as soon as it is certain; the same again at each later call.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming>, PeerError> {
        let result = self.advance();
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
            (self.buffer, self.start) = (Vec::new(), 0);
        }
        result
    }

    fn advance(&mut self) -> Result<Option<Incoming>, PeerError> {
        loop {
            match std::mem::take(&mut self.state) {
                State::Frame => {
                    let Some(frame) = self.take(FRAME_BYTES) else { return Ok(None) };
                    let mut frame = Reader::new(frame);
                    let (word, length) = (frame.u64("message type")?, frame.u64("bytes of a header")?);
                    let (kind, length) = check_frame(word, length)?;
                    self.state = State::Header(kind, length);
                }
                State::Header(kind, length) => {
                    let Some(header) = self.take(length) else {
                        self.state = State::Header(kind, length);
                        return Ok(None);
                    };
                    let (message, next) = decode_header(kind, header)?;
                    self.state = next;
                    if message.is_some() {
                        return Ok(message.map(Incoming::Message));
                    }
                }
                State::Entries(message, announced) => return Ok(self.advance_entries(message, announced)),
                State::Snapshot(0) => return Ok(Some(Incoming::SnapshotEnd)),
                State::Snapshot(due) => {
                    let len = self.waiting().min(usize::try_from(due).unwrap_or(usize::MAX));
                    let chunk = self.take(len).unwrap_or_default().to_vec();
                    self.state = State::Snapshot(due.saturating_sub(chunk.len() as u64));
                    return Ok((!chunk.is_empty()).then_some(Incoming::SnapshotBytes(chunk)));
                }
                State::Failed(error) => return Err(error),
            }
        }
    }

    /// Takes the payloads that have come. Each is copied out as soon as it is there, so that a long message is
    /// not in memory twice.
    fn advance_entries(
        &mut self,
        mut message: AppendEntries,
        mut announced: std::vec::IntoIter<Announced>,
    ) -> Option<Incoming> {
        while let Some(&Announced { term, kind, length }) = announced.as_slice().first() {
            let Some(bytes) = self.take(length) else {
                self.state = State::Entries(message, announced);
                return None;
            };
            let payload = command::split(kind, bytes);
            let index = message.entries.last().map_or(message.prev_index, |entry| entry.index).next();
            message.entries.push(Entry { index, term, kind, payload });
            announced.next();
        }
        Some(Incoming::Message(Message::AppendEntries(message)))
    }

    /// How much memory is set aside for bytes that were pushed.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    fn waiting(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let end = self.start.checked_add(len)?;
        let bytes = self.buffer.get(self.start..end)?;
        self.start = end;
        Some(bytes)
    }
}

/// The message with this header, if it is one without payload, and what follows it.
fn decode_header(kind: Kind, header: &[u8]) -> Result<(Option<Message>, State), PeerError> {
    let mut reader = Reader::new(header);
    let message = match kind {
        Kind::AppendEntries => {
            let (message, announced) = append_entries(&mut reader)?;
            return Ok((None, State::Entries(message, announced.into_iter())));
        }
        Kind::InstallSnapshot => {
            let message = install_snapshot(&mut reader)?;
            let data_bytes = message.data_bytes;
            return Ok((Some(Message::InstallSnapshot(message)), State::Snapshot(data_bytes)));
        }
        Kind::AppendResult => Message::AppendResult(append_result(&mut reader)?),
        Kind::RequestVote => Message::RequestVote(request_vote(&mut reader)?),
        Kind::VoteResult => Message::VoteResult(vote_result(&mut reader)?),
        Kind::TimeoutNow => Message::TimeoutNow(TimeoutNow {
            term: Term(reader.u64("term")?),
            last_index: Index(reader.u64("last index")?),
            last_term: Term(reader.u64("last term")?),
        }),
    };
    Ok((Some(message), State::Frame))
}

fn append_entries(reader: &mut Reader<'_>) -> Result<(AppendEntries, Vec<Announced>), PeerError> {
    let message = AppendEntries {
        term: Term(reader.u64("term")?),
        prev_index: Index(reader.u64("index before the entries")?),
        prev_term: Term(reader.u64("term before the entries")?),
        commit: Index(reader.u64("commit index")?),
        entries: Vec::new(),
    };
    let max = limits::PEER_ENTRIES_MAX as u64;
    let count = reader.count("number of entries", max, entry_bytes())?;
    let last_before = u64::MAX - count as u64;
    if message.prev_index.0 > last_before {
        let (field, found) = ("index before the entries", message.prev_index.0);
        return Err(DecodeError::Range { field, max: last_before, found }.into());
    }
    let (mut announced, mut payload) = (Vec::with_capacity(count), 0_u64);
    for _ in 0..count {
        let entry = entry(reader)?;
        payload = payload.saturating_add(entry.length as u64);
        announced.push(entry);
    }
    let max = limits::PEER_PAYLOAD_BYTES_MAX;
    if payload > max {
        return Err(DecodeError::Range { field: "bytes of a message's entries", max, found: payload }.into());
    }
    Ok((message, announced))
}

fn entry_bytes() -> usize {
    usize::try_from(ENTRY_BYTES).unwrap_or(usize::MAX)
}

fn entry(reader: &mut Reader<'_>) -> Result<Announced, PeerError> {
    let term = Term(reader.u64("term of an entry")?);
    let code = reader.u8("type of an entry")?;
    let Some(kind) = EntryKind::from_code(code) else {
        let expected = "1 (command), 2 (barrier) or 3 (change)";
        return Err(DecodeError::Value { field: "type of an entry", expected, found: code.into() }.into());
    };
    // C leaves arbitrary bytes there.
    reader.take("unused bytes of an entry", 3)?;
    let found = u64::from(reader.u32("bytes of an entry")?);
    let length = usize::try_from(found).ok().filter(|length| length.is_multiple_of(8));
    let Some(length) = length else {
        let (field, expected) = ("bytes of an entry", "a multiple of 8");
        return Err(DecodeError::Value { field, expected, found }.into());
    };
    Ok(Announced { term, kind, length })
}

fn append_result(reader: &mut Reader<'_>) -> Result<AppendResult, PeerError> {
    Ok(AppendResult {
        term: Term(reader.u64("term")?),
        rejected: reader.u64("rejected index")?,
        last_index: Index(reader.u64("last index")?),
        features: if reader.is_empty() { None } else { Some(reader.u64("features")?) },
    })
}

fn request_vote(reader: &mut Reader<'_>) -> Result<RequestVote, PeerError> {
    let term = Term(reader.u64("term")?);
    let candidate = NodeId(reader.u64("candidate")?);
    let last_index = Index(reader.u64("last index")?);
    let last_term = Term(reader.u64("last term")?);
    let flags = if reader.is_empty() { 0 } else { reader.u64("flags")? };
    let (disrupt_leader, pre_vote) = (flags & DISRUPT_LEADER != 0, flags & PRE_VOTE != 0);
    Ok(RequestVote { term, candidate, last_index, last_term, disrupt_leader, pre_vote })
}

fn vote_result(reader: &mut Reader<'_>) -> Result<VoteResult, PeerError> {
    let term = Term(reader.u64("term")?);
    let granted = reader.u64("vote granted")? != 0;
    let flags = if reader.is_empty() { None } else { Some(reader.u64("flags")?) };
    Ok(VoteResult { term, granted, pre_vote: flags.map(|flags| flags & ANSWERS_PRE_VOTE != 0) })
}

fn install_snapshot(reader: &mut Reader<'_>) -> Result<InstallSnapshot, PeerError> {
    let term = Term(reader.u64("term")?);
    let last_index = Index(reader.u64("last index")?);
    let last_term = Term(reader.u64("last term")?);
    let configuration_index = Index(reader.u64("configuration index")?);
    let field = "bytes of a snapshot's configuration";
    let length = reader.count(field, limits::CONFIGURATION_BYTES_MAX, 1)?;
    if !length.is_multiple_of(8) {
        return Err(DecodeError::Value { field, expected: "a multiple of 8", found: length as u64 }.into());
    }
    let configuration_bytes = reader.take(field, length)?.to_vec();
    let configuration = Configuration::decode(&configuration_bytes).map_err(PeerError::Configuration)?;
    let data_bytes = reader.u64("bytes of a snapshot")?;
    let max = limits::PEER_SNAPSHOT_BYTES_MAX;
    if data_bytes > max {
        return Err(DecodeError::Range { field: "bytes of a snapshot", max, found: data_bytes }.into());
    }
    Ok(InstallSnapshot {
        term,
        last_index,
        last_term,
        configuration_index,
        configuration,
        configuration_bytes,
        data_bytes,
    })
}
