//! Each event by itself: a stored event is delivered (I1), nothing else is (I2, I3), an event has
//! one id (I5), an array is stored completely or not at all (I7), every message is correct (I8).

use std::collections::HashMap;

use super::{Caps, Findings, Index, Invariant, is_forged, is_genuine, may_be_held};
use crate::event::Event;
use crate::ledger::{Outcome, Queue, Request};
use crate::schedule::Kind;

/// Faults that remove bindings for a while, so that an event reaches only some queues.
const UNBINDING: &[Kind] = &[Kind::ExchangeDeleted, Kind::BindingDeleted, Kind::Returned];
/// Faults of the disk, the only faults that excuse a 503.
const DISK: &[Kind] = &[Kind::BacklogFull, Kind::FsyncSlow, Kind::FsyncFails];

/// Faults of the bridge itself, which delay answers.
const HOLDING_UP: &[Kind] = &[
    Kind::BridgeKill,
    Kind::BridgeStorm,
    Kind::BridgeTerminate,
    Kind::BridgeFreeze,
    Kind::BacklogFull,
    Kind::FsyncSlow,
    Kind::FsyncFails,
];

pub(super) fn judge(index: &Index, caps: &Caps, findings: &mut Findings) {
    for request in &index.history.requests {
        judge_request(index, request, findings);
        judge_answers(index, caps, request, findings);
    }
    judge_deliveries(index, findings);
    for (code, count) in &index.history.forged {
        if (200..300).contains(code) {
            findings.add(
                Invariant::I3Unauthenticated,
                None,
                format!("{count} forged requests were answered {code}"),
            );
        }
    }
    if index.history.ending.has_forged_bytes {
        let what = "a marker of a forged request is in the journal's files";
        findings.add(Invariant::I3Unauthenticated, None, what);
    }
}

fn judge_request(index: &Index, request: &Request, findings: &mut Findings) {
    findings.counts.requests += 1;
    let is_accepted = request.accepted_at().is_some();
    let may_be_held = is_accepted || may_be_held(index, request);
    let mut arrived = 0;
    for event in &request.events {
        let anywhere = index.deliveries(*event).next().is_some();
        arrived += usize::from(anywhere);
        if is_accepted {
            findings.counts.accepted += 1;
            if !anywhere {
                let what = "it was accepted and never delivered";
                findings.add(Invariant::I1NoLoss, Some(*event), what);
            }
        } else if anywhere && !may_be_held {
            let what = "every attempt was refused, but it was delivered";
            findings.add(Invariant::I7WholeArrays, Some(*event), what);
        }
        if anywhere {
            judge_queues(index, *event, request, findings);
        }
    }
    if !is_accepted && arrived > 0 && arrived < request.events.len() {
        let what = format!(
            "only {arrived} of {} events of its array arrived",
            request.events.len()
        );
        findings.add(
            Invariant::I7WholeArrays,
            request.events.first().copied(),
            what,
        );
    }
}

/// The event must be in both queues bound for it, unless bindings were missing while it was in
/// flight.
fn judge_queues(index: &Index, event: Event, request: &Request, findings: &mut Findings) {
    let is_in = |wanted: fn(Queue) -> bool| {
        index
            .deliveries(event)
            .any(|(_, delivery)| wanted(delivery.queue))
    };
    let (all, audit) = (
        is_in(|queue| queue == Queue::All),
        is_in(|queue| matches!(queue, Queue::Audit(_))),
    );
    if all && audit {
        return;
    }
    let last = index.deliveries(event).map(|(_, delivery)| delivery.at);
    let last = last.max().unwrap_or(0);
    if !index.is_during(request.begin(), last, UNBINDING) {
        let what = "one of the queues bound for it did not get it";
        findings.add(Invariant::I1NoLoss, Some(event), what);
    }
}

fn judge_answers(index: &Index, caps: &Caps, request: &Request, findings: &mut Findings) {
    for attempt in &request.attempts {
        let took = attempt.end - attempt.begin;
        let is_held_up = index.is_during(attempt.begin, attempt.end, HOLDING_UP);
        if took > caps.answer && !is_held_up {
            findings.add(
                Invariant::Answers,
                request.events.first().copied(),
                format!(
                    "an authentic request waited for {took} µs: {:?}",
                    attempt.outcome
                ),
            );
        }
        match attempt.outcome {
            Outcome::Ok => {
                let longest = &mut findings.counts.answer_max;
                if took > *longest && !is_held_up {
                    *longest = took;
                }
            }
            Outcome::Info => {
                findings.counts.infos += 1;
                findings.counts.cut_off += u64::from(!is_held_up);
            }
            Outcome::Fail(code) => {
                *findings.counts.refusals.entry(code).or_default() += 1;
                let is_excused = code == 503 && index.is_during(attempt.begin, attempt.end, DISK);
                if !is_excused {
                    findings.add(
                        Invariant::Answers,
                        request.events.first().copied(),
                        format!("an authentic request was answered {code}"),
                    );
                }
            }
        }
    }
}

fn judge_deliveries(index: &Index, findings: &mut Findings) {
    let mut owners: HashMap<u128, Event> = HashMap::new();
    let mut ids: HashMap<Event, u128> = HashMap::new();
    for delivery in &index.history.deliveries {
        findings.counts.deliveries += 1;
        findings.counts.redeliveries += u64::from(delivery.is_redelivered);
        findings.counts.unrouted += u64::from(delivery.queue == Queue::Unrouted);
        if let Some(flaw) = &delivery.flaw {
            findings.add(Invariant::I8Routing, delivery.event, flaw.to_string());
        }
        if delivery.queue == Queue::DeadLetter {
            let what = "it was dead-lettered without a reason";
            findings.add(Invariant::I1NoLoss, delivery.event, what);
        }
        let Some(event) = delivery.event else {
            let what = format!("nobody sent message {:032x}", delivery.message_id);
            findings.add(Invariant::I2NothingInvented, None, what);
            continue;
        };
        if is_forged(event) {
            let what = "it was forged, but delivered";
            findings.add(Invariant::I3Unauthenticated, Some(event), what);
        } else if !is_genuine(event) || !index.stories.contains_key(&event) {
            let what = "it was never sent completely, but delivered";
            findings.add(Invariant::I2NothingInvented, Some(event), what);
        }
        if *owners.entry(delivery.message_id).or_insert(event) != event {
            let what = "another event has the same message_id";
            findings.add(Invariant::I5Identity, Some(event), what);
        }
        if *ids.entry(event).or_insert(delivery.message_id) != delivery.message_id {
            let what = "it has two message_ids";
            findings.add(Invariant::I5Identity, Some(event), what);
        }
    }
}
