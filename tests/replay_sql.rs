//! Transcripts of the C library about SQL, replayed against whole nodes of ours, a fresh one each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use support::node::TestNode;
use support::transcript::load_all;

mod support;

/// How long a silent node is watched.
const QUIET: Duration = Duration::from_millis(50);

/// What differs from what the C library did. Steps that tell the node's address, which is another one here, are
/// not played, nor those after which C differs on purpose.
fn differences(name: &str) -> Vec<String> {
    let mut transcript = load_all().into_iter().find(|transcript| transcript.name == name).expect(name);
    let address = |bytes: &[u8]| bytes.windows(14).any(|part| part == b"127.0.0.1:9001");
    transcript.steps.retain(|step| !address(&step.recv));
    let length = CURED.iter().find(|(cured, _)| *cured == name).map_or(usize::MAX, |(_, length)| *length);
    transcript.steps.truncate(length);
    // C's rule: who finds the database locked is told so at once.
    let node = TestNode::start_with(|options| options.busy_timeout = Some(Duration::ZERO));
    transcript.replay(node.address(), None, QUIET)
}

/// How many steps come before those in which C differs on purpose.
const CURED: &[(&str, usize)] = &[
    // A connection that becomes a peer's; not built yet.
    ("02-envelope-errors", 38),
    // A deletion that is rolled back deletes nevertheless in C.
    ("17-delete-database", 21),
];

macro_rules! replayed {
    ($($test:ident $name:literal,)*) => {$(
        #[test]
        fn $test() {
            assert_eq!(differences($name), [""; 0]);
        }
    )*};
}

replayed! {
    messages_that_are_wrong_are_answered_as_by_c "02-envelope-errors",
    databases_are_opened_and_looked_up_as_by_c "03-open-and-lookup",
    statements_are_prepared_as_by_c "04-prepare",
    statements_are_run_as_by_c "05-exec",
    values_have_the_types_of_c "06-types",
    rows_come_as_from_c "07-query",
    pragmas_answer_as_in_c "08-pragmas",
    locks_are_refused_as_by_c "09-busy",
    constraints_fail_as_in_c "11-constraints",
    defects_of_c_are_cured_and_nothing_else "12-c-defects",
    a_database_is_deleted_as_by_c "17-delete-database",
}
