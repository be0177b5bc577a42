//! An outage of the broker while webhooks arrive at the full rate, restarts of the bridge with the
//! backlog, and draining of the backlog after the outage, while webhooks still arrive.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::answers::full_rate;
use crate::cost;
use crate::idle::first_answer;
use crate::place::{ARRAY, CONNECTIONS, Place, send};
use crate::results::rounded;
use crate::role::{Actor, Role};
use crate::sender::{Answers, Load, Pace};
use crate::settings::Settings;
use crate::statistics::{float, median};
use crate::support::bridge::run::Bridge;

const QUEUE: &str = "quorum";
/// Share of the full rate at which webhooks arrive while the backlog drains.
const MEANWHILE: f64 = 0.2;
const LOOK: Duration = Duration::from_millis(250);
/// Number of samples over which the slowest rate of draining is determined.
const WINDOW: usize = 20;
const DRAIN_MAX: Duration = Duration::from_mins(20);
/// A backlog below this number of events is normal for a bridge that keeps up.
const IN_HAND: f64 = 1_000.0;

/// Measures all phases.
pub async fn measure(place: &Place, settings: &Settings) -> Value {
    let mut bridge = place.working_bridge("", QUEUE).await;
    let full = full_rate(place, &bridge, settings.sessions).await;

    place.broker.stop().await;
    eprintln!("the broker is away");
    cost::forget_peak(bridge.pid());
    let mut load = Load::new(bridge.address(), settings.backlog, ARRAY, CONNECTIONS);
    load.pace = Pace::FullUnprepared;
    let accepted = send(load).await;
    let accepting_peak = cost::peak_mib(bridge.pid());
    eprintln!(
        "{} events are pending, accepted at {:.0}/s",
        accepted.sessions,
        accepted.rate()
    );

    let (mut after_term, mut after_kill) = (Vec::new(), Vec::new());
    let mut journal_mib = 0.0;
    for _ in 0..settings.rounds {
        bridge.terminate().await;
        journal_mib = size_mib(&bridge);
        after_term.push(first_answer(&mut bridge).await);
        bridge.kill().await;
        after_kill.push(first_answer(&mut bridge).await);
    }

    cost::forget_peak(bridge.pid());
    let mut load = Load::new(bridge.address(), 0, ARRAY, CONNECTIONS);
    load.pace = Pace::UntilStopped(MEANWHILE * full);
    let mut sender = Actor::start(&Role::Send(load)).await;
    sender.go();
    let begin = Instant::now();
    place.broker.start().await;
    let drain = drain(place, &bridge).await;
    sender.stop();
    let meanwhile: Answers = sender.result().await;
    eprintln!(
        "drained at {:.0}/s, {:.0}/s without an outage",
        drain.rate, full
    );
    let peak = cost::peak_mib(bridge.pid());
    place.drained(&bridge, QUEUE).await;
    bridge.terminate().await;
    json!({
        "backlog_events": accepted.sessions,
        "journal_mib": rounded(journal_mib),
        "accepting": {
            "sessions_per_second": rounded(accepted.rate()),
            "p99_ms": rounded(accepted.p99_ms),
            "max_ms": rounded(accepted.max_ms),
            "peak_mib": rounded(accepting_peak),
        },
        "first_answer_ms": {
            "after_term": rounded(median(after_term.iter().copied())),
            "after_kill": rounded(median(after_kill.iter().copied())),
            "rounds_after_term": after_term.into_iter().map(rounded).collect::<Vec<_>>(),
            "rounds_after_kill": after_kill.into_iter().map(rounded).collect::<Vec<_>>(),
        },
        "draining": {
            "sessions_per_second_full": rounded(full),
            "sessions_per_second": rounded(drain.rate),
            "sessions_per_second_slowest_5s": rounded(drain.slowest),
            "seconds": rounded(drain.took.as_secs_f64()),
            "seconds_from_broker_start": rounded(begin.elapsed().as_secs_f64()),
            "ingress_sessions_per_second": rounded(meanwhile.rate()),
            "p99_ms": rounded(meanwhile.p99_ms),
            "max_ms": rounded(meanwhile.max_ms),
            "peak_mib": rounded(peak),
        },
    })
}

struct Drain {
    /// Sessions per second, from the first confirm until the backlog is normal again.
    rate: f64,
    slowest: f64,
    took: Duration,
}

/// Observes the draining backlog, and empties the queue meanwhile.
async fn drain(place: &Place, bridge: &Bridge) -> Drain {
    let begin = Instant::now();
    let mut looks: Vec<(Instant, f64)> = Vec::new();
    let published = |status: &Value| status["counters"]["published"].as_f64().unwrap_or(0.0);
    let before = published(&bridge.status().await);
    loop {
        assert!(begin.elapsed() < DRAIN_MAX, "the backlog does not drain");
        tokio::time::sleep(LOOK).await;
        let status = bridge.status().await;
        let so_far = published(&status);
        if so_far > before {
            looks.push((Instant::now(), so_far));
            place.vhost.purge_queue(QUEUE).await;
        }
        if status["backlog"]["events"].as_f64().unwrap_or(0.0) < IN_HAND {
            break;
        }
    }
    let rate = |from: &(Instant, f64), to: &(Instant, f64)| {
        (to.1 - from.1) / (to.0 - from.0).as_secs_f64().max(1e-3)
    };
    let (first, last) = (looks[0], looks[looks.len() - 1]);
    let windows = looks.windows(WINDOW.min(looks.len()));
    let slowest = windows.map(|window| rate(&window[0], &window[window.len() - 1]));
    Drain {
        rate: rate(&first, &last),
        slowest: slowest.fold(f64::INFINITY, f64::min),
        took: last.0 - first.0,
    }
}

fn size_mib(bridge: &Bridge) -> f64 {
    let files = std::fs::read_dir(bridge.journal_dir()).expect("a journal");
    let bytes: u64 = files
        .flatten()
        .filter_map(|file| file.metadata().ok())
        .map(|file| file.len())
        .sum();
    float(usize::try_from(bytes).unwrap_or_default()) / f64::from(1 << 20)
}
