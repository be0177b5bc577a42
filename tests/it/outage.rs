//! What the sender notices of an outage, and how soon publishing resumes: memory alarm, disk alarm,
//! frozen broker, dead link. `make outage` makes each last a minute, with a release build.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::proxy::{Direction, Proxy};
use crate::support::sessions::{Load, everything_in};
use crate::support::vhost::Vhost;
use crate::support::wait::eventually;

const LIFE: &[&str] = &["created", "handled", "completed"];
const LONG: Duration = Duration::from_mins(3);
/// After healing.
const RESUMES_WITHIN: Duration = Duration::from_secs(10);
const RSS_MAX: u64 = 64 << 20;
/// Shorter outages are too short to compare percentiles on a busy machine.
const COMPARED_FROM: Duration = Duration::from_secs(30);

fn outage_lasts() -> Duration {
    let seconds = std::env::var("OUTAGE_SECONDS").map_or(6, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

async fn published(bridge: &Bridge) -> u64 {
    bridge.status().await["counters"]["published"]
        .as_u64()
        .unwrap()
}

/// Load while nothing is wrong, during the outage, and after it; then everything is counted.
async fn sit_out(
    name: &str,
    vhost: &Vhost,
    url: &str,
    begin_outage: impl AsyncFnOnce(&Bridge),
    heal: impl AsyncFnOnce(),
) {
    let bridge = BridgeBuilder::at(url)
        .with("queues = [{name = 'all', keys = ['#']}]")
        .with("telemetry.log_level = 'info'")
        .start()
        .await;
    bridge.broker_is("connected").await;
    let load = Load::on(&bridge, LIFE);
    load.goes_on_for(200).await;
    let calm = Instant::now();
    tokio::time::sleep(outage_lasts() / 2).await;
    let p99_calm = load.p99_since(calm);
    let rss_calm = bridge.rss_bytes();

    begin_outage(&bridge).await;
    let outage = Instant::now();
    // What was under way may still be confirmed.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = published(&bridge).await;
    tokio::time::sleep(outage_lasts()).await;
    assert_eq!(published(&bridge).await, before, "the outage is not one");
    let p99_during = load.p99_since(outage);
    let waiting = bridge.status().await["backlog"]["events"].clone();

    heal().await;
    let healed = Instant::now();
    eventually("publishing resumes", LONG, || async {
        published(&bridge).await > before
    })
    .await;
    let resumed = healed.elapsed();
    let sent = load.stop().await;
    bridge.backlog_is_empty().await;
    let drained = healed.elapsed();
    let counters = bridge.status().await["counters"].clone();
    assert_eq!(counters["accepted"], json!(sent.count()));
    assert_eq!(
        counters["published"],
        json!(sent.count()),
        "none became a dead letter"
    );
    let repetitions = sent.arrived_as(&everything_in(vhost, "all").await);
    let ratio = p99_during.as_secs_f64() / p99_calm.as_secs_f64();
    println!(
        "{name}, {:?}: p99 {p99_calm:.1?} calm, {p99_during:.1?} during (x{ratio:.2}); publishing \
         after {resumed:.1?}, {waiting} waiting events gone after {drained:.1?}; {} events, 0 lost, \
         {repetitions} twice; RSS {} MiB calm, {} MiB at most",
        outage_lasts(),
        sent.count(),
        rss_calm >> 20,
        bridge.rss_bytes_max() >> 20
    );
    assert!(resumed <= RESUMES_WITHIN, "{resumed:?}");
    assert!(bridge.rss_bytes_max() < RSS_MAX);
    assert!(p99_during < Duration::from_secs(1), "{p99_during:?}");
    if outage_lasts() >= COMPARED_FROM {
        assert!(ratio <= 2.0, "the sender notices: x{ratio:.2}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_is_not_noticed_by_the_sender() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let alarm = async |bridge: &Bridge| {
        broker.raise_memory_alarm().await;
        bridge.broker_is("blocked").await;
    };
    let over = async || broker.clear_memory_alarm().await;
    sit_out("memory alarm", &vhost, &vhost.amqp_url, alarm, over).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_alarm_is_not_noticed_by_the_sender() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let alarm = async |bridge: &Bridge| {
        broker.ctl(&["set_disk_free_limit", "9000GB"]).await;
        bridge.broker_is("blocked").await;
        let reason = bridge.status().await["broker"]["reason"].to_string();
        assert!(reason.contains("disk"), "{reason}");
    };
    let over = async || {
        broker.ctl(&["set_disk_free_limit", "50MB"]).await;
    };
    sit_out("disk alarm", &vhost, &vhost.amqp_url, alarm, over).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_not_noticed_by_the_sender() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let freeze = async |_: &Bridge| broker.freeze();
    let thaw = async || broker.thaw();
    sit_out("frozen broker", &vhost, &vhost.amqp_url, freeze, thaw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_link_is_not_noticed_by_the_sender() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = vhost.amqp_url_through(proxy.address());
    let die = async |_: &Bridge| {
        proxy.blackhole(Direction::Up);
        proxy.blackhole(Direction::Down);
    };
    let live = async || proxy.pass();
    sit_out("half-open link", &vhost, &url, die, live).await;
}
