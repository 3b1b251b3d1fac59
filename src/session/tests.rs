mod streams;

use super::{CloseReason, Reply, ServerInfo, Session, SessionEvent, Sql, is_name_allowed};
use crate::base::limits::CLIENT_PIPELINE_BYTES_MAX;
use crate::base::{DecodeError, NodeId, Role};
use crate::codec::client::request::OPEN_ANYWHERE;
use crate::codec::client::{
    Failure, FrameError, OwnedParams, PROTOCOL_LEGACY, PROTOCOL_VERSION, Params, Request, Response, Schema,
    failure,
};

/// A session after the handshake, on a leader unless said otherwise.
struct Client {
    session: Session,
    leading: bool,
}

impl Client {
    fn new() -> Self {
        Self::with_word(PROTOCOL_VERSION)
    }

    fn with_word(word: u64) -> Self {
        let mut session = Session::new();
        session.handle_bytes(&word.to_le_bytes());
        Self { session, leading: true }
    }

    fn with_database() -> Self {
        let mut client = Self::new();
        client.send(&[open()]);
        assert_eq!(client.events(), [SessionEvent::Open { name: b"test".to_vec(), anywhere: false }]);
        client.session.handle_reply(Reply::Opened);
        assert_eq!(client.written(), Response::Db { id: 0 }.encode());
        client
    }

    fn send(&mut self, requests: &[Request<'_>]) {
        requests.iter().for_each(|request| self.session.handle_bytes(&request.encode().unwrap()));
    }

    fn events(&mut self) -> Vec<SessionEvent> {
        std::iter::from_fn(|| self.session.poll_event(self.leading)).collect()
    }

    /// Writes out all that there is now.
    fn written(&mut self) -> Vec<u8> {
        let bytes = self.session.output().to_vec();
        self.session.handle_written(bytes.len());
        bytes
    }

    /// Polls and writes until nothing more happens.
    fn settle(&mut self) -> (Vec<SessionEvent>, Vec<u8>) {
        let (mut events, mut bytes) = (self.events(), self.written());
        loop {
            let (more, sent) = (self.events(), self.written());
            if more.is_empty() && sent.is_empty() {
                return (events, bytes);
            }
            events.extend(more);
            bytes.extend(sent);
        }
    }

    /// Sends one request and gives what is written without the node's help.
    fn answer(&mut self, request: Request<'_>) -> Vec<u8> {
        self.send(&[request]);
        let (events, bytes) = self.settle();
        assert_eq!(events, [], "{request:?}");
        bytes
    }

    fn run_query(&mut self) {
        self.send(&[query_sql()]);
        let event = SessionEvent::Sql(Sql::QuerySql { sql: b"SELECT 1".to_vec(), params: no_params() });
        assert_eq!(self.events(), [event]);
    }
}

fn open() -> Request<'static> {
    Request::Open { filename: b"test", flags: 0, vfs: b"volatile" }
}

fn query_sql() -> Request<'static> {
    Request::QuerySql { schema: Schema::V0, db: 0, sql: b"SELECT 1", params: Params::default() }
}

fn exec(stmt: u32) -> Request<'static> {
    Request::Exec { schema: Schema::V0, db: 0, stmt, params: Params::default() }
}

fn prepare(schema: Schema) -> Request<'static> {
    Request::Prepare { schema, db: 0, sql: b"SELECT 1" }
}

fn no_params() -> OwnedParams {
    OwnedParams::new(&[])
}

fn refusal(failure: &Failure) -> Vec<u8> {
    Response::from(failure).encode()
}

fn empty() -> Vec<u8> {
    Response::Empty.encode()
}

const INTERRUPT: Request<'static> = Request::Interrupt { db: 0 };
const RESULT: Reply = Reply::Result { last_insert_id: 1, rows_affected: 2 };

#[test]
fn a_known_word_opens_the_connection_and_another_closes_it() {
    let mut session = Session::new();
    session.handle_bytes(&[1, 0, 0]);
    assert_eq!(session.poll_event(true), None);
    session.handle_bytes(&[0, 0, 0, 0, 0]);
    assert_eq!(session.poll_event(true), None);
    assert!(session.wants_read());

    let mut client = Client::with_word(2);
    assert_eq!(client.events(), [SessionEvent::Close(CloseReason::Protocol(2))]);
    assert!(!client.session.wants_read());
    client.send(&[Request::Leader]);
    assert_eq!(client.settle(), (vec![], vec![]));
}

#[test]
fn the_legacy_word_changes_the_answer_to_leader_only() {
    for (word, legacy) in [(PROTOCOL_VERSION, false), (PROTOCOL_LEGACY, true)] {
        let mut client = Client::with_word(word);
        client.send(&[Request::Leader]);
        assert_eq!(client.events(), [SessionEvent::Leader { legacy }]);
        client.session.handle_reply(Reply::Server { id: NodeId(3), address: b"c:1".to_vec() });
        let whole = Response::Server { id: NodeId(3), address: b"c:1" };
        let expected = if legacy { Response::ServerLegacy { address: b"c:1" } } else { whole };
        assert_eq!(client.written(), expected.encode());
    }
}

#[test]
fn requests_of_the_node_are_handed_on_and_answered_in_the_format_asked_for() {
    let mut client = Client::new();
    assert_eq!(
        client.answer(Request::Client { id: 7 }),
        [1, 0, 0, 0, 2, 0, 0, 0, 0x98, 0x3a, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(client.session.client_id(), 7);
    assert_eq!(client.answer(Request::Cluster { format: 2 }), refusal(&failure::CLUSTER_FORMAT));
    assert_eq!(client.answer(Request::Describe { format: 1 }), refusal(&failure::DESCRIBE_FORMAT));
    assert_eq!(client.answer(INTERRUPT), empty());
    for (format, bytes) in [(0, 32), (1, 40)] {
        client.send(&[Request::Cluster { format }]);
        assert_eq!(client.events(), [SessionEvent::Cluster]);
        let server = ServerInfo { id: NodeId(1), address: b"a:1".to_vec(), role: Role::Spare };
        client.session.handle_reply(Reply::Servers(vec![server]));
        assert_eq!(client.written().len(), bytes);
    }
    let asked = |client: &mut Client, request| {
        client.send(&[request]);
        let events = client.events();
        client.session.handle_reply(Reply::Empty);
        assert_eq!(client.written(), empty());
        events
    };
    let id = NodeId(5);
    let assign = |role| vec![SessionEvent::Assign { id, role }];
    assert_eq!(asked(&mut client, Request::Promote { id }), assign(Role::Voter));
    assert_eq!(asked(&mut client, Request::Assign { id, role: Role::Spare }), assign(Role::Spare));
    assert_eq!(asked(&mut client, Request::Remove { id }), [SessionEvent::Remove { id }]);
    assert_eq!(asked(&mut client, Request::Transfer { id }), [SessionEvent::Transfer { id }]);
    let add = SessionEvent::Add { id, address: b"e:1".to_vec() };
    assert_eq!(asked(&mut client, Request::Add { id, address: b"e:1" }), [add]);
    assert_eq!(asked(&mut client, Request::Weight { weight: 9 }), [SessionEvent::Weight { weight: 9 }]);
    let dump = SessionEvent::Dump { name: b"test".to_vec() };
    assert_eq!(asked(&mut client, Request::Dump { filename: b"test" }), [dump]);
}

#[test]
fn schema_comes_before_leadership_and_leadership_before_the_database_and_that_before_the_statement() {
    let mut client = Client::new();
    client.leading = false;
    let mut bad_schema = exec(0).encode().unwrap();
    bad_schema[5] = 7;
    client.session.handle_bytes(&bad_schema);
    assert_eq!(client.settle(), (vec![], refusal(&failure::STATEMENT_SCHEMA)));
    let id = NodeId(1);
    let finalize = Request::Finalize { db: 0, stmt: 0 };
    let (add, assign) = (Request::Add { id, address: b"1" }, Request::Assign { id, role: Role::Voter });
    let members = [add, Request::Promote { id }, assign, Request::Remove { id }, Request::Transfer { id }];
    for request in [open(), prepare(Schema::V0), exec(0), query_sql()].into_iter().chain(members) {
        assert_eq!(client.answer(request), refusal(&failure::NOT_LEADER), "{request:?}");
    }
    assert_eq!(client.answer(finalize), refusal(&failure::NO_DATABASE));
    client.leading = true;
    for request in [prepare(Schema::V0), exec(0), query_sql(), finalize] {
        assert_eq!(client.answer(request), refusal(&failure::NO_DATABASE), "{request:?}");
    }
    let mut client = Client::with_database();
    assert_eq!(client.answer(open()), refusal(&failure::ALREADY_OPEN));
    assert_eq!(client.answer(exec(4)), refusal(&failure::NO_STATEMENT));
    let elsewhere = Request::Prepare { schema: Schema::V0, db: 1, sql: b"SELECT 1" };
    assert_eq!(client.answer(elsewhere), refusal(&failure::NO_DATABASE));
}

#[test]
fn a_statement_gets_the_lowest_free_id_and_only_when_it_is_prepared() {
    let mut client = Client::with_database();
    let prepared = |client: &mut Client, schema, reply: Reply| {
        client.send(&[prepare(schema)]);
        let events = client.events();
        client.session.handle_reply(reply);
        let [SessionEvent::Sql(Sql::Prepare { stmt, .. })] = events.as_slice() else { panic!("{events:?}") };
        (*stmt, client.written())
    };
    let ok = Reply::Prepared { params: 4, tail: 8 };
    let answer = |id, tail| Response::Stmt { db: 0, id, params: 4, tail }.encode();
    assert_eq!(prepared(&mut client, Schema::V0, ok.clone()), (0, answer(0, None)));
    let failed = Reply::Failure(failure::EMPTY_STATEMENT);
    assert_eq!(prepared(&mut client, Schema::V0, failed), (1, refusal(&failure::EMPTY_STATEMENT)));
    assert_eq!(prepared(&mut client, Schema::V1, ok.clone()), (1, answer(1, Some(8))));
    assert_eq!(prepared(&mut client, Schema::V0, ok.clone()), (2, answer(2, None)));
    client.send(&[Request::Finalize { db: 0, stmt: 1 }]);
    assert_eq!(client.events(), [SessionEvent::Sql(Sql::Finalize { stmt: 1 })]);
    client.session.handle_reply(Reply::Empty);
    assert_eq!(client.written(), empty());
    assert_eq!(client.answer(exec(1)), refusal(&failure::NO_STATEMENT));
    assert_eq!(client.answer(Request::Finalize { db: 0, stmt: 1 }), refusal(&failure::NO_STATEMENT));
    client.send(&[exec(2)]);
    assert_eq!(client.events(), [SessionEvent::Sql(Sql::Exec { stmt: 2, params: no_params() })]);
    client.session.handle_reply(RESULT);
    client.written();
    assert_eq!(prepared(&mut client, Schema::V0, ok), (1, answer(1, None)));
}

#[test]
fn the_next_request_is_read_only_when_the_last_byte_of_the_answer_is_written() {
    let mut client = Client::new();
    client.send(&[Request::Leader, INTERRUPT, Request::Describe { format: 0 }]);
    assert_eq!(client.events(), [SessionEvent::Leader { legacy: false }]);
    client.session.handle_reply(Reply::Server { id: NodeId(1), address: b"a".to_vec() });
    assert_eq!(client.events(), []);
    let len = client.session.output().len();
    client.session.handle_written(len - 1);
    assert_eq!(client.events(), []);
    assert_eq!(client.session.output().len(), 1);
    client.session.handle_written(1);
    assert_eq!(client.events(), []);
    assert_eq!(client.written(), empty());
    assert_eq!(client.events(), [SessionEvent::Describe]);
}

#[test]
fn more_rows_are_asked_for_only_when_the_last_ones_are_written() {
    let mut client = Client::with_database();
    client.run_query();
    client.session.handle_reply(Reply::RowsPart(vec![1; 10]));
    assert_eq!(client.events(), []);
    client.session.handle_written(9);
    assert_eq!(client.events(), []);
    client.session.handle_written(1);
    assert_eq!(client.events(), [SessionEvent::MoreRows]);
    client.session.handle_reply(Reply::RowsPart(vec![2; 10]));
    assert_eq!(client.written(), [2; 10]);
    assert_eq!(client.events(), [SessionEvent::MoreRows]);
    client.session.handle_reply(Reply::Message(vec![3; 10]));
    assert_eq!(client.written(), [3; 10]);
    assert_eq!(client.answer(INTERRUPT), empty());
}

#[test]
fn an_interrupt_sent_along_with_its_query_waits_for_all_rows() {
    let mut client = Client::with_database();
    client.send(&[query_sql(), INTERRUPT]);
    assert_eq!(client.events().len(), 1);
    client.session.handle_reply(Reply::RowsPart(vec![1]));
    assert_eq!(client.settle(), (vec![SessionEvent::MoreRows], vec![1]));
    client.session.handle_reply(Reply::Message(vec![2]));
    assert_eq!(client.settle(), (vec![], [&[2], empty().as_slice()].concat()));
}

#[test]
fn an_interrupt_that_came_along_with_a_statement_can_still_stop_that_one_and_no_later_one() {
    let mut client = Client::with_database();
    client.run_query();
    assert_eq!(client.session.interrupt_that_came_along(), None);
    client.session.handle_reply(Reply::Message(vec![1]));
    client.settle();

    client.send(&[query_sql(), INTERRUPT]);
    assert_eq!(client.events().len(), 1);
    let began = client.session.interrupt_that_came_along().unwrap();
    client.session.hear_interrupt(began - 1);
    assert_eq!((client.events(), client.session.is_interrupted()), (vec![], false));
    client.session.hear_interrupt(began);
    assert_eq!((client.events(), client.session.is_interrupted()), (vec![SessionEvent::Interrupt], true));
    client.session.handle_reply(Reply::Failure(failure::INTERRUPTED));
    assert_eq!(client.settle(), (vec![], [refusal(&failure::INTERRUPTED), empty()].concat()));

    client.send(&[query_sql(), INTERRUPT]);
    assert_eq!(client.events().len(), 1);
    client.session.hear_interrupt(began);
    assert_eq!(client.events(), []);
}

#[test]
fn an_interrupt_stops_the_running_statement_and_is_answered_after_it() {
    let mut client = Client::with_database();
    client.run_query();
    let bytes = INTERRUPT.encode().unwrap();
    client.session.handle_bytes(&bytes[..15]);
    assert_eq!(client.events(), []);
    client.session.handle_bytes(&bytes[15..]);
    assert_eq!(client.events(), [SessionEvent::Interrupt]);
    client.session.handle_reply(Reply::Failure(failure::INTERRUPTED));
    let expected = [refusal(&failure::INTERRUPTED), empty()].concat();
    assert_eq!(client.settle(), (vec![], expected));
}

#[test]
fn an_interrupt_between_rows_drops_the_rest_and_each_gets_one_empty() {
    let mut client = Client::with_database();
    client.run_query();
    client.session.handle_reply(Reply::RowsPart(vec![1]));
    client.send(&[INTERRUPT, INTERRUPT]);
    let expected = [&[1], empty().as_slice(), empty().as_slice()].concat();
    assert_eq!(client.settle(), (vec![SessionEvent::RowsAbandoned], expected));
    client.run_query();
}

#[test]
fn rows_that_come_after_the_interrupt_was_told_are_the_last_ones() {
    let mut client = Client::with_database();
    client.run_query();
    client.send(&[INTERRUPT]);
    assert_eq!(client.events(), [SessionEvent::Interrupt]);
    client.session.handle_reply(Reply::RowsPart(vec![1]));
    assert_eq!(client.settle(), (vec![SessionEvent::RowsAbandoned], [&[1], empty().as_slice()].concat()));
}

#[test]
fn a_held_reply_leaves_when_it_is_released_and_a_failure_may_take_its_place() {
    let mut client = Client::with_database();
    for lost in [false, true] {
        client.send(&[Request::ExecSql { schema: Schema::V0, db: 0, sql: b"x", params: Params::default() }]);
        assert_eq!(client.events().len(), 1);
        client.session.hold_reply(RESULT);
        client.send(&[INTERRUPT]);
        assert_eq!(client.settle(), (vec![], vec![]), "a committed statement cannot be interrupted");
        let mut expected = Response::Result { last_insert_id: 1, rows_affected: 2 }.encode();
        if lost {
            client.session.handle_reply(Reply::Failure(failure::LEADERSHIP_LOST));
            expected = refusal(&failure::LEADERSHIP_LOST);
        }
        client.session.release_held();
        assert_eq!(client.settle(), (vec![], [expected, empty()].concat()));
        client.session.release_held();
        assert_eq!(client.settle(), (vec![], vec![]));
    }
}

#[test]
fn after_lost_leadership_the_database_must_be_opened_again() {
    let mut client = Client::with_database();
    client.send(&[prepare(Schema::V0)]);
    assert_eq!(client.events().len(), 1);
    client.leading = false;
    client.session.handle_database_closed();
    client.session.handle_reply(Reply::Prepared { params: 0, tail: 0 });
    assert_eq!(client.written(), refusal(&failure::LEADERSHIP_LOST));
    assert_eq!(client.answer(exec(0)), refusal(&failure::NOT_LEADER));
    assert_eq!(client.answer(open()), refusal(&failure::NOT_LEADER));
    client.leading = true;
    assert_eq!(client.answer(exec(0)), refusal(&failure::NO_DATABASE));
    client.send(&[open()]);
    assert_eq!(client.events(), [SessionEvent::Open { name: b"test".to_vec(), anywhere: false }]);
    client.session.handle_reply(Reply::Opened);
    client.written();
    assert!(client.session.has_database());
    assert_eq!(client.answer(exec(0)), refusal(&failure::NO_STATEMENT));
}

#[test]
fn a_client_that_goes_away_ends_the_session_at_any_point() {
    let gone = [SessionEvent::Close(CloseReason::Gone)];
    let mut client = Client::with_database();
    client.run_query();
    client.session.handle_eof();
    assert_eq!(client.events(), gone);
    client.session.handle_reply(RESULT);
    client.session.release_held();
    client.session.hold_reply(RESULT);
    client.session.handle_eof();
    assert_eq!(client.settle(), (vec![], vec![]));

    let mut client = Client::new();
    client.send(&[Request::Leader]);
    client.session.handle_bytes(&[1, 0, 0, 0, 0]);
    client.session.handle_eof();
    assert_eq!(client.events(), gone);
}

#[test]
fn what_cannot_be_read_closes_the_connection_without_an_answer() {
    let close = |bytes: &[u8]| {
        let mut client = Client::new();
        client.session.handle_bytes(bytes);
        match client.settle() {
            (events, bytes) if bytes.is_empty() => events,
            other => panic!("{other:?}"),
        }
    };
    let closed = |reason| vec![SessionEvent::Close(reason)];
    assert_eq!(close(&[0; 8]), closed(CloseReason::Frame(FrameError::Empty)));
    let too_long = FrameError::TooLong { found: (1 << 30) + 8, max: 1 << 30 };
    assert_eq!(close(&[1, 0, 0, 8, 0, 0, 0, 0]), closed(CloseReason::Frame(too_long)));
    let unterminated = CloseReason::Body(DecodeError::Unterminated { field: "sql" });
    assert_eq!(close(&[1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), closed(unterminated));
    for (len, max) in [(504, None), (505, Some(504))] {
        let name = vec![b'n'; len];
        let request = Request::Open { filename: &name, flags: 0, vfs: b"" };
        let range = |max| DecodeError::Range { field: "filename", max, found: len as u64 };
        let expected = max.map_or(SessionEvent::Open { name: name.clone(), anywhere: false }, |max| {
            SessionEvent::Close(CloseReason::Body(range(max)))
        });
        assert_eq!(close(&request.encode().unwrap()), [expected]);
    }
}

#[test]
fn a_connect_hands_the_rest_of_the_bytes_to_the_peer_protocol() {
    let mut client = Client::with_database();
    let mut bytes = Request::Connect { id: NodeId(5), address: b"1.2.3.4:5" }.encode().unwrap();
    bytes[5] = 3;
    client.session.handle_bytes(&[bytes.as_slice(), &[9, 9, 9]].concat());
    let (id, address, rest) = (NodeId(5), b"1.2.3.4:5".to_vec(), vec![9, 9, 9]);
    assert_eq!(client.settle(), (vec![SessionEvent::PeerUpgrade { id, address, rest }], vec![]));
    assert!(!client.session.wants_read());
}

#[test]
fn a_client_that_sends_far_ahead_is_not_read_until_it_is_answered() {
    let mut client = Client::new();
    client.send(&[Request::Leader]);
    assert_eq!(client.events().len(), 1);
    let ahead = INTERRUPT.encode().unwrap().repeat(CLIENT_PIPELINE_BYTES_MAX / 16);
    client.session.handle_bytes(&ahead[16..]);
    assert!(client.session.wants_read());
    client.session.handle_bytes(&ahead[..16]);
    assert!(!client.session.wants_read());
    client.session.handle_reply(Reply::Failure(failure::EXEC_FAILED));
    assert!(!client.session.wants_read());
    let (events, bytes) = client.settle();
    assert_eq!((events.len(), bytes.len()), (0, 40 + ahead.len()));
    assert!(client.session.wants_read());
}

#[test]
fn names_that_kill_c_nodes_are_not_allowed() {
    let bad = ["", ":memory:", "x-wal", "x-journal", "file:q?mode=memory", "file:%00"];
    let good = ["a/b?c=d", "file:q", "..", ":memory", "wal", "x-wal2", "a file:?"];
    assert!(bad.iter().all(|name| !is_name_allowed(name.as_bytes())));
    assert!(good.iter().all(|name| is_name_allowed(name.as_bytes())));
}

#[test]
fn a_client_that_opened_for_it_is_heard_on_a_node_that_does_not_lead_until_its_database_is_closed() {
    let mut client = Client { leading: false, ..Client::new() };
    for flags in [0, 6, !OPEN_ANYWHERE] {
        let request = Request::Open { filename: b"test", flags, vfs: b"" };
        assert_eq!(client.answer(request), refusal(&failure::NOT_LEADER));
    }
    client.send(&[Request::Open { filename: b"test", flags: OPEN_ANYWHERE, vfs: b"" }]);
    assert_eq!(client.events(), [SessionEvent::Open { name: b"test".to_vec(), anywhere: true }]);
    client.session.handle_reply(Reply::Opened);
    client.written();
    client.run_query();
    client.session.handle_reply(RESULT);
    client.written();
    assert_eq!(client.answer(Request::Remove { id: NodeId(1) }), refusal(&failure::NOT_LEADER));
    assert_eq!(client.answer(exec(0)), refusal(&failure::NO_STATEMENT));
    client.session.handle_database_closed();
    assert_eq!(client.answer(query_sql()), refusal(&failure::NOT_LEADER));
    // What it asked for once does not count any more.
    client.leading = true;
    client.send(&[open()]);
    client.events();
    client.session.handle_reply(Reply::Opened);
    client.written();
    client.leading = false;
    assert_eq!(client.answer(query_sql()), refusal(&failure::NOT_LEADER));
}
