//! Missing permissions of the bridge's user, and limits of the broker.

use hyper::Method;
use serde_json::json;

use super::super::setup::{Setup, TICKETS, unstarted};
use super::{agrees, stopped};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::vhost::Vhost;

/// Creates a user for the test with these permissions.
async fn user(vhost: &Vhost, [configure, write, read]: [&str; 3]) -> (String, String) {
    let name = format!("{}-user", vhost.name);
    vhost.user(&name, "some-password").await;
    vhost.allow(&name, configure, write, read).await;
    let url = vhost.amqp_url_as(&name, "some-password");
    (name, format!("rabbitmq.urls = [{url:?}]"))
}

async fn fresh(permissions: [&str; 3], toml: &str) -> (Vhost, Bridge, String) {
    let vhost = Broker::shared().await.vhost().await;
    let (name, urls) = user(&vhost, permissions).await;
    let bridge = unstarted(&vhost, TICKETS).with(&urls).with(toml).build();
    (vhost, bridge, name)
}

async fn declared(permissions: [&str; 3], toml: &str) -> (Setup, String) {
    let mut setup = stopped(TICKETS).await;
    let (name, urls) = user(&setup.vhost, permissions).await;
    setup.bridge.reconfigure(&urls);
    setup.bridge.reconfigure(toml);
    (setup, name)
}

const BLIND: &str = "rabbitmq.management_url = \"\"";

#[tokio::test(flavor = "multi_thread")]
async fn no_permission_to_configure() {
    let (_vhost, bridge, name) = fresh(["^$", ".*", ".*"], "").await;
    let checked = agrees(
        &bridge,
        1,
        "error: exchange `chat-sessions.dead-letter`, queue ",
    )
    .await;
    let denied = format!("are missing, and user `{name}` may not declare them: ACCESS_REFUSED");
    assert!(checked.first.contains(&denied), "{checked:#?}");
    assert_eq!(checked.causes, 1, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_permission_to_configure_without_management() {
    let (vhost, bridge, name) = fresh(["^$", ".*", ".*"], BLIND).await;
    let checked = agrees(
        &bridge,
        1,
        "error: exchange `chat-sessions.dead-letter`, queue ",
    )
    .await;
    let denied = "may not declare them: ACCESS_REFUSED";
    assert!(
        checked.first.contains(denied) && checked.first.contains(&name),
        "{checked:#?}"
    );
    assert!(
        !vhost.has_exchange("chat-sessions").await,
        "check declares nothing"
    );
    assert_eq!(
        vhost.message_count("tickets").await,
        None,
        "check declares nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_permission_to_read_without_management() {
    let (_vhost, bridge, _) = fresh([".*", ".*", "^$"], BLIND).await;
    agrees(
        &bridge,
        1,
        "error: binding of queue `chat-sessions.dead-letter`",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_permission_to_write() {
    let (setup, name) = declared([".*", "^$", ".*"], "").await;
    let first = format!(
        "error: user `{name}` may not write to exchanges `chat-sessions`, `chat-sessions.dead-letter`"
    );
    let checked = agrees(&setup.bridge, 1, &first).await;
    let fix = "'.*' '^(chat\\\\-sessions|chat\\\\-sessions\\\\.dead\\\\-letter|";
    assert!(
        checked.output.contains(fix),
        "the fix is not narrow: {checked:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_permission_to_write_without_management() {
    let (setup, name) = declared([".*", "^$", ".*"], BLIND).await;
    let first = format!("error: user `{name}` may not write to exchanges `chat-sessions`, ");
    let checked = agrees(&setup.bridge, 1, &first).await;
    assert!(
        checked.output.contains(" CONFIGURE WRITE READ`"),
        "{checked:#?}"
    );
    assert_eq!(setup.vhost.message_count("tickets").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_permission_at_all() {
    let (setup, name) = declared(["^$", "^$", "^$"], BLIND).await;
    let first = format!("error: user `{name}` may not write to exchanges `chat-sessions`, ");
    agrees(&setup.bridge, 1, &first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_topic_permission() {
    for toml in ["", BLIND] {
        let (setup, name) = declared([".*", ".*", ".*"], toml).await;
        let topic = json!({"exchange": "chat-sessions", "write": "^other$", "read": ".*"});
        let path = format!("topic-permissions/{}/{name}", setup.vhost.name);
        setup.vhost.management(Method::PUT, &path, &topic).await;
        let first = format!(
            "error: user `{name}` may not write to exchange `chat-sessions` with the keys `chat-session.created`, "
        );
        let checked = agrees(&setup.bridge, 1, &first).await;
        assert!(
            checked.output.contains("set_topic_permissions -p "),
            "{checked:#?}"
        );
        assert!(
            !checked.output.contains(" set_permissions "),
            "{checked:#?}"
        );
    }
}

/// A user with the tag `impersonator` may publish with a foreign `user-id`.
#[tokio::test(flavor = "multi_thread")]
async fn impersonator_without_write_permission() {
    let mut setup = stopped(TICKETS).await;
    let name = format!("{}-user", setup.vhost.name);
    setup
        .vhost
        .user_with_tags(&name, "some-password", "impersonator")
        .await;
    setup
        .vhost
        .allow(&name, ".*", "^chat-sessions$", ".*")
        .await;
    let url = setup.vhost.amqp_url_as(&name, "some-password");
    setup
        .bridge
        .reconfigure(&format!("rabbitmq.urls = [{url:?}]"));
    let first =
        format!("error: user `{name}` may not write to exchange `chat-sessions.dead-letter`: ");
    agrees(&setup.bridge, 1, &first).await;
    let waiting = setup.vhost.message_count("tickets").await;
    assert_eq!(waiting, Some(0), "check publishes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_password() {
    let vhost = Broker::shared().await.vhost().await;
    let url = vhost.amqp_url_as("guest", "not-the-password");
    let bridge = unstarted(&vhost, &format!("rabbitmq.urls = [{url:?}]")).build();
    let checked = agrees(&bridge, 1, "error: amqp://127.0.0.1:").await;
    assert!(checked.first.contains(" refuses: "), "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_vhost() {
    let vhost = Broker::shared().await.vhost().await;
    let url = format!("{}-missing", vhost.amqp_url);
    let toml = format!("rabbitmq.urls = [{url:?}]\n{BLIND}");
    let bridge = unstarted(&vhost, &toml).build();
    let checked = agrees(&bridge, 1, "error: amqp://127.0.0.1:").await;
    assert!(checked.first.contains("not found"), "{checked:#?}");
}

async fn limited(kind: &str, limit: &str, value: u32, toml: &str) -> (Setup, String) {
    let (setup, name) = declared([".*", ".*", ".*"], toml).await;
    let of = if kind == "user" {
        &name
    } else {
        &setup.vhost.name
    };
    let path = format!("{kind}-limits/{of}/{limit}");
    setup
        .vhost
        .management(Method::PUT, &path, &json!({"value": value}))
        .await;
    (setup, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_channels_for_the_user() {
    for toml in ["", BLIND] {
        let (setup, _) = limited("user", "max-channels", 2, toml).await;
        let checked = agrees(&setup.bridge, 1, "error: amqp://127.0.0.1:").await;
        assert!(
            checked.first.contains("has no room for the "),
            "{checked:#?}"
        );
        assert!(
            checked.first.contains("channels that `serve` may need"),
            "{checked:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_connections_for_the_user() {
    let (setup, _) = limited("user", "max-connections", 1, "").await;
    let checked = agrees(&setup.bridge, 1, "error: amqp://127.0.0.1:").await;
    let expected = "has no room for the 2 connections that `serve` opens";
    assert!(checked.first.contains(expected), "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_connections_in_the_vhost() {
    let vhost = Broker::shared().await.vhost().await;
    let path = format!("vhost-limits/{}/max-connections", vhost.name);
    vhost
        .management(Method::PUT, &path, &json!({"value": 1}))
        .await;
    let bridge = unstarted(&vhost, BLIND).build();
    let checked = agrees(&bridge, 1, "error: amqp://127.0.0.1:").await;
    let expected = "has no room for the 2 connections that `serve` opens";
    assert!(checked.first.contains(expected), "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_queues_in_the_vhost() {
    let vhost = Broker::shared().await.vhost().await;
    let path = format!("vhost-limits/{}/max-queues", vhost.name);
    vhost
        .management(Method::PUT, &path, &json!({"value": 0}))
        .await;
    let bridge = unstarted(&vhost, TICKETS).build();
    let checked = agrees(&bridge, 1, "error: queue `chat-sessions.dead-letter`, ").await;
    assert!(checked.first.contains("limit"), "{checked:#?}");
}
