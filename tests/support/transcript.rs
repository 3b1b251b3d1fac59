//! Transcripts made with the C library: reading them, and replaying them against a node.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use dqlite::codec::client::{Cell, Context, Frame, FrameReader, Header, Response};
use serde_json::Value;

use super::client::{Client, PATIENCE};

/// One transcript.
pub struct Transcript {
    pub name: String,
    pub steps: Vec<Step>,
}

/// One step: what the client sends, what the C library answered.
pub struct Step {
    /// File and number, for messages.
    pub place: String,
    pub conn: u64,
    /// Steps of different groups want a fresh node each.
    pub group: Option<u64>,
    pub note: String,
    pub send: Vec<u8>,
    pub recv: Vec<u8>,
    /// Offset and length of what is not to be compared in `recv`.
    pub mask: Vec<(usize, usize)>,
    /// The decoded answer, one or several.
    pub answer: Option<Value>,
    /// The client closes the connection.
    pub disconnect: bool,
    /// The node closes the connection, without data beyond `recv`.
    pub closed: bool,
    /// The node sends nothing, and does not close the connection.
    pub silent: bool,
    /// C's answer is wrong: any failure is right.
    pub defect: bool,
    /// C crashes: what a node should answer instead, in words.
    pub expect: Option<String>,
}

/// Reads all transcripts, in order of their names.
pub fn load_all() -> Vec<Transcript> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/client");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let transcripts: Vec<_> = paths.iter().map(|path| Transcript::load(path)).collect();
    assert_eq!(transcripts.len(), 18);
    transcripts
}

impl Transcript {
    fn load(path: &std::path::Path) -> Self {
        let script: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let name = script["name"].as_str().unwrap().to_owned();
        let steps = script["steps"].as_array().unwrap().iter().enumerate();
        let steps = steps.map(|(number, json)| Step::parse(format!("{name} step {number}"), json)).collect();
        Self { name, steps }
    }

    /// The numbers of the groups, each of which wants a fresh node; one `None` when there are no groups.
    pub fn groups(&self) -> Vec<Option<u64>> {
        let mut groups: Vec<_> = self.steps.iter().map(|step| step.group).collect();
        groups.dedup();
        groups
    }

    /// Replays the steps of one group against a fresh node and gives the differences. `quiet` is how long
    /// nothing must come where nothing is expected.
    pub fn replay(&self, address: &str, group: Option<u64>, quiet: Duration) -> Vec<String> {
        self.replay_with(address, group, quiet, |_| {})
    }

    /// The same; `before` is called with the number of each step before that is played.
    pub fn replay_with(
        &self,
        address: &str,
        group: Option<u64>,
        quiet: Duration,
        mut before: impl FnMut(usize),
    ) -> Vec<String> {
        let (mut connections, mut differences) = (BTreeMap::new(), Vec::new());
        for (number, step) in self.steps.iter().enumerate().filter(|(_, step)| step.group == group) {
            before(number);
            if step.disconnect {
                connections.remove(&step.conn);
                continue;
            }
            let connection = connections.entry(step.conn).or_insert_with(|| Connection {
                client: Client::connect_silently(address).unwrap(),
                ended: false,
            });
            if let Err(difference) = connection.play(step, quiet) {
                differences.push(format!("{} ({}): {difference}", step.place, step.note));
            }
        }
        differences
    }
}

impl Step {
    fn parse(place: String, json: &Value) -> Self {
        let flag = |name: &str| json[name].as_bool().unwrap_or(false);
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let ranges = json["mask"].as_array().map_or(&[][..], Vec::as_slice);
        Self {
            place,
            conn: json["conn"].as_u64().unwrap_or(0),
            group: json["group"].as_u64(),
            note: json["note"].as_str().unwrap().to_owned(),
            send: bytes_of(&json["send"]),
            recv: bytes_of(&json["recv"]),
            mask: ranges.iter().map(|range| (number(&range[0]), number(&range[1]))).collect(),
            answer: json.get("answer").cloned(),
            disconnect: flag("disconnect"),
            closed: flag("closed"),
            silent: flag("silent"),
            defect: flag("defect"),
            expect: json["expect"].as_str().map(str::to_owned),
        }
    }

    /// `bytes` with zeros where they are not to be compared.
    pub fn masked(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for &(at, len) in &self.mask {
            bytes.iter_mut().skip(at).take(len).for_each(|byte| *byte = 0);
        }
        bytes
    }

    /// A message without body: C never answers again, we close the connection.
    fn is_empty_message(&self) -> bool {
        self.send.len() >= 8 && self.send[..4] == [0; 4]
    }
}

fn bytes_of(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

struct Connection {
    client: Client,
    /// The node may have closed it, and nothing more is expected from it.
    ended: bool,
}

impl Connection {
    fn play(&mut self, step: &Step, quiet: Duration) -> Result<(), String> {
        self.ended |= step.silent && step.is_empty_message();
        match self.client.send(&step.send) {
            Err(_) if self.ended => return Ok(()),
            sent => sent.map_err(|error| error.to_string())?,
        }
        if let Some(expect) = &step.expect {
            return self.play_expected(expect);
        }
        if step.defect {
            let (header, _) = self.message()?;
            return if header.kind == 0 { Ok(()) } else { Err(format!("a failure expected: {header:?}")) };
        }
        let got = self.read(step.recv.len(), PATIENCE)?;
        if step.masked(&got) != step.masked(&step.recv) {
            return Err(format!("got {} want {}", hex(&got), hex(&step.recv)));
        }
        if step.closed || step.silent {
            let nothing = self.read(1, if step.closed { PATIENCE } else { quiet });
            return match nothing.as_ref().map_err(String::as_str) {
                Ok(_) => Err("unexpected data".to_owned()),
                Err(CLOSED) if step.closed || self.ended => Ok(()),
                Err(LATE) if step.silent => Ok(()),
                Err(other) => Err(other.to_owned()),
            };
        }
        Ok(())
    }

    fn play_expected(&mut self, expect: &str) -> Result<(), String> {
        if expect.starts_with("closed") {
            let end = self.read(1, PATIENCE);
            return if end == Err(CLOSED.to_owned()) { Ok(()) } else { Err(format!("{end:?}")) };
        }
        let (header, body) = self.message()?;
        let response = Response::decode(Frame { header, body: &body }, Context::default());
        let fits = match response.as_ref().map_err(ToString::to_string)? {
            Response::Failure { code, text } => {
                expect.starts_with(&format!("failure {code} {}", String::from_utf8_lossy(text)))
            }
            Response::Rows(rows) => rows
                .rows
                .iter()
                .flatten()
                .any(|cell: &Cell<'_>| expect == format!("rows, storage class code {}", cell.code())),
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("got {response:?} want {expect}")) }
    }

    fn message(&mut self) -> Result<(Header, Vec<u8>), String> {
        let mut frames = FrameReader::new(u64::MAX);
        let head = self.read(8, PATIENCE)?;
        frames.feed(&head);
        let header = Header::decode(head.try_into().unwrap());
        let body = self.read(usize::try_from(header.body_bytes()).unwrap(), PATIENCE)?;
        Ok((header, body))
    }

    /// Exactly `len` bytes.
    fn read(&mut self, len: usize, patience: Duration) -> Result<Vec<u8>, String> {
        self.client.set_patience(patience).map_err(|error| error.to_string())?;
        let (mut bytes, mut have) = (vec![0; len], 0);
        while have < len {
            match self.client.read(&mut bytes[have..]) {
                Ok(0) => return Err(CLOSED.to_owned()),
                Ok(read) => have += read,
                Err(error) => return Err(describe(&error)),
            }
        }
        Ok(bytes)
    }
}

const CLOSED: &str = "closed by the node";
const LATE: &str = "no answer in time";

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => LATE.to_owned(),
        io::ErrorKind::ConnectionReset => CLOSED.to_owned(),
        _ => error.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
