//! Reads on a node that does not lead, for clients whose OPEN asked for that.
//!
//! They see what is applied here: a state that was committed once, never an older one than the same connection saw
//! before. They are refused, as everything is refused here to other clients, when nothing proves that this state is
//! young enough; what writes is refused always, by the page store where not before. A connection that was opened
//! while this node led is closed like any other when it does not any more; one that was opened here stays when it
//! begins to lead, and is served like all others from then on.

use super::clients::Wait;
use super::core::Core;
use crate::base::{Role, Time, limits};
use crate::codec::client::{Failure, failure};
use crate::engine::ConnId;
use crate::engine::jobs::{Outcome, Progress};
use crate::session::{Reply, Sql};

fn not_leader(text: &str) -> Failure {
    Failure::new(failure::NOT_LEADER.code, format!("not leader, and {text}"))
}

impl Core {
    /// Whether this node may answer reads without leading.
    fn check_reads_here(&self, now: Time) -> Result<(), Failure> {
        let role = self.consensus.configuration().get(self.config.id).map(|server| server.role);
        if self.unavailable().is_some() {
            return Err(not_leader("this node takes no part any more: its log says why"));
        }
        if matches!(role, None | Some(Role::Spare)) {
            return Err(not_leader("this node is a spare, or no member: it is sent no data"));
        }
        if self.intake.is_some() {
            return Err(not_leader("a snapshot is being installed here"));
        }
        let limit = self.config.election_timeout * limits::READ_AGE_MAX_ELECTION_TIMEOUTS;
        match self.consensus.fresh_at().map(|at| now.since(at)) {
            Some(age) if age <= limit => Ok(()),
            Some(age) => Err(not_leader(&format!(
                "data here may be {} ms old: at most {} ms are allowed",
                age.as_millis(),
                limit.as_millis()
            ))),
            None => Err(not_leader("this node has not caught up with a leader since it started")),
        }
    }

    /// Whether this client is served although this node does not lead.
    fn reads_here(&self, conn: ConnId) -> bool {
        !self.is_leading() && self.clients.get(&conn).is_some_and(|client| client.anywhere)
    }

    /// Opens a database that this node has, for reading: it makes none, as long as no leader has.
    pub(super) fn open_here(&mut self, conn: ConnId, name: Vec<u8>, now: Time) {
        let unknown = || not_leader("this node has no database of this name");
        let known = self.databases.find(&name).map(drop).ok_or_else(unknown);
        let asked = if self.reads_here(conn) { Ok(()) } else { Err(failure::NOT_LEADER) };
        match asked.and_then(|()| self.check_reads_here(now)).and(known) {
            Ok(()) => self.open(conn, name),
            Err(failure) => self.fail(conn, &failure, now),
        }
    }

    /// Runs a statement, if it may be a read.
    pub(super) fn run_sql_here(&mut self, conn: ConnId, sql: Sql, now: Time) {
        let asked = if self.reads_here(conn) { Ok(()) } else { Err(failure::NOT_LEADER) };
        match asked.and_then(|()| self.check_reads_here(now)) {
            Ok(()) => self.run_sql(conn, sql, now),
            Err(failure) => self.fail(conn, &failure, now),
        }
    }

    /// A statement came to something. If it was one of those above it is looked again whether this node may answer,
    /// by the time of the answer: this process may have stood still. Returns whether it has been refused.
    pub(super) fn refuse_if_old(&mut self, conn: ConnId, progress: &mut Progress, now: Time) -> bool {
        let answered = self.clients.get(&conn).is_some_and(|client| !matches!(client.wait, Wait::Internal));
        if !answered || !self.reads_here(conn) {
            return false;
        }
        let Err(failure) = self.check_reads_here(now) else { return false };
        match progress {
            Progress::Done(Outcome { reply: Some(reply), .. }) => *reply = Reply::Failure(failure),
            Progress::Done(Outcome { reply: None, .. }) | Progress::NeedsSlot => {}
            Progress::Batch { .. } => {
                self.fail_and_roll_back(conn, failure);
                return true;
            }
        }
        false
    }
}
