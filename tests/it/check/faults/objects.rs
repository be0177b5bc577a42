//! Exchanges, queues and bindings that are not what events need.

use hyper::Method;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use super::super::setup::{TICKETS, unstarted};
use super::{agrees, own_queue, safe, stopped};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::vhost::Vhost;

/// A vhost where `chat-sessions` is like this.
async fn exchange(with: Value) -> (Vhost, Bridge) {
    let vhost = Broker::shared().await.vhost().await;
    let mut exchange = json!({
        "type": "topic", "durable": true, "auto_delete": false, "internal": false,
        "arguments": {"alternate-exchange": "chat-sessions.unrouted"}
    });
    for (key, value) in with.as_object().unwrap() {
        exchange[key] = value.clone();
    }
    let path = format!("exchanges/{}/chat-sessions", vhost.name);
    vhost.management(Method::PUT, &path, &exchange).await;
    let mut bridge = unstarted(&vhost, TICKETS).build();
    bridge.start().await;
    bridge.broker_is("connected").await;
    bridge.terminate().await;
    (vhost, bridge)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_declared_with_verify() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = unstarted(&vhost, "rabbitmq.topology = \"verify\"").build();
    let checked = agrees(&bridge, 1, "error: exchange `chat-sessions.dead-letter`, ").await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_declared_yet_is_one_cause() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = unstarted(&vhost, TICKETS).build();
    let checked = agrees(
        &bridge,
        0,
        "warning: exchange `chat-sessions.dead-letter`, ",
    )
    .await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
    assert!(
        !checked.output.contains("wait in `chat-sessions.unrouted`"),
        "{checked:#?}"
    );
    assert_eq!(checked.verdict, "degraded");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_of_another_type() {
    let (_vhost, bridge) = exchange(json!({"type": "direct"})).await;
    let checked = agrees(
        &bridge,
        1,
        "error: exchange `chat-sessions` is of type direct",
    )
    .await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_internal_exchange() {
    let (_vhost, mut bridge) = exchange(json!({"internal": true})).await;
    let checked = agrees(&bridge, 1, "error: exchange `chat-sessions` is internal").await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
    assert!(!checked.output.contains("set_permissions"), "{checked:#?}");
    bridge.reconfigure("rabbitmq.management_url = \"\"");
    let checked = agrees(&bridge, 1, "error: exchange `chat-sessions` is internal").await;
    assert!(!checked.output.contains("set_permissions"), "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_not_durable() {
    let (_vhost, bridge) = exchange(json!({"durable": false})).await;
    agrees(&bridge, 1, "error: exchange `chat-sessions` is not durable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_goes_with_its_bindings() {
    let (_vhost, bridge) = exchange(json!({"auto_delete": true})).await;
    agrees(&bridge, 1, "error: exchange `chat-sessions` is auto-delete").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_without_alternate() {
    let (_vhost, bridge) = exchange(json!({"arguments": {}})).await;
    agrees(
        &bridge,
        1,
        "error: exchange `chat-sessions` has no alternate exchange",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_binding_for_a_status() {
    let toml = "unrouted.exchange = \"\"\n[[queues]]\nname = \"tickets\"\nkeys = [\"chat-session.created\"]\n";
    let setup = stopped(toml).await;
    agrees(
        &setup.bridge,
        1,
        "error: status `handled`: no durable queue is bound",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_was_taken_away() {
    let setup = stopped(TICKETS).await;
    setup.vhost.unbind("tickets", "chat-sessions", "#").await;
    let checked = agrees(&setup.bridge, 0, "warning: binding of queue `tickets`").await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
}

async fn own(arguments: Value, code: i32, first: &str) {
    let setup = stopped(TICKETS).await;
    own_queue(&setup, arguments).await;
    agrees(&setup.bridge, code, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue() {
    let setup = stopped(TICKETS).await;
    own_queue(&setup, safe(&json!({"x-max-length": 1}))).await;
    for _ in 0..2 {
        let key = "chat-session.missed";
        setup.vhost.publish("chat-sessions", key, b"1").await;
    }
    let checked = agrees(&setup.bridge, 1, "error: quorum queue `own` is full").await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_without_management() {
    let setup = stopped(&format!(
        "rabbitmq.management_url = \"\"\n{TICKETS}messages_max = 1\n"
    ))
    .await;
    for _ in 0..2 {
        setup.vhost.publish("chat-sessions", "any", b"1").await;
    }
    agrees(&setup.bridge, 1, "error: queue `tickets` is full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_queue_that_shares_its_keys() {
    let first = "warning: quorum queue `own` refuses beyond its limit and shares the keys `chat-session.missed` with `tickets`";
    own(safe(&json!({"x-max-length-bytes": 1_000_000})), 0, first).await;
    let setup = stopped(TICKETS).await;
    own_queue(&setup, safe(&json!({}))).await;
    let limit = json!({"max-length": 10});
    setup.vhost.policy("queues", "own", limit).await;
    agrees(&setup.bridge, 0, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_drops_its_oldest() {
    let arguments =
        json!({"x-queue-type": "quorum", "x-max-length": 5, "x-delivery-limit": 1_000_000_000});
    own(
        arguments,
        1,
        "error: quorum queue `own` drops its oldest messages",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_messages_expire() {
    let arguments = json!({"x-queue-type": "quorum", "x-message-ttl": 60_000, "x-delivery-limit": 1_000_000_000});
    own(
        arguments,
        1,
        "error: quorum queue `own` lets messages expire",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_expires_by_policy() {
    let setup = stopped(TICKETS).await;
    let expires = json!({"expires": 3_600_000});
    setup.vhost.policy("queues", "tickets", expires).await;
    let first = "error: quorum queue `tickets` expires when nobody uses it";
    let checked = agrees(&setup.bridge, 1, first).await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_queue() {
    let first = "error: queue `own` is a classic queue";
    own(json!({"x-queue-type": "classic"}), 1, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_exchange_that_is_not_there() {
    let arguments = safe(&json!({"x-dead-letter-exchange": "nowhere"}));
    let first = "error: the dead-letter exchange `nowhere` of quorum queue `own` does not exist";
    own(arguments, 1, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_exchange_without_a_queue() {
    let setup = stopped(TICKETS).await;
    let vhost = &setup.vhost;
    vhost.declare_exchange("nowhere", "direct", json!({})).await;
    own_queue(&setup, safe(&json!({"x-dead-letter-exchange": "nowhere"}))).await;
    let first = "error: the dead-letter exchange `nowhere` of quorum queue `own` leads to no queue";
    agrees(&setup.bridge, 1, first).await;
}

/// Leaves `callback` to others.
const MOST: &str = "[[queues]]\nname = \"tickets\"\nkeys = [\"*.created\", \"*.handled\", \"*.missed\", \"*.completed\", \"*.unknown\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_unrouted_queue_that_is_not_there() {
    let setup = stopped(MOST).await;
    setup.vhost.delete_queue("chat-sessions.unrouted").await;
    let first = "error: queue `chat-sessions.unrouted` is missing; `serve` declares it";
    let checked = agrees(&setup.bridge, 1, first).await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
    let is_waiting = checked.output.contains("wait in `chat-sessions.unrouted`");
    assert!(!is_waiting, "{checked:#?}");
}

async fn passing(options: QueueDeclareOptions, first: &str) {
    let setup = stopped(MOST).await;
    let channel = setup.vhost.channel().await;
    channel
        .queue_declare("own".into(), options, FieldTable::default())
        .await
        .unwrap();
    let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(
            "own".into(),
            "chat-sessions".into(),
            "*.callback".into(),
            bind,
            none,
        )
        .await
        .unwrap();
    let checked = agrees(&setup.bridge, 1, first).await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusive_queue() {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    passing(options, "error: classic queue `own` is exclusive").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_goes_with_its_consumer() {
    let options = QueueDeclareOptions {
        auto_delete: true,
        durable: true,
        ..QueueDeclareOptions::default()
    };
    passing(options, "error: classic queue `own` is auto-delete").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_queue_that_was_deleted() {
    let toml = format!("{TICKETS}retry_delay = \"1s\"\n");
    let setup = stopped(&toml).await;
    setup.vhost.delete_queue("tickets.rejected").await;
    agrees(
        &setup.bridge,
        0,
        "warning: queue `tickets.rejected` is missing",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_wait() {
    let setup = stopped(TICKETS).await;
    let vhost = &setup.vhost;
    assert!(
        vhost
            .publish("chat-sessions.dead-letter", "nacked", b"1")
            .await
    );
    agrees(&setup.bridge, 0, "warning: 1 dead letter waiting in queue").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_nobody_subscribed_to() {
    let setup = stopped(TICKETS).await;
    let vhost = &setup.vhost;
    assert!(vhost.publish("chat-sessions.unrouted", "any", b"1").await);
    agrees(
        &setup.bridge,
        0,
        "warning: 1 event that nobody had subscribed to",
    )
    .await;
}
