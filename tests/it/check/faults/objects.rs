//! Exchanges, queues and bindings that do not fit the bridge's needs.

use hyper::Method;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use super::super::setup::{TICKETS, unstarted};
use super::{agrees, own_queue, safe, stopped};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::vhost::Vhost;

/// A vhost whose exchange `chat-sessions` is declared like this.
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
async fn wrong_exchange_type() {
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
async fn internal_exchange() {
    let (_vhost, mut bridge) = exchange(json!({"internal": true})).await;
    let checked = agrees(&bridge, 1, "error: exchange `chat-sessions` is internal").await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
    assert!(!checked.output.contains("set_permissions"), "{checked:#?}");
    bridge.reconfigure("rabbitmq.management_url = \"\"");
    let checked = agrees(&bridge, 1, "error: exchange `chat-sessions` is internal").await;
    assert!(!checked.output.contains("set_permissions"), "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_exchange() {
    let (_vhost, bridge) = exchange(json!({"durable": false})).await;
    agrees(&bridge, 1, "error: exchange `chat-sessions` is not durable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_delete_exchange() {
    let (_vhost, bridge) = exchange(json!({"auto_delete": true})).await;
    agrees(&bridge, 1, "error: exchange `chat-sessions` is auto-delete").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_alternate_exchange() {
    let (_vhost, bridge) = exchange(json!({"arguments": {}})).await;
    agrees(
        &bridge,
        1,
        "error: exchange `chat-sessions` has no alternate exchange",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_without_binding() {
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
async fn removed_binding() {
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
async fn full_queue() {
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
async fn full_queue_without_management() {
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
async fn limited_queue_shares_keys() {
    let first = "warning: quorum queue `own` refuses beyond its limit and shares the keys `chat-session.missed` with `tickets`";
    own(safe(&json!({"x-max-length-bytes": 1_000_000})), 0, first).await;
    let setup = stopped(TICKETS).await;
    own_queue(&setup, safe(&json!({}))).await;
    let limit = json!({"max-length": 10});
    setup.vhost.policy("queues", "own", limit).await;
    agrees(&setup.bridge, 0, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_drops_oldest() {
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
async fn queue_with_message_ttl() {
    let arguments = json!({"x-queue-type": "quorum", "x-message-ttl": 60_000, "x-delivery-limit": 1_000_000_000});
    own(
        arguments,
        1,
        "error: quorum queue `own` lets messages expire",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_expires_by_policy() {
    let setup = stopped(TICKETS).await;
    let expires = json!({"expires": 3_600_000});
    setup.vhost.policy("queues", "tickets", expires).await;
    let first = "error: quorum queue `tickets` expires when it is unused";
    let checked = agrees(&setup.bridge, 1, first).await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_queue() {
    let first = "error: queue `own` is a classic queue";
    own(json!({"x-queue-type": "classic"}), 1, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_dead_letter_exchange() {
    let arguments = safe(&json!({"x-dead-letter-exchange": "nowhere"}));
    let first = "error: the dead-letter exchange `nowhere` of quorum queue `own` does not exist";
    own(arguments, 1, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_exchange_without_queue() {
    let setup = stopped(TICKETS).await;
    let vhost = &setup.vhost;
    vhost.declare_exchange("nowhere", "direct", json!({})).await;
    own_queue(&setup, safe(&json!({"x-dead-letter-exchange": "nowhere"}))).await;
    let first = "error: the dead-letter exchange `nowhere` of quorum queue `own` leads to no queue";
    agrees(&setup.bridge, 1, first).await;
}

/// Keys of a queue that receives all statuses but `callback`.
const MOST: &str = "[[queues]]\nname = \"tickets\"\nkeys = [\"*.created\", \"*.handled\", \"*.missed\", \"*.completed\", \"*.unknown\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn missing_unrouted_queue() {
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
async fn exclusive_queue() {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    passing(options, "error: classic queue `own` is exclusive").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_delete_queue() {
    let options = QueueDeclareOptions {
        auto_delete: true,
        durable: true,
        ..QueueDeclareOptions::default()
    };
    passing(options, "error: classic queue `own` is auto-delete").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_retry_queue() {
    let toml = format!("{TICKETS}retry_delay = \"1s\"\n");
    let setup = stopped(&toml).await;
    if setup.vhost.has_delayed_retry().await {
        return; // this broker does delayed retry itself, without such a queue
    }
    setup.vhost.delete_queue("tickets.rejected").await;
    agrees(
        &setup.bridge,
        0,
        "warning: queue `tickets.rejected` is missing",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_dead_letters() {
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
async fn waiting_unrouted_messages() {
    let setup = stopped(TICKETS).await;
    let vhost = &setup.vhost;
    assert!(vhost.publish("chat-sessions.unrouted", "any", b"1").await);
    agrees(&setup.bridge, 0, "warning: 1 event that matched no binding").await;
}
