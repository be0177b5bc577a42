//! What becomes of a window: delivered, returned, refused, closed.

use std::collections::HashSet;
use std::time::Duration;

use deskbridge::rabbitmq::consumer::subscribe;
use deskbridge::rabbitmq::{Link, Outcome, Settings};
use deskbridge::webhook::message::Header;
use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel};
use serde_json::json;

use super::room::{Room, all_delivered, config, message, messages};
use crate::support::broker::Broker;
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_byte_for_byte_with_its_properties_and_headers() {
    let vhost = Broker::shared().await.vhost().await;
    let config = config(&[&vhost.amqp_url]);
    let mut room = Room::up(&config).await;
    let settings = Settings::from_config(&config).unwrap();
    let (exchanges, keys) = (["chat-sessions".to_owned()], ["chat-session.*".to_owned()]);
    let mut subscription = subscribe(&settings, &exchanges, &keys).await.unwrap();

    let sent = message(
        "chat-sessions",
        "chat-session.completed",
        "{ \"a\" : 1.0e0,\n\"b\":\"\\u00e9\" }",
    );
    assert_eq!(room.publish(vec![sent.clone()]).await, [Outcome::Delivered]);

    let received = tokio::time::timeout(SOON, subscription.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(received.body, sent.body);
    assert_eq!(
        (received.exchange.as_str(), received.routing_key.as_str()),
        ("chat-sessions", "chat-session.completed")
    );
    assert_eq!(received.message_id, Some(sent.message_id.to_string()));
    assert_eq!(received.correlation_id.as_deref(), Some("session-1"));
    assert_eq!(
        received.message_type.as_deref(),
        Some("chat-session.completed")
    );
    assert_eq!(received.app_id.as_deref(), Some("deskbridge"));
    assert_eq!(received.content_type.as_deref(), Some("application/json"));
    assert_eq!(received.delivery_mode, Some(2));
    assert_eq!(received.timestamp_seconds, Some(1_700_000_000));
    assert_eq!(
        received.headers,
        [
            ("source".into(), Header::Text("acme".into())),
            ("webhook-index".into(), Header::Integer(3))
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_arrives_whole() {
    let vhost = Broker::shared().await.vhost().await;
    let mut room = Room::up(&config(&[&vhost.amqp_url])).await;
    let body = "x".repeat(9 << 20);
    let sent = message("chat-sessions", "chat-session.created", &body);
    assert_eq!(room.publish(vec![sent]).await, [Outcome::Delivered]);
    let waiting = vhost.messages("chat-sessions.unrouted").await;
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].body.len(), body.len());
}

/// One in seven cannot be routed; windows of 64. lapin's own attribution is measured beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_return_is_told_of_the_message_that_came_back_and_of_no_other() {
    const WINDOWS: usize = 300;
    let vhost = Broker::shared().await.vhost().await;
    let mut config = config(&[&vhost.amqp_url]);
    config.unrouted.exchange = String::new();
    let mut room = Room::up(&config).await;
    // A classic queue confirms many at once, which is what sets the trap off.
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
        outstanding.push((room.submit(Link::Main, false, window.clone()), window));
        if outstanding.len() == 4 {
            for (id, window) in outstanding.drain(..) {
                for (message, outcome) in window.iter().zip(room.done(id).await) {
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
        "everything said to be delivered is there"
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
        "the trap was not sprung: this test shows nothing"
    );
}

/// How many of lapin's confirmations say the wrong thing about their message.
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
async fn a_full_queue_refuses_message_by_message() {
    let vhost = Broker::shared().await.vhost().await;
    let mut room = Room::up(&config(&[&vhost.amqp_url])).await;
    let full_at_two = json!({"x-max-length": 2, "x-overflow": "reject-publish"});
    vhost.declare_queue("small", full_at_two).await;
    vhost.bind("small", "chat-sessions", "small").await;

    let outcomes = room.publish(messages("chat-sessions", "small", 5)).await;
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::Delivered)
            .count(),
        2
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::Nacked)
            .count(),
        3
    );
    assert_eq!(vhost.message_count("small").await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_exchange_closes_its_window_and_disturbs_no_other() {
    let vhost = Broker::shared().await.vhost().await;
    let mut config = config(&[&vhost.amqp_url]);
    config.rabbitmq.topology = deskbridge::config::rabbitmq::TopologyMode::Verify;
    vhost
        .declare_exchange("chat-sessions", "fanout", json!({}))
        .await;
    vhost.queue_bound("all", "chat-sessions", "").await;
    let mut room = Room::up(&config).await;

    for ensure in [false, true, false] {
        let closed = room.submit(Link::Main, ensure, messages("nowhere", "k", 3));
        let open = room.submit(Link::Main, false, messages("chat-sessions", "k", 64));
        for outcome in room.done(closed).await {
            let Outcome::ChannelClosed(404, text) = &outcome else {
                panic!("{outcome:?}")
            };
            assert!(text.contains("no exchange 'nowhere'"), "{text}");
        }
        assert!(all_delivered(&room.done(open).await));
    }
    assert_eq!(room.status.borrow().reconnects, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_deleted_while_running_closes_the_window_and_is_declared_again_when_asked() {
    let vhost = Broker::shared().await.vhost().await;
    let mut config = config(&[&vhost.amqp_url]);
    config.queues =
        serde_json::from_value(json!([{"name": "crm", "keys": ["chat-session.#"]}])).unwrap();
    let mut room = Room::up(&config).await;
    assert!(all_delivered(
        &room
            .publish(messages("chat-sessions", "chat-session.a", 2))
            .await
    ));

    vhost.delete_exchange("chat-sessions").await;
    let outcomes = room
        .publish(messages("chat-sessions", "chat-session.a", 8))
        .await;
    let is_closed = |outcome: &Outcome| matches!(outcome, Outcome::ChannelClosed(404, _));
    let is_unknown = |outcome: &Outcome| *outcome == Outcome::Unknown;
    assert!(
        outcomes.iter().all(is_closed) || outcomes.iter().all(is_unknown),
        "{outcomes:?}"
    );

    let probe = room.submit(
        Link::Probe,
        true,
        messages("chat-sessions", "chat-session.a", 1),
    );
    assert_eq!(room.done(probe).await, [Outcome::Delivered]);
    assert_eq!(
        vhost.message_count("crm").await,
        Some(3),
        "its queue is bound again too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_exchange_closes_its_window_with_the_brokers_words() {
    let vhost = Broker::shared().await.vhost().await;
    vhost.user("bridge", "a long password").await;
    let url = vhost.amqp_url_as("bridge", "a%20long%20password");
    let mut room = Room::up(&config(&[&url])).await;
    vhost.allow("bridge", ".*", "^$", ".*").await;
    let closed = room.submit(Link::Probe, true, messages("chat-sessions", "k", 3));
    for outcome in room.done(closed).await {
        assert!(
            matches!(&outcome, Outcome::ChannelClosed(403, text) if text.contains("ACCESS_REFUSED")),
            "{outcome:?}"
        );
    }
    vhost.allow("bridge", ".*", ".*", ".*").await;
    let opened = room.submit(Link::Probe, true, messages("chat-sessions", "k", 1));
    assert_eq!(room.done(opened).await, [Outcome::Delivered]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_holding_queues_is_counted() {
    let vhost = Broker::shared().await.vhost().await;
    let mut room = Room::up(&config(&[&vhost.amqp_url])).await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "nobody", 3)).await
    ));
    assert!(all_delivered(
        &room
            .publish(messages("chat-sessions.dead-letter", "invalid", 2))
            .await
    ));
    eventually("both are there", SOON, || async {
        vhost.message_count("chat-sessions.dead-letter").await == Some(2)
            && vhost.message_count("chat-sessions.unrouted").await == Some(3)
    })
    .await;
    let mut second = Room::up(&config(&[&vhost.amqp_url])).await;
    let counted = |status: &deskbridge::telemetry::status::BrokerStatus| {
        (status.unrouted_messages, status.dead_letter_messages) == (Some(3), Some(2))
    };
    second.status_is("the counts are known", counted).await;
    assert!(room.is_silent_for(Duration::from_millis(1)).await);
}
