//! What raft-rs 0.7.0 does wrong and later versions do not, each as a scenario that the rules of the adapter keep from
//! happening.

use raft::eraftpb::MessageType;

use super::harness::*;
use crate::base::{Entry, EntryKind, Index, NodeId, Payload};
use crate::codec::peer::Message;
use crate::consensus::Effect;
use crate::consensus::inbound::raft_message;

/// Server 1 leads term 2; server 3 has all up to entry 5, its connection broke, and it is probed.
fn probing() -> Node {
    let mut node = leader();
    node.receive(3, result(2, 0, 2));
    for number in 3..=5 {
        node.propose(number);
    }
    node.persist_all();
    node.receive(3, result(2, 0, 5));
    node.consensus.handle_send_failed(NodeId(3));
    node.poll();
    node.take_sent();
    let progress = node.progress(3);
    assert_eq!((progress.matched, progress.next_idx), (5, 6));
    assert_eq!(progress.state, raft::ProgressState::Probe);
    node
}

/// tikv/raft-rs #557: a refusal from before the peer caught up moves a probe to what the peer is known to have.
#[test]
fn a_late_refusal_does_not_move_a_probe_behind_what_is_known_to_be_stored() {
    // What raft-rs makes of it.
    let mut node = probing();
    let mut late = raft_message(MessageType::MsgAppendResponse, NodeId(3), NodeId(1), node.consensus.term());
    (late.index, late.reject, late.reject_hint) = (5, true, 2);
    node.consensus.raw.as_mut().unwrap().step(late).unwrap();
    let progress = node.progress(3);
    assert!(progress.next_idx <= progress.matched, "raft-rs is cured, and so needs no rule: {progress:?}");
    // And with the rule, whatever is refused and hinted at.
    for rejected in 1..=7 {
        for hint in 0..=7 {
            let mut node = probing();
            node.receive(3, result(2, rejected, hint));
            let progress = node.progress(3);
            assert_eq!((progress.matched, progress.next_idx), (5, 6), "{rejected} refused, hint {hint}");
            for (_, message) in node.take_sent() {
                let Message::AppendEntries(it) = message else { panic!("{message:?}") };
                assert!(it.prev_index >= Index(5), "stored entries are sent again: {it:?}");
            }
        }
    }
}

/// Entries from 2 to `last`, of a mebibyte each, all the same one.
fn large_entries(last: u64) -> Vec<Entry> {
    let payload = Payload::from_bytes(&vec![7; 1 << 20]);
    (2..=last).map(|index| entry(index, 1, EntryKind::Command, payload.clone())).collect()
}

/// tikv/raft-rs #530: who campaigns looks for configurations among all that is committed and not applied, in one slice.
/// What it gets are handles: had they payloads, this would take a hundred gigabytes. And the slice always succeeds.
#[test]
fn who_campaigns_with_a_long_log_that_is_not_applied_needs_no_memory_for_it() {
    const LAST: u64 = 100_000;
    for commit in [1, LAST] {
        let mut node = Node::start(config(1), Stored::fresh(&voters(&[1, 2, 3])));
        let message = append(1, (1, 1), commit, &large_entries(LAST));
        node.consensus.handle_peer(NodeId(2), "node-2", message, node.now);
        let (mut handed_out, mut asked) = (0, 0);
        for _ in 0..200 {
            while let Some(effect) = node.consensus.poll_effect() {
                match effect {
                    Effect::Persist { ticket, .. } => node.consensus.handle_persisted(ticket),
                    // The state machine does not get to it.
                    Effect::Apply { entries } => handed_out += entries.len() as u64,
                    Effect::Send { message: Message::RequestVote(it), .. } => {
                        assert_eq!(it.last_index, Index(LAST));
                        asked += 1;
                    }
                    _ => {}
                }
            }
            node.now = node.now.after(HEARTBEAT / 5);
            node.consensus.handle_time(node.now);
        }
        assert_eq!((handed_out, node.consensus.applied_index()), (commit - 1, Index(1)));
        assert!(asked > 0, "it campaigns all the same");
        assert_eq!(node.consensus.unavailable(), None);
        // What raft-rs was given for it.
        let raw = node.consensus.raw.as_ref().unwrap();
        let context = raft::GetEntriesContext::empty(false);
        let handles = raw.raft.raft_log.slice(2, LAST + 1, None, context).unwrap();
        let bytes: usize = handles.iter().map(|it| it.data.len() + it.context.len()).sum();
        assert!(bytes <= 10 * handles.len(), "{bytes} bytes for {} entries", handles.len());
    }
}
