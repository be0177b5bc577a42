//! The sizes that the limits count are close to what events take on disk.

use super::support::*;
use crate::journal::schema::PAGE_BYTES;

/// A session as DeskDirector sends it: with an id like a UUID, and this many bytes in all.
fn element(number: usize, bytes: usize) -> String {
    let id = format!("{number:08x}-6ad9-4acc-8128-9844{number:08x}");
    let head = format!(r#"{{"id":"{id}","status":"created","type":"chat","summary":""#);
    let rest = bytes.saturating_sub(head.len() + 2);
    format!(r#"{head}{}"}}"#, "x".repeat(rest))
}

fn pages(bench: &Bench) -> i64 {
    let used = bench.number("SELECT page_count FROM pragma_page_count");
    used - bench.number("SELECT freelist_count FROM pragma_freelist_count")
}

/// For pending and for completed events, the estimate is close to the pages in use.
fn check(events: usize, what: &str, element: impl Fn(usize) -> String) {
    let mut bench = Bench::new();
    let empty = pages(&bench);
    let mut held = Vec::new();
    for first in (0..events).step_by(100) {
        let elements: Vec<_> = (first..(first + 100).min(events)).map(&element).collect();
        held.extend(bench.commit(&[], &[webhook(&elements)]).fresh);
    }
    let is_close = |bench: &Bench, counted: u64, state: &str| {
        let real = (pages(bench) - empty) * i64::from(PAGE_BYTES);
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let ratio = counted as f64 / real as f64;
        println!("{what}, {state}: {ratio:.2}");
        assert!(
            (0.7..1.5).contains(&ratio),
            "{what}, {state}: {counted} counted, {real} in use, {ratio:.2}"
        );
    };
    is_close(&bench, bench.store.backlog_bytes(), "waiting");
    let changes: Vec<_> = held.iter().map(published).collect();
    bench.commit(&changes, &[]);
    is_close(&bench, bench.store.retained_bytes(), "settled");
}

#[test]
fn size_estimate_is_close_for_all_sizes() {
    check(20_000, "2 bytes", |_| "{}".to_owned());
    for (events, bytes) in [
        (10_000, 120),
        (5_000, 500),
        (4_000, 2_000),
        (3_000, 4_200),
        (1_000, 9_000),
        (400, 40_000),
        (20, 1 << 20),
    ] {
        check(events, &format!("{bytes} bytes"), |number| {
            element(number, bytes)
        });
    }
    check(3_000, "mixed", |number| {
        element(number, 100 + number * 37 % 6_000)
    });
}
