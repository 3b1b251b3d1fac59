//! Clients that write to whoever leads, and know what was acknowledged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use dqlite::codec::client::{OwnedParams, Request, Schema};

use crate::NAME;
use crate::support::client::{Answer, Client};
use crate::support::cluster::{Cluster, integers, wait_for};

/// Clients of a table `t(client, n)` whose rows are unique.
pub struct Writers {
    addresses: Vec<String>,
    count: u64,
    stop: AtomicBool,
    total: AtomicU64,
}

impl Writers {
    /// So many clients of the nodes that run now.
    pub fn new(cluster: &Cluster, count: u64) -> Self {
        let addresses = cluster.addresses();
        Self { addresses, count, stop: AtomicBool::new(false), total: AtomicU64::new(0) }
    }

    /// Has them write while `body` runs, which is given a way to wait for so many more rows, each of them begun
    /// after the call. How many rows of each client were acknowledged.
    pub fn run(&self, body: impl FnOnce(&dyn Fn(u64))) -> Vec<u64> {
        thread::scope(|scope| {
            let writers: Vec<_> =
                (0..self.count).map(|client| scope.spawn(move || self.write(client))).collect();
            // Else a panic would wait for them for ever.
            let _stop = StopOnDrop(&self.stop);
            body(&|rows| {
                // Each client may be about to count an answer that came before.
                let goal = self.total.load(Ordering::Relaxed) + self.count + rows;
                wait_for("more rows", || (self.total.load(Ordering::Relaxed) >= goal).then_some(()));
            });
            self.stop.store(true, Ordering::Relaxed);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        })
    }

    /// Each acknowledged row is there, on all nodes.
    #[track_caller]
    pub fn check(&self, cluster: &Cluster, acknowledged: &[u64]) {
        let (_, mut client) = cluster.leader_client(NAME);
        for (number, count) in acknowledged.iter().enumerate() {
            let sql = format!("SELECT count(*) FROM t WHERE client = {number} AND n < {count}");
            let found = integers(&mut client, &sql);
            assert_eq!(found, [i64::try_from(*count).unwrap()], "rows of client {number}");
        }
        cluster.equal_dumps(NAME);
    }

    fn connect(&self) -> Option<Client> {
        self.addresses.iter().find_map(|address| {
            let mut found = Client::connect(address).ok()?;
            let open = Request::Open { filename: NAME.as_bytes(), flags: 0, vfs: b"" };
            matches!(found.call(&open), Ok(Answer::Db { .. })).then_some(found)
        })
    }

    fn write(&self, client: u64) -> u64 {
        let (mut connection, mut acknowledged) = (None, 0);
        while !self.stop.load(Ordering::Relaxed) {
            let Some(open) = &mut connection else {
                connection = self.connect();
                continue;
            };
            // What failed may be there all the same.
            let sql = format!("INSERT OR IGNORE INTO t VALUES({client}, {acknowledged})");
            let params = OwnedParams::new(&[]);
            let request =
                Request::ExecSql { schema: Schema::V0, db: 0, sql: sql.as_bytes(), params: params.view() };
            if let Ok(Answer::Result { .. }) = Client::call(open, &request) {
                acknowledged += 1;
                self.total.fetch_add(1, Ordering::Relaxed);
            } else {
                connection = None;
            }
        }
        acknowledged
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
