//! A database's whole image for a client, a little at a time: the next pages are taken from the version that is
//! pinned when those before have been written.

use std::sync::Arc;

use super::core::Core;
use super::effect::{Effect, Waste};
use crate::base::{PageNo, Time, Writer};
use crate::codec::client::failure;
use crate::engine::ConnId;
use crate::pages::{Garbage, Version, View};
use crate::session::Reply;

/// Pages that are handed to the client's session at once.
const PAGES_AT_ONCE: u32 = 64;

/// A dump on its way.
#[derive(Debug)]
pub(super) struct Dump {
    version: Arc<Version>,
    /// The last page that was handed over.
    done: u32,
    /// In place of the page that SQLite never writes, which is absent from the store.
    zeros: Arc<[u8]>,
    /// What follows the pages.
    tail: Arc<[u8]>,
}

impl Dump {
    /// The first bytes of the message, and what follows; none when the image is too large for one.
    fn new(name: &[u8], version: Arc<Version>) -> Option<(Arc<[u8]>, Self)> {
        let image = u64::from(version.n_pages()) * u64::from(version.page_size());
        let wal_name = [name, b"-wal"].concat();
        let (mut body, mut tail) = (Writer::new(), Writer::new());
        body.u64(2).text(name).u64(image);
        tail.text(&wal_name).u64(0);
        let words = (body.len() as u64 + image + tail.len() as u64) / 8;
        let mut head = Writer::new();
        head.u32(u32::try_from(words).ok()?).u8(9).u8(0).u16(0).bytes(body.as_slice());
        let zeros = vec![0; version.page_size() as usize].into();
        Some((head.into_bytes().into(), Self { version, done: 0, zeros, tail: tail.into_bytes().into() }))
    }

    /// Appends the next pages to `parts`, and what follows them when they are the last; whether they are.
    fn take(&mut self, parts: &mut Vec<Arc<[u8]>>) -> bool {
        let end = self.done.saturating_add(PAGES_AT_ONCE).min(self.version.n_pages());
        for number in self.done + 1..=end {
            let page = self.version.page(PageNo(number));
            parts.push(page.map_or_else(|| Arc::clone(&self.zeros), |page| page.shared()));
        }
        self.done = end;
        let last = end == self.version.n_pages();
        if last {
            parts.push(Arc::clone(&self.tail));
        }
        last
    }
}

impl Core {
    /// The whole database as it is committed now, and an empty WAL: what a checkpoint would leave.
    pub(super) fn dump(&mut self, conn: ConnId, name: &[u8], now: Time) {
        let Some(state) = self.databases.find(name).and_then(|slot| self.databases.get(slot)) else {
            return self.fail(conn, &failure::DATABASE_MISSING, now);
        };
        match Dump::new(name, state.database.pin(View::Committed)) {
            Some((head, dump)) => self.dump_on(conn, dump, vec![head], now),
            None => self.fail(conn, &failure::TOO_BIG, now),
        }
    }

    /// What was handed over of the client's dump is written; `false` if there is none.
    pub(super) fn resume_dump(&mut self, conn: ConnId, now: Time) -> bool {
        let Some(dump) = self.clients.get_mut(&conn).and_then(|client| client.dump.take()) else {
            return false;
        };
        self.dump_on(conn, *dump, Vec::new(), now);
        true
    }

    fn dump_on(&mut self, conn: ConnId, mut dump: Dump, mut parts: Vec<Arc<[u8]>>, now: Time) {
        if dump.take(&mut parts) {
            self.reply(conn, Reply::Parts(parts), now);
            return self.end_dump(dump);
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.dump = Some(Box::new(dump));
        client.session.handle_reply(Reply::SomeParts(parts));
        self.effects.push_back(Effect::Flush { conn });
    }

    /// The dump is done, or nobody wants it any more.
    pub(super) fn end_dump(&mut self, dump: Dump) {
        // It may be the last to hold pages which were replaced meanwhile.
        let garbage = Garbage::of_reader(dump.version);
        if garbage.is_large() {
            self.effects.push_back(Effect::Drop(Waste { garbage: vec![garbage], payloads: Vec::new() }));
        }
    }
}
