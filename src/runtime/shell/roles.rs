//! Role management and handing over, as far as they concern the loop.

use crossbeam_channel::Sender;

use super::{Message, Shell};
use crate::base::Time;
use crate::codec::membership::Server;
use crate::node::effect::HandoverStep;
use crate::runtime::inquiry::ANSWER_PATIENCE;
use crate::runtime::threads;

impl Shell {
    /// Has the servers asked on another thread. Where there is none the round is given up after a while.
    pub(super) fn describe(&self, round: u64, servers: Vec<Server>) {
        let (inquiry, desk) = (self.inquiry.clone(), self.desk.clone());
        let started = threads::start("dqlite-roles", move || {
            let answers = inquiry.ask(&servers, ANSWER_PATIENCE);
            desk.deliver(Message::Described { round, answers });
        });
        if let Err(error) = started {
            log::warn!("no thread to ask other nodes: {error}");
        }
    }

    /// Somebody hands the node's duties over and wants to know how it goes.
    pub(super) fn begin_handover(&mut self, tell: Sender<HandoverStep>, now: Time) {
        self.leaving.push(tell);
        self.core.handle_handover(now);
    }

    pub(super) fn tell_handover(&mut self, step: &HandoverStep) {
        for tell in &self.leaving {
            // Whoever asked may have given up.
            let _ = tell.try_send(step.clone());
        }
        match step {
            HandoverStep::Begun(_) => {}
            HandoverStep::Settled { .. } | HandoverStep::Impossible => self.leaving.clear(),
        }
    }
}
