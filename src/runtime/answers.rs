//! Answers to many clients at once, sent without the loop's state: a step leaves them with the sockets, and who
//! made it sends them when it has given the state back.

use std::sync::Arc;

use super::net::Outlet;

/// Sockets with answers to send.
pub type Batch = Vec<Arc<Outlet>>;

/// Sends what waits in the sockets. What they do not take the loop sends, when the poll says so.
pub fn send(batch: Batch) {
    for outlet in batch {
        outlet.send_waiting();
    }
}
