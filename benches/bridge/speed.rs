//! Sessions a second that reach the queue, and what each costs: the bridge, the forwarder without a
//! journal, and the publisher that is the limit, in turn, round by round.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cost::{self, Cost};
use crate::forwarder::Forwarding;
use crate::place::{CONNECTIONS, EXCHANGE, Place, send};
use crate::publisher::Batch;
use crate::results::rounded;
use crate::role::{Actor, Role};
use crate::rounds::{Case, Round, Rounds, is_steady, note, per_session, told, unsteady};
use crate::sender::Load;
use crate::settings::Settings;
use crate::statistics::float;
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

const BRIDGE: &str = "bridge";
const SERVERS: [&str; 2] = [BRIDGE, "forwarder"];

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
    let bridge = new_bridge(place).await;
    let forwarding = Forwarding {
        listen: free_address(),
        amqp_url: place.vhost.amqp_url.clone(),
        exchange: EXCHANGE.into(),
    };
    let mut speed = Speed {
        place,
        bridge,
        forwarder: Actor::start(&Role::Forward(forwarding.clone())).await,
        forwarding,
        sessions: settings.sessions,
    };
    speed.warm_up().await;
    let mut rounds = Rounds::new();
    let mut peak: f64 = 0.0;
    for number in 0..settings.rounds + EXTRA_ROUNDS_MAX {
        if number >= settings.rounds && unsteady(&decisive(&rounds), settings.spread_max).is_empty()
        {
            break;
        }
        if number > 0 {
            speed.begin_anew().await;
        }
        speed.round(number, &mut rounds).await;
        peak = peak.max(cost::peak_mib(speed.bridge.pid()));
    }
    let (far_apart, decisive) = (
        unsteady(&rounds, settings.spread_max),
        unsteady(&decisive(&rounds), settings.spread_max),
    );
    for case in &far_apart {
        eprintln!("no figure, the rounds lie too far apart: {case}");
    }
    if !decisive.is_empty() {
        return Err(format!(
            "the machine is busy: rounds lie more than {:.0} % apart: {}",
            settings.spread_max,
            decisive.join("; ")
        ));
    }
    let peak = rounded(peak);
    let forwarder_peak = rounded(cost::peak_mib(speed.forwarder.pid()));
    rounds.retain(|_, rounds| is_steady(rounds, settings.spread_max));
    let cases: Vec<_> = rounds.keys().map(|case| told(*case, &rounds)).collect();
    let mut bridge = speed.bridge;
    bridge.terminate().await;
    Ok(json!({
        "sessions_a_round": settings.sessions,
        "peak_mib": {"bridge": peak, "forwarder": forwarder_peak},
        "unsteady": far_apart,
        "cases": cases,
    }))
}

/// With an empty journal.
async fn new_bridge(place: &Place) -> Bridge {
    let mut bridge = place.bridge().build();
    bridge.start().await;
    bridge.broker_is("connected").await;
    bridge
}

/// Those that are compared with targets: without one of them there are no figures at all.
fn decisive(rounds: &Rounds) -> Rounds {
    let is_decisive = |case: &Case| case.1 == "quorum" && [0, CONNECTIONS].contains(&case.3);
    let decisive = rounds.iter().filter(|(case, _)| is_decisive(case));
    decisive.map(|(case, of)| (*case, of.clone())).collect()
}

impl Speed<'_> {
    /// Every round finds an empty journal: what is kept beyond `retention_bytes` costs its removal,
    /// and later rounds would have that alone.
    async fn begin_anew(&mut self) {
        self.bridge.terminate().await;
        self.bridge = new_bridge(self.place).await;
        self.warm_up().await;
    }

    /// What is measured is not the first that happens: connections, channels and files are there.
    async fn warm_up(&self) {
        self.place.subscribe("quorum").await;
        let sessions = self.sessions.min(10_000);
        for subject in SERVERS {
            send(Load::new(self.address(subject), sessions, 10, CONNECTIONS)).await;
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
            let mut order = SERVERS;
            // Whoever comes second finds the broker and the disk as the first has left them.
            order.rotate_left(number % SERVERS.len());
            for subject in order {
                let load = Load::new(self.address(subject), sessions, array, connections);
                let round = self.serve(subject, queue, load).await;
                note(rounds, number, (subject, queue, array, connections), round);
            }
        }
    }

    fn address(&self, subject: &str) -> SocketAddr {
        if subject == BRIDGE {
            self.bridge.address()
        } else {
            self.forwarding.listen
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

    async fn serve(&self, subject: &str, queue: &str, load: Load) -> Round {
        let is_bridge = subject == BRIDGE;
        let pid = if is_bridge {
            self.bridge.pid()
        } else {
            self.forwarder.pid()
        };
        let sessions = load.sessions;
        let mut sender = Actor::start(&Role::Send(load)).await;
        let clock = Clock::start(self.place, pid);
        sender.go();
        let answers: crate::sender::Answers = sender.result().await;
        let took = self.arrived(queue, sessions, &clock).await;
        if is_bridge {
            self.bridge.backlog_is_empty().await;
        }
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
