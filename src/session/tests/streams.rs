//! Streams of requests, whole and damaged, cut in every way.

use super::{INTERRUPT, RESULT, exec, open, prepare};
use crate::base::{NodeId, Prng, Role};
use crate::codec::client::{Cell, OwnedParams, PROTOCOL_VERSION, Param, Request, RowsWriter, Schema};
use crate::session::{Reply, Session, SessionEvent, Sql};

/// A node that answers everything at once and always the same way.
fn play(chunks: &[&[u8]]) -> (Vec<SessionEvent>, Vec<u8>) {
    let (mut session, mut events, mut written) = (Session::new(), Vec::new(), Vec::new());
    let (mut parts_left, mut turns) = (0, 0);
    let mut chunks = chunks.iter();
    while let Some(chunk) = chunks.next() {
        session.handle_bytes(chunk);
        loop {
            let event = session.poll_event(true);
            if let Some(SessionEvent::PeerUpgrade { id, address, mut rest }) = event {
                // From here on the bytes are the peer protocol's, those to come too.
                chunks.for_each(|chunk| rest.extend_from_slice(chunk));
                events.push(SessionEvent::PeerUpgrade { id, address, rest });
                return (events, written);
            }
            if let Some(event) = &event {
                if let Some(reply) = reply_to(event, &mut parts_left) {
                    session.handle_reply(reply);
                }
                events.push(event.clone());
            }
            let output = session.output().to_vec();
            session.handle_written(output.len());
            written.extend_from_slice(&output);
            if event.is_none() && output.is_empty() {
                break;
            }
            turns += 1;
            assert!(turns < 100_000, "the session never comes to rest");
        }
    }
    (events, written)
}

fn reply_to(event: &SessionEvent, parts_left: &mut u32) -> Option<Reply> {
    let mut rows = RowsWriter::new(["a"]);
    rows.begin_row();
    rows.push(Cell::Integer(1));
    Some(match event {
        SessionEvent::Leader { .. } => Reply::Server { id: NodeId(1), address: b"a:1".to_vec() },
        SessionEvent::Open { .. } => Reply::Opened,
        SessionEvent::Sql(Sql::Prepare { sql, .. }) => Reply::Prepared { params: 0, tail: sql.len() as u64 },
        SessionEvent::Sql(Sql::Query { .. } | Sql::QuerySql { .. }) => {
            *parts_left = 2;
            Reply::RowsPart(rows.take_part())
        }
        SessionEvent::MoreRows if *parts_left > 1 => {
            *parts_left -= 1;
            Reply::RowsPart(rows.take_part())
        }
        SessionEvent::MoreRows => Reply::Message(rows.finish()),
        SessionEvent::Sql(_) => RESULT,
        SessionEvent::Cluster => Reply::Servers(vec![]),
        SessionEvent::Describe => Reply::Metadata { failure_domain: 1, weight: 2 },
        SessionEvent::Interrupt
        | SessionEvent::RowsAbandoned
        | SessionEvent::PeerUpgrade { .. }
        | SessionEvent::Close(_) => return None,
        SessionEvent::Add { .. }
        | SessionEvent::Assign { .. }
        | SessionEvent::Remove { .. }
        | SessionEvent::Transfer { .. }
        | SessionEvent::Dump { .. }
        | SessionEvent::Weight { .. } => Reply::Empty,
    })
}

/// A stream of requests, all kinds of them, most often after an open.
fn stream(random: &mut Prng) -> Vec<u8> {
    let mut bytes = PROTOCOL_VERSION.to_le_bytes().to_vec();
    bytes.extend(open().encode().unwrap());
    let params =
        OwnedParams::new(&[Param::Integer(1), Param::Text(b"text"), Param::Blob(b"blob"), Param::Null]);
    let (schema, db, sql, params) = (Schema::V1, 0, b"SELECT ?", params.view());
    let id = NodeId(random.below(4));
    let kinds = [
        Request::Leader,
        Request::Client { id: 1 },
        prepare(Schema::V0),
        prepare(Schema::V1),
        exec(0),
        Request::Query { schema, db: 0, stmt: 1, params },
        Request::Finalize { db: 0, stmt: 0 },
        Request::ExecSql { schema: Schema::V0, db, sql, params },
        Request::QuerySql { schema, db, sql, params },
        INTERRUPT,
        Request::Add { id, address: b"b:1" },
        Request::Promote { id },
        Request::Assign { id, role: Role::Spare },
        Request::Remove { id },
        Request::Dump { filename: b"test" },
        Request::Cluster { format: 1 },
        Request::Transfer { id },
        Request::Describe { format: 0 },
        Request::Weight { weight: 1 },
        Request::Connect { id, address: b"c:1" },
    ];
    for _ in 0..random.below(30) {
        // The last kind ends the session, so it is drawn seldom.
        let seldom = random.below(20) == 0;
        let at = random.below(kinds.len() as u64 - u64::from(!seldom));
        bytes.extend(kinds[usize::try_from(at).unwrap()].encode().unwrap());
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Prng) {
    for _ in 0..random.below(6) {
        let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
        match random.below(4) {
            0 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => {
                bytes.remove(at);
            }
            _ => bytes.insert(at, u8::try_from(random.below(21)).unwrap()),
        }
    }
}

#[test]
fn however_the_bytes_are_cut_and_whatever_they_are_the_events_and_answers_are_the_same() {
    let (mut event_count, mut closed) = (0, 0);
    for seed in 0..400 {
        let mut random = Prng::new(seed);
        let mut bytes = stream(&mut random);
        if seed % 4 != 0 {
            mutate(&mut bytes, &mut random);
        }
        let whole = play(&[&bytes]);
        let single: Vec<_> = bytes.chunks(1).collect();
        let size = usize::try_from(random.below(40)).unwrap() + 1;
        let chunks: Vec<_> = bytes.chunks(size).collect();
        assert_eq!(play(&single), whole, "seed {seed}, byte by byte");
        assert_eq!(play(&chunks), whole, "seed {seed}, in chunks of {size}");
        event_count += whole.0.len();
        closed += usize::from(matches!(whole.0.last(), Some(SessionEvent::Close(_))));
        assert!(seed % 4 != 0 || !matches!(whole.0.last(), Some(SessionEvent::Close(_))), "seed {seed}");
    }
    assert!(event_count > 3000 && closed > 50, "{event_count} events, {closed} closed");
}
