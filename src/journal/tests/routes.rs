//! Unsettled events follow the configuration, at the start and at a reload.

use std::sync::Arc;

use super::support::*;
use crate::config::routing::{DeadLetter, Routing as Config};
use crate::webhook::Reason;
use crate::webhook::routing::Routing;

/// Where everything unsettled goes, in order.
fn exchanges(bench: &Bench) -> Vec<String> {
    let sql = "SELECT r.exchange FROM pending p JOIN routes r ON r.id = p.route ORDER BY p.seq";
    let mut statement = bench.store.database().prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_reload_gives_unsettled_events_the_route_they_have_by_now() {
    let mut bench = Bench::new();
    bench.append(&[("a", "created"), ("a", "handled"), ("b", "created")]);
    bench
        .store
        .set_routing(routing(Some(("created", "urgent"))))
        .unwrap();
    assert_eq!(exchanges(&bench), ["urgent", "chat-sessions", "urgent"]);
    let next = bench.append(&[("c", "created")]);
    assert_eq!(&*next[0].route.exchange, "urgent");
    assert_eq!(bench.heads(), [1, 3, 4]);
}

#[test]
fn so_does_a_start_with_a_changed_configuration() {
    let mut bench = Bench::new();
    bench.append(&[("a", "created"), ("b", "archived")]);
    let bench = bench.reopen(&routing(Some(("archived", "old"))));
    assert_eq!(exchanges(&bench), ["chat-sessions", "old"]);
    let label = "SELECT count(*) FROM pending WHERE label = 'archived'";
    assert_eq!(bench.number(label), 1);
    assert!(bench.is_balanced());
}

#[test]
fn a_dead_letter_stays_one_and_follows_only_its_exchange() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created")]);
    bench.change(condemned(&events[0], Reason::Nacked));
    bench
        .store
        .set_routing(routing(Some(("created", "urgent"))))
        .unwrap();
    assert_eq!(exchanges(&bench), ["chat-sessions.dead-letter"]);
    let letters = DeadLetter {
        exchange: "letters".into(),
    };
    let moved = Arc::new(Routing::new(&Config::default(), &letters).unwrap());
    bench.store.set_routing(moved).unwrap();
    assert_eq!(exchanges(&bench), ["letters"]);
}

#[test]
fn more_than_a_page_of_events_is_rerouted() {
    let mut bench = Bench::new();
    let sessions: Vec<String> = (0..250).map(|id| format!("s{id}")).collect();
    let sessions: Vec<(&str, &str)> = sessions.iter().map(|id| (id.as_str(), "created")).collect();
    bench.append(&sessions);
    bench
        .store
        .set_routing(routing(Some(("created", "urgent"))))
        .unwrap();
    assert_eq!(exchanges(&bench), vec!["urgent"; 250]);
}

#[test]
fn delays_of_an_earlier_process_are_forgotten_at_the_start() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "created")]);
    bench.change(deferred(&events[0], 30_000));
    let bench = bench.reopen(&routing(None));
    let taken = bench.reader().take(&request(events[0].route_id)).unwrap();
    assert_eq!(taken.runs.len(), 2);
    assert_eq!(taken.next_due_ms, None);
    assert_eq!(taken.runs[0].events[0].attempts, 3);
}

#[test]
fn routes_that_nothing_goes_to_are_forgotten_at_the_start() {
    let mut bench = Bench::new();
    let events = bench.append(&[("a", "created"), ("b", "handled")]);
    bench.change(published(&events[0]));
    assert_eq!(bench.number("SELECT count(*) FROM routes"), 2);
    let bench = bench.reopen(&routing(None));
    assert_eq!(bench.column("SELECT id FROM routes"), [events[1].route_id]);
}

#[test]
fn a_reload_that_the_disk_refuses_leaves_the_old_routes() {
    let mut bench = Bench::new();
    let sessions: Vec<String> = (0..2000).map(|id| format!("s{id}")).collect();
    let sessions: Vec<(&str, &str)> = sessions.iter().map(|id| (id.as_str(), "created")).collect();
    bench.append(&sessions);
    let pages = bench.number("PRAGMA page_count");
    let database = bench.store.database();
    database
        .pragma_update(None, "max_page_count", pages)
        .unwrap();
    // The name of the new exchange alone needs more than a page.
    let wide = routing(Some(("created", &"x".repeat(20_000))));
    bench.store.set_routing(wide).unwrap_err();
    assert_eq!(exchanges(&bench), vec!["chat-sessions"; 2000]);
    bench
        .store
        .database()
        .pragma_update(None, "max_page_count", 1 << 30)
        .unwrap();
    let next = bench.append(&[("new", "created")]);
    assert_eq!(&*next[0].route.exchange, "chat-sessions");
    assert!(bench.is_balanced());
}
