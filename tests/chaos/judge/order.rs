//! I4: within a session, an event that was accepted before the next request was sent is delivered
//! before it, and the events of one array are delivered in their order. Only first deliveries
//! count, in the queue that is bound to all exchanges. An event that was ever unrouted has no
//! position in that queue.

use std::collections::BTreeMap;

use super::{Findings, Index, Invariant, is_genuine, is_of};
use crate::event::Event;
use crate::ledger::Queue;

/// The positions of the events of one session so far.
#[derive(Default)]
struct Progress {
    /// The last position of an event of an earlier request that was accepted before this one was
    /// sent.
    accepted: Option<u32>,
    accepted_by: u64,
    /// The last position within this request.
    array: Option<u32>,
    request: usize,
    /// The last position of the previous request, and when that request was accepted.
    waiting: Option<(u64, u32)>,
}

pub(super) fn judge(index: &Index, findings: &mut Findings) {
    let mut sessions: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for event in index.stories.keys().filter(|event| is_genuine(**event)) {
        sessions.entry(event.session).or_default().push(event.seq);
    }
    for (session, mut seqs) in sessions {
        seqs.sort_unstable();
        judge_session(index, session, &seqs, findings);
    }
}

fn judge_session(index: &Index, session: u32, seqs: &[u32], findings: &mut Findings) {
    let mut progress = Progress::default();
    for seq in seqs {
        let event = Event { session, seq: *seq };
        let Some(place) = place(index, event) else {
            continue;
        };
        let number = index.stories[&event].request;
        let request = &index.history.requests[number];
        if progress.request != number {
            progress.request = number;
            progress.array = None;
            // A session has one sender, which sends its requests one after the other.
            if let Some((accepted, before)) = progress.waiting
                && accepted <= request.begin()
            {
                progress.accepted = progress.accepted.max(Some(before));
                progress.accepted_by = accepted;
            }
            progress.waiting = None;
        }
        if progress.accepted.is_some_and(|before| before > place) {
            let what = "it arrived before an event that was accepted before it was sent";
            findings.add(Invariant::I4Order, Some(event), what);
        }
        if progress.array.is_some_and(|before| before > place) {
            let what = "it arrived before an earlier event of its array";
            findings.add(Invariant::I4Order, Some(event), what);
        }
        progress.array = progress.array.max(Some(place));
        if let Some(accepted) = request.accepted_at() {
            let last = progress.waiting.map_or(place, |(_, last)| last.max(place));
            progress.waiting = Some((accepted, last));
        }
    }
}

/// The position of its first delivery, unless it was unrouted.
fn place(index: &Index, event: Event) -> Option<u32> {
    if index
        .deliveries(event)
        .any(|one| is_of(Queue::Unrouted)(&one))
    {
        return None;
    }
    let first = index.deliveries(event).find(is_of(Queue::All));
    first.map(|(position, _)| position)
}
