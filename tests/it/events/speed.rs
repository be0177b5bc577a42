//! How fast a hundred thousand events are replayed.

use std::time::Instant;

use super::{done, objects};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::wait::eventually;

const LONG: std::time::Duration = std::time::Duration::from_mins(10);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement; to be run in a release build"]
async fn replay_speed_of_100_000_events() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with("queues = [{name = 'all', keys = ['#']}]")
        .with("telemetry.log_level = 'info'")
        .start()
        .await;
    let begin = Instant::now();
    let load = ["--count", "10000", "--array", "10", "--sessions", "5000"];
    done(&bridge.run("send", &load).await);
    eventually("everything is published", LONG, || async {
        bridge.status().await["backlog"]["events"] == 0
    })
    .await;
    let forwarded = begin.elapsed();
    vhost.purge_queue("all").await;

    let begin = Instant::now();
    let told = done(&bridge.run("events", &["replay", "--all", "--json"]).await);
    let replayed = begin.elapsed();
    assert_eq!(objects(&told)[0]["confirmed"], 100_000);
    assert_eq!(vhost.message_count("all").await, Some(100_000));
    println!(
        "100,000 events: received and published in {forwarded:?}, replayed in {replayed:?} \
         ({:.0} a second)",
        100_000.0 / replayed.as_secs_f64()
    );
}
