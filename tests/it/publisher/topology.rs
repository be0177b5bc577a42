//! What is declared, what is left unchanged, and what is reported about it.

use deskbridge::config::rabbitmq::TopologyMode;
use serde_json::{Value, json};

use super::harness::{Harness, all_delivered, config, messages};
use crate::support::broker::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn documented_topology_is_declared_idempotently() {
    let vhost = Broker::shared().await.vhost().await;
    let mut config = config(&[&vhost.amqp_url]);
    config.queues = serde_json::from_value(json!([{
        "name": "crm", "keys": ["chat-session.completed"], "delivery_limit": 3,
        "messages_max": 10, "single_active_consumer": true
    }]))
    .unwrap();
    for _ in 0..2 {
        let harness = Harness::up(&config).await;
        assert_eq!(harness.status.borrow().findings, Vec::<String>::new());
    }
    let arguments = vhost.describe("queues", "crm").await["arguments"].clone();
    assert_eq!(
        arguments,
        json!({
            "x-queue-type": "quorum", "x-delivery-limit": 3, "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "chat-sessions.dead-letter",
            "x-dead-letter-strategy": "at-least-once",
            "x-max-length": 10, "x-single-active-consumer": true
        })
    );
    let exchange = vhost.describe("exchanges", "chat-sessions").await;
    assert_eq!(
        (&exchange["type"], &exchange["durable"]),
        (&json!("topic"), &Value::Bool(true))
    );
    assert_eq!(
        exchange["arguments"]["alternate-exchange"],
        "chat-sessions.unrouted"
    );
    let unrouted = vhost.describe("queues", "chat-sessions.unrouted").await["arguments"].clone();
    assert_eq!(unrouted["x-delivery-limit"], 1_000_000_000);
    assert_eq!(unrouted["x-message-ttl"], 604_800_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn differing_objects_are_reported_and_used() {
    let vhost = Broker::shared().await.vhost().await;
    vhost
        .declare_exchange("chat-sessions", "fanout", json!({}))
        .await;
    vhost
        .declare_queue("chat-sessions.dead-letter", json!({}))
        .await;
    let mut harness = Harness::up(&config(&[&vhost.amqp_url])).await;
    let findings = harness.status.borrow().findings.clone();
    assert_eq!(findings.len(), 2, "{findings:#?}");
    assert!(findings[0].contains("queue `chat-sessions.dead-letter` exists with other arguments"));
    assert!(findings[1].contains("exchange `chat-sessions` exists with other arguments"));
    assert_eq!(
        vhost.describe("exchanges", "chat-sessions").await["type"],
        "fanout"
    );
    vhost.queue_bound("all", "chat-sessions", "").await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 3)).await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_declares_nothing_and_reports_missing() {
    let vhost = Broker::shared().await.vhost().await;
    let mut config = config(&[&vhost.amqp_url]);
    config.rabbitmq.topology = TopologyMode::Verify;
    let harness = Harness::up(&config).await;
    let findings = harness.status.borrow().findings.clone();
    assert!(
        findings.contains(&"exchange `chat-sessions` is missing".to_owned()),
        "{findings:#?}"
    );
    assert!(findings.contains(&"queue `chat-sessions.unrouted` is missing".to_owned()));
    assert_eq!(findings.len(), 5, "{findings:#?}");
    assert!(!vhost.has_exchange("chat-sessions").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_only_user_is_no_finding() {
    let vhost = Broker::shared().await.vhost().await;
    let declared = config(&[&vhost.amqp_url]);
    drop(Harness::up(&declared).await);
    vhost.user("writer", "a-password").await;
    vhost.allow("writer", "^$", ".*", ".*").await;
    let mut harness = Harness::up(&config(&[&vhost.amqp_url_as("writer", "a-password")])).await;
    assert_eq!(harness.status.borrow().findings, Vec::<String>::new());
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 3)).await
    ));
}
