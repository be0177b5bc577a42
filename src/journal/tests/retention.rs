//! Completed webhooks are kept for the retention period, and no others are ever deleted.

use std::time::Duration;

use super::support::*;
use crate::journal::schema::PAGE_BYTES;
use crate::journal::{FinalState, QueuedEvent};
use crate::webhook::DeadLetterReason;

const HOUR: Duration = Duration::from_hours(1);

/// One webhook per session.
fn append(bench: &mut Bench, sessions: &[&str]) -> Vec<QueuedEvent> {
    let append = |session: &&str| bench.append(&[(session, "created")]).remove(0);
    sessions.iter().map(append).collect()
}

/// The size on disk of a webhook with one session.
fn weight_of_one(session: &str) -> u64 {
    let mut bench = Bench::new();
    let held = bench.append(&[(session, "created")]).remove(0);
    bench.change(published(&held));
    bench.store.retained_bytes()
}

#[test]
fn old_completed_events_are_deleted_pending_ones_not() {
    let mut bench = Bench::keeping(HOUR, u64::MAX);
    let old = append(&mut bench, &["a", "b", "c"]);
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
    assert_eq!(bench.unsettled(), [3]);
    assert_eq!(bench.number("SELECT count(*) FROM completed"), 0);
    assert!(bench.is_balanced());
}

#[test]
fn webhook_is_deleted_whole_after_its_last_event() {
    let mut bench = Bench::keeping(HOUR, u64::MAX);
    let old = bench.append(&[("a", "created"), ("b", "created"), ("c", "created")]);
    bench.change(published(&old[0]));
    bench.change(deferred(&old[1], 0));
    bench.now += HOUR * 24;
    bench.store.sweep(bench.now, &bench.retention, 10).unwrap();
    assert_eq!(bench.unsettled(), [2, 3]);
    assert_eq!(bench.store.retained_bytes(), 0);
    bench.change(published(&old[2]));
    bench.now += HOUR * 24;
    bench.store.sweep(bench.now, &bench.retention, 10).unwrap();
    assert_eq!(bench.unsettled(), [2]);
    assert_eq!(bench.store.retained_bytes(), 0);
    bench.change(settle(
        &old[1],
        FinalState::DeadLettered(DeadLetterReason::Nacked),
    ));
    assert_eq!(bench.store.backlog_bytes(), 0);
    bench.now += HOUR / 2;
    bench.store.sweep(bench.now, &bench.retention, 10).unwrap();
    assert_eq!(
        bench.column("SELECT seq FROM settled ORDER BY 1"),
        [1, 2, 3]
    );
    bench.now += HOUR;
    bench.store.sweep(bench.now, &bench.retention, 10).unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM webhooks"), 0);
    assert_eq!(bench.number("SELECT count(*) FROM outcomes"), 0);
    assert_eq!(bench.number("SELECT count(*) FROM completed"), 0);
    assert_eq!(bench.store.retained_bytes(), 0);
    assert!(bench.is_balanced());
}

#[test]
fn oldest_is_deleted_first_over_the_limit() {
    let mut bench = Bench::keeping(WEEK, 2 * weight_of_one("a"));
    let events = append(&mut bench, &["a", "b", "c"]);
    for held in [&events[2], &events[0], &events[1]] {
        bench.now += Duration::from_secs(1);
        bench.change(published(held));
    }
    assert_eq!(bench.column("SELECT seq FROM settled ORDER BY at"), [1, 2]);
    assert_eq!(bench.column("SELECT seq FROM events"), [1, 2]);
}

/// The id of a deleted row must not be reused: a row with an old id would never be swept.
#[test]
fn later_completions_are_deleted_too() {
    let mut bench = Bench::keeping(Duration::ZERO, u64::MAX);
    for session in ["a", "b", "c"] {
        let held = bench.append(&[(session, "created")]).remove(0);
        bench.change(published(&held));
        assert_eq!(bench.number("SELECT count(*) FROM webhooks"), 0);
        assert_eq!(bench.number("SELECT count(*) FROM completed"), 0);
    }
}

#[test]
fn body_only_in_the_journal_is_kept() {
    for retention in [Duration::ZERO, HOUR] {
        let mut bench = Bench::keeping(retention, 0);
        let events = append(&mut bench, &["a", "b"]);
        bench.change(settle(
            &events[0],
            FinalState::DeadLettered(DeadLetterReason::TooLarge),
        ));
        bench.change(settle(
            &events[1],
            FinalState::DeadLettered(DeadLetterReason::Nacked),
        ));
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
fn group_deletes_a_bounded_number() {
    let mut bench = Bench::keeping(HOUR, u64::MAX);
    for id in 0..300 {
        let held = bench.append(&[(&format!("s{id}"), "created")]).remove(0);
        bench.change(published(&held));
    }
    bench.now += WEEK;
    bench.append(&[("a", "created")]);
    // Each is a row of `completed` and a webhook, and counts twice against the limit.
    assert_eq!(bench.number("SELECT count(*) FROM settled"), 300 - 32);
}

#[test]
fn file_shrinks_after_a_large_backlog() {
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
    assert!(bench.store.shrink(2000, false).unwrap());
    let wal = bench.store.checkpoint().unwrap();
    assert_eq!(wal.pages, wal.copied);
    // Including the pages of their rows in other tables.
    let given = (before - size(&bench)) / u64::from(PAGE_BYTES);
    assert!((2000..2020).contains(&given), "{given}");
    while bench.store.shrink(2000, false).unwrap() {}
    bench.store.checkpoint().unwrap();
    let after = size(&bench);
    assert!(after < 17 << 20, "{after}");
}

#[test]
fn completed_events_give_way_if_disk_space_is_low() {
    let mut bench = Bench::keeping(WEEK, u64::MAX);
    let events = append(&mut bench, &["a", "b", "c"]);
    bench.change(published(&events[0]));
    bench.change(published(&events[1]));
    bench.retention.shortage = weight_of_one("a");
    bench.append(&[("d", "created")]);
    assert_eq!(bench.column("SELECT seq FROM settled"), [2]);
    bench.retention.shortage = u64::MAX;
    bench.append(&[("e", "created")]);
    assert_eq!(bench.number("SELECT count(*) FROM settled"), 0);
    assert_eq!(bench.column("SELECT seq FROM events"), [3, 4, 5]);
    assert!(bench.is_balanced());
}
