//! Events without room in the window are read later, in order, and overtake nothing.

use std::time::Duration;

use super::support::*;
use crate::journal::Seq;

/// A full window of four events; events 5 to 8 are not read yet. Each is one webhook of one
/// session.
fn full(sessions: [&str; 8]) -> Bench {
    let mut bench = Bench::new();
    bench.store.bound_window(4);
    for (index, session) in sessions.iter().enumerate() {
        let fresh = bench.append(&[(session, "created")]);
        let is_read = index < 4;
        assert_eq!(fresh.len(), usize::from(is_read), "{index}");
    }
    assert_eq!(bench.tail(), 5);
    bench
}

/// Completes the first event that can be fetched; returns the size of the window after that.
fn settle_first(bench: &mut Bench) -> Seq {
    let mut reader = bench.reader();
    let route_id = reader.routes().unwrap()[0];
    let fetched = reader.fetch(&request(route_id)).unwrap();
    bench.change(published(&fetched.batches[0].events[0]));
    bench.tail()
}

#[test]
fn tail_is_read_in_order_when_a_quarter_is_free() {
    let mut bench = full(["a", "b", "c", "d", "e", "f", "g", "h"]);
    let route_id = bench.reader().routes().unwrap()[0];
    let fetched = bench.reader().fetch(&request(route_id)).unwrap();
    let heads = fetched.batches.iter().map(|run| &run.events[0]);
    let changes: Vec<_> = heads.map(published).collect();
    assert!(bench.commit(&changes[..1], &[]).behind.is_empty());
    assert_eq!(bench.commit(&changes[1..2], &[]).behind, [route_id]);
    assert_eq!(bench.heads(), [3, 4, 5, 6]);
    assert_eq!(bench.tail(), 7);
    // Later webhooks wait behind the tail.
    assert!(bench.append(&[("i", "created")]).is_empty());
    bench.commit(&changes[2..], &[]);
    assert_eq!(bench.heads(), [5, 6, 7, 8]);
}

/// Of a webhook that was read from the tail, one event got a row, and the other was in the window.
#[test]
fn webhook_of_the_tail_is_kept_while_it_has_a_row() {
    let mut bench = Bench::keeping(Duration::ZERO, u64::MAX);
    bench.store.bound_window(1);
    let refused = bench.append(&[("a", "created")]).remove(0);
    bench.append(&[("a", "handled"), ("b", "created")]);
    assert_eq!(bench.tail(), 2);
    bench.change(deferred(&refused, 1000));
    assert_eq!(bench.column("SELECT seq FROM pending"), [1, 2]);
    let fetched = bench.reader().fetch(&request(refused.route_id)).unwrap();
    assert_eq!(seqs(&fetched.batches[0].events), [3]);
    bench.change(published(&fetched.batches[0].events[0]));
    bench.store.sweep(bench.now, &bench.retention, 100).unwrap();
    assert_eq!(bench.unsettled(), [1, 2]);
}

#[test]
fn window_events_get_rows_only_with_a_broker() {
    let mut bench = full(["a", "b", "c", "d", "e", "f", "g", "h"]);
    bench
        .store
        .age_window_by(std::time::Duration::from_secs(11));
    bench.store.set_ageing(false);
    assert_eq!(bench.store.tidy_window().unwrap(), None);
    bench.store.set_ageing(true);
    let behind = bench.store.tidy_window().unwrap().unwrap();
    assert_eq!(behind.len(), 1);
    assert_eq!(bench.column("SELECT seq FROM pending"), [1, 2, 3, 4]);
    assert_eq!(bench.heads(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(bench.tail(), Seq::MAX);
}

/// An event that was copied from a damaged database may be anywhere among the others.
#[test]
fn completed_event_in_the_tail_is_not_published() {
    let mut bench = Bench::new();
    bench.store.bound_window(4);
    let sessions = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let event = |id| webhook(&[session(id, "created")]).events.remove(0);
    let carried: Vec<_> = (1..).zip(sessions.map(event)).collect();
    let (kept, others): (Vec<_>, Vec<_>) = carried.into_iter().partition(|(seq, _)| *seq == 6);
    bench.store.import(&others).unwrap();
    let (seq, event) = &kept[0];
    bench.store.import_exempt(*seq, event, bench.now).unwrap();
    assert_eq!(bench.tail(), 5);
    let mut published = Vec::new();
    while let Some(head) = bench.heads().first().copied() {
        published.push(head);
        settle_first(&mut bench);
    }
    assert_eq!(published, [1, 2, 3, 4, 5, 7, 8]);
}

/// While the window is lost, readers find nothing in it; the forwarder must be notified again.
#[test]
fn failed_window_read_reports_every_route() {
    let mut bench = Bench::new();
    let route_id = bench.append(&[("a", "created")])[0].route_id;
    let rename = |bench: &Bench, from: &str, to: &str| {
        let renaming = format!("ALTER TABLE {from} RENAME TO {to}");
        bench.store.database().execute_batch(&renaming).unwrap();
    };
    rename(&bench, "webhooks", "elsewhere");
    let webhook = webhook(&[session("b", "created")]);
    let (now, retention) = (bench.now, bench.retention);
    let result = bench.store.commit(&[], &[webhook], now, &retention);
    result.unwrap_err();
    rename(&bench, "elsewhere", "webhooks");
    assert!(bench.heads().is_empty());
    bench.store.probe().unwrap();
    assert_eq!(bench.heads(), [1]);
    let told = bench.store.tidy_window().unwrap();
    assert_eq!(told, Some([route_id].into()));
    assert_eq!(bench.store.tidy_window().unwrap(), None);
}

/// Otherwise, the forwarder would not be notified of a head that was read in the meantime.
#[test]
fn rolled_back_transaction_reads_no_tail() {
    let mut bench = full(["a", "b", "c", "d", "e", "f", "g", "h"]);
    assert_eq!(settle_first(&mut bench), 5, "less than a quarter is free");
    let limit = |bench: &Bench, pages: i64| {
        let database = bench.store.database();
        database
            .pragma_update(None, "max_page_count", pages)
            .unwrap();
    };
    limit(&bench, bench.number("PRAGMA page_count"));
    let large = "x".repeat(1 << 20);
    let webhook = webhook(&[format!(r#"{{"id":"x","status":"created","x":"{large}"}}"#)]);
    let (now, retention) = (bench.now, bench.retention);
    let result = bench.store.commit(&[], &[webhook], now, &retention);
    result.unwrap_err();
    limit(&bench, 1 << 30);
    assert_eq!((bench.heads(), bench.tail()), (vec![2, 3, 4], 5));
}
