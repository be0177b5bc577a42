//! The outcomes of a publish window: delivered, returned, nacked, channel closed.

use std::collections::HashSet;
use std::time::Duration;

use deskbridge::rabbitmq::{Link, Outcome, RefusalKind};
use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel};
use serde_json::json;

use super::harness::{Harness, all_delivered, config, message, messages};
use crate::support::broker::Broker;
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

/// One in seven messages is unroutable; windows of 64. lapin's own attribution is measured for
/// comparison.
#[tokio::test(flavor = "multi_thread")]
async fn return_is_attributed_to_its_message() {
    const WINDOWS: usize = 300;
    let vhost = Broker::shared().await.vhost().await;
    let mut config = config(&[&vhost.amqp_url]);
    config.unrouted.exchange = String::new();
    let mut harness = Harness::up(&config).await;
    // A classic queue confirms many messages at once, which triggers the misattribution.
    vhost.declare_queue("all", json!({})).await;
    vhost.bind("all", "chat-sessions", "routed.#").await;

    let mut wrong = 0;
    let mut delivered = HashSet::new();
    let mut outstanding = Vec::new();
    for n in 0..WINDOWS {
        let window: Vec<_> = (0..64)
            .map(|m| {
                let key = if (n + m) % 7 == 0 {
                    "nowhere"
                } else {
                    "routed.a"
                };
                message("chat-sessions", key, "{}")
            })
            .collect();
        outstanding.push((harness.submit(Link::Main, false, window.clone()), window));
        if outstanding.len() == 4 {
            for (id, window) in outstanding.drain(..) {
                for (message, outcome) in window.iter().zip(harness.done(id).await) {
                    let is_routed = &*message.route.routing_key == "routed.a";
                    let expected = if is_routed {
                        Outcome::Delivered
                    } else {
                        Outcome::Returned("312 NO_ROUTE".into())
                    };
                    wrong += usize::from(outcome != expected);
                    if outcome == Outcome::Delivered {
                        delivered.insert(message.message_id.to_string());
                    }
                }
            }
        }
    }
    assert_eq!(wrong, 0);
    let stored: HashSet<_> = vhost
        .messages("all")
        .await
        .into_iter()
        .filter_map(|m| m.message_id)
        .collect();
    assert!(
        delivered.is_subset(&stored),
        "all messages reported as delivered are stored"
    );

    let mut lapin_wrong = 0;
    for _ in 0..20 {
        lapin_wrong += misattributed_by_lapin(&vhost, WINDOWS).await;
        if lapin_wrong > 0 {
            break;
        }
    }
    println!(
        "of {} messages lapin attributed {lapin_wrong} wrongly, we none",
        WINDOWS * 64
    );
    assert_ne!(
        lapin_wrong, 0,
        "lapin made no error: this test tested nothing"
    );
}

/// The number of messages for which lapin's confirmation is wrong.
async fn misattributed_by_lapin(vhost: &Vhost, windows: usize) -> usize {
    let channel = vhost.channel().await;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let mut wrong = 0;
    for n in 0..windows {
        let publishes = join_all((0..64).map(|m| lapin_publish(&channel, (n + m) % 7 != 0))).await;
        for (m, confirm) in publishes.into_iter().enumerate() {
            let is_returned = confirm.await.unwrap().take_message().is_some();
            wrong += usize::from(is_returned != ((n + m) % 7 == 0));
        }
    }
    wrong
}

async fn lapin_publish(channel: &Channel, is_routed: bool) -> lapin::PublisherConfirm {
    let key = if is_routed { "routed.a" } else { "nowhere" };
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    let properties = BasicProperties::default().with_delivery_mode(2);
    channel
        .basic_publish(
            "chat-sessions".into(),
            key.into(),
            options,
            b"{}",
            properties,
        )
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_exchange_closes_only_its_window() {
    let vhost = Broker::shared().await.vhost().await;
    let mut config = config(&[&vhost.amqp_url]);
    config.rabbitmq.topology = deskbridge::config::rabbitmq::TopologyMode::Verify;
    vhost
        .declare_exchange("chat-sessions", "fanout", json!({}))
        .await;
    vhost.queue_bound("all", "chat-sessions", "").await;
    let mut harness = Harness::up(&config).await;

    for ensure in [false, true, false] {
        let closed = harness.submit(Link::Main, ensure, messages("nowhere", "k", 3));
        let open = harness.submit(Link::Main, false, messages("chat-sessions", "k", 64));
        for outcome in harness.done(closed).await {
            let Outcome::ChannelClosed {
                kind: RefusalKind::RouteMissing,
                reason,
            } = &outcome
            else {
                panic!("{outcome:?}")
            };
            assert!(reason.contains("no exchange 'nowhere'"), "{reason}");
        }
        assert!(all_delivered(&harness.done(open).await));
    }
    assert_eq!(harness.status.borrow().reconnects, 0);
}

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
    let counted = |status: &deskbridge::telemetry::status::BrokerStatus| {
        (status.unrouted_messages, status.dead_letter_messages) == (Some(3), Some(2))
    };
    second.status_is("the counts are known", counted).await;
    assert!(harness.is_silent_for(Duration::from_millis(1)).await);
}
