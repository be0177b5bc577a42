//! The effect of an outage on the sender, and how soon publishing resumes: alarms, frozen broker,
//! dead link. `make outage` extends each outage to a minute, with a release build.

use std::time::{Duration, Instant};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::everything_in;
use crate::support::load::Load;
use crate::support::proxy::{Direction, Proxy};
use crate::support::vhost::Vhost;
use crate::support::wait::eventually;

const LONG: Duration = Duration::from_mins(3);
/// Time from the end of the outage.
const RESUMES_WITHIN: Duration = Duration::from_secs(10);
const RSS_MAX: u64 = 64 << 20;
/// Shorter outages are too short for a comparison of percentiles on a busy machine.
const COMPARED_FROM: Duration = Duration::from_secs(30);

/// Settings with which an outage exceeds the confirm timeout and two heartbeats.
const IMPATIENT: &str =
    "rabbitmq = {confirm_timeout = '1s', heartbeat = '2s', connect_timeout = '2s'}";

fn outage_lasts() -> Duration {
    let seconds = std::env::var("OUTAGE_SECONDS").map_or(5, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

/// A bridge that declares a queue for everything.
async fn bridge_at(url: &str, toml: &str) -> Bridge {
    BridgeBuilder::at(url)
        .with("queues = [{name = 'all', keys = ['#']}]")
        .with("telemetry.log_level = 'info'")
        .with(toml)
        .connected()
        .await
}

/// Sends load before, during and after the outage, then compares all counts. Returns the number of
/// duplicates.
async fn sit_out(
    name: &str,
    bridge: &Bridge,
    vhost: &Vhost,
    begin_outage: impl AsyncFnOnce(),
    heal: impl AsyncFnOnce(),
) -> usize {
    let load = Load::paced(bridge);
    let is_compared = outage_lasts() >= COMPARED_FROM;
    load.accepts(200).await;
    let calm = Instant::now();
    if is_compared {
        tokio::time::sleep(outage_lasts() / 2).await;
    } else {
        load.accepts(200).await;
    }
    let p99_calm = load.p99_since(calm);
    let rss_calm = bridge.rss_bytes();

    begin_outage().await;
    let outage = Instant::now();
    // Messages that were in flight may still be confirmed.
    load.accepts(500).await;
    let before = bridge.counter("published").await;
    tokio::time::sleep(outage_lasts()).await;
    assert_eq!(
        bridge.counter("published").await,
        before,
        "something was published during the outage"
    );
    let p99_during = load.p99_since(outage);
    let waiting = bridge.status().await["backlog"]["events"].clone();

    heal().await;
    let healed = Instant::now();
    eventually("publishing resumes", LONG, || async {
        bridge.counter("published").await > before
    })
    .await;
    let resumed = healed.elapsed();
    let sent = load.stop_and_drain(bridge).await;
    let drained = healed.elapsed();
    let duplicates = sent.arrived_as(&everything_in(vhost, "all").await);
    let ratio = p99_during.as_secs_f64() / p99_calm.as_secs_f64();
    println!(
        "{name}, {:?}: p99 {p99_calm:.1?} calm, {p99_during:.1?} during (x{ratio:.2}); publishing \
         after {resumed:.1?}, {waiting} waiting events gone after {drained:.1?}; {} events, 0 lost, \
         {duplicates} twice; RSS {} MiB calm, {} MiB at most",
        outage_lasts(),
        sent.len(),
        rss_calm >> 20,
        bridge.rss_bytes_max() >> 20
    );
    assert!(resumed <= RESUMES_WITHIN, "{resumed:?}");
    assert!(bridge.rss_bytes_max() < RSS_MAX);
    assert!(p99_during < Duration::from_secs(1), "{p99_during:?}");
    if is_compared {
        assert!(ratio <= 2.0, "the sender notices: x{ratio:.2}");
    }
    duplicates
}

/// Panics unless the alarm has stopped publishing only: the connection is kept, every route is open.
async fn is_blocked_by(bridge: &Bridge, cause: &str) {
    let status = bridge.status().await;
    assert_eq!(status["broker"]["state"], "blocked");
    let reason = status["broker"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(cause), "{status:#}");
    let routes = status["routes"].as_array().unwrap();
    let are_open = routes.iter().all(|route| route["state"] == "open");
    assert!(!routes.is_empty() && are_open, "{status:#}");
}

/// The disk alarm lasts for a moment only: for the bridge it differs from the memory alarm in its
/// reason.
#[tokio::test(flavor = "multi_thread")]
async fn alarms_are_unnoticed() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url, IMPATIENT).await;
    let alarm = async || {
        broker.ctl(&["set_disk_free_limit", "9000GB"]).await;
        bridge.broker_is("blocked").await;
        is_blocked_by(&bridge, "disk").await;
        broker.ctl(&["set_disk_free_limit", "50MB"]).await;
        bridge.broker_is("connected").await;
        broker.raise_memory_alarm().await;
        bridge.broker_is("blocked").await;
    };
    let over = async || {
        is_blocked_by(&bridge, "memory").await;
        broker.clear_memory_alarm().await;
    };
    let duplicates = sit_out("alarms", &bridge, &vhost, alarm, over).await;
    assert_eq!(duplicates, 0, "something was published again");
    assert_eq!(bridge.reconnects().await, 0, "the connection was closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_broker_is_unnoticed() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url, IMPATIENT).await;
    let freeze = async || broker.freeze();
    let thaw = async || {
        assert!(
            bridge.retries("unknown").await > 0.0,
            "no publish window was in flight"
        );
        eventually("the status says that it is silent", LONG, || async {
            let reason = bridge.status().await["broker"]["reason"].to_string();
            reason.contains("did not answer")
        })
        .await;
        broker.thaw();
    };
    sit_out("frozen broker", &bridge, &vhost, freeze, thaw).await;
    bridge.says("was not confirmed for 1000 ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_link_is_unnoticed() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost.amqp_url_through(proxy.address()), "").await;
    let die = async || {
        proxy.blackhole(Direction::Up);
        proxy.blackhole(Direction::Down);
    };
    let live = async || proxy.pass();
    sit_out("half-open link", &bridge, &vhost, die, live).await;
}
