//! Which side does the delayed retry: the broker from 4.3 on; the bridge with older brokers, and
//! wherever its retry queues already exist. The guarantees are the same.

use std::time::{Duration, Instant};

use super::{DEAD_LETTER, bridge, findings, own_queues, queue};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::sender::array_of_new;

async fn is_by_broker(bridge: &Bridge, queue: &str) -> bool {
    let status = bridge.status().await;
    let by = &status["broker"]["retries"][queue];
    assert!(["bridge", "broker"].iter().any(|one| by == one), "{status}");
    by == "broker"
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_does_the_retry_from_4_3_on() {
    let vhost = Broker::shared().await.vhost().await;
    let queues = queue("crm", "delivery_limit = 3\nretry_delay = '700ms'");
    let mut bridge = bridge(&vhost.amqp_url, &queues).await;
    let requeue = is_by_broker(&bridge, "crm").await;
    assert_eq!(requeue, vhost.has_delayed_retry().await);
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
    crm.receives_nothing_for(Duration::from_millis(900)).await;
    assert_eq!(dead.count(), 1);
    bridge.restart().await;
    bridge.broker_is("connected").await;
    assert_eq!(is_by_broker(&bridge, "crm").await, requeue);
    assert_eq!(findings(&bridge.status().await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_queue_keeps_its_layout() {
    let vhost = Broker::shared().await.vhost().await;
    own_queues(&vhost, &["crm"]).await;
    let queues = queue("crm", "delivery_limit = 2\nretry_delay = '200ms'");
    let mut bridge = bridge(&vhost.amqp_url, &queues).await;
    assert!(!is_by_broker(&bridge, "crm").await);
    // The arguments of `crm` alone show it, too.
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

/// A queue that was declared without `retry_delay` has no delay with any broker.
#[tokio::test(flavor = "multi_thread")]
async fn plain_queue_is_not_used_for_broker_retry() {
    let vhost = Broker::shared().await.vhost().await;
    bridge(&vhost.amqp_url, &queue("crm", "delivery_limit = 3"))
        .await
        .terminate()
        .await;
    // If the broker does the retry, this limit results in the same `x-delivery-limit` (3) as above.
    let queues = queue("crm", "delivery_limit = 4\nretry_delay = '200ms'");
    let bridge = bridge(&vhost.amqp_url, &queues).await;
    assert!(!is_by_broker(&bridge, "crm").await);
    let status = bridge.status().await;
    let is_told = |one: &&str| one.starts_with("queue `crm` exists with other arguments");
    assert!(findings(&status).iter().any(is_told), "{status}");
}
