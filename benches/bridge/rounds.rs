//! The results of every round of every case, and their summary.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cost;
use crate::results::rounded;
use crate::statistics::{float, median, spread_percent};

/// What publishes to which queue: subject, queue, array, connections (0 for the publishers).
pub type Case = (&'static str, &'static str, usize, usize);
pub type Rounds = BTreeMap<Case, Vec<Round>>;

/// One round of a case.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Sessions per second, until the last message is in the queue.
    pub rate: f64,
    /// Sessions per second, until the last answer.
    pub accepted: f64,
    /// CPU time per session in microseconds, until the process is idle.
    pub cpu: f64,
    pub parts: cost::Parts,
    pub broker: f64,
    pub sender: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// Set if a consumer records when each message arrives.
    pub delivery: Option<Delivery>,
    pub resident_mib: f64,
    pub peak_mib: f64,
    pub sessions: usize,
    /// Bytes of a session, with its share of the array.
    pub body_bytes: f64,
    /// Bytes written to disk in the whole round.
    pub bytes_written: f64,
}

/// Milliseconds from sending a session until a consumer has received it.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    pub p50: f64,
    pub p99: f64,
}

impl Round {
    /// Bytes written to disk per received byte.
    fn written(&self) -> f64 {
        self.bytes_written / (self.body_bytes * float(self.sessions))
    }

    /// CPU time per session without that of the archive; `None` without an archive.
    fn cpu_without_archive(&self) -> Option<f64> {
        let archive = per_session(self.parts.archive?, self.sessions);
        Some(self.cpu - archive)
    }
}

/// Runs every case once per round, each round in another order.
pub async fn in_turn(rounds: usize, cases: &[Case], run: impl AsyncFn(Case) -> Round) -> Rounds {
    let mut all = Rounds::new();
    for number in 0..rounds {
        let mut order = cases.to_vec();
        // Each subject finds broker and disk as the previous one left them, so the order changes.
        order.rotate_left(number % cases.len());
        for case in order {
            let round = run(case).await;
            note(&mut all, number, case, round);
        }
    }
    all
}

/// Microseconds per session.
pub fn per_session(time: Duration, sessions: usize) -> f64 {
    time.as_secs_f64() * 1e6 / float(sessions)
}

pub fn note(rounds: &mut Rounds, number: usize, case: Case, round: Round) {
    let name = name(case);
    let delivery = round.delivery.map_or_else(String::new, |delivery| {
        let Delivery { p50, p99 } = delivery;
        format!(", delivered after {p50:.1} ms (p99 {p99:.1} ms)")
    });
    eprintln!(
        "round {}: {name:<44} {:>8.0}/s {:>7.1} µs {:>8.1} ms p99 {:>6.1} MiB{delivery}",
        number + 1,
        round.rate,
        round.cpu,
        round.p99,
        round.peak_mib
    );
    rounds.entry(case).or_default().push(round);
}

fn name((subject, queue, array, connections): Case) -> String {
    match array {
        0 => format!("{subject}, {queue}"),
        _ => format!("{subject}, {queue}, arrays of {array}, {connections} connections"),
    }
}

/// Whether the spread of a case's rounds is acceptable.
pub fn is_steady(rounds: &[Round], spread_max: f64) -> bool {
    spread_percent(rounds.iter().map(|round| round.rate)) <= spread_max
}

/// The cases whose rounds have too large a spread.
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

/// The ratio of a round to one of another case; `None` if there is nothing to compare.
type Ratio = fn(&Round, &Round) -> Option<f64>;

const RATIOS: [(&str, Ratio); 5] = [
    ("ratio", |one, other| Some(one.rate / other.rate)),
    ("cpu_ratio", |one, other| Some(one.cpu / other.cpu)),
    ("cpu_without_archive_ratio", |one, other| {
        Some(one.cpu_without_archive()? / other.cpu_without_archive().unwrap_or(other.cpu))
    }),
    ("delivery_p50_ratio", |one, other| {
        Some(one.delivery?.p50 / other.delivery?.p50)
    }),
    ("delivery_p99_ratio", |one, other| {
        Some(one.delivery?.p99 / other.delivery?.p99)
    }),
];

/// All results of a case: its rounds, their medians, and the medians of the ratios within each
/// round, to the publishers and the forwarder, and from a bridge in special circumstances to the
/// usual one.
pub fn told(case: Case, all: &Rounds) -> Value {
    let (subject, queue, array, connections) = case;
    let rounds = &all[&case];
    let mut told = json!({
        "subject": subject,
        "queue": queue,
        "rounds": rounds.iter().map(raw).collect::<Vec<_>>(),
        "spread_percent": rounded(spread_percent(rounds.iter().map(|round| round.rate))),
        "median": medians(case, rounds),
    });
    if array > 0 {
        told["array"] = array.into();
        told["connections"] = connections.into();
    }
    let usual = subject.starts_with("bridge-").then_some("bridge");
    let servers = ["forwarder"].into_iter().chain(usual);
    let others = ["lapin-same", "lapin-bare"]
        .map(|name| (name, queue, 0, 0))
        .into_iter()
        .chain(servers.map(|name| (name, queue, array, connections)));
    for other in others.filter(|other| *other != case) {
        let Some(others) = all.get(&other) else {
            continue;
        };
        for (name, ratio) in RATIOS {
            let pairs = rounds.iter().zip(others);
            let ratios: Option<Vec<_>> = pairs.map(|(one, other)| ratio(one, other)).collect();
            if let Some(ratios) = ratios {
                told[name][other.0] = rounded(median(ratios));
            }
        }
    }
    told
}

/// A figure of a round; `None` if the round does not have it.
type Figure = fn(&Round) -> Option<f64>;

fn medians((subject, _, array, _): Case, rounds: &[Round]) -> Value {
    let of = |value: fn(&Round) -> f64| rounded(median(rounds.iter().map(value)));
    let mut medians = json!({
        "sessions_per_second": of(|round| round.rate),
        "cpu_us": of(|round| round.cpu),
        "rabbitmq_cpu_us": of(|round| round.broker),
    });
    if array > 0 {
        medians["accepted_per_second"] = of(|round| round.accepted);
        medians["p50_ms"] = of(|round| round.p50);
        medians["p99_ms"] = of(|round| round.p99);
        medians["p999_ms"] = of(|round| round.p999);
        medians["resident_mib"] = of(|round| round.resident_mib);
        medians["peak_mib"] = of(|round| round.peak_mib);
        medians["sender_cpu_us"] = of(|round| round.sender);
        medians["body_bytes"] = of(|round| round.body_bytes);
        medians["written_per_byte"] = of(Round::written);
    }
    if subject.starts_with("bridge") {
        medians["ingress_us"] = of(|round| per_session(round.parts.ingress, round.sessions));
        medians["journal_us"] = of(|round| per_session(round.parts.journal, round.sessions));
        medians["publishing_us"] = of(|round| per_session(round.parts.publishing, round.sessions));
    }
    let optional: [(&str, Figure); 4] = [
        ("archive_us", |round| {
            Some(per_session(round.parts.archive?, round.sessions))
        }),
        ("cpu_without_archive_us", Round::cpu_without_archive),
        ("delivery_p50_ms", |round| Some(round.delivery?.p50)),
        ("delivery_p99_ms", |round| Some(round.delivery?.p99)),
    ];
    for (name, value) in optional {
        let values: Option<Vec<_>> = rounds.iter().map(value).collect();
        if let Some(values) = values {
            medians[name] = rounded(median(values));
        }
    }
    medians
}

fn raw(round: &Round) -> Value {
    json!({
        "sessions_per_second": rounded(round.rate),
        "cpu_us": rounded(round.cpu),
        "rabbitmq_cpu_us": rounded(round.broker),
        "p50_ms": rounded(round.p50),
        "p99_ms": rounded(round.p99),
        "p999_ms": rounded(round.p999),
        "delivery_p99_ms": round.delivery.map(|delivery| rounded(delivery.p99)),
    })
}
