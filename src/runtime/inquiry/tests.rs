use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::*;
use crate::base::Role;
use crate::codec::client::Response;
use crate::runtime::client::tests::answering;

const PATIENCE: Duration = Duration::from_secs(30);

fn servers(ids: &[u64]) -> Vec<Server> {
    ids.iter().map(|&id| Server { id: NodeId(id), address: format!("node{id}"), role: Role::Voter }).collect()
}

fn described(id: u64) -> Response<'static> {
    Response::Metadata { failure_domain: id, weight: id * 10 }
}

/// Node 1 answers, node 2 cannot be reached, whatever is connected to node 3 stays silent; the rest answer a failure.
fn mixed() -> Connector {
    let silent = Mutex::new(Vec::new());
    Connector::new(move |address| match address {
        "node1" => answering(vec![described(1)]).connect(address).map_err(|_| 16),
        "node2" => Err(16),
        "node3" => {
            let (near, far) = UnixStream::pair().map_err(|_| 16)?;
            silent.lock().unwrap().push(far);
            Ok(OwnedFd::from(near))
        }
        _ => {
            let failure = Response::Failure { code: 15, text: b"bad format version" };
            answering(vec![failure]).connect(address).map_err(|_| 16)
        }
    })
}

#[test]
fn who_answers_in_time_is_described_and_who_does_not_is_left_out() {
    let inquiry = Inquiry::new(mixed());
    let answers = inquiry.ask(&servers(&[1, 2, 4]), PATIENCE);
    let expected = Metadata { failure_domain: 1, weight: 10 };
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), [(NodeId(1), expected)]);

    let answers = inquiry.ask(&servers(&[1, 3]), Duration::from_millis(300));
    assert!(!answers.contains_key(&NodeId(3)));
    inquiry.stop(PATIENCE);
}

#[test]
fn more_servers_than_threads_all_have_their_turn() {
    let connector = Connector::new(|address| {
        let id = address.trim_start_matches("node").parse().map_err(|_| 16)?;
        answering(vec![described(id)]).connect(address).map_err(|_| 16)
    });
    let ids: Vec<u64> = (1..=3 * INQUIRY_THREADS_MAX as u64).collect();
    let inquiry = Inquiry::new(connector);
    assert_eq!(inquiry.ask(&servers(&ids), PATIENCE).len(), ids.len());
    inquiry.stop(PATIENCE);
}

#[test]
fn a_connect_function_that_hangs_is_called_for_one_server_only_so_often() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let (enter, entered) = crossbeam_channel::unbounded();
    let connector = Connector::new(move |_| {
        enter.send(()).map_err(|_| 16)?;
        // Ends when the test drops its side.
        let _ = released.recv();
        Err(16)
    });
    let inquiry = Inquiry::new(connector);
    for _ in 0..INQUIRIES_PER_SERVER_MAX {
        let asking = inquiry.clone();
        let wait = crate::runtime::threads::start("test-ask", move || {
            assert!(asking.ask(&servers(&[1]), Duration::from_millis(50)).is_empty());
        });
        entered.recv_timeout(PATIENCE).unwrap();
        wait.unwrap().join().unwrap();
    }
    assert!(inquiry.ask(&servers(&[1]), PATIENCE).is_empty(), "at once, with nobody asked");
    assert!(entered.try_recv().is_err());

    // A stop does not wait for ever, and does wait.
    inquiry.stop(Duration::from_millis(1));
    drop(release);
    inquiry.stop(PATIENCE);
    assert_eq!(inquiry.calls.running(), 0);
    assert!(inquiry.under_way().0.is_empty());
}

#[test]
fn a_stop_ends_the_wait_for_silent_servers() {
    let inquiry = Inquiry::new(mixed());
    let asking = inquiry.clone();
    let wait = crate::runtime::threads::start("test-ask", move || {
        assert!(asking.ask(&servers(&[3]), Duration::from_secs(3600)).is_empty());
    });
    inquiry.stop(PATIENCE);
    wait.unwrap().join().unwrap();
    assert!(inquiry.ask(&servers(&[1]), PATIENCE).is_empty(), "nobody is asked any more");
}
