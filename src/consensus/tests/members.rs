//! Changes of members on a leader whose peers never answer, and texts of refusals.

use std::time::Duration;

use super::cluster::Cluster;
use super::harness::*;
use crate::base::{EntryKind, Index, NodeId, Role, Term};
use crate::codec::peer::{Message, RequestVote};
use crate::consensus::membership::Refusal;
use crate::consensus::{Change, Effect, Refused, Started};

fn leader() -> Node {
    let mut node = Node::bootstrap();
    node.persist_all();
    node.take_news();
    node
}

fn add(id: u64) -> Change {
    Change::Add { id: NodeId(id), address: format!("node-{id}") }
}

fn assign(id: u64, role: Role) -> Change {
    Change::Assign { id: NodeId(id), role }
}

fn remove(id: u64) -> Change {
    Change::Remove { id: NodeId(id) }
}

impl Node {
    /// Requests a change and lets it be committed.
    fn change(&mut self, change: &Change) -> Result<Started, Refusal> {
        let started = self.consensus.request_change(change)?;
        self.poll();
        self.persist_all();
        Ok(started)
    }
}

#[test]
fn requests_that_make_no_sense_get_the_texts_of_the_c_library() {
    let mut node = leader();
    let occupied = Change::Add { id: NodeId(2), address: "node-1".to_owned() };
    for (change, code, text) in [
        (add(1), 1, "server ID already in use"),
        (occupied, 1, "server address already in use"),
        (add(0), 1, "server ID is not valid"),
        (assign(77, Role::Voter), 1, "Resource not found"),
        (remove(77), 1, "server ID is not valid"),
        (assign(1, Role::Voter), 1, "server role is not valid"),
        (assign(1, Role::StandBy), 1, "server role is not valid"),
        (remove(1), 1, "server ID is not valid"),
    ] {
        let refusal = node.consensus.request_change(&change).unwrap_err();
        assert_eq!((refusal.code(), refusal.text()), (code, text), "{change:?}");
    }
    node.change(&add(2)).unwrap();
    for (wanted, text) in [
        (1, "server ID is not valid"),
        (2, "server ID is not valid"),
        (9, "server ID is not valid"),
        (0, "Resource not found"),
    ] {
        assert_eq!(node.consensus.transfer(NodeId(wanted)).unwrap_err().text(), text, "transfer to {wanted}");
    }
}

#[test]
fn a_spare_is_added_and_removed_and_never_written_to() {
    let mut node = leader();
    assert_eq!(node.change(&add(2)), Ok(Started::Entry(Index(2), Term(1))));
    assert_eq!(node.consensus.configuration(), &servers(&[(1, Role::Voter), (2, Role::Spare)]));
    assert_eq!(node.consensus.committed_configuration().index, Index(2));
    node.propose(3);
    node.persist_all();
    node.wait(ELECTION);
    assert_eq!(node.sent, []);
    assert_eq!(node.change(&remove(2)), Ok(Started::Entry(Index(4), Term(1))));
    assert_eq!(node.consensus.configuration(), &voters(&[1]));
    assert_eq!(node.stored.entries[3].kind, EntryKind::Change);
    assert_eq!(node.stored.entries[3].payload.contiguous(), voters(&[1]).encode());
}

#[test]
fn a_change_is_in_force_at_once_and_refuses_the_next_until_it_is_committed() {
    let mut node = leader();
    node.consensus.request_change(&add(2)).unwrap();
    node.poll();
    assert_eq!(node.consensus.configuration().servers.len(), 2);
    assert_eq!(node.consensus.committed_configuration().configuration, voters(&[1]));
    let refusal = node.consensus.request_change(&add(3)).unwrap_err();
    assert_eq!((refusal.code(), refusal.text()), (5, "a configuration change is already in progress"));
    assert_eq!(node.consensus.request_change(&remove(2)), Err(Refusal::InProgress));
    node.persist_all();
    assert!(node.change(&add(3)).is_ok());
}

#[test]
fn a_change_waits_for_an_entry_of_the_leaders_own_term() {
    let mut node = leader().crash(config(1));
    assert_eq!(node.consensus.request_change(&add(2)), Err(Refusal::InProgress));
    node.persist_all();
    assert!(node.change(&add(2)).is_ok());
}

#[test]
fn the_promotion_of_a_silent_server_blocks_others_and_is_given_up_after_50_s() {
    let mut node = leader();
    node.change(&add(2)).unwrap();
    assert_eq!(node.change(&assign(2, Role::Voter)), Ok(Started::Promotion));
    node.wait(Duration::from_secs(6));
    assert_eq!(node.news, []);
    assert!(!node.sent.is_empty(), "it is written to while it is promoted");
    assert_eq!(node.consensus.request_change(&add(3)), Err(Refusal::InProgress));
    assert_eq!(node.consensus.request_change(&remove(2)), Err(Refusal::InProgress));
    assert_eq!(node.consensus.configuration().get(NodeId(2)).unwrap().role, Role::Spare);
    node.propose(3);
    node.persist_all();
    assert_eq!(node.consensus.commit_index(), Index(3), "it does not count yet");

    node.wait(Duration::from_millis(43_900));
    assert_eq!(node.news, []);
    node.wait(Duration::from_secs(1));
    let ended = Effect::PromotionEnded { id: NodeId(2), outcome: Err(Refusal::NoConnection) };
    assert_eq!(node.take_news(), [ended]);
    assert_eq!(Refusal::NoConnection.text(), "no connection to remote server available");
    node.sent.clear();
    node.wait(ELECTION);
    assert_eq!(node.sent, [], "a spare again");
    assert!(node.change(&remove(2)).is_ok());
}

#[test]
fn a_stand_by_is_written_to_and_does_not_count() {
    let mut node = leader();
    node.change(&add(2)).unwrap();
    assert_eq!(node.change(&assign(2, Role::StandBy)), Ok(Started::Entry(Index(3), Term(1))));
    node.propose(4);
    node.persist_all();
    assert_eq!(node.consensus.commit_index(), Index(4));
    assert!(node.sent.iter().all(|(to, _)| *to == NodeId(2)) && !node.sent.is_empty());
    assert!(node.consensus.poll_timeout().is_some());
    assert_eq!(node.change(&assign(2, Role::Spare)), Ok(Started::Entry(Index(5), Term(1))));
    node.sent.clear();
    node.wait(ELECTION);
    assert_eq!(node.sent, []);
}

#[test]
fn a_lone_voter_writes_to_its_stand_by_only_after_its_vote_is_durable() {
    let mut stored = Stored::fresh(&servers(&[(1, Role::Voter), (2, Role::StandBy)]));
    stored.vote = NodeId(1);
    let mut node = Node::start(config(1), stored);
    assert!(node.consensus.is_leader());
    node.propose(3);
    assert_eq!(node.sent, [], "else a crash would let it use term 2 for other entries");
    node.persist_all();
    assert!(!node.sent.is_empty());
    assert_eq!(node.applied_numbers(), [3]);
}

#[test]
fn changes_are_refused_where_nobody_leads() {
    let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2, 3])));
    assert_eq!(node.consensus.request_change(&add(4)), Err(Refusal::NotLeader));
    assert_eq!(node.consensus.transfer(NodeId(2)), Err(Refusal::NotLeader));
    assert_eq!((Refusal::NotLeader.code(), Refusal::NotLeader.text()), (10250, "server is not the leader"));
}

#[test]
fn after_a_restart_the_newest_configuration_is_in_force_and_the_one_before_it_committed() {
    let mut stored = Stored::fresh(&voters(&[1]));
    stored.entries.push(change(2, 1, &voters(&[1, 2])));
    stored.entries.push(change(3, 1, &voters(&[1, 2, 3])));
    let node = Node::start(config(1), stored);
    assert_eq!(node.consensus.configuration(), &voters(&[1, 2, 3]));
    assert_eq!(node.consensus.committed_configuration().configuration, voters(&[1, 2]));
    assert!(!node.consensus.is_leader());
}

#[test]
fn one_of_three_voters_follows_until_its_time_is_up_and_then_only_asks() {
    let mut stored = Stored::fresh(&voters(&[1, 2, 3]));
    stored.term = Term(4);
    let mut node = Node::start(config(2), stored);
    assert_eq!(node.consensus.propose(EntryKind::Command, bytes(1)), Err(Refused::NotLeader));
    node.wait(ELECTION - Duration::from_millis(100));
    assert_eq!(node.sent, []);
    node.wait(ELECTION + Duration::from_millis(100));
    let asks = RequestVote {
        term: Term(5),
        candidate: NodeId(2),
        last_index: Index(1),
        last_term: Term(1),
        disrupt_leader: false,
        pre_vote: true,
    };
    let asks = Message::RequestVote(asks);
    assert_eq!(node.sent[..2], [(NodeId(1), asks.clone()), (NodeId(3), asks)]);
    assert_eq!((node.consensus.term(), node.queue.len()), (Term(4), 0));
    assert_eq!(node.consensus.leader(), None);
}

#[test]
fn a_long_pause_of_the_loop_starts_no_election() {
    let mut node = Node::start(config(2), Stored::fresh(&voters(&[1, 2, 3])));
    node.consensus.handle_time(node.now.after(Duration::from_secs(60)));
    node.poll();
    assert_eq!(node.sent, []);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let config = crate::consensus::Config { seed, ..config(2) };
        let mut node = Node::start(config, Stored::fresh(&voters(&[1, 2, 3])));
        let mut times = Vec::new();
        for _ in 0..300 {
            node.wait(Duration::from_millis(100));
            times.push(node.sent.len());
        }
        times
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_member_whose_directory_was_emptied_is_sent_everything_again() {
    let mut cluster = Cluster::new(&voters(&[1, 2, 3]), 3);
    let leader = cluster.elect();
    for number in 10..20 {
        cluster.node(leader).propose(number);
    }
    cluster.wait(HEARTBEAT);
    let emptied = 1 + leader % 3;
    *cluster.node(emptied) = Node::start(config(emptied), Stored::default());
    cluster.wait(5 * HEARTBEAT);
    assert_eq!(cluster.leader(), Some(leader));
    cluster.node(leader).propose(20);
    cluster.wait(5 * HEARTBEAT);
    assert_eq!(cluster.node(emptied).applied_numbers(), (10..=20).collect::<Vec<_>>());
    let confirmed = cluster.node(leader).progress(emptied).matched;
    assert_eq!(confirmed, cluster.node(leader).stored.entries.last().unwrap().index.0);
}
