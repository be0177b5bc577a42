//! Who is first of its session, and what settling and deferring do to those behind.

use super::support::*;
use crate::journal::{Ack, Settlement};
use crate::webhook::Reason;

#[test]
fn the_first_unsettled_event_of_each_session_is_its_head() {
    let mut bench = Bench::new();
    let events = bench.append(&[
        ("a", "created"),
        ("b", "created"),
        ("a", "handled"),
        ("b", "missed"),
        ("a", "completed"),
    ]);
    assert_eq!(seqs(&events), [1, 2, 3, 4, 5]);
    let told: Vec<bool> = events.iter().map(|held| held.is_head).collect();
    assert_eq!(told, [true, true, false, false, false]);
    assert_eq!(bench.heads(), [1, 2]);
}

#[test]
fn sessions_of_the_same_id_at_two_sources_do_not_wait_for_each_other() {
    let mut bench = Bench::new();
    let other = webhook_of("umbrella", &[session("a", "created")]);
    let committed = bench.commit(&[], &[webhook(&[session("a", "created")]), other]);
    assert!(committed.fresh.iter().all(|held| held.is_head));
    assert_eq!(bench.heads(), [1, 2]);
}

#[test]
fn settling_a_head_promotes_the_next_of_its_session_whatever_its_route() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created"), ("a", "handled")]);
    assert_ne!(events[0].route_id, events[2].route_id);
    let ack = bench.change(published(&events[0]));
    let promoted = Some(events[2].route_id);
    assert_eq!(ack, Ack::Settled { seq: 1, promoted });
    assert_eq!(bench.heads(), [2, 3]);
    let last = bench.change(published(&events[2]));
    assert_eq!(
        last,
        Ack::Settled {
            seq: 3,
            promoted: None
        }
    );
}

#[test]
fn rejects_are_heads_each_for_itself() {
    let mut bench = Bench::new();
    let events = bench
        .commit(&[], &[webhook(&["1", "{}", r#"{"id":"a","status":"x"}"#])])
        .fresh;
    assert!(events.iter().all(|held| held.is_head));
    assert_eq!(&*events[0].label, "invalid");
    assert_eq!(&*events[2].label, "unknown");
    let ack = bench.change(settle(
        &events[0],
        Settlement::DeadLettered(Reason::Invalid),
    ));
    assert_eq!(
        ack,
        Ack::Settled {
            seq: 1,
            promoted: None
        }
    );
    assert_eq!(bench.heads(), [2, 3]);
}

#[test]
fn an_event_whose_predecessor_is_settled_in_the_same_group_is_a_head() {
    let mut bench = Bench::new();
    let first = bench.append(&[("a", "created")]);
    let next = webhook(&[session("a", "handled")]);
    let committed = bench.commit(&[published(&first[0])], &[next]);
    assert_eq!(
        committed.acks,
        [Ack::Settled {
            seq: 1,
            promoted: None
        }]
    );
    assert!(committed.fresh[0].is_head);
    assert_eq!(bench.heads(), [2]);
}

#[test]
fn two_events_of_a_session_settled_in_one_group_promote_the_third_once() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("a", "handled"), ("a", "completed")]);
    let committed = bench.commit(&[published(&events[0]), published(&events[1])], &[]);
    let promoted = |held: usize| Some(events[held].route_id);
    assert_eq!(
        committed.acks,
        [
            Ack::Settled {
                seq: 1,
                promoted: promoted(1)
            },
            Ack::Settled {
                seq: 2,
                promoted: promoted(2)
            }
        ]
    );
    assert_eq!(bench.heads(), [3]);
}

#[test]
fn a_deferred_event_stays_the_head_and_says_when_it_is_due() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("a", "handled")]);
    let route_id = events[0].route_id;
    let ack = bench.change(deferred(&events[0], 700));
    assert_eq!(
        ack,
        Ack::Deferred {
            seq: 1,
            route_id,
            due_ms: 700
        }
    );
    assert_eq!(bench.heads(), [1]);
    let mut later = request(route_id);
    later.now_ms = 700;
    let taken = bench.reader().take(&later).unwrap();
    assert_eq!(taken.runs[0].events[0].attempts, 3);
    assert_eq!(seqs(&taken.runs[0].events), [1, 2]);
}

#[test]
fn a_condemned_event_changes_its_route_and_keeps_why_and_since_when() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("a", "handled")]);
    let ack = bench.change(condemned(&events[0], Reason::Unroutable));
    let Ack::Deferred { route_id, .. } = ack else {
        panic!("{ack:?}");
    };
    assert_ne!(route_id, events[0].route_id);
    let mut bench = bench.reopen(&routing(None));
    let taken = bench.reader().take(&request(route_id)).unwrap();
    let held = &taken.runs[0].events[0];
    assert_eq!(held.condemned, Some(letter(Reason::Unroutable)));
    assert_eq!(held.attempts, 12);
    assert_eq!(&*held.route.exchange, "chat-sessions.dead-letter");
    assert_eq!(&*held.route.routing_key, "unroutable");
    assert_eq!(&*held.label, "created");
    bench.change(settle(held, Settlement::DeadLettered(Reason::Unroutable)));
    assert_eq!(bench.heads(), [2]);
    assert!(bench.is_balanced());
}

#[test]
fn a_change_of_an_event_that_is_settled_already_is_acknowledged_and_counts_nothing() {
    for retention in [WEEK, std::time::Duration::ZERO] {
        let mut bench = Bench::keeping(retention, u64::MAX);
        let events = bench.append(&[("a", "created"), ("a", "handled")]);
        bench.change(published(&events[0]));
        let totals = bench.store.totals();
        for change in [published(&events[0]), deferred(&events[0], 100)] {
            let Ack::Settled { seq, promoted } = bench.change(change) else {
                panic!("not settled");
            };
            assert_eq!(seq, 1);
            // What is deleted cannot name its session any more.
            let expected = (!retention.is_zero()).then_some(events[1].route_id);
            assert_eq!(promoted, expected);
        }
        assert_eq!(bench.store.totals(), totals);
        assert_eq!(bench.heads(), [2]);
    }
}

#[test]
fn numbers_are_never_used_again() {
    let mut bench = Bench::keeping(std::time::Duration::ZERO, 0);
    for round in 1..=3 {
        let events = bench.append(&[("a", "created")]);
        assert_eq!(seqs(&events), [round]);
        bench.change(published(&events[0]));
        assert_eq!(bench.number("SELECT count(*) FROM events"), 0);
        bench = bench.reopen(&routing(None));
    }
}

#[test]
fn a_counter_that_is_behind_the_rows_refuses_no_webhook() {
    let mut bench = Bench::new();
    bench.append(&[("a", "created"), ("b", "created")]);
    let beside = rusqlite::Connection::open(bench.database()).unwrap();
    beside
        .execute("DELETE FROM totals WHERE name = 'last_seq'", [])
        .unwrap();
    drop(beside);
    let mut bench = bench.reopen(&routing(None));
    assert_eq!(seqs(&bench.append(&[("c", "created")])), [3]);
}

#[test]
fn long_routing_fields_are_cut_on_the_disk_and_the_body_is_not() {
    let mut bench = Bench::new();
    let status = "é".repeat(600);
    let events = bench.append(&[("a", &status)]);
    let taken = bench.reader().take(&request(events[0].route_id)).unwrap();
    let held = &taken.runs[0].events[0];
    assert_eq!(held.event.body, events[0].event.body);
    assert!(!held.is_damaged);
    let crate::webhook::Content::Session(fields) = &held.event.content else {
        panic!("a session");
    };
    assert_eq!(fields.status, "é".repeat(512));
}
