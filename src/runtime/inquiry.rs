//! Asks servers about themselves, many at a time, on threads of their own: the program's connect function may
//! block for as long as it likes, and so may the servers.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::client::{Budget, Client};
use super::connect::Connector;
use super::threads::{self, Calls};
use crate::base::NodeId;
use crate::base::limits::{INQUIRIES_PER_SERVER_MAX, INQUIRY_THREADS_MAX};
use crate::codec::membership::Server;
use crate::roles::Metadata;

/// How long a server may take to answer.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// How soon it is seen that the node stops.
const CANCEL_DELAY: Duration = Duration::from_millis(20);

/// Everybody who asks for one node.
#[derive(Clone)]
pub struct Inquiry {
    connector: Connector,
    cancelled: Arc<AtomicBool>,
    calls: Calls,
    under_way: Arc<Mutex<UnderWay>>,
}

/// How many times each server is being asked, in vain perhaps and since long ago.
#[derive(Default)]
struct UnderWay(BTreeMap<NodeId, usize>);

impl UnderWay {
    /// Counts another time. False where that would be too many.
    fn begin(&mut self, id: NodeId) -> bool {
        let times = self.0.entry(id).or_default();
        let may = *times < INQUIRIES_PER_SERVER_MAX;
        *times += usize::from(may);
        may
    }

    fn end(&mut self, id: NodeId) {
        if let Some(times) = self.0.get_mut(&id) {
            *times -= 1;
            if *times == 0 {
                self.0.remove(&id);
            }
        }
    }
}

type Queue = Arc<Mutex<VecDeque<Server>>>;

impl Inquiry {
    /// One that reaches servers this way.
    #[must_use]
    pub fn new(connector: Connector) -> Self {
        Self { connector, cancelled: Arc::default(), calls: Calls::default(), under_way: Arc::default() }
    }

    /// How servers are reached.
    #[must_use]
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The time for a piece of work, that ends early when the node stops.
    #[must_use]
    pub fn budget(&self, patience: Duration) -> Budget {
        Budget::cancellable(patience, &self.cancelled)
    }

    /// What the servers say of themselves; those that did not answer in time are left out, and so are those that
    /// have not even answered the last times. Blocks meanwhile.
    #[must_use]
    pub fn ask(&self, servers: &[Server], patience: Duration) -> BTreeMap<NodeId, Metadata> {
        let budget = self.budget(patience);
        let mut queue = VecDeque::new();
        {
            let mut under_way = self.under_way();
            queue.extend(servers.iter().filter(|server| under_way.begin(server.id)).cloned());
        }
        let mut expected = queue.len();
        let queue = Queue::new(Mutex::new(queue));
        let (report, reports) = unbounded();
        for _ in 0..expected.min(INQUIRY_THREADS_MAX) {
            if let Err(error) = self.start(&queue, &report, &budget) {
                log::warn!("no thread to ask other nodes: {error}");
            }
        }
        drop(report);
        let answers = collect(&reports, &mut expected, &budget);
        let rest = std::mem::take(&mut *queue.lock().unwrap_or_else(PoisonError::into_inner));
        let mut under_way = self.under_way();
        rest.iter().for_each(|server| under_way.end(server.id));
        answers
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(
        &self,
        queue: &Queue,
        report: &Sender<(NodeId, Option<Metadata>)>,
        budget: &Budget,
    ) -> std::io::Result<()> {
        let call = self.calls.begin(usize::MAX)?;
        let (inquiry, queue) = (self.clone(), Arc::clone(queue));
        let (report, budget) = (report.clone(), budget.clone());
        threads::start("dqlite-ask", move || {
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            // Counted as long as it asks.
            let _call = call;
            while let Some(server) = next() {
                let answer = catch_unwind(AssertUnwindSafe(|| inquiry.describe(&server, &budget)));
                inquiry.under_way().end(server.id);
                // Whoever asked may have given up.
                let _ = report.send((server.id, answer.unwrap_or_default()));
            }
        })?;
        Ok(())
    }

    fn describe(&self, server: &Server, budget: &Budget) -> Option<Metadata> {
        // The node may have stopped before this thread began; then the function must not be called any more.
        budget.left()?;
        let described = Client::connect(&self.connector, &server.address, budget)
            .and_then(|mut client| client.describe(budget).map_err(|error| error.to_string()));
        described.map_err(|text| log::debug!("node {} is not described: {text}", server.id)).ok()
    }

    /// Has nobody be asked from here on, and waits `patience` for the connect functions that are running.
    pub fn stop(&self, patience: Duration) {
        self.cancel();
        self.calls.stop(patience);
    }

    /// Ends what can be ended, without waiting for it.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

fn collect(
    reports: &Receiver<(NodeId, Option<Metadata>)>,
    expected: &mut usize,
    budget: &Budget,
) -> BTreeMap<NodeId, Metadata> {
    let mut answers = BTreeMap::new();
    while *expected > 0 {
        let Some(left) = budget.left() else { break };
        match reports.recv_timeout(left.min(CANCEL_DELAY)) {
            Ok((id, answer)) => {
                *expected -= 1;
                answers.extend(answer.map(|metadata| (id, metadata)));
            }
            Err(error) if error.is_timeout() => {}
            // No thread is left.
            Err(_) => break,
        }
    }
    answers
}

#[cfg(test)]
#[path = "inquiry/tests.rs"]
mod tests;
