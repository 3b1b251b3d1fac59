//! What the channels to peers want of the loop.

use super::{Message, Shell};
use crate::runtime::peers::Wanted;

impl Shell {
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
                    if let Err(error) = self.dials.start(address, report) {
                        let place = self.sockets.next_place();
                        let result = Err(format!("no thread to connect: {error}"));
                        self.peers.handle_dialed((to, attempt), result, place, &self.registry, now);
                    }
                }
                Wanted::Lost { to } => log::trace!("entries for node {to} are lost"),
            }
        }
        done
    }
}
