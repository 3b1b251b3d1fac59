//! Transcripts of the C library replayed against whole nodes, a fresh one each: byte for byte outside masks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use support::client::{Answer, Client};
use support::cluster::{Cluster, declared};
use support::node::TestNode;
use support::transcript::{Transcript, load_all};

mod support;

/// How long a silent node is watched.
const QUIET: Duration = Duration::from_millis(50);

/// The address that the node of the transcripts goes by. Nothing has to listen there.
const DECLARED: &str = "127.0.0.1:9001";

/// They show a cluster of three.
const CLUSTERS: [&str; 4] =
    ["13-cluster-leader", "14-follower", "15-leadership-change", "16-leadership-lost"];

/// Steps that are not played, by transcript and number.
const LEFT_OUT: [(&str, usize); 1] = [
    // A deletion that is rolled back deletes nevertheless in C; here the table is still there.
    ("17-delete-database", 21),
];

fn transcript(name: &str) -> Transcript {
    let mut transcript = load_all().into_iter().find(|transcript| transcript.name == name).expect(name);
    if let Some((_, step)) = LEFT_OUT.iter().find(|(left_out, _)| *left_out == name) {
        transcript.steps.remove(*step);
    }
    transcript
}

/// What differs from what the C library did.
fn differences(transcript: &Transcript, group: Option<u64>) -> Vec<String> {
    let node = TestNode::start_with(|options| {
        options.address = DECLARED.to_owned();
        // C's rule, which this transcript shows: who finds the database locked is told so at once.
        options.busy_timeout = (transcript.name == "09-busy").then_some(Duration::ZERO);
    });
    let mut found = transcript.replay(node.address(), group, QUIET);
    let leader = Client::connect(node.address()).unwrap().leader();
    if leader != (Answer::Server { id: 1, address: DECLARED.to_owned() }) {
        found.push(format!("{} group {group:?}: afterwards the leader is {leader:?}", transcript.name));
    }
    found
}

macro_rules! replayed {
    ($($test:ident $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                let transcript = transcript($name);
                let groups = transcript.groups();
                let found: Vec<_> =
                    groups.into_iter().flat_map(|group| differences(&transcript, group)).collect();
                assert_eq!(found, [""; 0], "\n{}", found.join("\n"));
            }
        )*

        #[test]
        fn every_transcript_is_replayed() {
            let mut named = vec![$($name),*];
            named.extend(CLUSTERS);
            named.sort_unstable();
            let all: Vec<_> = load_all().into_iter().map(|transcript| transcript.name).collect();
            assert_eq!(named, all);
        }
    };
}

replayed! {
    connections_begin_as_with_c "01-handshake",
    messages_that_are_wrong_are_answered_as_by_c "02-envelope-errors",
    databases_are_opened_and_looked_up_as_by_c "03-open-and-lookup",
    statements_are_prepared_as_by_c "04-prepare",
    statements_are_run_as_by_c "05-exec",
    values_have_the_types_of_c "06-types",
    rows_come_as_from_c "07-query",
    pragmas_answer_as_in_c "08-pragmas",
    locks_are_refused_as_by_c "09-busy",
    members_are_refused_as_by_c "10-membership-single",
    constraints_fail_as_in_c "11-constraints",
    defects_of_c_are_cured_and_nothing_else "12-c-defects",
    a_database_is_deleted_as_by_c "17-delete-database",
    what_c_does_not_survive_is_answered_as_decided "18-c-crashes",
}

/// Three voters as the transcripts have them, with the table that they write to.
fn three_voters() -> Cluster {
    let cluster = Cluster::with(3, |options| options.busy_timeout = Some(Duration::from_millis(300)));
    let mut client = cluster.connect(1);
    client.open("test").ok();
    client.exec("CREATE TABLE t(n)", &[]).ok();
    cluster.equal_dumps("test");
    cluster
}

#[track_caller]
fn nothing_differs(found: &[String]) {
    assert_eq!(found, [""; 0], "\n{}", found.join("\n"));
}

#[test]
fn a_cluster_is_built_as_with_c() {
    let mut cluster = Cluster::apart(3, |_| {});
    let found = transcript("13-cluster-leader").replay(cluster.node(1).address(), None, QUIET);
    nothing_differs(&found);
}

#[test]
fn a_follower_answers_as_in_c() {
    let mut cluster = three_voters();
    // It hears of the leader with the next message.
    let known = Answer::Server { id: 1, address: declared(1) };
    support::cluster::wait_for("the leader to be known", || {
        (cluster.connect(2).leader() == known).then_some(())
    });
    nothing_differs(&transcript("14-follower").replay(cluster.node(2).address(), None, QUIET));
}

#[test]
fn clients_of_a_leader_that_hands_over_are_answered_as_by_c() {
    let mut cluster = three_voters();
    let address = cluster.node(1).address().to_owned();
    let transfer = 8;
    let found = transcript("15-leadership-change").replay_with(&address, None, QUIET, |step| {
        if step > transfer {
            // C answers the transfer when the other leads; so do we.
            assert_eq!(cluster.leader(), 2);
        }
    });
    nothing_differs(&found);
}

#[test]
fn clients_of_a_leader_without_a_majority_are_answered_as_by_c() {
    let mut cluster = three_voters();
    let address = cluster.node(1).address().to_owned();
    let found = transcript("16-leadership-lost").replay_with(&address, None, QUIET, |step| {
        if step == 2 {
            cluster.node(2).stop();
            cluster.node(3).stop();
        }
    });
    nothing_differs(&found);
}
