//! Handing over the duties of a node before it stops: leadership first, which the loop does, then the vote, which
//! the new leader is asked to give to another server. All of it may block.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::client::{AskError, Budget, Client, Member};
use super::inquiry::{ANSWER_PATIENCE, Inquiry};
use super::shell::{Desk, Message};
use crate::base::{NodeId, Role};
use crate::codec::membership::{Configuration, Server};
use crate::node::effect::HandoverStep;
use crate::roles::{self, Metadata};

/// How long the loop may take to answer what it can answer at once.
const LOOP_PATIENCE: Duration = Duration::from_secs(10);

/// How soon something is tried again that fails for a moment after each change of leader.
const RETRY: Duration = Duration::from_millis(20);

/// Failures that pass: another change is under way, there is no leader for a moment.
const PASSING: [u64; 3] = [5, 10250, 10506];

/// The node that hands over.
pub struct Leaving {
    /// Its loop.
    pub desk: Desk,
    /// How it reaches others.
    pub inquiry: Inquiry,
    /// Its id.
    pub id: NodeId,
    /// The time that a new leader takes at most, if all is well.
    pub election_timeout: Duration,
}

impl Leaving {
    /// Hands over what there is to hand over. A vote that the new leader does not pass on stays where it is.
    ///
    /// # Errors
    /// In words, when nobody can take over leadership, or nobody the vote.
    pub fn hand_over(&self) -> Result<(), String> {
        let budget = self.inquiry.budget(self.election_timeout);
        // Asked while leadership moves.
        let mut answers = None;
        let (configuration, leader) = loop {
            let steps = self.begin();
            let configuration = match steps.recv_timeout(LOOP_PATIENCE) {
                Ok(HandoverStep::Begun(configuration)) => configuration,
                Ok(_) => return Err("another voter to take over expected, found none".to_owned()),
                Err(_) => return Err("the node does not answer".to_owned()),
            };
            answers.get_or_insert_with(|| self.ask(&configuration));
            match steps.recv_timeout(self.election_timeout.saturating_add(LOOP_PATIENCE)) {
                Ok(HandoverStep::Settled { leader: Some(leader) }) => break (configuration, leader),
                Ok(_) if budget.left().is_some_and(|left| left > RETRY) => std::thread::park_timeout(RETRY),
                Ok(_) => return Err("another leader expected, none is known".to_owned()),
                Err(_) => return Err("the node does not answer".to_owned()),
            }
        };
        let mut answers = answers.unwrap_or_default();
        let led = self.as_led(&leader).unwrap_or_else(|| configuration.clone());
        let mut unknown = led.clone();
        unknown.servers.retain(|server| configuration.get(server.id).is_none());
        answers.extend(self.ask(&unknown));
        let servers = view(&led, &answers);
        let successor = roles::successor(&servers, self.id);
        let successor = successor.ok_or("a server to take the vote expected, none answers")?;
        match pass_vote(&self.inquiry, leader, successor, self.id) {
            Ok(()) => log::info!("node {successor} votes in place of node {}", self.id),
            // As in C, this is no failure: leadership has moved, and the cluster can vote.
            Err(text) => log::warn!("the vote was not handed to node {successor}: {text}"),
        }
        Ok(())
    }

    fn begin(&self) -> Receiver<HandoverStep> {
        let (tell, steps) = bounded(2);
        self.desk.mailbox.post(Message::Handover(tell));
        steps
    }

    /// The others, as far as they answer soon: a server that is not there must not hold up the rest.
    fn ask(&self, configuration: &Configuration) -> BTreeMap<NodeId, Metadata> {
        let others = configuration.servers.iter().filter(|server| server.id != self.id);
        let others: Vec<Server> = others.cloned().collect();
        self.inquiry.ask(&others, self.patience())
    }

    fn patience(&self) -> Duration {
        self.election_timeout.clamp(Duration::from_secs(1), ANSWER_PATIENCE)
    }

    /// The servers as the leader knows them: who follows may not have heard of the last change.
    fn as_led(&self, leader: &str) -> Option<Configuration> {
        let budget = self.inquiry.budget(self.patience());
        let members = Client::connect(self.inquiry.connector(), leader, &budget)
            .and_then(|mut client| client.cluster(&budget).map_err(|error| error.to_string()));
        let members =
            members.map_err(|text| log::debug!("the leader does not tell the roles: {text}")).ok()?;
        Some(Configuration { servers: members.into_iter().filter_map(server).collect() })
    }
}

/// Has the leader make `successor` a voter, and `leaving` a spare.
fn pass_vote(
    inquiry: &Inquiry,
    mut leader: String,
    successor: NodeId,
    leaving: NodeId,
) -> Result<(), String> {
    let budget = inquiry.budget(ANSWER_PATIENCE);
    let mut client = None;
    for (id, role) in [(successor, Role::Voter), (leaving, Role::Spare)] {
        while let Err(error) = assign(inquiry, &mut client, &leader, (id, role), &budget) {
            let passes = matches!(&error, AskError::Refused { code, .. } if PASSING.contains(code));
            if !passes || budget.left().is_none_or(|left| left < RETRY) {
                return Err(error.to_string());
            }
            std::thread::park_timeout(RETRY);
            // It may have moved on.
            let told = client.as_mut().and_then(|client: &mut Client| client.leader(&budget).ok());
            if let Some((_, address)) = told.flatten()
                && address != leader
            {
                (leader, client) = (address, None);
            }
        }
    }
    Ok(())
}

fn assign(
    inquiry: &Inquiry,
    client: &mut Option<Client>,
    leader: &str,
    (id, role): (NodeId, Role),
    budget: &Budget,
) -> Result<(), AskError> {
    let client = match client {
        Some(client) => client,
        None => {
            client.insert(Client::connect(inquiry.connector(), leader, budget).map_err(AskError::Broken)?)
        }
    };
    client.assign(id, role, budget)
}

fn server(Member { id, address, role }: Member) -> Option<Server> {
    Some(Server { id, address: String::from_utf8(address).ok()?, role })
}

fn view(configuration: &Configuration, answers: &BTreeMap<NodeId, Metadata>) -> Vec<roles::Server> {
    let servers = configuration.servers.iter();
    let online = |id| answers.get(&id).copied();
    servers
        .map(|server| roles::Server { id: server.id, role: server.role, online: online(server.id) })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::codec::client::Response;
    use crate::runtime::client::tests::recording;
    use crate::runtime::connect::Connector;

    const BUSY: Response<'static> =
        Response::Failure { code: 5, text: b"a configuration change is already in progress" };
    const NOT_LEADER: Response<'static> = Response::Failure { code: 10250, text: b"not leader" };

    fn server(address: &'static [u8]) -> Response<'static> {
        Response::Server { id: NodeId(9), address }
    }

    /// Hands the vote on through the leader "a", which answers this way, and "b", which answers that way; what comes
    /// of it, and what both were asked.
    fn pass(a: Vec<Response<'static>>, b: Vec<Response<'static>>) -> (Result<(), String>, [Vec<u8>; 2]) {
        let peers = [recording(a), recording(b)];
        let asked = peers.each_ref().map(|(_, asked)| Arc::clone(asked));
        let peers = Mutex::new(peers.map(|(connector, _)| connector));
        let connector = Connector::new(move |address| {
            let peers = peers.lock().unwrap();
            let at = usize::from(address == "b");
            peers[at].connect(address).map_err(|_| 16)
        });
        let inquiry = Inquiry::new(connector);
        let result = pass_vote(&inquiry, "a".to_owned(), NodeId(2), NodeId(1));
        (result, asked.map(|asked| asked.lock().unwrap().clone()))
    }

    #[test]
    fn the_successor_votes_before_the_leaving_node_does_not() {
        let (result, [asked, _]) = pass(vec![Response::Empty, Response::Empty], vec![]);
        assert_eq!((result, asked), (Ok(()), vec![13, 13]));
    }

    #[test]
    fn another_change_is_waited_for() {
        let (result, [asked, _]) =
            pass(vec![BUSY, server(b"a"), Response::Empty, BUSY, server(b"a"), Response::Empty], vec![]);
        assert_eq!((result, asked), (Ok(()), vec![13, 0, 13, 13, 0, 13]));
    }

    #[test]
    fn a_leader_that_has_moved_on_is_followed() {
        let (result, asked) = pass(vec![NOT_LEADER, server(b"b")], vec![Response::Empty, Response::Empty]);
        assert_eq!((result, asked), (Ok(()), [vec![13, 0], vec![13, 13]]));
    }

    #[test]
    fn a_successor_that_does_not_become_a_voter_costs_the_leaving_node_nothing() {
        let refusal = Response::Failure { code: 1, text: b"no connection to remote server available" };
        let (result, [asked, _]) = pass(vec![refusal], vec![]);
        let text = "failure 1 'no connection to remote server available'".to_owned();
        assert_eq!((result, asked), (Err(text), vec![13]));
    }
}
