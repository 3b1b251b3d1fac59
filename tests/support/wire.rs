//! What must hold for the bytes between servers, whoever they are: checks W1 to W11 over the connections of a run.
//!
//! W1 opening bytes; W2 lengths; W3 entries of whole words; W4 one leader per term; W5 term and index determine an
//! entry; W6 our leaders' appends end in their own term; W7 nothing is acknowledged that was not received; W8 one
//! vote per term; W9 terms never fall; W10 servers of the C library answer each request for a vote; W11 a leader's
//! commit index never falls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dqlite::base::{EntryKind, NodeId};
use dqlite::codec::client::{FrameReader, PROTOCOL_VERSION, Request};
use dqlite::codec::membership::Configuration;
use dqlite::codec::peer::{AppendEntries, AppendResult, Incoming, Message, PeerReader, encode_connect};

use super::capture::Recorded;

/// The request that turns a client into a server.
const CONNECT: u8 = 11;

/// Seconds that the proxy may see messages of two connections in another order than they were sent.
const DISORDER: f64 = 0.3;

/// Seconds in which a request for a vote is answered.
const ANSWER: f64 = 2.0;

/// Indexes from here on are labels: no log is that long.
const LABELS_FROM: u64 = 1 << 62;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The number of the check.
    pub rule: u8,
    /// What was expected and found, and where.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W{}: {}", self.rule, self.text)
    }
}

/// A message as it passed the proxy.
struct Seen {
    at: f64,
    connection: usize,
    from: u64,
    to: u64,
    message: Message,
}

/// What a run is checked against.
#[derive(Default)]
pub struct Rules {
    /// The servers that are ours; the others are of the C library.
    pub ours: BTreeSet<u64>,
    /// The last index of a log that a server had before the recording.
    pub known: BTreeMap<u64, u64>,
}

impl Rules {
    /// Everything that is wrong in a recording with all connections to all servers, which end in their ids.
    pub fn check(&self, connections: &[Recorded]) -> Vec<Violation> {
        let mut check = Check { rules: self, wrong: Vec::new() };
        let mut seen = Vec::new();
        for (number, recorded) in connections.iter().enumerate() {
            check.connection(number, recorded, &mut seen);
        }
        // Messages of one instant stay in the order of their connection.
        seen.sort_by(|a, b| a.at.total_cmp(&b.at));
        check.leaders(&seen);
        check.entries(&seen);
        check.acknowledged(&seen);
        check.votes(&seen);
        check.terms(&seen);
        check.answers(&seen, connections);
        check.commits(&seen);
        check.wrong
    }
}

struct Check<'a> {
    rules: &'a Rules,
    wrong: Vec<Violation>,
}

impl Check<'_> {
    fn fail(&mut self, rule: u8, text: String) {
        self.wrong.push(Violation { rule, text });
    }

    fn is_ours(&self, id: u64) -> bool {
        self.rules.ours.contains(&id)
    }

    /// W1, W2, W3, and the messages.
    fn connection(&mut self, number: usize, recorded: &Recorded, seen: &mut Vec<Seen>) {
        let bytes = recorded.bytes();
        let mut frames = FrameReader::new(1 << 20);
        frames.feed(&bytes);
        let word = frames.next_word();
        let Ok(Some(frame)) = frames.next_frame() else { return };
        if frame.header.kind != CONNECT {
            return; // A client.
        }
        let to = recorded.id();
        let Ok(Request::Connect { id, address }) = Request::decode(frame) else {
            return self
                .fail(1, format!("connection {number}: a good CONNECT expected, found {:02x?}", frame.body));
        };
        let (from, address) = (id.0, String::from_utf8_lossy(address).into_owned());
        let (hello, connect) = encode_connect(NodeId(from), &address);
        let opening = [&hello[..], &connect].concat();
        if word != Some(PROTOCOL_VERSION) || !bytes.starts_with(&opening) {
            let found = &bytes[..opening.len().min(bytes.len())];
            self.fail(
                1,
                format!("{from} to {to}: opening bytes {opening:02x?} expected, found {found:02x?}"),
            );
        }
        if !recorded.answered.is_empty() {
            let count = recorded.answered.len();
            self.fail(1, format!("{from} to {to}: nothing expected in return, found {count} bytes"));
        }
        let mut at = opening.len();
        while let Some(length) = self.message_length(from, bytes.get(at..).unwrap_or_default()) {
            let Some(whole) = bytes.get(at..at + length) else { return };
            at += length;
            let mut reader = PeerReader::new();
            reader.push(whole);
            match reader.next_incoming() {
                Ok(Some(Incoming::Message(message))) => {
                    let at = recorded.time_of(at - 1);
                    seen.push(Seen { at, connection: number, from, to, message });
                }
                other => return self.fail(2, format!("{from} to {to}: a message expected, found {other:?}")),
            }
        }
    }

    /// How long the message is that begins here, as far as it can be seen; W2 and W3 on the way.
    fn message_length(&mut self, from: u64, bytes: &[u8]) -> Option<usize> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().unwrap()));
        let (kind, header) = (word(0)?, word(8)?);
        bytes.get(16..16 + usize::try_from(header).unwrap())?;
        let (mut payload, widths): (u64, Vec<u64>) = match kind {
            1 => (0, vec![48 + 16 * word(48)?]),
            2 if self.is_ours(from) => (0, vec![32]),
            2 => (0, vec![24, 32]),
            3 => (0, vec![40]),
            4 | 6 => (0, vec![24]),
            5 => {
                let c = word(48)?;
                let data = word(16 + 40 + usize::try_from(c).unwrap())?;
                (data, if self.is_ours(from) { vec![48 + c] } else { vec![48 + c, 56 + c] })
            }
            _ => {
                self.fail(2, format!("{from}: a type from 1 to 6 expected, found {kind}"));
                return None;
            }
        };
        if !widths.contains(&header) {
            self.fail(2, format!("{from}: header of type {kind}: {widths:?} bytes expected, found {header}"));
            return None;
        }
        if kind == 1 {
            for entry in 0..usize::try_from(word(48)?).unwrap() {
                let length = word(16 + 48 + 16 * entry)? >> 32;
                if !length.is_multiple_of(8) {
                    self.fail(3, format!("{from}: an entry of whole words expected, found {length} bytes"));
                    return None;
                }
                payload += length;
            }
        }
        Some(16 + usize::try_from(header + payload).unwrap())
    }

    /// W4. A server of the C library that is left as the only voter goes on in the term of its leader.
    fn leaders(&mut self, seen: &[Seen]) {
        let mut spans: BTreeMap<u64, Vec<(u64, f64, f64)>> = BTreeMap::new();
        for it in seen {
            let Some(term) = leads(&it.message) else { continue };
            let term_spans = spans.entry(term).or_default();
            match term_spans.iter_mut().find(|(leader, ..)| *leader == it.from) {
                Some((_, _, last)) => *last = it.at,
                None => term_spans.push((it.from, it.at, it.at)),
            }
        }
        for (term, spans) in spans {
            for pair in spans.windows(2) {
                let [(first, _, until), (second, from, _)] = pair else { continue };
                if self.is_ours(*second) || from < until {
                    self.fail(4, format!("term {term}: one leader expected, found {first} and {second}"));
                }
            }
        }
    }

    /// W5 and W6.
    fn entries(&mut self, seen: &[Seen]) {
        let mut known: BTreeMap<(u64, u64), (EntryKind, Vec<u8>)> = BTreeMap::new();
        for it in seen {
            let Message::AppendEntries(append) = &it.message else { continue };
            for entry in &append.entries {
                let bytes = entry.payload.contiguous();
                let content = match entry.kind {
                    EntryKind::Command => bytes.into_owned(),
                    // Never read.
                    EntryKind::Barrier => Vec::new(),
                    // Without what is behind the last server.
                    EntryKind::Change => match Configuration::decode(&bytes) {
                        Ok(configuration) => configuration.encode(),
                        Err(error) => format!("{error}").into_bytes(),
                    },
                };
                let place = (entry.term.0, entry.index.0);
                let content = (entry.kind, content);
                let first = known.entry(place).or_insert_with(|| content.clone());
                if *first != content {
                    let (kind, length) = (content.0, content.1.len());
                    let text = format!(
                        "the same entry {place:?} as before expected, found {kind:?} of {length} bytes"
                    );
                    self.fail(5, format!("{} to {}: {text}", it.from, it.to));
                }
            }
            let last = append.entries.last().map_or(append.prev_term, |entry| entry.term);
            let is_label = append.prev_index.0 >= LABELS_FROM;
            if self.is_ours(it.from) && !is_label && last != append.term {
                let text = format!("an end in term {} expected, found {last}", append.term);
                self.fail(
                    6,
                    format!("{} to {}, entries behind {}: {text}", it.from, it.to, append.prev_index),
                );
            }
        }
    }

    /// W7. What a server of the C library wrote as a leader and nobody received, it may acknowledge later.
    fn acknowledged(&mut self, seen: &[Seen]) {
        let (mut has, mut led) = (self.rules.known.clone(), BTreeSet::new());
        // An answer can be recorded in the same instant as its request, never before it.
        let is_answer = |it: &Seen| matches!(it.message, Message::AppendResult(_));
        let mut by_cause: Vec<&Seen> = seen.iter().collect();
        by_cause.sort_by(|a, b| a.at.total_cmp(&b.at).then(is_answer(a).cmp(&is_answer(b))));
        for it in by_cause {
            match &it.message {
                Message::AppendEntries(append) => {
                    led.insert(it.from);
                    if append.prev_index.0 < LABELS_FROM {
                        let end = end(append);
                        // A leader has what it sends.
                        [it.from, it.to].iter().for_each(|id| raise(&mut has, *id, end));
                    }
                }
                Message::InstallSnapshot(snapshot) => raise(&mut has, it.to, snapshot.last_index.0),
                Message::AppendResult(AppendResult { rejected: 0, last_index, .. }) => {
                    let most = has.get(&it.from).copied().unwrap_or(0);
                    let wrote_itself = led.contains(&it.from) && !self.is_ours(it.from);
                    if last_index.0 > most && !wrote_itself {
                        let text = format!("at most {most} acknowledged expected, found {last_index}");
                        self.fail(7, format!("{} to {}: {text}", it.from, it.to));
                    }
                }
                Message::RequestVote(_) | Message::VoteResult(_) | Message::TimeoutNow(_) => {}
                Message::AppendResult(_) => {}
            }
        }
    }

    /// W8.
    fn votes(&mut self, seen: &[Seen]) {
        let mut granted = BTreeMap::new();
        for it in seen {
            let Message::VoteResult(result) = &it.message else { continue };
            if !result.granted || result.pre_vote == Some(true) {
                continue;
            }
            let first = *granted.entry((it.from, result.term)).or_insert(it.to);
            if first != it.to {
                let text = format!("one vote expected, found {first} and {}", it.to);
                self.fail(8, format!("{} in term {}: {text}", it.from, result.term));
            }
        }
    }

    /// W9, as one receiver sees it: what waited for a server that was away arrives late. On one connection always,
    /// on several unless the proxy may have seen them in another order.
    fn terms(&mut self, seen: &[Seen]) {
        let mut highest = BTreeMap::new();
        for it in seen {
            let Some(term) = own_term(&it.message) else { continue };
            let before: &mut Vec<(f64, usize, u64)> = highest.entry((it.from, it.to)).or_default();
            let fell = before.iter().find(|(at, connection, higher)| {
                *higher > term && (*connection == it.connection || it.at - at > DISORDER)
            });
            if let Some((_, _, higher)) = fell {
                let text = format!("at least term {higher} expected, found {term}");
                self.fail(9, format!("{} to {} at {}: {text}", it.from, it.to, it.at));
            }
            if before.iter().all(|(_, connection, higher)| *connection != it.connection || *higher < term) {
                before.push((it.at, it.connection, term));
            }
        }
    }

    /// W10, for requests whose servers lived on for long enough.
    fn answers(&mut self, seen: &[Seen], connections: &[Recorded]) {
        let last = seen.last().map_or(0.0, |it| it.at);
        let mut answered = BTreeSet::new();
        for it in seen {
            let Message::RequestVote(request) = &it.message else { continue };
            let until = it.at + ANSWER;
            let broke = |between: &[u64; 2]| {
                let ours = |recorded: &Recorded| {
                    between.contains(&recorded.id())
                        || recorded.connecting().is_some_and(|id| between.contains(&id))
                };
                connections.iter().any(|recorded| {
                    ours(recorded) && recorded.closed.is_some_and(|at| at >= it.at - ANSWER && at <= until)
                })
            };
            if self.is_ours(it.to) || until > last || broke(&[it.from, it.to]) {
                continue;
            }
            let answer = seen.iter().enumerate().find(|(number, answer)| {
                let Message::VoteResult(result) = &answer.message else { return false };
                let fits = result.pre_vote.is_none_or(|pre_vote| pre_vote == request.pre_vote);
                let way = (answer.from, answer.to) == (it.to, it.from);
                way && fits && answer.at >= it.at && answer.at <= until && !answered.contains(number)
            });
            match answer {
                Some((number, _)) => {
                    answered.insert(number);
                }
                None => self.fail(10, format!("{} to {} at {}: no vote or refusal", it.to, it.from, it.at)),
            }
        }
    }

    /// W11, as one follower sees it on one connection.
    fn commits(&mut self, seen: &[Seen]) {
        let mut highest = BTreeMap::new();
        for it in seen {
            let Message::AppendEntries(append) = &it.message else { continue };
            let highest = highest.entry((it.connection, append.term)).or_insert(append.commit);
            if append.commit < *highest {
                let text = format!("at least {highest} committed expected, found {}", append.commit);
                self.fail(11, format!("{} to {} in term {}: {text}", it.from, it.to, append.term));
            }
            *highest = append.commit.max(*highest);
        }
    }
}

fn raise(has: &mut BTreeMap<u64, u64>, id: u64, index: u64) {
    let known = has.entry(id).or_default();
    *known = index.max(*known);
}

fn end(append: &AppendEntries) -> u64 {
    append.prev_index.0 + append.entries.len() as u64
}

/// The term that the sender of this leads.
fn leads(message: &Message) -> Option<u64> {
    match message {
        Message::AppendEntries(it) => Some(it.term.0),
        Message::InstallSnapshot(it) => Some(it.term.0),
        Message::TimeoutNow(it) => Some(it.term.0),
        Message::AppendResult(_) | Message::RequestVote(_) | Message::VoteResult(_) => None,
    }
}

/// The term in which the sender of this is; questions before a vote and their answers speak of another.
fn own_term(message: &Message) -> Option<u64> {
    match message {
        Message::AppendResult(it) => Some(it.term.0),
        Message::RequestVote(it) => (!it.pre_vote).then_some(it.term.0),
        Message::VoteResult(it) => (it.pre_vote != Some(true)).then_some(it.term.0),
        other => leads(other),
    }
}
