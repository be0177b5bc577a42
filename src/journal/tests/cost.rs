//! Measures the processor time per event. It asserts nothing; run it by hand, optimised:
//! `cargo test --release --lib journal::tests::cost -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::support::*;
use crate::journal::Transition;
use crate::webhook::Webhook;

/// Clock ticks per second, the unit of times in `/proc`.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of this thread so far, user and system.
pub fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    if let Some(nanos) = nanos {
        return Duration::from_nanos(nanos);
    }
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum();
    Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
}

fn webhooks(count: usize, round: usize) -> Vec<Webhook> {
    (0..count)
        .map(|id| {
            let filler = "x".repeat(1950);
            webhook(&[format!(
                r#"{{"id":"00000000-session-{round}-{id}","status":"created","x":"{filler}"}}"#
            )])
        })
        .collect()
}

/// Appends groups; each commit also completes the group before.
fn measure(name: &str, group: usize, events: usize, retention: Duration, backlog: usize) {
    let mut bench = Bench::keeping(retention, 64 << 20);
    for round in 0..backlog / 500 {
        bench.commit(&[], &webhooks(500, 1_000_000 + round));
        bench.store.checkpoint().unwrap();
    }
    let rounds: Vec<_> = (0..events / group)
        .map(|round| webhooks(group, round))
        .collect();
    let (mut changes, mut written): (Vec<Transition>, usize) = (Vec::new(), 0);
    let (mut stall, mut pages, mut checkpoints) = (Duration::ZERO, 0, 0);
    let (began, began_cpu) = (Instant::now(), processor_time());
    for webhooks in rounds {
        let committed = bench.commit(&changes, &webhooks);
        changes = committed.fresh.iter().map(published).collect();
        written += group * (2048 + 1024) + (32 << 10);
        if written > 4 << 20 {
            written = 0;
            let began = Instant::now();
            let wal = bench.store.checkpoint().unwrap();
            stall = stall.max(began.elapsed());
            pages += wal.pages;
            checkpoints += 1;
        }
    }
    let (elapsed, cpu) = (began.elapsed(), processor_time().saturating_sub(began_cpu));
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    let each = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
    println!(
        "{name}, groups of {group}: {:.1} us of processor, {:.1} us in all an event; longest \
         checkpoint {stall:?}, {} KiB of log each",
        each(cpu),
        each(elapsed),
        pages * 4 / checkpoints.max(1),
    );
}

#[test]
#[ignore = "a measurement"]
fn cost_of_storing_and_completing_an_event() {
    for group in [1, 16, 256] {
        let events = if group == 1 { 2000 } else { 20_480 };
        measure("kept for a week", group, events, WEEK, 0);
        measure("deleted when settled", group, events, Duration::ZERO, 0);
    }
    measure(
        "behind a backlog of 50,000",
        16,
        20_480,
        Duration::ZERO,
        50_000,
    );
}
