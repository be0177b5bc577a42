//! Handmade histories: a good one, and for each invariant one that violates this invariant only.
//! The judge must detect each.

use super::{Caps, Findings, Invariant, judge};
use crate::event::{Event, FORGED, INCOMPLETE};
use crate::ledger::{
    Account, Attempt, Delivery, Ending, History, Injection, Micros, Outcome, Queue, Request,
    Strangers,
};
use crate::schedule::Kind;

const CAPS: Caps = Caps {
    rss_bytes: 100,
    descriptors: 100,
    journal_bytes: 100,
    in_flight: 4,
    answer: 100,
};

fn event(session: u32, seq: u32) -> Event {
    Event { session, seq }
}

fn id(event: Event) -> u128 {
    u128::from(event.session) << 32 | u128::from(event.seq)
}

/// A hundred accepted requests of one event each and one request of three events, all delivered at
/// once.
fn good() -> History {
    let mut history = History::default();
    for session in 0..100 {
        accept(&mut history, &[event(session, 1)]);
    }
    accept(&mut history, &[event(200, 1), event(200, 2), event(201, 1)]);
    let accepted = 103;
    let account = Account {
        at: 0,
        accepted,
        published: accepted,
        dead_lettered: 0,
        backlog: 0,
    };
    history.accounts.push(account);
    history.ending = Ending {
        account,
        probe: Some(5),
        probe_limit: 10,
        interruptions: 1,
        ..Ending::default()
    };
    history
}

/// Each event is sent, accepted and delivered, one after the other.
fn accept(history: &mut History, events: &[Event]) {
    let begin = history.requests.len() as Micros * 1000;
    history.requests.push(Request {
        events: events.to_vec(),
        attempts: vec![Attempt {
            begin,
            end: begin + 10,
            outcome: Outcome::Ok,
        }],
    });
    for event in events {
        deliver(history, *event, begin + 20);
    }
}

/// Delivers to the queue that receives everything and to that of the event's exchange.
fn deliver(history: &mut History, event: Event, at: Micros) {
    for queue in [Queue::All, Queue::Audit(0)] {
        history.deliveries.push(delivery(event, queue, at));
    }
}

fn delivery(event: Event, queue: Queue, at: Micros) -> Delivery {
    Delivery {
        queue,
        at,
        event: Some(event),
        message_id: id(event),
        is_redelivered: false,
        flaw: None,
    }
}

fn injection(kind: Kind, begin: Micros, end: Micros) -> Injection {
    Injection {
        kind,
        begin,
        end,
        evidence: Ok("seen".into()),
    }
}

fn without(history: &mut History, gone: Event) {
    history
        .deliveries
        .retain(|delivery| delivery.event != Some(gone));
}

fn last_request(history: &mut History) -> &mut Request {
    history.requests.last_mut().unwrap()
}

/// The bridge counts this number of further events as accepted and published.
fn book(history: &mut History, events: u64) {
    history.ending.account.accepted += events;
    history.ending.account.published += events;
}

fn judged(spoil: impl FnOnce(&mut History)) -> Findings {
    let mut history = good();
    spoil(&mut history);
    judge(&history, &CAPS)
}

#[track_caller]
fn passes(spoil: impl FnOnce(&mut History)) -> Findings {
    let findings = judged(spoil);
    assert_eq!(findings.verdict(), "PASS", "{findings:#?}");
    findings
}

/// Panics unless this invariant is violated, and no other.
#[track_caller]
fn violates(invariant: Invariant, spoil: impl FnOnce(&mut History)) {
    let findings = judged(spoil);
    let found = findings.violations.iter();
    let found: Vec<_> = found.map(|violation| violation.invariant).collect();
    assert!(
        !found.is_empty() && found.iter().all(|one| *one == invariant),
        "{findings:#?}"
    );
}

#[test]
fn good_history_passes() {
    let findings = passes(|_| {});
    assert_eq!(findings.counts.accepted, 103);
    assert_eq!(findings.counts.duplicates, 0);
}

#[test]
fn i1_missing_accepted_event_is_lost() {
    violates(Invariant::I1NoLoss, |history| without(history, event(7, 1)));
    violates(Invariant::I1NoLoss, |history| {
        without(history, event(200, 2));
    });
}

#[test]
fn i1_event_in_one_queue_only_is_lost() {
    let half = |history: &mut History| {
        history
            .deliveries
            .retain(|delivery| delivery.event != Some(event(7, 1)) || delivery.queue != Queue::All);
    };
    violates(Invariant::I1NoLoss, half);
    passes(|history| {
        half(history);
        let fault = injection(Kind::Returned, 7_005, 7_015);
        history.injections.push(fault);
    });
}

#[test]
fn i1_dead_letter_is_no_delivery() {
    violates(Invariant::I1NoLoss, |history| {
        without(history, event(7, 1));
        let letter = delivery(event(7, 1), Queue::DeadLetter, 7_020);
        history.deliveries.push(letter);
    });
}

#[test]
fn i2_unsent_event_is_invented() {
    violates(Invariant::I2NothingInvented, |history| {
        deliver(history, event(900, 1), 5);
    });
    violates(Invariant::I2NothingInvented, |history| {
        deliver(history, event(INCOMPLETE + 1, 1), 5);
    });
    violates(Invariant::I2NothingInvented, |history| {
        let mut nonsense = delivery(event(0, 0), Queue::All, 5);
        (nonsense.event, nonsense.message_id) = (None, 5);
        history.deliveries.push(nonsense);
    });
}

#[test]
fn i3_forged_event_is_a_violation() {
    violates(Invariant::I3Unauthenticated, |history| {
        deliver(history, event(FORGED, 1), 5);
    });
    violates(Invariant::I3Unauthenticated, |history| {
        history.forged.insert(202, 1);
    });
    violates(Invariant::I3Unauthenticated, |history| {
        history.ending.has_forged_bytes = true;
    });
    passes(|history| {
        history.forged.insert(401, 50);
    });
}

#[test]
fn i4_events_of_one_array_stay_in_order() {
    violates(Invariant::I4Order, |history| {
        without(history, event(200, 1));
        deliver(history, event(200, 1), 1_000_000);
    });
}

#[test]
fn i4_earlier_request_comes_first() {
    violates(Invariant::I4Order, |history| {
        accept(history, &[event(300, 1)]);
        accept(history, &[event(300, 2)]);
        without(history, event(300, 1));
        deliver(history, event(300, 1), 1_000_000);
        book(history, 2);
    });
}

#[test]
fn i4_request_before_the_last_comes_first() {
    violates(Invariant::I4Order, |history| {
        accept(history, &[event(300, 1)]);
        accept(history, &[event(300, 2)]);
        without(history, event(300, 2));
        last_request(history).attempts[0].outcome = Outcome::Info;
        accept(history, &[event(300, 3)]);
        without(history, event(300, 1));
        deliver(history, event(300, 1), 1_000_000);
        book(history, 2);
    });
}

#[test]
fn i4_unknown_outcome_has_no_order() {
    passes(|history| {
        accept(history, &[event(300, 1)]);
        last_request(history).attempts[0].outcome = Outcome::Info;
        accept(history, &[event(300, 2)]);
        without(history, event(300, 1));
        deliver(history, event(300, 1), 1_000_000);
        book(history, 2);
    });
}

#[test]
fn i4_only_first_deliveries_are_ordered() {
    passes(|history| {
        accept(history, &[event(300, 1)]);
        last_request(history).attempts.push(Attempt {
            begin: 101_500,
            end: 101_510,
            outcome: Outcome::Ok,
        });
        accept(history, &[event(300, 2)]);
        deliver(history, event(300, 1), 1_000_000);
        book(history, 3);
    });
}

#[test]
fn i5_event_and_id_correspond() {
    violates(Invariant::I5Identity, |history| {
        history.injections.push(injection(Kind::CutReset, 0, 1));
        deliver(history, event(7, 1), 7_030);
        history.deliveries.last_mut().unwrap().message_id = 999_999;
    });
    violates(Invariant::I5Identity, |history| {
        for delivery in &mut history.deliveries {
            if delivery.event == Some(event(7, 1)) {
                delivery.message_id = id(event(8, 1));
            }
        }
    });
}

#[test]
fn i6_duplicate_needs_a_cause() {
    let copy = |history: &mut History| deliver(history, event(7, 1), 7_030);
    violates(Invariant::I6CausedDuplicates, copy);
    let findings = passes(|history| {
        copy(history);
        history.injections.push(injection(Kind::CutReset, 0, 7_010));
    });
    assert_eq!(findings.counts.causes[&Kind::CutReset], 1);
    // The sender sent it twice, which is allowed.
    passes(|history| {
        copy(history);
        let attempt = Attempt {
            begin: 7_011,
            end: 7_012,
            outcome: Outcome::Info,
        };
        history.requests[7].attempts.push(attempt);
    });
    // The broker redelivered it: no error of the bridge.
    passes(|history| {
        copy(history);
        for delivery in history.deliveries.iter_mut().rev().take(2) {
            delivery.is_redelivered = true;
        }
    });
}

#[test]
fn i6_duplicates_are_bounded_by_in_flight() {
    let copies = |history: &mut History, events: u32| {
        history.injections.push(injection(Kind::CutReset, 0, 7_010));
        for session in 0..events {
            deliver(history, event(session, 1), 200_000);
        }
    };
    passes(|history| copies(history, 4));
    violates(Invariant::I6CausedDuplicates, |history| copies(history, 5));
}

#[test]
fn i7_partial_and_refused_arrays_are_violations() {
    violates(Invariant::I7WholeArrays, |history| {
        last_request(history).attempts[0].outcome = Outcome::Info;
        without(history, event(200, 2));
    });
    let refused = |history: &mut History| {
        history.requests[7].attempts[0].outcome = Outcome::Fail(503);
        history
            .injections
            .push(injection(Kind::BacklogFull, 0, 1_000_000));
        history.ending.account.accepted -= 1;
        history.ending.account.published -= 1;
    };
    violates(Invariant::I7WholeArrays, refused);
    passes(|history| {
        refused(history);
        without(history, event(7, 1));
    });
}

#[test]
fn i8_message_properties_are_checked() {
    violates(Invariant::I8Routing, |history| {
        history.deliveries[9].flaw = Some("its routing key is another one".into());
    });
}

#[test]
fn i10_memory_descriptors_and_journal_are_bounded() {
    violates(Invariant::I10Bounded, |h| h.peaks.rss_bytes = 101);
    violates(Invariant::I10Bounded, |h| h.peaks.descriptors = 101);
    violates(Invariant::I10Bounded, |h| h.peaks.journal_bytes = 101);
    violates(Invariant::I10Bounded, |h| h.ending.descriptors = (20, 40));
}

#[test]
fn i11_events_flow_after_the_last_fault() {
    violates(Invariant::I11Liveness, |h| h.ending.probe = None);
    violates(Invariant::I11Liveness, |h| h.ending.probe = Some(11));
    violates(Invariant::I11Liveness, |history| {
        history.ending.account.backlog = 1;
        history.ending.account.published -= 1;
    });
}

#[test]
fn i12_counters_agree_with_the_answers() {
    violates(Invariant::I12Accounting, |h| h.accounts[0].published -= 1);
    violates(Invariant::I12Accounting, |h| book(h, 1));
    violates(Invariant::I12Accounting, |history| {
        history.ending.account.accepted -= 1;
        history.ending.account.published -= 1;
    });
}

#[test]
fn refusal_is_excused_only_by_a_full_disk() {
    let refused = |history: &mut History, code| {
        let attempts = &mut history.requests[7].attempts;
        attempts.insert(
            0,
            Attempt {
                begin: 7_000,
                end: 7_001,
                outcome: Outcome::Fail(code),
            },
        );
        attempts[1].begin = 7_002;
    };
    violates(Invariant::Answers, |history| refused(history, 503));
    violates(Invariant::Answers, |history| {
        refused(history, 500);
        history
            .injections
            .push(injection(Kind::BacklogFull, 0, 9_000));
    });
    passes(|history| {
        refused(history, 503);
        history
            .injections
            .push(injection(Kind::BacklogFull, 0, 9_000));
    });
}

#[test]
fn attack_excuses_no_late_answer() {
    let late = |history: &mut History, outcome| {
        let attempt = Attempt {
            begin: 6_000,
            end: 6_101,
            outcome,
        };
        history.requests[7].attempts.insert(0, attempt);
        history.ending.account.accepted += u64::from(outcome == Outcome::Ok);
        history.ending.account.published += u64::from(outcome == Outcome::Ok);
    };
    for outcome in [Outcome::Ok, Outcome::Info] {
        violates(Invariant::Answers, |history| late(history, outcome));
        violates(Invariant::Answers, |history| {
            late(history, outcome);
            attack(history, 5, 5);
        });
        passes(|history| {
            late(history, outcome);
            let freeze = injection(Kind::BridgeFreeze, 6_050, 6_060);
            history.injections.push(freeze);
        });
    }
}

fn attack(history: &mut History, opened: u64, refused: u64) {
    history.injections.push(injection(Kind::Siege, 0, 9_000));
    history.strangers = Strangers { opened, refused };
}

#[test]
fn attack_excuses_no_duplicate() {
    violates(Invariant::I6CausedDuplicates, |history| {
        deliver(history, event(7, 1), 7_030);
        attack(history, 5, 5);
    });
}

#[test]
fn attack_without_refusals_is_void() {
    assert_eq!(judged(|history| attack(history, 5, 5)).verdict(), "PASS");
    for (opened, refused) in [(0, 0), (5, 0)] {
        let findings = judged(|history| attack(history, opened, refused));
        assert_eq!(findings.verdict(), "VOID", "{findings:#?}");
    }
}

#[test]
fn harness_errors_are_violations() {
    violates(Invariant::Complaint, |history| {
        history.complaints.push("it did not stop".into());
    });
}

#[test]
fn i13_run_without_effect_is_void() {
    let findings = judged(|history| {
        let mut fault = injection(Kind::StallUp, 0, 1);
        fault.evidence = Err("bytes passed".into());
        history.injections.push(fault);
    });
    assert_eq!(findings.verdict(), "VOID", "{findings:#?}");
    let findings = judged(|history| {
        history.injections.push(injection(Kind::BridgeKill, 0, 1));
    });
    assert_eq!(findings.verdict(), "VOID", "no request was hit by the kill");
    let findings = judge(&History::default(), &CAPS);
    assert!(!findings.voids.is_empty(), "nothing was accepted");
}
