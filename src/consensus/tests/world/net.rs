//! Connections: in order each, in any order together, and what is left of one when it breaks.

use std::collections::{BTreeMap, VecDeque};

use super::disk::Packet;
use crate::base::Prng;
use crate::codec::peer::Message;

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) number: u64,
    pub(super) queue: VecDeque<(u64, Packet)>,
    last_due: u64,
    /// Whether the receiver has seen it.
    pub(super) opened: bool,
    broken: bool,
}

/// What becomes of a connection that broke.
pub(super) struct Broken {
    pub(super) arrivals: Vec<(u64, u64)>,
    /// A snapshot did not arrive.
    pub(super) lost_snapshot: bool,
    /// What is sent a second time.
    pub(super) again: Vec<Packet>,
}

/// Microseconds everywhere.
#[derive(Debug, Default)]
pub(super) struct Net {
    conns: BTreeMap<(u64, u64), Vec<Conn>>,
    numbers: u64,
    /// Until when nothing gets from one server to another.
    pub(super) cuts: BTreeMap<(u64, u64), u64>,
}

pub(super) const MS: u64 = 1000;

impl Net {
    fn delay(prng: &mut Prng) -> u64 {
        match prng.below(60) {
            0 => prng.below(4000 * MS),
            1..=4 => prng.below(300 * MS),
            _ => MS + prng.below(20 * MS),
        }
    }

    /// When the last of it arrives on which connection.
    pub(super) fn send(
        &mut self,
        way: (u64, u64),
        packet: Packet,
        now: u64,
        calm: bool,
        prng: &mut Prng,
    ) -> Vec<(u64, u64)> {
        let conns = self.conns.entry(way).or_default();
        if conns.last().is_none_or(|conn| conn.broken) {
            self.numbers += 1;
            let number = self.numbers;
            conns.push(Conn { number, queue: VecDeque::new(), last_due: 0, opened: false, broken: false });
        }
        let conn = conns.last_mut().unwrap();
        let mut due = now + if calm { 5 * MS } else { Self::delay(prng) };
        if let Some(until) = self.cuts.get(&way).filter(|until| **until > due) {
            due = until + prng.below(200 * MS);
        }
        let mut arrivals = Vec::new();
        let parts = match packet {
            Packet::Snapshot(head, image) => {
                vec![(0, Packet::Snapshot(head, image)), (prng.below(2000 * MS), Packet::Data)]
            }
            other => vec![(0, other)],
        };
        for (more, part) in parts {
            due = (due + more).max(conn.last_due);
            conn.last_due = due;
            conn.queue.push_back((due, part));
            arrivals.push((due, conn.number));
        }
        arrivals
    }

    /// What has arrived on a connection, and whether it is the first.
    pub(super) fn arrive(&mut self, way: (u64, u64), number: u64, now: u64) -> Option<(Packet, bool)> {
        let conns = self.conns.get_mut(&way)?;
        let conn = conns.iter_mut().find(|conn| conn.number == number)?;
        conn.queue.front().filter(|part| part.0 <= now)?;
        let (_, packet) = conn.queue.pop_front()?;
        let first = !std::mem::replace(&mut conn.opened, true);
        if conn.broken && conn.queue.is_empty() {
            conns.retain(|conn| conn.number != number);
        }
        Some((packet, first))
    }

    /// The newest connection breaks. A part of what was sent is lost; the rest arrives late, beside what comes on
    /// the next one.
    pub(super) fn break_up(
        &mut self,
        way: (u64, u64),
        now: u64,
        doubles: bool,
        prng: &mut Prng,
    ) -> Option<Broken> {
        let conn = self.conns.get_mut(&way)?.last_mut().filter(|conn| !conn.broken)?;
        conn.broken = true;
        let kept = prng.below(conn.queue.len() as u64 + 1);
        let lost = conn.queue.split_off(usize::try_from(kept).unwrap());
        let lost_snapshot = lost.iter().any(|it| matches!(it.1, Packet::Data));
        let late = if prng.below(2) == 0 { prng.below(9000 * MS) } else { 0 };
        let mut again = Vec::new();
        for (due, packet) in &mut conn.queue {
            *due += late;
            let plain = matches!(packet, Packet::Message(it) if !matches!(it, Message::InstallSnapshot(_)));
            if doubles && plain && prng.below(6) == 0 {
                again.push(packet.clone());
            }
        }
        let end = conn.queue.back().map_or(now, |it| it.0) + prng.below(100 * MS);
        conn.queue.push_back((end, Packet::End));
        let arrivals = conn.queue.iter().map(|it| (it.0, conn.number)).collect();
        Some(Broken { arrivals, lost_snapshot, again })
    }
}
