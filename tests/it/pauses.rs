//! `pause` and `resume`: webhooks are accepted, events wait in the journal through restarts, and
//! arrive in order afterwards.

use serde_json::{Value, json};

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::bridge::run::Bridge;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::wait::{SOON, eventually};

/// Runs a command that is expected to succeed; returns what it says.
async fn said(bridge: &Bridge, command: &str, words: &[&str]) -> String {
    let output = bridge.run(command, words).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    text
}

/// Waits until so many pauses are in force in the bridge.
async fn has_pauses(bridge: &Bridge, count: u32) {
    eventually("the bridge notices the pauses", SOON, || async {
        let paused = bridge.status().await["paused"].clone();
        paused
            .as_array()
            .is_some_and(|all| all.len() == count as usize)
    })
    .await;
    assert!((bridge.metrics().await.sum("paused") - f64::from(count)).abs() < 0.1);
}

async fn post(bridge: &Bridge, id: &str, status: &str) {
    let sessions = array_of(&[session(id, status, json!({}))]);
    assert_eq!(bridge.post(sessions).await.status, 202);
}

fn backlog(status: &Value) -> u64 {
    status["backlog"]["events"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_events_wait_through_restarts_and_keep_order() {
    let (vhost, mut bridge) = on_shared_broker("").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let text = said(&bridge, "pause", &[]).await;
    assert!(text.contains("everything paused since "), "{text}");
    has_pauses(&bridge, 1).await;
    for status in ["created", "handled"] {
        post(&bridge, "chat", status).await;
    }
    consumer
        .receives_nothing_for(std::time::Duration::from_millis(500))
        .await;
    let status = bridge.status().await;
    assert_eq!(backlog(&status), 2, "{status}");
    assert!(bridge.ready().await);
    let output = bridge.run("status", &[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("everything is paused since "), "{text}");
    assert!(text.contains("`deskbridge resume`"), "{text}");

    // A stop does not wait for paused events, and a start publishes none.
    assert_eq!(bridge.terminate().await.status.code(), Some(0));
    bridge.start().await;
    bridge.broker_is("connected").await;
    bridge.says("publishing is paused by an operator").await;
    post(&bridge, "chat", "completed").await;
    bridge.kill().await;
    bridge.start().await;
    bridge.broker_is("connected").await;
    consumer
        .receives_nothing_for(std::time::Duration::from_millis(500))
        .await;
    // Again: it stays one pause.
    said(&bridge, "pause", &[]).await;
    has_pauses(&bridge, 1).await;

    let text = said(&bridge, "resume", &[]).await;
    assert!(
        text.contains("everything resumed; was paused since"),
        "{text}"
    );
    let messages = consumer.receive_n(3).await;
    let statuses: Vec<_> = messages.iter().map(|one| one.header("status")).collect();
    assert_eq!(statuses, ["created", "handled", "completed"]);
    bridge.backlog_is_empty().await;
    has_pauses(&bridge, 0).await;
    let text = said(&bridge, "resume", &[]).await;
    assert!(text.contains("nothing was paused"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_route_does_not_stop_the_others() {
    let (vhost, bridge) = on_shared_broker("").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    // Before and after the bridge knows the route.
    said(&bridge, "pause", &["chat-session.missed"]).await;
    has_pauses(&bridge, 1).await;
    post(&bridge, "one", "missed").await;
    post(&bridge, "two", "created").await;
    assert_eq!(consumer.receive().await.header("session-id"), "two");
    eventually("the route is shown as paused", SOON, || async {
        let status = bridge.status().await;
        let routes = status["routes"].as_array().unwrap().clone();
        let is_paused = |route: &Value| {
            route["routing_key"] == "chat-session.missed" && route["state"] == "paused"
        };
        routes.iter().any(is_paused)
    })
    .await;
    bridge.says("route paused by an operator").await;

    // A session of the paused route waits as a whole, so that it keeps its order.
    post(&bridge, "one", "handled").await;
    consumer
        .receives_nothing_for(std::time::Duration::from_millis(500))
        .await;

    // Another key is not paused; the pause of this one ends by its own name only.
    let output = bridge.run("resume", &["chat-session.created"]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("routing key `chat-session.created` is not paused"),
        "{text}"
    );
    assert!(
        text.contains("paused: routing key `chat-session.missed` since"),
        "{text}"
    );
    said(&bridge, "resume", &["chat-session.missed"]).await;
    let messages = consumer.receive_n(2).await;
    let statuses: Vec<_> = messages.iter().map(|one| one.header("status")).collect();
    assert_eq!(statuses, ["missed", "handled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_under_load_lose_nothing() {
    let (vhost, bridge) = on_shared_broker("").await;
    vhost.queue_bound("everything", "chat-sessions", "#").await;
    let consumer = Consumer::of(&vhost, "everything").await;
    let load = Load::start(bridge.address(), 4);
    for words in [
        &[][..],
        &["chat-session.created"],
        &["--exchange", "chat-sessions"],
    ] {
        load.accepts(50).await;
        said(&bridge, "pause", words).await;
        has_pauses(&bridge, 1).await;
        load.accepts(50).await;
        said(&bridge, "resume", words).await;
        has_pauses(&bridge, 0).await;
    }
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
    assert_eq!(ledger.arrives_at(&consumer).await, 0, "no duplicates");
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_pauses_are_reported_and_change_nothing() {
    let bridge = BridgeBuilder::at("amqp://localhost:1").build();
    let output = bridge.run("pause", &[]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("there is no journal in"), "{text}");

    let (vhost, bridge) = on_shared_broker("").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    std::fs::write(bridge.dir().join("journal/paused.json"), "[{").unwrap();
    bridge
        .says("the pauses cannot be read and stay as they were")
        .await;
    bridge.post(array_of_new("flows", 1)).await;
    consumer.receive().await;
    let output = bridge.run("pause", &[]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("paused.json"), "{text}");
}
