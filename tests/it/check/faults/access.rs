//! Missing permissions of the bridge's user, and limits of the broker.

use hyper::Method;
use serde_json::json;

use super::super::setup::{Setup, TICKETS, unstarted};
use super::{agrees, agrees_slowly, stopped};
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
    for toml in ["", BLIND] {
        let (vhost, bridge, name) = fresh(["^$", ".*", ".*"], toml).await;
        let first = "error: exchange `chat-sessions.dead-letter`, queue ";
        let checked = agrees(&bridge, 1, first).await;
        let denied = "may not declare them: ACCESS_REFUSED";
        let is_told = checked.first.contains(denied) && checked.first.contains(&name);
        assert!(is_told, "{checked:#?}");
        assert!(checked.causes == 1 || toml == BLIND, "{checked:#?}");
        assert!(!vhost.has_exchange("chat-sessions").await, "it declares");
        let queue = vhost.message_count("tickets").await;
        assert_eq!(queue, None, "check declares nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_permission_to_configure_one_queue() {
    let (_vhost, bridge, name) = fresh(["^chat-sessions", ".*", ".*"], "").await;
    let checked = agrees(&bridge, 1, "").await;
    let missing = "warning: exchange `chat-sessions.dead-letter`, queue `chat-sessions.dead-letter`, \
         exchange `chat-sessions.unrouted`, queue `chat-sessions.unrouted`, \
         exchange `chat-sessions` are missing; `serve` declares them when it starts";
    let denied = format!(
        "error: queue `tickets` is missing, and user `{name}` may not declare it: ACCESS_REFUSED"
    );
    for expected in [missing, &denied] {
        let is_it = |found: &String| found.starts_with(expected);
        assert!(checked.findings.iter().any(is_it), "{checked:#?}");
    }
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
    let narrow = "'.*' '^(chat\\\\-sessions|chat\\\\-sessions\\\\.dead\\\\-letter|";
    for (permissions, toml, fix) in [
        ([".*", "^$", ".*"], "", narrow),
        ([".*", "^$", ".*"], BLIND, " CONFIGURE WRITE READ`"),
        (["^$", "^$", "^$"], BLIND, " set_permissions "),
    ] {
        let (setup, name) = declared(permissions, toml).await;
        let first = format!("error: user `{name}` may not write to exchanges `chat-sessions`, ");
        let checked = agrees(&setup.bridge, 1, &first).await;
        assert!(
            checked.output.contains(fix),
            "{permissions:?}: {checked:#?}"
        );
        assert!(!checked.output.contains("some-password"), "{checked:#?}");
        let unseen = "note: not inspected: bindings, queue types";
        let is_unseen = checked.notes.iter().any(|note| note.starts_with(unseen));
        assert_eq!(is_unseen, toml == BLIND, "{checked:#?}");
        for queue in ["tickets", "chat-sessions.unrouted"] {
            let waiting = setup.vhost.message_count(queue).await;
            assert_eq!(waiting, Some(0), "check publishes nothing");
        }
    }
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
    agrees_slowly(&setup.bridge, 1, &first).await;
    let waiting = setup.vhost.message_count("tickets").await;
    assert_eq!(waiting, Some(0), "check publishes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_password_or_missing_vhost() {
    let vhost = Broker::shared().await.vhost().await;
    for (url, told) in [
        (vhost.amqp_url_as("guest", "not-the-password"), " refuses: "),
        (format!("{}-missing", vhost.amqp_url), "not found"),
    ] {
        let toml = format!("rabbitmq.urls = [{url:?}]\n{BLIND}");
        let bridge = unstarted(&vhost, &toml).build();
        let checked = agrees(&bridge, 1, "error: amqp://127.0.0.1:").await;
        assert!(checked.first.contains(told), "{checked:#?}");
        assert_eq!(checked.findings.len(), 1, "{checked:#?}");
        assert!(!checked.output.contains("not-the-password"), "{checked:#?}");
    }
}

async fn limited(limit: &str, value: u32, toml: &str) -> Setup {
    let (setup, name) = declared([".*", ".*", ".*"], toml).await;
    let (path, value) = (
        format!("user-limits/{name}/{limit}"),
        json!({"value": value}),
    );
    setup.vhost.management(Method::PUT, &path, &value).await;
    setup
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_channels_for_the_user() {
    for toml in ["", BLIND] {
        let setup = limited("max-channels", 2, toml).await;
        let checked = agrees(&setup.bridge, 1, "error: amqp://127.0.0.1:").await;
        for expected in ["has no room for the ", "channels that `serve` may need"] {
            assert!(checked.first.contains(expected), "{checked:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_connections_for_the_user() {
    let setup = limited("max-connections", 1, "").await;
    let checked = agrees(&setup.bridge, 1, "error: amqp://127.0.0.1:").await;
    let expected = "has no room for the 2 connections that `serve` opens";
    assert!(checked.first.contains(expected), "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_vhost() {
    let connections = "has no room for the 2 connections that `serve` opens";
    for (limit, value, toml, first, expected) in [
        (
            "max-connections",
            1,
            BLIND,
            "error: amqp://127.0.0.1:",
            connections,
        ),
        (
            "max-queues",
            0,
            TICKETS,
            "error: queue `chat-sessions.dead-letter`, ",
            "limit",
        ),
    ] {
        let vhost = Broker::shared().await.vhost().await;
        let path = format!("vhost-limits/{}/{limit}", vhost.name);
        let value = json!({"value": value});
        vhost.management(Method::PUT, &path, &value).await;
        let bridge = unstarted(&vhost, toml).build();
        let checked = agrees(&bridge, 1, first).await;
        assert!(checked.first.contains(expected), "{checked:#?}");
    }
}
