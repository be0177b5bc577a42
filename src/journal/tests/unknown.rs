//! A value that this release never writes: only that event is damaged; the others are processed.

use super::support::*;
use crate::journal::archive::{Archive, EventState, Selection, StateDetails};
use crate::journal::{FinalState, QueuedEvent};
use crate::webhook::DeadLetterReason;

fn fetched(bench: &Bench, route_id: i64) -> Vec<QueuedEvent> {
    let fetched = bench.reader().fetch(&request(route_id)).unwrap();
    let runs = fetched.batches.into_iter();
    runs.flat_map(|run| run.events).collect()
}

/// One event of three has the value. All three are fetched, and only this one is damaged.
fn check_pending(change: &str) {
    let mut bench = Bench::new();
    let held = bench.append(&[("a", "created"), ("b", "created"), ("c", "created")]);
    bench.empty_window();
    let database = bench.store.database();
    let pragma = "PRAGMA ignore_check_constraints = 1";
    database.execute_batch(pragma).unwrap();
    assert_eq!(database.execute(change, []).unwrap(), 1, "{change}");
    let events = fetched(&bench, held[0].route_id);
    let damaged: Vec<_> = events.iter().map(|held| held.is_damaged).collect();
    assert_eq!(damaged, [false, true, false], "{change}");
    assert_eq!(events[1].dead_letter_cause, None, "{change}");
}

#[test]
fn unknown_value_damages_its_event_only() {
    for change in [
        "UPDATE pending SET reason = 'bored' WHERE seq = 2",
        "UPDATE pending SET attempts = -1 WHERE seq = 2",
        "UPDATE pending SET label = CAST(x'ff' AS TEXT) WHERE seq = 2",
        r#"UPDATE webhooks SET fields = replace(fields, '"b","created"', '"b",null')"#,
        r#"UPDATE webhooks SET fields = replace(fields, '"b",', '"b" ')"#,
        r#"UPDATE webhooks SET fields = replace(fields, '"b","created",null', '"b","created",7')"#,
    ] {
        check_pending(change);
    }
}

/// The columns that the events of a webhook share.
#[test]
fn unknown_webhook_value_damages_its_events_only() {
    for change in [
        "UPDATE webhooks SET received_at = 9223372036854775807 WHERE first = 2",
        "UPDATE webhooks SET first_index = -1 WHERE first = 2",
        "UPDATE webhooks SET webhook_id = x'00' WHERE first = 2",
        "UPDATE webhooks SET source = CAST(x'ff' AS TEXT) WHERE first = 2",
        "UPDATE webhooks SET tracestate = CAST(x'c3' AS TEXT) WHERE first = 2",
        "UPDATE webhooks SET fields = CAST(fields || x'c3' AS TEXT) WHERE first = 2",
        "UPDATE webhooks SET fields = '' WHERE first = 2",
        r#"UPDATE webhooks SET fields = replace(fields, '"b"', '"x"') WHERE first = 2"#,
        r#"UPDATE webhooks SET fields = replace(fields, '"b"', 'null') WHERE first = 2"#,
        r#"UPDATE webhooks SET fields = '["00",0,1,"b","created",null,null,null]' WHERE first = 2"#,
        "UPDATE webhooks SET bodies = CAST(replace(bodies, 'created', 'cre4ted') AS BLOB)
         WHERE first = 2",
        "UPDATE webhooks SET bodies = x'' WHERE first = 2",
        "UPDATE webhooks SET events = 9 WHERE first = 2",
        "DELETE FROM webhooks WHERE first = 2",
    ] {
        for has_rows in [false, true] {
            let mut bench = Bench::new();
            let held = ["a", "b", "c"].map(|id| bench.append(&[(id, "created")]).remove(0));
            if has_rows {
                bench.empty_window();
            }
            let database = bench.store.database();
            assert_eq!(database.execute(change, []).unwrap(), 1, "{change}");
            let events = fetched(&bench, held[0].route_id);
            let damaged: Vec<_> = events.iter().map(|held| held.is_damaged).collect();
            assert_eq!(damaged, [false, true, false], "{change}");
        }
    }
}

/// A start is not prevented by it.
#[test]
fn row_with_false_numbers_hides_no_other_row() {
    for events in [0, 3, 200] {
        let mut bench = Bench::new();
        bench.append(&[("a", "created")]);
        bench.append(&[("b", "created")]);
        let change = format!("UPDATE webhooks SET events = {events}, fields = '' WHERE first = 1");
        bench.store.database().execute(&change, []).unwrap();
        let bench = bench.reopen(&routing(None));
        assert!(bench.heads().contains(&2), "{events}: {:?}", bench.heads());
    }
}

#[test]
fn unknown_reason_is_not_routed_like_a_session() {
    let mut bench = Bench::new();
    let held = bench.append(&[("a", "created")]).remove(0);
    bench.change(dead_letter_cause(&held, DeadLetterReason::Nacked));
    let change = "UPDATE pending SET reason = 'bored'";
    bench.store.database().execute(change, []).unwrap();
    let other = routing(Some(("created", "elsewhere")));
    let mut bench = bench.reopen(&other);
    while bench.store.reroute().unwrap().is_some() {}
    let exchange = "SELECT count(*) FROM pending JOIN routes ON routes.id = route
                    WHERE exchange = 'elsewhere'";
    assert_eq!(bench.number(exchange), 0);
}

#[test]
fn state_is_the_outcome_of_an_event() {
    assert_eq!(FinalState::from_name("bored"), None);
    let mut bench = Bench::new();
    let held = bench.append(&["a", "b", "c", "d"].map(|id| (id, "created")));
    let dead = FinalState::DeadLettered(DeadLetterReason::Nacked);
    bench.change(settle(&held[0], dead));
    bench.change(published(&held[1]));
    bench.change(settle(&held[2], dead));
    let change = "UPDATE outcomes SET outcome = 'bored' WHERE seq = 1";
    bench.store.database().execute(change, []).unwrap();
    let archive = Archive::open(bench.dir.path(), routing(None)).unwrap();
    let in_state = |state| {
        let selection = Selection {
            state,
            ..Selection::default()
        };
        archive.page(&selection, 0, false).unwrap().entries
    };
    let all = in_state(None);
    assert_eq!(all[0].state(), EventState::Damaged);
    let StateDetails::Completed { final_state, .. } = &all[0].details else {
        panic!("{:?}", all[0].details);
    };
    assert_eq!(final_state, &Err("bored".to_owned()));
    for (state, expected) in [
        (EventState::Damaged, 1),
        (EventState::Published, 2),
        (EventState::DeadLettered, 3),
        (EventState::Pending, 4),
    ] {
        let found: Vec<_> = in_state(Some(state))
            .iter()
            .map(|entry| entry.seq)
            .collect();
        assert_eq!(found, [expected], "{state:?}");
        let entry = archive.entry(expected).unwrap().unwrap();
        assert_eq!(entry.state(), state);
    }
    let survey = archive.survey(&Selection::default()).unwrap();
    assert_eq!((survey.events, survey.pending), (4, 1));
}

#[test]
fn damaged_counter_does_not_prevent_a_start() {
    let mut bench = Bench::new();
    bench.append(&[("a", "created"), ("b", "created")]);
    let change = "UPDATE totals SET value = -5 WHERE name = 'backlog_events';
                  INSERT INTO totals VALUES ('bored', '', '', 1)";
    bench.store.database().execute_batch(change).unwrap();
    let bench = bench.reopen(&routing(None));
    assert_eq!(bench.store.totals().backlog_events, 2);
}
