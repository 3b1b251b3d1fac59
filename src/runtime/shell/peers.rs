//! What consensus wants of the channels to peers, and they of the loop.

use super::{Message, Shell};
use crate::base::{NodeId, Time};
use crate::codec::peer;
use crate::runtime::peers::Wanted;
use crate::runtime::peers::channel::Outgoing;

impl Shell {
    /// Queues a message; it leaves when all effects are done.
    pub(super) fn send_peer(&mut self, to: NodeId, address: &str, message: &peer::Message, now: Time) {
        match Outgoing::encode(message) {
            Ok(outgoing) => self.peers.send(to, address, outgoing),
            Err(error) => {
                log::error!("a message to node {to} cannot be sent: {error}");
                self.core.handle_send_failed(to, now);
            }
        }
    }

    /// Writes to peers what they take, dials who is to be dialed. Whether anything was to be done but writing.
    pub(super) fn serve_peers(&mut self) -> bool {
        let now = self.clock.now();
        let mut done = false;
        while let Some(wanted) = self.peers.poll(&self.registry, now) {
            done = true;
            match wanted {
                Wanted::Dial { to, attempt, address } => {
                    let desk = self.desk.clone();
                    let report = move |result| desk.deliver(Message::Dialed { to, attempt, result });
                    let member = self.core.is_member(to);
                    if let Err(error) = self.dials.start(address, member, report) {
                        let place = self.sockets.next_place();
                        let result = Err(format!("no thread to connect: {error}"));
                        self.peers.handle_dialed((to, attempt), result, place, &self.registry, now);
                    }
                }
                Wanted::Lost { to } => self.core.handle_send_failed(to, now),
            }
        }
        done
    }
}
