//! Exchanges, bindings and permissions.

use serde_json::json;

use super::setup::{Setup, TICKETS, finds, unstarted};
use crate::support::broker::Broker;

const UNROUTED: &str = "{\"alternate-exchange\":\"chat-sessions.unrouted\"}";

/// This finding, and the findings that follow from it for the only queue.
fn and_nothing_arrives(finding: &str) -> Vec<&str> {
    let idle = "warning: queue `tickets` of `[[queues]]` gets nothing";
    [&[finding, idle], &UNBOUND[..]].concat()
}

const UNBOUND: [&str; 6] = [
    "warning: status `created`: no durable queue is bound",
    "warning: status `handled`: no durable queue is bound",
    "warning: status `missed`: no durable queue is bound",
    "warning: status `completed`: no durable queue is bound",
    "warning: status `callback`: no durable queue is bound",
    "warning: status `unknown`: no durable queue is bound",
];

#[tokio::test(flavor = "multi_thread")]
async fn wrong_exchange_type_is_found() {
    let vhost = Broker::shared().await.vhost().await;
    let alternate = json!({"alternate-exchange": "chat-sessions.unrouted"});
    vhost
        .declare_exchange("chat-sessions", "direct", alternate)
        .await;
    let setup = Setup::on(vhost, TICKETS).await;
    let found =
        "error: exchange `chat-sessions` is of type direct, not topic, and is left as it is";
    setup.finds(1, &and_nothing_arrives(found)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_alternate_exchange_is_found() {
    let vhost = Broker::shared().await.vhost().await;
    vhost
        .declare_exchange("chat-sessions", "topic", json!({}))
        .await;
    let setup = Setup::on(vhost, TICKETS).await;
    let checked = setup
        .finds(
            1,
            &["error: exchange `chat-sessions` has no alternate exchange"],
        )
        .await;
    let typed = format!("'^chat\\\\-sessions$' '{}'", UNROUTED.replace('"', "\\\""));
    assert!(checked.output.contains(&typed), "{typed}: {checked:#?}");
    let alternate = serde_json::from_str(UNROUTED).unwrap();
    setup
        .vhost
        .policy("exchanges", "chat-sessions", alternate)
        .await;
    setup.finds(0, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_write_permission_is_found() {
    let mut setup = Setup::of(TICKETS).await;
    let user = format!("{}-mute", setup.vhost.name);
    setup.vhost.user(&user, "mute-password").await;
    let url = setup.vhost.amqp_url_as(&user, "mute-password");
    setup
        .bridge
        .reconfigure(&format!("rabbitmq.urls = [{url:?}]"));
    setup.finds(0, &[]).await;
    setup
        .vhost
        .allow(&user, ".*", "^chat-sessions.dead-letter$", ".*")
        .await;
    let found = format!("error: user `{user}` may not write to exchange `chat-sessions`");
    let checked = setup.finds(1, &[&found]).await;
    assert!(
        checked.output.contains("rabbitmqctl set_permissions -p "),
        "{checked:#?}"
    );
    assert!(!checked.output.contains("mute-password"), "{checked:#?}");
    setup.bridge.reconfigure("rabbitmq.management_url = \"\"");
    let checked = setup.finds(1, &[&found]).await;
    assert!(
        checked.notes[0].starts_with("note: not inspected: bindings, queue types"),
        "{checked:#?}"
    );
    assert_eq!(
        setup.vhost.message_count("tickets").await,
        Some(0),
        "check publishes nothing"
    );
    let unrouted = setup.vhost.message_count("chat-sessions.unrouted").await;
    assert_eq!(unrouted, Some(0), "check publishes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_configure_permission_is_found() {
    let vhost = Broker::shared().await.vhost().await;
    let user = format!("{}-guest", vhost.name);
    vhost.user(&user, "some-password").await;
    vhost.allow(&user, "^chat-sessions", ".*", ".*").await;
    let url = vhost.amqp_url_as(&user, "some-password");
    let bridge = unstarted(&vhost, TICKETS)
        .with(&format!("rabbitmq.urls = [{url:?}]"))
        .build();
    let missing = [
        "warning: exchange `chat-sessions.dead-letter`, queue `chat-sessions.dead-letter`, \
         exchange `chat-sessions.unrouted`, queue `chat-sessions.unrouted`, \
         exchange `chat-sessions` are missing; `serve` declares them when it starts",
        &format!(
            "error: queue `tickets` is missing, and user `{user}` may not declare it: ACCESS_REFUSED"
        ),
    ];
    finds(&bridge, 1, &[&missing, &UNBOUND[..]].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_queue_is_found_until_sighup() {
    let setup = Setup::of(TICKETS).await;
    setup.vhost.delete_queue("tickets").await;
    let missing = "warning: queue `tickets` is missing; `serve` declares it when it starts, after a reconnect, or on SIGHUP";
    let checked = setup.finds(0, &[&[missing], &UNBOUND[..]].concat()).await;
    let created = "note: status `created`: exchange `chat-sessions`, key `chat-session.created`: \
                   `chat-sessions.unrouted` (quorum), by the alternate exchange \
                   `chat-sessions.unrouted`; `tickets` (missing)";
    assert_eq!(checked.notes[0], created, "{checked:#?}");
    assert!(checked.output.contains("`kill -HUP "), "{checked:#?}");
    setup.bridge.hang_up();
    let checked = setup.finds(0, &[]).await;
    assert!(
        checked.notes[0].ends_with("`tickets` (quorum)"),
        "{checked:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_binding_is_found() {
    let mut setup = Setup::of(TICKETS).await;
    setup.vhost.unbind("tickets", "chat-sessions", "#").await;
    let missing = "binding of queue `tickets` to exchange `chat-sessions` with key `#` is missing";
    let found = format!("warning: {missing}; `serve` declares it");
    let checked = setup.finds(0, &[&[&*found], &UNBOUND[..]].concat()).await;
    let note = "key `chat-session.created`: `chat-sessions.unrouted` (quorum), by the alternate exchange `chat-sessions.unrouted`; `tickets` (its binding is missing)";
    assert!(checked.notes[0].ends_with(note), "{checked:#?}");
    setup.bridge.reconfigure("rabbitmq.topology = \"verify\"");
    let found = format!("error: {missing}");
    setup.finds(1, &and_nothing_arrives(&found)).await;
}
