//! `make bench`: what the bridge achieves as a process of its own between a sender that costs
//! little and a real RabbitMQ, beside a plain lapin publisher of the same messages to the same queue in
//! the same run.
//!
//! Rounds alternate, medians are compared. `BENCH_ROUNDS` (5) and `BENCH_SESSIONS` (30000 a round)
//! make it longer or shorter.

mod cost;
mod publisher;
mod report;
mod sender;

/// Broker and bridge as the integration tests start them.
#[path = "../../tests/it"]
mod it {
    pub mod support;
}
use it::support;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use cost::Cost;
use lapin::BasicProperties;
use publisher::Publisher;
use report::{Report, Round};
use support::bridge::builder::BridgeBuilder;
use support::bridge::run::Bridge;
use support::broker::Broker;
use support::vhost::Vhost;
use support::wait::eventually;

const QUEUE: &str = "bench";
const EXCHANGE: &str = "chat-sessions";
const SENDER_CONNECTIONS: usize = 32;
const ARRAYS: [usize; 2] = [10, 1];
const ROUND_MAX: Duration = Duration::from_mins(5);
const IDLE: Duration = Duration::from_secs(5);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(run());
}

async fn run() {
    let rounds = setting("BENCH_ROUNDS", 5);
    let sessions = setting("BENCH_SESSIONS", 30_000);
    println!("{}", report::machine());
    println!("{rounds} rounds of {sessions} sessions, {SENDER_CONNECTIONS} connections");

    let broker = Broker::shared().await;
    let vhost = broker.vhost().await;
    let mut bridge = configured(&vhost).build();
    let begin = Instant::now();
    bridge.start().await;
    let mut report = Report {
        ready: begin.elapsed(),
        ..Report::default()
    };
    bridge.broker_is("connected").await;
    subscribe(&vhost).await;

    let idle = Cost::of(bridge.pid());
    tokio::time::sleep(IDLE).await;
    report.idle_cpu_percent = idle.percent_of(bridge.pid(), IDLE);
    report.idle_rss_bytes = bridge.rss_bytes();

    let bare = Publisher::bare();
    let same = properties_of_the_bridge(&vhost, &bridge).await;
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (properties, rounds) in [&bare, &same].into_iter().zip(&mut report.publisher) {
            rounds.push(publish_round(broker, &vhost, properties, sessions).await);
        }
        for (array, rounds) in ARRAYS.into_iter().zip(&mut report.bridge) {
            rounds.push(bridge_round(broker, &vhost, &bridge, sessions, array).await);
        }
    }
    report.threads = cost::by_thread(bridge.pid());
    report.rss_bytes_max = bridge.rss_bytes_max();
    bridge.terminate().await;
    println!("{report}");
}

fn configured(vhost: &Vhost) -> BridgeBuilder {
    // The journal on the disk that the build is on: a file system in memory would flatter it.
    let journal = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-journal");
    let _ = std::fs::remove_dir_all(&journal);
    BridgeBuilder::new(vhost)
        .with("telemetry.log_level = \"info\"")
        .journal_in(&journal)
}

async fn subscribe(vhost: &Vhost) {
    vhost
        .declare_queue(QUEUE, json!({"x-queue-type": "quorum"}))
        .await;
    vhost.bind(QUEUE, EXCHANGE, "#").await;
}

/// Those of a message that the bridge has published.
async fn properties_of_the_bridge(vhost: &Vhost, bridge: &Bridge) -> BasicProperties {
    sender::send(bridge.address(), sender::requests(1, 1), 1).await;
    arrived(vhost, 1).await;
    let mut publisher = Publisher::connect(&vhost.amqp_url).await;
    publisher.properties_of(QUEUE).await
}

async fn publish_round(
    broker: &Broker,
    vhost: &Vhost,
    properties: &BasicProperties,
    sessions: usize,
) -> Round {
    let bodies = sender::elements(sessions);
    let mut publisher = Publisher::connect(&vhost.amqp_url).await;
    let own = Cost::of(std::process::id());
    let of_broker = Cost::of(broker.pid());
    let begin = Instant::now();
    publisher.publish(EXCHANGE, properties, &bodies).await;
    arrived(vhost, sessions).await;
    let took = begin.elapsed();
    let cost = own.since(std::process::id());
    let broker = of_broker.since(broker.pid());
    vhost.purge_queue(QUEUE).await;
    Round {
        sessions,
        took,
        cost,
        broker,
        answers: Vec::new(),
    }
}

async fn bridge_round(
    broker: &Broker,
    vhost: &Vhost,
    bridge: &Bridge,
    sessions: usize,
    array: usize,
) -> Round {
    let requests = sender::requests(sessions, array);
    let cost = Cost::of(bridge.pid());
    let of_broker = Cost::of(broker.pid());
    let begin = Instant::now();
    let answers = sender::send(bridge.address(), requests, SENDER_CONNECTIONS).await;
    arrived(vhost, sessions).await;
    let took = begin.elapsed();
    bridge.backlog_is_empty().await;
    let cost = cost.since(bridge.pid());
    let broker = of_broker.since(broker.pid());
    vhost.purge_queue(QUEUE).await;
    Round {
        sessions,
        took,
        cost,
        broker,
        answers,
    }
}

async fn arrived(vhost: &Vhost, sessions: usize) {
    let count = u32::try_from(sessions).expect("a count of messages");
    eventually("everything is in the queue", ROUND_MAX, || async {
        vhost.message_count(QUEUE).await == Some(count)
    })
    .await;
}

fn setting(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}
