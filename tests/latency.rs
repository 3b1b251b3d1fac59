//! Long statements and the loop: it goes on without them, and its histogram shows so.
//!
//! `LOOP_SECONDS` sets how long the statement runs (1); the figures are printed (`--nocapture`). The test only
//! asks that nobody waited for the statement; how long a turn takes on a busy machine is not judged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "clients in threads, times measured")]
#![allow(dead_code, reason = "shared helpers")]

#[path = "support/mod.rs"]
mod support;

use std::thread;
use std::time::{Duration, Instant};

use dqlite::codec::client::{OwnedParams, Request, Schema};
use support::client::{Answer, Client};
use support::node::TestNode;

/// Counts for ever.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

/// Long within single instructions of SQLite's machine, where it does not ask whether it should go on.
const DEAF: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                    SELECT sum(length(hex(randomblob(20000000)))) FROM n";

fn seconds() -> Duration {
    let seconds = std::env::var("LOOP_SECONDS").ok().map_or(1.0, |text| text.parse().unwrap());
    Duration::from_secs_f64(seconds)
}

/// Runs the statement for so long on one connection while another writes: how many writes there were, and the
/// slowest.
fn write_beside(node: &TestNode, statement: &str, time: Duration) -> (u64, Duration) {
    let mut reader = Client::with_database(node.address(), "test");
    let mut writer = Client::with_database(node.address(), "test");
    reader.begin_query(statement);
    let mut ended = reader.second_handle();
    thread::scope(|scope| {
        let answer = scope.spawn(|| {
            loop {
                match reader.answer() {
                    Ok(Answer::Empty) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let (begun, mut count, mut slowest) = (Instant::now(), 0, Duration::ZERO);
        while begun.elapsed() < time {
            let asked = Instant::now();
            writer.exec("INSERT INTO t VALUES(1)", &[]).ok();
            slowest = slowest.max(asked.elapsed());
            count += 1;
        }
        std::io::Write::write_all(&mut ended, &Request::Interrupt { db: 0 }.encode().unwrap()).unwrap();
        answer.join().unwrap();
        (count, slowest)
    })
}

#[test]
fn nobody_waits_for_a_long_statement_and_the_loop_does_not_either() {
    let node = TestNode::start();
    let mut client = Client::with_database(node.address(), "test");
    client.exec("CREATE TABLE t(a)", &[]).ok();
    let time = seconds();
    for (name, statement) in [("counting", ENDLESS), ("in one function", DEAF)] {
        let (count, slowest) = write_beside(&node, statement, time);
        let turns = node.loop_latency();
        println!("{name} for {time:?}: {count} writes, the slowest took {slowest:?}; {turns}");
        assert!(count > 10, "{name}: {count} writes");
        assert!(turns.longest() < time, "{name}: {turns}");
    }
}

/// Short statements that come all at once, from one client: each makes the next one ready. Where the machine is so busy
/// that they count as long they are run elsewhere; hence several tries.
#[test]
fn the_loop_looks_at_its_sockets_again_in_the_middle_of_many_short_statements() {
    let node = TestNode::start();
    let mut client = Client::with_database(node.address(), "test");
    let params = OwnedParams::default();
    let mut turns_of_try = |number: i64| {
        let stmt = client.prepare(&format!("SELECT {number}"));
        for _ in 0..20 {
            assert_eq!(client.query_prepared(stmt, &[]).integer(), number);
        }
        let request = Request::Query { schema: Schema::V0, db: 0, stmt, params: params.view() };
        let before = node.loop_latency().count();
        client.send(&request.encode().unwrap().repeat(1280)).unwrap();
        for _ in 0..1280 {
            assert_eq!(client.answer().unwrap().integer(), number);
        }
        node.loop_latency().count() - before
    };
    let turns: Vec<u64> = (1..=10).map(&mut turns_of_try).collect();
    // 64 statements in a turn; the last turn may not have been counted yet.
    assert!(turns.iter().any(|turns| *turns >= 19), "turns for 1280 statements each: {turns:?}");
}

/// A client that takes a dump as fast as it comes has a turn of its own for each piece of it, also where the next piece is
/// there at once. How many there are depends on how fast the client is; without the limit a few are enough.
#[test]
fn a_dump_leaves_the_others_their_turns() {
    const MIB: u64 = 64;
    let node = TestNode::start();
    let mut client = Client::with_database(node.address(), "test");
    client.exec("CREATE TABLE t(x)", &[]).ok();
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {MIB}) \
         INSERT INTO t SELECT randomblob(1 << 20) FROM n"
    );
    client.exec(&fill, &[]).ok();
    let before = node.loop_latency().count();
    client.request(&Request::Dump { filename: b"test" }).unwrap();
    let (mut taken, mut buffer) = (0, vec![0; 4 << 20]);
    while taken < MIB << 20 {
        match client.read(&mut buffer).unwrap() {
            0 => panic!("the node closed the connection after {taken} bytes"),
            count => taken += count as u64,
        }
    }
    let turns = node.loop_latency().count() - before;
    // 256 KiB in a turn; the last one may not have been counted yet.
    assert!(turns >= MIB * 4 - 2, "{turns} turns for {MIB} MiB");
}
