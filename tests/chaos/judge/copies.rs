//! I6: every duplicate has a cause, and there are no more of them than messages were in flight.

use super::{Caps, Findings, Index, Invariant, is_of};
use crate::ledger::{Outcome, Queue, Request};
use crate::schedule::Kind;

/// Refused messages are published again for as long as the refusal lasts, without a limit.
const REFUSING: &[Kind] = &[Kind::QueueFull, Kind::Returned];

pub(super) fn judge(index: &Index, caps: &Caps, findings: &mut Findings) {
    let mut unbounded = 0;
    let mut repeated = 0;
    for (event, story) in &index.stories {
        let request = &index.history.requests[story.request];
        for queue in queues(index, *event) {
            let copies = index.deliveries(*event).filter(is_of(queue));
            let copies: Vec<_> = copies
                .filter(|(_, delivery)| !delivery.is_redelivered)
                .collect();
            let count = copies.len() as u64;
            if count < 2 {
                continue;
            }
            let sent = sent(request);
            let by_bridge = count.saturating_sub(sent.max(1));
            if queue == Queue::All {
                findings.counts.duplicates += count - 1;
                findings.counts.sent_twice += count - 1 - by_bridge;
            }
            if by_bridge == 0 {
                continue;
            }
            let (from, to) = (request.begin(), copies[copies.len() - 1].1.at);
            let kinds = index.kinds_during(from, to);
            if kinds.is_empty() {
                let what = format!("{count} copies in {queue:?} without a fault");
                findings.add(Invariant::I6CausedDuplicates, Some(*event), what);
            }
            if queue != Queue::All {
                continue;
            }
            for kind in &kinds {
                *findings.counts.causes.entry(*kind).or_default() += by_bridge;
            }
            if kinds.iter().any(|kind| REFUSING.contains(kind)) {
                unbounded += by_bridge;
            } else {
                repeated += by_bridge;
            }
        }
    }
    let interruptions = index.history.ending.interruptions;
    let most = interruptions * caps.in_flight;
    if repeated > most {
        let what = format!(
            "{repeated} copies (and {unbounded} of refused messages) for {interruptions} \
             interruptions with {} in flight at most",
            caps.in_flight
        );
        findings.add(Invariant::I6CausedDuplicates, None, what);
    }
}

fn queues(index: &Index, event: crate::event::Event) -> Vec<Queue> {
    let mut queues: Vec<_> = index
        .deliveries(event)
        .map(|(_, delivery)| delivery.queue)
        .collect();
    queues.sort_unstable();
    queues.dedup();
    queues
}

/// How often the event may be stored: once for every attempt that was not refused.
fn sent(request: &Request) -> u64 {
    let held = request
        .attempts
        .iter()
        .filter(|attempt| matches!(attempt.outcome, Outcome::Ok | Outcome::Info));
    held.count() as u64
}
