//! Who retries: the broker from 4.3 on, the bridge below it and where its queues are there already.
//! The promises are the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;

use super::{DEAD_LETTER, bridge, findings, own_queues, queue};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::sender::array_of_new;
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

async fn is_by_broker(bridge: &Bridge, queue: &str) -> bool {
    let status = bridge.status().await;
    let by = &status["broker"]["retries"][queue];
    assert!(["bridge", "broker"].iter().any(|one| by == one), "{status}");
    by == "broker"
}

/// Whether the broker has a delayed retry of its own.
async fn is_able(vhost: &Vhost) -> bool {
    let overview = vhost
        .management(Method::GET, "overview", &Value::Null)
        .await;
    let version = overview.json()["rabbitmq_version"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut numbers = version.split('.').map(|one| one.parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (4, 3)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_retries_where_it_can() {
    let vhost = Broker::shared().await.vhost().await;
    let queues = queue("crm", "delivery_limit = 3\nretry_delay = '700ms'");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    let requeue = is_by_broker(&bridge, "crm").await;
    assert_eq!(requeue, is_able(&vhost).await);
    for satellite in ["crm.rejected", "crm.retry"] {
        assert_eq!(vhost.message_count(satellite).await.is_none(), requeue);
    }
    assert_eq!(vhost.has_exchange("crm.retried").await, !requeue);
    let check = bridge.run("check", &[]).await;
    let text = String::from_utf8(check.stdout).unwrap();
    let line = if requeue {
        "the broker retries"
    } else {
        "the bridge retries"
    };
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("crm.retry"), "{text}");

    let mut crm = Consumer::retrying(&vhost, "crm", requeue, |_| true).await;
    let mut dead = Consumer::of(&vhost, DEAD_LETTER).await;
    let begin = Instant::now();
    bridge.post(array_of_new("rejected", 1)).await;
    let tries = crm.receive_n(3).await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(1400), "no delay: {took:?}");
    assert!(took <= Duration::from_secs(5), "the delay grew: {took:?}");
    let letter = dead.receive().await;
    assert_eq!((&letter.body, letter.id()), (&tries[0].body, tries[0].id()));
    assert_eq!(letter.routing_key, "chat-session.created");
    assert_eq!(letter.header("x-first-death-queue"), "crm");
    let reason = if requeue {
        "delivery_limit"
    } else {
        "rejected"
    };
    assert_eq!(letter.header("x-first-death-reason"), reason, "{letter:?}");
    crm.receives_nothing_for(Duration::from_secs(1)).await;
    assert_eq!(dead.count(), 1);
    assert_eq!(findings(&bridge.status().await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_lose_nothing_in_restarts() {
    const SESSIONS: usize = 100;
    let vhost = Broker::shared().await.vhost().await;
    let queues = queue("crm", "delivery_limit = 3\nretry_delay = '200ms'");
    let mut bridge = bridge(&vhost.amqp_url, &queues).await;
    let requeue = is_by_broker(&bridge, "crm").await;
    let crm = Consumer::retrying(&vhost, "crm", requeue, |_| true).await;
    let dead = Consumer::of(&vhost, DEAD_LETTER).await;
    bridge.post(array_of_new("rejected", SESSIONS)).await;
    for more in [40, 120] {
        eventually("rejections go on", SOON, || async { crm.count() >= more }).await;
        bridge.restart().await;
    }
    eventually("all of them are dead letters", 3 * SOON, || async {
        let ids: BTreeSet<String> = dead.all().iter().map(|one| one.id().to_owned()).collect();
        ids.len() == SESSIONS
    })
    .await;
    bridge.broker_is("connected").await;
    assert_eq!(is_by_broker(&bridge, "crm").await, requeue);
    assert_eq!(findings(&bridge.status().await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_an_older_broker_stays_as_it_is() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["crm"]).await;
    let queues = queue("crm", "delivery_limit = 2\nretry_delay = '200ms'");
    let mut bridge = bridge(&vhost.amqp_url, &queues).await;
    assert!(!is_by_broker(&bridge, "crm").await);
    // The queue itself says so as well.
    vhost.delete_queue("crm.rejected").await;
    bridge.restart().await;
    bridge.broker_is("connected").await;
    assert!(!is_by_broker(&bridge, "crm").await);
    assert_eq!(findings(&bridge.status().await), [""; 0]);
    let mut crm = Consumer::retrying(&vhost, "crm", false, |_| true).await;
    let mut dead = Consumer::of(&vhost, DEAD_LETTER).await;
    bridge.post(array_of_new("rejected", 1)).await;
    crm.receive_n(2).await;
    assert_eq!(dead.receive().await.header("attempts"), 2);
}

/// A queue that was declared without a `retry_delay` has none on any broker.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_queue_is_not_taken_for_retrying() {
    let vhost = Broker::shared().await.vhost().await;
    bridge(&vhost.amqp_url, &queue("crm", "delivery_limit = 3"))
        .await
        .terminate()
        .await;
    // What the broker is asked for with a delay has this limit.
    let queues = queue("crm", "delivery_limit = 4\nretry_delay = '200ms'");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    assert!(!is_by_broker(&bridge, "crm").await);
    let status = bridge.status().await;
    let is_told = |one: &&str| one.starts_with("queue `crm` exists with other arguments");
    assert!(findings(&status).iter().any(is_told), "{status}");
}
