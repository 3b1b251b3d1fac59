//! The cluster as a managed server sees it from outside: who leads, how to join, which servers there are.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::server_files::{NODE_STORE, encode_store, replace};
use super::{BUDGET, Member};
use crate::runtime::client::{AskError, Budget, Client};
use crate::runtime::connect::Connector;
use crate::runtime::threads;

/// How soon to ask again while no leader is known, or it is busy with another change.
const RETRY: Duration = Duration::from_millis(20);

/// Failures of requests to the leader that pass: another change is under way, it leads no more.
const PASSING: [u64; 3] = [5, 10250, 10506];

/// Goes to the leader, adds `own` to its cluster if it is not in it, and learns who is. What passes is waited for,
/// as long as the budget lasts: that there is no leader, which is so for a moment after each start; that servers
/// which join at the same time are in each other's way.
pub fn join(
    connector: &Connector,
    addresses: &[Vec<u8>],
    own: &Member,
    budget: &Budget,
) -> Result<(Client, Vec<Member>), String> {
    loop {
        let mut client = connect_to_leader(connector, addresses, budget)?;
        let text = match try_join(&mut client, own, budget) {
            Ok(members) => return Ok((client, members)),
            Err(AskError::Refused { code, text }) if PASSING.contains(&code) => text,
            Err(error) => return Err(format!("joining the cluster: {error}")),
        };
        wait(budget).ok_or_else(|| format!("joining the cluster: {text}"))?;
    }
}

fn try_join(client: &mut Client, own: &Member, budget: &Budget) -> Result<Vec<Member>, AskError> {
    let members = client.cluster(budget)?;
    if members.iter().any(|member| member.id == own.id) {
        return Ok(members);
    }
    client.add(own.id, &own.address, budget)?;
    client.cluster(budget)
}

/// A moment, if there is time for it.
fn wait(budget: &Budget) -> Option<()> {
    budget.left().filter(|left| *left > RETRY)?;
    std::thread::park_timeout(RETRY);
    Some(())
}

/// Goes to the leader. While none is known asks again as long as the budget lasts.
pub fn connect_to_leader(
    connector: &Connector,
    addresses: &[Vec<u8>],
    budget: &Budget,
) -> Result<Client, String> {
    loop {
        if let Some(client) = ask_for_leader(connector, addresses, budget)? {
            return Ok(client);
        }
        wait(budget).ok_or("a leader expected, none is known")?;
    }
}

/// Asks one server after another where the leader is, until one knows, and goes there. Whoever does not vote does
/// not know, nor does one that has just started.
fn ask_for_leader(
    connector: &Connector,
    addresses: &[Vec<u8>],
    budget: &Budget,
) -> Result<Option<Client>, String> {
    let mut last = Err("a server to ask expected, none is known".to_owned());
    for address in addresses {
        let address = String::from_utf8_lossy(address);
        let asked = Client::connect(connector, &address, budget).and_then(|mut client| {
            let leader = client.leader(budget).map_err(|error| format!("'{address}': {error}"))?;
            Ok((client, leader))
        });
        let found = match asked {
            Ok((_, None)) => Ok(None),
            Ok((client, Some((_, leader)))) if leader == address => Ok(Some(client)),
            Ok((_, Some((_, leader)))) => Client::connect(connector, &leader, budget).map(Some),
            Err(text) => Err(text),
        };
        match (found, &last) {
            (Ok(Some(client)), _) => return Ok(Some(client)),
            (Ok(None), _) => last = Ok(None),
            (Err(text), Err(_)) => last = Err(text),
            // Somebody answered: it is worth asking again.
            (Err(_), Ok(_)) => {}
        }
    }
    last
}

/// The servers of the cluster as they were known last, and the connection to ask anew.
pub struct Cluster {
    directory: PathBuf,
    connector: Connector,
    client: Option<Client>,
    members: Vec<Member>,
    cancelled: Arc<AtomicBool>,
}

impl Cluster {
    /// The cluster of the server in `directory`.
    pub fn new(
        directory: PathBuf,
        connector: Connector,
        client: Option<Client>,
        members: Vec<Member>,
    ) -> Self {
        Self { directory, connector, client, members, cancelled: Arc::default() }
    }

    /// Writes the list of servers down.
    pub fn save(&self) -> Result<(), String> {
        replace(&self.directory, NODE_STORE, &encode_store(&self.members))
            .map_err(|error| format!("{NODE_STORE}: {error}"))
    }

    /// Asks for the list of servers anew and writes it down.
    pub fn refresh(&mut self) -> Result<(), String> {
        let budget = Budget::cancellable(BUDGET, &self.cancelled);
        // The node at the other end may not lead any more, or be cut off; what the leader says counts.
        let kept = self.client.take().and_then(|mut client| {
            let leader = client.leader(&budget).ok().flatten()?;
            (leader.1 == client.address()).then_some(client)
        });
        let mut client = match kept {
            Some(client) => client,
            None => {
                let addresses: Vec<_> = self.members.iter().map(|member| member.address.clone()).collect();
                connect_to_leader(&self.connector, &addresses, &budget)?
            }
        };
        self.members = client.cluster(&budget).map_err(|error| error.to_string())?;
        self.client = Some(client);
        self.save()
    }
}

/// The thread that keeps the list of servers fresh.
pub struct Refresh {
    /// Dropping it wakes and ends the thread.
    wake: Sender<()>,
    cancelled: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Refresh {
    /// Starts refreshing the list once in a `period`.
    pub fn start(mut cluster: Cluster, period: Duration) -> std::io::Result<Self> {
        let (wake, woken): (Sender<()>, Receiver<()>) = channel();
        let cancelled = Arc::clone(&cluster.cancelled);
        let thread = threads::start("dqlite-refresh", move || {
            while woken.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                if let Err(text) = cluster.refresh() {
                    log::info!("the list of servers was not refreshed: {text}");
                }
            }
        })?;
        Ok(Self { wake, cancelled, thread })
    }

    /// Ends the thread, also one that waits for an answer, and waits for it.
    pub fn stop(self) {
        self.cancelled.store(true, Ordering::Release);
        drop(self.wake);
        if self.thread.join().is_err() {
            log::error!("internal error: the refresh thread panicked");
        }
    }
}
