//! Linearizable answers: whoever read here is answered only after this node is known to have led at some moment
//! after the request had come.
//!
//! What was committed through this node proves itself. For everything else consensus is asked, when the statement
//! starts if it looks like a read, else when it has turned out to have written nothing; the statement runs
//! meanwhile and only its answer waits. Statements of a transaction that holds the writer slot need no proof, since
//! its COMMIT has one; nor do PREPARE, BEGIN and COMMIT, which tell nothing of the rows.

use super::clients::Wait;
use super::core::Core;
use crate::base::Time;
use crate::codec::client::failure;
use crate::consensus::ReadTicket;
use crate::engine::jobs::Outcome;
use crate::engine::{ConnId, Slot};
use crate::pages::WriterId;

/// What an answer needs besides its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing, or nothing more.
    #[default]
    None,
    /// It looked like a write: not known before it has run.
    Perhaps,
    /// This.
    Awaited(ReadTicket),
    /// This, and it waits for nothing else.
    Missing(ReadTicket),
}

impl Core {
    /// Requests are about to come in a row, until `false`: reads among them are proved together. What waited goes on
    /// with the next call that follows.
    pub fn gather_reads(&mut self, gathers: bool) {
        self.consensus.gather_reads(gathers);
    }

    /// A statement of the client starts. `bounds`: it only begins or ends a transaction, and gives no rows.
    pub(super) fn begin_proof(&mut self, conn: ConnId, slot: Slot, writes: bool, bounds: bool, now: Time) {
        let holder = self.databases.get(slot).and_then(|state| state.database.slot_holder());
        let needless = bounds || holder == Some(WriterId(conn.0));
        let proof = match (needless, writes) {
            (true, _) => Proof::None,
            (false, true) => Proof::Perhaps,
            (false, false) => self.ask_for_proof(now),
        };
        if let Some(client) = self.clients.get_mut(&conn) {
            client.proof = proof;
        }
    }

    fn ask_for_proof(&mut self, now: Time) -> Proof {
        // Refused where the leadership is over: its end, which follows, is the client's answer.
        let ticket = self.consensus.request_read(now).ok().flatten();
        ticket.map_or(Proof::None, Proof::Awaited)
    }

    /// A statement is done. If it wrote something, that is the proof.
    pub(super) fn complete_proof(&mut self, conn: ConnId, outcome: &Outcome, now: Time) {
        let wrote = outcome.published.is_some() || outcome.holds_slot;
        self.settle_doubt(conn, wrote, now);
    }

    /// Rows of a statement are to be sent that may still write, or be done.
    pub(super) fn settle_doubt(&mut self, conn: ConnId, wrote: bool, now: Time) {
        if self.clients.get(&conn).is_some_and(|client| client.proof == Proof::Perhaps) {
            let proof = if wrote { Proof::None } else { self.ask_for_proof(now) };
            if let Some(client) = self.clients.get_mut(&conn) {
                client.proof = proof;
            }
        }
    }

    /// Whether the client's answer, whose version is committed, has to wait on.
    pub(super) fn lacks_proof(&mut self, conn: ConnId) -> bool {
        let Some(client) = self.clients.get_mut(&conn) else { return false };
        match client.proof {
            Proof::Awaited(ticket) if matches!(client.wait, Wait::Held(_)) => {
                client.proof = Proof::Missing(ticket);
                true
            }
            Proof::Missing(_) => true,
            Proof::None | Proof::Perhaps | Proof::Awaited(_) => false,
        }
    }

    /// All reads up to this one are proved.
    pub(super) fn release_proved(&mut self, up_to: ReadTicket, now: Time) {
        let conns: Vec<ConnId> = self.clients.keys().copied().collect();
        for conn in conns {
            let Some(client) = self.clients.get_mut(&conn) else { continue };
            match client.proof {
                Proof::Awaited(ticket) if ticket <= up_to => client.proof = Proof::None,
                Proof::Missing(ticket) if ticket <= up_to => {
                    client.proof = Proof::None;
                    self.send_held(conn, now);
                }
                _ => {}
            }
        }
    }

    /// What a client is told whose answer was held when leadership was lost.
    pub(super) fn lost_while_held(proof: Proof) -> crate::codec::client::Failure {
        match proof {
            // It has read only.
            Proof::Missing(_) => failure::NOT_LEADER,
            Proof::None | Proof::Perhaps | Proof::Awaited(_) => failure::LEADERSHIP_LOST,
        }
    }
}
