//! Exchanges, queues and bindings that do not fit the bridge's needs.

use hyper::Method;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use super::super::setup::{NO_LIMIT, TICKETS, unstarted};
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
async fn nothing_declared_is_one_cause() {
    for (toml, code, severity, verdict) in [
        ("rabbitmq.topology = \"verify\"", 1, "error", ""),
        (TICKETS, 0, "warning", "degraded"),
    ] {
        let vhost = Broker::shared().await.vhost().await;
        let bridge = unstarted(&vhost, toml).build();
        let first = format!("{severity}: exchange `chat-sessions.dead-letter`, ");
        let checked = agrees(&bridge, code, &first).await;
        assert_eq!(checked.causes, 1, "{checked:#?}");
        assert!(checked.verdict.starts_with(verdict), "{checked:#?}");
        let is_waiting = checked.output.contains("wait in `chat-sessions.unrouted`");
        assert!(!is_waiting, "{checked:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn differently_declared_exchange() {
    for (with, found, is_one_cause) in [
        (json!({"type": "direct"}), "is of type direct", true),
        (json!({"durable": false}), "is not durable", false),
        (json!({"auto_delete": true}), "is auto-delete", false),
    ] {
        let (_vhost, bridge) = exchange(with).await;
        let first = format!("error: exchange `chat-sessions` {found}");
        let checked = agrees(&bridge, 1, &first).await;
        assert!(checked.causes == 1 || !is_one_cause, "{checked:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn internal_exchange() {
    let (_vhost, mut bridge) = exchange(json!({"internal": true})).await;
    let first = "error: exchange `chat-sessions` is internal";
    let checked = agrees(&bridge, 1, first).await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
    assert!(!checked.output.contains("set_permissions"), "{checked:#?}");
    bridge.reconfigure("rabbitmq.management_url = \"\"");
    let checked = agrees(&bridge, 1, first).await;
    assert!(!checked.output.contains("set_permissions"), "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_alternate_exchange() {
    let (_vhost, bridge) = exchange(json!({"arguments": {}})).await;
    let first = "error: exchange `chat-sessions` has no alternate exchange";
    let checked = agrees(&bridge, 1, first).await;
    let typed = r#"'^chat\\-sessions$' '{\"alternate-exchange\":\"chat-sessions.unrouted\"}'"#;
    assert!(checked.output.contains(typed), "{typed}: {checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_binding() {
    let mut setup = stopped(TICKETS).await;
    setup.vhost.unbind("tickets", "chat-sessions", "#").await;
    let missing = "binding of queue `tickets` to exchange `chat-sessions` with key `#` is missing";
    let warning = format!("warning: {missing}; `serve` declares it");
    let checked = agrees(&setup.bridge, 0, &warning).await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
    let note = "key `chat-session.created`: `chat-sessions.unrouted` (quorum), by the alternate exchange `chat-sessions.unrouted`; `tickets` (its binding is missing)";
    assert!(checked.notes[0].ends_with(note), "{checked:#?}");
    setup.bridge.reconfigure("rabbitmq.topology = \"verify\"");
    agrees(&setup.bridge, 1, &format!("error: {missing}")).await;
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

/// The arguments of a consumer's own queue, and what is reported about it.
#[tokio::test(flavor = "multi_thread")]
async fn unsafe_queues() {
    let quorum = |with: &Value| {
        let mut arguments = json!({"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT});
        for (name, value) in with.as_object().unwrap() {
            arguments[name] = value.clone();
        }
        arguments
    };
    for (arguments, code, first) in [
        (
            safe(&json!({"x-max-length-bytes": 1_000_000})),
            0,
            "warning: quorum queue `own` refuses beyond its limit and shares the keys `chat-session.missed` with `tickets`",
        ),
        (
            quorum(&json!({"x-max-length": 5})),
            1,
            "error: quorum queue `own` drops its oldest messages",
        ),
        (
            quorum(&json!({"x-message-ttl": 60_000})),
            1,
            "error: quorum queue `own` lets messages expire",
        ),
        (
            safe(&json!({"x-dead-letter-exchange": "nowhere"})),
            1,
            "error: the dead-letter exchange `nowhere` of quorum queue `own` does not exist",
        ),
    ] {
        let setup = stopped(TICKETS).await;
        own_queue(&setup, arguments).await;
        agrees(&setup.bridge, code, first).await;
        if first.ends_with("does not exist") {
            let vhost = &setup.vhost;
            vhost.declare_exchange("nowhere", "direct", json!({})).await;
            let first = first.replace("does not exist", "leads to no queue");
            agrees(&setup.bridge, 1, &first).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_queue() {
    let setup = stopped(TICKETS).await;
    own_queue(&setup, json!({"x-queue-type": "classic"})).await;
    let first =
        "error: queue `own` is a classic queue, which confirms before it has written to the disk";
    let checked = agrees(&setup.bridge, 1, first).await;
    let typed = " 'own' --if-empty`";
    assert!(checked.output.contains(typed), "{checked:#?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn exclusive_or_auto_delete_queue() {
    let plain = QueueDeclareOptions::default();
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..plain
    };
    let auto_delete = QueueDeclareOptions {
        auto_delete: true,
        durable: true,
        ..plain
    };
    for (options, found) in [(exclusive, "exclusive"), (auto_delete, "auto-delete")] {
        let setup = stopped(MOST).await;
        let channel = setup.vhost.channel().await;
        channel
            .queue_declare("own".into(), options, FieldTable::default())
            .await
            .unwrap();
        // Only this connection may use an exclusive queue.
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
        let problem = format!("classic queue `own` is {found}: it is deleted with ");
        let checked = agrees(&setup.bridge, 1, &format!("error: {problem}")).await;
        assert_eq!(checked.causes, 1, "{checked:#?}");
        // Next to a durable queue it is only an observer's queue, and no problem.
        setup.vhost.declare_queue("lasting", safe(&json!({}))).await;
        setup.vhost.bind("lasting", "chat-sessions", "#").await;
        agrees(&setup.bridge, 0, &format!("warning: {problem}")).await;
    }
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
async fn waiting_messages() {
    for (exchange, first) in [
        (
            "chat-sessions.dead-letter",
            "warning: 1 dead letter waiting in queue",
        ),
        (
            "chat-sessions.unrouted",
            "warning: 1 event that matched no binding",
        ),
    ] {
        let setup = stopped(TICKETS).await;
        assert!(setup.vhost.publish(exchange, "nacked", b"1").await);
        agrees(&setup.bridge, 0, first).await;
    }
}
