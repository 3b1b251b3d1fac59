//! Whether servers are who they say: this one when it starts, and others that connect.
//!
//! No file names its server and no message its cluster: there are ids and addresses, and members may know a server by another
//! address than it gives. So what looks wrong is told and let be, as the C library does, but for one thing that cannot
//! be right: an id that two servers use at the same time. A node of another cluster, or one that was started with the id of
//! another, would answer for entries that the real member does not have, and they would count.

use std::time::Duration;

use super::core::Core;
use super::peers::Inbound;
use crate::base::{NodeId, Time};
use crate::codec::membership::Configuration;

/// So many servers are kept in mind that said to be another one.
const IMPOSTORS_MAX: usize = 16;

/// A server that is turned away comes again with its next message.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// What to tell the operator of a server that is started as `id` at `address`, where its directory has these members.
pub(super) fn tell_own(id: NodeId, address: &str, members: &Configuration) -> Option<String> {
    let own = members.get(id);
    if own.is_some_and(|own| own.address == address) {
        return None;
    }
    let other = members.servers.iter().find(|other| other.address == address);
    let known = own.map_or_else(|| "no member".to_owned(), |own| format!("at {}", own.address));
    match (own, other) {
        (_, Some(other)) => Some(format!(
            "started as node {id} at {address}, where the members in this directory have node {}, and node {id} is {known}: if the \
             directory is that of node {0}, stop this server at once and start it as node {0}; if it takes its place, remove \
             node {0} and add node {id}",
            other.id
        )),
        (Some(_), None) => Some(format!(
            "started as node {id} at {address}, but the members in this directory have it {known}: unless that leads here too, remove \
             node {id} and add it with its new address"
        )),
        (None, None) => None,
    }
}

impl Core {
    /// Checks that a connection on which a server says to be `id` at `address` is not another server's: the member
    /// with this id, at the address that all members know, goes on sending on a connection of its own.
    ///
    /// A server that has moved is let in: what it had at its old address is closed, or silent before long. Who was there
    /// together with the member stays out, also when that falls silent, until the members know it by its address.
    ///
    /// # Errors
    /// It is; the text is for the operator.
    pub(super) fn check_claim(&mut self, id: NodeId, address: &str, now: Time) -> Result<(), String> {
        let configuration = self.consensus.configuration();
        let Some(member) = configuration.get(id).filter(|member| member.address != address) else {
            return Ok(());
        };
        let claim = (id, address.to_owned());
        if !self.impostors.contains(&claim) {
            let recent = 2 * self.config.election_timeout;
            let is_heard =
                |other: &Inbound| other.is_of(id, &member.address) && now.since(other.heard()) < recent;
            if !self.inbound.values().any(is_heard) {
                return Ok(());
            }
            if self.impostors.len() < IMPOSTORS_MAX {
                self.impostors.insert(claim);
            }
        }
        Err(format!(
            "two servers say to be node {id}: the one at {}, as the members know it, is heard; the one at {address} is not. It may \
             have the wrong id for its directory, or be of another cluster that has a node {id} too",
            member.address
        ))
    }

    /// Tells the operator of a server that was turned away: at once, and then now and again as long as it comes back.
    pub(super) fn tell_turned_away(&mut self, text: &str, now: Time) {
        if self.turned_away.as_ref().is_some_and(|(told, at)| told == text && now.since(*at) < TOLD_AGAIN) {
            return;
        }
        self.turned_away = Some((text.to_owned(), now));
        log::warn!("connection of a server closed: {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Role;
    use crate::codec::membership::Server;

    #[test]
    fn a_server_is_told_when_the_members_in_its_directory_know_it_otherwise() {
        let server = |id| Server { id: NodeId(id), address: format!("host{id}"), role: Role::Voter };
        let members = Configuration { servers: (1..=3).map(server).collect() };
        let told = |id, address| tell_own(NodeId(id), address, &members);
        assert_eq!(told(2, "host2"), None);
        assert_eq!(told(4, "host4"), None, "it has been removed, or waits to be added");
        assert_eq!(tell_own(NodeId(2), "host2", &Configuration::default()), None);
        let text = told(3, "host2").unwrap();
        assert!(text.contains("have node 2, and node 3 is at host3"), "{text}");
        assert!(told(4, "host2").unwrap().contains("have node 2, and node 4 is no member"));
        assert!(told(2, "host9").unwrap().contains("have it at host2"));
    }
}
