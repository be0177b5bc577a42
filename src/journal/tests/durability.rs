//! What a commit has done when it returns: a webhook is on the disk, whatever was committed before.

use std::time::Duration;

use super::support::*;

/// SQLite's levels of `synchronous`.
const NORMAL: i64 = 1;
const FULL: i64 = 2;

#[test]
fn a_webhook_waits_for_the_disk_and_a_change_alone_does_not() {
    let mut bench = Bench::new();
    for session in ["a", "b", "c"] {
        let held = bench.append(&[(session, "created")]).remove(0);
        assert_eq!(bench.number("PRAGMA synchronous"), FULL);
        assert!(bench.store.commit_time > Duration::ZERO);
        bench.change(published(&held));
        assert_eq!(bench.number("PRAGMA synchronous"), NORMAL);
        assert_eq!(bench.store.commit_time, Duration::ZERO, "no fsync to count");
    }
}

#[test]
fn a_change_that_comes_with_a_webhook_waits_with_it() {
    let mut bench = Bench::new();
    let held = bench.append(&[("a", "created")]).remove(0);
    bench.change(deferred(&held, 1));
    bench.commit(
        &[published(&held)],
        vec![webhook(&[session("b", "created")])],
    );
    assert_eq!(bench.number("PRAGMA synchronous"), FULL);
}
