//! Which event is the head of its session, and how completing and rescheduling affect the events
//! behind it.

use super::support::*;
use crate::journal::TransitionApplied;

#[test]
fn equal_ids_of_two_sources_are_independent() {
    let mut bench = Bench::new();
    let other = webhook_of("umbrella", &[session("a", "created")]);
    let committed = bench.commit(&[], &[webhook(&[session("a", "created")]), other]);
    assert!(committed.fresh.iter().all(|held| held.is_head));
    assert_eq!(bench.heads(), [1, 2]);
}

#[test]
fn two_completions_in_a_group_promote_the_third_once() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("a", "handled"), ("a", "completed")]);
    let committed = bench.commit(&[published(&events[0]), published(&events[1])], &[]);
    let promoted = |held: usize| Some(events[held].route_id);
    assert_eq!(
        committed.applied,
        [
            TransitionApplied::Completed {
                seq: 1,
                promoted: promoted(1)
            },
            TransitionApplied::Completed {
                seq: 2,
                promoted: promoted(2)
            }
        ]
    );
    assert_eq!(bench.heads(), [3]);
}

#[test]
fn rescheduled_event_stays_the_head_until_due() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("a", "handled")]);
    let route_id = events[0].route_id;
    let ack = bench.change(deferred(&events[0], 700));
    assert_eq!(
        ack,
        TransitionApplied::Rescheduled {
            seq: 1,
            route_id,
            due_ms: 700
        }
    );
    assert_eq!(bench.heads(), [1]);
    let mut later = request(route_id);
    later.now_ms = 700;
    let fetched = bench.reader().fetch(&later).unwrap();
    assert_eq!(fetched.batches[0].events[0].attempts, 3);
    assert_eq!(seqs(&fetched.batches[0].events), [1, 2]);
}

#[test]
fn transition_of_a_completed_event_counts_nothing() {
    for retention in [WEEK, std::time::Duration::ZERO] {
        let mut bench = Bench::keeping(retention, u64::MAX);
        let events = bench.append(&[("a", "created"), ("a", "handled")]);
        bench.change(published(&events[0]));
        let totals = bench.store.totals();
        for change in [published(&events[0]), deferred(&events[0], 100)] {
            let TransitionApplied::Completed { seq, promoted } = bench.change(change) else {
                panic!("not settled");
            };
            assert_eq!(seq, 1);
            // Its webhook is still stored, because of its other event.
            assert_eq!(promoted, Some(events[1].route_id));
        }
        assert_eq!(bench.store.totals(), totals);
        assert_eq!(bench.heads(), [2]);
    }
}

#[test]
fn stale_counter_refuses_no_webhook() {
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
fn long_routing_fields_are_cut_but_not_the_body() {
    let mut bench = Bench::new();
    let status = "é".repeat(600);
    let events = bench.append(&[("a", &status)]);
    let fetched = bench.reader().fetch(&request(events[0].route_id)).unwrap();
    let held = &fetched.batches[0].events[0];
    assert_eq!(held.event.body, events[0].event.body);
    assert!(!held.is_damaged);
    let crate::webhook::Content::Session(fields) = &held.event.content else {
        panic!("a session");
    };
    assert_eq!(fields.status, "é".repeat(512));
}
