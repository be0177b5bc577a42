//! Faults that only the running bridge can report.

use hyper::Method;
use serde_json::json;

use super::super::setup::{Setup, TICKETS};
use super::{agrees, own_queue, safe};
use crate::support::sender::array_of_new;
use crate::support::wait::{SOON, eventually};

/// Waits until the bridge reports a route as closed.
async fn closed(setup: &Setup) {
    eventually("a route is closed", SOON, || async {
        let status = setup.bridge.status().await;
        let routes = status["routes"].as_array().cloned().unwrap_or_default();
        routes.iter().any(|route| route["state"] == "closed")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_route_reports_its_cause_first() {
    let mut setup = Setup::of(TICKETS).await;
    setup.bridge.reconfigure("rabbitmq.topology = \"verify\"");
    setup.bridge.restart().await;
    setup.bridge.broker_is("connected").await;
    setup.vhost.delete_exchange("chat-sessions").await;
    setup.bridge.post(array_of_new("closed", 1)).await;
    closed(&setup).await;
    let checked = agrees(
        &setup.bridge,
        1,
        "error: exchange `chat-sessions` is missing",
    )
    .await;
    let route = "error: the running bridge publishes nothing to exchange `chat-sessions`";
    let told = checked.findings.iter().any(|one| one.starts_with(route));
    assert!(told, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forbidden_route_reports_its_cause_first() {
    let mut setup = Setup::of(TICKETS).await;
    let name = format!("{}-user", setup.vhost.name);
    setup.vhost.user(&name, "some-password").await;
    let url = setup.vhost.amqp_url_as(&name, "some-password");
    let toml = format!("rabbitmq.urls = [{url:?}]\nrabbitmq.management_url = \"\"");
    setup.bridge.reconfigure(&toml);
    setup.bridge.restart().await;
    setup.bridge.broker_is("connected").await;
    let dead_letter = "^chat-sessions.dead-letter$";
    setup.vhost.allow(&name, ".*", dead_letter, ".*").await;
    // A channel caches its permissions for a while.
    setup.bridge.restart().await;
    setup.bridge.broker_is("connected").await;
    setup.bridge.post(array_of_new("forbidden", 1)).await;
    closed(&setup).await;
    let first = format!("error: user `{name}` may not write to exchange `chat-sessions`");
    let checked = agrees(&setup.bridge, 1, &first).await;
    let route = "error: the running bridge publishes nothing to exchange `chat-sessions`";
    let told = checked.findings.iter().any(|one| one.starts_with(route));
    assert!(told, "{checked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_events_by_full_queue() {
    let slow = "retry.delay_min = \"2s\"\nretry.delay_max = \"60s\"\n";
    let mut setup = Setup::of(&format!("{slow}{TICKETS}")).await;
    own_queue(&setup, safe(&json!({"x-max-length": 1}))).await;
    for _ in 0..2 {
        let key = "chat-session.missed";
        setup.vhost.publish("chat-sessions", key, b"1").await;
    }
    for session in 0..3 {
        let event = format!(r#"[{{"id":"{session}","status":"missed"}}]"#);
        setup.bridge.post(event).await;
    }
    eventually("events are pending for long enough", 2 * SOON, || async {
        let status = setup.bridge.status().await;
        let oldest = status["backlog"]["oldest_seconds"].as_f64();
        oldest > Some(11.0)
    })
    .await;
    agrees(&setup.bridge, 1, "error: quorum queue `own` is full").await;

    setup.bridge.reconfigure("rabbitmq.management_url = \"\"");
    let first =
        "error: 3 events for exchange `chat-sessions` with key `chat-session.missed` rejected";
    agrees(&setup.bridge, 1, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_limit_used_by_bridge() {
    let setup = Setup::of(TICKETS).await;
    let path = format!("vhost-limits/{}/max-connections", setup.vhost.name);
    let one = json!({"value": 1});
    setup.vhost.management(Method::PUT, &path, &one).await;
    let checked = agrees(&setup.bridge, 0, "warning: amqp://127.0.0.1:").await;
    let expected = "has no room for the connection of `check`";
    assert!(checked.first.contains(expected), "{checked:#?}");
}
