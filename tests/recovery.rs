//! A cluster that lost its majority for good is made anew from what is left, as `docs/operations.md` says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "copies data directories")]

mod support;

use std::os::unix::ffi::OsStrExt;

use dqlite::admin::Node;
use dqlite::admin::member::Member;
use dqlite::admin::recover::LastEntry;
use dqlite::base::{NodeId, Role, Term};
use support::client::{Answer, Client};
use support::local::{connector, name, wait_for};
use tempfile::TempDir;

/// A node, as a program holds it, on a machine of its own.
struct Machine {
    id: u64,
    address: String,
    directory: TempDir,
    node: Option<Node>,
}

impl Machine {
    fn new(id: u64) -> Self {
        Self { id, address: name(), directory: TempDir::new().unwrap(), node: None }
    }

    /// A handle for the directory.
    fn create(&self) -> Node {
        let directory = self.directory.path().as_os_str().as_bytes();
        let (node, failure) = Node::create(NodeId(self.id), Some(self.address.as_bytes()), Some(directory));
        assert_eq!(failure, None);
        node
    }

    fn start(&mut self) {
        let mut node = self.create();
        node.set_connector(Some(connector())).unwrap();
        node.bind(self.address.as_bytes()).unwrap();
        node.configure(|config| config.set_network_latency_ms(50)).unwrap();
        node.start().unwrap();
        self.node = Some(node);
    }

    fn stop(&mut self) {
        self.node.take().unwrap().stop().unwrap();
    }

    fn last_entry(&self) -> LastEntry {
        let mut node = self.create();
        node.configure(|config| {
            config.auto_recovery = false;
            Ok(())
        })
        .unwrap();
        node.describe_last_entry().unwrap()
    }

    fn voter(&self) -> Member {
        Member { id: NodeId(self.id), address: self.address.clone().into_bytes(), role: Role::Voter }
    }
}

/// A client of whichever of the machines leads, with the database open.
fn leader(machines: &[&Machine]) -> (u64, Client) {
    wait_for("a leader", || {
        for machine in machines.iter().filter(|machine| machine.node.is_some()) {
            let mut client = Client::connect(&machine.address).unwrap();
            if client.leader() == (Answer::Server { id: machine.id, address: machine.address.clone() }) {
                match client.open("test") {
                    Answer::Db { .. } => return Ok((machine.id, client)),
                    other => return Err(format!("{other:?}")),
                }
            }
        }
        Err("none".to_owned())
    })
}

fn join(machine: &Machine, others: &[&Machine]) {
    leader(others).1.add(machine.id, &machine.address).ok();
    wait_for("a new voter", || match leader(others).1.assign(machine.id, Role::Voter) {
        Answer::Empty => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn insert(machines: &[&Machine], n: i64) {
    leader(machines).1.exec(&format!("INSERT INTO t VALUES({n})"), &[]).ok();
}

fn count(machines: &[&Machine]) -> i64 {
    leader(machines).1.query("SELECT count(*) FROM t", &[]).integer()
}

/// Three voters with five rows, all stopped.
fn stopped_cluster() -> [Machine; 3] {
    let [mut a, mut b, mut c] = [1, 2, 3].map(Machine::new);
    a.start();
    b.start();
    c.start();
    join(&b, &[&a]);
    join(&c, &[&a, &b]);
    let all = [&a, &b, &c];
    leader(&all).1.exec("CREATE TABLE t(n)", &[]).ok();
    (1..=5).for_each(|n| insert(&all, n));
    a.stop();
    b.stop();
    c.stop();
    [a, b, c]
}

/// The one of two that has the newer log, then the other.
fn newest_first(a: Machine, b: Machine) -> (Machine, Machine) {
    let key = |machine: &Machine| {
        let LastEntry { index, term } = machine.last_entry();
        (term, index)
    };
    if key(&a) >= key(&b) { (a, b) } else { (b, a) }
}

#[test]
fn one_of_three_goes_on_alone_and_takes_in_new_nodes() {
    let [a, b, c] = stopped_cluster();
    let (newest, _) = newest_first(a, b);
    let (mut first, _) = newest_first(newest, c);
    let last = first.last_entry();
    first.create().recover(vec![first.voter()]).unwrap();
    assert_eq!(first.last_entry(), LastEntry { index: last.index.next(), term: Term(1) });

    first.start();
    assert_eq!(count(&[&first]), 5);
    insert(&[&first], 6);
    let [mut fourth, mut fifth] = [4, 5].map(Machine::new);
    fourth.start();
    fifth.start();
    join(&fourth, &[&first]);
    join(&fifth, &[&first, &fourth]);
    // The new ones have everything: the old one can go.
    let _ = first.node.as_ref().unwrap().handover();
    first.stop();
    let left = [&fourth, &fifth];
    assert_eq!(count(&left), 6);
    insert(&left, 7);
    assert_eq!(count(&left), 7);
}

#[test]
fn a_recovery_on_the_wrong_node_is_undone_and_the_cluster_goes_on_as_it_was() {
    let [mut a, mut b, mut c] = stopped_cluster();
    let before = b.last_entry();
    for _ in 0..2 {
        b.create().recover(vec![b.voter()]).unwrap();
    }
    let kept = std::fs::read_to_string(b.directory.path().join("cluster-before-recover.yaml")).unwrap();
    let last = format!("# last entry: index {}, term {}\n", before.index, before.term);
    assert!(kept.contains(&last), "{kept}");
    for machine in [&a, &b, &c] {
        let member = format!("- Address: \"{}\"\n  ID: {}\n  Role: 0\n", machine.address, machine.id);
        assert!(kept.contains(&member), "{kept}");
    }
    for name in kept.lines().filter_map(|line| line.strip_prefix("# added: ")) {
        std::fs::remove_file(b.directory.path().join(name)).unwrap();
    }
    assert_eq!(b.last_entry(), before);
    a.start();
    b.start();
    c.start();
    assert_eq!(count(&[&a, &b, &c]), 5);
    insert(&[&a, &b, &c], 6);
}

#[test]
fn two_of_three_go_on_with_the_directory_of_the_newer_one() {
    let [a, b, lost] = stopped_cluster();
    drop(lost);
    let (mut first, mut second) = newest_first(a, b);
    first.create().recover(vec![first.voter(), second.voter()]).unwrap();
    second.directory = TempDir::new().unwrap();
    for item in std::fs::read_dir(first.directory.path()).unwrap() {
        let item = item.unwrap();
        std::fs::copy(item.path(), second.directory.path().join(item.file_name())).unwrap();
    }
    first.start();
    second.start();
    let both = [&first, &second];
    assert_eq!(count(&both), 5);
    insert(&both, 6);
    assert_eq!(count(&both), 6);
}

#[test]
fn what_cannot_be_recovered_says_what_to_do() {
    let mut machine = Machine::new(1);
    machine.start();
    let text = |machine: &Machine, members| machine.create().recover(members).unwrap_err().to_string();
    let running = text(&machine, vec![machine.voter()]);
    assert!(running.starts_with("raft_recover(): couldn't lock the raft directory: "), "{running}");
    assert!(running.ends_with("; stop the node that uses it first"), "{running}");
    machine.stop();
    let spare = Member { role: Role::Spare, ..machine.voter() };
    for (members, expected) in [
        (vec![], "servers: at least one expected, found none"),
        (vec![spare], "servers: a voter expected, found none; without one there is never a leader"),
        (vec![machine.voter(), machine.voter()], "the id or the address is in the list twice"),
    ] {
        let before = machine.last_entry();
        let text = text(&machine, members);
        assert!(text.starts_with("raft_recover(): ") && text.contains(expected), "{text}");
        assert!(text.ends_with("; nothing was changed"), "{text}");
        assert_eq!(machine.last_entry(), before);
    }
}
