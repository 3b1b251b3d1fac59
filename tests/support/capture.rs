//! Bytes between servers, recorded by a proxy that stood before each of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The recorded sets, made with releases 1.11.1 and 1.18.6 of the C library.
pub const SETS: [&str; 6] = [
    "c1111-three-nodes",
    "c1186-roles",
    "c1186-same-term-leaders",
    "c1186-snapshot",
    "c1186-three-nodes",
    "mixed-1111-1186",
];

/// A connection from one server to another.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// What the accepting server is called.
    pub to: String,
    /// What came from the connecting server, with the time in seconds.
    pub sent: Vec<(f64, Vec<u8>)>,
    /// What the accepting server answered; nobody ever does.
    pub answered: Vec<u8>,
    /// When it ended.
    pub closed: Option<f64>,
}

impl Recorded {
    /// The id of the accepting server, which its name ends in.
    pub fn id(&self) -> u64 {
        self.to.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap()
    }

    /// The id of the connecting server, if it is one.
    pub fn connecting(&self) -> Option<u64> {
        let bytes = self.bytes();
        let id = u64::from_le_bytes(bytes.get(16..24)?.try_into().unwrap());
        (bytes.get(12) == Some(&11)).then_some(id)
    }

    /// When the byte with this number came.
    pub fn time_of(&self, byte: usize) -> f64 {
        let mut before = 0;
        let chunk = self.sent.iter().find(|(_, bytes)| {
            before += bytes.len();
            byte < before
        });
        chunk.map_or(f64::INFINITY, |(at, _)| *at)
    }

    /// Everything the connecting server sent.
    pub fn bytes(&self) -> Vec<u8> {
        self.sent.iter().flat_map(|(_, bytes)| bytes).copied().collect()
    }
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/peer").join(format!("{name}.json"))
}

/// The connections of a capture.
pub fn load(path: &Path) -> Vec<Recorded> {
    let capture: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(capture["format"], "peer-tap-1", "{}", path.display());
    let connections = capture["connections"].as_array().unwrap();
    connections.iter().map(connection).collect()
}

fn connection(json: &Value) -> Recorded {
    let mut recorded = Recorded { to: json["to"].as_str().unwrap().to_owned(), ..Recorded::default() };
    recorded.closed = json["closed"].as_f64();
    for chunk in json["chunks"].as_array().unwrap() {
        let bytes = unhex(chunk[2].as_str().unwrap());
        match chunk[1].as_str().unwrap() {
            ">" => recorded.sent.push((chunk[0].as_f64().unwrap(), bytes)),
            _ => recorded.answered.extend(bytes),
        }
    }
    recorded
}

/// The connections of a recorded set on which something was sent.
pub fn streams(set: &str) -> Vec<Recorded> {
    let mut connections = load(&golden(&format!("{set}-stream")));
    connections.retain(|connection| !connection.sent.is_empty());
    assert!(connections.len() >= 2, "{set}: only {} connections", connections.len());
    connections
}

/// Single messages of a recorded set: what an independent decoder found, and the bytes.
pub fn messages(set: &str) -> Vec<(Value, Vec<u8>)> {
    let json: Value = serde_json::from_slice(&fs::read(golden(&format!("{set}-messages"))).unwrap()).unwrap();
    assert_eq!(json["format"], "peer-messages-1", "{set}");
    let messages = json["messages"].as_array().unwrap();
    messages.iter().map(|it| (it["message"].clone(), unhex(it["hex"].as_str().unwrap()))).collect()
}

/// A request to a node that has just bootstrapped, and its answer.
pub struct Vector {
    /// What is tried.
    pub what: String,
    /// The request.
    pub send: Vec<u8>,
    /// The answer, which comes on a connection that the node opens; empty for none.
    pub reply: Vec<u8>,
}

/// Opening bytes of a peer with id 9, and what it sends in turn.
pub fn vectors(release: &str) -> (Vec<u8>, Vec<Vector>) {
    let json: Value =
        serde_json::from_slice(&fs::read(golden(&format!("vectors-{release}"))).unwrap()).unwrap();
    assert_eq!(json["format"], "peer-vectors-1", "{release}");
    let hex = |json: &Value| unhex(json.as_str().unwrap());
    let steps = json["steps"].as_array().unwrap().iter();
    let vector = |step: &Value| Vector {
        what: step["what"].as_str().unwrap().to_owned(),
        send: hex(&step["send"]),
        reply: hex(&step["reply"]),
    };
    (hex(&json["hello"]), steps.map(vector).collect())
}

/// The bytes that a hexadecimal text stands for.
pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().map(|digit| (digit as char).to_digit(16).unwrap().try_into().unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
