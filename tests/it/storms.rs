//! A broker that throws us out again and again: we come back, but not as a storm.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;
use crate::support::sessions::{Load, everything_in};
use crate::support::vhost::Vhost;
use crate::support::wait::eventually;

const LIFE: &[&str] = &["created", "handled", "completed"];
const LONG: Duration = Duration::from_mins(1);
/// Attempts before the delays have grown to their longest.
const QUICK_ATTEMPTS: usize = 6;

/// A bridge with the delays it has by default.
async fn bridge_at(vhost: &Vhost, proxy: &Proxy) -> Bridge {
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("queues = [{name = 'all', keys = ['#']}]")
        .start()
        .await;
    bridge.broker_is("connected").await;
    bridge
}

async fn judge(load: Load, bridge: &Bridge, vhost: &Vhost) {
    let sent = load.stop().await;
    bridge.backlog_is_empty().await;
    let counters = bridge.status().await["counters"].clone();
    assert_eq!(counters["accepted"], json!(sent.count()));
    assert_eq!(counters["published"], json!(sent.count()));
    let repetitions = sent.arrived_as(&everything_in(vhost, "all").await);
    println!("{} events, {repetitions} came again", sent.count());
}

/// At most one a second, but for the first few.
fn assert_no_storm(attempts: usize, lasted: Duration) {
    let seconds = usize::try_from(lasted.as_secs()).unwrap();
    println!("{attempts} attempts in {lasted:.1?}");
    assert!(
        attempts <= seconds + QUICK_ATTEMPTS,
        "{attempts} in {lasted:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_closes_every_connection_ten_times_a_second_is_no_reason_for_a_storm() {
    const ROUNDS: u64 = 120;
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost, &proxy).await;
    let load = Load::on(&bridge, LIFE);
    load.goes_on_for(100).await;

    let before = proxy.connections();
    let close_all = format!(
        "spawn(fun() -> [begin \
           [catch rabbit_networking:close_connection(P, \"enough\") || P <- rabbit_networking:connections()], \
           timer:sleep(100) end || _ <- lists:seq(1, {ROUNDS})] end), ok."
    );
    broker.ctl(&["eval", &close_all]).await;
    let begin = Instant::now();
    let lasts = Duration::from_millis(100 * ROUNDS);
    while begin.elapsed() < lasts {
        load.goes_on_for(20).await;
    }
    let attempts = proxy.connections() - before;
    assert!(attempts >= 3, "only {attempts} connections were closed");
    assert_no_storm(attempts, begin.elapsed());
    println!("p99 {:?}", load.p99_since(begin));
    judge(load, &bridge, &vhost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_listeners_are_asked_seldom_and_found_open_again() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost, &proxy).await;
    let load = Load::on(&bridge, LIFE);
    load.goes_on_for(100).await;

    let suspend = "rabbit_maintenance:suspend_all_client_listeners(), \
        [catch rabbit_networking:close_connection(P, \"drained\") || P <- rabbit_networking:connections()], ok.";
    broker.ctl(&["eval", suspend]).await;
    let (begin, before) = (Instant::now(), proxy.connections());
    bridge.broker_is("connecting").await;
    while begin.elapsed() < Duration::from_secs(8) {
        load.goes_on_for(20).await;
    }
    let attempts = proxy.connections() - before;
    assert!(attempts >= 3, "only {attempts} attempts");
    assert_no_storm(attempts, begin.elapsed());

    broker
        .ctl(&[
            "eval",
            "rabbit_maintenance:resume_all_client_listeners(), ok.",
        ])
        .await;
    let healed = Instant::now();
    bridge.broker_is("connected").await;
    assert!(
        healed.elapsed() < Duration::from_secs(10),
        "{:?}",
        healed.elapsed()
    );
    judge(load, &bridge, &vhost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vhost_that_takes_no_more_connections_refuses_and_takes_us_when_it_may() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost, &proxy).await;
    let limit = async |most: &str| {
        let limits = format!("{{\"max-connections\": {most}}}");
        broker
            .ctl(&["set_vhost_limits", "-p", &vhost.name, &limits])
            .await;
    };
    limit("0").await;
    let before = proxy.connections();
    proxy.cut();
    bridge.broker_is("refused").await;
    let reason = bridge.status().await["broker"]["reason"].to_string();
    assert!(reason.contains("limit"), "{reason}");
    assert_eq!(bridge.post(array_of_new("s", 5)).await.status, 202);
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let attempts = proxy.connections() - before;
    // After the loss, and the first five seconds are not over.
    assert!(attempts <= 2, "{attempts} in {:?}", begin.elapsed());

    limit("-1").await;
    // Within the longest delay after a refusal.
    eventually("it is let in", LONG, || async {
        bridge.status().await["broker"]["state"] == "connected"
    })
    .await;
    bridge.backlog_is_empty().await;
    assert_eq!(everything_in(&vhost, "all").await.len(), 5);
}
