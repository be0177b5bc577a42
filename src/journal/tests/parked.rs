//! The cost of a fetch does not depend on the backlog. It is counted in steps of SQLite's virtual
//! machine, which do not depend on the computer. This keeps a week's backlog from slowing the
//! bridge down.

use rusqlite::StatementStatus;

use super::support::*;
use crate::journal::RouteId;
use crate::journal::store::FIRST_OF;

/// The kind of events that are waiting.
#[derive(Debug, Clone, Copy)]
enum Parked {
    /// Heads of another route.
    OnAnotherRoute,
    /// One session of this route whose head was rejected and is due later.
    BehindARefusedHead,
    /// Heads of this route that were rejected and are due later.
    DueLater,
    /// One session of this route whose head the forwarder has already.
    BehindAKnownHead,
}

/// Appends this many waiting events, then a few that can be published; returns the route.
fn parked(bench: &mut Bench, kind: Parked, events: u32) -> RouteId {
    let route_id = bench.append(&[("first", "created")])[0].route_id;
    let other = bench.append(&[("other", "handled")])[0].route_id;
    let row = match kind {
        Parked::OnAnotherRoute => format!("'p' || n, {other}, 1, 0"),
        Parked::BehindARefusedHead => format!("'p', {route_id}, n = 1000, (n = 1000) * 5000"),
        Parked::DueLater => format!("'p' || n, {route_id}, 1, 5000 + n"),
        Parked::BehindAKnownHead => format!("'p', {route_id}, n = 1000, 0"),
    };
    let sql = format!(
        "WITH RECURSIVE numbers (n) AS (
           SELECT 1000 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < 1000 + {events})
         INSERT INTO pending
           (session, route, head, due, seq, source, bytes, label, attempts)
         SELECT {row}, n, 'acme', 2, 'created', 1 FROM numbers;
         INSERT INTO webhooks (first, events, first_index, webhook_id, source, received_at, fields,
           bodies)
         SELECT seq, 1, 0, zeroblob(16), 'acme', 0, '', x'7b7d' FROM pending WHERE seq >= 1000;"
    );
    bench.store.database().execute_batch(&sql).unwrap();
    bench
        .store
        .database()
        .execute_batch(
            "UPDATE totals SET value = 9000000 WHERE name = 'last_seq';
             UPDATE totals SET value = 9000001 WHERE name = 'window_first'",
        )
        .unwrap();
    route_id
}

fn steps(kind: Parked, events: u32) -> (u64, usize) {
    let mut bench = Bench::new();
    let route_id = parked(&mut bench, kind, events);
    let mut bench = bench.reopen(&routing(None));
    if let Parked::BehindARefusedHead | Parked::DueLater = kind {
        // For a process that has just started, they are due at once.
        let due = "UPDATE pending SET due = due + 9000000 WHERE head = 1 AND seq >= 1000";
        bench.store.database().execute_batch(due).unwrap();
    }
    bench.append(&[("second", "created"), ("third", "created")]);
    let mut reader = bench.reader();
    let mut window = request(route_id);
    window.skip = [1000].into();
    window.events_max = 8;
    let fetched = reader.fetch(&window).unwrap();
    assert!(
        fetched
            .batches
            .iter()
            .all(|run| run.events[0].seq < 1000 || run.events[0].seq > 9_000_000)
    );
    let routes = reader.routes().unwrap();
    assert_eq!(routes.len(), 2);
    (reader.steps(), fetched.batches.len())
}

#[test]
fn fetch_reads_no_waiting_events() {
    for kind in [
        Parked::OnAnotherRoute,
        Parked::BehindARefusedHead,
        Parked::DueLater,
        Parked::BehindAKnownHead,
    ] {
        let (few, fetched) = steps(kind, 100);
        assert_eq!(fetched, 3, "{kind:?}");
        assert!(few > 50, "{kind:?}, {few}: the steps are not counted");
        assert_eq!((few, fetched), steps(kind, 100_000), "{kind:?}");
    }
}

#[test]
fn sessions_without_pending_events_are_not_queried() {
    let mut bench = Bench::new();
    for id in 0..50 {
        let events = bench.append(&[(&format!("s{id}"), "created")]);
        bench.change(published(&events[0]));
    }
    let database = bench.store.database();
    let first_of = database.prepare_cached(FIRST_OF).unwrap();
    let runs = first_of.get_status(StatementStatus::Run);
    // Two sessions may share a counter.
    assert!(runs <= 2, "{runs}");
}
