//! Bytes that are no requests, or almost.

use dqlite::base::{NodeId, Prng, Role};
use dqlite::codec::client::{OwnedParams, PROTOCOL_VERSION, Param, Request, Schema};

use crate::support::client::Client;
use crate::support::node::TestNode;
use crate::{Alone, while_others_are_served};

/// One message of each type, and statements of different kinds.
fn requests() -> Vec<Vec<u8>> {
    let params =
        OwnedParams::new(&[Param::Integer(7), Param::Text(b"seven"), Param::Blob(&[1; 20]), Param::Null]);
    let none = OwnedParams::default();
    let (schema, db) = (Schema::V0, 0);
    let exec = |sql: &'static str| Request::ExecSql { schema, db, sql: sql.as_bytes(), params: none.view() };
    let query =
        |sql: &'static str| Request::QuerySql { schema, db, sql: sql.as_bytes(), params: none.view() };
    let requests = [
        Request::Leader,
        Request::Client { id: 1 },
        Request::Open { filename: b"bad", flags: 0, vfs: b"volatile" },
        exec("CREATE TABLE IF NOT EXISTS t(a, b, c, d)"),
        exec("BEGIN IMMEDIATE"),
        Request::Prepare { schema, db, sql: b"INSERT INTO t VALUES(?, ?, ?, ?)" },
        Request::Prepare { schema: Schema::V1, db, sql: b"SELECT * FROM t; SELECT 2" },
        Request::Exec { schema, db: 0, stmt: 0, params: params.view() },
        Request::Exec { schema: Schema::V1, db: 0, stmt: 0, params: params.view() },
        Request::Query { schema, db: 0, stmt: 1, params: none.view() },
        query("SELECT a, b, c, d FROM t"),
        query(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT i FROM n",
        ),
        Request::Interrupt { db },
        exec("COMMIT"),
        exec("INSERT INTO t VALUES(1, 2, 3, 4) RETURNING a"),
        Request::Finalize { db: 0, stmt: 0 },
        Request::Dump { filename: b"bad" },
        Request::Cluster { format: 1 },
        Request::Describe { format: 0 },
        Request::Weight { weight: 3 },
        Request::Add { id: NodeId(7), address: b"127.0.0.1:7" },
        Request::Assign { id: NodeId(7), role: Role::StandBy },
        Request::Remove { id: NodeId(7) },
        Request::Transfer { id: NodeId(0) },
    ];
    requests.iter().map(|request| request.encode().unwrap()).collect()
}

/// What a bad client sends.
fn attack(prng: &mut Prng, requests: &[Vec<u8>]) -> Vec<u8> {
    let mut below = |limit: usize| usize::try_from(prng.next_u64() % limit as u64).unwrap();
    let handshake = PROTOCOL_VERSION.to_le_bytes();
    match below(6) {
        // Anything.
        0 => (0..below(200)).map(|_| below(256).to_le_bytes()[0]).collect(),
        // A handshake and anything.
        1 => handshake.into_iter().chain((0..below(400)).map(|_| below(256).to_le_bytes()[0])).collect(),
        // Headers of any size and type.
        2 => {
            let words = [0, 1, 0x7fff_ffff, 0x8000_0000, 0x1fff_ffff, 0x2000_0000, u32::MAX, 0x0800_0000];
            let words = words[below(words.len())].to_le_bytes();
            let header = [words[0], words[1], words[2], words[3], below(24).to_le_bytes()[0], 0, 0, 0];
            handshake.into_iter().chain(header).chain(vec![0; below(64)]).collect()
        }
        // A good conversation with bytes changed, or messages left out, or cut off.
        _ => {
            let kept = requests.iter().filter(|_| below(5) > 0).flatten().copied();
            let mut bytes: Vec<u8> = handshake.into_iter().chain(kept).collect();
            for _ in 0..below(6) {
                let at = below(bytes.len());
                bytes[at] = below(256).to_le_bytes()[0];
            }
            if below(2) == 0 {
                bytes.truncate(below(bytes.len()));
            }
            bytes
        }
    }
}

#[test]
fn no_bytes_harm_the_node_or_others() {
    let alone = Alone::new();
    let node = TestNode::start();
    let requests = requests();
    // The unchanged conversation is a good one, so that changes reach deep.
    let mut client = Client::connect(node.address()).unwrap();
    client.send(&requests.concat()).unwrap();
    for _ in 0..12 {
        client.answer().unwrap();
    }
    drop(client);

    while_others_are_served(&node, || {
        let mut open = Vec::new();
        for seed in 0..600 {
            let mut prng = Prng::new(seed);
            let bytes = attack(&mut prng, &requests);
            let mut client = Client::connect_silently(node.address()).unwrap();
            // The node may have closed it by now.
            let _closed_already = client.send(&bytes);
            open.push(client);
            // A few stay for a while, none of them reads, and they leave in either way.
            if open.len() > 8 {
                let client = open.swap_remove(usize::try_from(prng.next_u64() % 8).unwrap());
                if seed % 2 == 0 { client.abort() } else { drop(client) }
            }
        }
    });
    alone.assert_no_panic();
}

#[test]
fn a_line_that_breaks_at_any_byte_leaves_nothing_behind() {
    let alone = Alone::new();
    let node = TestNode::start();
    let bytes = [PROTOCOL_VERSION.to_le_bytes().to_vec(), requests()[..9].concat()].concat();
    while_others_are_served(&node, || {
        for end in 0..bytes.len() {
            let mut client = Client::connect_silently(node.address()).unwrap();
            client.send(&bytes[..end]).unwrap();
            client.abort();
        }
    });
    // Nobody holds the database: a waiter would be turned away only after ten seconds.
    let mut other = Client::with_database(node.address(), "bad");
    other.exec("CREATE TABLE IF NOT EXISTS t(a, b, c, d); INSERT INTO t(a) VALUES(1)", &[]).ok();
    // No transaction of theirs was committed.
    assert_eq!(other.query("SELECT count(*) FROM t", &[]).integer(), 1);
    alone.assert_no_panic();
}
