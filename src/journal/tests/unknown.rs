//! A value that this release never writes: the event is damaged, the others go on.

use super::support::*;
use crate::journal::archive::{Archive, Place, Selection, State};
use crate::journal::{Held, Settlement};
use crate::webhook::Reason;

fn taken(bench: &Bench, route_id: i64) -> Vec<Held> {
    let taken = bench.reader().take(&request(route_id)).unwrap();
    let runs = taken.runs.into_iter();
    runs.flat_map(|run| run.events).collect()
}

/// One event of three has the value; all are taken, and it alone is damaged.
fn check_pending(change: &str) {
    let mut bench = Bench::new();
    let held = bench.append(&[("a", "created"), ("b", "created"), ("c", "created")]);
    let database = bench.store.database();
    let pragma = "PRAGMA ignore_check_constraints = 1";
    database.execute_batch(pragma).unwrap();
    assert_eq!(database.execute(change, []).unwrap(), 1, "{change}");
    let events = taken(&bench, held[0].route_id);
    let damaged: Vec<_> = events.iter().map(|held| held.is_damaged).collect();
    assert_eq!(damaged, [false, true, false], "{change}");
    assert_eq!(events[1].condemned, None, "{change}");
}

#[test]
fn an_unknown_value_damages_its_event_alone() {
    for change in [
        "UPDATE pending SET reason = 'bored' WHERE seq = 2",
        "UPDATE pending SET attempts = -1 WHERE seq = 2",
        "UPDATE pending SET label = CAST(x'ff' AS TEXT) WHERE seq = 2",
        "UPDATE events SET received_at = 9223372036854775807 WHERE seq = 2",
        "UPDATE events SET webhook_index = -1 WHERE seq = 2",
        "UPDATE events SET webhook_id = x'00' WHERE seq = 2",
        "UPDATE events SET status = NULL WHERE seq = 2",
        "UPDATE events SET company = CAST(x'c3' AS TEXT) WHERE seq = 2",
    ] {
        check_pending(change);
    }
}

#[test]
fn a_reject_of_an_unknown_reason_is_damaged() {
    let mut bench = Bench::new();
    let held = bench.commit(&[], &[webhook(&["7"])]).fresh.remove(0);
    let change = "UPDATE events SET reject_reason = 'bored'";
    bench.store.database().execute(change, []).unwrap();
    assert!(taken(&bench, held.route_id)[0].is_damaged);
}

#[test]
fn an_unknown_reason_is_not_routed_like_a_session() {
    let mut bench = Bench::new();
    let held = bench.append(&[("a", "created")]).remove(0);
    bench.change(condemned(&held, Reason::Nacked));
    let change = "UPDATE pending SET reason = 'bored'";
    bench.store.database().execute(change, []).unwrap();
    let other = routing(Some(("created", "elsewhere")));
    let bench = bench.reopen(&other);
    let exchange = "SELECT count(*) FROM pending JOIN routes ON routes.id = route
                    WHERE exchange = 'elsewhere'";
    assert_eq!(bench.number(exchange), 0);
}

#[test]
fn an_unknown_outcome_is_neither_published_nor_dead() {
    assert_eq!(Settlement::from_name("bored"), None);
    let mut bench = Bench::new();
    let held = bench.append(&[("a", "created"), ("b", "created")]);
    bench.change(published(&held[0]));
    bench.change(published(&held[1]));
    let change = "UPDATE settled SET outcome = 'bored' WHERE seq = 1";
    bench.store.database().execute(change, []).unwrap();
    let archive = Archive::open(bench.dir.path()).unwrap();
    let in_state = |state| {
        let selection = Selection {
            state,
            ..Selection::default()
        };
        archive.page(&selection, 0, false).unwrap().entries
    };
    let all = in_state(None);
    assert_eq!(all[0].state(), State::Damaged);
    let Place::Settled { settlement, .. } = &all[0].place else {
        panic!("{:?}", all[0].place);
    };
    assert_eq!(settlement, &Err("bored".to_owned()));
    assert_eq!(all[1].state(), State::Published);
    for (state, expected) in [
        (State::Published, vec![2]),
        (State::DeadLettered, vec![]),
        (State::Damaged, vec![1]),
    ] {
        let found: Vec<_> = in_state(Some(state))
            .iter()
            .map(|entry| entry.seq)
            .collect();
        assert_eq!(found, expected, "{state:?}");
    }
}

#[test]
fn a_damaged_counter_does_not_stop_a_start() {
    let mut bench = Bench::new();
    bench.append(&[("a", "created"), ("b", "created")]);
    let change = "UPDATE totals SET value = -5 WHERE name = 'backlog_events';
                  INSERT INTO totals VALUES ('bored', '', '', 1)";
    bench.store.database().execute_batch(change).unwrap();
    let bench = bench.reopen(&routing(None));
    assert_eq!(bench.store.totals().backlog_events, 2);
}
