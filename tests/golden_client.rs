//! The client codec against transcripts of the C library: what it sent and was sent decodes to what the
//! transcript says, and encodes to the same bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use dqlite::base::limits::CLIENT_REQUEST_BYTES_MAX;
use dqlite::base::{Prng, Role};
use dqlite::codec::client::{
    Cell, Context, Failure, Format, Frame, FrameReader, Header, PROTOCOL_LEGACY, PROTOCOL_VERSION, Refused,
    Request, Response, RowsEnd, failure,
};
use serde_json::{Value, json};
use support::transcript::{Step, load_all};

mod support;

/// Requests that our own encoder would write shorter, since the rest is ignored by who reads it.
const LONGER_THAN_NEEDED: &[&str] = &[
    "leader with trailing words: ignored",
    "extra field not 0: ignored",
    "tuple present with count 0, schema 0",
    "tuple present with count 0, schema 1",
];

/// The messages in `bytes`, which must hold nothing else.
fn frames(bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let (mut reader, mut frames) = (FrameReader::new(CLIENT_REQUEST_BYTES_MAX), Vec::new());
    reader.feed(bytes);
    while let Some(frame) = reader.next_frame().unwrap() {
        frames.push((frame.header, frame.body.to_vec()));
    }
    assert_eq!(reader.waiting(), 0);
    frames
}

/// Steps after the protocol word of their connection, and whether that word was the legacy one.
fn requests() -> Vec<(Step, bool)> {
    let mut requests = Vec::new();
    for transcript in load_all() {
        let mut legacy = BTreeMap::new();
        for step in transcript.steps.into_iter().filter(|step| !step.disconnect) {
            if let Some(&legacy) = legacy.get(&step.conn) {
                requests.push((step, legacy));
                continue;
            }
            let word = u64::from_le_bytes(step.send.as_slice().try_into().unwrap());
            assert_eq!(step.closed, ![PROTOCOL_VERSION, PROTOCOL_LEGACY].contains(&word));
            legacy.insert(step.conn, word == PROTOCOL_LEGACY);
        }
    }
    assert!(requests.len() > 300, "only {} requests found", requests.len());
    requests
}

#[test]
fn every_request_decodes_and_encodes_to_the_same_bytes() {
    let mut shortened = BTreeSet::new();
    for (step, _) in requests() {
        let mut reader = FrameReader::new(CLIENT_REQUEST_BYTES_MAX);
        reader.feed(&step.send);
        if step.closed || step.note.starts_with("words 0") || reader.next_frame().is_err() {
            continue;
        }
        for (header, body) in frames(&step.send) {
            let sent = [&header.encode(), body.as_slice()].concat();
            let encoded = match Request::decode(Frame { header, body: &body }) {
                Ok(request) => request.encode().unwrap(),
                Err(Refused::Answer(failure)) => {
                    assert_eq!(Response::from(&failure).encode(), step.recv, "{}", step.place);
                    continue;
                }
                Err(Refused::Close(error)) => panic!("{}: {error}", step.place),
            };
            if LONGER_THAN_NEEDED.contains(&step.note.as_str()) {
                assert_eq!(encoded[8..], sent[8..encoded.len()], "{}", step.place);
                shortened.insert(step.note.clone());
            } else {
                assert_eq!(encoded, sent, "{} ({})", step.place, step.note);
            }
        }
    }
    assert_eq!(shortened.len(), LONGER_THAN_NEEDED.len());
}

#[test]
fn every_message_that_closes_the_connection_is_refused() {
    let mut refused = 0;
    for (step, _) in requests() {
        if step.closed || step.note.starts_with("words") || step.note.starts_with("body of 4") {
            let mut reader = FrameReader::new(CLIENT_REQUEST_BYTES_MAX);
            reader.feed(&step.send);
            let Ok(frame) = reader.next_frame() else {
                refused += 1;
                continue;
            };
            let outcome = Request::decode(frame.unwrap());
            assert!(matches!(outcome, Err(Refused::Close(_))), "{}: {outcome:?}", step.place);
            refused += 1;
        }
    }
    assert_eq!(refused, 8);
}

#[test]
fn every_response_decodes_to_its_answer_and_encodes_to_the_same_bytes() {
    let mut compared = 0;
    for (step, legacy) in requests() {
        if step.defect {
            continue;
        }
        let format = if step.note.contains("format=0") { Format::Addresses } else { Format::Roles };
        let mut encoded = Vec::new();
        let mut answers = Vec::new();
        for (header, body) in frames(&step.recv) {
            let response =
                Response::decode(Frame { header, body: &body }, Context { legacy, format }).unwrap();
            encoded.extend(response.encode());
            answers.push(describe(&response, header.schema));
        }
        assert_eq!(encoded, step.masked(&step.recv), "{} ({})", step.place, step.note);
        let Some(answer) = &step.answer else { continue };
        let wanted = if let Value::Array(many) = answer { many.clone() } else { vec![answer.clone()] };
        assert_eq!(answers.len(), wanted.len(), "{}", step.place);
        let answers: Vec<_> = answers.into_iter().zip(&wanted).map(|(it, like)| abridge(it, like)).collect();
        assert_eq!(answers, wanted, "{}", step.place);
        compared += answers.len();
    }
    assert!(compared > 300, "only {compared} answers compared");
}

/// The transcripts give long results by their number of rows alone.
fn abridge(mut answer: Value, like: &Value) -> Value {
    if like["rows"].is_string() {
        answer["rows"] = json!(format!("{} rows", answer["rows"].as_array().unwrap().len()));
    }
    answer
}

fn describe(response: &Response<'_>, schema: u8) -> Value {
    let text = |bytes: &[u8]| json!(String::from_utf8(bytes.to_vec()).unwrap());
    let mut answer = match response {
        Response::Failure { code, text: message } => {
            json!({"response": "failure", "code": code, "message": text(message)})
        }
        Response::Server { id, address } => {
            json!({"response": "server", "id": id.0, "address": text(address)})
        }
        Response::ServerLegacy { address } => json!({"response": "server", "address": text(address)}),
        Response::Welcome { heartbeat_timeout_ms } => {
            json!({"response": "welcome", "heartbeat_timeout": heartbeat_timeout_ms})
        }
        Response::Servers { format, servers } => {
            let entry = |server: &dqlite::codec::client::ServerEntry<'_>| match format {
                Format::Addresses => json!({"id": server.id.0, "address": text(server.address)}),
                Format::Roles => {
                    let role = match server.role {
                        Role::Voter => 0,
                        Role::StandBy => 1,
                        Role::Spare => 2,
                    };
                    json!({"id": server.id.0, "address": text(server.address), "role": role})
                }
            };
            json!({"response": "servers", "servers": servers.iter().map(entry).collect::<Vec<_>>()})
        }
        Response::Db { id } => json!({"response": "db", "id": id}),
        Response::Stmt { db, id, params, tail } => {
            let mut answer = json!({"response": "stmt", "db": db, "id": id, "params": params});
            if let Some(tail) = tail {
                answer["tail"] = json!(tail);
            }
            answer
        }
        Response::Result { last_insert_id, rows_affected } => {
            json!({"response": "result", "last_insert_id": last_insert_id, "rows_affected": rows_affected})
        }
        Response::Rows(rows) => {
            let columns: Vec<_> = rows.columns.iter().map(|name| text(name)).collect();
            let lines: Vec<Vec<_>> = rows.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
            json!({"response": "rows", "columns": columns, "rows": lines, "more": rows.end == RowsEnd::Part})
        }
        Response::Empty => json!({"response": "empty"}),
        Response::Files(files) => json!({"response": "files", "count": files.len()}),
        Response::Metadata { failure_domain, weight } => {
            json!({"response": "metadata", "failure_domain": failure_domain, "weight": weight})
        }
    };
    answer["schema"] = json!(schema);
    answer
}

fn cell(cell: &Cell<'_>) -> Value {
    let value = match *cell {
        Cell::Integer(value) | Cell::Unixtime(value) | Cell::Boolean(value) => json!(value),
        Cell::Float(value) => json!(value),
        Cell::Text(text) | Cell::Iso8601(text) => json!(String::from_utf8_lossy(text)),
        Cell::Blob(blob) => {
            json!(format!("hex:{}", blob.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
        }
        Cell::Null => Value::Null,
    };
    json!([cell.code(), value])
}

/// Failures that no transcript shows: they need a running checkpoint, a lost race or a full message, or are ours.
const NOT_IN_TRANSCRIPTS: &[Failure] = &[
    failure::DESCRIBE_FORMAT,
    failure::TRANSFER_FAILED,
    failure::CHANGE_PENDING,
    failure::MEMBERSHIP_NOT_LEADER,
    failure::MEMBERSHIP_LEADERSHIP_LOST,
    failure::FULL,
    failure::INTERRUPTED,
    failure::TOO_BIG,
];

#[test]
fn every_failure_of_the_table_has_the_code_and_text_that_c_sent() {
    let sent: BTreeSet<_> = requests().into_iter().map(|(step, _)| step.recv).collect();
    for failure in failure::ALL {
        let known = sent.contains(&Response::from(failure).encode());
        assert_eq!(known, !NOT_IN_TRANSCRIPTS.contains(failure), "{failure:?}");
    }
}

#[test]
fn damaged_messages_are_decoded_or_refused_and_what_is_decoded_survives_another_round() {
    let (mut decoded, mut refused) = (0, 0);
    for (seed, (step, legacy)) in requests().into_iter().enumerate() {
        let mut random = Prng::new(seed as u64);
        for bytes in [&step.send, &step.recv] {
            for _ in 0..20 {
                let mut damaged = bytes.get(8..).unwrap_or_default().to_vec();
                for _ in 0..random.below(4).min(damaged.len() as u64) {
                    let at = usize::try_from(random.below(damaged.len() as u64)).unwrap();
                    damaged[at] = u8::try_from(random.below(256)).unwrap();
                }
                let (kind, schema) = (bytes.get(4).copied().unwrap_or(0), bytes.get(5).copied().unwrap_or(0));
                let header = Header { words: 0, kind, schema, extra: 0 };
                let frame = Frame { header, body: &damaged };
                let context = Context { legacy, format: Format::Roles };
                let again = |message: &[u8], check: &mut dyn FnMut(Frame<'_>)| {
                    let mut reader = FrameReader::new(u64::MAX);
                    reader.feed(message);
                    check(reader.next_frame().unwrap().unwrap());
                };
                // Compared as texts: a NaN differs from itself.
                if let Ok(request) = Request::decode(frame) {
                    let text = format!("{request:?}");
                    again(&request.encode().unwrap(), &mut |frame| {
                        assert_eq!(text, format!("{:?}", Request::decode(frame).unwrap()), "seed {seed}");
                    });
                    decoded += 1;
                } else {
                    refused += 1;
                }
                if let Ok(response) = Response::decode(frame, context) {
                    let text = format!("{response:?}");
                    again(&response.encode(), &mut |frame| {
                        assert_eq!(
                            text,
                            format!("{:?}", Response::decode(frame, context).unwrap()),
                            "seed {seed}"
                        );
                    });
                    decoded += 1;
                } else {
                    refused += 1;
                }
            }
        }
    }
    assert!(decoded > 10_000 && refused > 1000, "{decoded} decoded, {refused} refused");
}
