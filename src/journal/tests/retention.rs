//! What is settled is kept for a while, and nothing else ever goes.

use std::time::Duration;

use super::support::*;
use crate::journal::{Settlement, weight};
use crate::webhook::Reason;

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn what_is_settled_goes_when_it_is_too_old_and_what_is_not_stays() {
    let mut bench = Bench::keeping(HOUR, u64::MAX);
    let old = bench.append(&[("a", "created"), ("b", "created"), ("c", "created")]);
    bench.change(published(&old[0]));
    bench.now += HOUR / 2;
    bench.change(published(&old[1]));
    bench.now += HOUR / 2;
    assert!(bench.store.sweep(bench.now, &bench.retention, 10).unwrap());
    assert_eq!(bench.column("SELECT seq FROM settled"), [2]);
    assert_eq!(bench.column("SELECT seq FROM events"), [2, 3]);
    bench.now += HOUR * 24;
    bench.store.sweep(bench.now, &bench.retention, 10).unwrap();
    assert_eq!(bench.column("SELECT seq FROM events"), [3]);
    assert_eq!(bench.column("SELECT seq FROM pending"), [3]);
    assert!(bench.is_balanced());
}

#[test]
fn the_oldest_goes_first_when_it_is_too_much() {
    let size = weight::on_disk(session("a", "created").len() as u64);
    let mut bench = Bench::keeping(WEEK, 2 * size);
    let events = bench.append(&[("a", "created"), ("b", "created"), ("c", "created")]);
    for held in [&events[2], &events[0], &events[1]] {
        bench.now += Duration::from_secs(1);
        bench.change(published(held));
    }
    assert_eq!(bench.column("SELECT seq FROM settled ORDER BY at"), [1, 2]);
    assert_eq!(bench.column("SELECT seq FROM events"), [1, 2]);
}

#[test]
fn without_retention_an_event_goes_when_it_is_settled() {
    let mut bench = Bench::keeping(Duration::ZERO, u64::MAX);
    let events = bench.append(&[("a", "created"), ("a", "handled")]);
    bench.change(published(&events[0]));
    assert_eq!(bench.column("SELECT seq FROM events"), [2]);
    assert_eq!(bench.number("SELECT count(*) FROM settled"), 0);
    assert!(bench.is_balanced());
}

#[test]
fn a_body_that_lies_only_here_is_kept_whatever_the_retention() {
    for retention in [Duration::ZERO, HOUR] {
        let mut bench = Bench::keeping(retention, 0);
        let events = bench.append(&[("a", "created"), ("b", "created")]);
        bench.change(settle(
            &events[0],
            Settlement::DeadLettered(Reason::TooLarge),
        ));
        bench.change(settle(&events[1], Settlement::DeadLettered(Reason::Nacked)));
        bench.now += WEEK;
        bench.store.sweep(bench.now, &bench.retention, 10).unwrap();
        assert_eq!(bench.column("SELECT seq FROM events"), [1]);
        assert_eq!(bench.column("SELECT seq FROM settled WHERE kept"), [1]);
        assert_eq!(
            bench.number("SELECT sum(value) FROM totals WHERE name = 'retained_disk_bytes'"),
            0
        );
        assert!(bench.is_balanced());
    }
}

#[test]
fn a_group_deletes_a_bounded_number() {
    let mut bench = Bench::keeping(HOUR, u64::MAX);
    let sessions: Vec<String> = (0..500).map(|id| format!("s{id}")).collect();
    let sessions: Vec<(&str, &str)> = sessions.iter().map(|id| (id.as_str(), "created")).collect();
    let events = bench.append(&sessions);
    let changes: Vec<_> = events.iter().map(published).collect();
    bench.commit(&changes, &[]);
    bench.now += WEEK;
    bench.append(&[("a", "created")]);
    assert_eq!(bench.number("SELECT count(*) FROM settled"), 500 - 64);
}

#[test]
fn the_file_gives_its_space_back_after_a_large_backlog() {
    let mut bench = Bench::keeping(Duration::ZERO, 0);
    let element = format!(
        r#"{{"id":"a","status":"created","x":"{}"}}"#,
        "x".repeat(1 << 20)
    );
    let events = bench.commit(&[], &[webhook(&vec![element; 32])]).fresh;
    bench.store.checkpoint().unwrap();
    let size = |bench: &Bench| std::fs::metadata(bench.database()).unwrap().len();
    let before = size(&bench);
    assert!(before > 32 << 20, "{before}");
    let changes: Vec<_> = events.iter().map(published).collect();
    bench.commit(&changes, &[]);
    assert!(bench.store.shrink(1000, false).unwrap());
    let wal = bench.store.checkpoint().unwrap();
    assert_eq!(wal.pages, wal.copied);
    // And the pages that kept account of these.
    let given = (before - size(&bench)) / 8192;
    assert!((1000..1010).contains(&given), "{given}");
    while bench.store.shrink(1000, false).unwrap() {}
    bench.store.checkpoint().unwrap();
    let after = size(&bench);
    assert!(after < 17 << 20, "{after}");
}

#[test]
fn what_is_settled_gives_way_when_the_disk_is_short() {
    let mut bench = Bench::keeping(WEEK, u64::MAX);
    let events = bench.append(&[("a", "created"), ("b", "created"), ("c", "created")]);
    bench.change(published(&events[0]));
    bench.change(published(&events[1]));
    let one = weight::on_disk(session("a", "created").len() as u64);
    bench.retention.shortage = one;
    bench.append(&[("d", "created")]);
    assert_eq!(bench.column("SELECT seq FROM settled"), [2]);
    bench.retention.shortage = u64::MAX;
    bench.append(&[("e", "created")]);
    assert_eq!(bench.number("SELECT count(*) FROM settled"), 0);
    assert_eq!(bench.column("SELECT seq FROM events"), [3, 4, 5]);
    assert!(bench.is_balanced());
}
