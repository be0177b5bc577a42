//! Sessions per second that reach the queue, and the cost of each: the bridge, the forwarder
//! without a journal, and the publisher as the upper limit, alternately in every round.

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::place::{CONNECTIONS, EXCHANGE, Place, send};
use crate::publisher::Batch;
use crate::results::rounded;
use crate::role::{Actor, Role};
use crate::rounds::{Case, Round, Rounds, is_steady, note, told, unsteady};
use crate::sender::Load;
use crate::settings::Settings;
use crate::subject::Subject;

/// Queue, sessions per request, connections.
const CASES: [(&str, usize, usize); 6] = [
    ("quorum", 1, 32),
    ("quorum", 10, 32),
    ("quorum", 50, 32),
    ("quorum", 10, 1),
    ("quorum", 10, 256),
    ("classic", 10, 32),
];
/// With a single connection every server is slow.
const ONE_CONNECTION: usize = 3;
/// Maximum number of rounds that are added while the spread is too large.
const EXTRA_ROUNDS_MAX: usize = 4;

const BRIDGE: &str = "bridge";
const FORWARDER: &str = "forwarder";
const SERVERS: [&str; 2] = [BRIDGE, FORWARDER];

struct Speed<'a> {
    place: &'a Place,
    bridge: Subject,
    forwarder: Subject,
    sessions: usize,
}

/// Measures all cases.
///
/// # Errors
/// The spread of the rounds is too large.
pub async fn measure(place: &Place, settings: &Settings) -> Result<Value, String> {
    let mut speed = Speed {
        place,
        bridge: Subject::usual(place, BRIDGE).await,
        forwarder: Subject::usual(place, FORWARDER).await,
        sessions: settings.sessions,
    };
    speed.warm_up().await;
    let mut rounds = Rounds::new();
    for number in 0..settings.rounds + EXTRA_ROUNDS_MAX {
        if number >= settings.rounds && unsteady(&decisive(&rounds), settings.spread_max).is_empty()
        {
            break;
        }
        if number > 0 {
            speed = speed.restarted().await;
        }
        speed.round(number, &mut rounds).await;
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
    let peaks = SERVERS.map(|subject| rounded(peak_mib(&rounds, subject)));
    rounds.retain(|_, rounds| is_steady(rounds, settings.spread_max));
    let cases: Vec<_> = rounds.keys().map(|case| told(*case, &rounds)).collect();
    speed.bridge.end().await;
    Ok(json!({
        "sessions_a_round": settings.sessions,
        "peak_mib": {BRIDGE: peaks[0], FORWARDER: peaks[1]},
        "unsteady": far_apart,
        "cases": cases,
    }))
}

/// The cases that are compared with targets: without them there are no figures at all.
fn decisive(rounds: &Rounds) -> Rounds {
    let is_decisive = |case: &Case| case.1 == "quorum" && [0, CONNECTIONS].contains(&case.3);
    let decisive = rounds.iter().filter(|(case, _)| is_decisive(case));
    decisive.map(|(case, of)| (*case, of.clone())).collect()
}

/// The maximum memory of a server over all rounds.
fn peak_mib(rounds: &Rounds, subject: &str) -> f64 {
    let of_subject = rounds.iter().filter(|(case, _)| case.0 == subject);
    let rounds = of_subject.flat_map(|(_, rounds)| rounds);
    rounds.map(|round| round.peak_mib).fold(0.0, f64::max)
}

impl Speed<'_> {
    /// Starts every round with an empty journal: beyond `retention_bytes` each event costs the
    /// deletion of another, and only later rounds would pay for that.
    async fn restarted(self) -> Self {
        self.bridge.end().await;
        let bridge = Subject::usual(self.place, BRIDGE).await;
        let speed = Self { bridge, ..self };
        speed.warm_up().await;
        speed
    }

    /// Creates connections, channels and files before the measurement.
    async fn warm_up(&self) {
        self.place.subscribe("quorum").await;
        for subject in SERVERS {
            self.subject(subject)
                .warm_up(self.place, "quorum", self.sessions)
                .await;
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
            // Each server finds broker and disk as the previous one left them, so the order
            // changes.
            order.rotate_left(number % SERVERS.len());
            for name in order {
                let subject = self.subject(name);
                let load = Load::new(subject.address(), sessions, array, connections);
                let round = subject.serve(self.place, queue, load).await;
                note(rounds, number, (name, queue, array, connections), round);
            }
        }
    }

    fn subject(&self, name: &str) -> &Subject {
        if name == BRIDGE {
            &self.bridge
        } else {
            &self.forwarder
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
        self.place.arrived(queue, self.sessions).await;
        let round = clock.stop(self.place, publisher.pid(), self.sessions, clock.elapsed());
        self.place.vhost.purge_queue(queue).await;
        round
    }
}
