//! Who may write to one database, and in which order.
//!
//! Sans-io: time comes in as `now`, decisions go out through [`WriteQueue::poll_effect`].
//! Invariants: at most one holder; waiters are served first come, first served; a waiter is turned away only
//! while an explicit transaction holds the slot. The queue does not run anything and does not know SQLite: the
//! page store's slot is the last word, this queue only decides who may try for it next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::base::Time;

/// One connection, as the scheduler knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// How long writers wait behind an explicit transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// What a waiter gives its predecessors; zero turns it away at once.
    pub wait: Duration,
    /// How long a transaction may idle on the slot while others wait; `None` is for ever.
    pub idle: Option<Duration>,
}

/// What must happen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotEffect {
    /// The connection may run its write: nobody else tries until it is done.
    Grant(ConnId),
    /// The connection waited long enough: its request is answered with code 5, `database is locked`.
    Busy(ConnId),
    /// The connection idled on the slot while others waited: its transaction is rolled back.
    RollBack(ConnId),
}

impl SlotEffect {
    /// What a connection that waits is told: it no longer counts once the connection does not wait.
    fn is_answer_to(self, waiter: ConnId) -> bool {
        matches!(self, Self::Grant(conn) | Self::Busy(conn) if conn == waiter)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// One statement runs; the slot is free when it is done, unless it leaves a transaction open.
    Running(ConnId),
    /// An explicit transaction holds the slot between and during its statements; `None` while it runs one.
    Transaction(ConnId, Option<Time>),
}

/// The queue of writers of one database.
#[derive(Debug)]
pub struct WriteQueue {
    patience: Patience,
    holder: Holder,
    paused: bool,
    /// Ascending by deadline, which is the order in which they came.
    waiting: VecDeque<(ConnId, Time)>,
    /// Those that were granted and are not done, with the deadlines that they had: who is refused all the same
    /// gets its old place back.
    granted: BTreeMap<ConnId, Time>,
    effects: VecDeque<SlotEffect>,
}

impl WriteQueue {
    /// An empty queue with a free slot.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            holder: Holder::Nobody,
            paused: false,
            waiting: VecDeque::new(),
            granted: BTreeMap::new(),
            effects: VecDeque::new(),
        }
    }

    /// Changes how long waiters that come from now on wait.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// `conn` has a statement that needs the slot. It gets a grant, now or later, or is turned away.
    pub fn handle_request(&mut self, conn: ConnId, now: Time) {
        match self.holder {
            Holder::Transaction(owner, _) if owner == conn => {
                self.holder = Holder::Transaction(conn, None);
                self.effects.push_back(SlotEffect::Grant(conn));
            }
            Holder::Transaction(..) if self.patience.wait.is_zero() => {
                self.effects.push_back(SlotEffect::Busy(conn));
            }
            Holder::Nobody | Holder::Running(_) | Holder::Transaction(..) => {
                self.waiting.push_back((conn, now.after(self.patience.wait)));
                self.grant_next();
            }
        }
    }

    /// `conn` starts a statement that needs no grant; if it owns the slot, it is not idle any more.
    pub fn handle_activity(&mut self, conn: ConnId) {
        if let Holder::Transaction(owner, idle_since) = &mut self.holder
            && *owner == conn
        {
            *idle_since = None;
        }
    }

    /// The statement of `conn` ended; `holds_slot` says whether its connection still has the slot.
    pub fn handle_done(&mut self, conn: ConnId, holds_slot: bool, now: Time) {
        self.granted.remove(&conn);
        match self.holder {
            Holder::Running(owner) | Holder::Transaction(owner, _) if owner == conn => {
                self.holder = if holds_slot { Holder::Transaction(conn, Some(now)) } else { Holder::Nobody };
            }
            // A statement that was not known to write took the free slot by itself.
            Holder::Nobody if holds_slot => self.holder = Holder::Transaction(conn, Some(now)),
            Holder::Nobody | Holder::Running(_) | Holder::Transaction(..) => {}
        }
        if holds_slot && self.patience.wait.is_zero() {
            // Whoever finds the slot taken by a transaction is turned away at once.
            self.effects.extend(self.waiting.drain(..).map(|(conn, _)| SlotEffect::Busy(conn)));
        }
        self.grant_next();
    }

    /// `conn` tried to write, granted or not, and the page store refused it: another connection has `taken` the
    /// slot there, whose statement was not known to write; the flag says whether it is idle in a transaction.
    /// `conn` waits on, in its old place and with its old deadline if it had waited before.
    pub fn handle_refused(&mut self, conn: ConnId, taken: Option<(ConnId, bool)>, now: Time) {
        let deadline = self.granted.remove(&conn);
        match taken {
            Some((owner, true)) => self.holder = Holder::Transaction(owner, Some(now)),
            Some((owner, false)) => self.holder = Holder::Running(owner),
            None if self.holder() == Some(conn) => self.holder = Holder::Nobody,
            None => {}
        }
        let Some(deadline) = deadline else { return self.handle_request(conn, now) };
        if matches!(self.holder, Holder::Transaction(..)) && self.patience.wait.is_zero() {
            self.effects.push_back(SlotEffect::Busy(conn));
            return;
        }
        let place = self.waiting.partition_point(|&(_, other)| other < deadline);
        self.waiting.insert(place, (conn, deadline));
        self.grant_next();
    }

    /// `conn` is being closed: what it holds will be free in a moment, so it turns nobody away any more.
    pub fn handle_closing(&mut self, conn: ConnId) {
        if matches!(self.holder, Holder::Transaction(owner, _) if owner == conn) {
            self.holder = Holder::Running(conn);
        }
    }

    /// `conn` is gone, or its request was withdrawn: it neither waits nor holds any more.
    pub fn handle_gone(&mut self, conn: ConnId) {
        self.forget_request(conn);
        self.effects.retain(|effect| *effect != SlotEffect::RollBack(conn));
        match self.holder {
            Holder::Running(owner) | Holder::Transaction(owner, _) if owner == conn => {
                self.holder = Holder::Nobody;
            }
            Holder::Nobody | Holder::Running(_) | Holder::Transaction(..) => {}
        }
        self.grant_next();
    }

    /// `conn` does not want to run what it waits for any more. What it holds, it goes on holding.
    pub fn handle_withdrawn(&mut self, conn: ConnId, now: Time) {
        self.forget_request(conn);
        match self.holder {
            Holder::Running(owner) if owner == conn => self.holder = Holder::Nobody,
            Holder::Transaction(owner, None) if owner == conn => {
                self.holder = Holder::Transaction(conn, Some(now));
            }
            Holder::Nobody | Holder::Running(_) | Holder::Transaction(..) => {}
        }
        self.grant_next();
    }

    /// While paused nobody new is granted: too much is speculative, or the disk is full.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        self.grant_next();
    }

    /// Turns away every waiter whose deadline has come while a transaction holds the slot, and ends a
    /// transaction that idled too long. Early or repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        let Holder::Transaction(owner, idle_since) = self.holder else { return };
        while let Some(&(conn, deadline)) = self.waiting.front()
            && deadline <= now
        {
            self.waiting.pop_front();
            self.effects.push_back(SlotEffect::Busy(conn));
        }
        if let (Some(since), Some(limit)) = (idle_since, self.patience.idle)
            && !self.waiting.is_empty()
            && since.after(limit) <= now
        {
            self.holder = Holder::Transaction(owner, None);
            self.effects.push_back(SlotEffect::RollBack(owner));
        }
    }

    /// When [`Self::handle_timeout`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let Holder::Transaction(_, idle_since) = self.holder else { return None };
        let deadline = self.waiting.front().map(|&(_, deadline)| deadline)?;
        let idle = idle_since.zip(self.patience.idle).map(|(since, limit)| since.after(limit));
        Some(idle.map_or(deadline, |idle| idle.min(deadline)))
    }

    /// What to do now, if anything.
    pub fn poll_effect(&mut self) -> Option<SlotEffect> {
        self.effects.pop_front()
    }

    /// How many connections wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Who has the slot, or may try for it.
    #[must_use]
    pub fn holder(&self) -> Option<ConnId> {
        match self.holder {
            Holder::Nobody => None,
            Holder::Running(owner) | Holder::Transaction(owner, _) => Some(owner),
        }
    }

    /// Whether a statement runs, or is about to, that is not part of an open transaction.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.holder, Holder::Running(_))
    }

    /// Whether nobody new is granted.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// What was decided for its request and not told yet must not meet its next one.
    fn forget_request(&mut self, conn: ConnId) {
        self.waiting.retain(|&(waiter, _)| waiter != conn);
        self.effects.retain(|effect| !effect.is_answer_to(conn));
        self.granted.remove(&conn);
    }

    fn grant_next(&mut self) {
        if self.holder == Holder::Nobody
            && !self.paused
            && let Some((conn, deadline)) = self.waiting.pop_front()
        {
            self.granted.insert(conn, deadline);
            self.holder = Holder::Running(conn);
            self.effects.push_back(SlotEffect::Grant(conn));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ConnId, Patience, SlotEffect, WriteQueue};
    use crate::base::Time;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);
    const C: ConnId = ConnId(3);

    fn queue(wait_ns: u64) -> WriteQueue {
        WriteQueue::new(Patience {
            wait: Duration::from_nanos(wait_ns),
            idle: Some(Duration::from_nanos(1000)),
        })
    }

    fn drain(queue: &mut WriteQueue) -> Vec<SlotEffect> {
        std::iter::from_fn(|| queue.poll_effect()).collect()
    }

    #[test]
    fn autocommit_writers_are_granted_one_by_one_in_order_and_never_turned_away() {
        let mut queue = queue(100);
        for conn in [A, B, C] {
            queue.handle_request(conn, Time(0));
        }
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(A)]);
        queue.handle_timeout(Time(1_000_000));
        assert_eq!(drain(&mut queue), []);
        queue.handle_done(A, false, Time(1_000_000));
        queue.handle_done(B, false, Time(1_000_000));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(B), SlotEffect::Grant(C)]);
    }

    #[test]
    fn a_waiter_behind_a_transaction_is_turned_away_at_its_deadline_and_not_before() {
        let mut queue = queue(100);
        queue.handle_request(A, Time(0));
        queue.handle_done(A, true, Time(1));
        queue.handle_request(B, Time(5));
        drain(&mut queue);
        assert_eq!(queue.poll_timeout(), Some(Time(105)));
        queue.handle_timeout(Time(104));
        assert_eq!(drain(&mut queue), []);
        queue.handle_timeout(Time(105));
        assert_eq!(drain(&mut queue), [SlotEffect::Busy(B)]);
    }

    #[test]
    fn the_owner_of_a_transaction_passes_all_who_wait() {
        let mut queue = queue(100);
        queue.handle_request(A, Time(0));
        queue.handle_done(A, true, Time(1));
        queue.handle_request(B, Time(2));
        queue.handle_request(A, Time(3));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(A), SlotEffect::Grant(A)]);
        queue.handle_done(A, false, Time(4));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(B)]);
    }

    #[test]
    fn no_patience_turns_away_at_once_behind_a_transaction_and_never_behind_an_autocommit_writer() {
        let mut queue = queue(0);
        queue.handle_request(A, Time(0));
        queue.handle_request(B, Time(0));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(A)]);
        queue.handle_done(A, true, Time(1));
        assert_eq!(drain(&mut queue), [SlotEffect::Busy(B)]);
        queue.handle_request(C, Time(2));
        assert_eq!(drain(&mut queue), [SlotEffect::Busy(C)]);
    }

    #[test]
    fn a_transaction_whose_connection_is_being_closed_turns_nobody_away() {
        let mut queue = queue(0);
        queue.handle_request(A, Time(0));
        queue.handle_done(A, true, Time(1));
        queue.handle_closing(B);
        queue.handle_request(B, Time(2));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(A), SlotEffect::Busy(B)]);
        queue.handle_closing(A);
        queue.handle_request(B, Time(3));
        assert_eq!(drain(&mut queue), []);
        queue.handle_gone(A);
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(B)]);
    }

    #[test]
    fn a_transaction_that_idles_while_others_wait_is_rolled_back_once() {
        let mut queue = queue(5000);
        queue.handle_request(A, Time(0));
        queue.handle_done(A, true, Time(10));
        drain(&mut queue);
        queue.handle_timeout(Time(4000));
        assert_eq!(drain(&mut queue), []);
        queue.handle_request(B, Time(4000));
        assert_eq!(queue.poll_timeout(), Some(Time(1010)));
        queue.handle_timeout(Time(4000));
        queue.handle_timeout(Time(4001));
        assert_eq!(drain(&mut queue), [SlotEffect::RollBack(A)]);
        queue.handle_done(A, false, Time(4002));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(B)]);
    }

    #[test]
    fn one_who_leaves_frees_its_place() {
        let mut queue = queue(100);
        for conn in [A, B, C] {
            queue.handle_request(conn, Time(0));
        }
        queue.handle_gone(B);
        queue.handle_gone(A);
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(C)]);
    }

    #[test]
    fn who_is_refused_in_spite_of_its_grant_keeps_its_place_and_its_deadline() {
        let mut queue = queue(100);
        queue.handle_request(A, Time(0));
        queue.handle_request(B, Time(10));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(A)]);
        // C took the slot by itself, in a transaction.
        queue.handle_refused(A, Some((C, true)), Time(50));
        queue.handle_timeout(Time(99));
        assert_eq!(drain(&mut queue), []);
        queue.handle_timeout(Time(100));
        assert_eq!(drain(&mut queue), [SlotEffect::Busy(A)], "not a moment later than its first deadline");
        queue.handle_done(C, false, Time(105));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(B)]);
        queue.handle_request(A, Time(106));
        queue.handle_refused(B, Some((C, false)), Time(106));
        queue.handle_done(C, false, Time(107));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(B)], "before A, which came later");
    }

    #[test]
    fn a_grant_that_nobody_took_does_not_meet_the_next_request_of_its_connection() {
        let mut queue = queue(100);
        queue.handle_request(A, Time(0));
        queue.handle_request(B, Time(0));
        queue.handle_withdrawn(A, Time(1));
        queue.handle_request(A, Time(2));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(B)]);
    }

    #[test]
    fn who_was_turned_away_and_left_is_not_turned_away_again_when_it_comes_back() {
        let mut queue = queue(100);
        queue.handle_request(A, Time(0));
        queue.handle_done(A, true, Time(1));
        queue.handle_request(B, Time(5));
        drain(&mut queue);
        queue.handle_timeout(Time(105));
        // The answer was not told yet when its client withdrew, or was replaced by one that asks anew.
        queue.handle_withdrawn(B, Time(106));
        queue.handle_request(B, Time(107));
        assert_eq!(drain(&mut queue), []);
        queue.handle_timeout(Time(207));
        queue.handle_gone(B);
        queue.handle_request(B, Time(208));
        assert_eq!(drain(&mut queue), []);
    }

    #[test]
    fn a_transaction_whose_connection_is_gone_is_not_rolled_back_in_the_next_one() {
        let mut queue = queue(5000);
        queue.handle_request(A, Time(0));
        queue.handle_done(A, true, Time(10));
        queue.handle_request(B, Time(20));
        drain(&mut queue);
        queue.handle_timeout(Time(2000));
        queue.handle_gone(A);
        queue.handle_request(A, Time(2001));
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(B)]);
    }

    #[test]
    fn while_paused_nobody_is_granted() {
        let mut queue = queue(100);
        queue.set_paused(true);
        queue.handle_request(A, Time(0));
        assert_eq!(drain(&mut queue), []);
        queue.set_paused(false);
        assert_eq!(drain(&mut queue), [SlotEffect::Grant(A)]);
    }
}
