//! What the operator is told in the log file about leadership: once when it changes, and while there is no
//! leader every half minute, with what is known of every voter. Clients get the same short answer either way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::base::{NodeId, Role, Term, Time};
use crate::codec::membership::Configuration;

/// How often the want of a leader is told.
const AGAIN: Duration = Duration::from_secs(30);

/// Peers that are remembered; ids come from whoever connects.
const PEERS_MAX: usize = 1024;

/// What is known of another server's connection.
#[derive(Debug, Default)]
struct Contact {
    heard: Option<Time>,
    error: Option<(Time, String)>,
}

/// How things stand at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) id: NodeId,
    pub(super) term: Term,
    pub(super) leader: Option<NodeId>,
    pub(super) configuration: &'a Configuration,
}

/// What was told, and what is to be told when.
#[derive(Debug, Default)]
pub(super) struct Situation {
    contacts: BTreeMap<NodeId, Contact>,
    /// The leader that was told last.
    told: Option<(Term, NodeId)>,
    /// Since when there is none.
    missing_since: Option<Time>,
    next: Option<Time>,
}

impl Situation {
    /// A message of this server came.
    pub(super) fn handle_heard(&mut self, id: NodeId, now: Time) {
        *self.contact(id) = Contact { heard: Some(now), error: None };
    }

    /// This server could not be reached, or its connection broke.
    pub(super) fn handle_unreachable(&mut self, id: NodeId, text: &str, now: Time) {
        self.contact(id).error = Some((now, text.to_owned()));
    }

    fn contact(&mut self, id: NodeId) -> &mut Contact {
        if self.contacts.len() >= PEERS_MAX && !self.contacts.contains_key(&id) {
            // Members are heard from again soon; whoever claims many ids must not take their place for good.
            self.contacts.clear();
        }
        self.contacts.entry(id).or_default()
    }

    /// When [`Self::look`] has something to tell though nothing happens.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.next
    }

    /// What is to be told now, if anything: good news, or a warning. `patience` is how long a leader may be
    /// missing before it is told, the time of a usual election.
    pub(super) fn look(
        &mut self,
        view: View<'_>,
        patience: Duration,
        now: Time,
    ) -> Option<Result<String, String>> {
        if let Some(leader) = view.leader {
            (self.missing_since, self.next) = (None, None);
            if self.told == Some((view.term, leader)) {
                return None;
            }
            self.told = Some((view.term, leader));
            return Some(Ok(leader_line(view, leader)));
        }
        let takes_part = view.configuration.get(view.id).is_some_and(|own| own.role != Role::Spare);
        if !takes_part {
            // It is told nothing by the others, and waits to be added or promoted.
            (self.missing_since, self.next) = (None, None);
            return None;
        }
        let since = *self.missing_since.get_or_insert(now);
        let next = *self.next.get_or_insert(since.after(patience));
        if now < next {
            return None;
        }
        self.next = Some(now.after(AGAIN));
        self.told = None;
        Some(Err(self.missing_line(view, now.since(since), now)))
    }

    fn missing_line(&self, view: View<'_>, missing: Duration, now: Time) -> String {
        let voters = view.configuration.voters().count();
        let mut line = format!(
            "no leader is known for {} s, term {}: {} of {voters} voters have to reach each other",
            missing.as_secs(),
            view.term,
            voters / 2 + 1,
        );
        for voter in view.configuration.voters() {
            // Writing to a string does not fail.
            let _ = write!(line, "; node {} at {}: ", voter.id, voter.address);
            let Some(contact) = self.contacts.get(&voter.id).filter(|_| voter.id != view.id) else {
                line.push_str(if voter.id == view.id { "this one" } else { "never heard from" });
                continue;
            };
            let _ = match contact.heard {
                Some(heard) => write!(line, "heard from {} s ago", now.since(heard).as_secs()),
                None => write!(line, "never heard from"),
            };
            if let Some((at, text)) = &contact.error {
                let _ = write!(line, ", {} s ago: {text}", now.since(*at).as_secs());
            }
        }
        line
    }
}

fn leader_line(view: View<'_>, leader: NodeId) -> String {
    let known = view.configuration.get(leader).map_or("an address not known here", |server| &server.address);
    let role = match view.configuration.get(view.id).map(|own| own.role) {
        Some(Role::Voter) => "a voter",
        Some(Role::StandBy) => "a stand-by",
        Some(Role::Spare) => "a spare",
        None => "not a member as far as it knows",
    };
    let voters = view.configuration.voters().count();
    format!("term {}: node {leader} at {known} leads {voters} voters, this one is {role}", view.term)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::membership::Server;

    const PATIENCE: Duration = Duration::from_secs(6);

    fn configuration(roles: &[Role]) -> Configuration {
        let server = |(at, role): (usize, &Role)| {
            let id = at as u64 + 1;
            Server { id: NodeId(id), address: format!("host{id}:9000"), role: *role }
        };
        Configuration { servers: roles.iter().enumerate().map(server).collect() }
    }

    fn at(seconds: u64) -> Time {
        Time::default().after(Duration::from_secs(seconds))
    }

    fn look(
        situation: &mut Situation,
        configuration: &Configuration,
        leader: u64,
        now: u64,
    ) -> Option<Result<String, String>> {
        let leader = (leader != 0).then_some(NodeId(leader));
        let view = View { id: NodeId(1), term: Term(4), leader, configuration };
        situation.look(view, PATIENCE, at(now))
    }

    #[test]
    fn a_leader_is_told_once_per_change() {
        let (mut situation, servers) = (Situation::default(), configuration(&[Role::Voter; 3]));
        let told = look(&mut situation, &servers, 2, 1).unwrap().unwrap();
        assert_eq!(told, "term 4: node 2 at host2:9000 leads 3 voters, this one is a voter");
        assert_eq!(look(&mut situation, &servers, 2, 100), None);
        assert!(look(&mut situation, &servers, 3, 101).unwrap().is_ok());
        assert_eq!(situation.poll_timeout(), None);
    }

    #[test]
    fn a_missing_leader_is_told_after_a_while_and_every_half_minute_with_what_is_known_of_each_voter() {
        let (mut situation, servers) = (Situation::default(), configuration(&[Role::Voter; 3]));
        situation.handle_heard(NodeId(2), at(5));
        situation.handle_unreachable(NodeId(2), "connection refused", at(8));
        assert_eq!(look(&mut situation, &servers, 0, 10), None);
        assert_eq!(situation.poll_timeout(), Some(at(16)));
        assert_eq!(look(&mut situation, &servers, 0, 15), None);
        assert_eq!(
            look(&mut situation, &servers, 0, 16).unwrap().unwrap_err(),
            "no leader is known for 6 s, term 4: 2 of 3 voters have to reach each other; node 1 at host1:9000: this \
             one; node 2 at host2:9000: heard from 11 s ago, 8 s ago: connection refused; node 3 at host3:9000: never \
             heard from"
        );
        assert_eq!(look(&mut situation, &servers, 0, 45), None);
        assert_eq!(situation.poll_timeout(), Some(at(46)));
        situation.handle_heard(NodeId(2), at(46));
        let again = look(&mut situation, &servers, 0, 46).unwrap().unwrap_err();
        assert!(again.contains("node 2 at host2:9000: heard from 0 s ago; node 3"), "{again}");
        // The same leader as before is news after that.
        assert!(look(&mut situation, &servers, 2, 47).is_some());
        assert_eq!(situation.poll_timeout(), None);
    }

    #[test]
    fn a_short_election_is_not_told() {
        let (mut situation, servers) = (Situation::default(), configuration(&[Role::Voter; 3]));
        assert!(look(&mut situation, &servers, 2, 1).is_some());
        assert_eq!(look(&mut situation, &servers, 0, 2), None);
        assert!(look(&mut situation, &servers, 3, 5).is_some());
        assert_eq!(look(&mut situation, &servers, 0, 6), None);
        assert_eq!(situation.poll_timeout(), Some(at(12)));
    }

    #[test]
    fn who_is_told_nothing_by_others_does_not_miss_a_leader() {
        for servers in [configuration(&[]), configuration(&[Role::Spare, Role::Voter])] {
            let mut situation = Situation::default();
            assert_eq!(look(&mut situation, &servers, 0, 1), None);
            assert_eq!(situation.poll_timeout(), None);
            assert_eq!(look(&mut situation, &servers, 0, 1000), None);
        }
    }

    #[test]
    fn what_is_remembered_of_peers_is_bounded() {
        let mut situation = Situation::default();
        for id in 0..10 * PEERS_MAX as u64 {
            situation.handle_heard(NodeId(id), at(1));
            situation.handle_unreachable(NodeId(id), "no", at(1));
        }
        assert!(situation.contacts.len() <= PEERS_MAX);
        situation.handle_heard(NodeId(3), at(2));
        assert!(situation.contacts.contains_key(&NodeId(3)), "a member is remembered all the same");
    }
}
