//! A broker that closes connections repeatedly: the bridge reconnects, but without a storm of
//! attempts.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::everything_in;
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;
use crate::support::vhost::Vhost;
use crate::support::wait::SOON;

/// Attempts until the delay has grown to its maximum.
const QUICK_ATTEMPTS: usize = 6;

/// A bridge with the default delays.
async fn bridge_at(vhost: &Vhost, proxy: &Proxy) -> Bridge {
    BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("queues = [{name = 'all', keys = ['#']}]")
        .connected()
        .await
}

/// At most one attempt per second, except for the first few.
fn assert_no_storm(attempts: usize, lasted: Duration) {
    let seconds = usize::try_from(lasted.as_secs()).unwrap();
    println!("{attempts} attempts in {lasted:.1?}");
    assert!(
        attempts <= seconds + QUICK_ATTEMPTS,
        "{attempts} in {lasted:?}"
    );
}

/// A node that is stopped or drained closes its connections and then listens no more; one that
/// closes each new connection must not have its delays begin again at every attempt.
#[tokio::test(flavor = "multi_thread")]
async fn closes_and_suspended_listeners_cause_no_storm() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost, &proxy).await;
    let load = Load::paced(&bridge);
    load.accepts(100).await;

    let suspend = "rabbit_maintenance:suspend_all_client_listeners(), \
        [catch rabbit_networking:close_connection(P, \"drained\") || P <- rabbit_networking:connections()], ok.";
    // The command takes seconds on a busy machine. The quick attempts are made before it returns.
    let (begin, before) = (Instant::now(), proxy.connections());
    broker.ctl(&["eval", suspend]).await;
    bridge.broker_is("connecting").await;
    let suspended = Instant::now();
    while suspended.elapsed() < Duration::from_secs(5) {
        load.accepts(20).await;
    }
    let attempts = proxy.connections() - before;
    assert!(attempts >= 3, "only {attempts} attempts");
    assert_no_storm(attempts, begin.elapsed());

    let resume = "rabbit_maintenance:resume_all_client_listeners(), ok.";
    broker.ctl(&["eval", resume]).await;
    let healed = Instant::now();
    bridge.broker_is("connected").await;
    let took = healed.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");

    let close_all = "Closer = fun(Again) -> \
        [catch rabbit_networking:close_connection(P, \"enough\") || P <- rabbit_networking:connections()], \
        timer:sleep(100), Again(Again) end, \
        register(closer, spawn(fun() -> Closer(Closer) end)), ok.";
    let (begin, before) = (Instant::now(), proxy.connections());
    broker.ctl(&["eval", close_all]).await;
    let attempts = || proxy.connections() - before;
    while attempts() < 2 || begin.elapsed() < Duration::from_secs(6) {
        load.accepts(20).await;
        assert!(begin.elapsed() < 3 * SOON, "{} attempts", attempts());
    }
    assert_no_storm(attempts(), begin.elapsed());
    broker
        .ctl(&["eval", "exit(whereis(closer), kill), ok."])
        .await;
    load.arrives_in("all", &vhost, &bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vhost_connection_limit_is_retried_slowly() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost, &proxy).await;
    let limit = format!("vhost-limits/{}/max-connections", vhost.name);
    let none = json!({"value": 0});
    vhost.management(Method::PUT, &limit, &none).await;
    let before = proxy.connections();
    proxy.cut();
    bridge.broker_is("refused").await;
    let refused = Instant::now();
    let reason = bridge.status().await["broker"]["reason"].to_string();
    assert!(reason.contains("limit"), "{reason}");
    assert_eq!(bridge.post(array_of_new("s", 5)).await.status, 202);
    vhost.management(Method::DELETE, &limit, &Value::Null).await;
    bridge.broker_is("connected").await;
    let reason = bridge.status().await["broker"]["reason"].clone();
    assert_eq!(reason, Value::Null, "it is over");
    let (took, attempts) = (refused.elapsed(), proxy.connections() - before);
    assert!(took > Duration::from_millis(4_900), "{took:?}");
    // The refused attempt, one after each delay of at least 5 s, and a connection for probes.
    let attempts_max = 3 + took.as_secs() / 5;
    assert!(attempts as u64 <= attempts_max, "{attempts} in {took:?}");

    bridge.backlog_is_empty().await;
    assert_eq!(everything_in(&vhost, "all").await.len(), 5);
}
