//! The bridge counts what waits in its holding queues.

use std::time::Duration;

use deskbridge::telemetry::status::BrokerStatus;

use super::harness::{Harness, all_delivered, config, messages};
use crate::support::broker::Broker;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn unrouted_and_dead_letter_messages_are_counted() {
    let vhost = Broker::shared().await.vhost().await;
    let mut harness = Harness::up(&config(&[&vhost.amqp_url])).await;
    assert!(all_delivered(
        &harness
            .publish(messages("chat-sessions", "nobody", 3))
            .await
    ));
    assert!(all_delivered(
        &harness
            .publish(messages("chat-sessions.dead-letter", "invalid", 2))
            .await
    ));
    eventually("both are there", SOON, || async {
        vhost.message_count("chat-sessions.dead-letter").await == Some(2)
            && vhost.message_count("chat-sessions.unrouted").await == Some(3)
    })
    .await;
    let mut second = Harness::up(&config(&[&vhost.amqp_url])).await;
    let counted = |status: &BrokerStatus| {
        (status.unrouted_messages, status.dead_letter_messages) == (Some(3), Some(2))
    };
    second.status_is("the counts are known", counted).await;
    assert!(harness.is_silent_for(Duration::from_millis(1)).await);
}
