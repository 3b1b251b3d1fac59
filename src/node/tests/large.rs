//! Large databases and transactions: nothing that grows with them happens between two events.

use std::sync::Arc;

use super::{A, B, World, result};
use crate::base::PageNo;
use crate::codec::client::Request;
use crate::engine::jobs::{Outcome, Progress};
use crate::pages::{Changes, Page, View, WriterId};

const PAGES: u32 = 3000;

/// Plays a SQL thread: a transaction that leaves the database with so many pages, all of them new.
fn rewrite(world: &mut World, n_pages: u32) {
    world.exec(A, "UPDATE t SET a = 1");
    let (conn, _) = world.jobs.pop_front().unwrap();
    let (database, who) = (Arc::clone(&world.databases[&conn]), WriterId(conn.0));
    let pinned = database.pin(View::Head);
    database.reserve(who, &pinned).unwrap();
    let mut first = pinned.page(PageNo(1)).unwrap().as_slice().to_vec();
    first[200] = first[200].wrapping_add(1);
    let mut pages: std::collections::BTreeMap<PageNo, Page> =
        (2..=n_pages).map(|no| (PageNo(no), Page::from_slice(&no.to_le_bytes().repeat(1024)))).collect();
    pages.insert(PageNo(1), Page::from_slice(&first));
    let version = database.publish(who, pinned, Changes { pages, n_pages });
    database.release(who);
    let outcome = Outcome { reply: Some(result(1)), published: Some(version.seq()), ..Outcome::default() };
    world.core.handle_sql_ran(conn, Progress::Done(outcome), world.now);
    world.collect();
    world.sync();
    assert_eq!(world.answers(A), ["result 1"]);
}

#[test]
fn a_dump_is_handed_over_a_little_at_a_time_and_shows_one_commit() {
    let mut world = World::new();
    world.open(A);
    rewrite(&mut world, PAGES);
    world.connect(B);
    world.dropped();
    let last = world.databases[&A].pin(View::Committed).page(PageNo(PAGES)).unwrap().shared();
    let before = Arc::strong_count(&last);
    world.send(B, &Request::Dump { filename: b"test" });
    assert_eq!(Arc::strong_count(&last), before, "it is not queued yet");

    // What is committed meanwhile is no part of it.
    rewrite(&mut world, 1);
    assert_eq!(world.answers(B), [format!("{} bytes 0 bytes ", PAGES * 4096)]);
    assert!(world.dropped() >= PAGES as usize, "the dump was the last to hold them");
    assert_eq!(Arc::strong_count(&last), before - 1, "the database has let go of it");
    world.send(B, &Request::Dump { filename: b"test" });
    assert_eq!(world.answers(B), ["4096 bytes 0 bytes "]);
}

#[test]
fn a_client_that_leaves_within_a_dump_leaves_nothing_behind() {
    let mut world = World::new();
    world.open(A);
    rewrite(&mut world, PAGES);
    world.dropped();
    let last = world.databases[&A].pin(View::Committed).page(PageNo(PAGES)).unwrap().shared();
    let before = Arc::strong_count(&last);
    world.connect(B);
    world.send(B, &Request::Dump { filename: b"test" });
    rewrite(&mut world, 1);
    world.dropped();
    assert_eq!(Arc::strong_count(&last), before, "for the dump");
    world.core.handle_gone(B, world.now);
    world.collect();
    assert!(world.dropped() >= PAGES as usize);
    assert_eq!(Arc::strong_count(&last), before - 1);
}

#[test]
fn what_a_large_transaction_leaves_behind_is_dropped_elsewhere() {
    let mut world = World::new();
    world.open(A);
    rewrite(&mut world, 10);
    assert_eq!(world.dropped(), 0, "nothing to speak of");
    rewrite(&mut world, PAGES);
    assert!(world.dropped() >= PAGES as usize);
    rewrite(&mut world, 1);
    assert!(world.dropped() >= PAGES as usize - 1, "those that were cut off");
}
