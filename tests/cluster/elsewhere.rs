//! Reads on nodes that do not lead, for clients whose OPEN asked for them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use dqlite::base::Role;

use crate::liveness::ELECTION;
use crate::support::client::{Answer, Client, Value};
use crate::support::cluster::{Cluster, declared, integers, wait_for};
use crate::support::links::Links;
use crate::{NAME, NOT_LEADER, refused};

/// A client that reads on this node, once that has caught up.
fn reader(cluster: &Cluster, number: usize) -> Client {
    let mut client = cluster.connect(number);
    wait_for("a node that serves readers", || {
        (!matches!(client.open_anywhere(NAME), Answer::Failure { .. })).then_some(())
    });
    client
}

/// Three nodes, the first of which leads, with a row 1 in a table.
fn with_a_row() -> (Cluster, Client) {
    let cluster = Cluster::of(3);
    let mut client = cluster.connect(1);
    client.open(NAME).ok();
    client.exec("CREATE TABLE t(n INTEGER PRIMARY KEY)", &[]).ok();
    client.exec("INSERT INTO t VALUES(1)", &[]).ok();
    cluster.equal_dumps(NAME);
    (cluster, client)
}

#[test]
fn a_follower_serves_reads_to_whoever_asked_for_it_and_nothing_else_to_anybody() {
    let (cluster, mut leader) = with_a_row();
    let mut old = cluster.connect(2);
    let mut client = reader(&cluster, 2);
    refused(old.open(NAME), NOT_LEADER);
    refused(old.query("SELECT n FROM t", &[]), NOT_LEADER);

    assert_eq!(integers(&mut client, "SELECT n FROM t"), [1]);
    for write in ["INSERT INTO t VALUES(2)", "WITH x(n) AS (VALUES(2)) INSERT INTO t SELECT n FROM x"] {
        refused(client.exec(write, &[]), NOT_LEADER);
        refused(client.query(write, &[]), NOT_LEADER);
    }
    // A transaction sees one state from its first statement to its last.
    let stmt = client.prepare("SELECT max(n) FROM t");
    client.exec("BEGIN", &[]).ok();
    assert_eq!(client.query_prepared(stmt, &[]).integer(), 1);
    leader.exec("INSERT INTO t VALUES(2)", &[]).ok();
    cluster.equal_dumps(NAME);
    assert_eq!(client.query_prepared(stmt, &[]).integer(), 1);
    refused(client.exec("INSERT INTO t VALUES(3)", &[]), NOT_LEADER);
    client.exec("COMMIT", &[]).ok();
    assert_eq!(client.query_prepared(stmt, &[]).integer(), 2);
    // A stand-by has everything, too.
    assert_eq!(leader.assign(3, Role::StandBy), Answer::Empty);
    let mut standby = reader(&cluster, 3);
    wait_for("the second row", || (integers(&mut standby, "SELECT n FROM t") == [1, 2]).then_some(()));
    // A spare has what it had, and says nothing of it.
    assert_eq!(leader.assign(3, Role::Spare), Answer::Empty);
    let (code, text) = wait_for("a spare", || match standby.query("SELECT n FROM t", &[]) {
        Answer::Failure { code, text } => Some((code, text)),
        _ => None,
    });
    assert_eq!((code, text.starts_with("not leader, and ")), (10250, true), "{text}");
}

#[test]
fn a_connection_to_a_follower_stays_when_that_leads_and_is_closed_when_it_does_not_any_more() {
    let (cluster, mut leader) = with_a_row();
    let mut client = reader(&cluster, 2);
    let stmt = client.prepare("SELECT max(n) FROM t");
    assert_eq!(leader.transfer(2), Answer::Empty);
    wait_for("leadership", || {
        (!matches!(client.exec("INSERT INTO t VALUES(2)", &[]), Answer::Failure { .. })).then_some(())
    });
    assert_eq!(client.query_prepared(stmt, &[]).integer(), 2);
    assert_eq!(client.transfer(1), Answer::Empty);
    refused(client.query_prepared(stmt, &[]), NOT_LEADER);
    wait_for("a follower that serves", || {
        (!matches!(client.open_anywhere(NAME), Answer::Failure { .. })).then_some(())
    });
    assert_eq!(integers(&mut client, "SELECT n FROM t"), [1, 2]);
}

#[test]
fn what_followers_answer_is_what_was_committed_up_to_some_moment_and_only_grows() {
    const ROWS: i64 = 300;
    let (cluster, mut leader) = with_a_row();
    let asked_for = AtomicI64::new(1);
    let readers: Vec<Client> = [1, 2, 3].into_iter().map(|number| reader(&cluster, number)).collect();
    thread::scope(|scope| {
        for mut client in readers {
            let asked_for = &asked_for;
            scope.spawn(move || {
                let mut seen = 1;
                while seen < ROWS {
                    let answer = client.query("SELECT count(*), max(n), min(n) FROM t", &[]);
                    if let Answer::Failure { code: 10250, .. } = answer {
                        // This machine has stood still for a while; the database may be open or not.
                        client.open_anywhere(NAME);
                        continue;
                    }
                    let row = answer.rows().remove(0);
                    let [Value::Integer(count), Value::Integer(last), Value::Integer(1)] = row[..] else {
                        panic!("{row:?}");
                    };
                    let most = asked_for.load(Ordering::SeqCst);
                    assert!(
                        count == last && (seen..=most).contains(&last),
                        "{row:?} after {seen}, of {most}"
                    );
                    seen = last;
                }
            });
        }
        for n in 2..=ROWS {
            asked_for.store(n, Ordering::SeqCst);
            leader.exec(&format!("INSERT INTO t VALUES({n})"), &[]).ok();
        }
    });
}

#[test]
fn a_follower_that_is_cut_off_stops_answering_and_goes_on_when_it_has_caught_up() {
    let links = Links::default();
    let cluster = Cluster::with(3, |options| {
        options.connector = links.around(&options.address, options.connector.clone());
        options.election_timeout = ELECTION;
    });
    let mut leader = cluster.connect(1);
    leader.open(NAME).ok();
    leader.exec("CREATE TABLE t(n INTEGER PRIMARY KEY); INSERT INTO t VALUES(1)", &[]).ok();
    cluster.equal_dumps(NAME);
    let mut client = reader(&cluster, 3);
    assert_eq!(integers(&mut client, "SELECT n FROM t"), [1]);
    links.cut(&declared(3));
    leader.exec("INSERT INTO t VALUES(2)", &[]).ok();
    let text = wait_for("a refusal", || match client.query("SELECT n FROM t", &[]) {
        Answer::Failure { code: 10250, text } => Some(text),
        other => {
            assert_eq!(other.rows().len(), 1);
            None
        }
    });
    assert!(
        text.starts_with("not leader, and data here may be ") && text.contains("at most 1200 ms"),
        "{text}"
    );
    let (code, _) = cluster.connect(3).open_anywhere(NAME).failure();
    assert_eq!((code, client.query("SELECT n FROM t", &[]).code()), (10250, 10250));
    links.heal();
    // The same connection.
    let rows = wait_for("a follower that has caught up", || match client.query("SELECT n FROM t", &[]) {
        Answer::Failure { code: 10250, .. } => None,
        other => Some(other.rows().len()),
    });
    assert_eq!(rows, 2);
}
