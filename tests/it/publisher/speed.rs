//! Measures how fast windows are published. Run by hand:
//! `cargo test --release --test it -- --ignored speed --nocapture`.

use std::time::{Duration, Instant};

use deskbridge::rabbitmq::Link;
use serde_json::json;

use super::harness::{Harness, all_delivered, config, message};
use crate::support::broker::Broker;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn throughput_on_a_quorum_queue() {
    let vhost = Broker::shared().await.vhost().await;
    let mut harness = Harness::up(&config(&[&vhost.amqp_url])).await;
    vhost
        .declare_queue("all", json!({"x-queue-type": "quorum"}))
        .await;
    vhost.bind("all", "chat-sessions", "#").await;
    let body = "x".repeat(1500);
    let window = || {
        (0..64)
            .map(|_| message("chat-sessions", "k", &body))
            .collect::<Vec<_>>()
    };
    let (begin, cpu) = (Instant::now(), cpu());
    let mut published = 0_u32;
    let mut outstanding: std::collections::VecDeque<_> = (0..4)
        .map(|_| harness.submit(Link::Main, false, window()))
        .collect();
    while begin.elapsed() < Duration::from_secs(10) {
        let outcomes = harness.done(outstanding.pop_front().unwrap()).await;
        assert!(all_delivered(&outcomes));
        published += u32::try_from(outcomes.len()).unwrap();
        outstanding.push_back(harness.submit(Link::Main, false, window()));
    }
    let (took, used) = (begin.elapsed(), self::cpu().saturating_sub(cpu));
    println!(
        "{:.0} messages/s, {:.1} us of CPU a message, messages made included",
        f64::from(published) / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / f64::from(published)
    );
}

/// CPU time of this process, user and system.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
