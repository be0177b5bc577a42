//! Faults of a real broker, machine or bridge: `check` reports the root cause first, never reports
//! healthy, and gives the same result every time. Two more runs per fault; `CHECK_RUNS` sets another
//! number (`make check-faults RUNS=40`).

mod access;
mod environment;
mod objects;
mod running;

use std::time::{Duration, Instant};

use serde_json::Value;

use super::setup::{self, Checked, NO_LIMIT, Setup, check};
use crate::support::bridge::run::Bridge;

/// How long the statistics of the management API may lag.
const BEHIND: Duration = Duration::from_secs(20);

fn runs(unless_set: usize) -> usize {
    let runs = std::env::var("CHECK_RUNS").ok();
    runs.and_then(|runs| runs.parse().ok())
        .unwrap_or(unless_set)
}

/// Panics unless every run exits with this code and its first cause begins with this text.
async fn agrees(bridge: &Bridge, code: i32, first: &str) -> Checked {
    agree(runs(2), bridge, code, first).await
}

/// As [`agrees`], for a fault with which a run takes some seconds.
async fn agrees_slowly(bridge: &Bridge, code: i32, first: &str) -> Checked {
    agree(runs(1), bridge, code, first).await
}

async fn agree(runs: usize, bridge: &Bridge, code: i32, first: &str) -> Checked {
    let begin = Instant::now();
    let mut seen = check(bridge).await;
    while !seen.first.starts_with(first) && begin.elapsed() < BEHIND {
        seen = check(bridge).await;
    }
    let mut agreeing = 0;
    for _ in 0..runs {
        let again = check(bridge).await;
        let is_same = again.code == code && plain(&again.first) == plain(&seen.first);
        if is_same && again.first.starts_with(first) && again.verdict != "healthy" {
            agreeing += 1;
        } else {
            seen = again;
        }
    }
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{agreeing} of {runs} agree: {name}: {first}");
    assert_eq!(agreeing, runs, "expected {code}, {first}\n{seen:#?}");
    seen
}

/// The text without its numbers, which grow from run to run.
fn plain(text: &str) -> String {
    let is_digit = |one: char| one.is_ascii_digit();
    let mut plain: Vec<_> = text.split(is_digit).collect();
    plain.retain(|part| !part.is_empty());
    plain.join("#")
}

/// A bridge that has declared its topology and has ended.
async fn stopped(toml: &str) -> Setup {
    let mut setup = Setup::of(toml).await;
    setup.bridge.terminate().await;
    setup
}

/// Declares a consumer's own queue with these arguments, next to the configured queue. For some
/// keys it may be the only queue.
async fn own_queue(setup: &Setup, arguments: Value) {
    setup.vhost.declare_queue("own", arguments).await;
    setup
        .vhost
        .bind("own", "chat-sessions", "chat-session.missed")
        .await;
}

/// As [`setup::safe`], without a delivery limit.
fn safe(with: &Value) -> Value {
    let mut arguments = setup::safe(with);
    arguments["x-delivery-limit"] = NO_LIMIT.into();
    arguments
}
