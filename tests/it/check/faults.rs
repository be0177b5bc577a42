//! Faults, each seeded into a real broker, machine or bridge: `check` reports the true cause first,
//! never calls it healthy, and says the same every time. Three runs each, `CHECK_RUNS` for more
//! (`make check-faults RUNS=40`).

mod access;
mod around;
mod objects;
mod running;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::setup::{Checked, Setup, check};
use crate::support::bridge::run::Bridge;

/// The management API may be so far behind.
const BEHIND: Duration = Duration::from_secs(20);

fn runs() -> usize {
    let runs = std::env::var("CHECK_RUNS").ok();
    runs.and_then(|runs| runs.parse().ok()).unwrap_or(3)
}

/// Every run exits with this code and has this cause first, by the beginning of its line.
async fn agrees(bridge: &Bridge, code: i32, first: &str) -> Checked {
    let begin = Instant::now();
    let mut seen = check(bridge).await;
    while !seen.first.starts_with(first) && begin.elapsed() < BEHIND {
        seen = check(bridge).await;
    }
    let runs = runs();
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

/// Without the numbers that grow from run to run.
fn plain(text: &str) -> String {
    let is_digit = |one: char| one.is_ascii_digit();
    let mut plain: Vec<_> = text.split(is_digit).collect();
    plain.retain(|part| !part.is_empty());
    plain.join("#")
}

/// A bridge that has declared everything and has ended.
async fn stopped(toml: &str) -> Setup {
    let mut setup = Setup::of(toml).await;
    setup.bridge.terminate().await;
    setup
}

/// A queue of a consumer's own with these arguments, beside the one of the configuration, which may
/// be alone with some keys.
async fn own_queue(setup: &Setup, arguments: Value) {
    setup.vhost.declare_queue("own", arguments).await;
    setup
        .vhost
        .bind("own", "chat-sessions", "chat-session.missed")
        .await;
}

/// What every good queue has, and these.
fn safe(with: &Value) -> Value {
    let mut arguments = json!({
        "x-queue-type": "quorum", "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "chat-sessions.dead-letter",
        "x-dead-letter-strategy": "at-least-once", "x-delivery-limit": 1_000_000_000,
    });
    for (name, value) in with.as_object().unwrap() {
        arguments[name] = value.clone();
    }
    arguments
}
