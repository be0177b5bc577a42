//! Response times at half load, while the broker answers and while it is frozen, alternately.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cost;
use crate::place::{ARRAY, CONNECTIONS, Place, timed};
use crate::results::rounded;
use crate::role::{Actor, Role};
use crate::sender::{Answers, Load, Pace};
use crate::settings::Settings;
use crate::statistics::{float, median};
use crate::support::bridge::run::Bridge;

const QUEUE: &str = "quorum";

/// Measures both cases in every round.
pub async fn measure(place: &Place, settings: &Settings) -> Value {
    let mut bridge = place.working_bridge("", QUEUE).await;
    let full = full_rate(place, &bridge, settings.sessions).await;
    let span = Duration::from_secs(settings.seconds as u64);
    let (mut answering, mut frozen) = (Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        answering.push(at_rate(&bridge, full / 2.0, span).await);
        place.drained(&bridge, QUEUE).await;
        place.broker.freeze();
        frozen.push(at_rate(&bridge, full / 2.0, span).await);
        place.broker.thaw();
        place.drained(&bridge, QUEUE).await;
        bridge.broker_is("connected").await;
        eprintln!(
            "round {}: p99 {:.1} ms, with a frozen broker {:.1} ms",
            round + 1,
            answering[round].answers.p99_ms,
            frozen[round].answers.p99_ms
        );
    }
    let metrics = bridge.metrics().await;
    let commits = metrics.sum("journal_fsync_seconds_count");
    let commit_ms = 1e3 * metrics.sum("journal_fsync_seconds_sum") / commits.max(1.0);
    bridge.terminate().await;
    json!({
        "array": ARRAY,
        "connections": CONNECTIONS,
        "seconds_a_round": settings.seconds,
        "sessions_per_second_full": rounded(full),
        "sessions_per_second": rounded(full / 2.0),
        "commit_mean_ms": rounded(commit_ms),
        "answering": told(&answering),
        "frozen": told(&frozen),
    })
}

/// Sessions per second of a bridge under full load: the median of three rounds.
pub async fn full_rate(place: &Place, bridge: &Bridge, sessions: usize) -> f64 {
    let mut rates = Vec::new();
    for _ in 0..4 {
        let load = Load::new(bridge.address(), sessions, ARRAY, CONNECTIONS);
        let (begin, _) = timed(load).await;
        place.arrived(QUEUE, sessions).await;
        rates.push(float(sessions) / begin.elapsed().as_secs_f64());
        place.drained(bridge, QUEUE).await;
    }
    median(rates.split_off(1))
}

struct Look {
    answers: Answers,
    peak_mib: f64,
}

async fn at_rate(bridge: &Bridge, sessions_per_second: f64, span: Duration) -> Look {
    cost::forget_peak(bridge.pid());
    let mut load = Load::new(bridge.address(), 0, ARRAY, CONNECTIONS);
    load.pace = Pace::UntilStopped(sessions_per_second);
    let mut sender = Actor::start(&Role::Send(load)).await;
    sender.go();
    tokio::time::sleep(span).await;
    sender.stop();
    Look {
        answers: sender.result().await,
        peak_mib: cost::peak_mib(bridge.pid()),
    }
}

fn told(rounds: &[Look]) -> Value {
    let of = |value: fn(&Answers) -> f64| {
        let values = rounds.iter().map(|look| value(&look.answers));
        rounded(median(values))
    };
    let raw = |Look { answers, peak_mib }: &Look| {
        json!({
            "p50_ms": rounded(answers.p50_ms),
            "p99_ms": rounded(answers.p99_ms),
            "p999_ms": rounded(answers.p999_ms),
            "max_ms": rounded(answers.max_ms),
            "sessions_per_second": rounded(answers.rate()),
            "peak_mib": rounded(*peak_mib),
        })
    };
    json!({
        "median": {
            "p50_ms": of(|answers| answers.p50_ms),
            "p99_ms": of(|answers| answers.p99_ms),
            "p999_ms": of(|answers| answers.p999_ms),
            "max_ms": of(|answers| answers.max_ms),
        },
        "peak_mib": rounded(rounds.iter().map(|look| look.peak_mib).fold(0.0, f64::max)),
        "rounds": rounds.iter().map(raw).collect::<Vec<_>>(),
    })
}
