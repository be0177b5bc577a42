//! A load that both can sustain, at a constant rate: its cost, and the latency of a session. The
//! clock is outside of bridge and forwarder and the same for both: it starts when the sender writes
//! a request (or was due to, if it is late) and stops when a consumer has the session's message.
//! The broker confirms a message when it hands it to its consumer, so this is the time from receipt
//! to confirm plus two transfers over loopback.

use std::time::Duration;

use serde_json::{Value, json};

use crate::consumer::{Arrivals, Subscription};
use crate::place::{ARRAY, CONNECTIONS, Place};
use crate::results::rounded;
use crate::role::{Actor, Role};
use crate::rounds::{Case, Delivery, Round, in_turn, told};
use crate::sender::{Answers, Load, Pace};
use crate::settings::Settings;
use crate::statistics::{median, quantile};
use crate::subject::Subject;

const QUEUE: &str = "quorum";
/// Share of the forwarder's best rate.
const SHARE: f64 = 0.6;
/// Seconds per round, as a multiple of `BENCH_SECONDS`.
const SPAN: usize = 2;
const ROUNDS_MAX: usize = 3;
const CASES: [Case; 2] = [
    ("bridge", QUEUE, ARRAY, CONNECTIONS),
    ("forwarder", QUEUE, ARRAY, CONNECTIONS),
];

/// Measures both cases.
pub async fn measure(place: &Place, settings: &Settings) -> Value {
    let best = best_rate(place, settings.sessions).await;
    let (rate, seconds) = ((best * SHARE).round(), SPAN * settings.seconds);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate, rounded"
    )]
    let sessions = rate as usize * seconds;
    eprintln!("{rate:.0}/s for {seconds} s; the forwarder's best is {best:.0}/s");
    let rounds = in_turn(settings.rounds.min(ROUNDS_MAX), &CASES, async |case| {
        let subject = Subject::usual(place, case.0).await;
        place.subscribe(QUEUE).await;
        subject.warm_up(place, QUEUE, settings.sessions).await;
        let mut load = Load::new(subject.address(), sessions, ARRAY, CONNECTIONS);
        load.pace = Pace::Paced(rate);
        let round = consumed(place, &subject, load).await;
        subject.end().await;
        round
    })
    .await;
    json!({
        "seconds_a_round": seconds,
        "sessions_per_second": rounded(rate),
        "forwarder_sessions_per_second": rounded(best),
        "cases": CASES.map(|case| told(case, &rounds)),
    })
}

/// Sessions per second of a forwarder under full load, with a consumer: the median of three rounds.
async fn best_rate(place: &Place, sessions: usize) -> f64 {
    // The bridge declares the exchange, which stays.
    Subject::usual(place, "bridge").await.end().await;
    let forwarder = Subject::forwarder(place).await;
    place.subscribe(QUEUE).await;
    forwarder.warm_up(place, QUEUE, sessions).await;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let load = Load::new(forwarder.address(), sessions, ARRAY, CONNECTIONS);
        rates.push(consumed(place, &forwarder, load).await.rate);
    }
    median(rates)
}

/// One round with a consumer that receives every message at once.
async fn consumed(place: &Place, subject: &Subject, load: Load) -> Round {
    let subscription = Subscription {
        amqp_url: place.vhost.amqp_url.clone(),
        queue: QUEUE.into(),
        sessions: load.sessions,
    };
    let mut consumer = Actor::start(&Role::Consume(subscription)).await;
    let arrival = consumer.result();
    let (round, answers, arrivals) = subject.round(place, load, arrival).await;
    Round {
        delivery: Some(delivery(&answers, &arrivals)),
        ..round
    }
}

fn delivery(answers: &Answers, arrivals: &Arrivals) -> Delivery {
    let sent = |session: usize| answers.sent_us[session / ARRAY];
    let took = arrivals.iter().enumerate();
    let mut took: Vec<_> = took
        .map(|(session, at)| at.saturating_sub(sent(session)))
        .collect();
    took.sort_unstable();
    let milliseconds = |part| Duration::from_micros(quantile(&took, part)).as_secs_f64() * 1e3;
    Delivery {
        p50: milliseconds(0.5),
        p99: milliseconds(0.99),
    }
}
