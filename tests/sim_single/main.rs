//! One node lives, crashes at any operation of its disk, and lives again, while clients write down what they are
//! told. Everything is decided by a seed, which a failure prints; `SIM_SEED` runs one seed, `SIM_SEEDS` that many from
//! `SIM_FROM` on.
//!
//! Checked: every acknowledged write is there, in every later read and after every restart; what was refused
//! never is; a transaction is there whole or not at all; every request has one answer; the pages after a restart
//! are those from before.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use client::Client;
use dqlite::base::Prng;
use dqlite::disk::fault::{Fault, Survival};
use dqlite::disk::{Disk, FaultDisk};
use history::History;
use node::Node;

mod client;
mod history;
mod node;

/// Seeds of a usual run.
const SEEDS: u64 = 300;

/// How long a node may take to answer everybody, in seconds of its own time.
const PATIENCE_S: usize = 90;

struct Sim {
    prng: Prng,
    disk: FaultDisk,
    history: History,
    clients: Vec<Client>,
    connections: u64,
    /// The database's pages, while nothing can have changed them.
    image: Option<Vec<u8>>,
}

impl Sim {
    fn new(seed: u64) -> Self {
        Self {
            prng: Prng::new(seed),
            disk: FaultDisk::new(seed),
            history: History::default(),
            clients: Vec::new(),
            connections: 0,
            image: None,
        }
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.prng.below(bound)).unwrap()
    }

    fn power_is_off(&self) -> bool {
        self.disk.clone().list().is_err()
    }

    fn crash(&mut self) {
        let survival = [Survival::Nothing, Survival::Everything, Survival::Torn][self.below(3)];
        self.disk.crash(survival);
        self.disk.set_capacity(None);
    }

    /// Several lives of one directory.
    fn run(&mut self) -> Result<(), String> {
        for life in 0..4 {
            if self.below(3) == 0 {
                let at = self.prng.below(40);
                self.disk.fail_at(at, Fault::PowerOff);
            }
            let mut node = loop {
                match Node::start(&self.disk, &mut self.prng) {
                    Ok(node) => break node,
                    Err(_) if self.power_is_off() => self.crash(),
                    Err(text) => return Err(format!("life {life}: no start: {text}")),
                }
            };
            let clean = self.live(&mut node).map_err(|text| format!("life {life}: {text}"))?;
            for client in std::mem::take(&mut self.clients) {
                client.leave(&mut self.history)?;
            }
            if clean && self.below(2) == 0 {
                node.close();
            } else {
                drop(node);
                self.crash();
            }
        }
        Ok(())
    }

    fn connect(&mut self, node: &mut Node) -> Client {
        self.connections += 1;
        Client::connect(node, self.connections)
    }

    /// One life; whether it ends with everything answered and stored.
    fn live(&mut self, node: &mut Node) -> Result<bool, String> {
        let first = self.connect(node);
        self.clients.push(first);
        for request in [
            |client: &mut Client, node: &mut Node| client.open(node, "test"),
            Client::dump,
            Client::create_table,
        ] {
            request(&mut self.clients[0], node);
            if !self.quiesce(node)? {
                return Ok(false);
            }
            let image = std::mem::take(&mut self.clients[0].image);
            if !image.is_empty() && self.image.take().is_some_and(|before| before != image) {
                return Err("the pages are not those from before".to_owned());
            }
        }
        let mark = self.history.mark();
        self.clients[0].read(node, mark, &mut self.prng);
        if !self.quiesce(node)? {
            return Ok(false);
        }
        if let Some(code) = self.clients[0].failure {
            return Err(format!("the first read after a start failed: {code}"));
        }
        let found = self.clients[0].found.clone();
        self.history.restarted(&found)?;
        self.image = None;
        for _ in 0..3 {
            let client = self.connect(node);
            self.clients.push(client);
        }
        let fault =
            [None, None, Some(Fault::PowerOff), Some(Fault::PowerOff), Some(Fault::Broken)][self.below(5)];
        if let Some(fault) = fault {
            let at = self.prng.below(300);
            self.disk.fail_at(at, fault);
        }
        for _ in 0..150 + self.below(600) {
            self.step(node)?;
            if self.power_is_off() {
                return Ok(false);
            }
        }
        self.disk.set_capacity(None);
        if !self.quiesce(node)? || fault.is_some() {
            return Ok(false);
        }
        let mut last = self.connect(node);
        last.dump(node);
        self.clients.push(last);
        if !self.quiesce(node)? {
            return Ok(false);
        }
        self.image = self.clients.last().map(|client| client.image.clone()).filter(|image| !image.is_empty());
        Ok(true)
    }

    /// Something happens.
    fn step(&mut self, node: &mut Node) -> Result<(), String> {
        let at = self.below(self.clients.len() as u64);
        match self.below(24) {
            0..6 => self.clients[at].act(node, &mut self.history, &mut self.prng),
            6..11 => {
                let job = self.below(8);
                node.run_job(job);
            }
            11..14 => {
                let count = 1 + self.below(4);
                node.run_disk(count);
            }
            14..17 => node.deliver(),
            17..20 => {
                let count = [1, 20, 1 << 30][self.below(3)];
                self.clients[at].take(node, &mut self.history, count)?;
            }
            20 => {
                let time = Duration::from_millis(self.prng.below(3000));
                node.pass(time);
            }
            21 => {
                node.run_snapshot();
                node.prepare_ahead();
            }
            22 if self.clients[at].is_lost() || self.below(4) == 0 => {
                let next = self.connect(node);
                let gone = std::mem::replace(&mut self.clients[at], next);
                node.core.handle_gone(gone.conn, node.now);
                node.collect();
                gone.leave(&mut self.history)?;
            }
            _ if self.below(6) == 0 => {
                let more = self.prng.below(20_000);
                let full = self.below(2) == 0;
                self.disk.set_capacity(full.then(|| self.disk.used_bytes() + more));
            }
            _ => {}
        }
        match node.closed.pop() {
            Some(conn) if self.clients.iter().any(|client| client.conn == conn) => {
                Err(format!("the node closed the connection {}", conn.0))
            }
            _ => Ok(()),
        }
    }

    /// Lets everything come to its end; `false` when the power goes meanwhile.
    fn quiesce(&mut self, node: &mut Node) -> Result<bool, String> {
        for _ in 0..PATIENCE_S {
            let mut busy = true;
            while busy {
                busy = node.has_jobs() || node.has_disk_work();
                node.run_job(0);
                node.run_disk(usize::MAX);
                node.deliver();
                node.run_snapshot();
                for client in &mut self.clients {
                    busy |= client.take(node, &mut self.history, usize::MAX)?;
                }
            }
            if self.power_is_off() {
                return Ok(false);
            }
            if !self.clients.iter().any(Client::is_waiting) {
                return Ok(true);
            }
            node.pass(Duration::from_secs(1));
        }
        let waiting: Vec<String> =
            self.clients.iter().filter(|client| client.is_waiting()).map(Client::state).collect();
        Err(format!("never answered: {}", waiting.join("; ")))
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_happens_clients_are_told_the_truth_and_the_node_starts_again() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("SIM_FROM").unwrap_or(0);
            first..first + number("SIM_SEEDS").unwrap_or(SEEDS)
        }
    };
    for seed in seeds {
        if let Err(text) = Sim::new(seed).run() {
            panic!("SIM_SEED={seed}: {text}");
        }
    }
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_found_out() {
    let lied_to = |seed| {
        let mut sim = Sim::new(seed);
        sim.disk.ignore_syncs(Some("sync open-#: write"));
        sim.run().is_err()
    };
    assert!((0..30).any(lied_to));
}
