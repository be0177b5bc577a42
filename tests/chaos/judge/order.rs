//! I4: of one session, what was accepted before the next request was sent comes before it, and
//! what stands before it in one array does too. Only first deliveries count, in the queue that is
//! bound to all exchanges; an event that was ever unrouted has no place in that queue.

use std::collections::BTreeMap;

use super::{Findings, Index, Invariant, is_genuine, is_of};
use crate::event::Event;
use crate::ledger::Queue;

/// Where the events of one session stand so far.
#[derive(Default)]
struct Progress {
    /// The last place of an event of an earlier request that was accepted in time.
    accepted: Option<u32>,
    accepted_by: u64,
    /// The same within this request.
    array: Option<u32>,
    request: usize,
    /// Places of earlier requests, with the time each was accepted.
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
            // One sender sends the requests of a session one after the other.
            if let Some((accepted, before)) = progress.waiting
                && accepted <= request.begin()
            {
                progress.accepted = progress.accepted.max(Some(before));
                progress.accepted_by = accepted;
            }
            progress.waiting = None;
        }
        if progress.accepted.is_some_and(|before| before > place) {
            let what = "it came before an event that had been accepted before it was sent";
            findings.add(Invariant::I4Order, Some(event), what);
        }
        if progress.array.is_some_and(|before| before > place) {
            let what = "it came before one that stands before it in the array";
            findings.add(Invariant::I4Order, Some(event), what);
        }
        progress.array = progress.array.max(Some(place));
        if let Some(accepted) = request.accepted_at() {
            let last = progress.waiting.map_or(place, |(_, last)| last.max(place));
            progress.waiting = Some((accepted, last));
        }
    }
}

/// The place of its first delivery, unless it was unrouted.
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
