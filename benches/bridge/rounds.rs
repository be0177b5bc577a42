//! What every case was in every round, and what is told of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cost;
use crate::results::rounded;
use crate::statistics::{float, median, spread_percent};

/// Who publishes to which queue: subject, queue, array, connections (0 for the publishers).
pub type Case = (&'static str, &'static str, usize, usize);
pub type Rounds = BTreeMap<Case, Vec<Round>>;

/// One round of a case.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Sessions a second.
    pub rate: f64,
    /// Microseconds of processor time for each session.
    pub cpu: f64,
    pub parts: cost::Parts,
    pub broker: f64,
    pub sender: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub resident_mib: f64,
    pub sessions: usize,
    pub body_bytes: f64,
}

/// In microseconds.
pub fn per_session(time: Duration, sessions: usize) -> f64 {
    time.as_secs_f64() * 1e6 / float(sessions)
}

pub fn note(rounds: &mut Rounds, number: usize, case: Case, round: Round) {
    let name = name(case);
    eprintln!(
        "round {}: {name:<44} {:>8.0}/s {:>7.1} µs {:>8.1} ms p99",
        number + 1,
        round.rate,
        round.cpu,
        round.p99
    );
    rounds.entry(case).or_default().push(round);
}

fn name((subject, queue, array, connections): Case) -> String {
    match array {
        0 => format!("{subject}, {queue}"),
        _ => format!("{subject}, {queue}, arrays of {array}, {connections} connections"),
    }
}

/// Whether the rounds of a case do not lie too far apart.
pub fn is_steady(rounds: &[Round], spread_max: f64) -> bool {
    spread_percent(rounds.iter().map(|round| round.rate)) <= spread_max
}

/// The cases whose rounds lie too far apart.
pub fn unsteady(rounds: &Rounds, spread_max: f64) -> Vec<String> {
    let spreads = rounds.iter().map(|(case, rounds)| {
        let spread = spread_percent(rounds.iter().map(|round| round.rate));
        (name(*case), spread)
    });
    spreads
        .filter(|(_, spread)| *spread > spread_max)
        .map(|(name, spread)| format!("{name}: {spread:.0} %"))
        .collect()
}

/// All of a case: its rounds, their medians, and the medians of the ratios within each round.
pub fn told(case: Case, all: &Rounds) -> Value {
    let (subject, queue, array, connections) = case;
    let rounds = &all[&case];
    let of = |value: fn(&Round) -> f64| rounded(median(rounds.iter().map(value)));
    let mut told = json!({
        "subject": subject,
        "queue": queue,
        "rounds": rounds.iter().map(raw).collect::<Vec<_>>(),
        "spread_percent": rounded(spread_percent(rounds.iter().map(|round| round.rate))),
        "median": {
            "sessions_per_second": of(|round| round.rate),
            "cpu_us": of(|round| round.cpu),
            "rabbitmq_cpu_us": of(|round| round.broker),
        },
    });
    let ratios = |other: Case| {
        let pairs = rounds.iter().zip(all.get(&other)?);
        let ratios: Vec<_> = pairs.map(|(one, other)| one.rate / other.rate).collect();
        Some(rounded(median(ratios)))
    };
    let publishers = ["lapin-same", "lapin-bare"].map(|name| (name, queue, 0, 0));
    for other in publishers
        .into_iter()
        .chain([("forwarder", queue, array, connections)])
        .filter(|other| *other != case)
    {
        if let Some(ratio) = ratios(other) {
            told["ratio"][other.0] = ratio;
        }
    }
    if array > 0 {
        told["array"] = array.into();
        told["connections"] = connections.into();
        let median = &mut told["median"];
        median["p50_ms"] = of(|round| round.p50);
        median["p99_ms"] = of(|round| round.p99);
        median["p999_ms"] = of(|round| round.p999);
        median["resident_mib"] = of(|round| round.resident_mib);
        median["sender_cpu_us"] = of(|round| round.sender);
        median["body_bytes"] = of(|round| round.body_bytes);
    }
    if subject == "bridge" {
        told["median"]["ingress_us"] = of(|round| per_session(round.parts.ingress, round.sessions));
        told["median"]["journal_us"] = of(|round| per_session(round.parts.journal, round.sessions));
        told["median"]["publishing_us"] =
            of(|round| per_session(round.parts.publishing, round.sessions));
    }
    told
}

fn raw(round: &Round) -> Value {
    json!({
        "sessions_per_second": rounded(round.rate),
        "cpu_us": rounded(round.cpu),
        "rabbitmq_cpu_us": rounded(round.broker),
        "p50_ms": rounded(round.p50),
        "p99_ms": rounded(round.p99),
        "p999_ms": rounded(round.p999),
    })
}
