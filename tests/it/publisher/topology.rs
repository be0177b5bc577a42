//! What is left unchanged, and what is reported about it.

use serde_json::json;

use super::harness::{Harness, all_delivered, config, messages};
use crate::support::broker::Broker;

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
