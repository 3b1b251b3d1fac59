//! How bytes arrive must not matter, and how much is sent ahead neither.

use dqlite::codec::client::{Header, OwnedParams, PROTOCOL_VERSION, Param, Request, Schema};

use crate::support::client::{Answer, Client};
use crate::support::node::TestNode;
use crate::{NAME, serve};

/// A conversation in messages, the first being the protocol word.
pub fn conversation() -> Vec<Vec<u8>> {
    let params = OwnedParams::new(&[Param::Integer(7), Param::Text(b"seven")]);
    let none = OwnedParams::default();
    let (schema, db) = (Schema::V0, 0);
    let exec = |sql: &'static str| Request::ExecSql { schema, db, sql: sql.as_bytes(), params: none.view() };
    let requests = [
        Request::Leader,
        Request::Client { id: 0 },
        Request::Open { filename: NAME.as_bytes(), flags: 0, vfs: b"volatile" },
        exec("DROP TABLE IF EXISTS t; CREATE TABLE t(a, b)"),
        exec("BEGIN IMMEDIATE"),
        Request::Prepare { schema, db, sql: b"INSERT INTO t VALUES(?, ?)" },
        Request::Exec { schema, db: 0, stmt: 0, params: params.view() },
        Request::QuerySql { schema, db, sql: b"SELECT a, b FROM t", params: none.view() },
        exec("COMMIT"),
        Request::Finalize { db: 0, stmt: 0 },
        Request::Interrupt { db },
    ];
    let mut messages = vec![PROTOCOL_VERSION.to_le_bytes().to_vec()];
    messages.extend(requests.iter().map(|request| request.encode().unwrap()));
    messages
}

/// Exactly one message.
fn message(client: &mut Client) -> Vec<u8> {
    let mut bytes = exactly(client, 8);
    let header = Header::decode(bytes.clone().try_into().unwrap());
    bytes.extend(exactly(client, usize::try_from(header.body_bytes()).unwrap()));
    bytes
}

fn exactly(client: &mut Client, len: usize) -> Vec<u8> {
    let (mut bytes, mut have) = (vec![0; len], 0);
    while have < len {
        match client.read(&mut bytes[have..]).unwrap() {
            0 => panic!("closed after {have} of {len} bytes"),
            read => have += read,
        }
    }
    bytes
}

#[test]
fn a_conversation_is_the_same_in_messages_in_bytes_and_in_one_piece() {
    let node = TestNode::start();
    let messages = conversation();
    let mut in_turn = Client::connect_silently(node.address()).unwrap();
    in_turn.send(&messages[0]).unwrap();
    let expected: Vec<_> = messages[1..]
        .iter()
        .map(|bytes| {
            in_turn.send(bytes).unwrap();
            message(&mut in_turn)
        })
        .collect();

    let mut in_bytes = Client::connect_silently(node.address()).unwrap();
    for (number, bytes) in messages.iter().enumerate() {
        for byte in bytes {
            in_bytes.send(&[*byte]).unwrap();
        }
        if number > 0 {
            assert_eq!(message(&mut in_bytes), expected[number - 1], "message {number}");
        }
    }

    let mut at_once = Client::connect_silently(node.address()).unwrap();
    at_once.send(&messages.concat()).unwrap();
    for (number, bytes) in expected.iter().enumerate() {
        assert_eq!(&message(&mut at_once), bytes, "message {number}");
    }
}

#[test]
fn requests_sent_far_ahead_are_all_answered_in_order() {
    let (_node, mut client) = serve();
    client.exec("CREATE TABLE t(a, b)", &[]).ok();
    // More than the node reads ahead, and its answers are more than what sockets hold.
    let padding = "x".repeat(6000);
    let (mut sent, count) = (Vec::new(), 3000);
    for number in 0..count {
        let none = OwnedParams::default();
        let sql = format!("SELECT {number}, '{padding}'");
        let request =
            Request::QuerySql { schema: Schema::V0, db: 0, sql: sql.as_bytes(), params: none.view() };
        sent.extend(request.encode().unwrap());
    }
    let mut writer = client.second_handle();
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut writer, &sent).unwrap());
        for number in 0..count {
            let mut answer = client.answer().unwrap().ok();
            // A row of more than a page is followed by an empty part.
            if let Answer::Rows { rows, more: true, .. } = answer {
                assert_eq!(client.answer().unwrap().rows(), [[]; 0]);
                answer = Answer::Rows { columns: Vec::new(), rows, more: false };
            }
            let rows = answer.rows();
            assert_eq!(rows[0][0], crate::support::client::Value::Integer(number));
        }
    });
    assert_eq!(client.query("SELECT 1", &[]).integer(), 1);
}
