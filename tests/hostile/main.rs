//! Clients that mean no good, or mean well over a bad line: whatever they do on a socket, nothing panics, others
//! are served as if nothing was, and neither memory nor descriptors grow.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "clients in threads, waiting times bounded")]

#[path = "../support/mod.rs"]
mod support;

mod flood;
mod garbage;
mod memory;
mod peers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Instant;

use support::client::{Client, PATIENCE};
use support::node::TestNode;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Tests of memory and descriptors have the process for themselves.
struct Alone {
    panics_before: u64,
    _guard: MutexGuard<'static, ()>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        set_descriptors(u64::MAX);
    }
}

impl Alone {
    fn new() -> Self {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        static HOOK: Once = Once::new();
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                PANICS.fetch_add(1, Ordering::SeqCst);
                usual(info);
            }));
        });
        set_descriptors(u64::MAX);
        Self { panics_before: PANICS.load(Ordering::SeqCst), _guard: guard }
    }

    #[track_caller]
    fn assert_no_panic(&self) {
        assert_eq!(PANICS.load(Ordering::SeqCst), self.panics_before, "a thread panicked");
    }
}

/// Lets the process have so many descriptors, or as many as it may.
fn set_descriptors(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(maximum.map_or(count.min(1 << 20), |maximum| count.min(maximum)));
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// How many descriptors there are.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How many of them are sockets; a node opens files as it likes.
fn sockets() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    // One is gone when it is looked at: that of the listing.
    let links = links.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Memory of the process that is in use, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Waits until `what` holds.
#[track_caller]
fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "still waiting: {what}");
        thread::yield_now();
    }
}

/// Runs `attack` while a good client writes and reads, which must always succeed and never wait long. Then all
/// sockets must be closed.
fn while_others_are_served(node: &TestNode, attack: impl FnOnce()) {
    let mut client = Client::with_database(node.address(), "good");
    client.exec("CREATE TABLE IF NOT EXISTS t(a); DELETE FROM t", &[]).ok();
    let sockets_before = sockets();
    let over = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let good = scope.spawn(|| {
            let mut written = 0;
            loop {
                let begun = Instant::now();
                client.exec("INSERT INTO t VALUES(1)", &[]).ok();
                written += 1;
                assert_eq!(client.query("SELECT count(*) FROM t", &[]).integer(), written);
                assert!(begun.elapsed().as_secs() < 3, "{:?}", begun.elapsed());
                if over.load(Ordering::Relaxed) {
                    return written;
                }
            }
        });
        // Also when `attack` panics: else the good client would never end.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let end = Over(&over);
        attack();
        drop(end);
        good.join().unwrap()
    });
    assert!(written > 0);
    await_that("sockets are closed", || sockets() <= sockets_before);
    Client::connect(node.address()).unwrap().leader().ok();
}
