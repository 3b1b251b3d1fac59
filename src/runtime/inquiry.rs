//! Asks servers about themselves, many at a time, on threads of their own: the program's connect function may
//! block for as long as it likes, and so may the servers.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::client::{Budget, Client};
use super::connect::Connector;
use super::threads;
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
    under_way: Arc<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads that ask.
    threads: usize,
    /// How many times each server is being asked, in vain perhaps and since long ago.
    servers: BTreeMap<NodeId, usize>,
}

impl State {
    /// Counts another time. False where that would be too many.
    fn begin(&mut self, id: NodeId) -> bool {
        let times = self.servers.entry(id).or_default();
        let may = *times < INQUIRIES_PER_SERVER_MAX;
        *times += usize::from(may);
        may
    }

    fn end(&mut self, id: NodeId) {
        if let Some(times) = self.servers.get_mut(&id) {
            *times -= 1;
            if *times == 0 {
                self.servers.remove(&id);
            }
        }
    }
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a thread until it ends, however it does.
struct Asking(Arc<UnderWay>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
        self.0.ended.notify_all();
    }
}

type Queue = Arc<Mutex<VecDeque<Server>>>;

impl Inquiry {
    /// One that reaches servers this way.
    #[must_use]
    pub fn new(connector: Connector) -> Self {
        Self { connector, cancelled: Arc::default(), under_way: Arc::default() }
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
            let mut state = self.under_way.lock();
            queue.extend(servers.iter().filter(|server| state.begin(server.id)).cloned());
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
        let mut state = self.under_way.lock();
        rest.iter().for_each(|server| state.end(server.id));
        answers
    }

    fn start(
        &self,
        queue: &Queue,
        report: &Sender<(NodeId, Option<Metadata>)>,
        budget: &Budget,
    ) -> std::io::Result<()> {
        self.under_way.lock().threads += 1;
        let asking = Asking(Arc::clone(&self.under_way));
        let (inquiry, queue) = (self.clone(), Arc::clone(queue));
        let (report, budget) = (report.clone(), budget.clone());
        threads::start("dqlite-ask", move || {
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            while let Some(server) = next() {
                let answer = catch_unwind(AssertUnwindSafe(|| inquiry.describe(&server, &budget)));
                asking.0.lock().end(server.id);
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

    /// Has nobody be asked from here on, and waits for the connect functions that are running: what they use may go
    /// away with the node. One that hangs is left to itself after `patience`.
    pub fn stop(&self, patience: Duration) {
        self.cancel();
        let state = self.under_way.lock();
        let waited = self.under_way.ended.wait_timeout_while(state, patience, |state| state.threads > 0);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.threads > 0 {
            log::warn!("{} connect functions did not return; the node stops without them", state.threads);
        }
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
