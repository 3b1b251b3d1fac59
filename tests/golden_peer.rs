//! The peer codec against recordings of the C library: what its servers said to each other decodes to what an
//! independent decoder found, and encodes to the same bytes outside those that C leaves arbitrary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use dqlite::base::{EntryKind, NodeId, Prng, Role};
use dqlite::codec::client::{FrameReader, PROTOCOL_VERSION, Request};
use dqlite::codec::membership::Configuration;
use dqlite::codec::peer::{Incoming, InstallSnapshot, Message, PeerReader, encode, encode_connect};
use dqlite::session::{Session, SessionEvent};
use serde_json::{Value, json};
use support::capture::{SETS, messages, streams, vectors};

mod support;

/// Everything in `bytes`, with the data of snapshots in one piece.
fn decode(bytes: &[u8]) -> Vec<Incoming> {
    let mut reader = PeerReader::new();
    reader.push(bytes);
    let mut all = Vec::new();
    while let Some(incoming) = reader.next_incoming().unwrap() {
        all.push(incoming);
    }
    assert!(reader.is_between_messages(), "bytes are left over");
    all
}

fn configuration(found: &Configuration) -> Value {
    let role = |role| match role {
        Role::Voter => "voter",
        Role::StandBy => "standby",
        Role::Spare => "spare",
    };
    let servers = found.servers.iter();
    servers.map(|it| json!({ "id": it.id.0, "address": it.address, "role": role(it.role) })).collect()
}

/// What was decoded, in the words of the recording; but for bytes that mean nothing.
fn described(message: &Message) -> (&'static str, Value) {
    match message {
        Message::AppendEntries(it) => {
            let entries: Vec<Value> = it
                .entries
                .iter()
                .map(|entry| {
                    let payload = entry.payload.contiguous();
                    let (kind, conf) = match entry.kind {
                        EntryKind::Command => ("command", None),
                        EntryKind::Barrier => ("barrier", None),
                        EntryKind::Change => {
                            ("change", Some(configuration(&Configuration::decode(&payload).unwrap())))
                        }
                    };
                    let mut json = json!({ "term": entry.term.0, "type": kind, "size": payload.len() });
                    if let Some(conf) = conf {
                        json["conf"] = conf;
                    }
                    json
                })
                .collect();
            let fields = json!({
                "term": it.term.0, "prev_log_index": it.prev_index.0, "prev_log_term": it.prev_term.0,
                "leader_commit": it.commit.0, "n_entries": entries.len(), "entries": entries,
            });
            ("append_entries", fields)
        }
        Message::AppendResult(it) => {
            let mut fields =
                json!({ "term": it.term.0, "rejected": it.rejected, "last_log_index": it.last_index.0 });
            if let Some(features) = it.features {
                fields["features"] = json!(features);
            }
            ("append_entries_result", fields)
        }
        Message::RequestVote(it) => {
            let flags = u64::from(it.disrupt_leader) | u64::from(it.pre_vote) << 1;
            let fields = json!({
                "term": it.term.0, "candidate_id": it.candidate.0, "last_log_index": it.last_index.0,
                "last_log_term": it.last_term.0, "flags": flags,
                "disrupt_leader": it.disrupt_leader, "pre_vote": it.pre_vote,
            });
            ("request_vote", fields)
        }
        Message::VoteResult(it) => {
            let fields = json!({
                "term": it.term.0, "vote_granted": u64::from(it.granted),
                "flags": u64::from(it.pre_vote.unwrap()), "pre_vote": it.pre_vote.unwrap(),
            });
            ("request_vote_result", fields)
        }
        Message::InstallSnapshot(it) => {
            let fields = json!({
                "term": it.term.0, "last_index": it.last_index.0, "last_term": it.last_term.0,
                "conf_index": it.configuration_index.0, "conf_size": it.configuration_bytes.len(),
                "conf": configuration(&it.configuration), "data_size": it.data_bytes,
            });
            ("install_snapshot", fields)
        }
        Message::TimeoutNow(it) => {
            let fields = json!({
                "term": it.term.0, "last_log_index": it.last_index.0, "last_log_term": it.last_term.0,
            });
            ("timeout_now", fields)
        }
    }
}

/// A recorded message without what means nothing: bytes that C leaves as they are, and the odd word that releases
/// before 1.18.7 count into the header of a snapshot.
fn without_junk(bytes: &[u8], message: &Message) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let header = usize::try_from(u64::from_le_bytes(bytes[8..16].try_into().unwrap())).unwrap();
    match message {
        Message::AppendEntries(it) => {
            for i in 0..it.entries.len() {
                bytes[16 + 49 + 16 * i..16 + 52 + 16 * i].fill(0);
            }
            assert_eq!(header, 48 + 16 * it.entries.len());
            bytes[16 + header - 8..16 + header].fill(0);
        }
        Message::InstallSnapshot(InstallSnapshot { configuration_bytes, .. }) => {
            assert_eq!(header, 56 + configuration_bytes.len());
            bytes.drain(16 + header - 8..16 + header);
            bytes[8..16].copy_from_slice(&(header as u64 - 8).to_le_bytes());
        }
        Message::AppendResult(_)
        | Message::RequestVote(_)
        | Message::VoteResult(_)
        | Message::TimeoutNow(_) => {}
    }
    bytes
}

fn drop_junk(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            ["trailing", "unused", "padding", "conf_padding", "head"]
                .iter()
                .for_each(|it| drop(fields.remove(*it)));
            fields.values_mut().for_each(drop_junk);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_junk),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_recorded_message_decodes_to_its_fields_and_encodes_to_its_bytes() {
    let mut seen = BTreeMap::new();
    for (set, (mut json, bytes)) in
        SETS.iter().flat_map(|set| messages(set).into_iter().map(move |it| (set, it)))
    {
        let kind = json["kind"].as_str().unwrap().to_owned();
        *seen.entry(kind.clone()).or_insert(0) += 1;
        match kind.as_str() {
            "handshake" => assert_eq!(bytes, PROTOCOL_VERSION.to_le_bytes(), "{set}"),
            "connect" => {
                let id = NodeId(json["id"].as_u64().unwrap());
                let (_, request) = encode_connect(id, json["address"].as_str().unwrap());
                assert_eq!(request, bytes, "{set}: {json}");
            }
            _ => {
                let found = decode(&bytes);
                let Incoming::Message(message) = &found[0] else { panic!("{set}: {found:?}") };
                drop_junk(&mut json);
                let (found_kind, fields) = described(message);
                assert_eq!((found_kind, &fields), (kind.as_str(), &json["fields"]), "{set}");
                let mut again = Vec::new();
                encode(message, &mut again).unwrap();
                let data: Vec<u8> = found[1..]
                    .iter()
                    .flat_map(|it| match it {
                        Incoming::SnapshotBytes(data) => data.clone(),
                        Incoming::SnapshotEnd => Vec::new(),
                        Incoming::Message(more) => panic!("{set}: {more:?}"),
                    })
                    .collect();
                again.extend(data);
                assert_eq!(again, without_junk(&bytes, message), "{set}: {json}");
            }
        }
    }
    let expected = [
        ("append_entries", 64),
        ("append_entries_result", 27),
        ("connect", 16),
        ("handshake", 16),
        ("install_snapshot", 1),
        ("request_vote", 20),
        ("request_vote_result", 19),
        ("timeout_now", 3),
    ];
    assert_eq!(seen, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
}

/// What a node makes of a stream that comes in these pieces: who connected, and the messages, snapshots in one.
fn receive<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Option<(NodeId, String)>, Vec<Incoming>) {
    let (mut session, mut reader, mut who) = (Session::new(), PeerReader::new(), None);
    let (mut all, mut data) = (Vec::new(), Vec::new());
    for piece in pieces {
        if who.is_some() {
            reader.push(piece);
        } else {
            session.handle_bytes(piece);
            match session.poll_event(true) {
                None => {}
                Some(SessionEvent::PeerUpgrade { id, address, rest }) => {
                    who = Some((id, String::from_utf8(address).unwrap()));
                    reader.push(&rest);
                }
                Some(other) => panic!("{other:?}"),
            }
        }
        while let Some(incoming) = reader.next_incoming().unwrap() {
            match incoming {
                Incoming::SnapshotBytes(chunk) => data.extend(chunk),
                Incoming::SnapshotEnd => {
                    all.push(Incoming::SnapshotBytes(std::mem::take(&mut data)));
                    all.push(Incoming::SnapshotEnd);
                }
                other @ Incoming::Message(_) => all.push(other),
            }
        }
    }
    assert!(reader.is_between_messages(), "the stream ends within a message");
    (who, all)
}

#[test]
fn recorded_streams_give_the_same_messages_however_they_are_cut() {
    let (mut prng, mut total) = (Prng::new(21), 0);
    for set in SETS {
        for recorded in streams(set) {
            let bytes = recorded.bytes();
            let whole = receive(std::iter::once(bytes.as_slice()));
            assert!(whole.0.is_some(), "{set}: nobody connected to {}", recorded.to);
            total += whole.1.len();
            assert_eq!(receive(recorded.sent.iter().map(|(_, bytes)| bytes.as_slice())), whole, "{set}");
            assert_eq!(receive(bytes.chunks(1)), whole, "{set}");
            for _ in 0..4 {
                let (mut rest, mut pieces) = (bytes.as_slice(), Vec::new());
                let longest = [3, 17, 100, 5000][usize::try_from(prng.below(4)).unwrap()];
                while !rest.is_empty() {
                    let len = usize::try_from(1 + prng.below(longest)).unwrap().min(rest.len());
                    let (piece, behind) = rest.split_at(len);
                    pieces.push(piece);
                    rest = behind;
                }
                assert_eq!(receive(pieces.into_iter()), whole, "{set}");
            }
        }
    }
    assert!(total > 700, "only {total} messages");
}

#[test]
fn recorded_streams_encode_to_their_own_bytes() {
    for recorded in SETS.iter().flat_map(|set| streams(set)) {
        let bytes = recorded.bytes();
        let (who, incoming) = receive(std::iter::once(bytes.as_slice()));
        let (id, address) = who.unwrap();
        let (word, connect) = encode_connect(id, &address);
        let mut rest = bytes.strip_prefix([&word[..], &connect].concat().as_slice()).unwrap();
        for incoming in incoming {
            let mut again = Vec::new();
            match incoming {
                Incoming::Message(message) => {
                    encode(&message, &mut again).unwrap();
                    // The bytes of this message, which may be longer than ours by the odd word of a snapshot.
                    let odd = if matches!(message, Message::InstallSnapshot(_)) { 8 } else { 0 };
                    let (whole, behind) = rest.split_at(again.len() + odd);
                    assert_eq!(again, without_junk(whole, &message), "{message:?}");
                    rest = behind;
                }
                Incoming::SnapshotBytes(data) => rest = rest.strip_prefix(data.as_slice()).unwrap(),
                Incoming::SnapshotEnd => {}
            }
        }
        assert_eq!(rest, [] as [u8; 0]);
    }
}

#[test]
fn recorded_requests_and_answers_decode_and_the_answers_encode_to_their_bytes() {
    for release in ["1111", "1186"] {
        let (hello, vectors) = vectors(release);
        assert_eq!(receive(std::iter::once(hello.as_slice())).0.unwrap().0, NodeId(9));
        for (number, vector) in vectors.iter().enumerate() {
            assert_eq!(decode(&vector.send).len(), 1, "{release}: {}", vector.what);
            let mut reply = vector.reply.as_slice();
            if number == 0 {
                // It opens a connection for that.
                let mut frames = FrameReader::new(1024);
                frames.feed(reply);
                assert_eq!(frames.next_word(), Some(PROTOCOL_VERSION));
                let connect = Request::decode(frames.next_frame().unwrap().unwrap()).unwrap();
                assert!(matches!(connect, Request::Connect { id: NodeId(1), .. }), "{connect:?}");
                reply = &reply[reply.len() - 40..];
            }
            let mut again = Vec::new();
            for incoming in decode(reply) {
                let Incoming::Message(message) = incoming else { panic!("{incoming:?}") };
                encode(&message, &mut again).unwrap();
            }
            assert_eq!(again, reply, "{release}: {}", vector.what);
        }
    }
}
