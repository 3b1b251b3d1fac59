//! A client that sends one request at a time and believes what it is told.

use std::collections::BTreeSet;

use dqlite::base::Prng;
use dqlite::codec::client::{
    Cell, Context, FrameReader, OwnedParams, PROTOCOL_VERSION, Param, Request, Response, RowsEnd, Schema,
};
use dqlite::engine::ConnId;

use super::history::History;
use super::node::Node;

/// What the request in flight was.
#[derive(Debug)]
enum Asked {
    Open,
    /// A statement that writes these rows all or none.
    Write(Vec<i64>),
    /// A COMMIT of these.
    Commit(Vec<i64>),
    /// Several statements with a row each.
    Script(Vec<i64>),
    /// Rows of the open transaction.
    Part(Vec<i64>),
    Begin,
    /// A read, and what was known when what it sees was pinned.
    Read(usize),
    Rollback,
    Dump,
    /// Something whose success does not matter.
    Other,
}

pub struct Client {
    pub conn: ConnId,
    frames: FrameReader,
    asked: Option<Asked>,
    /// Interrupts whose own answers have not come.
    interrupts: usize,
    /// What the last read found.
    pub found: BTreeSet<i64>,
    /// What the last dump held.
    pub image: Vec<u8>,
    /// The failure that came last.
    pub failure: Option<u64>,
    is_open: bool,
    /// The rows of the open transaction.
    transaction: Option<Vec<i64>>,
    /// What was known when the transaction's first read was sent.
    pinned: Option<usize>,
}

impl Client {
    pub fn connect(node: &mut Node, number: u64) -> Self {
        let conn = ConnId(number);
        node.core.handle_connected(conn);
        node.core.handle_bytes(conn, &PROTOCOL_VERSION.to_le_bytes(), node.now);
        node.collect();
        Self {
            conn,
            frames: FrameReader::new(1 << 30),
            asked: None,
            interrupts: 0,
            found: BTreeSet::new(),
            image: Vec::new(),
            failure: None,
            is_open: false,
            transaction: None,
            pinned: None,
        }
    }

    pub fn is_waiting(&self) -> bool {
        self.asked.is_some() || self.interrupts > 0
    }

    /// What it waits for, in words.
    pub fn state(&self) -> String {
        format!("client {} asked {:?} with {} interrupts", self.conn.0, self.asked, self.interrupts)
    }

    fn send(&mut self, node: &mut Node, request: &Request<'_>, asked: Asked) {
        self.asked = Some(asked);
        node.core.handle_bytes(self.conn, &request.encode().unwrap(), node.now);
        node.collect();
    }

    pub fn open(&mut self, node: &mut Node, name: &str) {
        let request = Request::Open { filename: name.as_bytes(), flags: 0, vfs: b"" };
        self.send(node, &request, Asked::Open);
    }

    pub fn create_table(&mut self, node: &mut Node) {
        self.exec(node, "CREATE TABLE IF NOT EXISTS log(id INTEGER PRIMARY KEY, pad)", Asked::Other);
    }

    pub fn dump(&mut self, node: &mut Node) {
        self.send(node, &Request::Dump { filename: b"test" }, Asked::Dump);
    }

    fn exec(&mut self, node: &mut Node, sql: &str, asked: Asked) {
        let params = OwnedParams::new(&[] as &[Param<'_>]);
        let (sql, params) = (sql.as_bytes(), params.view());
        self.send(node, &Request::ExecSql { schema: Schema::V0, db: 0, sql, params }, asked);
    }

    /// Reads all rows.
    pub fn read(&mut self, node: &mut Node, mark: usize, prng: &mut Prng) {
        let sql: &[u8] = if prng.below(3) == 0 { b"SELECT id, pad FROM log" } else { b"SELECT id FROM log" };
        let params = OwnedParams::new(&[] as &[Param<'_>]);
        let request = Request::QuerySql { schema: Schema::V0, db: 0, sql, params: params.view() };
        self.found.clear();
        self.send(node, &request, Asked::Read(mark));
    }

    /// Sends whatever comes to mind.
    pub fn act(&mut self, node: &mut Node, history: &mut History, prng: &mut Prng) {
        if self.is_waiting() {
            if prng.below(20) == 0 {
                self.interrupt(node);
            }
            return;
        }
        if !self.is_open {
            return self.open(node, "test");
        }
        match (self.transaction.is_some(), prng.below(20)) {
            (false, 0..6) => {
                let ids = history.issue(1 + usize::try_from(prng.below(3)).unwrap());
                history.bind(&ids);
                self.exec(node, &insert(&ids, prng), Asked::Write(ids.clone()));
            }
            (false, 6) => {
                let ids = history.issue(3);
                let sql: String = ids.iter().map(|id| insert(&[*id], prng)).collect();
                self.exec(node, &sql, Asked::Script(ids));
            }
            (false, 7..11) => {
                let sql = ["BEGIN", "BEGIN IMMEDIATE"][usize::try_from(prng.below(2)).unwrap()];
                self.pinned = None;
                self.exec(node, sql, Asked::Begin);
            }
            (false, 11) => {
                self.exec(node, "UPDATE log SET pad = randomblob(500) WHERE id % 7 = 1", Asked::Other)
            }
            (false, 12) => self.exec(node, "VACUUM", Asked::Other),
            (false, 13) => self.exec(node, "PRAGMA user_version = 5", Asked::Other),
            (false, 14) => self.exec(node, "INSERT INTO log VALUES(1, 0) RETURNING id", Asked::Other),
            (true, 0..8) => {
                let ids = history.issue(1 + usize::try_from(prng.below(2)).unwrap());
                let sql = insert(&ids, prng);
                self.exec(node, &sql, Asked::Part(ids));
            }
            (true, 8..12) if self.transaction.as_ref().is_some_and(Vec::is_empty) => {
                let mark = *self.pinned.get_or_insert(history.mark());
                self.read(node, mark, prng);
            }
            (true, 12..18) => {
                let ids = self.transaction.take().unwrap();
                history.bind(&ids);
                self.exec(node, "COMMIT", Asked::Commit(ids));
            }
            (true, 18) => {
                let ids = self.transaction.take().unwrap();
                history.refuse(&ids).unwrap();
                self.exec(node, "ROLLBACK", Asked::Rollback);
            }
            (true, _) => {}
            (false, _) => {
                let mark = history.mark();
                self.read(node, mark, prng);
            }
        }
    }

    fn interrupt(&mut self, node: &mut Node) {
        self.interrupts += 1;
        let bytes = Request::Interrupt { db: 0 }.encode().unwrap();
        node.core.handle_bytes(self.conn, &bytes, node.now);
        node.collect();
    }

    /// Takes what the node has sent, at most `count` bytes.
    pub fn take(&mut self, node: &mut Node, history: &mut History, count: usize) -> Result<bool, String> {
        let output = node.core.output(self.conn);
        let output = output[..output.len().min(count)].to_vec();
        if output.is_empty() {
            return Ok(false);
        }
        self.frames.feed(&output);
        node.core.handle_written(self.conn, output.len(), node.now);
        node.collect();
        // The reader cannot be borrowed while its frames are handled.
        let mut frames = std::mem::replace(&mut self.frames, FrameReader::new(0));
        while let Some(frame) = frames.next_frame().unwrap() {
            let response = Response::decode(frame, Context::default()).map_err(|error| error.to_string())?;
            self.hear(&response, history)?;
        }
        self.frames = frames;
        Ok(true)
    }

    fn hear(&mut self, response: &Response<'_>, history: &mut History) -> Result<(), String> {
        if matches!(response, Response::Empty) && self.interrupts > 0 {
            self.interrupts -= 1;
            // An answer that has not come yet is given up: rows whose rest is dropped.
            return match self.asked.take() {
                None | Some(Asked::Read(_)) => Ok(()),
                Some(asked) => Err(format!("{asked:?} was not answered before its interrupt")),
            };
        }
        if self.asked.is_none() {
            return Err(format!("an answer to nothing: {response:?}"));
        }
        if let Response::Rows(rows) = response {
            for row in &rows.rows {
                if let Some(Cell::Integer(id)) = row.first() {
                    self.found.insert(*id);
                }
            }
            if rows.end == RowsEnd::Part {
                return Ok(());
            }
        }
        if let Response::Files(files) = response {
            self.image = files[0].bytes.to_vec();
        }
        self.failure = match response {
            Response::Failure { code, .. } => Some(*code),
            _ => None,
        };
        let asked = self.asked.take().unwrap();
        match self.failure {
            None => self.hear_success(asked, history),
            Some(code) => self.hear_failure(asked, code, history),
        }
    }

    fn hear_success(&mut self, asked: Asked, history: &mut History) -> Result<(), String> {
        match asked {
            Asked::Open => self.is_open = true,
            Asked::Write(ids) | Asked::Script(ids) | Asked::Commit(ids) => history.acknowledge(&ids)?,
            Asked::Begin => self.transaction = Some(Vec::new()),
            Asked::Part(ids) => self.transaction.as_mut().unwrap().extend(ids),
            Asked::Read(mark) => history.seen(&self.found, mark)?,
            Asked::Rollback | Asked::Dump | Asked::Other => {}
        }
        Ok(())
    }

    fn hear_failure(&mut self, asked: Asked, code: u64, history: &mut History) -> Result<(), String> {
        let unknown = code == 10_506;
        match asked {
            Asked::Write(ids) | Asked::Commit(ids) if unknown => drop(ids),
            // Some of its statements may be done.
            Asked::Script(ids) => drop(ids),
            Asked::Write(ids) => history.refuse(&ids)?,
            Asked::Commit(ids) => {
                history.refuse(&ids)?;
                // Whether the transaction is still open is nobody's wish to find out.
                self.is_open = false;
            }
            Asked::Part(ids) => history.refuse(&ids)?,
            // Interrupted: the transaction may be open still.
            Asked::Rollback => self.is_open = false,
            Asked::Open | Asked::Begin | Asked::Read(_) | Asked::Dump | Asked::Other => {}
        }
        // A transaction that is stale or was told to wait goes on; of others nobody knows what is left.
        if !matches!(code, 5 | 517)
            && let Some(ids) = self.transaction.take()
        {
            history.refuse(&ids)?;
            self.is_open = false;
        }
        if matches!(code, 12 | 10_250 | 10_506) {
            self.is_open = false;
        }
        Ok(())
    }

    /// The rows of a transaction that will never be committed.
    pub fn leave(self, history: &mut History) -> Result<(), String> {
        history.refuse(&self.transaction.unwrap_or_default())
    }

    /// Whether it would rather begin anew.
    pub fn is_lost(&self) -> bool {
        !self.is_open && !self.is_waiting()
    }
}

fn insert(ids: &[i64], prng: &mut Prng) -> String {
    let rows: Vec<String> =
        ids.iter().map(|id| format!("({id}, randomblob({}))", prng.below(4) * prng.below(1500))).collect();
    format!("INSERT INTO log VALUES{};", rows.join(","))
}
