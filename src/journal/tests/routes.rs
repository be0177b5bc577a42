//! Pending events get the routes of a new configuration, at a start and at a reload.

use std::sync::Arc;

use super::support::*;
use crate::config::Config;
use crate::journal::Seq;
use crate::settings;
use crate::webhook::DeadLetterReason;

/// The routes of all pending events, in order, of the window and of `pending`.
fn exchanges(bench: &mut Bench) -> Vec<String> {
    while bench.store.reroute().unwrap().is_some() {}
    handed_out(bench)
        .into_iter()
        .map(|(_, exchange)| exchange)
        .collect()
}

/// The events that can be fetched, in order, with their routes.
fn handed_out(bench: &Bench) -> Vec<(Seq, String)> {
    let mut reader = bench.reader();
    let mut found = Vec::new();
    for route_id in reader.routes().unwrap() {
        let mut all = request(route_id);
        all.events_max = 10_000;
        all.bytes_max = u64::MAX;
        let fetched = reader.fetch(&all).unwrap();
        let events = fetched.batches.into_iter().flat_map(|run| run.events);
        found.extend(events.map(|held| (held.seq, held.route.exchange.to_string())));
    }
    found.sort();
    found
}

#[test]
fn dead_letter_follows_only_its_exchange() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created")]);
    bench.change(dead_letter_cause(&events[0], DeadLetterReason::Nacked));
    bench
        .store
        .set_routing(routing(Some(("created", "urgent"))))
        .unwrap();
    assert_eq!(exchanges(&mut bench), ["chat-sessions.dead-letter"]);
    let mut letters = Config::default();
    letters.dead_letter.exchange = "letters".into();
    let moved = Arc::new(settings::routing(&letters).unwrap());
    bench.store.set_routing(moved).unwrap();
    assert_eq!(exchanges(&mut bench), ["letters"]);
}

/// No transaction reads the whole backlog, and nothing is published to its old route.
#[test]
fn rerouting_continues_by_page_over_restarts() {
    let mut bench = Bench::new();
    let ids: Vec<String> = (0..2500).map(|id| format!("s{id}")).collect();
    let sessions: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "created")).collect();
    let events = bench.append(&sessions);
    bench.empty_window();
    bench.change(deferred(&events[7], 50));
    let urgent = routing(Some(("created", "urgent")));
    bench.store.set_routing(urgent.clone()).unwrap();
    assert_eq!(handed_out(&bench), []);
    bench.append(&[("new", "created")]);
    let numbers = |bench: &Bench| -> Vec<Seq> {
        let all = handed_out(bench);
        assert!(
            all.iter().all(|(_, exchange)| exchange == "urgent"),
            "{all:?}"
        );
        all.into_iter().map(|(seq, _)| seq).collect()
    };
    assert_eq!(numbers(&bench), [2501], "it has its route already");
    assert_eq!(bench.store.reroute().unwrap().unwrap().len(), 1);
    let mut bench = bench.reopen(&urgent);
    // Rejected events wait until all rows have their new routes.
    let expected: Vec<Seq> = (1..=1000).filter(|seq| *seq != 8).chain([2501]).collect();
    assert_eq!(numbers(&bench), expected);
    assert!(bench.store.reroute().unwrap().is_some());
    assert!(bench.store.reroute().unwrap().is_some());
    assert!(bench.store.reroute().unwrap().is_none());
    assert_eq!(numbers(&bench), (1..=2501).collect::<Vec<_>>());
    let bench = bench.reopen(&urgent);
    assert_eq!(numbers(&bench), (1..=2501).collect::<Vec<_>>(), "once");
}

#[test]
fn delays_of_an_earlier_process_are_reset_at_start() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created")]);
    bench.change(deferred(&events[0], 30_000));
    let bench = bench.reopen(&routing(None));
    let fetched = bench.reader().fetch(&request(events[0].route_id)).unwrap();
    assert_eq!(fetched.batches.len(), 2);
    assert_eq!(fetched.next_due_ms, None);
    assert_eq!(fetched.batches[0].events[0].attempts, 3);
}

#[test]
fn unused_routes_are_deleted_at_start() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "handled")]);
    bench.change(published(&events[0]));
    assert_eq!(bench.number("SELECT count(*) FROM routes"), 2);
    let bench = bench.reopen(&routing(None));
    let exchange = "SELECT count(*) FROM routes WHERE routing_key LIKE '%handled%'";
    assert_eq!(bench.number("SELECT count(*) FROM routes"), 1);
    assert_eq!(bench.number(exchange), 1, "{events:?}");
}

/// Its route belongs to no head when the process starts, and to a row later.
#[test]
fn later_events_of_a_session_keep_route_over_start() {
    let mut bench = Bench::new();
    bench.append(&[("a", "created"), ("a", "handled")]);
    let mut bench = bench.reopen(&routing(None));
    bench.empty_window();
    let route_id = bench.reader().routes().unwrap()[0];
    let first = bench
        .reader()
        .fetch(&request(route_id))
        .unwrap()
        .batches
        .remove(0);
    assert_eq!(seqs(&first.events), [1, 2]);
    assert!(first.events.iter().all(|held| !held.is_damaged));
    bench.change(published(&first.events[0]));
    assert_eq!(handed_out(&bench), [(2, "chat-sessions".to_owned())]);
}

#[test]
fn failed_reload_leaves_the_old_routes() {
    let mut bench = Bench::new();
    let sessions: Vec<String> = (0..2000).map(|id| format!("s{id}")).collect();
    let sessions: Vec<(&str, &str)> = sessions.iter().map(|id| (id.as_str(), "created")).collect();
    bench.append(&sessions);
    let pages = bench.number("PRAGMA page_count");
    let database = bench.store.database();
    database
        .pragma_update(None, "max_page_count", pages)
        .unwrap();
    // The name of the new exchange alone is longer than a page.
    let wide = routing(Some(("created", &"x".repeat(20_000))));
    bench.store.set_routing(wide).unwrap_err();
    assert_eq!(exchanges(&mut bench), vec!["chat-sessions"; 2000]);
    bench
        .store
        .database()
        .pragma_update(None, "max_page_count", 1 << 30)
        .unwrap();
    let next = bench.append(&[("new", "created")]);
    assert_eq!(&*next[0].route.exchange, "chat-sessions");
    assert!(bench.is_balanced());
}
