use super::{Action, Channel, Outgoing};
use crate::base::limits::{PEER_CLOSED_PAUSE, PEER_DIAL_RETRY, PEER_DIAL_RETRY_MAX};
use crate::base::{Index, Payload, Term, Time};
use crate::codec::peer::{Message, TimeoutNow, encode};

const HOME: &str = "10.0.0.2:9000";

fn channel() -> Channel {
    Channel::new(HOME.to_owned())
}

fn send(channel: &mut Channel, bytes: &[u8]) {
    channel.send(HOME, Outgoing::new(bytes.to_vec()));
}

fn append(head: &[u8], parts: &[&[u8]]) -> Outgoing {
    let payload = Payload::from_parts(parts.iter().map(|part| (*part).into()).collect());
    Outgoing::append(head.to_vec(), std::iter::once(&payload))
}

fn drain(channel: &mut Channel) -> Vec<Action> {
    std::iter::from_fn(|| channel.poll_action()).collect()
}

fn dial(attempt: u64) -> Action {
    Action::Dial { attempt, address: HOME.to_owned() }
}

/// Everything that the channel has for its connection, `at_once` bytes in each write.
fn written(channel: &mut Channel, at_once: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while channel.has_output() {
        let mut slices = Vec::new();
        channel.gather(&mut slices);
        let next: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(at_once).collect();
        channel.handle_written(next.len());
        all.extend(next);
    }
    all
}

fn open() -> Channel {
    let mut channel = channel();
    send(&mut channel, b"first");
    assert_eq!(drain(&mut channel), [dial(1)]);
    assert!(channel.handle_connected(1));
    channel
}

#[test]
fn the_first_message_dials_and_all_leave_in_order_however_the_socket_takes_them() {
    for at_once in [1, 2, 3, 7, 100] {
        let mut channel = channel();
        assert!(channel.is_idle());
        send(&mut channel, b"one ");
        channel.send(HOME, append(b"two ", &[b"thr", b"", b"ee "]));
        send(&mut channel, b"four");
        assert_eq!(drain(&mut channel), [dial(1)]);
        assert!(!channel.has_output(), "there is no connection");
        assert!(channel.handle_connected(1));
        assert_eq!(written(&mut channel, at_once), b"one two three four");
        assert_eq!((channel.waiting, channel.written, channel.begun), (0, 0, false));
        send(&mut channel, b"five");
        assert_eq!(written(&mut channel, at_once), b"five");
        assert_eq!(drain(&mut channel), []);
    }
}

#[test]
fn a_failed_dial_leaves_the_newest_three_and_is_repeated() {
    let mut channel = channel();
    for message in [b"1", b"2", b"3", b"4", b"5", b"6"] {
        send(&mut channel, message);
    }
    assert_eq!(drain(&mut channel), [dial(1)]);
    channel.handle_refused(1, Time(7));
    let again = Time(7).after(PEER_DIAL_RETRY);
    assert_eq!(channel.poll_timeout(), Some(again));
    channel.handle_time(Time(again.0 - 1));
    assert_eq!(drain(&mut channel), []);
    send(&mut channel, b"7");
    channel.handle_time(again);
    assert_eq!((drain(&mut channel), channel.poll_timeout()), (vec![dial(2)], None));
    assert!(channel.handle_connected(2));
    assert_eq!(written(&mut channel, 100), b"4567");
}

/// How long a channel that waits does so, from `now` on; then it dials.
fn waits(channel: &mut Channel, attempt: u64, now: &mut Time) -> u64 {
    let until = channel.poll_timeout().unwrap();
    channel.handle_time(Time(until.0 - 1));
    assert_eq!(drain(channel), []);
    channel.handle_time(until);
    assert_eq!(drain(channel), [dial(attempt)]);
    (until.since(std::mem::replace(now, until)).as_millis()).try_into().unwrap()
}

#[test]
fn the_pause_between_failed_dials_grows_to_a_bound_and_begins_anew_when_a_message_was_written() {
    let (mut channel, mut now) = (channel(), Time(7));
    send(&mut channel, b"one");
    assert_eq!(drain(&mut channel), [dial(1)]);
    let mut pauses = Vec::new();
    for attempt in 1..=6 {
        channel.handle_refused(attempt, now);
        pauses.push(waits(&mut channel, attempt + 1, &mut now));
    }
    assert_eq!(pauses, [100, 200, 400, 500, 500, 500]);
    assert!(PEER_DIAL_RETRY_MAX < PEER_CLOSED_PAUSE, "a peer that stops is left alone for longer");

    // A peer that accepts and reads nothing is not there yet.
    assert!(channel.handle_connected(7));
    channel.handle_broken(now);
    assert_eq!(drain(&mut channel), [Action::HangUp]);
    assert_eq!(waits(&mut channel, 8, &mut now), 500);
    assert!(channel.handle_connected(8));
    assert_eq!(written(&mut channel, 100), b"one");

    send(&mut channel, b"two");
    channel.handle_broken(now);
    assert_eq!(drain(&mut channel), [Action::HangUp, dial(9)]);
    channel.handle_refused(9, now);
    assert_eq!(waits(&mut channel, 10, &mut now), 100);
    // Elsewhere everything is new.
    channel.handle_refused(10, now);
    channel.send("10.0.0.3:9000", Outgoing::new(b"three".to_vec()));
    drain(&mut channel);
    channel.handle_refused(11, now);
    assert_eq!(channel.poll_timeout(), Some(now.after(PEER_DIAL_RETRY)));
}

#[test]
fn an_order_to_lead_does_not_wait_for_a_peer_that_is_away() {
    let order = || {
        let message = TimeoutNow { term: Term(2), last_index: Index(7), last_term: Term(2) };
        Outgoing::encode(&Message::TimeoutNow(message)).unwrap()
    };
    let mut channel = channel();
    send(&mut channel, b"1");
    channel.send(HOME, order());
    assert_eq!(drain(&mut channel), [dial(1)]);
    channel.handle_refused(1, Time(7));
    channel.send(HOME, order());
    send(&mut channel, b"2");
    channel.handle_time(Time(7).after(PEER_DIAL_RETRY));
    assert_eq!(drain(&mut channel), [dial(2)]);
    // This one is for the peer as it is now.
    channel.send(HOME, order());
    assert!(channel.handle_connected(2));
    let mut expected = b"12".to_vec();
    encode(
        &Message::TimeoutNow(TimeoutNow { term: Term(2), last_index: Index(7), last_term: Term(2) }),
        &mut expected,
    )
    .unwrap();
    assert_eq!(written(&mut channel, 100), expected);
}

#[test]
fn appends_that_are_dropped_are_told_of_once_and_other_messages_not_at_all() {
    let mut channel = channel();
    for _ in 0..4 {
        channel.send(HOME, append(b"entries", &[b"data"]));
        send(&mut channel, b"vote");
    }
    assert_eq!(drain(&mut channel), [dial(1)]);
    channel.handle_refused(1, Time(0));
    assert_eq!(drain(&mut channel), [Action::Lost]);
    channel.handle_time(Time(0).after(PEER_DIAL_RETRY));
    assert!(channel.handle_connected(2));
    assert_eq!(written(&mut channel, 100), b"voteentriesdatavote");
}

#[test]
fn an_attempt_that_was_given_up_changes_nothing() {
    let mut channel = channel();
    send(&mut channel, b"old");
    channel.send("10.0.0.3:9000", Outgoing::new(b"new".to_vec()));
    let moved = Action::Dial { attempt: 2, address: "10.0.0.3:9000".to_owned() };
    assert_eq!(drain(&mut channel), [dial(1), moved]);
    assert!(!channel.handle_connected(1), "it leads to the old address");
    channel.handle_refused(1, Time(0));
    assert_eq!(channel.poll_timeout(), None);
    assert!(channel.handle_connected(2));
    assert!(!channel.handle_connected(2), "it is open already");
    assert_eq!(written(&mut channel, 100), b"new");
}

#[test]
fn another_address_ends_the_connection_and_what_waited_for_it() {
    let mut channel = open();
    channel.send(HOME, append(b"entries", &[]));
    channel.send("10.0.0.3:9000", Outgoing::new(b"new".to_vec()));
    let moved = Action::Dial { attempt: 2, address: "10.0.0.3:9000".to_owned() };
    assert_eq!(drain(&mut channel), [Action::HangUp, Action::Lost, moved]);
    assert!(!channel.has_output());
}

#[test]
fn a_broken_connection_costs_the_message_that_was_begun_and_is_replaced_at_once() {
    let mut channel = open();
    channel.send(HOME, append(b"entries", &[b"data"]));
    send(&mut channel, b"last");
    channel.handle_written(5 + 3);
    channel.handle_broken(Time(0));
    assert_eq!(drain(&mut channel), [Action::HangUp, Action::Lost, dial(2)]);
    channel.handle_broken(Time(0));
    assert_eq!(drain(&mut channel), [], "there is none to break");
    assert!(channel.handle_connected(2));
    assert_eq!(written(&mut channel, 100), b"last");
}

#[test]
fn a_message_that_was_not_begun_is_sent_again_when_the_connection_breaks() {
    let mut channel = open();
    channel.send(HOME, append(b"entries", &[b"data"]));
    channel.handle_written(5);
    channel.handle_broken(Time(0));
    assert_eq!(drain(&mut channel), [Action::HangUp, dial(2)]);
    assert!(channel.handle_connected(2));
    assert_eq!(written(&mut channel, 100), b"entriesdata");
}

#[test]
fn a_peer_that_has_closed_its_side_is_dialed_with_the_second_message_or_a_second_later() {
    let closed = || {
        let mut channel = open();
        assert_eq!(written(&mut channel, 100), b"first");
        channel.handle_broken(Time(3));
        assert_eq!(drain(&mut channel), [Action::HangUp]);
        send(&mut channel, b"next ");
        assert_eq!(drain(&mut channel), [], "it stops, probably");
        channel
    };
    let mut second = closed();
    send(&mut second, b"and on");
    assert_eq!(drain(&mut second), [dial(2)]);
    assert!(second.handle_connected(2));
    assert_eq!(written(&mut second, 100), b"next and on");

    let mut later = closed();
    assert_eq!(later.poll_timeout(), Some(Time(3).after(PEER_CLOSED_PAUSE)));
    later.handle_time(Time(3).after(PEER_CLOSED_PAUSE));
    assert_eq!(drain(&mut later), [dial(2)]);

    let mut heard = closed();
    heard.handle_heard();
    heard.handle_time(Time(4));
    assert_eq!(drain(&mut heard), [dial(2)], "it is there again");
}

#[test]
fn a_channel_of_a_peer_that_has_closed_its_side_becomes_idle() {
    let mut channel = open();
    assert_eq!(written(&mut channel, 100), b"first");
    channel.handle_broken(Time(3));
    assert!(!channel.is_idle());
    channel.handle_time(Time(3).after(PEER_CLOSED_PAUSE));
    assert!(channel.is_idle());
    assert_eq!(channel.poll_timeout(), None);
}

#[test]
fn a_peer_that_closes_whatever_it_accepts_is_not_dialed_in_a_circle() {
    let mut channel = open();
    channel.handle_broken(Time(5));
    assert_eq!(drain(&mut channel), [Action::HangUp]);
    assert_eq!(channel.poll_timeout(), Some(Time(5).after(PEER_DIAL_RETRY)));
}

#[test]
fn a_peer_that_connects_to_us_is_dialed_without_waiting() {
    let mut channel = channel();
    send(&mut channel, b"x");
    channel.handle_refused(1, Time(0));
    drain(&mut channel);
    channel.handle_heard();
    channel.handle_time(Time(1));
    assert_eq!(drain(&mut channel), [dial(2)]);
    channel.handle_heard();
    channel.handle_time(Time(2));
    assert_eq!(drain(&mut channel), [], "an attempt is under way");
}

#[test]
fn entries_that_find_no_room_count_as_lost_and_one_message_may_be_of_any_size() {
    let mut channel = channel();
    let large = vec![7; 32 << 20];
    channel.send(HOME, append(b"large", &[&large]));
    assert_eq!(drain(&mut channel), [dial(1)]);
    for _ in 0..5 {
        channel.send(HOME, append(b"more", &[b"data"]));
        send(&mut channel, b"answer");
    }
    assert_eq!(drain(&mut channel), [Action::Lost], "answers always find room");
    assert!(channel.handle_connected(1));
    assert_eq!(written(&mut channel, 1 << 20).len(), 5 + large.len() + 5 * 6);
    channel.send(HOME, append(b"more", &[b"data"]));
    assert_eq!(drain(&mut channel), []);
}

#[test]
fn of_too_many_messages_the_oldest_go_but_never_one_that_was_begun() {
    let mut channel = open();
    channel.handle_written(2);
    for number in 0..1034_usize {
        channel.send(HOME, append(&[number.to_le_bytes()[0]], &[]));
    }
    assert_eq!(channel.queue.len(), 1024);
    assert_eq!(drain(&mut channel), [Action::Lost]);
    let left = written(&mut channel, 100);
    assert_eq!(left[..4], [b'r', b's', b't', 11]);
    assert_eq!(left.len(), 3 + 1023);
}
