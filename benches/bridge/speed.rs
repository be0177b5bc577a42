//! Sessions a second that reach the queue, and what each costs: the bridge, the forwarder without a
//! journal, and the publisher that is the limit, in turn, round by round.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cost::{self, Cost};
use crate::forwarder::Forwarding;
use crate::place::{CONNECTIONS, EXCHANGE, Place, send};
use crate::publisher::Batch;
use crate::results::rounded;
use crate::role::{Actor, Role};
use crate::sender::Load;
use crate::settings::Settings;
use crate::statistics::{float, median, spread_percent};
use crate::support::bridge::builder::free_address;
use crate::support::bridge::run::Bridge;

/// Queue, sessions of a request, connections.
const CASES: [(&str, usize, usize); 6] = [
    ("quorum", 1, 32),
    ("quorum", 10, 32),
    ("quorum", 50, 32),
    ("quorum", 10, 1),
    ("quorum", 10, 256),
    ("classic", 10, 32),
];
/// One connection is slow, whoever answers.
const ONE_CONNECTION: usize = 3;
/// While the rounds lie too far apart, so many are added.
const EXTRA_ROUNDS_MAX: usize = 4;

/// Who publishes to which queue: subject, queue, array, connections (0 for the publishers).
type Case = (&'static str, &'static str, usize, usize);
type Rounds = BTreeMap<Case, Vec<Round>>;

#[derive(Debug, Clone, Default)]
struct Round {
    /// Sessions a second.
    rate: f64,
    /// Microseconds of processor time for each session.
    cpu: f64,
    parts: cost::Parts,
    broker: f64,
    sender: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    resident_mib: f64,
    sessions: usize,
    body_bytes: f64,
}

struct Speed<'a> {
    place: &'a Place,
    bridge: Bridge,
    forwarder: Actor,
    forwarding: Forwarding,
    sessions: usize,
}

/// Measures everything.
///
/// # Errors
/// The rounds lie too far apart.
pub async fn measure(place: &Place, settings: &Settings) -> Result<Value, String> {
    let mut bridge = place.bridge().build();
    bridge.start().await;
    bridge.broker_is("connected").await;
    let forwarding = Forwarding {
        listen: free_address(),
        amqp_url: place.vhost.amqp_url.clone(),
        exchange: EXCHANGE.into(),
    };
    let speed = Speed {
        place,
        bridge,
        forwarder: Actor::start(&Role::Forward(forwarding.clone())).await,
        forwarding,
        sessions: settings.sessions,
    };
    speed.warm_up().await;
    let mut rounds = Rounds::new();
    for number in 0..settings.rounds + EXTRA_ROUNDS_MAX {
        if number >= settings.rounds && unsteady(&rounds, settings.spread_max).is_empty() {
            break;
        }
        speed.round(number, &mut rounds).await;
    }
    let far_apart = unsteady(&rounds, settings.spread_max);
    if !far_apart.is_empty() {
        return Err(format!(
            "the machine is busy: rounds lie more than {:.0} % apart: {}",
            settings.spread_max,
            far_apart.join("; ")
        ));
    }
    let peak = rounded(cost::peak_mib(speed.bridge.pid()));
    let forwarder_peak = rounded(cost::peak_mib(speed.forwarder.pid()));
    let cases: Vec<_> = rounds.keys().map(|case| told(*case, &rounds)).collect();
    let mut bridge = speed.bridge;
    bridge.terminate().await;
    Ok(json!({
        "sessions_a_round": settings.sessions,
        "peak_mib": {"bridge": peak, "forwarder": forwarder_peak},
        "cases": cases,
    }))
}

impl Speed<'_> {
    /// What is measured is not the first that happens: connections, channels and files are there.
    async fn warm_up(&self) {
        self.place.subscribe("quorum").await;
        let sessions = self.sessions.min(10_000);
        for server in [self.bridge.address(), self.forwarding.listen] {
            send(Load::new(server, sessions, 10, CONNECTIONS)).await;
            self.place.arrived("quorum", sessions).await;
            self.place.vhost.purge_queue("quorum").await;
        }
    }

    async fn round(&self, number: usize, rounds: &mut Rounds) {
        let mut last_queue = "";
        for (queue, array, connections) in CASES {
            if queue != last_queue {
                self.place.subscribe(queue).await;
                last_queue = queue;
                for (subject, is_bare) in [("lapin-bare", true), ("lapin-same", false)] {
                    let round = self.publish(queue, is_bare).await;
                    note(rounds, number, (subject, queue, 0, 0), round);
                }
            }
            let sessions = if connections == 1 {
                self.sessions.div_ceil(ONE_CONNECTION)
            } else {
                self.sessions
            };
            let load = |server| Load::new(server, sessions, array, connections);
            let round = self.bridge(queue, load(self.bridge.address())).await;
            note(rounds, number, ("bridge", queue, array, connections), round);
            let round = self.forward(queue, load(self.forwarding.listen)).await;
            note(
                rounds,
                number,
                ("forwarder", queue, array, connections),
                round,
            );
        }
    }

    async fn publish(&self, queue: &str, is_bare: bool) -> Round {
        if !is_bare {
            send(Load::new(self.bridge.address(), 1, 1, 1)).await;
            self.place.arrived(queue, 1).await;
        }
        let batch = Batch {
            amqp_url: self.place.vhost.amqp_url.clone(),
            exchange: EXCHANGE.into(),
            sessions: self.sessions,
            like_one_of: (!is_bare).then(|| queue.to_owned()),
        };
        let mut publisher = Actor::start(&Role::Publish(batch)).await;
        let clock = Clock::start(self.place, publisher.pid());
        publisher.go();
        let done: String = publisher.result().await;
        assert_eq!(done, "done");
        let took = self.arrived(queue, self.sessions, &clock).await;
        let round = clock.stop(self.place, publisher.pid(), self.sessions, took);
        self.place.vhost.purge_queue(queue).await;
        round
    }

    async fn bridge(&self, queue: &str, load: Load) -> Round {
        let pid = self.bridge.pid();
        let round = self.serve(queue, load, pid, async || {
            self.bridge.backlog_is_empty().await;
        });
        round.await
    }

    async fn forward(&self, queue: &str, load: Load) -> Round {
        self.serve(queue, load, self.forwarder.pid(), async || ())
            .await
    }

    async fn serve(&self, queue: &str, load: Load, pid: u32, settled: impl AsyncFn()) -> Round {
        let sessions = load.sessions;
        let mut sender = Actor::start(&Role::Send(load)).await;
        let clock = Clock::start(self.place, pid);
        sender.go();
        let answers: crate::sender::Answers = sender.result().await;
        let took = self.arrived(queue, sessions, &clock).await;
        settled().await;
        let round = clock.stop(self.place, pid, sessions, took);
        self.place.vhost.purge_queue(queue).await;
        Round {
            p50: answers.p50_ms,
            p99: answers.p99_ms,
            p999: answers.p999_ms,
            sender: per_session(answers.cpu, sessions),
            body_bytes: float(answers.bytes) / float(sessions),
            ..round
        }
    }

    async fn arrived(&self, queue: &str, sessions: usize, clock: &Clock) -> Duration {
        self.place.arrived(queue, sessions).await;
        clock.begin.elapsed()
    }
}

/// Processor time and time, from the first byte on.
struct Clock {
    begin: Instant,
    own: Cost,
    broker: Cost,
}

impl Clock {
    fn start(place: &Place, pid: u32) -> Self {
        let broker = Cost::of(place.broker.pid());
        let own = Cost::of(pid);
        let begin = Instant::now();
        Self { begin, own, broker }
    }

    fn stop(&self, place: &Place, pid: u32, sessions: usize, took: Duration) -> Round {
        Round {
            rate: float(sessions) / took.as_secs_f64(),
            cpu: per_session(self.own.since(pid), sessions),
            parts: self.own.parts_since(pid),
            broker: per_session(self.broker.since(place.broker.pid()), sessions),
            resident_mib: cost::resident_mib(pid),
            sessions,
            ..Round::default()
        }
    }
}

/// In microseconds.
fn per_session(time: Duration, sessions: usize) -> f64 {
    time.as_secs_f64() * 1e6 / float(sessions)
}

fn note(rounds: &mut Rounds, number: usize, case: Case, round: Round) {
    let (subject, queue, array, connections) = case;
    let name = name(case);
    eprintln!(
        "round {}: {name:<44} {:>8.0}/s {:>7.1} µs {:>8.1} ms p99",
        number + 1,
        round.rate,
        round.cpu,
        round.p99
    );
    let all = rounds.entry((subject, queue, array, connections));
    all.or_default().push(round);
}

fn name((subject, queue, array, connections): Case) -> String {
    match array {
        0 => format!("{subject}, {queue}"),
        _ => format!("{subject}, {queue}, arrays of {array}, {connections} connections"),
    }
}

/// The cases whose rounds lie too far apart.
fn unsteady(rounds: &Rounds, spread_max: f64) -> Vec<String> {
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
fn told(case: Case, all: &Rounds) -> Value {
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
